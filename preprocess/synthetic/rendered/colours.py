"""Colours of rendered people: sRGB, 0-255."""

import numpy as np
from numpy import ndarray

Rgb = tuple[float, float, float]


def mix(a: Rgb, b: Rgb, t: float) -> Rgb:
    """Between two colours."""
    red, green, blue = (x + (y - x) * t for x, y in zip(a, b, strict=True))
    return red, green, blue


def jitter(rng: np.random.Generator, rgb: Rgb, amount: float) -> Rgb:
    """A colour near another."""
    lighter = 1 + amount * rng.uniform(-1, 1)
    red, green, blue = (float(np.clip(c * lighter * (1 + 0.2 * amount * rng.uniform(-1, 1)), 0, 255)) for c in rgb)
    return red, green, blue


def planes(height: int, width: int, channels: int) -> ndarray:
    """(height, width, channels) float32 zeros, channel by channel in memory: NumPy is slow along an axis of three."""
    return np.moveaxis(np.zeros((channels, height, width), np.float32), 0, -1)


def darkness(skin: Rgb) -> float:
    """Of a skin, 0 fair to 1 dark."""
    return float(np.clip((172 - skin[1]) / 110, 0, 1))
