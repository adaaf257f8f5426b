"""Glasses: what there is to wear, and how a pair sits on a head.

A front lies on a sheet that is bent about the head: u to image right from the middle of the bridge, v down, mm.
Both halves are one, mirrored; where its frame and its lens are is kept as distances, so edges are smooth at any size.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.rendered.assets import PARTS, load_mesh
from preprocess.synthetic.rendered.colours import Rgb

# Outline of a lens: roundness (2 an ellipse), height of the width, narrower below, lower half outwards, corner lifted.
SHAPES = {
    "round": (2.0, 0.94, 0.0, 0.0, 0.0),
    "panto": (2.3, 0.88, 0.09, 0.0, 0.0),
    "oval": (2.2, 0.68, 0.0, 0.0, 0.0),
    "rectangular": (4.2, 0.60, 0.05, 0.0, 0.0),
    "square": (3.8, 0.76, 0.08, 0.0, 0.0),
    "aviator": (2.5, 0.86, 0.16, 0.10, 0.0),
    "cat-eye": (2.8, 0.70, 0.10, 0.0, 0.22),
}
_METALS = ((0.20, 0.20, 0.21), (0.30, 0.20, 0.09), (0.08, 0.08, 0.085), (0.02, 0.02, 0.022), (0.28, 0.16, 0.12))
_ACETATES = ((0.010, 0.010, 0.011), (0.012, 0.02, 0.06), (0.10, 0.015, 0.02), (0.03, 0.06, 0.035), (0.07, 0.035, 0.02))
_ONE_COLOUR = {"tortoise": (0.12, 0.045, 0.015), "clear": (0.62, 0.60, 0.57)}
_COATINGS = ((0.010, 0.030, 0.015), (0.018, 0.013, 0.030), (0.012, 0.018, 0.030))  # green, violet, blue
_UNCOATED = (0.055, 0.055, 0.055)
LEFT, TOP, WIDE, HIGH = 5.0, 34.0, 80.0, 68.0  # mm of the sheet that are kept: u from -LEFT, v from -TOP
CELLS = 2  # a mm
_FINE = 3  # times finer while it is drawn
_CLEAR = 1.2  # mm between the front and the skin


@dataclass(frozen=True)
class Glasses:
    """A pair of glasses. Lengths mm, colours linear RGB 0-1.

    shape: of SHAPES.  rim: full, half (above) or none.  finish: acetate, tortoise, clear or metal.
    outwards: of the lens' centre from the eye's; low: of the front below the eyes.  rim_width: of the frame.
    temple: height of the side pieces.  tilt, roll: radians.  tint: light that goes through a lens.
    coating: reflected light.  bulge: radius of a lens' front.
    """

    shape: str
    rim: str
    finish: str
    colour: Rgb
    bridge: float
    outwards: float
    low: float
    rim_width: float
    temple: float
    tilt: float
    roll: float
    tint: Rgb
    coating: Rgb
    bulge: float


@dataclass(frozen=True)
class Worn:
    """Glasses on a head.

    rotation (3, 3) and origin (3,): the sheet's frame to the head's; the sheet is w = bend u^2, w into the head.
    centre: u of a lens.  extent: of the front: u, and v from and to.
    front: (rows, columns, 4) float32 over the sheet: distance to the frame and to the lens, mm, negative inside, and
    how the frame's surface leans (u, v).  tone: (rows, columns) float32, lightness of the frame's colour.
    temples: (2, n, 3) middle lines from the hinges to the ears, head frame, image left first.
    """

    style: Glasses
    rotation: ndarray
    origin: ndarray
    bend: float
    centre: float
    extent: tuple[float, float, float]
    front: ndarray
    tone: ndarray
    temples: ndarray


def _choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    return str(rng.choice([*weights], p=np.array([*weights.values()]) / sum(weights.values())))


def draw_glasses(rng: np.random.Generator, age: float) -> Glasses | None:
    """A pair for one person in four, more often for the old. age: 0 young to 1 old."""
    if rng.random() > 0.15 + 0.24 * age:
        return None
    finish = _choose(rng, {"acetate": 0.42, "tortoise": 0.17, "clear": 0.05, "metal": 0.36})
    metal = finish == "metal"
    rim = _choose(rng, {"full": 0.55, "half": 0.25, "none": 0.2}) if metal else "full"
    shapes = {"round": 0.14, "panto": 0.16, "oval": 0.14, "rectangular": 0.28, "square": 0.2, "cat-eye": 0.04}
    return Glasses(
        shape=_choose(rng, shapes | ({"aviator": 0.14} if metal and rim == "full" else {})),
        rim=rim,
        finish=finish,
        colour=_colour(rng, finish),
        bridge=float(rng.uniform(15, 20)),
        outwards=float(rng.uniform(0.5, 4)),
        low=float(rng.uniform(2, 7)),
        rim_width=float(rng.uniform(0.9, 1.6) if metal else rng.choice([2.0, 3.0, 4.5]) * rng.uniform(0.9, 1.2)),
        temple=float(rng.uniform(1.2, 2.2) if metal else rng.uniform(3, 7)),
        tilt=float(np.deg2rad(rng.uniform(4, 11))),
        roll=float(np.deg2rad(0.8 * rng.normal())),
        tint=_tint(rng),
        coating=_COATINGS[rng.integers(3)] if rng.random() < 0.6 else _UNCOATED,
        bulge=float(rng.uniform(90, 220)),
    )


def _colour(rng: np.random.Generator, finish: str) -> Rgb:
    if finish in _ONE_COLOUR:
        return _ONE_COLOUR[finish]
    choices = _METALS if finish == "metal" else _ACETATES
    return choices[min(int(rng.exponential(1.4)), len(choices) - 1)]


def _tint(rng: np.random.Generator) -> Rgb:
    """Most lenses are clear, some tinted; through a few dark ones the eyes are still seen."""
    through = np.full(3, 1 - rng.uniform(0.01, 0.08))
    if rng.random() < 0.08:
        through = (0.45 + 0.42 * np.sqrt(rng.random())) * (1 + 0.12 * rng.normal() * np.array([1, 0, -1]))
    red, green, blue = through.clip(0.3, 1).tolist()
    return red, green, blue


def lens_outline(style: Glasses, width: float) -> ndarray:
    """(n, 2): u and v of the right lens' edge about its centre. width: of the lens, mm."""
    power, aspect, taper, skew, lift = SHAPES[style.shape]
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    u, v = (np.sign(a) * np.abs(a) ** (2 / power) for a in (np.cos(angle), np.sin(angle)))
    v = np.where(v < 0, v - lift * np.clip(u, 0, 1) ** 2, v)
    return np.stack([(u * (1 - taper * v) + skew * v), aspect * v], axis=1) * (width / 2)


