"""The material of rendered heads, as `pack.py` packed it: a mesh, its shapes and movements, and skins."""

import io
import lzma
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from scipy import sparse

from core.command import UserError
from preprocess.synthetic.rendered.atlas import HEAD_ROWS, WIDTH

DATA = Path(__file__).parent / "data"
HEADS, SKINS = DATA / "heads.npz.xz", DATA / "skins.npz"
PARTS = ("skin", "socket", "mouth", "body", "upper-teeth", "lower-teeth", "upper-lashes", "lower-lashes")
LASHES = (PARTS.index("upper-lashes"), PARTS.index("lower-lashes"))


@dataclass(frozen=True)
class Mesh:
    """A mean head and how it varies. mm; x towards image right, y down, z into the head.

    vertices: (V, 3).  corner_vertex: (C,) vertex of each corner; corners of one vertex lie apart in the atlas.
    corner_place: (C, 2) column and row in the atlas.  triangles: (T, 3) corners.  part: (T,) index into PARTS.
    eyes: (2, n) vertices on the spheres of the eyes, image left first.
    targets: name -> row of `offsets` (targets, 3 V), which holds the vertices' offsets, x y z in turn.
    units: name -> row of `moves` and `bends` (units, 3 V): what movements of a face do to its vertices and normals.
    """

    vertices: ndarray
    corner_vertex: ndarray
    corner_place: ndarray
    triangles: ndarray
    part: ndarray
    eyes: ndarray
    targets: dict[str, int]
    offsets: sparse.csr_matrix
    units: dict[str, int]
    moves: ndarray
    bends: ndarray

    def shaped(self, weights: dict[str, float]) -> ndarray:
        """(V, 3): the vertices with these weights of targets."""
        rows, values = [self.targets[name] for name in weights], np.array(list(weights.values()), np.float32)
        return self.vertices + (self.offsets[rows].T @ values).reshape(-1, 3)

    def moved(self, weights: dict[str, float]) -> tuple[ndarray, ndarray]:
        """(V, 3) both: changes of vertices and of normals for weights of movements."""
        rows, values = [self.units[name] for name in weights], np.array(list(weights.values()), np.float32)
        return (values @ self.moves[rows]).reshape(-1, 3), (values @ self.bends[rows]).reshape(-1, 3)


def normals(vertices: ndarray, triangles: ndarray) -> ndarray:
    """(V, 3) float32 unit normals, outwards. triangles: (T, 3) vertices."""
    a, b, c = (vertices[corners] for corners in triangles.T)
    across, count = np.cross(b - a, c - a), len(vertices)
    summed = [sum(np.bincount(corners, across[:, k], count) for corners in triangles.T) for k in range(3)]
    result = np.stack(summed, axis=1)
    return (result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def _unpack(path: Path) -> dict[str, ndarray]:
    """The arrays of a file. Raises UserError where it is not there or damaged."""
    try:
        packed = path.read_bytes()
        with np.load(io.BytesIO(lzma.decompress(packed) if path.suffix == ".xz" else packed)) as arrays:
            return {name: arrays[name] for name in arrays}
    except (OSError, EOFError, ValueError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise UserError(
            str(path),
            f"cannot be read ({error})",
            "this repository's material of rendered heads",
            "Get the file again: git checkout -- FILE.",
        ) from error


@cache
def load_mesh() -> Mesh:
    """The mesh, read once a process."""
    arrays = _unpack(HEADS)
    flip = np.array([1, -1, -1], np.float32)
    count = len(arrays["vertices"])
    start, vertex = arrays["target_start"].astype(int), arrays["target_vertex"].astype(int)
    columns = (3 * vertex[:, None] + np.arange(3)).ravel()
    data = (arrays["target_offset"] * flip * np.float32(0.1)).ravel()
    offsets = sparse.csr_matrix((data, columns, 3 * start), (len(start) - 1, 3 * count))
    vertices = (arrays["vertices"] * flip * np.float32(0.01)).astype(np.float32)
    corner_vertex, triangles = arrays["corner_vertex"].astype(int), arrays["triangles"].astype(np.int32)
    targets = {str(name): i for i, name in enumerate(arrays["target_names"])}
    units = [name for name in targets if name.startswith("unit/")]
    moves = offsets[[targets[name] for name in units]].toarray().astype(np.float32)
    return Mesh(
        vertices,
        corner_vertex,
        arrays["corner_place"],
        triangles,
        arrays["part"],
        arrays["eyes"].astype(int),
        targets,
        offsets,
        {name: i for i, name in enumerate(units)},
        moves,
        _bends(vertices, corner_vertex[triangles[~np.isin(arrays["part"], LASHES)]], moves),
    )


def _bends(vertices: ndarray, triangles: ndarray, moves: ndarray) -> ndarray:
    """(units, 3 V): what movements (units, 3 V) do to the normals of the mean head."""
    still = normals(vertices, triangles)
    return np.stack([(normals(vertices + move.reshape(-1, 3), triangles) - still).ravel() for move in moves])


@cache
def load_skins() -> dict[str, ndarray]:
    """Skins in the layout of the atlas' head, (HEAD_ROWS, WIDTH, 3) RGB uint8, by race-sex-age; {} without the file."""
    if not SKINS.is_file():
        return {}
    skins = {name: _decode(jpeg) for name, jpeg in _unpack(SKINS).items()}
    assert all(skin.shape == (HEAD_ROWS, WIDTH, 3) for skin in skins.values())
    return skins


def _decode(jpeg: ndarray) -> ndarray:
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture is not None
    return picture[..., ::-1]
