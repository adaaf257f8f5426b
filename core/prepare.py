"""From settings to a redirector's run: open, load and check everything, what is quick to check first.

Nothing is written but what is to be there before a run can be checked: the embedded data set and the estimators, where
they are missing and the settings ask for them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from checkpoints_manager import checkpoint_path
from core import build, distributed, sources
from core.autoencoder.run import train_missing_autoencoder
from core.command import UserError
from core.config_default import Config, decides_weights, ignored_by, is_set, unused_flags
from core.estimator.build import estimator_hashes, measuring_estimator, needs_training_estimator, training_estimator
from core.estimator.run import prepare_estimators
from core.estimator.spec import EstimatorSpec
from core.experiment.redirected import Generation
from core.facts import differences, say_differences
from core.files import require_writable
from core.owner import Owner, own
from core.record import settings_of
from core.resume import Start, restore, start_file
from core.run import Measuring, Run
from core.runtime import (
    be_deterministic,
    code_revision,
    require_compiler,
    require_deterministic,
    select_device,
    tune_cpu,
    warning_of_emulation,
)
from core.sense import require_pairs
from core.tracking import say
from core.trainer import RedirectionTrainer, StepSettings, build_optimizers, trained_parts
from dataset import GazeDataset, PersonImages
from dataset_aligned import AlignedDataset
from models.gazeheadnet import Estimator
from models.recrop import CroppedEstimator
from models.redirector import Redirector

Invert = Callable[[], PersonImages]


@dataclass(frozen=True)
class _Networks:
    """What is trained, as far as an earlier run came. frozen: sha256 of the files that it is built around, by key."""

    redirector: Redirector
    discriminator: nn.Module
    settings: StepSettings
    optimizers: Mapping[str, Optimizer]
    frozen: Mapping[str, str]
    start: Start


@dataclass(frozen=True)
class _Data:
    """train: None where none is needed.  generation: the redirected data set to write, if one is."""

    train: GazeDataset | None
    tests: Sequence[GazeDataset] | None
    generation: Generation | None


def prepare(config: Config) -> Run:
    """A run of which everything is there and fits. Its folder is this process' own until it is done, and holds no more.

    Raises UserError, OSError or FloatingPointError with a message for the user.
    """
    device = distributed.own_device(select_device(config.device), config.device)
    distributed.join(device)
    emulation = () if config.skip_training else warning_of_emulation(device, config.precision)
    for warning in (*config.warnings, *_ignored(config), *emulation):
        say(f"warning: {warning}")
    say(f"Settings that differ from the defaults:\n{config.describe()}\n")
    with distributed.telling_who_failed():
        run, invert = distributed.first_then_others(lambda: _prepare_one(config, device))
        with run.owner.released_on_error():
            remedy = "Start them with the same configuration, and with save_path on a disk that all see."
            distributed.require_same("save_path", f"step {run.start} of {config.num_training_steps}", remedy)
            return replace(run, train_set=invert()) if invert else run


def _prepare_one(config: Config, device: torch.device) -> tuple[Run, Invert | None]:
    if not config.skip_training:
        distributed.require_shares(config.batch_size)
    folder = Path(config.save_path)
    tune_cpu(config.num_threads)
    if config.deterministic:
        if not config.skip_training:
            require_deterministic(config.redirector, device)
        be_deterministic()
    if config.compile and not config.skip_training:
        require_compiler(device)
    require_writable(folder, "save_path")
    owner = own(folder, "save_path") if distributed.is_first() else Owner(None)
    with owner.released_on_error():
        return _prepare(config, device, folder, owner)


def _prepare(config: Config, device: torch.device, folder: Path, owner: Owner) -> tuple[Run, Invert | None]:
    """A run, and what gives it the codes of its faces if it wants them: a work that all processes share."""
    lpips = build.build_perceptual_metric(config) if _measures(config) or config.coeff_lpips_loss else None
    checkpoint, arcface = start_file(config, folder), build.build_arcface(config)
    is_around_one = "train_missing_pair" not in ignored_by(config.redirector)
    if config.train_missing_pair and is_around_one and not config.skip_training:
        train_missing_autoencoder(config, _wanted_estimators(config, wants_codes=True), device)
    networks = _build_networks(config, checkpoint, device)
    redirector, start = networks.redirector, networks.start
    trains = not config.skip_training and start.step < config.num_training_steps
    sources.make_missing_data(config, faces=redirector.wants_faces)
    data = _open_data(config, redirector, start, device)
    patches = _Data(None, None, None) if redirector.wants_faces else data
    wanted = _wanted_estimators(config, redirector.wants_codes)
    estimators = prepare_estimators(config, wanted, device, patches.train, patches.tests)
    invert = None
    if redirector.wants_codes and trains:
        assert isinstance(data.train, AlignedDataset)
        seen_by = estimators.get("gazenet")
        invert = partial(build.build_inverted, config, data.train, redirector, networks.frozen, seen_by, device)
    seeing = {key: _seeing(estimator, redirector, config) for key, estimator in estimators.items()}
    measuring = Measuring(
        seeing.get("eval_gazenet"), lpips.to(device) if lpips else None, arcface.to(device) if arcface else None
    )
    hashes = estimator_hashes(config)
    facts = {
        "config": config.to_json(),
        "code_revision": code_revision(),
        "estimators": hashes,
        "frozen": networks.frozen,
    }
    if not config.skip_training:
        _say_what_changed(start.stored, facts)
    run = Run(
        config=config,
        device=device,
        folder=folder,
        start=start.step,
        redirector=redirector,
        trainer=_trainer(config, networks, seeing.get("gazenet"), measuring) if trains else None,
        estimator=seeing.get("gazenet"),
        measures=_measures(config),
        measuring=measuring,
        train_set=data.train,
        test_sets=data.tests or [],
        generation=data.generation,
        hashes=hashes,
        facts=facts,
        owner=owner,
    )
    return run, invert


def _measures(config: Config) -> bool:
    """Whether a run evaluates: not where a checkpoint is only loaded to make its redirected data set."""
    return config.compute_full_result or not (config.skip_training and config.store_redirect_dataset)


def _build_networks(config: Config, checkpoint: Path | None, device: torch.device) -> _Networks:
    """Redirector, discriminator and their optimisers, with what the checkpoint has of them."""
    redirector = build.build_redirector(config).to(device)
    discriminator = build.build_discriminator(config, redirector).to(device)
    settings = build.step_settings(config, device)
    optimizers = build_optimizers(redirector, discriminator, settings)
    frozen, start = build.frozen_hashes(redirector), Start()
    if checkpoint:
        modules = trained_parts(redirector, discriminator)
        start = restore(checkpoint, modules, None if config.skip_training else optimizers, config, frozen)
    return _Networks(redirector, discriminator, settings, optimizers, frozen, start)


def _trainer(
    config: Config, networks: _Networks, estimator: nn.Module | None, measuring: Measuring
) -> RedirectionTrainer:
    adversary = build.build_adversary(config, networks.redirector, networks.discriminator)
    state = networks.start.stored.get("adversary")
    if isinstance(state, Mapping):
        adversary.load_state(state)
    objective = build.build_objective(
        config, networks.redirector, adversary, estimator, measuring.lpips, measuring.arcface
    )
    return RedirectionTrainer(networks.redirector, adversary, objective, networks.optimizers, networks.settings)


def _open_data(config: Config, redirector: Redirector, start: Start, device: torch.device) -> _Data:
    """The data sets that the run needs."""
    if config.store_redirect_dataset and not is_set(config.gazecapture_file):
        raise UserError("gazecapture_file: names no file, but store_redirect_dataset redirects its images; set it.")
    faces = redirector.wants_faces
    needs_train_set = config.store_redirect_dataset or not config.skip_training
    train_set = sources.build_training_set(config, faces=faces) if needs_train_set else None
    test_sets = sources.build_test_sets(config, faces=faces) if _measures(config) else []
    if train_set is None:
        return _Data(None, test_sets, None)
    if not config.skip_training:
        # Too few samples is found out now, not after the estimators are trained.
        require_pairs(train_set)
        sources.build_batches(config, train_set, start.step, device)
        if config.pairs_within_group:
            sources.say_alone_in_group(train_set)
    generation = _plan_generation(config, train_set, start) if config.store_redirect_dataset else None
    return _Data(train_set, test_sets, generation)


def _plan_generation(config: Config, train_set: GazeDataset, start: Start) -> Generation:
    """Raises UserError if another redirected data set is where it is to be written."""
    generation = sources.plan_redirected(config, train_set)
    require_writable(generation.path.parent, "redirected_file" if is_set(config.redirected_file) else "save_path")
    is_done = config.skip_training or start.step >= config.num_training_steps
    made_by = checkpoint_path(Path(config.save_path), start.step) if is_done else None
    generation.check(made_by, training_estimator(config).sha256())
    return generation


def _seeing(estimator: Estimator, redirector: Redirector, config: Config) -> nn.Module:
    """The estimator as it looks at what the redirector makes: patches, or aligned faces through their crop."""
    return CroppedEstimator(estimator, config.image_size) if redirector.wants_faces else estimator


def _ignored(config: Config) -> Iterator[str]:
    """A sentence for each setting that was given and has no effect."""
    if config.num_labeled_samples and not config.semi_supervised:
        yield "num_labeled_samples has no effect without semi_supervised; all labels are used."
    others = [key for key in config.sources if key in ignored_by(config.redirector)]
    if others:
        yield f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} no effect on {config.redirector}."
    if config.compile and distributed.wanted_size() > 1:
        yield "compile reaches the trained networks alone, one by one, where several processes train."
    if config.train_missing_pair and config.coeff_discriminator_loss:
        yield (
            "coeff_discriminator_loss compares codes with those of the generator's mapping network, which "
            "train_missing_pair does not train; set it to 0."
        )
    if config.evaluate_only:
        yield "evaluate_only is of train_facenet.py; here --skip-training --load-step N evaluates a checkpoint."
    elif flags := unused_flags(config, "train"):
        yield f"no effect on train_st_ed.py: {', '.join(flags)}."
    if config.augmentation_labels:
        yield "augmentation_labels has no effect here; the experiment is run by train_facenet.py."


def _say_what_changed(stored: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """A sentence if the run that goes on is not the one that wrote the checkpoint."""
    changed = differences(settings_of(stored), settings_of(facts), only_known=True)
    done = stored.get("step", 0) >= settings_of(facts)["num_training_steps"]
    consequence = "it is complete, and they change nothing" if done else "the run goes on with those given now"
    say_differences([key for key in changed if key in decides_weights()], consequence)
    before = stored.get("estimators", facts["estimators"])
    if isinstance(before, Mapping) and before.get("gazenet") != facts["estimators"]["gazenet"]:
        say("It was trained with another estimator than the one at gazenet_savepath now; the run goes on with this.")


def _wanted_estimators(config: Config, wants_codes: bool) -> list[EstimatorSpec]:
    """Those that the run looks through: in the losses or the gate of redirected data, and in measuring."""
    in_losses = not config.skip_training and needs_training_estimator(config, wants_codes)
    in_gate = config.store_redirect_dataset and config.redirected_max_error is not None
    return [training_estimator(config)] * (in_losses or in_gate) + [measuring_estimator(config)] * _measures(config)
