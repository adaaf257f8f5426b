"""Asked to stop, or left without its data, disk or clock: a sentence, the last good state, the right exit code."""

# ruff: noqa: F811  the fixture setup is imported

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

import core.run as run_room
from checkpoints_manager import saved_steps
from core import files
from core.disk import Disk
from tests.kills import logged
from tests.test_loader_processes import FLAGS, before_step, whole  # noqa: F401  a fixture
from tests.test_train_st_ed import equal, final_weights, run_once, setup  # noqa: F401  a fixture
from train_st_ed import main

AT = 8  # the step in which it happens; the seventh is done, the sixth is saved
SAME = "Stopped; the last checkpoint is 6.pt."


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A shell has what it starts in the background, as these tests may be, not hear Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(*numbers: int) -> Callable[[], None]:
    """Signals to this process."""

    def act() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return act


def require_same_after(whole: Path) -> None:
    """The same command once more: everything as if nothing had come between, and nothing left over."""
    assert main(FLAGS) == 0
    assert equal(final_weights(whole / "whole", 20), final_weights(whole / "run", 20))
    assert logged(whole / "whole" / "metrics.jsonl") == logged(whole / "run" / "metrics.jsonl")
    assert not list((whole / "run").rglob(".*")) and not (whole / "run" / "error.txt").exists()


@pytest.mark.parametrize(
    "numbers, last, said",
    [
        ([signal.SIGINT], 8, "Stopped at step 8; the same command continues from there."),
        pytest.param(
            [signal.SIGTERM], 8, "Stopped at step 8; the same command continues from there.", marks=pytest.mark.slow
        ),
        pytest.param([signal.SIGINT, signal.SIGINT], 6, SAME, marks=pytest.mark.slow),
        ([signal.SIGTERM, signal.SIGINT], 6, SAME),
    ],
)
def test_once_ends_after_the_step_and_twice_at_once(
    numbers: list[int], last: int, said: str, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patched:
        before_step(AT - 1, send(*numbers), patched)
        assert main(FLAGS) == 130
    told = capfd.readouterr()
    assert said in told.out + told.err and "Traceback" not in told.err
    assert saved_steps(whole / "run")[-1] == last
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    require_same_after(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_evaluation_is_stopped_at_once_and_made_again_without_a_line_twice(
    number: int,
    setup: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    whole = run_once(tmp_path_factory) / "run"
    usual, calls = run_room.print_result, send(number)
    monkeypatch.setattr(run_room, "print_result", lambda results: (calls(), usual(results)))
    assert main(["config.json"]) == 130
    assert SAME in capfd.readouterr().err and not (setup / "run" / ".owner").exists()
    monkeypatch.setattr(run_room, "print_result", usual)
    assert main(["config.json"]) == 0
    assert logged(whole / "metrics.jsonl") == logged(setup / "run" / "metrics.jsonl")


def test_what_asks_to_stop_before_the_run_begins_leaves_nothing(
    setup: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr("core.prepare.start_file", lambda *_: send(signal.SIGTERM)())
    assert main(["config.json"]) == 130
    assert capfd.readouterr().err == "Stopped; the same command goes on.\n" and not (setup / "run").exists()


def test_a_folder_that_becomes_read_only_costs_what_was_not_saved(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """As a disk does with an error; permissions would not hold for root."""

    class ReadOnly(Disk):
        def __init__(self, path: Path, mode: str = "w+b") -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patched:
        before_step(AT - 1, lambda: patched.setattr(files, "Disk", ReadOnly), patched)
        assert main(FLAGS) == 1
    error = capfd.readouterr().err
    assert (
        "error: [Errno 30] Read-only file system: 'run/checkpoints/" in error and "the last checkpoint is 6.pt" in error
    )
    assert "Traceback" not in error
    require_same_after(whole)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_data_that_vanish_are_named_and_the_run_goes_on_when_they_are_back(
    workers: int, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """As on a network drive that is gone: the file is open, and cannot be read."""
    data = (whole / "gc.h5").read_bytes()
    with monkeypatch.context() as patched:
        before_step(AT - 1, lambda: os.truncate("gc.h5", 4096), patched)
        assert main([*FLAGS, "--num-data-loaders", str(workers)]) == 1
    error = capfd.readouterr().err
    assert "error: gc.h5: person '0000" in error and "the last checkpoint is " in error and "Traceback" not in error
    (whole / "gc.h5").write_bytes(data)
    require_same_after(whole)


def test_a_clock_that_jumps_back_changes_nothing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumped, usual = [0.0], time.time

    def jump() -> None:
        jumped[0] = 3600.0

    with monkeypatch.context() as patched:
        for name in ("tqdm.std.time", "time.time"):
            patched.setattr(name, lambda: usual() - jumped[0])
        before_step(AT - 1, jump, patched)
        assert main(FLAGS) == 0
    require_same_after(whole)
    rows = [json.loads(line) for line in (whole / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["train/images_per_s"] >= 0 for row in rows if "train/images_per_s" in row)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_for_tensorboard_is_a_sentence(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """TensorBoard writes in a thread, and hands on its error without a name."""

    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        before_step(AT - 1, lambda: patched.setattr(RecordWriter, "write", write), patched)
        assert main([*FLAGS, "--use-tensorboard"]) == 1
    error = capfd.readouterr().err
    assert "error: run/tensorboard: cannot be written (No space left on device). The disk has " in error
    assert "the same command goes on" in error and "the last checkpoint is 6.pt" in error
    require_same_after(whole)
