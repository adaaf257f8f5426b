"""What every trainer shares about a step: when what is due, the learning rate, and the check before an update."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

AUTOENCODER_WARMUP_STEPS = 50


@dataclass(frozen=True)
class Cadence:
    """Steps between two of a kind; 0: at the end only.

    log: lines of metrics.  test: tests, or validations.  pictures: sets of pictures.  save: saves of the state.
    test_at_end: also test after the last step; not needed where a full evaluation follows.
    """

    log: int = 200
    test: int = 0
    pictures: int = 0
    save: int = 0
    test_at_end: bool = True


def is_due(step: int, interval: int) -> bool:
    """Whether a step, counted from 1, ends an interval."""
    return bool(interval) and step % interval == 0


def redirector_rate(
    step: int,
    highest: float,
    *,
    num_steps: int,
    warmup_steps: int,
    schedule: Literal["step", "cosine"],
    decay_steps: int,
    decay: float,
) -> float:
    """Learning rate at `step`, counted from 0: linear warm-up, then steps of `decay` as published, or a cosine to 0."""
    warmup = min((step + 1) / warmup_steps, 1.0) if warmup_steps else 1.0
    if schedule == "cosine":
        return highest * warmup * (1 + math.cos(math.pi * step / num_steps)) / 2
    return highest * warmup * decay ** (step // decay_steps)


def estimator_rate(
    step: int, num_steps: int, schedule: Literal["step", "one-cycle"], decay_steps: int, decay: float
) -> float:
    """Share of the highest learning rate at `step`, counted from 0.

    step: times `decay` every `decay_steps`.  one-cycle: up to 1 in the first fifth, then a cosine down to 0.
    """
    if schedule == "step":
        return decay ** (step // decay_steps)
    return _rise_and_fall(step, num_steps, warmup_steps=max(1, num_steps // 5))


def autoencoder_rate(step: int, num_steps: int) -> float:
    """Share of the highest learning rate at `step`, counted from 0: a short rise, then a cosine down to 0."""
    return _rise_and_fall(step, num_steps, warmup_steps=min(AUTOENCODER_WARMUP_STEPS, max(1, num_steps // 10)))


def _rise_and_fall(step: int, num_steps: int, warmup_steps: int) -> float:
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup_steps) / max(1, num_steps - warmup_steps))


def require_finite(
    values: Mapping[str, Tensor], step: int, *, what: str = "Loss", remedy: str = ""
) -> dict[str, float]:
    """A step's losses and the norm of its gradients, each a tensor of one number, as numbers.

    They are asked for together, for the answer waits for the device.
    Raises FloatingPointError that names those that are not finite: to be called before the update.
    """
    numbers = dict(zip(values, torch.stack([value.detach() for value in values.values()]).tolist(), strict=True))
    wrong = ", ".join(f"{name}={number:.3g}" for name, number in numbers.items() if not math.isfinite(number))
    if wrong:
        advice = f"; {remedy}" if remedy else ""
        raise FloatingPointError(f"{what} is not finite at step {step} ({wrong}). No update was made with it{advice}.")
    return numbers
