"""Angles, vectors and rotations. Angles are (pitch, yaw) in radians; pitch > 0 up, yaw > 0 to image left.

Everything is computed in at least float32, whatever the autocast, and float64 stays float64.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors promoted to float32; float32 and float64 unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def constants(values: Sequence[float] | Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """A few numbers of the type and on the device of `like`, which a GPU's queue of work is not waited for."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def pitchyaw_to_vector(angles: Tensor) -> Tensor:
    """Label vector (cos p sin y, sin p, cos p cos y) of (..., 2) angles; (..., 3), unit length.

    It points against the direction looked at, in a camera frame with x right, y down, z forward.
    """
    angles = at_least_float32(angles)
    (cos_p, cos_y), (sin_p, sin_y) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    return torch.stack((cos_p * sin_y, sin_p, cos_p * cos_y), dim=-1)


def vector_to_pitchyaw(vectors: Tensor) -> Tensor:
    """Angles (..., 2) of label vectors (..., 3) of any length; inverse of `pitchyaw_to_vector`."""
    x, y, z = at_least_float32(vectors).unbind(-1)
    return torch.stack((torch.atan2(y, torch.hypot(x, z)), torch.atan2(x, z)), dim=-1)


def angular_error_deg(u: Tensor, v: Tensor) -> Tensor:
    """Angle in degrees between the label vectors of (..., 2) angles; (...,).

    atan2(|u x v|, u.v) has the value of the arc cosine and, unlike it, a finite gradient at zero error: 0, the
    subgradient that a norm has there.
    """
    u, v = pitchyaw_to_vector(u), pitchyaw_to_vector(v)
    sine = torch.linalg.vector_norm(torch.linalg.cross(u, v), dim=-1)
    return torch.atan2(sine, (u * v).sum(-1)) * (180 / math.pi)


def rotation_matrix(condition: Tensor) -> Tensor:
    """Rotation of an embedding by a condition: (..., 1) -> (..., 2, 2), (..., 2) -> (..., 3, 3).

    The 2-dof one is R_y(yaw) R_x(pitch), so that R(p, y) e_z = (cos p sin y, -sin p, cos p cos y): its
    pitch has the OPPOSITE sign to that of a label vector. The published weights were trained with exactly
    this; it acts in the space of embeddings and must never pose geometry. Source: ST-ED, section 3.
    """
    condition = at_least_float32(condition)
    cos, sin = condition.cos(), condition.sin()
    if condition.shape[-1] == 1:
        return torch.cat((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))
    (cos_p, cos_y), (sin_p, sin_y), (minus_p, minus_y) = cos.unbind(-1), sin.unbind(-1), (-sin).unbind(-1)
    zero = torch.zeros_like(cos_p)
    rows = (cos_y, sin_y * sin_p, sin_y * cos_p, zero, cos_p, minus_p, minus_y, cos_y * sin_p, cos_y * cos_p)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
