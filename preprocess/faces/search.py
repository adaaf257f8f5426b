"""All faces of a photograph of any size, each measured in a crop of its own: `search`, `find_faces`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy import ndarray

from preprocess.faces import detector, mesh
from preprocess.faces.mesh import Face
from preprocess.normalization import apply_homography, warp_image

SEARCHED, CROPPED = 1280, 512  # longest side of the copy that is searched, side of the crop that is measured
SMALLEST_TILE = 256  # pixels, in which faces of 40 are found
SURE = 0.65  # score of a face in a tile: buttons and folds reach 0.6
SURER = 0.75  # of one that is told of although it cannot be measured


@dataclass(frozen=True)
class Found:
    """unmeasured: corners (2, 2), the lower ones first, of faces whose landmarks are not seen, as in profile."""

    faces: list[Face]
    unmeasured: list[ndarray]


def find_faces(image: ndarray) -> list[Face]:
    """All faces from 40 pixels up in an image (H, W, 3) uint8 RGB, the largest first."""
    return search(image).faces


def search(image: ndarray) -> Found:
    """`find_faces`, with those that cannot be measured.

    It is searched by tiles of several sizes: a photograph of 12 megapixels takes seconds.
    """
    faces = [face for face in (find_largest(image),) if face is not None]
    unmeasured: list[ndarray] = []
    for score, box in _search(image):
        if any(_overlap(box, face.landmarks) for face in faces):
            continue
        face = face_in(image, box)
        if face is None and score >= SURER:
            unmeasured.append(box)
        if face is not None and not any(_overlap(face.landmarks, other.landmarks) for other in faces):
            faces.append(face)
    unmeasured = [box for box in unmeasured if not any(_overlap(box, face.landmarks) for face in faces)]
    return Found(sorted(faces, key=lambda face: _area(face.landmarks), reverse=True), unmeasured)


def find_largest(image: ndarray) -> Face | None:
    """The largest face of an image (H, W, 3) uint8 RGB that can be measured; None without one, or if all are small.

    The face is searched in a copy of at most 1280 pixels and then measured in a crop of the image around it.
    """
    _require_8_bit_colour(image)
    shrink = min(1.0, SEARCHED / max(image.shape[:2]))
    shape = tuple(max(1, round(n * shrink)) for n in image.shape[1::-1])
    copy = cv2.resize(image, shape, interpolation=cv2.INTER_AREA) if shrink < 1 else image
    regions = [face.landmarks for face in mesh.large_faces(copy)]
    regions = regions or [box.corners for box in detector.far_faces(copy)]
    ratio = np.array(image.shape[1::-1]) / shape
    largest_first = sorted(regions, key=_area, reverse=True)
    measured = (face_in(image, (region + 0.5) * ratio - 0.5) for region in largest_first)
    return next((face for face in measured if face is not None), None)


def _search(image: ndarray) -> list[tuple[float, ndarray]]:
    """Scores and corners (2, 2) of what may be faces, the surest first.

    Each face fills an eighth to a half of some tile, which is what the detector of near faces likes best.
    """
    places = list(_tiles(image.shape[0], image.shape[1]))
    tiles = [image[top : top + side, left : left + side] for left, top, side in places]
    found = [
        (box.score, box.corners + (left, top))
        for (left, top, _), boxes in zip(places, detector.near_faces(tiles), strict=True)
        for box in boxes
    ]
    kept: list[tuple[float, ndarray]] = []
    for score, corners in sorted(found, key=lambda scored: -scored[0]):
        if score >= SURE and not any(_overlap(corners, other) for _, other in kept):
            kept.append((score, corners))
    return kept


def _tiles(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Left, top and side of squares; each is twice as large as the one before, the last holds the image."""
    longest = max(height, width)
    for side in [*(side for k in range(20) if (side := SMALLEST_TILE << k) < longest), longest]:
        for top in _starts(height, side):
            for left in _starts(width, side):
                yield left, top, side


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin, of which neighbours share at least a half."""
    count = 1 + max(0, math.ceil(2 * (length - side) / side))
    return np.linspace(0, max(length - side, 0), count).astype(int).tolist()


def _area(points: ndarray) -> float:
    """Of the box around points (n, 2)."""
    return float(np.prod(np.ptp(points, axis=0)))


def _overlap(a: ndarray, b: ndarray) -> bool:
    """Whether the boxes around points (n, 2) share a third of the smaller one: it is one face then."""
    sides = np.minimum(a.max(axis=0), b.max(axis=0)) - np.maximum(a.min(axis=0), b.min(axis=0))
    return bool((sides > 0).all() and np.prod(sides) > min(_area(a), _area(b)) / 3)


def face_in(image: ndarray, region: ndarray) -> Face | None:
    """The face in a region, points (n, 2) of an image (H, W, 3) uint8 RGB; None if there is none."""
    low, high = region.min(axis=0), region.max(axis=0)
    scale = CROPPED / (2.0 * float((high - low).max()))  # the face fills half of the crop, as the detector likes it
    if not scale > 0:
        return None
    middle = (CROPPED - 1) / 2
    shift = middle - scale * (low + high) / 2
    to_crop = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1.0]])
    faces = mesh.large_faces(warp_image(image, to_crop, CROPPED))
    if not faces:
        return None
    face = min(faces, key=lambda face: float(np.linalg.norm(face.box.mean(axis=0) - middle)))
    return replace(face, landmarks=apply_homography(np.linalg.inv(to_crop), face.landmarks))


def _require_8_bit_colour(image: ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"found an image {image.shape} {image.dtype}, expected (height, width, 3) uint8 RGB.")
