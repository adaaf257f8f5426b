"""Published and self-trained weights into our modules, strictly: never a silent start with random ones."""

from collections.abc import Callable
from pathlib import Path

from models.gazeheadCompact import CompactGazeHeadNet, CompactResidualGazeHeadNet
from models.gazeheadnet import Estimator, GazeHeadNet
from models.gazeheadResnet import GazeHeadResNet
from utils import load_state, read_torch_file

BACKBONES: dict[str, Callable[[], Estimator]] = {
    "vgg16": GazeHeadNet,
    "resnet50": GazeHeadResNet,
    "compact": CompactGazeHeadNet,
    "compact-residual": CompactResidualGazeHeadNet,
}
PUBLISHED_FILES = {"vgg16": "baseline_estimator_vgg.tar", "resnet50": "baseline_estimator_resnet.tar"}


def build_estimator(backbone: str) -> Estimator:
    """An estimator with random weights. Raises ValueError for an unknown backbone."""
    if backbone not in BACKBONES:
        raise ValueError(f"unknown estimator backbone '{backbone}'; choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[backbone]()


def load_estimator(path: str | Path, backbone: str, *, key: str) -> Estimator:
    """A trained estimator, frozen: evaluation mode for good, no gradient for its weights.

    path: a folder that holds checkpoints/at_step_<7 digits>.pth.tar (the highest step counts) or such a file,
    a bare state dict.  key: the configuration key the path comes from, for the error messages.
    Raises FileNotFoundError if there is none, ValueError if it does not fit the backbone.
    """
    remedy = _remedy(Path(path), backbone, key)
    file = find_estimator_checkpoint(path)
    if file is None:
        raise FileNotFoundError(
            f"{key}: no weights of a '{backbone}' estimator at {estimator_checkpoint(path, 0)}. {remedy}"
        )
    estimator = build_estimator(backbone)
    try:
        state = read_torch_file(file)
    except ValueError as error:
        raise ValueError(f"{key}: {error} {remedy}") from error
    load_state(estimator, state, where=f"{key}: {file} ('{backbone}' estimator)", remedy=remedy)
    return estimator.freeze()


def find_estimator_checkpoint(path: str | Path) -> Path | None:
    """The file itself, or the checkpoint of the highest step in the folder; None if there is none."""
    path = Path(path)
    if path.is_file():
        return path
    # 7 digits: the order of names is the order of steps.
    return max(path.glob("checkpoints/at_step_" + "[0-9]" * 7 + ".pth.tar"), default=None)


def estimator_checkpoint(path: str | Path, step: int) -> Path:
    """Where an estimator's weights lie in its folder, as published."""
    return Path(path) / "checkpoints" / f"at_step_{step:07d}.pth.tar"


def _remedy(path: Path, backbone: str, key: str) -> str:
    flag = " --evaluator" if key.startswith("eval_") else ""
    ways = [f"train it: python train_facenet.py CONFIG.json{flag}", "set train_missing_estimators to true"]
    if backbone in PUBLISHED_FILES:
        folder = path.parent if path.is_file() else path
        ways.append(f"download {PUBLISHED_FILES[backbone]} and put it at {estimator_checkpoint(folder, 0)}")
    return f"Check {key} and its backbone, or {'; or '.join(ways)}."
