"""What is made of entries and batches: turned left to right, by name."""

import pytest
import torch

from core.batches import mirrored
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
