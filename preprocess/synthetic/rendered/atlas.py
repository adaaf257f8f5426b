"""The atlas of a rendered head: one picture that holds the colours of all its parts.

Rows 0 to HEAD_ROWS are the skin of the head, crown above and chin below, spread out as the mesh's own texture
coordinates are, but closer to the eye: the face has texels of about 0.8 mm, the back of the head of 2.2. Below
come neck and shoulders, small spots for teeth and what is behind lips and lids, and locks of hair from root to tip.
"""

import numpy as np
from numpy import ndarray

WIDTH, HEAD_ROWS, BODY_ROWS, SPOT_ROWS, HAIR_ROWS = 416, 272, 40, 24, 64
ROWS = HEAD_ROWS + BODY_ROWS + SPOT_ROWS + HAIR_ROWS
_TOP = HEAD_ROWS + BODY_ROWS
# Left, top, width and height of spots.
SPOTS = {
    "socket": (0, _TOP, 40, SPOT_ROWS),
    "mouth": (40, _TOP, 60, SPOT_ROWS),
    "upper-teeth": (100, _TOP, 100, 12),
    "lower-teeth": (100, _TOP + 12, 100, 12),
    "upper-lashes": (200, _TOP, 100, 12),
    "lower-lashes": (200, _TOP + 12, 100, 12),
}
MOUTH = (40, 199, _TOP, _TOP + SPOT_ROWS - 1)  # first and last column, first and last row: the inside and the teeth
# Of the mesh's texture coordinates: u grows from crown to chin, v from image left to image right. Knots of the
# spread, in these coordinates and in texels.
_DOWN = np.array([[0.637, 0.0], [0.755, 40.0], [0.960, 250.0], [1.000, HEAD_ROWS - 1.0]])
_ACROSS = np.array([[0.145, 0.0], [0.335, 80.0], [0.4835, 207.5], [0.632, 335.0], [0.822, WIDTH - 1.0]])


def island_to_atlas(points: ndarray, inverse: bool = False) -> ndarray:
    """Texture coordinates (n, 2) of the mesh's head to atlas column and row; `inverse` leads back."""
    if inverse:
        u = np.interp(points[:, 1], _DOWN[:, 1], _DOWN[:, 0])
        v = np.interp(points[:, 0], _ACROSS[:, 1], _ACROSS[:, 0])
        return np.column_stack([u, v])
    row = np.interp(points[:, 0], _DOWN[:, 0], _DOWN[:, 1])
    column = np.interp(points[:, 1], _ACROSS[:, 0], _ACROSS[:, 1])
    return np.column_stack([column, row])
