"""Locks of hair that stand free of the scalp: tapered strips of triangles that grow from it, fall, and lie on the head.

They hide one another like anything solid, so ragged ends and gaps cost no transparency.
"""

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import smooth
from preprocess.synthetic.rendered.atlas import HAIR_ROWS, ROWS, WIDTH
from preprocess.synthetic.rendered.hair import Hair, inside, stand_off
from preprocess.synthetic.rendered.places import mean_head
from preprocess.synthetic.rendered.skull import (
    CENTRE,
    NOTHING,
    Extra,
    Skull,
    along,
    axis,
    even_directions,
    extra,
    join,
    near,
    quads,
    surface,
)
from preprocess.synthetic.scene import unit

LOWEST_FRINGE = -17.0  # y, above the lids
_CROWN = np.array([0.0, -0.86, 0.5], np.float32)  # the direction that hair grows away from


def _comb(hair: Hair, directions: ndarray, rng: np.random.Generator) -> ndarray:
    """(n, 3) unit: which way short hair lies at directions (n, 3) on the head."""
    side = np.tanh((directions[:, 0] - hair.part / 90) * 12)
    from_part = np.column_stack([side, 0.25 + 0 * side, 0.1 + 0.5 * (directions[:, 2] < -0.3)])
    way = along(directions, np.broadcast_to(-_CROWN, directions.shape))
    way = way + hair.parted * (2.2 * unit(from_part) - way)
    way += (0.08 + 0.6 * hair.curl) * rng.normal(size=way.shape)
    return along(directions, way)


def _grow(
    skull: Skull,
    roots: ndarray,
    way: ndarray,
    step: ndarray,
    clearance: ndarray,
    n: int,
    lift: ndarray | float,
    weight: float,
    slack: float = 999.0,
) -> ndarray:
    """(n, N, 3): points of locks, `step` (N,) mm apart, that start at `roots` towards `way`, both (N, 3).

    clearance: (N,) mm from the head at their ends.  lift: how steeply they leave it.  weight: how soon they hang.
    """
    path, out = [roots.astype(np.float32)], unit(roots - CENTRE)
    way, down = unit(way + lift * out), np.array([0, weight, 0], np.float32)
    for k, pace in enumerate(np.linspace(0.45, 1.55, n - 1)):
        there = skull.push_out(path[-1] + pace * step[:, None] * way, clearance * min(1.0, 0.3 * (k + 1)), slack)
        way = unit(there - path[-1])
        path.append(there)
        inwards = unit((axis(path[-1]) - path[-1]) * (1, 0, 1))
        way = unit(way + down + 0.25 * weight * inwards)
    return np.stack(path).astype(np.float32)


def _strips(path: ndarray, width: ndarray, left: ndarray, twist: float = 0.0) -> Extra:
    """Strips along paths (n, N, 3), as wide in the middle as `width` (N,) mm, coloured from column `left` (N,).

    twist: radians that they are turned about their length, from flat on the head.
    """
    n, count, _ = path.shape
    outwards = unit(path - axis(path))
    across = unit(np.cross(unit(np.gradient(path, axis=0)), outwards))
    across, outwards = (
        across * np.cos(twist) + outwards * np.sin(twist),
        outwards * np.cos(twist) - across * np.sin(twist),
    )
    t = np.linspace(0, 1, n, dtype=np.float32)[:, None]
    edge = across * (0.5 * width * (0.8 + 0.2 * np.sin(np.pi * t)) * np.sqrt(np.clip(1.02 - t**3, 0, 1)))[..., None]
    vertices = np.stack([path - edge, path + edge], axis=2)
    normals = np.stack([outwards - 0.35 * across, outwards + 0.35 * across], axis=2)
    column = np.stack([left, left + np.clip(width, 4, 16)], axis=1)
    places = np.stack(np.broadcast_arrays(column, _rows(t)[..., None]), axis=-1)
    number = np.moveaxis(np.arange(n * count * 2).reshape(n, count, 2), 1, 2)
    return extra(vertices, normals, places, quads(number, True))


def _rows(t: ndarray) -> ndarray:
    """Rows of the atlas for the way from root, 0, to tip, 1."""
    return ROWS - HAIR_ROWS + 1 + t * (HAIR_ROWS - 3)


def _sheet(path: ndarray, left: float, side: int, relief: ndarray) -> Extra:
    """One surface through neighbouring paths (n, m, 3) from the front to the back. relief: (m,) tilt of strands."""
    n, m, _ = path.shape
    t = np.linspace(0, 1, n, dtype=np.float32)[:, None]
    column = left + np.linspace(0, WIDTH * 0.46, m, dtype=np.float32)
    places = np.stack(np.broadcast_arrays(column, _rows(t)), axis=-1)
    return surface(path[:, ::side], places[:, ::side], relief)


