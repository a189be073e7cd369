"""The track that trains, with a tiny model: which rows and labels it trains on, what it keeps, and what the page says of it."""

import numpy as np
import polars as pl
import pytest
from test_bench import ENCODER, ROWS, rows, write

import ktodata as kd
from ktodata.bench.bench_cells import BenchCell
from ktodata.bench.bench_methods import METHODS, BenchAnswer, method
from ktodata.bench.bench_rows import bench_rows
from ktodata.bench.bench_table import bench_page
from ktodata.bench.bench_tracks import BenchPlan, outcome_json, run_bench
from ktodata.bench.bench_training import PARTS, train_track
from ktodata.bench.label_sources import label_sources
from ktodata.experiments.ablation import KtoPlan
from ktodata.experiments.arms import TrainedArm
from ktodata.experiments.treatments import CLEAN, NOISY

TERMS = {"max_steps": 2, "batch_size": 8, "trainable_layers": 1, "dtype": "float32"}
SHARE = 0.3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    write(place / "rule.jsonl", rows())
    return place


@pytest.fixture(autouse=True)
def no_estimate(monkeypatch):
    """No updates are timed beforehand."""
    numbers = {"updates": 2, "batch_size": 8, "tokens_a_completion": 1.0}
    monkeypatch.setattr(KtoPlan, "expect", lambda plan, left: ([0.0] * len(left), numbers))


@pytest.fixture
def trained(monkeypatch):
    """Every training, which is not done: a reward is the share of training rows with the row's word that are desirable."""
    seen = []

    def train(plan, training):
        seen.append(training)
        held_out, yes = plan.scored, training.arm.rows["completion"].str.starts_with("yes")
        share = {word: float(training.arm.rows["label"].filter(yes == word).mean()) for word in (True, False)}
        rewards = [share[text.startswith("yes")] for text in held_out["completion"]]
        return TrainedArm(training.arm.name, training.seed, held_out.select("row_id").with_columns(reward=np.array(rewards)))

    monkeypatch.setattr(KtoPlan, "train", train)
    return seen


def plan_of(data, out, model, **more):
    settings = {"budgets": (), "methods": ("as given", "nearest rows"), "max_rows": ROWS, "encoder": ENCODER, "train": (SHARE,)}
    return BenchPlan(data, out, model=model, terms=TERMS, **settings | more)


def test_what_is_trained_and_judged(data, model_folder, tmp_path, trained):
    """No prompt on both sides; the true arm has the truth, the control's reviewed rows as well."""
    made = bench_rows(label_sources(data)[0][0], max_rows=ROWS, encoder=ENCODER)
    truth = dict(zip(made.table["row_id"], made.truth, strict=True))
    reviewed = dict(zip(made.table["row_id"], np.arange(ROWS) % 3 == 0, strict=True))

    def repair(training, part, method):
        judged = np.array([reviewed[row] for row in training.table["row_id"]])
        return BenchCell.of(training, judged, BenchAnswer(doubt=None), seconds=0.0)

    table = train_track(
        made, [METHODS["as given"]], repair, share=SHARE, model=model_folder, seeds=1, folder=tmp_path, terms=TERMS
    ).table
    assert table["arm"].unique(maintain_order=True).to_list() == [NOISY, CLEAN, "as given, 30% reviewed"]
    judged, dealt = [], {}
    for training in trained:
        frame = training.arm.rows
        meant = "label" if training.arm.name == NOISY else pl.col("p_desirable") > 0.5
        right = [truth[row] == label for row, label in frame.select("row_id", meant).iter_rows()]
        # updates are dealt by the labels as given: arms meet the same rows in the same order
        assert dealt.setdefault(training.seed, frame["label"].to_list()) == frame["label"].to_list()
        known = [reviewed[row] for row in frame["row_id"]]
        assert all(right) == (training.arm.name == CLEAN)
        assert training.arm.name == NOISY or all(np.array(right)[known])
        judged.append(set(made.table["prompt_group"]) - set(frame["prompt_group"]))
    assert len(trained) == 3 * PARTS and {training.seed for training in trained} == set(range(PARTS))
    assert set.union(*judged) == set(made.table["prompt_group"]), "every prompt is judged"
    assert sum(map(len, judged)) == 3 * made.table["prompt_group"].n_unique(), "once for each arm"


