"""Locks of hair that stand free of the scalp: tapered strips of triangles that grow from it, fall, and lie on the head.

They hide one another like anything solid, so ragged ends and gaps cost no transparency.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy import ndarray
from scipy.spatial import cKDTree

from preprocess.synthetic.rendered.atlas import HAIR_ROWS, HEAD_ROWS, ROWS, WIDTH
from preprocess.synthetic.rendered.hair import Hair, inside, smooth, stand_off
from preprocess.synthetic.rendered.template import mean_vertices, texel_positions, texel_vertices

CENTRE = np.array([0.0, -10.0, 80.0], np.float32)  # of the head, that directions are told from
_CROWN = np.array([0.0, -0.86, 0.5], np.float32)  # the direction that hair grows away from
_GRID = 48, 96  # of directions: rows from the top to below, columns round the head
_NAPE = 92.0  # y below which hair hangs free


@dataclass(frozen=True)
class Locks:
    """Triangles (T, 3) of vertices (H, 3) mm, head frame, with normals (H, 3) and places (H, 2) in the atlas."""

    vertices: ndarray
    normals: ndarray
    places: ndarray
    triangles: ndarray


NONE = Locks(*(np.zeros((0, n), np.float32) for n in (3, 3, 2)), np.zeros((0, 3), np.int32))


def _unit(v: ndarray) -> ndarray:
    return v / np.maximum(np.sqrt((v * v).sum(axis=-1, keepdims=True)), np.float32(1e-6))


@cache
def _directions() -> cKDTree:
    """A search for the texel of the head that lies in a direction from the mean head's CENTRE."""
    return cKDTree(_unit(texel_positions()[:HEAD_ROWS] - CENTRE).reshape(-1, 3))


def _near(directions: ndarray) -> tuple[ndarray, ndarray]:
    """Vertices (..., 3) that directions (..., 3) on the mean head lie between, and their weights, sum 1."""
    texel = _directions().query(directions)[1]
    vertices, weights = texel_vertices()
    return vertices.reshape(-1, 3)[texel], weights.reshape(-1, 3)[texel]


@cache
def _grid() -> tuple[ndarray, ndarray]:
    rows, columns = _GRID
    down = np.pi * np.arange(rows) / (rows - 1)
    turn = 2 * np.pi * np.arange(columns) / columns
    sin = np.sin(down)[:, None]
    return _near(np.stack(np.broadcast_arrays(sin * np.sin(turn), -np.cos(down)[:, None], -sin * np.cos(turn)), -1))


@cache
def _roots(count: int) -> tuple[ndarray, ndarray, ndarray]:
    """Directions (n, 3) evenly over the upper part of the head, and `_near` of them."""
    at = np.arange(count) + 0.5
    y = -1 + 1.45 * at / count
    turn = np.pi * (1 + 5**0.5) * at
    across = np.sqrt(1 - y * y)
    directions = np.column_stack([across * np.sin(turn), y, -across * np.cos(turn)]).astype(np.float32)
    return directions, *_near(directions)


class Skull:
    """How far a head reaches in each direction from CENTRE, hair that lies on it included."""

    def __init__(self, vertices: ndarray, face: float = 66.0) -> None:
        index, weight = _grid()
        radius = np.sqrt(((vertices - CENTRE) ** 2).sum(axis=1))[index]
        reach = (radius * weight).sum(axis=-1).astype(np.float32)
        self.reach = np.hstack([reach, reach[:, :1]])
        self.face = face  # half the width that hair leaves free

    def push_out(self, points: ndarray, clearance: ndarray, slack: float = 999.0) -> ndarray:
        """Points (n, 3), those within a clearance (n,) mm of the head moved out to it, others to `slack` beyond it."""
        away = points - CENTRE
        radius = np.sqrt((away * away).sum(axis=1))
        rows, columns = _GRID
        row = np.arccos(np.clip(-away[:, 1] / radius, -1, 1)) * ((rows - 1) / np.pi)
        column = np.mod(np.arctan2(away[:, 0], -away[:, 2]) * (columns / (2 * np.pi)), columns)
        reach = cv2.remap(self.reach, column[None].astype(np.float32), row[None].astype(np.float32), cv2.INTER_LINEAR)[0] + clearance
        out = CENTRE + away * (np.clip(radius, reach, reach + slack) / radius)[:, None]
        # The neck is narrower than the jaw, so hair below it keeps to a column.
        flat = (points[:, [0, 2]] - (0, 95)) / (62, 62)
        column_out = np.maximum(1 / np.maximum(np.hypot(*flat.T), 1e-3), 1)[:, None]
        hanging = points.copy()
        hanging[:, [0, 2]] = (flat * column_out * (62, 62) + (0, 95)).astype(np.float32)
        t = smooth(points[:, 1], 40, _NAPE)[:, None]
        out += (hanging - out) * t
        face = smooth(out[:, 1], -75, -30) * (1 - smooth(out[:, 2], 40, 70))
        aside = np.sign(out[:, 0]) * np.maximum(np.abs(out[:, 0]), self.face)
        out[:, 0] += (aside - out[:, 0]) * face
        return out.astype(np.float32)


