"""Train, evaluate and look at a redirector: python train_st_ed.py CONFIG.json [MORE.json] [--flag value]"""

import contextlib
import json
import sys
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from checkpoints_manager import checkpoint_path, load_checkpoint, save_checkpoint, saved_steps
from core import build, sources
from core.config_default import Config, decides_weights, ignored_by, is_set, unused_by
from core.config_reader import load_config
from core.estimator.trainer import training_state
from core.evaluator import Measurements, evaluate
from core.experiment.redirected import Generation
from core.files import atomic_write, require_writable, write_text
from core.report import Pictures, layer_weights_picture, picture_name, sample_pairs, write_report
from core.runtime import REPOSITORY, code_revision, library_versions, select_device, stop_on_signal, tune_cpu
from core.tracking import Tracker, say, sentence
from core.trainer import RedirectionTrainer
from core.views import CroppedEstimator
from dataset import GazeDataset
from models.gazeheadnet import Estimator
from models.load_pretrained_model import find_estimator_checkpoint
from models.redirector import Redirector
from models.redirtrans import ReDirTransGAN
from train_facenet import is_trained, train_configured
from utils import write_png

SOURCE_FILES = ("*.py", "*.txt", "*.md", "config/*.json", "core/**/*.py", "models/*.py", "preprocess/**/*.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a run had begun and failed, 2 for input that cannot be used, 130 if stopped."""
    try:
        config = load_config(argv, unused=unused_by("train"))
        run = prepare(config)
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        return run.go()
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        last = saved_steps(run.folder)
        where = f"the last checkpoint is {last[-1]}.pt" if last else "there is no checkpoint yet"
        with contextlib.suppress(OSError):  # a full disk must not hide the first error
            (run.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
            where += f"; details in {run.folder / 'error.txt'}"
        print(f"error: {sentence(error)} ({where})", file=sys.stderr)
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
    evaluator: nn.Module | None
    lpips: nn.Module | None
    train_set: GazeDataset | None
    test_sets: list[GazeDataset]
    start: int
    generation: Generation | None = None
    facts: dict[str, object] = field(default_factory=dict)

    def go(self) -> int:
        """Train, redirect the labelled images, evaluate; returns the exit code."""
        self._record()
        step = self.start
        if not self.config.skip_training:
            step = self._train()
            if step < self.config.num_training_steps:
                say(f"Stopped at step {step}; the same command continues from there.")
                return 130
        if self.generation is not None:
            self._redirect_labeled(step)
        if self.config.compute_full_result or (self.config.skip_training and _measures(self.config)):
            self._full_result(step)
        return 0

    def _train(self) -> int:
        config = self.config
        if self.start >= config.num_training_steps:
            say(f"Training is complete ({self.start} steps); choose another save_path to start over.")
            return self.start
        tracker = Tracker(self.folder, use_tensorboard=config.use_tensorboard, start_step=self.start)
        if config.compile:
            for name, module in self.trainer.modules.items():
                if name != "discriminator" or self.trainer.latent_adversary is None:  # R1 needs a second backward
                    module.compile()
        looks = self._pictures(self._shown_set())

        def pictures(step: int) -> None:
            picture = looks.comparison_picture(self.redirector)
            write_png(self.folder / "samples" / f"step_{step}.png", picture)
            shown = {"samples/comparison": picture}
            if isinstance(self.redirector, ReDirTransGAN):
                shown["layer_weights"] = layer_weights_picture(dict(self.redirector.deprojector.layer_weights))
                write_png(self.folder / "samples" / f"layer_weights_{step}.png", shown["layer_weights"])
            tracker.log(step, {}, shown)

        with stop_on_signal() as stop:
            step = self.trainer.fit(
                sources.build_batches(config, self.train_set, self.start, self.device),
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

    def _redirect_labeled(self, step: int) -> None:
        self.generation.write(
            self.redirector,
            checkpoint_path(self.folder, step),
            step,
            estimator=self.trainer.estimator,
            estimator_sha256=self.facts["estimators"]["gazenet"],
            batch_size=self.config.eval_batch_size,
            device=self.device,
            workers=self.config.num_data_loaders,
            code_revision=self.facts["code_revision"],
        )

    def _save(self, step: int) -> None:
        keep = self.config.keep_checkpoints
        adversary = self.trainer.latent_adversary
        facts = self.facts if adversary is None else self.facts | {"adversary": adversary.state()}
        save_checkpoint(self.folder, step, self.trainer.modules, self.trainer.optimizers, facts, keep)

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
            arcface=self.trainer.arcface,
            device=self.device,
            workers=self.config.num_data_loaders,
        )

    def _metrics(self, fraction: float) -> dict[str, float]:
        """Means of every data set under their TensorBoard tags."""
        results = [self._evaluate(dataset, fraction, full=False) for dataset in self.test_sets]
        return {tag: value for result in results for tag, value in _tags(result).items()}

    def _shown_set(self) -> GazeDataset:
        """The test persons if there are any, else the training persons."""
        test = next((dataset for dataset in self.test_sets if dataset.name == "gc/test"), None)
        return test or next(iter(self.test_sets), None) or self.train_set

    def _pictures(self, dataset: GazeDataset) -> Pictures:
        return Pictures(dataset, sample_pairs(dataset, self.config.num_sample_persons, self.config.seed), self.device)

    def _full_result(self, step: int) -> None:
        config, folder = self.config, self.folder / "report" / str(step)
        if not self.test_sets:
            say("No evaluation: no test data set is configured and there.")
            return
        tracker, results = Tracker(self.folder, use_tensorboard=config.use_tensorboard), []
        for dataset in self.test_sets:
            results.append(self._evaluate(dataset, 1.0, full=True))
            looks = self._pictures(dataset)
            picture = looks.comparison_picture(self.redirector)
            write_png(folder / picture_name(dataset.name), picture)
            tags = {f"full/{tag}": value for tag, value in _tags(results[-1]).items()}
            tracker.log(step, tags, {f"full/{dataset.name}": picture})
            if dataset is self._shown_set():
                for factor in ("gaze", "head"):
                    write_png(folder / f"walk_{factor}.png", looks.walk_picture(self.redirector, factor))
                looks.write_samples(self.redirector, self.folder / "samples", config.walk_frames)
        tracker.close()
        facts = {
            "checkpoint": str(checkpoint_path(self.folder, step)),
            "step": step,
            "seed": config.seed,
            "measured by": f"{config.eval_gazenet_backbone} at {config.eval_gazenet_savepath}",
            "sha256 of that estimator": self.facts["estimators"]["eval_gazenet"],
            "code revision": self.facts["code_revision"],
        }
        report = write_report(folder, results, facts)
        _print_result(results)
        say(f"\nReport:   {report}\nPictures: {folder}/*.png\nSamples:  {self.folder / 'samples'}/<person>/")

    def _record(self) -> None:
        """The configuration, the versions and the source, beside those of earlier starts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in (self.folder / "error.txt", *self.folder.glob("checkpoints/.*.tmp")):
            leftover.unlink(missing_ok=True)  # of a run that failed or was killed
        part = "evaluation" if self.config.skip_training else f"from_{self.start}" if self.start else ""
        suffix = f"_{part}" if part else ""
        versions = {"command": sys.argv, "code_revision": self.facts["code_revision"], "libraries": library_versions()}
        for name, text in (("config", self.config.to_json()), ("environment", json.dumps(versions, indent=2) + "\n")):
            write_text(self.folder / f"{name}{suffix}.json", text)
        snapshot(self.folder / f"source{suffix}.zip", self.folder)


def prepare(config: Config) -> Run:
    """Open, load and check everything, what is quick to check first. The run folder is not touched.

    Raises ValueError, OSError, FloatingPointError or RuntimeError with a message for the user.
    """
    for warning in (*config.warnings, *_ignored(config)):
        say(f"warning: {warning}")
    say(f"Settings that differ from the defaults:\n{config.describe()}\n")
    device, folder = select_device(config.device), Path(config.save_path)
    tune_cpu(config.num_threads)
    require_writable(folder, "save_path")
    lpips = build.build_perceptual_metric(config) if _measures(config) or config.coeff_lpips_loss else None
    start_file = _start_file(config, folder)
    if is_gan := config.redirector == "redirtrans-gan":
        arcface = build.build_arcface(config)
        _train_missing_pair(config, device)
    redirector = build.build_redirector(config).to(device)
    discriminator = build.build_discriminator(config, redirector).to(device)
    trainer = build.build_trainer(config, redirector, discriminator, None, device)
    trainer.lpips = lpips.to(device) if lpips else None
    trainer.arcface = arcface.to(device) if is_gan and arcface else None
    start, stored = _restore(start_file, trainer, config) if start_file else (0, {})
    sources.make_missing_data(config)
    if config.store_redirect_dataset and not is_set(config.gazecapture_file):
        raise ValueError("gazecapture_file: names no file, but store_redirect_dataset redirects its images; set it.")
    needs_train_set = config.store_redirect_dataset or not config.skip_training
    train_set = sources.build_training_set(config, faces=is_gan) if needs_train_set else None
    test_sets = sources.build_test_sets(config, faces=is_gan) if _measures(config) else []
    if not config.skip_training:
        sources.build_batches(config, train_set, start, device)  # too few samples is found out now, not after
    generation = sources.plan_redirected(config, train_set) if config.store_redirect_dataset else None
    if generation is not None:
        require_writable(generation.path.parent, "redirected_file" if is_set(config.redirected_file) else "save_path")
        is_done = config.skip_training or start >= config.num_training_steps
        generation.check(checkpoint_path(folder, start) if is_done else None, build.estimator_hashes(config)["gazenet"])
    patches = (None, None) if is_gan else (train_set, test_sets)
    estimators = _estimators(config, *patches, device)
    if is_gan and not config.skip_training and start < config.num_training_steps:
        train_set = build.build_inverted(config, train_set, redirector, estimators.get("gazenet"), device)
    if is_gan:
        estimators = {which: CroppedEstimator(network, config.image_size) for which, network in estimators.items()}
    trainer.estimator = estimators.get("gazenet")
    evaluator = estimators.get("eval_gazenet")
    run = Run(config, device, folder, redirector, trainer, evaluator, lpips, train_set, test_sets, start, generation)
    run.facts = {
        "config": config.to_json(),
        "code_revision": code_revision(),
        "estimators": build.estimator_hashes(config),
        "frozen": build.frozen_hashes(config),
    }
    if not config.skip_training:
        _say_what_changed(stored, run.facts)
    return run


def _train_missing_pair(config: Config, device: torch.device) -> None:
    """Train a small encoder and generator for redirtrans-gan where asked to and they are not there.

    Raises KeyboardInterrupt, with the state saved, if the user asks to stop.
    """
    if not config.train_missing_pair or config.skip_training:
        return
    if Path(config.e4e_weights).is_file():
        build.check_pair(config)
        return
    require_writable(Path(config.e4e_weights).parent, "e4e_weights")
    sources.make_missing_data(config)
    faces = sources.build_training_set(config, faces=True)
    estimator = _estimators(config, None, None, device).get("gazenet")
    build.train_missing_pair(config, faces, estimator, device)


def _ignored(config: Config) -> Iterator[str]:
    """A sentence for each setting that was given and has no effect."""
    if config.num_labeled_samples and not config.semi_supervised:
        yield "num_labeled_samples has no effect without semi_supervised; all labels are used."
    others = [key for key in config.sources if key in ignored_by(config.redirector)]
    if others:
        yield f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} no effect on {config.redirector}."
    if config.compile and config.redirector == "redirtrans-gan":
        yield "compile reaches the projector and the deprojector only; the frozen networks run as they are."
    if config.train_missing_pair and config.coeff_discriminator_loss:
        yield (
            "coeff_discriminator_loss compares codes with those of the generator's mapping network, which "
            "train_missing_pair does not train; set it to 0."
        )
    if config.augmentation_labels:
        yield "augmentation_labels has no effect here; the experiment is run by train_facenet.py."


def _measures(config: Config) -> bool:
    """False where a checkpoint is only loaded to make its redirected data set."""
    return config.compute_full_result or not (config.skip_training and config.store_redirect_dataset)


def _start_file(config: Config, folder: Path) -> Path | None:
    """The checkpoint to start from. What a training already made is continued or refused, never mixed with another."""
    newest = max(saved_steps(folder), default=0)
    if config.skip_training or (config.load_step and newest <= config.load_step):
        path = checkpoint_path(folder, config.load_step)
        if not path.is_file():
            steps = ", ".join(map(str, sorted(saved_steps(folder))))
            raise FileNotFoundError(f"load_step: {path}: no such file. " + f"There are steps {steps}." * bool(steps))
        return path
    if newest and not config.resume:
        raise ValueError(
            f"resume is false, but {checkpoint_path(folder, newest)} is there. Choose another save_path, or remove "
            f"the checkpoints after step {config.load_step}."
        )
    if config.load_step:
        say(f"Continuing from the newest checkpoint, step {newest}, rather than from load_step {config.load_step}.")
    return checkpoint_path(folder, newest) if newest else None


def _restore(path: Path, trainer: RedirectionTrainer, config: Config) -> tuple[int, dict[str, object]]:
    """Load a checkpoint; returns its step and what it holds besides the networks. Says what cannot be restored."""
    stored = load_checkpoint(path, trainer.modules, None if config.skip_training else trainer.optimizers)
    colour = json.loads(stored.get("config", "{}")).get("carry_colour", False)
    if colour != config.carry_colour:  # no weight tells
        raise ValueError(f"{path}: was trained with carry_colour {str(colour).lower()}. Set it so.")
    _require_same_frozen(path, stored, config)
    if trainer.latent_adversary is not None and "adversary" in stored:
        trainer.latent_adversary.load_state(stored["adversary"])
    step = int(stored.get("step", path.stem))
    say(f"Loaded {path} (step {step}).")
    if "optimizers" not in stored and not config.skip_training:
        say("It holds no optimiser state: training goes on with fresh Adam moments.")
    return step, stored


def _require_same_frozen(path: Path, stored: Mapping[str, object], config: Config) -> None:
    """Around other frozen networks the stored weights mean nothing. Raises ValueError."""
    before, now = stored.get("frozen", {}), build.frozen_hashes(config)
    different = [key for key in before.keys() | now if before.get(key) != now.get(key)]
    if different:
        raise ValueError(
            f"{path}: was trained with another file at {', '.join(sorted(different))} "
            f"(sha256 {', '.join(before.get(key, 'none')[:12] for key in sorted(different))}). Set that one."
        )


def _say_what_changed(stored: Mapping[str, object], facts: Mapping[str, object]) -> None:
    """A sentence if the run that goes on is not the one that wrote the checkpoint."""
    before, now = json.loads(stored.get("config", "{}")), json.loads(facts["config"])
    changed = [key for key in now if key in before and before[key] != now[key] and key in decides_weights()]
    if changed:
        say("It was trained with other values of " + ", ".join(changed) + "; the run goes on with those given now.")
    if stored.get("estimators", facts["estimators"])["gazenet"] != facts["estimators"]["gazenet"]:
        say("It was trained with another estimator than the one at gazenet_savepath now; the run goes on with this.")


def _estimators(
    config: Config, train_set: GazeDataset | None, test_sets: Sequence[GazeDataset] | None, device: torch.device
) -> dict[str, Estimator]:
    """Those that are needed, frozen: 'gazenet' for the losses, 'eval_gazenet'. Trains a missing one if asked to.

    train_set, test_sets: to train one with; None if they are not of patches, and are to be opened.
    """
    in_losses = not config.skip_training and build.needs_training_estimator(config)
    in_gate = config.store_redirect_dataset and config.redirected_max_error is not None
    wanted = ["gazenet"] * (in_losses or in_gate) + ["eval_gazenet"] * _measures(config)
    for which in wanted:
        path = getattr(config, f"{which}_savepath")
        if not is_set(path) and find_estimator_checkpoint(path) is None:
            raise ValueError(f"{which}_savepath is not set, but an estimator is needed; name its folder or file.")
    for which in wanted if config.train_missing_estimators else []:
        path = getattr(config, f"{which}_savepath")
        if is_set(path) and not is_trained(path):
            if test_sets is None:
                train_set, test_sets = (
                    sources.build_training_set(config),
                    sources.build_test_sets(config, in_pairs=False),
                )
            validation = [dataset for dataset in test_sets if dataset.name == sources.VALIDATION.name]
            labels = _labels_for(config, which)
            train_configured(labels, which, train_set or sources.build_training_set(config), validation, device)
    for which in wanted:
        path = Path(getattr(config, f"{which}_savepath"))
        if training_state(path).is_file():
            raise ValueError(
                f"{which}_savepath: the training of the estimator at {path} is not finished. Finish it by the command "
                "that began it, or set train_missing_estimators."
            )
    return {which: build.build_estimator(config, which).to(device) for which in wanted}


def _labels_for(config: Config, which: str) -> Config:
    """The configuration with the labels that an estimator may be trained on: those of the redirector, if it has few."""
    most = config.estimator_num_labeled_samples
    if which == "gazenet" and config.semi_supervised:
        most = min(most, config.num_labeled_samples)
    return config.model_copy(update={"estimator_num_labeled_samples": most, "redirected_file": "."})


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
        means = {name: summary[name]["mean"] for name in ("l1", "l1_person_mean")}
        parts.append(f"L1 {means['l1']:.3f} (person's mean image {means['l1_person_mean']:.3f})")
        if "identity_kept" in summary:
            parts.append(f"identity kept {summary['identity_kept']['mean']:.0%}")
        say(f"  {result.name:9} {'; '.join(parts)}")


if __name__ == "__main__":
    sys.exit(main())
