"""A generic face in 3-D, and the pose of a head from its landmarks.

Face frame, as published for FAZE and ST-ED: mm, x towards image right, y down, z into the head, the origin in the
middle of the four eye corners; a frontal head has the identity rotation. The face centre is (0, 30, 0) in it.
Landmarks are the 68 of iBUG, counted from 0 here (36 is the outer corner of the eye at image left).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.files import read_array

CENTRE = np.array([0.0, 30.0, 0.0])
EYE_CORNERS = (36, 39, 42, 45)
RIGID = (*range(27, 36), *EYE_CORNERS)  # what no expression moves: the published choice
MIN_POINTS = 6
EYE_SPACING = 64.5  # mm between the middles of the eyes, the yardstick of an error
TOLERANCE = 6.5  # mm at the face; a landmark further off does not pull at the pose
FOLLOWING_STEPS = 30  # at most, from one frame's pose to the next one's
HOPELESS = 0.25  # relative error of points that are no face; faces are at 0.01 to 0.05
XGAZE_TILT = np.deg2rad(-6.2)  # of the ETH-XGaze model's frame against this one, about x

# Points of the canonical FaceMesh model (MediaPipe, Apache-2.0), turned and scaled to the published frame: ridge of
# the nose from its root to its tip, below the nose, corners of the eyes, corners of the mouth, chin.
# fmt: off
_GENERIC = {
    27: (0.0, -4.62, -18.73), 28: (0.0, 8.185, -25.745), 29: (0.0, 23.37, -33.94), 30: (0.0, 35.97, -38.52),
    31: (-12.65, 45.06, -15.85), 32: (-6.11, 49.85, -19.31), 33: (0.0, 50.83, -21.18), 34: (6.11, 49.85, -19.31),
    35: (12.65, 45.06, -15.85), 36: (-45.50, -0.72, 2.93), 39: (-19.00, 0.72, -2.93), 42: (19.00, 0.72, -2.93),
    45: (45.50, -0.72, 2.93), 48: (-25.14, 71.80, -0.63), 54: (25.14, 71.80, -0.63), 8: (0.0, 123.27, 5.15),
}
# fmt: on
_ROWS_50 = (8, *range(17, 60), 61, 62, 63, 65, 66, 67)  # landmarks of ETH-XGaze's 50-point model


@dataclass(frozen=True)
class FaceModel:
    """Points (N, 3) of the face frame, the landmark that each is, and the face centre (3,)."""

    points: ndarray
    landmarks: tuple[int, ...]
    centre: ndarray

    @property
    def eyes(self) -> ndarray:
        """(2, 3): the middle between the corners of each eye, image left first."""
        return self[EYE_CORNERS].reshape(2, 2, 3).mean(axis=1)

    def __getitem__(self, landmarks: tuple[int, ...]) -> ndarray:
        """Points (n, 3) of these landmarks."""
        return self.points[[self.landmarks.index(i) for i in landmarks]]


GENERIC = FaceModel(np.array(list(_GENERIC.values())), tuple(_GENERIC), CENTRE)


def load_face_model(path: str | Path) -> FaceModel:
    """One's own face model from a .npy file of points in mm.

    (14, 3): the published `sfm_face_coordinates.npy` (rows 27-35, 36, 39, 42, 45 of iBUG, then the face centre).
    (68, 3): iBUG's landmarks in axes x right, y down, z into the head, wherever the origin is.
    (50, 3): the model of ETH-XGaze; its frame is turned to the published one.
    Raises UserError that says what was found.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such face model.", remedy="Correct the path.")
    try:
        points = read_array(path)
    except ValueError as error:
        raise UserError(f"{path}: not a .npy file of numbers. Expected 14, 50 or 68 points in mm.") from error
    named = {14: (*RIGID, None), 50: _ROWS_50, 68: tuple(range(68))}
    if points.ndim != 2 or points.shape[1] != 3 or len(points) not in named or not np.isfinite(points).all():
        raise UserError(f"{path}: found shape {points.shape}, expected finite (14, 3), (50, 3) or (68, 3) in mm.")
    landmarks, centre = named[len(points)], CENTRE
    if len(points) == 14:
        points, centre, landmarks = points[:13], points[13], RIGID
    else:
        points = points - points[[landmarks.index(i) for i in EYE_CORNERS]].mean(axis=0)
        if len(points) == 50:
            cos, sin = np.cos(XGAZE_TILT), np.sin(XGAZE_TILT)
            points = points @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]).T
    model = FaceModel(points, landmarks, centre)
    _check_frame(model, path)
    return model


def _check_frame(model: FaceModel, path: Path) -> None:
    outer = model[(36, 45)]
    width, tip, root = outer[1, 0] - outer[0, 0], model[(30,)][0], model[(27,)][0]
    problems = []
    if not 70 < abs(width) < 120:
        problems.append(f"the outer corners of the eyes are {abs(width):.3g} apart, expected 70 to 120 (mm)")
    if width < 0:
        problems.append("the eye at image left (landmark 36) must have the smaller x")
    if tip[1] < root[1]:
        problems.append("y must point down (the tip of the nose is above its root)")
    if tip[2] > outer[:, 2].mean():
        problems.append("z must point into the head (the tip of the nose is behind the eyes)")
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}.")


