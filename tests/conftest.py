"""The order of the files, what tests of interrupts need of the shell that started them, and what all share."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from vantage.testing.registry import Registry


def pytest_configure() -> None:
    # Shells start what runs in the background with SIGINT ignored, and every program that a test starts inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # The longest first, so that no process has to wait for it in the end.
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path not in slow, -tests[item.path]))
    else:
        # Those that need an engine last, so that what is cheap to find is found first.
        late = {item.path for item in items if item.get_closest_marker("docker")}
        items.sort(key=lambda item: item.path in late)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Of all tests: the base image, of which most images consist, is pushed once, which takes ten seconds."""
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
