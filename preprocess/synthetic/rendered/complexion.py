"""What makes skin one person's: redness, freckles, moles, dark rings, wrinkles, spots of age, pores and shine."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import bump, smooth
from preprocess.synthetic.rendered.atlas import HEAD_ROWS, WIDTH
from preprocess.synthetic.rendered.colours import Rgb, darkness
from preprocess.synthetic.rendered.places import from_front, noise, places

_LEFT, _TOP, _WIDE, _HIGH, _SCALE = -72.0, -88.0, 144, 208, 2  # mm of the plane that lines are drawn on; pixels a mm
_SHIFT = 4


@dataclass(frozen=True)
class Complexion:
    """Strengths from 0 to 1.  moles: x, y (mm, mean head), radius (mm) of each.  shine: 0.4 dry to 1.6 wet."""

    redness: float
    freckles: float
    rings: float
    wrinkles: float
    spots: float
    mottle: float
    pores: float
    shine: float
    moles: tuple[tuple[float, float, float], ...]
    seed: int


def draw_complexion(rng: np.random.Generator, sex: float, age: float, skin: Rgb) -> Complexion:
    """Somebody's. Freckles and redness go with fair skin, wrinkles and spots with age."""
    fair = 1 - darkness(skin)
    moles = rng.uniform((-58, -60, 0.5), (58, 100, 1.1), (int(rng.poisson(1.0)), 3))
    return Complexion(
        redness=float(fair * rng.random() * (0.6 + 0.4 * sex)),
        freckles=float(fair * rng.uniform(0.3, 1) * (rng.random() < 0.25)),
        rings=float(np.clip(0.15 + 0.35 * age + 0.25 * rng.normal(), 0, 1)),
        wrinkles=float(np.clip(1.35 * (age - 0.28) + 0.12 * rng.normal(), 0, 1)),
        spots=float(np.clip(1.5 * (age - 0.5) + 0.2 * rng.normal(), 0, 1) * fair),
        mottle=float(rng.uniform(0.3, 1)),
        pores=float(np.clip(0.4 + 0.2 * sex + 0.3 * age + 0.2 * rng.normal(), 0.15, 1)),
        shine=float(np.clip(1 + 0.3 * rng.normal(), 0.4, 1.6)),
        moles=tuple(tuple(mole) for mole in moles.tolist()),
        seed=int(rng.integers(2**31)),
    )


@cache
def _red_places() -> tuple[ndarray, ndarray, ndarray]:
    """Where blood shows, where freckles are, and the hollow below each eye."""
    at = places()
    ax, front = np.abs(at.x), smooth(at.z, 60, 40)
    red = 0.9 * bump(ax, at.y, 38, 33, 17, 15) * front + bump(at.x, at.y, 0, 37, 15, 11) * front
    red += 0.3 * bump(at.x, at.y, 0, 104, 18, 10) * front + 0.8 * smooth(ax, 77, 82)
    freckled = (bump(ax, at.y, 30, 27, 26, 15) + 0.7 * bump(at.x, at.y, 0, 24, 14, 20)) * front
    freckled += 0.3 * bump(at.x, at.y, 0, -40, 40, 22) * front
    y = at.y - 0.012 * (ax - 32) ** 2
    hollow = bump(ax, at.y, 27 + 0, 12.5, 13, 6.0) + 0.5 * bump(ax, at.y, 18, 3, 5, 8)
    hollow = np.maximum(hollow, 0.9 * bump(ax, y, 30, 14, 12, 2.2)) * front * smooth(at.eyes, 3, 5)
    return np.minimum(red, 1), np.minimum(freckled, 1), hollow


def _lines(seed: int) -> tuple[list[ndarray], list[ndarray]]:
    """Wrinkles on the plane before the face, mm (points, 2): deep ones and fine ones."""
    rng = np.random.default_rng(seed)
    deep, fine = [], []
    t = np.linspace(0, 1, 14)
    for y in np.arange(-66, -27, 7.5) + rng.normal(0, 1, 6):
        half, middle = rng.uniform(18, 40), 6 * rng.normal()
        x = middle + half * (2 * t - 1)
        wave = 0.8 * np.sin(x / 9 + 6 * rng.random()) + 1.6 * np.cos(x / 17)
        deep.append(np.stack([x, y + wave + 0.003 * x * x], axis=1))
    for side in (-1, 1):
        sag = 3 * rng.normal()
        nose = np.stack([18 + 13 * t + 3.5 * np.sin(np.pi * t) + 1.5 * t * t, 38 + (32 + sag) * t], axis=1)
        deep.append(nose * (side, 1))
        mouth = np.stack([28 + 3 * np.sin(2.2 * t), 73 + 16 * t], axis=1)
        fine += [mouth * (side, 1), np.stack([5.5 + 0.8 * rng.normal() + 2 * t, -24 + 14 * t], axis=1) * (side, 1)]
        for angle in np.linspace(-0.55, 0.6, 5) + rng.normal(0, 0.07, 5):
            start, length = rng.uniform(3, 5), rng.uniform(7, 13)
            r = start + length * t
            bent = angle * (1 + 0.25 * t)
            fine.append(np.stack([(46 + r * np.cos(bent)), -1 + r * np.sin(bent)], axis=1) * (side, 1))
        for drop in (10.5, 13.5, 17.0) + rng.normal(0, 0.6, 3):
            x = rng.uniform(18, 22) + 24 * t
            fine.append(np.stack([x, drop - 3 + 6 * np.sin(np.pi * t) ** 0.8 - 2 * t], axis=1) * (side, 1))
    return deep, fine


