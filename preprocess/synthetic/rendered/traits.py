"""Who a rendered person is: descent, sex, age, shape of the head, colours and styles, drawn once from a seed."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from preprocess.synthetic.rendered.assets import load_mesh
from preprocess.synthetic.rendered.beard import Beard, draw_beard
from preprocess.synthetic.rendered.brows import Brows, draw_brows
from preprocess.synthetic.rendered.colours import Rgb, jitter, mix
from preprocess.synthetic.rendered.complexion import Complexion, draw_complexion
from preprocess.synthetic.rendered.glasses import Glasses, draw_glasses
from preprocess.synthetic.rendered.hair import Hair, draw_hair
from preprocess.synthetic.rendered.makeup import Makeup, draw_makeup
from preprocess.synthetic.rendered.mouth import Teeth, draw_teeth

RACES, SEXES = ("african", "asian", "caucasian"), ("female", "male")
# Standard deviation of a person's signed shapes, by the part of the head.
SPREAD = {
    "cheek": 0.25, "chin": 0.2, "ears": 0.25, "eyebrows": 0.25, "eyes": 0.18, "forehead": 0.25, "head": 0.2,
    "mouth": 0.25, "neck": 0.15, "nose": 0.28, "asym": 0.12,
}  # fmt: skip
OUTLINES = ("oval", "round", "square", "rectangular", "triangular", "diamond", "invertedtriangular")
_OPPOSITES = (
    ("-decr", "-incr"), ("-down", "-up"), ("-in", "-out"), ("-backward", "-forward"), ("-concave", "-convex"),
    ("-compress", "-uncompress"), ("-l", "-r"),
)  # fmt: skip
_LEFT_OUT = ("breast", "trunk", "angle", "eye-trans", "eye-push", "scale-depth", "head-trans", "head-scale-horiz")

# On the square-root scale, 0-255; skin from light to dark, neighbours are mixed. Skins measured under daylight lie
# near hue 55 to 60 degrees in CIELAB, with a chroma of 15 to 23 and lightness from 75 down to 30.
# fmt: off
SKIN_TONES = (
    (210, 174, 156), (199, 159, 137), (186, 144, 120), (170, 128, 103), (151, 110, 85), (129, 92, 72), (107, 75, 58),
    (85, 60, 47),
)
HAIR_TONES = {
    "black": (22, 18, 17), "dark brown": (45, 30, 23), "brown": (78, 52, 36), "auburn": (104, 56, 36),
    "ginger": (150, 84, 46), "blond": (176, 138, 92), "pale blond": (206, 176, 130), "grey": (138, 136, 134),
    "white": (214, 212, 208),
}
IRIS_TONES = (
    (52, 31, 20), (70, 43, 26), (96, 64, 36), (104, 98, 62), (92, 108, 92), (96, 124, 142), (86, 116, 150),
    (128, 140, 146),
)
# fmt: on


@dataclass(frozen=True)
class Traits:
    """Everything that stays the same over all pictures of a person. Colours sRGB 0-255.

    shape: weight of each target of the mesh.  sex: 0 female to 1 male.  age: 0 young to 1 old.
    """

    races: Rgb  # weights of RACES, sum 1
    sex: float
    age: float
    shape: dict[str, float]
    skin: Rgb
    hair: Rgb
    brow: Rgb
    iris: Rgb
    iris_radius: float  # mm
    pupil: float  # of the iris' radius
    shirt: Rgb
    texture_seed: int
    complexion: Complexion
    brows: Brows
    beard: Beard
    makeup: Makeup
    teeth: Teeth
    glasses: Glasses | None
    hairdo: Hair


@cache
def signed_shapes() -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    """(part of the head, targets of a negative value, of a positive one); both sides of a face move as one."""
    names = [name for name in load_mesh().targets if name.split("/")[0] in SPREAD]
    pairs: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for name in names:
        part, file = name.split("/")
        if any(word in file for word in _LEFT_OUT):
            continue
        for sign, endings in enumerate(zip(*_OPPOSITES, strict=True)):
            ending = next((e for e in endings if file.endswith(e)), None)
            if ending:
                index = endings.index(ending)
                stem = file.removesuffix(ending)
                stem = stem[2:] if stem[:2] in ("l-", "r-") else stem
                pairs.setdefault((part, f"{stem} {index}"), ([], []))[sign].append(name)
    return tuple((part, tuple(low), tuple(high)) for (part, _), (low, high) in pairs.items() if low and high)


def _macro(races: np.ndarray, sex: float, age: float, weight: float) -> dict[str, float]:
    """Weights of the large shapes. weight: -1 thin to 1 heavy."""
    shape = {}
    body = "minweight" if weight < 0 else "maxweight"
    for sex_name, s in zip(SEXES, (1 - sex, sex), strict=True):
        for age_name, a in (("young", 1 - age), ("old", age)):
            for race, r in zip(RACES, races, strict=True):
                shape[f"macro/{race}-{sex_name}-{age_name}"] = float(r * s * a)
            shape[f"macro/universal-{sex_name}-{age_name}-averagemuscle-{body}"] = abs(weight) * s * a
    return shape


def draw_shape(rng: np.random.Generator, races: np.ndarray, sex: float, age: float) -> dict[str, float]:
    """Weights of the mesh's targets for a person."""
    shape = _macro(races, sex, age, float(np.clip(0.45 * rng.normal(), -0.8, 0.9)))
    for part, low, high in signed_shapes():
        value = SPREAD[part] * float(np.clip(rng.normal(), -2.2, 2.2))
        for name in low if value < 0 else high:
            shape[name] = abs(value)
    shape["head/head-scale-horiz-incr"] = float(np.clip(0.33 + 0.2 * rng.normal(), 0, 0.8))
    outline = 0.5 * rng.random() * rng.dirichlet(np.full(len(OUTLINES), 0.4))
    shape.update({f"head/head-{name}": float(w) for name, w in zip(OUTLINES, outline, strict=True)})
    return {name: value for name, value in shape.items() if value > 1e-3}


