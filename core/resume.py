"""Which checkpoint a run starts from, and what of the run that wrote it still holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from checkpoints_manager import checkpoint_path, last_sound_step, read_checkpoint, saved_steps, take_over
from core.command import UserError
from core.config_default import Config, ignored_by
from core.facts import differences
from core.files import taken_apart
from core.record import settings_of
from core.tracking import say


@dataclass(frozen=True)
class Start:
    """The steps done when a run begins, and what the checkpoint holds besides the networks."""

    step: int = 0
    stored: Mapping[str, object] = field(default_factory=dict)


def start_file(config: Config, folder: Path) -> Path | None:
    """The checkpoint to start from. What a training already made is continued or refused, never mixed with another.

    Raises UserError if it is not there, or if the run is not to be continued.
    """
    newest = max(saved_steps(folder), default=0)
    if config.skip_training or (config.load_step and newest <= config.load_step):
        path = checkpoint_path(folder, config.load_step)
        if not path.is_file():
            steps = ", ".join(map(str, sorted(saved_steps(folder))))
            there = f"There are steps {steps}." if steps else "Put one there, or set save_path to a run folder."
            raise UserError(f"load_step: {path}: no such file. {there}")
        return path
    if config.load_step and newest and not config.skip_training and config.resume:
        newest = _soundest(config, folder, newest)
    if newest and not config.resume:
        raise UserError(
            f"resume is false, but {checkpoint_path(folder, newest)} is there. Choose another save_path, or remove the "
            + (f"checkpoints after step {config.load_step}." if config.load_step else "checkpoints there.")
        )
    if config.load_step and newest > config.load_step:
        say(f"Continuing from the newest checkpoint, step {newest}, rather than from load_step {config.load_step}.")
    return checkpoint_path(folder, newest) if newest else None


def _soundest(config: Config, folder: Path, newest: int) -> int:
    """The newest checkpoint from load_step on that is not damaged, if there is one; else the newest."""
    sound = last_sound_step(folder, newest + 1)
    if sound is None or sound == newest or sound < config.load_step:
        return newest
    say(f"{checkpoint_path(folder, newest)} is damaged; the newest sound checkpoint is {sound}.pt.")
    return sound


def restore(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer] | None,
    config: Config,
    frozen: Mapping[str, str],
) -> Start:
    """Load a checkpoint into modules and, in a training, optimisers. Says what cannot be restored.

    frozen: key -> sha256 of the frozen files that the redirector is built around.
    Raises UserError if it does not fit.
    """
    remedy = "Start from another checkpoint (load_step), or choose another save_path."
    content = read_checkpoint(path)
    with taken_apart(path, remedy):
        _require_same_redirector(path, settings_of(content), config)
    stored = take_over(content, path, modules, optimizers)
    with taken_apart(path, remedy):
        _require_same_frozen(path, stored, frozen)
        step = int(str(stored.get("step", path.stem)))
    say(f"Loaded {path} (step {step}).")
    if optimizers is not None and "optimizers" not in stored:
        say("It holds no optimiser state: training goes on with fresh Adam moments.")
    return Start(step, stored)


def _require_same_redirector(path: Path, before: Mapping[str, object], config: Config) -> None:
    """Raises UserError if another one was trained; what a published checkpoint does not say, its weights tell."""
    kind, colour = before.get("redirector", config.redirector), before.get("carry_colour", False)
    if kind != config.redirector:
        raise UserError(f"{path}: was trained with redirector {kind}. Set it so, or choose another save_path.")
    if colour != config.carry_colour and "carry_colour" not in ignored_by(config.redirector):  # no weight tells
        raise UserError(f"{path}: was trained with carry_colour {str(colour).lower()}. Set it so.")


def _require_same_frozen(path: Path, stored: Mapping[str, object], now: Mapping[str, str]) -> None:
    """Around other frozen networks the stored weights mean nothing. Raises UserError."""
    before = stored.get("frozen", {})
    if not isinstance(before, Mapping):
        raise TypeError(f"frozen is {before!r}")
    different = sorted(differences(before, now))
    if different:
        raise UserError(
            f"{path}: was trained with another file at {', '.join(different)} "
            f"(sha256 {', '.join(before.get(key, 'none')[:12] for key in different)}). Set that one."
        )
