"""Geometry that tests hold the project's own against: a whole normalisation, mirrored faces, where pupils are."""

import cv2
import numpy as np
from numpy import ndarray

from preprocess.normalization import ST_ED, View, normalizing_rotation, warp_image, warp_matrix


def normalize_image(
    image: ndarray,
    camera_matrix: ndarray,
    centre: ndarray,
    head_rotation: ndarray,
    view: View = ST_ED,
    border: int = cv2.BORDER_CONSTANT,
    antialias: bool = True,
) -> tuple[ndarray, ndarray, ndarray]:
    """The patch of a face, with R_n (3, 3) and the homography (3, 3) from the undistorted image to the patch."""
    rotation = normalizing_rotation(centre, head_rotation)
    matrix = warp_matrix(view, camera_matrix, centre, rotation)
    return warp_image(image, matrix, view.size, border, antialias), rotation, matrix


def mirror_labels(labels: ndarray) -> ndarray:
    """Labels (..., 2), (..., 4) or (..., 8) of the mirrored patch: yaws change sign, the eyes their places."""
    mirrored = np.array(labels)
    mirrored[..., 1::2] *= -1
    if mirrored.shape[-1] == 8:
        mirrored = mirrored[..., [0, 1, 2, 3, 6, 7, 4, 5]]
    return mirrored


def mirror_rotation(rotation: ndarray) -> ndarray:
    """Rotation (3, 3) of the mirrored head; points and directions in mm are mirrored by negating x."""
    return np.asarray(rotation) * np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]])


def mirror_camera_matrix(camera_matrix: ndarray, width: int) -> ndarray:
    """Camera matrix (3, 3) of the mirrored image, `width` pixels wide."""
    mirrored = np.array(camera_matrix, np.float64)
    mirrored[0, 2] = width - 1 - mirrored[0, 2]
    mirrored[0, 1] *= -1
    return mirrored


def pupil_points(axes: ndarray) -> ndarray:
    """Centres of a drawn person's pupils, (2, 3) mm in the head frame, for unit axes in the head frame."""
    return np.array([[-32.5, 0.0, 8.5], [32.5, 0.0, 8.5]]) + 10.7 * axes
