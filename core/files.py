"""Files: written whole or not at all, text in UTF-8 whatever the locale. Imports no torch."""

import codecs
import errno
import functools
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from core.command import UserError
from core.disk import Disk, said_where_full

if TYPE_CHECKING:
    import numpy as np

MOST_BYTES = 1 << 29  # of a file that is read at once: a photograph of 100 megapixels, unpacked, is of 300 MB
_MOST_JSON = 1 << 25  # letters; in memory they may become twenty times as much
_LONGEST = 100  # letters of a name; with what is added, a disk takes 255 bytes
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it on success and removed on failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for left in _left_in(path.parent.absolute()):
        if _is_left_of(left, path.name):
            left.unlink(missing_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[Disk]:
    """Where a library writes a file, on a disk that may be full, which gets its name when it is whole.

    Raises OSError, WriteError of the disk, where there is no room.
    """
    with atomic_write(path) as temporary, Disk(temporary) as disk:
        try:
            yield disk
        except Exception:
            disk.check()  # what the library says after that is no help
            raise
        disk.keep()
        disk.check()


def remove_left(folder: Path, name: str = "") -> None:
    """Remove what writers that were killed left half done; what another process is writing now stays.

    name: of the one file that was to be written; '' for all.
    """
    for left in folder.glob(".*.tmp"):
        if _is_left_of(left, name):
            left.unlink(missing_ok=True)


@functools.cache  # a folder of many files is not listed again for each of them
def _left_in(folder: Path) -> list[Path]:
    """What others were writing when this process first wrote there."""
    return list(folder.glob(".*.tmp"))


def _is_left_of(left: Path, name: str) -> bool:
    """Whether it is of this file, or of any for '', and who wrote it is gone. It is called .NAME.PID.tmp."""
    of, pid, _ = left.name.rsplit(".", 2)
    return (not name or of == f".{name}") and not is_running(pid)


def is_running(pid: str) -> bool:
    """Whether another process of this number is there."""
    if not pid.isdecimal() or int(pid) == os.getpid() or sys.platform == "win32":  # where asking would end it
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def clean_run(folder: Path) -> None:
    """Remove what a run that failed or was killed left in its folder, which is this process' own now."""
    parts = ("checkpoints", "samples", "report", "evaluation")
    half_done = (left for part in parts for left in (folder / part).rglob(".*.tmp"))
    for left in (folder / "error.txt", *folder.glob(".*.tmp"), *half_done):
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, in UTF-8; what has no UTF-8, as a stray byte of a file's name, as a backslash escape."""
    with said_where_full(path), atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def require_file(path: Path, most: int = sys.maxsize) -> None:
    """Before a file is opened that anybody may have named.

    Raises OSError where there is none, where it is a pipe or device, which may never end, or of more than `most` bytes.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode) and path.parent != Path("/dev/fd"):  # where a shell puts its own pipes
        raise OSError(errno.EINVAL, "is no file, but a folder, pipe or device", str(path))
    if about.st_size > most:
        raise OSError(errno.EFBIG, f"is of {about.st_size:,} bytes, and {most:,} are read at most", str(path))


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """A whole file. Raises OSError where it cannot be read, is no file, or is larger than `most`."""
    require_file(path, most)
    return path.read_bytes()


def read_text(path: Path, errors: str = "backslashreplace", most: int = MOST_BYTES) -> str:
    """A text file in UTF-8, or in whatever its byte-order mark says; undecodable bytes as backslash escapes.

    Raises OSError as `read_bytes` does; with errors="strict" UnicodeDecodeError for undecodable bytes.
    """
    content = read_bytes(path, most)
    encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors).replace("\r\n", "\n")


def read_array(path: Path) -> "np.ndarray":
    """The numbers of a .npy file, float64. Raises OSError as `read_bytes` does, ValueError where it is none."""
    import numpy as np  # slow to import

    require_file(path, MOST_BYTES)
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float64)
    except OSError:
        raise
    except Exception as error:  # NumPy takes its header for a line of Python: whatever may be wrong with one comes
        raise ValueError(f"no .npy file of numbers ({error})") from error


def write_json(path: Path, content: object) -> None:
    """Write plain data as JSON, whole."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file, with or without a byte-order mark.

    Raises OSError where it cannot be read, ValueError where it is none.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """What JSON says. Raises ValueError where it is none, too long, or nested deeper than Python can read."""
    if len(text) > _MOST_JSON:
        raise ValueError(f"{len(text):,} letters long, and {_MOST_JSON:,} are read at most")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def file_name(name: str) -> str:
    """What a file or folder may be called that is of this name, which anybody may have given: never a path.

    As in an address, all but ASCII letters, digits and `_.-~` is quoted; a name that is too long is hashed.
    """
    quoted = quote(name, safe="", errors="surrogatepass")
    if len(quoted) > _LONGEST:
        return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


@contextmanager
def taken_apart(where: str | Path, remedy: str) -> Iterator[None]:
    """Round the few lines that take apart what a file holds, which anybody may have written.

    Raises UserError in place of whatever goes wrong there.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        found = f"holds something else than this project writes there ({type(error).__name__}: {error})"
        raise UserError(str(where), found, remedy=remedy) from error


def file_sha256(path: str | Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_writable(folder: str | Path, key: str) -> None:
    """Raises UserError naming the setting `key` if the folder cannot be made or written."""
    folder = Path(folder)
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        os.rmdir(tempfile.mkdtemp(dir=existing))  # what os.access says does not hold for root, nor for /proc
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            key, f"{folder} cannot be written ({existing} is not a writable folder: {reason})", remedy="Choose another."
        ) from error
