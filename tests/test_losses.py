"""Each term against a number worked by hand."""

import math

import pytest
import torch

import losses


def test_l1_is_the_mean_absolute_difference() -> None:
    assert losses.l1(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([0.0, 0.0, 0.0])).item() == pytest.approx(2 / 3)


def test_gradient_compares_neighbours_across_and_down_and_sees_no_light() -> None:
    image_hat = torch.tensor([[[[0.0, 1.0], [3.0, 6.0]]]])
    image = torch.zeros(1, 1, 2, 2)
    assert losses.gradient(image_hat, image).item() == pytest.approx((1 + 3) / 2 + (3 + 5) / 2)
    assert losses.gradient(image_hat, image_hat + 0.7).item() == pytest.approx(0.0, abs=1e-6)


def test_of_several_images_the_nearest_counts_at_each_pixel() -> None:
    image = torch.zeros(1, 3, 1, 2)
    first = torch.tensor([[[[0.0, 2.0]], [[0.0, 2.0]], [[3.0, 2.0]]]])  # means over the colours: 1, 2
    second = torch.tensor([[[[2.0, -1.5]], [[2.0, -1.5]], [[2.0, 1.5]]]])  # 2, 1.5
    assert losses.nearest_l1((first, second), image).item() == pytest.approx((1 + 1.5) / 2)


def test_a_mirrored_pixel_costs_a_fifth_of_a_painted_one() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert losses.not_carried(shares).item() == pytest.approx(0.2 + 0.2 * 0.3)


def test_total_variation_is_of_neighbours_across_and_down() -> None:
    assert losses.total_variation(torch.tensor([[[[0.0, 1.0], [3.0, 6.0]]]])).item() == pytest.approx(2 + 4)


def test_around_eyes_adds_an_error_and_its_slope() -> None:
    """Straight ahead the eyes lie alike left and right, so that a ramp of 0.01 a column errs there as in the middle."""
    image, ahead = torch.zeros(2, 3, 64, 64), torch.zeros(2, 2)
    ramp = (0.01 * torch.arange(64.0)).expand(2, 3, 64, 64)
    assert losses.around_eyes(image + 0.3, image, ahead).item() == pytest.approx(0.3, rel=1e-4)
    assert losses.around_eyes(ramp, image, ahead).item() == pytest.approx(0.01 * 31.5 + 0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("head", "row", "column"),
    [  # an eye of a head straight ahead is 0.42 to the side of the middle and 0.39 above, of half a patch of 32 pixels
        ((0.0, 0.0), 31.5 - 0.39 * 32, 31.5 - 0.42 * 32),
        ((0.0, 1.0), 31.5 - 0.39 * 32, 31.5 - 0.42 * math.cos(1.0) * 32),
        ((0.8, 0.0), 31.5 - 0.39 * math.cos(0.8) * 32, 31.5 - 0.42 * 32),
    ],
)
def test_around_eyes_looks_where_a_turned_head_has_them(head: tuple[float, float], row: float, column: float) -> None:
    wrong = torch.ones(1, 3, 64, 64, requires_grad=True)
    losses.around_eyes(wrong, torch.zeros(1, 3, 64, 64), torch.tensor([head])).backward()
    assert wrong.grad is not None
    weight = wrong.grad[0, 0]  # of a pixel: nothing has a slope here
    found = divmod(int(weight[:, :32].argmax()), 32)
    assert found == pytest.approx((row, column), abs=0.75)
    assert torch.allclose(weight, weight.flip(1), atol=1e-6)  # the other eye
    assert weight[-8:].max() < 0.01 * weight.max()


def test_angles_are_in_degrees_each_pair_on_its_own() -> None:
    still, turned = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.1]])
    found = losses.angles([(turned, still), (still, still), (still, -2 * turned)])
    assert [value.item() for value in found] == pytest.approx([math.degrees(0.1), 0.0, math.degrees(0.2)], rel=1e-5)


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
