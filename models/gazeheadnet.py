"""Estimators of gaze and head direction: what they return, and the VGG16 of ST-ED's training losses."""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from models.freezable import Freezable
from models.geometry import at_least_float32


class Estimate(NamedTuple):
    """What an estimator sees in (B, 3, S, S) images.

    gaze, head: (B, 2) pitch and yaw, radians.
    features: maps (B, C, h, w) of its early layers, for a perceptual loss; empty where there are none.
    """

    gaze: Tensor
    head: Tensor
    features: list[Tensor]


class Estimator(Freezable):
    """Base of all estimators: image (B, 3, S, S) RGB in [-1, 1] -> Estimate.

    Frozen, its BatchNorm neither estimates from nor learns the statistics of fakes.
    """

    def __call__(self, image: Tensor) -> Estimate:
        return super().__call__(image)

    def freeze(self) -> Self:
        # The channels of a pixel side by side: as they have no InstanceNorm, it is quicker so (benchmarks/speed.md).
        return super().freeze().to(memory_format=torch.channels_last)


class GazeHeadNet(Estimator):
    """VGG16's convolutions and three fully connected layers; the estimator in ST-ED's training losses.

    S from 32 on; published weights are for 128. Attribute names are those of the published checkpoint.
    features: relu1_1, relu1_2, relu2_1, relu2_2 and relu3_1, all AFTER the ReLU, which is what the release's
    in-place ReLUs leave in them. Source: ST-ED, supplementary, and its release.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vgg16 = vgg16_convolutions()
        self.FC1 = nn.Linear(512, 64)
        self.FC2 = nn.Linear(64, 64)
        self.FC3 = nn.Linear(64, 4)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, image: Tensor) -> Estimate:
        x, features = image, []
        for i, layer in enumerate(self.vgg16):
            x = layer(x)
            if i in (1, 3, 6, 8, 11):
                features.append(x)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 angles would be steps of 0.1 degrees
            x = self.act(self.FC1(at_least_float32(x).mean(dim=(2, 3))))
            angles = self.FC3(self.act(self.FC2(x))).tanh() * (torch.pi / 2)
        gaze, head = angles.split(2, dim=1)
        return Estimate(gaze, head, features)


def vgg16_convolutions() -> nn.Sequential:
    """The `features` of torchvision's vgg16, same keys, without building its 124 M classifier weights."""
    layers: list[nn.Module] = []
    c_in = 3
    for c_out, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            convolution = nn.Conv2d(c_in, c_out, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU(inplace=True)]
            c_in = c_out
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
