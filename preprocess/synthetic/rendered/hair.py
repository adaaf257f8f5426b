"""Hair of a rendered person: how it is worn, where it grows, how far it stands off, and its colours.

Spots are those of the mean head (`places.py`), so a hairline runs over the same spots of every face. What stands
free of the scalp are locks, see `locks.py`.
"""

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import smooth
from preprocess.synthetic.rendered.atlas import HAIR_ROWS, HEAD_ROWS, ROWS, WIDTH
from preprocess.synthetic.rendered.colours import planes
from preprocess.synthetic.rendered.places import places

HATS = ("knitted", "cap", "scarf")
STYLES = ("bald", "horseshoe", "buzz", "short", "curly", "tied", "bob", "long")
_FREQUENCY = {
    "female": (0.01, 0.0, 0.02, 0.15, 0.10, 0.24, 0.20, 0.28),
    "male": (0.06, 0.10, 0.17, 0.50, 0.08, 0.02, 0.02, 0.05),
}
_LOWEST_ROW = 220  # of the atlas, that hair grows on
# Where hair ends: y by azimuth in degrees, 0 in front, 90 over the ear; mm on the mean head.
# fmt: off
_EDGE = np.array([
    [0, -63], [15, -64], [28, -65], [40, -60], [50, -50], [60, -40], [66, -28], [71, -10], [76, 0], [83, 2],
    [89, -10], [93, -17], [100, -17], [106, -8], [112, 10], [122, 34], [135, 48], [155, 56], [180, 58],
])
# fmt: on


@dataclass(frozen=True)
class Hair:
    """How somebody wears the hair. mm, but for factors 0 to 1.

    high: how much higher than usual the hairline is.  recession: of the temples.  peak: widow's.
    top, side: how far it stands off there.  length: of locks; of long hair, y where it ends.
    part: where the parting is, x at the front.
    parted: how much hair falls from the parting, 1, or grows from the crown, 0.
    lift: of short locks.  curl: 0 straight.  fringe: y where it ends, 0 for none.
    sideburns: how much lower than usual they end.  grey: part of grey hairs.  thin: 0 dense.
    roots: how bright hair is there.  hat: of HATS, "" for none.
    """

    style: str = "bald"
    high: float = 0.0
    recession: float = 0.0
    peak: float = 0.0
    top: float = 0.0
    side: float = 0.0
    length: float = 0.0
    part: float = 0.0
    parted: float = 0.0
    lift: float = 0.0
    curl: float = 0.0
    fringe: float = 0.0
    sideburns: float = 0.0
    grey: float = 0.0
    thin: float = 0.0
    roots: float = 1.0
    seed: int = 0
    hat: str = ""
    hat_rgb: tuple[float, float, float] = (0.0, 0.0, 0.0)


def _draw_style(rng: np.random.Generator, sex: float, age: float, african: float) -> str:
    weights = np.array(_FREQUENCY["male" if sex > 0.5 else "female"])
    old = np.array([2.0, 2.4, 1.0, 1.1, 1.0, 0.6, 0.8, 0.4]) if sex > 0.5 else np.array([1, 1, 1, 3, 1, 0.7, 1, 0.5])
    weights = (
        weights * (1 + (old - 1) * age) * np.array([1, 1, 1 + african, 1 - 0.6 * african, 1 + 3 * african, 1, 1, 1])
    )
    return STYLES[rng.choice(len(STYLES), p=weights / weights.sum())]


