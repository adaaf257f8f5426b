"""Two processes test side by side, on one thread each; long tests get a longer time limit than the others."""

import os
import sys

import pytest

import core  # noqa: F401  before torch is loaded, see there

if not any("gpu" in word for word in sys.argv):  # what is compared bit for bit is so on a CPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is loaded: two threads each would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SLOW_SECONDS = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
