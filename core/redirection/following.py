"""The faces of a video, followed from frame to frame.

Each face has a number from the first frame in which it is seen, the largest first. Its landmarks are smoothed, and its
pose is found from the last one, so that what stands still in the picture stands still here, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy import ndarray

from core.redirection.faces import CUTTER, PhotoFace, place_posed
from core.redirection.smoothing import OneEuro
from preprocess.datasets.images import photo_camera
from preprocess.face_model import EYE_CORNERS, HeadPose, follow_pose
from preprocess.face_patches import LeftOut
from preprocess.faces import mesh
from preprocess.faces.mesh import Face
from preprocess.faces.search import find_faces, find_largest
from preprocess.landmarks import to_68

SEARCH_EVERY = 1.0  # seconds: the whole picture, for further faces
SEARCHED = 1280  # longest side of the copy that is searched
CUTOFF, BETA = 1.5, 4.0  # of landmarks, of which the unit is the distance of the eyes' outer corners
LEAP = 0.5  # of a face's size, from one frame to the next: it is another one, or another scene
NEAR = 2.0  # of a face's size, from where it was lost: it came back
# A face stays in use a little longer than it takes to come into use, so that none flickers at the limit.
LENIENT = replace(CUTTER, min_coverage=0.7, max_pose_error=1.5 * CUTTER.max_pose_error)


@dataclass
class Followed:
    """One face of a video. seen: as it was found last, not smoothed.  here: it is in the frame.

    pose: the last one, None where it must be found anew.  in_use: it could be redirected in the last frame.
    """

    number: int
    seen: Face
    here: bool = True
    pose: HeadPose | None = None
    in_use: bool = False
    _calm: OneEuro | None = field(default=None, repr=False)

    @property
    def size(self) -> float:
        return float(np.ptp(self.seen.landmarks, axis=0).max())

    def distance(self, face: Face) -> float:
        """How far away a face is, in sizes of this one."""
        return float(np.linalg.norm(face.box.mean(axis=0) - self.seen.box.mean(axis=0))) / max(self.size, 1e-9)

    def overlaps(self, face: Face) -> bool:
        """Whether the middle of one lies in the other."""
        return self.distance(face) < 0.5 or _inside(self.seen, face) or _inside(face, self.seen)

    def see(self, face: Face | None) -> None:
        """The next frame's face; None where it is gone. After a leap nothing of before counts."""
        if face is not None and (not self.here or self.distance(face) > LEAP):
            self.pose, self.in_use, self._calm = None, False, None
        self.seen, self.here = face or self.seen, face is not None

    def placed(self, time: float, camera: ndarray, shape: tuple[int, ...]) -> PhotoFace | LeftOut:
        """The normalised camera before it. time: seconds, later than that of the frame before."""
        rough = to_68(self.seen.landmarks)
        if self._calm is None:
            self._calm = OneEuro(CUTOFF, BETA / float(np.linalg.norm(rough[EYE_CORNERS[3]] - rough[EYE_CORNERS[0]])))
        landmarks = self._calm(rough, time)
        cutter = LENIENT if self.in_use else CUTTER
        pose = self._posed(landmarks, camera, cutter.max_pose_error)
        found = pose if isinstance(pose, LeftOut) else place_posed(landmarks, pose, camera, shape, self.number, cutter)
        self.in_use = isinstance(found, PhotoFace)
        return found

    def _posed(self, landmarks: ndarray, camera: ndarray, most: float) -> HeadPose | LeftOut:
        """From the last pose; where that does not fit any more, anew."""
        name, last, self.pose = f"face {self.number}", self.pose, None
        start = last or CUTTER.pose(landmarks, name, camera)
        if isinstance(start, LeftOut):
            return start
        try:
            pose = follow_pose(landmarks, camera, start)
        except ValueError as error:
            left_out = LeftOut(name, "no head pose fits the landmarks", str(error))
        else:
            if pose.relative_error <= most:
                self.pose = pose
                return pose
            left_out = LeftOut(name, "landmarks fit no face well", f"{pose.relative_error:.1%} of the eyes' spacing")
        return left_out if last is None else self._posed(landmarks, camera, most)


class Follower:
    """Frame by frame the faces of a video; `focal` is the camera's focal length in pixels, if known."""

    def __init__(self, focal: float | None = None) -> None:
        self.faces: list[Followed] = []
        self._focal, self._search_at = focal, -np.inf

    def __call__(self, pixels: ndarray, time: float) -> list[PhotoFace | LeftOut]:
        """The faces of the next frame (H, W, 3) uint8 RGB by their numbers. time: seconds, later than before."""
        before = self._here()
        for face in before:
            face.see(mesh.follow(pixels, face.seen))
        self._drop_twins()
        if time >= self._search_at:
            self._search_at = time + SEARCH_EVERY
            self._meet(_search(pixels, find_faces))
        elif len(before) != len(self._here()) or not before:
            self._meet(_search(pixels, _largest))
        camera, _ = photo_camera(pixels.shape, self._focal, 0.0)
        return [face.placed(time, camera, pixels.shape) for face in self._here()]

    def _here(self) -> list[Followed]:
        return [face for face in self.faces if face.here]

    def _drop_twins(self) -> None:
        """Two that were led to one face are one, the first of them."""
        here = self._here()
        for i, face in enumerate(here):
            if any(other.here and other.overlaps(face.seen) for other in here[:i]):
                face.here = False

    def _meet(self, found: Sequence[Face]) -> None:
        """Faces that are new, or come back to about where they were lost."""
        for face in found:
            if any(known.overlaps(face) for known in self._here()):
                continue
            lost = [known for known in self.faces if not known.here and known.distance(face) < NEAR]
            if lost:
                min(lost, key=lambda known: known.distance(face)).see(face)
            else:
                self.faces.append(Followed(len(self.faces) + 1, face))


def _largest(pixels: ndarray) -> list[Face]:
    face = find_largest(pixels)
    return [] if face is None else [face]


def _search(pixels: ndarray, finder: Callable[[ndarray], list[Face]]) -> list[Face]:
    """Faces of a frame, of large ones found in a copy and then measured in the frame itself."""
    shrink = SEARCHED / max(pixels.shape[:2])
    if shrink >= 1:
        return finder(pixels)
    copy = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    ratio = np.array(pixels.shape[1::-1]) / copy.shape[1::-1]
    rough = (replace(face, landmarks=(face.landmarks + 0.5) * ratio - 0.5) for face in finder(copy))
    return [face for face in (mesh.follow(pixels, one) for one in rough) if face is not None]


def _inside(one: Face, other: Face) -> bool:
    """Whether the middle of one lies in the box of another."""
    low, high = other.box
    middle = one.box.mean(axis=0)
    return bool((low < middle).all() and (middle < high).all())