def _along(directions: ndarray, way: ndarray) -> ndarray:
    """(n, 3) unit: ways made to lie along the head at directions (n, 3)."""
    return _unit(way - directions * (way * directions).sum(axis=1, keepdims=True)).astype(np.float32)


def _comb(hair: Hair, directions: ndarray, rng: np.random.Generator) -> ndarray:
    """(n, 3) unit: which way short hair lies at directions (n, 3) on the head."""
    side = np.tanh((directions[:, 0] - hair.part / 90) * 12)
    from_part = np.column_stack([side, 0.25 + 0 * side, 0.1 + 0.5 * (directions[:, 2] < -0.3)])
    way = _along(directions, np.broadcast_to(-_CROWN, directions.shape))
    way = way + hair.parted * (2.2 * _unit(from_part) - way)
    way += (0.08 + 0.6 * hair.curl) * rng.normal(size=way.shape)
    return _along(directions, way)


def _grow(
    skull: Skull, roots: ndarray, way: ndarray, step: ndarray, clearance: ndarray, n: int, lift: ndarray | float, weight: float, slack: float = 999.0
) -> ndarray:
    """(n, N, 3): points of locks, `step` (N,) mm apart, that start at `roots` towards `way`, both (N, 3).

    clearance: (N,) mm from the head at their ends.  lift: how steeply they leave it.  weight: how soon they hang.
    """
    path, out = [roots.astype(np.float32)], _unit(roots - CENTRE)
    way, down = _unit(way + lift * out), np.array([0, weight, 0], np.float32)
    for k, pace in enumerate(np.linspace(0.45, 1.55, n - 1)):
        there = skull.push_out(path[-1] + pace * step[:, None] * way, clearance * min(1.0, 0.3 * (k + 1)), slack)
        way = _unit(there - path[-1])
        path.append(path[-1] + pace * step[:, None] * way)
        inwards = _unit((_axis(path[-1]) - path[-1]) * (1, 0, 1))
        way = _unit(way + down + 0.25 * weight * inwards)
    return np.stack(path).astype(np.float32)


def _axis(path: ndarray) -> ndarray:
    """(..., 3): the point of the head's axis that is outwards from: CENTRE, or its height below."""
    axis = np.broadcast_to(CENTRE, path.shape).copy()
    axis[..., 1] = np.maximum(path[..., 1] * 0.8, CENTRE[1])
    return axis


def _quads(number: ndarray, both_sides: bool) -> ndarray:
    """(T, 3): triangles of grids (n, m) of vertices, outside where rows run down and columns to the right."""
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    return np.concatenate([triangles, triangles[:, ::-1]]) if both_sides else triangles


def _strips(path: ndarray, width: ndarray, left: ndarray, both_sides: bool) -> Locks:
    """Strips along paths (n, N, 3), as wide in the middle as `width` (N,) mm, coloured from column `left` (N,)."""
    n, count, _ = path.shape
    outwards = _unit(path - _axis(path))
    across = _unit(np.cross(_unit(np.gradient(path, axis=0)), outwards))
    t = np.linspace(0, 1, n, dtype=np.float32)[:, None]
    edge = across * (0.5 * width * (0.8 + 0.2 * np.sin(np.pi * t)) * np.sqrt(np.clip(1.02 - t**3, 0, 1)))[..., None]
    vertices = np.stack([path - edge, path + edge], axis=2)
    normals = np.stack([outwards - 0.35 * across, outwards + 0.35 * across], axis=2)
    column = np.stack([left, left + np.clip(width, 4, 16)], axis=1)
    places = np.stack(np.broadcast_arrays(column, _rows(t)[..., None]), axis=-1)
    number = np.moveaxis(np.arange(n * count * 2).reshape(n, count, 2), 1, 2)
    return Locks(*(v.reshape(-1, v.shape[-1]).astype(np.float32) for v in (vertices, normals, places)),
                 _quads(number, both_sides).astype(np.int32))


