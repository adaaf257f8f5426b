"""FFHQ-aligned pictures of synthetic persons: the same scenes as in the patches, seen by an un-normalised camera.

A physical camera at the place of the normalised one has the face off its axis and is held askew; its picture is
aligned by the landmarks as FFHQ is. So one homography, exact for every pixel, takes the aligned face to the patch.
The aligned face is rendered as such, not resampled, and shows more: hair, neck, background.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy import ndarray

from preprocess.normalization import ST_ED, ffhq_matrix, homography_aligned_to_patch
from preprocess.synthetic.scene import View

ROLL, OFF_AXIS = 12.0, 14.0  # degrees at most: of the physical camera, and of the face from its axis either way
LANDMARKS = (*range(36, 48), 30, 48, 54)  # of the 68: round the eyes, nose tip, mouth corners; image left first


@dataclass(frozen=True)
class AlignedView(View):
    """A view whose pixels are a homography of the normalised camera's plane; all else is the normalised camera's.

    plane: (3, 3), points of the plane z = 1 of the normalised camera to pixel indices.
    """

    plane: ndarray

    @cached_property
    def focal(self) -> float:
        """Pixels a unit of the plane at its centre, the geometric mean over directions."""
        return float(np.sqrt(np.linalg.det(self._jacobian)))

    @property
    def turn(self) -> ndarray:
        """See View."""
        return self._jacobian / self.focal

    @property
    def _jacobian(self) -> ndarray:
        """(2, 2): derivative of the pixel indices at the centre of the plane."""
        h = self.plane / self.plane[2, 2]
        return h[:2, :2] - np.outer(h[:2, 2], h[2, :2])

    def to_pixels(self, x: ndarray, y: ndarray, z: ndarray) -> tuple[ndarray, ndarray]:
        """See View."""
        column, row, depth = (a * x + b * y + c * z for a, b, c in self.plane.tolist())
        return column / depth, row / depth

    def to_plane(self, columns: ndarray, rows: ndarray) -> tuple[ndarray, ndarray]:
        """See View."""
        u, v = np.meshgrid(columns, rows)
        x, y, w = (a * u + b * v + c for a, b, c in np.linalg.inv(self.plane))
        return x / w, y / w


def camera_rotation(rng: np.random.Generator) -> ndarray:
    """A physical camera's pose, (3, 3): rotation from the normalised camera's frame to its own."""
    roll, pan, tilt = np.deg2rad(rng.uniform(-1, 1, 3) * (ROLL, OFF_AXIS, OFF_AXIS))
    # Rodrigues' formula, by OpenCV: right-handed turns about z, y and x.
    about_z, about_y, about_x = (cv2.Rodrigues(axis)[0] for axis in np.diag([tilt, pan, roll])[::-1])
    return about_z @ about_y @ about_x


def five_points(landmarks: ndarray) -> ndarray:
    """(68, n) landmarks to (5, n): middles of the eyes, nose tip, mouth corners; image left first."""
    return np.stack([landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0), *landmarks[[30, 48, 54]]])


def aligned_view(view: View, landmarks: ndarray, camera: ndarray, size: int) -> AlignedView:
    """The view that FFHQ's alignment makes of the physical camera's picture.

    view: of the normalised camera.  landmarks: (68, 3), of a look.  camera: of `camera_rotation`.
    """
    seen = view.to_camera(landmarks) @ camera.T
    flat = seen[:, :2] / seen[:, 2:]  # the focal length is lost in the alignment: 1 will do
    plane = ffhq_matrix(flat, size) @ camera
    where = view.rotation, view.gaze_directions, view.pupil_axes
    return AlignedView(size, *where, plane, face_centre=view.face_centre, zoom=view.zoom)


def as_68(points: ndarray) -> ndarray:
    """(68, 3): points (15, 3) of LANDMARKS among iBUG's, NaN elsewhere."""
    landmarks = np.full((68, 3), np.nan)
    landmarks[list(LANDMARKS)] = points
    return landmarks


def behind(view: AlignedView, backdrop: ndarray) -> ndarray:
    """A patch's backdrop (PATCH_SIZE, PATCH_SIZE, 3) as the aligned view shows it, continued by its reflection."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shape = (view.size, view.size)
    return cv2.warpPerspective(backdrop, to_patch(view), shape, flags=flags, borderMode=cv2.BORDER_REFLECT)


def to_patch(view: AlignedView) -> ndarray:
    """(3, 3) homography: pixel indices of the aligned face to those of the patch of PATCH_SIZE."""
    zoomed = ST_ED.camera_matrix @ np.diag([view.zoom, view.zoom, 1.0])
    return homography_aligned_to_patch(view.plane, zoomed)
