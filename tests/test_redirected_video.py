"""What is told of redirected videos: how much a face trembles."""

import numpy as np
import pytest

from benchmarks.moving_photograph import RATE, SECONDS, SIZE, away_and_back, over_the_face
from benchmarks.redirected_video import IRISES, in_the_face, timed, trembling


def walking(rng: np.random.Generator) -> np.ndarray:
    """(40, 478, 2): a stiff face that walks, turns and grows; the eyes' outer corners are 100 apart in the middle."""
    face = rng.uniform(0, 100, (478, 2))
    face[33], face[263] = (0, 50), (100, 50)
    turns = np.exp(1j * np.linspace(-0.3, 0.3, 40)) * np.linspace(0.8, 1.2, 40)
    points = (face[:, 0] + 1j * face[:, 1]) * turns[:, None] + np.linspace(0, 300, 40)[:, None] * (1 + 0.5j)
    return np.stack([points.real, points.imag], axis=-1)


def test_the_movement_of_a_stiff_face_is_taken_out():
    held = in_the_face(walking(np.random.default_rng(0)))
    assert np.ptp(held, axis=0).max() < 1e-9


def test_irises_that_tremble_are_told_and_frames_without_a_face_are_left_out():
    rng = np.random.default_rng(0)
    before = walking(rng)
    after = before.copy()
    after[::2, list(IRISES), 0] += 1
    after[20:22] = np.nan
    told = trembling(before, after)
    assert told["irises"][0] < 1e-9 and told["irises"][1] == pytest.approx(2, rel=0.2)  # there and back
    assert told["lids"] == pytest.approx((0, 0), abs=1e-9) and told["face"][0] == pytest.approx(told["face"][1])


def test_the_cameras_end_where_they_begin_and_one_loses_the_face():
    box = np.array([[100.0, 80], [180, 180]])
    for made in (over_the_face, away_and_back):
        assert made(box)(0.0) == pytest.approx(made(box)(1.0), abs=1e-9)
    x, _, zoom = away_and_back(box)(0.5)
    assert (x - 140) * zoom > SIZE[0] / 2 + 100 and RATE * SECONDS == 250


def test_a_step_is_timed():
    class Work:
        def go(self) -> int:
            return sum(range(200_000))

    with timed({"go": (Work, "go")}) as spent:
        assert Work().go() == sum(range(200_000))
    assert 0 < spent["go"] < 5
