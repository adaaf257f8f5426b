"""Eyes and glasses of a synthetic person, drawn exactly where the labels say.

An eye is a hole in the skin, seen in the skin's own frontal coordinates (so noses and lids cover it as they should),
behind which a ray meets a painted ball.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy import ndarray

from .synthetic_head import EYE_RADIUS, EYE_X, EYE_Z
from .synthetic_person import Identity

if TYPE_CHECKING:
    from .synthetic_render import Scene, View

EYES = np.array([[-EYE_X, 0.0, EYE_Z], [EYE_X, 0.0, EYE_Z]])      # centres, head frame; image left first
PUPIL_RADIUS = 2.7
TARGET_DISTANCE = 600.0                                           # the eyes meet this far along the gaze


def pitchyaw_to_direction(pitch: float, yaw: float) -> ndarray:
    """The direction looked at, camera frame: (0, 0) is into the camera, up and image left are positive."""
    return -np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])


def direction_to_pitchyaw(direction: ndarray) -> ndarray:
    """(..., 3) directions looked at, camera frame -> (..., 2) pitch and yaw in radians."""
    v = -direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.stack([np.arcsin(v[..., 1]), np.arctan2(v[..., 0], v[..., 2])], axis=-1)


def eye_directions(gaze: tuple[float, float], rotation: ndarray) -> ndarray:
    """Where each eye looks, (2, 3) unit vectors in the camera frame, image left first.

    The eyes meet on a target 600 mm from the face centre (30 mm below the eyes) along the face's gaze.
    """
    centres = (EYES - (0.0, 30.0, 0.0)) @ rotation.T
    to_target = TARGET_DISTANCE * pitchyaw_to_direction(*gaze) - centres
    return to_target / np.linalg.norm(to_target, axis=1, keepdims=True)


def pupil_points(directions: ndarray) -> ndarray:
    """Centres of the pupils' discs, (2, 3) mm in the head frame, for unit directions in the head frame."""
    return EYES + np.sqrt(EYE_RADIUS**2 - PUPIL_RADIUS**2) * directions


def _opening(identity: Identity, scene: Scene, x: ndarray, y: ndarray, side: float, pitch: float) -> tuple[ndarray, ndarray]:
    """Signed distances (mm, positive inside) to the upper and the lower lid at frontal skin coordinates."""
    outward = (x - side * EYE_X) * side
    t = np.clip(outward / identity.eye_width, -1, 1)
    arch = np.clip(1 - t * t, 0, 1)
    slope = -identity.eye_tilt * outward
    follow = np.clip(EYE_RADIUS * np.sin(pitch) * 0.55, -4.5, 2.0)
    upper = -(identity.lid_upper + scene.lid_open + follow) * arch**0.62 * (1 - 0.12 * t)
    lower = (identity.lid_lower + scene.lid_open - 0.35 * follow) * arch**0.75 * (1 + 0.12 * t)
    return y - (upper + slope), (lower + slope) - y


def _edge(distance: ndarray, width: float) -> ndarray:
    return np.clip(distance * np.float32(1 / width) + 0.5, 0, 1)


def _ball(identity: Identity, scene: Scene, view: View, rays: ndarray, eye: int, pixel: float) -> tuple[ndarray, ndarray]:
    """Colour of the eyeball along rays (h, w, 3) in the head frame, and the unit normal where they meet it."""
    offset = (view.eye_point - EYES[eye]).astype(np.float32)
    gaze = view.gaze_directions[eye].astype(np.float32)
    a, b = np.einsum("hwc,hwc->hw", rays, rays), rays @ offset
    root = np.sqrt(np.maximum(b * b - a * np.float32(offset @ offset - EYE_RADIUS**2), 0))
    q = (offset + rays * ((-b - root) / a)[..., None]) / np.float32(EYE_RADIUS)
    cosine = np.clip(q @ gaze, -1, 1)
    chord = np.sqrt(np.maximum(1 - cosine * cosine, 0)) * np.float32(EYE_RADIUS)
    chord = np.where(cosine > 0, chord, 2 * EYE_RADIUS).astype(np.float32)
    white = np.array([0.80, 0.76, 0.73], np.float32)
    iris = np.array(identity.iris, np.float32)
    ring = _edge(chord - 0.80 * identity.iris_radius, 1.6)
    glow = 1.5 - 0.7 * ring + 0.5 * np.exp(-(((chord - 3.6) / 1.0) ** 2)) + 0.35 * np.clip(q[..., 1] * 3, -1, 1)
    colour = iris * glow[..., None]
    colour = colour + (white - colour) * _edge(chord - identity.iris_radius, pixel)[..., None]
    colour = colour * _edge(chord - PUPIL_RADIUS, pixel)[..., None]
    return colour, q


