"""Sentences about labels, against planted truths: a claim is outside the truth no more often than its interval allows."""

from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.drift_words import drift_sentence, nothing_compared
from ktodata.labels.label_findings import label_findings
from ktodata.labels.label_words import (
    MOSTLY_BELOW,
    NOISY_ABOVE,
    ORDER_ONLY,
    UNUSABLE_ABOVE,
    NextForLabels,
    are_noisy,
    is_above,
    may_be_noisy,
    next_for_labels,
    noise_unshown,
    noisy_sentence,
    p_in_words,
    review_sentence,
    reviewed_labels,
    trust_word,
    worth_sentence,
    wrong_of_all,
)
from ktodata.labels.people.trusted import mark_reviewed, reviewed_metrics, rows_to_review, trusted_rates
from ktodata.stats import share, share_with_unknown, stratified_share

RUNS = 200
# 200 runs in which a claim fails 2.5 % of the time (one end of a 95 % interval) show 11 or fewer failures 99 times in 100
MAX_FALSE = 11
CLAIMS = {
    "Mostly.": lambda truth: truth < MOSTLY_BELOW,
    "With care.": lambda truth: truth > MOSTLY_BELOW,
    "Not as they are.": lambda truth: truth > UNUSABLE_ABOVE,
}


def planted(rng, wrong_if_given, *, rows=1500, desirable=0.8):
    """Rows whose labels are wrong with these chances, and what each truly is."""
    labels = rng.random(rows) < desirable
    wrong = rng.random(rows) < np.where(labels, wrong_if_given[1], wrong_if_given[0])
    ids = [f"r{number}" for number in range(rows)]
    return pl.DataFrame({"row_id": ids, "label": labels, "truth": labels ^ wrong}).with_columns(
        trained=True, state=pl.lit("keep"), prompt=pl.col("row_id"), completion=pl.lit("c")
    )


def judged(table, seed, drawn, picked=0):
    """`drawn` rows of the audit's draw and the `picked` first wrong ones have their true label as trusted label; as metrics."""
    sample = rows_to_review(table, total=drawn, seed=seed)["row_id"]
    doubtful = table.filter(pl.col("label") != pl.col("truth"), ~pl.col("row_id").is_in(sample.implode()))["row_id"][:picked]
    seen = pl.concat([sample, doubtful])
    trusted = pl.when(pl.col("row_id").is_in(seen.implode())).then("truth")
    marked = mark_reviewed(table.with_columns(trusted_label=trusted, label_quality=pl.lit(0.5), flagged=False), seed)
    return reviewed_metrics(marked)


# wrong among given undesirable and desirable; rows drawn of each
PLANTS = [
    ((0.01, 0.01), (200, 200)),
    ((0.04, 0.04), (80, 120)),
    ((0.05, 0.05), (100, 60)),
    ((0.03, 0.03), (20, 10)),
    ((0.2, 0.02), (100, 60)),
    ((0.15, 0.15), (60, 60)),
    ((0.45, 0.2), (40, 20)),
    ((0.4, 0.0), (20, 0)),
]
SIZES = (800, 3200)


@cache
def reviews_of(hits, drawn):
    """The reviews in which so many of those drawn of each class were wrong."""
    classes = {
        name: {"drawn_wrong": wrong, "drawn_at_random": rows, "error_rate": share(wrong, rows).as_dict()}
        for name, wrong, rows in zip(("undesirable", "desirable"), hits, drawn, strict=True)
    }
    whole = stratified_share(hits, drawn, SIZES).as_dict()
    return reviewed_labels({"rows": 999, "drawn_at_random": sum(drawn), "wrong": sum(hits), "error_rate": whole} | classes)


@pytest.mark.parametrize(("wrong", "drawn"), PLANTS)
def test_no_sentence_claims_what_is_not_so_more_often_than_its_level(wrong, drawn):
    rng = np.random.default_rng(0)
    truth = float(np.dot(wrong, SIZES)) / sum(SIZES)
    false, outside, words = 0, 0, Counter()
    for _ in range(RUNS):
        reviews = reviews_of(tuple(int(hits) for hits in rng.binomial(drawn, wrong)), drawn)
        word = trust_word(reviews)
        words[word] += 1
        false += word in CLAIMS and not CLAIMS[word](truth)
        false += are_noisy(reviews) and truth <= NOISY_ABOVE
        false += is_above(reviews, 0.1) not in (None, truth > 0.1)
        outside += not reviews.whole.rate.low <= truth <= reviews.whole.rate.high
    assert false <= MAX_FALSE, words
    assert outside <= 2 * MAX_FALSE, "the 95 % interval beside the word"


