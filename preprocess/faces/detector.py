"""Boxes around the faces of an image, as a detector proposes them."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy import ndarray

from preprocess.faces.networks import FarDetector, NearDetector, load, one_thread

SAME = 0.3  # boxes that share more of their union show the same face
AT_ONCE = 8  # images, which bounds the memory


@dataclass(frozen=True)
class Box:
    """Around a face, in pixels (column, row; the first pixel's middle is 0, 0).

    score: 0 to 1.  corners: (2, 2), the lower ones first.  eyes: (2, 2), image left first.
    """

    score: float
    corners: ndarray
    eyes: ndarray


def near_faces(images: Sequence[ndarray]) -> list[list[Box]]:
    """Boxes of each image (H, W, 3) uint8 RGB, the surest first, of faces that fill a tenth of it or more."""
    return [boxes for some in _some(images) for boxes in _boxes(_near(), some)]


def far_faces(image: ndarray) -> list[Box]:
    """The same of one image, of faces that may be smaller."""
    return _boxes(_far(), [image])[0]


@functools.cache
def _near() -> NearDetector:
    return load(NearDetector(), "near.npz")


@functools.cache
def _far() -> FarDetector:
    return load(FarDetector(), "far.npz")


def _some(images: Sequence[ndarray]) -> Iterator[Sequence[ndarray]]:
    for first in range(0, len(images), AT_ONCE):
        yield images[first : first + AT_ONCE]


def _boxes(network: NearDetector | FarDetector, images: Sequence[ndarray]) -> list[list[Box]]:
    inputs = np.stack([_square(image, network.SIZE) for image in images])
    with one_thread():
        found, logits = network(torch.from_numpy(inputs).permute(0, 3, 1, 2) / 127.5 - 1)
    scores, places = torch.sigmoid(logits).numpy(), _places(network, found.numpy())
    return [_in_image(*one, network.LEAST) for one in zip(images, scores, places, strict=True)]


def _square(image: ndarray, size: int) -> ndarray:
    """The image in the middle of a black square (size, size, 3)."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    to_square = np.array([[scale, 0, (size - scale * width) / 2], [0, scale, (size - scale * height) / 2], [0, 0, 1]])
    return cv2.warpPerspective(image, to_square, (size, size), flags=cv2.INTER_LINEAR)


def _places(network: NearDetector | FarDetector, found: ndarray) -> ndarray:
    """(B, n, 4, 2) corners and eyes, parts of the square. A cell proposes: middle and size of a box, key points."""
    middles = [np.mgrid[:n, :n][::-1].reshape(2, -1).T.repeat(each, axis=0) + 0.5 for n, each in network.GRIDS]
    sizes = [np.full(n * n * each, n) for n, each in network.GRIDS]
    cells = np.concatenate(middles) / np.concatenate(sizes)[:, None]
    points = found.reshape(*found.shape[:2], 8, 2) / network.SIZE
    middle, half, eyes = points[:, :, 0] + cells, points[:, :, 1] / 2, points[:, :, 2:4] + cells[:, None]
    return np.concatenate([np.stack([middle - half, middle + half], axis=2), eyes], axis=2)


def _in_image(image: ndarray, scores: ndarray, places: ndarray, least: float) -> list[Box]:
    """Boxes of one face are averaged, each as sure as its surest."""
    sides = np.array(image.shape[1::-1])
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= least]
    scores, places = scores[order], places[order]
    boxes = []
    while len(scores):
        same = _shared(places[0], places) > SAME
        same[0] = True  # a box without a size, too
        mean = np.average(places[same], axis=0, weights=scores[same]) * sides.max() - (sides.max() - sides) / 2 - 0.5
        boxes.append(Box(float(scores[0]), mean[:2], mean[2:]))
        scores, places = scores[~same], places[~same]
    return boxes


def _shared(one: ndarray, others: ndarray) -> ndarray:
    """Intersection over union of a box (4, 2) and others (n, 4, 2), whose corners are the first two."""
    sides = np.minimum(one[1], others[:, 1]) - np.maximum(one[0], others[:, 0])
    both = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(one[1] - one[0]) + np.prod(others[:, 1] - others[:, 0], axis=1) - both
    return both / np.maximum(union, 1e-12)
