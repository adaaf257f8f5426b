"""Whether HDF5 comes to an end with a file's attributes: a damaged one it may read for ever, or into all memory.

It then answers neither Ctrl-C nor a time limit, for it holds Python's lock. Imports no torch.
"""

import io
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

WORK, WAIT = 2, 60  # seconds of work that reading a file's attributes may take elsewhere, and in all
MEMORY = 1 << 30  # bytes for it
READ = """
import contextlib, sys
with contextlib.suppress(ImportError, ValueError):
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2]) + 1))
import h5py
with contextlib.suppress(NameError, ValueError):
    resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[3]), int(sys.argv[3])))
with h5py.File(sys.argv[1]) as file:
    for name in list(file.attrs):
        with contextlib.suppress(TypeError):
            file.attrs[name]
"""


def require_an_end(path: Path, file: h5py.File) -> None:
    """Raises OSError where the strings of the file's attributes are damaged so that HDF5 would never come back.

    They lie in heaps, which the root's header points to, as h5py writes it by default. The free part of a heap says how
    long it is, and where it says 0, as of zeroed or moved bytes, HDF5 (up to 2.0 at least) does not get past it.
    Another process reads them first where not all of their strings are found whole that way: attributes that are
    not in the header itself, damaged ones, and types that nobody here writes.
    """
    base, size, info = file.userblock_size, path.stat().st_size, h5py.h5o.get_info(file.id)
    heaps, seen, whole = dict[int, dict[int, int]](), set[int](), 0
    with path.open("rb", buffering=0) as raw:
        blocks = _header_blocks(raw, base, info)
        for block in blocks:
            for address, length, index in _pointers(block, size):
                start = b"" if address in seen else _read(raw, base + address, 16).ljust(16, b"\0")
                seen.add(address)
                if start.startswith(b"GCOL\1"):
                    heaps[address] = _texts(_read(raw, base + address, struct.unpack_from("<Q", start, 8)[0]))
                elif start.startswith(b"OCHK"):
                    blocks.append(_read(raw, base + address, info.hdr.space.total))
                whole += heaps.get(address, {}).get(index, -1) >= length
    if whole < _strings(file):
        _read_elsewhere(path)


def _strings(file: h5py.File) -> float:
    """How many strings that lie in heaps the attributes say that they have; infinity of types of another kind."""
    count = 0.0
    for number in range(h5py.h5a.get_num_attrs(file.id)):
        attribute = h5py.h5a.open(file.id, index=number)
        kind = attribute.get_type()
        if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
            count += attribute.get_space().get_simple_extent_npoints()
        elif not isinstance(kind, h5py.h5t.TypeStringID | h5py.h5t.TypeAtomicID | h5py.h5t.TypeEnumID):
            count = float("inf")
    return count


def _read_elsewhere(path: Path) -> None:
    """Raises OSError where the attributes cannot be read in a process of limited time and memory."""
    command = [sys.executable, "-c", READ, os.path.abspath(path), str(WORK), str(MEMORY)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT)
    except subprocess.TimeoutExpired as error:
        raise OSError("its attributes are damaged: HDF5 does not come to their end") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["HDF5 does not come to their end"]
        raise OSError(f"its attributes are damaged: {lines[-1]}")


def _header_blocks(raw: io.FileIO, base: int, info: Any) -> list[bytes]:
    """The root's header, which may go on elsewhere: in version 2 its further blocks begin with 'OCHK'."""
    start = _read(raw, base + info.addr, 16).ljust(16, b"\0")
    if start.startswith(b"OHDR"):
        return [_read(raw, base + info.addr, info.hdr.space.total)]
    places, blocks = {info.addr + 16: struct.unpack_from("<I", start, 8)[0]}, list[bytes]()
    while len(places) > len(blocks):
        address, length = list(places.items())[len(blocks)]
        block, at = _read(raw, base + address, length), 0
        blocks.append(block)
        while at + 24 <= len(block):
            kind, size = struct.unpack_from("<HH", block, at)
            if kind == 0x10:  # where it goes on
                address, length = struct.unpack_from("<QQ", block, at + 8)
                places.setdefault(address, length)
            at += 8 + size
    return blocks


def _pointers(block: bytes, size: int) -> Iterator[tuple[int, int, int]]:
    """All that may point to a place in a file of this size, with the numbers of four bytes before and after it."""
    for shift in range(min(8, len(block))):
        numbers = np.frombuffer(block, "<u8", (len(block) - shift) // 8, shift)
        for i in np.flatnonzero((numbers > 0) & (numbers < size)).tolist():
            at = shift + 8 * i
            before, after = block[max(at - 4, 0) : at], block[at + 8 : at + 12]
            yield int(numbers[i]), int.from_bytes(before, "little"), int.from_bytes(after, "little")


def _texts(heap: bytes) -> dict[int, int]:
    """How long the texts of a heap are, by number. Raises OSError where HDF5 would not come to the heap's end."""
    at, found = 16, dict[int, int]()
    while at + 16 <= len(heap):
        index, size = struct.unpack_from("<H6xQ", heap, at)
        step = 16 + (size + 7) // 8 * 8 if index else size
        if not step:
            raise OSError("the strings of its attributes are damaged")
        found[index] = size
        at += step
    return found


def _read(raw: io.FileIO, at: int, count: int) -> bytes:
    if at >= 1 << 62:
        return b""
    raw.seek(at)
    return raw.read(min(count, 1 << 24))
