"""Discriminators: of images (PatchGAN of ST-ED: real is 0, fake is 1) and of latent codes (e4e)."""

from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from core.distributed import BatchNorm2d


class PatchDiscriminator(nn.Module):
    """Image (B, 3, S, S) to logits (B, 1, s, s), one a patch; S of at least 32.

    width: channels of the first layer, 64 as published. Source: ST-ED, supplementary.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 4, 2, 1)
        self.conv2 = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
        self.norm1 = BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False)
        self.norm2 = BatchNorm2d(4 * width)
        self.conv4 = nn.Conv2d(4 * width, 8 * width, 4, 1, 1, bias=False)
        self.norm3 = BatchNorm2d(8 * width)
        self.conv5 = nn.Conv2d(8 * width, 1, 4, 1, 1)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.act(self.conv1(image))
        x = self.act(self.norm1(self.conv2(x)))
        x = self.act(self.norm2(self.conv3(x)))
        x = self.act(self.norm3(self.conv4(x)))
        return self.conv5(x)


class LatentDiscriminator(nn.Module):
    """Codes (..., style_dim) to logits (..., 1): large for codes of the mapping network, small for an encoder's.

    layers: linear layers, the last of which gives the logit.  Its losses: `losses.latent_adversarial_*`; note that
    real and fake have the other sign than PatchDiscriminator's.  Source: e4e; keys are its release's.
    """

    def __init__(self, style_dim: int = 512, layers: int = 4) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for _ in range(layers - 1):
            hidden += [nn.Linear(style_dim, style_dim), nn.LeakyReLU(0.2)]
        self.mlp = nn.Sequential(*hidden, nn.Linear(style_dim, 1))

    def forward(self, codes: Tensor) -> Tensor:
        return self.mlp(codes)


class LatentPool:
    """Codes seen earlier, so that a latent discriminator does not chase the newest ones only.

    size: codes that are kept; 0 keeps none, and of several rows a code has, the first is used.
    random: every draw comes from it; two pools that share one draw in turn, as the release's do.
    Source: e4e's release; its order of draws is kept.
    """

    def __init__(self, size: int = 50, random: Random | None = None) -> None:
        self.size = size
        self._random = Random(0) if random is None else random
        self._codes: list[Tensor] = []

    def exchange(self, codes: Tensor) -> Tensor:
        """Hand in (B, style_dim) or (B, rows, style_dim) codes and get as many back; (B, style_dim), detached.

        Of several rows one is drawn. While the pool fills, what comes back is what was handed in; afterwards each
        code is, with probability 1/2, swapped for one of the pool.
        """
        if self.size == 0:
            return (codes[:, 0] if codes.ndim == 3 else codes).detach()
        return torch.stack([self._exchange_one(code) for code in codes.detach()])

    def _exchange_one(self, code: Tensor) -> Tensor:
        if code.ndim == 2:
            code = code[self._random.randint(0, len(code) - 1)]
        if len(self._codes) < self.size:
            self._codes.append(code.clone())
            return code
        if self._random.uniform(0, 1) > 0.5:
            i = self._random.randint(0, self.size - 1)
            earlier, self._codes[i] = self._codes[i], code.clone()
            return earlier.to(code)
        return code

    def state(self) -> dict[str, object]:
        """Codes and the state of the draws, as plain data that a checkpoint can hold."""
        return {"codes": list(self._codes), "random": self._random.getstate()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave: the same codes come back as without the interruption."""
        self._codes = list(state["codes"])
        self._random.setstate(state["random"])
