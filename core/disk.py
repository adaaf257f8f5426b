"""New files on a disk that may be full: one sentence with what is needed and what is free. Imports no torch."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: on the disk, for this user, in one file
_PAGE = 1 << 16
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # of file systems that know no such thing


class Disk(io.FileIO):
    """Where a library writes a new file. It keeps its first error, and what comes after that in the memory.

    The library must not see errors, nor miss what it wrote: HDF5 crashes then, in a write, in a later read or when the
    process ends, and PyTorch tells nothing of the disk. Whoever writes much asks `check` now and then.
    """

    error: BaseException | None = None

    def __init__(self, path: Path, mode: str = "w+b") -> None:
        super().__init__(path, mode)
        self.needed = 0  # bytes, up to the last one that was to be written
        self._pages: dict[int, bytearray] = {}  # those with what the disk did not take

    def write(self, data: ReadableBuffer, /) -> int:
        """All of the data, as a library expects."""
        rest = memoryview(data).cast("B")
        length, start = len(rest), self.tell()
        self.needed = max(self.needed, start + length)
        try:
            while self.error is None and rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        if rest:
            self._remember(start + length - len(rest), rest)
            super().seek(start + length)
        return length

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As of a file that took everything."""
        view, start = memoryview(buffer).cast("B"), self.tell()
        count = super().readinto(view)
        if self.error is None:
            return count
        wanted = max(count, min(len(view), self.needed - start))
        view[count:wanted] = bytes(wanted - count)
        for at, page, part in _parts(start, wanted):
            if page in self._pages:
                view[at : at + part.stop - part.start] = self._pages[page][part]
        super().seek(start + wanted)
        return wanted

    def seek(self, place: int, whence: int = os.SEEK_SET, /) -> int:
        """The end is that of a file that took everything."""
        if self.error is not None and whence == os.SEEK_END:
            return super().seek(self.needed + place)
        return super().seek(place, whence)

    def truncate(self, size: int | None = None) -> int:
        """To the size that HDF5 ends with."""
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0

    def _remember(self, start: int, data: memoryview) -> None:
        for at, page, part in _parts(start, len(data)):
            if page not in self._pages:
                super().seek(page * _PAGE)
                self._pages[page] = bytearray(super().read(_PAGE).ljust(_PAGE, b"\0"))
            self._pages[page][part] = data[at : at + part.stop - part.start]

    def check(self) -> None:
        """Raises what went wrong so far: WriteError, which names the file, or what a signal would have raised."""
        if isinstance(self.error, OSError):
            raise WriteError(self.error.errno, self.error.strerror, str(self.name), self.needed) from self.error
        if self.error is not None:
            raise self.error

    def keep(self) -> None:
        """See to it that a power cut cannot take away what a name says is there."""
        try:
            os.fsync(self.fileno())
        except OSError as error:
            if error.errno not in _NO_SYNC:
                self.error = self.error or error


class WriteError(OSError):
    """Of a file that could not be written. needed: its bytes, as far as it was to be written by then."""

    def __init__(self, number: int | None, reason: str | None, path: str, needed: int = 0) -> None:
        super().__init__(number, reason, path)
        self.needed = needed


def _parts(start: int, length: int) -> Iterator[tuple[int, int, slice]]:
    """Pieces of a stretch of a file: from where in it, of which page, and what of that."""
    at = 0
    while at < length:
        page, first = divmod(start + at, _PAGE)
        size = min(_PAGE - first, length - at)
        yield at, page, slice(first, first + size)
        at += size


@contextmanager
def said_where_full(path: Path) -> Iterator[None]:
    """Raises OSError with what is needed, what is free, and a remedy, where there is no room for `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"{path}: cannot be written ({error.strerror}). {_room(path, error)}Make room or choose "
            "another folder; the same command goes on."
        ) from error


def _room(path: Path, error: OSError) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())  # its own may be removed by now
    left = f"the disk has {megabytes(shutil.disk_usage(folder).free)} left"
    needed = f"At least {megabytes(error.needed)} are needed, " if isinstance(error, WriteError) else ""
    return f"{needed}{left}. " if needed else f"T{left[1:]}. "


def megabytes(count: int | float) -> str:
    """Such as '1,234.5 MB'."""
    return f"{count / 1e6:,.1f} MB"
