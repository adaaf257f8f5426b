"""The neck of a rendered person: shoulders follow the head's turn a part of the way."""

import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import smooth

_STAYS = 0.6  # of the head's yaw that shoulders do not follow
_AXIS = np.array([0.0, 95.0], np.float32)  # x and z, mm, of the line that the neck is twisted about
_SLANT, _JAW, _SHOULDERS = 0.35, 112.0, 190.0  # of planes between which it is, below the chin and behind it; y, mm


def twist(vertices: ndarray, normals: ndarray, yaw: float) -> None:
    """Turns what is below the jaw back, ever more towards the shoulders, in vertices and normals (V, 3), head frame.

    yaw: of the head, radians.
    """
    low = np.flatnonzero(vertices[:, 1] + _SLANT * vertices[:, 2] > _JAW)
    height = vertices[low, 1] + _SLANT * vertices[low, 2]
    angle = np.float32(_STAYS * yaw) * smooth(height, _JAW, _SHOULDERS)
    cosine, sine = np.cos(angle), np.sin(angle)
    for array, (x0, z0) in ((vertices, _AXIS), (normals, np.zeros(2, np.float32))):
        x, z = array[low, 0] - x0, array[low, 2] - z0
        array[low, 0], array[low, 2] = cosine * x - sine * z + x0, sine * x + cosine * z + z0