def draw_hair(rng: np.random.Generator, sex: float, age: float, african: float) -> Hair:
    """A way to wear hair, as people of this sex (0 female to 1 male), age (0 to 1) and descent do."""
    style = _draw_style(rng, sex, age, african)
    male = float(sex > 0.5)
    top, side, length = {
        "bald": (0.0, 0.0, 0.0), "horseshoe": (2.5, 4.0, 12.0), "buzz": (1.5, 1.2, 0.0), "short": (11.0, 5.0, 34.0),
        "curly": (24.0, 18.0, 16.0), "tied": (5.0, 4.0, 110.0), "bob": (8.0, 9.0, 90.0), "long": (7.0, 8.0, 190.0),
    }[style]  # fmt: skip
    size = float(rng.uniform(0.6, 1.4))
    curl = rng.beta(0.9, 2.2) * (1 - 0.4 * african) + 0.4 * african
    fringe = rng.random() < {"bob": 0.35, "long": 0.22, "tied": 0.12, "short": 0.18}.get(style, 0.0) * (1 - 0.5 * curl)
    worn = Hair(
        style=style,
        high=float(np.clip(4 * rng.normal() + 7 * male * age, -6, 14)),
        recession=float(np.clip(rng.beta(1.2, 3) * (0.25 + 0.75 * male) * (0.4 + 1.2 * age), 0, 1)),
        peak=float(max(0.0, 3.5 * rng.normal())),
        top=top * size * (1 - 0.3 * male * age),
        side=side * size * float(rng.uniform(0.4 if style == "short" else 0.8, 1.2)),
        length=length * float(rng.uniform(0.8, 1.2)),
        part=float(rng.choice([0.0, 1.0, -1.0], p=[0.45, 0.3, 0.25]) * rng.uniform(18, 38)),
        parted=float(rng.uniform(0.6, 1.0) if style in ("bob", "long") else rng.choice([0.0, rng.uniform(0.2, 0.9)])),
        lift=float(rng.uniform(0.15, 0.8)),
        curl=float(np.clip(curl if style != "curly" else 0.7 + 0.3 * curl, 0, 1)),
        fringe=float(rng.uniform(-42, -20)) if fringe else 0.0,
        sideburns=float(male * (6 + 9 * rng.normal())),
        grey=float(np.clip(1.5 * (age - 0.3) + 0.25 * rng.normal(), 0, 0.8)),
        thin=float(np.clip(0.35 * age * male + 0.15 * rng.normal(), 0, 0.6)),
        roots=float(rng.uniform(0.45, 0.95)),
        seed=int(rng.integers(2**31)),
    )
    return _put_on(worn, rng, male)


def _put_on(hair: Hair, rng: np.random.Generator, male: float) -> Hair:
    """The same, or seldom with something on the head that presses the hair down."""
    chances = np.array([0.02, 0.025, 0.0] if male else [0.015, 0.005, 0.035])
    which, grey = rng.random(), rng.uniform(20, 220)
    rgb = tuple(np.clip(grey + rng.normal(size=3) * 0.25 * grey, 8, 240).tolist())
    if which >= chances.sum():
        return hair
    hat = HATS[int(np.searchsorted(np.cumsum(chances), which, side="right"))]
    flat = replace(hair, hat=hat, hat_rgb=rgb, top=min(hair.top, 2.0), side=min(hair.side, 3.0), length=0.0, fringe=0.0)
    return replace(flat, style={"bob": "tied", "long": "tied", "curly": "buzz"}.get(hair.style, hair.style))


def inside(hair: Hair, spots: ndarray) -> ndarray:
    """How far above the hairline spots (..., 3) of the mean head are, mm, negative where no hair grows."""
    x, y, z = np.moveaxis(spots, -1, 0)
    if hair.style == "bald":
        return np.full(x.shape, -99.0, np.float32)
    angle = np.rad2deg(np.arctan2(np.abs(x), 75 - z))
    edge = np.interp(angle, *_EDGE.T)
    front = 1 - smooth(angle, 45, 62)
    edge -= hair.high * front - hair.peak * np.exp(-((angle / 7) ** 2))
    edge -= 26 * hair.recession * np.exp(-(((angle - 36) / 13) ** 2)) + 6 * hair.recession * front
    edge += hair.sideburns * np.exp(-(((angle - 79) / 6) ** 2))
    above = edge - y
    if hair.style == "horseshoe":
        round_crown = np.hypot(x, 0.8 * (z - 78)) - 66 + 0.3 * (y + 90)
        above = np.minimum(above, np.minimum(1.2 * round_crown - 4, 2 * (angle - 55)))
    return above.astype(np.float32)


def stand_off(hair: Hair, spots: ndarray) -> ndarray:
    """How far the surface of the hair is from the scalp, mm, at spots (..., 3) of the mean head."""
    above, y = inside(hair, spots), spots[..., 1]
    up = smooth(-y, 45, 105)
    edge = smooth(above, -3, 4 + 0.9 * max(hair.top, hair.side))
    return (hair.side + (hair.top - hair.side) * up) * edge


