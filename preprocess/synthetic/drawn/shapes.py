"""Shapes and noise shared by the sculptor and the painter of synthetic persons. Lengths in mm, head frame."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.drawn.person import Identity

BALL_RADIUS = 16.5  # that lids lie on and whites are painted on; irises turn on a smaller one
WIDTH = 208  # columns of every grid of points


def curve(x: ndarray, knots: Sequence[tuple[float, float]]) -> ndarray:
    """Smooth interpolation through knots: linear, then rounded off by averaging shifted copies."""
    at, value = np.array(knots, np.float64).T
    step = 0.25 * float(np.min(np.diff(at)))
    return sum(np.interp(x + d * step, at, value) for d in (-1.0, 0.0, 1.0)).astype(np.float32) / 3


def noise(rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float], symmetric: bool) -> ndarray:
    """Zero-mean, unit-variance noise, smooth over sigma = (rows, columns) cells."""
    small = [max(2, int(np.ceil(n / max(1.0, s)))) for n, s in zip(shape, sigma, strict=True)]
    n = cv2.resize(rng.standard_normal(small).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    if symmetric:
        n = n + n[:, ::-1]
    return (n - n.mean()) / (n.std() + 1e-6)


def azimuth(limit_deg: float = 125.0) -> ndarray:
    """Column angles, 0 in front, closer together there."""
    s = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    return np.deg2rad(limit_deg) * (0.72 * s + 0.28 * s**3)


def mouth_line(identity: Identity, x: ndarray) -> ndarray:
    """y where the lips meet."""
    bend = identity.mouth_curve * (1 - (x / identity.mouth_width) ** 2).clip(-1, 1)
    return identity.mouth_y + bend + 0.6 * np.exp(-((x / 4) ** 2))


def lip_taper(identity: Identity, x: ndarray) -> ndarray:
    """How high the lips are at x, 1 in the middle and 0 at the corners."""
    return np.sqrt(np.clip(1 - (x / identity.mouth_width) ** 2, 0, 1))
