"""What every command shares: the user's mistakes, exit codes, error.txt, Ctrl-C. Imports nothing that is slow."""

import contextlib
import os
import re
import signal
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent
DONE, FAILED, UNUSABLE, STOPPED = 0, 1, 2, 130  # exit codes
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # of Unicode: control, direction, half letters, further ends of lines
_GO_ON = "The same command goes on from the last checkpoint."
_LESS = "Lower batch_size, eval_batch_size or num_data_loaders, or end other programs."
# Of PyTorch's RuntimeErrors that the machine is the cause of: words in it, and what to do.
_OF_THE_MACHINE = {
    "out of memory": _LESS,
    "can't allocate memory": _LESS,
    "a deterministic implementation": "Use --no-deterministic or --device cpu.",
    "no kernel image is available": "This PyTorch has no code for this GPU: --device cpu, or another build of it.",
    "DataLoader timed out": f"A process that reads data was stopped, or the disk does not answer. {_GO_ON}",
    "DataLoader worker": f"A process that reads data ended, usually for want of memory. {_LESS} {_GO_ON}",
}


_LINES, _LETTERS = 24, 800  # of a message: a screen


def printable(text: str) -> str:
    """The text with escapes in place of what steers a terminal or is not seen, but for the ends of lines."""
    return "".join(
        letter if letter == "\n" or unicodedata.category(letter) not in _UNSEEN else ascii(letter)[1:-1]
        for letter in text
    )


def one_screen(text: str) -> str:
    """`printable`, and without the middle of what is too long: the beginning says where, the end what to do."""
    lines = [line if len(line) <= _LETTERS else _without_middle(line) for line in text.rstrip("\n").split("\n")]
    if left_out := max(0, len(lines) - _LINES):
        lines[_LINES - 2 : -1] = [f"... and {left_out + 1:,} more lines"]
    return printable("\n".join(lines))


def _without_middle(line: str) -> str:
    return f"{line[: _LETTERS // 2]} [... {len(line) - _LETTERS:,} letters ...] {line[-_LETTERS // 2 :]}"


class UserError(ValueError):
    """What the user can mend: where it is, what was found there, what was expected, and what to do.

    where: the file, setting or flag.  The text is 'where: found, expected so. Remedy'; given alone, `where` is all
    of it. It quotes what files say, so it is cut to `one_screen`. Whatever else is raised is a mistake of this program,
    and shows its traceback.
    """

    def __init__(self, where: str, found: str = "", expected: str = "", remedy: str = "") -> None:
        text = where + f": {found}" * bool(found) + f", expected {expected}" * bool(expected)
        if remedy:
            text += ("" if text.endswith((".", "\n")) else ".") + f" {remedy}"
        elif found and not text.endswith("."):
            text += "."
        super().__init__(one_screen(text))  # one argument: so it survives pickling, and PyTorch's loader processes


class Run(Protocol):
    """What a command prepares and then does."""

    @property
    def folder(self) -> Path:
        """Where error.txt goes if it fails."""
        ...

    def go(self) -> int:
        """Do it; returns the exit code."""
        ...

    def whereabouts(self) -> str:
        """What is said beside an error: from where the same command goes on, or ''."""
        ...


def run_command(prepare: Callable[[], Run]) -> int:
    """Prepare a run, which writes nothing, and go; returns the exit code.

    0; 1 where a run had begun and failed; 2 for input that cannot be used; 130 if the user stopped it.
    What `prepare` imports is imported in here, so that Ctrl-C is answered without a traceback from the start.
    """
    use_any_terminal()
    with _interrupted_by_sigterm():
        return _prepare_and_go(prepare)


def _prepare_and_go(prepare: Callable[[], Run]) -> int:
    try:
        run = prepare()
    except KeyboardInterrupt as stop:
        print(str(stop) or "Stopped; the same command goes on.", file=sys.stderr)
        return STOPPED
    except Exception as error:
        if not is_foreseen(error):
            raise
        print(f"error: {sentence(error)}", file=sys.stderr)
        return UNUSABLE
    try:
        return run.go()
    except KeyboardInterrupt as stop:
        print(str(stop) or "; ".join(filter(None, ("Stopped", run.whereabouts()))) + ".", file=sys.stderr)
        return STOPPED
    except Exception as error:
        _report(run, error)
        return FAILED


def answer(name: str, action: Callable[[], int | None]) -> int:
    """Does something that leaves nothing half done; returns its exit code, or 0.

    2, with one sentence after `name`, for what the user can mend; 130 if the user stopped it.
    """
    use_any_terminal()
    try:
        with _interrupted_by_sigterm():
            return action() or DONE
    except KeyboardInterrupt as stop:
        print(str(stop) or "Stopped; nothing was written.", file=sys.stderr)
        return STOPPED
    except Exception as error:
        if not is_foreseen(error):
            raise
        print(f"{name}: {sentence(error)}", file=sys.stderr)
        return UNUSABLE


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """What a scheduler asks is what Ctrl-C asks: what is half done is removed, and the rest said."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_foreseen(error: BaseException) -> bool:
    """Whether an error is the user's or the machine's (a full disk, no memory), or a training that diverged.

    The sentence is then enough; of all others the traceback is wanted.
    """
    return isinstance(error, UserError | OSError | FloatingPointError | MemoryError) or bool(_remedy(error))


def _report(run: Run, error: Exception) -> None:
    """One sentence on the error stream, and the traceback in error.txt; there, too, if it was not foreseen."""
    details, notes = printable(traceback.format_exc()), []
    with contextlib.suppress(OSError):  # a full disk must not hide the first error
        if whereabouts := run.whereabouts():
            notes.append(whereabouts)
        path = run.folder / "error.txt"
        path.write_bytes(without_places(details).encode("utf-8", "backslashreplace"))
        notes.append(f"details in {path}")
    if not is_foreseen(error):
        print(details, file=sys.stderr)
    print(f"error: {sentence(error)}" + f" ({'; '.join(notes)})" * bool(notes), file=sys.stderr)


def sentence(error: BaseException) -> str:
    """The message without the traceback that a loader process puts before it, and what to do about the machine."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return one_screen(f"out of memory ({text.strip().splitlines()[-1]}). {_LESS}")
    remedy = _remedy(error)
    if "Original Traceback" in text:
        text = re.sub(r"^core\.\w+\.\w+: ", "", text.strip().splitlines()[-1])
    return one_screen(text if not remedy else f"{text.rstrip('. ')}. {remedy}")


def _remedy(error: BaseException) -> str:
    """What to do about an error that is the machine's; '' of others."""
    known = (remedy for words, remedy in _OF_THE_MACHINE.items() if words in str(error))
    return next(known, "") if isinstance(error, RuntimeError) else ""


def without_places(text: str) -> str:
    """The text without where this checkout, Python and the user's home lie, as it may be passed on."""
    places = {str(ROOT): ".", sys.prefix: "<python>", sys.base_prefix: "<python>", os.path.expanduser("~"): "~"}
    for place in sorted((place for place in places if len(place) > 1), key=len, reverse=True):
        text = text.replace(place, places[place])
    return text


def use_any_terminal() -> None:
    """Let a terminal show what it can of any text, and the rest as escapes: no name and no sign may end a run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a notebook or a test put its own in place
            stream.reconfigure(errors="backslashreplace")
