"""Two compact estimators that train in about a minute on a CPU, as different from one another as they can be.

The one in the training losses must not be the one that measures, or the figures flatter: a redirector
learns to please its own estimator. Hence a plain convolutional network and a residual one, with different
stems, widths, downsampling and activations. Both see 64 px; larger images are averaged down to that.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.gazeheadnet import Estimate, Estimator

IMAGE_SIZE = 64


class CompactGazeHeadNet(Estimator):
    """Plain: stride-2 convolutions, BatchNorm, ReLU; the last map is flattened, so position is kept.

    S is a multiple of 64. features: the maps at 32, 16 and 8 px, after the ReLU.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*_conv_relu(3, w, 2), *_conv_relu(w, w, 1)),
                nn.Sequential(*_conv_relu(w, 2 * w, 2), *_conv_relu(2 * w, 2 * w, 1)),
                nn.Sequential(*_conv_relu(2 * w, 4 * w, 2), *_conv_relu(4 * w, 4 * w, 1)),
                nn.Sequential(*_conv_relu(4 * w, 6 * w, 2)),
            ]
        )
        self.fc = nn.Sequential(
            nn.Flatten(), nn.Linear(6 * w * 4 * 4, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 4)
        )

    def forward(self, image: Tensor) -> Estimate:
        x, features = to_compact_size(image), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        angles = self.fc(x)
        return Estimate(angles[:, :2], angles[:, 2:], features[:3])


class CompactResidualGazeHeadNet(Estimator):
    """Residual: 2x2 pixels to channels, pre-activation blocks with SiLU, average pooling between them.

    S is a multiple of 64. features: the maps at 32, 16 and 8 px, before the normalisation of what follows.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        w = width
        self.stem = nn.Conv2d(12, w, 3, padding=1)
        self.blocks = nn.ModuleList(
            [_ResidualBlock(w, w), _ResidualBlock(w, 2 * w), _ResidualBlock(2 * w, 3 * w), _ResidualBlock(3 * w, 4 * w)]
        )
        self.fc = nn.Sequential(
            nn.BatchNorm2d(4 * w), nn.SiLU(), nn.Flatten(), nn.Linear(4 * w * 4 * 4, 96), nn.SiLU(), nn.Linear(96, 4)
        )

    def forward(self, image: Tensor) -> Estimate:
        x, features = self.stem(F.pixel_unshuffle(to_compact_size(image), 2)), []
        for i, block in enumerate(self.blocks):
            x = block(x if i == 0 else F.avg_pool2d(x, 2))
            features.append(x)
        angles = self.fc(x)
        return Estimate(angles[:, :2], angles[:, 2:], features[:3])


class _ResidualBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.act = nn.SiLU()
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.act(self.norm1(x)))
        return self.skip(x) + self.conv2(self.act(self.norm2(y)))


def _conv_relu(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


def to_compact_size(image: Tensor) -> Tensor:
    """(B, 3, S, S) averaged over blocks of pixels to (B, 3, 64, 64); gradients reach every pixel.

    Raises ValueError if S is not a multiple of 64.
    """
    size = image.shape[-1]
    if size % IMAGE_SIZE or image.shape[-2] != size:
        raise ValueError(f"A compact estimator needs square images of a multiple of {IMAGE_SIZE} px, not "
                         f"{tuple(image.shape[-2:])}.")
    return image if size == IMAGE_SIZE else F.avg_pool2d(image, size // IMAGE_SIZE)
