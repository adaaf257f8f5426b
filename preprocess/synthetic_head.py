"""The surface of a synthetic person: one atlas of points with colours, normals and expression offsets.

Head frame in mm, as in the face model of the ST-ED preprocessing: x towards image right, y down, z into the head,
origin between the eyes. The atlas stacks grids (head, ears, neck, long hair) of a common width on each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from .synthetic_person import Identity

WIDTH = 208
HEAD_ROWS, EAR_ROWS, NECK_ROWS, LONG_ROWS = 200, 44, 40, 76
EYE_X, EYE_Z, EYE_RADIUS = 32.5, 13.0, 16.5
NECK_PIVOT = np.array([0.0, 62.0, 72.0], np.float32)

# Sections of the head from the crown to the throat: y and z on the midline, half width, y at the side,
# z of the widest place, how pointed the front is.
SECTIONS = np.array([
    [-122, 72, 2, -122, 76, 0.0], [-116, 36, 34, -119, 76, 0.0], [-100, 10, 55, -108, 76, 0.0],
    [-80, -5, 66, -88, 76, 0.0], [-55, -13, 71, -58, 75, 0.0], [-30, -16.5, 72, -30, 73, 0.0],
    [-15, -17, 71, -14, 72, 0.0], [0, -15.5, 70.5, 1, 71, 0.0], [20, -15, 70, 18, 70, 0.0],
    [38, -17.5, 68.5, 32, 69, 0.04], [50, -20, 66.5, 41, 68, 0.10], [60, -20.5, 64.5, 48, 67, 0.18],
    [72, -18, 62, 55, 66, 0.28], [84, -18.5, 59, 60, 65, 0.38], [93, -16, 57, 64, 64, 0.42],
    [99, -7, 55, 68, 63, 0.42], [101, 6, 53, 70, 63, 0.34], [98, 28, 50, 71, 64, 0.2], [90, 46, 46, 70, 66, 0.0],
], np.float64)


@dataclass(frozen=True)
class Person:
    """What the renderer needs of a person; arrays are (rows, WIDTH, channels) float32 over the atlas."""

    identity: Identity
    position: ndarray           # 3: x, y, z in mm
    normal: ndarray             # 3, unit, outwards
    colour: ndarray             # 4: linear RGB, gloss
    smile: ndarray              # 3: offset in mm at full smile, face rows only
    jaw: ndarray                # 3: offset in mm for one mm of open mouth, face rows only
    neck: slice                 # rows that follow the head only in part
    nose_tip: tuple[int, int]   # row and column of a landmark


def _smooth(x: ndarray, low: float, high: float) -> ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _bump(x: ndarray, y: ndarray, cx: float, cy: float, rx: float, ry: float) -> ndarray:
    return np.exp(-((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2)


def _curve(x: ndarray, knots: list[tuple[float, float]]) -> ndarray:
    """Smooth interpolation through knots: linear, then rounded off by averaging shifted copies."""
    at, value = np.array(knots, np.float64).T
    step = 0.25 * float(np.min(np.diff(at)))
    return sum(np.interp(x + d * step, at, value) for d in (-1.0, 0.0, 1.0)).astype(np.float32) / 3


def _noise(rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float], symmetric: bool) -> ndarray:
    """Zero-mean, unit-variance noise, smooth over sigma = (rows, columns) cells."""
    small = [max(2, int(np.ceil(n / max(1.0, s)))) for n, s in zip(shape, sigma)]
    n = cv2.resize(rng.standard_normal(small).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    if symmetric:
        n = n + n[:, ::-1]
    return (n - n.mean()) / (n.std() + 1e-6)


def _azimuth(limit_deg: float = 125.0) -> ndarray:
    """Column angles, 0 in front, closer together there."""
    s = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    return np.deg2rad(limit_deg) * (0.72 * s + 0.28 * s**3)


def _sections(person: Identity) -> ndarray:
    """SECTIONS for this person, resampled to HEAD_ROWS rows that are dense on the face."""
    table = SECTIONS.copy()
    lower = np.clip((table[:, 0] - 25) / 60, 0, 1)
    table[:, 2] *= person.face_width * (1 + (person.jaw_width - 1) * lower)
    table[:, 5] *= person.jaw_taper / 0.32
    long = np.where(table[:, 0] > 0, person.face_length, 1.0)
    table[:, 0] *= long
    table[:, 3] *= long
    at = np.arange(len(table))
    fine = np.linspace(0, len(table) - 1, 4000)
    path = np.stack([np.interp(fine, at, column) for column in table.T])
    kernel = np.hanning(361) / np.hanning(361).sum()
    path = np.stack([np.convolve(np.pad(c, 180, mode="edge"), kernel, mode="valid") for c in path])
    length = np.hypot(np.diff(path[0]), np.diff(path[1]))
    weight = np.where((path[0, 1:] > -60) & (path[1, 1:] < 10), 1.0, 0.62)
    weight += 1.3 * np.exp(-((path[0, 1:] - person.mouth_y) / 5) ** 2) * (path[1, 1:] < 10)
    travelled = np.concatenate([[0], np.cumsum(length * weight)])
    rows = np.interp(np.linspace(0, travelled[-1], HEAD_ROWS), travelled, np.arange(4000))
    return np.stack([np.interp(rows, np.arange(4000), c) for c in path])[:, :, None].astype(np.float32)


def _skull(person: Identity) -> tuple[ndarray, ndarray, ndarray]:
    y_front, z_front, half, y_side, z_side, pointed = _sections(person)
    angle = _azimuth()[None]
    sin, cos = np.sin(angle), np.cos(angle)
    x = half * sin * (1 - pointed * (1 - np.abs(sin)))
    y = y_front + (y_side - y_front) * (1 - np.clip(cos, 0, 1)) ** 1.2
    z = z_side - (z_side - z_front) * np.where(cos > 0, cos, cos * 1.1)
    return x, y, z


def _nose(person: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Height of the nose above the face, mm, at frontal coordinates."""
    t = -6 + (y + 6) / person.nose_length
    ridge = _curve(t, [(-14, 0), (-6, 0.6), (2, 3.2), (10, 7.0), (20, 12.6), (30, 18.4), (36, 20.6), (40, 19.4),
                       (44, 12.5), (47, 5.0), (51, 0.8), (56, 0)])
    ridge = ridge + person.nose_hump * _bump(t, t, 12, 12, 9, 9)
    wide = _curve(t, [(-14, 9), (0, 7.6), (12, 8.2), (24, 10.0), (34, 12.2), (42, 13.5), (52, 13)])
    u = np.abs(x) / (wide * (0.5 + 0.5 * person.nose_width))
    body = ridge * np.exp(-np.abs(u * 1.12) ** 2.3)
    wing_x, wing_y = 12.0 * person.nose_width, 39.5
    wings = 8.0 * np.exp(-(((np.abs(x) - wing_x) / 4.6) ** 2 + ((t - wing_y) / 5.2) ** 2) ** 1.4)
    ball = 2.2 * np.exp(-(x / 7.5) ** 2 - ((t - 36) / 5.5) ** 2)
    return (body + wings + ball) * person.nose_height