def _short(hair: Hair, vertices: ndarray, rng: np.random.Generator) -> Extra:
    """Locks that lie on the head all over it."""
    directions, index, weight = even_directions(700 if hair.style == "curly" else 420)
    spots = (mean_head()[index] * weight[..., None]).sum(axis=1)
    grows = inside(hair, spots) > 2
    directions, index, weight, spots = directions[grows], index[grows], weight[grows], spots[grows]
    roots = (vertices[index] * weight[..., None]).sum(axis=1) - 1.0 * directions
    count, off, skull = len(roots), stand_off(hair, spots), Skull(vertices, face=0.0)
    length = hair.length * rng.uniform(0.6, 1.15, count) * (0.45 + 0.55 * smooth(inside(hair, spots), 0, 60))
    clearance = (0.6 + rng.gamma(2.0, 0.3 + 0.09 * off)).astype(np.float32)
    lift = hair.lift * (0.1 + 0.02 * off[:, None])
    path = _grow(skull, roots, _comb(hair, directions, rng), length / 4, clearance, 5, lift, 0.15, 1.0)
    _curl(path, hair, rng.uniform(1, 2.2, count), rng.random(count))
    width = rng.uniform(5, 9, count).astype(np.float32)
    return _strips(path, width, rng.uniform(1, WIDTH - 18, count))


def _long(hair: Hair, vertices: ndarray, rng: np.random.Generator) -> Extra:
    """Hair that falls from a parting, in front of the ears or behind them, and down the neck; loose locks on it."""
    parts, m = [], 22
    t = np.linspace(0, 1, m)
    for side in (-1, 1):
        skull = Skull(vertices, side=side)
        directions = _parting(hair, t, side)
        index, weight = near(directions)
        roots = (vertices[index] * weight[..., None]).sum(axis=1) + 1.0 * directions
        fan = np.deg2rad(5 + 165 * t**1.5)  # from the side to the back
        way = along(directions, np.column_stack([side * np.cos(fan / 2), 0.3 + 0 * t, np.sin(fan / 2) * 1.1 - 0.1]))
        clumps = cv2.GaussianBlur(rng.normal(size=(m, 1)).astype(np.float32), (1, 5), 1.0)[:, 0]
        clearance = (3 + 1.2 * hair.side + 2.5 * clumps).astype(np.float32)
        path = _fall(hair, skull, roots, way, clearance, 3.0, rng)
        _curl(path, hair, np.full(m, 2.5), np.cumsum((0.1 + 0.25 * hair.curl) * rng.normal(size=m)))
        left = 1.0 if side < 0 else WIDTH * 0.5
        parts.append(_sheet(path, left, side, 0.5 * rng.normal(size=m).astype(np.float32)))
        parts.append(_loose(hair, skull, roots, way, clearance, left, rng))
    return join(parts)


def _fall(
    hair: Hair, skull: Skull, roots: ndarray, way: ndarray, clearance: ndarray, ragged: float, rng: np.random.Generator
) -> ndarray:
    """(16, N, 3): locks from roots down to where long hair ends, `ragged` mm sd."""
    reach = np.full(len(roots), (hair.length + 200) / 15)
    path = _grow(skull, roots, way, reach, clearance, 16, 0.15, 0.8)
    return _end_at(path, hair.length + ragged * rng.normal(size=len(roots)))


def _end_at(path: ndarray, y: ndarray) -> ndarray:
    """Paths (n, N, 3), each shortened to end where it first comes down to a height of `y` (N,)."""
    at = np.arange(len(path), dtype=np.float32)
    last = [np.interp(end, heights, at) for end, heights in zip(y, np.maximum.accumulate(path[..., 1]).T, strict=True)]
    place = np.linspace(0, last, len(path))
    low = np.minimum(place.astype(int), len(path) - 2)
    part, lock = (place - low)[..., None], np.arange(path.shape[1])
    return (path[low, lock] * (1 - part) + path[low + 1, lock] * part).astype(np.float32)


def _parting(hair: Hair, t: ndarray, side: int) -> ndarray:
    """(m, 3) unit directions on the head along the parting, from the hairline in front to the crown behind."""
    back = np.deg2rad(-57 + 0.6 * hair.high + 112 * t)  # 0 is straight up
    x = np.sin(np.deg2rad(hair.part * 0.8)) * np.cos(np.pi * t / 2) + 0.01 * side
    return unit(np.column_stack([x, -np.cos(back), np.sin(back)])).astype(np.float32)


