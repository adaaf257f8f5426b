"""The discriminator of latent codes, its losses and its pool, against e4e's release and by hand."""

import io
import json
import math
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

import losses
from models.discriminator import LatentDiscriminator, LatentPool
from tests.formula import assert_golden, fill, uniform

GOLDENS = Path(__file__).parent / "goldens"
GOLDEN = json.loads((GOLDENS / "golden_latent_codes_discriminator.json").read_text())


@pytest.fixture(scope="module")
def discriminator() -> LatentDiscriminator:
    return fill(LatentDiscriminator())


def constant(value: float) -> Tensor:
    return torch.full((512,), float(value))


def test_keys_and_shapes_are_the_published_ones() -> None:
    published = json.loads((GOLDENS / "keys_latent_codes_discriminator.json").read_text())["entries"]
    ours = [
        [k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in LatentDiscriminator().state_dict().items()
    ]
    assert ours == published


def test_logits_equal_the_golden(discriminator: LatentDiscriminator) -> None:
    with torch.no_grad():
        assert_golden(discriminator(uniform((4, 512))), GOLDEN["outputs"]["pred"])


def test_losses_and_r1_equal_the_golden(discriminator: LatentDiscriminator) -> None:
    golden = GOLDEN["losses"]
    real, fake = uniform((4, 512)).requires_grad_(), uniform((4, 512), seed=4321)
    on_real, on_fake = discriminator(real), discriminator(fake)
    assert on_real.flatten().tolist() == pytest.approx(golden["pred_real_all"], rel=1e-5)
    assert on_fake.flatten().tolist() == pytest.approx(golden["pred_fake_all"], rel=1e-5)
    assert losses.latent_adversarial_real(on_real).item() == pytest.approx(golden["d_real_loss"], rel=1e-5)
    assert losses.latent_adversarial_fake(on_fake).item() == pytest.approx(golden["d_fake_loss"], rel=1e-5)
    assert losses.latent_adversarial_real(on_fake).item() == pytest.approx(golden["encoder_adv_loss_on_fake"], rel=1e-5)
    r1 = losses.r1_penalty(on_real, real)
    assert r1.item() == pytest.approx(golden["r1_penalty"], rel=1e-5)
    assert 10 / 2 * 16 * r1.item() == pytest.approx(golden["r1_term_r1_10_every16"], rel=1e-5)


def test_each_row_of_a_code_is_judged_alone(discriminator: LatentDiscriminator) -> None:
    codes = uniform((2, 3, 512))
    with torch.no_grad():
        assert torch.allclose(discriminator(codes)[:, 1], discriminator(codes[:, 1]), atol=1e-6)


def test_r1_is_the_squared_slope_and_reaches_the_weights() -> None:
    discriminator = LatentDiscriminator(style_dim=2, layers=1)
    with torch.no_grad():
        discriminator.mlp[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
    codes = torch.randn(5, 2, requires_grad=True)
    penalty = losses.r1_penalty(discriminator(codes), codes)
    penalty.backward()
    assert penalty.item() == pytest.approx(25)  # a mean over coordinates would be 12.5
    assert discriminator.mlp[0].weight.grad.flatten().tolist() == pytest.approx([6, 8])


def test_undecided_logits_cost_log_2_and_large_ones_do_not_overflow() -> None:
    zero, huge = torch.zeros(3, 1), torch.full((3, 1), 1e4)
    assert losses.latent_adversarial_real(zero).item() == pytest.approx(math.log(2))
    assert losses.latent_adversarial_fake(zero).item() == pytest.approx(math.log(2))
    assert losses.latent_adversarial_real(huge).item() == 0
    assert losses.latent_adversarial_fake(huge).item() == pytest.approx(1e4)


def test_delta_sums_rows_and_averages_the_batch() -> None:
    codes = torch.zeros(2, 3, 2)
    codes[0, 1] = torch.tensor([3.0, 4.0])  # 5 in one of two samples
    codes[:, 2] = torch.tensor([0.0, 2.0])  # 2 in both
    assert losses.delta_regularisation(codes).item() == pytest.approx(2.5 + 2)
    assert losses.delta_regularisation(codes[:, :1]).item() == 0


def test_delta_of_equal_rows_has_no_gradient_and_no_nan() -> None:
    codes = torch.ones(2, 3, 4, requires_grad=True)
    losses.delta_regularisation(codes).backward()
    assert codes.grad.abs().max() == 0


def test_the_pool_returns_what_the_published_one_does() -> None:
    pool = LatentPool(6, Random(0))
    for query, expected in enumerate(GOLDEN["pool"]["returned"]):
        returned = pool.exchange(torch.stack([constant(query * 4 + j) for j in range(4)]))
        assert returned[:, 0].tolist() == returned[:, 511].tolist() == expected


def test_the_pool_draws_one_of_several_rows_as_the_published_one_does() -> None:
    pool = LatentPool(4, Random(0))
    for query, expected in enumerate(GOLDEN["pool"]["returned3d"]):
        codes = torch.stack(
            [torch.stack([constant(100 * (2 * query + j) + row) for row in range(5)]) for j in range(2)]
        )
        assert pool.exchange(codes)[:, 7].tolist() == expected


def test_a_pool_of_no_size_hands_the_first_row_through() -> None:
    codes = torch.randn(3, 5, 8)
    assert torch.equal(LatentPool(0).exchange(codes), codes[:, 0])
    assert torch.equal(LatentPool(0).exchange(codes[:, 1]), codes[:, 1])


def test_the_pool_keeps_values_not_references_and_no_graph() -> None:
    pool, codes = LatentPool(1, Random(0)), torch.ones(1, 4, requires_grad=True)
    assert not pool.exchange(codes * 2).requires_grad
    given = torch.full((1, 4), 7.0)
    earlier = [pool.exchange(given) for _ in range(20)]
    given.zero_()
    later = [pool.exchange(given) for _ in range(20)]
    assert {row[0, 0].item() for row in earlier} == {2.0, 7.0}
    assert {row[0, 0].item() for row in later} == {7.0, 0.0}


def test_a_pool_resumes_exactly_from_a_file() -> None:
    batches = [torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    whole, first, second = LatentPool(6, Random(3)), LatentPool(6, Random(3)), LatentPool(6, Random(99))
    expected = [whole.exchange(batch) for batch in batches]
    for batch in batches[:4]:
        first.exchange(batch)
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second.load_state(torch.load(file, weights_only=True))
    assert all(torch.equal(second.exchange(b), e) for b, e in zip(batches[4:], expected[4:], strict=True))
