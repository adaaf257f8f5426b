"""ST-ED's encoder: an image to the conditions and embeddings of all factors."""

import math

import torch
from torch import Tensor, nn

from core.command import UserError
from models.densenet import DenseBlock, Transition, activated, down_convolution
from models.geometry import at_least_float32
from models.redirector import Encoding, Factor

CONDITION_WIDTH = 96


class _Initial(nn.Module):
    def __init__(self, growth: int) -> None:
        super().__init__()
        self.conv1 = down_convolution(3, stride=2)(3, 2 * growth)
        self.conv2 = down_convolution(3, stride=2)(2 * growth, 4 * growth)
        self.c_out = 4 * growth

    def forward(self, image: Tensor) -> Tensor:
        return self.conv2(activated(self.conv1(image)))


class DenseNetEncoder(nn.Module):
    """Image (B, 3, S, S) to the innermost map (B, c_out, s, s)."""

    def __init__(self, growth: int, blocks: int) -> None:
        super().__init__()
        self.initial = _Initial(growth)
        channels = self.initial.c_out
        for i in range(1, blocks + 1):
            block = DenseBlock(channels, growth, down_convolution(3))
            self.add_module(f"block{i}", block)
            channels = block.c_out
            if i < blocks:
                self.add_module(f"trans{i}", Transition(channels))
        self.c_out = channels

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Image (B, 3, S, S) in [-1, 1] to an Encoding. S must be `image_size`.

    fc_width: hidden width of the embedding head; 0 is the published one, as wide as its input.
    Source: ST-ED, supplementary; state-dict keys are those of the published checkpoint.
    """

    def __init__(
        self, factors: tuple[Factor, ...], image_size: int, growth: int, blocks: int, fc_width: int = 0
    ) -> None:
        super().__init__()
        self.factors = factors
        self.encoder = DenseNetEncoder(growth, blocks)
        width = self.encoder.c_out * bottleneck_side(image_size, blocks) ** 2
        self.encoder_fc_pseudo_labels1 = nn.Linear(width, CONDITION_WIDTH)
        self.encoder_fc_pseudo_labels2 = nn.Linear(CONDITION_WIDTH, sum(factor.dof for factor in factors))
        nn.init.zeros_(self.encoder_fc_pseudo_labels2.weight)
        nn.init.zeros_(self.encoder_fc_pseudo_labels2.bias)
        self.encoder_fc_embeddings1 = nn.Linear(width, fc_width or width)
        self.encoder_fc_embeddings2 = nn.Linear(fc_width or width, embedding_width(factors))
        self.act = nn.LeakyReLU(0.01)

    def forward(self, image: Tensor) -> Encoding:
        hidden = self.encoder(image).flatten(1)
        with torch.autocast(hidden.device.type, enabled=False):  # bfloat16 angles would be steps of 0.1 degrees
            raw = self.encoder_fc_pseudo_labels1(at_least_float32(hidden))
            conditions = self.encoder_fc_pseudo_labels2(self.act(raw)).tanh() * (math.pi / 2)
        values = at_least_float32(self.encoder_fc_embeddings2(self.act(self.encoder_fc_embeddings1(hidden))))
        steered = [factor for factor in self.factors if factor.dof]
        split = conditions.split([factor.dof for factor in steered], dim=1)
        parts = values.split([math.prod(factor.shape) for factor in self.factors], dim=1)
        return Encoding(
            {factor.name: part for factor, part in zip(steered, split, strict=True)},
            {factor.name: part.unflatten(1, factor.shape) for factor, part in zip(self.factors, parts, strict=True)},
        )


def bottleneck_side(image_size: int, blocks: int) -> int:
    """Height and width of the innermost feature map. Raises UserError if the blocks do not fit the size."""
    side = image_size >> (blocks + 1)
    if side < 2 or side << (blocks + 1) != image_size:
        raise UserError(
            f"{blocks} dense blocks do not fit images of {image_size} px: bottleneck {side} px.",
            remedy="Set densenet_blocks or image_size otherwise.",
        )
    return side


def embedding_width(factors: tuple[Factor, ...]) -> int:
    """Number of embedding values of all factors together."""
    return sum(math.prod(factor.shape) for factor in factors)
