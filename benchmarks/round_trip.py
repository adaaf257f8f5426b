"""Rendered people in larger photographs, redirected: `python -m benchmarks.round_trip RUN`.

Camera, pose and gaze of each scene are known, and the same scene is rendered with the asked-for gaze or head, too. The
error of what was redirected against it is told beside that of the photograph as it was, for both ways back.
Landmarks are given, so that nothing but redirector and pasting is measured.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from core.command import UserError
from core.redirection.edit import Degrees, Edit
from core.redirection.faces import PhotoFace
from core.redirection.fade import EXTENT, eye_fade, face_fade, to_positions
from core.redirection.load import Loaded, load
from core.redirection.photo import Back, redirect_faces
from core.redirection.photo_files import Photo
from core.runtime import tune_cpu
from preprocess.normalization import apply_homography
from preprocess.synthetic.rendered.person import Person
from tests import photos
from tests.raw_trees import lay_out
from utils import write_png

STEPS = ((0.0, -20.0), (0.0, -10.0), (0.0, 10.0), (0.0, 20.0), (-10.0, 0.0), (10.0, 0.0))  # degrees of an edit
SPREAD = 10.0  # degrees, of gaze and head before it
BACKS: tuple[Back, ...] = ("patch", "pixels")


@dataclass(frozen=True)
class Scene:
    """A photograph (H, W, 3) uint8 before an edit and as it should be after it, and the face in it."""

    before: ndarray
    after: ndarray
    face: PhotoFace
    edit: Edit


def make_scene(person: Person, random: np.random.Generator, factor: str, step: Degrees) -> Scene:
    """A person somewhere in the picture, who is asked to turn gaze or head by a step."""
    angles = {name: random.uniform(-SPREAD, SPREAD, 2) for name in ("gaze", "head")}
    place = {"at": tuple(random.uniform(-0.08, 0.08, 2)), "roll": random.uniform(-12, 12), "distance": 600}
    shots = [
        lay_out(photos.CAMERA, **place, **{name: tuple(value) for name, value in known.items()})
        for known in (angles, angles | {factor: angles[factor] + step})
    ]
    face = photos.face_of(shots[0])
    pitch, yaw = np.degrees(face.from_condition(np.radians(angles[factor] + step)))
    edit = Edit(**{factor: (float(pitch), float(yaw))})
    before, after = (photos.photograph(person, shot) for shot in shots)
    return Scene(before, after, face, edit)


def error(image: ndarray, scene: Scene) -> float:
    """Mean difference, grey levels, from the scene as it should be: over the eyes, or the face where the head turns."""
    weight = _weight(scene)
    gap = np.abs(image.astype(np.float64) - scene.after).mean(axis=-1)
    return float((gap * weight).sum() / weight.sum())


def _weight(scene: Scene) -> ndarray:
    """(H, W): what counts, 1 or 0."""
    fade = face_fade()[..., 1] if scene.edit.moves_head else eye_fade(scene.face)[..., 1]
    height, width = scene.before.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    at = to_positions(apply_homography(scene.face.to_patch, np.stack([x, y], axis=-1)))
    place = np.rint((at / EXTENT + 1) / 2 * len(fade) - 0.5).astype(int)
    inside = ((place >= 0) & (place < len(fade))).all(axis=-1)
    column, row = np.moveaxis(place.clip(0, len(fade) - 1), -1, 0)
    return inside & (fade[row, column] > 0.5)


def measure(loaded: Loaded, factor: str, persons: Sequence[Person], seed: int = 0) -> tuple[list[str], list[ndarray]]:
    """Rows of the table, one a step, and for each the last person as it was, as redirected and as it should be."""
    backs = BACKS if loaded.redirector.carries_pixels else BACKS[:1]
    lines, pictures = [], []
    for step in STEPS:
        random, found = np.random.default_rng(seed), []
        for person in persons:
            scene = make_scene(person, random, factor, step)
            done = [redirect_faces(loaded, Photo(scene.before), [scene.face], scene.edit, back=back) for back in backs]
            images = [scene.before, *(one.pixels for one in done)]
            found.append([error(image, scene) for image in images])
        pictures.append(np.hstack([*images, scene.after]))
        cells = " | ".join(f"{value:.2f}" for value in np.mean(found, axis=0))
        lines.append(f"| {factor} {step[0]:g} {step[1]:g} | {cells} |")
    return lines, pictures


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of a redirector of patches")
    parser.add_argument("--persons", type=int, default=6)
    parser.add_argument("--pictures", type=Path, metavar="FILE.png", help="a row a step: before, redirected, wanted")
    arguments = parser.parse_args(argv)
    tune_cpu(torch.get_num_threads())
    try:
        loaded = load(arguments.run, device="cpu")
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 2
    persons = [photos.make_person(1000 + seed) for seed in range(arguments.persons)]
    columns = ["as it was", "decoded patch", *["own pixels"] * loaded.redirector.carries_pixels]
    print(f"Difference from the scene as it should be, grey levels, mean of {len(persons)} persons:\n")
    print(f"| edit, deg | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    rows: list[ndarray] = []
    for factor in ("gaze", "head"):
        lines, pictures = measure(loaded, factor, persons)
        print("\n".join(lines))
        rows += pictures
    if arguments.pictures:
        write_png(arguments.pictures, np.vstack(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
