"""Pairs as other cameras would have them: both images alike, nothing else touched, drawn from the seed."""

import torch

from core.variation import SHADE, SHADE_SIDE, _shadows, varied
from tests.tiny import random_batch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_both_images_of_a_pair_are_varied_alike_and_each_pair_anew() -> None:
    batch = random_batch()
    batch["image_a"] = batch["image_b"] = batch["image_a"][:1].repeat(4, 1, 1, 1)
    done = varied(batch, generator())
    assert torch.equal(done["image_a"], done["image_b"])
    gaps = (done["image_a"][1:] - done["image_a"][:1]).abs().mean(dim=(1, 2, 3))
    assert gaps.min() > 0.02


def test_images_stay_in_their_range_and_labels_as_they_are() -> None:
    batch = random_batch()
    done = varied(batch, generator())
    assert done.keys() == batch.keys()
    assert all(torch.equal(done[name], batch[name]) for name in batch if not name.startswith("image"))
    for name in ("image_a", "image_b"):
        assert done[name].shape == batch[name].shape and done[name].abs().max() <= 1


def test_the_seed_says_how() -> None:
    batch = random_batch()
    one, same, other = (varied(batch, generator(seed))["image_a"] for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_face_moves_by_little_and_keeps_its_shape() -> None:
    """A white square in the middle stays one, about there, about as large."""
    image = torch.full((1, 3, 64, 64), -1.0)
    image[..., 24:40, 24:40] = 1
    batch = {name: image.repeat(16, 1, 1, 1) for name in ("image_a", "image_b")}
    light = varied(batch, generator())["image_a"].mean(dim=1) + 1
    along = torch.arange(64.0) - 31.5
    total = light.sum(dim=(1, 2))
    for axis in (1, 2):
        middle = (light.sum(dim=3 - axis) * along).sum(dim=1) / total
        assert middle.abs().max() < 4
    assert (total / total.mean() - 1).abs().max() < 0.6


def test_shadows_lie_on_half_of_the_pairs_and_darken_parts_of_them() -> None:
    strength = torch.tensor([-1.0, 0.0, 0.5, 1.0])[:, None]
    where = torch.zeros(4, SHADE_SIDE**2)
    where[:, 0] = -1.0  # the corner at the top left
    light = _shadows(torch.cat((strength, where), dim=1), 32)
    assert torch.equal(light[:2], torch.ones(2, 1, 32, 32))
    assert torch.exp(torch.tensor(-SHADE)) * 0.99 < light[3].amin() < light[2].amin() < 0.6
    assert light[3, 0, 0, 0] == light[3].amin() and light[3, 0, 16:, 16:].amin() > 0.9 and light.amax() <= 1
