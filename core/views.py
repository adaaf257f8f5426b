"""How the networks see a batch: cached codes stand for images, estimators look through the crop of an aligned face."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.gazeheadnet import Estimate
from models.recrop import estimator_view
from models.redirector import Encoding, Redirector


def encode_pair(redirector: Redirector, batch: Mapping[str, Tensor]) -> tuple[Encoding, Encoding]:
    """Source and target encoded in one call, from `w_plus_a` and `w_plus_b` where the batch has them."""
    size = len(batch["image_a"])
    if "w_plus_a" in batch:
        both = redirector.encode_latent(torch.cat((batch["w_plus_a"], batch["w_plus_b"])))
    else:
        both = redirector.encode(torch.cat((batch["image_a"], batch["image_b"])))
    return both[:size], both[size:]


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
