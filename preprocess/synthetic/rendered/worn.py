"""Glasses in a picture: their shadow on the skin, side pieces, lenses with what they mirror, and the frame."""

from functools import partial

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.rendered.glasses import CELLS, LEFT, TOP, Worn
from preprocess.synthetic.rendered.light import unit
from preprocess.synthetic.rendered.scene import RenderedScene
from preprocess.synthetic.scene import DISTANCE, View

_GLOSS = {"acetate": 0.35, "tortoise": 0.35, "clear": 0.4, "metal": 0.9}
_SOLID = {"acetate": 1.0, "tortoise": 0.97, "clear": 0.35, "metal": 1.0}
_MIRROR_STREAM = 7  # of random numbers of a scene


def paint_glasses(
    picture: ndarray, depth: ndarray, lit: ndarray, worn: Worn | None, scene: RenderedScene, view: View
) -> None:
    """Paints glasses into a linear RGB picture (3, S, S) of a head with its background.

    depth: (S, S) mm of the head, far where nothing is.  lit: (S, S) part of the key light that gets there.
    """
    if worn is None:
        return
    rows, columns = _window(worn, view)
    patch = picture[:, rows, columns]
    near, shade = (a[rows, columns].astype(np.float32) for a in (depth, lit))
    if not patch.size:
        return
    turn = (worn.rotation.T @ view.rotation.T).astype(np.float32)  # camera frame to the sheet's
    eye = (worn.rotation.T @ (view.eye_point - worn.origin)).astype(np.float32)
    x, y = (a.astype(np.float32) for a in view.to_plane(np.arange(view.size)[columns], np.arange(view.size)[rows]))
    rays = np.stack([m[0] * x + m[1] * y + m[2] for m in turn])
    light = turn @ unit(scene.light)
    _cast(patch, eye[:, None, None] + rays * near, shade, worn, light, scene, view)
    for side in (0, 1):
        _paint_temple(picture, depth, worn, side, scene, view)
    u, v, distance = _meet(worn, eye, rays)
    front = _sample(worn, u, v)
    before = distance < near + 0.5
    _paint_lens(patch, front, u, v, rays, before, worn, turn, scene, view)
    _paint_frame(patch, front, u, v, before, worn, light, turn, scene, view)


