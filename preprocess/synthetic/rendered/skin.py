"""Colours of a rendered person: skin with what is on it, laid out in the atlas."""

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.rendered.assets import load_skins
from preprocess.synthetic.rendered.atlas import BODY_ROWS, HEAD_ROWS, ROWS, SPOTS, WIDTH
from preprocess.synthetic.rendered.hair import paint_hair
from preprocess.synthetic.rendered.hats import paint_cloth
from preprocess.synthetic.rendered.traits import RACES, SEXES, Traits

_FACE = np.s_[110:240, 140:276]  # of the atlas: forehead to chin, cheek to cheek


def _blend(traits: Traits) -> ndarray:
    """(HEAD_ROWS, WIDTH, 3) float32: skins mixed as descent, sex and age say, relative to their mean on the face."""
    skins, result = load_skins(), np.zeros((HEAD_ROWS, WIDTH, 3), np.float32)
    at = 2 * traits.age
    ages = {"young": max(0.0, 1 - at), "middleage": 1 - abs(at - 1), "old": max(0.0, at - 1)}
    for race, r in zip(RACES, traits.races, strict=True):
        for sex, s in zip(SEXES, (1 - traits.sex, traits.sex), strict=True):
            for age, a in ages.items():
                weight = r * s * a
                if weight > 0.02:
                    skin = skins[f"{race}-{sex}-{age}"].astype(np.float32)
                    result += np.float32(weight) * skin / skin[_FACE].mean(axis=(0, 1))
    return result / result[_FACE].mean(axis=(0, 1))


def paint_atlas(traits: Traits) -> ndarray:
    """(ROWS, WIDTH, 4) uint8: colour on the square-root scale, and gloss."""
    rng = np.random.default_rng(traits.texture_seed)
    atlas = np.empty((ROWS, WIDTH, 4), np.float32)
    head = atlas[:HEAD_ROWS]
    detail = _blend(traits) if load_skins() else np.ones((HEAD_ROWS, WIDTH, 3), np.float32)
    skin = np.array(traits.skin, np.float32)
    head[..., :3] = skin * detail
    pores = cv2.GaussianBlur(rng.normal(size=head.shape[:2]).astype(np.float32), (0, 0), 0.8)
    head[..., :3] *= 1 + 0.05 * pores[..., None]
    head[..., 3] = 90
    body = atlas[HEAD_ROWS : HEAD_ROWS + BODY_ROWS]
    body[..., :3], body[..., 3] = skin * 0.95, 60
    body[16:, :, :3], body[16:, :, 3] = traits.shirt, 0
    spots = atlas[HEAD_ROWS + BODY_ROWS :]
    spots[:] = (70, 20, 20, 120)
    for part in ("upper-teeth", "lower-teeth"):
        left, top, width, height = SPOTS[part]
        atlas[top : top + height, left : left + width] = (225, 215, 200, 200)
    painted = np.clip(atlas, 0, 255).astype(np.uint8)
    paint_hair(painted, traits.hairdo, traits.hair)
    if traits.hairdo.hat:
        paint_cloth(painted, traits.hairdo)
    return painted
