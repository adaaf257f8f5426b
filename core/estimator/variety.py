"""Training images of an estimator, framed as another detector might have framed them; the labels hold for all."""

import torch
import torch.nn.functional as F
from torch import Tensor

ZOOM, SHIFT = 0.05, 0.02  # standard deviations: of the zoom's logarithm; of shifts, in widths of the picture


def vary_framing(image: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S), each a little nearer or further away, and shifted. Drawn on the CPU."""
    count = len(image)
    zoom = torch.exp(ZOOM * torch.randn(count, generator=generator))
    shift = 2 * SHIFT * torch.randn(count, 2, generator=generator)
    zeros = torch.zeros(count)
    rows = torch.stack([1 / zoom, zeros, shift[:, 0]], 1), torch.stack([zeros, 1 / zoom, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack(rows, 1).to(image.device), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)
