"""A tiny model and a cache of its own, for the track that trains."""

from model_fixtures import folder as model_folder  # noqa: F401
from model_fixtures import own_cache  # noqa: F401
