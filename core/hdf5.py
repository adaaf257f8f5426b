"""HDF5 files: opened in one way, what keeps them from being read told apart, and their layout. Imports no torch."""

import contextlib
import errno
import importlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from core.command import UserError
from core.files import require_file
from core.hdf5_ends import require_an_end

# What h5py, and the few lines that read its bytes, raise for what they cannot read.
READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, struct.error)
MISSING = "Correct the path, or download or make it."
DAMAGED = "Re-download it or re-run preprocessing."
COPY_IN = (
    "Copy it in: load what it means where all of its files are and save it anew; for links `h5repack --merge` does."
)
AGAIN = "and run the same command again."
_LARGEST_ROW = 1 << 28  # bytes: an image of 9,459 pixels a side
_PACKED = 5000  # times that values are longer than what they are packed to: more than gzip's 1,032


class DamagedFile(UserError):
    """No HDF5 file, or a damaged one: only such a file may be made anew or replaced."""


class LeadsOut(OSError):
    """Nothing is damaged, but part of what is asked for lies in other files, and is not looked for there."""


def open_hdf5(
    path: str | Path, *, missing: str = MISSING, damaged: str = DAMAGED, again: bool = False, **options: Any
) -> h5py.File:
    """The file, to read.

    missing, damaged: what to do where it is not there, or is damaged.  again: its links were looked at before, as
    every worker of a loader opens it.  options: of h5py.File.
    Raises DamagedFile where the file itself is at fault, and UserError where it is not there, open elsewhere, not
    permitted, or on a file system without locks.
    """
    path = Path(path)
    try:
        require_file(path)
        file = h5py.File(path, "r", **options)
    except READ_ERRORS as error:
        raise refusal(path, error, "cannot be read as HDF5", missing=missing, damaged=damaged) from error
    try:
        with reading(path, "cannot be read as HDF5", damaged=damaged):
            if not again:
                require_an_end(path, file)
                _require_own_links(file)
    except UserError:
        file.close()
        raise
    return file


def persons_in(file: h5py.File, damaged: str = DAMAGED) -> list[str]:
    """Names of the groups in a file, sorted. Raises DamagedFile where they cannot be read."""
    with reading(file.filename, "its persons cannot be read", damaged=damaged):
        return sorted(file)


def read_attributes(file: h5py.Group) -> dict[str, Any]:
    """Attributes as Python's own strings, numbers and truths. Raises DamagedFile where they cannot be read.

    An array of one element counts as that; what is nothing of the kind becomes the text that Python shows of it.
    """
    with reading(file.file.filename, "its attributes cannot be read"):
        names = list(file.attrs)
        if odd := [name for name in names if not isinstance(name, str)]:
            raise OSError(f"the name {odd[0]!r} is no UTF-8")
        return {name: _plain_attribute(file, name) for name in names}


def read_attribute(file: h5py.Group, name: str, unsaid: Any = None) -> Any:
    """One of `read_attributes`, or `unsaid` where it is not there."""
    with reading(file.file.filename, f"its attribute {name} cannot be read"):
        return _plain_attribute(file, name) if name in file.attrs else unsaid


def _plain_attribute(file: h5py.Group, name: str) -> str | bool | int | float:
    try:
        value = file.attrs[name]
    except TypeError as error:  # of a type that numpy does not have
        return f"({error})"
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode(errors="replace")  # bytes that are no text
    return value if isinstance(value, bool | int | float) else " ".join(repr(value).split())


@contextlib.contextmanager
def reading(path: str | Path, what: str = "cannot be read", *, damaged: str = DAMAGED) -> Iterator[None]:
    """h5py's errors within become a `refusal`."""
    try:
        yield
    except UserError:
        raise
    except READ_ERRORS as error:
        raise refusal(path, error, what, damaged=damaged) from error


