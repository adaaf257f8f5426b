"""Several processes on this machine, as torchrun or a scheduler starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from core.distributed import _Group

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(words: list[str], count: int, folder: Path, port: int | None = None) -> list[subprocess.Popen[str]]:
    """`python WORDS` in so many processes that know of one another, one thread each."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port()), "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=os.environ
            | shared
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)}
            | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def run(words: list[str], count: int, folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """As `start`, to the end."""
    started = start(words, count, folder)
    told = [one.communicate(timeout=240) for one in started]
    return [
        subprocess.CompletedProcess(words, one.returncode, *texts) for one, texts in zip(started, told, strict=True)
    ]


def stand_in(rank: int, size: int) -> _Group:
    """For what asks nothing of the others."""
    return _Group(rank, size)
