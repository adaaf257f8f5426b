"""No update with what is not finite, where looking is put off as on a GPU; and nothing else in a step waits for it."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core.finite import FiniteUpdates
from core.trainer import RedirectionTrainer
from tests.test_trainer import Loop, same, weights_of
from tests.tiny import random_batch, random_faces, tiny_gan_trainer, tiny_trainer

WAITING = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class Waits(TorchDispatchMode):
    """Counts the operations whose answer a GPU would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in WAITING
        return func(*args, **(kwargs or {}))


def parameters_of(trainer: RedirectionTrainer) -> dict[str, torch.Tensor]:
    """Without the discriminator's running statistics, which every batch moves; nothing of them is saved."""
    return {
        f"{m}.{name}": parameter.detach().clone()
        for m, module in trainer.modules.items()
        for name, parameter in module.named_parameters()
    }


def put_off(trainer: RedirectionTrainer) -> RedirectionTrainer:
    vars(trainer)["updates"] = FiniteUpdates(looks_at_once=False)
    return trainer


@pytest.mark.parametrize("build", [tiny_trainer, tiny_gan_trainer])
def test_a_step_is_the_same_to_the_bit_and_waits_for_nothing(build: Any) -> None:
    at_once, later = build(), put_off(build())
    batch = random_faces(at_once.redirector) if build is tiny_gan_trainer else random_batch()
    for step in range(3):
        at_once.train_step(batch, step)
        with Waits() as waits:
            later.train_step(batch, step)
        later.updates.require()
    assert waits.count == 0
    assert same(weights_of(at_once), weights_of(later))


def test_after_a_loss_that_is_not_finite_nothing_moves_and_the_first_is_named() -> None:
    trainer = put_off(tiny_trainer())
    trainer.train_step(random_batch(), 6)
    before, steps = parameters_of(trainer), [*trainer.optimizers["generator"].state.values()][0]["step"].item()
    broken = random_batch()
    broken["image_b"][0, 0] = torch.nan
    trainer.train_step(broken, 7)
    trainer.train_step(random_batch(), 8)
    assert same(before, parameters_of(trainer))
    assert [*trainer.optimizers["generator"].state.values()][0]["step"].item() == steps
    with pytest.raises(FloatingPointError, match=r"step 7 .*=nan.*No update was made"):
        trainer.updates.require()


def test_a_run_that_looks_later_saves_nothing_after_the_failure(tmp_path: Any) -> None:
    loop = Loop(tmp_path)
    put_off(loop.trainer)
    usual = loop.batches

    def batches() -> Any:
        for step, batch in enumerate(usual()):
            batch["gaze_a"] = batch["gaze_a"] * (torch.nan if step == 2 else 1)
            yield batch

    loop.batches = batches  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="step 2 "):
        loop.run()
    assert not any(call.startswith("save") for call in loop.calls)
