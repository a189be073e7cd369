"""Running a recipe: what is done again and what is not, what a kill leaves behind, and what is refused."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32

import polars as pl
import pytest
from line_files import WORDS

import ktodata as kd
from ktodata.errors import DataError, EmptyDataError, FormatError, LabelError, OneClassError, RunError, SettingError
from ktodata.mcp.allowed_folder import AllowedFolder
from ktodata.pipeline.command_texts import row_text
from ktodata.pipeline.self_training import dry_run
from ktodata.report import write_pages
from ktodata.report.run_contents import read_contents
from ktodata.review import review

GOOD = "gladly here is a full and friendly answer with every step you asked about the {} and the {} number {}"
BAD = "no sorry stop refuse wrong error nothing broken {} {} denied {}"


def write_feedback(path: Path, rows: int = 400) -> Path:
    """Prompts on fifteen subjects, two kinds of answers; a label in 20 is wrong, every 25th record a repeat, two are broken."""
    lines = []
    for number in range(rows):
        subject, other = WORDS[number % 15], WORDS[(number * 7 + number // 15) % 15]
        good = number % 3 != 0
        completion = (GOOD if good else BAD).format(subject, other, number)
        label = good != (crc32(f"zz{number}".encode()) % 20 == 7)  # by no rule that the text shows
        lines.append(
            {"prompt": f"tell me of the {subject} and of the {other} {number}", "completion": completion, "label": label}
        )
        if number % 25 == 3:
            lines.append(lines[-1])
    lines += [{"prompt": "p", "completion": "", "label": True}, {"prompt": "p", "completion": "c", "label": "meh"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def recipe(feedback: Path, **label_noise: object) -> dict:
    steps = [
        {"validate": None},
        {"dedupe": {"near": 0.9}},
        {"split": {"validation": 0.1, "test": 0.1}},
        {"embed": {"model": "packaged:wordllama-256"}},
        {"label_noise": label_noise},
        {"rebalance": None},
        {"coverage": None},
    ]
    return {"name": "small", "ingest": {"paths": [str(feedback)]}, "steps": steps, "export": {"block": 8}}


@pytest.fixture(scope="module")
def feedback(tmp_path_factory) -> Path:
    return write_feedback(tmp_path_factory.mktemp("feedback") / "feedback.jsonl")


@pytest.fixture(scope="module")
def finished(feedback, tmp_path_factory) -> kd.Run:
    return kd.run(recipe(feedback), out=tmp_path_factory.mktemp("runs") / "small")


def results(run: Path) -> dict[str, bytes]:
    """What must be byte-identical: shards and ledger."""
    return {path.name: path.read_bytes() for path in [*sorted((run / "shards").iterdir()), run / "ledger.parquet"]}


def stages_run(run: kd.Run) -> list[str]:
    return [stage["name"] for stage in run.manifest["stages"] if not stage["cached"]]


def test_a_run_holds_everything_it_promises(finished):
    for name in ("manifest.json", "ledger.parquet", "quarantine.parquet", "README.md", "report.html"):
        assert (finished.folder / name).stat().st_size > 0
    assert finished.manifest["status"] == "done"
    assert {"polars", "ktodata"} <= set(finished.manifest["versions"])
    assert finished.manifest["encoder"] and finished.manifest["inputs"]
    assert all(stage["seconds"] >= 0 and stage["peak_mb"] > 0 for stage in finished.manifest["stages"])
    assert {"row_id", "prompt", "completion", "label", "weight"} <= set(finished.shards("train").columns)


def test_every_record_is_accounted_for(finished, feedback):
    rows = finished.manifest["rows"]
    records = len(feedback.read_text().splitlines())
    assert rows["rows_in"] == records == rows["kept"] + rows["dropped"] + rows["quarantined"] + rows["review"]
    assert rows["quarantined"] == 1 and finished.quarantine["line"].to_list() == [records]
    outcome = finished.ledger.filter(pl.col("stage") == "export")
    assert outcome.height == rows["rows"] == outcome["row_id"].n_unique()
    kept = set(outcome.filter(pl.col("action").is_in(["keep", "relabel"]))["row_id"])
    shipped = pl.concat([finished.shards(part).select("row_id") for part in ("train", "validation", "test")])["row_id"]
    assert kept == set(shipped) and shipped.is_unique().all()


def test_explain_tells_a_row_its_story(finished):
    repeat = finished.ledger.filter(pl.col("reason") == "repeat").row(0, named=True)
    story = finished.explain(repeat["row_id"])
    assert story["outcome"] == "drop"
    assert story["decisions"][0]["caused_by"] == repeat["caused_by"] is not None
    assert story["row"]["prompt"].startswith("tell me of")
    with pytest.raises(kd.KtodataError, match="no row 'nonsense'"):
        finished.explain("nonsense")


def test_explain_tells_why_a_record_became_no_row(tmp_path):
    """By its own id, in whatever column, and by its place; where several are of one name, all are named."""
    lines = [f"c{n};question {n};answer {n};{'?' if n == 4 else n % 2}" for n in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["case;q;a;v", *lines, "c5;again;again;", "c6;;;"]) + "\n")
    columns = {"prompt": "q", "completion": "a", "label": {"column": "v", "1": True, "0": False, "?": None}, "source_id": "case"}
    run = kd.run(
        {"name": "a", "ingest": {"paths": [str(tmp_path / "a.csv")], **columns}, "steps": ["validate"]}, out=tmp_path / "r"
    )
    story = run.explain("c4")
    assert story == run.explain("a.csv:6") and story["outcome"] == "quarantined"
    assert (story["record"]["line"], story["record"]["reason"]) == (6, "unlabelled") and "sets aside" in story["record"]["detail"]
    assert "outcome: quarantined (unlabelled" in row_text(story) and "question 4" in row_text(story)
    assert run.explain("a.csv:2")["row"]["source_id"] == "c0"
    with pytest.raises(kd.KtodataError, match=r"explain one: [0-9a-f]{16}, a.csv:14"):
        run.explain("c5")
    with pytest.raises(kd.KtodataError, match="by file and line"):
        run.explain("c44")


def test_the_audit_of_a_run_is_the_one_that_it_made(finished):
    noise = finished.stage("label_noise")
    for audit in (kd.audit(finished), kd.audit(finished.folder)):
        assert audit.metrics == noise.metrics and audit.result.columns.equals(noise.columns)
    with pytest.raises(kd.KtodataError, match="settings are for feedback that is audited now"):
        kd.audit(finished, min_precision=0.5)


def test_an_unchanged_recipe_runs_no_stage_again(finished, feedback):
    before = results(finished.folder)
    started = time.perf_counter()
    again = kd.run(recipe(feedback), out=finished.folder)
    assert time.perf_counter() - started < 5
    assert stages_run(again) == []
    assert results(again.folder) == before
    _, plan = dry_run(recipe(feedback), out=finished.folder)
    assert {answer for _, answer in plan} == {"unchanged"}


def test_a_changed_threshold_runs_only_what_is_downstream(feedback, tmp_path):
    first = kd.run(recipe(feedback, min_precision=0.8), out=tmp_path / "run")
    flagged = first.stage("label_noise").decisions.height
    second = kd.run(recipe(feedback, min_precision=1.0), out=tmp_path / "run")
    assert second.stage("label_noise").decisions.height < flagged  # else the change would touch nothing downstream
    ran = stages_run(second)
    assert ran[0] == "label_noise" and "export" in ran
    assert not {"ingest", "validate", "dedupe", "split", "embed"} & set(ran)
    assert results(second.folder) == results(kd.run(recipe(feedback, min_precision=1.0), out=tmp_path / "fresh").folder)


def write_verdicts(path: Path, verdicts: dict[str, bool], note: str = "") -> Path:
    path.write_text("row_id,trusted_label,note\n" + "".join(f"{row},{word},{note}\n" for row, word in verdicts.items()))
    return path


def known(run: kd.Run, stage: str) -> dict[str, bool]:
    return dict(run.stage(stage).columns.select("row_id", "trusted_label").drop_nulls().iter_rows())


def test_changed_reviews_run_only_what_sees_them(feedback, tmp_path):
    """A verdict more runs dedupe and what follows from it, but reads and embeds no text again; a note more runs nothing else."""
    plan = recipe(feedback, noise_injection=0.0, repeats=1) | {"reviews": str(tmp_path / "r.csv")}
    plan["steps"] = [step for step in plan["steps"] if "coverage" not in step]
    without = kd.run({**plan, "reviews": None}, out=tmp_path / "run")
    rows = without.stage("dedupe").columns.filter(pl.col("duplicate_of").is_null())["row_id"][10:].to_list()
    write_verdicts(tmp_path / "r.csv", dict.fromkeys(rows[:5], True))
    first = kd.run(plan, out=tmp_path / "run")
    assert {"reviews", "dedupe", "label_noise", "export"} <= set(stages_run(first))
    assert not {"ingest", "validate", "embed"} & set(stages_run(first))
    assert known(first, "reviews") == known(first, "dedupe") == dict.fromkeys(rows[:5], True)
    before = results(first.folder)
    assert stages_run(kd.run(plan, out=tmp_path / "run")) == []
    write_verdicts(tmp_path / "r.csv", dict.fromkeys(rows[:5], True), note="sure")
    assert stages_run(kd.run(plan, out=tmp_path / "run")) == ["reviews"]
    assert results(first.folder) == before
    write_verdicts(tmp_path / "r.csv", dict.fromkeys(rows[:6], True))
    assert dict(dry_run(plan, out=tmp_path / "run")[1])["reviews"] == "runs: files changed"
    more = kd.run(plan, out=tmp_path / "run")
    assert stages_run(more)[0] == "reviews" and "label_noise" in stages_run(more) and "embed" not in stages_run(more)
    assert (
        more.stage("label_noise").metrics["trusted"]["rows"]
        == more.stage("split").columns.filter(pl.col("row_id").is_in(rows[:6]) & (pl.col("part") == "train")).height
    )
    no_rate = "not known to be a random draw"  # the verdicts are on rows that were picked here
    assert no_rate in (more.folder / "report.html").read_text()
    again = kd.run({**plan, "reviews": None}, out=tmp_path / "run")
    assert no_rate not in (again.folder / "report.html").read_text()
    assert "reviews" not in again.stage_names() and not (again.folder / "stages" / "reviews").exists()
    assert known(again, "dedupe") == {}


def small(tmp_path: Path, **more: object) -> dict:
    """Five rows, some with an expert's label; row 4 repeats row 0 and has more votes."""
    lines = [
        {"prompt": f"p{n}", "completion": "c" + "abcd"[n], "up": n % 2 == 0, "expert": (True, None, True, None)[n]}
        for n in range(4)
    ]
    lines.append({"prompt": "p1", "completion": "CB", "up": False, "second": False})
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    label = {"column": "up", True: True, False: False}
    ingest = {"paths": [str(tmp_path / "f.jsonl")], "label": label, "votes": ["up", "second"], "trusted": "expert"}
    return {"name": "x", "ingest": ingest, "steps": ["validate", "dedupe"], **more}


