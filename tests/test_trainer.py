"""The training step and loop on a CPU: phases, terms, stopping, resuming."""

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from checkpoints_manager import checkpoint_path, load_checkpoint, save_checkpoint
from core import distributed
from core.schedules import Cadence
from core.tracking import Tracker
from core.trainer import Housekeeping, RedirectionTrainer
from tests.processes import stand_in
from tests.tiny import WEIGHTS, random_batch, tiny_gan_trainer, tiny_trainer


def weights_of(trainer: RedirectionTrainer) -> dict[str, Tensor]:
    return {f"{m}.{k}": v.clone() for m, module in trainer.modules.items() for k, v in module.state_dict().items()}


def same(u: dict[str, Tensor], v: dict[str, Tensor]) -> bool:
    return all(torch.equal(u[name], v[name]) for name in u)


def test_a_tiny_run_learns() -> None:
    trainer, batch = tiny_trainer(learning_rate=lambda _: 5e-3), random_batch()
    l1 = [trainer.train_step(batch, step)["l1"].item() for step in range(60)]
    assert l1[-1] < 0.7 * l1[0]


def test_every_weighted_term_is_returned_by_its_published_name() -> None:
    assert tiny_trainer().train_step(random_batch(), 1).keys() == WEIGHTS.keys() | {"discriminator", "total"}


@pytest.mark.parametrize("name", ["embedding_consistency", "embedding_disentangle", "gaze_redirection", "l1"])
def test_a_term_of_weight_0_is_not_computed(name: str) -> None:
    assert name not in tiny_trainer(weights=WEIGHTS | {name: 0.0}).train_step(random_batch(), 1)


def test_without_an_adversarial_weight_the_discriminator_rests() -> None:
    trainer = tiny_trainer(weights=WEIGHTS | {"generator": 0.0})
    before = {name: value for name, value in weights_of(trainer).items() if name.startswith("discriminator")}
    assert "discriminator" not in trainer.train_step(random_batch(), 1)
    assert same(before, weights_of(trainer))


def test_the_discriminators_step_gives_the_redirector_no_gradient() -> None:
    """All weights but the adversarial one 0 and that still at its warm-up's start: only D may move."""
    only = {name: 0.0 for name in WEIGHTS} | {"generator": 1.0}
    trainer = tiny_trainer(weights=only, weight_decay=0.0)
    before = weights_of(trainer)
    trainer.train_step(random_batch(), 0)
    after = weights_of(trainer)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("discriminator.") for name in moved)


@pytest.mark.parametrize("broken", ["image_b", "gaze_a"])
def test_a_loss_that_is_not_finite_raises_before_anything_moves(broken: str) -> None:
    trainer, batch = tiny_trainer(), random_batch()
    batch[broken][0, 0] = torch.nan
    before = {name: parameter.clone() for name, parameter in trainer.redirector.named_parameters()}
    before |= {name: parameter.clone() for name, parameter in trainer.adversary.discriminator.named_parameters()}
    with pytest.raises(FloatingPointError, match=r"step 7 .*=nan.*No update was made"):
        trainer.train_step(batch, 7)
    after = dict(trainer.redirector.named_parameters()) | dict(trainer.adversary.discriminator.named_parameters())
    assert same(before, after)


def test_semi_supervised_trains_on_labels_of_a_only() -> None:
    terms, other = [], random_batch(seed=1)
    for labels_of_b in ("gaze_b", "head_b"), ():
        trainer, batch = tiny_trainer(semi_supervised=True), random_batch()
        batch |= {name: other[name] for name in labels_of_b}
        log = trainer.train_step(batch, 1)
        terms.append((log["total"].item(), log["gaze_a_unlabeled"].item()))
    assert terms[0][0] == terms[1][0]
    assert terms[0][1] != terms[1][1]


def test_mixing_is_a_function_of_seed_and_step_and_leaves_appearance_alone() -> None:
    trainer = tiny_trainer()
    masks = [trainer.mixing_mask(step, 64) for step in (3, 3, 4)]
    assert "appearance" not in masks[0]
    assert same(masks[0], masks[1]) and not same(masks[0], masks[2])
    assert 0.3 < torch.cat(list(masks[0].values())).float().mean() < 0.7


def test_learning_rate_is_set_before_the_step() -> None:
    trainer = tiny_trainer(learning_rate=lambda step: 0.0 if step == 5 else 1e-3, weight_decay=0.0)
    before = {name: p.clone() for name, p in trainer.redirector.named_parameters()}
    trainer.train_step(random_batch(), 5)
    assert same(before, dict(trainer.redirector.named_parameters()))
    trainer.train_step(random_batch(), 6)
    assert not same(before, dict(trainer.redirector.named_parameters()))


def test_a_gradient_that_is_not_finite_raises_before_the_redirector_moves() -> None:
    trainer = tiny_trainer(weights={"l1": 1.0})
    before = {name: parameter.clone() for name, parameter in trainer.redirector.named_parameters()}
    last = trainer.redirector.decoder.decoder.last.conv3.weight
    last.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(FloatingPointError, match=r"step 3 \(gradient of the generator=nan"):
        trainer.train_step(random_batch(), 3)
    assert same(before, dict(trainer.redirector.named_parameters()))


