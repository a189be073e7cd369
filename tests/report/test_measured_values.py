"""What an ablation and a comparison share on the page: numbers in words, whose rows they scored, what those rows truly are."""

import folders
import polars as pl
import pytest

from ktodata.report.run_files import RunFiles
from ktodata.report.sections.experiment_rows import (
    Value,
    how_seeded,
    how_trained,
    lines_of,
    object_of,
    sentences,
    table_of,
    value_of,
    why_stale,
    with_truth,
)

TERMS = {"batch_size": 16, "learning_rate": 1e-4, "trainable_layers": 6, "max_length": 64}


def test_a_value_is_shown_with_its_interval_or_not_at_all():
    value = Value(0.664, 0.544, 0.766)
    assert value.plain == ("0.664", "0.544 to 0.766")
    assert value.signed == ("+0.664", "+0.544 to +0.766")
    assert value.percent == ("66\u2009%", "54 to 77\u2009%")
    for part in range(3):
        missing = Value(*(None if place == part else 0.5 for place in range(3)))
        assert not missing.known and missing.plain == missing.signed == missing.percent == ("–", "")
    assert value_of({"low": -0.1, "value": 0.2}, "value", "low", "high") == Value(0.2, -0.1, None)


def scored(row_ids):
    return pl.DataFrame({"arm": "one", "seed": 0, "row_id": row_ids, "reward": 0.5})


def test_rows_are_the_runs_own_as_long_as_all_are_held_out(proven):
    run, ids = RunFiles(proven), folders.held_out_ids(proven)
    train = pl.read_parquet(proven / "stages/split/columns.parquet").filter(part="train")["row_id"]
    assert why_stale(run, scored(ids[:3] * 2), "test", file="f") == ""  # not every held-out row needs a score
    assert why_stale(run, scored([*ids, "gone"]), "test", file="f") == "1 of 7 scored rows is not among its test rows."
    assert why_stale(run, scored([*ids, *train[:2]]), "test", file="f") == "2 of 8 scored rows are not among its test rows."
    assert why_stale(run, scored(ids), "validation", file="f").startswith("6 of 6 scored rows are not among its validation rows")
    assert why_stale(run, None, "test", file="f") == "f says which rows were scored, and it is gone or has other columns."


def test_a_part_given_with_the_feedback_is_known_without_a_split(tmp_path):
    folder = folders.write_run(tmp_path / "small", stages=())
    assert why_stale(RunFiles(folder), scored(["a"]), "test", file="f") == "The run no longer says which rows it holds out."
    place = folder / "stages/ingest/columns.parquet"
    feedback = pl.read_parquet(place).with_columns(part=pl.lit("train"))
    feedback = feedback.with_columns(
        part=pl.when(pl.col("row_id") == feedback["row_id"][0]).then(pl.lit("test")).otherwise("part")
    )
    feedback.write_parquet(place)
    assert why_stale(RunFiles(folder), scored(feedback["row_id"][:1].to_list()), "test", file="f") == ""
    assert why_stale(RunFiles(folder), scored(feedback["row_id"][:2].to_list()), "test", file="f") != ""


@pytest.mark.parametrize(("trained", "now"), [(45, 45), (None, 45), (45, None), ("45", 46)])
def test_equal_or_unknown_numbers_say_nothing(proven, trained, now):
    assert why_stale(RunFiles(proven), scored(folders.held_out_ids(proven)), "test", file="f", trained=trained, now=now) == ""


def test_another_number_of_rows_is_said(proven):
    stale = why_stale(RunFiles(proven), scored(folders.held_out_ids(proven)), "test", file="f", trained=1, now=1200)
    assert stale == "They were trained on 1 row; it now has 1,200."


def test_truth_is_the_scores_own_then_the_evaluations_then_unknown(ablated):
    folder = ablated(truth=False)
    ids = folders.held_out_ids(folder)
    assert with_truth(RunFiles(folder), scored(ids), by_label=False)["truth"].null_count() == 6
    truth = pl.DataFrame({"row_id": ids[:4], "truth": [True, False, True, False]})
    truth.write_parquet(folder / "stages/evaluate/columns.parquet")
    assert with_truth(RunFiles(folder), scored(ids), by_label=False)["truth"].to_list() == [True, False, True, False, None, None]
    own = scored(ids).with_columns(truth=pl.lit(True), group=pl.lit("g"))
    assert with_truth(RunFiles(folder), own, by_label=False).equals(own)


def test_labels_as_given_stand_for_the_truth_only_where_rows_were_judged_by_them(ablated):
    folder = ablated(truth=False)
    rows = pl.read_parquet(folder / "stages/ingest/columns.parquet")
    scores = with_truth(RunFiles(folder), scored(rows["row_id"].to_list()), by_label=True)
    assert scores["truth"].to_list() == rows["label"].to_list() and scores["row_id"].to_list() == rows["row_id"].to_list()


def test_rows_of_one_prompt_are_one_group_unless_dedupe_knows_better(ablated):
    folder = ablated(truth=False)
    rows = pl.read_parquet(folder / "stages/ingest/columns.parquet").select("row_id", "prompt")
    scores = with_truth(RunFiles(folder), scored(rows["row_id"].to_list()), by_label=True)
    assert scores["group"].to_list() == rows["prompt"].to_list()
    place = folder / "stages/dedupe/columns.parquet"
    pl.read_parquet(place).with_columns(prompt_group=pl.lit("all are alike")).write_parquet(place)
    assert set(with_truth(RunFiles(folder), scored(rows["row_id"].to_list()), by_label=True)["group"]) == {"all are alike"}


def test_json_of_another_kind_is_null_and_breaks_nothing():
    schema = pl.Schema({"arm": pl.String(), "value": pl.Float64(), "rows": pl.Int64()})
    results = {"arms": [{"arm": "one", "value": 1, "rows": "many", "more": 7}, 3, {"value": "x"}]}
    assert table_of(results, "arms", schema).rows() == [("one", 1.0, None), (None, None, None)]
    assert table_of({"arms": "none"}, "arms", schema).is_empty() and lines_of({}, "arms") == []
    assert object_of({"settings": 3}, "settings") == {} and object_of({"settings": {"a": 1}}, "settings") == {"a": 1}
    assert sentences("not a list") == [] and sentences(["a", 3]) == ["a", "3"]


def test_training_and_seeds_in_words():
    shared = "learning rate 0.0001, the top 6 layers, at most 64 tokens a row."
    assert how_trained(TERMS, 1000) == f"1,000 updates of 16 completions, {shared}"
    assert how_trained({"batch_size": 8, "trainable_layers": 1}, 2) == "2 updates of 8 completions, the top 1 layer."
    assert how_trained({"batch_size": 8}, 2) == "2 updates of 8 completions, all layers."
    assert how_seeded([3]) == "1 seed (3)." and how_seeded(list(range(12))) == "12 seeds (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …)."
    assert how_seeded(None) == how_seeded([]) == how_seeded("12") == "Not said."