def test_a_review_becomes_the_trusted_label_and_is_counted(tmp_path):
    """p0 was trusted true, and is overridden; p1 is new, and known of the repeat that stays in its place; p2 keeps its own."""
    rows = kd.run(small(tmp_path), out=tmp_path / "run", until="ingest").feedback.sort("source_line")["row_id"].to_list()
    verdicts = write_verdicts(tmp_path / "r.csv", {rows[0]: False, rows[1]: True}, note="[red]why")
    run = kd.run(small(tmp_path), out=tmp_path / "run", reviews=[verdicts])
    assert known(run, "reviews") == {rows[0]: False, rows[1]: True, rows[2]: True}
    assert run.stage("dedupe").columns.filter(row_id=rows[1])["duplicate_of"].item() == rows[4]
    assert known(run, "dedupe")[rows[4]] is True
    told = next(stage for stage in run.manifest["stages"] if stage["name"] == "reviews")
    assert (told["rows_in"], told["rows_out"]) == (5, 5)
    counts = {name: told["metrics"][name] for name in ("records", "verdicts", "overridden", "differ_from_label")}
    assert counts == {"records": 2, "verdicts": 2, "overridden": 1, "differ_from_label": 2}
    assert dict(run.feedback.select("row_id", "trusted_label").iter_rows())[rows[0]] is False
    story = run.explain(rows[0])
    assert story["row"]["trusted_label"] is False and story["measured"]["reviews"]["note"] == "[red]why"
    assert "reviews" not in run.explain(rows[2])["measured"]
    assert run.manifest["recipe"]["reviews"] and "reviews" in (run.folder / "report.html").read_text()


