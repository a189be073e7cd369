"""A sitting: the order of the rows, what each act leads to, filters, the budget, and what is stale."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import RunError
from ktodata.files import read_note, siblings_of, write_note
from ktodata.labels.label_words import review_sentence, reviewed_labels
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run
from ktodata.report.headline import headline_text
from ktodata.review.filters import FilterColumns, Filters
from ktodata.review.queue import ReviewQueue, build_queue, expected_gain, seconds_per_row
from ktodata.review.review_progress import labels_so_far
from ktodata.review.session import open_session
from ktodata.review.store import StaleError

ALL = Filters()


def sit(run, reviewer="ann", **settings):
    return open_session(run, reviewer=reviewer, **({"blind": False, "minutes": 20} | settings))


@pytest.fixture
def session(run):
    opened = sit(run)
    yield opened
    opened.store.close()


def judge(session, verdict="keep", *, item=None, **more):
    """Give a verdict on the row that is shown; returns its row_id."""
    item = item or session.item(ALL)
    settings = {"current_id": item.current_id, "detector": session.detector, "note": "", "seconds": 10.0} | more
    session.record(item.row.row_id, verdict, **settings)
    return item.row.row_id


# --- the order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 21, 60, 70])
def test_the_queue_begins_with_the_draw_that_the_headline_asks_for_and_the_rest_is_by_worth(run, count):
    audit = LabelAudit.of_run(run)
    queue = build_queue(audit, count)
    first_rows = audit.next_reviews(count)
    ids = audit.table["row_id"]
    assert [ids[int(place)] for place in queue.order[:count]] == first_rows["row_id"].to_list()
    assert set(first_rows["why"][:60]) == {"measures"} and queue.drawn.sum() == 60 and queue.drawn[queue.order[:60]].all()
    assert sorted(queue.order) == list(range(audit.table.height))  # every open row, once
    rest = queue.worth[queue.order[max(count, 60) :]]
    assert (np.diff(rest) <= 0).all() and rest[0] > rest[-1]
    assert np.allclose(queue.p_wrong[queue.order[:count]], first_rows["doubt"])


def test_rows_with_a_trusted_label_are_asked_no_more(run):
    audit = LabelAudit.of_run(run)
    trusted = pl.Series("trusted_label", [True] * 3 + [None] * (audit.table.height - 3), dtype=pl.Boolean)
    queue = build_queue(LabelAudit(audit.table.with_columns(trusted), audit.result, audit.settings), 10)
    assert not {0, 1, 2} & set(queue.order.tolist()) and len(queue.order) == audit.table.height - 3


def test_rows_come_in_order_and_none_twice(session):
    expected = [session.rows.row_ids[int(place)] for place in session.queue.order[:12]]
    assert [judge(session, ("keep", "flip", "drop", "contested")[n % 4]) for n in range(12)] == expected
    item = session.item(ALL)
    assert (item.decided, item.of_sitting, item.sitting, item.waiting) == (12, 12, 20, len(session.rows) - 12)


# --- acts --------------------------------------------------------------------------------------------------------------


def test_undo_brings_the_row_and_its_note_back(session):
    first = judge(session, note="doubtful arithmetic")
    judge(session)
    session.undo(session.item(ALL).undo_token, session.detector)
    place, note = session.undo(session.item(ALL).undo_token, session.detector)
    assert (session.rows.row_ids[place], note) == (first, "doubtful arithmetic")
    item = session.item(ALL, place=place, note=note)
    assert (item.row.row_id, item.note, item.decided, item.current_id, item.undo_token) == (
        first,
        "doubtful arithmetic",
        0,
        0,
        "",
    )
    with pytest.raises(StaleError):
        session.undo("", session.detector)


def test_a_skipped_row_waits_until_it_is_asked_for_again(run, session):
    first = session.item(ALL).row.row_id
    session.skip(first, session.detector)
    assert session.item(ALL).row.row_id != first and session.item(ALL).skipped == 1
    place, _ = session.undo(session.item(ALL).undo_token, session.detector)  # the skip was the last act
    assert session.rows.row_ids[place] == first and session.item(ALL).row.row_id == first
    session.skip(first, session.detector)
    second = judge(session)
    place, _ = session.undo(session.item(ALL).undo_token, session.detector)  # now the verdict was
    assert session.rows.row_ids[place] == second and session.item(ALL).skipped == 1
    assert sit(run).item(ALL).row.row_id == first  # for the sitting only
    session.unskip()
    assert session.item(ALL).row.row_id == first


def test_another_tab_or_an_old_page_cannot_undo_or_judge_twice(session):
    item = session.item(ALL)
    judge(session, item=item)
    with pytest.raises(StaleError, match="decided meanwhile"):
        judge(session, "flip", item=item)
    before = session.item(ALL).undo_token
    judge(session)
    with pytest.raises(StaleError, match="something else was done since"):
        session.undo(before, session.detector)
    with pytest.raises(StaleError, match="not among those"):
        session.record("nobody", "keep", current_id=0, detector=session.detector, note="", seconds=1.0)
    assert session.store.current_verdicts()["verdict"].to_list() == ["keep", "keep"]


def test_a_verdict_can_be_changed_on_the_rows_own_page(session):
    row_id = judge(session, note="first")
    item = session.item(ALL, place=session.place(row_id))
    assert (item.current.verdict, item.note) == ("keep", "first")
    judge(session, "flip", item=item)
    assert session.store.current_verdicts().select("row_id", "verdict").rows() == [(row_id, "flip")]


def test_a_run_made_anew_makes_every_page_stale(run, session):
    item = session.item(ALL)
    for note in (run.folder / "stages/label_noise/done.json", run.folder / "manifest.json"):
        facts = read_note(note)
        for entry in (facts, *(stage for stage in facts.get("stages", ()) if stage["name"] == "label_noise")):
            entry["key"] = "another"
        write_note(note, facts, [run.folder / name for name in siblings_of(note)])
    for act in (
        lambda: judge(session, item=item),
        lambda: session.skip(item.row.row_id, session.detector),
        lambda: session.undo(item.undo_token, session.detector),
    ):
        with pytest.raises(StaleError, match="made anew"):
            act()
    with pytest.raises(StaleError, match="made anew"):
        judge(sit(run), item=item, detector=session.detector)  # an old page at a new desk
    assert session.store.current_verdicts().is_empty()


def test_verdicts_count_in_the_pipeline_and_the_next_desk_goes_on(made, run, session):
    """Twenty reviewed rows: the run learns from them, the open desk is stale, a new one asks about other rows."""
    judged = {judge(session, "flip" if number % 4 == 0 else "keep"): number % 4 > 0 for number in range(20)}
    dropped, contested = judge(session, "drop"), judge(session, "contested")
    labels = dict(run.feedback.select("row_id", "label").iter_rows())
    again = kd.run(made[0], out=run.folder, reviews=[session.store.path])
    trusted = dict(again.feedback.select("row_id", "trusted_label").drop_nulls().iter_rows())
    assert trusted == {row_id: labels[row_id] == right for row_id, right in judged.items()}
    facts = again.stage("reviews").metrics
    assert (facts["verdicts"], facts["differ_from_label"], facts["drop"], facts["contested"]) == (22, 5, 1, 1)
    outcome = {name: again.explain(row_id)["outcome"] for name, row_id in (("dropped", dropped), ("contested", contested))}
    assert outcome == {"dropped": "drop", "contested": "review"}
    assert again.manifest["rows"]["dropped"] == 1 and again.manifest["rows"]["review"] >= 1
    with pytest.raises(StaleError, match="made anew"):
        judge(session)
    next_session = sit(Run(run.folder), "bob")
    queued = {next_session.rows.row_ids[int(place)] for place in next_session.queue.order}
    assert not queued & {*judged, dropped, contested}
    drawn = {next_session.rows.row_ids[int(place)] for place in np.flatnonzero(next_session.queue.drawn)}
    assert drawn and not drawn & {*judged, dropped, contested}  # the draw goes on until it has forty
    assert next_session.detector != session.detector
    second = next_session.item(Filters(judged="others"))
    assert second.waiting == 21  # what was judged before the run was made may have a second opinion; what was dropped is gone
    next_session.store.close()


@pytest.fixture
def disputed(made, tmp_path):
    """(the recipe, a run) of the same feedback, three texts of it given the other label too by somebody else."""
    lines = Path(made[0]["ingest"]["paths"][0]).read_text().splitlines()
    again = [json.loads(line) for line in lines[50:53]]
    other = [record | {"id": f"again {record['id']}", "thumb": "down" if record["thumb"] == "up" else "up"} for record in again]
    (tmp_path / "feedback.jsonl").write_text("".join(f"{line}\n" for line in (*lines, *map(json.dumps, other))))
    recipe = made[0] | {"ingest": made[0]["ingest"] | {"paths": [str(tmp_path / "feedback.jsonl")]}}
    return recipe, kd.run(recipe, out=tmp_path / "run")


def test_what_is_held_until_somebody_decides_is_asked_about_and_then_decided(disputed):
    recipe, run = disputed
    waited = run.manifest["rows"]["review"]
    line = headline_text(run.folder)[4]
    texts, budget = (int(re.search(rf"{words}", line)[1]) for words in (r"the (\d+) texts", r"--budget (\d+)"))
    desk = build_queue(LabelAudit.of_run(run), budget)
    whys = [desk.why(int(place)) for place in desk.order[:budget]]
    drawn, held_verdicts = (int(re.search(words, line)[1]) for words in (r"(\d+) of the random draw", r"and the (\d+) held\."))
    assert (
        texts == 3 and drawn + held_verdicts == budget and whys[drawn:] == ["held"] * held_verdicts and "held" not in whys[:drawn]
    )
    session = sit(run, minutes=70)
    held = [session.rows.row_ids[int(place)] for place in session.queue.order if session.queue.held[place]]
    assert len(held) == 3 and session.queue.held.sum() == 3  # one of each text
    assert set(held) <= {session.rows.row_ids[int(place)] for place in session.queue.order[: session.sitting]}
    contradicted = Filters(reason="contradicted")
    item = session.item(contradicted)
    assert item.waiting == 3 and item.why == "held" and item.row.evidence.reasons == ["the same text has both labels"]
    flipped, confirmed = judge(session, "flip", item=item), judge(session, "keep", item=session.item(contradicted))
    twins = dict(run.ledger.filter(reason="labels_disagree", stage="dedupe").select("row_id", "caused_by").iter_rows())
    again = kd.run(recipe, out=run.folder, reviews=[session.store.path])
    assert "the 1 text with both labels" in headline_text(again.folder)[4]
    assert "On 2 of those held nothing is left to judge" in headline_text(again.folder)[2]
    stories = [again.explain(row_id) for row_id in (flipped, twins[flipped], confirmed, twins[confirmed])]
    assert [story["outcome"] for story in stories] == ["review", "keep", "keep", "review"]
    assert [story["labels"]["exported"] == story["labels"]["read"] for story in stories] == [False, True, True, False]
    assert again.manifest["rows"]["review"] == waited - 2  # the row of each text that was overruled is set aside
    assert sit(again, "bob").item(contradicted).waiting == 1
    session.store.close()


# --- filters and the second reviewer -----------------------------------------------------------------------------------


def test_filters_let_through_what_they_say(session):
    filters = Filters.of({"rater": "user 1", "nonsense": "x"})
    rater = dict(LabelAudit.of_run(session.run).table.select("row_id", "rater").iter_rows())
    for _ in range(3):
        assert rater[judge(session, item=session.item(filters))] == "user 1"
    assert session.item(filters).waiting == sum(name == "user 1" for name in rater.values()) - 3
    assert session.item(Filters(rater="nobody")).row is None
    assert session.item(Filters(cluster="7")).waiting == 0  # there is no such column
    assert filters.query() == "?rater=user+1"


def test_reasons_are_doubts_and_the_random_draw():
    table = pl.DataFrame({"source": ["a", "a", "b"], "cluster": [1, 2, 1], "rater": ["x", None, "x"]})
    reasons = pl.Series([["outvoted", "doubtful_label"], None, ["outvoted"]], dtype=pl.List(pl.String))
    columns = FilterColumns(table, reasons, np.array([False, True, True]))
    assert columns.mask(Filters(reason="outvoted")).tolist() == [True, False, True]
    assert columns.mask(Filters(reason="measures")).tolist() == [False, True, True]
    assert columns.mask(Filters(reason="outvoted", cluster="1", source="b")).tolist() == [False, False, True]
    assert columns.mask(Filters(rater="x")).tolist() == [True, False, True]
    assert sorted(columns.choices["reason"]) == [("doubtful_label", 1), ("measures", 2), ("outvoted", 2)]
    assert "rater" not in columns.choices  # nothing to choose between


def test_a_second_reviewer_sees_the_same_rows_and_can_ask_for_those_judged(run, session):
    first = [judge(session) for _ in range(3)]
    bob = sit(run, "bob")
    assert bob.item(ALL).row.row_id == first[0] and bob.item(ALL).current is None
    assert [judge(bob, "flip", item=bob.item(Filters(judged="others"))) for _ in range(3)] == first
    assert bob.item(Filters(judged="others")).row is None
    judge(session)  # what another desk writes is seen without a restart
    assert bob.item(Filters(judged="others")).waiting == 1
    session.undo(session.item(ALL).undo_token, session.detector)
    assert bob.item(Filters(judged="others")).waiting == 0
    bob.store.close()


def test_rows_on_which_reviewers_differ_are_a_queue_that_ends(run, session):
    """Ann keeps four rows, Bob flips three of them. Bob goes through those: one he gives up, one he says again, one he skips."""
    rows = [judge(session) for _ in range(4)]
    bob, differ = sit(run, "bob"), Filters(judged="differ")
    assert bob.item(differ).row is None
    for row_id, verdict in zip(rows, ("flip", "keep", "flip", "flip"), strict=True):
        judge(bob, verdict, item=bob.item(Filters(judged="others")))
        assert bob.item(ALL).row.row_id != row_id
    bob.store.close()
    bob = sit(run, "bob")
    first = bob.item(differ)
    assert (first.row.row_id, first.waiting, first.current.verdict) == (rows[0], 3, "flip")
    judge(bob, "keep", item=first)
    judge(bob, "flip", item=bob.item(differ))
    again = bob.item(differ)
    assert (again.row.row_id, again.waiting) == (rows[3], 1), "what was said again is not put again in this sitting"
    assert bob.undo(bob.item(differ).undo_token, bob.detector)[0] == bob.place(rows[2])
    assert bob.item(differ).row.row_id == rows[2], "the verdict before it stands again, and differs"
    for row_id in rows[2:]:
        bob.skip(row_id, bob.detector)
    assert bob.item(differ).row is None and session.item(differ).waiting == 2
    bob.store.close()


def test_a_row_drawn_at_random_is_judged_blind_unless_somebody_says_otherwise(run):
    session = sit(run, blind=None)
    item = session.item(ALL)
    place = session.place(item.row.row_id)
    assert session.queue.drawn[place] and item.blind and item.row.evidence is None
    judge(session)
    judged = session.item(ALL, place=place)  # once it is judged, nothing can lead the reviewer any more
    assert not judged.blind and judged.row.evidence is not None
    chosen = int(np.flatnonzero(~session.queue.drawn)[0])
    assert not session.item(ALL, place=chosen).blind
    assert session.store.current_verdicts()["blind"].to_list() == [True]
    session.store.close()


def test_a_budget_is_a_number_of_rows(run):
    session = sit(run, budget=7)
    item = session.item(ALL)
    assert (item.sitting, session.outlook().minutes, session.outlook().gains[0].rows) == (7, None, 7)
    for _ in range(5):
        judge(session, seconds=1.0)
    assert session.outlook().gains[0].rows == 2  # quick verdicts make it no longer
    session.store.close()


def test_a_budget_is_of_one_sitting_and_the_draw_goes_on_over_all_of_them(run):
    """Thirty rows, and thirty again: all sixty that the headline asks for are of the draw, and blind; then the others."""
    for sitting in range(2):
        session = sit(run, budget=30, blind=None)
        item = session.item(ALL)
        assert (item.decided, item.of_sitting, item.sitting) == (30 * sitting, 0, 30)
        for number in range(30):
            item = session.item(ALL)
            assert (item.of_sitting, item.why, item.blind) == (number, "measures", True)
            judge(session, item=item)
        session.store.close()
    session = sit(run, budget=5, blind=None)
    item = session.item(ALL)
    assert (item.decided, item.of_sitting, item.sitting, item.why, item.blind) == (60, 0, 5, "gain", False)
    session.undo(item.undo_token, session.detector)
    assert session.item(ALL).of_sitting == 0 and session.item(ALL).why == "measures"
    session.store.close()


@pytest.mark.parametrize("budget", [1, 5, 60, 100])
def test_what_was_learnt_is_of_the_whole_draw_as_the_run_says_it(made, run, budget):
    """Ann judges forty rows of the draw, Bob the first twenty of them: every tenth otherwise, and one he drops."""
    ann = sit(run, budget=60, blind=None)
    judged = [judge(ann, "flip" if number % 3 == 0 else "keep") for number in range(40)]
    bob = sit(run, "bob", budget=20, blind=None)
    for number in range(20):
        verdict = "flip" if (number % 3 == 0) != (number % 10 == 1) else "keep"
        assert judge(bob, "drop" if number == 19 else verdict) == judged[number]
    bob.store.close()
    for reviewer in ("ann", "bob", "cy"):
        session = sit(run, reviewer, budget=budget)
        learnt = review_sentence(labels_so_far(session.audit, session.store.path))
        session.store.close()
        assert "of 37 rows drawn at random" in learnt and "3 contested" in learnt
    again = kd.run(made[0], out=run.folder, reviews=[ann.store.path])
    assert learnt == review_sentence(reviewed_labels(again.stage("label_noise").metrics["trusted"]))
    session = sit(Run(run.folder), "cy", budget=budget)  # told twice, and counted once
    assert review_sentence(labels_so_far(session.audit, session.store.path)) == learnt
    session.store.close()
    ann.store.close()


def test_a_blind_reviewer_is_told_nothing_of_labels(run):
    blind = sit(run, blind=True)
    item = blind.item(ALL)
    assert item.row.evidence is None and item.row.nearest == [] and {row.label for row in item.row.siblings} <= {None}
    label = bool(blind.rows.labels[blind.place(item.row.row_id)])
    assert (blind.keep_or_flip(item.row.row_id, label), blind.keep_or_flip(item.row.row_id, not label)) == ("keep", "flip")
    judge(blind)
    assert blind.store.current_verdicts()["blind"].to_list() == [True]
    blind.store.close()


# --- what stands beside a row ------------------------------------------------------------------------------------------


def test_siblings_share_the_prompt_and_the_nearest_are_the_nearest(session):
    audit = LabelAudit.of_run(session.run)
    table, place = audit.table, 20
    row = session.rows.row(place, 0.3, blind=False)
    group = table["prompt_group"][place]
    same = set(table.filter(prompt_group=group)["row_id"]) - {table["row_id"][place]}
    assert same and {other.row_id for other in row.siblings} == same and row.siblings_in_all == len(same)
    p, c = (table[f"{side}_embedding"].to_numpy() for side in ("prompt", "completion"))
    cosine = (p @ p[place] + c @ c[place]) / 2
    cosine[[session.place(row_id) for row_id in [*same, table["row_id"][place]]]] = -1
    assert [other.similarity for other in row.nearest] == pytest.approx(np.sort(cosine)[::-1][:6].tolist(), abs=1e-5)
    labels = dict(table.select("row_id", "label").iter_rows())
    assert all(other.label == labels[other.row_id] for other in [*row.siblings, *row.nearest])


def test_signals_and_the_rater_are_those_of_the_run(session):
    place = 33
    evidence = session.rows.row(place, 0.25, blind=False).evidence
    scores = session.run.stage("label_noise").table("evidence").filter(row_id=session.rows.row_ids[place]).drop("row_id").row(0)
    assert [value for _, value in evidence.scores] == pytest.approx([value for value in scores if value is not None])
    assert ("all together" in dict(evidence.scores)) and evidence.p_wrong == 0.25
    table = LabelAudit.of_run(session.run).table.filter(rater=evidence.rater.name)
    assert evidence.rater.name.startswith("user ") and evidence.rater.rows == table.height > 0
    assert evidence.rater.desirable == pytest.approx(table["label"].mean()) and evidence.rater.wrong == []


# --- the budget --------------------------------------------------------------------------------------------------------


def test_what_reviews_buy_by_hand():
    """p = 0.5, 0.1, 0.2: the first two hold 0.6 wrong labels and 0.25 + 0.09 of 0.25 + 0.09 + 0.16 of the cost; 2 rows at 30 s."""
    p = np.array([0.2, 0.5, 0.1])
    queue = ReviewQueue(np.array([1, 2, 0]), np.zeros(3, bool), np.zeros(3, bool), p, measured=True)
    bought = expected_gain(queue, queue.order, 2, 30.0)
    assert (bought.rows, bought.minutes) == (2, 1.0)
    assert (bought.wrong_labels, bought.cost, bought.cost_share) == pytest.approx((0.6, 0.34, 0.68))
    unknown = ReviewQueue(queue.order, queue.drawn, queue.held, p, measured=False)
    assert expected_gain(unknown, queue.order, 2, 30.0).wrong_labels is None


def test_the_pace_is_the_reviewers_own_once_it_shows(session):
    assert (
        seconds_per_row([]),
        seconds_per_row([10, 10, 10, 10]),
        seconds_per_row([10, 20, 30, 40, 900]),
        seconds_per_row([0.0] * 9),
    ) == (None, None, 30, 1)
    first = session.outlook()
    assert (first.seconds_a_row, first.gains[0].minutes, first.gains[0].rows) == (None, None, session.sitting)
    for _ in range(5):
        judge(session, seconds=30.0)
    outlook = session.outlook()
    assert (outlook.spent_minutes, outlook.seconds_a_row) == (2.5, 30.0)
    assert outlook.gains[0].rows == 35  # 17.5 minutes at 30 s
    assert not outlook.measured and outlook.gains[0].wrong_labels is None
    assert [gain.rows for gain in outlook.gains[1:]] == [30, 60, 120]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101, "\x1b[31m"])
def test_a_reviewer_has_a_name(run, name):
    with pytest.raises(RunError, match="--reviewer"):
        sit(run, name)


def test_a_run_without_an_audit_is_refused(tmp_path, made):
    recipe = made[0] | {"steps": ["dedupe"]}
    with pytest.raises(RunError, match="no label_noise"):
        sit(kd.run(recipe, out=tmp_path / "plain"))
