"""The surface of a synthetic person: one atlas of points with colours, normals and expression offsets.

Head frame in mm, as in the face model of the ST-ED preprocessing: x towards image right, y down, z into the
head, origin between the eyes. The atlas stacks grids (head, ears, neck, long hair) of a common width.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import bump, smooth
from preprocess.synthetic.drawn.paint import (
    beard_mask,
    brow_mask,
    crease_mask,
    hair_mask,
    skin_colour,
    strand_texture,
    tint,
)
from preprocess.synthetic.drawn.person import Identity
from preprocess.synthetic.drawn.shapes import BALL_RADIUS, WIDTH, azimuth, curve, lip_taper, mouth_line, noise
from preprocess.synthetic.scene import EYE_X, EYE_Z

HEAD_ROWS, EAR_ROWS, NECK_ROWS, LONG_ROWS = 200, 44, 60, 96
NECK_PIVOT = np.array([0.0, 62.0, 72.0], np.float32)

# Sections of the head from the crown to the throat: y and z on the midline, half width, y at the side,
# z of the widest place, how pointed the front is.
# fmt: off
SECTIONS = np.array([
    [-122, 72, 2, -122, 76, 0.0], [-116, 36, 34, -119, 76, 0.0], [-100, 10, 55, -108, 76, 0.0],
    [-80, -5, 66, -88, 76, 0.0], [-55, -13, 71, -58, 75, 0.0], [-30, -16.5, 72, -30, 73, 0.0],
    [-15, -17, 71, -14, 72, 0.0], [0, -15.5, 70.5, 1, 71, 0.0], [20, -15, 70, 18, 70, 0.0],
    [38, -17.5, 68.5, 32, 69, 0.04], [50, -20, 65.5, 41, 68, 0.10], [60, -20.5, 63, 48, 67, 0.18],
    [72, -18, 59.5, 55, 66, 0.28], [84, -18.5, 55, 61, 65, 0.38], [93, -16, 51, 65, 64, 0.42],
    [99, -7, 48.5, 69, 63, 0.42], [101, 6, 47, 71, 63, 0.34], [98, 28, 46, 72, 64, 0.2],
    [90, 46, 45, 71, 66, 0.0],
], np.float64)
# The nose from its root to the lip: (y, height) and (y, half width).
NOSE_RIDGE = [(-14, 0), (-6, 0.6), (2, 3.2), (10, 7.0), (20, 12.6), (30, 18.4), (36, 20.6), (40, 19.4),
              (44, 12.5), (47, 5.0), (51, 0.8), (56, 0)]
NOSE_WIDTH = [(-14, 9), (0, 7.6), (12, 8.2), (24, 10.0), (34, 12.2), (42, 13.5), (52, 13)]
# fmt: on
# How far hair stands off the skull, mm; other styles 8.
HAIR_DEPTH = {"buzz": 1.5, "curly": 15.0, "short": 7.0, "receding": 4.0, "long": 9.0, "long fringe": 9.0}

Part = dict[str, ndarray]  # position, normal and colour of one grid of points


@dataclass(frozen=True)
class Person:
    """What the renderer needs of a person; arrays are (rows, WIDTH, channels) float32 over the atlas."""

    identity: Identity
    position: ndarray  # 3: x, y, z in mm
    normal: ndarray  # 3, unit, outwards
    colour: ndarray  # 4: linear RGB, gloss
    smile: ndarray  # 3: offset in mm at full smile, face rows only
    jaw: ndarray  # 3: offset in mm for one mm of open mouth, face rows only
    neck: slice  # rows that follow the head only in part
    nose_tip: tuple[int, int]  # row and column of a landmark


def _sections(identity: Identity) -> ndarray:
    """SECTIONS for this person, resampled to HEAD_ROWS rows that are dense on the face."""
    table = SECTIONS.copy()
    lower = np.clip((table[:, 0] - 25) / 60, 0, 1)
    table[:, 2] *= identity.face_width * (1 + (identity.jaw_width - 1) * lower)
    table[:, 5] *= identity.jaw_taper / 0.32
    long = np.where(table[:, 0] > 0, identity.face_length, 1.0)
    table[:, 0] *= long
    table[:, 3] *= long
    at = np.arange(len(table))
    fine = np.linspace(0, len(table) - 1, 4000)
    path = np.stack([np.interp(fine, at, column) for column in table.T])
    kernel = np.hanning(361) / np.hanning(361).sum()
    path = np.stack([np.convolve(np.pad(c, 180, mode="edge"), kernel, mode="valid") for c in path])
    length = np.hypot(np.diff(path[0]), np.diff(path[1]))
    weight = np.where((path[0, 1:] > -60) & (path[1, 1:] < 10), 1.0, 0.62)
    weight += 1.3 * np.exp(-(((path[0, 1:] - identity.mouth_y) / 5) ** 2)) * (path[1, 1:] < 10)
    travelled = np.concatenate([[0], np.cumsum(length * weight)])
    rows = np.interp(np.linspace(0, travelled[-1], HEAD_ROWS), travelled, np.arange(4000))
    return np.stack([np.interp(rows, np.arange(4000), c) for c in path])[:, :, None].astype(np.float32)


def _skull(identity: Identity) -> tuple[ndarray, ndarray, ndarray]:
    """x, y and z of the head without a face."""
    y_front, z_front, half, y_side, z_side, pointed = _sections(identity)
    angle = azimuth()[None]
    sin, cos = np.sin(angle), np.cos(angle)
    x = half * sin * (1 - pointed * (1 - np.abs(sin)))
    y = y_front + (y_side - y_front) * (1 - np.clip(cos, 0, 1)) ** 1.2
    z = z_side - (z_side - z_front) * np.where(cos > 0, cos, cos * 1.1)
    return x, y, z


def _nose(identity: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Height of the nose above the face, mm, at frontal coordinates."""
    t = -6 + (y + 6) / identity.nose_length
    ridge = curve(t, NOSE_RIDGE) + identity.nose_hump * bump(t, t, 12, 12, 9, 9)
    wide = curve(t, NOSE_WIDTH)
    u = np.abs(x) / (wide * (0.5 + 0.5 * identity.nose_width))
    body = ridge * np.exp(-(np.abs(u * 1.15) ** 2.1))
    wing_x, wing_y = 12.0 * identity.nose_width, 39.5
    wings = 8.0 * np.exp(-((((np.abs(x) - wing_x) / 4.6) ** 2 + ((t - wing_y) / 5.2) ** 2) ** 1.4))
    ball = 2.2 * np.exp(-((x / 7.5) ** 2) - ((t - 36) / 5.5) ** 2)
    return (body + wings + ball) * identity.nose_height


