"""Processes that are killed: where something has happened, or at moments that nobody chose."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

PATIENCE = 120  # seconds: of a machine that has much else to do
# Of a start that went on from something; and what is dated or counts files that a kill may cut.
_OF_ONE_START = re.compile(r"_from_\d+\.|^environment|events\.out\.tfevents")


def kill_when(command: list[str], folder: Path, happens: Callable[[], object], pause: float = 0.001) -> None:
    """`python COMMAND` in a folder, ended by kill -9 when something has happened."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not happens():
        assert process.poll() is None
        time.sleep(pause)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL


@dataclass(frozen=True)
class Work:
    """What is to be killed.

    go: by name in its module, so that another process finds it; returns an exit code. It runs in a folder of its own,
    a copy of `given`.  begun: what is there, as a glob, once the work is at what is to be killed.
    within: seconds after that in which a kill comes, as the machine is; None: of the whole work.
    """

    go: Callable[[], int]
    given: Path
    begun: str
    within: float | None = None


def drill(work: Work, kills: int, scratch: Path, seed: int = 0) -> None:
    """Kill the work, and each time do the same again, until it is done; all files must then be as if it never was.

    Where it ends before its moment has come, the next one begins anew, until so many kills have hit.
    """
    whole, chance, hit, number = _copy(work, scratch / "whole"), random.Random(seed), 0, 0
    seconds = _timed(work, whole)
    while hit < kills:
        number += 1
        folder = _copy(work, scratch / f"killed{number}")
        while hit < kills and _is_killed(work, folder, chance.uniform(0, work.within or seconds)):
            hit += 1
        process = _start(work, folder)
        process.join()
        assert process.exitcode == 0, _log(folder).read_text()
        assert_same(whole, folder)
        shutil.rmtree(folder)
        assert number < 10 * kills, "it ends before it can be killed"


def assert_same(whole: Path, folder: Path) -> None:
    """The same files, hidden ones too, with the same bytes."""
    one, other = contents(whole), contents(folder)
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())
    different = [name for name in one if one[name] != other[name]]
    assert not different, [(name, one[name], other[name]) for name in different if name.endswith(".jsonl")] or different


def contents(folder: Path) -> dict[str, object]:
    """Relative name -> bytes, or the lines of what is logged without how fast it went."""
    files = (path for path in folder.rglob("*") if path.is_file() and not _OF_ONE_START.search(path.name))
    return {
        str(path.relative_to(folder)): logged(path) if path.name == "metrics.jsonl" else path.read_bytes()
        for path in files
    }


def logged(path: Path) -> list[dict[str, float]]:
    """Lines of metrics.jsonl without the speed."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "train/images_per_s"} for row in rows]


def _copy(work: Work, folder: Path) -> Path:
    shutil.copytree(work.given, folder)
    return folder


def _timed(work: Work, folder: Path) -> float:
    """Does the work; the seconds from when it had begun to its end."""
    process = _start(work, folder)
    start = _when_begun(work, folder, process) or time.monotonic()
    process.join()
    assert process.exitcode == 0, _log(folder).read_text()
    return time.monotonic() - start


def _is_killed(work: Work, folder: Path, after: float) -> bool:
    """Whether it was still at work."""
    process = _start(work, folder)
    if _when_begun(work, folder, process):
        process.join(after)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), _log(folder).read_text()
    return process.exitcode == -signal.SIGKILL


def _when_begun(work: Work, folder: Path, process: multiprocessing.Process) -> float | None:
    latest = time.monotonic() + PATIENCE
    while not any(folder.glob(work.begun)):
        if process.exitcode is not None:
            return None
        assert time.monotonic() < latest, _log(folder).read_text()
        time.sleep(0.0005)
    return time.monotonic()


def _start(work: Work, folder: Path) -> multiprocessing.Process:
    """From a server that has loaded all libraries already, which takes longer than the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.go.__module__])
    process = context.Process(target=_go, args=(work.go, folder))
    process.start()
    return process


def _log(folder: Path) -> Path:
    return folder.with_suffix(".log")


def _go(go: Callable[[], int], folder: Path) -> None:
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(_log(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    torch.set_num_threads(1)  # other numbers of threads round differently
    sys.exit(go())
