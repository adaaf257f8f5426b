"""Teeth, gums and the inside of the mouth."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.rendered.atlas import SPOTS
from preprocess.synthetic.rendered.colours import Rgb, jitter, mix

# mm from the middle to the far side of each tooth as seen from the front, upper and lower.
_UPPER, _LOWER = (0, 8.6, 15.2, 22.0, 27.4, 31.5, 36.5), (0, 5.4, 11.2, 17.6, 23.6, 28.6, 36.5)
_HALF = 36.3  # mm across half of the spot


@dataclass(frozen=True)
class Teeth:
    """gum: colour.  size: of the teeth, 1 usual.  uneven: 0 to 1.  diastema: mm between the upper two in front."""

    colour: Rgb
    gum: Rgb
    size: float
    uneven: float
    diastema: float
    seed: int


def draw_teeth(rng: np.random.Generator, age: float) -> Teeth:
    """Somebody's; they yellow with age."""
    yellow = float(np.clip(0.25 + 0.4 * age + 0.25 * rng.normal(), 0, 1))
    return Teeth(
        colour=jitter(rng, mix((250, 240, 224), (238, 216, 178), yellow), 0.03),
        gum=jitter(rng, (158, 84, 84), 0.12),
        size=float(np.clip(1 + 0.06 * rng.normal(), 0.85, 1.15)),
        uneven=float(rng.random() ** 2),
        diastema=float(1.4 if rng.random() < 0.06 else 0),
        seed=int(rng.integers(2**31)),
    )


def _row_of_teeth(teeth: Teeth, rng: np.random.Generator, upper: bool) -> ndarray:
    """(height, width, 4): teeth by x across the arch; the gum above or below them."""
    _, _, width, height = SPOTS["upper-teeth"]
    fine = 4
    x = (np.linspace(-1, 1, fine * width) * _HALF).astype(np.float32)
    down = np.linspace(0, 1, fine * height)[:, None]  # from the gum's side to the tips
    ends = np.array(_UPPER if upper else _LOWER) * teeth.size
    ax = np.maximum(np.abs(x) - (teeth.diastema / 2 if upper else 0), 0)
    number = np.clip(np.searchsorted(ends, ax, side="right") - 1, 0, len(ends) - 2)
    wide = ends[number + 1] - ends[number]
    t = 2 * (ax - ends[number]) / wide - 1  # -1 to 1 across a tooth
    which = number + (x > 0) * len(ends)
    tone = 1 + 0.035 * rng.normal(size=2 * len(ends))[which] * (0.5 + teeth.uneven)
    deep = [1, 0.96, 0.88, 0.62] if upper else [1, 0.9, 0.4, 0.2]  # lower ones at the side lie behind the tongue
    tone = tone * np.interp(np.abs(x), [0, 14, 20, 36], deep)
    tip = (0.93 + 0.05 * rng.normal(size=2 * len(ends)) * teeth.uneven)[which] - 0.04 * (number % 2)
    tip = tip - 0.06 * np.abs(t) ** 3
    edge = (0.5 if upper else 0.55) - 0.07 * np.sqrt(np.clip(1 - t * t, 0, 1))
    gap = np.clip(1 - (1 - np.abs(t)) * wide / 2 / 0.5, 0, 1)
    tooth = np.array(teeth.colour) * (tone * (1 - 0.09 * np.abs(t) ** 3) * (1 - 0.16 * gap))[..., None]
    tooth = (
        tooth[None]
        * (0.9 + 0.13 * np.clip((down - 0.5) / 0.3, 0, 1) - 0.06 * np.clip((down - 0.85) / 0.1, 0, 1))[..., None]
    )
    gum = np.array(teeth.gum) * (np.interp(np.abs(x), [0, 36], [1, 0.6]) * (1 - 0.12 * np.abs(t) ** 3))[None, :, None]
    picture = np.where((down < edge)[..., None], gum, np.where((down < tip)[..., None], tooth, (60, 18, 18)))
    picture = np.dstack([picture, np.full(picture.shape[:2], 150.0)])[:: 1 if upper else -1]
    return cv2.resize(picture.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)


def paint_mouth(atlas: ndarray, teeth: Teeth, lips: Rgb) -> None:
    """Into the atlas, (ROWS, WIDTH, 4) float32."""
    rng = np.random.default_rng(teeth.seed)
    left, top, width, height = SPOTS["mouth"]
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)
    # Lips go on inside; the throat is dark, the tongue lies in the lower half.
    wet = np.array(mix(lips, (120, 40, 40), 0.5), np.float32)
    deep = np.array((52, 15, 15), np.float32)
    tongue = (np.exp(-((across / 0.55) ** 2)) * np.clip((down - 0.55) / 0.15, 0, 1))[..., None]
    rim = np.exp(-(((down - 0.58) / 0.14) ** 2)) * np.ones_like(across)
    inside = deep + (wet - deep) * (0.55 * rim[..., None])
    inside += ((138, 66, 66) - inside) * tongue * 0.5
    atlas[top : top + height, left : left + width] = np.dstack([inside, np.full((height, width), 90, np.float32)])
    for name in ("upper-teeth", "lower-teeth"):
        left, top, width, height = SPOTS[name]
        atlas[top : top + height, left : left + width] = _row_of_teeth(teeth, rng, name == "upper-teeth")
