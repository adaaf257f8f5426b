"""The faces of a photograph, and the normalised camera in front of each.

Angles of this room are (pitch, yaw) as they are seen in the photograph: (0, 0) looks into the camera, wherever in the
picture the face is; pitch > 0 looks up, yaw > 0 towards image left. The normalised camera stands in the same place and
looks at the face, too, but is turned with a head that leans to its side.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from core.command import UserError
from core.redirection.iris import unit_rays
from preprocess.datasets.images import photo_camera
from preprocess.face_model import HeadPose
from preprocess.face_patches import FaceCutter, LeftOut
from preprocess.faces.search import search
from preprocess.landmarks import to_68
from preprocess.normalization import (
    ST_ED,
    apply_homography,
    label_to_vector,
    normalized_gaze,
    normalizing_rotation,
    rotation_to_label,
    vector_to_label,
)

CUTTER = FaceCutter(min_coverage=0.8)  # as for patches of one's own photographs
SIDE = ST_ED.size
SIDEWAYS = np.radians(40)  # of the head; few training sets have more
CLOSED = 0.12  # height of an eye's opening by its width
SMALL = 64  # pixels of the photograph along the patch: an eye is 12 wide


@dataclass(frozen=True)
class PhotoFace:
    """A face that can be redirected.

    number: from 1, the largest first.  landmarks: (68, 2) pixels.  to_patch: (3, 3), pixels of the photograph to those
    of a patch of 128.  turn: (3, 3), from the photograph's camera, turned to look at the face, to the normalised one.
    head: (2,) as the landmarks have it, radians.  camera: (3, 3), of the photograph.
    """

    number: int
    landmarks: ndarray
    to_patch: ndarray
    turn: ndarray
    head: ndarray
    camera: ndarray

    def to_condition(self, label: ndarray) -> ndarray:
        """(2,) radians in the photograph to those in the patch."""
        return vector_to_label(self.turn @ label_to_vector(label))

    def from_condition(self, condition: ndarray) -> ndarray:
        """(2,) radians in the patch to those in the photograph."""
        return vector_to_label(self.turn.T @ label_to_vector(condition))

    def looking_at(self, point: tuple[float, float]) -> ndarray:
        """(2,) radians in the photograph: a gaze at what is seen at a point, pixels (column, row).

        How far away that is nobody knows. It is taken to be as far from the eyes as from the camera: then the eyes
        turn away from the camera by the angle under which it sees the point apart from them.
        """
        middle = self.eyes.mean(axis=(0, 1))
        eyes, point_seen = unit_rays(np.linalg.inv(self.camera), np.stack([middle, point]))
        direction = point_seen / (2 * eyes @ point_seen) - eyes
        return normalized_gaze(normalizing_rotation(eyes, np.eye(3)), direction)

    def moved(self, to_new: ndarray) -> "PhotoFace":
        """The same face in another picture. to_new: (3, 3), from pixels of the photograph to those of the picture."""
        return replace(
            self,
            landmarks=apply_homography(to_new, self.landmarks),
            to_patch=self.to_patch @ np.linalg.inv(to_new),
            camera=to_new @ self.camera,
        )

    @property
    def corners(self) -> ndarray:
        """(4, 2): where the corners of the patch lie in the photograph, clockwise from top left."""
        corners = SIDE * np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5
        return apply_homography(np.linalg.inv(self.to_patch), corners)

    @property
    def side(self) -> float:
        """Pixels of the photograph along the patch's longest edge."""
        corners = self.corners
        return float(np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).max())

    @property
    def eyes(self) -> ndarray:
        """(2, 6, 2): outlines of the eyes, pixels of the photograph, image left first."""
        return self.landmarks[36:48].reshape(2, 6, 2)

    @property
    def is_sideways(self) -> bool:
        return bool(abs(self.head[1]) > SIDEWAYS)

    @property
    def is_closed(self) -> bool:
        """Whether both eyes are, or nearly."""
        height = np.linalg.norm(self.eyes[:, 1:3].mean(axis=1) - self.eyes[:, 4:].mean(axis=1), axis=1)
        return bool((height / np.linalg.norm(self.eyes[:, 3] - self.eyes[:, 0], axis=1)).max() < CLOSED)

    @property
    def doubts(self) -> list[str]:
        """Why the result may be poor."""
        found = {
            "is seen from the side: look at the result closely": self.is_sideways,
            "has its eyes closed, or nearly: no edit of the gaze opens them": self.is_closed,
            "is small: little is seen of its eyes": self.side < SMALL,
        }
        return [doubt for doubt, is_so in found.items() if is_so]


def find(image: ndarray, film: float = 0.0, focal: float | None = None) -> list[PhotoFace | LeftOut]:
    """All faces of an upright image (H, W, 3) uint8 RGB, the largest first, those that cannot be redirected with why.

    film: focal length in mm as on 35 mm film, 0 if not known.  focal: pixels, if known.
    """
    camera, _ = photo_camera(image.shape, focal, film)
    found = search(image)
    faces = [place(to_68(face.landmarks), camera, image.shape, number) for number, face in enumerate(found.faces, 1)]
    return faces + [_unmeasured(number, box) for number, box in enumerate(found.unmeasured, len(faces) + 1)]


def _unmeasured(number: int, box: ndarray) -> LeftOut:
    x, y = box.mean(axis=0)
    return LeftOut(f"face {number}", "its landmarks are not seen", f"at {x:.0f}, {y:.0f}; in profile, or covered")


def place(landmarks: ndarray, camera: ndarray, shape: tuple[int, ...], number: int = 1) -> PhotoFace | LeftOut:
    """The normalised camera before a face of landmarks (68, 2). camera: (3, 3).  shape: of the photograph."""
    pose = CUTTER.pose(landmarks, f"face {number}", camera)
    return pose if isinstance(pose, LeftOut) else place_posed(landmarks, pose, camera, shape, number)


def place_posed(
    landmarks: ndarray,
    pose: HeadPose,
    camera: ndarray,
    shape: tuple[int, ...],
    number: int = 1,
    cutter: FaceCutter = CUTTER,
) -> PhotoFace | LeftOut:
    """The same where the pose of the head is known. cutter: how much of the patch the photograph must hold."""
    name = f"face {number}"
    rotation = cutter.facing(name, pose)
    if isinstance(rotation, LeftOut):
        return rotation
    to_patch = cutter.to_patch(shape, name, camera, pose, rotation)
    if isinstance(to_patch, LeftOut):
        return to_patch
    upright = normalizing_rotation(pose.centre, np.eye(3))
    head = rotation_to_label(upright @ pose.rotation)
    return PhotoFace(number, landmarks, to_patch, rotation @ upright.T, head, camera)


def choose(faces: list[PhotoFace | LeftOut], number: int | None) -> list[PhotoFace]:
    """Those to redirect: all that can be, or one. Raises UserError where there is none."""
    if not faces:
        raise UserError(
            "no face found in it; faces are found from 40 pixels up, unless they are seen from the side.",
            remedy="Choose another photograph, or a larger copy of it.",
        )
    if number is not None and not 1 <= number <= len(faces):
        raise UserError(f"--face: found {number}, expected 1 to {len(faces)}, the largest face first.")
    asked = faces if number is None else [faces[number - 1]]
    usable = [face for face in asked if isinstance(face, PhotoFace)]
    if not usable:
        why = "; ".join(f"{face.name}: {face.reason}, {face.detail}" for face in asked if isinstance(face, LeftOut))
        raise UserError(f"no face of it can be redirected ({why}).", remedy="Choose another photograph.")
    return usable