def test_reviews_that_cannot_be_used_are_said_before_or_after_reading(tmp_path):
    plan, out = small(tmp_path, reviews="r.csv"), tmp_path / "run"
    plan["reviews"] = str(tmp_path / "r.csv")
    with pytest.raises(FormatError, match="no file of verdicts"):
        kd.run(plan, out=out)
    (tmp_path / "r.csv").write_text("row_id,verdict\na,meh\n")
    with pytest.raises(LabelError, match="'meh' is no verdict"):
        kd.run(plan, out=out)
    assert not out.exists()  # said before anything was read
    (tmp_path / "r.csv").write_text("row_id,verdict\na,good\n")
    with pytest.raises(DataError, match="none of 1 verdicts is on a row of the data"):
        kd.run(plan, out=out)
    assert "reviews" not in kd.run({**plan, "reviews": None}, out=out).stage_names()


def test_missing_shards_are_written_again_and_a_dry_run_knows(tmp_path):
    plan = {
        "name": "x",
        "ingest": {"paths": [str(write_feedback(tmp_path / "f.jsonl", rows=60))]},
        "steps": ["validate", "dedupe"],
    }
    before = results(kd.run(plan, out=tmp_path / "run").folder)
    shutil.rmtree(tmp_path / "run" / "shards")
    name, answer = dry_run(plan, out=tmp_path / "run")[1][-1]
    assert name == "export" and answer.startswith("runs: shards/") and "is not what it wrote" in answer
    again = kd.run(plan, out=tmp_path / "run")
    assert stages_run(again) == ["export"] and results(again.folder) == before


