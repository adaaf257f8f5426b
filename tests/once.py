"""What several tests begin with, made once in each process that tests."""

import contextlib
from collections.abc import Callable, Hashable
from pathlib import Path

import pytest

_MADE: dict[Hashable, Path] = {}


def once(factory: pytest.TempPathFactory, key: Hashable, make: Callable[[Path], object]) -> Path:
    """A folder that `make` filled, and in which it ran; to be read or copied, never changed."""
    if key not in _MADE:
        folder = factory.mktemp("once")
        with contextlib.chdir(folder):
            make(folder)
        _MADE[key] = folder
    return _MADE[key]