def _wrinkles(complexion: Complexion) -> ndarray:
    """(HEAD_ROWS, WIDTH) float32: how much darker furrows are; light ridges beside them are negative."""
    canvas = np.zeros((_HIGH * _SCALE, _WIDE * _SCALE), np.uint8)
    for lines, level, thick in zip(_lines(complexion.seed), (255, 150), (2, 1), strict=True):
        points = [np.rint((line - (_LEFT, _TOP)) * _SCALE * 2**_SHIFT).astype(np.int32) for line in lines]
        cv2.polylines(canvas, points, False, level, thick, cv2.LINE_AA, _SHIFT)
    furrow = cv2.GaussianBlur(canvas, (0, 0), 1.4).astype(np.float32)
    furrow -= 0.8 * cv2.GaussianBlur(canvas, (0, 0), 4.0)
    return from_front(furrow * np.float32(1 / 255), _LEFT, _TOP, _SCALE)


@cache
def _grain() -> tuple[ndarray, ndarray]:
    """(HEAD_ROWS, WIDTH) float32 each: places of pores (fewer round the eyes), and what is not lips or lids."""
    at = places()
    bare = smooth(at.lips, 5, 6.5) * smooth(at.eyes, 3, 6)
    return (0.45 + 0.55 * bump(np.abs(at.x), at.y, 16, 36, 30, 24)) * bare, bare


def paint_complexion(colour: ndarray, complexion: Complexion, skin: Rgb) -> None:
    """Into the atlas' head, (HEAD_ROWS, WIDTH, 3) float32."""
    rng = np.random.default_rng(complexion.seed)
    red, freckled, hollow = _red_places()
    pore_places, bare = _grain()
    fair = 1 - darkness(skin)
    fine, wide = noise(rng, 0.6), noise(rng, 9)
    patches = noise(rng, 3)
    dark = np.float32(0.014 + 0.024 * complexion.pores) * fine * pore_places
    dark += np.float32(0.004 + 0.008 * complexion.mottle) * patches * bare
    if complexion.wrinkles > 0.02:
        dark += np.float32(0.36 * complexion.wrinkles) * _wrinkles(complexion)
    dark += np.float32(0.16 * complexion.rings) * hollow
    spots = np.float32(complexion.freckles) * np.clip(noise(rng, 0.75) - 0.7, 0, 0.8) * freckled
    if complexion.spots:
        spots += np.float32(0.8 * complexion.spots) * np.clip(noise(rng, 1.8) - 1.6, 0, 0.5)
    spots *= bare
    blood = np.float32(0.20 * complexion.redness) * red * (1 + 0.3 * patches) + np.float32(0.014 * fair) * wide
    violet = np.float32(0.08 * complexion.rings) * hollow
    for i, (spot, redness, ring) in enumerate(((0.17, 0.08, 1.0), (0.30, 1.0, 1.2), (0.40, 0.85, 0.3))):
        colour[..., i] *= 1 - np.clip(dark + spot * spots + redness * blood + ring * violet, -0.3, 0.9)
    _paint_moles(colour, complexion, rng)


def _paint_moles(colour: ndarray, complexion: Complexion, rng: np.random.Generator) -> None:
    at = places()
    for x, y, radius in complexion.moles:
        row, column = divmod(int(np.argmin(np.abs(at.x - x) + np.abs(at.y - y) + 0.3 * at.z)), WIDTH)
        window = np.s_[max(row - 4, 0) : row + 5, max(column - 4, 0) : column + 5]
        away = np.hypot(at.x[window] - x, at.y[window] - y)
        tone = 0.62 - 0.3 * rng.random()
        colour[window] *= (
            1
            - (1 - np.array((tone, tone * 0.85, tone * 0.8), np.float32))
            * smooth(away, radius + 0.8, radius - 0.5)[..., None]
        )


@cache
def _shiny() -> ndarray:
    """(HEAD_ROWS, WIDTH) float32: forehead, nose, cheekbones and chin shine, sides and eye hollows less."""
    at = places()
    ax, front = np.abs(at.x), smooth(at.z, 45, 15)
    t_zone = bump(at.x, at.y, 0, -38, 34, 20) + 1.2 * bump(at.x, at.y, 0, 24, 9, 24)
    t_zone += 0.6 * bump(ax, at.y, 42, 22, 12, 8) + 0.4 * bump(at.x, at.y, 0, 100, 14, 9)
    hollow = bump(ax, at.y, 32, 0, 16, 12)
    return (62 + 62 * np.minimum(t_zone, 1.3) * front - 18 * hollow).astype(np.float32)


def paint_gloss(gloss: ndarray, complexion: Complexion) -> None:
    """Sets the atlas' gloss of bare skin, (HEAD_ROWS, WIDTH)."""
    grain = noise(np.random.default_rng(complexion.seed + 1), 0.6)
    gloss[:] = _shiny() * (np.float32(complexion.shine) * (1 + np.float32(0.12) * grain))


@cache
def hollows() -> ndarray:
    """(HEAD_ROWS, WIDTH) float32: how dark it is in nostrils and ears, 0 to 1."""
    column, row = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEAD_ROWS, dtype=np.float32))
    away = np.abs(column - np.float32(207.3))
    nostrils = 0.85 * bump(away, row, 7.6, 168.2, 2.7, 2.3)
    ears = 0.5 * bump(away, row, 120.0, 137.0, 4.5, 6.0) + 0.3 * bump(away, row, 121.0, 125.0, 6, 2.5)
    return np.minimum(nostrils + ears, 0.9)
