"""e4e: a face to the W+ code from which StyleGAN2 draws it again. State-dict keys of the published encoder.

Source: Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", 2021; the trunk is the IR-SE-50 of
Deng et al., "ArcFace", 2019, with Hu et al., "Squeeze-and-Excitation Networks", 2018.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.freezable import Freezable
from models.shortcut import ShortcutConv
from models.stylegan2 import EqualLinear

COARSE_ROWS, MIDDLE_ROWS = 3, 4


class Features(NamedTuple):
    """Maps (B, 8 width, s, s) that the heads read: s is 1/16, 1/8 and 1/4 of the image's side."""

    coarse: Tensor
    middle: Tensor
    fine: Tensor


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 16)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean(dim=(2, 3), keepdim=True)).relu()).sigmoid()


class _Block(nn.Module):
    """Residual block; where the width stays, the shortcut is plain subsampling and has no weights."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        if c_in != c_out:
            self.shortcut_layer = nn.Sequential(ShortcutConv(c_in, c_out, stride), nn.BatchNorm2d(c_out))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(c_in),
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
            nn.PReLU(c_out),
            nn.Conv2d(c_out, c_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            _SqueezeExcitation(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        plain = x[:, :, :: self.stride, :: self.stride]
        return self.res_layer(x) + (self.shortcut_layer(x) if hasattr(self, "shortcut_layer") else plain)


class _Head(nn.Module):
    """A map (B, C, side, side) to (B, style_dim): strided convolutions down to one pixel, then a linear layer."""

    def __init__(self, c_in: int, style_dim: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(side.bit_length() - 1):
            layers += [nn.Conv2d(c_in, style_dim, 3, 2, padding=1), nn.LeakyReLU(0.01, inplace=True)]
            c_in = style_dim
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(style_dim, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class E4EEncoder(Freezable):
    """Image (B, 3, S, S) RGB in [-1, 1] to offsets (B, num_rows, style_dim) from the average W+ code.

    The first row's head gives the code of all rows; the head of each further row adds to its own, unless `own_rows`.
    num_rows: 18 for a generator of 1024 px; 2 log2(size) - 2.  input_size: S, a power of two from 32 on.
    width, depths: channels of the first of four stages, doubled in each of the next, and residual blocks of each.
    stage: as in progressive training, how many rows besides the first have their own head, the others keep the
    first row's code; not in the state dict; all by default.
    own_rows: each head gives its row by itself, as in pSp (Richardson et al., "Encoding in Style", 2021).
    Raises ValueError for an image or a stage of another size.
    """

    def __init__(
        self,
        num_rows: int = 18,
        input_size: int = 256,
        style_dim: int = 512,
        width: int = 64,
        depths: Sequence[int] = (3, 4, 14, 3),
        own_rows: bool = False,
    ) -> None:
        super().__init__()
        if input_size < 32 or input_size & (input_size - 1):
            raise ValueError(f"e4e's input_size is {input_size}; expected a power of two from 32 on.")
        self.num_rows, self.input_size, self.stage, self.own_rows = num_rows, input_size, num_rows, own_rows
        widths = [width * 2**i for i in range(len(depths))]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        blocks: list[nn.Module] = []
        for c_in, c_out, depth in zip([width, *widths], widths, depths, strict=False):
            blocks += [_Block(c_in, c_out, 2), *(_Block(c_out, c_out, 1) for _ in range(depth - 1))]
        self.body = nn.Sequential(*blocks)
        self.stage_ends = [sum(depths[:i]) for i in (2, 3, 4)]
        sides = [input_size >> (4, 3, 2)[self._map_of_row(row)] for row in range(num_rows)]
        self.styles = nn.ModuleList(_Head(widths[3], style_dim, side) for side in sides)
        self.latlayer1 = nn.Conv2d(widths[2], widths[3], 1)
        self.latlayer2 = nn.Conv2d(widths[1], widths[3], 1)

    def forward(self, image: Tensor, stage: int | None = None) -> Tensor:
        """stage: in place of the attribute, 0 to num_rows."""
        stage = self.stage if stage is None else stage
        if not 0 <= stage <= self.num_rows:
            raise ValueError(f"e4e's stage is {stage}; expected 0 to {self.num_rows}.")
        features = self.features(image)
        first = self.styles[0](features.coarse)
        rows = [first] * self.num_rows
        for row in range(1, min(stage + 1, self.num_rows)):
            own = self.styles[row](features[self._map_of_row(row)])
            rows[row] = own if self.own_rows else first + own
        return torch.stack(rows, dim=1)

    def features(self, image: Tensor) -> Features:
        """What the heads read: the trunk's last map, and finer ones to which the trunk's earlier maps are added."""
        if image.shape[1:] != (3, self.input_size, self.input_size):
            # The heads would silently take a larger map for a larger batch.
            raise ValueError(
                f"e4e's image is {tuple(image.shape)}; expected (B, 3, {self.input_size}, {self.input_size}). "
                "Resize it."
            )
        x = self.input_layer(image)
        maps = []
        for i, block in enumerate(self.body, start=1):
            x = block(x)
            if i in self.stage_ends:
                maps.append(x)
        fine, middle, coarse = maps
        middle = _enlarged(coarse) + self.latlayer1(middle)
        return Features(coarse, middle, _enlarged(middle) + self.latlayer2(fine))

    @staticmethod
    def _map_of_row(row: int) -> int:
        return (row >= COARSE_ROWS) + (row >= COARSE_ROWS + MIDDLE_ROWS)


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
