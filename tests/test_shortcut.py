"""Strided 1x1 convolutions of few channels, whose backward hangs on some processors: no network runs one."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import models
from core.autoencoder.trainer import AutoencoderSettings, AutoencoderTrainer
from core.build import build_redirector
from core.config_reader import load_config
from models.arcface import ArcFace
from models.discriminator import LatentDiscriminator, PatchDiscriminator
from models.e4e import E4EEncoder
from models.load_pretrained_model import BACKBONES, build_estimator
from models.perceptual import build_lpips
from models.recrop import CroppedEstimator
from models.redirector import Redirector
from models.shortcut import FEW_CHANNELS, ShortcutConv
from models.stylegan2 import Generator
from tests.formula import uniform
from tests.test_autoencoder import TINY
from tests.tiny import SIZE, tiny_flow, tiny_pair, tiny_redirector, tiny_redirtrans, tiny_redirtrans_gan

ROOT = Path(__file__).resolve().parent.parent


class StridedPointwise(TorchDispatchMode):
    """Collects the input channels of every 1x1 convolution with a stride that is run, by whatever layer or function."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            _, weight, _, stride = args[:4]
            if weight.shape[2:] == (1, 1) and max(stride) > 1:
                self.channels.add(weight.shape[1])
        return func(*args, **(kwargs or {}))


def run_redirector(redirector: Redirector, size: int) -> None:
    redirector.redirect(image(size), {"gaze": torch.zeros(2, 2), "head": torch.zeros(2, 2)})


def run_configuration(name: str) -> Redirector:
    config = load_config([str(ROOT / "config" / f"{name}.json")])
    redirector = build_redirector(config)
    run_redirector(redirector, config.image_size)
    return redirector


def run_autoencoder(settings: AutoencoderSettings) -> nn.Module:
    trainer = AutoencoderTrainer(settings, None, 16, torch.device("cpu"))
    trainer.reconstruct(image(settings.size))
    return trainer.parts


def run_estimator(backbone: str) -> nn.Module:
    return run(CroppedEstimator(build_estimator(backbone), 64), image(64), torch.eye(3).expand(2, 3, 3))


def run(network: nn.Module, *inputs: Tensor) -> nn.Module:
    network(*inputs)
    return network


def run_tiny(build: Callable[[], Redirector]) -> Redirector:
    redirector = build()
    run_redirector(redirector, SIZE)
    return redirector


def image(size: int) -> Tensor:
    return uniform((2, 3, size, size)).contiguous(memory_format=torch.channels_last)


# As wide as they are used, on images as small as they take.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{
        name: lambda name=name: run_configuration(name)
        for name in ("ST-ED", "quickstart", "ReDirTrans", "ReDirTrans-quickstart", "flow-quickstart")
    },
    **{f"estimator {name}": lambda name=name: run_estimator(name) for name in BACKBONES},
    "published e4e": lambda: run(E4EEncoder(num_rows=6, input_size=32), image(32)),
    "published StyleGAN2": lambda: run(Generator(32), uniform((2, 512))),
    "small autoencoder": lambda: run_autoencoder(AutoencoderSettings()),
    "published ArcFace": lambda: run(ArcFace(input_size=16), image(16)),
    "LPIPS": lambda: run(build_lpips(None), image(64), image(64)),
    "image discriminator": lambda: run(PatchDiscriminator(), image(32)),
    "latent discriminator": lambda: run(LatentDiscriminator(), uniform((2, 512))),
    "tiny ST-ED": lambda: run_tiny(tiny_redirector),
    "tiny ST-ED with flow": lambda: run_tiny(tiny_flow),
    "tiny ReDirTrans": lambda: run_tiny(tiny_redirtrans),
    "tiny ReDirTrans-GAN": lambda: run_tiny(tiny_redirtrans_gan),
    "tiny encoder": lambda: run(tiny_pair()[0], image(32)),
    "tiny autoencoder": lambda: run_autoencoder(TINY),
    "tiny ArcFace": lambda: run(ArcFace(width=4, depths=(1, 2, 1, 1), input_size=48, embedding_size=8), image(48)),
}


@pytest.fixture(scope="module")
def walked() -> dict[str, tuple[nn.Module, set[int]]]:
    """Name -> the network that was run, and the channels of its strided 1x1 convolutions."""
    result = {}
    for name, build in NETWORKS.items():
        with StridedPointwise() as found, torch.no_grad():
            result[name] = build(), found.channels
    return result


def test_no_network_runs_a_strided_1x1_convolution_of_few_channels(
    walked: dict[str, tuple[nn.Module, set[int]]],
) -> None:
    few = {name: channels for name, (_, channels) in walked.items() if min(channels, default=99) < FEW_CHANNELS}
    assert not few
    assert walked["small autoencoder"][1] == {8, 16, 32}  # where there are more, they run as they always did


def test_every_network_of_models_is_among_them(walked: dict[str, tuple[nn.Module, set[int]]]) -> None:
    run_types = {base for network, _ in walked.values() for part in network.modules() for base in type(part).__mro__}
    rooms = [importlib.import_module(f"models.{found.name}") for found in pkgutil.iter_modules(models.__path__)]
    defined = {
        value
        for room in rooms
        for _, value in inspect.getmembers(room, inspect.isclass)
        if issubclass(value, nn.Module) and value.__module__ == room.__name__
    }
    assert not defined - run_types


@pytest.mark.parametrize("channels", [1, 4, FEW_CHANNELS, 12])
def test_a_shortcut_is_a_strided_convolution_whatever_its_channels(channels: int) -> None:
    shortcut, x = ShortcutConv(channels, 6, 2).double(), uniform((2, channels, 8, 8)).double().requires_grad_()
    plain = nn.Conv2d(channels, 6, 1, 2, bias=False).double()
    plain.load_state_dict(shortcut.state_dict())
    gradients = [torch.autograd.grad(net(x).square().sum(), (x, net.weight)) for net in (shortcut, plain)]
    torch.testing.assert_close(shortcut(x), plain(x))
    torch.testing.assert_close(*gradients)
