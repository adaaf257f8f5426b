"""One look through an HDF5 file of faces: what `verify`, `report` and `convert` go by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import h5py
import numpy as np
from numpy import ndarray
from tqdm import tqdm

from preprocess.face_model import GENERIC
from preprocess.normalization import ST_ED, apply_homography, label_to_rotation

ALIGNED = "ffhq-aligned"
FIVE = (36, 39, 42, 45, 30, 48, 54)  # landmarks of the five points: corners of the eyes, nose tip, mouth corners
READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises for a damaged file
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

    @property
    def is_aligned(self) -> bool:
        return self.attributes.get("view") == ALIGNED

    @property
    def persons(self) -> list[str]:
        return list(self.counts)


def open_file(path: str | Path) -> h5py.File:
    """The file, to read. Raises FileNotFoundError, or ValueError if it is no HDF5 file or is damaged."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        return h5py.File(path, "r")
    except READ_ERRORS as error:
        raise ValueError(
            f"{path}: cannot be read as HDF5 ({error}). Download it again or re-run preprocessing."
        ) from error


def read_attributes(file: h5py.File | h5py.Group) -> dict:
    """Attributes as Python's own strings and numbers."""

    def plain(value: object) -> object:
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return value.item() if isinstance(value, np.generic) else value

    return {name: plain(value) for name, value in file.attrs.items()}


def layout_problems(group: object) -> list[str]:
    """What is wrong with the shapes and types of one person's group."""
    if not isinstance(group, h5py.Group):
        return ["is no group; expected a group a person and nothing else"]
    pixels, labels = group.get("pixels"), group.get("labels")
    if not isinstance(pixels, h5py.Dataset) or not isinstance(labels, h5py.Dataset):
        return ["expected the data sets 'pixels' and 'labels'"]
    problems, shape = [], pixels.shape
    if pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        problems.append(f"pixels are {pixels.dtype} {shape}, expected uint8 (N, S, S, 3)")
    if labels.dtype.kind != "f" or labels.ndim != 2 or labels.shape[1] < 4:
        problems.append(f"labels are {labels.dtype} {labels.shape}, expected floats (N, 8), or (N, 4) at least")
    lengths = {name: len(data) for name, data in group.items() if isinstance(data, h5py.Dataset) and data.ndim}
    if len(set(lengths.values())) > 1:
        problems.append(f"data sets of different lengths: {lengths}")
    elif not problems and not len(pixels):
        problems.append("no images")
    return problems


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
    """
    scan, labels, owners, rows, images, hashes, off = Scan(), [], [], [], [], [], []
    with open_file(path) as file:
        scan.attributes, start = read_attributes(file), 0
        for name in tqdm(sorted(file), desc="verify", unit="person", disable=not progress):
            try:
                problems = layout_problems(file[name])
                if not problems:
                    found = _scan_person(file[name], scan.is_aligned, per_person)
            except READ_ERRORS as error:
                problems = [f"cannot be read ({error})"]
            scan.problems += [f"{name!r}: {problem}" for problem in problems]
            if problems:
                continue
            person_labels, person_rows, facts, digests, points_off = found
            pixels = file[name]["pixels"]
            scan.counts[name] = len(person_labels)
            scan.sizes.add(pixels.shape[1])
            scan.chunk_rows.add(pixels.chunks[0] if pixels.chunks else 1)
            labels.append(person_labels)
            owners.append(np.full(len(person_labels), len(scan.counts) - 1))
            rows.append(start + person_rows)
            images.append(facts)
            hashes.append(digests)
            off.append(points_off)
            start += len(person_labels)
    if scan.counts:
        scan.labels, scan.owner, scan.rows = np.concatenate(labels), np.concatenate(owners), np.concatenate(rows)
        scan.images, scan.hashes, scan.points_off = np.concatenate(images), np.concatenate(hashes), np.concatenate(off)
    return scan


def _scan_person(group: h5py.Group, is_aligned: bool, per_person: int | None) -> tuple[ndarray, ...]:
    given = group["labels"][()].astype(np.float64)[:, :8]
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
    return labels, chosen, np.array(facts), np.array(digests, np.uint64), off


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
    homography, points = (group.get(name) for name in ("homography", "points"))
    shapes = [getattr(data, "shape", None) for data in (homography, points)]
    wanted = [(len(labels), 3, 3), (len(labels), 5, 2)]
    if shapes != wanted:
        raise ValueError(f"homography and points have shapes {shapes}, expected {wanted}")
    off = np.full(len(labels), np.inf)
    for i, (matrix, five, label) in enumerate(zip(homography[()], points[()], labels, strict=True)):
        # A negative determinant mirrors the face.
        if np.isfinite(matrix).all() and np.linalg.det(matrix / np.linalg.norm(matrix)) > 1e-12:
            gap = apply_homography(matrix, five) - expected_points(label[2:4])
            off[i] = np.linalg.norm(gap[:3], axis=1).mean()
    return off