def _mouth_line(person: Identity, x: ndarray) -> ndarray:
    return person.mouth_y + person.mouth_curve * (1 - (x / person.mouth_width) ** 2).clip(-1, 1) + 0.6 * np.exp(-(x / 4) ** 2)


def _lip_taper(person: Identity, x: ndarray) -> ndarray:
    return np.sqrt(np.clip(1 - (x / person.mouth_width) ** 2, 0, 1))


def _mouth(person: Identity, x: ndarray, y: ndarray) -> ndarray:
    taper, v = _lip_taper(person, x), y - _mouth_line(person, x)
    upper = 3.4 * np.exp(-((v + 0.55 * person.lip_upper) / (0.6 * person.lip_upper)) ** 2)
    lower = 4.6 * np.exp(-((v - 0.55 * person.lip_lower) / (0.6 * person.lip_lower)) ** 2)
    groove = 2.6 * np.exp(-(v / 1.5) ** 2)
    philtrum = 0.9 * np.exp(-(x / 2.2) ** 2 - ((v + 10) / 4) ** 2)
    return (upper + lower - groove) * taper - philtrum


def _relief(person: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Everything but the lids that the face adds to the skull, mm towards the camera."""
    ax = np.abs(x)
    brow = 3.6 * person.brow_ridge * _bump(ax, y, 26, -17, 24, 6.5)
    socket = 6.5 * _bump(ax, y, 32, -3, 17, 11) + 3.2 * _bump(ax, y, 14, -4, 7, 9)
    cheek = 3.4 * person.cheeks * _bump(ax, y, 43, 27, 19, 15) - 2.6 * _bump(ax, y, 44, 58, 16, 16)
    fold = 1.1 * _bump(ax - 0.62 * (y - 42) * (y > 38), y, 19, 50, 3.5, 12)
    chin = 4.6 * _bump(x, y, 0, 87 * person.face_length, 15, 8) - 2.6 * _bump(x, y, 0, 74.5 * person.face_length, 17, 4)
    temple = 3.0 * _bump(ax, y, 66, -16, 14, 17)
    return brow - socket + cheek - fold + chin - temple + _nose(person, x, y) + _mouth(person, x, y)


def _lids(x: ndarray, y: ndarray, z: ndarray) -> ndarray:
    """Lets the face come forward over the eyeballs (smooth minimum of depth)."""
    r = EYE_RADIUS + 1.5
    inside = np.maximum(r * r - (np.abs(x) - EYE_X) ** 2 - (y * 1.06) ** 2, 0)
    lid = np.where(inside > 0, EYE_Z - np.sqrt(inside), 60.0)
    k = 3.0
    h = np.clip(0.5 + 0.5 * (z - lid) / k, 0, 1)
    return z + (lid - z) * h - k * h * (1 - h)


def _normals(p: ndarray) -> ndarray:
    dv, du = np.gradient(p, axis=0), np.gradient(p, axis=1)
    n = np.cross(dv, du)
    return (n / np.maximum(np.linalg.norm(n, axis=2, keepdims=True), 1e-6)).astype(np.float32)


def _hair_edge(person: Identity, angle: ndarray) -> ndarray:
    """y (mm) where the hair ends, by azimuth (degrees)."""
    top, style = person.hairline, person.hair_style
    temple = {"receding": -26, "fringe": 0, "long fringe": 0}.get(style, -7)
    centre = {"receding": -10, "fringe": 17, "long fringe": 15}.get(style, 0)
    knots = [(0, top + centre), (22, top + centre * 0.8), (38, top + temple), (50, top + 6), (58, -14), (68, 14),
             (78, 18), (86, -6), (100, 20), (125, 64)]
    edge = _curve(np.abs(angle), knots)
    if style == "side part" and not person.symmetric:
        edge = edge + 9 * np.exp(-((angle - 14) / 16) ** 2) - 5 * np.exp(-((angle + 26) / 7) ** 2)
    return edge


def _strands(person: Identity, rng: np.random.Generator, rows: int) -> ndarray:
    """Texture of hair running down the rows, about -2 to 2."""
    if person.hair_style == "curly":
        return 0.8 * _noise(rng, (rows, WIDTH), (3, 3), person.symmetric) + 0.5 * _noise(
            rng, (rows, WIDTH), (1.5, 1.5), person.symmetric)
    length = 4.0 if person.hair_style == "buzz" else 22.0
    return 0.7 * _noise(rng, (rows, WIDTH), (length, 1.3), person.symmetric) + 0.6 * _noise(
        rng, (rows, WIDTH), (length * 1.6, 4), person.symmetric)


def _scalp(person: Identity, rng: np.random.Generator, y: ndarray, strands: ndarray) -> ndarray:
    """How much each head point is hair, 0 to 1."""
    if person.hair_style == "bald":
        return np.zeros_like(y)
    angle = np.rad2deg(_azimuth())[None]
    jagged = {"fringe": 3.2, "long fringe": 3.2, "curly": 2.5}.get(person.hair_style, 1.6)
    wisps = _noise(rng, (1, WIDTH), (1, 2.0), person.symmetric) + _noise(rng, (1, WIDTH), (1, 6.0), person.symmetric)
    edge = _hair_edge(person, angle) + jagged * wisps + 0.8 * strands
    return 1 - _smooth(y - edge, -2.0, 2.0)


def _beard(person: Identity, rng: np.random.Generator, x: ndarray, y: ndarray) -> ndarray:
    """How much each head point is beard, 0 to 1."""
    if person.beard == "none":
        return np.zeros_like(x)
    v, ax = y - _mouth_line(person, x), np.abs(x)
    moustache = _smooth(v, -12.5, -9.5) * (1 - _smooth(v, -4.5, -2.0)) * (1 - _smooth(ax, 20, 27))
    chin = _smooth(v, 12, 17) * (1 - _smooth(ax, 17, 25)) + np.exp(-(x / 4) ** 2 - ((v - 11) / 3) ** 2)
    round_mouth = _smooth(ax, 21, 25) * (1 - _smooth(ax, 28, 33)) * _smooth(v, -9, -4)
    cheeks = _smooth(v + 26 - 0.9 * np.maximum(ax - 30, 0), -2, 8) * _smooth(ax, 26, 34)
    under = _smooth(v, 13, 19)
    shapes = {"moustache": moustache, "goatee": np.maximum.reduce([moustache, chin, round_mouth])}
    beard = shapes.get(person.beard, np.maximum.reduce([moustache, cheeks, under, chin]))
    ragged = 0.16 * _noise(rng, x.shape, (2, 1.5), person.symmetric)
    return np.clip(beard * (1 + ragged), 0, 1) * (0.42 if person.beard == "stubble" else 0.94)


def _brows(person: Identity, rng: np.random.Generator, x: ndarray, y: ndarray) -> ndarray:
    ax = np.abs(x)
    t = np.clip((ax - 12) / 38, 0, 1)
    middle = person.brow_y - person.brow_arch * np.sin(np.pi * np.clip(t * 1.1 - 0.1, 0, 1)) - person.brow_tilt * (ax - 30)
    half = person.brow_thick * (1.05 - 0.75 * t**2)
    hairs = 0.22 * _noise(rng, x.shape, (3, 1.2), person.symmetric)
    inside = (1 - _smooth(np.abs(y - middle), 0.55 * half, half + 0.9)) * _smooth(ax, 9, 15) * (1 - _smooth(ax, 47, 54))
    return np.clip(inside * (0.95 + hairs), 0, 0.95)


def _tint(colour: ndarray, target: ndarray | tuple, amount: ndarray) -> None:
    colour += (np.asarray(target, np.float32) - colour) * amount[..., None]


def _skin(person: Identity, rng: np.random.Generator, x: ndarray, y: ndarray) -> ndarray:
    """Linear RGB of bare skin with lips, blush, freckles, folds and nostrils."""
    ax, shape, sym = np.abs(x), x.shape, person.symmetric
    skin = np.array(person.skin, np.float32)
    mottle = 0.028 * _noise(rng, shape, (9, 9), sym) + 0.018 * _noise(rng, shape, (2.5, 2.5), sym)
    colour = skin * (1 + mottle[..., None])
    red = person.blush * (_bump(ax, y, 42, 30, 17, 12) + 0.6 * _bump(x, y, 0, 37, 10, 8))
    colour *= 1 - red[..., None] * np.array([0.02, 0.20, 0.17], np.float32)
    spots = (_noise(rng, shape, (1.2, 1.2), sym) > 1.5) * (_bump(ax, y, 28, 24, 26, 14) > 0.35)
    colour *= 1 - 0.35 * person.freckles * spots[..., None] * np.array([0.6, 1, 1.1], np.float32)
    creases = np.exp(-((np.mod(y + 47 + 0.002 * x * x, 8.5) - 4) / 0.9) ** 2) * (y < -24) * _bump(x, y, 0, -36, 34, 30)
    folds = _bump(ax - 0.62 * (y - 42), y, 18.5, 51, 1.8, 10)
    colour *= 1 - (person.wrinkles * (0.22 * creases + 0.35 * folds) + 0.08 * folds)[..., None]
    _tint(colour, skin * np.array([0.62, 0.5, 0.5], np.float32), 0.5 * _bump(ax, y, 33, 12.5, 15, 4))
    return _lip_paint(person, colour, x, y)


def _lip_paint(person: Identity, colour: ndarray, x: ndarray, y: ndarray) -> ndarray:
    taper, v = _lip_taper(person, x), y - _mouth_line(person, x)
    bow = 1 - 0.28 * np.exp(-(x / 3.2) ** 2) + 0.12 * np.exp(-((np.abs(x) - 6) / 3.5) ** 2)
    upper, lower = person.lip_upper * taper**1.2 * bow, person.lip_lower * taper
    inside = _smooth(v + upper, -0.9, 0.9) * (1 - _smooth(v - lower, -1.2, 1.0)) * (taper > 0)
    _tint(colour, person.lips, 0.85 * inside)
    slit = np.exp(-((v / 1.15) ** 4)) * _smooth(taper, 0.1, 0.4)
    _tint(colour, (0.035, 0.008, 0.008), 0.86 * slit)
    t = -6 + (y + 6) / person.nose_length
    nostril = np.exp(-((((np.abs(x) - 6.8 * person.nose_width) / 3.4) ** 2 + ((t - 44.6) / 2.1) ** 2) ** 1.5))
    wing = _bump(np.hypot(np.abs(x) - 11.5 * person.nose_width, t - 39), t * 0, 6.6, 0, 1.5, 1) * (np.abs(x) > 12) * (t > 33)
    colour *= 1 - (0.86 * nostril + 0.16 * wing)[..., None]
    return colour


def _crease(person: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Fold above the upper lid and the dark rim of the lashes' root, 0 to 1."""
    u = (np.abs(x) - EYE_X) / (person.eye_width + 1.5)
    line = -(person.lid_upper + 4.2) * np.sqrt(np.clip(1 - u * u, 0, 1)) - person.eye_tilt * (np.abs(x) - EYE_X)
    return np.exp(-((y - line) / 1.25) ** 2) * (np.abs(u) < 1) * 0.3 * person.crease


def _face_offsets(person: Identity, x: ndarray, y: ndarray, z: ndarray) -> tuple[ndarray, ndarray]:
    """Offsets of the head grid for a full smile and for one mm of open jaw."""
    front = 1 - _smooth(z, 15, 55)
    side = np.tanh(x / 6)
    corner = _bump(np.abs(x), y, person.mouth_width, person.mouth_y, 13, 12) * front
    cheek = _bump(np.abs(x), y, 38, 36, 15, 13) * front
    smile = np.stack([4.6 * corner * side, -4.8 * corner - 2.2 * cheek, 1.6 * corner - 2.4 * cheek], axis=2)
    v = y - _mouth_line(person, x)
    taper = _lip_taper(person, x) ** 1.3
    drop = _smooth(v, -0.7, 0.7) * taper + _smooth(v, -2, 26) * (1 - taper)
    drop = drop * front * (1 - _smooth(np.abs(x), 26, 62))
    return smile, np.stack([0 * drop, drop, 0.12 * drop], axis=2)


def _cavity(p: ndarray, n: ndarray) -> ndarray:
    """Baked ambient light: 1 on open skin, less in hollows."""
    light = np.ones(p.shape[:2], np.float32)
    for sigma, gain in ((2.5, 0.30), (7.0, 0.085)):
        hollow = np.sum((cv2.GaussianBlur(p, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) - p) * n, axis=2)
        light *= 1 - np.clip(gain * hollow, 0, 0.55)
    return light


def _head(person: Identity, rng: np.random.Generator) -> dict[str, ndarray]:
    x, y, z = _skull(person)
    front = 1 - _smooth(z, 20, 62)
    strands = _strands(person, rng, HEAD_ROWS)
    bare = _lids(x, y, z - front * _relief(person, x, y))
    hair, beard, brows = _scalp(person, rng, y, strands), _beard(person, rng, x, y) * front, _brows(person, rng, x, y) * front
    p = np.stack([np.broadcast_to(x, bare.shape), y, bare], axis=2).astype(np.float32)
    skin_normal = _normals(p)
    thick = {"buzz": 1.5, "curly": 15.0, "short": 7.0, "receding": 4.0, "long": 9.0, "long fringe": 9.0}
    body = cv2.GaussianBlur(hair, (0, 0), 2.2)        # soft edges: neighbouring points must not tear apart
    depth = (thick.get(person.hair_style, 8.0) * _smooth(-y, -70, 40) + 0.8 * cv2.GaussianBlur(strands, (0, 0), 0.8)) * body
    depth = depth + (0 if person.beard == "stubble" else 3.0) * cv2.GaussianBlur(beard, (0, 0), 1.5) + 0.7 * brows
    p = p + (depth[..., None] * cv2.GaussianBlur(skin_normal, (0, 0), 2)).astype(np.float32)
    smile, jaw = _face_offsets(person, x, y, bare)
    normal = _normals(p)
    return {"position": p, "normal": normal, "smile": smile, "jaw": jaw,
            "colour": _head_colour(person, rng, (x, y), (hair, beard, brows, strands), _cavity(p, normal) * (
                1 - _crease(person, x, y) * front))}


def _head_colour(person: Identity, rng: np.random.Generator, at: tuple, hairy: tuple, light: ndarray) -> ndarray:
    x, y = np.broadcast_arrays(*at)
    hair, beard, brows, strands = hairy
    colour = _skin(person, rng, x, y)
    stubble = np.clip(0.75 + 0.3 * _noise(rng, x.shape, (1.3, 1.3), person.symmetric), 0.3, 1.2)[..., None]
    shade = np.clip(1 + 0.3 * strands, 0.35, 1.8)[..., None]
    under_fringe = cv2.GaussianBlur(hair, (0, 0), 3.5) * (1 - hair)
    colour *= 1 - 0.4 * under_fringe[..., None]
    _tint(colour, np.array(person.hair, np.float32) * stubble, beard)
    _tint(colour, person.brow, brows)
    _tint(colour, np.array(person.hair, np.float32) * shade, hair * (0.75 if person.hair_style == "buzz" else 1.0))
    gloss = person.gloss * (1 - hair) * (1 - beard) * (0.5 + 0.9 * _bump(x, y, 0, 25, 12, 22) + 0.5 * _bump(x, y, 0, -35, 40, 14))
    gloss = gloss + 0.7 * _bump(x, y, 0, person.mouth_y + 4, 16, 3)
    return np.concatenate([colour * light[..., None], gloss[..., None]], axis=2)


def _ears(person: Identity, head: dict[str, ndarray]) -> dict[str, ndarray]:
    """Both ears as bowls with a rolled rim; columns 0..W/2 are the ear at image left."""
    half = WIDTH // 2
    r = np.linspace(0, 1, EAR_ROWS, dtype=np.float32)[:, None]
    phi = np.linspace(-np.pi, np.pi, half, dtype=np.float32)[None]
    along, up = r * np.cos(phi), r * np.sin(phi)
    out = 3 + 11 * along + 5.5 * np.exp(-((r - 0.86) / 0.13) ** 2) - 4.5 * _bump(along, up, -0.1, 0.1, 0.5, 0.42)
    out = out + 3.0 * _bump(along, up, 0.25, 0.0, 0.16, 0.5)
    size = person.ears
    x = -(64.0 * person.face_width + 4 + out * size)
    y = 14 + (29 - 6 * along) * up * size + 4 * along
    z = 70 + 15.5 * along * size + 3 * up
    p = np.stack(np.broadcast_arrays(x, y, z), axis=2)
    n = _normals(p)
    n = np.where(n[..., :1] > 0, -n, n)
    skin = np.array(person.skin, np.float32) * np.array([1.0, 0.86, 0.84], np.float32)
    shade = 1 - 0.6 * _bump(along, up, -0.1, 0.1, 0.5, 0.42) - 0.25 * np.exp(-((r - 0.66) / 0.1) ** 2)
    c = np.concatenate([skin * shade[..., None], np.full((EAR_ROWS, half, 1), 0.3, np.float32)], axis=2)
    mirror = np.array([-1, 1, 1], np.float32)
    return {"position": np.concatenate([p, p[:, ::-1] * mirror], 1), "colour": np.concatenate([c, c[:, ::-1]], 1),
            "normal": np.concatenate([n, n[:, ::-1] * mirror], 1)}


def _neck(person: Identity, rng: np.random.Generator) -> dict[str, ndarray]:
    """Neck, running into shoulders with a collar."""
    t = np.linspace(0, 1, NECK_ROWS, dtype=np.float32)[:, None]
    angle = _azimuth(100.0)[None]
    y = 58 + 122 * t + 0 * angle
    flare = _smooth(t, 0.42, 1.0)
    x = (47 * person.face_width * (0.75 + 0.25 * person.jaw_width) + 95 * flare) * np.sin(angle)
    y = y - 26 * flare * (1 - np.abs(np.sin(angle)))
    z = 78 - (50 + 26 * flare) * np.cos(angle)
    p = np.stack(np.broadcast_arrays(x, y, z), axis=2).astype(np.float32)
    skin = np.array(person.skin, np.float32) * (0.92 - 0.10 * (t < 0.3))[..., None]
    tendon = 0.07 * np.exp(-((np.abs(x) - 20 + 18 * t) / 4) ** 2)
    colour = np.broadcast_to(skin, p.shape) * (1 - tendon[..., None])
    cloth = _smooth(y - 0.06 * np.abs(x), 118, 121)
    weave = 1 + 0.1 * _noise(rng, p.shape[:2], (8, 8), person.symmetric)
    _tint(colour, np.array(person.shirt, np.float32), cloth)
    colour = colour * np.where(cloth[..., None] > 0.5, weave[..., None], 1)
    gloss = 0.25 * (1 - cloth)
    return {"position": p, "normal": _normals(p), "colour": np.concatenate([colour, gloss[..., None]], 2)}


def _long_hair(person: Identity, rng: np.random.Generator) -> dict[str, ndarray]:
    """Two curtains of hair from the temples over the ears to the shoulders."""
    half = WIDTH // 2
    strands = _strands(person, rng, LONG_ROWS)
    t = np.linspace(0, 1, LONG_ROWS, dtype=np.float32)[:, None]
    s = np.linspace(0, 1, half, dtype=np.float32)[None]
    wave = 3.5 * np.sin(9 * t + person.texture_seed % 7)
    angle = np.deg2rad(52 + wave + 5 * np.sin(3.1 * t) + 118 * s**1.25)
    x = -(72 * person.face_width + 9 + 7 * np.sin(2.2 * t) + 2 * t) * np.sin(angle)
    y = -62 + 205 * t + 0 * s
    z = 74 - 86 * np.cos(angle) + 8 * t
    p = np.stack(np.broadcast_arrays(x, y, z), axis=2)
    p = np.concatenate([p, p[:, ::-1] * np.array([-1, 1, 1], np.float32)], 1).astype(np.float32)
    normal = _normals(p)
    normal = np.where((normal[..., :1] * p[..., :1]) < 0, -normal, normal)
    p = p + normal * (1.8 * strands)[..., None]
    shade = np.clip(1 + 0.3 * strands, 0.3, 1.9) * np.tile(_smooth(np.abs(np.linspace(-1, 1, WIDTH)), 0, 0.2), (LONG_ROWS, 1))
    edge = 1 - 0.35 * np.exp(-np.concatenate([s, s[:, ::-1]], 1) / 0.06)
    colour = np.array(person.hair, np.float32) * (shade * edge)[..., None]
    return {"position": p, "normal": normal, "colour": np.concatenate([colour, 0 * colour[..., :1]], 2)}


def build_person(identity: Identity) -> Person:
    """Sculpts and paints a person; about 0.2 CPU-seconds."""
    rng = np.random.default_rng(identity.texture_seed)
    head = _head(identity, rng)
    parts = [head, _ears(identity, head), _neck(identity, rng)]
    if identity.hair_style.startswith("long"):
        parts.append(_long_hair(identity, rng))
    stacked = {k: np.ascontiguousarray(np.concatenate([p[k] for p in parts], 0), np.float32)
               for k in ("position", "normal", "colour")}
    p = head["position"]
    tip = np.unravel_index(np.argmin(p[..., 2] + 10 * np.abs(p[..., 0])), p.shape[:2])
    start = HEAD_ROWS + EAR_ROWS
    return Person(identity, **stacked, smile=head["smile"].astype(np.float32), jaw=head["jaw"].astype(np.float32),
                  neck=slice(start, start + NECK_ROWS), nose_tip=(int(tip[0]), int(tip[1])))
