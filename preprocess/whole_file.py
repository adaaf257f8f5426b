"""New HDF5 files: written wholly or not at all, also where the disk is full or the user stops."""

from __future__ import annotations

import errno
import io
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: on the disk, for this user, in one file


class Disk(io.FileIO):
    """Where a new HDF5 file goes. It keeps its first error, and from then on swallows what it is given.

    HDF5 must not see errors: left with what it cannot write, it crashes when the process ends.
    """

    error: BaseException | None = None

    def write(self, data: bytes) -> int:
        """All of the data, as HDF5 expects."""
        rest = memoryview(data).cast("B")
        try:
            while self.error is None and rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """To the size that HDF5 ends with."""
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0

    def check(self) -> None:
        """Raises what went wrong so far: OSError naming the file, or KeyboardInterrupt."""
        if isinstance(self.error, OSError):
            raise OSError(self.error.errno, self.error.strerror, str(self.name)) from self.error
        if self.error is not None:
            raise self.error


@contextmanager
def write_whole(path: Path) -> Iterator[tuple[h5py.File, Disk]]:
    """A new HDF5 file, which gets its name when it is whole, and is removed otherwise.

    Whoever writes much asks `Disk.check` now and then, which also answers Ctrl-C; a second Ctrl-C is not waited for.
    Raises OSError where the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with Disk(temporary, "w+b") as disk, _late_interrupt(disk):
            try:
                with h5py.File(disk, "w") as file:
                    yield file, disk
            except Exception:
                disk.check()  # what HDF5 says after that is no help
                raise
            disk.check()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _late_interrupt(disk: Disk) -> Iterator[None]:
    """Ctrl-C becomes the disk's error: raised in the middle of a write it would make HDF5 crash, as any error does."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):  # a worker ignores it
        yield
        return

    def interrupt(*_: object) -> None:
        disk.error = disk.error or KeyboardInterrupt()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def check_out(out: Path) -> None:
    """Raises OSError that names --out if no file can be written there."""
    if out.is_dir():
        raise IsADirectoryError(f"--out: {out} is a folder; name a file, such as {out / 'faces_128.h5'}.")
    existing = next(parent for parent in out.absolute().parents if parent.exists())
    try:
        os.rmdir(tempfile.mkdtemp(dir=existing))
    except OSError as error:
        raise OSError(f"--out: {out} cannot be written ({existing}: {error.strerror}); choose another name.") from error


def megabytes(count: int | float) -> str:
    """Such as '1,234.5 MB'."""
    return f"{count / 1e6:,.1f} MB"