@cache
def _noise(long: float, wide: float) -> ndarray:
    """(512, 2 WIDTH) float32 noise, sd 1, streaks that run down."""
    noise = np.random.default_rng(5).standard_normal((512, WIDTH), np.float32)
    streaks = cv2.GaussianBlur(noise, (0, 0), sigmaX=wide, sigmaY=long)
    return np.hstack([streaks, streaks[:, ::-1]]) / streaks.std()


def streaks(rng: np.random.Generator, rows: int, long: float, wide: float) -> ndarray:
    """(rows, WIDTH) noise, sd 1, streaks that run down: blurring fresh noise for each person takes too long."""
    top, left = int(rng.integers(513 - rows)), int(rng.integers(WIDTH + 1))
    return _noise(long, wide)[top : top + rows, left : left + WIDTH]


def strands(hair: Hair, rng: np.random.Generator, rows: int) -> ndarray:
    """(rows, WIDTH) how bright strands are against their mean, about -2 to 2."""
    if hair.style == "curly":
        return 0.8 * streaks(rng, rows, 1.6, 1.6) + 0.6 * streaks(rng, rows, 3.5, 3.5)
    if hair.style == "buzz":
        return 0.6 * streaks(rng, rows, 1.0, 0.7)
    return 0.75 * streaks(rng, rows, 9.0, 0.7) + 0.5 * streaks(rng, rows, 14.0, 2.5)


def strand_colour(hair: Hair, rgb: tuple[float, float, float], noise: ndarray, rng: np.random.Generator) -> ndarray:
    """(..., 3) colours on the square-root scale for the brightness of strands; some hairs are grey."""
    tone, shine = np.clip(1 + 0.15 * noise, 0.45, 1.7), 3 * np.maximum(noise, 0)
    colour = [np.float32(c) * tone + shine for c in rgb]
    if hair.grey:
        grey = np.clip(streaks(rng, len(noise), 9.0, 0.6) - 1.6 + 3.2 * hair.grey, 0, 1) * 0.6
        colour = [own + (np.float32(c) * tone - own) * grey for own, c in zip(colour, (166, 162, 154), strict=True)]
    return np.moveaxis(np.array(colour), 0, -1)


def paint_hair(atlas: ndarray, hair: Hair, rgb: tuple[float, float, float]) -> None:
    """Paints the scalp, and the area that locks take their colours from, into an atlas (ROWS, WIDTH, 4) uint8."""
    if hair.style == "bald":
        return
    rng = np.random.default_rng(hair.seed)
    _paint_scalp(atlas[:HEAD_ROWS], hair, rgb, rng)
    area = atlas[ROWS - HAIR_ROWS :]
    noise = strands(hair, rng, HAIR_ROWS) + 0.5 * streaks(rng, 1, 1.0, 6.0)
    along = np.linspace(0, 1, HAIR_ROWS, dtype=np.float32)[:, None, None]
    shade = hair.roots + (1.08 - hair.roots) * np.minimum(1.6 * along + 0.2, 1)
    area[..., :3] = np.clip(strand_colour(hair, rgb, noise, rng) * shade, 0, 255)
    area[..., 3] = np.clip(70 + 35 * noise, 0, 255) * (0.4 if hair.style == "curly" else 1.0)


def _paint_scalp(head: ndarray, hair: Hair, rgb: tuple[float, float, float], rng: np.random.Generator) -> None:
    at = places()
    spots = np.dstack([at.x, at.y, at.z])[:_LOWEST_ROW]
    head, above, noise = head[:_LOWEST_ROW], inside(hair, spots), strands(hair, rng, _LOWEST_ROW)
    reach = {"buzz": 3.0, "horseshoe": 3.0, "tied": 1.4}.get(hair.style, 2.2)
    cover = smooth(above + reach * streaks(rng, _LOWEST_ROW, 3.0, 0.6), -3.0, 7.0)
    dense = {"buzz": 0.8, "horseshoe": 0.85}.get(hair.style, 1.0) * (1 - 0.6 * hair.thin * (spots[..., 1] < -60))
    cover = (cover * np.clip(dense + (1 - dense) * noise, 0, 1))[..., None]
    colour = planes(_LOWEST_ROW, WIDTH, 4)
    colour[..., :3] = strand_colour(hair, rgb, noise, rng) * np.float32(0.5 + 0.5 * hair.roots)
    colour[..., 3] = 45 + 25 * noise
    head[:] = np.clip(head + (colour - head) * cover, 0, 255)
