"""ST-ED's decoder: the embeddings of all factors to an image."""

import torch
from torch import Tensor, nn

from models.densenet import Composite, DenseBlock, activated, up_convolution
from models.encoder import bottleneck_side, embedding_width
from models.redirector import Encoding, Factor, flat_embeddings


class _Last(nn.Module):
    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.conv1 = up_convolution(2)(c_in, 4 * growth)
        self.conv2 = up_convolution(2)(4 * growth, 2 * growth)
        self.conv3 = nn.Conv2d(2 * growth, 3, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv3.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(activated(self.conv2(activated(self.conv1(x)))))


class _DenseNetDecoder(nn.Module):
    def __init__(self, c_in: int, growth: int, blocks: int) -> None:
        super().__init__()
        channels = c_in
        for i in range(1, blocks + 1):
            block = DenseBlock(channels, growth, up_convolution())
            self.add_module(f"block{i}", block)
            channels = block.c_out
            if i < blocks:
                self.add_module(f"trans{i}", Composite(channels, channels, up_convolution(2)))
        self.last = _Last(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class Decoder(nn.Module):
    """Encoding to image (B, 3, S, S), nominally in [-1, 1], not clamped.

    output_gain: scale of the last convolution before training; 1 is the published start, whose first images are
    noise. A short training begins better from nearly grey ones (benchmarks/redirectors.md).
    Source: ST-ED, supplementary; state-dict keys are those of the published checkpoint.
    """

    def __init__(
        self, factors: tuple[Factor, ...], image_size: int, growth: int, blocks: int, output_gain: float = 1.0
    ) -> None:
        super().__init__()
        width, self.side = embedding_width(factors), bottleneck_side(image_size, blocks)
        channels = width // self.side**2
        # A linear layer only where the embeddings do not fill the innermost map exactly, as published.
        if channels * self.side**2 != width:
            self.fc_dec: nn.Module | None = nn.Linear(width, channels * self.side**2)
        else:
            self.fc_dec = None
        self.decoder = _DenseNetDecoder(channels, growth, blocks)
        with torch.no_grad():
            self.decoder.last.conv3.weight *= output_gain

    def forward(self, encoding: Encoding) -> Tensor:
        values = flat_embeddings(encoding)
        if self.fc_dec is not None:
            values = self.fc_dec(values)
        return self.decoder(values.unflatten(1, (-1, self.side, self.side)))
