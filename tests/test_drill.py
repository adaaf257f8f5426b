"""What the drill found, each once; and that the drill finds what is wrong."""

import mmap
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from core.command import UserError
from core.redirection.video_files import open_video
from preprocess.datasets.eyediap_files import DamagedSession, read_video
from preprocess.face_model import load_face_model
from tests.clips import write_clip
from tests.drill import READ, REFUSED, drill
from tests.fuzz_kinds import KINDS, Kind


@pytest.mark.timeout(250)
@pytest.mark.parametrize("name", KINDS)
def test_some_damaged_files_of_each_kind_are_read_or_refused(tmp_path: Path, name: str) -> None:
    ends = {(reader, end) for _, reader, end in drill(KINDS[name], 25, (0, 1), tmp_path)}
    assert {(reader, end) for reader, end in ends if end not in (READ, REFUSED)} == set()


def raise_something(path: Path) -> None:
    raise KeyError(path.name)


def write_elsewhere(path: Path) -> None:
    (path.parent.parent / "x").write_text("x")


def run_something(path: Path) -> None:
    os.system("true")


def end_the_process(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def work(path: Path) -> None:
    while time.process_time() < 1000:
        pass


def take_memory(path: Path) -> None:
    np.frombuffer(mmap.mmap(-1, 400_000_000), np.uint8)[:] = 1  # not what an earlier test freed and kept


WRONG = {
    "Traceback": raise_something, "did .*open": write_elsewhere, "did .*os.system": run_something,
    "ended by -11": end_the_process, "after 1 s": work, "took 3.. MB": take_memory,
}  # fmt: skip


@pytest.mark.parametrize("said", WRONG)
def test_the_drill_tells_what_is_wrong_and_goes_on(tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.drill.SECONDS", 1 if said.startswith("after") else 20)
    monkeypatch.setattr("tests.drill.MEMORY", 100_000)
    kind = Kind(1, lambda folder: (folder / "a").write_bytes(b"content"), {"": {"reader": WRONG[said]}})
    told = [(case, end) for case, reader, end in drill(kind, 2, (0,), tmp_path) if reader]
    assert [case for case, _ in told] == [0, 1]
    assert all(re.search(said, end) for _, end in told), told


# What was found


def with_bytes(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def play(path: Path) -> None:
    with open_video(path) as clip:
        list(clip)


@pytest.mark.parametrize("read", [play, lambda path: list(read_video(path, 1))])
def test_a_video_is_played_whatever_its_notes_are(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = write_clip(tmp_path / "a.mkv", [np.zeros((32, 48, 3), np.uint8)] * 2, sound=None, title="a title")
    with_bytes(path, b"a title", b"\xff\x80title")
    read(path)


def test_a_session_that_nothing_decodes_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", [np.zeros((32, 48, 3), np.uint8)] * 2, sound=None)
    with_bytes(path, b"V_MPEG4/ISO/AVC", b"V_NOBODY/KNOWS/")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context is None
    with pytest.raises(DamagedSession, match="a.mkv cannot be read as a video: nothing here decodes it"):
        list(read_video(path, 1))


def test_a_face_model_with_a_header_that_is_no_python_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "model.npy", np.zeros((68, 3)))
    with_bytes(tmp_path / "model.npy", b"{'descr'", b"\x7f'descr'")
    with pytest.raises(UserError, match="model.npy: not a .npy file of numbers"):
        load_face_model(tmp_path / "model.npy")
