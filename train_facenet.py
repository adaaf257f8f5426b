"""Train and measure a gaze and head estimator: python train_facenet.py CONFIG.json [MORE.json] [--flag value]

`estimator` says which: gazenet (of the training losses) or eval_gazenet (that measures). It is trained on the train
persons of gazecapture_file, validated on every test set that is there, and measured on all of them at the end;
`--evaluate-only` measures the one that is there. The same command continues a training that was stopped.
Source: ST-ED, release and supplementary.
"""

import contextlib
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from core import build, sources
from core.batches import evaluation_pairs
from core.config_default import Config, is_set
from core.config_reader import ConfigError, load_config
from core.estimator.report import Estimates, measure, table, write_evaluation
from core.estimator.trainer import EstimatorTrainer, LabeledImages, Pace, Recipe, training_state
from core.files import file_sha256, read_json, require_writable, write_text
from core.runtime import code_revision, select_device, stop_on_signal, tune_cpu
from core.tracking import Tracker, say, sentence
from dataset import GazeDataset
from models.load_pretrained_model import (
    IMAGENET_URLS,
    estimator_checkpoint,
    facts_file,
    find_estimator_checkpoint,
    find_imagenet_weights,
)

if TYPE_CHECKING:
    import augmentation

# What an estimator has nothing to do with: contradictions among these are none of this command's business.
UNUSED = (
    "save_path", "skip_training", "load_step", "num_2d_units", "densenet_blocks", "size_0d_unit", "semi_supervised",
    "lr_warmup_steps", "coeff_l1_loss", "coeff_disentangle_embedding_loss", "coeff_disentangle_pseudo_label_loss",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a run had begun and failed, 2 for input that cannot be used, 130 if stopped."""
    try:
        description = "Train and measure a gaze and head estimator."
        config = load_config(argv, prog="train_facenet.py", description=description, unused=UNUSED)
        run = _prepare_augmentation(config) if config.augmentation_labels else prepare(config)
    except (ConfigError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        return run.go()
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        notes = ["the same command goes on from the last saved state"] * training_state(run.folder).is_file()
        with contextlib.suppress(OSError):  # a full disk must not hide the first error
            (run.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
            notes.append(f"details in {run.folder / 'error.txt'}")
        print(f"error: {sentence(error)}" + f" ({'; '.join(notes)})" * bool(notes), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _prepare_augmentation(config: Config) -> "augmentation.Experiment":
    import augmentation  # which uses both commands, this one, too

    return augmentation.prepare(config)


@dataclass
class Run:
    """Everything a run needs, checked before anything is written. trainer: None if there is nothing to train."""

    config: Config
    which: str
    device: torch.device
    trainer: EstimatorTrainer | None
    train_set: LabeledImages | None
    test_sets: list[GazeDataset]

    @property
    def folder(self) -> Path:
        """Where results go: the estimator's folder, or one named after its file."""
        path = Path(getattr(self.config, f"{self.which}_savepath"))
        return path.with_name(path.name + "_evaluation") if path.is_file() else path

    def go(self) -> int:
        """Train, measure, write; returns the exit code."""
        if self.trainer is not None:
            done = _train(self.config, self.folder, self.trainer, self.train_set, self.test_sets)
            if not done:
                say(f"Stopped at step {self.trainer.step}; the same command continues from there.")
                return 130
        if self.test_sets:
            self._evaluate()
        else:
            say("No evaluation: no test data set is configured and there.")
        return 0

    def _evaluate(self) -> None:
        estimator = build.build_estimator(self.config, self.which).to(self.device)
        results = [_measure(self.config, estimator, dataset, self.device) for dataset in self.test_sets]
        report = write_evaluation(self.folder / "evaluation", results, self._facts())
        say("\nangle between true and estimated direction, degrees")
        say(table({result.name: result.summary() for result in results}))
        say(f"\nReport: {report}\nPlots:  {report.parent}/*.png")

    def _facts(self) -> dict[str, object]:
        """What the report says of the estimator."""
        file = find_estimator_checkpoint(getattr(self.config, f"{self.which}_savepath"))
        known = read_json(facts_file(file)) if facts_file(file).is_file() else {}
        names = ("step", "num_steps", "data", "samples", "seed", "initialisation")
        return {
            "checkpoint": str(file),
            "sha256": file_sha256(file),
            "backbone": getattr(self.config, f"{self.which}_backbone"),
            "image size": self.config.image_size,
            **{f"training: {name}": known[name] for name in names if name in known},
            "code revision": code_revision(),
        }


def prepare(config: Config) -> Run:
    """Open, load and check everything, what is quick to check first. The estimator's folder is not touched.

    Raises ConfigError, ValueError or OSError with a message for the user.
    """
    for warning in (*config.warnings, *_ignored(config)):
        say(f"warning: {warning}")
    which, device = config.estimator, select_device(config.device)
    path = getattr(config, f"{which}_savepath")
    if not is_set(path):
        start = "or start from a file that does: config/estimator-compact.json"
        raise ConfigError(f"{which}_savepath is not set: name the folder for the estimator, {start}.")
    if not (config.evaluate_only or config.synthetic_data or is_set(config.redirected_file)):
        _require_training_file(config.gazecapture_file)
    tune_cpu(config.num_threads)
    if config.evaluate_only:
        build.build_estimator(config, which)  # a missing one is found out before data is made
    trainer = None if config.evaluate_only else start_training(config, which, device)
    run = Run(config, which, device, trainer, None, [])
    require_writable(run.folder / "evaluation", f"{which}_savepath")
    sources.make_missing_data(config)
    if not config.evaluate_only:
        run.train_set = sources.build_estimator_training_set(config)
        if trainer is not None:
            _check_facts(trainer, run.train_set, which)
        else:
            _refuse_other_data(config, which, run.train_set)
    run.test_sets = sources.build_test_sets(config, in_pairs=False)
    if config.evaluate_only and not run.test_sets:
        keys = "gazecapture_file, mpiigaze_file, columbia_file, eyediap_file"
        raise ConfigError(f"no data set to measure on is set and there; set one of {keys}.")
    return run


def _require_training_file(path: str) -> None:
    """Before weights are fetched for a training. Raises ConfigError or FileNotFoundError."""
    if not is_set(path):
        raise ConfigError("gazecapture_file is not set, but training needs it; set it, or evaluate_only.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"gazecapture_file: {path}: no such file. Correct the path, or download or make it.")


def _ignored(config: Config) -> Iterator[str]:
    """A sentence for each setting that was given and has no effect here."""
    if config.compile:
        yield "compile has no effect on an estimator."
    if config.evaluate_only and is_set(config.redirected_file):
        yield "redirected_file has no effect with evaluate_only; estimators are measured on real images."
    if is_set(config.redirected_file) and "estimator_num_labeled_samples" in config.sources:
        yield "estimator_num_labeled_samples has no effect with redirected_file; all of its images are used."
    if (
        config.estimator_real_share is not None
        and not is_set(config.redirected_file)
        and not config.augmentation_labels
    ):
        yield "estimator_real_share has no effect without redirected_file; all images are real."
    if "num_labeled_samples" in config.sources and not config.augmentation_labels:
        yield "num_labeled_samples is of redirectors; an estimator's is estimator_num_labeled_samples."


def is_trained(path: str) -> bool:
    """Whether a folder or file holds an estimator, and not one whose training was interrupted."""
    return find_estimator_checkpoint(path) is not None and not training_state(Path(path)).is_file()


def start_training(config: Config, which: str, device: torch.device) -> EstimatorTrainer | None:
    """A trainer as the configuration says, at the step where an earlier training stopped; None if that is finished.

    Nothing is written. Raises ValueError or OSError if the folder holds something else or cannot be written, or if
    what the estimator is to start from cannot be used.
    """
    key, backbone = f"{which}_savepath", getattr(config, f"{which}_backbone")
    folder, found = Path(getattr(config, key)), find_estimator_checkpoint(getattr(config, key))
    require_writable(folder / "checkpoints", key)
    state = training_state(folder)
    there = state if state.is_file() else found
    if there is not None and not config.resume:
        raise ValueError(f"resume is false, but {there} is there. Choose another {key}, or remove it.")
    if state.is_file():
        return _resumed(config, which, device)
    last = estimator_checkpoint(folder, config.estimator_num_steps)
    if last.is_file():
        say(f"Training is complete ({last}); choose another {key} to start over.")
        known = read_json(facts_file(last)) if facts_file(last).is_file() else {}
        _say_what_changed(known, vars(recipe(config, which)), which, "what was trained stays as it is")
        return None
    if found is not None:
        raise ValueError(
            f"{key}: {found} is there, but it is not of this training ({config.estimator_num_steps} steps). Choose "
            "another folder, or remove it; to measure it, use --evaluate-only."
        )
    weights = find_imagenet_weights(config.estimator_init, backbone, config.allow_downloads)
    trainer = EstimatorTrainer(recipe(config, which), device, weights)
    start = f"torchvision's {weights}" if weights else "random weights"
    why = "" if backbone in IMAGENET_URLS else "; there are no ImageNet weights of it"
    say(f"Estimator '{backbone}' starts from {start}{why}.")
    return trainer


def _resumed(config: Config, which: str, device: torch.device) -> EstimatorTrainer:
    """The trainer as it was when it last saved."""
    folder = Path(getattr(config, f"{which}_savepath"))
    trainer = EstimatorTrainer(recipe(config, which), device)
    trainer.restore(folder)
    if trainer.step >= config.estimator_num_steps:
        raise ValueError(
            f"{training_state(folder)} is at step {trainer.step}, but estimator_num_steps is "
            f"{config.estimator_num_steps}. Set more steps, or remove it to train anew."
        )
    say(f"Continuing from {training_state(folder)} (step {trainer.step}).")
    return trainer


def _check_facts(trainer: EstimatorTrainer, train_set: LabeledImages, which: str) -> None:
    """Says what is not as it was when the training stopped. Raises ValueError if the data does not fill a batch."""
    trainer.check(train_set)
    consequence = "the training goes on with those given now"
    _say_what_changed(trainer.stored, trainer.facts(train_set), which, consequence)


def _refuse_other_data(config: Config, which: str, train_set: LabeledImages) -> None:
    """Raises ValueError if the finished training in the folder was not on this data."""
    last = facts_file(estimator_checkpoint(getattr(config, f"{which}_savepath"), config.estimator_num_steps))
    known = read_json(last) if last.is_file() else {}
    if known.get("data", train_set.name) != train_set.name:
        raise ValueError(
            f"{which}_savepath: the estimator there was trained on '{known['data']}', not on '{train_set.name}'. "
            "Choose another folder."
        )


def _say_what_changed(known: Mapping[str, object], now: Mapping[str, object], which: str, consequence: str) -> None:
    """A sentence if `known` facts, those of them that are there, are others now."""
    changed = [name for name, value in now.items() if name in known and known[name] != value]
    if changed:
        keys = {name: f"estimator_{name}" for name in now if f"estimator_{name}" in Config.model_fields}
        keys |= {"backbone": f"{which}_backbone", "samples": "the number of samples"}
        say(f"It was trained with other values of {', '.join(keys.get(n, n) for n in changed)}; {consequence}.")


def recipe(config: Config, which: str) -> Recipe:
    """The settings that decide an estimator's weights; the one that measures has another seed."""
    backbone = getattr(config, f"{which}_backbone")
    return Recipe(
        backbone=backbone,
        num_steps=config.estimator_num_steps,
        batch_size=config.estimator_batch_size,
        learning_rate=config.estimator_learning_rate,
        seed=config.seed + (which == "eval_gazenet"),
        init=config.estimator_init if backbone in IMAGENET_URLS else "none",
        lr_schedule=config.estimator_lr_schedule,
        decay_steps=config.estimator_decay_steps,
        decay=config.estimator_decay,
        flip=config.estimator_flip,
        # Of a redirected data set all is used: the number of labels was chosen when it was made.
        num_labeled_samples=None if is_set(config.redirected_file) else config.estimator_num_labeled_samples,
        precision=config.precision,
        real_share=config.estimator_real_share if is_set(config.redirected_file) else None,
    )


def train_configured(
    config: Config, which: str, train_set: LabeledImages, test_sets: Sequence[GazeDataset], device: torch.device
) -> Path:
    """Train the estimator of the losses ('gazenet') or the one that measures ('eval_gazenet'), to the end.

    test_sets: to validate on; gc/val among them decides which weights are the best.  Returns its checkpoint.
    Raises OSError or ValueError before anything is written, FloatingPointError if the loss is not finite,
    KeyboardInterrupt, with the state saved, if the user asks to stop.
    """
    folder = Path(getattr(config, f"{which}_savepath"))
    trainer = start_training(config, which, device)
    if trainer is not None:
        _check_facts(trainer, train_set, which)
        if not _train(config, folder, trainer, train_set, test_sets):
            say(f"Stopped at step {trainer.step} of the estimator; the same command continues from there.")
            raise KeyboardInterrupt
    return find_estimator_checkpoint(folder)


def _train(
    config: Config,
    folder: Path,
    trainer: EstimatorTrainer,
    train_set: LabeledImages,
    test_sets: Sequence[GazeDataset],
) -> bool:
    """Train to the end or until asked to stop; whether it came to the end."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    for leftover in (folder / "error.txt", *folder.glob("checkpoints/.*.tmp")):
        leftover.unlink(missing_ok=True)  # of a training that failed or was killed
    write_text(folder / "config.json", config.to_json())
    pace = Pace(config.print_freq_train, config.estimator_test_interval, config.estimator_save_interval)

    def validate(estimator: nn.Module) -> dict[str, dict[str, float]]:
        results = [_measure(config, estimator, data, trainer.device, config.test_subsample) for data in test_sets]
        return {result.name: result.means() for result in results}

    tracker = Tracker(folder, use_tensorboard=config.use_tensorboard, start_step=trainer.step)
    with stop_on_signal() as stop:
        done = trainer.fit(
            train_set,
            folder,
            pace,
            validate=validate,
            tracker=tracker,
            stop=stop,
            num_workers=config.num_data_loaders,
        )
    tracker.close()
    return done


def _measure(
    config: Config, estimator: nn.Module, dataset: GazeDataset, device: torch.device, fraction: float = 1.0
) -> Estimates:
    """The estimator on a fraction of a data set, the same images every time."""
    entries = evaluation_pairs(dataset, seed=config.seed, fraction=fraction)[:, 0]
    options = {"batch_size": config.eval_batch_size, "num_workers": config.num_data_loaders}
    return measure(estimator, dataset, device, entries=entries, **options)


if __name__ == "__main__":
    sys.exit(main())
