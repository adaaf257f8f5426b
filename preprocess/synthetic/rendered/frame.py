"""Where a rendered head has its landmarks, and the frame that its pose is told in.

The label of a photograph's head is the pose of one generic face model that fits its landmarks best. So a rendered
person is put, turned and scaled where that model fits: whoever has a long nose is not labelled as looking down.
"""

from functools import cache

import numpy as np
from numpy import ndarray

from preprocess.face_model import GENERIC, RIGID
from preprocess.synthetic.rendered.assets import PARTS, Mesh, load_mesh

_EYE = {
    -1.0: (36, 37, 38, 39, 40, 41),
    1.0: (45, 44, 43, 42, 47, 46),
}  # outer corner, upper lid, inner corner, lower lid
MEAN_HEAD = {
    f"macro/{race}-{sex}-young": 1 / 6 for race in ("african", "asian", "caucasian") for sex in ("female", "male")
}
# Where a detector of landmarks (MediaPipe) finds those that poses are made from: median over 24 frontal renders,
# both sides averaged, mm on the mean head about the middle of its eyes; for image left, x of the other side negative.
_DETECTED = {
    27: (0.0, -0.2, -23.3), 28: (0.0, 13.1, -27.7), 29: (0.0, 25.4, -36.1), 30: (0.0, 33.9, -41.3),
    31: (-13.2, 44.2, -25.4), 32: (-6.0, 46.8, -29.8), 33: (0.0, 45.9, -32.2), 36: (-41.8, 1.0, -9.0),
    39: (-15.9, 4.6, -13.6),
}  # fmt: skip
_MIRRORED = {31: 35, 32: 34, 36: 45, 39: 42}


@cache
def landmark_vertices() -> ndarray:
    """(68,) vertices of iBUG's landmarks; -1 but for nose, eyes, corners of the mouth and chin."""
    mesh = load_mesh()
    points = mesh.shaped(MEAN_HEAD)
    points = points - points[mesh.eyes].mean(axis=(0, 1))
    found = np.full(68, -1)
    for side, names in _EYE.items():
        rim = shared_vertices(mesh, "skin", "socket")
        _mark_eye(found, points, rim[points[rim, 0] * side > 0], side, names)
    lips = shared_vertices(mesh, "skin", "mouth")
    found[[48, 54]] = lips[np.argmin(points[lips, 0])], lips[np.argmax(points[lips, 0])]
    skin = np.unique(mesh.corner_vertex[mesh.triangles[mesh.part == PARTS.index("skin")]])
    middle = skin[np.abs(points[skin, 0]) < 0.2]
    for name, place in _DETECTED.items():
        found[name] = _nearest(points, skin if name in _MIRRORED else middle, np.array(place))
        if name in _MIRRORED:
            found[_MIRRORED[name]] = _nearest(points, skin, np.array(place) * [-1, 1, 1])
    found[8] = _nearest(points, middle, np.array([0.0, 108.0, -18.0]))
    return found


def shared_vertices(mesh: Mesh, one: str, other: str) -> ndarray:
    """Vertices that two parts share."""
    of = [mesh.corner_vertex[mesh.triangles[mesh.part == PARTS.index(part)]].ravel() for part in (one, other)]
    return np.intersect1d(*of)


def _mark_eye(found: ndarray, points: ndarray, rim: ndarray, side: float, names: tuple[int, ...]) -> None:
    outwards, y = points[rim, 0] * side, points[rim, 1]
    low, high = outwards.min(), outwards.max()
    found[names[0]], found[names[3]] = rim[np.argmax(outwards)], rim[np.argmin(outwards)]
    line = np.interp(outwards, [low, high], [y[np.argmin(outwards)], y[np.argmax(outwards)]])
    for name, part, upper in (
        (names[1], 2 / 3, True),
        (names[2], 1 / 3, True),
        (names[4], 1 / 3, False),
        (names[5], 2 / 3, False),
    ):
        lid = rim[(y < line) if upper else (y > line)]
        found[name] = lid[np.argmin(np.abs(points[lid, 0] * side - (low + part * (high - low))))]


def _nearest(points: ndarray, among: ndarray, wanted: ndarray) -> int:
    return int(among[np.argmin(((points[among] - wanted) ** 2).sum(axis=1))])


# A pose from landmarks lies between the two turns below, and closer to level than either, since a detector's
# landmarks are those of a more usual face: least squares over 40 rendered persons (MediaPipe), before their lids were
# seated on smaller eyes. The level was set anew since, for faces before the camera (within 15 degrees of yaw): of heads
# that turn further, poses from landmarks look up by 3 to 6 degrees more.
_IN_SPACE, _AS_SEEN, _LEVEL = 0.30, 0.33, np.deg2rad(-2.9)


def fit_generic(vertices: ndarray) -> tuple[float, ndarray, ndarray]:
    """Scale, rotation about x (3, 3) and move (3,) that bring a symmetric head (V, 3) to the generic face's frame."""
    points, model = vertices[landmark_vertices()[list(RIGID)]], GENERIC[RIGID]
    p, q = points - points.mean(axis=0), model - model.mean(axis=0)
    rotation = _about_x(_IN_SPACE * _turn_in_space(p, q) + _AS_SEEN * _turn_as_seen(p, q) + _LEVEL)
    turned = p @ rotation.T
    scale = float((turned * q)[:, :2].sum() / (turned[:, :2] ** 2).sum())
    move = model.mean(axis=0) - scale * rotation @ points.mean(axis=0)
    return scale, rotation, np.array([0.0, *move[1:]])


def _turn_in_space(p: ndarray, q: ndarray) -> float:
    """Angle about x that brings points p nearest to q, (n, 3) both."""
    return float(np.arctan2((p[:, 1] * q[:, 2] - p[:, 2] * q[:, 1]).sum(), (p[:, 1:] * q[:, 1:]).sum()))


def _turn_as_seen(p: ndarray, q: ndarray) -> float:
    """Angle about x at which q, turned to look like p from the front, need not be turned at all."""
    angle, step = 0.0, 1e-3
    for _ in range(8):
        here = _pull(p @ _about_x(angle).T, q)
        angle -= here * step / (_pull(p @ _about_x(angle + step).T, q) - here)
    return angle


def _pull(p: ndarray, q: ndarray) -> float:
    """How heights in the picture would turn q about x."""
    scale = (q[:, :2] * p[:, :2]).sum() / (p[:, :2] ** 2).sum()
    return float((q[:, 2] * (q[:, 1] - scale * p[:, 1])).sum())


def _about_x(angle: float) -> ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
