"""Verdicts out and in: nothing lost that a format can hold, nothing taken that cannot be read."""

import json

import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import DataError, EmptyDataError, FormatError, SettingError
from ktodata.formats.verdicts.reviews import join_reviews, read_each_verdict, read_reviews
from ktodata.formats.verdicts.verdict_store import DRAWN_VIA, read_current_verdicts
from ktodata.pipeline.run_folder import Run
from ktodata.review import export_verdicts, import_verdicts
from ktodata.review.store import ReviewVerdict, VerdictStore

NOTES = ("", "=1+1", "'tis", 'two\nlines, "quoted"', "\u202eturned")


@pytest.fixture
def judged(run):
    """A run with eight verdicts on six rows: keep, flip, drop, contested; one judged twice alike, one differently."""
    labels = run.feedback.select("row_id", "label").rows()[10:16]
    store = VerdictStore(run.folder)
    for number, ((row_id, label), verdict) in enumerate(
        zip(labels, ("keep", "flip", "drop", "contested", "keep", "keep"), strict=True)
    ):
        note = NOTES[number % len(NOTES)]
        store.add(ReviewVerdict(row_id, "ann", verdict, label, "d1", note, 4.5, f"2026-02-0{number + 1}T10:00:00Z"), current_id=0)
    for (row_id, label), verdict in zip(labels[4:], ("keep", "flip"), strict=True):
        how = {"at": "2026-03-01T10:00:00Z", "blind": True, "via": f"{DRAWN_VIA}7"}
        store.add(ReviewVerdict(row_id, "bob", verdict, label, "d1", **how), current_id=0)
    store.close()
    return run, [row_id for row_id, _ in labels], dict(labels)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_of_verdicts_is_what_reviews_takes(judged, tmp_path, ending):
    run, ids, labels = judged
    summary = export_verdicts(run, tmp_path / f"verdicts.{ending}")
    assert (summary.rows, summary.verdicts, summary.contested, summary.dropped) == (6, 8, 2, 1)
    assert "8 verdicts on 6 rows" in summary.text()
    from_file = read_each_verdict(summary.path)
    from_store = read_current_verdicts(run.folder / "reviews" / "reviews.sqlite")
    same = ["row_id", "trusted_label", "reviewer"]
    assert from_file.select(same).equals(from_store.select(same))
    reviews = [read_reviews(path) for path in (summary.path, run.folder / "reviews" / "reviews.sqlite")]
    on_file, on_store = (join_reviews(run.feedback, each).columns.drop("draw_seed") for each in reviews)
    assert on_file.equals(on_store)
    trusted = dict(on_file.select("row_id", "trusted_label").iter_rows())
    expected = [labels[ids[0]], not labels[ids[1]], None, None, labels[ids[4]], None]
    assert [trusted[row_id] for row_id in ids] == expected
    if ending == "csv":
        assert "\n=" not in summary.path.read_text() and ",=" not in summary.path.read_text()
    assert from_file["note"].fill_null("").equals(from_store["note"])


@pytest.mark.parametrize(
    ("format", "ending"), [("argilla", "json"), ("argilla", "jsonl"), ("label-studio", "json"), ("label_studio", "jsonl")]
)
def test_tasks_come_back_as_they_went(judged, made, tmp_path, format, ending):
    """Into a fresh run: every reviewer's verdict and note; and a second time nothing is new."""
    run, _, _ = judged
    summary = export_verdicts(run, tmp_path / f"tasks.{ending}", format=format)
    fresh = _copy(made[1], tmp_path / "fresh")
    for counts in ((8, 0, 0), (0, 8, 0)):
        imported = import_verdicts(fresh, summary.path)
        assert (imported.imported, imported.unchanged, imported.older) == counts
        assert imported.matching["matched_by"] == {"row_id": 8, "source_id": 0, "text": 0}
    held = ["row_id", "reviewer", "verdict", "trusted_label", "note"]
    held += ["at", "seconds"] if "label" in format else []
    before, after = (_standing(each).select(held).sort("row_id", "reviewer") for each in (run, fresh))
    assert after.equals(before)
    assert _standing(fresh)["via"].unique().to_list() == [summary.path.name]
    assert "has no place for" in summary.text()


def _copy(source, target):
    import shutil

    return Run(shutil.copytree(source, target))


def _standing(run):
    store = VerdictStore(run.folder)
    try:
        return store.current_verdicts()
    finally:
        store.close()


