"""Pictures of a synthetic person: a point atlas through the normalised camera, with eyes and glasses.

The points' z-buffer tells each pixel its nearest atlas point; one Newton step on the projected atlas then
gives the exact place in the atlas, from which colours and normals are interpolated.
"""

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.drawn.eyes import paint_eyes, paint_glasses
from preprocess.synthetic.drawn.head import NECK_PIVOT, Person
from preprocess.synthetic.scene import DISTANCE, Scene, View, head_rotation, light_direction, make_view

NEAR, DEPTH_STEPS, INDEX_BITS = 380.0, 8.0, 17  # keys: depth in 1/8 mm above a point index
_FAR = np.iinfo(np.int32).max
SHADOW_STEPS = (4.0, 8.0, 13.0, 20.0, 30.0, 42.0)


def pose(person: Person, scene: Scene) -> ndarray:
    """Points in the head frame, with expression; the neck turns less than the head (its shading does not)."""
    position = person.position.copy()
    face = position[: len(person.smile)]
    if scene.smile:
        cv2.scaleAdd(person.smile, scene.smile, face, face)
    if scene.mouth_open:
        cv2.scaleAdd(person.jaw, scene.mouth_open, face, face)
    pitch, yaw = scene.head
    back = (head_rotation(*scene.head).T @ head_rotation(0.35 * pitch, 0.4 * yaw)).astype(np.float32)
    moved = np.column_stack([back, NECK_PIVOT - back @ NECK_PIVOT])
    position[person.neck] = cv2.transform(position[person.neck], moved)
    return position


def _nearest(columns: ndarray, rows: ndarray, depth: ndarray, size: int) -> ndarray:
    """Z-buffer of points: (size, size) float64 keys, depth above the point's index; _FAR where empty."""
    # Points outside land on a border that is cut off.
    c = np.clip(columns + 1.5, 0, size + 1).astype(np.int32)
    r = np.clip(rows + 1.5, 0, size + 1).astype(np.int32)
    key = ((depth.ravel() - NEAR) * DEPTH_STEPS).astype(np.int32) << INDEX_BITS
    key += np.arange(key.size, dtype=np.int32)
    nearest = np.full((size + 2) ** 2, _FAR, np.int32)
    np.minimum.at(nearest, (r * (size + 2) + c).ravel().astype(np.intp), key)
    # float64: OpenCV's filters take no int32, and float32 has too few digits.
    return nearest.reshape(size + 2, size + 2)[1:-1, 1:-1].astype(np.float64)


def _splat(columns: ndarray, rows: ndarray, depth: ndarray, size: int) -> tuple[ndarray, ndarray]:
    """Which point each pixel sees: (size, size) indices, -1 where none, and where there is a person."""
    z = _nearest(columns, rows, depth, size)
    for width in (3, 5):  # pits between points are as deep as what is behind: close them
        closed = cv2.morphologyEx(z, cv2.MORPH_OPEN, np.ones((width, width), np.uint8), borderType=cv2.BORDER_REPLICATE)
        z = np.where(z - closed > 5 * DEPTH_STEPS * 2**INDEX_BITS, closed, z)
    hit = z < _FAR
    # A rim of one pixel gives soft edges a colour.
    z = np.where(hit, z, cv2.erode(z, np.ones((3, 3), np.uint8)))
    index = (z.astype(np.int64) & (2**INDEX_BITS - 1)).astype(np.intp)
    return np.where(z < _FAR, index, -1), hit


