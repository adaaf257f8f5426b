"""When what is due, the learning rates, and the check before an update."""

import pytest
import torch

from core.schedules import autoencoder_rate, estimator_rate, is_due, redirector_rate, require_finite


def test_an_interval_of_0_never_ends() -> None:
    assert [step for step in range(1, 7) if is_due(step, 3)] == [3, 6]
    assert not any(is_due(step, 0) for step in range(1, 7))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("step", [0.5, 1.0, 0.25]), ("cosine", [0.5, 1.0, 0.5])],  # at the second step, at the end of the rise, half-way
)
def test_the_rate_of_a_redirector_rises_and_then_falls(schedule: str, expected: list[float]) -> None:
    options = {"num_steps": 2000, "warmup_steps": 4, "schedule": schedule, "decay_steps": 500, "decay": 0.5}
    rates = [redirector_rate(step, highest=1.0, **options) for step in (1, 3, 1000)]
    assert rates == pytest.approx(expected, abs=1e-5)


def test_the_rate_of_an_estimator_falls_in_steps_or_after_one_rise() -> None:
    steps = [estimator_rate(step, 200, "step", 50, 0.5) for step in (0, 49, 50, 199)]
    assert steps == [1, 1, 0.5, 0.125]
    cycle = [estimator_rate(step, 100, "one-cycle", 1, 0.5) for step in (0, 19, 20, 60, 99)]
    assert cycle == pytest.approx([0.05, 1, 1, 0.5, 0.0], abs=1e-3)


def test_the_rate_of_an_autoencoder_rises_and_falls() -> None:
    factors = [autoencoder_rate(step, 1000) for step in range(1000)]
    assert factors.index(max(factors)) in (49, 50)
    assert max(factors) == 1 and factors[-1] < 1e-4
    assert factors[525] == pytest.approx(0.5, abs=2e-3)  # half of the way down


def test_only_what_is_not_finite_is_named() -> None:
    values = {"l1": torch.tensor(0.5), "gaze": torch.tensor(float("nan")), "gradient": torch.tensor(float("inf"))}
    message = r"^Loss is not finite at step 7 \(gaze=nan, gradient=inf\)\. No update was made with it; look there\.$"
    with pytest.raises(FloatingPointError, match=message):
        require_finite(values, 7, remedy="look there")
    assert require_finite({"l1": torch.tensor(0.5)}, 7) == {"l1": 0.5}
