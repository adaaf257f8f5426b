"""How large the network is that a state dict fits; what its keys and shapes do not tell is as published.

No single missing key changes the answer, so that the loaders can name what is missing.
"""

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TypedDict

from torch import Tensor

PUBLISHED_DEPTHS = (3, 4, 14, 3)

State = Mapping[str, Tensor]


class EncoderSizes(TypedDict):
    """E4EEncoder's arguments."""

    num_rows: int
    input_size: int
    style_dim: int
    width: int
    depths: tuple[int, ...]


class GeneratorSizes(TypedDict):
    """Generator's arguments."""

    size: int
    style_dim: int
    num_mapping: int
    channel_multiplier: float
    max_channels: int


class ArcFaceSizes(TypedDict):
    """ArcFace's arguments."""

    width: int
    depths: tuple[int, ...]
    input_size: int
    embedding_size: int


def encoder_sizes(state: State, num_rows: int) -> EncoderSizes:
    """Of an e4e or pSp encoder; num_rows: of its generator."""
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


def generator_sizes(state: State) -> GeneratorSizes:
    """Of a StyleGAN2 generator."""
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


def arcface_sizes(state: State) -> ArcFaceSizes:
    """Of insightface's iresnet."""
    width = _dim(state, ("conv1.weight", 0), ("bn1.weight", 0)) or 64
    depths = [_count(state, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4)]
    return {
        "width": width,
        "depths": tuple(count or published for count, published in zip(depths, PUBLISHED_DEPTHS, strict=True)),
        "input_size": 16 * math.isqrt(_dim(state, ("fc.weight", 1)) // (8 * width)) or 112,
        "embedding_size": _dim(state, ("fc.weight", 0), ("fc.bias", 0)) or 512,
    }


def _count(state: State, pattern: str) -> int:
    """One more than the largest number that the pattern finds at the start of a key; at most the number of keys."""
    numbers = [int(found[1]) for key in state if (found := re.match(pattern, key))]
    return min(max(numbers, default=-1) + 1, len(state))


def _dim(state: State, *places: tuple[str, int]) -> int:
    """Length of the first (key, axis) that is there; 0 if none is."""
    return next((state[key].shape[axis] for key, axis in places if key in state and state[key].ndim > axis), 0)
