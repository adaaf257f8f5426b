"""Pairs seen as other cameras would have them: colours, contrast, light, shadows, sharpness, proportions, drawn anew.

Source and target of a pair are varied alike, so that an edit is to leave all of it alone. Source of the idea: domain
randomisation (IROS 2017).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from core.distributed import own_rows, size

GAMMA, GAIN, SATURATION, SLOPE = 0.35, 0.12, 0.5, 0.35  # how far each goes, see `varied`
STRETCH, SHIFT = 0.08, 0.05  # of the picture's size, each way
SHADE, SHADE_SIDE = 1.6, 5  # of the logarithm of light, at most; of the grid of shadows that is enlarged
NUM_DRAWN = 13 + SHADE_SIDE**2


def varied(batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The batch with its images varied; image_a and image_b are (B, 3, S, S) in [-1, 1]."""
    a, b = batch["image_a"], batch["image_b"]
    drawn = torch.rand((size() * len(a), NUM_DRAWN), generator=generator)[own_rows(len(a))]
    drawn = (drawn * 2 - 1).to(a.device, non_blocking=True)
    both = _photometric(_framed(torch.cat((a, b)), drawn[:, :4].repeat(2, 1)), drawn[:, 4:].repeat(2, 1))
    return {**batch, "image_a": both[: len(a)], "image_b": both[len(a) :]}


def _framed(images: Tensor, drawn: Tensor) -> Tensor:
    """drawn: (B, 4) in [-1, 1], of stretching and shifting each way."""
    stretch, shift = 1 + STRETCH * drawn[:, :2], SHIFT * drawn[:, 2:]
    grid = F.affine_grid(torch.cat((torch.diag_embed(stretch), shift[:, :, None]), dim=2), list(images.shape), False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(-1, 1)


def _photometric(images: Tensor, drawn: Tensor) -> Tensor:
    """drawn: (B, 9 + n) in [-1, 1]: gamma, three gains, saturation, slopes of light both ways, sharpness, shadows."""
    gamma, red, green, blue, saturation, across, down, blur = drawn[:, :8, None, None, None].unbind(1)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (1 + SATURATION * saturation) * (images - grey)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = images.lerp(blurred, blur.clamp(min=0))
    along = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    light = 1 + SLOPE * (across * along + down * along[:, None])
    light = light * (1 + GAIN * torch.cat((red, green, blue), dim=1)) * _shadows(drawn[:, 8:], images.shape[-1])
    value = ((images + 1) / 2).clamp(0, 1) ** torch.exp(GAMMA * gamma)
    return (value * light).clamp(0, 1) * 2 - 1


def _shadows(drawn: Tensor, side: int) -> Tensor:
    """(B, 1, side, side) factors of light. drawn: (B, 1 + n) in [-1, 1]: how strong, in half of them; where."""
    where = drawn[:, 1:].unflatten(1, (1, SHADE_SIDE, SHADE_SIDE))
    where = F.interpolate(where, size=(side, side), mode="bicubic", align_corners=True)
    return torch.exp(SHADE * drawn[:, :1, None, None].clamp(min=0) * where.clamp(max=0))
