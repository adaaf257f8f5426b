"""FFHQ-aligned pictures of synthetic persons: the same scenes as in the patches, seen by an un-normalised camera.

A physical camera at the place of the normalised one has the face off its axis and is held askew; its picture is
aligned by the landmarks as FFHQ is. So one homography, exact for every pixel, takes the aligned face to the patch.
The aligned face is rendered as such, not resampled, and shows more: hair, neck, background.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy import ndarray

from preprocess.normalization import ST_ED, ffhq_matrix, homography_aligned_to_patch
from preprocess.synthetic.eyes import lid_heights
from preprocess.synthetic.head import EAR_ROWS, HEAD_ROWS, NECK_ROWS, Person, build_person
from preprocess.synthetic.person import draw_identity
from preprocess.synthetic.render import develop, draw_backdrop, paint, pose
from preprocess.synthetic.samples import DOMAINS, draw_scene, scene_labels
from preprocess.synthetic.scene import EYE_X, Scene, View, make_view
from preprocess.synthetic.shapes import mouth_line, smooth

PATCH_SIZE = ST_ED.size  # pixels of the patch that the homographies lead to
ROLL, OFF_AXIS = 12.0, 14.0  # degrees at most: of the physical camera, and of the face from its axis either way
LANDMARKS = (*range(36, 48), 30, 48, 54)  # of the 68: round the eyes, nose tip, mouth corners; image left first
_STREAM = 1  # of random numbers, apart from the scene's own


@dataclass(frozen=True)
class AlignedView(View):
    """A view whose pixels are a homography of the normalised camera's plane; all else is the normalised camera's.

    plane: (3, 3), points of the plane z = 1 of the normalised camera to pixel indices.
    """

    plane: ndarray

    @property
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


def complete(person: Person) -> Person:
    """The person with what no patch shows: long hair runs on under that of the scalp, and shoulders further down."""
    position = person.position.copy()
    position[person.neck, :, 1] += 1.5 * np.maximum(position[person.neck, :, 1] - 132, 0)
    hair = position[HEAD_ROWS + EAR_ROWS + NECK_ROWS :]
    inwards = 1 - 0.22 * (1 - smooth(hair[..., 1], -64, -36))
    hair[..., 0] *= inwards
    hair[..., 2] = 74 + (hair[..., 2] - 74) * inwards
    return replace(person, position=position)


def camera_rotation(rng: np.random.Generator) -> ndarray:
    """A physical camera's pose, (3, 3): rotation from the normalised camera's frame to its own."""
    roll, pan, tilt = np.deg2rad(rng.uniform(-1, 1, 3) * (ROLL, OFF_AXIS, OFF_AXIS))
    # Rodrigues' formula, by OpenCV: right-handed turns about z, y and x.
    about_z, about_y, about_x = (cv2.Rodrigues(axis)[0] for axis in np.diag([tilt, pan, roll])[::-1])
    return about_z @ about_y @ about_x


def find_landmarks(person: Person) -> ndarray:
    """Where in the atlas LANDMARKS are in the face at rest, (15, 2) row and column of the nearest points."""
    identity = person.identity
    wanted: list[tuple[float, float]] = []
    for side in (-1.0, 1.0):
        outward = identity.eye_width * np.array([-1, -1 / 3, 1 / 3, 1, 1 / 3, -1 / 3])
        upper, lower = lid_heights(identity, outward)
        y = np.concatenate([upper[:4], lower[4:]])
        wanted += zip(side * (EYE_X + outward), y, strict=True)
    corners = identity.mouth_width * np.array([-1.0, 1.0])
    wanted += zip(corners, mouth_line(identity, corners), strict=True)
    head = person.position[:HEAD_ROWS]
    behind = 1e6 * (head[..., 2] > 45)
    found = [np.argmin(np.hypot(head[..., 0] - x, head[..., 1] - y) + behind) for x, y in wanted]
    rows, columns = np.unravel_index(found, head.shape[:2])
    places = np.column_stack([rows, columns])
    return np.concatenate([places[:12], [person.nose_tip], places[12:]])


def face_landmarks(person: Person, scene: Scene, places: ndarray) -> ndarray:
    """LANDMARKS with the scene's expression, mm in the head frame: (68, 3), NaN but for these.

    places: of `find_landmarks`.
    """
    landmarks = np.full((68, 3), np.nan)
    landmarks[list(LANDMARKS)] = pose(person, scene)[tuple(places.T)]
    return landmarks


def five_points(landmarks: ndarray) -> ndarray:
    """(68, n) landmarks to (5, n): middles of the eyes, nose tip, mouth corners; image left first."""
    return np.stack([landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0), *landmarks[[30, 48, 54]]])


def aligned_view(scene: Scene, landmarks: ndarray, camera: ndarray, size: int) -> AlignedView:
    """The view that FFHQ's alignment makes of the physical camera's picture.

    landmarks: of `face_landmarks`.  camera: of `camera_rotation`.
    """
    view = make_view(scene, size)
    seen = view.to_camera(landmarks) @ camera.T
    flat = seen[:, :2] / seen[:, 2:]  # the focal length is lost in the alignment: 1 will do
    return AlignedView(size, view.rotation, view.gaze_directions, ffhq_matrix(flat, size) @ camera)


def to_patch(view: AlignedView) -> ndarray:
    """(3, 3) homography: pixel indices of the aligned face to those of the patch of PATCH_SIZE."""
    return homography_aligned_to_patch(view.plane, ST_ED.camera_matrix)


def render_aligned(
    person: Person, scene: Scene, places: ndarray, camera: ndarray, size: int
) -> tuple[ndarray, ndarray, ndarray]:
    """The aligned face of a person in a scene; below 256 pixels rendered at twice the size and averaged.

    places: of `find_landmarks`.  camera: of `camera_rotation`.
    Returns pixels (size, size, 3) RGB uint8, the homography to the patch (3, 3) and, in aligned pixels, the
    `five_points` (5, 2).
    """
    landmarks = face_landmarks(person, scene, places)
    fine = aligned_view(scene, landmarks, camera, min(2 * size, max(size, 256)))
    behind = cv2.warpPerspective(
        draw_backdrop(person, scene, PATCH_SIZE),
        to_patch(fine),
        (fine.size, fine.size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    picture = paint(person, scene, fine, behind)
    view = aligned_view(scene, landmarks, camera, size)
    if fine.size != size:
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return develop(picture, scene, view.scale), to_patch(view), five_points(view.project(landmarks))


def render_aligned_person(
    seed: int, domain_index: int, person_index: int, samples: int, aligned_size: int, variation: float
) -> dict[str, ndarray]:
    """All aligned faces of one person, from the arguments alone; the scenes are those of `render_person`.

    Returns pixels (samples, aligned_size, aligned_size, 3) RGB uint8, labels (samples, 8) float32, and float64
    homography (samples, 3, 3) and points (samples, 5, 2).
    """
    key = [seed, domain_index, person_index]
    person = complete(build_person(draw_identity(np.random.default_rng([*key, 0]))))
    places = find_landmarks(person)
    pixels = np.empty((samples, aligned_size, aligned_size, 3), np.uint8)
    labels, homography = np.empty((samples, 8), np.float32), np.empty((samples, 3, 3))
    points = np.empty((samples, 5, 2))
    for i in range(samples):
        scene = draw_scene(np.random.default_rng([*key, i + 1]), DOMAINS[domain_index], variation)
        camera = camera_rotation(np.random.default_rng([*key, i + 1, _STREAM]))
        pixels[i], homography[i], points[i] = render_aligned(person, scene, places, camera, aligned_size)
        labels[i] = scene_labels(scene)
    return {"pixels": pixels, "labels": labels, "homography": homography, "points": points}
