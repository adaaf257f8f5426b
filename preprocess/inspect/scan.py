"""One look through an HDF5 file of faces: what `verify`, `report` and `convert` go by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import h5py
import numpy as np
from numpy import ndarray
from tqdm import tqdm

from core.hdf5 import (
    ALIGNMENT,
    FACES,
    GROUPS,
    DamagedFile,
    layout_problems,
    open_hdf5,
    persons_in,
    read_attributes,
    reading,
)
from preprocess.face_model import GENERIC
from preprocess.normalization import ST_ED, apply_homography, label_to_rotation

ALIGNED = "ffhq-aligned"
FIVE = (36, 39, 42, 45, 30, 48, 54)  # landmarks of the five points: corners of the eyes, nose tip, mouth corners
LEVELS = ("ok", "note", "warning", "FAIL")
_BLOCK = 1 << 24  # bytes of images held at a time


@dataclass(frozen=True)
class Check:
    """One line of the table: what was looked at, one of LEVELS, and what was found."""

    name: str
    level: str
    found: str


@dataclass
class Scan:
    """What one pass over a file collects.

    counts: images by person.  labels: (N, 8) radians, nan where there are but four.  owner: (N,) person of each.
    The rest is of the images looked at, `rows` among the N: hash, deviation, black part, red minus blue in the middle.
    points_off: (N,) pixels of the patch between an aligned face's points and those of a generic head; else empty.
    group_sizes: samples in each group of a person, by person; only those that have groups.
    """

    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    chunk_rows: set[int] = field(default_factory=set)
    attributes: dict = field(default_factory=dict)
    labels: ndarray = field(default_factory=lambda: np.empty((0, 8)))
    owner: ndarray = field(default_factory=lambda: np.empty(0, int))
    rows: ndarray = field(default_factory=lambda: np.empty(0, int))
    images: ndarray = field(default_factory=lambda: np.empty((0, 4)))
    hashes: ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    points_off: ndarray = field(default_factory=lambda: np.empty(0))
    group_sizes: dict[str, ndarray] = field(default_factory=dict)

    @property
    def is_aligned(self) -> bool:
        return self.attributes.get("view") == ALIGNED

    @property
    def persons(self) -> list[str]:
        return list(self.counts)

    def gather(self, of_persons: Sequence[_Person]) -> None:
        """Puts together what was found of the persons, in the order of `counts`."""
        counts = list(self.counts.values())
        starts = np.cumsum([0, *counts])[:-1]
        self.owner = np.repeat(np.arange(len(counts)), counts)
        self.labels = np.concatenate([person.labels for person in of_persons])
        self.rows = np.concatenate([start + person.rows for start, person in zip(starts, of_persons, strict=True)])
        self.images = np.concatenate([person.images for person in of_persons])
        self.hashes = np.concatenate([person.hashes for person in of_persons])
        self.points_off = np.concatenate([person.points_off for person in of_persons])


@dataclass(frozen=True)
class _Person:
    """What Scan says of one person, `rows` among the person's own."""

    labels: ndarray
    rows: ndarray
    images: ndarray
    hashes: ndarray
    points_off: ndarray


def person_problems(group: object, is_aligned: bool = False) -> list[str]:
    """What is wrong with the layout of one person's group. Raises UserError if a filter is not installed."""
    problems = layout_problems(group, FACES | ALIGNMENT if is_aligned else FACES, GROUPS)
    if not isinstance(group, h5py.Group) or problems:
        return problems
    lengths = {name: len(data) for name, data in group.items() if isinstance(data, h5py.Dataset) and data.ndim}
    return [f"data sets of different lengths: {lengths}"] if len(set(lengths.values())) > 1 else []


