"""Small models, estimators and data that the tests share."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from core.adversary import Adversary, ImageAdversary, LatentAdversary
from core.objective import Objective
from core.trainer import RedirectionTrainer, StepSettings, build_optimizers
from models.arcface import REFERENCE_POINTS
from models.discriminator import LatentDiscriminator, PatchDiscriminator
from models.e4e import E4EEncoder
from models.gazeheadnet import Estimate
from models.recrop import CroppedEstimator
from models.redirector import Redirector
from models.redirtrans import ReDirTransGAN, ReDirTransSTED
from models.st_ed import STED, st_ed_factors
from models.st_ed_flow import STEDFlow
from models.stylegan2 import Generator

SIZE = 64
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60))
WEIGHTS = {
    "l1": 200.0, "gaze_a": 5.0, "head_a": 5.0, "generator": 1.0, "embedding_consistency": 2.0,
    "embedding_disentangle": 2.0, "label_disentangle": 2.0, "redirection_feature_loss": 5.0,
    "gaze_redirection": 2.0, "head_redirection": 2.0,
}  # fmt: skip
GAN_WEIGHTS = {
    "l2": 8.0, "gaze_a": 1.0, "head_a": 1.0, "generator": 0.1, "embedding_consistency": 2.0,
    "gaze_redirection": 0.2, "head_redirection": 0.2, "latent": 1.0, "delta": 0.01,
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


def tiny_flow(seed: int = 0) -> STEDFlow:
    torch.manual_seed(seed)
    model = STEDFlow(st_ed_factors(8, 1, 4, 3, 4), SIZE, growth=2, blocks=3, fc_width=16, width=4)
    nn.init.normal_(model.encoder.encoder_fc_pseudo_labels2.weight, std=0.2)
    return model


def tiny_redirtrans(seed: int = 0, carry_colour: bool = False) -> ReDirTransSTED:
    torch.manual_seed(seed)
    return ReDirTransSTED(32, SIZE, growth=2, blocks=3, fc_width=16, projector_hidden=8, deprojector_hidden=8,
                          carry_colour=carry_colour)  # fmt: skip


def tiny_pair(seed: int = 0) -> tuple[E4EEncoder, Generator, Tensor]:
    """Encoder, generator of 32 px, and average code."""
    torch.manual_seed(seed)
    generator = Generator(32, style_dim=16, num_mapping=2, channel_multiplier=1 / 64, max_channels=8)
    encoder = E4EEncoder(generator.num_rows, input_size=32, style_dim=16, width=4, depths=(1, 1, 1, 1))
    return encoder, generator, torch.randn(generator.num_rows, 16) / 4


def tiny_redirtrans_gan(seed: int = 0) -> ReDirTransGAN:
    """Faces of 64 px around a pair of 32 px."""
    pair = tiny_pair(seed)
    return ReDirTransGAN(*pair, SIZE, projector_hidden=8, deprojector_hidden=8, prior={"gaze": [0.5] * 8})


def tiny_gan_trainer(seed: int = 0, weights: Mapping[str, float] = GAN_WEIGHTS, **given: Any) -> RedirectionTrainer:
    """given: of the objective's networks and flags, and of the step's settings."""
    redirector = tiny_redirtrans_gan(seed)
    torch.manual_seed(seed + 1)
    discriminator = LatentDiscriminator(16, 2)
    adversary = LatentAdversary(discriminator, redirector, redirector.decoder, seed)
    estimator = CroppedEstimator(PoolEstimator(), SIZE)
    return assembled(
        redirector, adversary, weights, estimator=estimator, adversarial_warmup_steps=0, seed=seed, **given
    )


def assembled(
    redirector: Redirector, adversary: Adversary, weights: Mapping[str, float], **given: Any
) -> RedirectionTrainer:
    """A trainer of these parts."""
    steps = {"learning_rate": lambda _: 1e-3, "weight_decay": 1e-4, "adversarial_warmup_steps": 4} | given
    of_steps = {field.name for field in fields(StepSettings)}
    objective = Objective(
        weights,
        needs_image=adversary.sees_images,
        **{name: value for name, value in given.items() if name not in of_steps},
    )
    settings = StepSettings(**{name: value for name, value in steps.items() if name in of_steps})
    optimizers = build_optimizers(redirector, adversary.discriminator, settings)
    return RedirectionTrainer(redirector, adversary, objective, optimizers, settings)


def random_faces(redirector: ReDirTransGAN, size: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """A batch of aligned faces with a crop that is not trivial, points of a face, and their W+ codes."""
    batch = random_batch(size, seed)
    crop = torch.tensor([[0.6, 0.02, 0.05], [-0.02, 0.6, 0.1], [0.01, 0.02, 1.0]]).expand(size, 3, 3)
    points = (torch.tensor(REFERENCE_POINTS) * SIZE / 112).expand(size, 5, 2)
    for i in "ab":
        batch |= {f"crop_{i}": crop, f"points_{i}": points, f"w_plus_{i}": redirector.invert(batch[f"image_{i}"])}
    return batch


def tiny_trainer(seed: int = 0, weights: Mapping[str, float] = WEIGHTS, **given: Any) -> RedirectionTrainer:
    """given: of the objective's networks and flags, and of the step's settings."""
    redirector = tiny_redirector(seed)
    torch.manual_seed(seed + 1)
    adversary = ImageAdversary(PatchDiscriminator(2))
    return assembled(redirector, adversary, weights, **{"estimator": PoolEstimator(), "seed": seed} | given)


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
