"""Which triangle each pixel sees, and what lies between a triangle's corners: a z-buffer in NumPy.

A triangle is cut into spans, one a row of pixels, whose ends follow from its edges; so only pixels that are covered
cost anything. Between corners, values are linear in the picture: triangles of a few millimetres at 600 mm distance
are nearly flat to the camera.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

_FAR = np.iinfo(np.int32).max
_TRIANGLE_BITS = 14
_EDGE = np.float32(1e-4)  # pixels that a span is longer than exact, or neighbours would leave holes between them


@dataclass(frozen=True)
class Surface:
    """What the pixels of a square picture see.

    seen: (size, size) bool, False where there is nothing; other arrays hold anything there.
    triangle: (size, size) index into `corners` of the triangle seen.  depth: (size, size) mm, 0 where nothing.
    corners: (3, S) points of the triangles that face the camera.  planes: three times (3, S), see `_planes`.
    """

    seen: ndarray
    triangle: ndarray
    depth: ndarray
    corners: ndarray
    planes: tuple[ndarray, ndarray, ndarray]

    def between(self, values: ndarray) -> ndarray:
        """(k, size, size): at pixels, values (k, C) float32 of the points."""
        a, b, c = _linear(self.planes, values.take(self.corners, axis=1))
        size = len(self.seen)
        line = np.arange(size, dtype=np.float32)
        result = np.empty((len(values), size, size), np.float32)
        for i, picture in enumerate(result):
            np.multiply(a[i].take(self.triangle), line, out=picture)
            picture += b[i].take(self.triangle) * line[:, None]
            picture += c[i].take(self.triangle)
        return result

    def at(self, values: ndarray, pixels: tuple[ndarray, ndarray]) -> ndarray:
        """(k, n): the same at n pixels alone, given as rows and columns."""
        triangle = self.triangle[pixels]
        ends = values[:, self.corners[:, triangle]]
        a, b, c = (plane[:, triangle] for plane in self.planes)
        weights = a * pixels[1].astype(np.float32) + b * pixels[0].astype(np.float32) + c
        return (weights * ends).sum(axis=1)


def rasterize(columns: ndarray, rows: ndarray, depth: ndarray, triangles: ndarray, size: int, middle: float) -> Surface:
    """The nearest front-facing triangle of each pixel.

    columns, rows: (C,) float32 pixel indices of points.  depth: (C,) mm, within 500 of `middle`.
    triangles: (3, T), T below 16384, corners anticlockwise as seen from the front.
    """
    x, y = columns.take(triangles), rows.take(triangles)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    top, bottom = np.ceil(np.maximum(y.min(axis=0), 0)), np.floor(np.minimum(y.max(axis=0), size - 1))
    left, right = np.ceil(np.maximum(x.min(axis=0), 0)), np.floor(np.minimum(x.max(axis=0), size - 1))
    seen = np.flatnonzero((area < -1e-6) & (top <= bottom) & (left <= right))
    x, y, corners = (a.take(seen, axis=1) for a in (x, y, triangles))
    area, top, bottom = (a.take(seen) for a in (area, top, bottom))
    planes = _planes(x, y, area)
    za, zb, zc = _linear(planes, depth.take(corners) - np.float32(middle))
    line, at = _spread((bottom - top + 1).astype(np.intp))
    level = top.take(line) + at
    first, count = _spans(x, y, line, level, size)
    which, step = _spread(count)
    start = zb.take(line) * level + zc.take(line)
    slope = za.take(line)
    start += slope * first
    deep = start.take(which)
    deep += slope.take(which) * step
    key = (deep * np.float32(256)).astype(np.int32) << _TRIANGLE_BITS
    key |= line.astype(np.int32).take(which)
    place = (level * size + first).take(which)
    place += step
    keys = np.full(size * size, _FAR, np.int32)
    np.minimum.at(keys, place.astype(np.intp), key)
    nearest = keys.reshape(size, size)
    hit = nearest != _FAR
    triangle = (nearest & (2**_TRIANGLE_BITS - 1)).astype(np.intp) * hit
    distance = (nearest >> _TRIANGLE_BITS) * np.float32(1 / 256) + np.float32(middle)
    return Surface(hit, triangle, distance * hit, corners, planes)


def _planes(x: ndarray, y: ndarray, area: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """(3, T) each: weight i of a pixel is a[i] * column + b[i] * row + c[i]."""
    a, b, c = (np.empty_like(x) for _ in range(3))
    scale = 1 / area
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        a[i], b[i] = (y[j] - y[k]) * scale, (x[k] - x[j]) * scale
        c[i] = (x[j] * y[k] - x[k] * y[j]) * scale
    return a, b, c


def _linear(planes: tuple[ndarray, ndarray, ndarray], ends: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """(..., S) each: a value that is ends (..., 3, S) at the corners is a * column + b * row + c at a pixel.

    From differences: weights of a small triangle far from the origin are wrong by a thousandth in float32, which
    is nothing of what lies between its corners but would be half a millimetre of a depth of 600.
    """
    first = ends[..., 0, :]
    second, third = ends[..., 1, :] - first, ends[..., 2, :] - first
    a, b, c = (plane[1] * second + plane[2] * third for plane in planes)
    return a, b, c + first


def _spread(counts: ndarray) -> tuple[ndarray, ndarray]:
    """Each index as often as it counts, and how often it came before, float32."""
    index = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return index, (np.arange(len(index)) - starts.take(index)).astype(np.float32)


def _downwards(x: ndarray, y: ndarray) -> tuple[ndarray, ndarray]:
    """Corners (3, T) of triangles from the top one to the bottom one."""
    x, y = x.copy(), y.copy()
    for i, j in ((0, 1), (1, 2), (0, 1)):
        swap = y[i] > y[j]
        for a in (x, y):
            a[i], a[j] = np.where(swap, a[j], a[i]), np.where(swap, a[i], a[j])
    return x, y


def _spans(x: ndarray, y: ndarray, line: ndarray, level: ndarray, size: int) -> tuple[ndarray, ndarray]:
    """First column and number of columns between the edge from top to bottom and the two edges at the middle corner.

    x, y: (3, T) corners.  line: triangle of each row `level`.
    """
    x, y = _downwards(x, y)
    rows = y[[1, 2, 2]] - y[[0, 1, 0]]
    upper, lower, whole = (x[[1, 2, 2]] - x[[0, 1, 0]]) / np.where(rows > 0, rows, 1)
    down = level - y[1].take(line)
    bent = np.concatenate([upper, lower]).take(line + len(lower) * (down > 0)) * down + x[1].take(line)
    straight = whole.take(line) * (level - y[0].take(line)) + x[0].take(line)
    first = np.ceil(np.maximum(np.minimum(bent, straight) - _EDGE, 0))
    last = np.floor(np.minimum(np.maximum(bent, straight) + _EDGE, size - 1))
    return first, np.maximum(last - first + 1, 0).astype(np.intp)
