"""The material of rendered heads, as `pack.py` packed it: a mesh, its shapes and movements, and skins."""

import io
import lzma
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from scipy import sparse

from preprocess.synthetic.rendered.atlas import HEAD_ROWS, WIDTH

DATA = Path(__file__).parent / "data"
HEADS, SKINS = DATA / "heads.npz.xz", DATA / "skins.npz"
PARTS = ("skin", "socket", "mouth", "body", "upper-teeth", "lower-teeth", "upper-lashes", "lower-lashes")


@dataclass(frozen=True)
class Mesh:
    """A mean head and how it varies. mm; x towards image right, y down, z into the head.

    vertices: (V, 3).  corner_vertex: (C,) vertex of each corner; corners of one vertex lie apart in the atlas.
    corner_place: (C, 2) column and row in the atlas.  triangles: (T, 3) corners.  part: (T,) index into PARTS.
    eyes: (2, n) vertices on the spheres of the eyes, image left first.
    targets: name -> row of `offsets` (targets, 3 V), which holds the vertices' offsets, x y z in turn.
    """

    vertices: ndarray
    corner_vertex: ndarray
    corner_place: ndarray
    triangles: ndarray
    part: ndarray
    eyes: ndarray
    targets: dict[str, int]
    offsets: sparse.csr_matrix

    def moved(self, weights: dict[str, float]) -> ndarray:
        """(V, 3): offsets of the vertices for weights of targets."""
        rows, values = [self.targets[name] for name in weights], np.array(list(weights.values()), np.float32)
        return (self.offsets[rows].T @ values).reshape(-1, 3)


@cache
def load_mesh() -> Mesh:
    """The mesh, read once a process."""
    packed = np.load(io.BytesIO(lzma.decompress(HEADS.read_bytes())))
    arrays = {name: packed[name] for name in packed.files}
    flip = np.array([1, -1, -1], np.float32)
    count = len(arrays["vertices"])
    start, vertex = arrays["target_start"].astype(int), arrays["target_vertex"].astype(int)
    columns = (3 * vertex[:, None] + np.arange(3)).ravel()
    data = (arrays["target_offset"] * flip * np.float32(0.1)).ravel()
    offsets = sparse.csr_matrix((data, columns, 3 * start), (len(start) - 1, 3 * count))
    return Mesh(
        (arrays["vertices"] * flip * np.float32(0.01)).astype(np.float32),
        arrays["corner_vertex"].astype(int),
        arrays["corner_place"],
        arrays["triangles"].astype(np.int32),
        arrays["part"],
        arrays["eyes"].astype(int),
        {str(name): i for i, name in enumerate(arrays["target_names"])},
        offsets,
    )


@cache
def load_skins() -> dict[str, ndarray]:
    """Skins in the layout of the atlas' head, (HEAD_ROWS, WIDTH, 3) RGB uint8, by race-sex-age; {} without the file."""
    if not SKINS.is_file():
        return {}
    with np.load(SKINS) as packed:
        skins = {name: _decode(packed[name]) for name in packed}
    assert all(skin.shape == (HEAD_ROWS, WIDTH, 3) for skin in skins.values())
    return skins


def _decode(jpeg: ndarray) -> ndarray:
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture is not None
    return picture[..., ::-1]
