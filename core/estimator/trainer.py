"""Trains a gaze and head estimator; a training can stop anywhere and go on exactly as if it had not.

Source: ST-ED, section 4, its supplementary and its release.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from tqdm import tqdm

from core.batches import IndexSampler, labeled_subset
from core.files import atomic_write, file_sha256, write_json
from core.runtime import autocast, step_generator
from core.tracking import Tracker, progress_bar, say
from core.trainer import mirrored
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
IN_MEMORY_BYTES = 1_000_000_000
BEST_BY = "gc/val"  # whose gaze and head error decides which weights are the best


class LabeledImages(Protocol):
    """What an estimator is trained on: entries `image` (3, S, S) uint8 RGB, `gaze` and `head` (2,) radians."""

    name: str
    path: Path
    image_size: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, together with the data.

    init: what the weights start from, as the user named it.
    learning_rate: the highest.  decay, decay_steps: of lr_schedule 'step'.
    flip: mirror half of the images and their yaw labels.
    num_labeled_samples: use at most so many, drawn over all persons; None for all.
    precision: of the network in training; it is always measured in float32.
    real_share: of each batch, of data that has redirected images, too; None for all of them mixed.
    """

    backbone: str
    num_steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    init: str = "none"
    lr_schedule: Literal["step", "one-cycle"] = "step"
    decay_steps: int = 50_000
    decay: float = 0.5
    flip: bool = False
    num_labeled_samples: int | None = None
    precision: str = "float32"
    real_share: float | None = None


@dataclass(frozen=True)
class Pace:
    """Steps between two lines of metrics, validations and saves of the training state; 0: at the end only."""

    log: int = 200
    test: int = 0
    save: int = 0


Validate = Callable[[nn.Module], Mapping[str, Mapping[str, float]]]  # data set -> gaze_deg, head_deg, samples