def _refine(
    index: ndarray, columns: ndarray, rows: ndarray, at: tuple[ndarray, ndarray], tolerance: float
) -> tuple[ndarray, ndarray, ndarray]:
    """One Newton step from the nearest point to the surface point that each pixel sees.

    Returns its atlas coordinates x and y, and whether the step got there, within `tolerance` pixels (not where a
    pit was closed).
    """
    height, width = columns.shape
    v, u = np.divmod(index.astype(np.int32), np.int32(width))
    np.clip(v, 1, height - 2, out=v)
    np.clip(u, 1, width - 2, out=u)
    k = v.astype(np.intp) * width + u
    x, y = columns.ravel(), rows.ravel()

    def change(step: int) -> list[ndarray]:
        return [p.take(k + step, mode="clip") - p.take(k - step, mode="clip") for p in (x, y)]

    (xu, yu), (xv, yv) = change(1), change(width)
    dx, dy = 2 * (at[0] - x.take(k, mode="clip")), 2 * (at[1] - y.take(k, mode="clip"))
    # Damped, so that where the surface turns away a step does not run over its horizon.
    uu, vv, uv = xu * xu + yu * yu + 0.05, xv * xv + yv * yv + 0.05, xu * xv + yu * yv
    along_u, along_v = dx * xu + dy * yu, dx * xv + dy * yv
    scale = 1 / (uu * vv - uv * uv)
    du = np.clip((along_u * vv - along_v * uv) * scale, -1.5, 1.5)
    dv = np.clip((along_v * uu - along_u * uv) * scale, -1.5, 1.5)
    missed = np.abs(dx - xu * du - xv * dv) + np.abs(dy - yu * du - yv * dv)
    return (u + du).astype(np.float32), (v + dv).astype(np.float32), missed < 2 * tolerance


def _shadow(depth: ndarray, light: ndarray, view: View) -> ndarray:
    """Light that reaches each pixel, 0 to 1: the depth map is searched towards the light at half size."""
    small = np.ascontiguousarray(depth[::2, ::2])
    scale = 0.5 * view.focal / DISTANCE
    sideways = view.turn @ light[:2]
    blocked = np.zeros_like(small)
    for step in SHADOW_STEPS:
        shift = np.array([[1, 0, sideways[0] * step * scale], [0, 1, sideways[1] * step * scale]], np.float32)
        there = cv2.warpAffine(
            small,
            shift,
            small.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        gap = small + light[2] * step - there
        blocked = np.maximum(blocked, np.clip((gap - 1.5) * 0.5, 0, 1) * (gap < 45))
    lit = 1 - cv2.GaussianBlur(blocked, (0, 0), 1.1 * view.scale)
    return cv2.resize(lit, depth.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _shade(normal: ndarray, colour: ndarray, lit: ndarray, scene: Scene, rotation: ndarray) -> ndarray:
    """Linear RGB: warm wrapped diffuse, sky from above, highlight."""
    light = light_direction(scene)
    half = light + (0, 0, -1)
    toward = np.stack([light, half / np.linalg.norm(half), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)]) @ rotation
    nl, nh, up, facing = cv2.split(cv2.transform(normal, toward.astype(np.float32)))
    key = 0.8 * lit
    sky = scene.ambient * (0.86 + 0.22 * up) * (0.62 + 0.38 * np.clip(facing, 0, 1))
    albedo = cv2.split(colour)
    shine: ndarray = np.clip(nh, 0, 1)
    shine *= shine
    shine *= shine
    shine *= shine
    shine = 0.10 * albedo[3] * shine * shine * key
    out = np.empty((*nl.shape, 3), np.float32)
    for i, wrap in enumerate((0.30, 0.16, 0.12)):
        diffuse = np.clip((nl + wrap) * (1 / (1 + wrap)), 0, 1)
        out[..., i] = albedo[i] * (diffuse * key * scene.light_rgb[i] + sky) + shine
    return out


def _soften_edges(picture: ndarray, depth: ndarray) -> None:
    """Blurs where one part of the person stands before another: points alone leave a staircase there."""
    box = np.ones((3, 3), np.uint8)
    jump = cv2.dilate(depth, box) - cv2.erode(depth, box)
    amount = np.clip((jump - 7) * 0.12, 0, 1) * (depth < DISTANCE + 250)
    picture += (cv2.GaussianBlur(picture, (3, 3), 0.9) - picture) * amount[..., None]


def draw_backdrop(person: Person, scene: Scene, size: int) -> ndarray:
    """Linear RGB of what is behind the person: a soft gradient, and blobs where clutter is asked for."""
    top, bottom = (np.array(c, np.float32) for c in person.identity.backdrop)
    line = np.linspace(0, 1, size // 4, dtype=np.float32)
    ramp = np.clip(line[:, None] + 0.35 * (line[None] - 0.5) + scene.backdrop_shift[1], 0, 1)
    if scene.backdrop_clutter:
        ramp = ramp + 0.25 * np.sin(6.3 * (line[None] + scene.backdrop_shift[0]))
    picture = (top + (bottom - top) * ramp[..., None]) * np.float32(scene.backdrop_gain)
    if scene.backdrop_clutter:
        blobs = np.random.default_rng(scene.seed).uniform(-1, 1, (6, 6, 4)).astype(np.float32)
        blobs = 0.7 * blobs[..., :1] + 0.3 * blobs[..., 1:]
        clutter = cv2.resize(blobs, line.shape * 2, interpolation=cv2.INTER_CUBIC)
        picture = picture * np.clip(1 + scene.backdrop_clutter * clutter, 0.1, 2)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)


_NOISE = np.random.default_rng(7).standard_normal(2**18).astype(np.float32)


def develop(picture: ndarray, scene: Scene, scale: float) -> ndarray:
    """Linear RGB to uint8: exposure, tone curve, contrast, blur and noise. scale: of the blur, 1 for 128 pixels."""
    gain = np.float32(scene.exposure) * np.array(scene.tint, np.float32)
    picture = np.sqrt(np.clip(picture * gain, 0, 1.6))
    picture = picture * (1.12 - 0.14 * picture)
    if scene.contrast != 1.0:
        picture = (picture - 0.5) * np.float32(scene.contrast) + np.float32(0.5)
    if scene.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), scene.blur * scale)
    picture = picture * np.float32(255)
    if scene.noise:
        seed = scene.seed + 1 if scene.noise_seed is None else scene.noise_seed
        start = np.random.default_rng(seed).integers(0, len(_NOISE) - picture.size)
        picture += np.float32(scene.noise) * _NOISE[start : start + picture.size].reshape(picture.shape)
    return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)