def test_it_goes_on_where_it_stopped_and_the_page_says_what_could_be_told(data, model_folder, tmp_path, trained):
    plan = plan_of(data, tmp_path, model_folder)
    first = run_bench(plan)
    trainings = len(trained)
    again = run_bench(plan)
    assert len(trained) == trainings, "all were kept"
    assert outcome_json(again) == outcome_json(first) and '"trained": [\n' in outcome_json(first)
    line = next(line for line in bench_page(first).splitlines() if line.startswith("| rule"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    table = first.trained["rule, weak_label_rule", SHARE].table.filter(measure="auc")
    clean = table.filter(arm=CLEAN).row(0, named=True)
    assert cells[3] == f"{table['value'][0]:.3f}"
    assert float(cells[-1]) == pytest.approx((clean["minus_high"] - clean["minus_low"]) / 2, abs=5e-4)
    assert len(cells) == 5 + 2 + 1


def test_another_loss_is_a_line_of_the_trained_track_alone(data, model_folder, tmp_path, trained):
    names = ("as given", "Hölder-KTO", "noise-corrected KTO", "random drop", "language model's loss")
    outcome = run_bench(plan_of(data, tmp_path, model_folder, methods=names, budgets=(0.0,), max_rows=ROWS))
    assert {method for _, _, method in outcome.cells} == {"as given", "language model's loss"}
    terms = {training.arm.name: dict(training.arm.settings) for training in trained}
    assert terms[f"Hölder-KTO, {SHARE:.0%} reviewed"] == {"objective": "kto_hoelder", "soft_labels": True}
    assert terms[f"as given, {SHARE:.0%} reviewed"] == {"soft_labels": True}
    # one word's labels are flipped more often than not the other's: the rates are those of the reviewed rows
    rates = terms[f"noise-corrected KTO, {SHARE:.0%} reviewed"]["flip_rates"]
    assert all(0 <= rate < 1 for rate in rates.values()) and 0 < sum(rates.values()) < 1
    sizes = {training.arm.name: training.arm.rows.height for training in trained if not training.seed}
    drawn = sizes[f"random drop, {SHARE:.0%} reviewed"] / sizes[NOISY]
    assert 0.6 < drawn < 0.95, "a quarter of the labels is wrong, a third of those is reviewed"
    assert set(sizes.values()) == {sizes[NOISY], sizes[f"random drop, {SHARE:.0%} reviewed"]}
    loss = outcome.cells["rule, weak_label_rule", 0.0, "language model's loss"][0].doubt
    assert len(np.unique(loss)) > 2 and np.isfinite(loss).all()


def test_a_source_that_cannot_be_judged_is_passed_over_with_the_reason(tmp_path, model_folder, trained):
    lines = list(rows())
    write(tmp_path / "rule.jsonl", [line for n, line in enumerate(lines) if line["truth"] or n < 50])
    outcome = run_bench(plan_of(tmp_path, tmp_path / "out", model_folder))
    assert not outcome.trained and not trained
    assert "10 of each are needed" in outcome.passed_over["rule, weak_label_rule, trained on"]
    assert "10 of each are needed" in bench_page(outcome)


def test_a_method_that_does_not_answer_is_no_arm(data, model_folder, tmp_path, trained):
    def odd(task):
        raise KeyError("x")

    method("odd")(odd)
    try:
        outcome = run_bench(plan_of(data, tmp_path, model_folder, methods=("as given", "odd")))
    finally:
        METHODS.pop("odd")
    arms = outcome.trained["rule, weak_label_rule", SHARE].table["arm"].unique()
    assert f"as given, {SHARE:.0%} reviewed" in arms and not any(arm.startswith("odd") for arm in arms)
    assert "KeyError: 'x'" in outcome.passed_over["rule, weak_label_rule, trained on, odd"]


def test_labels_that_are_all_one_are_no_arm_and_that_is_told(data, model_folder, tmp_path, trained):
    """The arm vanished without a word."""
    method("all good")(lambda task: BenchAnswer(doubt=None, labels=np.ones(len(task.labels), bool)))
    try:
        outcome = run_bench(plan_of(data, tmp_path, model_folder, train=(0.0,), methods=("as given", "all good")))
    finally:
        METHODS.pop("all good")
    assert "all good, 0% reviewed" not in outcome.trained["rule, weak_label_rule", 0.0].table["arm"].unique()
    assert "are all one" in outcome.passed_over["rule, weak_label_rule, trained on, all good"]


def test_a_share_is_one(data, model_folder, tmp_path):
    with pytest.raises(kd.KtodataError, match="at least 0 and under 1"):
        plan_of(data, tmp_path, model_folder, train=(2.0,))


def test_a_policy_is_really_trained(data, model_folder, tmp_path):
    """Arms of the same labels are one training, and other labels make another policy."""
    plan = plan_of(data, tmp_path, model_folder, methods=("as given",), train=(0.0,))
    scores = run_bench(plan).trained["rule, weak_label_rule", 0.0].scores
    of = {arm: scores.filter(arm=arm).sort("row_id")["reward"].to_numpy() for arm in scores["arm"].unique()}
    assert (of[NOISY] == of["as given, 0% reviewed"]).all()
    assert np.abs(of[NOISY] - of[CLEAN]).max() > 1e-6
