"""A redirector from a run folder, a checkpoint of this project, or the published one with its configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints_manager import checkpoint_path, read_checkpoint, saved_steps, take_over
from core.build import build_redirector
from core.command import UserError
from core.config_default import Config
from core.config_reader import load_config
from core.files import taken_apart
from core.record import settings_of
from core.runtime import select_device
from models.redirector import Redirector

OURS = Path(__file__).resolve().parents[2] / "pretrained_models" / "photographs.pt"  # comes with the repository
REMEDY = "Name a run folder of train_st_ed.py, or one of its checkpoints."


@dataclass(frozen=True)
class Loaded:
    """A redirector of patches, ready to be used, with the settings that it was built by."""

    redirector: Redirector
    settings: Config
    device: torch.device

    @property
    def size(self) -> int:
        """Pixels a side of what its networks see."""
        return self.settings.image_size


def load(checkpoint: str | Path | None = None, config: str | Path | None = None, device: str = "auto") -> Loaded:
    """Load a redirector.

    checkpoint: a run folder, of which the newest checkpoint is taken, or a file; None: OURS.
    config: the JSON file that it was trained with, for a checkpoint that does not hold it, as the published one.
    device: auto, cpu, cuda or cuda:N.
    Raises UserError if there is none, or one that cannot redirect photographs.
    """
    path = checkpoint_of(OURS if checkpoint is None else Path(checkpoint))
    content = read_checkpoint(path, instead="--checkpoint {path}")
    settings = load_config([str(config)], unused=Config.model_fields) if config else _stored_settings(content, path)
    if settings.redirector == "redirtrans-gan":
        found = "redirtrans-gan, which redirects aligned faces and no photographs"
        raise UserError(str(path), found, "st-ed, redirtrans or st-ed-flow", "Take a checkpoint of one of these.")
    redirector = build_redirector(settings)
    take_over(content, path, dict(redirector.named_children()))
    on = select_device(device)
    return Loaded(redirector.to(on).eval().requires_grad_(False), settings, on)


def checkpoint_of(path: Path) -> Path:
    """The file of a run folder's newest checkpoint, or the file itself. Raises UserError if there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"--checkpoint: {path}: no such file or folder. {REMEDY}")
    steps = saved_steps(path)
    if not steps:
        raise UserError(f"--checkpoint: {path}: no checkpoints/<step>.pt in it. {REMEDY}")
    return checkpoint_path(path, steps[-1])


def _stored_settings(content: Mapping[str, Any], path: Path) -> Config:
    """Those that a checkpoint was written with; of settings that are known no more nothing depends."""
    if "config" not in content and not {"encoder", "decoder"} <= content.keys():
        found = ", ".join(map(str, list(content)[:5]))
        raise UserError(str(path), f"a file of {found}", "encoder and decoder of a redirector", REMEDY)
    if "config" not in content:
        raise UserError(
            f"{path}: does not say how its networks are built. Name the configuration that it was trained with; of the "
            "published ST-ED checkpoint: --config config/ST-ED.json."
        )
    with taken_apart(path, REMEDY):
        stored = {key: value for key, value in settings_of(content).items() if key in Config.model_fields}
        return Config.model_validate_json(json.dumps(stored))
