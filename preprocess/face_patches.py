"""From a photograph to a sample: pose of the head, patch and labels, with a reason where there is none."""

import argparse
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy import ndarray

from core.command import UserError
from preprocess.face_model import GENERIC, RIGID, FaceModel, HeadPose, head_pose, load_face_model
from preprocess.landmarks import DETECTOR, BadLandmarks, Source, detect_all, landmark_source, to_68
from preprocess.normalization import (
    ST_ED,
    View,
    coverage,
    normalized_labels,
    normalizing_rotation,
    undistort_points,
    warp_image,
    warp_matrix,
)

MAX_GAZE = np.deg2rad(80.0)  # beyond it the face cannot see the target: the annotation is wrong


@dataclass(frozen=True)
class Sample:
    """One image of the output.

    name: of what it was made from, such as `p00/day01/0005.jpg`.  pixels: (S, S, 3) uint8 RGB.
    labels: (8,) radians, pitch before yaw: gaze, head, gaze of the eye at image left, of the eye at image right.
    note: something to be counted, the same words for all of its kind.  extra: further data sets by name, a row each.
    """

    name: str
    pixels: ndarray
    labels: ndarray
    note: str = ""
    extra: Mapping[str, ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """Something that gave no sample.

    reason: to be counted, the same words for all of its kind.  detail: of this one.
    damaged: the raw data are not as published; the user is told at once.
    """

    name: str
    reason: str
    detail: str = ""
    damaged: bool = False


@functools.cache
def _source(folder: Path | None) -> Source:
    return landmark_source(folder)


@dataclass(frozen=True)
class FaceCutter:
    """How faces are found, measured and cut out, the same for all data sets. Can be pickled.

    landmarks: folder of landmark files; None to detect them.
    max_pose_error: as a part of the eyes' spacing (`HeadPose.relative_error`).  min_coverage: part of the patch that
    must lie inside the photograph.
    """

    landmarks: Path | None = None
    model: FaceModel = GENERIC
    view: View = ST_ED
    max_pose_error: float = 0.06
    min_coverage: float = 0.99

    def options(self) -> dict[str, object]:
        """What decides the samples, for the attributes of the output."""
        model = "generic" if self.model is GENERIC else hashlib.sha256(self.model.points.tobytes()).hexdigest()[:16]
        view = {"focal": self.view.focal, "distance_mm": self.view.distance_mm, "size": self.view.size}
        return {
            "landmarks": "folder" if self.landmarks else DETECTOR,
            "face_model": model,
            "view": view,
            "max_pose_error": self.max_pose_error,
            "min_coverage": self.min_coverage,
        }

    def check(self) -> None:
        """Raises UserError if there can be no landmarks, saying which folder to name."""
        _source(self.landmarks)

    def find_pose(
        self, image: ndarray, name: str, camera_matrix: ndarray, distortion: ndarray | None = None
    ) -> HeadPose | LeftOut:
        """The pose of the head in an image as it was taken, RGB uint8; `distortion` is the camera's."""
        landmarks = self._landmarks(image, name)
        if isinstance(landmarks, LeftOut):
            return landmarks
        return self.pose(landmarks, name, camera_matrix, distortion)

    def find_faces(self, image: ndarray, name: str) -> list[ndarray] | LeftOut:
        """Landmarks (68, 2) of all faces in an image, the largest first; of a folder's files there is one."""
        if self.landmarks is None:
            return [to_68(mesh) for mesh in detect_all(image)] or LeftOut(name, "no face found")
        landmarks = self._landmarks(image, name)
        return landmarks if isinstance(landmarks, LeftOut) else [landmarks]

    def _landmarks(self, image: ndarray, name: str) -> ndarray | LeftOut:
        try:
            landmarks = _source(self.landmarks)(image, name)
        except FileNotFoundError as error:
            return LeftOut(name, "no landmark file", str(error))
        except BadLandmarks as error:
            return LeftOut(name, "landmarks cannot be read", str(error), damaged=True)
        return LeftOut(name, "no face found") if landmarks is None else landmarks

    def pose(
        self,
        landmarks: ndarray,
        name: str,
        camera_matrix: ndarray,
        distortion: ndarray | None = None,
        use: tuple[int, ...] = RIGID,
    ) -> HeadPose | LeftOut:
        """The pose of the head from landmarks (68, 2) in pixels of the image as it was taken. use: see `head_pose`."""
        try:
            pose = head_pose(undistort_points(landmarks, camera_matrix, distortion), camera_matrix, self.model, use)
        except ValueError as error:
            return LeftOut(name, "no head pose fits the landmarks", str(error))
        if not pose.relative_error <= self.max_pose_error:
            return LeftOut(name, "landmarks fit no face well", f"{pose.relative_error:.1%} of the eyes' spacing")
        return pose

    def cut(
        self, image: ndarray, name: str, camera_matrix: ndarray, pose: HeadPose, target: ndarray, note: str = ""
    ) -> Sample | LeftOut:
        """Patch and labels from an undistorted image, RGB uint8. target: looked at, (3,) mm in the camera frame."""
        rotation = self.facing(name, pose)
        if isinstance(rotation, LeftOut):
            return rotation
        labels = normalized_labels(rotation, pose.rotation, pose.centre, pose.eyes, target)
        if not (np.isfinite(labels).all() and np.abs(labels[:2]).max() <= MAX_GAZE):
            return LeftOut(name, "gaze is more than 80 degrees from the camera", f"{np.degrees(labels[:2]).round(1)}")
        matrix = self.to_patch(image.shape, name, camera_matrix, pose, rotation)
        if isinstance(matrix, LeftOut):
            return matrix
        return Sample(name, warp_image(image, matrix, self.view.size), labels, note)

    def facing(self, name: str, pose: HeadPose) -> ndarray | LeftOut:
        """(3, 3): the camera, turned to look at the face and with its lean."""
        try:
            return normalizing_rotation(pose.centre, pose.rotation)
        except ValueError as error:
            return LeftOut(name, "no normalised camera for this head", str(error))

    def to_patch(
        self, shape: tuple[int, ...], name: str, camera_matrix: ndarray, pose: HeadPose, rotation: ndarray
    ) -> ndarray | LeftOut:
        """(3, 3): pixels of an undistorted image of a shape to those of the patch. rotation: as of `facing`."""
        matrix = warp_matrix(self.view, camera_matrix, pose.centre, rotation)
        inside = coverage(matrix, self.view.size, shape)
        if inside < self.min_coverage:
            return LeftOut(name, "face is cut by the image's border", f"{inside:.0%} of the patch is inside")
        return matrix


def add_face_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `cutter_from` reads."""
    parser.add_argument(
        "--landmarks",
        type=Path,
        metavar="DIR",
        help="folder of landmarks found before, a .npy, .json or .csv file an image; default: detect them",
    )
    parser.add_argument("--face-model", type=Path, metavar="NPY", help="3-D face of 14, 50 or 68 points in mm")
    parser.add_argument(
        "--max-pose-error",
        type=float,
        default=FaceCutter.max_pose_error,
        help="leave out faces whose landmarks are off by more than this part of the eyes' spacing (%(default)s)",
    )
    parser.add_argument(
        "--min-coverage",
        type=float,
        default=FaceCutter.min_coverage,
        help="leave out faces with less than this part of the patch inside the image (%(default)s)",
    )


def cutter_from(arguments: argparse.Namespace) -> FaceCutter:
    """The options of `add_face_arguments`. Raises UserError for what cannot be."""
    for flag in ("max_pose_error", "min_coverage"):
        if not 0 <= getattr(arguments, flag) <= 1:
            raise UserError(f"--{flag.replace('_', '-')}: found {getattr(arguments, flag)}, expected 0 to 1.")
    model = load_face_model(arguments.face_model) if arguments.face_model else GENERIC
    return FaceCutter(arguments.landmarks, model, ST_ED, arguments.max_pose_error, arguments.min_coverage)
