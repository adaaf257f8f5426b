"""The redirectors that the page offers: one that is named, one that comes along, and runs below a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from checkpoints_manager import saved_steps
from core.command import UserError
from core.config_default import PATCHES
from core.files import read_json
from core.redirection.load import OURS

DEPTH = 3  # folders below the one that is searched: samples/ and tensorboard/ are many and hold no runs


@dataclass(frozen=True)
class Choice:
    """A redirector. name: on the page.  config: how its networks are built, where its checkpoint does not say so."""

    name: str
    checkpoint: Path
    config: Path | None = None


def find_choices(runs: Path, checkpoint: Path | None = None, config: Path | None = None) -> list[Choice]:
    """The named one first, then the one that comes along, then all runs of redirectors of photographs below a folder.

    Raises UserError where there is none.
    """
    named = [] if checkpoint is None else [Choice(str(checkpoint), checkpoint, config)]
    named += [Choice("photographs (comes along)", OURS)] * OURS.is_file()
    others = [run for run in runs_below(runs) if checkpoint is None or run.resolve() != checkpoint.resolve()]
    found = named + [Choice(run.relative_to(runs).as_posix(), run) for run in others]
    if not found:
        raise UserError(
            f"{runs}: no run of a redirector below it. Train one, python train_st_ed.py config/flow-quickstart.json, "
            "or name one with --checkpoint."
        )
    return found


def runs_below(folder: Path) -> Sequence[Path]:
    """Run folders with a checkpoint of a redirector of patches, the newest first."""
    written = [path for depth in range(1, DEPTH + 1) for path in folder.glob("*/" * depth + "config.json")]
    newest_first = sorted(written, key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent for path in newest_first if saved_steps(path.parent) and _is_of_patches(path)]


def _is_of_patches(config: Path) -> bool:
    try:
        settings = read_json(config)
    except (OSError, ValueError):  # somebody else's file, or one that is just being written
        return False
    return isinstance(settings, dict) and settings.get("redirector") in PATCHES
