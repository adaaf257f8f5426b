"""Lips, and what some people put on lips, lids and cheeks."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import bump, smooth
from preprocess.synthetic.rendered.colours import Rgb, darkness, jitter, mix
from preprocess.synthetic.rendered.places import places

_LIPS = ((0.84, 0.64, 0.66), (0.86, 0.74, 0.80))  # of the skin's colour, fair and dark
_FLESH = (196, 146, 138)  # in the inner corners of the eyes
LIPSTICKS = (
    (188, 72, 82), (170, 30, 44), (120, 22, 40), (196, 96, 104), (206, 120, 116), (160, 88, 78), (132, 40, 66),
    (214, 90, 112), (150, 70, 60), (98, 32, 46), (200, 60, 50),
)  # fmt: skip
SHADOWS = (
    (92, 66, 56),
    (70, 62, 66),
    (120, 84, 70),
    (84, 74, 104),
    (64, 88, 104),
    (130, 90, 96),
    (60, 70, 58),
    (168, 128, 92),
)


@dataclass(frozen=True)
class Makeup:
    """Strengths from 0 to 1.  lips: natural colour.  mascara: darkness and length of lashes."""

    lips: Rgb
    lipstick: Rgb
    lipstick_strength: float
    shadow: Rgb
    shadow_strength: float
    liner: float
    blush: float
    mascara: float


def draw_makeup(rng: np.random.Generator, sex: float, age: float, skin: Rgb) -> Makeup:
    """Somebody's: half of the women wear some."""
    worn = float(sex < 0.5 and rng.random() < 0.55 - 0.2 * age)
    of_skin = mix(mix(_LIPS[0], _LIPS[1], darkness(skin)), (0.92, 0.86, 0.87), float(rng.uniform(0, 0.6)))
    usual = (skin[0] * of_skin[0], skin[1] * of_skin[1], skin[2] * of_skin[2])

    def part(odds: float, least: float) -> float:
        return float(worn * (rng.random() < odds) * rng.uniform(least, 1))

    return Makeup(
        lips=jitter(rng, usual, 0.05),
        lipstick=mix(jitter(rng, LIPSTICKS[rng.integers(len(LIPSTICKS))], 0.12), usual, 0.65 * darkness(skin)),
        lipstick_strength=part(0.8, 0.35),
        shadow=jitter(rng, mix(SHADOWS[rng.integers(len(SHADOWS))], (0, 0, 0), 0.45 * darkness(skin)), 0.12),
        shadow_strength=part(0.55, 0.2),
        liner=part(0.6, 0.3),
        blush=part(0.5, 0.2),
        mascara=float(np.clip(0.35 + 0.25 * (1 - sex) + 0.12 * rng.normal() + part(0.8, 0.3), 0.1, 1)),
    )


@cache
def lip_cover() -> ndarray:
    """(HEAD_ROWS, WIDTH) float32: the red of the lips, 0 to 1."""
    return smooth(places().lips, 6.5, 5.0)


@cache
def _lids() -> tuple[ndarray, ndarray, ndarray]:
    """Edge of the upper lid, of the lower lid, and where shadow goes."""
    at = places()
    ax = np.abs(at.x)
    upper, near = at.y < np.interp(ax, [20, 45], [-0.5, -2.0]), at.z < 40
    line, above = smooth(at.eyes, 4.0, 2.6) * near, smooth(at.eyes, 5.2, 3.2) * near
    lid = smooth(at.eyes, 12.5, 6.0) * smooth(at.y, -17, -11) * upper * near
    return above * upper, line * ~upper, lid


@cache
def _corners() -> tuple[ndarray, ndarray]:
    """Flesh in the inner corners of the eyes, which the mesh has closed, and the edge of the lid above it."""
    at = places()
    ax = np.abs(at.x)
    along = (ax - 16.2) / 4.6  # from the corner to where the mesh's lids part
    off = at.y - (2.2 - 2.5 * along)
    half = 0.5 + 1.3 * along
    there = smooth(along, -0.15, 0.15) * smooth(along, 1.3, 1.1) * (at.z < 40)
    return smooth(half - np.abs(off), -0.5, 0.5) * there, bump(np.zeros_like(off), off + half, 0, 0.6, 1, 0.8) * there


@cache
def _cheeks() -> ndarray:
    at = places()
    return bump(np.abs(at.x), at.y, 47, 31, 15, 12) * (at.z < 50)


def _tint(colour: ndarray, target: Rgb | ndarray, amount: ndarray) -> None:
    colour += (np.asarray(target, np.float32) - colour) * amount[..., None]


def paint_makeup(colour: ndarray, gloss: ndarray, makeup: Makeup) -> None:
    """Into the atlas' head, (HEAD_ROWS, WIDTH, 3) and (HEAD_ROWS, WIDTH) float32: lips too, painted or not."""
    _paint_lips(colour[160:240, 170:246], gloss[160:240, 170:246], makeup, lip_cover()[160:240, 170:246])
    window = np.s_[90:160, 140:276]
    upper, lower, lid = (mask[window] for mask in _lids())
    eyes = colour[window]
    if makeup.shadow_strength:
        _tint(eyes, makeup.shadow, np.float32(0.7 * makeup.shadow_strength) * lid)
    _tint(eyes, (26, 18, 17), np.float32(min(1.0, 0.6 + 0.2 * makeup.mascara + 0.3 * makeup.liner)) * upper)
    _tint(eyes, (40, 24, 22), np.float32(0.04 + 0.2 * makeup.liner) * lower)
    flesh, edge = (mask[window] for mask in _corners())
    _tint(eyes, _FLESH, np.float32(0.85) * flesh)
    _tint(eyes, (40, 24, 22), np.float32(0.55) * edge)
    if makeup.blush:
        rose = colour * np.array([1.02, 0.82, 0.84], np.float32)
        colour += (rose - colour) * (np.float32(makeup.blush) * _cheeks())[..., None]


def _paint_lips(colour: ndarray, gloss: ndarray, makeup: Makeup, cover: ndarray) -> None:
    """Keeps the skin's light and dark, but takes the lips' hue."""
    inside = cover > 0.5
    light = colour.mean(axis=2, keepdims=True)
    relief = 1 + 0.75 * (light / light[inside].mean() - 1)
    _tint(colour, np.array(makeup.lips, np.float32) * relief, 0.75 * cover)
    sharp = smooth(cover, 0.15, 0.75) * np.float32(0.85 * makeup.lipstick_strength)
    _tint(colour, np.array(makeup.lipstick, np.float32) * (1 + 0.5 * (relief - 1)), sharp)
    gloss += cover * np.float32(35 + 60 * makeup.lipstick_strength)
