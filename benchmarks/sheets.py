"""Contact sheets of the embedded data set for docs/data.md: `python -m benchmarks.sheets --look rendered`.

Writes LOOK-persons.jpg, a picture each of so many persons, and LOOK-gaze-head.jpg, a person whose head turns from
column to column and whose gaze from row to row, both in the camera's frame: in a column the eyes alone differ.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess.synthetic.domains import DOMAINS, VARIATIONS
from preprocess.synthetic.look import Look
from preprocess.synthetic.samples import LOOKS, draw_person

SIDE, GAP, QUALITY = 112, 2, 88  # pixels of a face and between faces; of the JPEG
# (pitch, yaw) in degrees: head, column by column, and gaze, row by row; eyes are within the data set's limits.
HEADS = ((0, 20), (0, 10), (0, 0), (0, -10), (0, -20), (10, 0), (-10, 0))
GAZES = ((0, 12), (0, 0), (0, -12), (12, 0), (-12, 0))


def tile(faces: Iterable[np.ndarray], columns: int) -> np.ndarray:
    """Faces (SIDE, SIDE, 3) row by row, on white; (H, W, 3) uint8."""
    shown = list(faces)
    rows = -(-len(shown) // columns)
    page = np.full((rows * (SIDE + GAP) - GAP, columns * (SIDE + GAP) - GAP, 3), 255, np.uint8)
    for i, face in enumerate(shown):
        top, left = (SIDE + GAP) * (i // columns), (SIDE + GAP) * (i % columns)
        page[top : top + SIDE, left : left + SIDE] = face
    return page


def persons(look: Look[Any, Any], count: int, seed: int, variation: float) -> Iterable[np.ndarray]:
    """The first picture of each of the data set's first persons, framed exactly."""
    for i in range(count):
        key, person = draw_person(seed, 0, i, look)
        scene = look.draw_scene(np.random.default_rng([*key, 1]), DOMAINS[0], variation)
        yield _face(look, person, scene)


def gaze_by_head(look: Look[Any, Any], index: int, seed: int) -> Iterable[np.ndarray]:
    """One person in calm light, all of GAZES for all of HEADS."""
    key, person = draw_person(seed, 0, index, look)
    scene = look.draw_scene(np.random.default_rng([*key, 1]), DOMAINS[0], VARIATIONS["calm"])
    for gaze in GAZES:
        for head in HEADS:
            yield _face(look, person, replace(scene, gaze=_radians(gaze), head=_radians(head)))


def _radians(degrees: tuple[float, float]) -> tuple[float, float]:
    pitch, yaw = np.deg2rad(degrees).tolist()
    return pitch, yaw


def _face(look: Look[Any, Any], person: Any, scene: Any) -> np.ndarray:
    return cv2.resize(look.patch(person, scene, 128), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sheets", description=__doc__)
    parser.add_argument("--look", default="rendered", choices=LOOKS)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder for the two pictures")
    parser.add_argument("--persons", type=int, default=48, help="how many (%(default)s)")
    parser.add_argument("--person", type=int, default=44, help="whose gaze and head turn (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variation", default="full", choices=VARIATIONS, help="of the persons' light and background")
    arguments = parser.parse_args(argv)
    look, variation = LOOKS[arguments.look](), VARIATIONS[arguments.variation]
    sheets = {
        "persons": tile(persons(look, arguments.persons, arguments.seed, variation), 8),
        "gaze-head": tile(gaze_by_head(look, arguments.person, arguments.seed), len(HEADS)),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, picture in sheets.items():
        content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        (arguments.out / f"{arguments.look}-{name}.jpg").write_bytes(content.tobytes())


if __name__ == "__main__":
    main()
