"""PyTorch's files: written as a function of what they hold, on a disk that may be full; and whether one is sound."""

import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch

from core.disk import said_where_full
from core.files import new_file
from core.pickles import require_stored


def write_torch_file(path: Path, content: object) -> None:
    """Write tensors and plain containers, whole; the same content gives the same bytes, whoever writes it.

    Raises OSError, with what to do, where there is no room; and what the handler of a signal raised meanwhile, as at a
    second Ctrl-C, or where a process that reads data died.
    """
    before = sys.exception()
    with said_where_full(path), new_file(path) as disk:
        try:
            torch.save(_unshared(content), disk)  # given a name, the archive would tell it, and with it the process
        except RuntimeError as error:
            raise _first(error, before) from None


def _first(error: BaseException, before: BaseException | None) -> BaseException:
    """What was raised first: PyTorch's archive, not being whole, raises one more on its way out, of a wrong position.

    before: what was being handled when all this began.
    """
    while "inline_container" in str(error) and error.__context__ not in (None, before):
        error = error.__context__
    return error


def _unshared(content: object) -> object:
    """The same in containers and strings of its own: pickle tells whether two equal ones are one object.

    Those of a training that was resumed are others than those of one that never stopped.
    """
    if isinstance(content, str):
        return sys.intern(str(content))
    if isinstance(content, OrderedDict):
        rebuilt = OrderedDict((_unshared(key), _unshared(value)) for key, value in content.items())
        if isinstance(about := getattr(content, "_metadata", None), Mapping):  # of a module's state
            vars(rebuilt)["_metadata"] = _unshared(about)
        return rebuilt
    if isinstance(content, dict):
        return {_unshared(key): _unshared(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)([_unshared(value) for value in content]) if type(content) in (list, tuple) else content
    return content


def is_damaged(path: Path) -> bool:
    """Whether a file's bytes are not those that were written, by the sums in the archive; False for one without.

    PyTorch does not look at them. A file of 500 MB takes 0.15 s. Files before PyTorch 1.6 have none.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"PK\3\4":
        return not start.strip(b"\0")  # empty, or zeros, as a power cut leaves it
    try:
        with zipfile.ZipFile(path) as archive:
            require_stored(archive)
            # Without any sums where whoever wrote it told PyTorch to leave them out.
            return any(entry.CRC for entry in archive.infolist()) and archive.testzip() is not None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, LookupError):
        return True