@cache
def partly_decided(hits, drawn, contested):
    """The same, where people differ on so many more rows of either class."""
    each = [share_with_unknown((h, 0), (n, 0), (c, 0), (s, 0)) for h, n, c, s in zip(hits, drawn, contested, SIZES, strict=True)]
    classes = {
        name: {"drawn_wrong": h, "drawn_at_random": n, "drawn_contested": c, "error_rate": rate.as_dict()}
        for name, h, n, c, rate in zip(("undesirable", "desirable"), hits, drawn, contested, each, strict=True)
    }
    whole = share_with_unknown(hits, drawn, contested, SIZES).as_dict()
    counts = {"rows": 999, "drawn_at_random": sum(drawn), "drawn_contested": sum(contested), "wrong": sum(hits)}
    return reviewed_labels(counts | {"error_rate": whole} | classes)


@pytest.mark.parametrize(("hits", "drawn", "contested"), [((2, 1), (12, 9), (2, 1)), ((0, 0), (8, 0), (3, 2))])
def test_whatever_contested_rows_are_the_interval_holds_that_of_the_whole_draw(hits, drawn, contested):
    """Each of them right or wrong: the exact interval of the draw with them lies in the one that leaves them open."""
    reviews = partly_decided(hits, drawn, contested)
    everybody = (drawn[0] + contested[0], drawn[1] + contested[1])
    for wrong in product(range(contested[0] + 1), range(contested[1] + 1)):
        exact = stratified_share((hits[0] + wrong[0], hits[1] + wrong[1]), everybody, SIZES)
        assert reviews.whole.rate.low <= exact.low + 1e-3 and exact.high - 1e-3 <= reviews.whole.rate.high


def test_rows_that_people_differ_on_are_named_beside_every_rate():
    reviews = partly_decided((4, 1), (36, 20), (3, 1))
    text = review_sentence(reviews)
    assert text.startswith("5 of 56 rows drawn at random and judged carry a wrong label; of the draw 4 contested.")
    assert "all right at one end and all wrong at the other" in text and "4 of 36 wrong, 3 contested (" in text
    assert "4 contested, right or wrong" in noise_unshown(reviews) and "4 contested" in next_for_labels(reviews)[1]
    assert (reviews.whole.rate.low, reviews.whole.rate.high) == (
        stratified_share((4, 1), (39, 21), SIZES).low,
        stratified_share((7, 2), (39, 21), SIZES).high,
    )


def test_where_people_differ_on_all_that_was_drawn_no_rate_follows():
    reviews = reviewed_labels({"rows": 0, "drawn_at_random": 0, "drawn_contested": 30, "error_rate": share(0, 0).as_dict()})
    assert review_sentence(reviews).startswith("People differ on each of 30 rows") and trust_word(reviews) == "Not measured."
    assert next_for_labels(reviews).short == "Settle the criterion."


def test_a_label_of_which_all_rows_were_judged_was_not_drawn():
    """The queue alone has shown somebody all undesirable rows: they are counted, and of the others nothing is known."""
    table = planted(np.random.default_rng(0), (0.2, 0.05), rows=300)
    judged_rows = pl.when(~pl.col("label")).then("truth")
    table = table.with_columns(trusted_label=judged_rows, label_quality=pl.lit(0.5), flagged=False)
    reviews = reviewed_labels(reviewed_metrics(mark_reviewed(table, 0)))
    assert "rows judged (all labelled undesirable) carry a wrong label. Of all labels" in review_sentence(reviews)
    assert "desirable: none known to be drawn" in review_sentence(reviews) and reviews.whole.rate.high > 0.7
    one_class = planted(np.random.default_rng(0), (0.1, 0.1), rows=300, desirable=1.0)
    assert "undesirable" not in review_sentence(reviewed_labels(judged(one_class, 0, 60)))


