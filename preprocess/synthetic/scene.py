"""Geometry of a synthetic picture: the camera, the head's pose, where the eyes look, and what a scene is.

Camera of the ST-ED preprocessing: 500 px focal length at 128 px, the face centre (30 mm below the eyes)
600 mm in front of it, x right, y down, z forward. The optical axis meets the picture between the two middle
pixels, so that a mirrored scene is exactly a mirrored picture. Head frame: see `head.py`.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy import ndarray

PATCH_SIZE = 128  # pixels of the patch that lengths in pixels and homographies are of
FOCAL_128, DISTANCE = 500.0, 600.0
FACE_CENTRE = np.array([0.0, 30.0, 0.0])
EYE_X, EYE_Z = 32.5, 13.0
EYES = np.array([[-EYE_X, 0.0, EYE_Z], [EYE_X, 0.0, EYE_Z]])  # where lines of sight start, head frame; image left first


@dataclass(frozen=True)
class Framing:
    """How far a patch is from the normalised one, as detected landmarks place it: a turned camera, and a zoom.

    roll: radians, right-handed about the optical axis.  shift: of the face's centre, pixels at 128, right and down.
    """

    zoom: float = 1.0
    roll: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    def rotation(self, distance: float) -> ndarray:
        """(3, 3): from the exactly normalised camera's frame to the frame of the one that makes the patch.

        distance: of the camera from the face, mm.
        """
        x, y = np.array(self.shift) / (FOCAL_128 * self.zoom * distance / DISTANCE)
        cosine, sine = np.cos(self.roll), np.sin(self.roll)
        forward = np.array([x, y, 1.0]) / np.sqrt(1 + x * x + y * y)
        right = np.array([forward[2], 0.0, -forward[0]])
        right /= np.linalg.norm(right)
        (a, b, c), (d, _, f) = forward, right
        shifted = np.array([[d, b * f, a], [0.0, c * d - a * f, b], [f, -b * d, c]])
        return shifted @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


EXACT = Framing()


@dataclass(frozen=True)
class Scene:
    """What differs between pictures of a person.

    Angles are (pitch, yaw) as in `preprocess/normalization.py`.
    """

    gaze: tuple[float, float] = (0.0, 0.0)
    head: tuple[float, float] = (0.0, 0.0)
    smile: float = 0.0
    mouth_open: float = 0.0  # mm
    lid_open: float = 0.0  # mm more than the person's usual
    light: tuple[float, float, float] = (0.0, -0.45, -0.9)  # towards the light, camera frame
    light_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ambient: float = 0.42
    exposure: float = 1.0
    glint: float = 1.0
    backdrop_gain: float = 1.0
    backdrop_shift: tuple[float, float] = (0.0, 0.0)  # in picture widths
    backdrop_clutter: float = 0.0
    contrast: float = 1.0
    blur: float = 0.0  # sigma in pixels at 128
    noise: float = 0.0  # sigma in grey levels
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seed: int = 0
    noise_seed: int | None = None  # of the sensor's noise; None: goes with `seed`
    framing: Framing = EXACT
    distance: float = DISTANCE  # of the camera, mm; from further away faces look flatter, not smaller

    @property
    def is_normalized(self) -> bool:
        """Whether the camera is exactly the normalised one."""
        return self.framing == EXACT and self.distance == DISTANCE


@dataclass(frozen=True)
class View:
    """A person before the camera: where everything is in a picture of `size` pixels."""

    size: int
    rotation: ndarray  # head frame to camera frame
    gaze_directions: ndarray  # (2, 3) unit, head frame; image left first: the lines of sight
    pupil_axes: ndarray  # (2, 3) unit, head frame: where the pupils point, angle kappa off the lines of sight
    face_centre: ndarray = field(default_factory=lambda: np.array([0.0, 0.0, DISTANCE]), kw_only=True)  # camera frame
    zoom: float = field(default=1.0, kw_only=True)  # of the focal length, against the normalised camera's

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FOCAL_128 * self.zoom * self.size / 128

    @cached_property
    def distance(self) -> float:
        """From the camera to the face's centre, mm."""
        return float(np.linalg.norm(self.face_centre))

    @property
    def scale(self) -> float:
        """Size of things in the picture, 1 for the patch of 128 pixels."""
        return self.focal / FOCAL_128 * (DISTANCE / self.distance)

    @property
    def millimetre(self) -> float:
        """Pixels of a millimetre at the face."""
        return self.focal / self.distance

    @property
    def centre(self) -> float:
        """Pixel index of the optical axis, in both directions."""
        return self.size / 2 - 0.5

    @property
    def turn(self) -> ndarray:
        """(2, 2): a small step in the camera's x and y to the picture's, at the face's centre and at its scale."""
        return np.eye(2)

    @property
    def eye_point(self) -> ndarray:
        """The camera's position in the head frame."""
        return FACE_CENTRE - self.rotation.T @ self.face_centre

    @property
    def to_camera_matrix(self) -> ndarray:
        """(3, 4) float32: head frame to camera frame."""
        offset = self.face_centre - self.rotation @ FACE_CENTRE
        return np.column_stack([self.rotation, offset]).astype(np.float32)

    def to_camera(self, points: ndarray) -> ndarray:
        """(..., 3) mm from the head frame to the camera frame."""
        return (points - FACE_CENTRE) @ self.rotation.T + self.face_centre

    def to_pixels(self, x: ndarray, y: ndarray, z: ndarray) -> tuple[ndarray, ndarray]:
        """Pixel indices, columns and rows, of points in the camera frame; precision as given."""
        scale = self.focal / z
        return x * scale + self.centre, y * scale + self.centre

    def to_plane(self, columns: ndarray, rows: ndarray) -> tuple[ndarray, ndarray]:
        """x and y, (rows, columns) each, where the rays of a grid of pixels meet the camera's plane z = 1."""
        x, y = np.meshgrid((columns - self.centre) / self.focal, (rows - self.centre) / self.focal)
        return x, y

    def project(self, points: ndarray) -> ndarray:
        """(..., 3) mm in the head frame to (..., 2) pixel indices (column, row)."""
        camera = self.to_camera(np.asarray(points, np.float64))
        return np.stack(self.to_pixels(*np.moveaxis(camera, -1, 0)), axis=-1)


