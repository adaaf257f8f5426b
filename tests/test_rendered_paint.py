from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy import ndarray

from preprocess.synthetic.rendered import skin
from preprocess.synthetic.rendered.atlas import HEAD_ROWS, SPOTS
from preprocess.synthetic.rendered.beard import displacement
from preprocess.synthetic.rendered.brows import brow_cover
from preprocess.synthetic.rendered.camera import develop
from preprocess.synthetic.rendered.look import RENDERED
from preprocess.synthetic.rendered.makeup import lip_cover
from preprocess.synthetic.rendered.person import build_person
from preprocess.synthetic.rendered.places import mean_head, places
from preprocess.synthetic.rendered.scene import RenderedScene
from preprocess.synthetic.rendered.skin import paint_atlas
from preprocess.synthetic.rendered.traits import Traits, draw_traits

BARE = {"lipstick_strength": 0.0, "shadow_strength": 0.0, "liner": 0.0, "blush": 0.0}


def somebody(seed: int = 3) -> Traits:
    """A fair person without beard, make-up, freckles and moles."""
    traits = draw_traits(np.random.default_rng(seed))
    return replace(
        traits,
        skin=(199.0, 159.0, 137.0),
        beard=replace(traits.beard, style="none", colour=(30.0, 24.0, 20.0), density=1.0, patchy=0.0, length=6.0),
        makeup=replace(traits.makeup, **BARE, lipstick=(150.0, 20.0, 40.0)),
        complexion=replace(traits.complexion, freckles=0.0, spots=0.0, moles=()),
    )


def head(traits: Traits) -> ndarray:
    """(HEAD_ROWS, WIDTH, 3) float32."""
    return paint_atlas(traits)[:HEAD_ROWS, :, :3].astype(np.float32)


def near(x: float, y: float, reach: float = 6) -> ndarray:
    """Texels within some mm of a place on the front of a mean head."""
    at = places()
    return (np.hypot(at.x - x, at.y - y) < reach) & (at.z < 30) & at.on_skin


@pytest.mark.parametrize("style", ["shadow", "stubble", "full", "goatee"])
def test_a_beard_darkens_the_chin_and_leaves_the_forehead(style: str):
    traits = somebody()
    bare, bearded = head(traits), head(replace(traits, beard=replace(traits.beard, style=style)))
    assert bearded[near(0, 104)].mean() < 0.9 * bare[near(0, 104)].mean()
    np.testing.assert_array_equal(bearded[near(0, -45, 15)], bare[near(0, -45, 15)])
    lips = lip_cover() > 0.95
    assert abs(bearded[lips].mean() - bare[lips].mean()) < 2


def test_a_moustache_leaves_the_chin():
    traits = somebody()
    bare, bearded = head(traits), head(replace(traits, beard=replace(traits.beard, style="moustache")))
    assert bearded[near(10, 60, 2)].mean() < 0.7 * bare[near(10, 60, 2)].mean()
    np.testing.assert_array_equal(bearded[near(0, 104)], bare[near(0, 104)])


def test_a_full_beard_is_raised_off_the_chin_alone():
    beard = replace(somebody().beard, style="full")
    raised, vertices = displacement(beard), mean_head()
    assert raised is not None
    front = vertices[:, 2] < 20
    chin = front & (np.hypot(vertices[:, 0], vertices[:, 1] - 104) < 8)
    assert np.median(raised[chin]) > 0.5 * beard.length
    assert raised[front & (vertices[:, 1] < 0)].max() < 0.1
    assert displacement(replace(beard, style="stubble")) is None


def test_lipstick_changes_the_lips_alone():
    traits = somebody()
    bare, painted = head(traits), head(replace(traits, makeup=replace(traits.makeup, lipstick_strength=1.0)))
    difference = np.abs(painted - bare).max(axis=2)
    assert difference[lip_cover() > 0.95].min() > 10
    assert difference[lip_cover() == 0].max() == 0


def test_shadow_and_liner_stay_round_the_eyes():
    traits = somebody()
    made_up = replace(traits.makeup, shadow_strength=1.0, shadow=(60.0, 60.0, 120.0), liner=1.0)
    difference = np.abs(head(replace(traits, makeup=made_up)) - head(traits)).max(axis=2)
    at = places()
    assert difference[near(33, -12, 4)].mean() > 10
    assert difference[(at.y < -24) | (at.y > 15)].max() == 0