def _rows(t: ndarray) -> ndarray:
    """Rows of the atlas for the way from root, 0, to tip, 1."""
    return ROWS - HAIR_ROWS + 1 + t * (HAIR_ROWS - 3)


def _sheet(path: ndarray, left: float, side: int, relief: ndarray) -> Locks:
    """One surface through neighbouring paths (n, m, 3) from the front to the back. relief: (m,) tilt of strands."""
    n, m, _ = path.shape
    along, across = np.gradient(path, axis=0), np.gradient(path, axis=1)
    normals = _unit(np.cross(along, across) * -side)
    normals += relief[:, None] * _unit(across)
    t = np.linspace(0, 1, n, dtype=np.float32)[:, None]
    column = left + np.linspace(0, WIDTH * 0.46, m, dtype=np.float32)
    places = np.stack(np.broadcast_arrays(column, _rows(t)), axis=-1)
    number = np.arange(n * m).reshape(n, m)
    quads = _quads(number, True)
    return Locks(*(v.reshape(-1, v.shape[-1]).astype(np.float32) for v in (path, normals, places)), quads.astype(np.int32))


def join(parts: list[Locks]) -> Locks:
    """All as one."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return Locks(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("vertices", "normals", "places")),
        np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=False)]).astype(np.int32),
    )


def _short(hair: Hair, vertices: ndarray, rng: np.random.Generator) -> Locks:
    """Locks that lie on the head all over it."""
    directions, index, weight = _roots(700 if hair.style == "curly" else 420)
    places = (mean_vertices()[index] * weight[..., None]).sum(axis=1)
    grows = inside(hair, places) > 2
    directions, index, weight, places = directions[grows], index[grows], weight[grows], places[grows]
    above = inside(hair, places)
    roots = (vertices[index] * weight[..., None]).sum(axis=1) - 1.0 * directions
    count = len(roots)
    length = hair.length * rng.uniform(0.6, 1.15, count) * (0.45 + 0.55 * smooth(above, 0, 60))
    off = stand_off(hair, places)
    clearance = (0.6 + rng.gamma(2.0, 0.3 + 0.09 * off)).astype(np.float32)
    way = _comb(hair, directions, rng)
    skull = Skull(vertices)
    path = _grow(skull, roots, way, length / 4, clearance, 5, hair.lift * (0.1 + 0.02 * off[:, None]), 0.15, 1.0)
    _curl(path, hair, rng)
    width = rng.uniform(5, 9, count).astype(np.float32)
    locks = _strips(path, width, rng.uniform(1, WIDTH - 18, count), True)
    return join([locks, _fringe(hair, skull, vertices, rng)]) if hair.fringe else locks


def _long(hair: Hair, vertices: ndarray, rng: np.random.Generator) -> Locks:
    """Hair that falls from a parting, in front of the ears or behind them, and down the neck; loose locks on it."""
    skull, parts, m, n = Skull(vertices), [], 22, 16
    t = np.linspace(0, 1, m)
    for side in (-1, 1):
        directions = _parting(hair, t, side)
        index, weight = _near(directions)
        roots = (vertices[index] * weight[..., None]).sum(axis=1) + 1.0 * directions
        fan = np.deg2rad(5 + 165 * t**1.5)  # from the side to the back
        way = _along(directions, np.column_stack([side * np.cos(fan / 2), 0.3 + 0 * t, np.sin(fan / 2) * 1.1 - 0.1]))
        clumps = cv2.GaussianBlur(rng.normal(size=(m, 1)).astype(np.float32), (1, 5), 1.0)[:, 0]
        clearance = (3 + 1.2 * hair.side + 2.5 * clumps).astype(np.float32)
        length = hair.length * (1 + 0.03 * rng.normal(size=m)) * (1 - 0.1 * t) + 40 * (hair.part * side < 0)
        path = _grow(skull, roots, way, length / (n - 1), clearance, n, 0.15, 0.8)
        left = 1.0 if side < 0 else WIDTH * 0.5
        parts.append(_sheet(path, left, side, 0.5 * rng.normal(size=m).astype(np.float32)))
        parts.append(_loose(hair, skull, roots, way, length, clearance, left, rng))
    return join([*parts, _fringe(hair, skull, vertices, rng)] if hair.fringe else parts)


def _fringe(hair: Hair, skull: Skull, vertices: ndarray, rng: np.random.Generator) -> Locks:
    """Hair combed over the forehead, ended above the eyes."""
    count = 60
    across, back = np.linspace(-1, 1, count), np.deg2rad(rng.uniform(-45, -20, count))
    directions = _unit(np.column_stack([0.45 * across, -np.cos(back), np.sin(back)]))
    index, weight = _near(directions)
    roots = (vertices[index] * weight[..., None]).sum(axis=1) + 2.0 * directions
    way = _along(directions, np.column_stack([0.45 * across + 0.012 * hair.part, 0 * across, 0 * across - 1]))
    reach = rng.uniform(2, 5.5, count).astype(np.float32) + np.float32(0.4 * hair.top)
    path = _grow(Skull(vertices, face=0.0), roots, way, np.full(count, 20.0), reach, 9, 0.2, 0.3)
    end = np.minimum(hair.fringe + 0.1 * across * hair.part + (2.0 if hair.style == "bob" else 4.0) * rng.normal(size=count), -17)
    for i, y in enumerate(np.maximum.accumulate(path[..., 1]).T):
        at = np.interp(np.linspace(0, np.interp(end[i], y, np.arange(9)), 9), np.arange(9), np.arange(9))
        path[:, i] = np.column_stack([np.interp(at, np.arange(9), c) for c in path[:, i].T])
    return _strips(path, rng.uniform(5, 11, count).astype(np.float32), (1 + 0.8 * (across + 1) * WIDTH / 2), True)


def _parting(hair: Hair, t: ndarray, side: int) -> ndarray:
    """(m, 3) unit directions on the head along the parting, from the hairline in front to the crown behind."""
    back = np.deg2rad(-57 + 0.6 * hair.high + 112 * t)  # 0 is straight up
    x = np.sin(np.deg2rad(hair.part * 0.8)) * np.cos(np.pi * np.clip(t, 0, 1) / 2) + 0.01 * side
    return _unit(np.column_stack([x, -np.cos(back), np.sin(back)])).astype(np.float32)


def _loose(
    hair: Hair, skull: Skull, roots: ndarray, way: ndarray, length: ndarray, clearance: ndarray, left: float,
    rng: np.random.Generator,
) -> Locks:
    count = 36
    at = rng.random(count) * (len(roots) - 1)
    low = at.astype(int)

    def between(values: ndarray) -> ndarray:
        part = (at - low).reshape(-1, *[1] * (values.ndim - 1))
        return values[low] + (values[low + 1] - values[low]) * part

    way = between(way) + 0.1 * rng.normal(size=(count, 3))
    reach = (between(clearance) + rng.uniform(0.5, 2.0, count)).astype(np.float32)
    path = _grow(skull, between(roots), way, between(length) * rng.uniform(0.8, 1.06, count) / 13, reach, 14, 0.15, 0.8)
    _curl(path, hair, rng)
    return _strips(path, rng.uniform(4, 11, count).astype(np.float32), left + at * (WIDTH * 0.44 / len(roots)), True)


def _curl(path: ndarray, hair: Hair, rng: np.random.Generator) -> None:
    """Makes paths (n, N, 3) wind."""
    n, count, _ = path.shape
    t = np.linspace(0, 1, n, dtype=np.float32)[:, None]
    turn = 2 * np.pi * (t * rng.uniform(1, 2.2, count) + rng.random(count))
    size = hair.curl * min(7.0, 0.12 * hair.length) * smooth(t, 0.1, 0.6)
    outwards = _unit(path - _axis(path))
    across = _unit(np.cross(np.gradient(path, axis=0), outwards))
    path += across * (size * np.sin(turn))[..., None].astype(np.float32)
    path += outwards * (size * 0.6 * (1 + np.cos(turn)))[..., None].astype(np.float32)


def grow_locks(hair: Hair, vertices: ndarray) -> Locks:
    """Locks on a head whose vertices (V, 3) have their hair's volume already."""
    if not hair.length:
        return NONE
    rng = np.random.default_rng(hair.seed + 1)
    return (_long if hair.style in ("bob", "long") else _short)(hair, vertices, rng)
