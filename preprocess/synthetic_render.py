"""Pictures of a synthetic person: a point atlas through the normalised camera, shaded, with eyes and glasses.

Camera of the ST-ED preprocessing: 500 px focal length at 128 px, the face centre (30 mm below the eyes) 600 mm in
front of it, x right, y down, z forward. The optical axis meets the picture between the two middle pixels, so that a
mirrored scene is exactly a mirrored picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy import ndarray

from .synthetic_eyes import paint_eyes, paint_glasses
from .synthetic_head import NECK_PIVOT, Person

FOCAL_128, DISTANCE = 500.0, 600.0
FACE_CENTRE = np.array([0.0, 30.0, 0.0])
NEAR, DEPTH_STEPS, INDEX_BITS = 380.0, 8.0, 17    # z-buffer keys: depth in 1/8 mm above 17 bits of point index
SHADOW_STEPS = (4.0, 8.0, 13.0, 20.0, 30.0, 42.0)


@dataclass(frozen=True)
class Scene:
    """What differs between pictures of a person. Angles are (pitch, yaw), radians; positive is up and image left."""

    gaze: tuple[float, float] = (0.0, 0.0)
    head: tuple[float, float] = (0.0, 0.0)
    smile: float = 0.0
    mouth_open: float = 0.0                     # mm
    lid_open: float = 0.0                       # mm more than the person's usual
    light: tuple[float, float, float] = (0.0, -0.45, -0.9)      # towards the light, camera frame
    light_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ambient: float = 0.42
    exposure: float = 1.0
    glint: float = 1.0
    backdrop_gain: float = 1.0
    backdrop_shift: tuple[float, float] = (0.0, 0.0)            # in picture widths
    backdrop_clutter: float = 0.0
    contrast: float = 1.0
    blur: float = 0.0                           # sigma in pixels at 128
    noise: float = 0.0                          # sigma in grey levels
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seed: int = 0


@dataclass
class View:
    """One person before the camera: where everything is."""

    size: int
    rotation: ndarray                           # head frame to camera frame
    focal: float
    gaze_directions: ndarray = field(default_factory=lambda: np.zeros((2, 3)))  # unit, head frame; image left first

    def to_camera(self, points: ndarray) -> ndarray:
        """(..., 3) mm from the head frame to the camera frame."""
        return (points - FACE_CENTRE) @ self.rotation.T + np.array([0.0, 0.0, DISTANCE])

    def project(self, points: ndarray) -> ndarray:
        """(..., 3) mm in the head frame to (..., 2) pixel indices (column, row)."""
        camera = self.to_camera(np.asarray(points, np.float64))
        return camera[..., :2] * (self.focal / camera[..., 2:]) + (self.size / 2 - 0.5)

    @property
    def eye_point(self) -> ndarray:
        """The camera's position in the head frame."""
        return FACE_CENTRE - self.rotation.T @ np.array([0.0, 0.0, DISTANCE])


def head_rotation(pitch: float, yaw: float) -> ndarray:
    """Rotation without roll whose third column, the way into the head, has this pitch and yaw."""
    cp, sp, cy, sy = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return around_y @ around_x


def make_view(scene: Scene, size: int) -> View:
    """The geometry of a scene, without painting anything."""
    from .synthetic_eyes import eye_directions

    rotation = head_rotation(*scene.head)
    view = View(size, rotation, FOCAL_128 * size / 128)
    view.gaze_directions = eye_directions(scene.gaze, view.rotation) @ rotation
    return view


def _pose(person: Person, scene: Scene) -> tuple[ndarray, ndarray]:
    """Points and normals in the head frame, with expression, and with the neck left behind by a turning head."""
    position, normal = person.position.copy(), person.normal
    rows = len(person.smile)
    face = position[:rows]
    if scene.smile:
        cv2.scaleAdd(person.smile, scene.smile, face, face)
    if scene.mouth_open:
        cv2.scaleAdd(person.jaw, scene.mouth_open, face, face)
    pitch, yaw = scene.head
    back = (head_rotation(*scene.head).T @ head_rotation(0.35 * pitch, 0.4 * yaw)).astype(np.float32)
    offset = NECK_PIVOT - back @ NECK_PIVOT
    position[person.neck] = cv2.transform(position[person.neck], np.column_stack([back, offset]))
    normal = normal.copy()
    normal[person.neck] = cv2.transform(normal[person.neck], back)
    return position, normal


