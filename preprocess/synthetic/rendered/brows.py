"""Eyebrows: hair by hair on a plane before the face, then laid into the atlas."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import smooth
from preprocess.synthetic.rendered.colours import Rgb, mix
from preprocess.synthetic.rendered.places import from_front

_LEFT, _TOP, _WIDE, _HIGH = -64.0, -44.0, 128, 40  # mm
_FINE, _COARSE = 4, 2  # pixels a mm that hair is drawn with and kept with
_SHIFT = 4  # bits of a pixel's fraction


@dataclass(frozen=True)
class Brows:
    """mm in the frame of `places.mean_head`.

    inner, outer: |x| of the ends.  y: of the inner end.  arch, rise: how far the bend and the outer end lie above it.
    half: half the thickness where it is greatest.  density: 0 bare to 1 thick.  filled: pencil between the hairs.
    """

    colour: Rgb
    inner: float
    outer: float
    y: float
    arch: float
    rise: float
    half: float
    density: float
    filled: float
    seed: int


def draw_brows(rng: np.random.Generator, sex: float, age: float, colour: Rgb) -> Brows:
    """Somebody's. Women's are thinner and more arched, old people's grey and sparse."""
    grey = float(np.clip(1.6 * (age - 0.6), 0, 0.7) * rng.random())
    groomed = rng.random() < 0.8 * (1 - sex)
    half = 3.0 + 1.3 * sex - 0.7 * groomed + 0.6 * rng.normal()
    return Brows(
        colour=mix(colour, (150, 147, 143), grey),
        inner=float(10.5 + 1.5 * groomed + 1.6 * rng.normal()),
        outer=float(47.5 + 2.0 * rng.normal()),
        y=float(-15.5 - 1.2 * (1 - sex) + 1.0 * rng.normal()),
        arch=float(np.clip(3.0 + 1.5 * groomed - 1.0 * sex + 1.0 * rng.normal(), 0.8, 6)),
        rise=float(1.0 - 1.2 * sex + 1.6 * rng.normal()),
        half=float(np.clip(half, 1.7, 5.2)),
        density=float(np.clip(0.72 + 0.15 * sex - 0.35 * max(0.0, age - 0.5) + 0.16 * rng.normal(), 0.3, 1)),
        filled=float(0.25 * rng.random() + (0.3 * rng.random() if groomed else 0)),
        seed=int(rng.integers(2**31)),
    )


def _spine(brows: Brows, t: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """|x|, y and half the thickness along a brow, t from 0 at its inner end to 1."""
    x = brows.inner + (brows.outer - brows.inner) * t
    bend = np.interp(t, [0, 0.35, 0.62, 0.8, 1], [0, 0.62, 1, 0.86, 0.25])
    y = brows.y - brows.arch * bend - brows.rise * t
    half = brows.half * np.interp(t, [0, 0.1, 0.3, 0.6, 1], [0.7, 0.95, 1, 0.8, 0.25])
    return x, y, half


def _strokes(brows: Brows, rng: np.random.Generator) -> ndarray:
    """(hairs, 3, 2) mm: root, middle and tip; x outwards."""
    count = int(220 * brows.density * (0.6 + 0.16 * brows.half))
    t, across = rng.beta(1.15, 1.1, count), np.clip(0.52 * rng.normal(size=count), -1.15, 1.15)
    x, y, half = _spine(brows, t)
    # Hair stands at the inner end and lies along the brow further out; from both edges it runs to the middle.
    angle = np.interp(t, [0, 0.12, 0.35, 1], [1.35, 0.95, 0.42, -0.12]) + 0.45 * across * np.minimum(1, 3 * t)
    angle += 0.16 * rng.normal(size=count)
    length = (3.4 + 3.2 * np.minimum(1, 2.5 * t)) * (0.7 + 0.1 * brows.half) * rng.uniform(0.6, 1.15, count)
    root = np.stack([x, y + half * (0.85 * across + 0.15)], axis=1)
    ways = [np.stack([np.cos(a), -np.sin(a)], axis=1) for a in (angle, angle - 0.25)]
    middle = root + 0.5 * length[:, None] * ways[0]
    return np.stack([root, middle, middle + 0.5 * length[:, None] * ways[1]], axis=1)


def _bed(brows: Brows) -> ndarray:
    """(_HIGH, _WIDE) x _COARSE float32: shape of a brow on the image right, soft, 0 to 1."""
    x = (np.arange(_WIDE * _COARSE) / _COARSE + _LEFT).astype(np.float32)
    y = (np.arange(_HIGH * _COARSE) / _COARSE + _TOP).astype(np.float32)[:, None]
    t = (np.abs(x) - brows.inner) / (brows.outer - brows.inner)
    _, middle, half = _spine(brows, np.clip(t, 0, 1))
    inside = smooth(np.abs(y - middle.astype(np.float32)) / (half + 0.4).astype(np.float32), 1.25, 0.3)
    return inside * smooth(t, -0.05, 0.22) * smooth(t, 1.03, 0.8)


def brow_cover(brows: Brows) -> ndarray:
    """(HEAD_ROWS, WIDTH) float32: how much of each texel is brow, 0 to 1."""
    rng = np.random.default_rng(brows.seed)
    canvas = np.zeros((_HIGH * _FINE, _WIDE * _FINE), np.uint8)
    for side in (-1, 1):
        strokes = (_strokes(brows, rng) * (side, 1) - (_LEFT, _TOP)) * _FINE * 2**_SHIFT
        lines = list(np.rint(strokes).astype(np.int32))
        cv2.polylines(canvas, lines, False, 255, 1, cv2.LINE_AA, _SHIFT)
    hair = cv2.resize(canvas, None, fx=_COARSE / _FINE, fy=_COARSE / _FINE, interpolation=cv2.INTER_AREA)
    cover = np.minimum(hair * np.float32((0.5 + 0.4 * brows.density) / 255), 0.9)
    bed = np.float32(0.16 * brows.density + 0.45 * brows.filled) * _bed(brows)
    cover = cv2.GaussianBlur(1 - (1 - cover) * (1 - bed), (0, 0), 0.9)
    return from_front(cover, _LEFT, _TOP, _COARSE)
