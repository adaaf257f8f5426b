"""What a pickle would make, found without making anything: by walking its opcodes. Imports no torch.

PyTorch's own reader of weights calls no function that a file names. But it builds whatever nesting a file asks for, and
a few thousand tuples in one another end the process, without a message, as soon as anything goes through them; and it
copies a value as often as a file asks for.
"""

import io
import itertools
import pickletools
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

DEEPEST = 200  # values in one another; a run's checkpoint has about 15
MOST = 300_000  # opcodes of all pickles of a file; a tensor takes about 25, with its two of Adam about 80
_PICKLES = 5  # that a file of PyTorch's older format begins with: magic number, protocol, machine, content, storages
_LONGEST = 1 << 26  # bytes of a pickle in a zip archive
_SPARE = 1 << 26  # bytes; PyTorch stores, and packs nothing, but somebody else may
_SPARE_TIMES = 4
_ENTRIES = 100_000  # of an archive: a tensor each
_PLAIN = 1000  # letters, up to which a text is as small as a number
_AGAIN = 30_000_000  # letters and values that are taken from the memo, all together: what is called may copy them
_ALLOCATES = "bytearray"  # PyTorch calls it with whatever number a file says
_GROWING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_SILENT = {"PROTO", "FRAME", "STOP"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "LIST", "DICT"}


class Excessive(ValueError):
    """A pickle that is larger or deeper than any weights are."""


def require_harmless(path: Path) -> None:
    """Walk the pickles of a PyTorch file.

    Raises Excessive where one is too long, too deep or circular, and whatever comes (ValueError, IndexError, KeyError,
    BadZipFile, ...) where it is damaged.
    """
    steps = itertools.count()
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\3\4"
        file.seek(0)
        for stream in _in_zip(file) if is_zip else (file for _ in range(_PICKLES)):
            _require_small(_walk(stream, steps))


def require_stored(archive: zipfile.ZipFile) -> None:
    """Before an archive's entries are read. Raises Excessive where they are of far more bytes than the file."""
    assert archive.fp is not None
    entries, size = archive.infolist(), archive.fp.seek(0, 2)
    if len(entries) > _ENTRIES:
        raise Excessive(f"it has {len(entries):,} entries")
    if (said := sum(entry.file_size for entry in entries)) > _SPARE_TIMES * size + _SPARE:
        raise Excessive(f"its {size:,} bytes say that they are {said:,}")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise Excessive("it is packed in a way that PyTorch does not know")


def _in_zip(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        require_stored(archive)
        for entry in archive.infolist():
            if entry.filename.lower().endswith("data.pkl"):
                if entry.file_size > _LONGEST:
                    raise Excessive(f"its {entry.filename} is of {entry.file_size:,} bytes")
                del entry.CRC  # its sum is asked for by whoever loads it; some archives have none
                yield io.BytesIO(archive.open(entry).read())


@dataclass
class _Made:
    """What a pickle makes: of each value, by number, the numbers of those that are in it, and its own size.

    0 stands for all small plain ones.  again: those taken from the memo.
    """

    links: list[list[int]] = field(default_factory=lambda: [[]])
    sizes: list[int] = field(default_factory=lambda: [1])
    again: list[int] = field(default_factory=list)

    def add(self, inside: list[int], size: int = 1) -> int:
        self.links.append(inside)
        self.sizes.append(size)
        return len(self.links) - 1


def _walk(stream: IO[bytes], steps: Iterator[int]) -> _Made:
    """One pickle. steps: of all pickles of the file."""
    made, stack, marks, memo = _Made(), list[int](), list[int](), dict[Any, int]()
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if next(steps) > MOST:
            raise Excessive(f"it is made in more than {MOST:,} steps")
        if name == "MARK":
            marks.append(len(stack))
        elif name in _PUT:
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _GET or name == "DUP":
            stack.append(stack[-1] if name == "DUP" else memo[argument])
            made.again.append(stack[-1])
        elif name not in _SILENT:
            taken = _take(opcode, stack, marks) if opcode.stack_before else []
            if name in _GROWING:
                made.links[taken[0]].extend(taken[1:])
                stack.append(taken[0])
            elif taken or name in _CONTAINERS:
                stack.extend([made.add(taken)] * len(opcode.stack_after))
            else:
                stack.append(_plain(made, name, argument))
    return made


def _plain(made: _Made, name: str, argument: object) -> int:
    """The number of a value that holds no other."""
    if name == "GLOBAL" and str(argument).endswith(f" {_ALLOCATES}"):
        raise Excessive(f"it makes a {_ALLOCATES}")
    size = len(argument) if isinstance(argument, str | bytes | bytearray) else 0
    return made.add([], size) if size > _PLAIN else 0


def _take(opcode: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> list[int]:
    """The values that an opcode takes from the stack."""
    needed = opcode.stack_before
    if pickletools.markobject in needed:
        at = marks.pop() - needed.index(pickletools.markobject)
    else:
        at = len(stack) - len(needed)
    if at < 0:
        raise ValueError("it takes values that it has not made")
    taken = stack[at:]
    del stack[at:]
    return taken


def _require_small(made: _Made) -> None:
    """Raises Excessive where values are in one another deeper than DEEPEST, or without end, or copied too often."""
    levels = _levels(made.links)
    if len(levels) > DEEPEST or sum(map(len, levels)) < len(made.links):
        raise Excessive(f"its values are in one another more than {DEEPEST} deep")
    sizes = list(made.sizes)
    for value in (value for level in reversed(levels) for value in level):
        sizes[value] = min(_AGAIN, sizes[value] + sum(sizes[inner] for inner in made.links[value]))
    if sum(sizes[value] for value in made.again) > _AGAIN:
        raise Excessive("it has the same large values made again and again")


def _levels(links: Sequence[Sequence[int]]) -> list[list[int]]:
    """Values by how deep in others they are; those in a circle, and in those, are left out."""
    holders = [0] * len(links)  # how many times each is in another
    for inside in links:
        for value in inside:
            holders[value] += 1
    levels = [[value for value, count in enumerate(holders) if not count]]
    while levels[-1]:
        below = list[int]()
        for value in levels[-1]:
            for inner in links[value]:
                holders[inner] -= 1
                if not holders[inner]:
                    below.append(inner)
        levels.append(below)
    return levels[:-1]
