"""The trainer of a small face encoder and generator; `core/autoencoder/train.py` says what for. The recipe is ours.

Source of the parts: `models/e4e.py` and `models/stylegan2.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import losses
from core.batches import mirrored
from core.files import taken_apart
from core.runtime import autocast, step_generator
from core.schedules import autoencoder_rate, require_finite
from models.e4e import E4EEncoder
from models.gazeheadnet import Estimate, Estimator
from models.recrop import estimator_view
from models.stylegan2 import EqualLinear, Generator
from utils import batch_to_device, load_state

# Shares of the training: when the terms by the estimator of the reconstruction set in, and how long they take to
# full weight. In a blur it sees noise, and its gradient would keep the image from getting any better.
ESTIMATOR_FROM, ESTIMATOR_RISE = 0.2, 0.2


@dataclass(frozen=True)
class AutoencoderSettings:
    """What decides the weights, together with the data and the estimator.

    size, style_dim, max_channels, channel_multiplier, num_mapping: the generator's, see `Generator`; the mapping
    network is there for the layout's sake and stays as it was drawn.
    width, depths: the encoder's, see `E4EEncoder`.
    learning_rate: the highest, of the encoder.  generator_learning_rate: of what is stored with unit variance and
    scaled at run time, and so wants a larger one.
    mirror: turn half of the faces left to right.
    l1, eyes: weights of the mean absolute difference of all pixels and of those near the eyes.
    feature, angle: of the estimator's features, and of gaze plus head in degrees, between the reconstruction and
    the image, both re-cropped and equalised.
    probe: of gaze plus head, in degrees, read from the code by a linear layer that is dropped in the end; it is to
    get them into the code before the generator can draw an iris.
    precision: of the networks in training.
    """

    size: int = 64
    style_dim: int = 64
    max_channels: int = 128
    channel_multiplier: float = 1 / 32
    num_mapping: int = 2
    width: int = 8
    depths: tuple[int, ...] = (1, 1, 1, 1)
    num_steps: int = 2400
    batch_size: int = 12
    learning_rate: float = 1.5e-3
    generator_learning_rate: float = 1e-2
    seed: int = 0
    mirror: bool = True
    l1: float = 1.0
    eyes: float = 1.0
    feature: float = 0.05
    angle: float = 0.005
    probe: float = 0.003
    precision: str = "float32"


class AutoencoderTrainer:
    """Owns the two networks, their optimiser and the steps done. The global random state is neither used nor moved.

    estimator: frozen; the one of the training losses, never the one that measures; None for pixel terms alone.
    patch_size: of the normalised patch that it sees.
    """

    def __init__(
        self, settings: AutoencoderSettings, estimator: Estimator | None, patch_size: int, device: torch.device
    ) -> None:
        self.settings, self.estimator, self.patch_size, self.device = settings, estimator, patch_size, device
        self.step = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            generator = Generator(
                settings.size,
                settings.style_dim,
                settings.num_mapping,
                settings.channel_multiplier,
                settings.max_channels,
            )
            _start_with_low_contrast(generator)
            encoder = E4EEncoder(generator.num_rows, settings.size, settings.style_dim, settings.width, settings.depths)
            probe = nn.Linear(generator.num_rows * settings.style_dim, 4)
        self.generator, self.probe = generator.to(device), probe.to(device)
        self.encoder = encoder.to(device).to(memory_format=torch.channels_last)
        self.parts = nn.ModuleDict({"encoder": self.encoder, "decoder": self.generator, "probe": self.probe})
        self.rates = (settings.learning_rate, settings.generator_learning_rate)
        groups = [{"params": parameters} for parameters in _by_rate(self.encoder, self.generator, self.probe)]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)

    def reconstruct(self, image: Tensor) -> Tensor:
        """Images (B, 3, size, size) in [-1, 1] through code and back, as many; in the mode that the parts are in."""
        return self.generator.synthesis(self.encoder(image), noise="none")

    def train_step(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One update; the loss before it, and its terms by name.

        batch: image (B, 3, size, size) uint8; crop (B, 3, 3) and points (B, 5, 2), see AlignedDataset.
        Raises FloatingPointError, before the update, if the loss or a gradient is not finite.
        """
        moved, weights = self._prepare(batch), self._weights()
        with autocast(self.device, self.settings.precision):
            code = self.encoder(moved["image"])
            image_hat = self.generator.synthesis(code, noise="none")
        terms = self._terms(image_hat, code, moved, weights)
        loss = losses.weighted_sum(terms, weights)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.parts.parameters() if p.grad is not None])
        measured = {"gradient": norm, **terms, "loss": loss}
        remedy = "check the data, or set smaller learning rates"
        values = require_finite(measured, self.step, what="Loss of the autoencoder", remedy=remedy)
        self.optimizer.step()
        self.step += 1
        return {name: values[name] for name in ("loss", *terms)}

    def _weights(self) -> dict[str, float]:
        """Of the terms that this step has."""
        settings = self.settings
        weights = {"l1": settings.l1, "eyes": settings.eyes}
        if self.estimator is not None:
            rise = (self.step / settings.num_steps - ESTIMATOR_FROM) / ESTIMATOR_RISE
            share = min(max(rise, 0.0), 1.0)
            weights |= {"probe": settings.probe, "feature": share * settings.feature, "angle": share * settings.angle}
        return {name: weight for name, weight in weights.items() if weight}

    def _prepare(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch on the device, half of it mirrored, and the step's learning rates set."""
        settings = self.settings
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * autoencoder_rate(self.step, settings.num_steps)
        moved = batch_to_device(batch, self.device)
        if settings.mirror:
            coins = torch.rand(len(moved["image"]), generator=step_generator(settings.seed, self.step)) < 0.5
            moved = mirrored(moved, coins.to(self.device))
        return moved | {"image": moved["image"].contiguous(memory_format=torch.channels_last)}

    def _terms(
        self, image_hat: Tensor, code: Tensor, batch: Mapping[str, Tensor], weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        terms = {"l1": losses.l1(image_hat, batch["image"])}
        if "eyes" in weights:
            terms["eyes"] = l1_near_eyes(image_hat, batch["image"], batch["points"])
        if self.estimator is not None and weights.keys() & {"probe", "feature", "angle"}:
            terms |= self._seen_terms(self.estimator, image_hat, code, batch, weights)
        return terms

    def _seen_terms(
        self,
        estimator: Estimator,
        image_hat: Tensor,
        code: Tensor,
        batch: Mapping[str, Tensor],
        weights: Mapping[str, float],
    ) -> dict[str, Tensor]:
        """What the estimator sees in the image, against what is in the code and in the reconstruction."""

        def look(image: Tensor) -> Estimate:
            return estimator(estimator_view(image, batch["crop"], self.patch_size))

        with torch.no_grad():
            wanted = look(batch["image"])
        terms = {}
        if "probe" in weights:
            gaze, head = self.probe(code.flatten(1)).split(2, dim=1)
            terms["probe"] = losses.gaze_and_head((gaze, head), (wanted.gaze, wanted.head))
        if weights.keys() & {"feature", "angle"}:
            seen = look(image_hat)
            terms["angle"] = losses.gaze_and_head((seen.gaze, seen.head), (wanted.gaze, wanted.head))
            terms["feature"] = losses.redirection_feature(seen.features, wanted.features)
        return terms

    def content(self) -> dict[str, object]:
        """Both networks as e4e's release saves its own; average code 0, for the encoder has learned the whole code."""
        state = {
            key: value.cpu().contiguous()
            for key, value in self.parts.state_dict().items()
            if not key.startswith("probe.")
        }
        sizes = {name: getattr(self.settings, name) for name in ("style_dim", "width", "depths", "num_mapping")}
        return {
            "state_dict": state,
            "latent_avg": torch.zeros(self.generator.num_rows, self.settings.style_dim),
            "opts": {"output_size": self.settings.size, "start_from_latent_avg": True, **sizes},
        }

    def state(self) -> dict[str, object]:
        """All that the training goes on from."""
        return {"step": self.step, "parts": self.parts.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from such a state; where: names it in the error. Raises UserError if it does not fit."""
        with taken_apart(where, "Remove it to train anew."):
            load_state(self.parts, state["parts"], where=where, remedy="Remove it to train anew.")
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])


def l1_near_eyes(image_hat: Tensor, image: Tensor, points: Tensor) -> Tensor:
    """Mean absolute difference of two (B, 3, S, S) images round both eyes.

    points: (B, 5, 2), the eyes first, in pixels (column, row). Weights fall off from there as a Gaussian of S / 16:
    an eye is so small a part of a face that the mean over all pixels hardly knows where it looks.
    """
    size = image.shape[-1]
    at = torch.arange(size, device=image.device, dtype=points.dtype)
    columns, rows = (-0.5 * ((at - points[:, :2, :, None]) * 16 / size).square()).exp().unbind(dim=2)
    weight = (rows[..., None] * columns[..., None, :]).sum(dim=1, keepdim=True)
    return ((image_hat - image).abs() * weight).mean() / weight.mean()


def _start_with_low_contrast(generator: Generator) -> None:
    """In place of a first image that is far out of range."""
    with torch.no_grad():
        for layer in (generator.to_rgb1, *generator.to_rgbs):
            layer.conv.weight *= 0.3


def _by_rate(
    encoder: E4EEncoder, generator: Generator, probe: nn.Linear
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of ordinary size, and those stored with unit variance."""
    scaled = set(generator.parameters())
    for layer in encoder.modules():
        scaled.update(layer.parameters() if isinstance(layer, EqualLinear) else ())
    every = [*encoder.parameters(), *generator.parameters(), *probe.parameters()]
    return [p for p in every if p not in scaled], [p for p in every if p in scaled]