def _loose(
    hair: Hair,
    skull: Skull,
    roots: ndarray,
    way: ndarray,
    clearance: ndarray,
    left: float,
    rng: np.random.Generator,
) -> Extra:
    """Single locks on the sheet of hair that has these roots, ways and clearance."""
    count = 36
    at = rng.random(count) * (len(roots) - 1)
    low = at.astype(int)
    part = (at - low)[:, None]
    way, roots = (values[low] * (1 - part) + values[low + 1] * part for values in (way, roots))
    way = way + 0.1 * rng.normal(size=(count, 3))
    clearance = (np.maximum(clearance[low], clearance[low + 1]) + rng.uniform(0.5, 2.0, count)).astype(np.float32)
    path = _fall(hair, skull, roots, way, clearance, 9.0, rng)
    _curl(path, hair, rng.uniform(1.5, 3.5, count), rng.random(count))
    return _strips(path, rng.uniform(4, 11, count).astype(np.float32), left + at * (WIDTH * 0.44 / 22), 0.5)


def _fringe(hair: Hair, vertices: ndarray, rng: np.random.Generator) -> Extra:
    """Hair combed over the forehead, ended above the eyes."""
    count = 70
    across, back = np.linspace(-1, 1, count), np.deg2rad(rng.uniform(-45, -20, count))
    directions = unit(np.column_stack([0.45 * across, -np.cos(back), np.sin(back)]))
    index, weight = near(directions)
    roots = (vertices[index] * weight[..., None]).sum(axis=1) + 2.0 * directions
    way = along(directions, np.column_stack([0.45 * across + 0.012 * hair.part, 0 * across, 0 * across - 1]))
    clearance = rng.uniform(2, 5.5, count).astype(np.float32) + np.float32(0.4 * hair.top)
    path = _grow(Skull(vertices, face=0.0), roots, way, np.full(count, 20.0), clearance, 9, 0.2, 0.3)
    ragged = (2.0 if hair.style == "bob" else 4.0) * rng.normal(size=count)
    path = _end_at(path, np.minimum(hair.fringe + 0.1 * across * hair.part + ragged, LOWEST_FRINGE))
    return _strips(path, rng.uniform(5, 13, count).astype(np.float32), 1 + 0.8 * (across + 1) * WIDTH / 2)


def _curl(path: ndarray, hair: Hair, turns: ndarray, phase: ndarray) -> None:
    """Makes paths (n, N, 3) wind, `turns` (N,) times from a phase (N,), in turns."""
    t = np.linspace(0, 1, len(path), dtype=np.float32)[:, None]
    angle = 2 * np.pi * (t * turns + phase)
    size = hair.curl * min(7.0, 0.12 * hair.length) * smooth(t, 0.1, 0.6)
    outwards = unit(path - axis(path))
    across = unit(np.cross(np.gradient(path, axis=0), outwards))
    path += across * (size * np.sin(angle))[..., None].astype(np.float32)
    path += outwards * (size * 0.6 * (1 + np.cos(angle)))[..., None].astype(np.float32)


def _tied(hair: Hair, vertices: ndarray, rng: np.random.Generator) -> Extra:
    """A pony tail, and thin locks that came loose at the temples."""
    skull = Skull(vertices)
    turn = np.deg2rad(rng.uniform(54, 72, 6) * np.repeat([-1, 1], 3))
    rise = np.deg2rad(rng.uniform(15, 30, 6))
    temples = np.column_stack([np.sin(turn) * np.cos(rise), -np.sin(rise), -np.cos(turn) * np.cos(rise)])
    tail = unit(np.array([0, -0.35, 1]) + 0.07 * rng.normal(size=(24, 3)))
    directions = np.vstack([temples, tail])
    index, weight = near(directions)
    roots = (vertices[index] * weight[..., None]).sum(axis=1)
    roots[6:] += 9 * tail
    clearance = np.concatenate([rng.uniform(0.5, 2, 6), rng.uniform(3, 22, 24)]).astype(np.float32)
    path = _fall(hair, skull, roots, along(directions, np.tile([0.0, 1.0, 0.2], (30, 1))), clearance, 14.0, rng)
    path[:, :6] = _end_at(path[:, :6], rng.uniform(-20, 60, 6))
    _curl(path, hair, rng.uniform(1, 3, 30), rng.random(30))
    width = np.concatenate([rng.uniform(2.5, 5.0, 6), rng.uniform(8, 16, 24)]).astype(np.float32)
    return _strips(path, width, rng.uniform(1, WIDTH - 18, 30), 0.8)


def grow_locks(hair: Hair, vertices: ndarray) -> Extra:
    """Locks on a head whose vertices (V, 3) have their hair's volume already."""
    if not hair.length:
        return NOTHING
    rng = np.random.default_rng(hair.seed + 1)
    grow = {"bob": _long, "long": _long, "tied": _tied}.get(hair.style, _short)
    locks = grow(hair, vertices, rng)
    return join([locks, _fringe(hair, vertices, rng)]) if hair.fringe else locks
