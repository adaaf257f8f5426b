"""A painted skin for when the file of skins is not there."""

from functools import cache

import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import bump, smooth
from preprocess.synthetic.rendered.places import noise, places


@cache
def plain_skin() -> ndarray:
    """(HEAD_ROWS, WIDTH, 3) float32: colours relative to their mean on the face, lips and hollows included."""
    at, rng = places(), np.random.default_rng(3)
    ax, front = np.abs(at.x), smooth(at.z, 50, 20)
    light = 1 + 0.02 * noise(rng, 5) + 0.015 * noise(rng, 1.5)
    light -= 0.13 * bump(ax, at.y, 20, -4, 9, 9) * front  # beside the root of the nose
    light -= 0.10 * bump(ax, at.y, 34, -9, 14, 5) * front + 0.06 * bump(ax, at.y, 30, 13, 14, 5) * front
    light -= 0.10 * bump(ax - 0.5 * (at.y - 42), at.y, 19, 50, 3, 14) * front
    light -= 0.10 * bump(at.x, at.y, 0, 82, 13, 3) + 0.08 * bump(at.x, at.y, 0, 57, 3, 5)
    light += 0.05 * bump(at.x, at.y, 0, 22, 6, 20) + 0.04 * bump(ax, at.y, 44, 24, 14, 9) * front
    light -= 0.10 * smooth(at.z, 60, 110)
    red = 0.10 * bump(ax, at.y, 42, 32, 17, 14) + 0.07 * bump(at.x, at.y, 0, 38, 13, 9) + 0.08 * smooth(ax, 77, 82)
    red += 0.34 * smooth(at.lips, 6.4, 4.6) + 0.12 * smooth(at.eyes, 4, 2)
    light -= 0.10 * smooth(at.lips, 6.4, 4.6)
    return (light[..., None] * (1 - red[..., None] * np.array([0.06, 1, 0.9], np.float32))).astype(np.float32)