@dataclass(frozen=True)
class HeadPose:
    """A head before the camera: frame as in the module's first lines, mm, camera x right, y down, z forward.

    error_px: mean distance of the landmarks that had a say to the projected model.  relative_error: the same as a
    part of the eyes' spacing (64.5 mm) in pixels at the face; above about 0.03 the pose is doubtful.
    outliers: landmarks that were more than 6.5 mm off and had no say.
    """

    rotation: ndarray
    translation: ndarray
    centre: ndarray
    eyes: ndarray  # (2, 3), image left first
    error_px: float
    relative_error: float
    outliers: tuple[int, ...]

    @property
    def roll(self) -> float:
        """How far the line of the eyes is turned in the image, clockwise, radians; near 0 for an upright face."""
        return float(np.arctan2(self.rotation[1, 0], self.rotation[0, 0]))


def make_pose(rotation: ndarray, translation: ndarray, model: FaceModel = GENERIC) -> HeadPose:
    """The pose of a head whose rotation (3, 3) and translation (3,) to the camera frame are known, without error."""
    rotation, translation = np.asarray(rotation, np.float64), np.asarray(translation, np.float64).ravel()
    centre, eyes = (points @ rotation.T + translation for points in (model.centre, model.eyes))
    return HeadPose(rotation, translation, centre, eyes, 0.0, 0.0, ())


def head_pose(
    landmarks: ndarray, camera_matrix: ndarray, model: FaceModel = GENERIC, use: tuple[int, ...] = RIGID
) -> HeadPose:
    """The pose of a head from landmarks (68, 2) in pixels of the undistorted image.

    Landmarks that are not finite are left out; `use` names those to take, such as (*EYE_CORNERS, 48, 54) for a data
    set that gives six. Several starts (EPnP on all, EPnP on the largest set that agrees, a frontal face) are each
    refined, gross outliers losing their weight; the fit that the landmarks support best is refined on its inliers.
    Raises ValueError for too few landmarks, for a flipped solution (behind the camera or facing away from it) and
    for points that are no face.
    """
    task, kept = _task(landmarks, camera_matrix, model, use)
    starts = task.starts()
    best = task.best([task.refine(start) for start in starts])
    agree = task.off_mm(best) < TOLERANCE
    if not agree.all():
        robust = task.best([task.robust(start) for start in (best, *starts)])
        agree = task.off_mm(robust) < TOLERANCE
        if agree.sum() >= MIN_POINTS:
            best = task.only(agree).refine(robust)
        else:
            agree[:] = True
    return _checked(task, best, model, kept, agree)


def follow_pose(
    landmarks: ndarray,
    camera_matrix: ndarray,
    last: HeadPose,
    model: FaceModel = GENERIC,
    use: tuple[int, ...] = RIGID,
) -> HeadPose:
    """The pose of a head whose pose a moment ago is known, as in a clip's next frame: where landmarks move a little,
    so does it.

    `head_pose` jumps, by degrees, where another start fits better or a landmark passes the tolerance and has no say
    any more. Here there is one start, the last pose, and what lies far off loses its weight little by little.
    Raises ValueError as `head_pose` does.
    """
    task, kept = _task(landmarks, camera_matrix, model, use)
    fit = cv2.Rodrigues(last.rotation)[0], last.translation[:, None].copy()
    for _ in range(FOLLOWING_STEPS):
        fit, moved = task.step(fit, TOLERANCE)
        if moved < 1e-6:
            break
    if not all(np.isfinite(part).all() for part in fit):
        raise ValueError("Head pose: the landmarks are too far from the last pose to follow it.")
    agree = task.off_mm(fit) < TOLERANCE
    return _checked(task, fit, model, kept, agree if agree.sum() >= MIN_POINTS else np.ones(len(kept), bool))


def _task(
    landmarks: ndarray, camera_matrix: ndarray, model: FaceModel, use: tuple[int, ...]
) -> tuple[_Task, tuple[int, ...]]:
    """What is to be fitted, and which landmarks that takes."""
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (68, 2):
        raise ValueError(f"Head pose: found landmarks of shape {landmarks.shape}, expected (68, 2).")
    kept = tuple(i for i in use if i in model.landmarks and np.isfinite(landmarks[i]).all())
    if len(kept) < MIN_POINTS:
        raise ValueError(f"Head pose: found {len(kept)} usable landmarks, expected at least {MIN_POINTS}.")
    return _Task(model[kept], landmarks[list(kept)], np.asarray(camera_matrix, np.float64)), kept


