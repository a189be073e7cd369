from datetime import UTC, datetime

import pytest

from ktodata.feedback import feedback_table
from ktodata.labels.people.votes import aggregate_votes, last_votes, votes_of_rows


def vote(rater, label):
    return {"rater": rater, "label": label, "created_at": None}


def rated(*rows):
    """(label, {rater: verdict})"""
    return feedback_table(
        *[
            {"prompt": "p", "completion": str(n), "label": label, "votes": [vote(*one) for one in cast]}
            for n, (label, cast) in enumerate(rows)
        ]
    )


def test_counts_and_agreement_by_hand():
    """ann and ben always agree; cat is alone against them in the first row, and agrees in the second."""
    table = rated((False, [("ann", True), ("ben", True), ("cat", False)]), (True, [("ann", True), ("ben", True), ("cat", True)]))
    told = aggregate_votes(table)
    assert told.rows.rows() == [("1", 2, 1, True), ("2", 3, 0, False)]
    raters = {row["rater"]: row for row in told.raters.iter_rows(named=True)}
    # row 1: to ann the others are one up, one down: a tie, which counts for nothing
    assert [(raters[who]["shared"], raters[who]["agrees"]) for who in ("ann", "ben", "cat")] == [(1, 1), (1, 1), (2, 1)]
    assert raters["cat"]["agreement_low"] == pytest.approx(0.0126, abs=1e-3)


def test_a_rater_who_says_both_is_counted_once_and_named():
    table = rated((True, [("ann", True), ("ann", False), ("ben", False)]))
    raters = aggregate_votes(table).raters
    assert raters.select("rater", "votes", "self_contradictions").rows() == [("ann", 1, 1), ("ben", 1, 0)]


def test_the_last_vote_is_the_latest_wherever_it_stands():
    """ann's vote at an unknown time, then her latest, then her first; two people without a name count each."""
    times = (None, datetime(2026, 5, 2, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC))
    votes = [vote("ann", at == times[1]) | {"created_at": at} for at in times] + [vote(None, True), vote(None, False)]
    table = feedback_table({"prompt": "p", "completion": "c", "label": True, "votes": votes})
    last = last_votes(votes_of_rows(table))
    assert last.select("rater", "verdict").rows() == [("ann", True), (None, True), (None, False)]


def test_who_goes_against_the_others_by_more_than_chance_is_at_odds():
    """zed contradicts one of two others on 30 texts: they share texts with zed alone, which says nothing of them."""
    others = [f"u{number}" for number in range(2)]
    table = rated(*[(True, [(others[number % 2], number % 3 > 0), ("zed", number % 3 == 0)]) for number in range(30)])
    assert aggregate_votes(table).metrics["at_odds"] == [{"rater": "zed", "agrees": 0, "shared": 30}]
    both = rated(*[(True, [("ann", True), ("ben", False)])] * 20)  # which of the two is off nobody can say
    assert [one["rater"] for one in aggregate_votes(both).metrics["at_odds"]] == ["ann", "ben"]
    assert not aggregate_votes(rated(*[(True, [("ann", True), ("ben", number % 3 > 0)]) for number in range(30)])).metrics[
        "at_odds"
    ]


def test_single_raters_are_not_compared():
    told = aggregate_votes(rated(*[(True, [("ann", True)]), (False, [("ben", False)])] * 10))
    assert told.raters["agreement"].null_count() == 2
    assert told.metrics["rows_with_several_raters"] == 0


def test_votes_without_rater_count_only_towards_the_sums():
    told = aggregate_votes(rated((False, [(None, True), (None, True), (None, False)])))
    assert told.rows.rows() == [("1", 2, 1, True)]
    assert told.raters.height == 0
    assert told.metrics["votes_without_rater"] == 3


def test_votes_are_of_different_people_where_that_is_known():
    """Named raters; else the votes of one record, which have one time. Two times may be one person's."""
    may, june = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6))
    polled, twice = [vote(None, True)] * 3, [vote(None, True), vote(None, True) | {"created_at": june}]
    again = [vote("ann", True) | {"created_at": may}, vote("ann", False) | {"created_at": june}]
    rows = [polled, twice, [*again, vote("ben", True)], [vote("ann", True), vote(None, True)]]
    table = feedback_table(*({"prompt": "p", "completion": str(n), "label": True, "votes": cast} for n, cast in enumerate(rows)))
    apart = aggregate_votes(table).apart
    assert [apart.filter(row_id=row)["verdict"].sort().to_list() for row in "1234"] == [[True] * 3, [True], [False, True], [True]]