def refusal(
    path: str | Path, error: Exception, what: str, *, missing: str = MISSING, damaged: str = DAMAGED
) -> UserError:
    """What to say of an error of h5py, which calls all causes alike; a DamagedFile if the file itself is at fault.

    what: cannot be done.
    """
    path, code, text = Path(path), error.errno if isinstance(error, OSError) else None, str(error)
    if code == errno.ENOENT and not path.exists():
        return UserError(str(path), "no such file", remedy=missing)
    if path.is_dir():
        return UserError(str(path), "is a folder", "an HDF5 file")
    if path.exists() and not path.is_file():
        return UserError(str(path), "is a pipe or device", "an HDF5 file")
    if "unable to lock file" in text and code not in (errno.EAGAIN, errno.EACCES):
        reason = f"its file system has no locks ({os.strerror(code or errno.ENOLCK)})"
        remedy = f"Set HDF5_USE_FILE_LOCKING=FALSE in the environment {AGAIN}"
        return UserError(str(path), f"cannot be locked, since {reason}", remedy=remedy)
    if "unable to lock file" in text or "already open for write" in text:
        remedy = f"Wait until that program is done, or close the file there, {AGAIN}"
        if "already open for write" in text:
            remedy += " If no program has it open, its writer was killed: `h5clear -s FILE` makes it readable."
        return UserError(str(path), "is open elsewhere, where it is written", remedy=remedy)
    if code in (errno.EACCES, errno.EPERM):
        remedy = f"Have its owner give you the right to read it {AGAIN}"
        return UserError(str(path), f"you may not read it ({os.strerror(code)})", remedy=remedy)
    if code:
        remedy = f"That is no fault of the file: see to the disk, the network or the machine {AGAIN}"
        return UserError(str(path), f"{what} ({os.strerror(code)})", remedy=remedy)
    if isinstance(error, LeadsOut):
        return UserError(str(path), f"is not read: {error}", remedy=COPY_IN)
    return DamagedFile(str(path), f"{what} ({error})", remedy=damaged)


# What would be read from elsewhere, or is not there at all


def _require_own_links(file: h5py.File) -> None:
    """Raises OSError where a name is none that can be looked up, or a link leads into another file.

    In two levels: as deep as anybody here reads.
    """
    _require_own_links_of(file)
    for name in file:
        if isinstance(group := file.get(name), h5py.Group):
            _require_own_links_of(group)


def _require_own_links_of(group: h5py.Group) -> None:
    for name in group:
        if isinstance(name, bytes) or name in ("", ".") or "/" in name:
            raise OSError(f"{name!r} in {group.name} is no name of UTF-8 without /")
        if _leads_out(group, name.encode()):
            raise LeadsOut(f"{name!r} in {group.name} is a link into another file, or without end")


def _leads_out(group: h5py.Group, name: bytes, hops: int = 8) -> bool:
    """Whether the way to an object leaves the file; nothing is opened there. hops: soft links to follow on it."""
    links = group.id.links
    kind = links.get_info(name).type if links.exists(name) else h5py.h5l.TYPE_HARD
    if kind != h5py.h5l.TYPE_SOFT or not hops:
        return kind != h5py.h5l.TYPE_HARD
    path = links.get_val(name)
    at = group.file if path.startswith(b"/") else group
    for part in path.split(b"/"):
        if part not in (b"", b"."):
            if not isinstance(at, h5py.Group) or _leads_out(at, part, hops - 1):
                return isinstance(at, h5py.Group)
            at = at.get(part)
    return False


def _require_own_values(data: h5py.Dataset) -> None:
    """Raises OSError where the values lie in other files, or are more than the file can hold."""
    if data.is_virtual or data.external:
        raise LeadsOut(f"{data.name} has its values in other files")
    there, said = data.file.id.get_filesize(), (data.size or 0) * data.dtype.itemsize
    rows = len(data) if data.shape else 1
    if rows > there or said > rows * _LARGEST_ROW or said > max(1 << 30, _PACKED * there):
        raise OSError(f"{data.name} says that it is of shape {data.shape}, in a file of {there:,} bytes")


def require_readable(data: h5py.Dataset) -> None:
    """Load what the data set is packed with.

    Raises UserError that names it where it is not installed, and OSError, for `reading`, where the values are not in
    the file.
    """
    _require_own_values(data)
    packed = data.id.get_create_plist()
    for place in range(packed.get_nfilters()):
        number, _, _, name = packed.get_filter(place)
        if not _is_installed(number) and _is_used(data, place):
            known = f" ({name.decode(errors='replace')})" if name else ""
            raise UserError(
                data.file.filename,
                f"{data.name} is packed by filter {number}{known}, which is not installed",
                remedy=f"Install it, most are in `pip install hdf5plugin`, {AGAIN}",
            )


