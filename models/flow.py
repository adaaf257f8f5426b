"""Carrying pixels: the rigid part of a flow, the backward warp, and maps enlarged to the picture's own size.

Positions are (x right, y down) in [-1, 1] over the picture, as `grid_sample` without aligned corners has them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.geometry import at_least_float32


def pixel_positions(side: int, like: Tensor) -> Tensor:
    """(1, 2, side, side): where each pixel is, x then y."""
    steps = (torch.arange(side, device=like.device, dtype=torch.float32) * 2 + 1) / side - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack((x, y))[None]


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Backward warp: pixel p of the result is the image at p + flow(p); the border is continued.

    image: (B, C, S, S).  flow: (B, 2, S, S), in units of half a picture.
    Source: spatial transformer networks; as appearance flow in view synthesis by appearance flow.
    """
    flow, image = at_least_float32(flow), at_least_float32(image)
    where = (pixel_positions(image.shape[-1], flow) + flow).permute(0, 2, 3, 1)
    return F.grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=False)


def enlarged(maps: Tensor, side: int) -> Tensor:
    """(B, C, S, S) at another side, bicubically; untouched if it has that side."""
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(at_least_float32(maps), size=(side, side), mode="bicubic", align_corners=False)


def head_rotation(condition: Tensor) -> Tensor:
    """(B, 3, 3): turns a head that looks into the camera to (B, 2) pitch and yaw, radians.

    In axes (image left, up, towards the camera) that is R_y(yaw) R_x(-pitch), so that the head's own direction
    becomes the label vector of the condition. Not `geometry.rotation_matrix`, which acts on embeddings.
    """
    condition = at_least_float32(condition)
    (cos_p, cos_y), (sin_p, sin_y) = condition.cos().unbind(-1), condition.sin().unbind(-1)
    zero = torch.zeros_like(cos_p)
    rows = (cos_y, -sin_y * sin_p, sin_y * cos_p, zero, cos_p, sin_p, -sin_y, -cos_y * sin_p, cos_y * cos_p)
    return torch.stack(rows, dim=-1).view(-1, 3, 3)


def rigid_flow(depth: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Where the points of a turned head come from: (B, 2, S, S), for `warp`.

    depth: (B, 1, S, S) of the surface that the target shows, towards the camera from the plane through the point that
    the head turns about, which lies in the middle of the picture; units of half a picture.
    source, target: (B, 2) head conditions.  Perspective is left out.
    """
    here = pixel_positions(depth.shape[-1], depth).expand(len(depth), -1, -1, -1)
    points = torch.cat((-here, at_least_float32(depth)), dim=1)  # image left, up, towards the camera
    with torch.autocast(depth.device.type, enabled=False):  # bfloat16 positions would be off by a third of a pixel
        back = head_rotation(source) @ head_rotation(target).transpose(1, 2)
        there = torch.einsum("bij,bjhw->bihw", back[:, :2], points)
    return -there - here
