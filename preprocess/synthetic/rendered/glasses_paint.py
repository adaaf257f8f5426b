"""Glasses in a picture: their shadow on the skin, side pieces, lenses with what they mirror, and the frame.

Lines of sight and of light are met with the sheet that the front lies on, see `glasses.py`. Shadows and mirrored
light are soft, so they are found at every second pixel.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.rendered.glasses import CELLS, LEFT, TOP, Worn
from preprocess.synthetic.rendered.scene import RenderedScene
from preprocess.synthetic.scene import View, unit

_GLOSS = {"acetate": 0.35, "tortoise": 0.35, "clear": 0.4, "metal": 0.9}
_COVER = {"acetate": 1.0, "tortoise": 0.97, "clear": 0.35, "metal": 1.0}
_MIRROR_STREAM = 7  # of random numbers of a scene
_SHADOW = (3.0, 18.0)  # mm round the front, above and below, that its shadow is looked for

Window = tuple[slice, slice]
_ramp = partial(np.clip, a_min=0, a_max=1)


@dataclass(frozen=True)
class _Setting:
    """Who, where. turn: (3, 3) camera frame to the sheet's.  eye, light: (3,) in the sheet's; all float32."""

    worn: Worn
    scene: RenderedScene
    view: View
    turn: ndarray
    eye: ndarray
    light: ndarray

    @property
    def pixel(self) -> np.float32:
        """mm."""
        return np.float32(1 / self.view.millimetre)


def paint_glasses(picture: ndarray, depth: ndarray, lit: ndarray, worn: Worn, scene: RenderedScene, view: View) -> None:
    """Paints glasses into a linear RGB picture (3, S, S) of a head with its background.

    depth: (S, S) mm of the head, far where nothing is.  lit: (S, S) part of the key light that gets there.
    """
    turn = (worn.rotation.T @ view.rotation.T).astype(np.float32)
    eye = (worn.rotation.T @ (view.eye_point - worn.origin)).astype(np.float32)
    here = _Setting(worn, scene, view, turn, eye, turn @ unit(scene.light))
    _cast_on_skin(picture, depth, lit, here)
    for side in (0, 1):
        _paint_temple(picture, depth, side, here)
    window = _window(worn, view, (0.0, 0.0))
    patch = picture[:, *window]
    if patch.size:
        u, v, distance = _meet(worn, here.eye, _rays(here, window))
        front = _sample(worn, u, v)
        before = distance < depth[window].astype(np.float32) + 0.5
        _paint_lenses(patch, front[1], before, window, here)
        _paint_frame(patch, front, u, v, before, here)


def _window(worn: Worn, view: View, margin: tuple[float, float]) -> Window:
    """Rows and columns of a picture, both even in number, that the front is in. margin: mm above and below."""
    u, low, high = worn.extent
    corners = [(x, y, worn.bend * x * x) for x in (-u, 0, u) for y in (low - margin[0], high + margin[1])]
    at = view.project(np.array(corners) @ worn.rotation.T + worn.origin)
    start, stop = (
        np.clip(np.rint(a / 2).astype(int) * 2, 0, view.size // 2 * 2) for a in (at.min(0) - 1, at.max(0) + 2)
    )
    return slice(int(start[1]), int(stop[1])), slice(int(start[0]), int(stop[0]))


def _rays(here: _Setting, window: Window, step: int = 1) -> ndarray:
    """(3, h, w): ways of light, camera's z 1, in the sheet's frame, through middles of `step` x `step` pixels."""
    rows, columns = (np.arange(s.start, s.stop, step) + (step - 1) / 2 for s in window)
    x, y = (a.astype(np.float32) for a in here.view.to_plane(columns, rows))
    return np.stack([m[0] * x + m[1] * y + m[2] for m in here.turn])


def _meet(worn: Worn, start: ndarray, way: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """u, v where lines `start` + t `way`, (3, ...) each in the sheet's frame, meet the sheet, and t."""
    bend = np.float32(worn.bend)
    a = bend * way[0] * way[0]
    b = 2 * bend * start[0] * way[0] - way[2]
    c = bend * start[0] * start[0] - start[2]
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    t = 2 * c / (np.sign(-np.mean(b)) * root - b)
    return start[0] + t * way[0], start[1] + t * way[1], t


def _places(u: ndarray, v: ndarray) -> tuple[ndarray, ndarray]:
    """Column and row of the kept sheet."""
    return (np.abs(u) + np.float32(LEFT)) * CELLS - np.float32(0.5), (v + np.float32(TOP)) * CELLS - np.float32(0.5)


def _sample(worn: Worn, u: ndarray, v: ndarray) -> tuple[ndarray, ...]:
    """`Worn.front` at points of the sheet, four planes; the lean along u is of the right half."""
    return tuple(cv2.split(cv2.remap(worn.front, *_places(u, v), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)))


