"""What is in a file of weights, and how large the network is that it fits. Nothing from a file is run."""

import argparse
import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from utils import load_state, read_torch_file, strip_module_prefix

PUBLISHED_DEPTHS = (3, 4, 14, 3)

State = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


def read_pretrained_file(path: str | Path, key: str, remedy: str) -> object:
    """Contents of a PyTorch file; runs no code from it.

    Raises FileNotFoundError, or ValueError if it holds no plain data, each with the configuration key and the remedy.
    """
    try:
        # StyleGAN2 checkpoints hold their command line as one; it only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return read_torch_file(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{key}: {error} {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{key}: {error} {remedy}") from error


def encoder_sizes(state: State, num_rows: int) -> dict[str, object]:
    """E4EEncoder's arguments from its keys; what they do not tell is as published."""
    blocks = _count(state, r"body\.(\d+)\.")
    # A stage begins where the channels change, and there the shortcut is a convolution.
    begins = {0} | {i for i in range(blocks) if any(key.startswith(f"body.{i}.shortcut_layer.") for key in state)}
    depths = tuple(end - begin for begin, end in pairwise([*sorted(begins), blocks]))
    halvings = (_count(state, r"styles\.0\.convs\.(\d+)\.") + 1) // 2
    return {
        "num_rows": num_rows,
        "input_size": 16 * 2 ** (halvings or 4),
        "style_dim": _dim(state, ("styles.0.linear.weight", 0), ("styles.0.linear.bias", 0)) or 512,
        "width": _dim(state, ("input_layer.0.weight", 0), ("input_layer.1.weight", 0)) or 64,
        "depths": depths if len(depths) == 4 else PUBLISHED_DEPTHS,
    }


def generator_sizes(state: State) -> dict[str, object]:
    """Generator's arguments from its keys; what they do not tell is as published."""
    doublings = _count(state, r"to_rgbs\.(\d+)\.") or 8
    layers = [f"to_rgbs.{i}.conv." for i in range(doublings)]
    channels = [_dim(state, (f"{layer}weight", 2), (f"{layer}modulation.bias", 0)) for layer in layers]
    return {
        "size": 4 * 2**doublings,
        "style_dim": _dim(state, ("style.1.weight", 0), ("style.1.bias", 0)) or 512,
        "num_mapping": max(_count(state, r"style\.(\d+)\.") - 1, 0) or 8,
        # Channels are rounded down from 16384 x multiplier / resolution, so each resolution gives a lower bound.
        "channel_multiplier": max(c * 8 * 2**i for i, c in enumerate(channels)) / 16384 or 2,
        "max_channels": _dim(state, ("input.input", 1), ("conv1.activate.bias", 0)) or 512,
    }


def arcface_sizes(state: State) -> dict[str, object]:
    """ArcFace's arguments from its keys; what they do not tell is as published."""
    width = _dim(state, ("conv1.weight", 0), ("bn1.weight", 0)) or 64
    depths = [_count(state, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4)]
    return {
        "width": width,
        "depths": tuple(count or published for count, published in zip(depths, PUBLISHED_DEPTHS, strict=True)),
        "input_size": 16 * math.isqrt(_dim(state, ("fc.weight", 1)) // (8 * width)) or 112,
        "embedding_size": _dim(state, ("fc.weight", 0), ("fc.bias", 0)) or 512,
    }


def tensors_by_name(content: object, where: str, remedy: str, entry: str = "") -> dict[str, Tensor]:
    """The state dict that the content is or, if an entry is named, has under that name; without `module.` prefixes.

    Raises ValueError that begins with `where`, says what was found and ends with the remedy.
    """
    if entry:
        if not isinstance(content, Mapping) or entry not in content:
            raise ValueError(f"{where}: expected the entry '{entry}', found {_outline(content)}. {remedy}")
        content, where = content[entry], f"{where}, entry '{entry}'"
    tensors = isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())
    if not tensors or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{where}: expected a dictionary of tensors, found {_outline(content)}. {remedy}")
    return strip_module_prefix(content)


def _outline(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    return (
        f"the entries {', '.join(map(str, list(content)[:5]))}{', ...' * (len(content) > 5)}" if content else "nothing"
    )


def entries_below(prefix: str, state: State) -> dict[str, Tensor]:
    """The entries whose names begin with the prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def build_filled(build: Callable[[], Module], state: State, where: str, remedy: str) -> Module:
    """A module whose every number comes from the state; half-precision tensors become float32 on the way.

    build: makes it; all of its tensors must be in its state dict.
    Raises ValueError that lists missing, unexpected and differently shaped entries.
    """
    try:
        with torch.device("meta"):  # a random start would take seconds and move the global generator
            module = build()
    except ValueError as error:
        raise ValueError(f"{where}: its keys are of no network known here: {error} {remedy}") from error
    module.to_empty(device="cpu")
    load_state(module, state, where, remedy)
    return module


def _count(state: State, pattern: str) -> int:
    """One more than the largest number that the pattern finds at the start of a key; at most the number of keys."""
    numbers = [int(found[1]) for key in state if (found := re.match(pattern, key))]
    return min(max(numbers, default=-1) + 1, len(state))


def _dim(state: State, *places: tuple[str, int]) -> int:
    """Length of the first (key, axis) that is there; 0 if none is."""
    return next((state[key].shape[axis] for key, axis in places if key in state and state[key].ndim > axis), 0)
