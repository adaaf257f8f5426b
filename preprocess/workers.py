"""Jobs in several processes, which end with the one that started them."""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import TypeVar

import cv2

Result = TypeVar("Result")


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(work: Callable[..., Result], jobs: Sequence[tuple], workers: int) -> Iterator[Result]:
    """`work` over jobs, as they get done. Raises OSError if a process is killed; the others are stopped then."""
    if min(workers, len(jobs)) <= 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield from itertools.starmap(work, jobs)
        finally:
            cv2.setNumThreads(threads)
        return
    others = set(active_children())
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        for done in as_completed([pool.submit(work, *job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool as error:
        raise OSError(
            "A worker process ended without a word: the memory or the disk may be full. The same command goes on; "
            "give it fewer --workers."
        ) from error
    except BaseException:
        for worker in set(active_children()) - others:  # they would finish their persons first
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C and stops the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()  # a killed parent would leave its workers waiting for ever
    os._exit(1)