def _cast_on_skin(picture: ndarray, depth: ndarray, lit: ndarray, here: _Setting) -> None:
    """Darkens skin where the front is between it and the light."""
    window = rows, columns = _window(here.worn, here.view, _SHADOW)
    patch = picture[:, *window]
    if here.light[2] > -0.2 or not patch.size:
        return
    rays = _rays(here, window, 2)
    every = slice(rows.start, rows.stop, 2), slice(columns.start, columns.stop, 2)
    skin = here.eye[:, None, None] + rays * depth[every].astype(np.float32)
    shadow = 1 - _shadow(skin, here) * _part_of_key(lit[every].astype(np.float32), here.scene)
    patch *= cv2.resize(shadow, patch.shape[:0:-1], interpolation=cv2.INTER_LINEAR)


def _shadow(skin: ndarray, here: _Setting) -> ndarray:
    """Part of the key light, 0 to 1, that the front keeps from points (3, ...) in the sheet's frame."""
    style = here.worn.style
    u, v, gap = _meet(here.worn, skin, here.light)
    frame, lens, _, _ = _sample(here.worn, u, v)
    width = 1.5 * here.pixel + np.float32(0.1 + 0.05 * here.scene.softness) * np.clip(gap, 0, 40)
    shadow = _ramp(0.5 - frame / width) * np.minimum(1, np.float32(0.6 + style.rim_width) / width)
    shadow = np.maximum(shadow * np.float32(_COVER[style.finish]), (lens < 0) * np.float32(1 - np.mean(style.tint)))
    return shadow * ((gap > 0) & (gap < 60))


def _part_of_key(lit: ndarray, scene: RenderedScene) -> ndarray:
    """Of the light on skin, the part that is the key's."""
    key = np.float32(scene.key) * lit
    return key / (key + np.float32(scene.ambient + np.mean(scene.fill_rgb) + 1e-3))


def _paint_temple(picture: ndarray, depth: ndarray, side: int, here: _Setting) -> None:
    """Upper and outer face of a side piece, hidden where the head is nearer."""
    style, line, outwards, view = here.worn.style, here.worn.temples[side], (-1.0, 1.0)[side], here.view
    half = np.linspace(0.5, 0.36, len(line))[:, None] * style.temple * np.array([[0.0, 1.0, 0.0]])
    thick = np.array([outwards * min(0.5 * style.temple, 1.8), 0.0, 0.0])
    x, y, z = np.moveaxis(view.to_camera(np.stack([line - half, line + half, line - half - thick])), -1, 0)
    at = np.stack(view.to_pixels(x, y, z), axis=-1)
    column, row = np.clip(np.rint(0.5 * (at[0] + at[1])).astype(int), 0, view.size - 1).T
    seen = 0.5 * (z[0] + z[1]) < depth[row, column] + 1.5
    breaks = (np.flatnonzero(seen[1:] != seen[:-1]) + 1).tolist()
    pieces = [slice(*ends) for ends in pairwise([0, *breaks, len(seen)])]
    runs = [piece for piece in pieces if seen[piece.start] and piece.stop - piece.start > 1]
    if not runs:
        return
    low, high = at.min(axis=(0, 1)) - 1, at.max(axis=(0, 1)) + 2
    (left, top), (right, bottom) = (np.clip(np.rint(a).astype(int), 0, view.size) for a in (low, high))
    if right <= left or bottom <= top:
        return
    fixed = np.rint((at - (left, top)) * 16).astype(np.int32)
    patch = picture[:, top:bottom, left:right]
    for other, normal in ((2, (0.0, -1.0, 0.0)), (1, (outwards, -0.1, -0.15))):
        mask = np.zeros(patch.shape[1:], np.uint8)
        for run in runs:
            cv2.fillPoly(mask, [np.concatenate([fixed[0, run], fixed[other, run][::-1]])], 255, cv2.LINE_AA, 4)
        colour = np.array(style.colour, np.float32) * _brightness(view.rotation @ normal, here.scene)
        patch += (colour[:, None, None] - patch) * (mask * np.float32(_COVER[style.finish] / 255))


def _brightness(normal: ndarray, scene: RenderedScene) -> np.float32:
    """Light on a face with this normal, camera frame."""
    return np.float32(scene.key * max(float(normal @ unit(scene.light)), 0) + scene.ambient * (0.8 - 0.2 * normal[1]))


def _paint_lenses(patch: ndarray, lens: ndarray, before: ndarray, window: Window, here: _Setting) -> None:
    """Tints what is behind the lenses, and adds what they mirror. lens: (h, w) distance, mm."""
    style = here.worn.style
    inside = _ramp(0.5 - lens / here.pixel) * before
    shine = inside * cv2.resize(_mirrored(_reflect(_rays(here, window, 2), here), here.scene), lens.shape[::-1])
    if style.rim != "full":  # the bare edge of the glass
        wide = np.float32(0.5) + np.float32(0.5) * here.pixel
        rim = np.exp(-((lens / wide) ** 2)) * before * (np.float32(0.45) / wide)
        patch *= 1 - rim * np.float32(0.55)
        patch += rim * np.float32(0.16 * here.scene.ambient)
    for i in range(3):
        patch[i] *= 1 - inside * np.float32(1 - style.tint[i])
        patch[i] += shine * np.float32(style.coating[i])


