"""Damage at random, the same for the same seed, and what reads it in a process that can be ended."""

import os
import re
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.command import is_foreseen

Reader = Callable[[Path], object]
SECONDS = 20  # for one case, on a machine that others use as well


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with up to eight bytes, or a stretch, changed; or cut short."""
    changed = np.frombuffer(content, np.uint8).copy()
    kind = rng.integers(10)
    if kind == 0:
        return content[: rng.integers(len(content))]
    at = rng.integers(len(content), size=1 if kind == 1 else rng.integers(1, 9))
    values = rng.choice(np.array([0, 1, 2, 127, 128, 254, 255], np.uint8), len(at)) if kind < 6 else None
    changed[at] = rng.integers(0, 256, len(at), np.uint8) if values is None else values
    if kind == 1:
        changed[at[0] : at[0] + rng.integers(1, 64)] = rng.integers(256)
    return changed.tobytes()


_WORDS = re.compile(rb'"[^"\n]*"|[-+.\w]+|\s+|.', re.DOTALL)
_ODD = [
    b"1" + b"0" * 400, b"-1e999", b"nan", b"NaN", b"Infinity", b"null", b"true", b'""', b"[]", b"{}", b"0",
    b"-1", b"1e-320", b"9223372036854775808", b"[" * 3000, b'"\\ud800"', b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"'",
    b",", b":", b"../../x", b'"/dev/zero"', b"1_000", b"0x10", b"\xe2\x80\xae", b"\x1b[2J", b"a" * 5000,
    b"[1, 2]", b'{"a": 1}',
]  # fmt: skip


def odd_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Up to three of the words of a text put in another's place, left out, doubled, or odd."""
    words = _WORDS.findall(content)
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(words))), rng.integers(5)
        new = [_ODD[rng.integers(len(_ODD))], words[rng.integers(len(words))], b"", words[at] * 2, words[at]][kind]
        words[at] = new + _ODD[rng.integers(len(_ODD))] * int(kind == 4)
    return b"".join(words)


def fault(read: Callable[[], object], foreseen: tuple[type[Exception], ...] = ()) -> str:
    """What is wrong with how a file is read: the traceback, or by which signal it ended; '' if it was read or refused.

    It is read in a process of its own, which is ended after SECONDS.
    """
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        try:
            read()
        except BaseException as error:
            if not isinstance(error, foreseen) and not is_foreseen(error):
                os.write(writing, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode(errors="replace")
    status = os.waitpid(child, 0)[1]
    return said or (f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "")


def faults(
    content: bytes,
    path: Path,
    readers: dict[str, Callable[[Path], object]],
    cases: int,
    seed: int,
    foreseen: tuple[type[Exception], ...] = (),
) -> list[str]:
    """Those of all readers on as many damaged copies; the case's number and the reader before each."""
    found = list[str]()
    for case in range(cases):
        path.write_bytes(damaged(content, np.random.default_rng((seed, case))))
        for name, read in readers.items():
            if wrong := fault(lambda read=read: read(path), foreseen):  # type: ignore[misc]
                found.append(f"case {case} of seed {seed}, {name}: {wrong}")
    return found
