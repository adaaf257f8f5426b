"""Trains a redirector: the adversary's phase, then the redirector's. Source: ST-ED, section 3.3."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import losses
from core import distributed
from core.adversary import Adversary
from core.batches import mirrored
from core.finite import FiniteUpdates
from core.objective import MIXED, Objective, Redirected
from core.runtime import autocast, step_generator
from core.schedules import Cadence, is_due
from core.tracking import Tracker, progress_bar, say
from core.variation import varied
from models.redirector import Redirector
from utils import batch_to_device


@dataclass(frozen=True)
class StepSettings:
    """How a step updates.

    learning_rate: step -> rate of both optimisers.  weight_decay: Adam's L2 penalty.
    gradient_clip: the norm that an optimiser's gradients are scaled down to where theirs is larger; 0: never.
    adversarial_warmup_steps: in which the adversary's weight rises from 0.
    mirror: turn half of the pairs left to right.  vary: see `core.variation`.  precision: of the networks.
    compiled: by PyTorch's compiler, when the first step is made.
    Source of the schedule: ST-ED, supplementary.
    """

    learning_rate: Callable[[int], float]
    weight_decay: float
    adversarial_warmup_steps: int
    gradient_clip: float = 0.0
    mirror: bool = False
    vary: bool = False
    precision: str = "float32"
    compiled: bool = False
    seed: int = 0
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True)
class Housekeeping:
    """What the trainer calls between steps, each with the number of steps done.

    test: metrics under their TensorBoard tags.
    """

    test: Callable[[int], Mapping[str, float]]
    pictures: Callable[[int], None]
    save: Callable[[int], None]


def build_optimizers(redirector: nn.Module, discriminator: nn.Module, settings: StepSettings) -> dict[str, Optimizer]:
    """Adam for what is trained of each, under the published names."""
    return {
        name: torch.optim.Adam(
            [p for p in module.parameters() if p.requires_grad],
            lr=settings.learning_rate(0),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        for name, module in (("generator", redirector), ("discriminator", discriminator))
    }


def trained_parts(redirector: nn.Module, discriminator: nn.Module) -> dict[str, nn.Module]:
    """What a checkpoint holds, under the published names; what is frozen is in a file of its own."""
    parts = {**dict(redirector.named_children()), "discriminator": discriminator}
    return {name: part for name, part in parts.items() if any(p.requires_grad for p in part.parameters())}


@dataclass(frozen=True)
class RedirectionTrainer:
    """The order of a step and of a training; whatever has a state is handed in.

    optimizers: of `build_optimizers`.
    """

    redirector: Redirector
    adversary: Adversary
    objective: Objective
    optimizers: Mapping[str, Optimizer]
    settings: StepSettings

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `trained_parts`."""
        return trained_parts(self.redirector, self.adversary.discriminator)

    @cached_property
    def _shared(self) -> dict[str, distributed.SharedGradients]:
        """What is trained, under the names of the optimisers; made when it is first used, in all processes together."""
        parts = {"generator": self.redirector, "discriminator": self.adversary.discriminator}
        return {name: distributed.SharedGradients(part) for name, part in parts.items()}

    @cached_property
    def updates(self) -> FiniteUpdates:
        """None with what is not finite: a CPU is asked every step, a GPU where `fit` logs, tests or saves."""
        return FiniteUpdates(looks_at_once=self.settings.device.type == "cpu")

    @cached_property
    def _terms_of(self) -> Callable[..., tuple[dict[str, Tensor], Redirected]]:
        """The objective's terms. Compiled, they are one function with the networks that they use in it.

        Among several processes, which exchange in between, the trained networks are compiled one by one.
        """
        if not self.settings.compiled:
            return self.objective.terms
        if distributed.size() > 1:
            for name, module in self.modules.items():
                if name != "discriminator":  # whose batches are normalised together
                    module.compile()
            return self.objective.terms
        if self.adversary.sees_images:  # R1, of one that sees codes, needs a second backward
            self.adversary.discriminator.compile()
        return torch.compile(self.objective.terms)

    def fit(
        self,
        batches: Iterable[Mapping[str, Tensor]],
        cadence: Cadence,
        tracker: Tracker,
        keeping: Housekeeping,
        *,
        start: int,
        num_steps: int,
        stop: list[int],
    ) -> int:
        """Train from step `start`; returns the steps done, fewer than asked for if `stop` was filled.

        Housekeeping comes before a step, so that a step is never split by a save.
        Raises FloatingPointError if a loss is not finite; no update was made with it, and nothing saved after it.
        """
        bar = progress_bar(num_steps, start, "training")
        step = start
        if start:  # a kill may have come between the save and the test of this step
            self._keep_house(start, cadence, tracker, keeping, saves=False)
        for batch in batches:
            if step > start:
                self._keep_house(step, cadence, tracker, keeping)
            if distributed.any_of(bool(stop)):
                break
            moved = batch_to_device(batch, self.settings.device)
            terms = self.train_step(moved, step)
            step += 1
            bar.update()
            if is_due(step, cadence.log) or step == num_steps:
                self.updates.require()
                values = {name: value.item() for name, value in distributed.averaged(terms).items()}
                num_images = 2 * len(moved["image_a"]) * distributed.size()
                images_per_s = (bar.format_dict["rate"] or 0) * num_images
                bar.set_postfix(loss=f"{values['total']:.3g}", images_per_s=f"{images_per_s:.0f}")
                rate = {"learning_rate": self.settings.learning_rate(step - 1), "images_per_s": images_per_s}
                tracker.log(step, {f"train/{name}": value for name, value in (values | rate).items()})
        bar.close()
        self.updates.require()
        if step == num_steps:
            keeping.pictures(step)
            if cadence.test_at_end:
                self._test(step, tracker, keeping)
        keeping.save(step)
        return step

    def _keep_house(
        self, step: int, cadence: Cadence, tracker: Tracker, keeping: Housekeeping, saves: bool = True
    ) -> None:
        if any(is_due(step, period) for period in (cadence.save, cadence.test, cadence.pictures)):
            self.updates.require()
        if saves and is_due(step, cadence.save):
            keeping.save(step)
        if is_due(step, cadence.test):
            self._test(step, tracker, keeping)
        if is_due(step, cadence.pictures):
            keeping.pictures(step)

    def _test(self, step: int, tracker: Tracker, keeping: Housekeeping) -> None:
        tracker.log(step, metrics := keeping.test(step))
        shown = [name for name in metrics if name.endswith(("gaze_redirection", "head_redirection", "/l1"))]
        say(f"step {step}: " + ", ".join(f"{name} {metrics[name]:.3g}" for name in shown))

    def train_step(self, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """One update of the discriminator and one of the redirector; the terms, detached.

        batch: image_a, image_b (B, 3, S, S) in [-1, 1]; gaze_a, head_a, gaze_b, head_b (B, 2) radians.
        Raises FloatingPointError if a term or a gradient is not finite, see `updates`: no update is made with it. (D
        takes its step first; what only D's own step makes not finite stops the redirector's.)
        """
        settings, objective = self.settings, self.objective
        self._prepare(step)
        size = len(batch["image_a"])
        if settings.mirror:
            batch = mirrored(batch, self._coins(step, 1, size, stream=1)[0])
        if settings.vary:
            batch = varied(batch, step_generator(settings.seed, step, stream=2))
        mask = self.mixing_mask(step, size) if objective.has(*MIXED) else {}
        terms, shown = self._shared["generator"](lambda: self._terms(batch, mask))
        log = {name: value.detach() for name, value in terms.items()}
        if shown is not None:
            weight, costs = objective.adversarial_weight(), self.adversary.costs(shown, batch["image_b"], step)
            for cost, logged in self._shared["discriminator"].each(costs):
                self._update("discriminator", weight * cost, terms | logged, step)
                log |= {name: value.detach() for name, value in logged.items()}
            terms["generator"] = self.adversary.redirector_cost(shown)
            log.setdefault("generator", terms["generator"].detach())
        total = objective.total(terms, losses.adversarial_warmup(step, settings.adversarial_warmup_steps))
        self._update("generator", total, terms, step)
        return log | {"total": total.detach()}

    def _terms(
        self, batch: Mapping[str, Tensor], mask: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The terms but the adversary's, and what it is shown, if it is asked."""
        with autocast(self.settings.device, self.settings.precision):
            terms, redirected = self._terms_of(self.redirector, batch, mask)
        return terms, self.adversary.shown(redirected) if self.objective.adversarial_weight() else None

    def _prepare(self, step: int) -> None:
        self.redirector.train()
        self.adversary.discriminator.train()
        rate = {"lr": self.settings.learning_rate(step), "weight_decay": self.settings.weight_decay}
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group |= rate  # set anew, for a checkpoint brings the values of the run that wrote it

    def mixing_mask(self, step: int, size: int) -> dict[str, Tensor]:
        """Factor name -> (B, 1): does this image take b's condition? A fair coin each."""
        steered = [factor.name for factor in self.redirector.factors if factor.dof]
        return dict(zip(steered, self._coins(step, len(steered), size, stream=0), strict=True))

    def _coins(self, step: int, rows: int, size: int, stream: int) -> Tensor:
        """(rows, size, 1) fair coins, a function of the seed and the step."""
        generator = step_generator(self.settings.seed, step, stream)
        drawn = torch.rand((rows, distributed.size() * size, 1), generator=generator)[:, distributed.own_rows(size)]
        return (drawn < 0.5).to(self.settings.device, non_blocking=True)

    def _update(self, name: str, loss: Tensor, terms: Mapping[str, Tensor], step: int) -> None:
        """One step of an optimiser, unless its loss, a term or a gradient is not finite."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        watched = distributed.averaged({**terms, f"gradient of the {name}": norm})
        if self.settings.gradient_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.settings.gradient_clip, norm)
        self.updates.step(optimizer, watched, step)
        optimizer.zero_grad(set_to_none=True)
