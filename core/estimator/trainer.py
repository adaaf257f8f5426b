"""Trains a gaze and head estimator; a training can stop anywhere and go on exactly as if it had not.

Source: ST-ED, section 4, its supplementary and its release.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from core.batches import Chosen, IndexSampler, labeled_subset, mirrored, training_batches
from core.command import UserError
from core.estimator.spec import EstimatorSettings
from core.estimator.variety import vary_framing
from core.files import file_sha256, taken_apart, write_json
from core.runtime import autocast, step_generator
from core.schedules import Cadence, estimator_rate, is_due, require_finite
from core.torch_files import write_torch_file
from core.tracking import Tracker, progress_bar, say
from models.gazeheadnet import Estimator
from models.geometry import angular_error_deg
from models.load_pretrained_model import (
    best_checkpoint,
    build_estimator,
    estimator_checkpoint,
    facts_file,
    load_imagenet_weights,
)
from utils import batch_to_device, load_state, read_torch_file

FORMAT_VERSION = 1
# The compact networks see few persons: skin and light must not matter.
COLOUR_JITTER = {"compact": 0.2, "compact-residual": 0.2}
BEST_BY = "gc/val"  # whose gaze and head error decides which weights are the best


class LabeledImages(Protocol):
    """What an estimator is trained on: entries `image` (3, S, S) uint8 RGB, `gaze` and `head` (2,) radians."""

    name: str
    path: Path
    image_size: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Tensor]: ...


@runtime_checkable
class MixedImages(LabeledImages, Protocol):
    """Real and redirected ones. is_real: (N,) bool."""

    is_real: np.ndarray


Validate = Callable[[nn.Module], Mapping[str, Mapping[str, float]]]  # data set -> gaze_deg, head_deg, samples


def vary_colours(image: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) in [-1, 1], each with a contrast and a brightness per channel of its own.

    amount: standard deviation of both, around 1 and 0. Drawn on the CPU.
    """
    contrast = 1 + amount * torch.randn(len(image), 1, 1, 1, generator=generator)
    brightness = amount * torch.randn(len(image), 3, 1, 1, generator=generator)
    return image * contrast.to(image.device) + brightness.to(image.device)


def real_of_batch(share: float, batch_size: int) -> int:
    """Real images of a batch, at least one, of which at least one is redirected."""
    return min(max(1, round(share * batch_size)), batch_size - 1)


def training_state(folder: Path) -> Path:
    """Everything that a stopped training goes on from; it is there as long as the training is not finished."""
    return folder / "checkpoints" / "training_state.pt"


