"""Beards: stubble, full beards, goatees, moustaches and sideburns, painted and, where long, raised off the skin."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import smooth
from preprocess.synthetic.rendered.assets import load_mesh
from preprocess.synthetic.rendered.atlas import BODY_ROWS, HEAD_ROWS, WIDTH
from preprocess.synthetic.rendered.colours import Rgb, jitter, mix
from preprocess.synthetic.rendered.places import noise, places

STYLES = ("none", "shadow", "stubble", "full", "goatee", "moustache", "sideburns")
_ODDS = (0.36, 0.2, 0.16, 0.12, 0.07, 0.05, 0.04)


@dataclass(frozen=True)
class Beard:
    """style: of STYLES.  length: mm.  cheek: mm that its edge on the cheek is lower than usual.

    density: 0 to 1 of what it covers.  patchy: 0 even to 1.
    """

    style: str
    colour: Rgb
    length: float
    cheek: float
    density: float
    patchy: float
    seed: int


def draw_beard(rng: np.random.Generator, sex: float, age: float, hair: Rgb) -> Beard:
    """Somebody's; women have none."""
    style = str(rng.choice(STYLES, p=_ODDS)) if sex > 0.6 else "none"
    colour = mix(hair, (74, 44, 28) if rng.random() < 0.3 else (26, 22, 20), float(rng.uniform(0, 0.4)))
    if rng.random() < 1.2 * (age - 0.3):
        colour = mix(colour, (150, 146, 142), float(rng.uniform(0.2, 0.9)))
    if style in ("shadow", "stubble"):  # short hair shows its roots below the skin
        colour = mix(colour, (42, 36, 36), 0.8 if style == "shadow" else 0.55)
    return Beard(
        style=style,
        colour=jitter(rng, colour, 0.08),
        length=float(rng.uniform(2, 9)),
        cheek=float(5 * rng.normal()),
        density=float(rng.uniform(0.25, 0.6) if style == "shadow" else rng.uniform(0.6, 1)),
        patchy=float(rng.random() ** 2),
        seed=int(rng.integers(2**31)),
    )


@cache
def _regions() -> tuple[ndarray, ndarray, ndarray, ndarray, ndarray]:
    """(HEAD_ROWS, WIDTH) each: mm below the usual edge on the cheek; moustache, chin, round the mouth, sides."""
    at = places()
    ax, y, z = np.abs(at.x), at.y, at.z
    edge = np.interp(z, [-14, 0, 12, 30, 44, 53, 66], [70, 66, 61, 51, 36, 8, -14]).astype(np.float32)
    skin = smooth(at.lips, 4.9, 6.2)
    wings = smooth(ax, 32, 22)
    moustache = smooth(y - 0.012 * ax * ax, 51.5, 55.5) * smooth(y, 78, 70) * wings * skin
    moustache *= 1 - 0.55 * smooth(ax, 3.0, 0.8)  # the groove below the nose
    chin = smooth(np.hypot(ax / 30, (y - 106) / 27), 1.05, 0.65) * smooth(y, 80, 90) * skin
    chin = np.maximum(chin, 0.8 * smooth(ax, 8, 3) * smooth(y, 77, 81) * skin)
    mouth = smooth(ax, 20, 25) * smooth(ax, 38, 27) * smooth(y, 57, 66) * smooth(y, 102, 86) * skin
    mouth = np.maximum(mouth, 0.8 * smooth(y, 75, 79) * smooth(ax, 30, 24) * skin)
    front = smooth(z, 70, 62) * (at.on_skin | (y > 90))
    sides = front * smooth(ax, 22, 28)
    return (y - edge) * np.float32(1), moustache, chin, mouth, np.stack([sides, front * skin])