def _surface(position: ndarray, view: View) -> tuple[ndarray, ndarray, tuple[ndarray, ndarray], ndarray]:
    """What each pixel sees, (size, size): anything, exactly, where in the atlas (remap tables), cover 0-1."""
    size = view.size
    grid = min(size, round(size / view.scale))  # the atlas has points enough for a patch of 128 pixels
    x, y, z = cv2.split(cv2.transform(position, view.to_camera_matrix))
    columns, rows = view.to_pixels(x, y, z)
    ratio = np.float32(grid / size)
    index, hit = _splat((columns + 0.5) * ratio - 0.5, (rows + 0.5) * ratio - 0.5, z, grid)
    cover = np.clip((cv2.GaussianBlur(hit.astype(np.float32), (5, 5), 1.1) - 0.36) * 2.2, 0, 1)
    if grid != size:
        nearest = cv2.resize(index.astype(np.float64), (size, size), interpolation=cv2.INTER_NEAREST)
        index = nearest.astype(np.intp)
        cover = cv2.resize(cover, (size, size), interpolation=cv2.INTER_LINEAR)
    line = np.arange(size, dtype=np.float32)
    tolerance = max(1.0, view.scale)
    u, v, exact = _refine(np.maximum(index, 0), columns, rows, (line[None], line[:, None]), tolerance)
    return index >= 0, exact, cv2.convertMaps(u, v, cv2.CV_16SC2), cover * (index >= 0)


def render(person: Person, scene: Scene, size: int = 128) -> ndarray:
    """The picture of a person in a scene: (size, size, 3) RGB uint8."""
    view = make_view(scene, size, kappa=person.identity.kappa)
    return develop(paint(person, scene, view, draw_backdrop(person, scene, size)), scene, view.scale)


def paint(person: Person, scene: Scene, view: View, backdrop: ndarray) -> ndarray:
    """The person before a backdrop, (size, size, 3) linear RGB float32 as the view's camera sees it."""
    position = pose(person, scene)
    seen, exact, tables, cover = _surface(position, view)
    atlas = person.normal, person.colour, position
    normal, colour, place = (cv2.remap(layer, *tables, cv2.INTER_LINEAR) for layer in atlas)
    depth = np.where(seen, cv2.transform(place, view.to_camera_matrix[2:]), np.float32(DISTANCE + 300))
    lit = _shadow(depth, light_direction(scene), view)
    picture = _shade(normal, colour, lit, scene, view.rotation)
    place[..., 2] += np.where(exact, 0, np.float32(1000))  # no eyes in closed pits
    paint_eyes(picture, place, lit, person.identity, scene, view)
    _soften_edges(picture, depth)
    picture = backdrop + (picture - backdrop) * cover[..., None]
    paint_glasses(picture, depth, person.identity, scene, view)
    return picture
