"""The quickstart's sample: its files hold what its card says, its script makes it again, and its reviews are what a program says."""

from collections import Counter

import polars as pl
import pytest
import yaml
from sample_files import replayed, sample_records, sound_rows

import ktodata as kd
from ktodata.datasets import short_sample
from ktodata.evaluate.checked_answers import read_checked_prompts
from ktodata.labels.people.trusted import mark_reviewed
from tools.sample import make_short_sample

RECIPE = short_sample().parents[2] / "pipelines" / "quickstart.yaml"


@pytest.fixture(scope="module")
def given() -> dict[str, dict]:
    return sample_records(short_sample() / "feedback.jsonl")


@pytest.fixture(scope="module")
def truth() -> dict[str, dict]:
    return sample_records(short_sample() / "truth.jsonl")


@pytest.fixture(scope="module")
def rows(given, truth) -> list[dict]:
    return sound_rows(given, truth)


def test_truth_is_at_most_eight_words(rows):
    words = {row["id"]: len(pl.Series([row["completion"]]).str.extract_all(r"\w+")[0]) for row in rows}
    assert [row["id"] for row in rows if row["truth"] != (0 < words[row["id"]] <= 8)] == []


def test_two_of_five_raters_are_wrong_as_stated(rows):
    wrong = {rater.name: [row["up"] != row["truth"] for row in rows if row["user"] == rater.name and not (row["planted"] or "").startswith("near")] for rater in make_short_sample.RATERS}  # fmt: skip
    shares = {name: sum(each) / len(each) for name, each in wrong.items()}
    assert all(shares[name] < 0.12 for name in ("r1", "r2", "r3"))
    assert 0.3 < shares["r4"] < 0.62  # a coin toss, mostly
    assert shares["r5"] > 0.6  # takes long answers for good ones


def test_the_committed_files_follow_from_the_committed_answers(given, truth):
    made = make_short_sample.make_short_sample(replayed(given, truth))
    assert {name: (short_sample() / name).read_text(encoding="utf-8") for name in made} == made


def test_held_out_prompts_are_in_no_row_and_hold_the_thin_family(given):
    prompts, facts = read_checked_prompts(short_sample() / "held_out.jsonl")
    assert facts == {"file": "held_out.jsonl", "prompts": 240, "left_out": 0, "unknown": {}}
    assert not {record["prompt"] for record in given.values()} & set(prompts["prompt"])
    tasks, _ = make_short_sample.short_tasks()
    assert Counter(task.family for task in tasks)["dates"] == 5


def test_the_reviews_are_a_random_draw_that_the_program_judged(truth, tmp_path):
    """All stand where the audit's own order puts them, so error rates follow from them; each is the truth."""
    run = kd.run(RECIPE, out=tmp_path / "run", overrides=["validate.max_tokens=null"], until="split")
    verdicts = pl.read_csv(short_sample() / "reviews.csv")
    judged = run.feedback.join(verdicts, on="row_id", how="inner", suffix="_by")
    assert judged.height == verdicts.height == 60 and set(judged["part"]) == {"train"}
    assert [truth[name]["truth"] for name in judged["source_id"]] == judged["trusted_label"].to_list()
    states = run.ledger.group_by("row_id").agg(state=pl.col("action").sort_by(pl.col("action") == "drop").last())
    rows = run.feedback.join(states, on="row_id", how="left").with_columns(trained=pl.col("part") == "train")
    rows = rows.filter(pl.col("state").ne_missing("drop"))
    assert mark_reviewed(rows, seed=0)["drawn"].sum() == 60


def test_the_card_says_the_numbers_that_hold(rows, given):
    card = (short_sample() / "README.md").read_text(encoding="utf-8")
    assert "The raters are simulated" in card
    assert f"{len(given):,} records" in card
    assert f"{sum(row['up'] for row in rows):,} up, {sum(not row['up'] for row in rows):,} down" in card
    wrong = sum(row["up"] != row["truth"] for row in rows)
    assert f"{wrong} labels are wrong ({100 * wrong / len(rows):.0f} %)" in card
    for rater in make_short_sample.RATERS:
        assert f"| {rater.name} | {rater.share:.0%} | {rater.misses:.0%} |".replace("%", " %") in card


def test_the_quickstart_recipe_reads_the_sample():
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    named = [
        recipe["ingest"]["paths"][0],
        recipe["reviews"],
        recipe["evaluate"]["instructions"],
        recipe["evaluate"]["truth"]["path"],
    ]
    assert {(RECIPE.parent / path).resolve().parent for path in named} == {short_sample().resolve()}
    assert [name for step in recipe["steps"] for name in step] == [
        "validate", "dedupe", "split", "embed", "label_noise", "rebalance", "coverage",
    ]  # fmt: skip
