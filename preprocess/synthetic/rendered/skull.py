"""What is put on a head: triangles that are no part of the mesh, and the skull that they lie on."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy import ndarray
from scipy.spatial import cKDTree

from preprocess.synthetic.curves import smooth
from preprocess.synthetic.rendered.assets import PARTS, load_mesh
from preprocess.synthetic.rendered.atlas import HEAD_ROWS, WIDTH
from preprocess.synthetic.rendered.places import places
from preprocess.synthetic.rendered.raster import rasterize
from preprocess.synthetic.scene import unit

CENTRE = np.array([0.0, -10.0, 80.0], np.float32)  # of the head, that directions are told from
_GRID = 48, 96  # of directions: rows from the top to below, columns round the head
_NAPE = 92.0  # y below which hair hangs free


@dataclass(frozen=True)
class Extra:
    """Triangles (T, 3) of vertices (H, 3) mm, head frame, with normals (H, 3) and places (H, 2) in the atlas."""

    vertices: ndarray
    normals: ndarray
    places: ndarray
    triangles: ndarray


def extra(vertices: ndarray, normals: ndarray, places: ndarray, triangles: ndarray) -> Extra:
    """Of arrays (..., 3), (..., 3) and (..., 2), point by point, and triangles (T, 3)."""
    flat = [values.reshape(-1, values.shape[-1]).astype(np.float32) for values in (vertices, normals, places)]
    return Extra(flat[0], flat[1], flat[2], triangles.astype(np.int32))


NOTHING = extra(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 3)))


@cache
def texel_vertices() -> tuple[ndarray, ndarray]:
    """Vertices (n, 3) that texels on the skin lie between, and their weights (n, 3), sum 1."""
    mesh, on_skin = load_mesh(), places().on_skin
    column, row = np.ascontiguousarray(mesh.corner_place.T)
    triangles = np.ascontiguousarray(mesh.triangles[mesh.part == PARTS.index("skin")].T)
    surface = rasterize(column, row, np.ones(len(row), np.float32), triangles, max(WIDTH, HEAD_ROWS), 0.0)
    rows, columns = np.nonzero(on_skin)
    corners = surface.corners[:, surface.triangle[rows, columns]]
    a, b, c = (plane[:, surface.triangle[rows, columns]] for plane in surface.planes)
    weights = (a * columns + b * rows + c).T
    return mesh.corner_vertex[corners].T, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@cache
def _directions() -> cKDTree:
    """A search for the texel on the skin that lies in a direction from the mean head's CENTRE."""
    at = places()
    return cKDTree(unit(np.stack([at.x, at.y, at.z], axis=-1)[at.on_skin] - CENTRE))


def near(directions: ndarray) -> tuple[ndarray, ndarray]:
    """Vertices (..., 3) that directions (..., 3) on the mean head lie between, and their weights, sum 1."""
    texel = _directions().query(directions)[1]
    vertices, weights = texel_vertices()
    return vertices[texel], weights[texel]


@cache
def _grid() -> tuple[ndarray, ndarray]:
    rows, columns = _GRID
    down = np.pi * np.arange(rows) / (rows - 1)
    turn = 2 * np.pi * np.arange(columns) / columns
    sin = np.sin(down)[:, None]
    return near(np.stack(np.broadcast_arrays(sin * np.sin(turn), -np.cos(down)[:, None], -sin * np.cos(turn)), -1))


@cache
def even_directions(count: int) -> tuple[ndarray, ndarray, ndarray]:
    """Directions (n, 3) evenly over the upper part of the head, and `near` of them."""
    at = np.arange(count) + 0.5
    y = -1 + 1.45 * at / count
    turn = np.pi * (1 + 5**0.5) * at
    across = np.sqrt(1 - y * y)
    directions = np.column_stack([across * np.sin(turn), y, -across * np.cos(turn)]).astype(np.float32)
    return directions, *near(directions)


class Skull:
    """How far a head reaches in each direction from CENTRE, hair that lies on it included.

    face: half the width, mm, that is left free in front.  side: -1 or 1 for whatever passes the face there.
    """

    def __init__(self, vertices: ndarray, face: float = 66.0, side: int = 0) -> None:
        index, weight = _grid()
        radius = np.sqrt(((vertices - CENTRE) ** 2).sum(axis=1))[index]
        reach = (radius * weight).sum(axis=-1).astype(np.float32)
        self.reach = np.hstack([reach, reach[:, :1]])
        self.face, self.side = face, side

    def push_out(self, points: ndarray, clearance: ndarray, slack: float = 999.0) -> ndarray:
        """Points (n, 3), those within a clearance (n,) mm of the head moved out to it, others to `slack` beyond it."""
        away = points - CENTRE
        radius = np.sqrt((away * away).sum(axis=1))
        rows, columns = _GRID
        row = np.arccos(np.clip(-away[:, 1] / radius, -1, 1)) * ((rows - 1) / np.pi)
        column = np.mod(np.arctan2(away[:, 0], -away[:, 2]) * (columns / (2 * np.pi)), columns)
        reach = (
            cv2.remap(self.reach, column[None].astype(np.float32), row[None].astype(np.float32), cv2.INTER_LINEAR)[0]
            + clearance
        )
        out = CENTRE + away * (np.clip(radius, reach, reach + slack) / radius)[:, None]
        # The neck is narrower than the jaw, so hair below it keeps to a column.
        flat = (points[:, [0, 2]] - (0, 95)) / (62, 62)
        column_out = np.maximum(1 / np.maximum(np.hypot(*flat.T), 1e-3), 1)[:, None]
        hanging = points.copy()
        hanging[:, [0, 2]] = (flat * column_out * (62, 62) + (0, 95)).astype(np.float32)
        t = smooth(points[:, 1], 40, _NAPE)[:, None]
        out += (hanging - out) * t
        face = smooth(out[:, 1], -90, -30) * (1 - smooth(out[:, 2], 40, 70))
        side = self.side or np.sign(out[:, 0])
        aside = side * np.maximum(side * out[:, 0], self.face)
        out[:, 0] += (aside - out[:, 0]) * face
        return out.astype(np.float32)


def axis(path: ndarray) -> ndarray:
    """(..., 3): the point of the head's axis that is outwards from: CENTRE, or its height below."""
    axis = np.broadcast_to(CENTRE, path.shape).copy()
    axis[..., 1] = np.maximum(path[..., 1] * 0.8, CENTRE[1])
    return axis


def quads(number: ndarray, both_sides: bool) -> ndarray:
    """(T, 3): triangles of grids (n, m) of vertices, outside where rows run down and columns to the right."""
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    triangles = np.concatenate([triangles, triangles[:, ::-1]]) if both_sides else triangles
    return triangles.astype(np.int32)


def surface(points: ndarray, texels: ndarray, relief: ndarray | float = 0.0) -> Extra:
    """A grid of points (n, m, 3), rows down and columns to the right as seen from outside, with both its sides.

    texels: (n, m, 2) places in the atlas.  relief: (m,) how much normals are tilted to the right.
    """
    down, right = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normals = unit(np.cross(down, right)) + np.asarray(relief)[..., None] * unit(right)
    number = np.arange(points[..., 0].size).reshape(points.shape[:2])
    return extra(points, normals, texels, quads(number, True))


def join(parts: list[Extra]) -> Extra:
    """All as one."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return extra(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=False)]),
    )


def along(directions: ndarray, way: ndarray) -> ndarray:
    """(n, 3) unit: ways made to lie along the head at directions (n, 3)."""
    return unit(way - directions * (way * directions).sum(axis=1, keepdims=True)).astype(np.float32)
