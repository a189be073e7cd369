from model_fixtures import folder, own_cache  # noqa: F401
