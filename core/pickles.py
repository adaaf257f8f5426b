"""What a pickle would make, found without making anything: by walking its opcodes. Imports no torch.

PyTorch's own reader of weights calls no function that a file names. But it builds whatever nesting a file asks for, and
a few thousand tuples in one another end the process, without a message, as soon as anything goes through them.
"""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

DEEPEST = 200  # values in one another; a run's checkpoint has about 15
MOST = 400_000  # opcodes; a tensor takes about 25
_PICKLES = 5  # that a file of PyTorch's older format begins with: magic number, protocol, machine, content, storages
_LONGEST = 1 << 26  # bytes of a pickle in a zip archive
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
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\3\4"
        file.seek(0)
        for stream in _in_zip(file) if is_zip else (file for _ in range(_PICKLES)):
            _require_shallow(_links(stream))


def _in_zip(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.filename.lower().endswith("data.pkl"):
                if entry.file_size > _LONGEST:
                    raise Excessive(f"its {entry.filename} is of {entry.file_size:,} bytes")
                del entry.CRC  # its sum is asked for by whoever loads it; some archives have none
                with archive.open(entry) as stream:
                    yield io.BytesIO(stream.read())


def _links(stream: IO[bytes]) -> list[list[int]]:
    """One pickle: of each value, by number, the numbers of those that are in it. 0 stands for all plain ones."""
    links, stack, marks, memo = [list[int]()], list[int](), list[int](), dict[Any, int]()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if count > MOST:
            raise Excessive(f"it is made in more than {MOST:,} steps")
        if name == "MARK":
            marks.append(len(stack))
        elif name in _PUT:
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _GET:
            stack.append(memo[argument])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in _SILENT:
            taken = _take(opcode, stack, marks) if opcode.stack_before else []
            if name in _GROWING:
                links[taken[0]].extend(taken[1:])
                stack.append(taken[0])
            elif taken or name in _CONTAINERS:
                links.append(taken)
                stack.extend([len(links) - 1] * len(opcode.stack_after))
            else:
                stack.append(0)
    return links


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


def _require_shallow(links: list[list[int]]) -> None:
    """Raises Excessive where values are in one another deeper than DEEPEST, or without end."""
    holders = [0] * len(links)  # how many times each is in another
    for inside in links:
        for value in inside:
            holders[value] += 1
    level = [value for value, count in enumerate(holders) if not count]
    depth, seen = 0, 0
    while level:
        depth, seen = depth + 1, seen + len(level)
        below = list[int]()
        for value in level:
            for inner in links[value]:
                holders[inner] -= 1
                if not holders[inner]:
                    below.append(inner)
        level = below
    if depth > DEEPEST or seen < len(links):
        raise Excessive(f"its values are in one another more than {DEEPEST} deep")
