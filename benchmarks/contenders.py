"""What is timed: each function makes ready and returns the call that is. `benchmarks/turns.py` gives each a process."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import reading
from benchmarks.plain import PlainTrainer, plain_measure, plain_redirector
from benchmarks.untrained import random_batch, settings_of, untrained, untrained_trainer
from core.config_default import Config
from core.evaluator import measure, perturbations
from core.redirection.export import export
from core.runtime import autocast, require_compiler, tune_cpu
from models.load_pretrained_model import build_estimator
from models.perceptual import build_lpips
from models.redirector import Redirector
from models.redirtrans import ReDirTransGAN

Call = Callable[[], object]


def _settings(config: str, batch: int, **changed: object) -> Config:
    return settings_of(config).model_copy(update={"batch_size": batch, "mirror_augmentation": False, **changed})


def step(config: str, batch: int, device: torch.device, precision: str = "float32", compiled: bool = False) -> Call:
    """A training step as it is."""
    settings = _settings(config, batch, precision=precision, compile=compiled)
    tune_cpu(settings.num_threads)
    if compiled:
        require_compiler(device)
    trainer, data, steps = untrained_trainer(settings, device), random_batch(settings, device), iter(range(10**9))
    return lambda: trainer.train_step(data, next(steps))


def plain_step(config: str, batch: int, device: torch.device) -> Call:
    settings = _settings(config, batch)
    ours, data, steps = untrained_trainer(settings, device), random_batch(settings, device), iter(range(10**9))
    plain = PlainTrainer.of(ours)

    def call() -> object:
        number = next(steps)
        mask = ours.mixing_mask(number, batch) if settings.use_mixing else {}
        return plain.train_step(data, mask, number)

    return call


def _measured(
    config: str, batch: int, device: torch.device
) -> tuple[Redirector, nn.Module, dict[str, Tensor], Mapping[str, Tensor], nn.Module]:
    settings = _settings(config, batch)
    redirector = untrained(config).redirector.to(device)
    estimator = build_estimator(settings.eval_gazenet_backbone).to(device).freeze()
    noise = perturbations(redirector, 0, np.arange(batch), device)
    return redirector, estimator, random_batch(settings, device), noise, build_lpips(None).to(device)


def evaluation(config: str, batch: int, device: torch.device, precision: str = "float32") -> Call:
    """All metrics of a batch."""
    tune_cpu(0)
    redirector, estimator, data, noise, lpips = _measured(config, batch, device)

    @torch.no_grad()
    def call() -> object:
        with autocast(device, precision):
            return measure(redirector, estimator, data, noise=noise, lpips=lpips)

    return call


def plain_evaluation(config: str, batch: int, device: torch.device) -> Call:
    redirector, estimator, data, noise, lpips = _measured(config, batch, device)
    plain, estimator = plain_redirector(redirector), estimator.to(memory_format=torch.contiguous_format)
    return lambda: plain_measure(plain, estimator, data, noise, lpips)


def redirection(
    config: str,
    batch: int,
    device: torch.device,
    precision: str = "float32",
    encodes: bool = False,
    channels_last: bool = False,
    plain: bool = False,
) -> Call:
    """Images to given gaze and head. encodes: anew each time; else once, and only turned and decoded."""
    tune_cpu(0)
    loaded = untrained(config)
    redirector = (plain_redirector(loaded.redirector) if plain else loaded.redirector).to(device)
    if channels_last:
        redirector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    random = torch.Generator().manual_seed(0)
    image = (torch.rand(batch, 3, loaded.size, loaded.size, generator=random) * 2 - 1).to(device)
    targets = {name: (torch.rand(batch, 2, generator=random) - 0.5).to(device) for name in ("gaze", "head")}
    with torch.inference_mode():
        once = redirector.encode(image)

    @torch.inference_mode()
    def call() -> object:
        with autocast(device, precision):
            return redirector.decode(redirector.rotate(redirector.encode(image) if encodes else once, targets))

    return call


def generation(config: str, batch: int, device: torch.device, precision: str = "float32") -> Call:
    """Inverted faces turned, and generated at the generator's own size."""
    tune_cpu(0)
    redirector = untrained(config).redirector.to(device)
    assert isinstance(redirector, ReDirTransGAN)
    random = torch.Generator().manual_seed(0)
    code = torch.randn(batch, *redirector.latent_avg.shape, generator=random).to(device) / 4
    targets = {name: (torch.rand(batch, 2, generator=random) - 0.5).to(device) for name in ("gaze", "head")}

    @torch.inference_mode()
    def call() -> object:
        with autocast(device, precision):
            encoding = redirector.rotate(redirector.encode_latent(code), targets)
            return redirector.decoder.synthesis(redirector.code(encoding), noise="stored")

    return call


def redirection_in_onnxruntime(config: str, batch: int, device: torch.device) -> Call:
    """Of an exported file, which encodes each time."""
    import onnxruntime  # of requirements-export.txt

    loaded = untrained(config)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(loaded, path)
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    given = {"image": random.uniform(-1, 1, (batch, 3, loaded.size, loaded.size)).astype("float32")}
    given |= {name: random.uniform(-0.5, 0.5, (batch, 2)).astype("float32") for name in ("gaze", "head")}
    return lambda: session.run(None, given)


def read(config: str, batch: int, device: torch.device, published: bool = False) -> Call:
    """Random pairs of a file that is not compressed; the file is gone before the first of them is read."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "faces.h5"
        reading.write_images(path, None, persons=2)
        call = (reading.published if published else reading.ours)(path, batch)
        call()  # opens the file, which so stays
    return call


CONTENDERS: dict[str, Callable[..., Call]] = {
    "step": step,
    "plain_step": plain_step,
    "evaluation": evaluation,
    "plain_evaluation": plain_evaluation,
    "redirection": redirection,
    "generation": generation,
    "redirection_in_onnxruntime": redirection_in_onnxruntime,
    "read": read,
}