def head_rotation(pitch: float, yaw: float) -> ndarray:
    """Rotation without roll whose third column, the way into the head, has this pitch and yaw."""
    cp, sp, cy, sy = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return around_y @ around_x


def pitchyaw_to_direction(pitch: float, yaw: float) -> ndarray:
    """The direction looked at, camera frame; (0, 0) is into the camera."""
    return -np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])


def direction_to_pitchyaw(direction: ndarray) -> ndarray:
    """(..., 3) directions looked at, camera frame -> (..., 2) pitch and yaw in radians."""
    v = -direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.stack([np.arcsin(v[..., 1]), np.arctan2(v[..., 0], v[..., 2])], axis=-1)


def eye_directions(
    gaze: tuple[float, float], rotation: ndarray, eyes: ndarray = EYES, distance: float = DISTANCE
) -> ndarray:
    """Where each eye looks, (2, 3) unit vectors in the camera frame, image left first.

    The eyes meet on a target along the face's gaze, as far from the face centre (30 mm below the eyes) as the camera.
    eyes: (2, 3) their centres, head frame.  distance: of the target, mm.
    """
    centres = (eyes - FACE_CENTRE) @ rotation.T
    to_target = distance * pitchyaw_to_direction(*gaze) - centres
    return to_target / np.linalg.norm(to_target, axis=1, keepdims=True)


def off_the_line_of_sight(directions: ndarray, kappa: tuple[float, float]) -> ndarray:
    """Axes of the pupils of eyes that look along `directions`, both (2, 3) unit, head frame, image left first.

    kappa: (outwards, down) radians that a pupil's axis is off the line of sight, in the eye's own frame.
    """
    outwards, down = kappa
    axes = np.empty_like(directions)
    for eye, side in enumerate((-1.0, 1.0)):
        pitch, yaw = direction_to_pitchyaw(directions[eye])
        turn = head_rotation(pitch, yaw)  # its third column is away from what is looked at
        axes[eye] = turn @ pitchyaw_to_direction(-down, -side * outwards)
    return axes


def make_view(scene: Scene, size: int, eyes: ndarray = EYES, kappa: tuple[float, float] = (0.0, 0.0)) -> View:
    """The geometry of a scene, without painting anything. eyes, kappa: as in the functions above."""
    rotation = head_rotation(*scene.head)
    sight = eye_directions(scene.gaze, rotation, eyes, scene.distance) @ rotation
    axes = off_the_line_of_sight(sight, kappa)
    if scene.is_normalized:
        return View(size, rotation, sight, axes)
    turned = scene.framing.rotation(scene.distance)
    centre, zoom = turned @ (0.0, 0.0, scene.distance), scene.framing.zoom * scene.distance / DISTANCE
    return View(size, turned @ rotation, sight, axes, face_centre=centre, zoom=zoom)


def scene_labels(scene: Scene, eyes: ndarray = EYES) -> ndarray:
    """(8,) float32, radians, pitch before yaw: gaze, head, gaze of the eye at image left, at image right.

    They are the angles in the frame of the camera that makes the patch.  eyes: as in `eye_directions`.
    """
    rotation = head_rotation(*scene.head)
    sight = eye_directions(scene.gaze, rotation, eyes, scene.distance)
    if scene.is_normalized:
        angles = np.stack([scene.gaze, scene.head, *direction_to_pitchyaw(sight)])
    else:
        seen = np.stack([pitchyaw_to_direction(*scene.gaze), -rotation[:, 2], *sight])
        angles = direction_to_pitchyaw(seen @ scene.framing.rotation(scene.distance).T)
    return angles.ravel().astype(np.float32)


def unit(vectors: ndarray | tuple[float, float, float]) -> ndarray:
    """(..., 3) float32: vectors made a unit long."""
    v = np.asarray(vectors, np.float32)
    return v / np.maximum(np.sqrt((v * v).sum(axis=-1, keepdims=True)), np.float32(1e-6))


def light_direction(scene: Scene) -> ndarray:
    """Unit vector towards the light, camera frame."""
    return np.array(scene.light) / np.linalg.norm(scene.light)
