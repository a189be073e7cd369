"""Fixtures around the tiny model, for the rooms that train or score it."""

import pytest
from tiny_models import save_tiny_llama


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder that holds the tiny model."""
    return save_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))
