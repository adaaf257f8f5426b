"""The convolution of a residual block's shortcut."""

from torch import Tensor, nn

FEW_CHANNELS = 8  # the vector of AVX2


class ShortcutConv(nn.Conv2d):
    """1x1 convolution without bias of every `stride`-th pixel: (B, c_in, H, W) to (B, c_out, H / stride, W / stride).

    Keys and numbers are nn.Conv2d's.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels >= FEW_CHANNELS:
            return super().forward(x)
        # oneDNN 3.12 has a kernel for the backward of a strided 1x1 convolution of few channels, channels last, that
        # hangs, corrupts memory or gives wrong sums on a processor without AVX-512: subsampled first, it is not used.
        rows, columns = self.stride
        return nn.functional.conv2d(x[:, :, ::rows, ::columns], self.weight)
