"""The terms of the objectives, each a pure function. Source: ST-ED, section 3.3, unless another is named.

Angles are radians, angular terms are mean degrees. Everything is computed in at least float32.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core.distributed import mean_of_all
from models.flow import EYES, head_rotation, pixel_positions
from models.geometry import angular_error_deg, at_least_float32, constants

REAL, FAKE = 0.0, 1.0


def l1(image_hat: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference of two (B, 3, S, S) images."""
    return (at_least_float32(image_hat) - image).abs().mean()


def l2(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared difference of two images or codes of one shape."""
    return (at_least_float32(x_hat) - x).square().mean()


def gradient(image_hat: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical differences of two (B, 3, S, S) images.

    It sees edges, and not the light that lies over them. Source: gradient difference loss, "Deep multi-scale video
    prediction beyond mean square error".
    """
    wrong = at_least_float32(image_hat) - image
    return wrong.diff(dim=-1).abs().mean() + wrong.diff(dim=-2).abs().mean()


def nearest_l1(images: Sequence[Tensor], image: Tensor) -> Tensor:
    """Mean absolute difference of (B, 3, S, S), at each pixel that of the image that is nearest there."""
    wrong = torch.stack([(at_least_float32(other) - image).abs().mean(dim=1) for other in images])
    return wrong.min(dim=0).values.mean()


def not_carried(shares: Tensor) -> Tensor:
    """What of (B, 3, S, S) shares is not the source's own pixels: the paint, and a fifth of its mirror image."""
    _, mirror, paint = at_least_float32(shares).mean(dim=(0, 2, 3)).unbind()
    return paint + 0.2 * mirror


EYE_RADIUS = 0.14


def around_eyes(image_hat: Tensor, image: Tensor, head: Tensor) -> Tensor:
    """L1 and `gradient` near where the eyes of a head (B, 2), without a gradient, lie in a normalised patch."""
    with torch.autocast(head.device.type, enabled=False):
        rotation = head_rotation(head)[:, :2]
        places = rotation @ constants(EYES, rotation).T
    here = pixel_positions(image.shape[-1], image)
    apart = (here[:, :, None] + places[:, :, :, None, None]).square().sum(1)  # places are left, up
    weight = torch.exp(-apart / (2 * EYE_RADIUS**2)).amax(dim=1, keepdim=True)
    wrong = at_least_float32(image_hat) - image
    across, down = weight[..., 1:] * wrong.diff(dim=-1).abs(), weight[..., 1:, :] * wrong.diff(dim=-2).abs()
    return ((weight * wrong.abs()).sum() + across.sum() + down.sum()) / (3 * mean_of_all(weight.sum()))


def total_variation(maps: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in (B, C, S, S) maps, horizontally plus vertically."""
    maps = at_least_float32(maps)
    return maps.diff(dim=-1).abs().mean() + maps.diff(dim=-2).abs().mean()


def angles(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Mean angle in degrees of each pair of (B, 2) conditions and labels, of at least one pair, in one go."""
    conditions, labels = (torch.stack(part) for part in zip(*pairs, strict=True))
    return angular_error_deg(conditions, labels).mean(dim=1).unbind()


def gaze_and_head(seen: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> Tensor:
    """Mean angle in degrees of (B, 2) gazes plus that of (B, 2) heads."""
    gaze, head = angles([(seen[0], wanted[0]), (seen[1], wanted[1])])
    return gaze + head


def adversarial(logits: Tensor, polarity: float) -> Tensor:
    """Binary cross entropy of patch logits against REAL or FAKE."""
    logits = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, polarity))


def discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Mean of the discriminator's error on real and on fake patches."""
    return (adversarial(logits_fake, FAKE) + adversarial(logits_real, REAL)) / 2


def latent_adversarial_real(logits: Tensor) -> Tensor:
    """Cost of latent codes not being taken for real, mean softplus(-logit).

    For the discriminator's step on real codes, and for the encoder's on its own: there logits are (B, rows, 1).
    """
    return F.softplus(-at_least_float32(logits)).mean()


def latent_adversarial_fake(logits: Tensor) -> Tensor:
    """Cost of latent codes not being taken for an encoder's, mean softplus(logit)."""
    return F.softplus(at_least_float32(logits)).mean()


def r1_penalty(logits: Tensor, codes: Tensor) -> Tensor:
    """Batch mean of the squared norm of the logits' gradient by real codes, which must require a gradient.

    e4e's discriminator takes (10 / 2) * 16 times this as a step of its own every 16 steps.
    Source: R1 of "Which training methods for GANs do actually converge?"
    """
    (gradient,) = torch.autograd.grad(at_least_float32(logits).sum(), codes, create_graph=True)
    return at_least_float32(gradient).square().flatten(1).sum(dim=1).mean()


def delta_regularisation(codes: Tensor) -> Tensor:
    """How far the rows of (B, rows, style_dim) codes are from the first: sum over rows of the batch's mean l2 norm.

    Give it rows 0..stage of an encoder that is trained in stages.
    """
    codes = at_least_float32(codes)
    return torch.linalg.vector_norm(codes[:, 1:] - codes[:, :1], dim=2).mean(dim=0).sum()


def cosine_distance(u: Tensor, v: Tensor) -> Tensor:
    """1 - cosine of (B, n) vectors, batch mean: the consistency of canonical or mixed embeddings."""
    return 1 - F.cosine_similarity(at_least_float32(u), at_least_float32(v), dim=1).mean()


def label_disentangle(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor:
    """Angle between mixed and re-encoded conditions, gaze plus head, degrees."""
    return gaze_and_head((after["gaze"], after["head"]), (before["gaze"], before["head"]))


def redirection_feature(features_hat: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
    """Sum over an estimator's feature maps of the mean squared difference; no gradient to the target."""
    pairs = zip(features_hat, features, strict=True)
    return torch.stack([F.mse_loss(at_least_float32(u), at_least_float32(v.detach())) for u, v in pairs]).sum()


def adversarial_warmup(step: int, warmup_steps: int) -> float:
    """Factor of the adversarial weight: rises linearly from 0 to 1, then stays."""
    return min(step / warmup_steps, 1.0) if warmup_steps else 1.0


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Total of the terms that have a weight; the others are for the log only."""
    return torch.stack([weights[name] * value for name, value in terms.items() if name in weights]).sum()
