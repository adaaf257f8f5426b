"""Eyes and glasses of a synthetic person, drawn exactly where the labels say.

An eye is a hole in the skin, in the skin's own frontal coordinates (so noses and lids cover it as they
should), behind which a ray meets a white ball, and on it the flat disc of the iris, which turns as a real one.
"""

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.anatomy import CORNEA_DISTANCE, CORNEA_RADIUS, LIMBUS_DISTANCE, pupil_centres
from preprocess.synthetic.drawn.person import Identity
from preprocess.synthetic.drawn.shapes import BALL_RADIUS
from preprocess.synthetic.scene import DISTANCE, EYE_X, EYES, Scene, View, light_direction

PUPIL_RADIUS = 2.7
LIMBUS_DEPTH = 15.2  # before the ball's centre when the eye looks ahead: there a disc of 6.4 mm ends on the ball
ROTATION_CENTRES = EYES - (0, 0, LIMBUS_DEPTH - LIMBUS_DISTANCE)

SCLERA = np.array([0.80, 0.76, 0.73], np.float32)  # linear RGB
TEAR_DUCT = np.array([0.42, 0.17, 0.15], np.float32)


def _opening(identity: Identity, scene: Scene, outward: ndarray, y: ndarray, pitch: float) -> tuple[ndarray, ndarray]:
    """Signed distances (mm, positive inside) to the upper and the lower lid at frontal skin coordinates.

    outward: from the eye's middle towards the temple.  pitch: of the eye in the head; the lids follow it.
    """
    upper, lower = lid_heights(identity, outward, scene.lid_open, pitch)
    return y - upper, lower - y


def lid_heights(
    identity: Identity, outward: ndarray, lid_open: float = 0.0, pitch: float = 0.0
) -> tuple[ndarray, ndarray]:
    """y (mm) of the upper and the lower lid's rim; `outward` and `pitch` as in `_opening`."""
    t = np.clip(outward / identity.eye_width, -1, 1)
    arch = np.clip(1 - t * t, 0, 1)
    slope = -identity.eye_tilt * outward
    follow = np.clip(BALL_RADIUS * np.sin(pitch) * 0.55, -4.5, 2.0)
    upper = -(identity.lid_upper + lid_open + follow) * arch**0.62 * (1 - 0.12 * t)
    lower = (identity.lid_lower + lid_open - 0.35 * follow) * arch**0.75 * (1 + 0.12 * t)
    return upper + slope, lower + slope


def _edge(distance: ndarray, width: float) -> ndarray:
    """0 to 1 over `width` mm around distance 0."""
    return np.clip(distance * np.float32(1 / width) + 0.5, 0, 1)


def _ball(view: View, rays: ndarray, eye: int) -> ndarray:
    """Unit normals of the white ball where rays (h, w, 3) in the head frame meet it."""
    offset = ((view.eye_point - EYES[eye]) / BALL_RADIUS).astype(np.float32)
    a, b = cv2.transform(rays * rays, np.ones((1, 3))), cv2.transform(rays, offset[None])
    root = np.sqrt(np.maximum(b * b - a * np.float32(offset @ offset - 1), 0))
    return offset - rays * ((b + root) / a)[..., None]


def _disc(view: View, rays: ndarray, eye: int) -> ndarray:
    """From the pupil's middle to where rays (h, w, 3) meet the iris' plane, mm; far away where it is not seen."""
    axis = view.pupil_axes[eye]
    offset = view.eye_point - pupil_centres(ROTATION_CENTRES, view.pupil_axes)[eye]
    height = np.float32(max(offset @ axis, 0.0))
    descent = np.minimum(cv2.transform(rays, axis[None]), np.float32(-0.05))
    return offset.astype(np.float32) - rays * (height / descent)[..., None]


def _colour(identity: Identity, on_disc: ndarray, pixel: float) -> ndarray:
    """Colour of the eye, white, iris and pupil, at places (h, w, 3) of `_disc`."""
    from_pupil = np.sqrt(cv2.transform(on_disc * on_disc, np.ones((1, 3))))
    ring = 0.7 * _edge(from_pupil - 0.80 * identity.iris_radius, 1.6) - 0.5 * np.exp(-((from_pupil - 3.6) ** 2))
    colour = np.array(identity.iris, np.float32) * (1.5 - ring + np.float32(0.06) * on_disc[..., 1])[..., None]
    colour += (SCLERA - colour) * _edge(from_pupil - identity.iris_radius, pixel)[..., None]
    colour *= _edge(from_pupil - PUPIL_RADIUS, pixel)[..., None]
    return colour