def test_a_gradient_is_scaled_down_to_its_largest_norm_and_a_smaller_one_is_left() -> None:
    norms = []
    for clip in (0.0, 1e-3, 1e9):
        trainer = tiny_trainer(gradient_clip=clip)
        seen: list[float] = []
        parameters = trainer.optimizers["generator"].param_groups[0]["params"]

        def note(*_: object, seen: list[float] = seen, parameters: list[torch.Tensor] = parameters) -> None:
            seen.append(float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])))

        trainer.optimizers["generator"].register_step_pre_hook(note)
        trainer.train_step(random_batch(), 1)
        norms += seen
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)
    assert norms[0] == norms[2] > 1


def test_a_resumed_run_takes_its_own_weight_decay(tmp_path: Path) -> None:
    first = tiny_trainer(weight_decay=0.5)
    first.train_step(random_batch(), 0)
    path = save_checkpoint(tmp_path, 1, first.modules, first.optimizers, {})
    second = tiny_trainer(weight_decay=0.25)
    load_checkpoint(path, second.modules, second.optimizers)
    second.train_step(random_batch(), 1)
    assert second.optimizers["generator"].param_groups[0]["weight_decay"] == 0.25


class Loop:
    """fit() over ten batches that are a function of the step, with what it called written down."""

    def __init__(self, folder: Path, start: int = 0) -> None:
        self.folder, self.start, self.calls = folder, start, []
        folder.mkdir(exist_ok=True)
        self.trainer = tiny_trainer()
        self.cadence = Cadence(log=2, test=5, pictures=100, save=4)
        if start:
            load_checkpoint(checkpoint_path(folder, start), self.trainer.modules, self.trainer.optimizers)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        for step in range(self.start, 10):
            self.calls.append(f"batch {step}")
            yield random_batch(seed=step)

    def save(self, step: int) -> None:
        self.calls.append(f"save {step}")
        save_checkpoint(self.folder, step, self.trainer.modules, self.trainer.optimizers, {})

    def test(self, step: int) -> dict[str, float]:
        self.calls.append(f"test {step}")
        return {"gc/val/l1": 0.5}

    def run(self, stop: list[int] | None = None) -> int:
        tracker = Tracker(self.folder, use_tensorboard=False, start_step=self.start)
        return self.trainer.fit(
            self.batches(),
            self.cadence,
            tracker,
            Housekeeping(self.test, lambda _: None, self.save),
            start=self.start,
            num_steps=10,
            stop=[] if stop is None else stop,
        )


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole = Loop(tmp_path / "whole")
    whole.run()
    Loop(tmp_path / "parts").run()
    resumed = Loop(tmp_path / "parts", start=4)
    resumed.run()
    assert same(weights_of(whole.trainer), weights_of(resumed.trainer))
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    drop_speed = [[line.partition('"train/images_per_s"')[0] for line in part] for part in lines]
    assert drop_speed[0] == drop_speed[1]


def test_housekeeping_comes_before_the_next_step_and_at_the_end(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    assert loop.run() == 10
    assert loop.calls.index("save 4") == loop.calls.index("batch 4") + 1
    assert [call for call in loop.calls if call[:4] in ("save", "test")] == [
        "save 4", "test 5", "save 8", "test 10", "save 10"
    ]  # fmt: skip


def test_a_test_that_a_kill_cut_off_is_made_again(tmp_path: Path) -> None:
    Loop(tmp_path).run()
    loop = Loop(tmp_path, start=4)
    loop.run()
    assert "test 4" not in loop.calls
    loop = Loop(tmp_path, start=8)
    loop.cadence = Cadence(log=2, test=4, pictures=100, save=4)
    loop.run()
    assert loop.calls[0] == "test 8"


def test_a_request_to_stop_saves_what_is_done(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    assert loop.run(stop=[15]) == 0
    assert loop.calls[-1] == "save 0"


def test_the_redirectors_cost_takes_no_gradients_of_the_discriminators_weights() -> None:
    trainer = tiny_trainer()
    shown = random_batch()["image_a"].requires_grad_()
    trainer.adversary.redirector_cost(shown).backward()
    weights = list(trainer.adversary.discriminator.parameters())
    assert shown.grad is not None and all(weight.grad is None for weight in weights)
    assert all(weight.requires_grad for weight in weights)


@pytest.mark.parametrize(
    ("made", "processes", "networks", "whole"),
    [
        (tiny_trainer, 1, {"PatchDiscriminator"}, 1),
        (tiny_gan_trainer, 1, set(), 1),  # R1 needs a second backward
        (tiny_trainer, 2, {"Encoder", "Decoder"}, 0),
        (tiny_gan_trainer, 2, {"Projector", "Deprojector"}, 0),
    ],
)
def test_what_is_compiled(
    made: Callable[..., RedirectionTrainer],
    processes: int,
    networks: set[str],
    whole: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []
    functions = Mock(side_effect=lambda function: function)
    monkeypatch.setattr(torch, "compile", functions)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    monkeypatch.setattr(distributed, "_group", stand_in(0, processes))
    assert made()._terms_of and not compiled and not functions.called
    assert made(compiled=True)._terms_of
    assert (set(compiled), functions.call_count) == (networks, whole)
