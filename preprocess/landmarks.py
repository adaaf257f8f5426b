"""Landmarks of a face: detected by MediaPipe (an optional extra), or read from a folder of files.

A source of landmarks is a function of an image (H, W, 3) RGB uint8 and its name, such as `p00/day01/0005.jpg`; it
returns the 68 landmarks of iBUG, (68, 2) pixels (column, row; the first pixel's middle is 0, 0), or None where
there is no face; it raises FileNotFoundError where a file is missing, and BadLandmarks where it holds none. Detected
landmarks are the 478 of FaceMesh, of which `to_68` takes what corresponds.
"""

import functools
import importlib.util
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.figures import any_backend
from core.files import read_text
from preprocess.native_output import heard, say
from preprocess.normalization import apply_homography, warp_image

Source = Callable[[ndarray, str], ndarray | None]
SUFFIXES = (".npy", ".json", ".csv")
INSTALL = (
    "Detecting landmarks needs MediaPipe: pip install --no-deps -r requirements-landmarks.txt, "
    "or give a folder of landmarks that were found before (--landmarks DIR)"
)
SEARCHED, CROPPED = 1280, 512  # longest side of the copy that is searched, side of the crop that is measured
SMALLEST_TILE = 256  # pixels, in which faces of 40 are found
SURE = 0.65  # score of a face in a tile: buttons and folds reach 0.6
_REMARK = re.compile(rb"INFO: |WARNING: All log messages before|[IW]\d{4} ")  # a line of a log

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


class _Graph:
    """One of MediaPipe's graphs, which logs while it is built and until it has found something: nobody needs that."""

    def __init__(self, kind: type, found: str, **options: object) -> None:
        """found: attribute of what it returns."""
        self._found, self._used = found, False
        with _quietly():
            self._graph = kind(**options)
            self._graph.process(np.zeros((64, 64, 3), np.uint8))  # returns when all its threads have begun

    def __call__(self, image: ndarray) -> list[Any]:
        """What it finds in an image, RGB uint8."""
        with nullcontext() if self._used else _quietly():
            found = getattr(self._graph.process(image), self._found) or []
        self._used |= bool(found)
        return list(found)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep remarks from the terminal; errors are printed."""
    with heard() as said:
        yield
    for line in said[0].splitlines(keepends=True):
        if not _REMARK.match(line):
            say(line)


@functools.cache
def _mediapipe() -> tuple[_Graph, _Graph, _Graph]:
    """FaceMesh, a detector of faces that are far, and one of faces that are near."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        with any_backend(), _quietly():  # it imports matplotlib
            from mediapipe.python.solutions.face_detection import FaceDetection
            from mediapipe.python.solutions.face_mesh import FaceMesh
    except ImportError as error:
        raise UserError(f"{INSTALL}. ({error})") from error
    options = {"static_image_mode": True, "refine_landmarks": True, "max_num_faces": 4, "min_detection_confidence": 0.5}
    mesh = _Graph(FaceMesh, "multi_face_landmarks", **options)
    far, near = (_Graph(FaceDetection, "detections", model_selection=i, min_detection_confidence=0.5) for i in (1, 0))
    return mesh, far, near


def _meshes(image: ndarray) -> list[ndarray]:
    """FaceMesh's points (478, 2) of the faces in an image, pixels."""
    found = _mediapipe()[0](image)
    return [np.array([(p.x, p.y) for p in face.landmark]) * image.shape[1::-1] - 0.5 for face in found]


def _boxes(image: ndarray, detector: _Graph) -> list[tuple[float, ndarray]]:
    """Scores and corners (2, 2) of the faces in an image, pixels."""
    found = []
    for face in detector(image):
        box = face.location_data.relative_bounding_box
        corners = np.array([(box.xmin, box.ymin), (box.xmin + box.width, box.ymin + box.height)])
        found.append((float(face.score[0]), corners * image.shape[1::-1] - 0.5))
    return found


def _area(points: ndarray) -> float:
    """Of the box around points (n, 2)."""
    return float(np.prod(np.ptp(points, axis=0)))


