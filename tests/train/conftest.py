"""Fixtures around the tiny model; a cache of their own for each test."""

import pytest
from tiny_models import save_tiny_llama, word_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return word_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))
