"""Landmarks of a face: detected, with MediaPipe's networks (`preprocess/faces`), or read from a folder of files.

A source of landmarks is a function of an image (H, W, 3) RGB uint8 and its name, such as `p00/day01/0005.jpg`; it
returns the 68 landmarks of iBUG, (68, 2) pixels (column, row; the first pixel's middle is 0, 0), or None where
there is no face; it raises FileNotFoundError where a file is missing, and BadLandmarks where it holds none. Detected
landmarks are the 478 of FaceMesh, of which `to_68` takes what corresponds.
"""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy import ndarray

from core.command import UserError
from core.files import parse_json, read_array, read_text

Source = Callable[[ndarray, str], ndarray | None]
SUFFIXES = (".npy", ".json", ".csv")
DETECTOR = "MediaPipe 0.10.21"  # whose networks it runs, so that conversions begun with that package go on

# FaceMesh's counterparts of iBUG 0-67; where there are two, their middle. Those of the nose are the ones that fit
# the published face model best.
# fmt: off
MESH_TO_68: tuple[tuple[int, ...], ...] = (
    (127,), (234,), (93, 132), (58,), (172,), (136, 150), (149,), (148, 176), (152,),  # jaw, from image left
    (377, 400), (378,), (365, 379), (397,), (288,), (323, 361), (454,), (356,),
    (70,), (63,), (105,), (66,), (107,), (336,), (296,), (334,), (293,), (300,),  # brows
    (168,), (6, 197), (195, 5), (4,), (240,), (97,), (2,), (326,), (460,),  # nose
    (33,), (160,), (158,), (133,), (153,), (144,), (362,), (385,), (387,), (263,), (373,), (380,),  # eyes
    (61,), (40,), (37,), (0,), (267,), (270,), (291,), (321,), (314,), (17,), (84,), (91,),  # lips, outside
    (78,), (81,), (13,), (311,), (308,), (402,), (14,), (178,),  # and inside
)
# fmt: on


def to_68(points: ndarray) -> ndarray:
    """The 68 landmarks (68, 2) of iBUG from those, or from FaceMesh's 468 or 478, (n, 2 or more)."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] < 2 or len(points) not in (68, 468, 478):
        raise ValueError(f"found landmarks of shape {points.shape}, expected (68, 2), (468, 2) or (478, 2).")
    if len(points) == 68:
        return points[:, :2].copy()
    return np.stack([points[list(rows), :2].mean(axis=0) for rows in MESH_TO_68])


def detect(image: ndarray) -> ndarray | None:
    """FaceMesh's 478 landmarks (478, 2) of the largest face in an RGB uint8 image, in pixels; None without a face."""
    from preprocess.faces.search import find_largest  # slow to import: PyTorch

    face = find_largest(image)
    return None if face is None else face.landmarks


def detect_all(image: ndarray) -> list[ndarray]:
    """FaceMesh's 478 landmarks (478, 2) of all faces from 40 pixels up in an RGB uint8 image, the largest first."""
    from preprocess.faces.search import find_faces

    return [face.landmarks for face in find_faces(image)]


class BadLandmarks(ValueError):
    """A file that holds no landmarks of a face."""


def read_landmarks(path: str | Path) -> ndarray | None:
    """Landmarks (68, 2), pixels, from a file; None if it says that there is no face.

    .npy: an array (68, 2), or FaceMesh's (468, 2) or (478, 2); further columns are left alone.
    .json: a list of [x, y], alone or under "landmarks"; null where there is no face.
    .csv: one landmark a line, `x,y`, in order; a header line is passed over. An empty array, list or file: no face.
    Raises BadLandmarks that names the file, OSError where it cannot be opened.
    """
    path = Path(path)
    try:
        points = _read_points(path)
    except OSError:
        raise
    except Exception as error:  # anybody's numbers and headers: NumPy's readers raise what comes
        raise BadLandmarks(
            f"{path}: cannot be read as landmarks ({error}). Expected 68 pairs x, y in pixels."
        ) from error
    if points.size == 0:
        return None
    try:
        points = to_68(points)
    except ValueError as error:
        raise BadLandmarks(f"{path}: {error}") from error
    if np.isinf(points).any():
        raise BadLandmarks(f"{path}: found infinite coordinates, expected pixels (nan where one is unknown).")
    if np.nanmax(np.abs(points), initial=0) <= 2:
        raise BadLandmarks(f"{path}: coordinates seem to be parts of the image's size; expected pixels.")
    return points


def _read_points(path: Path) -> ndarray:
    if path.suffix == ".npy":
        return read_array(path)
    text = read_text(path)
    if path.suffix == ".json":
        value = parse_json(text)
        value = value["landmarks"] if isinstance(value, dict) else value
        return np.array([] if value is None else value, np.float64)
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    return np.array([[float(cell) for cell in row] for row in rows], np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def landmark_folder(folder: str | Path) -> Source:
    """A source that reads files instead of looking at images.

    For `p00/day01/0005.jpg` it takes the first there is of `p00/day01/0005.jpg.npy`, `.json`, `.csv` and
    `p00/day01/0005.npy`, `.json`, `.csv` under `folder`.
    Raises UserError now if there is no landmark file at all; later BadLandmarks naming the file when one cannot be
    read, and FileNotFoundError naming those looked for.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--landmarks: {folder} is not a folder of landmark files.", remedy="Name one.")
    if not any(name.endswith(SUFFIXES) for _, _, names in os.walk(folder, followlinks=True) for name in names):
        raise UserError(
            f"--landmarks: {folder} holds no landmark file, {', '.join(SUFFIXES)}.", remedy="Name the folder that does."
        )

    def source(image: ndarray, name: str) -> ndarray | None:
        path = landmark_file(folder, name)
        if path is None:
            raise FileNotFoundError(f"{folder / name}{', '.join(SUFFIXES)}")
        return read_landmarks(path)

    return source


def landmark_file(folder: Path, name: str) -> Path | None:
    """The file of an image's landmarks, see `landmark_folder`; None if there is none."""
    relative = PurePosixPath(name)
    stems = (relative.as_posix(), relative.with_suffix("").as_posix())
    paths = (folder / (stem + suffix) for stem in stems for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def landmark_source(folder: str | Path | None = None) -> Source:
    """The landmarks of `folder` where one is given, else detection. Raises UserError now if there can be none."""
    if folder is not None:
        return landmark_folder(folder)

    def source(image: ndarray, name: str) -> ndarray | None:
        mesh = detect(image)
        return None if mesh is None else to_68(mesh)

    return source
