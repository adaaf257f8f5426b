"""ST-ED's training step and metrics the plain way: what ours is compared with, in numbers and in time.

Eager and float32, one thing after the other, as a first implementation has them: source and target are encoded in two
calls, a dense block concatenates and normalises anew before each of its layers, mixed images and perturbations are
decoded one at a time, factors are rotated and angles taken one by one, a term of weight 0 is computed, every loss is
fetched from the device at once, nothing checks what is finite.
The terms themselves are those of `losses.py`. `tests/test_plain.py` compares losses, gradients and metrics with ours.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

import losses
from core.trainer import RedirectionTrainer
from models.decoder import _Last
from models.densenet import Composite, DenseBlock, Transition
from models.encoder import _Initial
from models.geometry import angular_error_deg, rotation_matrix
from models.redirector import Encoding, Redirector, flat_embeddings


class PlainLayers(nn.Module):
    """The layers of an encoder or a decoder of ST-ED, with their weights, and nothing saved."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.children():
            x = _plain(layer, x)
        return x


def _plain(layer: nn.Module, x: Tensor) -> Tensor:
    match layer:
        case DenseBlock():
            for composite in layer.children():
                x = torch.cat((x, _plain(composite, x)), dim=1)
            return x
        case Composite():
            x = _convolved(layer.conv, _activated(x))
            return x if layer.pool is None else layer.pool(x)
        case Transition():
            return _plain(layer.composite, x)
        case _Initial():
            return _convolved(layer.conv2, _activated(_convolved(layer.conv1, x)))
        case _Last():
            x = _activated(_convolved(layer.conv1, x))
            return _convolved(layer.conv3, _activated(_convolved(layer.conv2, x)))
    raise TypeError(type(layer))


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(F.instance_norm(x), 0.01)


def _convolved(layer: nn.Module, x: Tensor) -> Tensor:
    """As PyTorch's own layer does it, whatever a subclass of ours does."""
    kind = nn.ConvTranspose2d if isinstance(layer, nn.ConvTranspose2d) else nn.Conv2d
    return kind.forward(layer, x)  # type: ignore[arg-type]


def plain_redirector(redirector: Redirector) -> Redirector:
    """A copy of an ST-ED with its weights, whose layers are plain."""
    plain = copy.deepcopy(redirector).to(memory_format=torch.contiguous_format)
    plain.encoder.encoder = PlainLayers(plain.encoder.encoder)
    plain.decoder.decoder = PlainLayers(plain.decoder.decoder)
    return plain


def _angle(condition: Tensor, label: Tensor) -> Tensor:
    return angular_error_deg(condition, label).mean()


def _rotated(encoding: Encoding, targets: Mapping[str, Tensor]) -> Encoding:
    """Factor by factor: embedding' = R(target) R(condition)^T embedding."""
    still, embeddings = _canonical(encoding, targets), dict(encoding.embeddings)
    for name, target in targets.items():
        embeddings[name] = rotation_matrix(target) @ still[name]
    return replace(encoding, conditions={**encoding.conditions, **targets}, embeddings=embeddings)


