"""Published, torchvision's and own weights into our modules, strictly: never a silent start with random ones.

What is returned for use is frozen. What a training left in a file beside the weights is not looked at; all else must
fit key by key.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, VGG16_Weights

from core.files import file_sha256
from core.tracking import say
from models.arcface import ArcFace
from models.e4e import E4EEncoder
from models.gazeheadCompact import CompactGazeHeadNet, CompactResidualGazeHeadNet
from models.gazeheadnet import Estimator, GazeHeadNet
from models.gazeheadResnet import GazeHeadResNet
from models.pretrained_files import (
    arcface_sizes,
    build_filled,
    encoder_sizes,
    entries_below,
    generator_sizes,
    read_pretrained_file,
    tensors_by_name,
)
from models.stylegan2 import Generator
from utils import load_state, read_torch_file, strip_module_prefix

BACKBONES: dict[str, Callable[[], Estimator]] = {
    "vgg16": GazeHeadNet,
    "resnet50": GazeHeadResNet,
    "compact": CompactGazeHeadNet,
    "compact-residual": CompactResidualGazeHeadNet,
}
PUBLISHED_FILES = {"vgg16": "baseline_estimator_vgg.tar", "resnet50": "baseline_estimator_resnet.tar"}
E4E_FILE, ARCFACE_FILE, STYLEGAN2_FILE = "e4e_ffhq_encode.pt", "r50_backbone.pth", "stylegan2.pt"
AVERAGED_CODES = 10000
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
            f"{key}: no weights of a '{backbone}' estimator at {estimator_checkpoint(path, 0)}, nor of another "
            f"step, nor best.pth.tar beside it. {remedy}"
        )
    estimator = build_estimator(backbone)
    state = read_pretrained_file(file, key, remedy)
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


def load_e4e(path: str | Path, *, key: str = "e4e_weights") -> tuple[E4EEncoder, Generator, Tensor]:
    """e4e's encoder, its StyleGAN2 generator and the average latent, to which the encoder's offsets are added.

    path: a dictionary with `state_dict` (encoder.*, decoder.*) and `latent_avg`, as e4e's release saves it.  key: the
    configuration key the path comes from, for the messages.
    The third is (rows, style_dim): the file's; else zeros, where the file's options say that the encoder was trained
    without; else the mean of mapped random codes, as e4e does it, and the log says so.
    Raises FileNotFoundError, or ValueError that says what does not fit, with the keys.
    """
    where, remedy = f"{key}: {path}", _download_again(E4E_FILE)
    content = read_pretrained_file(path, key, remedy)
    state = tensors_by_name(content, where, remedy, entry="state_dict")

    def build() -> nn.ModuleDict:
        generator = Generator(**generator_sizes(entries_below("decoder.", state)))
        encoder = E4EEncoder(**encoder_sizes(entries_below("encoder.", state), generator.num_rows))
        return nn.ModuleDict({"encoder": encoder, "decoder": generator})

    pair = build_filled(build, state, where, remedy)
    encoder, generator = pair["encoder"].freeze(), pair["decoder"].freeze()
    return encoder, generator, _latent_avg(content, generator, where, remedy)


def load_stylegan2(path: str | Path, *, key: str = "stylegan2_weights") -> Generator:
    """StyleGAN2's averaged generator, the entry `g_ema` of a checkpoint of the 2019 PyTorch port; any size.

    Raises FileNotFoundError, or ValueError that says what does not fit, with the keys.
    """
    where = f"{key}: {path}"
    remedy = "Give a StyleGAN2 checkpoint in the layout of the PyTorch port, with the entry 'g_ema'."
    state = tensors_by_name(read_pretrained_file(path, key, remedy), where, remedy, entry="g_ema")
    return build_filled(lambda: Generator(**generator_sizes(state)), state, where, remedy).freeze()


def load_arcface(path: str | Path, *, key: str = "arcface_weights") -> ArcFace:
    """insightface's recognition network, a flat dictionary of its tensors.

    Raises FileNotFoundError, or ValueError that says what does not fit, with the keys.
    """
    where, remedy = f"{key}: {path}", _download_again(ARCFACE_FILE)
    state = tensors_by_name(read_pretrained_file(path, key, remedy), where, remedy)
    return build_filled(lambda: ArcFace(**arcface_sizes(state)), state, where, remedy).freeze()


def _latent_avg(content: Mapping[str, object], generator: Generator, where: str, remedy: str) -> Tensor:
    shape = (generator.num_rows, generator.style_dim)
    average, options = content.get("latent_avg"), content.get("opts")
    if isinstance(average, Tensor) and average.shape in (shape, shape[1:]):
        return average.detach().float().expand(shape).clone()
    if average is not None:
        found = tuple(average.shape) if isinstance(average, Tensor) else type(average).__name__
        raise ValueError(f"{where}: latent_avg is {found}, expected {shape}. {remedy}")
    if isinstance(options, Mapping) and options.get("start_from_latent_avg") is False:
        say(f"{where}: has no latent_avg, and its encoder was trained without one: zeros are added.")
        return torch.zeros(shape)
    say(f"{where}: has no latent_avg; the mean of {AVERAGED_CODES} mapped random codes (seed 0) takes its place.")
    mean = generator.mean_w(AVERAGED_CODES, torch.Generator().manual_seed(0))
    return mean.expand(shape).clone()


def _download_again(name: str) -> str:
    return f"Download {name} again (pretrained_models/README.md has the link), or set the path to where it is."
