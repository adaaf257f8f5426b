"""A DataLoader that waits for its processes only so long: one may be stopped, or killed while it hands over a batch."""

import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

PATIENCE = 300  # seconds for a batch


class PatientLoader(DataLoader[Any]):
    """PyTorch's own `timeout` does not cover the handing over, in which a process that is stopped is waited for, too.

    Its iterator raises RuntimeError where no batch comes, or a process ended; see `core.command.is_foreseen`.
    """

    def __iter__(self) -> Any:
        before = multiprocessing.active_children()
        batches = super().__iter__()
        workers = [process for process in multiprocessing.active_children() if process not in before]
        return _watched(batches, workers) if workers else batches


def _watched(batches: Iterator[Any], workers: list[BaseProcess]) -> Iterator[Any]:
    is_late, has_ended = threading.Event(), threading.Event()

    def end() -> None:
        if any(worker.exitcode for worker in workers):  # before they are killed here; PyTorch tells of it once
            has_ended.set()
        is_late.set()
        for worker in workers:  # a process that is stopped hears nothing else, and would be waited for at the end, too
            worker.kill()

    while True:
        timer = threading.Timer(PATIENCE, end)
        timer.daemon = True
        timer.start()
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception as error:
            if is_late.is_set():
                _bury(workers)
                if not has_ended.is_set():
                    raise RuntimeError(f"DataLoader timed out after {PATIENCE} seconds") from error
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("A DataLoader worker is gone") from error
            raise
        finally:
            timer.cancel()
        yield batch


def _bury(killed: list[BaseProcess]) -> None:
    """Wait for processes that were killed: PyTorch raises wherever Python is when the signal of a death comes, once."""
    for worker in killed:
        try:
            worker.join()
        except RuntimeError:
            worker.join()