def test_the_inner_corners_of_eyes_are_flesh_and_lighter_than_dark_skin():
    at, picture = places(), head(replace(somebody(), skin=(107.0, 75.0, 58.0)))
    flesh, skin = (
        picture[(np.abs(np.abs(at.x) - 18.5) < 1) & (np.abs(at.y - y) < 1) & (at.z < 40)].mean() for y in (1, 7)
    )
    assert flesh > 1.2 * skin


def test_freckles_are_on_nose_and_cheeks_and_not_on_lips_and_brow_hair():
    traits = somebody()
    freckled = head(replace(traits, complexion=replace(traits.complexion, freckles=1.0)))
    difference = np.abs(freckled - head(traits)).max(axis=2)
    assert difference[near(28, 28, 12)].max() > 15
    assert difference[lip_cover() > 0.95].max() <= 1
    assert difference[near(0, 112, 4)].max() <= 3


def test_brows_lie_above_the_eyes_on_both_sides_and_leave_a_gap():
    cover = brow_cover(somebody().brows)
    at = places()
    for side in (-1, 1):
        brow = cover * (at.x * side > 0)
        middle = (brow * at.y).sum() / brow.sum()
        assert -26 < middle < -14
        assert brow[(np.abs(at.x - 30 * side) < 8) & (np.abs(at.y - middle) < 3)].mean() > 0.25
    assert cover[np.abs(at.x) < 4].max() < 0.05
    assert cover[(at.y > -8) | (at.y < -36)].max() < 0.05


def test_wrinkles_give_the_forehead_lines():
    traits = somebody()
    smooth, old = (head(replace(traits, complexion=replace(traits.complexion, wrinkles=w))) for w in (0.0, 1.0))
    rows = [picture[70:100, 195:220].mean(axis=(1, 2)) for picture in (smooth, old)]
    assert np.diff(rows[1]).std() > 1.5 * np.diff(rows[0]).std()


def test_teeth_are_light_with_darker_gaps_and_gums_are_red():
    left, top, width, height = SPOTS["upper-teeth"]
    spot = paint_atlas(replace(somebody(), teeth=replace(somebody().teeth, diastema=0.0)))
    spot = spot[top : top + height, left : left + width].astype(int)
    gum, teeth = spot[1, 30:70].mean(axis=0), spot[8, 30:70]
    assert gum[0] > 1.4 * gum[1]
    assert teeth.mean() > 170
    assert teeth[:, 1].max() - teeth[:, 1].min() > 20


def test_lashes_fade_from_root_to_tip():
    left, top, width, height = SPOTS["upper-lashes"]
    hair = paint_atlas(somebody())[top : top + height, left : left + width, 3].astype(int)
    outer = hair[:, [*range(8, 25), *range(75, 92)]].mean(axis=1)
    assert outer[4] > 100
    assert outer[4] > 1.5 * outer[8] > 2 * outer[11]


def test_the_same_traits_paint_the_same_bytes():
    one, other = (paint_atlas(draw_traits(np.random.default_rng(8))) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_fair_skin_is_darker_than_the_white_of_the_eye_and_no_skin_is_ruddy():
    for seed in range(30):
        r, g, b = (np.array(draw_traits(np.random.default_rng(seed)).skin) / 255) ** 2
        assert 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.6
        assert r < 2.4 * g


def test_without_the_file_of_skins_a_painted_one_takes_its_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(skin, "load_skins", dict)
    person = build_person(somebody(), np.random.default_rng(0))
    colour = head(somebody())
    redness = colour[..., 0] / (colour[..., 1] + 1)
    assert redness[lip_cover() > 0.95].mean() > 1.1 * redness[near(45, 45)].mean()
    picture = RENDERED.patch(person, RenderedScene(), 128)
    assert cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[40:90, 40:90].std() > 8


def test_jpeg_keeps_more_of_red_stripes_than_of_blue_ones():
    """Red counts more in luma, which is stored at full size."""
    scene, contrast = RenderedScene(blur=0.0, noise=0.0, contrast=1.0, jpeg=80), []
    for channel in (0, 2):
        striped = np.zeros((32, 32, 3), np.float32)
        striped[:, ::2, channel] = 0.3
        contrast.append(develop(striped, scene, 1.0, 1.0)[..., channel].std())
    assert contrast[0] > 1.3 * contrast[1]
