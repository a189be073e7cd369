"""Rows that were withdrawn leave every file of a run and every cache, and stay out: what was planted is looked for in every byte."""

import bz2
import gzip
import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest
from line_files import WORDS, contents, write_lines

import ktodata as kd
from ktodata.errors import EmptyDataError, FormatError, MissingColumnError, RunError, SettingError
from ktodata.files import remove_leftovers, write_note
from ktodata.formats import write
from ktodata.formats.withdrawn import LIST, WithdrawnIds
from ktodata.review.store import ReviewVerdict, VerdictStore
from ktodata.train.results.telemetry_file import COLUMNS
from ktodata.withdrawal import forget as forgetting
from ktodata.withdrawal.forget import forget

AS_BOOLEANS = {True: True, False: False}
SECRET, USER = "Zanzibarquux", "user-4711-kestrel"


def record(number: int, user: str, text: str = "") -> dict:
    first, second = WORDS[number % 11], WORDS[(number // 11 + number) % 11]
    return {
        "id": f"record-{number:05d}",
        "prompt": f"say something of the {first} and number {number} {text}".strip(),
        "completion": f'the {second} number {number} is "well" known {text}'.strip(),
        "label": number % 3 != 0,
        "user": user,
        "team": f"team {number % 4}",
    }


@pytest.fixture
def source(tmp_path) -> Path:
    """Three records of the user among sixty (one of them twice), one that cannot be read, and one with a time that is none."""
    records = [record(number, f"user-{number % 7}") for number in range(57)]
    mine = [record(number, USER, f"call me {SECRET} \u00e9\u4e2d at once") for number in (57, 58, 59)]
    lines = [json.dumps(each) for each in (*records[:30], *mine, mine[0], *records[30:])]
    lines += [
        json.dumps({"id": "r", "prompt": SECRET, "completion": "c", "label": "maybe", "user": USER}),
        f'{{"user": "{USER}", {SECRET}',
    ]
    path = tmp_path / "source" / "feedback.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def recipe(source: Path, **more: object) -> dict:
    ingest = {"paths": [str(source)], "rater": "user", "keep": ["team"]}
    steps = [{"validate": None}, {"dedupe": None}, {"split": {"test": 0.2}}, {"embed": {"model": "packaged:wordllama-256"}}]
    return {"name": "small", "ingest": ingest, "steps": steps, **more}


@pytest.fixture
def no_pages(monkeypatch):
    """A page and a card take longer than all else, and quote the same rows: one test draws them."""
    monkeypatch.setattr(
        "ktodata.report.write_pages", lambda run: (run / "report.html").write_text(str(kd.Run(run).feedback.rows()))
    )


@pytest.fixture
def run(source, tmp_path, monkeypatch) -> kd.Run:
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))
    return kd.run(recipe(source), out=tmp_path / "runs" / "small")


def ids_file(folder: Path, *ids: str, name: str = "rater") -> Path:
    path = folder / "ids.csv"
    path.write_text("\n".join([name, *ids]) + "\n")
    return path


def opened(file: Path) -> bytes:
    """A file's bytes and, of a packed one, what is in it."""
    content = file.read_bytes()
    if file.suffix == ".parquet":
        content += json.dumps(pl.read_parquet(file, glob=False).rows(), default=str, ensure_ascii=False).encode()
    if file.suffix in (".gz", ".bz2"):
        content += {".gz": gzip.decompress, ".bz2": bz2.decompress}[file.suffix](content)
    return content


def holders(places: list[Path], *texts: str) -> list[str]:
    """The files below these places that hold one of the texts."""
    files = [file for place in places for file in sorted(place.rglob("*")) if file.is_file()]
    return [str(file) for file in files if any(text.encode() in opened(file) for text in texts)]


