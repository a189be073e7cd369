import numpy as np
import polars as pl
import pytest

from ktodata.feedback import feedback_table
from ktodata.labels.label_rows import label_rows
from ktodata.labels.people.raters_reviewed import confusions_by_reviews, wrong_by_rater
from ktodata.labels.people.review_queue import shares
from ktodata.labels.people.weighed_votes import weigh_votes


def test_rates_by_hand_and_only_from_the_random_draw():
    """ann said up 6 times; of the 5 such rows that were drawn 4 are good, so 4.8 of the 6 are, and 1 of her 1 down."""
    rows = pl.DataFrame({"row_id": list("abcdefg"), "trusted_label": [True] * 5 + [False] * 2, "drawn": [True] * 6 + [False]})
    rows = rows.with_columns(label=True, drawable=True, undecided=False)
    verdicts = [True, True, True, True, False, True, True]
    votes = pl.DataFrame({"row_id": list("abcdefg"), "rater": ["ann"] * 7, "verdict": verdicts})
    line = confusions_by_reviews(rows, votes).row(0, named=True)
    assert line["rater"] == "ann" and line["sensitivity"] == pytest.approx(4.8 / 5.8)
    assert (line["sensitivity_low"], line["sensitivity_high"]) == (4 / 5, 5 / 6), "the seventh row is good, or it is not"
    assert line["specificity"] is None, "one row is too few"


def drawn_rows(truth, labels, reviewed, rng):
    """Rows as mark_reviewed gives them, `reviewed` of them drawn as review_queue.shares says."""
    drawn = np.zeros(len(truth), bool)
    for given, count in zip((False, True), shares(int((~labels).sum()), int(labels.sum()), reviewed), strict=True):
        drawn[rng.permutation(np.flatnonzero(labels == given))[:count]] = True
    rows = pl.DataFrame({"row_id": np.arange(len(truth)), "label": labels, "trusted_label": truth, "drawn": drawn})
    return rows.with_columns(drawable=True, undecided=False, trusted_label=pl.when("drawn").then("trusted_label"))


@pytest.mark.parametrize(
    ("kind", "up"), [("rater", 0.92), ("rater", 0.6), ("majority", 0.85), ("majority", 0.15), ("other", 0.7)]
)
def test_intervals_hold_the_raters_rates_however_the_label_is_made(kind, up):
    """One rater's word, the majority of three, who judged six rows of ten each, or a label of its own; the rarer is drawn more."""
    rng, held = np.random.default_rng(7), []
    for _ in range(40):
        truth = rng.random(900) < up
        right = np.where(truth, *np.array([[(0.95, 0.75)], [(0.7, 0.9)], [(0.85, 0.85)]]).transpose(2, 0, 1))
        votes = np.where(rng.random((3, 900)) < right, truth, ~truth)
        seen = rng.random((3, 900)) < (0.6 if kind == "majority" else 1)
        label = {"rater": votes[0], "majority": (np.where(votes, 1, -1) * seen).sum(axis=0) > 0}
        rows = drawn_rows(truth, label.get(kind, truth ^ (rng.random(900) < 0.15)), 60, rng)
        ids = np.arange(900)
        cast = [pl.DataFrame({"row_id": ids[seen[n]], "rater": str(n), "verdict": votes[n, seen[n]]}) for n in range(3)]
        for line in confusions_by_reviews(rows, pl.concat(cast)).iter_rows(named=True):
            n = int(line["rater"])
            for name, side in (("sensitivity", truth & seen[n]), ("specificity", ~truth & seen[n])):
                if line[name] is not None:
                    assert line[f"{name}_low"] <= line[name] <= line[f"{name}_high"]
                    held.append(line[f"{name}_low"] <= (votes[n] == truth)[side].mean() <= line[f"{name}_high"])
    assert len(held) > 100 and np.mean(held) >= 0.95


def test_rows_that_nobody_could_judge_leave_both_ends_open():
    rng = np.random.default_rng(1)
    truth = rng.random(300) < 0.5
    rows = drawn_rows(truth, truth, 60, rng)
    votes = pl.DataFrame({"row_id": np.arange(300), "rater": "ann", "verdict": truth})
    skipped = rows.with_columns(undecided=pl.col("drawn") & (pl.col("row_id") % 3 == 0))
    skipped = skipped.with_columns(drawn=pl.col("drawn") & ~pl.col("undecided"))
    known, open_ = (confusions_by_reviews(table, votes)["sensitivity_low"][0] for table in (rows, skipped))
    assert open_ < known - 0.2


@pytest.mark.parametrize("up", [0.5, 0.85])
def test_wrong_labels_by_rater_are_of_what_each_said_and_not_of_whose_record_was_kept(up):
    """The majority of three gives the label, so that cy, who is wrong on four of ten, is wrong on few rows that have their label."""
    rng, held, shares_wrong, ids = np.random.default_rng(11), [], {"ann": [], "bob": [], "cy": []}, np.arange(700)
    for _ in range(40):
        truth = rng.random(700) < up
        verdicts_of = {name: truth ^ (rng.random(700) > skill) for name, skill in (("ann", 0.95), ("bob", 0.9), ("cy", 0.6))}
        labels = np.sum(list(verdicts_of.values()), axis=0) >= 2
        cast = pl.concat([pl.DataFrame({"row_id": ids, "rater": name, "verdict": votes}) for name, votes in verdicts_of.items()])
        rates = wrong_by_rater(drawn_rows(truth, labels, 90, rng), cast)
        for line in rates.iter_rows(named=True):
            wrong = (verdicts_of[line["value"]] != truth)[verdicts_of[line["value"]] == line["given"]].mean()
            assert line["error_low"] <= line["error_rate"] <= line["error_high"]
            held.append(line["error_low"] <= wrong <= line["error_high"])
        for name, counts in (
            rates.group_by("value").agg(pl.col("wrong", "rows").sum()).select("value", pl.struct("wrong", "rows")).rows()
        ):
            assert counts["rows"] == 90, "each of them judged every row that was drawn"
            shares_wrong[name].append(counts["wrong"] / 90)
    assert np.mean(held) >= 0.95
    assert np.mean(shares_wrong["ann"]) < 0.15 < 0.3 < np.mean(shares_wrong["cy"])


@pytest.mark.parametrize("reviewed", [0, 200])
def test_agreement_gives_a_rate_and_reviewed_rows_an_interval(reviewed):
    """Raters who seem to err apart may be copiers of one of them: nothing that votes say bounds how often they are wrong."""
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.5
    right = rng.random((600, 5)) < 0.85
    cast = [
        [{"rater": f"r{j}", "label": bool(t == ok), "created_at": None} for j, ok in enumerate(oks)]
        for t, oks in zip(truth, right, strict=True)
    ]
    rows = [{"prompt": f"p {n}", "completion": f"c {n}", "label": bool(truth[n]), "votes": votes} for n, votes in enumerate(cast)]
    verdict = pl.when(pl.int_range(pl.len()) < reviewed).then("label")
    feedback = feedback_table(*rows).with_columns(prompt_group="row_id", trusted_label=verdict)
    votes = weigh_votes(label_rows(feedback, neighbours=0, all_at_random=True, seed=0), seed=0)
    assert votes.independence.identified
    confusions = votes.tables()["confusions"]
    assert confusions["sensitivity"].is_between(0.7, 0.95).all()
    ends = confusions.select("sensitivity_low", "specificity_high").null_count().row(0)
    assert ends == ((0, 0) if reviewed else (5, 5)) and confusions["informativeness_low"].null_count() == 5