@pytest.mark.parametrize(("format", "ending"), [("argilla", "jsonl"), ("label_studio", "json")])
def test_other_tools_records_are_read_as_feedback_too(judged, tmp_path, format, ending):
    """The same files are the formats that ktodata reads: submitted verdicts are votes; drop and contested say nothing."""
    run, ids, labels = judged
    export_verdicts(run, tmp_path / f"tasks.{ending}", format=format)
    meanings = {"desirable": True, "undesirable": False, "drop": None, "contested": None}
    read = kd.read(str(tmp_path / f"tasks.{ending}"), label={"column": "label", **meanings})
    assert read.metrics["even_votes"] == 1  # a row of each label; two say nothing
    each = dict(read.feedback.group_by("source_id").agg(pl.col("label").unique().sort()).iter_rows())
    even = next(source for source, given in each.items() if len(given) == 2)
    assert even not in (ids[0], ids[1], ids[4])
    # keep, flip, and the one that both keep
    assert each == {ids[0]: [labels[ids[0]]], ids[1]: [not labels[ids[1]]], ids[4]: [labels[ids[4]]], even: [False, True]}


def test_what_the_tools_themselves_write_is_understood(run, tmp_path):
    """Own ids, users as objects, drafts, cancelled annotations, several controls: as Argilla 2 and Label Studio 1 export them."""
    a, b = run.feedback["row_id"][20], run.feedback["row_id"][21]
    argilla = [
        {
            "id": "5b2c", "_server_id": "x", "fields": {"prompt": "p", "completion": "c"}, "metadata": {"row_id": a}, "vectors": {},
            "suggestions": {"label": {"value": "drop", "agent": "model"}},
            "responses": {"label": [{"value": "desirable", "user_id": "u1"}, {"value": "drop", "user_id": "u2", "status": "draft"}]},
        }
    ]  # fmt: skip
    (tmp_path / "argilla.json").write_text(json.dumps(argilla))
    assert import_verdicts(run, tmp_path / "argilla.json").imported == 1
    studio = [
        {
            "id": 71, "data": {"row_id": b, "prompt": "p", "completion": "c"}, "predictions": [],
            "annotations": [
                {"id": 3, "completed_by": {"id": 1, "email": "bob@example.org"}, "was_cancelled": False, "lead_time": 7.2,
                 "created_at": "2026-05-01T10:00:00.000000Z",
                 "result": [{"from_name": "label", "to_name": "completion", "type": "choices", "value": {"choices": ["contested"]}},
                            {"from_name": "other", "to_name": "completion", "type": "rating", "value": {"rating": 3}}]},
                {"id": 4, "completed_by": 9, "was_cancelled": True, "result": []},
            ],
        }
    ]  # fmt: skip
    (tmp_path / "studio.json").write_text(json.dumps(studio))
    assert import_verdicts(run, tmp_path / "studio.json").imported == 1
    verdicts = _standing(run).select("row_id", "reviewer", "verdict", "seconds").rows()
    assert verdicts == [
        (a, "u1", "keep" if run.feedback["label"][20] else "flip", None),
        (b, "bob@example.org", "contested", 7.2),
    ]