@pytest.mark.parametrize("contested", [0, 6])
def test_contested_and_skipped_rows_stay_in_the_draw(contested):
    """Of 60 drawn rows some are contested (held by then), one is skipped: they are part of it, and no trusted label is theirs."""
    table = planted(np.random.default_rng(0), (0.1, 0.1))
    sample = rows_to_review(table, total=60, seed=0)["row_id"]
    differ, skipped = sample[3 : 3 + contested], sample[20:21]
    seen = pl.col("row_id").is_in(sample.filter(~sample.is_in(pl.concat([differ, skipped]).implode())).implode())
    is_held = pl.col("row_id").is_in(differ.implode())
    table = table.with_columns(
        trusted_label=pl.when(seen).then("truth"), reviewed_contested=is_held, trained=~is_held, label_quality=0.5, flagged=False
    ).with_columns(state=pl.when(is_held).then(pl.lit("review")).otherwise("state"))
    metrics = reviewed_metrics(mark_reviewed(table, 0))
    counts = (metrics["drawn_at_random"], metrics["drawn_contested"], metrics["drawn_skipped"], metrics["rates_of"])
    assert counts == (59 - contested, contested, 1, table.height)
    rates = trusted_rates(mark_reviewed(table, 0).filter(pl.col("drawn") | pl.col("undecided")), ())
    assert rates["undecided"].sum() == contested + 1


