"""At step 0 policy and reference are one: what was kept on disk is met again only by what would compute the same numbers."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import VOCABULARY, scorer_of, text_rows, tiny_of, token_rows

from ktodata.errors import ModelError
from ktodata.files import discard
from ktodata.train import fit, reference
from ktodata.train.model import fingerprint

FAST = {"batch_size": 4, "learning_rate": 1e-3, "warmup_fraction": 0.0, "device": "cpu", "max_steps": 1}
PASS = FAST | {"max_steps": None}
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


def test_other_code_of_ktodata_does_not_meet_the_kept_reference(model_folder, monkeypatch):
    """What it computed wrongly before it was mended would be found again."""
    first = fit(text_rows(12), model=model_folder, **FAST)
    assert fit(text_rows(12), model=model_folder, **FAST).metrics["reference"]["source"] == "cache"
    monkeypatch.setattr(fingerprint, "digest_file", lambda file: "mended" if file.name == "logit_form.py" else "")
    fingerprint.scoring_code.cache_clear()
    again = fit(text_rows(12), model=model_folder, **FAST)
    fingerprint.scoring_code.cache_clear()
    assert (again.metrics["reference"]["source"], again.metrics["reference"]["key"] != first.metrics["reference"]["key"]) == (
        "computed",
        True,
    )


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
    assert facts["recomputed_pairs"] == 4
    assert facts["recomputed_off_by"] < (1e-4 if dtype == "float32" else 0.1)


@pytest.mark.parametrize(("dtype", "nats"), [("float32", 0.01), ("bfloat16", 3.0), ("float32", float("nan"))])
def test_numbers_that_the_model_does_not_give_end_in_an_error_that_names_the_file(model_folder, tmp_path, dtype, nats):
    fit(text_rows(12), model=model_folder, dtype=dtype, **FAST)
    file = kept_file(tmp_path)
    pl.read_parquet(file).with_columns(pl.col("logp") + nats).write_parquet(file)
    with pytest.raises(ModelError, match=rf"{file.name}: the reference log-probs kept there .* row_id r\d+ .*Delete it"):
        fit(text_rows(12), model=model_folder, dtype=dtype, **FAST)
    file.unlink()
    assert off_at_step_0(fit(text_rows(12), model=model_folder, dtype=dtype, **FAST)) < 0.1


@pytest.mark.parametrize("kind", ["Llama", "Gemma2"])
def test_bfloat16_hides_no_more_than_its_rounding_on_the_pairs_compared(kind, tmp_path):
    """A hundredth of the log-prob was let pass: more than a nat here, as much as another config gives."""
    settings = {"vocab_size": VOCABULARY, "initializer_range": 0.1, "hidden_size": 64, "head_dim": 16}
    completions = [np.arange(number, number + 40) % VOCABULARY for number in range(12)]
    rows = token_rows([completion[:5] for completion in completions], completions)
    scorer = scorer_of(tiny_of(kind, **settings), rows, compute_dtype=torch.bfloat16)
    pairs = np.array([(row, row) for row in range(12)])
    kept = {"key": "of/these", "cache": tmp_path}
    logps, _ = reference.reference_logps(scorer, pairs, **kept)
    assert logps(pairs).abs().min() > 100
    for nats, fails in ((0.0, False), (0.7, True)):
        reference._pair_table(pairs).with_columns(logp=logps(pairs).numpy() + np.float32(nats)).write_parquet(
            tmp_path / "of/these.parquet"
        )
        with pytest.raises(ModelError, match="are not those of this model") if fails else nullcontext():
            _, facts = reference.reference_logps(scorer, pairs, **kept)
    assert facts["recomputed_off_by"] < 0.1


# --- a pass that is killed, and one that has a part already --------------------------------------------------------------------


def files_below(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def counted_parts(monkeypatch):
    """Parts of four pairs; a list that gets the size of each that is computed, and ends the process at the number that it holds."""
    monkeypatch.setattr(reference, "PART_PAIRS", 4)
    sizes, before = [], reference.shared_logps

    def counted(scorer, distributed, pairs):
        if len(sizes) + 1 == counted.killed_at:
            raise KeyboardInterrupt
        sizes.append(len(pairs))
        return before(scorer, distributed, pairs)

    counted.killed_at = None
    monkeypatch.setattr(reference, "shared_logps", counted)
    counted.sizes = sizes
    return counted


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_a_killed_pass_goes_on_and_ends_in_the_same_bytes(model_folder, tmp_path, monkeypatch, counted_parts, killed_at):
    fit(text_rows(12), model=model_folder, epochs=2, **PASS)
    unbroken, parts = files_below(tmp_path / "cache" / "reference"), list(counted_parts.sizes)
    assert len(parts) > 5
    assert [Path(name).suffix for name in unbroken] == [".parquet"]  # the parts are gone
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "another"))
    counted_parts.sizes.clear()
    counted_parts.killed_at = killed_at
    with pytest.raises(KeyboardInterrupt):
        fit(text_rows(12), model=model_folder, epochs=2, **PASS)
    counted_parts.killed_at = None
    fit(text_rows(12), model=model_folder, epochs=2, **PASS)
    assert counted_parts.sizes == parts  # each once
    assert files_below(tmp_path / "another" / "reference") == unbroken


def test_a_part_that_is_damaged_is_made_again(model_folder, tmp_path, counted_parts):
    counted_parts.killed_at = 4
    with pytest.raises(KeyboardInterrupt):
        fit(text_rows(12), model=model_folder, **PASS)
    (part,) = (tmp_path / "cache" / "reference").rglob("000001.npy")
    part.write_bytes(part.read_bytes()[:-3])
    counted_parts.killed_at = None
    assert off_at_step_0(fit(text_rows(12), model=model_folder, **PASS)) < 1e-4


def test_of_two_processes_at_one_pass_the_later_ends_as_the_first(model_folder, tmp_path, monkeypatch, counted_parts):
    """The first ends while the later one has a part half written, and takes the folder that it is in away."""
    fit(text_rows(12), model=model_folder, **PASS)
    unbroken, parts = files_below(tmp_path / "cache" / "reference"), list(counted_parts.sizes)
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "another"))
    counted_parts.sizes.clear()
    save = np.save

    def ended_meanwhile(file, logps):
        save(file, logps)
        if len(counted_parts.sizes) == 3:
            discard(Path(file.name).parent)

    monkeypatch.setattr(np, "save", ended_meanwhile)
    fit(text_rows(12), model=model_folder, **PASS)
    assert (counted_parts.sizes, files_below(tmp_path / "another" / "reference")) == (parts, unbroken)


def test_another_seed_takes_the_matched_pairs_from_the_first(model_folder):
    first, second = (fit(text_rows(12), model=model_folder, seed=seed, **PASS) for seed in (0, 1))
    kept = second.metrics["reference"]["pairs_kept"]
    assert first.metrics["reference"]["pairs_kept"] == 0
    assert 12 <= kept < second.metrics["reference"]["pairs"]  # and those partners that both drew
    assert second.metrics["reference"]["requested_tokens"] < first.metrics["reference"]["requested_tokens"]
    ours, theirs = (result.telemetry.sort("row_id")["ref_logp"].to_list() for result in (first, second))
    assert ours == theirs
    assert off_at_step_0(second) < 1e-4


def test_what_another_seed_left_meanwhile_changes_nothing_of_a_killed_pass(model_folder, tmp_path, monkeypatch, counted_parts):
    fit(text_rows(12), model=model_folder, seed=1, **PASS)
    unbroken = files_below(tmp_path / "cache" / "reference")
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "another"))
    counted_parts.sizes.clear()
    counted_parts.killed_at = 3
    with pytest.raises(KeyboardInterrupt):
        fit(text_rows(12), model=model_folder, seed=1, **PASS)
    counted_parts.killed_at = None
    fit(text_rows(12), model=model_folder, seed=0, **PASS)
    fit(text_rows(12), model=model_folder, seed=1, **PASS)
    assert unbroken.items() <= files_below(tmp_path / "another" / "reference").items()


def test_wrong_numbers_of_another_seed_end_in_an_error(model_folder, tmp_path):
    fit(text_rows(12), model=model_folder, seed=0, **PASS)
    file = kept_file(tmp_path)
    pl.read_parquet(file).with_columns(pl.col("logp") + 0.1).write_parquet(file)
    with pytest.raises(ModelError, match=rf"{file.parent.name}: the reference log-probs kept there .*Delete it"):
        fit(text_rows(12), model=model_folder, seed=1, **PASS)
