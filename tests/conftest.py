"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)  # the machine may be busy; pytest-timeout holds what hangs
settings.load_profile("suite")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.fsync = lambda descriptor: None  # no test cuts the power, and waiting for the disk took longer than many a test

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets that continuous integration has beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared real data sets are not on this machine")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test first: where files are dealt to several processes, none is left alone with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
