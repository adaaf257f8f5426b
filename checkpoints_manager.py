"""Checkpoints of a redirector: `<run>/checkpoints/<step>.pt`, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from core.command import UserError
from core.files import taken_apart
from core.torch_files import is_damaged, write_torch_file
from utils import DamagedWeights, load_state, read_torch_file

FORMAT_VERSION = 1
_REMEDY = "Use the configuration that it was trained with, or another save_path."


def checkpoint_path(run_folder: Path, step: int) -> Path:
    return run_folder / "checkpoints" / f"{step}.pt"


def saved_steps(run_folder: Path) -> list[int]:
    """Steps that have a checkpoint, ascending."""
    folder = run_folder / "checkpoints"
    return sorted(int(path.stem) for path in folder.glob("*.pt") if path.stem.isdecimal() and path.stem.isascii())


def save_checkpoint(
    run_folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    facts: Mapping[str, object],
    keep: int = 0,
) -> Path:
    """Write `<step>.pt` and, if `keep` is not 0, remove the earliest others so that `keep` are left.

    modules: by name; ST-ED's under the published `encoder`, `decoder`, `discriminator`.
    facts: plain data (configuration, code revision, ...) stored beside them.
    """
    path = checkpoint_path(run_folder, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {name: module.state_dict() for name, module in modules.items()}
    content["optimizers"] = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    if any(parameter.is_cuda for module in modules.values() for parameter in module.parameters()):
        content = tree_map(lambda value: value.cpu() if isinstance(value, Tensor) else value, content)
    content |= {"step": step, "format_version": FORMAT_VERSION, **facts}
    write_torch_file(path, content)
    others = [other for other in saved_steps(run_folder) if other != step]
    for old in others[: max(len(others) - keep + 1, 0)] if keep else []:
        checkpoint_path(run_folder, old).unlink()
    return path


def last_sound_step(run_folder: Path, before: int) -> int | None:
    """The newest checkpoint before a step that is not damaged."""
    steps = [step for step in saved_steps(run_folder) if step < before]
    return next((step for step in reversed(steps) if not is_damaged(checkpoint_path(run_folder, step))), None)


def read_checkpoint(path: Path, instead: str = "--load-step {step}") -> dict[str, Any]:
    """What a published checkpoint or one of ours holds, by name.

    instead: how to have an earlier one, by `step` or `path`, taken in place of one that is damaged.
    Raises UserError if it is none, or damaged, or of later code.
    """
    try:
        content = read_torch_file(path)
    except DamagedWeights as error:
        raise DamagedWeights(f"{error}{_earlier(path, instead)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dictionary by name, found {type(content).__name__}. Not a redirector.")
    with taken_apart(path, _REMEDY):
        if content.get("format_version", FORMAT_VERSION) > FORMAT_VERSION:
            raise UserError(f"{path}: written by a newer version of this code. Update to load it.")
    return content


def _earlier(path: Path, instead: str) -> str:
    """What to say of the newest earlier checkpoint of the same run; '' if there is none."""
    folder = path.parent.parent
    if not path.stem.isdecimal() or checkpoint_path(folder, int(path.stem)) != path:
        return ""
    step = last_sound_step(folder, int(path.stem))
    if step is None:
        return ""
    earlier = checkpoint_path(folder, step)
    return f" The newest sound one before it is {earlier}: {instead.format(step=step, path=earlier)} takes it."


def load_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
) -> dict[str, object]:
    """`take_over` of what `read_checkpoint` reads."""
    return take_over(read_checkpoint(path), path, modules, optimizers)


def take_over(
    content: Mapping[str, Any],
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
) -> dict[str, object]:
    """Load what a checkpoint holds; returns its other entries (step, config, ...).

    optimizers: restored where the file has them; the published files do not, and then
    `optimizers` is missing in what is returned, so that the caller can say so.
    Raises UserError that names the file, the entry and the keys.
    """
    if not set(modules) <= content.keys():
        found = ", ".join(map(str, list(content)[:5]))
        raise UserError(f"{path}: expected the entries {', '.join(modules)}, found {found}. Not a redirector.")
    for name, module in modules.items():
        load_state(module, content[name], f"{path}, entry '{name}'", _REMEDY)
    for name, optimizer in (optimizers or {}).items():
        if "optimizers" in content:
            with taken_apart(f"{path}, entry 'optimizers'", _REMEDY):
                optimizer.load_state_dict(content["optimizers"][name])
    return {name: value for name, value in content.items() if name not in modules}
