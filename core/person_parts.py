"""New HDF5 files, written wholly or not at all; and those with a file a person that is joined at the end.

Each person is a file of its own in a folder, renamed once it is whole, so that after a kill at any moment the same
command goes on with the persons that are missing. HDF5 itself does not survive a kill in the middle of a write, nor a
full disk: it crashes. So it writes to a file of Python's, which keeps the error to itself. Imports no torch.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import h5py

from core.command import UserError
from core.disk import Disk
from core.facts import differences
from core.files import file_name, new_file, read_json, remove_left, write_json
from core.hdf5 import DamagedFile, open_hdf5, reading
from core.owner import LOCK, Owner, own
from core.tracking import say

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGCHLD") if hasattr(signal, name)]
Facts = Mapping[str, str | int | float]  # whatever decides the content of a file, each a root attribute


@contextmanager
def write_whole(path: Path) -> Iterator[tuple[h5py.File, Disk]]:
    """A new HDF5 file, which gets its name when it is whole, and is removed otherwise.

    Whoever writes much asks `Disk.check` now and then, which also answers Ctrl-C; a second Ctrl-C is not waited for.
    Raises OSError where the disk is full, and RuntimeError where a process that reads data died.
    """
    with new_file(path) as disk, _late_signals(disk), h5py.File(disk, "w") as file:
        yield file, disk


@contextmanager
def _late_signals(disk: Disk) -> Iterator[None]:
    """What their handlers raise while HDF5 writes becomes the disk's error: HDF5 would crash.

    A first Ctrl-C, or a scheduler's, is kept wherever it comes, until `Disk.check`. What PyTorch's handler tells of a
    process that died, and a second Ctrl-C, is raised at once wherever HDF5 is not at work.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as restored:
        for number in _SIGNALS:
            usual = signal.getsignal(number)
            if callable(usual):  # workers ignore Ctrl-C
                signal.signal(number, partial(_keep, disk, usual))
                restored.callback(signal.signal, number, usual)
        yield


def _keep(disk: Disk, usual: Callable[[int, FrameType | None], object], number: int, frame: FrameType | None) -> None:
    """A signal's handler: the usual one, but for where its error goes."""
    try:
        usual(number, frame)
    except BaseException as error:
        is_first = isinstance(error, KeyboardInterrupt) and disk.error is None
        if not is_first and not _is_writing(disk, frame):
            raise
        disk.error = disk.error or error


def _is_writing(disk: Disk, frame: FrameType | None) -> bool:
    """Whether Python was in a method of the disk, which HDF5 calls."""
    while frame is not None and frame.f_locals.get("self") is not disk:
        frame = frame.f_back
    return frame is not None


def part_file(folder: Path, person: str) -> Path:
    """A person's own file: of the person's `file_name`, unless one of an earlier revision is there."""
    earlier = folder / f"{quote(person, safe='', errors='surrogatepass')}.h5"
    return earlier if os.path.lexists(earlier) else folder / f"{file_name(person)}.h5"


def is_whole(path: Path, check: Callable[[h5py.File], bool]) -> bool:
    """Whether a person's file is there and passes; one that a power cut damaged, as it can, does not.

    Raises UserError where it cannot be opened: then it is not to be written again.
    """
    if not os.path.lexists(path):
        return False
    try:
        with open_hdf5(path) as file, reading(path):
            return check(file)
    except DamagedFile:
        return False


class PersonParts:
    """The persons that are done, in a hidden folder beside the file `out` that they will be joined to.

    facts: what decides their content; persons made by others are removed.  differences: of two such, by name.
    helps: another process began it, and will join the persons; this one writes some of them.
    Until the end both copies take room on the disk. Raises UserError where the folder cannot be read, or
    another process writes there.
    """

    def __init__(
        self,
        out: Path,
        facts: Facts,
        differences: Callable[[Facts, Facts], list[str]] = differences,
        helps: bool = False,
    ) -> None:
        self.out, self.folder = out, _folder(out)
        self.owner = Owner(None) if helps else own(self.folder)
        if helps:
            return
        before = self._facts_before()
        if before != facts:
            if before is not None:
                names = ", ".join(differences(before, facts))
                say(f"{self.folder}: begun with other values of {names}; starting over.")
                self._remove_persons()
            write_json(self.folder / "recipe.json", dict(facts))
        remove_left(self.folder)

    def _facts_before(self) -> dict | None:
        """None if nothing was begun."""
        if all(path.name == LOCK for path in self.folder.iterdir()):
            return None
        note = self.folder / "recipe.json"
        try:
            found = read_json(note)
            return found if isinstance(found, dict) else {}
        except (FileNotFoundError, ValueError):  # a kill came before it was written
            return {}
        except OSError as error:
            remedy = "Have its owner give you the right to it, or choose another file to write."
            raise UserError(str(note), f"cannot be read ({error.strerror})", remedy=remedy) from error

    def _remove_persons(self) -> None:
        for path in self.folder.iterdir():
            if path.name != LOCK:
                path.unlink()

    def file(self, person: str) -> Path:
        """Where a person is, or is to be."""
        return part_file(self.folder, person)

    @contextmanager
    def join(self) -> Iterator[tuple[h5py.File, Disk]]:
        """The file to copy the persons to; `finish` then makes it `out`."""
        with write_whole(self.folder / "whole") as whole:
            yield whole

    def finish(self) -> None:
        """Give the joined file its name, and remove the persons."""
        os.replace(self.folder / "whole", self.out)
        self.owner.release()
        remove_parts(self.out)


def remove_parts(out: Path) -> None:
    """Remove what an unfinished writer of `out` left beside it, if anything."""
    shutil.rmtree(_folder(out), ignore_errors=True)


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")
