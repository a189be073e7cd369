"""A trained model to evaluate: made once for all tests of this folder."""

import polars as pl
import pytest
from model_fixtures import (
    folder,  # noqa: F401
    own_cache,  # noqa: F401
)
from tiny_models import text_rows

from ktodata.train import fit


@pytest.fixture(scope="session")
def trained(folder, tmp_path_factory):  # noqa: F811
    """A run folder whose model has learnt its rows by heart, with some of those rows as its test part."""
    run = tmp_path_factory.mktemp("run")
    (run / "shards").mkdir()
    rows = text_rows(24)
    rows.write_parquet(run / "shards" / "train-00000-of-00001.parquet")
    test = rows.head(16).with_columns(model=pl.Series(["small", "large"] * 8), truth=~pl.col("label"))
    test.write_parquet(run / "shards" / "test-00000-of-00001.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KTODATA_CACHE", str(run / "cache"))
        fit(run, model=folder, out=run / "model", epochs=30, batch_size=8, learning_rate=3e-3, device="cpu")
    return run
