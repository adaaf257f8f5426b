"""Train, evaluate and look at a redirector: python train_st_ed.py CONFIG.json [MORE.json] [--flag value]"""

import json
import os
import sys
import traceback
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from checkpoints_manager import checkpoint_path, load_checkpoint, save_checkpoint, saved_steps
from core import Config, ConfigError, build, load_config
from core.config_default import is_set
from core.evaluator import Measurements, evaluate
from core.report import Pictures, picture_name, sample_pairs, write_report
from core.runtime import REPOSITORY, code_revision, library_versions, select_device, set_threads, stop_on_signal
from core.tracking import Tracker, say
from core.trainer import RedirectionTrainer
from dataset import GazeDataset
from models.load_pretrained_model import find_estimator_checkpoint
from models.redirector import Redirector
from preprocess.synthetic import make_dataset
from train_facenet import estimator_settings, train_estimator
from utils import atomic_write, write_png

# Settings that a resumed run may change and still equal an uninterrupted one.
FREE_TO_CHANGE = {
    "device", "num_threads", "num_data_loaders", "resume", "load_step", "skip_training", "save_path", "compile",
    "save_interval", "keep_checkpoints", "print_freq_train", "print_freq_test", "save_freq_images",
    "use_tensorboard", "num_sample_persons", "walk_frames", "eval_batch_size", "compute_full_result",
    "eval_disentanglement", "store_redirect_dataset", "lpips_weights", "allow_downloads", "test_subsample",
    "eval_gazenet_savepath", "eval_gazenet_backbone", "train_missing_estimators",
    "mpiigaze_file", "columbia_file", "eyediap_file", "mpiigaze_is_bgr", "columbia_is_bgr", "eyediap_is_bgr",
}  # fmt: skip
SOURCE_FILES = ("*.py", "*.txt", "*.md", "config/*.json", "core/*.py", "models/*.py", "preprocess/*.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a run had begun and failed, 2 for input that cannot be used, 130 if stopped."""
    try:
        config = load_config(argv)
        run = prepare(config)
    except (ConfigError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        return run.go()
    except (ValueError, OSError, FloatingPointError) as error:
        last = saved_steps(run.folder)
        where = f"the last checkpoint is {last[-1]}.pt" if last else "there is no checkpoint yet"
        (run.folder / "error.txt").write_text(traceback.format_exc())
        print(f"error: {error} ({where}; details in {run.folder / 'error.txt'})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


@dataclass
class Run:
    """Everything a run needs, checked before anything is written."""

    config: Config
    device: torch.device
    folder: Path
    redirector: Redirector
    trainer: RedirectionTrainer
    evaluator: nn.Module
    lpips: nn.Module | None
    train_set: GazeDataset | None
    test_sets: list[GazeDataset]
    start: int

    def go(self) -> int:
        """Train, evaluate, write; returns the exit code."""
        self._record()
        step = self.start
        if not self.config.skip_training:
            step = self._train()
            if step < self.config.num_training_steps:
                say(f"Stopped at step {step}; the same command continues from there.")
                return 130
        if self.config.compute_full_result or self.config.skip_training:
            self._full_result(step)
        return 0

    def _train(self) -> int:
        config, tracker = self.config, self._tracker()
        if self.start >= config.num_training_steps:
            say(f"Training is complete ({self.start} steps); delete {self.folder} to start over.")
            return self.start
        if config.compile:
            for module in self.trainer.modules.values():
                module.compile()
        looks = self._pictures()

        def pictures(step: int) -> None:
            picture = looks.comparison_picture(self.redirector)
            write_png(self.folder / "samples" / f"step_{step}.png", picture)
            tracker.log(step, {}, {"samples/comparison": picture})

        with stop_on_signal() as stop:
            step = self.trainer.fit(
                build.build_batches(config, self.train_set, self.start, self.device),
                build.cadence(config),
                tracker,
                start=self.start,
                test=lambda step: self._metrics(config.test_subsample),
                pictures=pictures,
                save=self._save,
                stop=stop,
            )
        tracker.close()
        return step

    def _tracker(self) -> Tracker:
        return Tracker(self.folder, use_tensorboard=self.config.use_tensorboard, start_step=self.start)

    def _save(self, step: int) -> None:
        facts = {"config": self.config.to_json(), "code_revision": code_revision()}
        save_checkpoint(
            self.folder, step, self.trainer.modules, self.trainer.optimizers, facts, self.config.keep_checkpoints
        )

    def _evaluate(self, dataset: GazeDataset, fraction: float, full: bool) -> Measurements:
        return evaluate(
            self.redirector,
            self.evaluator,
            dataset,
            seed=self.config.seed,
            fraction=fraction,
            batch_size=self.config.eval_batch_size,
            disentanglement=self.config.eval_disentanglement,
            pictures=full,
            lpips=self.lpips,
            device=self.device,
            workers=self.config.num_data_loaders,
        )

    def _metrics(self, fraction: float) -> dict[str, float]:
        """Means of every data set under their TensorBoard tags."""
        results = [self._evaluate(dataset, fraction, full=False) for dataset in self.test_sets]
        return {tag: value for result in results for tag, value in _tags(result).items()}

    def _pictures(self) -> Pictures:
        """Pairs of the test persons if there are any, else of the training persons."""
        test = next((dataset for dataset in self.test_sets if dataset.name == "gc/test"), None)
        dataset = test or next(iter(self.test_sets), None) or self.train_set
        return Pictures(dataset, sample_pairs(dataset, self.config.num_sample_persons, self.config.seed), self.device)

    def _full_result(self, step: int) -> None:
        config, folder = self.config, self.folder / "report" / str(step)
        if not self.test_sets:
            say("No evaluation: no test data set is configured and there.")
            return
        tracker, results = Tracker(self.folder, use_tensorboard=config.use_tensorboard, start_step=step), []
        for dataset in self.test_sets:
            results.append(self._evaluate(dataset, 1.0, full=True))
            pairs = sample_pairs(dataset, config.num_sample_persons, config.seed)
            picture = Pictures(dataset, pairs, self.device).comparison_picture(self.redirector)
            write_png(folder / picture_name(dataset.name), picture)
            tags = {f"full/{tag}": value for tag, value in _tags(results[-1]).items()}
            tracker.log(step, tags, {f"full/{dataset.name}": picture})
        looks = self._pictures()
        for factor in ("gaze", "head"):
            write_png(folder / f"walk_{factor}.png", looks.walk_picture(self.redirector, factor))
        looks.write_samples(self.redirector, self.folder / "samples", config.walk_frames)
        tracker.close()
        facts = {
            "checkpoint": str(checkpoint_path(self.folder, step)),
            "step": step,
            "seed": config.seed,
            "measured by": f"{config.eval_gazenet_backbone} at {config.eval_gazenet_savepath}",
            "code revision": code_revision(),
        }
        report = write_report(folder, results, facts)
        _print_result(results)
        say(f"\nReport:   {report}\nPictures: {folder}/*.png\nSamples:  {self.folder / 'samples'}/<person>/")

    def _record(self) -> None:
        """The configuration, the versions and the source, beside those of earlier starts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = "evaluation" if self.config.skip_training else f"from_{self.start}" if self.start else ""
        suffix = f"_{part}" if part else ""
        versions = {"command": sys.argv, "code_revision": code_revision(), "libraries": library_versions()}
        for name, text in (("config", self.config.to_json()), ("environment", json.dumps(versions, indent=2) + "\n")):
            with atomic_write(self.folder / f"{name}{suffix}.json") as temporary:
                temporary.write_text(text)
        snapshot(self.folder / f"source{suffix}.zip", self.folder)


def prepare(config: Config) -> Run:
    """Open, load and check everything. The run folder is not touched.

    Raises ValueError or OSError with a message for the user.
    """
    for warning in config.warnings:
        say(f"warning: {warning}")
    say(f"Settings that differ from the defaults:\n{config.describe()}\n")
    if config.store_redirect_dataset:
        say("warning: store_redirect_dataset has no effect yet; no Redirected_samples.h5 will be written.")
    device, folder = select_device(config.device), Path(config.save_path)
    set_threads(config.num_threads)
    _require_writable(folder)
    _make_missing_data(config)
    train_set = None if config.skip_training else build.build_training_set(config)
    test_sets = build.build_test_sets(config)
    redirector = build.build_redirector(config).to(device)
    discriminator = build.build_discriminator(config).to(device)
    start_file = _start_file(config, folder)
    trainer = build.build_trainer(config, redirector, discriminator, None, device)
    start = _restore(start_file, trainer, config) if start_file else 0
    if config.train_missing_estimators:
        _train_missing_estimators(config, train_set, test_sets, device)
    if train_set is not None:
        estimator = build.load_training_estimator(config)
        trainer.estimator = None if estimator is None else estimator.to(device)
        build.build_batches(config, train_set, start, device)  # too few samples is found out now, not after
    evaluator = build.load_evaluation_estimator(config).to(device)
    lpips = build.build_perceptual_metric(config)
    lpips = None if lpips is None else lpips.to(device)
    return Run(config, device, folder, redirector, trainer, evaluator, lpips, train_set, test_sets, start)


def _start_file(config: Config, folder: Path) -> Path | None:
    if config.load_step:
        return checkpoint_path(folder, config.load_step)
    steps = saved_steps(folder) if config.resume else []
    return checkpoint_path(folder, steps[-1]) if steps else None


def _restore(path: Path, trainer: RedirectionTrainer, config: Config) -> int:
    """Load a checkpoint; returns its step. Says what cannot be restored or does not match."""
    stored = load_checkpoint(path, trainer.modules, None if config.skip_training else trainer.optimizers)
    step = stored.get("step", config.load_step)
    say(f"Loaded {path} (step {step}).")
    if "optimizers" not in stored and not config.skip_training:
        say("It holds no optimiser state: training goes on with fresh Adam moments.")
    if "config" in stored and not config.skip_training:
        before, now = json.loads(stored["config"]), config.model_dump()
        changed = [key for key, value in now.items() if before.get(key) != value and key not in FREE_TO_CHANGE]
        if changed:
            say("It was trained with other values of " + ", ".join(changed) + "; the run goes on with those given now.")
    return step


def _require_writable(folder: Path) -> None:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OSError(f"save_path: {folder} cannot be written ({existing} is not a writable folder). Choose another.")


def _make_missing_data(config: Config) -> None:
    path = Path(config.gazecapture_file)
    if not config.synthetic_data or path.exists():
        return
    sizes = {f"GazeCapture_{size}.h5": size for size in (64, 128, 256)}
    if path.name not in sizes:
        raise ValueError(f"gazecapture_file: {path} is not there; to have it made, call it one of {', '.join(sizes)}.")
    say(f"Making the embedded data set in {path.parent} ...")
    make_dataset(
        path.parent,
        persons=config.synthetic_persons,
        samples=config.synthetic_samples,
        seed=config.seed,
        image_size=sizes[path.name],
        variation=config.synthetic_variation,
    )


def _train_missing_estimators(
    config: Config, train_set: GazeDataset | None, test_sets: Sequence[GazeDataset], device: torch.device
) -> None:
    """The measuring estimator gets another seed and another network than the one in the losses."""
    validation = next((dataset for dataset in test_sets if dataset.name == "gc/val"), None)
    for i, key in enumerate(("gazenet", "eval_gazenet")):
        path = getattr(config, f"{key}_savepath")
        if not is_set(path) or find_estimator_checkpoint(path):
            continue
        dataset = train_set or build.build_training_set(config)
        backbone = getattr(config, "gazenet_backbone" if i == 0 else "eval_gazenet_backbone")
        settings = estimator_settings(config) | {"seed": config.seed + i}
        train_estimator(dataset, backbone, Path(path), validation=validation, device=device, **settings)


def snapshot(path: Path, run_folder: Path) -> None:
    """Zip of this repository's code and configuration, never of the run folder."""
    kept = [
        file
        for pattern in SOURCE_FILES
        for file in sorted(REPOSITORY.glob(pattern))
        if not file.resolve().is_relative_to(run_folder.resolve())
    ]
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in kept:
            archive.write(file, file.relative_to(REPOSITORY))


def _tags(result: Measurements) -> Mapping[str, float]:
    return {f"{result.name}/{name}": row["mean"] for name, row in result.summary().items()}


def _print_result(results: Sequence[Measurements]) -> None:
    say("\nredirection error in degrees (relative to the angle between source and target labels)")
    for result in results:
        summary = result.summary()
        parts = []
        for name in ("gaze", "head"):
            relative, blind = (
                result.ratio(f"{name}_{kind}", f"{name}_pair_angle") for kind in ("redirection", "label_blind")
            )
            mean = summary[f"{name}_redirection"]["mean"]
            parts.append(f"{name} {mean:.2f} ({relative:.3f}, label-blind {blind:.3f})")
        means = {name: summary[name]["mean"] for name in ("l1", "l1_person_mean", "identity_kept")}
        parts.append(f"L1 {means['l1']:.3f} (person's mean image {means['l1_person_mean']:.3f})")
        say(f"  {result.name:9} {'; '.join(parts)}; identity kept {means['identity_kept']:.0%}")


if __name__ == "__main__":
    sys.exit(main())
