"""Curves that both looks are shaped and painted with."""

import numpy as np
from numpy import ndarray


def smooth(x: ndarray, low: float, high: float) -> ndarray:
    """Smooth step: 0 below low, 1 above high."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: ndarray, y: ndarray, cx: float, cy: float, rx: float, ry: float) -> ndarray:
    """Gaussian hill of height 1."""
    return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