@pytest.mark.parametrize(
    "name",
    [
        "all rows",
        "wrong labels mostly contested",
        "a draw of 60, some skipped as they look wrong",
        "one review",
        "the queue alone, half of the rows",
        "one class only",
        "one class in 500",
    ],
)
def test_however_reviews_came_about_nothing_is_claimed_that_is_not_so(name, monkeypatch):
    """A few of the draws that the benchmark makes; all 22 ways to review, 200 draws each, are in its result."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from claims import WAYS, measured

    counts = measured(WAYS[name], 5)
    assert counts["false words"] == 0 and counts["truth outside, all labels"] <= 1
    assert (counts["with a rate"] > 0) == (name not in ("one review", "the queue alone, half of the rows"))
    assert counts.get("word: Too few reviews", 0) == 0 or name != "all rows"


def test_enough_reviews_do_bring_a_word():
    assert trust_word(reviews_of((1, 1), (200, 200))) == "Mostly."
    assert trust_word(reviews_of((20, 20), (200, 200))) == "With care."
    assert trust_word(reviews_of((60, 60), (200, 200))) == "Not as they are." and are_noisy(reviews_of((60, 60), (200, 200)))
    assert trust_word(reviews_of((1, 0), (20, 10))) == "Too few reviews (30)."


def test_labels_that_mostly_say_the_opposite_are_not_reviewed_one_by_one():
    step = next_for_labels(reviews_of((30, 30), (30, 30)))
    assert step.short == "See whether up and down are swapped." and not step.to_judge
    assert next_for_labels(reviews_of((20, 20), (30, 30))).short == step.short
    assert next_for_labels(reviews_of((16, 16), (30, 30))).to_judge, "half of them may be right"


def test_rows_that_were_picked_change_no_rate():
    table = planted(np.random.default_rng(0), (0.1, 0.1))
    alone, beside = (judged(table, 0, 60, picked) for picked in (0, 200))
    assert beside["rows"] > alone["rows"] + 80
    assert beside["drawn_at_random"] <= alone["drawn_at_random"] + 1  # a wrong row may be the very next of the draw
    picked_alone = judged(table, 0, 0, 100)
    assert picked_alone["drawn_at_random"] == 0 and picked_alone["error_rate"]["value"] is None
    text = review_sentence(reviewed_labels(picked_alone))
    assert text.startswith(
        "100 rows have a trusted label, not known to be a random draw: no rate follows. The random order comes from row_id"
    )
    assert trust_word(reviewed_labels(picked_alone)) == "Not measured."


def test_a_text_that_a_verdict_settles_counts_neither_as_drawn_nor_as_wrong():
    """Both rows of a text with both labels have its verdict; one agrees, the other is held as overruled."""
    table = planted(np.random.default_rng(0), (0.0, 0.0), rows=300)
    twins = table.head(40).with_columns(pl.col("row_id") + "'", ~pl.col("label"), trained=False, state=pl.lit("review"))
    table = pl.concat([table, twins]).with_columns(label_quality=pl.lit(0.5), flagged=False, trusted_label=pl.col("truth"))
    metrics = reviewed_metrics(mark_reviewed(table, 0))
    assert (metrics["rows"], metrics["drawn_at_random"], metrics["wrong"], metrics["rates_of"]) == (300, 260, 0, 260)


@pytest.mark.parametrize(("drawn", "picked"), [(60, 0), (250, 0), (200, 30), (0, 0)])
@pytest.mark.parametrize("held", [0, 40])
def test_a_rate_names_the_labels_that_it_is_of(held, drawn, picked):
    """Where texts wait with both labels no sentence calls a rate one of all labels: half of those that wait are wrong."""
    rows = planted(np.random.default_rng(0), (0.3, 0.2), rows=300)
    held_rows = rows.head(held).with_columns(trained=False, state=pl.lit("review"))
    table = pl.concat([rows[held:], held_rows, held_rows.with_columns(pl.col("row_id") + "'", ~pl.col("label"))])
    metrics = judged(table.filter("trained"), 0, drawn, picked) | {"not_to_draw": 2 * held}
    assert reviewed_metrics(mark_reviewed(table.with_columns(trusted_label=None, flagged=False, label_quality=0.5), 0))[
        "not_to_draw"
    ] == (2 * held)
    reviews = reviewed_labels(metrics)
    says = [say(reviews) for say in (review_sentence, wrong_of_all, noisy_sentence, noise_unshown)] + [
        next_for_labels(reviews).text
    ]
    every = [text for text in says if "all labels" in text or "the labels are wrong" in text]
    assert bool(every) != bool(held)
    if held and drawn:
        assert sum("the 260 labels that could be drawn" in text or "All 260 rows" in text for text in says) >= 3


def test_every_judged_row_is_in_the_account_and_what_is_open_is_not_called_clean():
    """60 rows of the draw, five of them wrong, 20 that were picked, two wrong, and three held out: all are named."""
    table = pl.DataFrame({"row_id": [f"r{n}" for n in range(300)], "label": [n % 2 == 0 for n in range(300)]})
    table = table.with_columns(
        prompt="row_id", completion="row_id", part=pl.when(pl.int_range(pl.len()) < 280).then(pl.lit("train"))
    )
    table = table.with_columns(pl.col("part").fill_null("test"), trained=pl.int_range(pl.len()) < 280, label_quality=1.0)
    order = rows_to_review(table.filter("trained"), total=280, seed=0)["row_id"]
    judged, wrong = [*order[:60], *order[200:220], "r281", "r282", "r283"], [*order[:5], *order[200:202]]
    flipped = pl.col("row_id").is_in(wrong)
    table = table.with_columns(
        trusted_label=pl.when(pl.col("row_id").is_in(judged)).then(pl.col("label") ^ flipped), flagged=pl.lit(value=False)
    )
    reviews = reviewed_labels(reviewed_metrics(mark_reviewed(table, 0)))
    assert (reviews.drawn, reviews.judged, reviews.wrong, reviews.elsewhere) == (60, 80, 7, 3)
    text = review_sentence(reviews)
    assert "20 more judged, 2 of them wrong, not known" in text and "3 judged texts are not to train on" in text
    assert may_be_noisy(reviews) and "Of all 80 rows judged, 20 of them picked, 7 carry a wrong label" in noise_unshown(reviews)
    assert not may_be_noisy(counted(0, 100)) and not may_be_noisy(reviewed_labels({}))


def test_whoever_vouches_for_a_draw_is_named():
    table = planted(np.random.default_rng(1), (0.0, 0.0)).with_columns(
        trusted_label=pl.when(pl.int_range(pl.len()) % 50 == 0).then("truth"), label_quality=pl.lit(0.5), flagged=False
    )
    assert reviewed_metrics(mark_reviewed(table, 0))["drawn_at_random"] == 0
    metrics = reviewed_metrics(mark_reviewed(table, 0, all_at_random=True)) | {"vouched_at_random": True}
    reviews = reviewed_labels(metrics)
    assert reviews.drawn == 30 and "trusted_at_random" in review_sentence(reviews)


def test_sixty_kept_rows_are_none_wrong_and_seven_are_too_few():
    sixty = reviewed_labels(judged(planted(np.random.default_rng(0), (0.0, 0.0)), 0, 60))
    assert review_sentence(sixty).startswith(
        "0 of 60 rows drawn at random and judged carry a wrong label. Of all labels that is 0.0"
    )
    assert trust_word(sixty) == "Too few reviews (60)." and not are_noisy(sixty)
    seven = reviewed_labels(judged(planted(np.random.default_rng(0), (0.0, 0.0)), 0, 7))
    assert seven.judged == 7 and trust_word(seven) == "Not measured."


@pytest.mark.parametrize("trusted", [{}, None, "odd", {"rows": 3}, {"rows": 12, "drawn_at_random": 12, "desirable": "odd"}])
def test_metrics_that_say_less_give_no_word(trusted):
    reviews = reviewed_labels(trusted)
    assert trust_word(reviews) == "Not measured." and not are_noisy(reviews) and is_above(reviews, 0.1) is None
    assert "not measured" in noise_unshown(reviews)


def test_a_p_that_was_not_measured_is_an_order_only():
    assert p_in_words(measured=False) == ORDER_ONLY
    assert "no better than the class shares" in p_in_words(True, {"log_loss": 0.5, "by_rates": 0.4})


def facts(**changed):
    return {
        "not_learnt": "Too few rows.",
        "trusted": {"rows": 0, "flags_refuted": []},
        "ask_for_review": {"why": "Ask."},
        "flagged": 0,
        "rows": {"learnt_from": 100},
        "votes": {
            "raters": 3,
            "rows_with_several_raters": 0,
            "training_rows_with_several_raters": 0,
            "at_odds": [],
            "rows_with_three_votes": 0,
            "outvoted": 0,
            "quality_from_votes": 0,
        },
        "prompts": 2,
        "near_contradictions": {"rows": 0},
        "label_action_costs": {"rows": 0},
    } | changed


def test_expected_gain_is_named_only_where_reviews_measured_it():
    """Nothing measured: not applicable. Measured: an issue, that says what may be turned, or how many reviews that would take."""
    saved = dict.fromkeys(("soften", "relabel", "drop_and_relabel", "drop"), 1.0)
    costs = {"rows": 50, "cost": {"keep": 0.1}, "share_of_cost_taken_away": saved}

    def gain(**changed):
        return next(each for each in label_findings(facts(**changed)) if each.code == "KD049")

    assert gain().status == "not_applicable" and "40 reviewed rows of the random draw" in gain().text
    seen = {"reviewed": 6.0, "wrong": 6.0, "turned": 20, "reviews_needed": None}
    wrong = {"value": 0.1, "low": 0.06, "high": 0.15}
    known = {"label_action_costs": costs, "expected_wrong": wrong, "softening": {"value": 0.3, "low": 0.1, "high": 0.5}}
    seen = {"desirable": seen | {"share_low": 0.61}}
    assert "6 of 6" in (text := gain(borne_out=seen, **known).text) and "(of that of reviewed rows 10 to 50%)" in text
    open_ = known | {"softening": {"value": 0.1, "low": -0.25, "high": 0.5}}
    assert "(by reviewed rows -25 to 50%, so they stay as given)" in gain(borne_out=seen, **open_).text
    assert "Of 50 labels that nobody judged 10.0\u2009%" in text and "leaves room for 6.0 to 15.0\u2009%" in text
    refuted = gain(expected_wrong=wrong | {"value": None})
    assert refuted.status == "not_applicable" and "6.0 to 15.0\u2009%" in refuted.text and "an order only" in refuted.text
    for needed, words in ((150, "About 150 reviews more"), (None, "2 of 6 reviewed rows")):
        few = seen["desirable"] | {"wrong": 2.0, "turned": 0, "reviews_needed": needed}
        shown = gain(borne_out={"desirable": few}, **known)
        assert shown.status == "issue" and words in shown.text and "ablate" in shown.text


@pytest.mark.parametrize(
    ("low", "high", "status"), [(0.03, 0.1, "issue"), (0.001, 0.01, "passed"), (0.008, 0.066, "not_applicable")]
)
def test_what_wrong_labels_cost_is_a_word_only_where_the_interval_lies_on_one_side(low, high, status):
    saved = dict.fromkeys(("soften", "relabel", "drop_and_relabel", "drop"), 0.0)
    costs = {"rows": 355, "cost": {"keep": high}, "share_of_cost_taken_away": saved}
    known = {"expected_wrong": {"value": high, "low": low, "high": high}, "label_action_costs": costs}
    known |= {"borne_out": dict.fromkeys(LABEL_NAMES.values(), NOTHING_SEEN)}
    known |= {"softening": {"value": None, "low": None, "high": None}}
    gain = next(each for each in label_findings(facts(**known)) if each.code == "KD049")
    assert gain.status == status and ("Too few reviews" in gain.text) == (status == "not_applicable")


NOTHING_SEEN = {"reviewed": 0.0, "wrong": 0.0, "share_low": 0.0, "turned": 0, "reviews_needed": None}


def test_what_may_be_turned_is_said_of_each_given_label():
    """24 of 24 of one label say nothing of the other; and where no other row looks so, that is the reason."""
    costs = {"rows": 50, "share_of_cost_taken_away": dict.fromkeys(("soften", "relabel", "drop_and_relabel", "drop"), 0.0)}
    known = {"expected_wrong": dict.fromkeys(("value", "low", "high"), 0.1), "label_action_costs": costs}
    known |= {"softening": {"value": None, "low": None, "high": None}}

    def gain(of):
        return next(each.text for each in label_findings(facts(borne_out=of, **known)) if each.code == "KD049")

    shown = NOTHING_SEEN | {"reviewed": 24.0, "wrong": 24.0, "share_low": 0.88, "turned": 22}
    text = gain({"desirable": NOTHING_SEEN | {"reviews_needed": 30}, "undesirable": shown})
    assert "Of desirable labels none may be turned: no reviewed row looks surely wrong. About 30 reviews more of them" in text
    assert "Of undesirable labels 22 may be turned: 24 of 24 reviewed rows that look surely wrong are wrong." in text
    assert "No label may be turned: no reviewed row looks surely wrong." in gain(
        dict.fromkeys(LABEL_NAMES.values(), NOTHING_SEEN)
    )
    assert "24 of 24 reviewed rows that look surely wrong are wrong, and no other row looks so." in gain(
        {"undesirable": shown | {"turned": 0}}
    )


def test_a_label_of_which_nothing_was_drawn_is_named_and_has_no_rate_of_the_other():
    every = {"drawn_at_random": 54, "rates_of": 54, "undesirable": {"drawn_at_random": 54}, "desirable": {"drawn_at_random": 0}}
    known = {"trusted": facts()["trusted"] | every, "unmeasured": {"desirable": 368}}
    gain = next(each for each in label_findings(facts(**known)) if each.code == "KD049")
    assert gain.status == "not_applicable" and "Every row" not in gain.text
    assert "368 desirable ones that nobody judged nothing is known: that takes 10 reviewed rows" in gain.text
    assert "of the same label, and there are none. So no label is softened" in gain.text


def test_an_end_that_the_draw_does_not_set_is_not_called_its_own():
    """1 of 44 drawn ones is 2.3 %; verdicts on picked rows show that at least 4.9 % are wrong."""
    of = {"drawn_wrong": 1, "drawn_at_random": 44, "error_rate": {"value": None, "low": 0.049, "high": 0.179}, "rates_of": 163}
    whole = {"rows": 140, "drawn_at_random": 88, "wrong": 2, "judged_wrong": 9, "rates_of": 326}
    rate = {"value": 0.03, "low": 0.028, "high": 0.12}
    reviews = reviewed_labels(whole | {"error_rate": rate, "undesirable": of, "desirable": of | {"error_rate": rate}})
    text = review_sentence(reviews)
    assert "undesirable: 1 of 44 wrong (4.9 to 17.9\u2009%, at least 4.9\u2009% by all verdicts)" in text
    assert "52 more judged, 7 of them wrong, not known to be of the draw, count for themselves alone, but for what" in text


def test_a_count_of_all_rows_is_not_said_by_the_draw():
    every = reviewed_labels(judged(planted(np.random.default_rng(0), (0.2, 0.05), rows=300), 0, 300))
    assert wrong_of_all(every).startswith("Every row that could be drawn was judged: ")


def test_nothing_outvoted_is_no_pass_where_nobody_could_outvote():
    by_code = {finding.code: finding for finding in label_findings(facts())}
    assert by_code["KD046"].status == "not_applicable" and "100 rows" in by_code["KD045"].text


def test_a_set_that_was_judged_throughout_has_a_count_and_no_interval():
    every = reviewed_labels(judged(planted(np.random.default_rng(0), (0.2, 0.05), rows=300), 0, 300))
    assert review_sentence(every).startswith(
        f"All 300 rows that could be drawn were judged: {every.whole.wrong} carry a wrong label, "
    )
    assert "interval" not in review_sentence(every) and " to " not in review_sentence(every)
    reviewed = facts(borne_out={}, label_action_costs={"rows": 0})
    gain = next(each for each in label_findings(reviewed) if each.code == "KD049")
    assert gain.status == "not_applicable" and "Every row to train on was reviewed" in gain.text


def test_what_could_not_come_up_is_no_pass():
    """One prompt for all rows; labels that are one of two votes; a rater who only ever says one thing."""
    learnt = {name: value for name, value in facts(prompts=1).items() if name != "not_learnt"}
    learnt |= {"label_noise_estimate": {"wrong": 0.1}, "trusted": {"rows": 0, "flags_refuted": []}}
    group = {"column": "rater", "value": "downs", "kind": "offset", "since": None, "effect_points": -0.9}
    drift = {"tests": 3, "significant_groups": [group | {"only": False}, group | {"value": "both", "only": None}]}
    votes = facts()["votes"] | {"raters": 2, "rows_with_several_raters": 20, "training_rows_with_several_raters": 20}
    independence = {"identified": False, "reason": "not identifiable"}
    by_code = {
        each.code: each for each in label_findings(learnt | {"drift": drift, "votes": votes, "independence": independence})
    }
    assert by_code["KD047"].status == by_code["KD046"].status == "not_applicable"
    assert by_code["KD048"].text.count("its labels are all undesirable") == 1
    three = label_findings(facts(votes=votes | {"rows_with_three_votes": 50}, independence=independence))
    outvoted = next(each for each in three if each.code == "KD046")
    assert (
        outvoted.status == "passed" and "Each of 50 labels" in outvoted.text and "majority of its votes never is" in outvoted.text
    )


def counted(wrong, rows):
    """The reviews in which every row of either class was judged, so many of them wrong."""
    classes = {
        name: {"drawn_wrong": wrong, "drawn_at_random": rows, "error_rate": share(wrong, rows, of=rows).as_dict()}
        for name in ("undesirable", "desirable")
    }
    rate = share(2 * wrong, 2 * rows, of=2 * rows).as_dict()
    return reviewed_labels({"rows": 2 * rows, "drawn_at_random": 2 * rows, "wrong": 2 * wrong, "error_rate": rate} | classes)


def test_a_full_count_is_called_one_and_lies_on_one_side_of_every_line():
    reviews = counted(30, 100)
    assert "random draw" not in noisy_sentence(reviews) and "Every row that could be drawn was judged" in noisy_sentence(reviews)
    assert trust_word(reviews) == "Not as they are." and next_for_labels(reviews)[0] == "Use the verdicts."
    assert is_above(counted(10, 100), 0.1) is False and trust_word(counted(5, 100)) == "Mostly."


@pytest.mark.parametrize("hits", [(1, 1), (20, 20), (60, 60)])
def test_where_the_headline_warns_something_is_left_to_do(hits):
    reviews = reviews_of(hits, (200, 200))
    assert bool(next_for_labels(reviews)[0]) == (trust_word(reviews) != "Mostly.")
    assert "leave room for" in next_for_labels(reviews_of((1, 0), (20, 10)))[1]


def test_nobody_is_asked_for_more_rows_than_there_are():
    texts = [next_for_labels(reviewed_labels({"left_to_draw": rows}))[1] for rows in (30, 500)]
    assert "all 30 rows that can be drawn" in texts[0] and "judge 60 rows" in texts[1]
    assert next_for_labels(reviewed_labels({"left_to_draw": 0})) == NextForLabels()
    drawn = {"rows": 62, "drawn_at_random": 60, "wrong": 20, "error_rate": {"value": 0.33, "low": 0.2, "high": 0.5}}
    assert next_for_labels(reviewed_labels(drawn | {"rates_of": 74, "left_to_draw": 12})).to_judge == 12
    unsure = drawn | {"error_rate": {"value": 0.1, "low": 0.01, "high": 0.3}, "rates_of": 90}
    assert next_for_labels(reviewed_labels(unsure | {"left_to_draw": 28})).draw == 28, "two were judged for another reason"
    few = {"label_action_costs": {"rows": 0}, "trusted": {"rates_of": 35}}
    cost = next(each for each in label_findings(facts(**few)) if each.code == "KD049").text
    assert "no more than 35 can be drawn" in cost and "have rows" not in cost


def test_rows_that_are_asked_about_anyway_are_not_asked_for_twice():
    """110 of the 112 rows that are left are held, so only two are more."""
    wrong = {"rows": 60, "drawn_at_random": 60, "wrong": 20, "error_rate": {"value": 0.33, "low": 0.2, "high": 0.5}}
    reviews = reviewed_labels(wrong | {"rates_of": 172, "left_to_draw": 112})
    assert [next_for_labels(reviews, held=held).to_judge for held in (0, 40, 110, 112)] == [30, 30, 2, 0]


def test_verdicts_that_rule_the_draw_out_are_said_to_and_what_is_certain_stays():
    """Of 60 drawn rows one is wrong, and of 40 that were picked 16: more than the draw leaves room for in 156."""
    trusted = {"rows": 100, "drawn_at_random": 60, "wrong": 1, "judged_wrong": 17, "draw_refuted": True, "rates_of": 156}
    trusted |= {"error_rate": {"value": None, "low": 17 / 156, "high": 73 / 156}, "left_to_draw": 56}
    reviews = reviewed_labels(trusted)
    text = review_sentence(reviews)
    assert "17 of all 100 rows judged: the draw and the other verdicts are at odds" in text and "certain: 10.9 to 46.8" in text
    assert trust_word(reviews) == "With care." and "95 %" not in text
    findings = {each.code: each for each in label_findings(facts(trusted=facts()["trusted"] | trusted))}
    assert findings["KD041"].status == "issue"
    learnt = {name: value for name, value in facts().items() if name != "not_learnt"}
    learnt |= {"trusted": facts()["trusted"] | trusted, "drift": {"tests": 0, "significant_groups": []}, "prompts": 1}
    learnt |= {"stacking": {"reviewed": 60, "log_loss": 0.2, "by_rates": 0.4}}
    findings = {each.code: each for each in label_findings(learnt)}
    assert findings["KD042"].status == "not_applicable", "p was withdrawn: that no row looks wrong says nothing"
    follows = next_for_labels(reviews)
    assert follows.to_judge == 0 and "Look into why" in follows.text
    for sentence in (findings["KD043"].text, follows.text, noisy_sentence(reviews), noise_unshown(reviews)):
        assert "certain: 10.9 to 46.8" in sentence and "By the draw" not in sentence and "95 %" not in sentence


def test_what_foretells_no_better_than_the_class_shares_is_said_to_be_so():
    fit = {"reviewed": 45, "log_loss": 1.04, "by_rates": 0.43}
    assert "worse than knowing only the class shares" in worth_sentence(fit)
    assert "no better than" in worth_sentence(fit | {"log_loss": 0.43}) and "worth" in worth_sentence(fit | {"log_loss": 0.2})
    assert "the text is worse" in worth_sentence(fit)
    assert "no better than" in worth_sentence(fit | {"log_loss": 0.432}), "as the two figures beside it are the same"
    fit |= {"with_votes": True}
    assert "text and votes together are worse" in worth_sentence(fit)
    votes = facts()["votes"] | {"raters": 2, "rows_with_several_raters": 20, "training_rows_with_several_raters": 20}
    raters = next(each for each in label_findings(facts(votes=votes, stacking=fit)) if each.code == "KD044")
    assert raters.status == "issue" and "worse than knowing only the class shares" in raters.text


def test_raters_are_counted_on_all_texts_that_they_share_and_who_is_at_odds_is_named():
    votes = {"raters": 7, "rows_with_several_raters": 30, "training_rows_with_several_raters": 4, "rows_with_three_votes": 0}
    votes |= {"outvoted": 0, "at_odds": [{"rater": "zed", "agrees": 0, "shared": 30}]}
    raters = next(each for each in label_findings(facts(votes=votes)) if each.code == "KD044")
    assert raters.status == "issue" and "7 raters share 30 texts (4 of them to train on)" in raters.text
    assert "rater zed (agrees on 0 of 30 texts)" in raters.text and "the votes cannot show which of them is wrong" in raters.text


def test_why_nobody_was_compared_is_the_true_reason():
    columns = {"source": (0, 0, 0), "rater": (400, 1, 1), "model": (90, 30, 0), "created_at": (0, 0, 0)}
    columns = {name: dict(zip(("rows", "values", "with_enough_rows"), of, strict=True)) for name, of in columns.items()}
    text = nothing_compared({"columns": columns}, voters=4)
    assert "4 raters voted, but a text that several judged is one row" in text and "source: named on no row" in text
    assert "none of 30 has 20 rows" in text and "no row has a time" in text


def test_of_two_who_differ_both_are_named_and_neither_is_blamed():
    group = {"column": "rater", "value": "bob", "counterpart": "ann", "kind": "offset", "since": None, "effect_points": 0.2}
    text = drift_sentence({"significant_groups": [group | {"only": True, "counterpart_only": None}]})
    assert "rater bob (" in text and "beside rater ann (the labels cannot show which of the two is off" in text
    assert text.count("its labels are all desirable") == 1 and "+20 points" in text
    reviewed = drift_sentence({"significant_groups": [group | {"only": None, "reviewed": [(12, 28), (1, 30)]}]})
    assert "12 of 28 by the first are wrong, 1 of 30 by the second" in reviewed
    ruled_out = drift_sentence(
        {"significant_groups": [group | {"only": None, "reviewed": [(0, 28), (0, 30)], "ruled_out": True}]}
    )
    assert (
        "its answers differ, not the criterion" in ruled_out and "threshold" not in ruled_out and "which of the" not in ruled_out
    )
    alone = drift_sentence({"significant_groups": [group | {"only": None, "counterpart": None, "reviewed": [(3, 9), (0, 30)]}]})
    assert "of rows drawn and reviewed 3 of 9 by it are wrong, 0 of 30 by the others" in alone and "of a new model" in alone
    zero = group | {"only": None, "effect_points_low": -0.1, "effect_points_high": 0.4}
    assert "by how many points is unknown" in drift_sentence({"significant_groups": [zero]})
