"""Before and after in one picture, with arrows of where gaze and head were measured to go."""

import cv2
import numpy as np
from numpy import ndarray

from core.redirection.measure import Measured, measure
from core.redirection.photo import RedirectedPhoto

HEAD, GAZE = (0, 220, 255), (255, 230, 0)  # cyan from the nose, yellow from between the eyes
OUTLINE = (20, 20, 20)
LENGTH = 0.9  # of the patch's side, of an arrow across the line of sight
GAP = 1 / 100  # of the width, between the two


def side_by_side(done: RedirectedPhoto) -> ndarray:
    """The photograph before and after, (H, about 2 W, 3) uint8 RGB, with arrows as `measure` sees each face."""
    halves = []
    for pixels in (done.photo.pixels, done.pixels):
        picture = pixels.copy()
        for one in done.faces:
            seen = measure(pixels, one.face)
            if seen is not None:
                draw_angles(picture, seen, LENGTH * one.face.side)
        halves.append(picture)
    gap = np.full((len(halves[0]), max(round(GAP * halves[0].shape[1]), 2), 3), 255, np.uint8)
    return np.hstack([halves[0], gap, halves[1]])


def draw_angles(picture: ndarray, seen: Measured, length: float) -> None:
    """Onto a picture (H, W, 3): the head's arrow from the tip of the nose, the gaze's from between the eyes."""
    width = max(round(length / 80), 1)
    for angles, start, rgb in (
        (seen.head, seen.landmarks[30], HEAD),
        (seen.gaze, seen.landmarks[36:48].mean(axis=0), GAZE),
    ):
        if angles is not None:
            for colour, thick in ((OUTLINE, 2 * width + 1), (rgb, width)):
                cv2.circle(picture, np.rint(start).astype(int).tolist(), thick, colour, -1, cv2.LINE_AA)
                draw_arrow(picture, np.radians(angles), start, length, colour, thick)


def draw_arrow(
    picture: ndarray, label: ndarray, start: ndarray, length: float, rgb: tuple[int, int, int], width: int = 2
) -> None:
    """Onto a picture (H, W, 3), where a label (2,) points.

    start: (2,) pixels.  length: pixels, of one across the line of sight.
    """
    to_the_right, down = -np.cos(label[0]) * np.sin(label[1]), -np.sin(label[0])
    tip = start + length * np.array([to_the_right, down])
    tail, end = np.rint(start).astype(int).tolist(), np.rint(tip).astype(int).tolist()
    cv2.arrowedLine(picture, tail, end, rgb, width, cv2.LINE_AA, tipLength=0.2)
