"""A short video in which the gaze, the head or both walk around and come back."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy import ndarray

from core.page.sitting import Sitting, smaller
from core.redirection.edit import Edit

Walks = Literal["gaze", "head", "both"]
FRAMES, RATE = 48, 12  # a second
SIDE = 640  # pixels along the longer side at most
YAW, PITCH = 20.0, 10.0  # degrees from where they are now


def walk_angles(frames: int = FRAMES) -> ndarray:
    """(T, 2) degrees of pitch and yaw, relative: to both sides, then up and down."""
    swing = np.sin(np.linspace(0, 2 * np.pi, frames // 2, endpoint=False))
    still = np.zeros_like(swing)
    return np.concatenate([np.stack([still, YAW * swing], axis=1), np.stack([PITCH * swing, still], axis=1)])


def walk_frames(sitting: Sitting, what: Walks, number: int | None = None, frames: int = FRAMES) -> Iterator[ndarray]:
    """The photograph with one face walking, (H, W, 3) uint8 RGB, sides even. number: of the face; None: the largest."""
    pixels, to_small = smaller(sitting.photo.photo.pixels, SIDE, multiple=2)
    face = sitting.chosen(number).moved(to_small)
    for pitch, yaw in walk_angles(frames).tolist():
        gaze = (pitch, yaw) if what != "head" else None
        head = (pitch, yaw) if what != "gaze" else None
        yield face.redirect(pixels, Edit(gaze, head, relative=True))[0]