def test_changed_feedback_is_noticed(tmp_path):
    path = write_feedback(tmp_path / "f.jsonl", rows=60)
    steps = [{"validate": None}, {"dedupe": None}]
    plan = {"name": "x", "ingest": {"paths": [str(path)]}, "steps": steps}
    assert kd.run(plan, out=tmp_path / "run").manifest["rows"]["rows_in"] == len(path.read_text().splitlines())
    path.write_text(path.read_text() + json.dumps({"prompt": "new", "completion": "row", "label": True}) + "\n")
    again = kd.run(plan, out=tmp_path / "run")
    assert stages_run(again) == ["ingest", "validate", "dedupe", "export"]
    assert again.manifest["rows"]["rows_in"] == len(path.read_text().splitlines())


KILLED = """
import json, os, signal, sys
import cleanlab, matplotlib.figure, scipy.sparse, sklearn.linear_model, ktodata.report.page  # once for all that are forked
import ktodata.pipeline.run_folder as folder
from ktodata.pipeline.self_training import run
recipe, out, stages, moment = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
write = folder.write_note
def die(): os.kill(os.getpid(), signal.SIGKILL)
def killed_in(stage):
    def notify(event):
        if moment == "working" and event["stage"] == stage and event["kind"] == "start": die()
    def half_written(path, value):
        if moment == "saving" and path.name == "done.json" and path.parent.name.startswith(f".{stage}."): die()
        write(path, value)
    folder.write_note = half_written
    run(recipe, out=out, notify=notify)
for stage in stages:
    child = os.fork()  # before any work: polars' threads start with it, and a fork would not have them
    if not child:
        killed_in(stage)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (stage, status)
"""
STAGES = ("ingest", "validate", "dedupe", "split", "embed", "label_noise", "rebalance", "coverage", "export")


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "stages"), [("working", ("dedupe", "label_noise", "export")), ("saving", STAGES)])
def test_a_killed_run_resumes_and_ends_the_same(finished, feedback, tmp_path, moment, stages):
    """One run is killed in one stage after the other, each time taken up again, and ends byte-identical to the unbroken one."""
    call = [sys.executable, "-c", KILLED, json.dumps(recipe(feedback)), str(tmp_path / "run"), json.dumps(stages), moment]
    killed = subprocess.run(call, capture_output=True, check=False, text=True)
    assert killed.returncode == 0, killed.stderr[-500:]
    done = kd.run(recipe(feedback), out=tmp_path / "run")
    assert "export" in stages_run(done) and "ingest" not in stages_run(done)
    assert results(done.folder) == results(finished.folder)
    assert not list(done.folder.rglob(".*.part"))


