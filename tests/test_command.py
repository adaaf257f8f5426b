"""What every command does with mistakes of the user, of the machine and of the program, and with Ctrl-C."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from core.command import UserError, run_command
from core.tracking import say

ROOT = Path(__file__).resolve().parent.parent


class FailingRun:
    """A run that has begun and raises."""

    def __init__(self, folder: Path, error: BaseException) -> None:
        self.folder, self.error = folder, error

    def go(self) -> int:
        raise self.error

    def whereabouts(self) -> str:
        return "the last checkpoint is 3.pt"


def preparing(error: BaseException) -> Callable[[], FailingRun]:
    def prepare() -> FailingRun:
        raise error

    return prepare


def test_a_mistake_says_where_what_was_found_what_was_expected_and_what_to_do() -> None:
    error = UserError("faces.h5", "labels of width 2", expected="at least 4", remedy="Re-run preprocessing.")
    assert str(error) == "faces.h5: labels of width 2, expected at least 4. Re-run preprocessing."
    assert str(UserError("faces.h5", "no such file")) == "faces.h5: no such file."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


class Damaged(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise UserError("faces.h5", "cannot be read", remedy="Copy it again.")


def test_a_mistake_found_by_a_loader_process_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Reading(FailingRun):
        def go(self) -> int:
            return sum(DataLoader(Damaged(), num_workers=1))

    assert run_command(lambda: Reading(tmp_path, ValueError())) == 1
    error = capsys.readouterr().err
    assert "error: faces.h5: cannot be read. Copy it again. (the last checkpoint is 3.pt" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("error", [UserError("a.json", "not JSON"), PermissionError(13, "not permitted", "a.json")])
def test_input_that_cannot_be_used_ends_with_2(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(preparing(error)) == 2
    assert capsys.readouterr().err.startswith("error: ") and "a.json" in str(error)


def test_a_bug_while_a_run_is_prepared_shows_its_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"):
        run_command(preparing(ValueError("a bug")))


def test_a_bug_in_a_run_shows_its_traceback_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: FailingRun(tmp_path, KeyError("a bug"))) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error and "the last checkpoint is 3.pt" in error
    assert "Traceback" in (tmp_path / "error.txt").read_text()


def test_a_full_disk_in_a_run_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: FailingRun(tmp_path, OSError(28, "No space left on device"))) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_ends_with_130() -> None:
    assert run_command(preparing(KeyboardInterrupt())) == 130
    assert run_command(lambda: FailingRun(Path(), KeyboardInterrupt())) == 130


def test_error_txt_takes_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"photo-\xff.jpg")
    assert run_command(lambda: FailingRun(tmp_path, UserError(name, "damaged"))) == 1
    assert "photo-\\udcff.jpg" in (tmp_path / "error.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", ["train_st_ed.py", "train_facenet.py"])
def test_a_message_reaches_a_terminal_that_has_no_letters_for_it(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "配置.json"],
        cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2 and rb"\u914d\u7f6e.json: no such config file" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        *([script, "config/augmentation.json"] for script in ("train_st_ed.py", "train_facenet.py", "augmentation.py")),
        ["-m", "pretrained_models"],
    ],
)
def test_ctrl_c_in_a_slow_import_is_answered_without_a_traceback(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, *words]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline().strip() == b"importing"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and b"Traceback" not in error


def test_a_message_quotes_no_escapes_and_fits_onto_a_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "\x1b[2Jgone\r\x9b\u202e\0\n" + "person " * 9_000 + "\n" * 9_000 + "Remove it."
    for error in (UserError("a.h5", said), OSError(said)):
        assert run_command(preparing(error)) == 2
        assert run_command(lambda error=error: FailingRun(tmp_path, error)) == 1
        text = capsys.readouterr().err
        assert "\\x1b[2Jgone\\r\\x9b\\u202e\\x00\n" in text and "more lines\nRemove it." in text
        assert len(text) < 2 * 2_000 and text.count("\n") < 2 * 26 and text.replace("\n", "").isprintable()
        assert (tmp_path / "error.txt").read_text().replace("\n", "").isprintable()
    say("person \x1b[2J")
    assert capsys.readouterr().out == "person \\x1b[2J\n"
    assert str(UserError("写真 é.jpg", "ok")) == "写真 é.jpg: ok."


@pytest.mark.parametrize(("given", "spins"), [({}, "2000"), ({"OMP_WAIT_POLICY": "active"}, "None")])
def test_every_command_bounds_how_long_threads_spin_before_torch_is_loaded(given: dict[str, str], spins: str) -> None:
    names = ("train_st_ed", "train_facenet", "redirect", "demo", "preprocess.__main__")
    script = f"import sys, os, {', '.join(names)}; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    own = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=own | given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", spins]
