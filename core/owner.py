"""Who writes into a folder: one process at a time. Imports no torch.

The system keeps the lock, and drops it when its process ends, however it ends; the file `.owner` only tells who has it.
Whoever only reads asks for no lock.
"""

import contextlib
import errno
import io
import json
import os
import platform
import sys
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from core.command import UserError
from core.disk import said_where_full
from core.files import is_running, parse_json
from core.tracking import say

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # by another process; any other error: there are no locks
LOCK = ".owner"  # its name in a folder
_PATIENCE = 1.0  # seconds, before it is asked for again
_FAR = 1 << 30  # a byte beyond the text: on Windows nobody reads what is locked


class InUse(UserError):
    """Another process has it."""


class Owner:
    """A folder that is this process' own until `release`, or the end of a `with`.

    file: the locked one; None where this process had the folder before, by `first`, which then lives as long.
    made: folders to remove if they stay empty.
    """

    def __init__(self, file: io.FileIO | None, made: Sequence[Path] = (), first: "Owner | None" = None) -> None:
        self.file, self.made, self.first = file, made, first
        _owners.add(self)

    def release(self) -> None:
        """Give the folder back; nothing the second time."""
        if self.file is None:
            return
        path = Path(self.file.name)
        if sys.platform == "win32":  # where a file that is open cannot be removed
            self.file.close()
        with contextlib.suppress(OSError):
            path.unlink()
        self.file.close()
        self.file = None
        with contextlib.suppress(OSError):  # something is in it
            for folder in self.made:
                folder.rmdir()

    @contextlib.contextmanager
    def released_on_error(self) -> Iterator[None]:
        """For those who hand it on when they are done."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked process, which would keep the lock of a parent that was killed."""
    for owner in _owners:
        if owner.file is not None:
            owner.file.close()
            owner.file = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def own(folder: Path, key: str = "", of: str = "") -> Owner:
    """Take a folder, which is made where it is missing, for this process.

    key: the setting that names it, for the message.  of: a file in it, where that alone is written.
    Raises UserError naming the process that has it, OSError if nothing can be written there.
    """
    folder = Path(folder).absolute()
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with said_where_full(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f".{of}.owner" if of else LOCK)
    file, is_locked = _open_and_lock(path)
    first = _read(file)
    if is_locked or (is_locked is None and not _may_run(first)):
        note = {"host": platform.node(), "process": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}
        with said_where_full(path):
            file.truncate(0)
            file.write(json.dumps(note).encode() + b"\n")
        return Owner(file, made)
    file.close()
    if mine := next((one for one in list(_owners) if one.file is not None and Path(one.file.name) == path), None):
        return Owner(None, first=mine)  # not by the process' number: another container may have the same
    where = f"{key}: {folder / of}" if key else str(folder / of)
    remedy = "Wait until it is done, or stop it" + (f", or choose another {key}." if key else ".")
    if is_locked is None:
        remedy += f" If it runs no more, remove {path} (its file system has no locks that would tell)."
    raise InUse(where, _in_words(first), remedy=remedy)


def own_when_free(folder: Path, key: str = "", of: str = "") -> Owner:
    """As `own`, but for what the other process makes for both: says whom it waits for, and waits."""
    is_said = False
    while True:
        try:
            return own(folder, key, of)
        except InUse as error:
            if not is_said:
                say(f"{error} This process waits, and takes what is made there.")
            is_said = True
        time.sleep(_PATIENCE)


def _open_and_lock(path: Path) -> tuple[io.FileIO, bool | None]:
    """The file, and whether it could be locked; None where its file system has no locks."""
    while True:
        with said_where_full(path), _said_where_anothers(path):
            file = path.open("a+b", buffering=0)  # not emptied: it tells who has it
        is_locked = _lock(file)
        with contextlib.suppress(FileNotFoundError):
            if not is_locked or sys.platform == "win32" or os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file, is_locked
        file.close()  # whoever had it removed it in the meantime


@contextlib.contextmanager
def _said_where_anothers(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        if not path.exists():
            raise
        found = f"was left by another user, and you may not write it ({error.strerror})"
        remedy = "If nobody writes into the folder now, have it removed; or choose another folder."
        raise UserError(str(path), found, remedy=remedy) from error


def _lock(file: io.FileIO) -> bool | None:
    try:
        if sys.platform == "win32":
            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


def _read(file: io.FileIO) -> Mapping[str, Any]:
    """What the file tells of its owner; nothing where it was not written yet."""
    file.seek(0)
    try:
        found = parse_json(file.read(1 << 12).decode())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_here(owner: Mapping[str, Any]) -> bool:
    return owner.get("host") == platform.node()


def _may_run(owner: Mapping[str, Any]) -> bool:
    """Where no lock tells: a process of this machine can be asked for, that of another may still be there."""
    if not _is_here(owner):
        return bool(owner)
    return owner.get("process") == os.getpid() or is_running(str(owner.get("process")))


def _in_words(owner: Mapping[str, Any]) -> str:
    if not owner:
        return "is in use by another process"
    return f"is in use by process {owner.get('process')} on {owner.get('host')} since {owner.get('since')}"
