"""A run of train_facenet.py: an estimator is trained and measured; and the estimators that a redirector needs.

`estimator` says which: gazenet (of the training losses) or eval_gazenet (that measures). It is trained on the train
persons of gazecapture_file, validated on every test set that is there, and measured on all of them at the end;
evaluate_only measures the one that is there. Source: ST-ED, release and supplementary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core import sources
from core.command import DONE, STOPPED, UserError
from core.config_default import Config, is_set, unused_flags
from core.distributed import require_one_process
from core.estimator.build import build_estimator, configured_estimator, estimator_settings
from core.estimator.report import table, write_evaluation
from core.estimator.spec import EstimatorSpec, stored_facts
from core.estimator.train import (
    MeasureSettings,
    Training,
    check_data,
    is_trained,
    measure_share,
    start_training,
    train,
    train_to_end,
)
from core.estimator.trainer import EstimatorTrainer, LabeledImages, training_state
from core.files import file_sha256, require_writable
from core.owner import Owner, own
from core.runtime import be_deterministic, code_revision, select_device, tune_cpu, warning_of_emulation
from core.schedules import Cadence
from core.tracking import say
from dataset import GazeDataset
from models.gazeheadnet import Estimator


@dataclass
class Run:
    """Everything a run needs, checked before anything is written. trainer: None if there is nothing to train."""

    training: Training
    trainer: EstimatorTrainer | None
    train_set: LabeledImages | None
    test_sets: list[GazeDataset]
    owner: Owner

    @property
    def folder(self) -> Path:
        return self.training.spec.folder

    def whereabouts(self) -> str:
        """Said beside an error."""
        return "the same command goes on from the last saved state" * training_state(self.folder).is_file()

    def go(self) -> int:
        """Train, measure, write, and give the folder back; returns the exit code."""
        with self.owner:
            return self._go()

    def _go(self) -> int:
        if self.trainer is not None and self.train_set is not None:
            if not train(self.training, self.trainer, self.train_set, self.test_sets):
                say(f"Stopped at step {self.trainer.step}; the same command continues from there.")
                return STOPPED
        if self.test_sets:
            self._evaluate()
        else:
            say("No evaluation: no test data set is configured and there.")
        return DONE

    def _evaluate(self) -> None:
        how, device = self.training.measuring, self.training.device
        estimator = build_estimator(self.training.spec).to(device)
        results = [measure_share(how, estimator, dataset, device) for dataset in self.test_sets]
        report = write_evaluation(self.folder / "evaluation", results, _facts(self.training.spec))
        say("\nangle between true and estimated direction, degrees")
        say(table({result.name: result.summary() for result in results}))
        say(f"\nReport: {report}\nPlots:  {report.parent}/*.png")


def _facts(spec: EstimatorSpec) -> dict[str, object]:
    """What the report says of an estimator."""
    file = spec.checkpoint()
    assert file is not None, "an estimator is loaded before it is measured"
    known, names = stored_facts(file), ("step", "num_steps", "data", "samples", "seed", "initialisation")
    return {
        "checkpoint": str(file),
        "sha256": file_sha256(file),
        "backbone": spec.backbone,
        "image size": spec.image_size,
        **{f"training: {name}": known[name] for name in names if name in known},
        "code revision": code_revision(),
    }


def prepare(config: Config) -> Run:
    """Open, load and check everything, what is quick to check first. The estimator's folder becomes this process' own.

    Raises UserError or OSError with a message for the user.
    """
    require_one_process("train_facenet.py")
    device = select_device(config.device)
    emulation = () if config.evaluate_only else warning_of_emulation(device, config.precision)
    for warning in (*config.warnings, *_ignored(config), *emulation):
        say(f"warning: {warning}")
    training = _training(config, configured_estimator(config), device)
    spec = training.spec
    if not spec.is_named:
        start = "or start from a file that does: config/estimator-compact.json"
        raise UserError(f"{spec.path_key} is not set: name the folder for the estimator, {start}.")
    if not (config.evaluate_only or config.synthetic_data or is_set(config.redirected_file)):
        _require_training_file(config.gazecapture_file)
    tune_cpu(config.num_threads)
    if config.deterministic:
        be_deterministic()
    if config.evaluate_only:
        build_estimator(spec)  # a missing one is found out before data is made
    require_writable(spec.folder / "evaluation", spec.path_key)
    owner = own(spec.folder, spec.path_key)
    with owner.released_on_error():
        return _prepare(config, training, owner)


def _prepare(config: Config, training: Training, owner: Owner) -> Run:
    run = Run(training, None if config.evaluate_only else start_training(training), None, [], owner)
    sources.make_missing_data(config, faces=sources.wants_faces(config))
    if not config.evaluate_only:
        run.train_set = sources.build_estimator_training_set(config)
        check_data(training, run.trainer, run.train_set)
    run.test_sets = sources.build_test_sets(config, in_pairs=False)
    if config.evaluate_only and not run.test_sets:
        keys = "gazecapture_file, mpiigaze_file, columbia_file, eyediap_file"
        raise UserError(f"no data set to measure on is set and there; set one of {keys}.")
    return run


def prepare_estimators(
    config: Config,
    wanted: Sequence[EstimatorSpec],
    device: torch.device,
    train_set: GazeDataset | None = None,
    test_sets: Sequence[GazeDataset] | None = None,
) -> dict[str, Estimator]:
    """Estimators for a redirector, frozen, by key; trains a missing one where train_missing_estimators asks for it.

    train_set, test_sets: to train one with; None if they are not of patches, and are to be opened.
    Raises UserError or OSError with a message for the user, FloatingPointError, and KeyboardInterrupt, with the state
    saved, if the user asks to stop.
    """
    for spec in wanted:
        if not spec.is_named and spec.checkpoint() is None:
            raise UserError(f"{spec.path_key} is not set, but an estimator is needed; name its folder or file.")
    for spec in wanted if config.train_missing_estimators else []:
        if spec.is_named and not is_trained(spec.path):
            if test_sets is None:
                train_set = sources.build_training_set(config)
                test_sets = sources.build_test_sets(config, in_pairs=False)
            train_set = train_set or sources.build_training_set(config)
            validation = [dataset for dataset in test_sets if dataset.name == sources.VALIDATION.name]
            train_to_end(_training(_for_redirector(config, spec), spec, device), train_set, validation)
    for spec in wanted:
        if training_state(spec.path).is_file():
            raise UserError(
                f"{spec.path_key}: the training of the estimator at {spec.path} is not finished. Finish it by the "
                "command that began it, or set train_missing_estimators."
            )
    return {spec.key: build_estimator(spec).to(device) for spec in wanted}


def _for_redirector(config: Config, spec: EstimatorSpec) -> Config:
    """The configuration with the labels that an estimator may be trained on: the redirector's, if it has few."""
    most = config.estimator_num_labeled_samples
    if spec.max_labels is not None:
        most = min(most, spec.max_labels)
    return config.model_copy(update={"estimator_num_labeled_samples": most, "redirected_file": "."})


def _training(config: Config, spec: EstimatorSpec, device: torch.device) -> Training:
    return Training(
        spec,
        estimator_settings(config, spec),
        Cadence(log=config.print_freq_train, test=config.estimator_test_interval, save=config.estimator_save_interval),
        MeasureSettings(config.seed, config.test_subsample, config.eval_batch_size, config.num_data_loaders),
        device,
        resume=config.resume,
        allow_downloads=config.allow_downloads,
        use_tensorboard=config.use_tensorboard,
        config=config.to_json(),
    )


def _require_training_file(path: str) -> None:
    """Before weights are fetched for a training. Raises UserError."""
    if not is_set(path):
        raise UserError("gazecapture_file is not set, but training needs it; set it, or evaluate_only.")
    if not Path(path).is_file():
        raise UserError(f"gazecapture_file: {path}: no such file. Correct the path, or download or make it.")


def _ignored(config: Config) -> Iterator[str]:
    """A sentence for each setting that was given and has no effect here."""
    if flags := [flag for flag in unused_flags(config, "estimator") if not flag.startswith("--augmentation")]:
        yield f"no effect on train_facenet.py: {', '.join(flags)}."
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
