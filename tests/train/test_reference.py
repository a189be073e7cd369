"""At step 0 policy and reference are one: what was kept on disk is met again only by what would compute the same numbers."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from tiny_models import text_rows

from ktodata.errors import ModelError
from ktodata.train import fit
from ktodata.train.model import fingerprint

FAST = {"batch_size": 4, "learning_rate": 1e-3, "warmup_fraction": 0.0, "device": "cpu", "max_steps": 1}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}


def edited(folder, place, **config):
    """A copy of the model in `folder` with other lines in its config.json, and the same weights."""
    shutil.copytree(folder, place)
    file = place / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return str(place)


def off_at_step_0(result):
    """Nats, at most: 0 but for rounding when policy and reference are one model."""
    return result.telemetry.filter(step=0)["log_ratio"].abs().max()


@pytest.mark.parametrize(
    "config", [{"rope_parameters": YARN}, {"rms_norm_eps": 0.5}, {"hidden_act": "gelu"}], ids=["yarn", "epsilon", "activation"]
)
def test_another_config_of_the_same_weights_does_not_meet_the_kept_reference(model_folder, tmp_path, config):
    """Were it met, log-ratios at step 0 would be 0.8 to 1.8 nats."""
    other = edited(model_folder, tmp_path / "other", **config)
    first, second = (fit(text_rows(12), model=model, **FAST) for model in (model_folder, other))
    references = [result.telemetry.filter(step=0).sort("row_id")["ref_logp"].to_numpy() for result in (first, second)]
    assert abs(references[0] - references[1]).max() > 0.02  # else the test would not see it
    assert second.metrics["reference"]["source"] == "computed"
    assert off_at_step_0(second) < 1e-4


def test_another_dtype_does_not_meet_the_kept_reference(model_folder):
    fit(text_rows(12), model=model_folder, **FAST)
    rounded = fit(text_rows(12), model=model_folder, dtype="bfloat16", **FAST)
    assert rounded.metrics["reference"]["source"] == "computed"
    again = fit(text_rows(12), model=model_folder, dtype="bfloat16", **FAST)
    assert again.metrics["reference"]["source"] == "cache"


def test_another_release_of_transformers_does_not_meet_the_kept_reference(model_folder, monkeypatch):
    first = fit(text_rows(12), model=model_folder, **FAST)
    monkeypatch.setattr(fingerprint, "version", lambda name: "99.0")
    assert fit(text_rows(12), model=model_folder, **FAST).metrics["reference"]["key"] != first.metrics["reference"]["key"]


def test_a_model_elsewhere_under_another_name_meets_it(model_folder, tmp_path):
    fit(text_rows(12), model=model_folder, **FAST)
    moved = fit(text_rows(12), model=edited(model_folder, tmp_path / "elsewhere"), **FAST)
    assert moved.metrics["reference"]["source"] == "cache"


def kept_file(tmp_path):
    (file,) = Path(tmp_path / "cache" / "reference").rglob("*.parquet")
    return file


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_kept_is_computed_again_in_part_and_agrees(model_folder, dtype):
    for source in ("computed", "cache"):
        facts = fit(text_rows(12), model=model_folder, dtype=dtype, **FAST).metrics["reference"]
        assert facts["source"] == source
    assert facts["recomputed_pairs"] == 2
    assert facts["recomputed_off_by"] < (1e-4 if dtype == "float32" else 0.1)


@pytest.mark.parametrize(("dtype", "nats"), [("float32", 0.01), ("bfloat16", 3.0), ("float32", float("nan"))])
def test_numbers_that_the_model_does_not_give_end_in_an_error_that_names_the_file(model_folder, tmp_path, dtype, nats):
    fit(text_rows(12), model=model_folder, dtype=dtype, **FAST)
    file = kept_file(tmp_path)
    pl.read_parquet(file).with_columns(pl.col("logp") + nats).write_parquet(file)
    with pytest.raises(ModelError, match=rf"{file.name}: the reference log-probs kept there .* row_id r\d+ .*Delete the file"):
        fit(text_rows(12), model=model_folder, dtype=dtype, **FAST)
    file.unlink()
    assert off_at_step_0(fit(text_rows(12), model=model_folder, dtype=dtype, **FAST)) < 0.1
