"""PatchGAN discriminator of ST-ED: real is 0, fake is 1."""

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Image (B, 3, S, S) to logits (B, 1, s, s), one a patch; S of at least 32.

    width: channels of the first layer, 64 as published. Source: ST-ED, supplementary.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 4, 2, 1)
        self.conv2 = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * width)
        self.conv4 = nn.Conv2d(4 * width, 8 * width, 4, 1, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(8 * width)
        self.conv5 = nn.Conv2d(8 * width, 1, 4, 1, 1)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.act(self.conv1(image))
        x = self.act(self.norm1(self.conv2(x)))
        x = self.act(self.norm2(self.conv3(x)))
        x = self.act(self.norm3(self.conv4(x)))
        return self.conv5(x)