def detect(image: ndarray) -> ndarray | None:
    """FaceMesh's 478 landmarks (478, 2) of the largest face in an RGB uint8 image, in pixels; None without a face.

    The face is searched in a copy of at most 1280 pixels and then measured in a crop of the image around it.
    Raises UserError, saying what to install, where MediaPipe is missing.
    """
    _require_8_bit_colour(image)
    shrink = min(1.0, SEARCHED / max(image.shape[:2]))
    shape = tuple(max(1, round(n * shrink)) for n in image.shape[1::-1])
    copy = cv2.resize(image, shape, interpolation=cv2.INTER_AREA) if shrink < 1 else np.ascontiguousarray(image)
    regions = _meshes(copy) or [box for _, box in _boxes(copy, _mediapipe()[1])]
    if not regions:
        return None
    ratio = np.array(image.shape[1::-1]) / shape
    return _measure(image, (max(regions, key=_area) + 0.5) * ratio - 0.5)


def detect_all(image: ndarray) -> list[ndarray]:
    """FaceMesh's 478 landmarks (478, 2) of all faces from 40 pixels up in an RGB uint8 image, the largest first.

    A photograph of 12 megapixels takes about 2 seconds: it is searched by tiles of several sizes.
    """
    faces = [face for face in (detect(image),) if face is not None]
    for box in _search(image):
        if not any(_overlap(box, face) for face in faces):
            face = _measure(image, box)
            if face is not None and not any(_overlap(face, other) for other in faces):
                faces.append(face)
    return sorted(faces, key=_area, reverse=True)


def _search(image: ndarray) -> list[ndarray]:
    """Corners (2, 2) of what may be faces, the surest first.

    Each face fills an eighth to a half of some tile, which is what the detector of near faces likes best.
    """
    longest, found = max(image.shape[:2]), []
    for side in [*(side for k in range(20) if (side := SMALLEST_TILE << k) < longest), longest]:
        for top in _starts(image.shape[0], side):
            for left in _starts(image.shape[1], side):
                tile = np.ascontiguousarray(image[top : top + side, left : left + side])
                found += [(score, box + (left, top)) for score, box in _boxes(tile, _mediapipe()[2])]
    boxes: list[ndarray] = []
    for score, box in sorted(found, key=lambda scored: -scored[0]):
        if score >= SURE and not any(_overlap(box, other) for other in boxes):
            boxes.append(box)
    return boxes


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin, of which neighbours share at least a half."""
    count = 1 + max(0, math.ceil(2 * (length - side) / side))
    return np.linspace(0, max(length - side, 0), count).astype(int).tolist()


def _overlap(a: ndarray, b: ndarray) -> bool:
    """Whether the boxes around points (n, 2) share a third of the smaller one: it is one face then."""
    sides = np.minimum(a.max(axis=0), b.max(axis=0)) - np.maximum(a.min(axis=0), b.min(axis=0))
    return bool((sides > 0).all() and np.prod(sides) > min(_area(a), _area(b)) / 3)


def _measure(image: ndarray, region: ndarray) -> ndarray | None:
    """FaceMesh's points (478, 2) of the face in a region, points (n, 2) of the image; None if there is no face."""
    low, high = region.min(axis=0), region.max(axis=0)
    scale = CROPPED / (2.0 * float((high - low).max()))  # the face fills half of the crop, as the mesh likes it
    if not scale > 0:
        return None
    middle = (CROPPED - 1) / 2
    shift = middle - scale * (low + high) / 2
    to_crop = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1.0]])
    meshes = _meshes(warp_image(image, to_crop, CROPPED))
    if not meshes:
        return None
    face = min(meshes, key=lambda mesh: float(np.linalg.norm((mesh.min(axis=0) + mesh.max(axis=0)) / 2 - middle)))
    return apply_homography(np.linalg.inv(to_crop), face)


def _require_8_bit_colour(image: ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"found an image {image.shape} {image.dtype}, expected (height, width, 3) uint8 RGB.")


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
    except (ValueError, TypeError, KeyError, EOFError) as error:
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
    Raises UserError now if there is no landmark file at all; later BadLandmarks naming the file when one cannot be
    read, and FileNotFoundError naming those looked for.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--landmarks: {folder} is not a folder of landmark files.")
    if not any(name.endswith(SUFFIXES) for _, _, names in os.walk(folder, followlinks=True) for name in names):
        raise UserError(f"--landmarks: {folder} holds no landmark file, {', '.join(SUFFIXES)}.")

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
    """The landmarks of `folder` where one is given, else detection. Raises UserError now if that cannot be done.

    MediaPipe itself is loaded when the first face is detected, which takes seconds.
    """
    if folder is not None:
        return landmark_folder(folder)
    if importlib.util.find_spec("mediapipe") is None:
        raise UserError(f"{INSTALL}.")

    def source(image: ndarray, name: str) -> ndarray | None:
        mesh = detect(image)
        return None if mesh is None else to_68(mesh)

    return source
