"""Train a gaze and head estimator: python train_facenet.py CONFIG.json [--evaluator] [--flag value ...]

Trains gazenet_backbone into gazenet_savepath on the train persons of gazecapture_file or, with --evaluator,
eval_gazenet_backbone into eval_gazenet_savepath. Source: ST-ED, release, and its supplementary.
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from tqdm import tqdm

from core import Config, ConfigError, build, load_config
from core.config_default import is_set
from core.runtime import select_device, step_generator, tune_cpu
from core.tracking import progress_bar, say
from core.trainer import mirrored
from dataset import GazeDataset, IndexSampler, labeled_subset
from models.geometry import angular_error_deg
from models.load_pretrained_model import build_estimator, estimator_checkpoint, find_estimator_checkpoint
from utils import atomic_write, batch_to_device, image_to_float, require_writable

Batch = tuple[Tensor, Tensor, Tensor]  # uint8 images (B, 3, S, S), gaze (B, 2), head (B, 2)

# The compact networks see few persons: skin and light must not matter. Worth 0.1 to 0.2 degrees on others.
COLOUR_JITTER = {"compact": 0.2, "compact-residual": 0.2}
IN_MEMORY_BYTES = 1_000_000_000
REPORT_EVERY = 25
MEASURE_BATCH = 128


def train_estimator(
    dataset: GazeDataset,
    backbone: str,
    save_path: Path,
    *,
    seed: int,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    lr_schedule: Literal["step", "one-cycle"],
    decay_steps: int,
    decay: float,
    flip: bool,
    validation: GazeDataset | None,
    device: torch.device,
    progress: bool = True,
    num_labeled_samples: int | None = None,
    num_workers: int = 0,
) -> Path:
    """Train an estimator from random weights; returns its checkpoint. A JSON of the facts lies beside it.

    Loss: mean angle of gaze plus mean angle of head, degrees.  flip: mirror half of the images.
    The compact backbones also see varied colours (COLOUR_JITTER).
    validation: persons that `dataset` does not hold; measured once, at the end.
    num_labeled_samples: use at most so many, drawn over all persons; None for all.
    Data under 1 GB is kept in memory; more is read by `num_workers` processes.
    A function of the data and the seed: it neither uses nor moves the global random state.
    Raises FloatingPointError, before anything is written, if the loss is not finite.
    """
    labeled = labeled_subset(len(dataset), min(num_labeled_samples or len(dataset), len(dataset)), seed)
    sampler = IndexSampler(
        dataset, batch_size=batch_size, seed=seed, num_steps=num_steps, candidates=np.arange(len(labeled))
    )
    jitter = COLOUR_JITTER.get(backbone, 0.0)
    estimator = _fresh_estimator(backbone, seed, device)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=learning_rate, betas=(0.9, 0.95), fused=True)
    bar = progress_bar(num_steps, 0, f"estimator '{backbone}'") if progress else None
    for step, (image, gaze, head) in enumerate(_batches(Subset(dataset, labeled), sampler, num_workers)):
        factor = lr_factor(step, num_steps, lr_schedule, decay_steps, decay)
        optimizer.param_groups[0]["lr"] = learning_rate * factor
        batch = batch_to_device({"image": image, "gaze": gaze, "head": head}, device)
        generator = step_generator(seed, step)
        if flip:
            batch = mirrored(batch, (torch.rand(len(image), 1, generator=generator) < 0.5).to(device))
        if jitter:
            batch["image"] = vary_colours(batch["image"], jitter, generator)
        loss = estimation_loss(estimator, **batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _report(step + 1, num_steps, loss, bar)
    if bar is not None:
        bar.close()
    facts = {
        "backbone": backbone, "data": dataset.name, "samples": len(labeled), "seed": seed, "steps": num_steps,
        "batch_size": batch_size, "learning_rate": learning_rate, "lr_schedule": lr_schedule, "flip": flip,
        "colour_jitter": jitter, "image_size": dataset.image_size,
    }  # fmt: skip
    if validation is not None:
        facts["validation"] = measure_estimator(estimator, validation, device, num_workers)
    return _save(estimator, save_path, num_steps, facts)


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


def estimation_loss(estimator: nn.Module, image: Tensor, gaze: Tensor, head: Tensor) -> Tensor:
    """Mean angle of gaze plus mean angle of head, degrees; a scalar. Source: ST-ED, release."""
    estimate = estimator(image)
    return angular_error_deg(estimate.gaze, gaze).mean() + angular_error_deg(estimate.head, head).mean()


@torch.no_grad()
def measure_estimator(
    estimator: nn.Module, dataset: GazeDataset, device: torch.device, num_workers: int = 0
) -> dict[str, float]:
    """Mean angular errors over all samples, degrees, in evaluation mode; the mode is put back afterwards."""
    was_training = estimator.training
    estimator.eval()
    order = np.array_split(np.arange(len(dataset)), math.ceil(len(dataset) / MEASURE_BATCH))
    errors = []
    for image, gaze, head in _batches(dataset, order, num_workers):
        estimate = estimator(image_to_float(image.to(device)))
        errors.append(
            torch.stack(
                (angular_error_deg(estimate.gaze, gaze.to(device)), angular_error_deg(estimate.head, head.to(device)))
            )
        )
    estimator.train(was_training)
    gaze_deg, head_deg = torch.cat(errors, dim=1).double().mean(dim=1).tolist()
    return {"gaze_deg": gaze_deg, "head_deg": head_deg, "samples": len(dataset)}


def _fresh_estimator(backbone: str, seed: int, device: torch.device) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        estimator = build_estimator(backbone)
    # Channels last is about a quarter faster on a CPU.
    return estimator.to(device, memory_format=torch.channels_last).train()


def _batches(dataset: Dataset, order: Iterable[Sequence[int]], num_workers: int) -> Iterator[Batch]:
    size = len(dataset) * dataset[0]["image"].numel()
    if size < IN_MEMORY_BYTES:
        data = default_collate([dataset[i] for i in range(len(dataset))])
        for indices in order:
            yield data["image"][indices], data["gaze"][indices], data["head"][indices]
    else:
        for batch in DataLoader(dataset, batch_sampler=order, num_workers=num_workers):
            yield batch["image"], batch["gaze"], batch["head"]


def _report(step: int, num_steps: int, loss: Tensor, bar: tqdm | None) -> None:
    # Reading the loss waits for the device, hence not at every step.
    if step % REPORT_EVERY and step != num_steps:
        return
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(
            f"The estimator's loss is not finite at step {step} ({value}). Nothing was written; check the "
            "labels of the data, or set a smaller estimator_learning_rate."
        )
    if bar is not None:
        bar.set_postfix_str(f"gaze + head {value:.2f} deg", refresh=False)
        bar.update(step - bar.n)


def _save(estimator: nn.Module, save_path: Path, step: int, facts: dict[str, object]) -> Path:
    path = estimator_checkpoint(save_path, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    newest = find_estimator_checkpoint(save_path)
    if newest is not None and newest > path:
        say(f"warning: {newest} has more steps than {path.name} and will be used in its place; remove it.")
    state = {key: value.cpu().contiguous() for key, value in estimator.state_dict().items()}
    with atomic_write(path.with_name(f"at_step_{step:07d}.json")) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")
    with atomic_write(path) as temporary:
        torch.save(state, temporary)
    return path


def train_configured(
    config: Config, which: str, train_set: GazeDataset, validation: GazeDataset | None, device: torch.device
) -> Path:
    """Train the estimator of the losses ('gazenet') or the one that measures ('eval_gazenet', another seed).

    Returns its checkpoint. Raises OSError before the training if its folder cannot be written.
    """
    save_path = Path(getattr(config, f"{which}_savepath"))
    require_writable(save_path / "checkpoints", f"{which}_savepath")
    return train_estimator(
        train_set,
        getattr(config, f"{which}_backbone"),
        save_path,
        seed=config.seed + (which == "eval_gazenet"),
        num_steps=config.estimator_num_steps,
        batch_size=config.estimator_batch_size,
        learning_rate=config.estimator_learning_rate,
        lr_schedule=config.estimator_lr_schedule,
        decay_steps=config.estimator_decay_steps,
        decay=config.estimator_decay,
        flip=config.estimator_flip,
        num_labeled_samples=config.estimator_num_labeled_samples,
        num_workers=config.num_data_loaders,
        validation=validation,
        device=device,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Train one estimator as the configuration says. Raises ConfigError, ValueError or OSError."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    which = "eval_gazenet" if "--evaluator" in arguments else "gazenet"
    config = load_config(
        [argument for argument in arguments if argument != "--evaluator"],
        prog="train_facenet.py",
        description="Train the training losses' estimator; with --evaluator, the one that measures.",
    )
    if not is_set(getattr(config, f"{which}_savepath")):
        raise ConfigError(f"{which}_savepath is not set: name the folder for the estimator.")
    tune_cpu(config.num_threads)
    train_set, validation = build.build_training_set(config), build.open_source(config, build.VALIDATION)
    path = train_configured(config, which, train_set, validation, select_device(config.device))
    say(f"{path}: {path.with_name(path.name.removesuffix('.pth.tar') + '.json').read_text()}")


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
