"""Anatomy of the eyes that all looks share. Lengths in mm, angles in radians; eyes in the head frame, image left first.

The iris turns about a point 10.7 mm behind it. Its pupil does not point where the person looks: the fovea, which the
line of sight ends on, lies to the temple's side of the eye's axis (angle kappa).
"""

import numpy as np
from numpy import ndarray

LIMBUS_DISTANCE = 10.7  # from the centre of rotation to the middle of the limbus' disc; the iris lies in that
CORNEA_RADIUS, CORNEA_DISTANCE = 7.8, 5.6  # its sphere, and how far before the centre of rotation: meets the limbus
KAPPA_MEAN_DEG, KAPPA_SD_DEG = np.array([4.0, 1.0]), np.array([1.2, 0.5])  # outwards, down


def draw_kappa(rng: np.random.Generator) -> tuple[float, float]:
    """Angle kappa of a person, (outwards, down): how far the axes of the pupils are off the lines of sight."""
    outwards, down = np.deg2rad(KAPPA_MEAN_DEG + KAPPA_SD_DEG * rng.normal(size=2))
    return float(outwards), float(down)


def pupil_centres(centres: ndarray, axes: ndarray) -> ndarray:
    """(2, 3) middles of pupil and iris.

    centres: (2, 3) of rotation.  axes: (2, 3) unit, where the pupils point, `View.pupil_axes`.
    """
    return centres + LIMBUS_DISTANCE * axes
