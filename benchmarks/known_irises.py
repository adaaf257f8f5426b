"""Where the irises of the embedded data set's faces are, and how far from there a detector sees them.

A file of the data set says how it was made: its persons and scenes are drawn again, and must have the file's labels.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from benchmarks.agreement import agreement
from core.command import UserError
from core.hdf5 import open_hdf5, read_attributes
from dataset import GazeDataset
from preprocess.synthetic.anatomy import pupil_centres
from preprocess.synthetic.domains import DOMAINS, VARIATIONS
from preprocess.synthetic.samples import LOOKS, Style, draw_person, draw_scenes
from preprocess.synthetic.scene import Scene, make_view, scene_labels

AHEAD = np.array([[0.0, 0.0, -1.0]] * 2)  # out of the face, head frame
TOLD_AT = 256  # pixels a side that distances are told at
TOLERANCE = 1e-5  # radians; another machine's sines may differ in the last place


@dataclass(frozen=True)
class Irises:
    """Middles of the irises, (N, 2, 2) pixels (column, row), image left first.

    points: where they are.  ahead: where they would be if the eyes looked straight out of the face.
    """

    points: ndarray
    ahead: ndarray


@dataclass(frozen=True)
class _Making:
    """How a file was made: what its attributes say."""

    seed: int
    domain: int
    style: Style
    number: dict[str, int]  # of a person

    @staticmethod
    def of(attributes: dict[str, Any]) -> "_Making":
        names = [domain.name for domain in DOMAINS]
        domain, look = names.index(attributes["dataset"]), attributes.get("look", "drawn")
        group_size, framing = attributes.get("group_size", 1), attributes.get("framing", "exact")
        persons = range(json.loads(attributes["options"])["persons"])
        number = {DOMAINS[domain].person_id(i): i for i in persons}
        style = Style(look, VARIATIONS[attributes["variation"]], group_size, framing)
        return _Making(attributes["seed"], domain, style, number)


def known_irises(data: GazeDataset, rows: ndarray) -> Irises:
    """Of the patches at some rows, ascending. Raises UserError where drawn again they have other labels."""
    with open_hdf5(data.path) as file:
        attributes = read_attributes(file)
    if not attributes.get("synthetic") or "view" in attributes:
        raise UserError(
            f"{data.path}: not patches of the embedded data set, so nobody knows where the irises are.",
            remedy="Name one that `python -m preprocess synthetic` made.",
        )
    drawn = list(_drawn_again(data, rows, _Making.of(attributes)))
    labels, points, ahead = (np.array(part) for part in zip(*drawn, strict=True))
    if not np.allclose(labels[:, :4], data.labels()[rows], rtol=0, atol=TOLERANCE):
        raise UserError(
            f"{data.path}: drawn again, its scenes have other labels: made by another version. Make it anew."
        )
    return Irises(points, ahead)


def _drawn_again(data: GazeDataset, rows: ndarray, making: _Making) -> Iterator[tuple[ndarray, ndarray, ndarray]]:
    """Labels (8,) and irises (2, 2), as they are and as they would be straight ahead, row by row."""
    look = LOOKS[making.style.look]()
    for index in np.unique(data.person_of[rows]):
        number, samples = making.number[data.person_ids[index]], data.sample_of[rows[data.person_of[rows] == index]]
        key, person = draw_person(making.seed, making.domain, number, look)
        scenes = list(draw_scenes(key, making.domain, int(samples.max()) + 1, making.style))
        for sample in samples:
            eyes = look.eyes(person)
            yield (
                scene_labels(scenes[sample], eyes),
                *iris_points(scenes[sample], data.image_size, eyes, look.kappa(person)),
            )


def iris_points(scene: Scene, size: int, eyes: ndarray, kappa: tuple[float, float]) -> tuple[ndarray, ndarray]:
    """Irises (2, 2), pixels, as they are and as they would be straight ahead. eyes, kappa: see `make_view`."""
    view = make_view(scene, size, eyes, kappa)
    return view.project(pupil_centres(eyes, view.pupil_axes)), view.project(pupil_centres(eyes, AHEAD))


def iris_table(seen: ndarray, known: Irises, size: int) -> str:
    """Markdown: distances from `known` to irises that a detector sees in patches of this size, (N, 2, 2) pixels.

    All in pixels of a patch of 256. Slope and correlation are of how far both are from straight ahead.
    """
    ratio = TOLD_AT / size
    apart = ratio * np.linalg.norm(seen - known.points, axis=2)
    lines = [
        f"| {apart.size} irises, pixels at {TOLD_AT} | median | mean | 95th percentile | within 1 |",
        "|---|---|---|---|---|",
        f"| distance | {np.median(apart):.2f} | {apart.mean():.2f} | {np.percentile(apart, 95):.2f} | "
        f"{(apart <= 1).mean():.0%} |",
        "",
        "| detected against true | mean offset | slope | r |",
        "|---|---|---|---|",
    ]
    for axis, name in enumerate(("right", "down")):
        found = agreement(*(ratio * (p - known.ahead)[..., axis].ravel() for p in (known.points, seen)))
        lines.append(f"| {name} | {found.bias:.2f} | {found.slope:.2f} | {found.correlation:.2f} |")
    return "\n".join(lines)