READERS = {
    "report": write_pages,
    "notebook": lambda folder: kd.Run(folder)._repr_html_(),
    "review": lambda folder: review(folder, reviewer="ann", open_browser=False),
    "explain": lambda folder: kd.Run(folder).explain("any"),
    "audit": kd.audit,
    "mcp": lambda folder: AllowedFolder.of(folder.parent).run(folder.name),
    "page of an audit": read_contents,
}


def fail_in(plan: dict, out: Path, stage: str) -> None:
    def fail(event):
        if event["stage"] == stage and event["kind"] == "start":
            raise OneClassError("one label only")

    with pytest.raises(OneClassError):
        kd.run(plan, out=out, notify=fail)


KILL = """
import json, os, signal, sys
import ktodata as kd
def kill(event):
    if event["stage"] == sys.argv[3] and event["kind"] == "start": os.kill(os.getpid(), signal.SIGKILL)
kd.run(json.loads(sys.argv[1]), out=sys.argv[2], notify=kill)
"""


def kill_in(plan: dict, out: Path, stage: str) -> None:
    call = [sys.executable, "-c", KILL, json.dumps(plan), str(out), stage]
    assert subprocess.run(call, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize(("stop", "until"), [(fail_in, None), (fail_in, "dedupe"), (kill_in, None)])
def test_a_folder_claims_no_figures_of_a_run_that_did_not_end(tmp_path, stop, until):
    """Stopped before all is read, the earlier run stays, with stages that the new recipe lacks; later, every reader refuses."""
    plan, out = small(tmp_path), tmp_path / "run"
    files = lambda: {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and "previous" not in file.parts}  # noqa: E731
    other = {**plan, "ingest": {**plan["ingest"], "prompt": "completion"}, "steps": ["validate"]}
    kd.run(plan, out=out, until=until)
    before = files()
    with pytest.raises(FormatError):
        kd.run({**other, "ingest": {**plan["ingest"], "completion": "no_such"}}, out=out)
    fail_in(other, out, "ingest")
    assert files() == before and kd.Run(out).faults == []
    stop(other, out, "validate")
    page = (out / "report.html").read_bytes() if until is None else None
    for name, read in READERS.items():
        with pytest.raises(RunError, match=r"no finished run \(status: running; stages done: ingest\).* again with its recipe"):
            raise AssertionError(f"{name} gave {read(out)}")
    assert page is None or (out / "report.html").read_bytes() == page
    assert kd.run(other, out=out).manifest["status"] == "done" and not (out / "stages" / "dedupe").exists()


def test_split_may_come_last_and_held_out_rows_keep_their_mix(feedback, tmp_path):
    """label_noise holds rows before it is known which are held out: of those, only training rows wait."""
    plan = recipe(feedback, action="review", min_precision=0.3)
    plan["steps"] = [step for step in plan["steps"] if "split" not in step] + [{"split": {"test": 0.3}}]
    run = kd.run(plan, out=tmp_path / "run")
    doubted = set(run.stage("label_noise").decisions["row_id"])
    parts = dict(run.stage("split").columns.select("row_id", "part").iter_rows())
    outcome = dict(run.ledger.filter(pl.col("stage") == "export").select("row_id", "action").iter_rows())
    sides = {row: parts[row] for row in doubted}
    assert {"train", "test"} <= set(sides.values())  # the split saw them all
    assert {row: outcome[row] for row in doubted} == {row: "review" if side == "train" else "keep" for row, side in sides.items()}


def test_until_stops_and_goes_on(feedback, tmp_path):
    run = kd.run(recipe(feedback), out=tmp_path / "run", until="split")
    assert run.manifest["status"] == "stopped after split"
    assert stages_run(run)[-1] == "split"
    assert not (run.folder / "report.html").exists()  # of half a run
    with pytest.raises(RunError, match="no train shards"):
        run.shards("train")
    with pytest.raises(SettingError, match="no such stage; it has ingest, validate"):
        kd.run(recipe(feedback), out=tmp_path / "run", until="splitt")


def test_a_folder_that_is_not_ours_is_left_alone(feedback, tmp_path):
    mine = tmp_path / "papers"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds no run"):
        kd.run(recipe(feedback), out=mine)
    kd.run(recipe(feedback), out=tmp_path / "run", until="ingest")
    with pytest.raises(RunError, match="holds the run 'small', and this recipe is 'other'"):
        kd.run({**recipe(feedback), "name": "other"}, out=tmp_path / "run")
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_two_runs_never_share_a_folder(feedback, tmp_path):
    def second_run(event):
        with pytest.raises(RunError, match="another process"):
            kd.run(recipe(feedback), out=tmp_path / "run")

    kd.run(recipe(feedback), out=tmp_path / "run", until="ingest", notify=second_run)


def only(path: Path, lines: list, tmp_path: Path, steps: tuple = ("validate", "dedupe")) -> kd.Run:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return kd.run({"name": "x", "ingest": {"paths": [str(path)]}, "steps": list(steps)}, out=tmp_path / "run")


def test_nothing_left_is_said(tmp_path):
    empty = [{"prompt": "p", "completion": " ", "label": True}, {"prompt": "q", "completion": "", "label": False}]
    with pytest.raises(EmptyDataError, match="no row is left for dedupe"):
        only(tmp_path / "f.jsonl", empty, tmp_path)


def test_no_label_at_all_is_said(tmp_path):
    with pytest.raises(LabelError, match="meh"):
        only(tmp_path / "f.jsonl", [{"prompt": "p", "completion": "c", "label": "meh"}] * 3, tmp_path)


def test_one_class_is_refused_where_it_matters(tmp_path):
    rows = [{"prompt": f"p{number}", "completion": f"c{number}", "label": True} for number in range(20)]
    with pytest.raises(OneClassError):
        only(tmp_path / "f.jsonl", rows, tmp_path, steps=("validate", "dedupe", "rebalance"))


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FormatError, match=r"nothing\.jsonl"):
        kd.run({"name": "x", "ingest": {"paths": [str(tmp_path / "nothing.jsonl")]}}, out=tmp_path / "run")


