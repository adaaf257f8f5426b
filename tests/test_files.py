"""Files: whole or not at all; text that any name fits into and that any editor may have written."""

import codecs
import os
import zipfile
from pathlib import Path

import pytest

from core import record
from core.command import UserError
from core.files import atomic_write, file_name, read_json, read_text, require_writable, write_json, write_text


@pytest.mark.parametrize(
    "content",
    [
        '{"name": "Zoë ±"}'.encode(),
        codecs.BOM_UTF8 + '{"name": "Zoë ±"}'.encode(),
        '{"name": "Zoë ±"}'.encode("utf-16"),
        codecs.BOM_UTF16_BE + '{"name": "Zoë ±"}'.encode("utf-16-be"),
    ],
)
def test_text_is_read_with_and_without_a_byte_order_mark(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") == {"name": "Zoë ±"}


def test_a_name_without_utf_8_is_written_as_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", os.fsdecode(b"photo-\xff ") + "±")
    assert read_text(tmp_path / "a.txt") == "photo-\\udcff ±"


def test_bytes_that_are_no_utf_8_are_read_as_escapes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\r\nnext")
    assert read_text(tmp_path / "a.txt") == "caf\\xe9\nnext"


@pytest.mark.parametrize(
    "name", ["..", ".", "../../a", "/etc/a", "a\0b", "a\\b", "名" * 40, "\udcff", "a\nb", "x" * 999]
)
def test_a_name_never_is_a_path_and_fits_onto_a_disk(name: str, tmp_path: Path) -> None:
    with atomic_write(tmp_path / file_name(name)) as temporary:
        temporary.touch()
    (written,) = tmp_path.iterdir()
    assert written.name == file_name(name) and written.name.isascii() and written.name != file_name(name + ".")
    assert file_name("p00") == "p00" and file_name("00_a-1.x~") == "00_a-1.x~"


def test_a_failure_leaves_the_earlier_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"step": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"step": object()})
    with pytest.raises(OSError), atomic_write(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise OSError
    assert read_json(tmp_path / "a.json") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_a_kill_left_of_a_file_goes_when_it_is_written_again(tmp_path: Path) -> None:
    names = (".a.png.99999999.tmp", ".a[1].png.99999999.tmp", ".other.png.99999999.tmp", f".a.png.{os.getppid()}.tmp")
    for name in names:
        (tmp_path / name).touch()
    for name in ("a.png", "a[1].png"):
        with atomic_write(tmp_path / name) as temporary:
            temporary.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a[1].png", *names[2:]}


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="save_path: .*file.run cannot be written .*Choose another"):
        require_writable(tmp_path / "file" / "run", "save_path")


@pytest.mark.timeout(20)  # whoever opens the pipe waits for ever
def test_a_snapshot_never_stops_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file from before 1980, a dangling link, an editor's lock, a loop of links, a pipe, a folder, a stray byte."""
    config = tmp_path / "config"
    config.mkdir()
    for name in ("old.json", os.fsdecode(b"caf\xe9.json")):
        (config / name).write_text("{}")
    os.utime(config / "old.json", (0, 0))
    (config / "gone.json").symlink_to(config / "nowhere")
    (config / ".#quickstart.json").symlink_to("somebody@host.1234:567")
    (config / "loop.json").symlink_to(config / "loop.json")
    os.mkfifo(config / "pipe.json")
    (config / "folder.json").mkdir()
    monkeypatch.setattr(record, "REPOSITORY", tmp_path)
    record.snapshot(tmp_path / "source.zip", tmp_path / "run")
    assert sorted(zipfile.ZipFile(tmp_path / "source.zip").namelist()) == ["config/caf\\udce9.json", "config/old.json"]
    said = capsys.readouterr().out
    assert all(name in said for name in ("gone.json", ".#quickstart.json", "loop.json", "pipe.json", "folder.json"))


def test_a_snapshot_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record.snapshot(tmp_path / "nowhere" / "source.zip", tmp_path)
    assert "the source was not kept" in capsys.readouterr().out


def test_json_nested_too_deep_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(tmp_path / "a.json")