def _mouth(identity: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Height of the lips above the face, mm."""
    taper, v = lip_taper(identity, x), y - mouth_line(identity, x)
    upper = 3.4 * np.exp(-(((v + 0.55 * identity.lip_upper) / (0.6 * identity.lip_upper)) ** 2))
    lower = 4.6 * np.exp(-(((v - 0.55 * identity.lip_lower) / (0.6 * identity.lip_lower)) ** 2))
    groove = 2.6 * np.exp(-((v / 1.5) ** 2))
    philtrum = 0.9 * np.exp(-((x / 2.2) ** 2) - ((v + 10) / 4) ** 2)
    return (upper + lower - groove) * taper - philtrum


def _relief(identity: Identity, x: ndarray, y: ndarray) -> ndarray:
    """Everything but the lids that the face adds to the skull, mm towards the camera."""
    ax = np.abs(x)
    brow = 3.6 * identity.brow_ridge * bump(ax, y, 26, -17, 24, 6.5)
    socket = 6.5 * bump(ax, y, 32, -3, 17, 11) + 3.2 * bump(ax, y, 14, -4, 7, 9)
    cheek = 3.4 * identity.cheeks * bump(ax, y, 43, 27, 19, 15) - 2.6 * bump(ax, y, 44, 58, 16, 16)
    fold = 1.1 * bump(ax - 0.62 * (y - 42) * (y > 38), y, 19, 50, 3.5, 12)
    long = identity.face_length
    chin = 4.6 * bump(x, y, 0, 87 * long, 15, 8) - 2.6 * bump(x, y, 0, 74.5 * long, 17, 4)
    temple = 3.0 * bump(ax, y, 66, -16, 14, 17)
    return brow - socket + cheek - fold + chin - temple + _nose(identity, x, y) + _mouth(identity, x, y)


def _lids(x: ndarray, y: ndarray, z: ndarray) -> ndarray:
    """Lets the face come forward over the eyeballs (smooth minimum of depth)."""
    r = BALL_RADIUS + 1.5
    inside = np.maximum(r * r - (np.abs(x) - EYE_X) ** 2 - (y * 1.06) ** 2, 0)
    lid = np.where(inside > 0, EYE_Z - np.sqrt(inside), 60.0)
    k = 3.0
    h = np.clip(0.5 + 0.5 * (z - lid) / k, 0, 1)
    return z + (lid - z) * h - k * h * (1 - h)


def _normals(p: ndarray) -> ndarray:
    """Outward unit normals of a grid of points."""
    dv, du = np.gradient(p, axis=0), np.gradient(p, axis=1)
    n = np.cross(dv, du)
    return (n / np.maximum(np.linalg.norm(n, axis=2, keepdims=True), 1e-6)).astype(np.float32)


def _face_offsets(identity: Identity, x: ndarray, y: ndarray, z: ndarray) -> tuple[ndarray, ndarray]:
    """Offsets of the head grid for a full smile and for one mm of open jaw."""
    front = 1 - smooth(z, 15, 55)
    side = np.tanh(x / 6)
    corner = bump(np.abs(x), y, identity.mouth_width, identity.mouth_y, 13, 12) * front
    cheek = bump(np.abs(x), y, 38, 36, 15, 13) * front
    smile = np.stack([4.6 * corner * side, -4.8 * corner - 2.2 * cheek, 1.6 * corner - 2.4 * cheek], axis=2)
    v = y - mouth_line(identity, x)
    taper = lip_taper(identity, x) ** 1.3
    drop = smooth(v, -0.7, 0.7) * taper + smooth(v, -2, 26) * (1 - taper)
    drop = drop * front * (1 - smooth(np.abs(x), 26, 62))
    return smile, np.stack([0 * drop, drop, 0.12 * drop], axis=2)


def _cavity(p: ndarray, n: ndarray) -> ndarray:
    """Baked ambient light: 1 on open skin, less in hollows."""
    light = np.ones(p.shape[:2], np.float32)
    for sigma, gain in ((2.5, 0.30), (7.0, 0.085)):
        hollow = np.sum((cv2.GaussianBlur(p, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) - p) * n, axis=2)
        light *= 1 - np.clip(gain * hollow, 0, 0.55)
    return cv2.GaussianBlur(light, (0, 0), 0.9)


def _head(identity: Identity, rng: np.random.Generator) -> Part:
    """The head with face and short hair, and its offsets for a smile and an open mouth."""
    x, y, z = _skull(identity)
    front = 1 - smooth(z, 20, 62)
    bare = _lids(x, y, z - front * _relief(identity, x, y))
    x, y = np.broadcast_arrays(x, y)
    strands = strand_texture(identity, rng, HEAD_ROWS)
    hair = hair_mask(identity, rng, y, strands)
    beard = beard_mask(identity, rng, x, y) * front
    brows = brow_mask(identity, rng, x, y) * front
    position = np.stack([x, y, bare], axis=2).astype(np.float32)
    outwards = cv2.GaussianBlur(_normals(position), (0, 0), 2)
    position += (_hair_height(identity, y, hair, beard, brows, strands)[..., None] * outwards).astype(np.float32)
    normal = _normals(position)
    light = _cavity(position, normal) * (1 - crease_mask(identity, x, y) * front)
    colour = _head_colour(identity, rng, x, y, hair, beard, brows, strands)
    red_glow = np.array([0.8, 1.0, 1.0], np.float32)  # light that left the skin comes back red in hollows
    colour[..., :3] *= 1 - (1 - light[..., None]) * red_glow
    smile, jaw = _face_offsets(identity, x, y, bare)
    return {"position": position, "normal": normal, "colour": colour, "smile": smile, "jaw": jaw}


def _hair_height(
    identity: Identity, y: ndarray, hair: ndarray, beard: ndarray, brows: ndarray, strands: ndarray
) -> ndarray:
    """How far hair, beard and brows stand off, mm, with soft edges: the points must not tear apart."""
    scalp = HAIR_DEPTH.get(identity.hair_style, 8.0) * smooth(-y, -70, 40)
    scalp = (scalp + 0.8 * cv2.GaussianBlur(strands, (0, 0), 0.8)) * cv2.GaussianBlur(hair, (0, 0), 2.2)
    return scalp + (identity.beard != "stubble") * 3.0 * cv2.GaussianBlur(beard, (0, 0), 1.5) + 0.7 * brows


def _head_colour(
    identity: Identity,
    rng: np.random.Generator,
    x: ndarray,
    y: ndarray,
    hair: ndarray,
    beard: ndarray,
    brows: ndarray,
    strands: ndarray,
) -> ndarray:
    """Linear RGB and gloss of the head's points."""
    colour, hair_rgb = skin_colour(identity, rng, x, y), np.array(identity.hair, np.float32)
    stubble = np.clip(0.75 + 0.3 * noise(rng, x.shape, (1.3, 1.3), identity.symmetric), 0.3, 1.2)
    colour *= 1 - 0.4 * (cv2.GaussianBlur(hair, (0, 0), 3.5) * (1 - hair))[..., None]  # shade under a fringe
    tint(colour, hair_rgb * stubble[..., None], beard)
    tint(colour, identity.brow, brows)
    shaded = hair_rgb * np.clip(1 + 0.3 * strands, 0.35, 1.8)[..., None]
    tint(colour, shaded, hair * (0.75 if identity.hair_style == "buzz" else 1.0))
    oily = 0.5 + 0.9 * bump(x, y, 0, 25, 12, 22) + 0.5 * bump(x, y, 0, -35, 40, 14)
    gloss = identity.gloss * (1 - hair) * (1 - beard) * oily + 0.7 * bump(x, y, 0, identity.mouth_y + 4, 16, 3)
    return np.concatenate([colour, gloss[..., None]], axis=2)


def _ears(identity: Identity) -> Part:
    """Both ears as bowls with a rolled rim; the left half of the columns is the ear at image left."""
    r = np.linspace(0, 1, EAR_ROWS, dtype=np.float32)[:, None]
    turn = np.linspace(-np.pi, np.pi, WIDTH // 2, dtype=np.float32)[None]
    along, up = r * np.cos(turn), r * np.sin(turn)
    bowl = bump(along, up, -0.1, 0.1, 0.5, 0.42)
    out = 2 + 8.5 * along + 4.5 * np.exp(-(((r - 0.86) / 0.13) ** 2)) - 4.5 * bowl
    out = out + 3.0 * bump(along, up, 0.25, 0.0, 0.16, 0.5)
    x = -(65.0 * identity.face_width + 3 + out * identity.ears)
    y = 14 + (29 - 6 * along) * up * identity.ears + 4 * along
    z = 70 + 15.5 * along * identity.ears + 3 * up
    position = np.stack(np.broadcast_arrays(x, y, z), axis=2)
    normal = _normals(position)
    normal = np.where(normal[..., :1] > 0, -normal, normal)
    shade = 1 - 0.6 * bowl - 0.25 * np.exp(-(((r - 0.66) / 0.1) ** 2))
    colour = np.array([*identity.skin, 0.3], np.float32) * np.array([1.0, 0.86, 0.84, 1.0], np.float32)
    return _with_mirror(position, normal, colour * np.dstack([shade] * 3 + [np.ones_like(shade)]))


def _with_mirror(position: ndarray, normal: ndarray, colour: ndarray) -> Part:
    """Adds the image-right half of a part given by its image-left half."""
    flip = np.array([-1, 1, 1], np.float32)
    both = {
        "position": (position, position[:, ::-1] * flip),
        "normal": (normal, normal[:, ::-1] * flip),
        "colour": (colour, colour[:, ::-1]),
    }
    return {name: np.concatenate(halves, axis=1) for name, halves in both.items()}


def _neck(identity: Identity, rng: np.random.Generator) -> Part:
    """Neck, running into shoulders with a collar."""
    t = np.linspace(0, 1, NECK_ROWS, dtype=np.float32)[:, None]
    angle, flare = azimuth(100.0)[None], smooth(t, 0.42, 1.0)
    x = (44 * identity.face_width * (0.75 + 0.25 * identity.jaw_width) + 95 * flare) * np.sin(angle)
    y = 58 + 122 * t - 26 * flare * (1 - np.abs(np.sin(angle)))
    z = 78 - (50 + 26 * flare) * np.cos(angle)
    position = np.stack(np.broadcast_arrays(x, y, z), axis=2).astype(np.float32)
    tendons = 0.07 * np.exp(-(((np.abs(x) - 20 + 18 * t) / 4) ** 2))
    colour = np.array(identity.skin, np.float32) * ((0.92 - 0.10 * (t < 0.3)) * (1 - tendons))[..., None]
    cloth = smooth(y - 0.06 * np.abs(x), 118, 121)
    weave = 1 + 0.1 * noise(rng, cloth.shape, (8, 8), identity.symmetric)
    tint(colour, np.array(identity.shirt, np.float32) * weave[..., None], cloth)
    gloss = 0.25 * (1 - cloth)
    return {"position": position, "normal": _normals(position), "colour": np.dstack([colour, gloss])}


def _long_hair(identity: Identity, rng: np.random.Generator) -> Part:
    """Two curtains of hair from the temples over the ears to the shoulders, meeting behind the neck."""
    t = np.linspace(0, 1, LONG_ROWS, dtype=np.float32)[:, None]
    s = np.linspace(0, 1, WIDTH // 2, dtype=np.float32)[None]
    wave = 3.5 * np.sin(9 * t + identity.texture_seed % 7) + 5 * np.sin(3.1 * t)
    angle = np.deg2rad(52 + wave + 118 * s**1.25)
    x = -(72 * identity.face_width + 12 + 5 * np.sin(2.2 * t) + 2 * t) * np.sin(angle)
    y, z = -62 + 205 * t, 74 - 86 * np.cos(angle) + 8 * t
    position = np.stack(np.broadcast_arrays(x, y, z), axis=2).astype(np.float32)
    normal = _normals(position)
    normal = np.where(normal[..., :1] > 0, -normal, normal)
    shade = (1 - 0.35 * np.exp(-s / 0.06)) * (0.45 + 0.55 * smooth(1 - s, 0, 0.3)) * np.ones_like(t)
    colour = np.array([*identity.hair, 0], np.float32) * shade[..., None]
    part = _with_mirror(position, normal, colour)
    strands = strand_texture(identity, rng, LONG_ROWS)[..., None]
    part["position"] += part["normal"] * (1.8 * strands)
    part["colour"] *= np.clip(1 + 0.3 * strands, 0.3, 1.9)
    return part


def build_person(identity: Identity) -> Person:
    """Sculpts and paints a person; about 0.05 CPU-seconds."""
    rng = np.random.default_rng(identity.texture_seed)
    head = _head(identity, rng)
    parts = [head, _ears(identity), _neck(identity, rng)]
    if identity.hair_style.startswith("long"):
        parts.append(_long_hair(identity, rng))
    position, normal, colour = (
        np.concatenate([part[name] for part in parts]).astype(np.float32) for name in ("position", "normal", "colour")
    )
    towards = head["position"][..., 2] + 10 * np.abs(head["position"][..., 0])
    tip = np.unravel_index(np.argmin(towards), towards.shape)
    neck = slice(HEAD_ROWS + EAR_ROWS, HEAD_ROWS + EAR_ROWS + NECK_ROWS)
    smile, jaw = head["smile"].astype(np.float32), head["jaw"].astype(np.float32)
    return Person(identity, position, normal, colour, smile, jaw, neck, (int(tip[0]), int(tip[1])))