def paint_eyes(picture: ndarray, place: ndarray, lit: ndarray, identity: Identity, scene: Scene, view: View) -> None:
    """Paints both eyes into a linear RGB picture; `place` holds the skin's head-frame coordinates a pixel."""
    pixel = DISTANCE_PER_PIXEL / view.focal
    reach = int(np.ceil(21 / pixel))
    for eye, side in enumerate((-1.0, 1.0)):
        column, row = np.rint(view.project(EYES[eye] - (0, 0, EYE_RADIUS))).astype(int)
        rows = slice(max(row - reach * 3 // 4, 0), max(row + reach * 3 // 4, 0))
        columns = slice(max(column - reach, 0), max(column + reach, 0))
        if picture[rows, columns].size:
            _paint_eye(picture[rows, columns], place[rows, columns], lit[rows, columns], (rows.start, columns.start),
                       identity, scene, view, eye, side, pixel)


DISTANCE_PER_PIXEL = 600.0


def _paint_eye(
    patch: ndarray, place: ndarray, lit: ndarray, origin: tuple[int, int], identity: Identity, scene: Scene, view: View,
    eye: int, side: float, pixel: float,
) -> None:
    h, w = patch.shape[:2]
    x, y = place[..., 0], place[..., 1]
    pitch = -float(np.arcsin(view.gaze_directions[eye][1]))
    above, below = _opening(identity, scene, x, y, side, pitch)
    skin_here = (place[..., 2] < 45) & (np.abs(x - side * EYE_X) < identity.eye_width + 3)
    inside = np.minimum(above, below)
    hole = _edge(inside, pixel) * skin_here
    centre = view.size / 2 - 0.5
    rays = np.empty((h, w, 3), np.float32)
    rays[..., 0] = ((np.arange(w) + (origin[1] - centre)) / view.focal)[None]
    rays[..., 1] = ((np.arange(h) + (origin[0] - centre)) / view.focal)[:, None]
    rays[..., 2] = 1
    colour, q = _ball(identity, scene, view, rays @ view.rotation.astype(np.float32), eye, pixel)
    colour = colour * _eye_light(scene, view, q, lit, above)[..., None]
    inner = np.clip((-(x - side * EYE_X) * side - 0.72 * identity.eye_width) / 4, 0, 1)[..., None]
    colour = colour + (np.array([0.42, 0.17, 0.15], np.float32) - colour) * (0.8 * inner)
    glint = _glint(scene, view, q, eye)
    colour = colour + glint[..., None]
    lash = np.exp(-(((above + 0.5) / 0.95) ** 2)) * _edge(below + 1, 2) * 0.82 + np.exp(-(((below + 0.3) / 0.7) ** 2)) * (
        0.35 * _edge(above + 1, 2))
    patch += (colour - patch) * hole[..., None]
    patch *= 1 - (lash * skin_here * (inside > -3))[..., None]


def _eye_light(scene: Scene, view: View, q: ndarray, lit: ndarray, above: ndarray) -> ndarray:
    light = (np.array(scene.light) / np.linalg.norm(scene.light) @ view.rotation).astype(np.float32)
    diffuse = np.clip((q @ light + 0.35) / 1.35, 0, 1)
    under_lid = 0.55 + 0.45 * np.clip(above / 4.0, 0, 1)
    return (0.85 * diffuse * (0.35 + 0.65 * lit) + scene.ambient) * under_lid


def _glint(scene: Scene, view: View, q: ndarray, eye: int) -> ndarray:
    if not scene.glint:
        return np.zeros(q.shape[:2], np.float32)
    light = np.array(scene.light) / np.linalg.norm(scene.light) @ view.rotation
    to_camera = view.eye_point / np.linalg.norm(view.eye_point)
    half = light + to_camera
    spot = half / np.linalg.norm(half) * 0.45 + view.gaze_directions[eye] * 0.75
    spot = (spot / np.linalg.norm(spot)).astype(np.float32)
    return np.float32(1.1 * scene.glint) * np.exp((q @ spot - 1) * np.float32(260))


def _rim(style: str, side: float) -> ndarray:
    """Outline of one glass, (n, 3) mm in the head frame."""
    a = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    power = 1.0 if style == "round" else 0.55
    u = np.sign(np.cos(a)) * np.abs(np.cos(a)) ** power
    v = np.sign(np.sin(a)) * np.abs(np.sin(a)) ** power
    half_width, half_height = (21.5, 20.0) if style == "round" else (23.5, 16.5)
    x = side * 34.0 + u * half_width
    return np.stack([x, 4 + v * half_height, -21 + 0.006 * x * x], axis=1)


def paint_glasses(picture: ndarray, depth: ndarray, identity: Identity, scene: Scene, view: View) -> None:
    """Draws rims, bridge and temples, hidden where the head is nearer to the camera."""
    if identity.glasses == "none":
        return
    lines = [np.linspace((-13, 0, -22), (13, 0, -22), 8)]
    for side in (-1.0, 1.0):
        rim = _rim(identity.glasses, side)
        rim = np.concatenate([rim, rim[:1]])
        lines.append(rim[20:41] if identity.glasses == "half" else rim)
        hinge = side * (69 * identity.face_width + 1)
        lines.append(np.linspace((side * 56.5, -4, -2), (hinge, -4, 8), 6))
        lines.append(np.linspace((hinge, -4, 8), (side * (72 * identity.face_width + 5), -1, 74), 24))
    mask = np.zeros(picture.shape[:2], np.uint8)
    for line in lines:
        _draw_visible(mask, line, depth, view)
    cover = mask.astype(np.float32) * np.float32(1 / 255)
    picture += (np.array(identity.glasses_rgb, np.float32) - picture) * cover[..., None]


def _draw_visible(mask: ndarray, line: ndarray, depth: ndarray, view: View) -> None:
    size, at = view.size, view.project(line)
    near = view.to_camera(line)[:, 2]
    pixel = np.clip(np.rint(at).astype(int), 0, size - 1)
    seen = near < depth[pixel[:, 1], pixel[:, 0]] + 3
    points = np.rint(at * 16).astype(np.int32)
    thickness = max(1, round(size * 1.6 / 128))
    for i in np.flatnonzero(seen[:-1] & seen[1:]):
        cv2.line(mask, points[i].tolist(), points[i + 1].tolist(), 255, thickness, cv2.LINE_AA, 4)
