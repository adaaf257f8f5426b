"""Damages files of every kind at random and has them read: python -m tests.drill --cases 100000 --seed 0

A case is one file and one reader. It is wrong where anything but a documented error comes, a file outside the case's
folder is written, a program or connection started, the process ends, or more than 2 s of work or 1 GB are taken.
"""

import argparse
import faulthandler
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch

from core import hdf5_ends
from core.command import is_foreseen
from tests.fuzz import SECONDS
from tests.fuzz_kinds import KINDS, Kind

WORK = 2.0  # seconds
MEMORY = 1 << 20  # kB more than before
READ, REFUSED = "read", "refused"
Told = tuple[int, str, str]  # case; reader; READ, REFUSED, what is wrong, or '' at its beginning
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_PATHS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "ctypes.dlopen")


def drill(kind: Kind, cases: int, seed: Sequence[int], folder: Path) -> Iterator[Told]:
    """The end of each case. A process that ended is followed by another."""
    (folder / "whole").mkdir(parents=True)
    (folder / "case").mkdir()
    kind.make(folder / "whole")
    start = 0
    while start < cases:
        for case, reader, end in _watched(kind, range(start, cases), seed, folder):
            start = case + 1
            if end:
                yield case, reader, end
    for stranger in {path.name for path in folder.iterdir()} - {"whole", "case"}:
        yield cases, "", f"left {stranger} beside its folder"


def _watched(kind: Kind, cases: range, seed: Sequence[int], folder: Path) -> Iterator[Told]:
    """What a process tells that does the cases, until it ends or is ended; the last is the end of a case."""
    context = multiprocessing.get_context("fork")  # everything is imported already
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_do, args=(kind, cases, seed, folder, writing), daemon=True)
    process.start()
    writing.close()
    case, reader, end = cases.start, "", ""
    try:
        while reading.poll(SECONDS):
            case, reader, end = reading.recv()
            yield case, reader, end
        process.kill()
    except EOFError:
        pass
    process.join()
    if not end:
        yield case, reader, f"ended by {process.exitcode}, or after {SECONDS} s"


def _do(kind: Kind, cases: range, seed: Sequence[int], folder: Path, tell: Connection) -> None:
    _silence()
    files = [path for path in sorted((folder / "whole").iterdir()) if kind.of(path)]
    tempfile.tempdir = str(folder / "case")
    written = _watch_writes(folder / "case")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in cases:
        rng = np.random.default_rng((*seed, case))
        whole = files[rng.integers(len(files))]
        readers = kind.of(whole)
        name, read = readers[rng.integers(len(readers))]
        tell.send((case, f"{name} of {whole.name}", ""))
        (path := folder / "case" / whole.name).write_bytes(kind.change(whole.read_bytes(), rng))
        start = time.process_time()
        try:
            read(path)
            end = READ
        except BaseException as error:
            known = isinstance(error, kind.foreseen) or (is_foreseen(error) and not isinstance(error, MemoryError))
            end = REFUSED if known else traceback.format_exc()
        if (work := time.process_time() - start) > WORK:
            end = f"took {work:.1f} s of work"
        if (more := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MEMORY:
            end = f"took {more >> 10:,} MB"
        if written:
            end = f"did {written}"
        tell.send((case, f"{name} of {whole.name}", end))
        if more > MEMORY or written:
            return


def _silence() -> None:
    """What libraries print is not looked at, and nothing is read from the terminal."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    faulthandler.disable()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _watch_writes(folder: Path) -> list[str]:
    """A list to which is added what Python writes outside the folder, and starts."""
    written, inside = list[str](), (str(folder), os.devnull, "/dev/null")

    def watch(event: str, arguments: tuple) -> None:
        is_written = event in _PATHS or (event == "open" and arguments[2] and arguments[2] & _WRITES)
        named = arguments[: 1 if event == "open" else 2] if is_written else ()
        paths = [os.fsdecode(path) for path in named if isinstance(path, str | bytes | os.PathLike)]
        is_ours = event == "subprocess.Popen" and hdf5_ends.READ in arguments[1]
        if (event in _STARTS and not is_ours) or not all(os.path.realpath(path).startswith(inside) for path in paths):
            written.append(f"{event} {arguments}")

    sys.addaudithook(watch)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args(argv)
    total = found = 0
    for name in arguments.only:
        start, ends = time.monotonic(), Counter[str]()
        seed = (arguments.seed, zlib.crc32(name.encode()))
        with tempfile.TemporaryDirectory() as folder:
            for case, reader, end in drill(KINDS[name], round(KINDS[name].share * arguments.cases), seed, Path(folder)):
                ends[end if end in (READ, REFUSED) else "wrong"] += 1
                if end not in (READ, REFUSED):
                    print(f"{name}, case {case}, {reader}: {end}", flush=True)
        total, found = total + ends.total(), found + ends["wrong"]
        print(f"{name}: {dict(ends)}, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{total:,} cases of seed {arguments.seed}, {found} wrong")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
