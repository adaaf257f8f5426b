"""The normalised camera and the FFHQ-aligned crop: rotations, warps and labels, in one place.

Frames: x towards image right, y down, z forward; mm. A head's third axis points into the head, so that a
frontal head has the identity rotation.
Angles: (pitch, yaw) in radians; pitch > 0 looks up, yaw > 0 looks towards image left, (0, 0) looks straight into
the normalised camera. The label vector (cos p sin y, sin p, cos p cos y) points against the direction looked at.
The published latent rotation (`models.geometry.rotation_matrix`) has the opposite pitch and must not pose heads.
Pixels: indices (column, row) of pixel middles, as in OpenCV; an image covers -0.5 to width - 0.5. Matrices are
3x3, act on column vectors (column, row, 1) and, camera matrices aside, are homographies named from -> to.
Images must be undistorted (`undistort_image`) before anything here holds for them.
Source: Zhang, Sugano and Bulling, ETRA 2018; the preprocessing of FAZE and ST-ED.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

MAX_SUPERSAMPLING = 16


@dataclass(frozen=True)
class View:
    """A normalised camera: focal length in pixels, distance of the face centre in mm, pixels a side.

    principal: pixel index where the optical axis meets the patch, the same in both directions; by default between
    the two middle pixels, so that a mirrored scene is a mirrored patch.
    """

    focal: float
    distance_mm: float
    size: int
    principal: float | None = None

    @property
    def camera_matrix(self) -> ndarray:
        """(3, 3): camera frame -> pixel indices."""
        at = self.size / 2 - 0.5 if self.principal is None else self.principal
        return np.array([[self.focal, 0, at], [0, self.focal, at], [0, 0, 1.0]])

    def resized(self, size: int) -> View:
        """The view after its patch is resampled to `size` pixels a side."""
        ratio = size / self.size
        at = None if self.principal is None else (self.principal + 0.5) * ratio - 0.5
        return View(self.focal * ratio, self.distance_mm, size, at)


ST_ED = View(500.0, 600.0, 128)  # the embedded data set's camera
# Published files were warped with the axis at index size / 2, half a pixel from the middle of the patch.
FAZE = View(500.0, 600.0, 128, principal=64.0)
ETH_XGAZE = View(960.0, 300.0, 448, principal=224.0)
ETH_XGAZE_224 = ETH_XGAZE.resized(224)


def label_to_vector(labels: ndarray) -> ndarray:
    """Label vectors (..., 3), of unit length, of (..., 2) labels."""
    pitch, yaw = np.moveaxis(np.asarray(labels, np.float64), -1, 0)
    return np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], axis=-1)


def vector_to_label(vectors: ndarray) -> ndarray:
    """Labels (..., 2) of label vectors (..., 3) of any length."""
    x, y, z = np.moveaxis(np.asarray(vectors, np.float64), -1, 0)
    return np.stack([np.arctan2(y, np.hypot(x, z)), np.arctan2(x, z)], axis=-1)


def label_to_rotation(label: ndarray) -> ndarray:
    """Rotation (3, 3) without roll of a head with this label: its third column is the label vector."""
    pitch, yaw = np.asarray(label, np.float64)
    into = label_to_vector(label)
    right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    return np.column_stack([right, np.cross(into, right), into])


def rotation_to_label(rotation: ndarray) -> ndarray:
    """Label (2,) of a head's rotation in the normalised camera; its roll, if any, is not seen."""
    return vector_to_label(np.asarray(rotation)[:, 2])


def normalizing_rotation(centre: ndarray, head_rotation: ndarray) -> ndarray:
    """R_n (3, 3), from the camera frame to that of the normalised camera, which stands in the same place.

    It looks at the face centre (3,) in mm, turned about its axis so that the head (its rotation (3, 3) to the
    camera frame) has no roll. Raises ValueError if the centre is not before the camera, or straight beside the
    head, where roll has no meaning.
    """
    centre, across = np.asarray(centre, np.float64), np.asarray(head_rotation, np.float64)[:, 0]
    if not (np.isfinite(centre).all() and centre[2] > 0):
        raise ValueError(f"The face centre must be before the camera, in mm; found {centre.tolist()}.")
    forward = centre / np.linalg.norm(centre)
    down = np.cross(forward, across)
    if not np.linalg.norm(down) > 1e-6:
        raise ValueError("The camera looks along the line through the eyes: such a head cannot be made upright.")
    down /= np.linalg.norm(down)
    return np.stack([np.cross(down, forward), down, forward])


