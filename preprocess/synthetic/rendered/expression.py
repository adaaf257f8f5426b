"""What a face does: lids that follow the eyes, and moods, as weights of the mesh's movements."""

import numpy as np
from numpy import ndarray

from preprocess.synthetic.scene import direction_to_pitchyaw

_SIDES = ("Right", "Left")  # the person's; image left first
Expression = tuple[tuple[str, float], ...]


# mm that a weight of 1 opens an eye in the middle; looking up, the mesh's lids close a little, a person's do not.
_OPENS = {"eyeWide": 3.3, "eyeBlink": -10.3, "eyeLookDown": -2.8, "eyeLookUp": -1.2, "eyeSquint": -2.9}
_OPENS |= {"cheekSquint": -0.8, "browDown": -0.6, "mouthSmile": -0.3}
USUALLY_WIDE = 0.4  # the mesh's neutral eyes are 9 mm open in the middle, which looks sleepy
LEAST_OPEN = 6.0  # mm: an eye whose gaze is labelled can be seen


def posed(expression: Expression, directions: ndarray, opening: float) -> dict[str, float]:
    """Weights of movements: an expression, and lids that follow the eyes but leave them open.

    directions: (2, 3) unit, head frame, image left first: where the eyes look.  opening: of a neutral eye, mm.
    """
    weights = dict(expression)
    for eye, side in enumerate(_SIDES):
        for name, weight in _following(directions[eye], outwards_is_positive=eye == 0).items():
            weights[f"unit/{name}{side}"] = weights.get(f"unit/{name}{side}", 0.0) + weight
        weights[f"unit/eyeWide{side}"] = weights.get(f"unit/eyeWide{side}", 0.0) + USUALLY_WIDE
        open_ = opening + sum(gain * weights.get(f"unit/{name}{side}", 0.0) for name, gain in _OPENS.items())
        open_ += 1.6 * weights.get(f"unit/eyeLookUp{side}", 0.0)
        wide = 0.5 * weights.get(f"unit/eyeLookUp{side}", 0.0) + max(0.0, LEAST_OPEN - open_) / _OPENS["eyeWide"]
        weights[f"unit/eyeWide{side}"] += wide
    return weights


def _following(direction: ndarray, outwards_is_positive: bool) -> dict[str, float]:
    """Weights of one eye's lids for a direction looked at, (3,) head frame."""
    pitch, yaw = np.rad2deg(direction_to_pitchyaw(direction))
    name = "Out" if (yaw > 0) == outwards_is_positive else "In"
    sideways = {f"eyeLook{name}": min(abs(yaw) / 15 * 0.7, 1.5)}
    if pitch < 0:
        return sideways | {"eyeLookDown": min(-pitch / 11.4 * 0.72, 1.6)}
    return sideways | {"eyeLookUp": min(pitch / 9.8 * 0.72, 1.6)}


def _both(name: str, weight: float, lopsided: float = 0.0) -> dict[str, float]:
    return {f"unit/{name}Left": weight * (1 + lopsided), f"unit/{name}Right": weight * (1 - lopsided)}


def draw_expression(rng: np.random.Generator, amount: float) -> Expression:
    """A mood. amount: 0 calm to 1 all that faces do before a camera."""
    strength, lopsided = 0.35 + 0.65 * amount, 0.15 * float(rng.normal())
    mood = rng.random()
    weights: dict[str, float] = {}
    if mood < 0.3:
        weights |= _draw_smile(rng, strength, lopsided)
    elif mood < 0.45:
        weights |= _draw_laugh(rng, strength, lopsided)
    elif mood < 0.65:  # speech
        weights["unit/jawOpen"] = strength * rng.uniform(0.02, 0.4)
        weights |= {
            "unit/mouthFunnel": 0.4 * strength * rng.random(),
            "unit/mouthPucker": 0.3 * strength * rng.random(),
        }
        weights |= _both("mouthUpperUp", 0.3 * strength * rng.random()) | _both(
            "mouthStretch", 0.3 * strength * rng.random()
        )
    elif mood < 0.75:
        weights |= _both("mouthFrown", strength * rng.uniform(0.1, 0.6), lopsided) | _both(
            "mouthPress", 0.4 * rng.random()
        )
    weights |= _both("browDown", 0.5 * strength * max(0.0, float(rng.normal())), lopsided)
    if rng.random() < 0.4:
        raised = strength * rng.random()
        weights |= {"unit/browInnerUp": 0.6 * raised} | _both("browOuterUp", 0.6 * raised, lopsided)
    # Whoever looks at the lens may have lids 6 or 11 mm apart: how wide an eye is says little of where it looks.
    lids = 0.14 * float(rng.normal())
    weights |= _both("eyeBlink", lids) if lids > 0 else _both("eyeWide", -2.5 * max(lids, -0.3))
    return tuple((name, float(weight)) for name, weight in weights.items() if weight > 0.01)


def _draw_smile(rng: np.random.Generator, strength: float, lopsided: float) -> dict[str, float]:
    """A smile; the broader it is, the more of the teeth it shows."""
    smile = strength * float(rng.uniform(0.15, 1.0))
    teeth = float(np.clip(smile * rng.uniform(0.4, 1.6) - 0.2, 0, 1))
    weights = _both("mouthSmile", min(smile, 0.45 + 0.6 * teeth), lopsided) | _both("cheekSquint", 0.7 * smile)
    weights |= _both("eyeSquint", 0.5 * smile * rng.random()) | _both("mouthDimple", 0.3 * smile * rng.random())
    if teeth:
        weights |= _both("mouthUpperUp", 0.85 * teeth) | _both("mouthLowerDown", 0.5 * teeth * rng.random())
        weights["unit/jawOpen"] = teeth * float(rng.uniform(0.05, 0.35))
    return weights


def _draw_laugh(rng: np.random.Generator, strength: float, lopsided: float) -> dict[str, float]:
    """The broad smile that people have for photographs: teeth from corner to corner, in some the mouth wide open."""
    broad, open_ = strength * float(rng.uniform(0.7, 1.2)), rng.uniform(0.0, 0.25) + 0.35 * rng.beta(0.4, 2)
    weights = _both("mouthSmile", broad, 0.5 * lopsided) | _both("cheekSquint", 0.8 * broad)
    weights |= _both("mouthUpperUp", 0.9 * broad) | _both("mouthLowerDown", strength * rng.uniform(0.1, 0.6))
    weights |= _both("mouthStretch", 0.5 * strength * rng.random())
    weights |= _both("mouthDimple", 0.3 * strength * rng.random())
    weights |= _both("eyeSquint", 0.6 * broad * rng.random())
    return weights | {"unit/jawOpen": strength * float(open_)}
