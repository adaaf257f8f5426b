"""What is published about each data set, and whether the labels of a file agree with it.

Persons, images and ids are those of the data sets' own descriptions. The widest angles are ours, wide on purpose:
what a phone, a screen or a ring of cameras allows, not what was measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

ENOUGH = 100  # images from which statistics say something


@dataclass(frozen=True)
class Published:
    """persons, images: how many there are at most, None if unknown.  person_id: pattern of a person's name.

    gaze_deg, head_deg: 99 in 100 angles are within.  looks_down: the targets are below the camera, on average.
    grid_deg: pitches and yaws of the gaze where targets were few.  per_person: images of one person at most.
    """

    persons: int
    images: int | None
    person_id: str
    gaze_deg: float
    head_deg: float
    looks_down: bool = False
    grid_deg: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    per_person: int | None = None


# fmt: off
DATASETS = {
    "gazecapture": Published(1474, 1_490_959, r"\d{5}", 50, 65, looks_down=True),
    "mpiifacegaze": Published(15, 45_000, r"p\d\d", 40, 50, looks_down=True, per_person=3000),
    "columbia": Published(56, 5880, r"\d{4}", 25, 45, per_person=105,
                          grid_deg=((-10, 0, 10), (-15, -10, -5, 0, 5, 10, 15))),
    "eyediap": Published(16, None, r"\d{1,2}(_[AB])?", 60, 75),
    "ethxgaze": Published(110, 1_083_492, r"subject\d{4}", 80, 110),  # gaze: our converters leave out what is beyond
}
# fmt: on
_OTHER_NAMES = {"mpiigaze": "mpiifacegaze", "mpii": "mpiifacegaze", "xgaze": "ethxgaze", "columbiagaze": "columbia"}


def find_published(name: object) -> Published | None:
    """What is known about a data set of this name, however it is spelt; None if nothing."""
    key = re.sub(r"[^a-z]", "", str(name or "").lower())
    return DATASETS.get(_OTHER_NAMES.get(key, key))


def compare(known: Published, counts: Mapping[str, int], labels: ndarray) -> list[tuple[str, str]]:
    """What differs from the publication, as (level, sentence): 'warning', or 'FAIL' where labels must be wrong.

    counts: images by person.  labels: (N, 4 or more) radians. Statistics are judged from 100 images on.
    """
    found = []
    strange = [person for person in counts if not re.fullmatch(known.person_id, person)]
    if strange:
        found.append(("warning", f"persons named like {strange[0]!r}, published as {known.person_id}"))
    if len(counts) > known.persons:
        found.append(("warning", f"{len(counts)} persons, published are {known.persons}"))
    total, most = sum(counts.values()), max(counts, key=counts.__getitem__)
    if known.images and total > known.images:
        found.append(("warning", f"{total:,} images, published are {known.images:,}"))
    if known.per_person and counts[most] > known.per_person:
        found.append(("warning", f"{counts[most]} images of {most!r}, published are at most {known.per_person}"))
    return found + (_compare_labels(known, np.degrees(labels)) if len(labels) >= ENOUGH else [])


def _compare_labels(known: Published, degrees: ndarray) -> list[tuple[str, str]]:
    found = []
    for name, columns, widest in (("gaze", slice(0, 2), known.gaze_deg), ("head", slice(2, 4), known.head_deg)):
        reach = np.percentile(np.abs(degrees[:, columns]).max(axis=1), 99)
        if reach > widest:
            found.append(("warning", f"one {name} in a hundred is beyond {reach:.0f} degrees, expected {widest:.0f}"))
    mean = degrees[:, 0].mean()
    if known.looks_down and mean > 2:
        found.append(("FAIL", f"mean gaze pitch {mean:+.1f} degrees, but the targets are below the camera: its sign"))
    if known.grid_deg is not None:
        off = np.stack([_distance(degrees[:, i], grid) for i, grid in enumerate(known.grid_deg)]).max(axis=0)
        if np.median(off) > 1:
            found.append(("FAIL", f"gaze is {np.median(off):.1f} degrees off the published targets, expected below 1"))
    return found


def _distance(values: ndarray, grid: tuple[float, ...]) -> ndarray:
    """(N,): from each value to the nearest of the grid."""
    return np.abs(values[:, None] - np.array(grid)).min(axis=1)
