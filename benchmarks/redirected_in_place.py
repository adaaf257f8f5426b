"""What redirect.py does to photographs at their size: `python -m benchmarks.redirected_in_place --photos DIR`.

Every face that points to within 35 degrees of the camera is turned, one factor at a time, by the edits of
`benchmarks.redirected_photographs`, from where the redirector itself sees it, and put back. The reference that took no
part then sees the photograph before and after.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from benchmarks.redirected_photographs import EDITS, Change, summary
from core.command import UserError, answer
from core.redirection.edit import Edit
from core.redirection.faces import PhotoFace, find
from core.redirection.load import Loaded, load
from core.redirection.measure import measure
from core.redirection.photo import redirect_faces
from core.redirection.photo_files import Photo, open_photo
from core.runtime import tune_cpu
from preprocess.datasets.images import find_photographs

FURTHEST = 35.0  # degrees of yaw


def photographs(folder: Path) -> list[Path]:
    """All photographs in a folder, by name."""
    return [folder / name for name in sorted(name for found in find_photographs(folder)[0].values() for name in found)]


def faces_in(path: Path) -> list[tuple[Photo, PhotoFace]]:
    """The faces of a photograph that look about into the camera, with open eyes."""
    photo, kept = open_photo(path), []
    for face in find(photo.pixels, photo.film):
        seen = measure(photo.pixels, face) if isinstance(face, PhotoFace) else None
        if seen and seen.gaze and abs(seen.head[1]) < FURTHEST:
            kept.append((photo, face))
    return kept


def changed(loaded: Loaded, photo: Photo, face: PhotoFace, edit: Edit) -> ndarray:
    """(2, 2) degrees, gaze and head, that the reference sees change; NaN where it finds no face, or no open eyes."""
    pixels = redirect_faces(loaded, photo, [face], edit).pixels
    before, after = measure(photo.pixels, face), measure(pixels, face)
    if before is None or after is None or not before.gaze or not after.gaze:
        return np.full((2, 2), np.nan)
    return np.subtract([after.gaze, after.head], [before.gaze, before.head])


def changes(loaded: Loaded, faces: Sequence[tuple[Photo, PhotoFace]]) -> list[Change]:
    """All edits of EDITS."""
    found = []
    for factor, edits in EDITS.items():
        for degrees in edits:
            edit = Edit(**{factor: degrees}, relative=True)
            moved = np.stack([changed(loaded, *face, edit) for face in faces])
            moved = moved[np.isfinite(moved).all(axis=(1, 2))]
            found.append(Change(factor, degrees, {"gaze": moved[:, 0], "head": moved[:, 1]}))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="default: the one that comes along")
    arguments = parser.parse_args(argv)
    tune_cpu(torch.get_num_threads())

    def run() -> None:
        loaded = load(arguments.checkpoint, device="cpu")
        faces = [face for path in photographs(arguments.photos) for face in faces_in(path)]
        if not faces:
            raise UserError(
                f"--photos: {arguments.photos}: no face in it that looks about into the camera.",
                remedy="Name other photographs.",
            )
        print(f"{len(faces)} faces in their photographs, changes of asked-for against measured angles:\n")
        print(summary(changes(loaded, faces), len(faces)))

    return answer("redirected_in_place", run)


if __name__ == "__main__":
    sys.exit(main())
