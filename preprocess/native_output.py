"""What libraries written in C print on the error stream: heard, so that it can be judged or kept from the terminal."""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_STDERR = 2  # the file descriptor: such libraries know nothing of sys.stderr


@contextmanager
def heard() -> Iterator[list[bytes]]:
    """A list that gets what was printed meanwhile, once it is over; if there was an error, it is printed after all.

    For one thread at a time. It takes some microseconds.
    """
    said: list[bytes] = []
    spool, terminal = _spool().fileno(), os.dup(_STDERR)
    os.dup2(spool, _STDERR)
    try:
        yield said
    except BaseException:
        said.append(_drain(spool))
        os.write(terminal, said[0])
        raise
    else:
        said.append(_drain(spool))
    finally:
        os.dup2(terminal, _STDERR)
        os.close(terminal)


def say(text: bytes) -> None:
    """Print what was heard, where it was meant to go."""
    os.write(_STDERR, text)


@functools.cache
def _spool() -> BinaryIO:
    return tempfile.TemporaryFile(buffering=0)


def _drain(spool: int) -> bytes:
    size = os.fstat(spool).st_size
    if not size:
        return b""
    os.lseek(spool, 0, os.SEEK_SET)
    text = os.read(spool, size)
    os.lseek(spool, 0, os.SEEK_SET)
    os.ftruncate(spool, 0)
    return text