def warp_matrix(view: View, camera_matrix: ndarray, centre: ndarray, rotation: ndarray) -> ndarray:
    """Homography W = C S R_n K^-1 from the undistorted image to the patch of `view`.

    camera_matrix: K (3, 3).  centre: face centre (3,) in mm.  rotation: R_n of `normalizing_rotation`.
    """
    scale = np.diag([1.0, 1.0, view.distance_mm / np.linalg.norm(centre)])
    return view.camera_matrix @ scale @ rotation @ np.linalg.inv(camera_matrix)


def patch_camera(view: View, distance_mm: float) -> ndarray:
    """Camera matrix (3, 3) under which a patch of `view` is a photograph of a face that was distance_mm away.

    With it patches can be normalised again: for another view, or about another point of the face.
    """
    return view.camera_matrix @ np.diag([1.0, 1.0, view.distance_mm / distance_mm])


def apply_homography(matrix: ndarray, points: ndarray) -> ndarray:
    """Points (..., 2) through a homography (3, 3)."""
    matrix = np.asarray(matrix, np.float64)
    there = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return there[..., :2] / there[..., 2:]


def _corners(size: int) -> ndarray:
    """Outermost corners of a square picture, clockwise from top left."""
    low, high = -0.5, size - 0.5
    return np.array([[low, low], [high, low], [high, high], [low, high]])


def _shrinking(matrix: ndarray, size: int) -> float:
    """How many pixels of the image one pixel of the picture replaces, at most, along a line."""
    at, back = _corners(size) * 0.999, np.linalg.inv(matrix)
    steps = [apply_homography(back, at + step) - apply_homography(back, at) for step in ((0.01, 0), (0, 0.01))]
    return 100 * float(np.linalg.norm(steps, axis=-1).max())


def warp_image(
    image: ndarray, matrix: ndarray, size: int, border: int = cv2.BORDER_CONSTANT, antialias: bool = True
) -> ndarray:
    """The picture (size, size, ...) that a homography from `image` gives; outside the image it is black.

    border: another of OpenCV's border modes.  antialias: average over the pixels that one replaces; without it
    this is the published bilinear warp, which aliases where the image shrinks (Columbia and ETH-XGaze: 12 to 16).
    """
    times = int(np.clip(np.ceil(_shrinking(matrix, size) - 0.1), 1, MAX_SUPERSAMPLING)) if antialias else 1
    fine = np.array([[times, 0, (times - 1) / 2], [0, times, (times - 1) / 2], [0, 0, 1.0]]) @ matrix
    shape = (times * size, times * size)
    picture = cv2.warpPerspective(image, fine, shape, flags=cv2.INTER_LINEAR, borderMode=border)
    return picture if times == 1 else cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def coverage(matrix: ndarray, size: int, image_shape: tuple[int, ...], grid: int = 64) -> float:
    """Part of the picture, 0 to 1, that lies inside the image it is warped from."""
    line = (np.arange(grid) + 0.5) * (size / grid) - 0.5
    there = apply_homography(np.linalg.inv(matrix), np.stack(np.meshgrid(line, line), axis=-1))
    inside = (there >= -0.5) & (there <= np.array(image_shape[1::-1]) - 0.5)
    return float(inside.all(axis=-1).mean())


def normalized_gaze(rotation: ndarray, direction: ndarray) -> ndarray:
    """Labels (..., 2) of directions looked at (..., 3), camera frame, in the camera turned by R_n.

    Only the rotation acts: the scale that brings the face to the view's distance never enters a label.
    """
    return vector_to_label(-np.asarray(direction, np.float64) @ np.asarray(rotation).T)


