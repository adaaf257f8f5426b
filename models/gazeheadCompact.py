"""Two compact estimators that train in about a minute on a CPU, as different from one another as they can be.

The one in the training losses must not be the one that measures, or the figures flatter: a redirector
learns to please its own estimator. Hence a plain convolutional network and a residual one, with different
widths, downsampling, normalisation order and activations. Both see 64 px; larger images are averaged down.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from core.command import UserError
from models.gazeheadnet import Estimate, Estimator

IMAGE_SIZE = 64


class CompactGazeHeadNet(Estimator):
    """Plain: stride-2 convolutions, BatchNorm, ReLU; the last map is flattened, so position is kept.

    S is a multiple of 64. features: the maps at 32, 16 and 8 px, after the ReLU.
    """

    def __init__(self) -> None:
        super().__init__()
        # A few channels at full size: an iris is 5 px wide; starting at half size costs 0.2 degrees of gaze.
        self.stem = _conv_relu(3, 8, 1)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(_conv_relu(8, 16, 2), _conv_relu(16, 16, 1)),
                nn.Sequential(_conv_relu(16, 32, 2), _conv_relu(32, 32, 1)),
                nn.Sequential(_conv_relu(32, 64, 2), _conv_relu(64, 64, 1)),
                _conv_relu(64, 96, 2),
            ]
        )
        self.fc = nn.Sequential(
            nn.Flatten(),
            nn.Linear(96 * 4 * 4, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 4),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Estimate:
        x, features = self.stem(to_compact_size(image)), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        angles = self.fc(x)
        gaze, head = angles.split(2, dim=1)
        return Estimate(gaze, head, features[:3])


class CompactResidualGazeHeadNet(Estimator):
    """Residual: every halving moves 2x2 pixels into channels; pre-activation blocks with SiLU.

    S is a multiple of 64. features: the maps at 32, 16 and 8 px, before the normalisation of what follows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU())
        widths = (8, 16, 32, 48, 80)
        # Not average pooling before a block, which blurs the iris away: 0.3 degrees of gaze.
        self.halvings = nn.ModuleList([_Halving(c_in, c_out) for c_in, c_out in pairwise(widths)])
        self.blocks = nn.ModuleList([_ResidualBlock(width) for width in widths[1:]])
        self.fc = nn.Sequential(
            nn.BatchNorm2d(80), nn.SiLU(), nn.Flatten(),
            nn.Linear(80 * 4 * 4, 96, bias=False), nn.BatchNorm1d(96), nn.SiLU(), nn.Linear(96, 4),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Estimate:
        x, features = self.stem(to_compact_size(image)), []
        for halve, block in zip(self.halvings, self.blocks, strict=True):
            x = block(halve(x))
            features.append(x)
        angles = self.fc(x)
        gaze, head = angles.split(2, dim=1)
        return Estimate(gaze, head, features[:3])


class _Halving(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pixel_unshuffle(x, 2))


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.act(self.norm1(x)))
        return x + self.conv2(self.act(self.norm2(y)))


def _conv_relu(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


def to_compact_size(image: Tensor) -> Tensor:
    """(B, 3, S, S) averaged over blocks of pixels to (B, 3, 64, 64); gradients reach every pixel.

    Raises UserError if S is not a multiple of 64.
    """
    size = image.shape[-1]
    if size % IMAGE_SIZE or image.shape[-2] != size:
        found = tuple(image.shape[-2:])
        raise UserError(
            f"A compact estimator needs square images of a multiple of 64 px, got {found}.",
            remedy="Set image_size so, or another gazenet_backbone.",
        )
    return image if size == IMAGE_SIZE else F.avg_pool2d(image, size // IMAGE_SIZE)