def _splat(columns: ndarray, rows: ndarray, depth: ndarray, size: int) -> tuple[ndarray, ndarray]:
    """Which point each pixel sees: (size, size) indices, -1 where none, and a mask. Pits of one pixel are filled."""
    c = np.clip(columns + 1.5, 0, size + 1).astype(np.int32)
    r = np.clip(rows + 1.5, 0, size + 1).astype(np.int32)
    flat = (r * (size + 2) + c).ravel().astype(np.intp)
    key = ((depth.ravel() - NEAR) * DEPTH_STEPS).astype(np.int32) << INDEX_BITS
    key += np.arange(key.size, dtype=np.int32)
    far = np.iinfo(np.int32).max
    nearest = np.full((size + 2) ** 2, far, np.int32)
    np.minimum.at(nearest, flat, key)
    z = nearest.reshape(size + 2, size + 2).astype(np.float64)[1:-1, 1:-1]
    z = np.ascontiguousarray(z)
    box = np.ones((3, 3), np.uint8)
    for width in (3, 5):
        closed = cv2.morphologyEx(z, cv2.MORPH_OPEN, np.ones((width, width), np.uint8),
                                  borderType=cv2.BORDER_CONSTANT, borderValue=float(far))
        z = np.where(z - closed > 5 * DEPTH_STEPS * 2**INDEX_BITS, closed, z)
    hit = z < far
    grown = np.where(hit, z, cv2.erode(z, box))       # a rim of one pixel gives soft edges a colour
    index = (grown.astype(np.int64) & (2**INDEX_BITS - 1)).astype(np.intp)
    return np.where(grown < far, index, -1), hit


def _refine(index: ndarray, columns: ndarray, rows: ndarray, at: tuple[ndarray, ndarray]) -> tuple[ndarray, ndarray]:
    """Atlas coordinates (x, y) of the exact surface point behind each pixel: one Newton step from the nearest point."""
    height, width = columns.shape
    v, u = index // width, index % width
    v, u = np.clip(v, 1, height - 2), np.clip(u, 1, width - 2)
    k = v * width + u
    x, y = columns.ravel(), rows.ravel()
    xu, xv = x[k + 1] - x[k - 1], x[k + width] - x[k - width]
    yu, yv = y[k + 1] - y[k - 1], y[k + width] - y[k - width]
    dx, dy = 2 * (at[0] - x[k]), 2 * (at[1] - y[k])
    # Damped, so that where the surface turns away a step does not run over its horizon.
    uu, vv, uv = xu * xu + yu * yu + 0.05, xv * xv + yv * yv + 0.05, xu * xv + yu * yv
    along_u, along_v = dx * xu + dy * yu, dx * xv + dy * yv
    scale = 1 / (uu * vv - uv * uv)
    du = np.clip((along_u * vv - along_v * uv) * scale, -1.5, 1.5)
    dv = np.clip((along_v * uu - along_u * uv) * scale, -1.5, 1.5)
    return (u + du).astype(np.float32), (v + dv).astype(np.float32)


def _shadow(depth: ndarray, light: ndarray, focal: float) -> ndarray:
    """Light that reaches each pixel, 0 to 1: the depth map is searched towards the light at half size."""
    small = np.ascontiguousarray(depth[::2, ::2])
    scale = 0.5 * focal / DISTANCE
    blocked = np.zeros_like(small)
    for step in SHADOW_STEPS:
        shift = np.array([[1, 0, light[0] * step * scale], [0, 1, light[1] * step * scale]], np.float32)
        there = cv2.warpAffine(small, shift, small.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                               borderMode=cv2.BORDER_REPLICATE)
        gap = small + light[2] * step - there
        blocked = np.maximum(blocked, np.clip((gap - 1.5) * 0.5, 0, 1) * (gap < 45))
    lit = 1 - cv2.GaussianBlur(blocked, (0, 0), 1.1 * len(small) / 64)
    return cv2.resize(lit, depth.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _shade(normal: ndarray, colour: ndarray, lit: ndarray, scene: Scene, rotation: ndarray) -> ndarray:
    """Linear RGB: warm wrapped diffuse, sky from above, highlight."""
    light = np.array(scene.light) / np.linalg.norm(scene.light)
    half = light + (0, 0, -1)
    toward = np.stack([light, half / np.linalg.norm(half), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)]) @ rotation
    nl, nh, up, facing = cv2.split(cv2.transform(normal, toward.astype(np.float32)))
    key = 0.8 * lit
    sky = scene.ambient * (0.86 + 0.22 * up) * (0.62 + 0.38 * np.clip(facing, 0, 1))
    albedo = cv2.split(colour)
    shine = np.clip(nh, 0, 1)
    shine *= shine
    shine *= shine
    shine *= shine
    shine = 0.10 * albedo[3] * shine * shine * key
    out = np.empty((*nl.shape, 3), np.float32)
    for i, wrap in enumerate((0.30, 0.16, 0.12)):
        diffuse = np.clip((nl + wrap) * (1 / (1 + wrap)), 0, 1)
        out[..., i] = (albedo[i] * (diffuse * key * scene.light_rgb[i] + sky) + shine)
    return out