def normalized_head(rotation: ndarray, head_rotation: ndarray) -> ndarray:
    """Label (2,) of a head with rotation (3, 3) to the camera frame, in the camera turned by R_n."""
    return rotation_to_label(np.asarray(rotation) @ head_rotation)


def normalized_labels(
    rotation: ndarray, head_rotation: ndarray, centre: ndarray, eyes: ndarray, target: ndarray
) -> ndarray:
    """(8,) labels of a sample: gaze, head, gaze of the eye at image left, gaze of the eye at image right.

    rotation: R_n.  centre (3,), eyes (2, 3) with image left first, target looked at (3,): mm, camera frame.
    """
    origins = np.concatenate([np.asarray(centre, np.float64)[None], eyes])
    face, left, right = normalized_gaze(rotation, np.asarray(target, np.float64) - origins)
    return np.concatenate([face, normalized_head(rotation, head_rotation), left, right])


def undistort_points(points: ndarray, camera_matrix: ndarray, distortion: ndarray | None) -> ndarray:
    """Pixels (N, 2) of the distorted image -> pixels of the undistorted one, under the same camera matrix."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    if distortion is None or not np.any(distortion):
        return points.copy()
    many = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
    camera_matrix, distortion = np.asarray(camera_matrix, np.float64), np.asarray(distortion, np.float64)
    return cv2.undistortImagePoints(points[:, None], camera_matrix, distortion, arg1=many)[:, 0]


def undistort_image(image: ndarray, camera_matrix: ndarray, distortion: ndarray | None) -> ndarray:
    """The image as a camera with the same matrix and no distortion takes it.

    From here on the distortion is done with: passing it on to pose estimation would remove it twice.
    """
    if distortion is None or not np.any(distortion):
        return image
    numbers = [tuple(np.asarray(part, np.float64).ravel().tolist()) for part in (camera_matrix, distortion)]
    return cv2.remap(image, *_undistortion(*numbers, image.shape[1::-1]), cv2.INTER_LINEAR)


@functools.lru_cache(maxsize=1)  # a data set's images mostly come camera by camera; of 24 megapixels a map is 144 MB
def _undistortion(
    matrix: tuple[float, ...], distortion: tuple[float, ...], size: tuple[int, ...]
) -> tuple[ndarray, ndarray]:
    """What OpenCV's `undistort` makes anew for every image, which takes it as long as the image itself."""
    camera = np.array(matrix).reshape(3, 3)
    return cv2.initUndistortRectifyMap(camera, np.array(distortion), None, camera, size, cv2.CV_16SC2)


def _rotated_quarter(v: ndarray) -> ndarray:
    return np.array([-v[1], v[0]])


