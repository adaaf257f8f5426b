"""Who a synthetic person is: proportions, colours and styles, drawn once from a seed."""

from dataclasses import dataclass, replace

import numpy as np

from preprocess.synthetic.anatomy import draw_kappa

Rgb = tuple[float, float, float]

# sRGB, 0-255; skin from light to dark, neighbours are mixed.
# fmt: off
SKIN_TONES = (
    (247, 217, 198), (240, 199, 172), (226, 178, 146), (208, 155, 118), (181, 126, 90), (146, 96, 66),
    (112, 71, 49), (80, 50, 37),
)
HAIR_TONES = {
    "black": (30, 25, 24), "dark brown": (58, 38, 27), "brown": (96, 62, 38), "auburn": (130, 58, 30),
    "ginger": (176, 88, 36), "blond": (206, 165, 98), "pale blond": (228, 204, 152), "grey": (150, 150, 152),
    "white": (222, 222, 220),
}
IRIS_TONES = (
    (62, 36, 20), (88, 54, 28), (122, 84, 40), (98, 110, 58), (62, 116, 84), (76, 128, 160), (52, 108, 184),
    (122, 140, 150),
)
# fmt: on
HAIR_STYLES = ("bald", "buzz", "short", "side part", "fringe", "curly", "receding", "long", "long fringe")
HAIR_ODDS = {
    False: (0.1, 0.17, 0.24, 0.17, 0.09, 0.11, 0.1, 0.02, 0.0),
    True: (0.01, 0.03, 0.09, 0.13, 0.17, 0.14, 0.0, 0.26, 0.17),
}
BEARD_STYLES = ("none", "stubble", "full", "goatee", "moustache")


@dataclass(frozen=True)
class Identity:
    """Everything that stays the same over all pictures of a person. Lengths in mm, colours linear in 0-1."""

    skin: Rgb
    hair: Rgb
    brow: Rgb
    iris: Rgb
    lips: Rgb
    shirt: Rgb
    backdrop: tuple[Rgb, Rgb]
    hair_style: str
    beard: str
    glasses: str  # "none", "round", "square" or "half"
    glasses_rgb: Rgb
    face_width: float  # factors around 1 for proportions
    jaw_width: float
    jaw_taper: float
    face_length: float
    cheeks: float
    nose_length: float
    nose_width: float
    nose_height: float
    nose_hump: float
    mouth_width: float  # half width, mm
    mouth_y: float
    lip_upper: float
    lip_lower: float
    mouth_curve: float
    brow_y: float
    brow_arch: float
    brow_tilt: float
    brow_thick: float
    brow_ridge: float
    eye_width: float  # half width of the opening, mm
    lid_upper: float  # height of the opening above and below the eye's centre, mm
    lid_lower: float
    eye_tilt: float
    crease: float
    iris_radius: float
    lashes: float
    ears: float
    hairline: float
    freckles: float
    blush: float
    wrinkles: float
    gloss: float
    symmetric: bool
    texture_seed: int
    kappa: tuple[float, float]


def linear(rgb: tuple[float, float, float]) -> Rgb:
    """sRGB 0-255 to the renderer's linear scale (gamma 2, which costs one square root to undo)."""
    red, green, blue = (float((c / 255.0) ** 2) for c in rgb)
    return red, green, blue


def _mix(a: Rgb, b: Rgb, t: float) -> Rgb:
    red, green, blue = (x + (y - x) * t for x, y in zip(a, b, strict=True))
    return red, green, blue


def _jitter(rng: np.random.Generator, rgb: Rgb, amount: float) -> Rgb:
    red, green, blue = (float(np.clip(c * (1 + amount * rng.uniform(-1, 1)), 0, 255)) for c in rgb)
    return red, green, blue


def _hair_names(darkness: float) -> list[str]:
    if darkness > 0.6:
        return ["black"] * 6 + ["dark brown"] * 2 + ["grey"]
    return [*HAIR_TONES, "black", "dark brown", "brown", "ginger", "blond"]