def beard_cover(beard: Beard) -> ndarray:
    """(HEAD_ROWS, WIDTH) float32: where the beard is, 0 to 1, without single hairs."""
    if beard.style == "none":
        return np.zeros((HEAD_ROWS, WIDTH), np.float32)
    below, moustache, chin, mouth, (sides, front) = _regions()
    rng = np.random.default_rng(beard.seed)
    edge = below - np.float32(beard.cheek) + np.float32(1.2) * noise(rng, 2.5)
    cheeks = smooth(edge, -3, 7) * sides
    if beard.style == "goatee":
        cover = np.maximum(np.maximum(moustache, chin), mouth) * np.clip(0.95 + 0.15 * noise(rng, 2), 0, 1)
    elif beard.style == "moustache":
        cover = moustache
    elif beard.style == "sideburns":
        cover = cheeks * smooth(places().y, 56, 30) * smooth(places().z, 38, 50)
    else:
        under = smooth(places().y, 82, 92) * front
        cover = np.maximum(np.maximum(np.maximum(moustache, cheeks), np.maximum(chin, under)), mouth)
    thin = np.float32(0.45 * beard.patchy) * np.clip(noise(rng, 6) * 0.6 + 0.3, 0, 1)
    return cover * (1 - thin * (1 - 0.5 * moustache))


@cache
def _strands() -> ndarray:
    """(HEAD_ROWS, WIDTH) float32: hair that runs down the rows, deviation 1."""
    white = np.random.default_rng(5).standard_normal((HEAD_ROWS, WIDTH)).astype(np.float32)
    hair = cv2.GaussianBlur(white, (0, 0), sigmaX=0.5, sigmaY=1.3)
    return hair / hair.std()


def paint_beard(colour: ndarray, gloss: ndarray, beard: Beard) -> None:
    """Into the atlas' head, (HEAD_ROWS, WIDTH, 3) and (HEAD_ROWS, WIDTH) float32."""
    if beard.style == "none":
        return
    rng = np.random.default_rng(beard.seed + 1)
    cover, dots = beard_cover(beard), noise(rng, 0.6)
    hair = np.array(beard.colour, np.float32)
    if beard.style in ("shadow", "stubble"):
        most = 0.34 if beard.style == "shadow" else 0.62
        amount = cover * np.float32(most * beard.density) * np.clip(0.85 + 0.32 * dots, 0.1, 1.4)
        tone = hair
    else:
        # Light hair hides its own shadows.
        contrast = np.float32(1.2 - 0.7 * hair.mean() / 255)
        strands = contrast * (np.roll(_strands(), int(rng.integers(WIDTH)), axis=1) + np.float32(0.4) * noise(rng, 3))
        amount = cover * np.float32(0.75 + 0.5 * beard.density) + np.float32(0.14) * strands * cover * (1.6 - cover)
        amount = np.clip(amount, 0, 0.96)
        tone = hair * (1 + np.float32(0.11) * strands[..., None])
    colour += (tone - colour) * amount[..., None]
    gloss *= 1 - 0.7 * amount


def paint_below_chin(body: ndarray, beard: Beard) -> None:
    """Into the atlas' neck, (BODY_ROWS, WIDTH, 4), where it meets the chin."""
    if beard.style in ("none", "moustache", "sideburns"):
        return
    strength = {"shadow": 0.3, "stubble": 0.55}.get(beard.style, 0.9) * beard.density
    x = (np.arange(WIDTH) / (WIDTH - 1) - 0.5) * 520
    row = np.arange(BODY_ROWS)[:, None]
    wide = 26 if beard.style == "goatee" else 58
    amount = strength * smooth(row - 0.001 * x * x, 19, 14) * smooth(np.abs(x), wide, wide - 14)
    body[..., :3] += (np.array(beard.colour) - body[..., :3]) * amount[..., None]


def displacement(beard: Beard) -> ndarray | None:
    """(V,) float32 mm that a long beard's surface lies off the skin, by vertex; None if nowhere."""
    if beard.style not in ("full", "goatee", "moustache"):
        return None
    mesh = load_mesh()
    cover = cv2.GaussianBlur(beard_cover(beard), (0, 0), 1.5)
    column, row = mesh.corner_place.T
    on_head = row < HEAD_ROWS
    heights = cv2.remap(cover, column[on_head], row[on_head], cv2.INTER_LINEAR).ravel()
    raised = np.zeros(len(mesh.vertices), np.float32)
    np.maximum.at(raised, mesh.corner_vertex[on_head], heights)
    low = smooth(mesh.vertices[:, 1] - mesh.vertices[mesh.eyes, 1].mean(), 70, 105)  # longest below the mouth
    return raised * np.float32(beard.length) * (0.3 + 0.7 * low)