def _canonical(encoding: Encoding, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All embeddings, of the named factors without their conditions."""
    return {
        name: rotation_matrix(encoding.conditions[name]).transpose(1, 2) @ value if name in names else value
        for name, value in encoding.embeddings.items()
    }


@dataclass(frozen=True)
class PlainTrainer:
    """A training step of ST-ED. weights: term -> weight, where a training with mixing has one for its terms."""

    redirector: Redirector
    discriminator: nn.Module
    estimator: nn.Module
    optimizers: Mapping[str, Optimizer]
    weights: Mapping[str, float]
    warmup_steps: int

    @classmethod
    def of(cls, trainer: RedirectionTrainer) -> Self:
        """One that begins where ours does, with copies of its networks."""
        redirector = plain_redirector(trainer.redirector)
        discriminator = copy.deepcopy(trainer.adversary.discriminator).to(memory_format=torch.contiguous_format)
        estimator = copy.deepcopy(trainer.objective.estimator).to(memory_format=torch.contiguous_format)
        rate = {"lr": trainer.settings.learning_rate(0), "weight_decay": trainer.settings.weight_decay}
        parts = {"generator": redirector, "discriminator": discriminator}
        optimizers = {name: Adam(part.parameters(), **rate) for name, part in parts.items()}
        warmup_steps = trainer.settings.adversarial_warmup_steps
        return cls(redirector, discriminator, estimator, optimizers, trainer.objective.weights, warmup_steps)

    def train_step(self, batch: Mapping[str, Tensor], mask: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One update of both networks. batch, mask: as for ours; the losses, as numbers."""
        a, b = self.redirector.encode(batch["image_a"]), self.redirector.encode(batch["image_b"])
        image_hat = self.redirector.decode(_rotated(a, b.conditions))
        terms = self._terms(a, b, image_hat, batch) | self._mixing_terms(a, b, mask)
        logits_real, logits_fake = self.discriminator(batch["image_b"]), self.discriminator(image_hat.detach())
        cost = losses.discriminator(logits_real, logits_fake)
        logged = terms | {"discriminator": cost, "generator": losses.adversarial(logits_fake, losses.REAL)}
        numbers = {name: value.item() for name, value in logged.items()}
        self._update("discriminator", self.weights["generator"] * cost)
        terms["generator"] = losses.adversarial(self.discriminator(image_hat), losses.REAL)
        adversarial = self.weights["generator"] * losses.adversarial_warmup(step, self.warmup_steps)
        total = losses.weighted_sum(terms, {**self.weights, "generator": adversarial})
        self._update("generator", total)
        return numbers | {"total": total.item()}

    def _terms(self, a: Encoding, b: Encoding, image_hat: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = {"l1": losses.l1(image_hat, batch["image_b"])}
        for name in ("gaze", "head"):
            errors = [_angle(one.conditions[name], batch[f"{name}_{i}"]) for one, i in ((a, "a"), (b, "b"))]
            terms[f"{name}_a"] = (errors[0] + errors[1]) / 2
        canonical = [flat_embeddings(Encoding({}, _canonical(one, one.conditions))) for one in (a, b)]
        terms["embedding_consistency"] = losses.cosine_distance(*canonical)
        seen, wanted = self.estimator(image_hat), self.estimator(batch["image_b"])
        terms["redirection_feature_loss"] = losses.redirection_feature(seen.features, wanted.features)
        terms["gaze_redirection"] = _angle(seen.gaze, wanted.gaze.detach())
        terms["head_redirection"] = _angle(seen.head, wanted.head.detach())
        return terms

    def _mixing_terms(self, a: Encoding, b: Encoding, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not mask:
            return {}
        targets = {name: torch.where(mask[name], b.conditions[name], a.conditions[name]) for name in a.conditions}
        mixed = _rotated(a, targets)
        again = self.redirector.encode(self.redirector.decode(mixed))
        return {
            "embedding_disentangle": losses.cosine_distance(flat_embeddings(mixed), flat_embeddings(again)),
            "label_disentangle": _angle(again.conditions["gaze"], mixed.conditions["gaze"])
            + _angle(again.conditions["head"], mixed.conditions["head"]),
        }

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()


@torch.no_grad()
def plain_measure(
    redirector: Redirector,
    estimator: nn.Module,
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
    lpips: nn.Module | None = None,
) -> dict[str, float]:
    """ST-ED's metrics of one batch, their means as numbers. noise: as `core.evaluator.measure` takes it."""
    a, b, image_b = redirector.encode(batch["image_a"]), redirector.encode(batch["image_b"]), batch["image_b"]
    values = {f"{name}_a": _angle(a.conditions[name], batch[f"{name}_a"]).item() for name in ("gaze", "head")}
    image = redirector.decode(_rotated(a, {"gaze": batch["gaze_b"], "head": batch["head_b"]}))
    seen = estimator(image)
    values["gaze_redirection"] = _angle(seen.gaze, batch["gaze_b"]).item()
    values["head_redirection"] = _angle(seen.head, batch["head_b"]).item()
    image_all = redirector.decode(_rotated(a, b.conditions))
    for one, suffix in ((image, ""), (image_all, "_all")):
        values["l1" + suffix] = losses.l1(one, image_b).item()
        if lpips is not None:
            values["lpips" + suffix] = lpips(one, image_b).mean().item()
    return values | _induced_errors(redirector, estimator, a, noise)


def _induced_errors(
    redirector: Redirector, estimator: nn.Module, a: Encoding, noise: Mapping[str, Tensor]
) -> dict[str, float]:
    still, gaze, head = estimator(redirector.decode(a)), {}, {}
    for name, delta in noise.items():
        moved = estimator(redirector.decode(_rotated(a, {name: a.conditions[name] + delta})))
        gaze[name] = angular_error_deg(still.gaze, moved.gaze).mean().item()
        head[name] = angular_error_deg(still.head, moved.head).mean().item()
    values = {"head_to_gaze": gaze["head"], "gaze_to_head": head["gaze"]}
    if others := [name for name in noise if name not in ("gaze", "head")]:
        values["gaze_disentangle"] = sum(gaze[name] for name in others) / len(others)
        values["head_disentangle"] = sum(head[name] for name in others) / len(others)
    return values
