"""Landmarks of a face: detected by MediaPipe (an optional extra), or read from a folder of files.

A source of landmarks is a function of an image (H, W, 3) RGB uint8 and its name, such as `p00/day01/0005.jpg`; it
returns the 68 landmarks of iBUG, (68, 2) pixels (column, row; the first pixel's middle is 0, 0), or None where
there is no face; it raises FileNotFoundError where a file is missing. Detected landmarks are the 478 of FaceMesh, of
which `to_68` takes what corresponds.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy import ndarray

from core.figures import any_backend
from core.files import read_text
from preprocess.normalization import apply_homography, warp_image

Source = Callable[[ndarray, str], ndarray | None]
SUFFIXES = (".npy", ".json", ".csv")
INSTALL = (
    "Detecting landmarks needs MediaPipe: pip install --no-deps -r requirements-landmarks.txt, "
    "or give a folder of landmarks that were found before (--landmarks DIR)"
)
SEARCHED, CROPPED = 1280, 512  # longest side of the copy that is searched, side of the crop that is measured

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


@functools.cache
def _mediapipe() -> tuple[object, object]:
    """FaceMesh and a face detector for small faces."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        with any_backend():  # it imports matplotlib
            from mediapipe.python.solutions.face_detection import FaceDetection
            from mediapipe.python.solutions.face_mesh import FaceMesh
    except ImportError as error:
        raise ImportError(f"{INSTALL}. ({error})") from error
    mesh = FaceMesh(static_image_mode=True, refine_landmarks=True, max_num_faces=4, min_detection_confidence=0.5)
    return mesh, FaceDetection(model_selection=1, min_detection_confidence=0.5)


def _largest_mesh(image: ndarray) -> ndarray | None:
    """FaceMesh's points (478, 2) of the largest face in an image, pixels."""
    found = _mediapipe()[0].process(image).multi_face_landmarks or ()
    faces = [np.array([(p.x, p.y) for p in face.landmark]) * image.shape[1::-1] - 0.5 for face in found]
    return max(faces, key=lambda face: np.prod(np.ptp(face, axis=0)), default=None)


def _largest_box(image: ndarray) -> ndarray | None:
    """Corners (2, 2) of the largest face, small or far faces too, in an image, pixels."""
    boxes = [d.location_data.relative_bounding_box for d in _mediapipe()[1].process(image).detections or ()]
    corners = [np.array([(b.xmin, b.ymin), (b.xmin + b.width, b.ymin + b.height)]) for b in boxes]
    corners = [c * image.shape[1::-1] - 0.5 for c in corners]
    return max(corners, key=lambda c: np.prod(c[1] - c[0]), default=None)


def detect(image: ndarray) -> ndarray | None:
    """FaceMesh's 478 landmarks (478, 2) of the largest face in an RGB uint8 image, in pixels; None without a face.

    The face is searched in a copy of at most 1280 pixels and then measured in a crop of the image around it.
    Raises ImportError, saying what to install, where MediaPipe is missing.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"found an image {image.shape} {image.dtype}, expected (height, width, 3) uint8 RGB.")
    shrink = min(1.0, SEARCHED / max(image.shape[:2]))
    shape = tuple(max(1, round(n * shrink)) for n in image.shape[1::-1])
    copy = cv2.resize(image, shape, interpolation=cv2.INTER_AREA) if shrink < 1 else np.ascontiguousarray(image)
    region = _largest_mesh(copy)
    if region is None:
        region = _largest_box(copy)
        if region is None:
            return None
    ratio = np.array(image.shape[1::-1]) / shape
    low, high = (region.min(axis=0) + 0.5) * ratio - 0.5, (region.max(axis=0) + 0.5) * ratio - 0.5
    scale = CROPPED / (2.0 * float((high - low).max()))  # the face fills half of the crop, as the mesh likes it
    if not scale > 0:
        return None
    middle = (CROPPED - 1) / 2 - scale * (low + high) / 2
    to_crop = np.array([[scale, 0, middle[0]], [0, scale, middle[1]], [0, 0, 1.0]])
    mesh = _largest_mesh(warp_image(image, to_crop, CROPPED))
    return None if mesh is None else apply_homography(np.linalg.inv(to_crop), mesh)


def read_landmarks(path: str | Path) -> ndarray | None:
    """Landmarks (68, 2), pixels, from a file; None if it says that there is no face.

    .npy: an array (68, 2), or FaceMesh's (468, 2) or (478, 2); further columns are left alone.
    .json: a list of [x, y], alone or under "landmarks"; null where there is no face.
    .csv: one landmark a line, `x,y`, in order; a header line is passed over. An empty array, list or file: no face.
    Raises ValueError that names the file.
    """
    path = Path(path)
    try:
        points = _read_points(path)
    except (ValueError, TypeError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as landmarks ({error}). Expected 68 pairs x, y in pixels.") from error
    if points.size == 0:
        return None
    try:
        points = to_68(points)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if np.isinf(points).any():
        raise ValueError(f"{path}: found infinite coordinates, expected pixels (nan where one is unknown).")
    if np.nanmax(np.abs(points), initial=0) <= 2:
        raise ValueError(f"{path}: coordinates seem to be parts of the image's size; expected pixels.")
    return points


def _read_points(path: Path) -> ndarray:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False), np.float64)
    text = read_text(path)
    if path.suffix == ".json":
        value = json.loads(text)
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
    Raises NotADirectoryError or FileNotFoundError now if there is no landmark file at all; later ValueError naming the
    file when one cannot be read, and FileNotFoundError naming those looked for.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"--landmarks: {folder} is not a folder of landmark files.")
    if not any(name.endswith(SUFFIXES) for _, _, names in os.walk(folder, followlinks=True) for name in names):
        raise FileNotFoundError(f"--landmarks: {folder} holds no landmark file, {', '.join(SUFFIXES)}.")

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
    """The landmarks of `folder` where one is given, else detection. Raises ImportError now if that cannot be done."""
    if folder is not None:
        return landmark_folder(folder)
    _mediapipe()

    def source(image: ndarray, name: str) -> ndarray | None:
        mesh = detect(image)
        return None if mesh is None else to_68(mesh)

    return source