def paint_eyes(picture: ndarray, place: ndarray, lit: ndarray, identity: Identity, scene: Scene, view: View) -> None:
    """Paints both eyes into a linear RGB picture; `place` holds the skin's head-frame coordinates a pixel."""
    reach = int(np.ceil(21 * view.focal / DISTANCE))
    for eye in (0, 1):
        column, row = np.rint(view.project(EYES[eye] - (0, 0, BALL_RADIUS))).astype(int)
        rows = slice(max(row - reach * 3 // 4, 0), max(row + reach * 3 // 4, 0))
        columns = slice(max(column - reach, 0), max(column + reach, 0))
        window = rows, columns
        if picture[window].size:
            rays = _rays(view, *(np.arange(view.size)[part] for part in window))
            _paint_eye(picture[window], place[window], lit[window], rays, identity, scene, view, eye)


def _rays(view: View, rows: ndarray, columns: ndarray) -> ndarray:
    """Ways of light through pixels, (rows, columns, 3) float32 in the head frame, not normalised."""
    x, y = view.to_plane(columns, rows)
    return cv2.transform(np.dstack([x, y, np.ones_like(x)]).astype(np.float32), view.rotation.T)


def _paint_eye(
    patch: ndarray,
    place: ndarray,
    lit: ndarray,
    rays: ndarray,
    identity: Identity,
    scene: Scene,
    view: View,
    eye: int,
) -> None:
    side, pixel = (-1.0, 1.0)[eye], DISTANCE / view.focal
    outward, y = (place[..., 0] - side * EYE_X) * side, place[..., 1]
    pitch = -float(np.arcsin(view.gaze_directions[eye][1]))
    above, below = _opening(identity, scene, outward, y, pitch)
    skin_here = (place[..., 2] < 45) & (np.abs(outward) < identity.eye_width + 3)
    colour, q = _colour(identity, _disc(view, rays, eye), pixel), _ball(view, rays, eye)
    colour *= _eye_light(scene, view, q, lit, above)[..., None]
    inner = np.clip((-outward - 0.72 * identity.eye_width) / 4, 0, 1)[..., None]
    colour += (TEAR_DUCT - colour) * (0.8 * inner) + _glint(scene, view, q, eye)[..., None]
    hole = _edge(np.minimum(above, below), pixel) * skin_here
    patch += (colour - patch) * hole[..., None]
    corner = np.clip(6 * (1 - np.abs(outward) / (identity.eye_width + 0.5)), 0, 1)
    patch *= 1 - (_lashes(identity, above, below) * corner * skin_here)[..., None]


def _lashes(identity: Identity, above: ndarray, below: ndarray) -> ndarray:
    """Darkness of the lids' rims, 0 to 1."""
    thick = identity.lashes
    upper = (
        min(0.95 * thick, 0.95) * np.exp(-(((above + 0.55 * thick) / (0.5 + 0.5 * thick)) ** 2)) * _edge(below + 1, 2)
    )
    lower = 0.4 * thick * np.exp(-(((below + 0.3) / 0.7) ** 2)) * _edge(above + 1, 2)
    return (upper + lower) * (np.minimum(above, below) > -3)


def _eye_light(scene: Scene, view: View, q: ndarray, lit: ndarray, above: ndarray) -> ndarray:
    """Light on the eyeball: less in the shade of the upper lid."""
    light = light_direction(scene) @ view.rotation
    diffuse = np.clip((cv2.transform(q, light[None]) + 0.35) / 1.35, 0, 1)
    under_lid = 0.55 + 0.45 * np.clip(above / 4.0, 0, 1)
    return (0.85 * diffuse * (0.35 + 0.65 * lit) + scene.ambient) * under_lid


def _glint(scene: Scene, view: View, q: ndarray, eye: int) -> ndarray:
    """The light's reflection in the cornea, which follows the gaze half as far as the iris does."""
    if not scene.glint:
        return np.zeros(q.shape[:2], np.float32)
    light = light_direction(scene) @ view.rotation
    to_camera = view.eye_point / np.linalg.norm(view.eye_point)
    half = (light + to_camera) / np.linalg.norm(light + to_camera)
    cornea = ROTATION_CENTRES[eye] + CORNEA_DISTANCE * view.pupil_axes[eye]
    spot = cornea + CORNEA_RADIUS * half - EYES[eye]
    before = spot @ to_camera
    spot += (np.sqrt(before**2 - spot @ spot + BALL_RADIUS**2) - before) * to_camera  # where it is seen on the ball
    return np.float32(1.1 * scene.glint) * np.exp((cv2.transform(q, spot[None] / BALL_RADIUS) - 1) * np.float32(260))


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
        hinge = side * (54 * identity.face_width + 9)
        lines.append(np.linspace((side * 56.5, -4, -2), (hinge, -4, 3), 6))
        if side * scene.head[1] > -0.1:  # the far temple is behind the face
            lines.append(np.linspace((hinge, -4, 3), (side * (72 * identity.face_width + 3), -1, 76), 24))
    mask = np.zeros(picture.shape[:2], np.uint8)
    for line in lines:
        _draw_visible(mask, line, depth, view)
    cover = mask.astype(np.float32) * np.float32(1 / 255)
    picture += (np.array(identity.glasses_rgb, np.float32) - picture) * cover[..., None]


def _draw_visible(mask: ndarray, line: ndarray, depth: ndarray, view: View) -> None:
    at = view.project(line)
    near = view.to_camera(line)[:, 2]
    pixel = np.clip(np.rint(at).astype(int), 0, view.size - 1)
    seen = near < depth[pixel[:, 1], pixel[:, 0]] + 3
    points = np.rint(at * 16).astype(np.int32)
    thickness = max(1, round(1.6 * view.scale))
    breaks = np.flatnonzero(seen[1:] != seen[:-1]) + 1
    runs = zip(np.split(points, breaks), np.split(seen, breaks), strict=True)
    visible = [run for run, shown in runs if shown[0] and len(run) > 1]
    cv2.polylines(mask, visible, False, 255, thickness, cv2.LINE_AA, 4)
