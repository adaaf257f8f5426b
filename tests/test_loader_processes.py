"""A process that reads data is killed, stopped or out of memory: a sentence, and the same command goes on."""

# ruff: noqa: F811  the fixture setup is imported

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from core import loading
from core.trainer import RedirectionTrainer
from dataset import GazeDataset
from tests.test_train_st_ed import equal, final_weights, run_once, setup  # noqa: F401  a fixture
from train_st_ed import main

FLAGS = ["config.json", "--num-data-loaders", "2", "--num-training-steps", "20", "--no-compute-full-result"]
FLAGS += ["--print-freq-test", "1000", "--save-freq-images", "1000", "--no-use-tensorboard"]
AT = 7  # done and saved before


def before_step(step: int, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = RedirectionTrainer.train_step

    def train_step(self: RedirectionTrainer, batch: Any, now: int) -> Any:
        if now == step:
            action()
        return usual(self, batch, now)

    monkeypatch.setattr(RedirectionTrainer, "train_step", train_step)


def signal_a_worker(number: int) -> None:
    worker = multiprocessing.active_children()[0]
    assert worker.pid is not None
    os.kill(worker.pid, number)


@pytest.fixture
def whole(setup: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`setup` and, in whole, a run without a disturbance."""
    shutil.copytree(run_once(tmp_path_factory, *FLAGS[1:]) / "run", setup / "whole")
    return setup


@pytest.mark.parametrize(
    "number, said",
    [
        (signal.SIGKILL, "A process that reads data ended, usually for want of memory."),
        pytest.param(
            signal.SIGSTOP,
            "DataLoader timed out after 3 seconds. A process that reads data was stopped, or the disk",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_worker_that_is_killed_or_stopped_ends_the_run_and_it_goes_on(
    number: int, said: str, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(loading, "PATIENCE", 3)
        before_step(AT, lambda: signal_a_worker(number), patched)
        assert main(FLAGS) == 1
    error = capfd.readouterr().err
    assert said in error and "the last checkpoint is " in error and "goes on from the last checkpoint" in error
    assert not multiprocessing.active_children()
    assert main(FLAGS) == 0
    assert equal(final_weights(whole / "whole", 20), final_weights(whole / "run", 20))


@pytest.mark.parametrize(
    "dead, said", [(True, "A DataLoader worker is gone"), (False, "DataLoader timed out after 0.2 seconds")]
)
def test_a_death_that_nobody_was_told_of_is_not_called_a_disk_that_does_not_answer(
    dead: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch raises once, wherever Python is, which may be where an exception is lost."""
    monkeypatch.setattr(loading, "PATIENCE", 0.2)
    spawn = multiprocessing.get_context("spawn").Process
    workers: list[BaseProcess] = [spawn(target=time.sleep, args=(60,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    if dead:
        workers[0].kill()
        workers[0].join()

    def batches() -> Iterator[object]:
        workers[1].join()  # as the loader waits for what does not come
        raise RuntimeError("nothing came")
        yield

    with pytest.raises(RuntimeError, match=said):
        next(loading._watched(batches(), workers))
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.slow
def test_a_worker_without_memory_is_said_in_a_sentence(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    usual = GazeDataset.entry

    def entry(self: GazeDataset, index: int) -> Any:
        if multiprocessing.parent_process() is not None:
            raise MemoryError
        return usual(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(GazeDataset, "entry", entry)
        assert main(FLAGS) == 1
    error = capfd.readouterr().err
    assert "error: out of memory (MemoryError). Lower batch_size" in error and "Traceback" not in error
    assert main(FLAGS) == 0
    assert equal(final_weights(whole / "whole", 20), final_weights(whole / "run", 20))
