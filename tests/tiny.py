"""Small models, estimators and data that the tests share."""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from core.trainer import RedirectionTrainer
from models.discriminator import PatchDiscriminator
from models.gazeheadnet import Estimate
from models.st_ed import STED, st_ed_factors

SIZE = 64
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60))
WEIGHTS = {
    "l1": 200.0, "gaze_a": 5.0, "head_a": 5.0, "generator": 1.0, "embedding_consistency": 2.0,
    "embedding_disentangle": 2.0, "label_disentangle": 2.0, "redirection_feature_loss": 5.0,
    "gaze_redirection": 2.0, "head_redirection": 2.0,
}  # fmt: skip


class PoolEstimator(nn.Module):
    """A differentiable estimator of a few numbers: quick, and different for different images."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(48, 4, generator=generator) * 0.3, requires_grad=False)

    def forward(self, image: Tensor) -> Estimate:
        pooled = nn.functional.adaptive_avg_pool2d(image, 4).flatten(1)
        angles = torch.tanh(pooled @ self.weight.to(pooled.dtype))
        return Estimate(angles[:, :2], angles[:, 2:], [pooled])


def tiny_redirector(seed: int = 0) -> STED:
    torch.manual_seed(seed)
    model = STED(st_ed_factors(8, 1, 4, 3, 4), SIZE, growth=2, blocks=3, fc_width=16)
    nn.init.normal_(model.encoder.encoder_fc_pseudo_labels2.weight, std=0.2)
    return model


def tiny_trainer(seed: int = 0, **settings: object) -> RedirectionTrainer:
    redirector = tiny_redirector(seed)
    torch.manual_seed(seed + 1)
    settings = {
        "weights": WEIGHTS,
        "learning_rate": lambda _: 1e-3,
        "weight_decay": 1e-4,
        "adversarial_warmup_steps": 4,
        "seed": seed,
    } | settings
    return RedirectionTrainer(redirector, PatchDiscriminator(2), PoolEstimator(), **settings)


def random_batch(size: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Smooth images, so that a tiny network can learn them, and random labels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = {name: torch.rand(size, 3, 4, 4, generator=generator) * 2 - 1 for name in ("image_a", "image_b")}
    batch = {name: nn.functional.interpolate(image, size=SIZE, mode="bilinear") for name, image in coarse.items()}
    angles = {f"{a}_{i}": torch.rand(size, 2, generator=generator) - 0.5 for a in ("gaze", "head") for i in "ab"}
    return batch | angles


def write_dataset(path: Path, persons: int = 4, samples: int = 6, size: int = SIZE) -> Path:
    """A file in the ST-ED layout: blocks whose place follows the labels, a colour a person."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["color_order"] = "RGB"
        for i in range(persons):
            labels = random.uniform(-0.5, 0.5, (samples, 4)).astype(np.float32)
            pixels = np.full((samples, size, size, 3), COLOURS[i % len(COLOURS)], np.uint8)
            for image, (pitch, yaw, head_pitch, head_yaw) in zip(pixels, labels, strict=True):
                for row, column, colour in ((pitch, yaw, 255), (head_pitch, head_yaw, 0)):
                    y, x = (np.array([0.5 - row * 0.6, 0.5 - column * 0.6]) * size).astype(int)
                    image[y - 6 : y + 6, x - 6 : x + 6] = colour
            group = file.create_group(f"{i:05d}")
            group["pixels"], group["labels"] = pixels, labels
    return path