def blocks(pixels: h5py.Dataset, rows: ndarray, multiple: int = 1) -> Iterator[ndarray]:
    """Images (n, S, S, 3) of these rows (ascending), few at a time; n is a multiple of `multiple`, but for the last."""
    step = max(1, _BLOCK // (int(np.prod(pixels.shape[1:])) * multiple)) * multiple
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        whole = part[-1] - part[0] + 1 == len(part)
        yield pixels[part[0] : part[-1] + 1] if whole else pixels[part]


def image_facts(image: ndarray) -> tuple[float, float, float]:
    """Deviation in grey levels, black part, and red minus blue (in the order stored) where a face is."""
    step = max(1, len(image) // 64)
    few = np.ascontiguousarray(image[::step, ::step])
    grey = cv2.transform(few, np.full((1, 3), 1 / 3))
    third = len(few) // 3
    middle = cv2.mean(few[third:-third, third:-third]) if third else cv2.mean(few)
    return float(grey.std()), float((grey == 0).mean()), middle[0] - middle[2]


def scan_file(path: str | Path, per_person: int | None = None, progress: bool = False) -> Scan:
    """Reads a file once, in memory that does not grow with its images.

    per_person: images to look at, evenly over each person; None for all.
    Raises UserError where it cannot be opened; what is damaged in it becomes a problem.
    """
    scan, found = Scan(), list[_Person]()
    with open_hdf5(path) as file:
        scan.attributes = read_attributes(file)
        for name in tqdm(persons_in(file), desc="verify", unit="person", disable=not progress):
            try:
                with reading(path):
                    group = file[name]
                    problems = person_problems(group, scan.is_aligned)
                    if not problems:
                        found.append(_scan_person(group, scan.is_aligned, per_person))
                        scan.counts[name] = len(group["pixels"])
                        scan.sizes.add(group["pixels"].shape[1])
                        scan.chunk_rows.add((group["pixels"].chunks or (1,))[0])
                        if isinstance(group.get("group"), h5py.Dataset):
                            scan.group_sizes[name] = np.unique(group["group"][()], return_counts=True)[1]
            except DamagedFile as error:
                problems = [f"cannot be read ({error.__cause__})"]
            scan.problems += [f"{name!r}: {problem}" for problem in problems]
    if found:
        scan.gather(found)
    return scan


def _scan_person(group: h5py.Group, is_aligned: bool, per_person: int | None) -> _Person:
    given = group["labels"][:, :8].astype(np.float64)
    labels = np.full((len(given), 8), np.nan)
    labels[:, : given.shape[1]] = given
    count = len(labels)
    chosen = np.arange(count)
    if per_person is not None and per_person < count:
        chosen = np.unique(np.linspace(0, count - 1, per_person).round().astype(int))
    facts, digests = [], []
    for block in blocks(group["pixels"], chosen):
        for image in block:
            facts.append(image_facts(image))
            digests.append(int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little"))
    off = _points_off(group, labels) if is_aligned else np.empty(0)
    return _Person(labels, chosen, np.array(facts), np.array(digests, np.uint64), off)


def five_of_68(points: ndarray) -> ndarray:
    """(5, n) middles of the eyes, nose tip, mouth corners of the seven FIVE landmarks (7, n)."""
    return np.concatenate([points[:4].reshape(2, 2, -1).mean(axis=1), points[4:]])


def expected_points(head: ndarray) -> ndarray:
    """(5, 2) pixels of the ST-ED patch where a generic head of this label (2,) has eyes, nose and mouth corners."""
    points = (five_of_68(GENERIC[FIVE]) - GENERIC.centre) @ label_to_rotation(head).T + (0, 0, ST_ED.distance_mm)
    return apply_homography(ST_ED.camera_matrix, points[:, :2] / points[:, 2:])


def _points_off(group: h5py.Group, labels: ndarray) -> ndarray:
    """(N,) mean distance of an aligned face's eyes and nose tip, led to the patch, to a generic head's; inf for none.

    The mouth is left out: it moves, and its place differs most from head to head.
    """
    off = np.full(len(labels), np.inf)
    for i, (matrix, five, label) in enumerate(zip(group["homography"][()], group["points"][()], labels, strict=True)):
        # A negative determinant mirrors the face.
        if np.isfinite(matrix).all() and np.linalg.det(matrix / np.linalg.norm(matrix)) > 1e-12:
            gap = apply_homography(matrix, five) - expected_points(label[2:4])
            off[i] = np.linalg.norm(gap[:3], axis=1).mean()
    return off
