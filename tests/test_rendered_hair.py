"""Hair and hats of rendered persons: where they are, what they leave free, and that seeds say all."""

from dataclasses import replace

import numpy as np
import pytest

from preprocess.synthetic.rendered.assets import load_mesh
from preprocess.synthetic.rendered.atlas import HEAD_ROWS
from preprocess.synthetic.rendered.hair import HATS, STYLES, Hair, draw_hair, inside, stand_off
from preprocess.synthetic.rendered.look import RENDERED
from preprocess.synthetic.rendered.person import Person, build_person
from preprocess.synthetic.rendered.places import mean_head, places
from preprocess.synthetic.rendered.render import see
from preprocess.synthetic.rendered.scene import RenderedScene
from preprocess.synthetic.rendered.traits import Traits, draw_traits
from preprocess.synthetic.scene import Framing, View, make_view

BALD = Hair()
WORN = {
    "bald": BALD,
    "horseshoe": Hair("horseshoe", top=2, side=4, length=12),
    "buzz": Hair("buzz", top=1.5, side=1.2),
    "short": Hair("short", top=11, side=5, length=34, lift=0.4, fringe=-20),
    "curly": Hair("curly", top=24, side=18, length=16, curl=0.9),
    "tied": Hair("tied", top=5, side=4, length=110),
    "bob": Hair("bob", top=8, side=9, length=90, parted=1, fringe=-20),
    "long": Hair("long", top=7, side=8, length=190, parted=1, part=30),
}


def somebody(seed: int) -> Traits:
    return draw_traits(np.random.default_rng(seed))


def wearing(hair: Hair, traits: Traits) -> Person:
    return build_person(replace(traits, hairdo=hair), np.random.default_rng(0))


def straight(person: Person, zoom: float = 1.0) -> View:
    scene = RenderedScene(framing=Framing(zoom=zoom)) if zoom != 1 else RenderedScene()
    return make_view(scene, 256, person.eyes, person.kappa)


def outline(person: Person) -> np.ndarray:
    view = straight(person, zoom=0.5)  # with all of the head in the picture
    return see(person, person.vertices, person.triangles, view).seen


def test_a_bald_head_is_the_bare_mesh_and_hair_makes_it_larger():
    traits = somebody(0)
    bald, curly = wearing(BALD, traits), wearing(WORN["curly"], traits)
    assert len(bald.vertices) == len(load_mesh().vertices)
    assert (outline(curly) | ~outline(bald)).all()
    assert outline(curly).sum() > 1.02 * outline(bald).sum()


def depth_at_pupils(person: Person) -> np.ndarray:
    """mm before and around each pupil of somebody who looks straight ahead."""
    view = straight(person)
    depth = see(person, person.vertices, person.triangles, view).depth
    columns, rows = np.rint(view.project(person.eyes - (0, 0, 11))).astype(int).T
    return np.stack([depth[r - 3 : r + 4, c - 5 : c + 6] for r, c in zip(rows, columns, strict=True)])


def test_nothing_hangs_over_the_pupils_of_thirty_persons():
    for seed in range(30):
        traits = somebody(seed)
        bare = depth_at_pupils(wearing(BALD, traits))
        np.testing.assert_allclose(depth_at_pupils(wearing(traits.hairdo, traits)), bare, atol=0.01)


@pytest.mark.parametrize("style", STYLES)
def test_no_style_hangs_over_the_pupils(style: str):
    traits = somebody(3)
    bare = depth_at_pupils(wearing(BALD, traits))
    np.testing.assert_allclose(depth_at_pupils(wearing(WORN[style], traits)), bare, atol=0.01)


@pytest.mark.parametrize("hat", HATS)
def test_hats_cover_the_crown_and_leave_the_eyes_free(hat: str):
    traits = somebody(4)
    bald, worn = wearing(BALD, traits), wearing(replace(BALD, hat=hat, hat_rgb=(90, 20, 20), lift=0.5), traits)
    assert worn.vertices[:, 1].min() < bald.vertices[:, 1].min() - 2
    np.testing.assert_allclose(depth_at_pupils(worn), depth_at_pupils(bald), atol=0.01)


def test_scalp_hair_is_above_the_hairline_only():
    traits, hair = somebody(5), WORN["short"]
    bald, hairy = wearing(BALD, traits), wearing(hair, traits)
    at = places()
    below = inside(hair, np.dstack([at.x, at.y, at.z])) < -18
    assert below.mean() > 0.3
    np.testing.assert_array_equal(hairy.atlas[:HEAD_ROWS][below], bald.atlas[:HEAD_ROWS][below])
    moved = np.linalg.norm(hairy.vertices[: len(bald.vertices)] - bald.vertices, axis=1) > 0.01
    assert moved.any()
    assert (inside(hair, mean_head())[moved] > -3).all()


def test_the_temples_recede():
    temple = np.array([50.0, -66.0, 8.0])
    assert inside(Hair("short"), temple) > 0 > inside(Hair("short", recession=1.0), temple)


def test_a_horseshoe_is_bare_on_top_and_has_hair_at_the_side():
    top, side = np.array([0.0, -122, 70]), np.array([74.0, -50, 85])
    assert stand_off(WORN["horseshoe"], top) == 0 < stand_off(WORN["horseshoe"], side)


def test_long_hair_hangs_beside_the_face_down_to_where_it_ends():
    traits = somebody(6)
    long = wearing(WORN["long"], traits).vertices[len(load_mesh().vertices) :]
    assert 170 < long[:, 1].max() < 240
    beside_mouth = long[np.abs(long[:, 1] - 60) < 10]
    assert (beside_mouth[:, 0] < -55).any()
    assert (beside_mouth[:, 0] > 55).any()


def test_men_are_bald_more_often_and_women_wear_it_longer():
    rng = np.random.default_rng(0)
    men, women = ([draw_hair(rng, sex, 0.6, 0.2) for _ in range(300)] for sex in (1.0, 0.0))

    def part(of: list[Hair], *styles: str) -> float:
        return sum(hair.style in styles for hair in of) / len(of)

    assert part(men, "bald", "horseshoe", "buzz") > 0.25 > 0.1 > part(women, "bald", "horseshoe", "buzz")
    assert part(women, "bob", "long", "tied") > 0.5 > 0.2 > part(men, "bob", "long", "tied")


def test_the_same_seed_gives_the_same_bytes():
    scene = RenderedScene(head=(0.1, 0.3))
    pictures = [RENDERED.patch(RENDERED.draw_person(np.random.default_rng(7)), scene, 64) for _ in range(2)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
