"""No update with what is not finite, without asking the device at every step: asking waits until it is done."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from core.schedules import require_finite


class FiniteUpdates:
    """Steps of optimisers, none of them after a loss, a term or a gradient was not finite.

    looks_at_once: ask before every step, which costs a CPU nothing. Otherwise the optimiser is told on the device (the
    `found_inf` of PyTorch's fused Adam), this step and all that follow change nothing, and `require` says so.
    """

    def __init__(self, looks_at_once: bool) -> None:
        self.looks_at_once = looks_at_once
        self._failed: Tensor | None = None  # 1.0 once something was not finite
        self._first: dict[tuple[str, ...], Tensor] = {}  # names -> step and values of the failure; -1 before

    def step(self, optimizer: Optimizer, values: Mapping[str, Tensor], step: int) -> None:
        """One step of a fused optimiser. values: of one number each, what has to be finite; step: for the message.

        Raises FloatingPointError if it looks at once and one is not.
        """
        if self.looks_at_once:
            require_finite(values, step)
        else:
            optimizer.found_inf = self._noted(values, step)  # type: ignore[attr-defined]
        optimizer.step()

    def require(self) -> None:
        """Raises FloatingPointError that names the first step and what was not finite in it; waits for the device."""
        if self._failed is None or not self._failed.item():
            return
        for names, kept in self._first.items():
            step, *numbers = kept.unbind()
            if step >= 0:
                require_finite(dict(zip(names, numbers, strict=True)), int(step))

    def _noted(self, values: Mapping[str, Tensor], step: int) -> Tensor:
        now = torch.stack([value.detach().double() for value in values.values()])
        now = torch.cat([torch.full_like(now[:1], step), now])
        failed = torch.zeros_like(now[0], dtype=torch.float32) if self._failed is None else self._failed
        is_first = ~now.isfinite().all() & (failed == 0)
        names = tuple(values)
        kept = self._first.get(names, torch.full_like(now, -1))
        self._first[names] = torch.where(is_first, now, kept)
        self._failed = torch.where(is_first, torch.ones_like(failed), failed)
        return self._failed
