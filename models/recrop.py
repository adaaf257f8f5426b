"""An aligned face as the gaze-head estimators want it: the normalised patch, its luma equalised, with gradients."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.gazeheadnet import Estimate
from models.geometry import at_least_float32

# OpenCV's 8-bit YCrCb: integers over 2^14, rounded by adding a half.
_BITS = 14
_LUMA = (4899, 9617, 1868)  # of red, green, blue
_TO_CR, _TO_CB = 11682, 9241  # of red minus luma, of blue minus luma
_FROM_CHROMA = ((22987, 0), (-11698, -5636), (0, 29049))  # of Cr and Cb, to red, green, blue minus luma


def warp(image: Tensor, crop: Tensor, size: int) -> Tensor:
    """The part of each image that a homography names, as a patch; differentiable in both.

    image: (B, 3, S, S).  crop: (B, 3, 3), homogeneous coordinates in the patch to those in the image, both from -1
    to 1 between the outer edges of the pixels at the rim (`align_corners=False`), as a data set's `crop`.
    Returns (B, 3, size, size), at least float32. Where the patch leaves the image the rim is repeated: a black
    border would be an edge that the estimators never saw, and would move the histogram.
    Where the image is larger than the patch it is smoothed against aliasing: whole blocks are averaged, down to
    twice the patch's size or more, then each pixel of the patch is the mean of bilinear samples, as many as pixels.
    """
    image = at_least_float32(image)
    block = image.shape[-1] // (2 * size)
    if block > 1 and image.shape[-1] % block == 0:
        image = F.avg_pool2d(image, block)
    samples = math.ceil(image.shape[-1] / size)
    patch = F.grid_sample(
        image, _grid(crop.to(image.dtype), size * samples), padding_mode="border", align_corners=False
    )
    return F.avg_pool2d(patch, samples) if samples > 1 else patch


def _grid(crop: Tensor, size: int) -> Tensor:
    """(B, size, size, 2): where in the image the pixels of a patch of `size` lie, x before y."""
    at = (torch.arange(size, device=crop.device, dtype=crop.dtype) * 2 + 1) / size - 1
    # Sums of products, not a matrix product, which autocast would do in half precision.
    x, y, w = (
        row[:, 0, None, None] * at + row[:, 1, None, None] * at[:, None] + row[:, 2, None, None]
        for row in crop.unbind(1)
    )
    return torch.stack((x / w, y / w), dim=-1)


def equalize(image: Tensor) -> Tensor:
    """Images with the histogram of their luma equalised as the data set's are: to the bit, and with a gradient.

    image: (B, 3, H, W) RGB in [-1, 1].  Returns as many, at least float32: what OpenCV's equalizeHist makes of the Y
    of YCrCb, the image taken as 8 bits. The gradient is that of RGB + T(Y) - Y, where T is the table of the
    equalisation, held fixed, with a slope of half the rise from the entry below to the one above; where a channel
    is clipped it is 0. That the table follows the image is left out: it would undo any change of brightness.
    """
    levels = (at_least_float32(image).clamp(-1, 1) + 1) * 127.5
    with torch.no_grad():
        exact, inside, slope = _equalize_levels(levels.round().to(torch.int32).clamp(0, 255))  # NaN, too
    red, green, blue = (weight / 2**_BITS * levels[:, i] for i, weight in enumerate(_LUMA))
    smooth = levels + ((slope - 1) * (red + green + blue)).unsqueeze(1)
    seen = exact + inside * (smooth - smooth.detach())
    return seen / seen.new_full((), 127.5) - 1  # by a number a GPU would multiply by 1 / 127.5, which is one bit off


def estimator_view(image: Tensor, crop: Tensor, size: int) -> Tensor:
    """What an estimator sees of an aligned face: the normalised patch, equalised; arguments as for `warp`."""
    return equalize(warp(image, crop, size))


def _equalize_levels(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The equalisation in OpenCV's own arithmetic.

    rgb: (B, 3, H, W) int32, 0 to 255.  Returns the equalised levels and where they were not clipped, both as rgb,
    and the slope of the table at each pixel's luma, (B, H, W) float32.
    """
    red, green, blue = rgb.unbind(1)
    luma = _descale(_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)
    cr = (_descale((red - luma) * _TO_CR)).clamp(-128, 127)
    cb = (_descale((blue - luma) * _TO_CB)).clamp(-128, 127)
    table, at = _table(luma), luma.flatten(1).long()
    below, here, above = (table.gather(1, (at + step).clamp(0, 255)).view_as(luma) for step in (-1, 0, 1))
    equalized = torch.stack([here + _descale(a * cr + b * cb) for a, b in _FROM_CHROMA], dim=1)
    clipped = equalized.clamp(0, 255)
    return clipped, clipped == equalized, (above - below) / 2


def _table(luma: Tensor) -> Tensor:
    """(B, 256) int32: equalizeHist's look-up table of each luma (B, H, W) int32."""
    at = luma.flatten(1).long()
    counts = torch.zeros(len(luma), 256, dtype=torch.int32, device=luma.device)
    total = counts.scatter_add_(1, at, torch.ones_like(at, dtype=torch.int32)).cumsum(1, dtype=torch.int32)
    darkest = at.amin(1, keepdim=True)
    left = (at.shape[1] - total.gather(1, darkest)).float()
    # OpenCV divides and multiplies in float32 and rounds halves to even; 255 / left would multiply by 1 / left.
    scale = torch.full_like(left, 255) / left.clamp(min=1)
    table = ((total - total.gather(1, darkest)) * scale).round().to(torch.int32).clamp(0, 255)
    # A picture of one luma keeps it.
    return torch.where(left > 0, table, torch.arange(256, dtype=torch.int32, device=luma.device))


def _descale(value: Tensor) -> Tensor:
    return (value + 2 ** (_BITS - 1)) >> _BITS


class CroppedEstimator(nn.Module):
    """A frozen estimator of normalised patches that looks at aligned faces.

    forward: image (B, 3, S, S) in [-1, 1], crop (B, 3, 3) as `dataset_aligned` gives it -> Estimate.
    size: of the patch that the estimator was trained with.
    """

    def __init__(self, estimator: nn.Module, size: int) -> None:
        super().__init__()
        self.estimator, self.size = estimator, size

    def forward(self, image: Tensor, crop: Tensor) -> Estimate:
        return self.estimator(estimator_view(image, crop, self.size))


def look(estimator: nn.Module, image: Tensor, crop: Tensor | None) -> Estimate:
    """What the estimator sees; crop is None where images are normalised patches themselves."""
    return estimator(image) if crop is None else estimator(image, crop)