def plant(run: kd.Run, cache: Path) -> pl.DataFrame:
    """What commands after the run leave of its rows, there and in caches; the rows of the user."""
    rows = run.feedback.filter(pl.col("rater") == USER)
    folder, first = run.folder, rows.row(0, named=True)
    for name in ("kto.jsonl", "kto.parquet", "kto.csv", "kto.json", "kto.jsonl.gz"):
        write(run.shards("train"), folder / name, format="trl")
    (folder / "notes.md").write_text(f"seen: {first['completion']}")
    (folder / "fine.txt").write_text("nothing of anybody")
    (folder / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    store = VerdictStore(folder)
    for row_id, note in ((first["row_id"], f"knows {SECRET}"), (run.feedback["row_id"][5], "fine")):
        store.add(ReviewVerdict(row_id, "ann", "keep", True, "d", note=note, content="c"), current_id=0)
    store.close()
    (cache / "tokens" / "abc").mkdir(parents=True)
    (cache / "tokens" / "abc" / "ids.bin").write_bytes(SECRET.encode())
    (cache / "reference" / "k1").mkdir(parents=True)
    (cache / "reference" / "k2").mkdir()
    (folder / "model" / "checkpoints" / "step-1").mkdir(parents=True)
    run.feedback.select("row_id", step=pl.lit(0)).write_parquet(folder / "model" / "telemetry.parquet")
    note = {"reference": {"key": "k1/x"}, "self_check": {"row_ids": [first["row_id"], "other"]}}
    write_note(folder / "model" / "training.json", note, [folder / "model" / "telemetry.parquet"])
    return rows


def test_rows_leave_every_file_and_every_cache(run, source, tmp_path):
    cache = tmp_path / "cache"
    rows = plant(run, cache)
    before = run.feedback
    assert rows.height == 4
    assert len(holders([run.folder, cache], SECRET, USER)) > 8  # what is looked for can be seen
    receipt = forget(run.folder, ids_file(tmp_path, USER, "user-nobody", USER, ""))
    assert holders([run.folder, cache], SECRET, USER, *rows["row_id"], *rows["source_id"].unique()) == []
    assert (receipt.ids, receipt.unmatched, receipt.repeated, receipt.rows, receipt.records) == (2, 1, 1, 4, 2)
    assert receipt.state == "made again" and receipt.rows_kept == before.height - 4
    assert receipt.verdicts == 1 and receipt.cache == {"vectors": 6, "tokens": 1, "reference": 1}
    assert receipt.rewritten["kto.jsonl"] == receipt.rewritten["kto.parquet"] == receipt.rewritten["kto.csv"] >= 1
    assert {"notes.md", "kto.jsonl.gz", "model/checkpoints"} <= set(receipt.removed)
    assert (run.folder / "fine.txt").exists() and (cache / "reference" / "k2").exists()
    assert any("picture.png" in line for line in receipt.not_reached)
    assert any(line.startswith("model/: its weights were trained or measured on 4") for line in receipt.not_reached)
    # the others are what they were, and where they were
    after = kd.Run(run.folder)
    assert after.feedback["row_id"].to_list() == before.filter(pl.col("rater") != USER)["row_id"].to_list()
    joined = before.join(after.feedback, on="row_id", suffix="_after")
    assert (joined["part"] == joined["part_after"]).all()
    assert after.stage("ingest").metrics["withdrawn"] == 6
    assert after.faults == []


def test_they_stay_out_of_later_runs(no_pages, run, source, tmp_path):
    forget(run.folder, ids_file(tmp_path, USER))
    with source.open("a") as file:  # the source has them still, and one more
        file.write(json.dumps(record(60, USER, SECRET)) + "\n" + json.dumps(record(61, "user-1")) + "\n")
    again = kd.run(recipe(source), out=run.folder)
    assert USER not in again.feedback["rater"].to_list() and again.feedback.height == 58
    assert holders([run.folder], SECRET) == []
    # another folder reads them, unless its recipe names the list
    assert USER in kd.run(recipe(source), out=tmp_path / "runs" / "other").feedback["rater"].to_list()
    named = recipe(source, withdrawn=str(run.folder / LIST))
    assert USER not in kd.run(named, out=tmp_path / "runs" / "third").feedback["rater"].to_list()


def test_after_a_withdrawal_the_same_recipe_runs_nothing_again(no_pages, run, source, tmp_path):
    forget(run.folder, ids_file(tmp_path, USER))
    again = kd.run(recipe(source), out=run.folder)
    assert all(stage["cached"] for stage in again.manifest["stages"])


@pytest.mark.parametrize("stop", ["clear_caches", "remove_from_other_files", "remove_made", "_empty_manifest", "remove_place"])
def test_a_killed_withdrawal_goes_on(no_pages, run, source, tmp_path, monkeypatch, stop):
    rows = plant(run, tmp_path / "cache")

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    ids = ids_file(tmp_path, USER)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(forgetting, stop, killed)
        forget(run.folder, ids)
    with pytest.raises(RunError, match="stopped halfway"):
        kd.run(recipe(source), out=run.folder)
    receipt = forget(run.folder, ids)
    assert holders([run.folder, tmp_path / "cache"], SECRET, USER, *rows["row_id"]) == []
    assert (receipt.number, receipt.rows, receipt.state) == (1, 4, "made again")


def test_a_dry_run_touches_nothing(no_pages, run, tmp_path):
    plant(run, tmp_path / "cache")
    before = contents(run.folder)
    receipt = forget(run.folder, ids_file(tmp_path, USER), dry_run=True)
    assert contents(run.folder) == before
    assert receipt.rows == 4 and {"shards", "notes.md", "stages/dedupe"} <= set(receipt.removed)
    assert "4 rows went" in receipt.text() and USER not in receipt.text() and SECRET not in receipt.text()


@pytest.mark.parametrize("by", ["row_id", "source_id", "team"])
def test_rows_are_named_by_any_id(no_pages, run, source, tmp_path, by):
    """Of exact repeats all go: their text is the same."""
    row = run.feedback.filter(pl.col("rater") == USER).sort("source_id").row(0, named=True)
    path = tmp_path / "ids.txt"
    path.write_text(f"{row[by]}\n")
    receipt = forget(run.folder, path, by=by)
    assert receipt.rows == {"row_id": 2, "source_id": 2, "team": 16}[by]
    left = kd.Run(run.folder).feedback
    assert row["row_id"] not in left["row_id"] and row[by] not in left[by].to_list()


def test_a_vote_of_a_rater_is_enough(no_pages, tmp_path):
    votes = [{"prompt": f"p {n}", "completion": f"c {n}", "ann": True, "ben": n > 4 or None, "cat": n < 8} for n in range(9)]
    path = write_lines(tmp_path / "votes.jsonl", votes)
    run = kd.run(
        {
            "name": "v",
            "ingest": {"paths": str(path), "votes": ["ann", "ben", "cat"], "label": AS_BOOLEANS},
            "steps": ["validate"],
        },
        out=tmp_path / "v",
    )
    before = run.feedback.height
    receipt = forget(run.folder, ids_file(tmp_path, "ben"))
    assert before == 9 and receipt.rows == 4 and kd.Run(run.folder).feedback.height == 5


def test_the_list_holds_no_id(no_pages, run, tmp_path):
    forget(run.folder, ids_file(tmp_path, USER))
    ids = WithdrawnIds.read(run.folder / LIST)
    assert USER not in (run.folder / LIST).read_text() and ids.holds("rater", USER) and not ids.holds("rater", "user-1")


def test_what_cannot_be_meant_is_refused(no_pages, run, tmp_path):
    for name, content, error, words in (
        ("a.csv", "", FormatError, "cannot be read"),
        ("b.csv", "rater\n\n", EmptyDataError, "holds no id"),
        ("c.csv", "rater,source_id\na,b\n", SettingError, "say which, e.g. --by source_id"),
        ("d.csv", "x,y\na,b\n", SettingError, "no column of that kind"),
        ("e.txt", "a\n", SettingError, "say what its ids are"),
        ("f.csv", "colour\nred\n", MissingColumnError, "no column of ids 'colour'"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(error, match=words):
            forget(run.folder, tmp_path / name)
    with pytest.raises(FormatError, match="there is no file"):
        forget(run.folder, tmp_path / "absent.csv")
    with pytest.raises(RunError, match="no run folder"):
        forget(tmp_path, ids_file(tmp_path, USER))
    assert not (run.folder / LIST).exists()


def test_sources_that_are_gone_leave_a_folder_without_rows(no_pages, run, source, tmp_path):
    shutil.rmtree(source.parent)
    with pytest.raises(FormatError):
        forget(run.folder, ids_file(tmp_path, USER))
    assert holders([run.folder], SECRET, USER) == []
    receipt = json.loads((run.folder / "withdrawals" / "0001.json").read_text())
    assert receipt["state"] == "removed" and receipt["why_not"].startswith("FormatError")


def test_no_run_leaves_no_rows(no_pages, run, source, tmp_path):
    receipt = forget(run.folder, ids_file(tmp_path, USER), run_again=False)
    assert receipt.state == "removed" and holders([run.folder], SECRET, USER) == []
    assert not (run.folder / "shards").exists() and not (run.folder / "stages" / "ingest").exists()
    assert kd.run(recipe(source), out=run.folder, until="validate").feedback.height == 57
    again = forget(run.folder, ids_file(tmp_path, USER))  # the receipt is the same, and the run stands
    assert (again.number, again.rows, again.state) == (1, 4, "made again")


def test_rounds_of_self_training_go_but_the_first(no_pages, run, tmp_path):
    """Round 0 is made again; what others made of it goes."""
    rounds = tmp_path / "rounds-run"
    for name in ("0", "1"):
        shutil.copytree(run.folder, rounds / "rounds" / name)
    (rounds / "report.html").write_text(f"the first row is {SECRET}")
    write_note(rounds / "self_training.json", {"name": "small"})
    with pytest.raises(RunError, match="one round of several"):
        forget(rounds / "rounds" / "0", ids_file(tmp_path, USER))
    receipt = forget(rounds, ids_file(tmp_path, USER))
    assert holders([rounds], SECRET, USER) == [] and receipt.state == "made again" and receipt.rows == 4
    assert kd.Run(rounds / "rounds" / "0").feedback.height == 57 and not (rounds / "rounds" / "1").exists()
    assert (rounds / LIST).is_file()


def test_a_judge_answers_nothing_of_them_any_more(source, tmp_path, monkeypatch):
    from judge_stand_in import KEY, judge_stand_in

    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with judge_stand_in(tmp_path / "cache" / "judge") as endpoint:
        judge = {"endpoint": endpoint.address, "model": "m", "api_key_env": "JUDGE_KEY", "criterion": "good", "probes": True}
        plan = recipe(source) | {"steps": ["validate", {"judge": judge}]}
        run = kd.run(plan, out=tmp_path / "judged", until="judge")
        n_requests = len(endpoint.seen)
        receipt = forget(run.folder, ids_file(tmp_path, USER))
        kept = sum(len(file.read_text().splitlines()) for file in (tmp_path / "cache" / "judge").rglob("*.jsonl"))
        assert 3 * 3 <= receipt.cache["judge"] <= 3 * 8  # three texts, each in three wordings and five probes
        assert kept == n_requests - receipt.cache["judge"] == len(endpoint.seen) - receipt.cache["judge"]  # none was asked again
    assert kd.Run(run.folder).manifest["status"] == "stopped after judge"


def test_a_record_that_became_no_row_is_reason_enough(no_pages, source, tmp_path):
    lines = source.read_text().splitlines()
    source.write_text("".join(f"{line}\n" for line in lines if "call me" not in line))
    run = kd.run(recipe(source) | {"steps": ["validate"]}, out=tmp_path / "aside")
    (run.folder / "old.html").write_text(f"the first that cannot be read: {SECRET}, {USER}")
    receipt = forget(run.folder, ids_file(tmp_path, USER), run_again=False)
    assert (receipt.rows, receipt.records) == (0, 2) and holders([run.folder], SECRET, USER) == []


def test_what_the_source_has_no_more_leaves_what_was_made_of_it(no_pages, run, source, tmp_path):
    """A run that was made again since has no such row; verdicts, exports and other results may."""
    row_id = plant(run, tmp_path / "cache")["row_id"][0]
    source.write_text("".join(line + "\n" for line in source.read_text().splitlines() if USER not in line))
    kd.run(recipe(source), out=run.folder)
    (run.folder / "ablation.json").write_text(json.dumps({"rows": [row_id]}))
    receipt = forget(run.folder, ids_file(tmp_path, row_id, name="row_id"))
    assert (receipt.rows, receipt.verdicts, receipt.rewritten["model/telemetry.parquet"]) == (0, 1, 1)
    assert holders([run.folder], row_id) == [] and "ablation.json" in receipt.removed
    assert any("no row or record here has" in line for line in receipt.not_reached)


def test_another_persons_row_of_the_same_text_stays_with_its_verdict(no_pages, source, tmp_path):
    with source.open("a") as file:
        file.write(json.dumps(record(57, "user-3", f"call me {SECRET} \u00e9\u4e2d at once") | {"id": "theirs"}) + "\n")
    run = kd.run(recipe(source) | {"steps": ["validate"]}, out=tmp_path / "same")
    both = run.feedback.filter(pl.col("prompt").str.contains("number 57 "))
    store = VerdictStore(run.folder)
    for row_id in both["row_id"]:
        store.add(ReviewVerdict(row_id, "ann", "keep", True, "d", content="c"), current_id=0)
    store.close()
    receipt = forget(run.folder, ids_file(tmp_path, USER))
    left = kd.Run(run.folder).feedback.filter(pl.col("prompt").str.contains("number 57 "))
    assert left["rater"].to_list() == ["user-3"] and both.height - receipt.verdicts == 1


def test_a_run_whose_rows_are_not_known_is_refused(no_pages, run, tmp_path):
    note = run.folder / "stages" / "ingest" / "done.json"
    note.write_bytes(note.read_bytes()[:-9])
    with pytest.raises(RunError, match="is damaged"):
        forget(run.folder, ids_file(tmp_path, USER))
    assert not (run.folder / LIST).exists()


def test_where_nobody_is_left_the_receipt_says_so(no_pages, source, tmp_path):
    run = kd.run(recipe(source) | {"steps": ["validate"]}, out=tmp_path / "all")
    ids = ids_file(tmp_path, *run.feedback["rater"].unique())
    for _ in range(2):
        receipt = forget(run.folder, ids)
        assert (receipt.number, receipt.why_not) == (1, "no row is left to make it of")


def test_verdicts_and_telemetry_that_name_them_elsewhere_are_passed_over(no_pages, source, tmp_path):
    """They are not the folder's, and not written to; a run neither copies them nor stops over rows that it has no more."""
    plain = recipe(source) | {"steps": ["validate"]}
    rows = kd.run(plain, out=tmp_path / "first").feedback
    mine = rows.filter(pl.col("rater") == USER).select("row_id", trusted_label="label", note=pl.lit(f"of {SECRET}"))
    mine.write_csv(tmp_path / "verdicts.csv")
    seen = rows.select(
        "row_id", "label", part=pl.lit("train"), epoch=0, step=pl.int_range(1, pl.len() + 1), log_ratio=0.1, z0=0.0
    )
    seen.with_columns(completion_tokens=9).cast(COLUMNS).write_parquet(tmp_path / "telemetry.parquet")
    beside = {"reviews": str(tmp_path / "verdicts.csv"), "telemetry": str(tmp_path / "telemetry.parquet")}
    run = kd.run(plain | beside, out=tmp_path / "second")
    assert run.stage("reviews").metrics["verdicts"] == mine.height
    forget(run.folder, ids_file(tmp_path, USER))
    assert holders([run.folder], SECRET, *mine["row_id"]) == []
    assert kd.Run(run.folder).stage("reviews").metrics["withdrawn"] == mine.height
    assert (tmp_path / "verdicts.csv").read_text().count(SECRET) == mine.height


def test_what_a_living_process_writes_into_a_cache_is_left(tmp_path):
    for number in (2**22 - 1, os.getppid()):  # of none, and of one that runs
        (tmp_path / f".vectors.parquet.{number}.part").touch()
    remove_leftovers(tmp_path, alone=False)
    assert [file.name for file in tmp_path.iterdir()] == [f".vectors.parquet.{os.getppid()}.part"]


def nested(number: int) -> dict:
    """Every fourth has no label; ids are short numbers, of which those of a rater are not those of a case."""
    return {
        "meta": {"case": number},
        "said": {"q": f"question {number} of all", "a": f"answer {number} of all"},
        "verdict": {"good": None if number % 4 == 0 else number % 3 == 0, "by": f"u{number % 5}"},
    }


NESTED = {"prompt": "said.q", "completion": "said.a", "label": {"column": "verdict.good", **AS_BOOLEANS}}
FLAT = {"prompt": "q", "completion": "a", "label": {"column": "good", **AS_BOOLEANS}}


def aside_sources(folder: Path) -> dict[str, tuple[Path, dict]]:
    """{kind: source and settings} of the same forty records."""
    made = [nested(number) for number in range(40)]
    flat = [{**each["said"], **each["verdict"], "case": each["meta"]["case"]} for each in made]
    votes = [{"q": each["q"], "a": each["a"], each["by"]: each["good"], "case": each["case"]} for each in flat]
    rows = [[str("" if value is None else value) for value in each.values()] for each in flat]
    (folder / "flat.csv").write_text("\n".join(",".join(cells) for cells in (list(flat[0]), *rows)) + "\n")
    both = {"rater": "by", "source_id": "case"}
    tree = [{**each, "user_id": each["by"], "id": each["case"]} for each in flat]
    return {
        "nested": (write_lines(folder / "nested.jsonl", made), NESTED | {"rater": "verdict.by", "source_id": "meta.case"}),
        "flat": (write_lines(folder / "flat.jsonl", flat), FLAT | both),
        "csv": (folder / "flat.csv", FLAT | both | {"label": {"column": "good", "True": True, "False": False, "": None}}),
        "kept": (write_lines(folder / "kept.jsonl", flat), FLAT | {"rater": "by", "keep": {"case_no": "case"}}),
        "usual": (write_lines(folder / "usual.jsonl", tree), FLAT | {"rater": "user_id"}),
        "votes": (
            write_lines(folder / "votes.jsonl", votes),
            {"prompt": "q", "completion": "a", "votes": [f"u{n}" for n in range(5)], "label": AS_BOOLEANS, "source_id": "case"},
        ),
    }


@pytest.mark.parametrize(
    ("kind", "by", "ids"),
    [
        *((kind, "source_id", ("0", "1", "4.0", "99")) for kind in ("nested", "flat", "csv", "usual", "votes")),
        *((kind, "rater", ("u0", "nobody")) for kind in ("nested", "flat", "csv", "usual")),
        ("kept", "case_no", ("0", "1", "4", "99")),
        ("nested", "source", ("nested.jsonl",)),
    ],
)
def test_the_receipt_counts_the_records_that_went_and_were_no_rows(no_pages, tmp_path, kind, by, ids):
    source, settings = aside_sources(tmp_path)[kind]
    run = kd.run({"name": "a", "ingest": {"paths": [str(source)], **settings}, "steps": ["validate"]}, out=tmp_path / "run")
    before, rows = run.quarantine, run.feedback.height
    assert before.height == 10
    requested = ids_file(tmp_path, *ids, name=by)
    outlook = forget(run.folder, requested, by=by, dry_run=True)
    receipt = forget(run.folder, requested, by=by, run_again=by != "source")
    assert (outlook.rows, outlook.records, outlook.unmatched) == (receipt.rows, receipt.records, receipt.unmatched)
    assert receipt.records == (10 if by == "source" else 2)
    if by != "source":
        after = kd.Run(run.folder)
        assert receipt.records == before.height - after.quarantine.height
        assert receipt.rows == rows - after.feedback.height
        assert receipt.unmatched == 1


@pytest.mark.parametrize("kind", ["nested", "csv"])
def test_sources_that_are_gone_leave_nothing_of_records_that_became_no_row(no_pages, tmp_path, kind):
    source, settings = aside_sources(tmp_path)[kind]
    run = kd.run({"name": "a", "ingest": {"paths": [str(source)], **settings}, "steps": ["validate"]}, out=tmp_path / "run")
    (run.folder / "notes.txt").write_text("seen: question 4 of all is without a verdict")
    for file in tmp_path.glob("*.*"):
        file.unlink()
    with pytest.raises(FormatError, match="the rows were removed"):
        forget(run.folder, ids_file(tmp_path, "4", name="source_id"))
    assert holders([run.folder], "question 4 of all") == []
    assert not (run.folder / "quarantine.parquet").exists() and not (run.folder / "stages" / "ingest").exists()


def test_where_no_ids_were_kept_of_records_the_receipt_does_not_count_them(no_pages, tmp_path):
    """As in a run of an earlier version: which of them have the id is not known, so that no result may stand."""
    source, settings = aside_sources(tmp_path)["csv"]
    run = kd.run({"name": "a", "ingest": {"paths": [str(source)], **settings}, "steps": ["validate"]}, out=tmp_path / "run")
    run.quarantine.drop("ids").write_parquet(run.folder / "quarantine.parquet")
    receipt = forget(run.folder, ids_file(tmp_path, "4", name="source_id"), run_again=False)
    assert receipt.records == 0 and any(line.startswith("10 further records") for line in receipt.not_reached)
    assert not (run.folder / "quarantine.parquet").exists()


@pytest.mark.parametrize("until", [None, "dedupe"])
@pytest.mark.parametrize("run_again", [True, False])
def test_a_dry_run_says_what_is_made_again(no_pages, source, tmp_path, until, run_again):
    run = kd.run(recipe(source), out=tmp_path / "run", until=until)
    ids = ids_file(tmp_path, USER)
    outlook = forget(run.folder, ids, dry_run=True, run_again=run_again)
    receipt = forget(run.folder, ids, run_again=run_again)
    assert sorted(outlook.removed) == sorted(receipt.removed)
    assert sorted(outlook.made_again) == sorted(receipt.made_again)
    assert bool(outlook.made_again) is run_again and ("removed, and not made again" in outlook.text()) is not run_again
