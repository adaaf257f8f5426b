"""What pretrained networks have in common: they can be frozen."""

from typing import Self

from torch import nn


class Freezable(nn.Module):
    """A module whose weights can be frozen for good, whatever mode a parent module is set to."""

    frozen = False

    def freeze(self) -> Self:
        """No gradient for the weights (gradients still flow to the input), evaluation mode for good."""
        self.frozen = True
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)
