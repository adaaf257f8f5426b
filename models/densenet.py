"""Dense blocks of ST-ED's encoder and decoder (ST-ED, supplementary). Names are those of the checkpoints."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS_PER_BLOCK = 4
Convolution = Callable[[int, int], nn.Module]


def down_convolution(kernel: int, stride: int = 1) -> Convolution:
    """Bias-free convolution that keeps the size, or halves it at stride 2."""
    return lambda c_in, c_out: _kaiming(nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False))


def up_convolution(stride: int = 1) -> Convolution:
    """Bias-free 3x3 transposed convolution that keeps the size, or doubles it at stride 2."""
    return lambda c_in, c_out: _kaiming(
        nn.ConvTranspose2d(c_in, c_out, 3, stride, 1, output_padding=stride - 1, bias=False)
    )


def _kaiming(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    nn.init.kaiming_normal_(convolution.weight)
    return convolution


def instance_norm(x: Tensor) -> Tensor:
    """(B, C, h, w) with mean 0 and variance 1 over each channel of each image."""
    # Groups of one channel are the same to rounding, and on a CPU up to four times as fast (benchmarks/speed.md).
    by_groups = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return F.group_norm(x, x.shape[1]) if by_groups else F.instance_norm(x)


def activated(x: Tensor) -> Tensor:
    """Normalised, then LeakyReLU."""
    return F.leaky_relu(instance_norm(x), 0.01)


class Composite(nn.Module):
    """InstanceNorm, LeakyReLU, then a convolution, then perhaps 2x2 average pooling."""

    def __init__(self, c_in: int, c_out: int, convolution: Convolution, pool: bool = False) -> None:
        super().__init__()
        self.conv = convolution(c_in, c_out)
        self.pool = nn.AvgPool2d(2) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(activated(x))
        return x if self.pool is None else self.pool(x)


class DenseBlock(nn.Module):
    """Four composites; each adds `growth` channels behind all that came before."""

    def __init__(self, c_in: int, growth: int, convolution: Convolution) -> None:
        super().__init__()
        for i in range(LAYERS_PER_BLOCK):
            self.add_module(f"compo{i + 1}", Composite(c_in + i * growth, growth, convolution))
        self.c_out = c_in + LAYERS_PER_BLOCK * growth

    def forward(self, x: Tensor) -> Tensor:
        # Norm and activation act on each channel alone: what several layers read is made ready for them once.
        features, ready = [x], []
        for layer in self.children():
            assert isinstance(layer, Composite)
            ready.append(activated(features[-1]))
            features.append(layer.conv(torch.cat(ready, dim=1)))
        return torch.cat(features, dim=1)


class Transition(nn.Module):
    """Encoder: 1x1 composite and pooling, held as `composite`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.composite = Composite(channels, channels, down_convolution(1), pool=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.composite(x)
