"""Published, torchvision's and own weights into our modules, strictly: never a silent start with random ones.

What is returned for use is frozen. What a training left in a file beside the weights is not looked at, and nothing of
a file is run; all else must fit key by key. Sizes are read from the keys (`network_sizes.py`).
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from core.command import UserError
from core.tracking import say
from models.arcface import ArcFace
from models.downloads import download, hub_file, require_hash
from models.e4e import E4EEncoder
from models.gazeheadCompact import CompactGazeHeadNet, CompactResidualGazeHeadNet
from models.gazeheadnet import Estimator, GazeHeadNet
from models.gazeheadResnet import GazeHeadResNet
from models.network_sizes import arcface_sizes, encoder_sizes, generator_sizes
from models.stylegan2 import Blur, Generator
from utils import load_state, named_tensors, read_torch_file

BACKBONES: dict[str, Callable[[], Estimator]] = {
    "vgg16": GazeHeadNet,
    "resnet50": GazeHeadResNet,
    "compact": CompactGazeHeadNet,
    "compact-residual": CompactResidualGazeHeadNet,
}
PUBLISHED_FILES = {"vgg16": "baseline_estimator_vgg.tar", "resnet50": "baseline_estimator_resnet.tar"}
IMAGENET_URLS = {  # torchvision's own, which takes a second to be imported
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}
E4E_FILE, ARCFACE_FILE, STYLEGAN2_FILE = "e4e_ffhq_encode.pt", "r50_backbone.pth", "stylegan2.pt"
AVERAGED_CODES = 10000
# An encoder_type in a file's options -> whether each of its heads gives a row by itself. The keys are the same.
ENCODER_TYPES = {"Encoder4Editing": False, "GradualStyleEncoder": True}
E4E_OPTIONS = {"w_discriminator_lambda", "use_w_pool", "delta_norm", "progressive_steps", "progressive_start"}
E4E_OPTIONS |= {"stylegan_size", "depths"}  # the last is in the files that core/autoencoder writes
PSP_OPTIONS = {"learn_in_w"}

Module = TypeVar("Module", bound=nn.Module)


# Estimators


def build_estimator(backbone: str) -> Estimator:
    """An estimator with random weights. Raises UserError for an unknown backbone."""
    if backbone not in BACKBONES:
        raise UserError(f"unknown estimator backbone '{backbone}'; choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[backbone]()


def load_estimator(path: str | Path, backbone: str, *, key: str) -> Estimator:
    """A trained estimator, frozen: evaluation mode for good, no gradient for its weights.

    path: what `find_estimator_checkpoint` finds there, a bare state dict.
    key: the configuration key the path comes from, for the error messages.
    Raises UserError if there is none, or if it does not fit the backbone.
    """
    remedy = _estimator_remedy(Path(path), backbone, key)
    file = find_estimator_checkpoint(path)
    if file is None:
        raise UserError(
            f"{key}: no weights of a '{backbone}' estimator at {estimator_checkpoint(path, 0)}, nor of another "
            f"step, nor best.pth.tar beside it. {remedy}"
        )
    estimator = build_estimator(backbone)
    state = _read(file, key, remedy)
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


def _estimator_remedy(path: Path, backbone: str, key: str) -> str:
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
    Raises UserError if the file is not there and cannot be fetched, or if the cached one is damaged.
    """
    if init == "none" or backbone not in IMAGENET_URLS:
        return None
    url = IMAGENET_URLS[backbone]
    if init != "imagenet":
        if not Path(init).is_file():
            others = "set estimator_init to imagenet, or to none for random weights"
            raise UserError(f"estimator_init: {init}: no such file. Get torchvision's from {url}, or {others}.")
        return Path(init)
    file = hub_file(url)
    if not file.is_file() and not (allow_downloads and download(url, file)):
        why = "could not be fetched" if allow_downloads else "allow_downloads is false"
        raise UserError(
            f"estimator_init: imagenet, but torchvision's weights of '{backbone}' are not at {file} ({why}). Get {url} "
            "and put it there or set estimator_init to its path, or set estimator_init to none for random weights."
        )
    require_hash(file, url)
    return file


