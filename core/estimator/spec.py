"""An estimator in words: which of the two, where it lies, and what its weights are trained by."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from core.command import UserError
from core.config_default import is_set
from core.files import file_sha256, read_json
from models.load_pretrained_model import facts_file, find_estimator_checkpoint


@dataclass(frozen=True)
class EstimatorSpec:
    """One of the two estimators as the configuration names it.

    key: 'gazenet', of the training losses, or 'eval_gazenet', that measures; their settings begin so.
    path: its folder or its file.  image_size: of the images that it is to see.
    max_labels: of how many it may know the labels, where a redirector knows no more; None for any number.
    """

    key: Literal["gazenet", "eval_gazenet"]
    path: Path
    backbone: str
    image_size: int
    max_labels: int | None = None

    @property
    def path_key(self) -> str:
        return f"{self.key}_savepath"

    @property
    def backbone_key(self) -> str:
        return f"{self.key}_backbone"

    @property
    def is_named(self) -> bool:
        """Whether a path was given."""
        return is_set(str(self.path))

    @property
    def folder(self) -> Path:
        """Where results go: the estimator's folder, or one named after its file."""
        return self.path.with_name(self.path.name + "_evaluation") if self.path.is_file() else self.path

    def checkpoint(self) -> Path | None:
        """The file with its weights, the best where there are several; None if there is none."""
        return find_estimator_checkpoint(self.path)

    def sha256(self) -> str:
        """Of that file, '' if there is none: frozen parts are named, not stored again."""
        file = self.checkpoint()
        return file_sha256(file) if file else ""


@dataclass(frozen=True)
class EstimatorSettings:
    """What decides an estimator's weights, together with the data. The names are those of the stored facts.

    init: what the weights start from, as the user named it.
    learning_rate: the highest.  decay, decay_steps: of lr_schedule 'step'.
    flip: mirror half of the images and their yaw labels.
    vary_framing: zoom and shift each image, as in `core/estimator/variety.py`.
    num_labeled_samples: use at most so many, drawn over all persons; None for all.
    precision: of the network in training; it is always measured in float32.
    real_share: of each batch, of data that has redirected images, too; None for all of them mixed.
    """

    backbone: str
    num_steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    init: str = "none"
    lr_schedule: Literal["step", "one-cycle"] = "step"
    decay_steps: int = 50_000
    decay: float = 0.5
    flip: bool = False
    vary_framing: bool = False
    num_labeled_samples: int | None = None
    precision: str = "float32"
    real_share: float | None = None


def stored_facts(checkpoint: Path) -> dict[str, Any]:
    """What is noted beside weights on how they came about; nothing of published ones.

    Raises UserError if the note is damaged.
    """
    file = facts_file(checkpoint)
    remedy = "Remove it: it only says how the weights beside it came about."
    try:
        facts = read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file}: not a JSON file ({error}). {remedy}") from error
    if not isinstance(facts, dict):
        raise UserError(str(file), f"holds a {type(facts).__name__}", "an object", remedy)
    return facts


def setting_names(facts: Iterable[str], spec: EstimatorSpec) -> list[str]:
    """Names of facts as the user knows them: configuration keys, where there are any."""
    keys = {field.name: f"estimator_{field.name}" for field in fields(EstimatorSettings)}
    keys |= {"backbone": spec.backbone_key, "seed": "seed", "precision": "precision"}
    keys |= {"samples": "the number of samples"}
    return [keys.get(name, name) for name in facts]
