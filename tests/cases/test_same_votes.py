"""The same votes give the same rows, whether they come as one record per vote or as columns; a rater's last word counts."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import polars as pl
import pytest
from line_files import write_lines

from ktodata.findings import Finding
from ktodata.formats import read
from ktodata.stages.dedupe import dedupe

LABEL = {"column": "score", "at_least": 4, "undesirable_at_most": 2}
JUDGE_SCORES = Path(__file__).parents[3] / "shared" / "cases" / "people" / "judge_scores.jsonl"
JUDGES = ("ann", "bob", "eve")
# the grades of each judge, null where there is none: 3 is no verdict
GRADES = {
    "all say yes": (5, 4, 5),
    "two of three": (5, 1, 4),
    "two of three say no": (1, 5, 2),
    "two only": (4, None, 5),
    "one and one": (5, None, 1),
    "one, and two without a verdict": (3, 2, 3),
    "one and one, and one without a verdict": (5, 3, 1),
    "nobody": (3, 3, None),
}


def one_record_a_vote(grades):
    return [
        {"question": f"what of {text}?", "answer": text, "judge": judge, "score": grade, "at": f"2026-05-0{day}T10:00:00Z"}
        for text, given in grades.items()
        for day, (judge, grade) in enumerate(zip(JUDGES, given, strict=True), start=1)
        if grade is not None
    ]


def read_votes(place, records):
    columns = {"prompt": "question", "completion": "answer", "rater": "judge", "created_at": "at"}
    return read(write_lines(place, records), label=LABEL, **columns).feedback


def kept(feedback, name="completion"):
    """{answer: (label, votes)} of the rows that nothing speaks against."""
    result = dedupe(feedback, near=None)
    rows = feedback.join(result.columns.select("row_id", "pooled_votes"), on="row_id")
    rows = rows.filter(~pl.col("row_id").is_in(list(result.actions())))
    votes = pl.col("pooled_votes").list.eval(pl.element().struct.field("label").cast(pl.Int64)).list
    lines = rows.select(name, "label", up=votes.sum(), count=votes.len()).iter_rows()
    return {answer: (label, up, count) for answer, label, up, count in lines}


def test_records_of_single_votes_give_the_rows_that_columns_give(tmp_path):
    columns = [
        {"question": f"what of {text}?", "answer": text, **dict(zip(JUDGES, given, strict=True))}
        for text, given in GRADES.items()
    ]
    label = {"at_least": 4, "undesirable_at_most": 2}
    place = write_lines(tmp_path / "columns.jsonl", columns)
    as_columns = read(place, prompt="question", completion="answer", votes=JUDGES, label=label).feedback
    as_records = read_votes(tmp_path / "records.jsonl", one_record_a_vote(GRADES))
    assert kept(as_records) == kept(as_columns)
    assert set(kept(as_records)) == {*list(GRADES)[:4], "one, and two without a verdict"}
    assert kept(as_records)["two of three say no"] == (False, 1, 3)


def test_ties_wait_for_a_person_and_minorities_are_named(tmp_path):
    result = dedupe(read_votes(tmp_path / "records.jsonl", one_record_a_vote(GRADES)), near=None)
    reasons = dict(result.decisions["reason"].value_counts().iter_rows())
    assert reasons == {"outvoted": 2, "labels_disagree": 4, "repeat": 5}
    assert (result.metrics["contradicted_texts"], result.metrics["outvoted_texts"]) == (2, 2)
    finding = Finding(**next(each for each in result.metrics["findings"] if each["code"] == "KD021"))
    assert finding.rows == 6 and "2 texts (4 rows) have both labels, and no majority decides" in finding.text


@pytest.mark.parametrize("turned", [False, True])
def test_a_rater_who_votes_again_is_heard_once(tmp_path, turned):
    votes = [
        ("ann", 5, "2026-05-01"),
        ("ann", 1, "2026-05-02"),
        ("ann", 2, "2026-05-03"),
        ("bob", 5, "2026-05-01"),
        ("eve", 5, "2026-05-01"),
    ]
    records = [{"question": "q", "answer": "a", "judge": judge, "score": grade, "at": at} for judge, grade, at in votes]
    feedback = read_votes(tmp_path / "records.jsonl", records[::-1] if turned else records)
    assert kept(feedback) == {"a": (True, 2, 3)}
    assert dedupe(feedback).metrics["earlier_votes"] == 2


@pytest.mark.parametrize("nobody", ["", "  ", None])
def test_an_empty_id_is_no_rater(tmp_path, nobody):
    times = [f"2026-05-0{day}T10:00:00Z" for day in (1, 2, 3)]
    records = [
        {"question": "q", "answer": "a", "judge": nobody, "score": grade, "at": at}
        for grade, at in zip((5, 5, 1), times, strict=True)
    ]
    feedback = read_votes(tmp_path / "records.jsonl", records)
    assert feedback["rater"].null_count() == 3
    assert feedback["votes"].explode().struct.field("rater").null_count() == 3
    assert kept(feedback) == {"a": (True, 2, 3)}
    # without times the two that agree may be one record twice: one and one
    untimed = read_votes(tmp_path / "untimed.jsonl", [record | {"at": None} for record in records])
    assert untimed["votes"].explode().struct.field("rater").null_count() == 3
    assert kept(untimed) == {}


@pytest.mark.parametrize("turned", [False, True])
def test_without_times_nobody_has_a_last_word(tmp_path, turned):
    """Many exports list the newest first: a rater who has said both at times unknown has said both."""
    votes = [("ann", 5), ("ann", 1), ("bob", 5), ("eve", 5)]
    votes = votes[::-1] if turned else votes
    records = [{"question": "q", "answer": "a", "judge": judge, "score": grade, "at": None} for judge, grade in votes]
    columns = {f"vote {number}": judge for number, (judge, _) in enumerate(votes)}
    record = {"question": "q", "answer": "a"} | {f"vote {number}": grade for number, (_, grade) in enumerate(votes)}
    label = {"at_least": 4, "undesirable_at_most": 2}
    as_columns = read([record], prompt="question", completion="answer", votes=columns, label=label).feedback
    as_records = read_votes(tmp_path / "records.jsonl", records)
    assert kept(as_records) == kept(as_columns) == {"a": (True, 3, 4)}
    assert as_columns["earlier_votes"].is_null().all()


def as_columns_of(records, *, timed):
    """One record a text, with a column for each vote of each judge; where times count, for each of the last ones."""
    texts = defaultdict(list)
    for record in records:
        texts[tuple(" ".join(record[name].lower().split()) for name in ("question", "answer"))].append(record)
    columns, wide = {}, []
    for votes in texts.values():
        row, numbers = {name: votes[0][name] for name in ("question", "answer")}, Counter()
        for vote in votes:
            # a neutral grade is no vote, and takes none back
            later = [each for each in votes if each["judge"] == vote["judge"] and each["score"] != 3]
            if not timed or vote["judged_at"] == max((each["judged_at"] for each in later), default=None):
                column = f"{vote['judge']} {numbers[vote['judge']]}"
                numbers[vote["judge"]] += 1
                row[column], columns[column] = vote["score"], vote["judge"]
        wide.append(row)
    return wide, columns


@pytest.mark.shared
@pytest.mark.parametrize("timed", [True, False])
def test_three_judges_of_a_thousand_answers_give_the_same_rows_either_way(timed):
    if not JUDGE_SCORES.exists():
        pytest.skip(f"{JUDGE_SCORES} is absent")
    names = {"prompt": "question", "completion": "answer"}
    at = "judged_at" if timed else None
    as_records = read(JUDGE_SCORES, **names, rater="judge", created_at=at, label=LABEL).feedback
    wide, columns = as_columns_of([json.loads(line) for line in JUDGE_SCORES.open(encoding="utf-8")], timed=timed)
    label = {"at_least": 4, "undesirable_at_most": 2}
    as_columns = read([*wide], **names, votes=columns, label=label).feedback
    texts = pl.concat_str("prompt", "completion")
    assert kept(as_records, texts) == kept(as_columns, texts)
    assert len(kept(as_records, texts)) > 290
