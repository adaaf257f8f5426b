"""What a face does: lids that follow the eyes, and moods, as weights of the mesh's movements."""

import numpy as np
from numpy import ndarray

from preprocess.synthetic.scene import direction_to_pitchyaw

_SIDES = ("Right", "Left")  # the person's; image left first
Expression = tuple[tuple[str, float], ...]


def lids_that_follow(directions: ndarray) -> dict[str, float]:
    """Weights of lids for eyes that look along `directions`, (2, 3) unit, head frame, image left first."""
    weights: dict[str, float] = {}
    for eye, side in enumerate(_SIDES):
        pitch, yaw = np.rad2deg(direction_to_pitchyaw(directions[eye]))
        outwards = yaw if eye == 0 else -yaw
        if pitch < 0:
            weights[f"unit/eyeLookDown{side}"] = min(-pitch / 11.4 * 0.72, 1.9)
        else:
            weights[f"unit/eyeLookUp{side}"] = min(pitch / 9.8 * 0.72, 1.6)
        name = "Out" if outwards > 0 else "In"
        weights[f"unit/eyeLook{name}{side}"] = min(abs(outwards) / 15 * 0.7, 1.5)
    return weights


def _both(name: str, weight: float, lopsided: float = 0.0) -> dict[str, float]:
    return {f"unit/{name}Left": weight * (1 + lopsided), f"unit/{name}Right": weight * (1 - lopsided)}


def draw_expression(rng: np.random.Generator, amount: float) -> Expression:
    """A mood. amount: 0 calm to 1 all that faces do before a camera."""
    strength, lopsided = 0.35 + 0.65 * amount, 0.15 * float(rng.normal())
    mood = rng.random()
    weights: dict[str, float] = {}
    if mood < 0.45:  # a smile, and often teeth
        smile = strength * rng.uniform(0.2, 1.0)
        weights |= _both("mouthSmile", smile, lopsided) | _both("cheekSquint", 0.7 * smile)
        weights |= _both("eyeSquint", 0.5 * smile * rng.random()) | _both("mouthDimple", 0.3 * smile * rng.random())
        if rng.random() < 0.6:
            weights |= _both("mouthUpperUp", 0.75 * smile) | _both("mouthLowerDown", 0.45 * smile * rng.random())
            weights["unit/jawOpen"] = 0.3 * smile * rng.random()
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
    lids = 0.14 * float(rng.normal())
    weights |= _both("eyeBlink", max(lids, 0.0)) if lids > 0 else _both("eyeWide", -1.2 * lids)
    return tuple((name, float(weight)) for name, weight in weights.items() if weight > 0.01)
