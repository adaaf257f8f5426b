"""Where a change is made, and how it fades out: around the eyes, or over the face.

A fade is a map (N, N, 2) of a square twice as wide as the patch and around the same middle. Its first channel says how
much of a motion is carried out, its second how much of a picture is put in.
"""

import functools

import cv2
import numpy as np
from numpy import ndarray

from core.redirection.faces import SIDE, PhotoFace
from preprocess.normalization import apply_homography

EXTENT = 2.0  # half the map's side by half the patch's
MAP_SIDE = 768
PICTURE = (0.76, 0.98)  # of the way from the middle to the edge of the patch: where a picture begins and ends to fade
MOTION = 0.9  # half patches beyond the edge where the motion ends: hair and neck go with a head that turns
AROUND_EYES = (0.25, 0.6)  # in widths of an eye from its outline


@functools.cache
def face_fade() -> ndarray:
    """The whole patch, the same for all faces; the motion goes beyond it, so that nothing tears at its edge."""
    steps = (np.arange(MAP_SIDE, dtype=np.float32) * 2 + 1) / MAP_SIDE * EXTENT - EXTENT
    x, y = np.meshgrid(np.abs(steps), np.abs(steps))
    outside = np.hypot(np.maximum(x - 1, 0), np.maximum(y - 1, 0))
    corner = PICTURE[0] / 2  # rounded corners show less
    inside = corner + np.hypot(np.maximum(x - corner, 0), np.maximum(y - corner, 0))
    fade = np.stack([_falling(outside, 0.0, MOTION), _falling(inside, *PICTURE)], axis=-1)
    fade.flags.writeable = False
    return fade


def no_fade() -> ndarray:
    """Everything, of a patch that is all there is."""
    return np.ones((MAP_SIDE, MAP_SIDE, 2), np.float32)


def eye_fade(face: PhotoFace) -> ndarray:
    """Both eyes with their lids."""
    kept = np.zeros((MAP_SIDE, MAP_SIDE), np.float32)
    for outline in face.eyes:
        positions = to_positions(apply_homography(face.to_patch, outline))
        points = (positions / EXTENT + 1) / 2 * MAP_SIDE - 0.5
        width = max(float(np.linalg.norm(points[3] - points[0])), 1.0)
        window, corner = _around(points, AROUND_EYES[1] * width)
        beyond = np.ones(kept[window].shape, np.uint8)
        cv2.fillPoly(beyond, [cv2.convexHull(np.rint(points - corner).astype(np.int32))], 0)
        distance = cv2.distanceTransform(beyond, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / width
        kept[window] = np.maximum(kept[window], _falling(distance, *AROUND_EYES))
    return np.stack([kept, kept], axis=-1)


def _around(points: ndarray, margin: float) -> tuple[tuple[slice, slice], ndarray]:
    """Rows and columns of a map that hold points (n, 2) and a margin around them, and the first column and row."""
    low = np.clip(np.floor(points.min(axis=0) - margin - 2), 0, MAP_SIDE - 1).astype(int)
    high = np.clip(np.ceil(points.max(axis=0) + margin + 3), low + 1, MAP_SIDE).astype(int)
    return (slice(low[1], high[1]), slice(low[0], high[0])), low


def reach(fade: ndarray) -> ndarray:
    """(4, 2): corners of the box outside which a fade is 0, positions in half patches from the middle."""
    x, y, width, height = cv2.boundingRect(((fade[..., 0] > 0) | (fade[..., 1] > 0)).view(np.uint8))
    left, right, top, bottom = (edge * 2 / MAP_SIDE * EXTENT - EXTENT for edge in (
        x - 1, x + width + 1, y - 1, y + height + 1))  # fmt: skip
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def to_positions(points: ndarray) -> ndarray:
    """Pixels of the patch of 128 to positions in [-1, 1] over it."""
    return (points + 0.5) * 2 / SIDE - 1


def to_pixels(positions: ndarray) -> ndarray:
    """The inverse of `to_positions`."""
    return (positions + 1) * SIDE / 2 - 0.5


def _falling(x: ndarray, start: float, end: float) -> ndarray:
    """1 up to `start`, 0 from `end` on, smooth between."""
    t = np.clip((end - x) / (end - start), 0, 1).astype(np.float32)
    return t * t * (3 - 2 * t)