def _window(worn: Worn, view: View) -> tuple[slice, slice]:
    """Rows and columns of a picture that the front and its shadow may be in."""
    u0, u1, v0, v1 = worn.extent
    corners = np.array([(u, v, worn.bend * u * u) for u in (u0, 0, u1) for v in (v0, v1)])
    at = view.project(corners @ worn.rotation.T + worn.origin)
    low, high = (np.clip(np.rint(a).astype(int), 0, view.size) for a in (at.min(axis=0) - 1, at.max(axis=0) + 2))
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _meet(worn: Worn, start: ndarray, way: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """u, v where lines `start` + t `way`, (3, ...) each in the sheet's frame, meet the sheet, and t."""
    bend = np.float32(worn.bend)
    a = bend * way[0] * way[0]
    b = 2 * bend * start[0] * way[0] - way[2]
    c = bend * start[0] * start[0] - start[2]
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    t = 2 * c / (-b - np.sign(np.mean(b)) * root)
    return start[0] + t * way[0], start[1] + t * way[1], t


def _places(u: ndarray, v: ndarray) -> tuple[ndarray, ndarray]:
    """Column and row of the kept sheet."""
    return (np.abs(u) + np.float32(LEFT)) * CELLS - np.float32(0.5), (v + np.float32(TOP)) * CELLS - np.float32(0.5)


def _sample(worn: Worn, u: ndarray, v: ndarray) -> tuple[ndarray, ...]:
    """`Worn.front` at points of the sheet, four planes; the lean along u is mirrored."""
    found = cv2.remap(worn.front, *_places(u, v), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    frame, lens, lean_u, lean_v = cv2.split(found)
    return frame, lens, lean_u * np.sign(u), lean_v


def _cast(
    patch: ndarray, skin: ndarray, lit: ndarray, worn: Worn, light: ndarray, scene: RenderedScene, view: View
) -> None:
    """Darkens skin points (3, h, w) where the front is between them and the light, all in the sheet's frame."""
    if light[2] > -0.2:
        return
    u, v, gap = _meet(worn, skin, light)
    frame, lens, _, _ = _sample(worn, u, v)
    width = np.float32(DISTANCE / view.focal) + np.float32(0.1 + 0.05 * scene.softness) * np.clip(gap, 0, 40)
    shadow = np.clip(0.5 - frame / width, 0, 1) * np.minimum(1, (0.6 + worn.style.rim_width) / width)
    shadow *= np.float32(_SOLID[worn.style.finish])
    shadow = np.maximum(shadow, (lens < 0) * np.float32(1 - np.mean(worn.style.tint)))
    shadow *= (gap > 0) & (gap < 60)
    key = np.float32(scene.key) * lit
    patch *= 1 - shadow * key / (key + np.float32(scene.ambient + np.mean(scene.fill_rgb)) + np.float32(1e-3))


def _paint_temple(picture: ndarray, depth: ndarray, worn: Worn, side: int, scene: RenderedScene, view: View) -> None:
    """Outer and upper face of a side piece, hidden where the head is nearer."""
    style, line, outwards = worn.style, worn.temples[side], (-1.0, 1.0)[side]
    half = np.linspace(0.5, 0.36, len(line))[:, None] * style.temple * np.array([[0.0, 1.0, 0.0]])
    thick = np.array([outwards * min(0.5 * style.temple, 1.8), 0.0, 0.0])
    edges = np.stack([line - half, line + half, line - half - thick])
    at, far = view.project(edges), view.to_camera(line)[:, 2]
    low, high = (np.rint(f(at.reshape(-1, 2), axis=0)).astype(int) for f in (np.min, np.max))
    left, top = np.clip(low - 1, 0, view.size)
    right, bottom = np.clip(high + 2, 0, view.size)
    if right - left < 1 or bottom - top < 1:
        return
    pixel = np.clip(np.rint(at[:2].mean(axis=0)).astype(int), 0, view.size - 1)
    seen = far < depth[pixel[:, 1], pixel[:, 0]] + 1.5
    fixed = np.rint((at - (left, top)) * 16).astype(np.int32)
    for one, other, normal in ((0, 2, (0.0, -1.0, 0.0)), (0, 1, (outwards, -0.1, -0.15))):
        mask = np.zeros((bottom - top, right - left), np.uint8)
        for k in np.flatnonzero(seen[1:] & seen[:-1]):
            quad = np.stack([fixed[one, k], fixed[one, k + 1], fixed[other, k + 1], fixed[other, k]])
            cv2.fillPoly(mask, [quad], 255, cv2.LINE_AA, 4)
        bright = _brightness(view.rotation @ np.array(normal), scene)
        cover = mask.astype(np.float32) * np.float32(_SOLID[style.finish] / 255)
        patch = picture[:, top:bottom, left:right]
        patch += (np.array(style.colour, np.float32)[:, None, None] * bright - patch) * cover


def _brightness(normal: ndarray, scene: RenderedScene) -> np.float32:
    """Light on a face with this normal, camera frame."""
    return np.float32(scene.key * max(float(normal @ unit(scene.light)), 0) + scene.ambient * (0.8 - 0.2 * normal[1]))


def _paint_lens(
    patch: ndarray,
    front: tuple[ndarray, ...],
    u: ndarray,
    v: ndarray,
    rays: ndarray,
    before: ndarray,
    worn: Worn,
    turn: ndarray,
    scene: RenderedScene,
    view: View,
) -> None:
    """Tints what is behind the lenses, and adds what they mirror."""
    style, pixel = worn.style, np.float32(DISTANCE / view.focal)
    inside = np.clip(0.5 - front[1] / pixel, 0, 1) * before
    lean_u = (u - np.sign(u) * np.float32(worn.centre[0])) / np.float32(style.bulge) + np.float32(2 * worn.bend) * u
    lean_v = (v - np.float32(worn.centre[1])) / np.float32(style.bulge)
    normal = np.stack([lean_u, lean_v, np.full_like(u, -1)])
    into = 2 * (rays * normal).sum(axis=0) / (normal * normal).sum(axis=0)
    mirrored = rays - normal * into
    mirrored = (turn.T @ mirrored.reshape(3, -1)).reshape(rays.shape)
    shine = _mirrored(mirrored, scene)
    if style.rim != "full":  # the bare edge of the glass
        wide = np.float32(0.5) + np.float32(0.5) * pixel
        rim = np.exp(-((front[1] / wide) ** 2)) * before * (np.float32(0.45) / wide)
        patch *= 1 - rim * np.float32(0.55)
        patch += rim * np.float32(0.16 * scene.ambient)
    for i in range(3):
        patch[i] *= 1 - inside * np.float32(1 - style.tint[i])
        patch[i] += inside * shine * np.float32(style.coating[i])


def _mirrored(way: ndarray, scene: RenderedScene) -> ndarray:
    """Light that comes along directions (3, h, w), camera frame: a dim room, and windows, lamps or screens in it."""
    rng = np.random.default_rng([scene.seed, _MIRROR_STREAM])
    length = np.sqrt((way * way).sum(axis=0))
    shine = np.float32(scene.ambient) * (1 - 0.6 * way[1] / length)
    strength = float(rng.choice([0.0, 1.0, 4.0], p=[0.35, 0.6, 0.05])) * rng.uniform(0.4, 1.6)
    towards_light = np.array(scene.light) + 0.2 * rng.normal(size=3)
    for k in range(int(rng.integers(1, 4))):
        centre = towards_light if k == 0 else np.array([*rng.uniform((-0.9, -0.7), (0.9, 0.7)), -1.0])
        half, soft, bars = rng.uniform((0.08, 0.08), (0.4, 0.45)), rng.uniform(0.015, 0.12), rng.integers(0, 3)
        if strength:
            shine += _window_light(way, centre, half, float(soft), int(bars)) * np.float32(3.0 * strength)
    return shine


def _window_light(way: ndarray, centre: ndarray, half: ndarray, soft: float, bars: int) -> ndarray:
    """0 to 1 in a window of (2,) half sizes, tangents of angles, with upright bars. way: (3, h, w)."""
    axis = centre / np.linalg.norm(centre)
    right = np.cross((0.0, 1.0, 0.0), axis)
    right /= np.linalg.norm(right)
    frame = np.stack([right, np.cross(axis, right), axis]).astype(np.float32)
    x, y, z = (frame @ way.reshape(3, -1)).reshape(way.shape)
    near = 1 / np.maximum(z, np.float32(1e-3))
    x, y = x * near, y * near
    ramp = partial(np.clip, a_min=0, a_max=1)
    light = ramp((half[0] - np.abs(x)) / soft) * ramp((half[1] - np.abs(y)) / soft) * (z > 0.05)
    for bar in np.linspace(-half[0], half[0], bars + 2)[1:-1]:
        light *= ramp(np.abs(x - bar) / soft - 0.2)
    return light.astype(np.float32)


def _paint_frame(
    patch: ndarray,
    front: tuple[ndarray, ...],
    u: ndarray,
    v: ndarray,
    before: ndarray,
    worn: Worn,
    light: ndarray,
    turn: ndarray,
    scene: RenderedScene,
    view: View,
) -> None:
    style, pixel = worn.style, np.float32(DISTANCE / view.focal)
    frame, _, lean_u, lean_v = front
    cover = np.clip(0.5 - frame / pixel, 0, 1) * before
    if style.finish == "clear":  # seen by its edges
        cover *= np.float32(_SOLID["clear"]) + np.float32(0.4) * np.abs(lean_v)
    normal = np.stack([lean_u + np.float32(2 * worn.bend) * u, lean_v, np.full_like(u, -1)])
    normal /= np.sqrt((normal * normal).sum(axis=0))
    diffuse = np.clip(np.tensordot(light, normal, 1), 0, 1) * np.float32(scene.key)
    diffuse += np.float32(scene.ambient) * (np.float32(0.8) - np.float32(0.25) * np.tensordot(turn[:, 1], normal, 1))
    half = light - turn[:, 2]
    shine = np.clip(np.tensordot(half / np.linalg.norm(half), normal, 1), 0, 1) ** 24
    shine *= np.float32(_GLOSS[style.finish] * scene.key)
    if style.finish == "tortoise":
        diffuse *= cv2.remap(worn.tone, *_places(u, v), cv2.INTER_LINEAR)
    for i in range(3):
        colour = np.float32(style.colour[i]) * diffuse
        gloss = np.float32(style.colour[i] ** 0.5 if style.finish == "metal" else 0.5)
        patch[i] += (colour + gloss * shine - patch[i]) * cover