def _outer(style: Glasses, outline: ndarray) -> ndarray:
    """(n, 2): the outer edge of a rim about a lens: plastic is wider above and outside, metal a wire."""
    from_centre = outline - outline.mean(axis=0)
    way = from_centre / np.linalg.norm(from_centre, axis=1, keepdims=True)
    wider = 0.0 if style.finish == "metal" else 0.4
    return outline + way * style.rim_width * (0.85 + wider * (0.3 * way[:, :1] - way[:, 1:]))


def _draw(style: Glasses, outline: ndarray, hinge: tuple[float, float]) -> tuple[ndarray, ndarray]:
    """Fine masks of a half's frame and lens. outline: (n, 2) of the lens on the sheet."""
    scale = CELLS * _FINE
    size = round(HIGH * scale), round(WIDE * scale)
    frame, lens = np.zeros(size, np.uint8), np.zeros(size, np.uint8)

    def at(points: ndarray) -> ndarray:
        return np.rint((points + (LEFT, TOP)) * scale - 0.5).astype(np.int32)

    def bar(points: list[tuple[float, float]], width: float) -> None:
        cv2.polylines(frame, [at(np.array(points))], False, 255, max(1, round(width * scale)))

    low, high = outline.min(axis=0), outline.max(axis=0)
    v = float(low[1] + 0.3 * (high[1] - low[1]))
    inner = float(outline[np.argmin(np.abs(outline[:, 1] - v) + 9 * (outline[:, 0] > outline[:, 0].mean())), 0])
    cv2.fillPoly(lens, [at(outline)], 255)
    if style.rim != "none":
        cv2.fillPoly(frame, [at(_outer(style, outline))], 255)
        if style.rim == "half":
            frame[round((low[1] + 0.42 * (high[1] - low[1]) + TOP) * scale) :] = 0
    thick = 1.3 if style.finish == "metal" else 0.9 * style.rim_width + 1.0
    bar([(-inner, v), (-0.5 * inner, v - 1.6), (0.5 * inner, v - 1.6), (inner, v)], thick)
    if style.shape == "aviator":
        bar([(-inner - 4, float(low[1])), (inner + 4, float(low[1]))], thick)
    bar([(float(high[0]) - 0.5, hinge[1]), hinge], max(0.8 * style.temple, 1.4))
    if style.rim != "none":
        frame[lens > 0] = 0
    return frame, lens


def _distance(mask: ndarray) -> ndarray:
    """Signed distance to a mask's edge, mm, negative inside, at CELLS a mm."""
    inside, outside = (cv2.distanceTransform(m, cv2.DIST_L2, 5) for m in (mask, 255 - mask))
    size = mask.shape[1] // _FINE, mask.shape[0] // _FINE
    return cv2.resize(outside - inside, size, interpolation=cv2.INTER_AREA) / np.float32(CELLS * _FINE)


