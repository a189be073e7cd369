import numpy as np
import polars as pl
import pytest

from ktodata.feedback import feedback_table
from ktodata.labels.label_rows import label_rows
from ktodata.labels.people.raters_reviewed import confusions_by_reviews, texts_of_raters, wrong_by_rater
from ktodata.labels.people.review_queue import shares
from ktodata.labels.people.trusted import draw_order, rows_to_review
from ktodata.labels.people.votes import last_votes, votes_of_rows
from ktodata.labels.people.weighed_votes import weigh_votes


def test_rates_by_hand_and_only_from_the_random_draw():
    """ann said up 6 times; of the 5 such rows that were drawn 4 are good, so 4.8 of the 6 are, and 1 of her 1 down."""
    rows = pl.DataFrame({"row_id": list("abcdefg"), "trusted_label": [True] * 5 + [False, None], "drawn": [True] * 6 + [False]})
    rows = rows.with_columns(label=True, undecided=False)
    verdicts = [True, True, True, True, False, True, True]
    votes = pl.DataFrame({"row_id": list("abcdefg"), "rater": ["ann"] * 7, "verdict": verdicts})
    line = confusions_by_reviews(rows, votes).row(0, named=True)
    assert line["rater"] == "ann" and line["sensitivity"] == pytest.approx(4.8 / 5.8)
    assert (line["sensitivity_low"], line["sensitivity_high"]) == (4 / 5, 5 / 6), "the seventh row is good, or it is not"
    assert line["specificity"] is None, "one row is too few"
    every = confusions_by_reviews(rows.with_columns(pl.col("trusted_label").fill_null(value=False)), votes).row(0, named=True)
    assert (every["sensitivity_low"], every["sensitivity_high"]) == (4 / 5, 4 / 5), "picked, it stands for itself alone"


def drawn_rows(truth, labels, reviewed, rng):
    """Rows as mark_reviewed gives them, `reviewed` of them drawn as review_queue.shares says."""
    drawn = np.zeros(len(truth), bool)
    for given, count in zip((False, True), shares(int((~labels).sum()), int(labels.sum()), reviewed), strict=True):
        drawn[rng.permutation(np.flatnonzero(labels == given))[:count]] = True
    rows = pl.DataFrame({"row_id": np.arange(len(truth)), "label": labels, "trusted_label": truth, "drawn": drawn})
    return rows.with_columns(undecided=False, trusted_label=pl.when("drawn").then("trusted_label"))


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


def judged_by_pairs(rng, *, raters, skill, texts=600):
    """Rows as dedupe leaves them, two raters a text: of one on which they differ a row of each label waits."""
    truth, lines = rng.random(texts) < 0.5, []
    for n in range(texts):
        votes = [
            {"rater": f"r{j}", "label": bool(truth[n] ^ (rng.random() > skill)), "created_at": None}
            for j in rng.choice(raters, 2, replace=False)
        ]
        for label in sorted({vote["label"] for vote in votes}):
            state = "keep" if votes[0]["label"] == votes[1]["label"] else "review"
            lines.append(
                {"prompt": f"p {n}", "completion": "c", "label": label, "votes": votes, "state": state, "truth": truth[n]}
            )
    extra = pl.DataFrame({name: [line.pop(name) for line in lines] for name in ("state", "truth")})
    return feedback_table(*lines).with_columns(extra, prompt_group="prompt")


def rates_by_reviews(rows, judged, *, seed=0):
    """Confusions and shares of wrong votes where the rows in `judged` were."""
    trusted = pl.when(pl.col("row_id").is_in(judged.implode())).then("truth")
    same_text = pl.coalesce(trusted, trusted.drop_nulls().first().over("prompt"))
    texts = texts_of_raters(label_rows(rows.with_columns(trusted_label=same_text), neighbours=0, seed=seed).table, seed=seed)
    votes = last_votes(votes_of_rows(texts))
    return confusions_by_reviews(texts, votes), wrong_by_rater(texts, votes)


def outside_truth(rows, rates):
    """Of intervals those without the rater's rate on all texts, waiting ones too."""
    votes = last_votes(votes_of_rows(rows.unique("prompt"))).join(rows.select("row_id", "truth"), on="row_id")
    confusions, wrong = rates
    sides = [
        *((r, "truth", True, low, high) for r, low, high in confusions.select("rater", "^sensitivity_.*$").drop_nulls().rows()),
        *((r, "truth", False, low, high) for r, low, high in confusions.select("rater", "^specificity_.*$").drop_nulls().rows()),
        *(
            (r, "verdict", says, 1 - high, 1 - low)
            for r, says, low, high in wrong.select("value", "given", "^error_[lh].*$").rows()
        ),
    ]
    right = [
        votes.filter(pl.col("rater") == r, pl.col(of) == says).select((pl.col("verdict") == pl.col("truth")).mean()).item()
        for r, of, says, _, _ in sides
    ]
    return [not low - 1e-9 <= share <= high + 1e-9 for share, (*_, low, high) in zip(right, sides, strict=True)]


@pytest.mark.parametrize("raters", [2, 6])
@pytest.mark.parametrize("waiting", [0, 40, 1000])
def test_texts_on_which_raters_differ_count_for_them(raters, waiting):
    """Where only texts on which both agree were counted, two who are right on 80 % of all were right on 94 %."""
    rng, missed, widths = np.random.default_rng(raters), [], []
    for seed in range(15):
        rows = judged_by_pairs(rng, raters=raters, skill=0.8)
        draw = rows_to_review(rows.filter(state="keep"), total=200, seed=seed)["row_id"]
        held = rows.filter(state="review").group_by("prompt").agg(pl.col("row_id").min())["row_id"]
        of_held = held[draw_order(held, seed)].head(waiting)
        rates = rates_by_reviews(rows, pl.concat([draw, of_held]), seed=seed)
        missed += outside_truth(rows, rates)
        widths.append(rates[0].select((pl.col("sensitivity_high") - pl.col("sensitivity_low")).mean()).item())
        known = rates[0]["sensitivity"].null_count() == 0 and rates[1]["error_rate"].null_count() == 0
        assert known == (waiting > 0), "of a text that waits nobody knows whether it is good until some were judged"
    assert len(missed) >= 60 and np.mean(missed) <= 0.05
    assert waiting or np.mean(widths) > 0.35, "which leaves the rates as open"


def test_picked_texts_that_wait_stand_for_themselves_alone():
    """Those that were judged for another reason, all of them good, say nothing of the others."""
    rows = judged_by_pairs(np.random.default_rng(5), raters=2, skill=0.8)
    draw = rows_to_review(rows.filter(state="keep"), total=200, seed=0)["row_id"]
    good = rows.filter(pl.col("truth"), state="review").group_by("prompt").agg(pl.col("row_id").min())["row_id"]
    rates = rates_by_reviews(rows, pl.concat([draw, good]))
    assert not any(outside_truth(rows, rates)) and rates[0]["sensitivity"].null_count() == 2


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
