"""Where the eyes look, from a face's detected irises: the reference that takes no part in any training.

Each eyeball stands a fixed way from the middle of its corners, as the picture shows them, and turns with the head; the
ray through the middle of the iris meets it where the iris is. That gives the eye's optical axis. The line of sight is
some 4 degrees further in, in both eyes alike, so that the mean of both has the right yaw. In pitch an offset remains,
which differs from person to person as eyelids and corners do. Detected irises move less than real ones: the error on
faces with known labels (`python -m benchmarks.photographs --reference-on`) tells by how much.
"""

import numpy as np
from numpy import ndarray

from preprocess.face_model import HeadPose
from preprocess.normalization import label_to_rotation, label_to_vector, vector_to_label

IRISES = (slice(468, 473), slice(473, 478))  # FaceMesh's points: the middle and four around it; image left first
CORNERS = ((33, 133), (362, 263))
LIDS = ((159, 145), (386, 374))  # the middle of the upper and of the lower lid
LIMBUS = 10.7  # mm from the eye's centre of rotation to the plane of the limbus, which bounds the iris
# From the middle of an eye's corners to its centre of rotation, mm in the head's frame: the cornea's front lies about
# 8 mm before that middle and 13.5 before the centre, and a pupil that looks straight ahead about 2 mm above it.
FROM_CORNERS = np.array([0.0, -2.0, 5.0])
CLOSED = 0.18  # of an eye's width; with less between the lids the irises are guessed, as in a blink


def lids_apart(mesh: ndarray) -> float:
    """How far the eyes are open, as a part of their width, the mean of both."""
    heights, widths = (
        np.linalg.norm(mesh[a] - mesh[b], axis=1) for a, b in (np.transpose(LIDS), np.transpose(CORNERS))
    )
    return float((heights / widths).mean())


def eye_points(mesh: ndarray) -> tuple[ndarray, ndarray]:
    """Middles of the corners and of the irises, (2, 2) pixels each, image left first; mesh: FaceMesh's (478, 2)."""
    corners = np.stack([mesh[list(pair)].mean(axis=0) for pair in CORNERS])
    return corners, np.stack([mesh[points].mean(axis=0) for points in IRISES])


def eye_axes(corners: ndarray, irises: ndarray, pose: HeadPose, camera_matrix: ndarray) -> tuple[ndarray, ndarray]:
    """Centres of the eyeballs (2, 3), mm, and unit vectors along which they look (2, 3), in the camera frame.

    corners, irises: as `eye_points` has them, in pixels of the undistorted image.  pose: of the head, which gives
    the distance.  An iris that lies off its ball counts as on its rim.
    """
    inverse = np.linalg.inv(camera_matrix)
    rays = unit_rays(inverse, corners)
    centres = rays * (pose.eyes[:, 2:] / rays[:, 2:]) + pose.rotation @ FROM_CORNERS
    seen = unit_rays(inverse, irises)
    along = (seen * centres).sum(axis=1, keepdims=True)
    off = seen * along - centres  # from the centre to the point of the ray that is nearest to it
    inside = np.sqrt(np.clip(LIMBUS**2 - (off**2).sum(axis=1, keepdims=True), 0, None))
    axes = off - inside * seen
    return centres, axes / np.linalg.norm(axes, axis=1, keepdims=True)


def unit_rays(inverse: ndarray, points: ndarray) -> ndarray:
    """Unit vectors (n, 3) through pixels (n, 2). inverse: of the camera matrix."""
    rays = np.column_stack([points, np.ones(len(points))]) @ inverse.T
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def looked_at(mesh: ndarray, pose: HeadPose, camera_matrix: ndarray) -> ndarray:
    """What a face looks at, (3,) mm in the camera frame, taken to be as far from the eyes as the camera is.

    mesh: FaceMesh's points (478, 2), pixels of the undistorted image.
    """
    centres, axes = eye_axes(*eye_points(mesh), pose, camera_matrix)
    middle, direction = centres.mean(axis=0), axes.mean(axis=0)
    return middle + np.linalg.norm(pose.centre) * direction / np.linalg.norm(direction)


def eye_in_head(gaze: ndarray, head: ndarray) -> ndarray:
    """Labels (N, 2) of the gaze in the head's own frame, from labels (N, 2) of gaze and head without roll, radians."""
    vectors = [label_to_rotation(h).T @ label_to_vector(g) for g, h in zip(gaze, head, strict=True)]
    return vector_to_label(np.reshape(vectors, (-1, 3)))