def _reflect(rays: ndarray, here: _Setting) -> ndarray:
    """(3, h, w): where light that a lens mirrors to the camera comes from, camera frame, not unit."""
    worn = here.worn
    u, v, _ = _meet(worn, here.eye, rays)
    bulge, bend = np.float32(1 / worn.style.bulge), np.float32(2 * worn.bend)
    normal = np.stack([(u - np.sign(u) * np.float32(worn.centre)) * bulge + bend * u, v * bulge, np.full_like(u, -1)])
    mirrored = rays - normal * (2 * (rays * normal).sum(axis=0) / (normal * normal).sum(axis=0))
    return (here.turn.T @ mirrored.reshape(3, -1)).reshape(rays.shape)


def _mirrored(way: ndarray, scene: RenderedScene) -> ndarray:
    """Light that comes along directions (3, h, w), camera frame: a dim room, and windows, lamps or screens in it."""
    shine = np.float32(scene.ambient) * (1 - np.float32(0.6) * way[1] / np.sqrt((way * way).sum(axis=0)))
    chance, amount, *draws = np.random.default_rng([scene.seed, _MIRROR_STREAM]).random(20).tolist()
    if chance < 0.35:
        return shine
    strength = np.float32((3.0 if chance < 0.95 else 12.0) * (0.4 + 1.2 * amount))
    centre = np.array(scene.light) + np.array(draws[:3]) * 0.6 - 0.3
    for k in range(3, 9 if draws[-1] < 0.5 else 15, 6):
        wide, high, soft, bars, right, down = draws[k : k + 6]
        half = 0.08 + 0.32 * wide, 0.08 + 0.37 * high
        shine += strength * _window_light(way, centre, half, 0.015 + 0.1 * soft, int(3 * bars))
        centre = np.array([1.8 * right - 0.9, 1.4 * down - 0.7, -1.0])
    return shine


def _window_light(way: ndarray, centre: ndarray, half: tuple[float, float], soft: float, bars: int) -> ndarray:
    """0 to 1 in a window of half sizes, tangents of angles, with upright bars. way: (3, h, w)."""
    x, y, z = centre / np.sqrt(centre @ centre)
    level = np.hypot(x, z)
    frame = [[z / level, 0, -x / level], [-x * y / level, level, -y * z / level], [x, y, z]]  # right, down, towards
    x, y, z = (np.array(frame, np.float32) @ way.reshape(3, -1)).reshape(way.shape)
    near = 1 / np.maximum(z, np.float32(1e-3))
    x, y = x * near, y * near
    light = _ramp((half[0] - np.abs(x)) / soft) * _ramp((half[1] - np.abs(y)) / soft) * (z > 0.05)
    for bar in np.linspace(-half[0], half[0], bars + 2)[1:-1].tolist():
        light *= _ramp(np.abs(x - bar) / soft - 0.2)
    return light


def _paint_frame(
    patch: ndarray, front: tuple[ndarray, ...], u: ndarray, v: ndarray, before: ndarray, here: _Setting
) -> None:
    """front: what `_sample` gives at u, v (h, w).  before: where it is nearer than the head."""
    style, scene = here.worn.style, here.scene
    on = np.nonzero((front[0] < 0.5 * here.pixel) & before)
    frame, lean_u, lean_v, u, v = (a[on] for a in (front[0], front[2], front[3], u, v))
    cover = _ramp(0.5 - frame / here.pixel)
    if style.finish == "clear":  # seen by its edges
        cover *= np.float32(_COVER["clear"]) + np.float32(0.4) * np.abs(lean_v)
    normal = np.stack([lean_u * np.sign(u) + np.float32(2 * here.worn.bend) * u, lean_v, np.full_like(u, -1)])
    normal /= np.sqrt((normal * normal).sum(axis=0))
    light = np.clip(here.light @ normal, 0, 1) * np.float32(scene.key)
    light += np.float32(scene.ambient) * (np.float32(0.8) - np.float32(0.25) * (here.turn[:, 1] @ normal))
    half = here.light - here.turn[:, 2]
    shine = np.clip((half / np.linalg.norm(half)) @ normal, 0, 1) ** 8
    shine *= shine * shine * np.float32(_GLOSS[style.finish] * scene.key)
    if style.finish == "tortoise":
        tone = here.worn.tone
        last = tone.shape[1] - 1, tone.shape[0] - 1
        column, row = (np.clip(np.rint(a), 0, n).astype(int) for a, n in zip(_places(u, v), last, strict=True))
        light *= tone[row, column]
    for i, colour in enumerate(style.colour):
        gloss = np.float32(colour**0.5 if style.finish == "metal" else 0.5)
        behind = patch[i][on]
        patch[i][on] = behind + (np.float32(colour) * light + gloss * shine - behind) * cover
