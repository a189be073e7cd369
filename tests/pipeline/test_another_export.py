"""Half an hour of review is not lost when the data is exported again: other ids, columns, order, file kind; told where it was."""

import csv
import json
import random

import polars as pl
import pytest

import ktodata as kd
from ktodata.formats.verdicts.matching import content_key
from ktodata.pipeline.audit_command import audit_feedback
from ktodata.review import export_verdicts, import_verdicts
from ktodata.review.session import open_session

OPENINGS = ("Heat the pan", "=2 spoons, then heat the pan", "Wait\nand stir", "- chop it")


def conversations():
    """80 questions with an answer each; some answers begin as a formula would, or hold line breaks."""
    for n in range(80):
        answer = f"{OPENINGS[n % 4]} for {n} minutes." if n % 3 else f"I know nothing of dish {n}."
        yield {"id": f"a{n}", "user": f"u{n % 5}", "prompt": f"How do I cook dish {n}?", "completion": answer, "label": n % 3 > 0}


@pytest.fixture
def first_export(tmp_path):
    path = tmp_path / "first.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in conversations()))
    return path


def write_second_export(folder, *, ids, leave_out=()):
    """The same conversations from another system: columns, order, kind of file and, perhaps, ids are others."""
    rows = [
        {
            "Frage": row["prompt"],
            "Antwort": row["completion"],
            "gut": "ja" if row["label"] else "nein",
            "schluessel": ids(row["id"]),
        }
        for row in conversations()
        if row["id"] not in leave_out
    ]
    random.Random(3).shuffle(rows)
    pl.DataFrame(rows).write_csv(folder / "second.csv", separator=";", line_terminator="\r\n")
    recipe = {"paths": str(folder / "second.csv"), "prompt": "Frage", "completion": "Antwort", "source_id": "schluessel"}
    return {"name": "again", "ingest": {**recipe, "label": {"column": "gut", "ja": True, "nein": False}}, "steps": ["dedupe"]}