def test_a_full_disk_leaves_nothing_half_written(feedback, tmp_path, monkeypatch):
    """The disk fills up while a training shard is written; with room made, the same call ends the run."""
    kd.run(recipe(feedback), out=tmp_path / "run", until="coverage")
    sync = os.fsync

    def full(handle):
        if "train-" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        kd.run(recipe(feedback), out=tmp_path / "run")
    assert not (tmp_path / "run" / "shards").exists()
    monkeypatch.undo()
    assert kd.run(recipe(feedback), out=tmp_path / "run").manifest["status"] == "done"


def test_paths_start_at_the_recipe(tmp_path, monkeypatch):
    write_feedback(tmp_path / "feedback.jsonl", rows=30)
    recipe = "name: here\ningest: {paths: [feedback.jsonl]}\nreviews: r.csv\nsteps: [validate, dedupe]\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "r.csv").write_text("row_id,verdict\n,\n")
    monkeypatch.chdir(tmp_path.parent)
    run = kd.run(tmp_path / "recipe.yaml", out=tmp_path / "run", reviews=[f"{tmp_path.name}/r.csv"])
    assert run.manifest["recipe"]["reviews"] == ["r.csv", "r.csv"] and run.stage("reviews").metrics["records"] == 1
    assert run.manifest["rows"]["rows"] > 0
    assert str(tmp_path) not in json.dumps(run.manifest)
    assert os.environ.get("HOME", "/nowhere") not in (run.folder / "README.md").read_text()
