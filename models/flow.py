"""Carrying pixels: the rigid part of a flow, the backward warp, and maps enlarged to the picture's own size.

Positions are (x right, y down) in [-1, 1] over the picture, as `grid_sample` without aligned corners has them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.geometry import at_least_float32, constants


def steps(count: int, like: Tensor) -> Tensor:
    """(count,): middles of so many pixels in [-1, 1]."""
    return (torch.arange(count, device=like.device, dtype=torch.float32) * 2 + 1) / count - 1


def pixel_positions(side: int, like: Tensor) -> Tensor:
    """(1, 2, side, side): where each pixel is, x then y."""
    along = steps(side, like)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack((x, y))[None]


def warp(image: Tensor, flow: Tensor, where: Tensor | None = None) -> Tensor:
    """Backward warp: pixel p of the result is the image at p + flow(p), bicubically; the border is continued.

    image: (B, C, S, S).  flow: (B, 2, h, w), in units of half a picture.  where: (B, h, w, 2) positions p; None: all
    pixels of the image.
    Source: spatial transformer networks; as appearance flow in view synthesis by appearance flow.
    """
    flow, image = at_least_float32(flow), at_least_float32(image)
    if where is None:
        where = pixel_positions(image.shape[-1], flow).permute(0, 2, 3, 1)
    where = where + flow.permute(0, 2, 3, 1)
    return F.grid_sample(image, where, mode="bicubic", padding_mode="border", align_corners=False)


def enlarged(maps: Tensor, side: int, mode: str = "bicubic") -> Tensor:
    """(B, C, S, S) at another side; untouched if it has that side. Bilinearly, shares stay shares."""
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(at_least_float32(maps), size=(side, side), mode=mode, align_corners=False)


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
    here = pixel_positions(depth.shape[-1], depth).expand(depth.shape[0], -1, -1, -1)
    points = torch.cat((-here, at_least_float32(depth)), dim=1)  # image left, up, towards the camera
    with torch.autocast(depth.device.type, enabled=False):  # bfloat16 positions would be off by a third of a pixel
        back = head_rotation(source) @ head_rotation(target).transpose(1, 2)
        there = torch.einsum("bij,bjhw->bihw", back[:, :2], points)
    return -there - here


EYES = ((0.42, 0.39, 0.0), (-0.42, 0.39, 0.0))  # of a head: image left, up, towards the camera; half a patch is 1
EYE_REACH = (0.36, 0.24)  # of an eye's patch from its middle, across and down
EYE_SAMPLES = (32, 48)  # rows and columns of an eye's patch
FADE = 0.3  # of an eye's patch, from its edge inwards


@dataclass(frozen=True)
class EyePlaces:
    """Where the eyes are, first all at image left, then all at image right. middle: (2 B, 2), x right and y down.
    mirrored: (2 B,), -1 where the patch is the mirror image."""

    middle: Tensor
    mirrored: Tensor

    def grid(self) -> Tensor:
        """(2 B, h, w, 2): positions of a patch's samples, for `grid_sample`."""
        rows, columns = EYE_SAMPLES
        v, u = torch.meshgrid(steps(rows, self.middle), steps(columns, self.middle), indexing="ij")
        u, v = u * EYE_REACH[0] * self.mirrored[:, None, None], (v * EYE_REACH[1]).expand(self.middle.shape[0], -1, -1)
        return torch.stack((u, v), dim=-1) + self.middle[:, None, None]

    def put_back(self, patches: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Patches (2 B, C, h, w) as maps (B, C, side, side) that fade out at their edges, and how far they hold."""
        v, u = torch.meshgrid(*(steps(count, patches).abs() for count in EYE_SAMPLES), indexing="ij")
        window = ((1 - torch.maximum(u, v)) / FADE).clamp(0, 1).expand(patches.shape[0], 1, -1, -1)
        here = pixel_positions(side, patches) - self.middle[:, :, None, None]
        across = here[:, 0] * self.mirrored[:, None, None] / EYE_REACH[0]
        where = torch.stack((across, here[:, 1] / EYE_REACH[1]), dim=-1)
        maps = F.grid_sample(torch.cat((window * patches, window), dim=1), where, align_corners=False)
        both = maps.unflatten(0, (2, -1)).sum(dim=0)
        both = both / both[:, -1:].clamp(min=1)  # they overlap where a head turns far
        return both[:, :-1], both[:, -1:]


def eye_places(head: Tensor) -> EyePlaces:
    """Of the eyes of heads (B, 2) in a normalised patch."""
    with torch.autocast(head.device.type, enabled=False):
        rotation = head_rotation(head)[:, :2]
        places = -(rotation @ constants(EYES, rotation).T)
    side = torch.ones(head.shape[0], device=head.device)
    return EyePlaces(torch.cat(places.unbind(2)), torch.cat((side, -side)))
