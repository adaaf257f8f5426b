"""Each term against a number worked by hand."""

import math

import pytest
import torch

import losses


def test_l1_is_the_mean_absolute_difference() -> None:
    assert losses.l1(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([0.0, 0.0, 0.0])).item() == pytest.approx(2 / 3)


def test_angle_is_in_degrees() -> None:
    assert losses.angle(torch.tensor([[0.0, 0.1]]), torch.tensor([[0.0, 0.0]])).item() == pytest.approx(
        math.degrees(0.1), rel=1e-5
    )


def test_undecided_logits_cost_log_2_whichever_the_polarity() -> None:
    logits = torch.zeros(2, 1, 3, 3)
    assert losses.adversarial(logits, losses.REAL).item() == pytest.approx(math.log(2))
    assert losses.discriminator(logits, logits).item() == pytest.approx(math.log(2))


def test_real_is_zero_and_fake_is_one() -> None:
    sure_real, sure_fake = torch.full((1, 1), -20.0), torch.full((1, 1), 20.0)
    assert losses.discriminator(sure_real, sure_fake).item() < 1e-6
    assert losses.adversarial(sure_fake, losses.REAL).item() == pytest.approx(20.0)


def test_cosine_distance_is_averaged_over_samples() -> None:
    u = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    v = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert losses.cosine_distance(u, v).item() == pytest.approx(0.5)


def test_feature_loss_is_a_sum_of_means_and_gives_the_target_no_gradient() -> None:
    u = [torch.zeros(2, 3, requires_grad=True), torch.zeros(1, requires_grad=True)]
    v = [torch.full((2, 3), 2.0, requires_grad=True), torch.full((1,), 3.0, requires_grad=True)]
    loss = losses.redirection_feature(u, v)
    loss.backward()
    assert loss.item() == pytest.approx(4 + 9)
    assert v[0].grad is None and u[0].grad is not None


def test_label_disentangle_adds_gaze_and_head_and_ignores_other_factors() -> None:
    zero, tenth = torch.zeros(1, 2), torch.tensor([[0.0, 0.1]])
    before = {"gaze": zero, "head": zero, "extra_1d_0": torch.zeros(1, 1)}
    after = {"gaze": tenth, "head": tenth, "extra_1d_0": torch.ones(1, 1)}
    assert losses.label_disentangle(before, after).item() == pytest.approx(2 * math.degrees(0.1), rel=1e-5)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)])
def test_adversarial_weight_rises_linearly_and_stays(step: int, weight: float) -> None:
    assert losses.adversarial_warmup(step, 10) == weight


def test_no_warmup_is_full_weight_at_once() -> None:
    assert losses.adversarial_warmup(0, 0) == 1.0


def test_terms_without_a_weight_do_not_count() -> None:
    terms = {"l1": torch.tensor(2.0), "logged": torch.tensor(100.0)}
    assert losses.weighted_sum(terms, {"l1": 3.0}).item() == 6.0
