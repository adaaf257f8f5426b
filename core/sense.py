"""Whether labels and images can be what they are taken for: what is cheap of `python -m preprocess verify`."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from core.command import UserError
from core.tracking import say
from dataset import PersonImages

LOOKED_AT = 64  # images, evenly over the data set
CONSTANT_DEG = 0.1  # standard deviation of a label, from which on it says something
BLANK = 3.0  # grey levels: an image that deviates less from its mean shows nothing
COLUMNS = ("gaze pitch", "gaze yaw", "head pitch", "head yaw")
_LIMITS = np.array([np.pi / 2, np.pi] * 2)
_REMEDY = "Re-run preprocessing; `python -m preprocess verify FILE` says more."


def require_sense(dataset: PersonImages, *, is_learned: bool) -> None:
    """Says what is doubtful of a data set, in a sentence each.

    is_learned: something is trained on it. Of a test set one angle of gaze or head may be the same in all, as the
    head's pitch is in Columbia.
    Raises UserError where most labels are no angles in radians, as degrees are not, or one is not finite.
    """
    beyond = np.abs(dataset.labels()) > _LIMITS
    rows = beyond.any(axis=1)
    if beyond[:, :2].any(axis=1).mean() > 0.5:  # of the gaze: some files say nothing of heads
        found = f"{rows.sum():,} of {len(rows):,} labels are beyond 90 (pitch) or 180 degrees (yaw) if taken as radians"
        raise UserError(str(dataset.path), found, "radians; these may be degrees", _REMEDY)
    for doubt in _doubts(dataset, rows, is_learned):
        say(f"warning: {dataset.name or dataset.path}: {doubt} {_REMEDY}")


def require_pairs(dataset: PersonImages) -> None:
    """Raises UserError where every person has one image alone: it would be redirected to itself."""
    if len(dataset) == len(dataset.person_ids):
        found = f"each of its {len(dataset):,} persons has one image, which leaves nothing to redirect it to"
        raise UserError(str(dataset.path), found, remedy="Group the images by person, or use more data.")


def _doubts(dataset: PersonImages, beyond: np.ndarray, is_learned: bool) -> Iterator[str]:
    if beyond.any():
        yield f"{beyond.sum():,} of {len(beyond):,} labels are beyond 90 degrees of pitch or 180 of yaw."
    spread = np.degrees(dataset.labels().std(axis=0, dtype=np.float64))
    constant = [name for name, value in zip(COLUMNS, spread, strict=True) if value < CONSTANT_DEG]
    nothing_turns = any({f"{what} pitch", f"{what} yaw"} <= set(constant) for what in ("gaze", "head"))
    if (is_learned and constant or nothing_turns) and len(dataset) > 1:
        yield f"the same {', '.join(constant)} in all labels, of which nothing can be learned."
    entries = np.unique(np.linspace(0, len(dataset) - 1, LOOKED_AT).round().astype(int))
    blank = 0
    for entry in entries:
        with suppress(UserError):  # damaged: whoever needs the image says so
            blank += float(dataset[int(entry)]["image"].float().mean(0).std()) < BLANK
    if blank:
        yield f"{blank} of {len(entries)} images looked at show nothing: they are of one colour."