def test_verdict_files_and_other_desks_come_in(judged, made, tmp_path):
    run, ids, _ = judged
    fresh = _copy(made[1], tmp_path / "fresh")
    (tmp_path / "by_hand.csv").write_text(f"row_id,verdict\n{ids[0]},good\n{ids[1]},drop\n")
    assert import_verdicts(fresh, tmp_path / "by_hand.csv", reviewer="cid").imported == 2
    assert import_verdicts(fresh, run.folder / "reviews" / "reviews.sqlite").imported == 8
    assert sorted(_standing(fresh)["reviewer"].unique()) == ["ann", "bob", "cid"]
    assert set(_standing(fresh).filter(draw_seed=7)["row_id"]) == set(ids[4:])  # which rows were drawn is the store's own record


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_reviewers_who_agree_both_keep_their_verdicts(run, made, tmp_path, ending):
    """Twelve rows, three reviewers, one against the others on every fourth: 36 verdicts in, 36 out, and in again: none is new."""
    rows = run.feedback.select("row_id", "label").rows()[:12]
    words = {True: "desirable", False: "undesirable"}
    lines = [
        {"row_id": row_id, "reviewer": name, "verdict": words[label != (name == "@cid" and number % 4 == 0)]}
        for number, (row_id, label) in enumerate(rows)
        for name in ("ann", "=ben", "@cid")
    ]
    pl.DataFrame(lines).write_csv(tmp_path / "three.csv")
    first, second = (_copy(made[1], tmp_path / name) for name in ("first", "second"))
    assert import_verdicts(first, tmp_path / "three.csv").imported == 36
    summary = export_verdicts(first, tmp_path / f"back.{ending}")
    assert (summary.rows, summary.verdicts, summary.contested) == (12, 36, 3)
    assert import_verdicts(first, summary.path).imported == 0
    assert import_verdicts(second, summary.path).imported == 36
    facts = ["row_id", "reviewer", "trusted_label"]
    before, after = (_standing(each).select(facts).sort("row_id", "reviewer") for each in (first, second))
    assert after.equals(before)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ([{"id": "nowhere", "fields": {}, "responses": {"label": [{"value": "drop"}]}}], DataError, "none of 1 verdicts is on a row"),
        ([{"id": 5, "fields": {}, "responses": {"label": []}}], FormatError, "record 1 .* names no row_id"),
        ([{"id": "a", "fields": {}, "responses": {"label": [{"value": "meh"}]}}], FormatError, "'meh' is no verdict"),
        ([{"id": "a", "fields": {}, "responses": []}], FormatError, "record 1 cannot be read"),
        ([{"id": "a", "data": {}, "annotations": [{"result": [{"from_name": "label", "value": {"choices": ["drop", "drop"]}}]}]}],
         FormatError, "2 choices were made"),
        ([{"id": "a", "data": {}, "annotations": []}], EmptyDataError, "holds no verdict"),
        ([{"nothing": 1}], DataError, "no column row_id"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_said_and_nothing_is_written(run, tmp_path, content, error, message):
    (tmp_path / "in.json").write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        import_verdicts(run, tmp_path / "in.json")
    assert not (run.folder / "reviews").exists()


def test_an_export_that_cannot_be_made_is_said(run, judged, tmp_path, made):
    with pytest.raises(SettingError, match="no format 'excel'"):
        export_verdicts(run, tmp_path / "v.csv", format="excel")
    for name, format in (("v.csv", "argilla"), ("v.json", "verdicts"), ("v.csv.gz", "verdicts")):
        with pytest.raises(FormatError, match="are written as"):
            export_verdicts(run, tmp_path / name, format=format)
    with pytest.raises(EmptyDataError, match="nobody has judged a row"):
        export_verdicts(_copy(made[1], tmp_path / "fresh"), tmp_path / "v.csv")
    with pytest.raises(FormatError, match="there is no file of verdicts"):
        import_verdicts(run, tmp_path / "nothing.csv")
    assert not list(tmp_path.glob("v.*"))


def test_the_command_line_takes_both(run, tmp_path, capsys, monkeypatch):
    from ktodata import cli

    row_id = run.feedback["row_id"][3]
    (tmp_path / "in.csv").write_text(f"row_id,verdict,note\n{row_id},contested,why\n")
    words = [
        "review",
        str(run.folder),
        "--import",
        str(tmp_path / "in.csv"),
        "--reviewer",
        "ann",
        "--export",
        str(tmp_path / "out.jsonl"),
    ]
    monkeypatch.setattr("sys.argv", ["ktodata", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    assert "1 verdicts imported" in capsys.readouterr().out
    assert pl.read_ndjson(tmp_path / "out.jsonl").select("row_id", "verdict", "reviewer", "note").rows() == [
        (row_id, "contested", "ann", "why")
    ]


def test_who_says_two_things_of_a_row_at_times_unknown_has_called_it_contested(made, tmp_path):
    fresh = _copy(made[1], tmp_path / "fresh")
    first, second = fresh.feedback["row_id"][:2]
    file = tmp_path / "two.csv"
    file.write_text(f"row_id,verdict,reviewer\n{first},good,ann\n{first},bad,ann\n{second},good,ann\n{second},bad,bob\n")
    assert import_verdicts(fresh, file).imported == 3
    standing = _standing(fresh).filter(pl.col("row_id").is_in([first, second]))
    verdicts = {(line["row_id"], line["reviewer"]): line["verdict"] for line in standing.iter_rows(named=True)}
    assert verdicts.pop((first, "ann")) == "contested" and set(verdicts.values()) == {"keep", "flip"}