class EstimatorTrainer:
    """Owns an estimator, its optimiser, the steps done and which weights were the best so far.

    weights: torchvision's file to start from; None for random weights drawn from the seed. The global random
    state is neither used nor moved.  Loss: mean angle of gaze plus mean angle of head, degrees.
    """

    def __init__(self, settings: EstimatorSettings, device: torch.device, weights: Path | None = None) -> None:
        self.settings, self.device = settings, device
        self.initialisation = f"{weights.name}, sha256 {file_sha256(weights)}" if weights else "random"
        estimator = _fresh_estimator(settings.backbone, settings.seed, weights)
        self.estimator = estimator.to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(
            self.estimator.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), fused=True
        )
        self.step = 0
        self.best: dict[str, float | None] = {}
        self.stored: dict[str, object] = {}  # the facts of the state that this goes on from

    def train_step(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One update; the loss before it, and its gaze and head error in degrees.

        batch: image (B, 3, S, S) uint8; gaze, head (B, 2) radians.
        Raises FloatingPointError, before the update, if the loss or a gradient is not finite.
        """
        batch = self._prepare(batch)
        with autocast(self.device, self.settings.precision):
            estimate = self.estimator(batch["image"])
        gaze = angular_error_deg(estimate.gaze, batch["gaze"]).mean()
        head = angular_error_deg(estimate.head, batch["head"]).mean()
        self.optimizer.zero_grad()
        (gaze + head).backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.estimator.parameters() if p.grad is not None])
        measured = {"gaze": gaze, "head": head, "gradient": norm, "loss": gaze + head}
        remedy = "check the labels of the data, or set a smaller estimator_learning_rate"
        values = require_finite(measured, self.step, remedy=remedy)
        self.optimizer.step()
        self.step += 1
        return {"loss": values["loss"], "gaze_deg": values["gaze"], "head_deg": values["head"]}

    def _prepare(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch on the device, mirrored and with varied colours, and the step's learning rate set."""
        settings = self.settings
        share = estimator_rate(
            self.step, settings.num_steps, settings.lr_schedule, settings.decay_steps, settings.decay
        )
        self.optimizer.param_groups[0]["lr"] = settings.learning_rate * share
        moved, generator = batch_to_device(batch, self.device), step_generator(settings.seed, self.step)
        if settings.flip:
            coins = torch.rand(len(batch["image"]), 1, generator=generator) < 0.5
            moved = mirrored(moved, coins.to(self.device, non_blocking=True))
        if settings.vary_framing:
            moved["image"] = vary_framing(moved["image"], generator)
        jitter = COLOUR_JITTER.get(settings.backbone, 0.0)
        if jitter:
            moved["image"] = vary_colours(moved["image"], jitter, generator)
        return moved

    def facts(self, dataset: LabeledImages) -> dict[str, object]:
        """What the weights come from, as plain data for the JSON beside them."""
        return {
            **asdict(self.settings), "colour_jitter": COLOUR_JITTER.get(self.settings.backbone, 0.0),
            "data": dataset.name, "file": str(dataset.path), "samples": self._num_samples(dataset),
            "image_size": dataset.image_size, "initialisation": self.initialisation,
        }  # fmt: skip

    def _num_samples(self, dataset: LabeledImages) -> int:
        """Raises UserError if they do not fill a batch."""
        count, size = min(self.settings.num_labeled_samples or len(dataset), len(dataset)), self.settings.batch_size
        if count < size:
            raise UserError(
                f"{dataset.name}: {count} labelled images to train with, fewer than a batch of {size}. Lower "
                "estimator_batch_size, or raise estimator_num_labeled_samples (for a redirector of few labels: "
                "num_labeled_samples), or use more data."
            )
        return count

    def check(self, dataset: LabeledImages) -> None:
        """Raises UserError if the data does not fill a batch, or not with the share of real images asked for."""
        self._order(dataset, self._labeled(dataset))

    def _labeled(self, dataset: LabeledImages) -> list[int]:
        return labeled_subset(len(dataset), self._num_samples(dataset), self.settings.seed).tolist()

    def fit(
        self,
        dataset: LabeledImages,
        folder: Path,
        cadence: Cadence,
        *,
        validate: Validate,
        tracker: Tracker,
        stop: Sequence[int],
        num_workers: int = 0,
    ) -> bool:
        """Train to the last step and write the checkpoints; False, with the state saved, if `stop` was filled before.

        Data under 1 GB is kept in memory; more is read by `num_workers` processes.
        Raises FloatingPointError (see `train_step`), and UserError if the data does not fill a batch.
        """
        facts, settings, labeled = self.facts(dataset), self.settings, self._labeled(dataset)
        order = self._order(dataset, labeled)
        self.save(folder, facts)
        with progress_bar(settings.num_steps, self.step, f"estimator '{settings.backbone}'") as bar:
            data = Chosen(dataset, labeled, ("image", "gaze", "head"))
            for batch in training_batches(data, order, num_workers, self.device):
                values = self.train_step(batch)
                values["images_per_s"] = _show(bar, values["loss"], settings.batch_size)
                self._housekeeping(values, folder, facts, cadence, validate, tracker)
                if stop:
                    break
        if self.step < settings.num_steps:
            self.save(folder, facts)
        return self.step == settings.num_steps

    def _order(self, dataset: LabeledImages, used: Sequence[int]) -> Iterable[list[int]]:
        """Batches of positions in the entries `used`, from the present step on, `real_share` of each batch real."""
        settings = self.settings

        def batches(candidates: np.ndarray, size: int) -> IndexSampler:
            return IndexSampler(
                dataset, batch_size=size, seed=settings.seed, start_step=self.step, num_steps=settings.num_steps,
                candidates=candidates,
            )  # fmt: skip

        if settings.real_share is None:
            return batches(np.arange(len(used)), settings.batch_size)
        num_real = real_of_batch(settings.real_share, settings.batch_size)
        if not isinstance(dataset, MixedImages):
            raise ValueError(f"{dataset.path}: real_share is of data that says which of its images are real")
        real = dataset.is_real[used]
        sizes = {True: num_real, False: settings.batch_size - num_real}
        for kind, name in ((True, "real"), (False, "redirected")):
            if (count := int((real == kind).sum())) < sizes[kind]:
                raise UserError(
                    f"{dataset.path}: {count} {name} images, fewer than the {sizes[kind]} of a batch that "
                    f"estimator_real_share {settings.real_share:g} asks for. Change it, or lower estimator_batch_size."
                )
        parts = [batches(np.flatnonzero(real == kind), size) for kind, size in sizes.items()]
        return (first + second for first, second in zip(*parts, strict=True))

    def _housekeeping(
        self,
        values: Mapping[str, float],
        folder: Path,
        facts: Mapping[str, object],
        cadence: Cadence,
        validate: Validate,
        tracker: Tracker,
    ) -> None:
        """Validate, log and save, in this order: a training that goes on from the state has this step behind it."""
        last = self.step == self.settings.num_steps
        validation = self._validate(validate, folder, facts) if last or is_due(self.step, cadence.test) else {}
        if validation or last or is_due(self.step, cadence.log):
            values = {**values, "learning_rate": self.optimizer.param_groups[0]["lr"]}
            # One line for both: a resumed training drops what was logged after the state it goes on from.
            tracker.log(self.step, {f"train/{name}": v for name, v in values.items()} | _tags(validation))
        if last:
            facts = {**facts, "step": self.step, "validation": validation}
            _write_checkpoint(estimator_checkpoint(folder, self.step), self.estimator, facts)
            training_state(folder).unlink(missing_ok=True)
        elif is_due(self.step, cadence.save):
            self.save(folder, facts)

    def _validate(
        self, validate: Validate, folder: Path, facts: Mapping[str, object]
    ) -> Mapping[str, Mapping[str, float]]:
        """Measure, say and, if these weights are the best so far, write them."""
        results = validate(self.estimator)
        parts = [f"{name} gaze {r['gaze_deg']:.2f} head {r['head_deg']:.2f} deg" for name, r in results.items()]
        say(f"step {self.step}: " + ("; ".join(parts) or "no data set to validate on"))
        judge = results.get(BEST_BY)
        error = judge["gaze_deg"] + judge["head_deg"] if judge else None
        lowest = self.best.get("error_deg")
        if error is None:
            is_best = self.step == self.settings.num_steps
        else:
            is_best = lowest is None or error < lowest
        if is_best:
            self.best = {"step": self.step, "error_deg": error}
            facts = {**facts, "step": self.step, "validation": results}
            _write_checkpoint(best_checkpoint(folder), self.estimator, facts)
        return results

    def save(self, folder: Path, facts: Mapping[str, object]) -> None:
        """Write the training state."""
        path = training_state(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "format_version": FORMAT_VERSION, "step": self.step, "best": self.best, "facts": dict(facts),
            "estimator": self.estimator.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        write_torch_file(path, content)

    def restore(self, folder: Path) -> None:
        """Go on from the training state in the folder.

        Raises UserError if the file is no such state, or of another network.
        """
        path, remedy = training_state(folder), "Use the settings it was trained with, or another folder."
        content = read_torch_file(path)
        expected = {"format_version", "step", "best", "facts", "estimator", "optimizer"}
        if not isinstance(content, dict) or not expected <= content.keys():
            raise UserError(f"{path}: not the state of an estimator's training. Remove it to train anew.")
        with taken_apart(path, "Remove it to train anew."):
            if content["format_version"] > FORMAT_VERSION:
                raise UserError(f"{path}: written by a newer version of this code. Update to go on from it.")
            load_state(self.estimator, content["estimator"], where=str(path), remedy=remedy)
            self.optimizer.load_state_dict(content["optimizer"])
            self.step, self.best, self.stored = int(content["step"]), dict(content["best"]), dict(content["facts"])
            self.initialisation = str(self.stored["initialisation"])


def _fresh_estimator(backbone: str, seed: int, weights: Path | None) -> Estimator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimator = build_estimator(backbone)
    if weights is not None:
        load_imagenet_weights(estimator, backbone, weights)
    return estimator


def _show(bar: tqdm, loss: float, batch_size: int) -> float:
    """Move the bar on by a step; images a second."""
    bar.update()
    images_per_s = (bar.format_dict["rate"] or 0.0) * batch_size
    bar.set_postfix_str(f"gaze + head {loss:.2f} deg, {images_per_s:.0f} images/s", refresh=False)
    return images_per_s


def _tags(validation: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{name}/{k}": result[k] for name, result in validation.items() for k in ("gaze_deg", "head_deg")}


def _write_checkpoint(path: Path, estimator: nn.Module, facts: Mapping[str, object]) -> None:
    """A bare state dict, as published, and the facts beside it."""
    state = {key: value.cpu().contiguous() for key, value in estimator.state_dict().items()}
    write_json(facts_file(path), facts)
    write_torch_file(path, state)