def _sheet(style: Glasses, frame: ndarray, lens: ndarray) -> ndarray:
    """`Worn.front` of the two masks."""
    to_frame, to_lens = _distance(frame), _distance(lens)
    lean = np.dstack([cv2.Sobel(to_frame, cv2.CV_32F, *way, ksize=3, scale=CELLS / 8) for way in ((1, 0), (0, 1))])
    edge = np.clip(1 + to_frame / min(0.6 * style.rim_width, 1.4), 0, 1)
    return np.dstack([to_frame, to_lens, lean * edge[..., None]]).astype(np.float32)


def _tone(style: Glasses, rng: np.random.Generator, shape: tuple[int, int]) -> ndarray:
    if style.finish != "tortoise":
        return np.ones(shape, np.float32)
    blotches = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 2.2 * CELLS)
    return np.clip(0.7 + 1.0 * blotches / blotches.std(), 0.12, 2.6)


def _side_of_the_head(skin: ndarray, side: float, hinge: ndarray) -> ndarray:
    """(n, 3): from a hinge along the head to where the ear begins."""
    half = skin[(skin[:, 0] * side > 0) & (np.abs(skin[:, 1]) < 40)]
    outwards = half[:, 0] * side
    width = float(outwards[np.abs(half[:, 2] - 55) < 8].max())
    ear = half[(outwards > width + 5) & (half[:, 2] > 50)]
    top, root = (float(ear[:, 1].min()) + 9, float(ear[:, 2].min()) + 6) if len(ear) else (-5.0, 75.0)
    z = np.linspace(hinge[2], root, 20)
    y = np.interp(z, [hinge[2], root], [hinge[1], top])
    straight = np.interp(z, [hinge[2], root], [hinge[0] * side, width + 1.0])
    near = np.abs(half[:, 1] - y[:, None]) + np.abs(half[:, 2] - z[:, None]) < 9
    beside = np.where(near & (outwards < width + 4), outwards, 0).max(axis=1)
    return np.stack([np.maximum(straight, beside + 1.2) * side, y, z], axis=1)


def fit_glasses(style: Glasses, vertices: ndarray, spheres: ndarray, seed: int) -> Worn:
    """Puts glasses on a head.

    vertices: (V, 3) of the mesh, head frame, mm.  spheres: (2, 4) centres and radii of the eyes, image left first.
    """
    mesh = load_mesh()
    skin = vertices[np.unique(mesh.corner_vertex[mesh.triangles[mesh.part == PARTS.index("skin")]])]
    middle = spheres[:, :3].mean(axis=0)
    centre = float((spheres[1, 0] - spheres[0, 0]) / 2) + style.outwards
    outline = lens_outline(style, 2 * centre - style.bridge) + (centre, 0.0)
    (_, top), (outer, bottom) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
    hinge = outer + 5.0, top + 0.28 * (bottom - top)
    front = _sheet(style, *_draw(style, outline, hinge))
    turn, bend = _turn(style), 0.0022
    origin = np.array([middle[0], middle[1] + style.low, 0.0])
    origin = origin + turn[:, 2] * _rest(front, (skin - origin) @ turn, bend)
    before_eyes = float((spheres[:, 2] - spheres[:, 3]).min()) - origin[2]
    origin[2] += before_eyes - np.clip(before_eyes, 10.0, 20.0)  # neither on the lashes nor far out on a long nose
    temples = []
    for side in (-1.0, 1.0):
        start = turn @ (side * hinge[0], hinge[1], bend * hinge[0] ** 2) + origin
        temples.append(_side_of_the_head(skin, side, start))
    margin = 1.6 * style.rim_width + 0.5
    extent = hinge[0] + 1.0, top - margin, bottom + margin
    tone = _tone(style, np.random.default_rng([seed, 5]), front.shape[:2])
    return Worn(style, turn, origin, bend, centre, extent, front, tone, np.stack(temples))


def _turn(style: Glasses) -> ndarray:
    """(3, 3): the sheet's axes in the head frame; its top leans forward."""
    c, s = np.cos(style.tilt), np.sin(style.tilt)
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(style.roll), np.sin(style.roll)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ tilt


def _rest(front: ndarray, skin: ndarray, bend: float) -> float:
    """How far into the head the front can go. skin: (n, 3) in the sheet's axes."""
    u, v, w = skin.T
    column, row = (np.abs(u) + LEFT) * CELLS, (v + TOP) * CELLS
    on = (column < front.shape[1] - 1) & (row >= 0) & (row < front.shape[0] - 1) & (w < 30)
    near = front[row[on].astype(int), column[on].astype(int), :2].min(axis=1) < 1.0
    return float((w[on] - bend * u[on] ** 2)[near].min()) - _CLEAR
