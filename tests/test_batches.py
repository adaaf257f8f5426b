"""Which entries make up a batch where there are groups, and what is made of them: turned left to right, by name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from core.batches import PairSampler, evaluation_pairs, find_groups, mirrored
from core.command import UserError
from models.recrop import warp
from tests.tiny import random_batch


def test_mirroring_flips_the_image_and_negates_both_yaws() -> None:
    batch = random_batch(size=2)
    turned = mirrored(batch, torch.tensor([[True], [False]]))
    assert torch.equal(turned["image_a"][0], batch["image_a"][0].flip(-1))
    assert torch.equal(turned["head_b"][0], batch["head_b"][0] * torch.tensor([1.0, -1.0]))
    for name, value in batch.items():
        assert torch.equal(turned[name][1], value[1])


def test_the_view_of_a_mirrored_face_is_the_mirrored_view() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 32, generator=generator)
    crop = torch.eye(3) * torch.tensor([0.6, 0.7, 1.0]) + 0.1 * torch.rand(2, 3, 3, generator=generator)
    batch = {"image": image, "crop": crop, "points": torch.rand(2, 5, 2, generator=generator) * 31}
    turned = mirrored(batch, torch.tensor([True, False]))
    views = warp(turned["image"], turned["crop"], 16), warp(image, crop, 16)
    torch.testing.assert_close(views[0][0], views[1][0].flip(-1))
    assert torch.equal(views[0][1], views[1][1])


def test_mirrored_points_stay_on_what_they_mark() -> None:
    image = torch.zeros(1, 3, 32, 32)
    points = torch.tensor([[[8, 10], [22, 11], [15, 17], [9, 24], [20, 25]]])
    for i, (column, row) in enumerate(points[0].tolist()):
        image[0, :, row, column] = i + 1
    batch = {"image": image, "crop": torch.eye(3)[None], "points": points.float()}
    turned = mirrored(batch, torch.tensor([True]))
    seen = [turned["image"][0, 0, int(row), int(column)].item() for column, row in turned["points"][0]]
    assert seen == [2, 1, 3, 5, 4]  # the eye that is now at image left comes first


def test_what_nobody_can_mirror_is_not_passed_on_as_it_was() -> None:
    with pytest.raises(ValueError, match="w_plus_a"):
        mirrored({"w_plus_a": torch.zeros(1, 8, 4)}, torch.tensor([True]))


# Pairs within a group


class Grouped:
    """Samples of three persons, 7, 1 and 12, in groups whose numbers are not in order."""

    path = Path("some.h5")
    person_start = np.array([0, 7, 8, 20])
    person_of = np.repeat(np.arange(3), [7, 1, 12])

    def __init__(self, numbers: Sequence[int] | None = (5, 0, 5, 0, 5, 9, 0, 0, *[7, 0, 3, -2] * 3)) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.person_of)

    def groups(self) -> np.ndarray | None:
        return None if self.numbers is None else np.array(self.numbers)

    def together(self, pairs: np.ndarray) -> np.ndarray:
        """Whether the two of each pair are of one group."""
        key = self.person_of * 100 + np.array(self.numbers)
        return key[pairs[:, 0]] == key[pairs[:, 1]]


def pairs_of(dataset: Grouped, within_group: float, num_steps: int = 7, **given: int) -> list[list[tuple[int, int]]]:
    given = {"batch_size": 6, "seed": 7} | given
    return list(PairSampler(dataset, num_steps=num_steps, within_group=within_group, **given))


def test_without_pairs_within_groups_the_pairs_are_those_drawn_before_there_were_groups() -> None:
    before = [
        [(4, 6), (18, 13), (5, 1), (19, 17), (17, 9), (2, 6)],
        [(17, 18), (14, 9), (18, 17), (10, 19), (15, 11), (1, 3)],
        [(5, 2), (6, 3), (2, 4), (8, 17), (7, 7), (0, 2)],
    ]  # of revision aa2a5c2
    partners = [6, 4, 5, 6, 3, 4, 5, 7, 11, 8, 12, 12, 18, 19, 8, 13, 18, 9, 16, 9]
    for dataset in (Grouped(), Grouped(None)):
        assert pairs_of(dataset, 0.0)[2:5] == before
        assert evaluation_pairs(dataset, seed=7)[:, 1].tolist() == partners


def test_pairs_within_a_group_are_of_one_group_and_of_one_person() -> None:
    dataset = Grouped()
    pairs = np.concatenate(pairs_of(dataset, 1.0, num_steps=300))
    alone = np.isin(pairs[:, 0], (5, 7))  # alone in the group, and the person's only one
    assert dataset.together(pairs[~alone]).all() and (pairs[~alone, 0] != pairs[~alone, 1]).all()
    assert set(pairs[pairs[:, 0] == 5, 1]) == {0, 1, 2, 3, 4, 6}  # any other of the person
    assert set(pairs[pairs[:, 0] == 2, 1]) == {0, 4} and set(pairs[pairs[:, 0] == 7, 1]) == {7}


def test_half_of_the_pairs_are_drawn_within_a_group_and_the_others_are_as_before() -> None:
    dataset = Grouped()
    everyone, half = (np.concatenate(pairs_of(dataset, share, 2000)) for share in (0.0, 0.5))
    assert (everyone[:, 0] == half[:, 0]).all()
    others = ~np.isin(half[:, 0], (5, 7))
    chance = dataset.together(everyone[others]).mean()
    assert dataset.together(half[others]).mean() == pytest.approx((1 + chance) / 2, abs=0.02)
    assert dataset.together(half[(half != everyone).any(axis=1)]).all()


def test_batches_within_groups_depend_on_seed_and_step_only() -> None:
    whole = pairs_of(Grouped(), 0.5, 11)
    assert pairs_of(Grouped(), 0.5, 11, start_step=4) == whole[4:]
    assert pairs_of(Grouped(), 0.5, 11, seed=8) != whole


def test_samples_alone_in_their_group_are_counted() -> None:
    groups = find_groups(Grouped())
    assert groups is not None and groups.num_alone == 2 and find_groups(Grouped(None)) is None


def test_pairs_within_groups_of_a_file_without_any_are_refused() -> None:
    message = r"^some.h5: no data sets 'group' in it, but pairs_within_group is 0.5. Set it to 0, or add them"
    with pytest.raises(UserError, match=message):
        pairs_of(Grouped(None), 0.5)


def test_evaluation_within_groups_keeps_the_sources_and_the_partners_of_who_is_alone() -> None:
    dataset = Grouped()
    published, within = (evaluation_pairs(dataset, seed=7, within_group=chosen) for chosen in (False, True))
    assert (published[:, 0] == within[:, 0]).all() and (published[[5, 7]] == within[[5, 7]]).all()
    assert dataset.together(np.delete(within, [5, 7], axis=0)).all()
    some = evaluation_pairs(dataset, seed=7, fraction=0.5, within_group=True).tolist()
    assert all(dict(within.tolist())[a] == b for a, b in some)
    assert np.array_equal(evaluation_pairs(Grouped(None), seed=7, within_group=True), published)
