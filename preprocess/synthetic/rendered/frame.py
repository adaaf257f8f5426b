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
MEAN = {f"macro/{race}-{sex}-young": 1 / 6 for race in ("african", "asian", "caucasian") for sex in ("female", "male")}


@cache
def landmark_vertices() -> ndarray:
    """(68,) vertices of iBUG's landmarks; -1 but for nose, eyes, corners of the mouth and chin."""
    mesh = load_mesh()
    points = mesh.vertices + mesh.moved(MEAN)
    points = points - points[mesh.eyes].mean(axis=(0, 1))
    found = np.full(68, -1)
    for side, names in _EYE.items():
        rim = _shared(mesh, "skin", "socket")
        _mark_eye(found, points, rim[points[rim, 0] * side > 0], side, names)
    lips = _shared(mesh, "skin", "mouth")
    found[[48, 54]] = lips[np.argmin(points[lips, 0])], lips[np.argmax(points[lips, 0])]
    skin = np.unique(mesh.corner_vertex[mesh.triangles[mesh.part == PARTS.index("skin")]])
    middle = skin[np.abs(points[skin, 0]) < 0.2]
    found[30] = middle[np.argmin(points[middle, 2])]
    placed = fit(points[found[list((*_EYE[-1.0][:4:3], *_EYE[1.0][:4:3], 30))]], GENERIC[(36, 39, 45, 42, 30)])
    there = placed[0] * points @ placed[1].T + placed[2]
    for name in (27, 28, 29, 33, 8):
        found[name] = _nearest(there, middle, GENERIC[(name,)][0])
    for name in (31, 32, 34, 35):
        found[name] = _nearest(there, skin, GENERIC[(name,)][0])
    return found


def _shared(mesh: Mesh, one: str, other: str) -> ndarray:
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


def fit(points: ndarray, model: ndarray) -> tuple[float, ndarray, ndarray]:
    """Scale, rotation about x (3, 3) and move (3,) that bring points (n, 3) of a symmetric head to a model's."""
    centre, wanted = points.mean(axis=0), model.mean(axis=0)
    p, q = points - centre, model - wanted
    angle = np.arctan2((p[:, 1] * q[:, 2] - p[:, 2] * q[:, 1]).sum(), (p[:, 1] * q[:, 1] + p[:, 2] * q[:, 2]).sum())
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    turned = p @ rotation.T
    scale = float((turned * q).sum() / (turned * turned).sum())
    return scale, rotation, np.array([0.0, *(wanted - scale * rotation @ centre)[1:]])


def fit_generic(vertices: ndarray) -> tuple[float, ndarray, ndarray]:
    """`fit` of a head to the generic face model, by the landmarks that poses are found from."""
    return fit(vertices[landmark_vertices()[list(RIGID)]], GENERIC[RIGID])
