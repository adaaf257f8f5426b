"""The statistics of the synthetic files, whatever the look: where heads and eyes turn, and how pictures are taken."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

VARIATIONS = {"calm": 0.2, "full": 1.0}
Ranges = tuple[tuple[float, float], tuple[float, float]]
EYE_IN_HEAD_LIMIT = np.deg2rad([22.0, 32.0])


@dataclass(frozen=True)
class Domain:
    """The statistics of one file. Ranges are (low, high); angles in degrees as (pitch range, yaw range)."""

    name: str
    person_id: Callable[[int], str]
    head: Ranges = ((-20, 20), (-30, 30))
    gaze: Ranges = ((-22, 22), (-32, 32))
    grid: float = 0.0  # angles are multiples of this many degrees
    exposure: float = 1.0
    ambient: float = 0.42
    contrast: float = 1.0
    blur: float = 0.0  # sigma in pixels at 128
    noise: float = 0.0  # grey levels
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    clutter: float = 0.0
    light_side: float = 0.7
    extra_variation: float = 0.0


# fmt: off
DOMAINS = (
    Domain("GazeCapture", lambda i: f"{i:05d}"),
    # Laptops: looking down, dim, uneven light.
    Domain("MPIIGaze", lambda i: f"p{i:02d}", head=((-14, 18), (-20, 20)), gaze=((-20, 4), (-20, 20)),
           exposure=0.62, contrast=0.85, noise=2.0, tint=(0.92, 0.98, 1.12), clutter=0.35, light_side=1.4,
           extra_variation=0.3),
    # A studio: level heads, targets on a grid, bright even light.
    Domain("Columbia", lambda i: f"{i + 1:04d}", head=((0, 0), (-30, 30)), gaze=((-10, 10), (-30, 30)),
           grid=5.0, exposure=1.08, contrast=1.1, ambient=0.55, light_side=0.25),
    # A webcam some way off: blurred, warm and grainy.
    Domain("EYEDIAP", lambda i: f"{i + 1}_A", head=((-18, 18), (-25, 25)), exposure=0.85, contrast=0.75,
           blur=1.1, noise=3.0, tint=(1.12, 1.0, 0.82), light_side=1.0, extra_variation=0.15),
)
# fmt: on


def _uniform(rng: np.random.Generator, ranges: tuple, grid: float) -> ndarray:
    value = np.array([rng.uniform(low, high) for low, high in ranges])
    return np.deg2rad(np.round(value / grid) * grid if grid else value)


def draw_pose(rng: np.random.Generator, domain: Domain) -> tuple[ndarray, ndarray]:
    """Gaze and head (pitch, yaw) in radians, with the eyes within 22 and 32 degrees of the head."""
    head = _uniform(rng, domain.head, domain.grid)
    while not _can_look(head, domain.gaze):
        head = _uniform(rng, domain.head, domain.grid)
    while True:
        gaze = _uniform(rng, domain.gaze, domain.grid)
        if np.all(np.abs(gaze - head) < EYE_IN_HEAD_LIMIT):
            return gaze, head


def _can_look(head: ndarray, ranges: Ranges) -> bool:
    """Whether the eyes of a head, radians, can look two degrees far into the ranges of gaze, degrees."""
    low, high = np.deg2rad(np.array(ranges)).T
    margin = np.deg2rad(2.0)
    return bool(np.all((head - EYE_IN_HEAD_LIMIT < high - margin) & (head + EYE_IN_HEAD_LIMIT > low + margin)))
