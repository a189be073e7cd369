import pytest
from model_fixtures import folder as model_folder  # noqa: F401
from model_fixtures import own_cache  # noqa: F401
from tiny_models import word_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return word_tokenizer()
