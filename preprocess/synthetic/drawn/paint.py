"""What a synthetic person is painted with: hair, beard, brows, skin and lips.

All take x and y of the head's points in mm (head frame) and return one value, or one colour, a point.
"""

import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import bump, smooth
from preprocess.synthetic.drawn.person import Identity
from preprocess.synthetic.drawn.shapes import WIDTH, azimuth, curve, lip_taper, mouth_line, noise
from preprocess.synthetic.scene import EYE_X


def _hair_edge(identity: Identity, angle: ndarray) -> ndarray:
    """y (mm) where the hair ends, by azimuth (degrees)."""
    top, style = identity.hairline, identity.hair_style
    temple = {"receding": -26, "fringe": 0, "long fringe": 0}.get(style, -7)
    centre = {"receding": -10, "fringe": 17, "long fringe": 15}.get(style, 0)
    front = [(0, top + centre), (22, top + centre * 0.8), (38, top + temple), (50, top + 6), (58, -14)]
    edge = curve(np.abs(angle), [*front, (68, 14), (78, 18), (86, -6), (100, 20), (125, 64)])
    if style == "side part" and not identity.symmetric:
        edge = edge + 9 * np.exp(-(((angle - 14) / 16) ** 2)) - 5 * np.exp(-(((angle + 26) / 7) ** 2))
    return edge


def strand_texture(identity: Identity, rng: np.random.Generator, rows: int) -> ndarray:
    """Texture of hair running down the rows, about -2 to 2."""
    shape, symmetric = (rows, WIDTH), identity.symmetric
    if identity.hair_style == "curly":
        return 0.8 * noise(rng, shape, (3, 3), symmetric) + 0.5 * noise(rng, shape, (1.5, 1.5), symmetric)
    length = 4.0 if identity.hair_style == "buzz" else 22.0
    thin = noise(rng, shape, (length, 1.3), symmetric)
    return 0.7 * thin + 0.6 * noise(rng, shape, (length * 1.6, 4), symmetric)


def hair_mask(identity: Identity, rng: np.random.Generator, y: ndarray, strands: ndarray) -> ndarray:
    """How much each head point is hair, 0 to 1."""
    if identity.hair_style == "bald":
        return np.zeros_like(y)
    angle = np.rad2deg(azimuth())[None]
    jagged = {"fringe": 3.2, "long fringe": 3.2, "curly": 2.5}.get(identity.hair_style, 1.6)
    wisps = sum(noise(rng, (1, WIDTH), (1, width), identity.symmetric) for width in (2.0, 6.0))
    edge = _hair_edge(identity, angle) + jagged * wisps + 0.8 * strands
    return 1 - smooth(y - edge, -2.0, 2.0)


def beard_mask(identity: Identity, rng: np.random.Generator, x: ndarray, y: ndarray) -> ndarray:
    """How much each head point is beard, 0 to 1."""
    if identity.beard == "none":
        return np.zeros_like(x)
    v, ax = y - mouth_line(identity, x), np.abs(x)
    moustache = smooth(v, -12.5, -9.5) * (1 - smooth(v, -4.5, -2.0)) * (1 - smooth(ax, 20, 27))
    chin = smooth(v, 12, 17) * (1 - smooth(ax, 17, 25)) + np.exp(-((x / 4) ** 2) - ((v - 11) / 3) ** 2)
    round_mouth = smooth(ax, 21, 25) * (1 - smooth(ax, 28, 33)) * smooth(v, -9, -4)
    cheeks = smooth(v + 24 - 0.9 * np.maximum(ax - 30, 0), -7, 13) * smooth(ax, 26, 34)
    under = smooth(v, 13, 19)
    shapes = {"moustache": moustache, "goatee": np.maximum.reduce([moustache, chin, round_mouth])}
    shapes["full"] = np.maximum.reduce([moustache, cheeks, under, chin])
    beard = shapes.get(identity.beard, shapes["full"])
    ragged = 0.16 * noise(rng, x.shape, (2, 1.5), identity.symmetric)
    return np.clip(beard * (1 + ragged), 0, 1) * (0.42 if identity.beard == "stubble" else 0.94)


def brow_mask(identity: Identity, rng: np.random.Generator, x: ndarray, y: ndarray) -> ndarray:
    """How much each head point is eyebrow, 0 to 1."""
    ax = np.abs(x)
    t = np.clip((ax - 12) / 38, 0, 1)
    arch = identity.brow_arch * np.sin(np.pi * np.clip(t * 1.1 - 0.1, 0, 1))
    middle = identity.brow_y - arch - identity.brow_tilt * (ax - 30)
    half = identity.brow_thick * (1.05 - 0.75 * t**2)
    hairs = 0.13 * noise(rng, x.shape, (1.3, 1.3), identity.symmetric)
    across = 1 - smooth(np.abs(y - middle), 0.55 * half, half + 0.9)
    inside = across * smooth(ax, 9, 15) * (1 - smooth(ax, 47, 54))
    return np.clip(inside * (0.95 + hairs), 0, 0.95)