def _checked(task: _Task, fit: Fit, model: FaceModel, kept: tuple[int, ...], agree: ndarray) -> HeadPose:
    """The pose of a fit. agree: (N,), the landmarks that had a say. Raises ValueError for what is no face."""
    pose = make_pose(cv2.Rodrigues(fit[0])[0], fit[1], model)
    _refuse_flipped(pose, task.points)
    error = float(task.distances(fit)[agree].mean())
    spacing = EYE_SPACING * np.sqrt(task.camera[0, 0] * task.camera[1, 1]) / pose.centre[2]
    if error > HOPELESS * spacing:
        raise ValueError(
            f"Head pose: the landmarks are no face, the best fit is off by {error / spacing:.0%} of the eyes' spacing; "
            "expected about 3%, at most 25%."
        )
    outliers = tuple(i for i, fine in zip(kept, agree, strict=True) if not fine)
    return replace(pose, error_px=error, relative_error=float(error / spacing), outliers=outliers)


Fit = tuple[ndarray, ndarray]  # rotation vector and translation, (3, 1) each


@dataclass(frozen=True)
class _Task:
    """Points (N, 3) of a model, where they are seen (N, 2), and the camera matrix."""

    points: ndarray
    seen: ndarray
    camera: ndarray

    def only(self, mask: ndarray) -> _Task:
        return _Task(self.points[mask], self.seen[mask], self.camera)

    def distances(self, fit: Fit) -> ndarray:
        """(N,) pixels between landmarks and the projected model."""
        return np.linalg.norm(cv2.projectPoints(self.points, *fit, self.camera, None)[0][:, 0] - self.seen, axis=1)

    def off_mm(self, fit: Fit) -> ndarray:
        """(N,) mm between landmarks and the projected model, at the model's depth."""
        depth = (cv2.Rodrigues(fit[0])[0] @ self.points.mean(axis=0) + fit[1].ravel())[2]
        return self.distances(fit) * abs(depth) / self.camera[0, 0]

    def starts(self) -> list[Fit]:
        """A frontal face of about the right size, and what EPnP finds."""
        pixels_a_mm = max(float(self.seen.std(axis=0).max() / self.points[:, :2].std(axis=0).max()), 1e-6)
        ray = np.linalg.inv(self.camera) @ [*self.seen.mean(axis=0), 1.0]
        depth = self.camera[0, 0] / pixels_a_mm
        starts: list[Fit] = [(np.zeros((3, 1)), (depth * ray - self.points.mean(axis=0))[:, None])]
        given, kind, reach = (self.points, self.seen, self.camera, None), cv2.SOLVEPNP_EPNP, TOLERANCE * pixels_a_mm
        found, rotation, translation = cv2.solvePnP(*given, flags=kind)
        starts += [(rotation, translation)] * bool(found)
        found, rotation, translation, _ = cv2.solvePnPRansac(
            *given, flags=kind, reprojectionError=reach, iterationsCount=100
        )
        return starts + [(rotation, translation)] * bool(found)

    def best(self, fits: list[Fit]) -> Fit:
        """The fit that the landmarks support best; being far off costs no more than being just too far off."""
        fits = [fit for fit in fits if all(np.isfinite(part).all() for part in fit)]
        if not fits:
            raise ValueError("Head pose: no pose fits the landmarks; they may be all in one place.")
        return min(fits, key=lambda fit: np.minimum(self.off_mm(fit), TOLERANCE).sum())

    def refine(self, fit: Fit) -> Fit:
        """Least squares over all points (Levenberg-Marquardt)."""
        until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-12)
        rotation, translation = (part.copy() for part in fit)
        return cv2.solvePnPRefineLM(self.points, self.seen, self.camera, None, rotation, translation, until)

    def robust(self, fit: Fit) -> Fit:
        """Least squares, reweighted: what lies far off loses its weight step by step, down to the tolerance."""
        fit = self.refine(fit)
        for width in np.repeat(TOLERANCE * np.array([8.0, 4.0, 2.0, 1.0, 0.5]), 4):
            fit, moved = self.step(fit, width)
            if not np.isfinite(moved):
                break  # `best` passes over it
        return fit

    def step(self, fit: Fit, width: float) -> tuple[Fit, float]:
        """One step of least squares with weights that fall over a width in mm, and its length; nan if there is none."""
        root = np.repeat(1 / (1 + np.minimum(self.off_mm(fit) / width, 1e6) ** 2), 2)
        projected, jacobian = cv2.projectPoints(self.points, *fit, self.camera, None)
        gap, slope = (self.seen - projected[:, 0]).ravel(), jacobian[:, :6]
        if not (np.isfinite(gap).all() and np.isfinite(slope).all()):
            return fit, np.nan
        step = np.linalg.lstsq(root[:, None] * slope, root * gap, rcond=1e-12)[0][:, None]
        return (fit[0] + step[:3], fit[1] + step[3:]), float(np.abs(step).max())


def _refuse_flipped(pose: HeadPose, points: ndarray) -> None:
    nearest = (points @ pose.rotation.T + pose.translation)[:, 2].min()
    facing = pose.rotation[:, 2] @ pose.centre / np.linalg.norm(pose.centre)
    angle = np.degrees(np.arccos(np.clip(facing, -1, 1)))
    if nearest <= 0 or angle > 100:
        where = "is behind the camera" if nearest <= 0 else f"faces {angle:.0f} degrees away from the camera"
        raise ValueError(
            f"Head pose: the best fit {where}, expected before it and within 100 degrees. The landmarks are mirrored "
            "or in another order, or the camera matrix is not that of this image."
        )