def _skin(rng: np.random.Generator, races: np.ndarray) -> tuple[float, Rgb]:
    """Darkness 0 to 1 and colour."""
    usual = races @ np.array([0.78, 0.28, 0.17])
    darkness = float(np.clip(usual + 0.13 * rng.normal(), 0, 1))
    tone = (len(SKIN_TONES) - 1) * darkness
    low = min(int(tone), len(SKIN_TONES) - 2)
    return darkness, jitter(rng, mix(SKIN_TONES[low], SKIN_TONES[low + 1], tone - low), 0.05)


def _hair(rng: np.random.Generator, darkness: float, fair: float, age: float) -> Rgb:
    if rng.random() < max(0.0, 1.3 * (age - 0.35)):
        return jitter(rng, HAIR_TONES[str(rng.choice(["grey", "grey", "white"]))], 0.1)
    dark = ["black", "black", "dark brown", "brown"]
    names = dark if rng.random() > fair else [*HAIR_TONES][1:7]
    return jitter(rng, HAIR_TONES[str(rng.choice(dark[:2] if darkness > 0.55 else names))], 0.15)


def draw_traits(rng: np.random.Generator) -> Traits:
    """Somebody."""
    races = rng.dirichlet(np.full(3, 0.45))
    sex = float(np.clip((rng.random() < 0.5) + 0.12 * rng.normal(), 0, 1))
    age = float(np.clip(rng.beta(1.2, 1.7), 0, 1))
    darkness, skin = _skin(rng, races)
    hair = _hair(rng, darkness, float(races[2]), age)
    dark_eyed = rng.random() > races[2] * 0.75 or darkness > 0.45
    iris = jitter(rng, IRIS_TONES[rng.integers(3) if dark_eyed else rng.integers(2, len(IRIS_TONES))], 0.15)
    return Traits(
        races=tuple(races.tolist()),
        sex=sex,
        age=age,
        shape=draw_shape(rng, races, sex, age),
        skin=skin,
        hair=hair,
        brow=(brow := mix(hair, (28, 22, 20), rng.uniform(0.2, 0.7))),
        iris=iris,
        iris_radius=float(rng.uniform(5.6, 6.2)),
        pupil=float(rng.uniform(0.28, 0.5)),
        shirt=tuple(rng.uniform(15, 235, 3).tolist()),
        texture_seed=int(rng.integers(2**31)),
        complexion=draw_complexion(rng, sex, age, skin),
        brows=draw_brows(rng, sex, age, brow),
        beard=draw_beard(rng, sex, age, hair),
        makeup=draw_makeup(rng, sex, age, skin),
        teeth=draw_teeth(rng, age),
        glasses=draw_glasses(rng, age),
        hairdo=draw_hair(rng, sex, age, float(races[0])),
    )