def tint(colour: ndarray, target: ndarray | tuple, amount: ndarray) -> None:
    """Mixes a colour into `colour` (..., 3) in place."""
    colour += (np.asarray(target, np.float32) - colour) * amount[..., None]


def skin_colour(identity: Identity, rng: np.random.Generator, x: ndarray, y: ndarray) -> ndarray:
    """Linear RGB of bare skin with lips, blush, freckles, folds and nostrils."""
    ax, shape, symmetric = np.abs(x), x.shape, identity.symmetric
    skin = np.array(identity.skin, np.float32)
    mottle = 0.028 * noise(rng, shape, (9, 9), symmetric) + 0.018 * noise(rng, shape, (2.5, 2.5), symmetric)
    colour = skin * (1 + mottle[..., None])
    red = identity.blush * (bump(ax, y, 42, 30, 17, 12) + 0.6 * bump(x, y, 0, 37, 10, 8))
    colour *= 1 - red[..., None] * np.array([0.02, 0.20, 0.17], np.float32)
    spots = (noise(rng, shape, (1.2, 1.2), symmetric) > 1.5) * (bump(ax, y, 28, 24, 26, 14) > 0.35)
    colour *= 1 - 0.35 * identity.freckles * spots[..., None] * np.array([0.6, 1, 1.1], np.float32)
    tint(colour, skin * np.array([0.62, 0.5, 0.5], np.float32), 0.5 * bump(ax, y, 33, 12.5, 15, 4))
    colour *= 1 - (_wrinkles(identity, x, y) + _nostrils(identity, x, y))[..., None]
    _paint_lips(identity, colour, x, y)
    return colour


def _wrinkles(identity: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Darkness of the lines on the forehead and from the nose to the mouth."""
    waves = np.mod(y + 47 + 0.002 * x * x, 8.5) - 4
    forehead = np.exp(-((waves / 0.9) ** 2)) * (y < -24) * bump(x, y, 0, -36, 34, 30)
    cheeks = bump(np.abs(x) - 0.62 * (y - 42), y, 18.5, 51, 1.8, 10)
    return identity.wrinkles * (0.22 * forehead + 0.35 * cheeks) + 0.08 * cheeks


def _nostrils(identity: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Darkness of the nostrils and of the groove round the wings of the nose."""
    ax, t, width = np.abs(x), -6 + (y + 6) / identity.nose_length, identity.nose_width
    hole = np.exp(-((((ax - 6.8 * width) / 3.4) ** 2 + ((t - 44.6) / 2.1) ** 2) ** 1.5))
    round_wing = np.hypot(ax - 11.5 * width, t - 39)
    groove = np.exp(-(((round_wing - 6.6) / 1.5) ** 2)) * (ax > 12) * (t > 33)
    return 0.86 * hole + 0.16 * groove * (1 - hole)


def _paint_lips(identity: Identity, colour: ndarray, x: ndarray, y: ndarray) -> None:
    taper, v = lip_taper(identity, x), y - mouth_line(identity, x)
    bow = 1 - 0.28 * np.exp(-((x / 3.2) ** 2)) + 0.12 * np.exp(-(((np.abs(x) - 6) / 3.5) ** 2))
    upper, lower = identity.lip_upper * taper**1.2 * bow, identity.lip_lower * taper
    inside = smooth(v + upper, -0.9, 0.9) * (1 - smooth(v - lower, -1.2, 1.0)) * (taper > 0)
    tint(colour, identity.lips, 0.85 * inside)
    slit = np.exp(-((v / 1.15) ** 4)) * smooth(taper, 0.1, 0.4)
    tint(colour, (0.035, 0.008, 0.008), 0.86 * slit)


def crease_mask(identity: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Darkness of the fold above the upper lid."""
    u = (np.abs(x) - EYE_X) / (identity.eye_width + 1.5)
    line = -(identity.lid_upper + 4.2) * np.sqrt(np.clip(1 - u * u, 0, 1))
    line = line - identity.eye_tilt * (np.abs(x) - EYE_X)
    return np.exp(-(((y - line) / 1.25) ** 2)) * (np.abs(u) < 1) * 0.3 * identity.crease
