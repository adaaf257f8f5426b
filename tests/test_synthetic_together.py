"""The embedded data set after a kill at any moment, and on a full disk: the same command makes it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core import owner, sources
from core.config_default import Config
from core.owner import own
from preprocess.__main__ import main
from preprocess.synthetic.dataset import output_names
from tests.test_owner import holder

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--persons", "4", "--samples", "2", "--image-size", "64", "--aligned", "64", "--workers", "1")


def command(out: Path) -> list[str]:
    return ["synthetic", "--out", str(out), *SMALL]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "data"
    assert main(command(out)) == 0
    return out


@pytest.mark.parametrize("moved", [0, 1, 2, 7, 10])
def test_a_kill_between_two_renames_is_made_good_by_the_same_command(moved: int, written: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from preprocess import __main__; from preprocess.synthetic import together\n"
        "class Dying:\n"
        "    left = 1 + int(sys.argv[1])\n"
        "    def replace(self, old, new):\n"
        "        self.left or os._exit(9)\n"
        "        self.left -= 1; os.replace(old, new)\n"
        "together.os = Dying()\n"
        "__main__.main(sys.argv[2:])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(moved), *command(tmp_path / "data")], cwd=ROOT, timeout=100)
    names = output_names(64, 64)
    assert done.returncode == (9 if moved < len(names) else 0)
    there = [name for name in names if (tmp_path / "data" / name).exists()]
    assert len(there) == moved and ("GazeCapture_64.h5" in there) <= (moved >= len(names) - 1)
    assert moved == len(names) or main(command(tmp_path / "data")) == 0
    assert content(tmp_path / "data") == content(written)


def test_what_a_killed_command_had_half_drawn_is_removed(written: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / ".synthetic-abc").mkdir(parents=True)
    (tmp_path / "data" / ".synthetic-abc" / "GazeCapture_64.h5").write_bytes(b"half")
    assert main(command(tmp_path / "data")) == 0
    assert content(tmp_path / "data") == content(written)


def test_two_commands_do_not_draw_into_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with own(tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "preprocess", *command(tmp_path)], cwd=ROOT, capture_output=True, text=True
        )
    assert done.returncode == 2 and f"is in use by process {os.getpid()}" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_second_start_waits_for_the_data_that_the_first_makes(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(synthetic_data=True, gazecapture_file=str(tmp_path / "GazeCapture_64.h5"))
    with holder(tmp_path) as (first, _):

        def makes_it(_: float) -> None:
            shutil.copytree(written, tmp_path, dirs_exist_ok=True)
            first.kill()
            first.wait()

        monkeypatch.setattr(owner.time, "sleep", makes_it)
        sources.make_missing_data(config)
    said = capsys.readouterr().out
    assert f"is in use by process {first.pid}" in said and "This process waits" in said and "Making" not in said
    assert content(tmp_path) == content(written)


def test_two_starts_at_once_make_their_data_once(written: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from core.config_default import Config; from core import sources\n"
        "given = dict(synthetic_persons=6, synthetic_samples=2, synthetic_data=True, gazecapture_file=sys.argv[1])\n"
        "sources.make_missing_data(Config(**given))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data" / "GazeCapture_64.h5")]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(one.communicate(timeout=100)[0] for one in both)
    assert [one.returncode for one in both] == [0, 0] and said.count("Making the embedded data set") == 1
    assert not list((tmp_path / "data").glob(".*"))


@pytest.mark.parametrize("limit", [500, 20_000, 90_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(limit: int, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from preprocess.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))\n"
        "sys.exit(main(sys.argv[2:]))"
    )
    arguments = [sys.executable, "-c", code, str(limit), *command(tmp_path / "data")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "GazeCapture_64.h5: cannot be written (File too large). At least 0." in done.stderr
    assert "MB left. Make room or choose another folder; the same command goes on." in done.stderr
    assert not list(tmp_path.iterdir())
