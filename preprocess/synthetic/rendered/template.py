"""The mean head: where in space each vertex and each texel of the atlas lies, whoever the person is."""

from functools import cache

import numpy as np
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

from preprocess.synthetic.rendered.assets import load_mesh
from preprocess.synthetic.rendered.atlas import HEAD_ROWS, ROWS, WIDTH
from preprocess.synthetic.rendered.frame import MEAN_HEAD, fit_generic
from preprocess.synthetic.rendered.raster import rasterize


@cache
def mean_vertices() -> ndarray:
    """(V, 3) float32 mm, head frame: vertices of the mean young head."""
    mesh = load_mesh()
    points = mesh.shaped(MEAN_HEAD)
    scale, rotation, move = fit_generic(points)
    return (scale * points @ rotation.T + move).astype(np.float32)


@cache
def texel_vertices() -> tuple[ndarray, ndarray]:
    """What texels lie between: vertices (ROWS, WIDTH, 3) and weights (ROWS, WIDTH, 3) of sum 1.

    Texels outside all parts have those of the nearest texel that is in one.
    """
    mesh, size = load_mesh(), max(ROWS, WIDTH)
    columns, rows = np.ascontiguousarray(mesh.corner_place.T)
    triangles = mesh.triangles.T
    both_ways = np.ascontiguousarray(np.hstack([triangles, triangles[::-1]]))
    surface = rasterize(columns, rows, np.full(len(rows), 1, np.float32), both_ways, size, 0.0)
    line = np.arange(size, dtype=np.float32)
    a, b, c = (np.moveaxis(plane[:, surface.triangle], 0, 2) for plane in surface.planes)
    weights = (a * line[:, None] + b * line[:, None, None] + c)[:ROWS, :WIDTH]
    weights /= weights.sum(axis=2, keepdims=True)
    vertices = mesh.corner_vertex[np.moveaxis(surface.corners[:, surface.triangle], 0, 2)][:ROWS, :WIDTH]
    empty = ~surface.seen[:ROWS, :WIDTH]
    for part in (slice(0, HEAD_ROWS), slice(HEAD_ROWS, ROWS)):  # the head's neighbours are the head's
        nearest = tuple(distance_transform_edt(empty[part], return_distances=False, return_indices=True))
        weights[part], vertices[part] = weights[part][nearest], vertices[part][nearest]
    return vertices, weights


@cache
def texel_positions() -> ndarray:
    """(ROWS, WIDTH, 3) float32 mm, head frame: where texels lie on the mean head; outside all parts, as the nearest."""
    vertices, weights = texel_vertices()
    return (mean_vertices()[vertices] * weights[..., None]).sum(axis=2)
