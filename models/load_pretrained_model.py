"""Published, torchvision's and own weights into our modules, strictly: never a silent start with random ones."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision.models import ResNet50_Weights, VGG16_Weights

from models.gazeheadCompact import CompactGazeHeadNet, CompactResidualGazeHeadNet
from models.gazeheadnet import Estimator, GazeHeadNet
from models.gazeheadResnet import GazeHeadResNet
from utils import file_sha256, load_state, read_torch_file, strip_module_prefix

BACKBONES: dict[str, Callable[[], Estimator]] = {
    "vgg16": GazeHeadNet,
    "resnet50": GazeHeadResNet,
    "compact": CompactGazeHeadNet,
    "compact-residual": CompactResidualGazeHeadNet,
}
PUBLISHED_FILES = {"vgg16": "baseline_estimator_vgg.tar", "resnet50": "baseline_estimator_resnet.tar"}
IMAGENET_URLS = {"vgg16": VGG16_Weights.IMAGENET1K_V1.url, "resnet50": ResNet50_Weights.IMAGENET1K_V1.url}


def build_estimator(backbone: str) -> Estimator:
    """An estimator with random weights. Raises ValueError for an unknown backbone."""
    if backbone not in BACKBONES:
        raise ValueError(f"unknown estimator backbone '{backbone}'; choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[backbone]()


def load_estimator(path: str | Path, backbone: str, *, key: str) -> Estimator:
    """A trained estimator, frozen: evaluation mode for good, no gradient for its weights.

    path: what `find_estimator_checkpoint` finds there, a bare state dict.
    key: the configuration key the path comes from, for the error messages.
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
    """The file itself; of a folder, checkpoints/best.pth.tar if it is there, else the checkpoint of the highest step.

    Returns None if there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if best_checkpoint(path).is_file():
        return best_checkpoint(path)
    # 7 digits: the order of names is the order of steps.
    return max(path.glob("checkpoints/at_step_" + "[0-9]" * 7 + ".pth.tar"), default=None)


def estimator_checkpoint(path: str | Path, step: int) -> Path:
    """Where an estimator's weights lie in its folder, as published."""
    return Path(path) / "checkpoints" / f"at_step_{step:07d}.pth.tar"


def best_checkpoint(path: str | Path) -> Path:
    """Where a training keeps the weights that did best in validation."""
    return Path(path) / "checkpoints" / "best.pth.tar"


def facts_file(checkpoint: Path) -> Path:
    """The JSON beside an estimator's weights that says how they came about; published files have none."""
    return checkpoint.with_name(checkpoint.name.removesuffix(".pth.tar") + ".json")


def _remedy(path: Path, backbone: str, key: str) -> str:
    flag = " --estimator eval_gazenet" if key.startswith("eval_") else ""
    ways = [f"train it: python train_facenet.py CONFIG.json{flag}", "set train_missing_estimators to true"]
    if backbone in PUBLISHED_FILES:
        folder = path.parent if path.is_file() else path
        ways.append(f"download {PUBLISHED_FILES[backbone]} and put it at {estimator_checkpoint(folder, 0)}")
    return f"Check {key} and its backbone, or {'; or '.join(ways)}."


def find_imagenet_weights(init: str, backbone: str, allow_downloads: bool) -> Path | None:
    """torchvision's weights to start an estimator from; None for random ones.

    init: 'imagenet' (the file in PyTorch's hub cache, or a download into it), 'none', or a file.
    The compact backbones have no such weights, whatever `init` is.
    Raises FileNotFoundError if the file is not there and cannot be fetched, ValueError if the cached one is damaged.
    """
    if init == "none" or backbone not in IMAGENET_URLS:
        return None
    url = IMAGENET_URLS[backbone]
    if init != "imagenet":
        if not Path(init).is_file():
            others = "set estimator_init to imagenet, or to none for random weights"
            raise FileNotFoundError(f"estimator_init: {init}: no such file. Get torchvision's from {url}, or {others}.")
        return Path(init)
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not file.is_file() and not (allow_downloads and _download(url, file)):
        why = "could not be fetched" if allow_downloads else "allow_downloads is false"
        raise FileNotFoundError(
            f"estimator_init: imagenet, but torchvision's weights of '{backbone}' are not at {file} ({why}). Get {url} "
            "and put it there or set estimator_init to its path, or set estimator_init to none for random weights."
        )
    expected, found = file.stem.rpartition("-")[2], file_sha256(file)
    if not found.startswith(expected):
        raise ValueError(f"{file}: sha256 {found[:8]}..., expected {expected}... Remove it, or get it from {url}")
    return file


def _download(url: str, file: Path) -> bool:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2])
    except (URLError, OSError, RuntimeError):  # offline, or cut off: the caller says what is missing
        return False
    return True


def load_imagenet_weights(estimator: Estimator, backbone: str, file: Path) -> None:
    """Put torchvision's convolutions into a 'vgg16' or 'resnet50' estimator; its fully connected head stays as it is.

    file: torchvision's state dict of that network; its own head (`classifier` or `fc`) is left out.
    Raises ValueError that lists what is missing, unexpected or of another shape.
    """
    if backbone == "vgg16":
        head, part = "classifier.", nn.ModuleDict({"features": estimator.vgg16})
    else:
        layers = {name: layer for name, layer in estimator.resnet50.named_children() if name != "fc"}
        head, part = "fc.", nn.ModuleDict(layers)
    state = read_torch_file(file)
    if isinstance(state, Mapping) and all(isinstance(key, str) for key in state):
        # Older files do not count BatchNorm's batches; nothing depends on the count.
        counts = {k: v for k, v in part.state_dict().items() if k.endswith("num_batches_tracked")}
        state = counts | {k: v for k, v in strip_module_prefix(state).items() if not k.startswith(head)}
    remedy = f"Get torchvision's weights from {IMAGENET_URLS[backbone]}, or set estimator_init to none."
    load_state(part, state, where=f"estimator_init: {file} (torchvision's {backbone})", remedy=remedy)
