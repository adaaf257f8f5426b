"""Where on a face each texel of the atlas is, and patterns to paint with.

Everything on skin is painted in the atlas at the places of a mean head, so it moves with the skin: a wide chin has a
wide beard, a raised brow its hair.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy import ndarray
from scipy import ndimage

from preprocess.synthetic.rendered.assets import PARTS, Mesh, load_mesh
from preprocess.synthetic.rendered.atlas import HEAD_ROWS, WIDTH
from preprocess.synthetic.rendered.frame import MEAN_HEAD, shared_vertices
from preprocess.synthetic.rendered.raster import rasterize

RINGS = 14  # of vertices that are counted round mouth and eyes
_NEAR, _DEPTH = 100.0, 200.0
_SCALE, _TILT, _MOVE = 1.083, np.deg2rad(2.813), np.array([0.0, 785.29, 173.99])


@dataclass(frozen=True)
class Places:
    """What is at each texel of the atlas' head, (HEAD_ROWS, WIDTH) float32.

    x, y, z: mm in the frame of `mean_head`; beside the head, of the nearest texel on it.
    lips, eyes: rings of vertices from where the lips and the lids' edges go over into what is behind, at most RINGS.
    on_skin: bool.
    """

    x: ndarray
    y: ndarray
    z: ndarray
    lips: ndarray
    eyes: ndarray
    on_skin: ndarray


@cache
def mean_head() -> ndarray:
    """(V, 3) vertices of a mean head, mm; x towards image right, y down, z into the head, 0 between the eyes.

    Where things are painted is told in this frame: it does not follow `fit_generic`, or better labels would move brows.
    """
    cosine, sine = np.cos(_TILT), np.sin(_TILT)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return (_SCALE * load_mesh().shaped(MEAN_HEAD) @ rotation.T + _MOVE).astype(np.float32)


def _rings(mesh: Mesh, triangles: ndarray, behind: str) -> ndarray:
    """(V,) float32: rings of vertices to the edge between skin and what is behind it."""
    ring = np.full(len(mesh.vertices), RINGS, np.float32)
    ring[shared_vertices(mesh, "skin", behind)] = 0
    for i in range(RINGS - 1):
        reached = np.unique(triangles[(ring[triangles] <= i).any(axis=1)])
        ring[reached] = np.minimum(ring[reached], i + 1)
    return ring


@cache
def places() -> Places:
    """The places of all texels, found once a process."""
    mesh = load_mesh()
    triangles = mesh.triangles[mesh.part == PARTS.index("skin")]
    on_vertices = mesh.corner_vertex[triangles]
    rings = [_rings(mesh, on_vertices, behind) for behind in ("mouth", "socket")]
    values = np.vstack([mean_head().T, *rings])[:, mesh.corner_vertex].astype(np.float32)
    column, row = mesh.corner_place.T
    depth = np.full(len(column), _DEPTH, np.float32)
    surface = rasterize(column, row, depth, np.ascontiguousarray(triangles.T), max(WIDTH, HEAD_ROWS), _NEAR)
    seen = surface.seen[:HEAD_ROWS, :WIDTH]
    nearest = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
    x, y, z, lips, eyes = surface.between(values)[:, nearest[0], nearest[1]]
    return Places(x, y, z, lips, eyes, seen)


@cache
def _pool(scale: float) -> ndarray:
    """(HEAD_ROWS, WIDTH) float32 noise of deviation 1 that wraps round."""
    white = np.random.default_rng(round(100 * scale)).standard_normal((HEAD_ROWS, WIDTH)).astype(np.float32)
    smooth = ndimage.gaussian_filter(white, scale, mode="wrap")
    return smooth / smooth.std()


def noise(rng: np.random.Generator, scale: float) -> ndarray:
    """(HEAD_ROWS, WIDTH) float32 noise of deviation 1, another one each time. scale: of its spots, texels."""
    down, right = rng.integers((HEAD_ROWS, WIDTH))
    return np.roll(_pool(scale)[:: rng.choice((-1, 1))], (down, right), axis=(0, 1))


@cache
def _on_canvas(left: float, top: float, scale: float) -> tuple[ndarray, ndarray]:
    at = places()
    column, row = (at.x - np.float32(left)) * np.float32(scale), (at.y - np.float32(top)) * np.float32(scale)
    column[at.z > 55] = -9
    return cv2.convertMaps(column, row, cv2.CV_16SC2)


def from_front(canvas: ndarray, left: float, top: float, scale: float) -> ndarray:
    """Lays what is drawn on a plane before the face into the atlas, (HEAD_ROWS, WIDTH).

    canvas: (h, w), 0 where nothing is.  left, top: mm of its first pixel.  scale: its pixels a mm.
    """
    return cv2.remap(canvas, *_on_canvas(left, top, scale), cv2.INTER_LINEAR)
