"""Jobs in several processes, which end with the one that started them."""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process, resource_tracker
from typing import TypeVar

import cv2

Result = TypeVar("Result")


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(work: Callable[..., Result], jobs: Sequence[tuple], workers: int) -> Iterator[Result]:
    """`work` over jobs, as they get done. Raises OSError if a process is killed; the others are stopped then."""
    if min(workers, len(jobs)) <= 1:
        with one_thread():
            yield from itertools.starmap(work, jobs)
        return
    others = set(active_children())
    pool = start_pool(min(workers, len(jobs)))
    try:
        for done in as_completed([submit(pool, work, *job) for job in jobs]):
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


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV computes with one thread meanwhile, as in a worker process."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def start_pool(workers: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which leave Ctrl-C to this one and end with it; for `submit`."""
    resource_tracker.ensure_running()  # later it would unblock what `submit` blocks
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)


def submit(pool: ProcessPoolExecutor, work: Callable[..., Result], *job: object) -> Future[Result]:
    """A job for a pool. A process that begins with it does not see Ctrl-C: its imports would show a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return pool.submit(work, *job)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # new processes inherit it
    try:
        return pool.submit(work, *job)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C and stops the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()  # a killed parent would leave its workers waiting for ever
    os._exit(1)