def load_imagenet_weights(estimator: Estimator, backbone: str, file: Path) -> None:
    """Put torchvision's convolutions into a 'vgg16' or 'resnet50' estimator; its fully connected head stays as it is.

    file: torchvision's state dict of that network; its own head (`classifier` or `fc`) is left out.
    Raises UserError that lists what is missing, unexpected or of another shape.
    """
    if backbone == "vgg16":
        head, part = "classifier.", nn.ModuleDict({"features": estimator.get_submodule("vgg16")})
    else:
        layers = {name: layer for name, layer in estimator.get_submodule("resnet50").named_children() if name != "fc"}
        head, part = "fc.", nn.ModuleDict(layers)
    found = {key: value for key, value in named_tensors(read_torch_file(file)).items() if not key.startswith(head)}
    # Older files do not count BatchNorm's batches; nothing depends on the count.
    counts = {key: value for key, value in part.state_dict().items() if key.endswith("num_batches_tracked")}
    remedy = f"Get torchvision's weights from {IMAGENET_URLS[backbone]}, or set estimator_init to none."
    load_state(part, counts | found, where=f"estimator_init: {file} (torchvision's {backbone})", remedy=remedy)


# StyleGAN2, its encoders, and ArcFace


def load_e4e(path: str | Path, *, key: str = "e4e_weights") -> tuple[E4EEncoder, Generator, Tensor]:
    """An encoder, its StyleGAN2 generator and the average latent, to which the encoder's offsets are added.

    path: a dictionary with `state_dict` (encoder.*, decoder.*) and `latent_avg`, as e4e's release saves it, or pSp's,
    whose heads mean something else: the file's options tell.  key: the configuration key the path comes from, for the
    messages.
    The third is (rows, style_dim): the file's; else zeros, where the file's options say that the encoder was trained
    without; else the mean of mapped random codes, as e4e does it, and the log says so.
    Raises UserError that says what does not fit, with the keys.
    """
    where, remedy = f"{key}: {path}", _download_again(E4E_FILE)
    content = _read(path, key, remedy)
    state = _state_of(content, where, remedy, entry="state_dict")
    own_rows = _has_own_rows(_options(content), where, remedy)

    def build() -> nn.ModuleDict:
        generator = Generator(**generator_sizes(_below("decoder.", state)))
        encoder = E4EEncoder(**encoder_sizes(_below("encoder.", state), generator.num_rows), own_rows=own_rows)
        return nn.ModuleDict({"encoder": encoder, "decoder": generator})

    pair = build_filled(build, state, where, remedy)
    encoder, generator = pair["encoder"], pair["decoder"]
    assert isinstance(encoder, E4EEncoder) and isinstance(generator, Generator)
    return encoder.freeze(), generator.freeze(), _latent_avg(content, generator, where, remedy)


def load_stylegan2(path: str | Path, *, key: str = "stylegan2_weights") -> Generator:
    """StyleGAN2's averaged generator, the entry `g_ema` of a checkpoint of the 2019 PyTorch port; any size.

    Raises UserError that says what does not fit, with the keys.
    """
    where = f"{key}: {path}"
    remedy = "Give a StyleGAN2 checkpoint in the layout of the PyTorch port, with the entry 'g_ema'."
    state = _state_of(_read(path, key, remedy), where, remedy, entry="g_ema")
    return build_filled(lambda: Generator(**generator_sizes(state)), state, where, remedy).freeze()


def load_arcface(path: str | Path, *, key: str = "arcface_weights") -> ArcFace:
    """insightface's recognition network, a flat dictionary of its tensors.

    Raises UserError that says what does not fit, with the keys.
    """
    where, remedy = f"{key}: {path}", _download_again(ARCFACE_FILE)
    state = _state_of(_read(path, key, remedy), where, remedy)
    return build_filled(lambda: ArcFace(**arcface_sizes(state)), state, where, remedy).freeze()


def _has_own_rows(options: Mapping[str, object], where: str, remedy: str) -> bool:
    """Whether the encoder is pSp's, each of whose heads gives a row of the code, and not e4e's."""
    kind = options.get("encoder_type")
    if kind is not None and kind not in ENCODER_TYPES:
        raise UserError(where, f"its options say encoder_type '{kind}'", " or ".join(ENCODER_TYPES), remedy)
    if kind is None and not options.keys() & (E4E_OPTIONS | PSP_OPTIONS):
        say(f"{where}: does not say if its encoder is e4e's or pSp's, whose keys are the same: taken for e4e's.")
        return False
    own_rows = ENCODER_TYPES[str(kind)] if kind else not options.keys() & E4E_OPTIONS
    if own_rows:
        say(f"{where}: its encoder is pSp's, by its options: each head gives its row of the code by itself.")
    return own_rows