def _colours(rng: np.random.Generator) -> dict:
    tone = (len(SKIN_TONES) - 1) * rng.random() ** 1.25
    low = min(int(tone), len(SKIN_TONES) - 2)
    skin = _jitter(rng, _mix(SKIN_TONES[low], SKIN_TONES[low + 1], tone - low), 0.05)
    darkness = tone / (len(SKIN_TONES) - 1)
    hair_name = str(rng.choice(_hair_names(darkness)))
    hair = _jitter(rng, HAIR_TONES[hair_name], 0.12)
    iris = IRIS_TONES[rng.integers(3) if darkness > 0.6 else rng.integers(len(IRIS_TONES))]
    lips = _mix(skin, (176, 64, 70) if rng.random() < 0.75 else (150, 30, 56), rng.uniform(0.35, 0.75))
    hue = 0.4 * rng.uniform(50, 215, 3) + 0.6 * rng.uniform(60, 210)
    return {
        "skin": linear(skin),
        "hair": linear(hair),
        "brow": linear(_mix(hair, (30, 24, 22), rng.uniform(0.25, 0.8))),
        "iris": linear(_jitter(rng, iris, 0.15)),
        "lips": linear(_mix(lips, (60, 30, 30), 0.45 * darkness)),
        "shirt": linear(tuple(0.5 * rng.uniform(20, 230, 3) + 0.5 * rng.uniform(20, 230))),
        "backdrop": (
            linear(tuple(hue)),
            linear(tuple(np.clip(hue + rng.uniform(-60, 60) + rng.uniform(-18, 18, 3), 20, 240))),
        ),
    }


def _styles(rng: np.random.Generator, soft: bool) -> dict:
    hair_style = str(rng.choice(HAIR_STYLES, p=HAIR_ODDS[soft]))
    bearded = not soft and rng.random() < 0.65
    glasses = str(rng.choice(("none", "round", "square", "half"), p=(0.76, 0.09, 0.09, 0.06)))
    frames = ((25, 22, 22), (90, 50, 30), (120, 30, 36), (40, 60, 110), (170, 160, 140))
    return {
        "hair_style": hair_style,
        "beard": str(rng.choice(BEARD_STYLES[1:])) if bearded else "none",
        "glasses": glasses,
        "glasses_rgb": linear(frames[rng.integers(len(frames))]),
    }


def _proportions(rng: np.random.Generator) -> dict:
    def around(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.normal() * 0.6, -1, 1))

    return {
        "face_width": around(0.965, 0.075),
        "jaw_width": around(1.0, 0.11),
        "jaw_taper": around(0.32, 0.2),
        "face_length": around(1.0, 0.05),
        "cheeks": around(1.0, 0.9),
        "nose_length": around(1.0, 0.12),
        "nose_width": around(1.0, 0.26),
        "nose_height": around(0.95, 0.24),
        "nose_hump": around(0.3, 1.5),
        "mouth_width": around(23.5, 4.0),
        "mouth_y": around(60.0, 2.5),
        "lip_upper": around(5.2, 2.2),
        "lip_lower": around(7.2, 2.4),
        "mouth_curve": around(0.5, 2.0),
        "brow_y": around(-20.0, 2.6),
        "brow_arch": around(3.0, 2.6),
        "brow_tilt": around(-0.04, 0.12),
        "brow_thick": around(3.2, 1.5),
        "brow_ridge": around(1.0, 0.9),
        "eye_width": around(15.4, 1.0),
        "lid_upper": around(7.0, 1.2),
        "lid_lower": around(5.9, 0.8),
        "eye_tilt": around(0.03, 0.10),
        "crease": around(1.0, 0.8),
        "iris_radius": around(5.9, 0.3),
        "lashes": around(0.85, 0.2),
        "ears": around(1.0, 0.2),
        "hairline": around(-41.0, 6.0),
        "freckles": float(rng.random() < 0.2) * rng.uniform(0.4, 1.0),
        "blush": around(0.6, 0.6),
        "wrinkles": float(rng.random() < 0.35) * rng.uniform(0.3, 1.0),
        "gloss": around(1.0, 0.6),
    }


def _soften(shape: dict) -> dict:
    """The same proportions with a smaller jaw and nose, finer brows, fuller lips and darker lashes."""
    factors = {
        "jaw_width": 0.91,
        "face_width": 0.98,
        "brow_thick": 0.68,
        "brow_ridge": 0.3,
        "nose_width": 0.9,
        "nose_height": 0.93,
        "lip_upper": 1.2,
        "lip_lower": 1.15,
        "lid_upper": 1.08,
        "lashes": 1.55,
    }
    return {name: value * factors.get(name, 1.0) for name, value in shape.items()}


def draw_identity(rng: np.random.Generator, symmetric: bool = False) -> Identity:
    """A random person. `symmetric` makes left and right exact mirrors (for tests of flips)."""
    soft = bool(rng.random() < 0.5)
    colours, styles, shape = _colours(rng), _styles(rng, soft), _proportions(rng)
    return Identity(
        **colours,
        **styles,
        **(_soften(shape) if soft else shape),
        symmetric=symmetric,
        texture_seed=int(rng.integers(2**31)),
        kappa=draw_kappa(rng),  # after all others
    )


def without_extras(identity: Identity) -> Identity:
    """The same person with nothing in front of the face: no glasses, beard or fringe."""
    return replace(identity, glasses="none", beard="none", hair_style="short")
