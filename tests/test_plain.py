"""The plain way that ours is compared with gives the same numbers."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from benchmarks.plain import PlainTrainer, plain_measure, plain_redirector
from core.evaluator import measure, perturbations
from tests.tiny import PoolEstimator, random_batch, tiny_redirector, tiny_trainer

STEP = 2


def noted(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The gradients of the next update, once it is made."""
    seen: list[Tensor] = []

    def note(*_: object) -> None:
        seen.extend(p.grad.clone() for p in optimizer.param_groups[0]["params"])

    optimizer.register_step_pre_hook(note)
    return seen


@pytest.fixture
def float64() -> Iterator[None]:
    """In float32 rounding alone moves a gradient of so small a network by 3 in a thousand, on some processors."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_a_plain_step_has_our_losses_and_our_gradients(float64: None) -> None:
    ours, batch = tiny_trainer(), random_batch()
    plain = PlainTrainer.of(ours)
    seen = {name: (noted(ours.optimizers[name]), noted(plain.optimizers[name])) for name in ours.optimizers}
    mask = ours.mixing_mask(STEP, len(batch["image_a"]))
    wanted, found = ours.train_step(batch, STEP), plain.train_step(batch, mask, STEP)
    assert wanted.keys() == found.keys()
    assert found == pytest.approx({name: value.item() for name, value in wanted.items()}, rel=1e-9)
    for name, (of_ours, of_plain) in seen.items():
        assert len(of_ours) == len(of_plain), name
        for u, v in zip(of_ours, of_plain, strict=True):
            assert (u - v).norm() <= 1e-7 * v.norm() + 1e-9, name


def test_plain_metrics_are_our_metrics() -> None:
    redirector, batch = tiny_redirector().eval(), random_batch()
    noise = perturbations(redirector, 0, torch.arange(4).numpy(), torch.device("cpu"))
    with torch.no_grad():
        wanted = measure(redirector, PoolEstimator(), batch, noise=noise)
    found = plain_measure(plain_redirector(redirector), PoolEstimator(), batch, noise)
    means = {name: value.mean().item() for name, value in wanted.items() if not name.startswith("image")}
    assert found == pytest.approx(means, rel=1e-4)