def _latent_avg(content: object, generator: Generator, where: str, remedy: str) -> Tensor:
    shape = (generator.num_rows, generator.style_dim)
    average = content.get("latent_avg") if isinstance(content, Mapping) else None
    if isinstance(average, np.ndarray) and average.dtype.kind == "f":
        average = torch.tensor(average)
    if isinstance(average, Tensor) and average.shape in (shape, (1, shape[1]), shape[1:]):
        return average.detach().float().expand(shape).clone()
    if average is not None:
        found = tuple(average.shape) if isinstance(average, Tensor) else type(average).__name__
        raise UserError(where, f"latent_avg is {found}", str(shape), remedy)
    if _options(content).get("start_from_latent_avg") is False:
        say(f"{where}: has no latent_avg, and its encoder was trained without one: zeros are added.")
        return torch.zeros(shape)
    say(f"{where}: has no latent_avg; the mean of {AVERAGED_CODES} mapped random codes (seed 0) takes its place.")
    mean = generator.mean_w(AVERAGED_CODES, torch.Generator().manual_seed(0))
    return mean.expand(shape).clone()


def _download_again(name: str) -> str:
    return f"Download {name} again (pretrained_models/README.md has the link), or set the path to where it is."


# What is in a file


def _read(path: str | Path, key: str, remedy: str) -> object:
    try:
        return read_torch_file(path)
    except UserError as error:
        raise UserError(f"{key}: {error} {remedy}") from error


def _state_of(content: object, where: str, remedy: str, entry: str = "") -> dict[str, Tensor]:
    """The tensors that the content is or, if an entry is named, has under that name."""
    if entry:
        if not isinstance(content, Mapping) or entry not in content:
            raise UserError(f"{where}: expected the entry '{entry}', found {_outline(content)}. {remedy}")
        content, where = content[entry], f"{where}, entry '{entry}'"
    tensors, nested = named_tensors(content), content.values() if isinstance(content, Mapping) else ()
    if not tensors or any(map(named_tensors, nested)):
        raise UserError(f"{where}: expected a dictionary of tensors, found {_outline(content)}. {remedy}")
    return tensors


def _outline(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    names = ", ".join(map(str, list(content)[:5])) + ", ..." * (len(content) > 5)
    return f"the entries {names}" if content else "nothing"


def _options(content: object) -> Mapping[str, object]:
    """The settings of the training that a file is of; empty if it does not keep them."""
    options = content.get("opts") if isinstance(content, Mapping) else None
    options = vars(options) if isinstance(options, argparse.Namespace) else options
    return options if isinstance(options, Mapping) else {}


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries whose names begin with the prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def build_filled(build: Callable[[], Module], state: Mapping[str, Tensor], where: str, remedy: str) -> Module:
    """A module whose every learned number comes from the state; half-precision tensors become float32 on the way.

    build: makes it; all of its tensors must be in its state dict.
    Raises UserError that lists missing, unexpected and differently shaped entries.
    """
    try:
        with torch.device("meta"):  # a random start would take seconds and move the global generator
            module = build()
    except ValueError as error:
        raise UserError(f"{where}: its keys are of no network known here: {error} {remedy}") from error
    unlearned = _unlearned(module, state, where)
    module.to_empty(device="cpu")
    load_state(module, unlearned | dict(state), where, remedy)
    return module


def _unlearned(module: nn.Module, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """StyleGAN2's blur kernels and noise maps where a file has none of them, as older ones of the port."""
    wanted = module.state_dict()
    kernels = {key for key in wanted if key.endswith(".kernel")}
    noises = {key: value.shape for key, value in wanted.items() if key.removeprefix("decoder.").startswith("noises.")}
    added: dict[str, Tensor] = {}
    if not kernels & state.keys():
        added |= dict.fromkeys(kernels, Blur().kernel)
    if noises and not noises.keys() & state.keys():
        random = torch.Generator().manual_seed(0)
        added |= {key: torch.randn(shape, generator=random) for key, shape in noises.items()}
        say(f"{where}: has no noise maps, which are not learned; random ones (seed 0) take their place.")
    return added
