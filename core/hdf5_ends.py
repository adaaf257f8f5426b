"""Whether HDF5 comes to an end with a file's attributes: a damaged one it may read for ever, or into all memory.

It then answers neither Ctrl-C nor a time limit, for it holds Python's lock. Imports no torch.
"""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

WORK, WAIT = 2, 60  # seconds of work that reading a file's attributes may take elsewhere, and in all
MEMORY = 1 << 30  # bytes for it
# What a text is that lies in a heap: how long it is; where the heap is; which of the texts in it.
_LENGTH, _ADDRESS = 4, 8
_READ = """
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
    Where attributes are not in the header itself, or a string says that it is longer than the file, another process
    reads them first.
    """
    base, size, info = file.userblock_size, path.stat().st_size, h5py.h5o.get_info(file.id)
    sizes = getattr(info, "meta_size", None)  # not in older releases of h5py
    is_odd = sizes is not None and sizes.attr.heap_size > 0  # many or large attributes have a place of their own
    seen, heaps = set[int](), set[int]()
    with path.open("rb", buffering=0) as raw:
        blocks = _header_blocks(raw, base, info)
        for block in blocks:
            for address, length in _pointers(block, size).items():
                start = b"" if address in seen else _read(raw, base + address, 16).ljust(16, b"\0")
                seen.add(address)
                if start.startswith(b"GCOL\1"):
                    if _is_endless(_read(raw, base + address, struct.unpack_from("<Q", start, 8)[0])):
                        raise OSError("the strings of its attributes are damaged")
                    heaps.add(address)
                elif start.startswith(b"FRHP"):  # that place, or one of many links
                    is_odd |= sizes is None
                elif start.startswith(b"OCHK"):
                    blocks.append(_read(raw, base + address, info.hdr.space.total))
                is_odd |= address in heaps and length > size
    if is_odd:
        _read_elsewhere(path)


def _read_elsewhere(path: Path) -> None:
    """Raises OSError where the attributes cannot be read in a process of limited time and memory."""
    command = [sys.executable, "-c", _READ, os.path.abspath(path), str(WORK), str(MEMORY)]
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


def _pointers(block: bytes, size: int) -> dict[int, int]:
    """All that may point to a place in a file of this size, and the largest number of four bytes before one."""
    found: dict[int, int] = {}
    for shift in range(min(_ADDRESS, len(block))):
        numbers = np.frombuffer(block, "<u8", (len(block) - shift) // _ADDRESS, shift)
        for i in np.flatnonzero((numbers > 0) & (numbers < size)):
            address, at = int(numbers[i]), shift + _ADDRESS * int(i)
            length = int.from_bytes(block[max(at - _LENGTH, 0) : at], "little")
            found[address] = max(length, found.get(address, 0))
    return found


def _is_endless(heap: bytes) -> bool:
    at = 16
    while at + 16 <= len(heap):
        index, size = struct.unpack_from("<H6xQ", heap, at)
        step = 16 + (size + 7) // 8 * 8 if index else size
        if not step:
            return True
        at += step
    return False


def _read(raw: io.FileIO, at: int, count: int) -> bytes:
    if at >= 1 << 62:
        return b""
    raw.seek(at)
    return raw.read(min(count, 1 << 24))