def _is_installed(number: int) -> bool:
    if h5py.h5z.filter_avail(number):
        return True
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # makes its filters known
    return h5py.h5z.filter_avail(number)


def _is_used(data: h5py.Dataset, place: int) -> bool:
    """Whether the first chunk is packed by it: a filter may be left out where it was not there, or did not help."""
    return bool(data.id.get_num_chunks()) and not data.id.get_chunk_info(0).filter_mask >> place & 1


# The layout of a person


@dataclass(frozen=True)
class Table:
    """A data set of a person, a row a sample.

    kind: 'uint8', 'floats', 'uint8 or floats' or 'integers'.  shape: each axis by its size, by '<size> or more', or
    by a letter, the same for the same size.  columns: what they are.
    """

    kind: str
    shape: tuple[int | str, ...]
    columns: str = ""

    def problem(self, name: str, data: h5py.Dataset) -> str:
        """What is wrong with the type and shape, or ''."""
        verb = "are" if name.endswith("s") else "is"
        if data.shape is None:
            return f"{name} {verb} without any elements (a null dataspace), expected {self.kind}"
        if 0 in data.shape[1:]:
            return f"{name} {verb} of shape {data.shape}, expected at least 1 of each axis"
        is_kind = data.dtype == np.uint8 if "uint8" in self.kind else False
        is_kind |= data.dtype.kind == "f" and "floats" in self.kind
        is_kind |= data.dtype.kind in "iu" and self.kind == "integers"
        if is_kind and _fits(data.shape, self.shape):
            return ""
        axes = ", ".join(map(str, self.shape)) + "," * (len(self.shape) == 1)
        columns = f": {self.columns}" if self.columns else ""
        return f"{name} {verb} {data.dtype} of shape {data.shape}, expected {self.kind} ({axes}){columns}"


FACES = {
    "pixels": Table("uint8", ("N", "S", "S", 3)),
    "labels": Table("floats", ("N", "4 or more"), "gaze pitch, yaw; head pitch, yaw"),
}
ALIGNMENT = {"homography": Table("floats", ("N", 3, 3)), "points": Table("floats", ("N", 5, 2))}
GROUPS = {"group": Table("integers", ("N",), "one number for what shares light, camera, background and expression")}


def layout_problems(
    found: object,
    tables: Mapping[str, Table],
    optional: Mapping[str, Table] = MappingProxyType({}),
    *,
    may_be_empty: bool = False,
) -> list[str]:
    """What is wrong with the group of a person that is to have these data sets, and may have the optional ones.

    Raises UserError where the data are packed by what is not installed.
    """
    *first, last = map(repr, tables)
    expected = f"expected a group with the data sets {', '.join(first)} and {last}"
    if not isinstance(found, h5py.Group):
        return [f"is no group, {expected}"]
    tables = {**tables, **{name: optional[name] for name in optional if isinstance(found.get(name), h5py.Dataset)}}
    data = {name: found.get(name) for name in tables}
    missing = [name for name in tables if not isinstance(data[name], h5py.Dataset)]
    if missing:
        return [f"no data set {', '.join(map(repr, missing))}, {expected}"]
    for table in data.values():
        require_readable(table)
    problems = [problem for name, table in tables.items() if (problem := table.problem(name, data[name]))]
    if problems:
        return problems
    lengths = {name: len(table) for name, table in data.items()}
    if len(set(lengths.values())) > 1:
        return [", ".join(f"{count} {name}" for name, count in lengths.items()) + ", expected as many of each"]
    return [] if may_be_empty or all(lengths.values()) else ["no samples, expected at least 1"]


def _fits(shape: tuple[int, ...], axes: tuple[int | str, ...]) -> bool:
    known: dict[str, int] = {}
    if len(shape) != len(axes):
        return False
    for size, axis in zip(shape, axes, strict=True):
        if isinstance(axis, int):
            fits = size == axis
        elif axis[0].isdigit():
            fits = size >= int(axis.split()[0])
        else:
            fits = known.setdefault(axis, size) == size
        if not fits:
            return False
    return True
