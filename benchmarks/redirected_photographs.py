"""What a redirector does to photographs: `python -m benchmarks.redirected_photographs RUN --faces FILE.h5`.

The faces are those of `benchmarks.photographs` (`--photos DIR` there finds them). Each is redirected from where the
redirector itself sees it, by asked-for degrees; the reference that took no part, landmarks and irises, then sees both,
before and after, and says what has changed. `--sheet FILE.png` shows them.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from benchmarks.agreement import Agreement, agreement
from benchmarks.detail import load_run, sizes_of
from benchmarks.photo_faces import PHOTOGRAPHS, read_faces, see_patches
from core.command import UserError
from core.runtime import tune_cpu
from dataset import prepare_image
from models.redirector import Redirector
from preprocess.normalization import ST_ED
from utils import image_grid, image_to_float, image_to_uint8, write_png

EDITS = {
    "gaze": ((0, -20), (0, -10), (0, 10), (0, 20), (-10, 0), (10, 0)),
    "head": ((0, -15), (0, 15), (-10, 0), (10, 0)),
}  # factor -> degrees of pitch and yaw
SHOWN = (("gaze", (0, -20)), ("gaze", (0, 20)), ("head", (0, -15)), ("head", (0, 15)), ("head", (10, 0)))
PLACES = {"gaze": slice(0, 2), "head": slice(2, 4)}  # in labels


@dataclass(frozen=True)
class Change:
    """What an edit asked for and what was seen; degrees, pitch and yaw.

    asked: (2,).  seen: factor -> (n, 2), of the faces that the reference finds before and after.
    """

    factor: str
    asked: tuple[float, float]
    seen: Mapping[str, ndarray]


@torch.no_grad()
def edited(redirector: Redirector, images: Tensor, factor: str, degrees: tuple[float, float]) -> Tensor:
    """Images (B, 3, S, S) with one factor turned by so much from where the redirector sees it."""
    encoding = redirector.encode(images)
    turned = encoding.conditions[factor] + torch.deg2rad(torch.tensor(degrees, dtype=images.dtype))
    return redirector.decode(redirector.rotate(encoding, {factor: turned})).clamp(-1, 1)


def labels_seen(images: Tensor) -> ndarray:
    """(B, 4) degrees, gaze and head as the reference sees them; NaN where it finds no face."""
    pixels = image_to_uint8(images).permute(0, 2, 3, 1).numpy()
    seen, labels = see_patches(list(pixels), ST_ED.resized(images.shape[-1])), np.full((len(images), 4), np.nan)
    labels[seen.rows] = np.degrees(seen.labels[:, :4])
    return labels


def changes(redirector: Redirector, images: Tensor) -> list[Change]:
    """All edits of EDITS."""
    before, found = labels_seen(images), []
    for factor, edits in EDITS.items():
        for degrees in edits:
            moved = labels_seen(edited(redirector, images, factor, degrees)) - before
            moved = moved[np.isfinite(moved).all(axis=1)]
            found.append(Change(factor, degrees, {name: moved[:, place] for name, place in PLACES.items()}))
    return found


def summary(found: Sequence[Change], faces: int) -> str:
    """Markdown: asked-for against seen changes by factor and angle, and what moved besides."""
    lines = ["| edit | r | slope | difference, deg | moved besides, deg | faces found after |", "|---" * 6 + "|"]
    for factor, other in (("gaze", "head"), ("head", "gaze")):
        for axis, name in enumerate(("pitch", "yaw")):
            edits = [change for change in found if change.factor == factor and change.asked[axis]]
            told = _agreement(edits, factor, axis)
            beside = np.concatenate([np.linalg.norm(change.seen[other], axis=1) for change in edits])
            share = len(beside) / (faces * len(edits))
            lines.append(
                f"| {factor} {name} | {told.correlation:.2f} | {told.slope:.2f} | {told.difference:.1f} | "
                f"{other} {beside.mean() if len(beside) else np.nan:.1f} | {share:.0%} |"
            )
    return "\n".join(lines)


def _agreement(edits: Sequence[Change], factor: str, axis: int) -> Agreement:
    asked = np.concatenate([np.full(len(change.seen[factor]), change.asked[axis], float) for change in edits])
    return agreement(asked, np.concatenate([change.seen[factor][:, axis] for change in edits]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run's folder")
    parser.add_argument("--faces", type=Path, default=Path("runs/photographs/faces.h5"), metavar="FILE.h5")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png")
    arguments = parser.parse_args(argv)
    tune_cpu(torch.get_num_threads())
    try:
        loaded = load_run(arguments.run)
        redirector, size = loaded.redirector, sizes_of(loaded)[-1]
        sets, _ = read_faces(arguments.faces)
        if PHOTOGRAPHS not in sets:
            raise UserError(f"--faces: {arguments.faces} has no photographs in it, only clips.", remedy="Name another.")
        pixels = [prepare_image(np.ascontiguousarray(patch), size) for patch in sets[PHOTOGRAPHS].pixels]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    images = image_to_float(torch.from_numpy(np.stack(pixels)))
    print(f"{len(images)} faces of {size} px, changes of asked-for against measured angles:\n")
    print(summary(changes(redirector, images), len(images)))
    if arguments.sheet:
        columns = [images, *(edited(redirector, images, *edit) for edit in SHOWN)]
        write_png(arguments.sheet, image_grid(torch.stack(columns, dim=1)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
