"""Where a face looks and points, by a reference that takes no part: landmarks found anew, and geometry.

The head by PnP on the landmarks, the gaze by where the irises lie between the corners of the eyes (`iris`).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from core.redirection.edit import Degrees
from core.redirection.faces import CUTTER, PhotoFace
from core.redirection.iris import CLOSED, lids_apart, looked_at
from preprocess.face_patches import LeftOut
from preprocess.faces.search import face_in
from preprocess.landmarks import detect, to_68
from preprocess.normalization import View, normalized_labels, normalizing_rotation, patch_camera

MARGIN = 3 / 8  # of its side, around a patch that a face is looked for in
REFERENCE = "head: PnP on landmarks that are found anew; gaze: irises between the corners of the eyes"


@dataclass(frozen=True)
class Measured:
    """Gaze and head in degrees (pitch, yaw) as `faces` has them. gaze: None where the eyes are closed.

    landmarks: (68, 2) pixels.
    """

    gaze: Degrees | None
    head: Degrees
    landmarks: ndarray

    @property
    def angles(self) -> dict[str, Degrees | None]:
        return {"gaze": self.gaze, "head": self.head}


def measure(image: ndarray, face: PhotoFace) -> Measured | None:
    """The reference's angles of a face, anew in an image (H, W, 3) uint8 RGB; None where it finds no face there."""
    found = face_in(image, face.corners)
    return None if found is None else _measured(found.landmarks, face.camera)


def measure_patch(patch: ndarray, view: View) -> Measured | None:
    """`measure` of a patch (S, S, 3) uint8 RGB of a normalised camera, S = view.size: degrees in its frame."""
    mesh = mesh_of(patch)
    return None if mesh is None else _measured(mesh, patch_camera(view, view.distance_mm), np.eye(3))


def labels_of(mesh: ndarray, camera_matrix: ndarray, rotation: ndarray | None = None) -> ndarray:
    """(8,) radians, as data sets have them, of FaceMesh's points (478, 2); NaN where no head fits them.

    rotation: (3, 3), from the camera frame to that of the labels; None: turned to look at the face, without its lean.
    """
    pose = CUTTER.pose(to_68(mesh), "", camera_matrix)
    if isinstance(pose, LeftOut):
        return np.full(8, np.nan)
    rotation = normalizing_rotation(pose.centre, np.eye(3)) if rotation is None else rotation
    target = looked_at(mesh, pose, camera_matrix)
    return normalized_labels(rotation, pose.rotation, pose.centre, pose.eyes, target)


def mesh_of(patch: ndarray) -> ndarray | None:
    """FaceMesh's points (478, 2), pixels of a patch (S, S, 3) that is filled by a face; None if none is found.

    The detector overlooks faces without anything around them: the patch's edge is drawn out on all sides.
    """
    margin = round(MARGIN * len(patch))
    mesh = detect(cv2.copyMakeBorder(patch, margin, margin, margin, margin, cv2.BORDER_REPLICATE))
    return None if mesh is None else mesh - margin


def _measured(mesh: ndarray, camera_matrix: ndarray, rotation: ndarray | None = None) -> Measured | None:
    labels = labels_of(mesh, camera_matrix, rotation)
    if not np.isfinite(labels).all():
        return None
    gaze, head = (np.degrees(labels[part]).tolist() for part in (slice(0, 2), slice(2, 4)))
    return Measured(None if lids_apart(mesh) < CLOSED else tuple(gaze), tuple(head), to_68(mesh))