def lr_factor(
    step: int, num_steps: int, schedule: Literal["step", "one-cycle"], decay_steps: int, decay: float
) -> float:
    """Share of the learning rate at `step`, counted from 0.

    step: times `decay` every `decay_steps`.  one-cycle: up to 1 in the first fifth, then a cosine down to 0.
    """
    if schedule == "step":
        return decay ** (step // decay_steps)
    warmup = max(1, num_steps // 5)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup))


def vary_colours(image: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) in [-1, 1], each with a contrast and a brightness per channel of its own.

    amount: standard deviation of both, around 1 and 0. Drawn on the CPU.
    """
    contrast = 1 + amount * torch.randn(len(image), 1, 1, 1, generator=generator)
    brightness = amount * torch.randn(len(image), 3, 1, 1, generator=generator)
    return image * contrast.to(image.device) + brightness.to(image.device)


def training_state(folder: Path) -> Path:
    """Everything that a stopped training goes on from; it is there as long as the training is not finished."""
    return folder / "checkpoints" / "training_state.pt"


class EstimatorTrainer:
    """Owns an estimator, its optimiser, the steps done and which weights were the best so far.

    weights: torchvision's file to start from; None for random weights drawn from the seed. The global random
    state is neither used nor moved.  Loss: mean angle of gaze plus mean angle of head, degrees.
    """

    def __init__(self, recipe: Recipe, device: torch.device, weights: Path | None = None) -> None:
        self.recipe, self.device = recipe, device
        self.initialisation = f"{weights.name}, sha256 {file_sha256(weights)}" if weights else "random"
        estimator = _fresh_estimator(recipe.backbone, recipe.seed, weights)
        self.estimator = estimator.to(device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(
            self.estimator.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True
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
        with autocast(self.device, self.recipe.precision):
            estimate = self.estimator(batch["image"])
        gaze = angular_error_deg(estimate.gaze, batch["gaze"]).mean()
        head = angular_error_deg(estimate.head, batch["head"]).mean()
        self.optimizer.zero_grad()
        (gaze + head).backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.estimator.parameters()])
        values = torch.stack((gaze + head, gaze, head, norm)).tolist()  # one wait for the device
        loss, gaze_deg, head_deg, gradient = values
        if not all(map(math.isfinite, values)):
            raise FloatingPointError(
                f"Loss is not finite at step {self.step} (gaze={gaze_deg:.3g}, head={head_deg:.3g}, gradient="
                f"{gradient:.3g}). No update was made with it; check the labels of the data, or set a smaller "
                "estimator_learning_rate."
            )
        self.optimizer.step()
        self.step += 1
        return {"loss": loss, "gaze_deg": gaze_deg, "head_deg": head_deg}

    def _prepare(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch on the device, mirrored and with varied colours, and the step's learning rate set."""
        recipe = self.recipe
        factor = lr_factor(self.step, recipe.num_steps, recipe.lr_schedule, recipe.decay_steps, recipe.decay)
        self.optimizer.param_groups[0]["lr"] = recipe.learning_rate * factor
        moved, generator = batch_to_device(batch, self.device), step_generator(recipe.seed, self.step)
        if recipe.flip:
            coins = torch.rand(len(batch["image"]), 1, generator=generator) < 0.5
            moved = mirrored(moved, coins.to(self.device))
        jitter = COLOUR_JITTER.get(recipe.backbone, 0.0)
        if jitter:
            moved["image"] = vary_colours(moved["image"], jitter, generator)
        return moved

    def facts(self, dataset: LabeledImages) -> dict[str, object]:
        """What the weights come from, as plain data for the JSON beside them."""
        return {
            **asdict(self.recipe), "colour_jitter": COLOUR_JITTER.get(self.recipe.backbone, 0.0),
            "data": dataset.name, "file": str(dataset.path), "samples": self._num_samples(dataset),
            "image_size": dataset.image_size, "initialisation": self.initialisation,
        }  # fmt: skip

    def _num_samples(self, dataset: LabeledImages) -> int:
        """Raises ValueError if they do not fill a batch."""
        count, size = min(self.recipe.num_labeled_samples or len(dataset), len(dataset)), self.recipe.batch_size
        if count < size:
            raise ValueError(
                f"{dataset.name}: {count} labelled images to train with, fewer than a batch of {size}. Lower "
                "estimator_batch_size, or raise estimator_num_labeled_samples or use more data."
            )
        return count

    def check(self, dataset: LabeledImages) -> None:
        """Raises ValueError if the data does not fill a batch, or not with the share of real images asked for."""
        self._order(dataset, self._labeled(dataset))

    def _labeled(self, dataset: LabeledImages) -> list[int]:
        return labeled_subset(len(dataset), self._num_samples(dataset), self.recipe.seed).tolist()

    def fit(
        self,
        dataset: LabeledImages,
        folder: Path,
        pace: Pace,
        *,
        validate: Validate,
        tracker: Tracker,
        stop: Sequence[int],
        num_workers: int = 0,
    ) -> bool:
        """Train to the last step and write the checkpoints; False, with the state saved, if `stop` was filled before.

        Data under 1 GB is kept in memory; more is read by `num_workers` processes.
        Raises FloatingPointError (see `train_step`), and ValueError if the data does not fill a batch.
        """
        facts, recipe, labeled = self.facts(dataset), self.recipe, self._labeled(dataset)
        order = self._order(dataset, labeled)
        self.save(folder, facts)
        with progress_bar(recipe.num_steps, self.step, f"estimator '{recipe.backbone}'") as bar:
            data = Subset(dataset, labeled)
            for batch in training_batches(data, ("image", "gaze", "head"), order, num_workers, self.device):
                values = self.train_step(batch)
                values["images_per_s"] = _show(bar, values["loss"], recipe.batch_size)
                self._housekeeping(values, folder, facts, pace, validate, tracker)
                if stop:
                    break
        if self.step < recipe.num_steps:
            self.save(folder, facts)
        return self.step == recipe.num_steps

    def _order(self, dataset: LabeledImages, used: Sequence[int]) -> Iterable[list[int]]:
        """Batches of positions in the entries `used`, from the present step on, `real_share` of each batch real."""
        recipe = self.recipe

        def batches(candidates: np.ndarray, size: int) -> IndexSampler:
            return IndexSampler(
                dataset, batch_size=size, seed=recipe.seed, start_step=self.step, num_steps=recipe.num_steps,
                candidates=candidates,
            )  # fmt: skip

        if recipe.real_share is None:
            return batches(np.arange(len(used)), recipe.batch_size)
        num_real = min(max(1, round(recipe.real_share * recipe.batch_size)), recipe.batch_size - 1)
        real = dataset.is_real[used]
        sizes = {True: num_real, False: recipe.batch_size - num_real}
        for kind, name in ((True, "real"), (False, "redirected")):
            if (count := int((real == kind).sum())) < sizes[kind]:
                raise ValueError(
                    f"{dataset.path}: {count} {name} images, fewer than the {sizes[kind]} of a batch that "
                    f"estimator_real_share {recipe.real_share:g} asks for. Change it, or lower estimator_batch_size."
                )
        parts = [batches(np.flatnonzero(real == kind), size) for kind, size in sizes.items()]
        return (first + second for first, second in zip(*parts, strict=True))

    def _housekeeping(
        self,
        values: Mapping[str, float],
        folder: Path,
        facts: Mapping[str, object],
        pace: Pace,
        validate: Validate,
        tracker: Tracker,
    ) -> None:
        """Validate, log and save, in this order: a training that goes on from the state has this step behind it."""
        last = self.step == self.recipe.num_steps
        validation = self._validate(validate, folder, facts) if last or _due(self.step, pace.test) else {}
        if validation or last or _due(self.step, pace.log):
            values = {**values, "learning_rate": self.optimizer.param_groups[0]["lr"]}
            # One line for both: a resumed training drops what was logged after the state it goes on from.
            tracker.log(self.step, {f"train/{name}": v for name, v in values.items()} | _tags(validation))
        if last:
            facts = {**facts, "step": self.step, "validation": validation}
            _write_checkpoint(estimator_checkpoint(folder, self.step), self.estimator, facts)
            training_state(folder).unlink()
        elif _due(self.step, pace.save):
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
        if error is None:
            is_best = self.step == self.recipe.num_steps
        else:
            is_best = error < self.best.get("error_deg", math.inf)
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
        with atomic_write(path) as temporary:
            torch.save(content, temporary)

    def restore(self, folder: Path) -> None:
        """Go on from the training state in the folder.

        Raises ValueError if the file is no such state, or of another network.
        """
        path, remedy = training_state(folder), "Use the settings it was trained with, or another folder."
        content = read_torch_file(path)
        expected = {"format_version", "step", "best", "facts", "estimator", "optimizer"}
        if not isinstance(content, dict) or not expected <= content.keys():
            raise ValueError(f"{path}: not the state of an estimator's training. Remove it to train anew.")
        if content["format_version"] > FORMAT_VERSION:
            raise ValueError(f"{path}: written by a newer version of this code. Update to go on from it.")
        load_state(self.estimator, content["estimator"], where=str(path), remedy=remedy)
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.best, self.stored = content["step"], content["best"], content["facts"]
        self.initialisation = self.stored["initialisation"]


def _fresh_estimator(backbone: str, seed: int, weights: Path | None) -> Estimator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        estimator = build_estimator(backbone)
    if weights is not None:
        load_imagenet_weights(estimator, backbone, weights)
    return estimator


def training_batches(
    dataset: Dataset, names: Sequence[str], order: Iterable[list[int]], num_workers: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """These parts of the entries, batch by batch; data under 1 GB is kept in memory, more is read by processes."""
    if len(dataset) * dataset[0]["image"].numel() < IN_MEMORY_BYTES:
        entries = (dataset[i] for i in range(len(dataset)))
        data = default_collate([{name: entry[name] for name in names} for entry in entries])
        for indices in order:
            yield {name: data[name][indices] for name in names}
    else:
        # A generator of its own: a loader draws a seed, and the global random state is not ours to move.
        options = {"num_workers": num_workers, "pin_memory": device.type == "cuda", "generator": torch.Generator()}
        for batch in DataLoader(dataset, batch_sampler=order, **options):
            yield {name: batch[name] for name in names}


def _due(step: int, interval: int) -> bool:
    return bool(interval) and step % interval == 0


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
    with atomic_write(path) as temporary:
        torch.save(state, temporary)
