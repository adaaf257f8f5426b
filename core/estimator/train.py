"""The training of an estimator from its folder into its folder: anew, from where it stopped, or not at all.

`core/estimator/trainer.py` makes the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from core.batches import evaluation_pairs
from core.command import UserError
from core.estimator.report import Estimates, measure
from core.estimator.spec import EstimatorSettings, EstimatorSpec, setting_names, stored_facts
from core.estimator.trainer import EstimatorTrainer, LabeledImages, training_state
from core.facts import differences, say_differences
from core.files import clean_run, require_writable, write_text
from core.owner import own_when_free
from core.runtime import stop_on_signal
from core.schedules import Cadence
from core.tracking import Tracker, say
from dataset import GazeDataset
from models.load_pretrained_model import (
    IMAGENET_URLS,
    estimator_checkpoint,
    find_estimator_checkpoint,
    find_imagenet_weights,
)


@dataclass(frozen=True)
class MeasureSettings:
    """How an estimator is measured. share: of each data set in a validation, drawn by `seed`."""

    seed: int
    share: float
    batch_size: int
    num_workers: int


@dataclass(frozen=True)
class Training:
    """A training as the user asks for it.

    resume: go on from what is there; if not, what is there is refused.
    allow_downloads: of the weights to start from.  config: JSON, to be kept beside the weights.
    """

    spec: EstimatorSpec
    settings: EstimatorSettings
    cadence: Cadence
    measuring: MeasureSettings
    device: torch.device
    resume: bool
    allow_downloads: bool
    use_tensorboard: bool
    config: str


def is_trained(path: Path) -> bool:
    """Whether a folder or file holds an estimator, and not one whose training was interrupted."""
    return find_estimator_checkpoint(path) is not None and not training_state(path).is_file()


def start_training(training: Training) -> EstimatorTrainer | None:
    """A trainer at the step where an earlier training stopped, or at the first; None if that is finished.

    Nothing is written. Raises UserError or OSError if the folder holds something else or cannot be written, or if
    what the estimator is to start from cannot be used.
    """
    spec, settings = training.spec, training.settings
    require_writable(spec.path / "checkpoints", spec.path_key)
    state, found = training_state(spec.path), spec.checkpoint()
    there = state if state.is_file() else found
    if there is not None and not training.resume:
        raise UserError(f"resume is false, but {there} is there. Choose another {spec.path_key}, or remove it.")
    if state.is_file():
        return _resumed(training)
    last = estimator_checkpoint(spec.path, settings.num_steps)
    if last.is_file():
        say(f"Training is complete ({last}); choose another {spec.path_key} to start over.")
        changed = differences(stored_facts(last), vars(settings), only_known=True)
        say_differences(setting_names(changed, spec), "what was trained stays as it is")
        return None
    if found is not None:
        raise UserError(
            f"{spec.path_key}: {found} is there, but it is not of this training ({settings.num_steps} steps). Choose "
            "another folder, or remove it; to measure it, use --evaluate-only."
        )
    return _begun(training)


def _begun(training: Training) -> EstimatorTrainer:
    settings = training.settings
    weights = find_imagenet_weights(settings.init, settings.backbone, training.allow_downloads)
    trainer = EstimatorTrainer(settings, training.device, weights)
    start = f"torchvision's {weights}" if weights else "random weights"
    why = "" if settings.backbone in IMAGENET_URLS else "; there are no ImageNet weights of it"
    say(f"Estimator '{settings.backbone}' starts from {start}{why}.")
    return trainer


def _resumed(training: Training) -> EstimatorTrainer:
    """The trainer as it was when it last saved."""
    state, num_steps = training_state(training.spec.path), training.settings.num_steps
    trainer = EstimatorTrainer(training.settings, training.device)
    trainer.restore(training.spec.path)
    if trainer.step >= num_steps:
        raise UserError(
            f"{state} is at step {trainer.step}, but estimator_num_steps is "
            f"{num_steps}. Set more steps, or remove it to train anew."
        )
    say(f"Continuing from {state} (step {trainer.step}).")
    return trainer


def check_data(training: Training, trainer: EstimatorTrainer | None, train_set: LabeledImages) -> None:
    """Says what is not as it was when the training stopped.

    trainer: None if the training is finished.
    Raises UserError if the data does not fill a batch, or a finished training was on other data.
    """
    spec = training.spec
    if trainer is not None:
        trainer.check(train_set)
        changed = differences(trainer.stored, trainer.facts(train_set), only_known=True)
        say_differences(setting_names(changed, spec), "the training goes on with those given now")
        return
    before = stored_facts(estimator_checkpoint(spec.path, training.settings.num_steps)).get("data", train_set.name)
    if before != train_set.name:
        raise UserError(
            f"{spec.path_key}: the estimator there was trained on '{before}', not on '{train_set.name}'. "
            "Choose another folder."
        )


def train(
    training: Training, trainer: EstimatorTrainer, train_set: LabeledImages, test_sets: Sequence[GazeDataset]
) -> bool:
    """Train to the end or until asked to stop; whether it came to the end.

    test_sets: to validate on; gc/val among them decides which weights are the best.
    """
    folder = training.spec.path
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    clean_run(folder)
    write_text(folder / "config.json", training.config)

    def validate(estimator: nn.Module) -> dict[str, dict[str, float]]:
        how = training.measuring
        results = [measure_share(how, estimator, data, training.device, how.share) for data in test_sets]
        return {result.name: result.means() for result in results}

    tracker = Tracker(folder, use_tensorboard=training.use_tensorboard, start_step=trainer.step)
    with stop_on_signal() as stop:
        done = trainer.fit(
            train_set,
            folder,
            training.cadence,
            validate=validate,
            tracker=tracker,
            stop=stop,
            num_workers=training.measuring.num_workers,
        )
    tracker.close()
    return done


def train_to_end(training: Training, train_set: LabeledImages, test_sets: Sequence[GazeDataset]) -> None:
    """Train an estimator that is missing, from where an earlier training stopped.

    test_sets: see `train`.
    Where another process trains it, wait for that.
    Raises OSError or UserError before anything is written, FloatingPointError if the loss is not finite,
    KeyboardInterrupt, with the state saved, if the user asks to stop.
    """
    with own_when_free(training.spec.path, training.spec.path_key):
        trainer = start_training(training)
        if trainer is None:
            return
        check_data(training, trainer, train_set)
        if not train(training, trainer, train_set, test_sets):
            raise KeyboardInterrupt(
                f"Stopped at step {trainer.step} of the estimator; the same command continues from there."
            )


def measure_share(
    how: MeasureSettings, estimator: nn.Module, dataset: GazeDataset, device: torch.device, share: float = 1.0
) -> Estimates:
    """The estimator on a share of a data set, the same images every time."""
    entries = evaluation_pairs(dataset, seed=how.seed, fraction=share)[:, 0]
    return measure(estimator, dataset, device, batch_size=how.batch_size, num_workers=how.num_workers, entries=entries)
