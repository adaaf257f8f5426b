"""Weights and inputs by formula, so that a golden needs to store outputs only."""

import hashlib
import re
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn


def fill(module: nn.Module, arithmetic: Literal["float32", "float64"] = "float32", prefix: str = "") -> nn.Module:
    """Fill parameters and buffers from their state-dict keys and shapes alone; returns the module.

    Rule of ST-ED's modules, the estimators and PatchGAN.  arithmetic: float64 for st_ed.json, rounded to
    float32 at the end (so that modules of either precision hold the same weights); float32 for all others.
    prefix: put before each key, for a module that is part of another.
    """
    state = module.state_dict()
    for key, value in state.items():
        value.copy_(torch.from_numpy(_entry(prefix + key, tuple(value.shape), np.dtype(arithmetic))))
    return module


def fill_latent(module: nn.Module) -> nn.Module:
    """The same for e4e, StyleGAN2, ArcFace and the latent discriminator, in float32; returns the module.

    Keys are those of the bare module.  Blur kernels keep their values.
    """
    state = module.state_dict()
    for key, value in state.items():
        if not key.endswith("kernel"):
            rule = _latent_rule(key, value.ndim, norm=key.removesuffix("weight") + "running_mean" in state)
            value.copy_(torch.from_numpy(np.asarray(rule(_normal(key, tuple(value.shape))), dtype=np.float32)))
    return module


def uniform(shape: tuple[int, ...], seed: int = 1234, low: float = -1, high: float = 1) -> Tensor:
    """The input formula of the goldens: float32 (shape)."""
    return torch.from_numpy(np.random.RandomState(seed).uniform(low, high, shape).astype(np.float32))


def samples(x: Tensor, count: int = 32) -> np.ndarray:
    """The values a golden lists: evenly spaced entries of the flattened tensor, float64."""
    flat = x.detach().double().cpu().numpy().ravel()
    return flat[np.linspace(0, flat.size - 1, count).astype(int)]


def assert_golden(x: Tensor, golden: dict, of_std: float = 1e-4, of_l2: float = 1e-5) -> None:
    """Listed values within `of_std` of the tensor's deviation; its l2 norm within `of_l2` relative."""
    flat = x.detach().double()
    worst = np.abs(samples(x) - np.array(golden["values"])).max()
    assert flat.numel() == np.prod(golden["shape"])
    assert worst <= of_std * golden["std"], f"a value is off by {worst:.3g}, std {golden['std']:.3g}"
    assert abs(flat.norm().item() / golden["l2"] - 1) <= of_l2


def _normal(key: str, shape: tuple[int, ...]) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
    return np.random.RandomState(seed).standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)


def _latent_rule(key: str, ndim: int, norm: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The first line that fits; norm: the entry has a `running_mean` beside it."""
    f = np.float32
    rules: list[tuple[str, bool, Callable[[np.ndarray], np.ndarray]]] = [
        (r".*num_batches_tracked", True, np.zeros_like),
        (r".*running_mean", True, lambda v: f(0.1) * v),
        (r".*running_var", True, lambda v: f(1) + f(0.1) * np.abs(v)),
        (r"noises\..*|input\.input", True, lambda v: v),
        (r"style\.\d+\.bias", True, lambda v: f(10) * v),
        (r".*modulation\.bias", True, lambda v: f(1) + f(0.1) * v),
        (r".*bias", True, lambda v: f(0.1) * v),
        (r".*weight", ndim == 1 and norm, lambda v: f(1) + f(0.1) * v),
        (r".*noise\.weight", True, lambda v: f(0.1) * v),
        (r".*weight", ndim == 1, lambda v: f(0.25) + f(0.1) * v),
        (r"style\.\d+\.weight", True, lambda v: f(100) * v),
        (r".*modulation\.weight|styles\.\d+\.linear\.weight", True, lambda v: v),
        (r".*", ndim == 5, lambda v: v),
        (r".*", True, lambda v: v / np.sqrt(f(v.size // v.shape[0]))),
    ]
    return next(rule for pattern, applies, rule in rules if applies and re.fullmatch(pattern, key))


def _entry(key: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    name, count = key.rpartition(".")[2], int(np.prod(shape))
    v = _normal(key, shape).astype(dtype)
    one, tenth = dtype.type(1), dtype.type(0.1)
    if name == "num_batches_tracked":
        v = np.zeros(shape)
    elif name == "running_var":
        v = one + tenth * np.abs(v)
    elif name == "running_mean":
        v = tenth * v
    elif len(shape) >= 2:
        v = v / np.sqrt(dtype.type(count // shape[0]))
    elif name == "weight":
        v = one + tenth * v
    else:
        v = tenth * v
    return np.asarray(v, dtype=np.float32)