def ffhq_quad(landmarks: ndarray) -> ndarray:
    """The square that FFHQ crops: corners (4, 2), top left, bottom left, bottom right, top right.

    landmarks: (68, 2) of iBUG, pixels. The corners are where the outermost corners of the crop lie; the square
    is turned with the face. Source: Karras et al., StyleGAN, appendix C.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (68, 2) or not np.isfinite(points[[*range(36, 48), 48, 54]]).all():
        raise ValueError(f"FFHQ alignment takes 68 finite landmarks (68, 2); found {points.shape}, or not finite.")
    left, right, mouth = points[36:42].mean(0), points[42:48].mean(0), points[[48, 54]].mean(0)
    between_eyes, to_mouth = right - left, mouth - (left + right) / 2
    x = between_eyes - _rotated_quarter(to_mouth)
    half = max(2.0 * np.linalg.norm(between_eyes), 1.8 * np.linalg.norm(to_mouth))
    if not np.linalg.norm(x) > 1e-6 * half or half == 0:
        raise ValueError("FFHQ alignment: the eyes and the mouth are in one place, or the face is mirrored.")
    x *= half / np.linalg.norm(x)
    y = _rotated_quarter(x)
    centre = (left + right) / 2 + 0.1 * to_mouth
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def ffhq_matrix(landmarks: ndarray, size: int = 256) -> ndarray:
    """Homography (3, 3), here a similarity, from the image to the FFHQ-aligned crop of `size` pixels a side."""
    top_left, bottom_left, _, top_right = ffhq_quad(landmarks)
    across, down = (top_right - top_left) / size, (bottom_left - top_left) / size
    to_image = np.column_stack([across, down, top_left + (across + down) / 2])
    return np.linalg.inv(np.vstack([to_image, [0, 0, 1]]))


def homography_aligned_to_patch(aligned: ndarray, patch: ndarray) -> ndarray:
    """Homography from the aligned crop to the patch; its inverse leads back.

    aligned: image -> crop (`ffhq_matrix`).  patch: image -> patch (`warp_matrix`). Both of the undistorted image:
    between a patch and the crop of a distorted image there is no homography.
    """
    matrix = np.asarray(patch, np.float64) @ np.linalg.inv(aligned)
    return matrix / matrix[2, 2]


def ffhq_align(image: ndarray, landmarks: ndarray, size: int = 256) -> tuple[ndarray, ndarray]:
    """The FFHQ-aligned crop (size, size, 3) of a uint8 image, and the homography (3, 3) from image to crop.

    Where the square leaves the image it is continued by its reflection, which fades to a blur and then to the
    median colour. Follows the published alignment, with two differences: pixel positions are exact when the image
    is shrunk first (it moves them by up to a quarter of the crop's pixel), and a shrinking warp is antialiased.
    """
    matrix, quad = ffhq_matrix(landmarks, size), ffhq_quad(landmarks)
    side = float(np.linalg.norm(quad[3] - quad[0]))
    height, width = image.shape[:2]
    if side / size >= 4:  # what is left to the warp is between 2 and 3, or below 4
        times = int(side / (2 * size))
        shape = max(1, round(width / times)), max(1, round(height / times))
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
        sx, sy = shape[0] / width, shape[1] / height
        shrink = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1.0]])
        side, quad = side * sx, apply_homography(shrink, quad)
    else:
        shrink = np.eye(3)
    image, offset = _crop_with_margin(image, quad, side)
    move = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1.0]])
    return warp_image(image, matrix @ np.linalg.inv(move @ shrink), size, cv2.BORDER_REPLICATE), matrix


def _crop_with_margin(image: ndarray, quad: ndarray, side: float) -> tuple[ndarray, ndarray]:
    """The image around the square, continued where the square leaves it, and how far pixels moved (x, y)."""
    limit = np.array(image.shape[1::-1])
    border = max(round(0.1 * side), 3)
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int) + 1
    start = np.clip(low - border, 0, limit - 1)
    stop = np.maximum(np.clip(high + border, 0, limit), start + 1)
    part = image[start[1] : stop[1], start[0] : stop[0]]
    if (low >= 0).all() and (high <= limit).all():
        return part, -start
    pad = np.maximum(np.stack([start - (low - border), high + border - stop]), round(0.3 * side))
    continued = np.pad(part, ((pad[0, 1], pad[1, 1]), (pad[0, 0], pad[1, 0]), (0, 0)), mode="reflect")
    outside = np.maximum.outer(*(_outside(continued.shape[axis], *pad[:, 1 - axis]) for axis in (0, 1)))[..., None]
    faded = continued.astype(np.float32)
    faded += (cv2.GaussianBlur(faded, (0, 0), 0.02 * side) - faded) * np.clip(3 * outside + 1, 0, 1)
    faded += (np.median(continued, axis=(0, 1)).astype(np.float32) - faded) * np.clip(outside, 0, 1)
    return np.clip(faded + 0.5, 0, 255).astype(np.uint8), pad[0] - start


def _outside(length: int, before: int, after: int) -> ndarray:
    """1 at both ends of a line, 0 where its margins of `before` and `after` pixels meet the image, less within."""
    at = np.arange(length, dtype=np.float32)
    return 1 - np.minimum(at / before, at[::-1] / after)
