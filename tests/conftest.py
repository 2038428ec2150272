"""The order of the files: those that need an engine come last, so that what is cheap to find is found first."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    late = {item.path for item in items if item.get_closest_marker("docker")}
    items.sort(key=lambda item: item.path in late)
