"""Colours of a rendered person: skin with what is on it, laid out in the atlas."""

from functools import cache

import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import smooth
from preprocess.synthetic.rendered.assets import load_skins
from preprocess.synthetic.rendered.atlas import BODY_ROWS, HEAD_ROWS, ROWS, SPOTS, WIDTH
from preprocess.synthetic.rendered.beard import paint_beard, paint_below_chin
from preprocess.synthetic.rendered.brows import brow_cover
from preprocess.synthetic.rendered.colours import planes
from preprocess.synthetic.rendered.complexion import hollows, paint_complexion, paint_gloss
from preprocess.synthetic.rendered.hair import paint_hair
from preprocess.synthetic.rendered.hats import paint_cloth
from preprocess.synthetic.rendered.lashes import paint_lashes
from preprocess.synthetic.rendered.makeup import paint_makeup
from preprocess.synthetic.rendered.mouth import paint_mouth
from preprocess.synthetic.rendered.places import places
from preprocess.synthetic.rendered.plain import plain_skin
from preprocess.synthetic.rendered.traits import RACES, SEXES, Traits

_FACE = np.s_[110:240, 140:276]  # of the atlas: forehead to chin, cheek to cheek
_DETAIL = 0.75  # of the skins' own contrast: light is in it, too


@cache
def _relative_skin(name: str) -> ndarray:
    """(HEAD_ROWS, WIDTH, 3) float32: a skin relative to its mean on the face, without the paint round its eyes."""
    skin = planes(HEAD_ROWS, WIDTH, 3)
    skin += load_skins()[name]
    skin /= skin[_FACE].mean(axis=(0, 1))
    at = places()
    near = (0.75 * smooth(at.eyes, 9, 4))[..., None]
    light = 1 + 0.2 * smooth(at.y, 0, 5)[..., None]  # lower lids turn to the sky
    return skin + (light * np.array([0.97, 0.89, 0.87], np.float32) - skin) * near


def _blend(traits: Traits) -> ndarray:
    """(HEAD_ROWS, WIDTH, 3) float32: skins mixed as descent, sex and age say, relative to their mean on the face."""
    result = planes(HEAD_ROWS, WIDTH, 3)
    at = 2 * traits.age
    ages = {"young": max(0.0, 1 - at), "middleage": 1 - abs(at - 1), "old": max(0.0, at - 1)}
    for race, r in zip(RACES, traits.races, strict=True):
        for sex, s in zip(SEXES, (1 - traits.sex, traits.sex), strict=True):
            for age, a in ages.items():
                if r * s * a > 0.02:
                    result += np.float32(r * s * a) * _relative_skin(f"{race}-{sex}-{age}")
    return result / result[_FACE].mean(axis=(0, 1))


def _paint_head(head: ndarray, traits: Traits) -> None:
    detail = _blend(traits) if load_skins() else plain_skin()
    colour = np.array(traits.skin, np.float32) * (1 + _DETAIL * (detail - 1))
    gloss = np.empty(colour.shape[:2], np.float32)
    paint_complexion(colour, traits.complexion, traits.skin)
    paint_gloss(gloss, traits.complexion)
    paint_makeup(colour, gloss, traits.makeup)
    paint_beard(colour, gloss, traits.beard)
    brows = brow_cover(traits.brows)
    colour += (np.array(traits.brows.colour, np.float32) - colour) * brows[..., None]
    gloss *= 1 - 0.6 * brows
    for i, dark in enumerate((0.85, 1, 1)):
        colour[..., i] *= 1 - np.float32(dark) * hollows()
    head[..., :3], head[..., 3] = colour, gloss


def _paint_body(body: ndarray, traits: Traits) -> None:
    """Neck and shirt."""
    rng = np.random.default_rng(traits.texture_seed)
    body[..., :3], body[..., 3] = np.array(traits.skin, np.float32) * 0.93, 50
    paint_below_chin(body, traits.beard)
    x = np.abs(np.linspace(-260, 260, WIDTH, dtype=np.float32))  # mm
    depth, wide = rng.uniform(0, 9) * (rng.random() < 0.6), rng.uniform(40, 75)
    edge = 20 + depth * np.clip(1 - x / wide, 0, 1) ** rng.uniform(0.5, 1.2)
    cloth = smooth(np.arange(BODY_ROWS, dtype=np.float32)[:, None] - edge, -0.5, 0.5)[..., None]
    weave = 1 + 0.03 * rng.normal(size=(BODY_ROWS, WIDTH, 1)).astype(np.float32)
    body += (np.dstack([np.array(traits.shirt, np.float32) * weave, np.zeros_like(weave)]) - body) * cloth


def paint_atlas(traits: Traits) -> ndarray:
    """(ROWS, WIDTH, 4) uint8: colour on the square-root scale and gloss; in lashes' spots, how much is hair."""
    atlas = planes(ROWS, WIDTH, 4)
    _paint_head(atlas[:HEAD_ROWS], traits)
    _paint_body(atlas[HEAD_ROWS : HEAD_ROWS + BODY_ROWS], traits)
    atlas[HEAD_ROWS + BODY_ROWS :] = (70, 20, 20, 120)
    left, top, width, height = SPOTS["socket"]
    pink = 0.45 * np.array(traits.skin) + 0.4 * np.array((170, 80, 72))
    atlas[top : top + height, left : left + width] = (*pink, 120)
    paint_mouth(atlas, traits.teeth, traits.makeup.lips)
    paint_lashes(atlas, traits.makeup.mascara, traits.texture_seed)
    paint_hair(atlas, traits.hairdo, traits.hair)
    if traits.hairdo.hat:
        paint_cloth(atlas, traits.hairdo)
    return np.clip(atlas, 0, 255).astype(np.uint8, order="C")