def _backdrop(person: Person, scene: Scene, size: int) -> ndarray:
    """Linear RGB of what is behind the person: a soft gradient, and blobs where clutter is asked for."""
    top, bottom = (np.array(c, np.float32) for c in person.identity.backdrop)
    line = np.linspace(0, 1, size, dtype=np.float32)
    ramp = np.clip(line[:, None] + 0.35 * (line[None] - 0.5) + scene.backdrop_shift[1], 0, 1)
    ramp = ramp + (0.25 * np.sin(6.3 * (line[None] + scene.backdrop_shift[0])) if scene.backdrop_clutter else 0)
    picture = top + (bottom - top) * ramp[..., None]
    if scene.backdrop_clutter:
        rng = np.random.default_rng(scene.seed)
        blobs = rng.uniform(-1, 1, (6, 6, 3)).astype(np.float32)
        blobs = cv2.resize(blobs, (size, size), interpolation=cv2.INTER_CUBIC)
        picture = picture * np.clip(1 + scene.backdrop_clutter * blobs, 0.1, 2)
    return (picture * scene.backdrop_gain).astype(np.float32)


_NOISE = np.random.default_rng(7).standard_normal(2**18).astype(np.float32)


def _develop(picture: ndarray, scene: Scene) -> ndarray:
    """Linear RGB to uint8: exposure, tone curve, contrast, blur and noise."""
    picture = np.sqrt(np.clip(picture * (np.float32(scene.exposure) * np.array(scene.tint, np.float32)), 0, 1.6))
    picture = picture * (1.12 - 0.14 * picture)
    size = picture.shape[0]
    if scene.contrast != 1.0:
        picture = (picture - 0.5) * np.float32(scene.contrast) + np.float32(0.5)
    if scene.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), scene.blur * size / 128)
    picture = picture * np.float32(255)
    if scene.noise:
        start = np.random.default_rng(scene.seed + 1).integers(0, len(_NOISE))
        picture += np.float32(scene.noise) * np.take(_NOISE, np.arange(start, start + picture.size), mode="wrap").reshape(
            picture.shape)
    return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)


def render(person: Person, scene: Scene, size: int = 128) -> ndarray:
    """The picture of a person in a scene: (size, size, 3) RGB uint8."""
    view = make_view(scene, size)
    position, normal = _pose(person, scene)
    r = view.rotation
    to_camera = np.column_stack([r, np.array([0, 0, DISTANCE]) - r @ FACE_CENTRE]).astype(np.float32)
    x, y, z = cv2.split(cv2.transform(position, to_camera))
    scale = np.float32(view.focal) / z
    centre = np.float32(size / 2 - 0.5)
    columns, rows = x * scale + centre, y * scale + centre

    grid = min(size, 128)
    ratio = grid / size
    index, hit = _splat((columns + 0.5) * ratio - 0.5, (rows + 0.5) * ratio - 0.5, z, grid)
    if grid != size:
        index = cv2.resize(index.astype(np.float64), (size, size), interpolation=cv2.INTER_NEAREST).astype(np.intp)
    line = np.arange(size, dtype=np.float32)
    u, v = _refine(np.maximum(index, 0), columns, rows, (line[None], line[:, None]))
    normal_seen = cv2.remap(normal, u, v, cv2.INTER_LINEAR)
    colour_seen = cv2.remap(person.colour, u, v, cv2.INTER_LINEAR)
    place = cv2.remap(position, u, v, cv2.INTER_LINEAR)
    depth = np.where(index >= 0, cv2.transform(place, to_camera[2:]), np.float32(DISTANCE + 300))

    light = np.array(scene.light) / np.linalg.norm(scene.light)
    lit = _shadow(depth, light, view.focal)
    shaded = _shade(normal_seen, colour_seen, lit, scene, r)
    paint_eyes(shaded, place, lit, person.identity, scene, view)
    cover = np.clip((cv2.GaussianBlur(hit.astype(np.float32), (5, 5), 1.1) - 0.36) * 2.2, 0, 1)
    if grid != size:
        cover = cv2.resize(cover, (size, size), interpolation=cv2.INTER_LINEAR)
    backdrop = _backdrop(person, scene, size)
    picture = backdrop + (shaded - backdrop) * (cover * (index >= 0))[..., None]
    paint_glasses(picture, depth, person.identity, scene, view)
    return _develop(picture, scene)
