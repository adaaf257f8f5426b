"""A redirector's run: train it, redirect the labelled images, measure it, write the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from checkpoints_manager import checkpoint_path, save_checkpoint, saved_steps
from core import build, distributed, sources
from core.command import DONE, STOPPED
from core.config_default import Config
from core.evaluator import Measurements, evaluate
from core.experiment.redirected import Generation
from core.owner import Owner
from core.record import record_start
from core.report import Pictures, layer_weights_picture, picture_name, print_result, sample_pairs, write_report
from core.runtime import stop_on_signal
from core.tracking import Tracker, say
from core.trainer import Housekeeping, RedirectionTrainer
from dataset import GazeDataset, PersonImages
from models.arcface import ArcFace
from models.redirector import Redirector
from utils import write_png


@dataclass(frozen=True)
class Measuring:
    """What an evaluation looks through; None where it is left out."""

    estimator: nn.Module | None = None
    lpips: nn.Module | None = None
    arcface: ArcFace | None = None


@dataclass(frozen=True)
class Run:
    """Everything a run needs, checked before anything is written.

    trainer: None if there is nothing to train.  estimator: of the losses and of the redirected data's gate.
    measures: whether there is an evaluation at all.
    hashes: sha256 of each estimator's file.  facts: what a checkpoint says of itself, as plain data.
    owner: of the folder, until the run is done.
    """

    config: Config
    device: torch.device
    folder: Path
    start: int
    redirector: Redirector
    trainer: RedirectionTrainer | None
    estimator: nn.Module | None
    measures: bool
    measuring: Measuring
    train_set: PersonImages | None
    test_sets: Sequence[GazeDataset]
    generation: Generation | None
    hashes: Mapping[str, str]
    facts: Mapping[str, object]
    owner: Owner

    def go(self) -> int:
        """Train, redirect the labelled images, evaluate, and give the folder back; returns the exit code."""
        with distributed.telling_who_failed():
            with self.owner:
                code = self._go()
            distributed.leave()
        return code

    def _go(self) -> int:
        config = self.config
        if distributed.is_first():
            record_start(self.folder, config, self.facts, self.start, self.device)
        step = self.start
        if not config.skip_training:
            step = self._train()
            if step < config.num_training_steps:
                say(f"Stopped at step {step}; the same command continues from there.")
                return STOPPED
        if self.generation is not None:
            self._redirect_labeled(self.generation, step)
        if config.compute_full_result or (config.skip_training and self.measures):
            self._full_result(step)
        return DONE

    def whereabouts(self) -> str:
        """From where a run that failed goes on."""
        last = saved_steps(self.folder)
        return f"the last checkpoint is {last[-1]}.pt" if last else "there is no checkpoint yet"

    def _train(self) -> int:
        config, trainer = self.config, self.trainer
        if trainer is None:
            say(f"Training is complete ({self.start} steps); choose another save_path to start over.")
            return self.start
        tracker = Tracker(self.folder, use_tensorboard=config.use_tensorboard, start_step=self.start)
        pictures = self._pictures(self._shown_set())
        keeping = Housekeeping(
            test=lambda step: self._metrics(config.test_subsample),
            pictures=lambda step: self._write_pictures(pictures, tracker, step),
            save=lambda step: self._save(trainer, step),
        )
        assert self.train_set is not None
        batches = sources.build_batches(config, self.train_set, self.start, self.device)
        with stop_on_signal() as stop:
            step = trainer.fit(
                batches,
                build.cadence(config),
                tracker,
                keeping,
                start=self.start,
                num_steps=config.num_training_steps,
                stop=stop,
            )
        tracker.close()
        return step

    def _write_pictures(self, pictures: Pictures, tracker: Tracker, step: int) -> None:
        if not distributed.is_first():
            return
        comparison = pictures.comparison_picture(self.redirector)
        write_png(self.folder / "samples" / f"step_{step}.png", comparison)
        shown = {"samples/comparison": comparison}
        if weights := self.redirector.row_weights():
            shown["layer_weights"] = layer_weights_picture(weights)
            write_png(self.folder / "samples" / f"layer_weights_{step}.png", shown["layer_weights"])
        tracker.log(step, {}, shown)

    def _save(self, trainer: RedirectionTrainer, step: int) -> None:
        if not distributed.is_first():
            return
        state = trainer.adversary.state()
        facts = {**self.facts, "adversary": state} if state else self.facts
        save_checkpoint(self.folder, step, trainer.modules, trainer.optimizers, facts, self.config.keep_checkpoints)

    def _redirect_labeled(self, generation: Generation, step: int) -> None:
        generation.write(
            self.redirector,
            checkpoint_path(self.folder, step),
            step,
            estimator=self.estimator,
            estimator_sha256=self.hashes["gazenet"],
            batch_size=self.config.eval_batch_size,
            device=self.device,
            workers=self.config.num_data_loaders,
            code_revision=str(self.facts["code_revision"]),
        )

    def _evaluate(self, dataset: GazeDataset, fraction: float, full: bool) -> Measurements:
        assert self.measuring.estimator is not None
        return evaluate(
            self.redirector,
            self.measuring.estimator,
            dataset,
            seed=self.config.seed,
            fraction=fraction,
            batch_size=self.config.eval_batch_size,
            disentanglement=self.config.eval_disentanglement,
            pictures=full,
            within_group=self.config.eval_pairs_within_group,
            lpips=self.measuring.lpips,
            arcface=self.measuring.arcface,
            device=self.device,
            workers=self.config.num_data_loaders,
        )

    def _metrics(self, fraction: float) -> dict[str, float]:
        """Means of every data set under their TensorBoard tags."""
        results = [self._evaluate(dataset, fraction, full=False) for dataset in self.test_sets]
        return {tag: value for result in results for tag, value in result.tags().items()}

    def _shown_set(self) -> PersonImages:
        """The test persons if there are any, else the training persons."""
        test: PersonImages | None = next((dataset for dataset in self.test_sets if dataset.name == "gc/test"), None)
        shown = test or next(iter(self.test_sets), None) or self.train_set
        assert shown is not None
        return shown

    def _pictures(self, dataset: PersonImages) -> Pictures:
        config = self.config
        pairs = sample_pairs(dataset, config.num_sample_persons, config.seed, config.eval_pairs_within_group)
        return Pictures(dataset, pairs, self.device)

    def _full_result(self, step: int) -> None:
        """Every test set in full: report, pictures, samples."""
        folder = self.folder / "report" / str(step)
        if not self.test_sets:
            say("No evaluation: no test data set is configured and there.")
            return
        tracker, results = Tracker(self.folder, use_tensorboard=self.config.use_tensorboard), []
        for dataset in self.test_sets:
            results.append(self._evaluate(dataset, 1.0, full=True))
            if not distributed.is_first():
                continue
            pictures = self._pictures(dataset)
            comparison = pictures.comparison_picture(self.redirector)
            write_png(folder / picture_name(dataset.name), comparison)
            tags = {f"full/{tag}": value for tag, value in results[-1].tags().items()}
            tracker.log_anew(step, tags, {f"full/{dataset.name}": comparison})
            if dataset is self._shown_set():
                self._write_samples(pictures, folder)
        tracker.close()
        if not distributed.is_first():
            return
        report = write_report(folder, results, self._report_facts(step))
        print_result(results)
        say(f"\nReport:   {report}\nPictures: {folder}/*.png\nSamples:  {self.folder / 'samples'}/<person>/")

    def _write_samples(self, pictures: Pictures, folder: Path) -> None:
        for factor in ("gaze", "head"):
            write_png(folder / f"walk_{factor}.png", pictures.walk_picture(self.redirector, factor))
        pictures.write_samples(self.redirector, self.folder / "samples", self.config.walk_frames)

    def _report_facts(self, step: int) -> dict[str, object]:
        config = self.config
        within = {"partners": "of the image's group, where it has others"} if config.eval_pairs_within_group else {}
        return within | {
            "checkpoint": str(checkpoint_path(self.folder, step)),
            "step": step,
            "seed": config.seed,
            "measured by": f"{config.eval_gazenet_backbone} at {config.eval_gazenet_savepath}",
            "sha256 of that estimator": self.hashes["eval_gazenet"],
            "code revision": self.facts["code_revision"],
        }
