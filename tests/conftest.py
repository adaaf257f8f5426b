"""Long tests get a longer time limit than pyproject.toml gives the others."""

import pytest

SLOW_SECONDS = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
