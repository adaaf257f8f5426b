"""Glasses on rendered persons: where they sit, what hides them, and that eyes are seen through them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from preprocess.synthetic.domains import DOMAINS
from preprocess.synthetic.rendered.frame import landmark_vertices
from preprocess.synthetic.rendered.glasses import SHAPES, Glasses, draw_glasses
from preprocess.synthetic.rendered.person import Person, build_person
from preprocess.synthetic.rendered.render import patch
from preprocess.synthetic.rendered.scene import RenderedScene, draw_scene
from preprocess.synthetic.rendered.traits import draw_traits
from preprocess.synthetic.scene import Framing, make_view

ROUND = Glasses(
    shape="round", rim="full", finish="acetate", colour=(0.01, 0.01, 0.01), bridge=17.0, outwards=2.0, low=4.0,
    rim_width=3.0, temple=4.0, tilt=0.12, roll=0.0, tint=(0.96, 0.96, 0.96), coating=(0.01, 0.03, 0.02), bulge=120.0,
)  # fmt: skip


@cache
def person(seed: int, glasses: Glasses | None) -> Person:
    traits = draw_traits(np.random.default_rng(seed))
    return build_person(replace(traits, glasses=glasses, iris=(190.0, 190.0, 190.0)), np.random.default_rng(0))


def changed(scene: RenderedScene, one: Person, other: Person) -> np.ndarray:
    """(128, 128) bool."""
    return np.any(patch(one, scene, 128) != patch(other, scene, 128), axis=2)


@pytest.mark.parametrize("head", [(0.0, 0.0), (0.2, 0.4), (-0.2, -0.4)])
def test_glasses_change_nothing_away_from_eyes_and_temples(head: tuple[float, float]):
    scene = RenderedScene(head=head)
    rows = np.flatnonzero(changed(scene, person(1, ROUND), person(1, None)).any(axis=1))
    seen = make_view(scene, 128).project(person(1, None).vertices[landmark_vertices()[[27, 30]]])
    between_eyes, nose_tip = seen[:, 1]
    assert between_eyes - 30 < rows.min() < between_eyes < rows.max() < nose_tip + 12


@pytest.mark.parametrize("shape", SHAPES)
def test_frames_sit_symmetrically_about_the_eyes(shape: str):
    scene = RenderedScene(light=(0.0, -0.4, -0.9))
    bright, dark = (person(2, replace(ROUND, shape=shape, colour=(c, c, c))) for c in (0.9, 0.01))
    eyes = make_view(scene, 128).project(dark.eyes)
    frame = patch(bright, scene, 128).astype(int).sum(axis=2) - patch(dark, scene, 128).astype(int).sum(axis=2) > 150
    columns = np.flatnonzero(frame.any(axis=0))
    assert (columns.min() + columns.max()) / 2 == pytest.approx(eyes[:, 0].mean(), abs=1.5)
    for column, row in np.rint(eyes).astype(int):
        lens = frame[:, column]
        assert lens[:row].any() and lens[row:].any() and not lens[row - 3 : row + 4].any()


def without_temple(wearer: Person, side: int) -> Person:
    assert wearer.glasses
    temples = wearer.glasses.temples.copy()
    temples[side] += (0.0, 500.0, 0.0)
    return replace(wearer, glasses=replace(wearer.glasses, temples=temples))


@pytest.mark.parametrize("near", [0, 1])
def test_the_far_temple_is_hidden_by_a_turned_head(near: int):
    scene = RenderedScene(head=(0.0, np.deg2rad(30) * (-1, 1)[near]), framing=Framing(zoom=0.7))
    wearer = person(3, ROUND)
    assert wearer.glasses
    beside = wearer.glasses.temples[:, 10:12]  # as far back, the head is between the temples
    columns, rows = np.rint(make_view(scene, 128).project(beside)).astype(int).transpose(2, 0, 1)
    drawn = [changed(scene, wearer, without_temple(wearer, side))[rows[side], columns[side]] for side in (0, 1)]
    assert drawn[near].all() and not drawn[1 - near].any()


def test_the_nose_hides_a_lens_behind_it():
    scene = RenderedScene(head=(0.0, np.deg2rad(40)))
    wearer, bare = person(4, ROUND), person(4, None)
    assert wearer.glasses
    tip = bare.vertices[landmark_vertices()[30]]
    low = replace(wearer.glasses, origin=np.array([0.0, tip[1], wearer.glasses.origin[2]]))
    column, row = np.rint(make_view(scene, 128).project(tip)).astype(int)
    beside = changed(scene, replace(wearer, glasses=low), bare)[row : row + 3]
    assert beside[:, column - 6 : column - 2].all() and not beside[:, column + 2 : column + 4].any()


def test_the_same_seed_gives_the_same_bytes():
    scene = draw_scene(np.random.default_rng(5), DOMAINS[0], 1.0)
    one, other = (build_person(person(5, ROUND).traits, np.random.default_rng(0)) for _ in range(2))
    assert np.array_equal(patch(one, scene, 128), patch(other, scene, 128))


def test_what_lenses_mirror_goes_with_the_scene_and_not_with_its_noise():
    """A group shares the seed of its scenes, and so windows and lamps; another group has others."""
    wearer = person(6, replace(ROUND, coating=(0.1, 0.1, 0.1)))
    scene = replace(draw_scene(np.random.default_rng(6), DOMAINS[0], 1.0), noise=0.0)
    mirrored = [
        np.abs(patch(wearer, s, 128).astype(int) - patch(replace(wearer, glasses=None), s, 128))
        for s in (scene, replace(scene, noise_seed=1), replace(scene, seed=scene.seed + 1))
    ]
    assert np.array_equal(mirrored[0], mirrored[1])
    assert not np.array_equal(mirrored[0], mirrored[2])


def pupil_contrast(wearer: Person, scene: RenderedScene) -> float:
    """How much pupils change the picture, both eyes together."""
    without = replace(wearer, traits=replace(wearer.traits, pupil=-1.0))
    gap = patch(wearer, scene, 128).astype(float) - patch(without, scene, 128)
    return float(np.abs(gap).sum())


def test_pupils_are_seen_through_most_lenses():
    rng = np.random.default_rng(7)
    ratios = []
    for seed in range(8):
        glasses = None
        while glasses is None:
            glasses = draw_glasses(rng, 1.0)
        for _ in range(6):
            scene = replace(draw_scene(rng, DOMAINS[0], 1.0), noise=0.0, jpeg=0, exposure=1.0)
            bare = pupil_contrast(person(seed, None), scene)
            if bare > 200:  # lids are open, and no nose is in the way
                ratios.append(pupil_contrast(person(seed, glasses), scene) / bare)
    assert len(ratios) > 30 and np.mean(np.array(ratios) > 0.6) > 0.9


def test_one_in_four_wears_glasses_and_more_when_old():
    rng = np.random.default_rng(8)
    worn = np.mean([draw_traits(rng).glasses is not None for _ in range(400)])
    young, old = (np.mean([draw_glasses(rng, age) is not None for _ in range(400)]) for age in (0.0, 1.0))
    assert 0.18 < worn < 0.32 and young < 0.22 < 0.3 < old
