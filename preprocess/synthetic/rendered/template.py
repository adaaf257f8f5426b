"""The mean head: where in space each vertex and each texel of the atlas lies, whoever the person is."""

from functools import cache

import numpy as np
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

from preprocess.synthetic.rendered.assets import load_mesh
from preprocess.synthetic.rendered.atlas import HEAD_ROWS, ROWS, WIDTH
from preprocess.synthetic.rendered.frame import MEAN, fit_generic
from preprocess.synthetic.rendered.raster import rasterize


@cache
def mean_vertices() -> ndarray:
    """(V, 3) float32 mm, head frame: vertices of the mean young head."""
    mesh = load_mesh()
    points = mesh.vertices + mesh.moved(MEAN)
    scale, rotation, move = fit_generic(points)
    return (scale * points @ rotation.T + move).astype(np.float32)


@cache
def texel_positions() -> ndarray:
    """(ROWS, WIDTH, 3) float32 mm, head frame: where texels lie on the mean head; outside all parts, as the nearest."""
    mesh, size = load_mesh(), max(ROWS, WIDTH)
    columns, rows = np.ascontiguousarray(mesh.corner_place.T)
    triangles = mesh.triangles[rows[mesh.triangles].max(axis=1) < ROWS].T
    both_ways = np.ascontiguousarray(np.hstack([triangles, triangles[::-1]]))
    surface = rasterize(columns, rows, np.full(len(rows), 1, np.float32), both_ways, size, 0.0)
    places = surface.between(np.ascontiguousarray(mean_vertices()[mesh.corner_vertex].T))
    places, empty = np.moveaxis(places, 0, 2)[:ROWS, :WIDTH], ~surface.seen[:ROWS, :WIDTH]
    for rows_of in (slice(0, HEAD_ROWS), slice(HEAD_ROWS, ROWS)):  # the head's neighbours are the head's
        nearest = distance_transform_edt(empty[rows_of], return_distances=False, return_indices=True)
        places[rows_of] = places[rows_of][tuple(nearest)]
    return places
