"""Where numbers and pictures go: the console, metrics.jsonl and TensorBoard, behind one log()."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from core.command import printable
from core.disk import said_where_full
from core.files import read_text, write_text

_is_quiet = False


def be_quiet() -> None:
    """Of several processes one speaks and writes: the others call this."""
    global _is_quiet
    _is_quiet = True


class Tracker:
    """Writes scalars and pictures of a run folder.

    use_tensorboard: events go into `<folder>/tensorboard`.
    start_step: a training that starts here replaces what an earlier one logged later; None only adds.
    """

    def __init__(self, folder: Path, *, use_tensorboard: bool, start_step: int | None = None) -> None:
        self._lines, self._events = folder / "metrics.jsonl", folder / "tensorboard"
        self._board = None
        if _is_quiet:
            return
        if start_step is not None:
            _forget_after(self._lines, start_step)
        if use_tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # a second to import, and optional

            with said_where_full(self._events):
                self._board = SummaryWriter(
                    str(self._events), purge_step=None if start_step is None else start_step + 1
                )

    def log(
        self,
        step: int,
        metrics: Mapping[str, float],
        images: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """metrics: TensorBoard tag -> value.  images: tag -> (H, W, 3) uint8 RGB."""
        if metrics and not _is_quiet:
            with (
                said_where_full(self._lines),
                self._lines.open("a", encoding="utf-8", errors="backslashreplace") as file,
            ):
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._board is not None:
            with said_where_full(self._events):
                for tag, value in metrics.items():
                    self._board.add_scalar(tag, value, step)
                for tag, picture in (images or {}).items():
                    self._board.add_image(tag, picture, step, dataformats="HWC")
                self._board.flush()

    def log_anew(self, step: int, metrics: Mapping[str, float], images: Mapping[str, np.ndarray] | None = None) -> None:
        """As `log`, in place of what was logged of the same step under the same tags, as before a kill."""
        if not _is_quiet:
            _keep(self._lines, lambda row: row["step"] != step or row.keys() - {"step"} != metrics.keys())
        self.log(step, metrics, images)

    def close(self) -> None:
        if self._board is not None:
            with said_where_full(self._events):
                self._board.close()


def progress_bar(
    total: int | None, start: int, what: str, unit: str = "step", leave: bool = True, shown: bool = True
) -> tqdm:
    """Bar with the time left, where the total is known; `start` steps are done already."""
    given = {"total": total, "initial": start, "desc": what, "unit": unit}
    return tqdm(**given, leave=leave, disable=_is_quiet or not shown, dynamic_ncols=True, smoothing=0.05)


def say(message: str) -> None:
    """One line to the console that does not tear a progress bar; what steers a terminal becomes escapes."""
    if not _is_quiet:
        tqdm.write(printable(message))


def _forget_after(path: Path, start: int) -> None:
    """Drop what steps from `start` on logged, and tests at `start`, which a resumed run makes again."""
    _keep(
        path,
        lambda row: row["step"] < start or (row["step"] == start and any(name.startswith("train/") for name in row)),
    )


def _keep(path: Path, is_kept: Callable[[Mapping[str, float]], bool]) -> None:
    """Drop all other lines; those cut short by a kill, too."""
    if not path.is_file():
        return
    lines = read_text(path, most=sys.maxsize).splitlines()
    write_text(path, "".join(line + "\n" for line in lines if _passes(line, is_kept)))


def _passes(line: str, is_kept: Callable[[Mapping[str, float]], bool]) -> bool:
    try:
        return is_kept(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):  # a line cut short by a kill, or none of ours
        return False
