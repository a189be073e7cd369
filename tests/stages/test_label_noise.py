import gzip
import json

import numpy as np
import polars as pl
import pytest

from ktodata.errors import MissingColumnError, SettingError
from ktodata.feedback import feedback_table
from ktodata.labels.people.trusted import rows_to_review
from ktodata.stages.label_noise import ADDS, label_noise


def two_topics(rows=400, *, wrong=0.1, distance=3.0, seed=0):
    """Feedback on two topics, one desirable and one not, with a share of labels flipped: the table, and the flipped row_ids."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.6
    flipped = rng.random(rows) < wrong
    vectors = rng.standard_normal((rows, 8)).astype(np.float32)
    vectors[:, 0] += np.where(truth, distance, -distance)
    table = feedback_table(*[(f"prompt {n}", f"text {n}", bool(label)) for n, label in enumerate(truth ^ flipped)])
    embedding = pl.Series(vectors, dtype=pl.Array(pl.Float32, 8))
    table = table.with_columns(prompt_group="row_id", prompt_embedding=embedding, completion_embedding=embedding)
    return table, set(table["row_id"].filter(pl.Series(flipped)))


def codes(result):
    return {finding["code"]: finding["status"] for finding in result.metrics["findings"]}


def flagged(result):
    return set(result.columns.filter("flagged")["row_id"])


def test_flipped_rows_are_flagged_and_sent_to_review():
    table, wrong = two_topics(1200)
    result = label_noise(table)
    assert result.metrics["identifiability"]["verdict"] == "identifiable"
    assert len(flagged(result) & wrong) / len(flagged(result)) >= 0.8
    assert len(flagged(result) & wrong) / len(wrong) >= 0.5
    assert set(result.decisions["action"]) == {"review"}
    assert set(result.decisions["row_id"]) == flagged(result)
    evidence = json.loads(result.decisions["evidence"][0])
    assert evidence["label_quality"] < 0.5
    estimate = result.metrics["label_noise_estimate"]["wrong"]
    assert estimate == pytest.approx(len(wrong) / 1200, abs=0.03)


def test_flipped_rows_have_the_lowest_label_quality():
    table, wrong = two_topics()
    doubtful = label_noise(table).columns.sort("label_quality").head(len(wrong))
    assert len(wrong & set(doubtful["row_id"])) >= 0.9 * len(wrong)


def test_where_text_says_nothing_nothing_is_flagged_and_it_says_so():
    table, _ = two_topics(600, distance=0.1)
    result = label_noise(table)
    assert flagged(result) == set()
    assert result.decisions.height == 0
    assert result.metrics["is_label_issue"] > 60, "the plain confident-learning set would have taken many"
    assert result.metrics["identifiability"]["verdict"] == "not"
    assert "Systematic noise" in result.metrics["identifiability"]["limits"]
    assert codes(result)["KD040"] == "issue"
    assert codes(result)["KD043"] == "not_applicable"  # a share of wrong labels would be a guess dressed as a number
    assert (
        result.tables["trust_curve"]["expected_precision_low"].max() < 0.8
    )  # what flags are judged by; one lucky flip may rank first


def test_clean_and_separable_rows_are_left_alone():
    table, _ = two_topics(600, wrong=0.0)
    result = label_noise(table)
    assert flagged(result) == set()
    assert codes(result)["KD043"] == "not_applicable"  # an estimate of random errors passes nothing: nobody has drawn and judged
    asked = result.tables["ask_for_review"]["row_id"]
    judged = table.with_columns(trusted_label=pl.when(pl.col("row_id").is_in(asked.implode())).then("label"))
    assert codes(label_noise(judged))["KD043"] == "passed"  # 0 of 60: under 10 %


def test_one_prompt_for_all_rows_is_audited_row_by_row():
    table, _ = two_topics(600)
    result = label_noise(table.with_columns(prompt=pl.lit("Write a comment."), prompt_group=pl.lit("only")))
    assert "not_learnt" not in result.metrics
    assert result.columns["label_quality"].null_count() == 0


@pytest.mark.parametrize("others", [6, 60, 300])
def test_a_prompt_of_nearly_all_rows_is_audited_as_one_of_all_is(others):
    """In one fold it was answered by models of the few other rows: nothing was learnt, or the text was blamed."""
    table, wrong = two_topics(600)
    table = table.with_columns(prompt_group=pl.when(pl.int_range(pl.len()) < others).then("row_id").otherwise(pl.lit("most")))
    result = label_noise(table)
    assert result.metrics["identifiability"]["verdict"] == "identifiable"
    words = next(finding["text"] for finding in result.metrics["findings"] if finding["code"] == "KD040")
    assert f"One prompt, or what differs little from it, has {100 - others / 6:.0f}" in words
    doubtful = result.columns.sort("label_quality").head(len(wrong))
    assert len(wrong & set(doubtful["row_id"])) >= 0.9 * len(wrong)


def test_reviews_of_a_prompt_of_nearly_all_rows_count_as_rows():
    """Fifty rows that look surely wrong, and are, counted as two of two: no label was turned, and more reviews were asked for."""
    table, wrong = two_topics(1200)
    one = pl.when(pl.int_range(pl.len()) < 10).then("row_id").otherwise(pl.lit("most"))
    result = label_noise(
        with_reviews(table.with_columns(prompt_group=one), wrong, every=5), action="relabel", trusted_at_random=True
    )
    turned = {row_id for row_id, (_, reason) in result.actions().items() if reason == "likelier_label"}
    assert len(turned & wrong) / len(turned) > 0.9 and len(turned) > 0.5 * len(wrong)


def test_columns_hold_one_line_a_row_in_range():
    table, _ = two_topics()
    columns = label_noise(table).columns
    assert columns.columns == ["row_id", *ADDS]
    assert columns["row_id"].to_list() == table["row_id"].to_list()
    assert columns["p_desirable"].is_between(0, 1).all()
    joined = table.join(columns, on="row_id")
    own = pl.when("label").then("p_desirable").otherwise(1 - pl.col("p_desirable"))
    assert joined.select((pl.col("label_quality") - own).abs().max()).item() < 1e-12


def test_one_seed_gives_the_same_bytes():
    table, _ = two_topics()
    first, second, other = label_noise(table, seed=1), label_noise(table, seed=1), label_noise(table, seed=2)
    assert first.columns.equals(second.columns) and first.decisions.equals(second.decisions)
    assert json.dumps(first.metrics) == json.dumps(second.metrics)
    assert not first.columns.equals(other.columns)


def test_the_answer_hangs_on_no_order_of_rows():
    table, _ = two_topics()
    results = [label_noise(rows) for rows in (table, table.sample(fraction=1, shuffle=True, seed=4))]
    assert results[0].metrics == results[1].metrics and results[0].columns["row_id"].equals(table["row_id"])
    assert results[0].columns.sort("row_id").equals(results[1].columns.sort("row_id"))


def test_held_out_rows_are_predicted_not_learnt_from_nor_decided_on():
    table, _ = two_topics(1200)
    part = pl.when(pl.int_range(pl.len()) < 900).then(pl.lit("train")).otherwise(pl.lit("test"))
    table = table.with_columns(part=part)
    result = label_noise(table)
    held_out = pl.col("part") == "test"
    turned = table.with_columns(label=pl.when(held_out).then(~pl.col("label")).otherwise("label"))
    again = label_noise(turned)
    assert again.columns["p_desirable"].equals(result.columns["p_desirable"])
    test_rows = set(table.filter(held_out)["row_id"])
    assert not test_rows & set(result.decisions["row_id"])
    assert result.columns.filter(pl.col("row_id").is_in(test_rows))["is_label_issue"].null_count() == 300
    assert result.columns["p_desirable"].null_count() == 0


def test_dropped_and_waiting_rows_teach_nothing_and_get_no_second_decision():
    table, _ = two_topics(1200)
    table = table.with_columns(state=pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("drop")).otherwise(pl.lit("keep")))
    result = label_noise(table)
    assert result.metrics["rows"]["learnt_from"] == 900
    assert not set(table.filter(state="drop")["row_id"]) & set(result.decisions["row_id"])


@pytest.mark.parametrize("keep", [1, 9])
def test_too_few_of_a_label_is_said_not_raised(keep):
    table, _ = two_topics()
    few = pl.concat([table.filter("label"), table.filter(~pl.col("label")).head(keep - 1)])
    result = label_noise(few)
    assert result.columns["p_desirable"].null_count() == few.height
    assert codes(result)["KD040"] == "not_applicable"
    assert "at least 10 of each" in result.metrics["not_learnt"]


def test_a_label_of_one_prompt_is_said_not_raised():
    table, _ = two_topics()
    table = table.filter(pl.col("label") | (pl.col("label").not_().cum_sum() <= 40))
    one_prompt = table.with_columns(prompt_group=pl.when("label").then("row_id").otherwise(pl.lit("same")))
    assert "on further prompts" in label_noise(one_prompt).metrics["not_learnt"]


def test_what_a_person_has_judged_waits_for_nobody():
    """A row that most votes speak against, and that somebody has looked at and confirmed."""
    table, _ = two_topics(wrong=0.0)
    votes = [{"rater": name, "label": False, "created_at": None} for name in "abc"]
    one = table.filter("label")["row_id"][0]
    outvoted = pl.col("row_id") == one
    table = table.with_columns(votes=pl.when(outvoted).then(pl.lit(votes, table.schema["votes"])).otherwise("votes"))
    assert label_noise(table).actions()[one] == ("review", "outvoted")
    confirmed = table.with_columns(trusted_label=pl.when(outvoted).then("label"))
    assert one not in label_noise(confirmed).actions()
    assert label_noise(confirmed, use_trusted="measure").actions()[one] == ("review", "outvoted")


def test_no_rows():
    table, _ = two_topics()
    result = label_noise(table.clear())
    assert result.columns.height == 0
    assert codes(result)["KD042"] == "not_applicable"


def test_trusted_rows_that_disagree_go_to_review_or_are_relabelled():
    table, _ = two_topics(wrong=0.0)
    table = table.with_columns(
        trusted_label=pl.when(pl.col("row_id").is_in(["1", "2"])).then(pl.col("label") ^ (pl.col("row_id") == "2"))
    )
    assert label_noise(table, use_trusted="measure").actions() == {"2": ("review", "trusted_disagrees")}
    result = label_noise(table)
    assert result.actions() == {"2": ("relabel", "trusted_disagrees")}
    assert codes(result)["KD041"] == "not_applicable"  # somebody picked two rows: no rate follows
    vouched = label_noise(table, trusted_at_random=True)
    assert codes(vouched)["KD041"] == "issue" and vouched.metrics["trusted"]["drawn_at_random"] == 2
    assert result.tables["ask_for_review"].height >= 58 and vouched.tables["ask_for_review"].height == 0


def test_systematic_noise_is_invisible_until_rows_are_trusted():
    """Every row with one trait (a fifth of the truly desirable) is called undesirable: no flip shows it, sixty reviews do."""
    table, _ = two_topics(1000, wrong=0.0)
    vectors = table["completion_embedding"].to_numpy().copy()
    rng = np.random.default_rng(1)
    trait = table["label"].to_numpy() & (rng.random(1000) < 0.2)
    vectors[trait, 1] += 12
    table = table.with_columns(
        truth="label",
        label=pl.col("label") & ~pl.Series(trait),
        completion_embedding=pl.Series(vectors, dtype=pl.Array(pl.Float32, 8)),
        prompt_embedding=pl.Series(vectors, dtype=pl.Array(pl.Float32, 8)),
    )
    blind = label_noise(table)
    assert not flagged(blind) & set(table["row_id"].filter(pl.Series(trait)))
    asked = blind.tables["ask_for_review"]["row_id"]
    seeing = label_noise(table.with_columns(trusted_label=pl.when(pl.col("row_id").is_in(asked.implode())).then("truth")))
    told = seeing.metrics["trusted"]["undesirable"]["error_rate"]
    actual = trait.sum() / (~table["label"]).sum()
    assert told["low"] <= actual <= told["high"]
    assert told["low"] > 0.02, "the sample proves that there are errors"


def test_trusted_rows_take_refuted_flags_back():
    table, _ = two_topics(1200)
    doubted = flagged(label_noise(table))
    sample = sorted(doubted)[:30]  # too few to calibrate by: they can only refute
    vouched = table.with_columns(trusted_label=pl.when(pl.col("row_id").is_in(sample)).then("label"))
    result = label_noise(vouched)
    assert result.metrics["trusted"]["flags_refuted"]
    assert codes(result)["KD042"] == "issue"
    assert not flagged(result) & set(sample)
    assert len(flagged(result)) < len(doubted)


def test_votes_outvote_a_label():
    table, _ = two_topics(wrong=0.0)
    against = [{"rater": who, "label": not table["label"][0], "created_at": None} for who in ("ann", "ben")]
    votes = [[*table["votes"][0], *against], *table["votes"][1:]]
    table = table.with_columns(pl.Series("votes", votes, dtype=table.schema["votes"]))
    assert label_noise(table).actions()["1"] == ("review", "outvoted")


def test_near_contradictions_name_their_twin():
    table, _ = two_topics(wrong=0.0)
    first = table.row(0, named=True)
    twin = {**first, "row_id": "twin", "completion": "text 0!", "label": not first["label"]}
    table = pl.concat([table, pl.DataFrame([twin], schema=table.schema)])
    result = label_noise(table)
    near = result.decisions.filter(reason="near_contradiction")
    assert set(near["action"]) == {"keep"}, "they are listed: the little that they differ in may be what was judged"
    assert dict(near.select("row_id", "caused_by").iter_rows()) == {"1": "twin", "twin": "1"}


def test_action_drop_and_keep():
    table, wrong = two_topics(1200)
    unmeasured = label_noise(table, action="drop")
    assert set(unmeasured.decisions["action"]) == {"review"}, "what injected flips alone show is an order, and drops nothing"
    assert set(unmeasured.decisions["row_id"]) == flagged(unmeasured)
    reviewed = with_reviews(table, wrong, every=5)
    dropped = label_noise(reviewed, action="drop", trusted_at_random=True)
    doubtful = {row_id for row_id, (_, reason) in dropped.actions().items() if reason == "doubtful_label"}
    judged = set(reviewed.drop_nulls("trusted_label")["row_id"])
    assert doubtful == flagged(dropped) - judged and {dropped.actions()[row_id][0] for row_id in doubtful} == {"drop"}
    assert label_noise(table, action="keep").decisions.height == 0


def test_no_label_can_be_told_by_its_place_in_a_draw():
    """Two sets of one size and seed: at a place, the labels agree as often as by chance."""
    draws = []
    for name in ("a", "b"):
        table = pl.DataFrame({"row_id": [f"{name}{n}" for n in range(2000)], "label": [n % 2 == 0 for n in range(2000)]})
        draws.append(rows_to_review(table, total=400, seed=0)["label"])
    assert 140 < (draws[0] == draws[1]).sum() < 260


def test_reviews_that_somebody_picked_move_no_label():
    """A file of corrections alone, the most doubtful rows, and both beside a short draw: each verdict stands, nothing follows."""
    table, wrong = two_topics(600)
    by_doubt = table.join(label_noise(table).columns, on="row_id").sort("label_quality")["row_id"].to_list()
    short_draw = rows_to_review(table, total=20, seed=0)["row_id"].to_list()
    picks = {"corrections": sorted(wrong)[:40], "most doubtful": by_doubt[:40]}
    picks["both beside a short draw"] = [*picks["corrections"], *picks["most doubtful"], *short_draw]
    for name, picked in picks.items():
        for action in ("relabel", "drop_and_relabel", "drop", "soften"):
            truth = pl.col("label") ^ pl.col("row_id").is_in(list(wrong))
            given = table.with_columns(trusted_label=pl.when(pl.col("row_id").is_in(picked)).then(truth))
            result = label_noise(given, action=action, repeats=1)
            done = {row_id: what for row_id, (what, reason) in result.actions().items() if row_id not in picked}
            assert set(done.values()) <= {"review"}, (name, action)
            soft = result.columns.filter(~pl.col("row_id").is_in(picked)).join(table, on="row_id")
            assert (soft["soft_label"] == soft["label"].cast(pl.Float64)).all(), (name, action)
            assert codes(result)["KD049"] == "not_applicable"


def test_no_noise_injection_no_flags():
    table, _ = two_topics(600)
    result = label_noise(table, noise_injection=0)
    assert flagged(result) == set()
    assert codes(result)["KD040"] == "not_applicable"


def test_texts_of_any_kind_and_zero_vectors_are_survived():
    table, _ = two_topics(60)
    odd = ["<script>", "\x00", "\u202e", "", "[bold]$x$"] * 12
    zeros = pl.Series(np.zeros((60, 8), np.float32), dtype=pl.Array(pl.Float32, 8))
    result = label_noise(table.with_columns(completion=pl.Series(odd), completion_embedding=zeros))
    assert result.columns["p_desirable"].is_finite().all()


def test_bad_settings_and_missing_columns_are_named():
    table, _ = two_topics(30)
    with pytest.raises(SettingError, match=r"0\.9"):
        label_noise(table, noise_injection=0.9)
    with pytest.raises(MissingColumnError, match="prompt_group"):
        label_noise(table.drop("prompt_group"))


@pytest.mark.shared
def test_nothing_is_flagged_where_the_truth_cannot_be_read_off_the_text(shared):
    """HH-harmless with hashed words for vectors: real preference labels that such features hardly predict."""
    from sklearn.feature_extraction.text import HashingVectorizer

    with gzip.open(shared / "kto_hh_harmless.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines][:1500]
    table = feedback_table(*[(row["prompt"], row["completion"], row["label"]) for row in rows])
    hashed = HashingVectorizer(n_features=64)
    vectors = {side: hashed.transform(table[side].to_list()).toarray().astype(np.float32) for side in ("prompt", "completion")}
    table = table.with_columns(
        prompt_group=pl.col("row_id").first().over("prompt"),
        **{f"{side}_embedding": pl.Series(found, dtype=pl.Array(pl.Float32, 64)) for side, found in vectors.items()},
    )
    result = label_noise(table)
    assert result.metrics["is_label_issue"] > 300
    assert result.metrics["flagged"] == 0
    assert result.metrics["identifiability"]["verdict"] == "not"


def hard(table):
    return table["label"].cast(pl.Float64).to_list()


def with_reviews(table, wrong, *, every):
    """Each so-many-th row reviewed, rightly."""
    truth = pl.col("label") ^ pl.col("row_id").is_in(list(wrong))
    return table.with_columns(trusted_label=pl.when(pl.int_range(pl.len()) % every == 0).then(truth))


def turned_of_each(result):
    return sum(of["turned"] for of in result.metrics["borne_out"].values())


@pytest.mark.parametrize("action", ["relabel", "drop_and_relabel", "drop", "soften"])
def test_a_label_of_which_nobody_judged_a_row_is_not_acted_on(action):
    """Every thumbs-down was judged, which is a draw of its own, and no thumbs-up; 15 % of both are wrong, and their text shows it."""
    table, wrong = two_topics(600)
    truth = pl.col("label") ^ pl.col("row_id").is_in(list(wrong))
    result = label_noise(table.with_columns(trusted_label=pl.when(~pl.col("label")).then(truth)), action=action)
    ups = set(table.filter("label")["row_id"])
    assert result.metrics["trusted"]["undesirable"]["drawn_at_random"] > 100
    assert not [what for row_id, (what, _) in result.actions().items() if row_id in ups and what != "review"]
    up_rows = table.join(result.columns, on="row_id").filter("label")
    assert (up_rows["soft_label"] == 1).all() and up_rows["p_wrong_low"].null_count() == up_rows.height
    gain = next(finding for finding in result.metrics["findings"] if finding["code"] == "KD049")
    assert gain["status"] == "not_applicable" and "desirable ones that nobody judged nothing is known" in gain["text"]


def test_without_reviews_no_label_is_softened_turned_or_dropped():
    """Flips that text shows, found again when injected; three times the same mistake would look the same. So an order only."""
    table, _ = two_topics(1200)
    for action in ("soften", "relabel", "drop_and_relabel"):
        result = label_noise(table, action=action)
        assert result.metrics["identifiability"]["verdict"] == "identifiable"
        assert result.columns["soft_label"].to_list() == hard(table)
        assert result.columns["p_wrong_low"].null_count() == table.height
        assert result.decisions.height == 0
        assert codes(result)["KD049"] == "not_applicable"


def test_ten_reviews_turn_nothing_but_what_they_judge():
    table, wrong = two_topics(1200)
    result = label_noise(with_reviews(table, wrong, every=120), action="relabel")
    assert {reason for _, reason in result.actions().values()} <= {"trusted_disagrees"}
    assert result.columns["p_wrong_low"].null_count() == table.height


def test_labels_are_softened_as_far_as_reviewed_rows_bear_it_out():
    """The flipped rows are softened most, and no label less than it is wrong on average. Blind text: by the rate alone."""
    table, wrong = two_topics(1200)
    result = label_noise(with_reviews(table, wrong, every=5), action="soften", trusted_at_random=True)
    soft = table.join(result.columns, on="row_id").filter(pl.col("p_wrong_low").is_not_null())
    soft = soft.with_columns(away=(pl.col("soft_label") - pl.col("label").cast(pl.Float64)).abs())
    was_wrong = pl.col("row_id").is_in(list(wrong))
    assert soft.filter(was_wrong)["away"].median() > 0.8
    assert soft.filter(~was_wrong)["away"].median() < 0.05
    assert soft["away"].mean() > soft.select(was_wrong.mean()).item() - 0.01
    assert codes(result)["KD049"] == "issue"
    blind, wrong = two_topics(600, distance=0.1)
    result = label_noise(with_reviews(blind, wrong, every=5), action="relabel", trusted_at_random=True)
    assert {reason for _, reason in result.actions().values()} == {"trusted_disagrees"}
    assert turned_of_each(result) == 0


def test_labels_stay_as_given_where_reviewed_rows_do_not_show_that_softening_helps():
    """Blind text and few wrong labels: p is a rate, and a careful one. What soft labels would see to is held for a person then."""
    blind, wrong = two_topics(600, distance=0.1, wrong=0.05)
    ann, ben = ({"rater": rater, "label": False, "created_at": None} for rater in ("ann", "ben"))
    place = next(place for place, label in enumerate(blind["label"]) if label and place % 10)  # one that nobody reviewed
    votes = pl.Series([[ann, ben] if row == place else of for row, of in enumerate(blind["votes"])], dtype=blind["votes"].dtype)
    blind = blind.with_columns(votes=votes)
    result = label_noise(with_reviews(blind, wrong, every=10), action="soften", trusted_at_random=True)
    assert result.metrics["softening"]["low"] is None or result.metrics["softening"]["low"] <= 0
    unjudged = blind.join(result.columns, on="row_id").filter(pl.int_range(pl.len()) % 10 != 0)
    assert (unjudged["soft_label"] == unjudged["label"].cast(pl.Float64)).all()
    gain = next(finding for finding in result.metrics["findings"] if finding["code"] == "KD049")
    assert "soft labels would take away nothing" in gain["text"] and "they stay as given" in gain["text"]
    assert "outvoted" in {reason for _, reason in result.actions().values()}


@pytest.mark.parametrize("action", ["relabel", "drop_and_relabel"])
def test_labels_are_turned_and_rows_dropped_by_the_low_end_of_what_reviews_leave_open(action):
    table, wrong = two_topics(1200)
    result = label_noise(with_reviews(table, wrong, every=5), action=action, trusted_at_random=True)
    low = {row["row_id"]: json.loads(row["evidence"])["p_wrong_low"] for row in result.decisions.to_dicts()}
    reasons = {"relabel": {"likelier_label"}, "drop_and_relabel": {"surely_wrong", "likely_wrong"}}[action]
    acted = {row_id: done for row_id, done in result.actions().items() if done[1] != "trusted_disagrees"}
    assert {reason for _, reason in acted.values()} <= reasons
    for row_id, (what, _) in acted.items():
        assert (low[row_id] >= 0.8) == (what == "relabel") and low[row_id] > 0.25
    turned = {row_id for row_id, (what, _) in acted.items() if what == "relabel"}
    assert len(turned & wrong) / len(turned) > 0.9 and len(turned) > 0.5 * len(wrong)
    assert len(turned) == turned_of_each(result)


def test_reviewed_rows_take_their_verdict_as_soft_label_and_teach_the_others():
    table, wrong = two_topics(600, wrong=0.2)
    is_wrong = pl.col("row_id").is_in(list(wrong))
    table = table.with_columns(truth=pl.col("label") ^ is_wrong)
    table = table.with_columns(trusted_label=pl.when(pl.int_range(pl.len()) % 5 == 0).then("truth"))
    result = label_noise(table, action="soften", trusted_at_random=True)
    reviewed = table.join(result.columns, on="row_id").filter(pl.col("trusted_label").is_not_null())
    assert (reviewed["soft_label"] == reviewed["truth"].cast(pl.Float64)).all()
    assert sum(of["reviewed"] for of in result.metrics["borne_out"].values()) > 5
    assert {reason for _, reason in result.actions().values()} == {"trusted_disagrees"}
    assert {action for action, _ in result.actions().values()} == {"relabel"}
    quality = (
        table.join(result.columns, on="row_id").filter(pl.col("trusted_label").is_not_null()).select("label_quality", is_wrong)
    )
    doubtful, sound = (quality.filter(pl.col("row_id") == side)["label_quality"].mean() for side in (True, False))
    assert reviewed.height == 120 and doubtful < 0.3 < 0.8 < sound


def with_votes(table, contested, rows=200):
    """Nine raters on each of the first rows, right 19 times in 20; on the first `contested` of them each throws a coin."""
    rng = np.random.default_rng(0)
    for number, label in enumerate(table["label"][:rows]):
        says = rng.random(9) < (0.5 if number < contested else 0.95)
        yield [{"rater": f"r{who}", "label": label == bool(right), "created_at": None} for who, right in enumerate(says)]
    yield from table["votes"][rows:].to_list()


def test_rows_on_which_people_differ_are_told_from_wrong_ones():
    table, _ = two_topics(wrong=0.0)
    split = table.with_columns(pl.Series("votes", list(with_votes(table, 40)), dtype=table.schema["votes"]))
    result = label_noise(split)
    told = set(result.tables["contested"]["row_id"])
    assert len(told & set(table["row_id"][:40])) >= 0.9 * len(told)
    assert result.tables["contested"].height >= 20
    assert codes(result)["KD070"] == "issue"
    agreed = table.with_columns(pl.Series("votes", list(with_votes(table, 0)), dtype=table.schema["votes"]))
    assert label_noise(agreed).tables["contested"].height <= 4  # nine raters at 95 % split now and then
    assert codes(label_noise(table))["KD070"] == "not_applicable"


def test_raters_who_say_one_thing_show_no_row_contested():
    """Of ten each clicks where something is good, or where it is bad: nothing is weighed, and no row passes for agreed upon."""
    table, _ = two_topics(wrong=0.0)
    clicks = np.random.default_rng(0).random((table.height, 10)) < 0.5
    votes = [
        [{"rater": f"r{who}", "label": label, "created_at": None} for who in range(10) if who % 2 == label and row[who]]
        for label, row in zip(table["label"], clicks, strict=True)
    ]
    result = label_noise(table.with_columns(pl.Series("votes", votes, dtype=table.schema["votes"])))
    finding = next(each for each in result.metrics["findings"] if each["code"] == "KD070")
    assert finding["status"] == "not_applicable" and "10 of 10 raters only ever say one thing" in finding["text"]
    assert result.tables["confusions"].height == 10 and result.tables["contested"].is_empty()


def test_hidden_states_are_a_feature_set_and_show_what_the_vectors_do_not():
    """Vectors that say nothing; hidden states that do."""
    table, wrong = two_topics(1200, distance=0.0)
    truth = (table["label"] ^ pl.Series([row_id in wrong for row_id in table["row_id"]])).to_numpy()
    states = np.random.default_rng(3).standard_normal((1200, 16)).astype(np.float32)
    states[:, 5] += np.where(truth, 3, -3)
    seeing = table.with_columns(hidden_state=pl.Series(states, dtype=pl.Array(pl.Float32, 16)))
    assert flagged(label_noise(table)) == set()
    result = label_noise(seeing)
    assert len(flagged(result) & wrong) > 0.5 * len(wrong)
    assert result.tables["evidence"]["hidden_state"].null_count() == 0


def test_raters_are_judged_by_the_rows_on_which_they_differ_too():
    """Rows that wait for review because their votes differ: left out, every rater would seem to agree with every other."""
    table, _ = two_topics(wrong=0.0)
    table = table.with_columns(pl.Series("votes", list(with_votes(table, 60)), dtype=table.schema["votes"]))
    waiting = table.with_columns(
        contradicted=pl.int_range(pl.len()) < 60,
        state=pl.when(pl.int_range(pl.len()) < 60).then(pl.lit("review")).otherwise(pl.lit("keep")),
    )
    seen, unseen = label_noise(waiting), label_noise(waiting.filter(~pl.col("contradicted")))
    assert seen.metrics["agreement"]["alpha"]["value"] < unseen.metrics["agreement"]["alpha"]["value"] - 0.1
    assert set(seen.tables["contested"]["row_id"]) & set(table["row_id"][:60])
    agreement = [one.tables["raters"].select("shared", "agreement").mean().row(0) for one in (seen, unseen)]
    assert agreement[0][0] > agreement[1][0] and agreement[0][1] < agreement[1][1] - 0.05
    # one count, whatever part a text is in: nothing is learnt of those held out
    parted = label_noise(
        waiting.with_columns(part=pl.when(pl.int_range(pl.len()) < 20).then(pl.lit("test")).otherwise(pl.lit("train")))
    )
    votes = [one.metrics["votes"] for one in (seen, parted)]
    assert votes[0]["rows_with_several_raters"] == votes[1]["rows_with_several_raters"]
    assert votes[1]["training_rows_with_several_raters"] == votes[0]["training_rows_with_several_raters"] - 20
    assert parted.tables["raters"].equals(seen.tables["raters"])


def test_labels_that_follow_another_criterion_in_one_script_are_found():
    """Half of the prompts in Cyrillic; there, one good answer in two is called undesirable."""
    table, _ = two_topics(1600, wrong=0.0)
    foreign = pl.int_range(pl.len()) % 2 == 0
    strict = np.random.default_rng(5).random(1600) < 0.5
    table = table.with_columns(
        prompt=pl.when(foreign).then(pl.format("вопрос {}", "row_id")).otherwise("prompt"),
        label=pl.col("label") & ~(foreign & pl.Series(strict)),
    )
    result = label_noise(table)
    found = result.metrics["drift"]["significant_groups"]
    assert {(one["column"], one["value"]) for one in found} & {("script", "Cyrillic"), ("script", "Latin")}
    pairs = result.tables["drift_examples"]
    assert pairs.height
    assert pairs["similarity"].is_between(-1.001, 1.001).all()
    assert (pairs["label"] != pairs["other_label"]).all()