def fill_in(path, words):
    """What a person does in a spreadsheet, which writes every cell anew."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([header, *([*line[:-1], words[n % len(words)]] for n, line in enumerate(lines))])
    return [dict(zip(header, line, strict=True)) for line in lines]


def judged_audit(first_export, folder, *, words=("flip", "keep")):
    """An audit of the first export whose ten rows somebody has judged: {prompt: verdict}, and the file."""
    audit = audit_feedback(str(first_export), out=folder / "audit", ingest={"source_id": "id", "rater": "user"}, minutes=10)
    asked = fill_in(audit.queue, words)
    table = {row["row_id"]: row for row in audit.table.iter_rows(named=True)}
    said = {}
    for n, line in enumerate(asked):
        row = table[line["row_id"].removeprefix("'")]
        said[row["prompt"]] = row["label"] ^ (words[n % len(words)] == "flip")
    return said, audit.queue


@pytest.mark.parametrize(
    ("ids", "key"), [(lambda key: key, "source_id"), (lambda key: f"new-{key}", "text"), (lambda key: None, "text")]
)
def test_audit_review_and_a_recipe_on_another_export(first_export, tmp_path, ids, key):
    said, queue = judged_audit(first_export, tmp_path)
    run = kd.run(write_second_export(tmp_path, ids=ids), out=tmp_path / "run", reviews=[queue])
    trusted = dict(
        run.stage("reviews")
        .columns.join(run.feedback.drop("trusted_label"), on="row_id")
        .drop_nulls("trusted_label")
        .select("prompt", "trusted_label")
        .iter_rows()
    )
    assert trusted == said and len(said) == 10
    metrics = run.stage("reviews").metrics
    assert metrics["matched_by"] == {"row_id": 0, "source_id": 0, "text": 0} | {key: 10}
    assert (metrics["rows"], metrics["unmatched"], metrics["ambiguous"]) == (10, 0, 0)


def test_the_same_export_is_matched_by_row_id(first_export, tmp_path):
    _, queue = judged_audit(first_export, tmp_path)
    ingest = {"paths": str(first_export), "source_id": "id", "rater": "user"}
    run = kd.run({"name": "same", "ingest": ingest, "steps": []}, out=tmp_path / "run", reviews=[queue])
    assert run.stage("reviews").metrics["matched_by"] == {"row_id": 10, "source_id": 0, "text": 0}


def test_a_row_that_left_is_told_and_the_others_count(first_export, tmp_path):
    said, queue = judged_audit(first_export, tmp_path)
    gone = [f"a{prompt.removesuffix('?').rsplit(maxsplit=1)[-1]}" for prompt in said][:3]
    recipe = write_second_export(tmp_path, ids=lambda key: f"new-{key}", leave_out=gone)
    run = kd.run(recipe, out=tmp_path / "run", reviews=[queue])
    metrics = run.stage("reviews").metrics
    assert (metrics["rows"], metrics["unmatched"]) == (7, 3)
    unmatched = run.stage("reviews").table("unmatched")
    assert sorted(unmatched["source_id"]) == sorted(gone) and unmatched["line"].null_count() == 0
    from ktodata.pipeline.command_texts import run_text

    assert "3 verdicts on no row of the data (first: row_id" in run_text(run, None)
    # the other entrance counts alike
    audit = kd.audit(run.feedback.drop("trusted_label").with_columns(trusted_label=pl.lit(None, pl.Boolean)))
    from ktodata.formats.verdicts.reviews import read_reviews

    again = audit.with_reviews(read_reviews(queue).verdicts)
    assert {name: again.metrics["verdicts"][name] for name in ("matched_by", "unmatched")} == {
        name: metrics[name] for name in ("matched_by", "unmatched")
    }
    assert again.table["trusted_label"].count() == 7


def test_what_the_desk_holds_goes_to_another_export(first_export, tmp_path, monkeypatch):
    """Store, file and tasks of Label Studio alike: into a recipe's reviews, and into the other run's own desk."""
    monkeypatch.setattr("ktodata.report.write_pages", lambda run: None)
    steps = ["validate", "dedupe", "embed", {"label_noise": {}}]
    ingest = {"paths": str(first_export), "source_id": "id", "rater": "user"}
    run = kd.run({"name": "first", "ingest": ingest, "steps": steps}, out=tmp_path / "run")
    session = open_session(run, reviewer="ann", blind=False, minutes=10)
    for n in range(6):
        item = session.item(filters_of_all())
        session.record(item.row.row_id, ("keep", "flip")[n % 2], current_id=0, detector=session.detector, note="", seconds=2.0)
    session.store.close()
    said = {row["content"]: row["trusted_label"] for row in read_store(run).iter_rows(named=True)}
    assert len(said) == 6
    for name, format in (("v.csv", "verdicts"), ("v.json", "label_studio"), ("v.jsonl", "argilla")):
        export_verdicts(run, tmp_path / name, format=format)
    recipe = write_second_export(tmp_path, ids=lambda key: f"new-{key}")
    for number, place in enumerate((run.folder / "reviews" / "reviews.sqlite", tmp_path / "v.csv")):
        other = kd.run(recipe, out=tmp_path / f"other{number}", reviews=[place])
        assert other.stage("reviews").metrics["matched_by"]["text"] == 6
        rows = other.feedback.drop_nulls("trusted_label")
        assert {content_key(row["prompt"], row["completion"]): row["trusted_label"] for row in rows.iter_rows(named=True)} == said
    for place in (run.folder / "reviews" / "reviews.sqlite", *(tmp_path / name for name in ("v.csv", "v.json", "v.jsonl"))):
        desk = kd.run({**recipe, "steps": steps}, out=tmp_path / f"desk_{place.suffix[1:]}")
        imported = import_verdicts(desk, place)
        assert (imported.imported, imported.matching["matched_by"]["text"]) == (6, 6)
        assert {row["content"]: row["trusted_label"] for row in read_store(desk).iter_rows(named=True)} == said
        assert "6 by text" in imported.text()


def filters_of_all():
    from ktodata.review.filters import Filters

    return Filters()


def read_store(run):
    from ktodata.formats.verdicts.verdict_store import read_current_verdicts

    return read_current_verdicts(run.folder / "reviews" / "reviews.sqlite")
