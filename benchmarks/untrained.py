"""Redirectors and trainers as configurations build them, untrained: for times, which weights do not change."""

from pathlib import Path

import torch
from torch import Tensor, nn

from core import build
from core.config_default import Config
from core.config_reader import load_config
from core.redirection.load import Loaded
from core.trainer import RedirectionTrainer, build_optimizers
from models.e4e import E4EEncoder
from models.load_pretrained_model import build_estimator
from models.redirtrans import ReDirTransGAN
from models.stylegan2 import Generator

ROOT = Path(__file__).resolve().parent.parent
ANGLES = {"gaze": 0.5, "head": 0.4}  # radians, as far as random labels go


def settings_of(name: str) -> Config:
    """config/NAME.json"""
    return load_config([str(ROOT / "config" / f"{name}.json")], unused=Config.model_fields)


def untrained(name: str) -> Loaded:
    """config/NAME.json's redirector on the CPU; layers that begin at zero, and would move nothing, are stirred."""
    settings = settings_of(name)
    torch.manual_seed(0)
    is_gan = settings.redirector == "redirtrans-gan"
    redirector = _around_a_random_pair(settings) if is_gan else build.build_redirector(settings)
    for module in redirector.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.01)
    return Loaded(redirector.eval().requires_grad_(False), settings, torch.device("cpu"))


def _around_a_random_pair(settings: Config) -> ReDirTransGAN:
    """Of the published sizes, 1024 px; nothing is read."""
    encoder, generator = E4EEncoder(), Generator(1024)
    widths = {"projector_hidden": settings.projector_width, "deprojector_hidden": settings.deprojector_width}
    mean = torch.randn(generator.num_rows, generator.style_dim) / 4
    return ReDirTransGAN(encoder, generator, mean, settings.face_size, **widths)


def untrained_trainer(config: Config, device: torch.device) -> RedirectionTrainer:
    """What trains the configuration's redirector; the estimator that it looks through has random weights."""
    redirector = build.build_redirector(config).to(device)
    discriminator = build.build_discriminator(config, redirector).to(device)
    settings = build.step_settings(config, device)
    adversary = build.build_adversary(config, redirector, discriminator)
    torch.manual_seed(2)
    estimator = build_estimator(config.gazenet_backbone).to(device).freeze()
    objective = build.build_objective(config, redirector, adversary, estimator, None, None)
    return RedirectionTrainer(
        redirector, adversary, objective, build_optimizers(redirector, discriminator, settings), settings
    )


def random_batch(config: Config, device: torch.device, seed: int = 0) -> dict[str, Tensor]:
    """As many pairs of noise as the configuration trains on in a step, with labels."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for which in ("a", "b"):
        shape = (config.batch_size, 3, config.image_size, config.image_size)
        batch[f"image_{which}"] = torch.rand(shape, generator=generator) * 2 - 1
        for name, far in ANGLES.items():
            batch[f"{name}_{which}"] = (torch.rand((config.batch_size, 2), generator=generator) * 2 - 1) * far
    return {name: value.to(device) for name, value in batch.items()}
