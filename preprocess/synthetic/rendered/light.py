"""Light on a rendered face: a key light with shadow, a fill, sky and ground; skin that glows where it turns away."""

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.rendered.scene import RenderedScene
from preprocess.synthetic.scene import View, unit

_WRAP = (0.34, 0.18, 0.14)  # of diffuse light round edges: red goes furthest through skin
FAR = 300.0  # mm behind the face's centre that the background is taken to be
LOW = 72  # pixels a side at which shadows and hollows are looked for
_STEPS = (4.0, 8.0, 13.0, 20.0, 30.0, 44.0, 62.0)  # mm from a point towards the light at which a shadow is looked for


def what_light_reaches(depth: ndarray, seen: ndarray, scene: RenderedScene, view: View) -> tuple[ndarray, ndarray]:
    """Parts of the key light and of ambient light that get to each pixel, 0 to 1, (S, S) both.

    depth, seen: (S, S) mm, and whether anything is there. Both are found at low size.
    """
    size = min(len(depth), LOW)
    there = cv2.resize(seen.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    near = cv2.resize((depth - np.float32(view.distance)) * seen, (size, size), interpolation=cv2.INTER_AREA)
    scale = view.millimetre * size / view.size
    shadow = _shadow(near + FAR * (1 - there), view.turn, unit(scene.light), scale)
    lit = 1 - cv2.GaussianBlur(shadow, (0, 0), 0.8 + scene.softness)
    return cv2.resize(lit, depth.shape), cv2.resize(_openness(near, there, scale), depth.shape)


def _shadow(depth: ndarray, turn: ndarray, light: ndarray, scale: float) -> ndarray:
    """How much of the key light is blocked, 0 to 1: the depth (s, s) is searched towards the light.

    turn: see View.  light: (3,) towards the light, camera frame.  scale: pixels a mm.
    """
    sideways = turn @ light[:2] * scale
    blocked = np.zeros_like(depth)
    for step in _STEPS:
        shift = np.array([[1, 0, sideways[0] * step], [0, 1, sideways[1] * step]], np.float32)
        there = cv2.warpAffine(
            depth, shift, depth.shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        gap = depth + np.float32(light[2] * step) - there
        blocked = np.maximum(blocked, np.clip((gap - 2.0) * 0.4, 0, 1) * (gap < 60))
    return blocked


def _openness(near: ndarray, there: ndarray, scale: float) -> ndarray:
    """Ambient light that hollows get, 0 to 1, from how far they lie behind their neighbourhood.

    near, there: (s, s) depth, 0 where nothing is, and how much is there: what is behind a face does not count.
    """
    own = near / np.maximum(there, 0.02)
    light = np.ones_like(near)
    for reach, gain in ((5.0, 0.055), (14.0, 0.022)):
        sigma = max(reach * scale, 0.6)
        around = cv2.GaussianBlur(near, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(there, (0, 0), sigma), 0.02)
        light *= 1 - np.clip(gain * (own - around), -0.08, 0.5)
    return light


def shade(
    albedo: tuple[ndarray, ndarray, ndarray],
    gloss: ndarray,
    normal: ndarray,
    lit: ndarray,
    open_: ndarray,
    scene: RenderedScene,
) -> ndarray:
    """Linear RGB (3, S, S). albedo: three times (S, S), linear.  normal: (3, S, S) unit, camera frame.

    gloss: (S, S), 1 for skin at its shiniest.  lit, open_: key and ambient light that get there, (S, S).
    """
    key, fill = unit(scene.light), unit(scene.fill)
    n = normal.reshape(3, -1)
    shape = lit.shape
    towards_key, towards_fill = (np.stack([key, fill]) @ n).reshape(2, *shape)
    up = -normal[1]
    half = unit(key + (0, 0, -1))
    shine = np.clip((half @ n).reshape(shape), 0, 1)
    shine *= shine
    shine *= shine
    sheen = shine * shine
    shine = sheen * sheen * sheen
    keyed = np.float32(scene.key) * lit
    shine = (0.5 * shine + 0.10 * sheen) * gloss * keyed
    rim = np.clip(1 + normal[2], 0, 1)
    shine += (0.10 * gloss) * (rim * rim) * open_ * np.float32(scene.ambient)
    filled = np.clip((towards_fill + np.float32(0.4)) * np.float32(1 / 1.4), 0, 1) * open_
    up *= open_
    out = np.empty((3, *shape), np.float32)
    for i, wrap in enumerate(_WRAP):
        diffuse = np.clip((towards_key + wrap) * np.float32(1 / (1 + wrap)), 0, 1)
        diffuse *= np.float32(scene.light_rgb[i]) * keyed
        diffuse += np.float32(scene.fill_rgb[i]) * filled
        sky, ground = scene.ambient * scene.sky_rgb[i], scene.ambient * scene.ground_rgb[i]
        diffuse += np.float32((sky + ground) / 2) * open_
        diffuse += np.float32((sky - ground) / 2) * up
        np.multiply(albedo[i], diffuse, out=out[i])
        out[i] += shine
    return out
