"""Tomorrow's rows: a source has grown. Rows of before stay where they were, the result is a full run's, and the changes are told."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from line_files import WORDS, write_lines

import ktodata as kd
from ktodata.embeddings import static_encoder
from ktodata.errors import RunError
from ktodata.pipeline.command_texts import run_text
from ktodata.report.run_changes import read_changes
from ktodata.report.run_files import RunFiles
from ktodata.withdrawal.forget import forget


def record(number: int, subject: str, rater: str, label: bool) -> dict:
    a, b = WORDS[number % 11], WORDS[(number // 11) % 11]
    return {"prompt": f"{subject} {a} {b} {number}", "completion": f"the {b} of {a} {number}", "label": label, "rater": rater}


def recipe(source: Path) -> dict:
    steps = [
        "validate",
        {"dedupe": None},
        {"split": {"test": 0.2, "validation": 0.1}},
        {"embed": {"model": "packaged:wordllama-256"}},
    ]
    steps += [{"coverage": {"clusters": 3}}]
    return {"name": "grown", "ingest": {"paths": [str(source)], "rater": "rater"}, "steps": steps}


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> tuple[kd.Run, pl.DataFrame, kd.Run]:
    """(the run of a source that has grown, row_id and part before it had, a full run of the same source in another folder)"""
    folder = tmp_path_factory.mktemp("growth")
    source = folder / "feedback.jsonl"
    first = [record(n, ("cooking with", "painting of")[n % 2], f"r{n % 2}", n % 3 != 0) for n in range(240)]
    # r1 calls all of it undesirable, which they did not do before; somebody new judges another subject
    more = [record(n, "painting of", "r1", label=False) for n in range(1000, 1040)]
    more += [record(n, "compiler error in java thread pool", "nia", label=True) for n in range(2000, 2040)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KTODATA_CACHE", str(folder / "cache"))
        write_lines(source, first)
        before = kd.run(recipe(source), out=folder / "run")
        assert read_changes(RunFiles(before.folder)) is None and "since the run before" not in run_text(before, None)
        parts = before.feedback.select("row_id", "part")
        write_lines(source, first[1:] + more)  # one was taken out
        run = kd.run(recipe(source), out=folder / "run")
        patch.setenv("KTODATA_CACHE", str(folder / "another cache"))
        whole = kd.run(recipe(source), out=folder / "whole")
    return run, parts, whole


def test_rows_of_before_stay_in_their_part(grown):
    run, parts, _ = grown
    both = parts.join(run.feedback.select("row_id", "part"), on="row_id", suffix="_after")
    assert both.height == 239 and (both["part"] == both["part_after"]).all()


def test_the_result_is_that_of_a_full_run(grown):
    run, _, whole = grown
    files = [run.folder / "ledger.parquet", *sorted((run.folder / "shards").iterdir())]
    assert len(files) > 3
    for file in files:
        assert file.read_bytes() == (whole.folder / file.relative_to(run.folder)).read_bytes(), file.name


@pytest.mark.slow
def test_the_result_is_that_of_a_full_run_with_verdicts_and_an_engine(tmp_path, monkeypatch):
    """Verdicts on rows of before, one of which is gone, and on rows that came; texts in two processes, and in this one."""
    monkeypatch.setattr(static_encoder, "BATCH", 32)
    source, reviews = tmp_path / "feedback.jsonl", tmp_path / "reviews.jsonl"
    settings = recipe(source)
    settings["steps"] = [*settings["steps"][:-1], {"label_noise": {"folds": 3, "repeats": 1}}]
    first = [record(n, ("cooking with", "painting of")[n % 2], f"r{n % 2}", n % 3 != 0) for n in range(120)]
    more = [record(n, "painting of", "r1", n % 2 == 0) for n in range(1000, 1030)]
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))
    write_lines(source, first)
    before = kd.run(settings, out=tmp_path / "run", engine="local", workers=2)
    judged = before.feedback.sort("row_id").head(20).select("row_id", trusted_label=~pl.col("label"), reviewer=pl.lit("ann"))
    write_lines(source, first[1:] + more)
    came = kd.read([str(source)], label="label", rater="rater").feedback.join(before.feedback, on="row_id", how="anti")
    write_lines(
        reviews, [*judged.to_dicts(), *came.head(5).select("row_id", trusted_label="label", reviewer=pl.lit("ann")).to_dicts()]
    )
    files = []
    for folder, how in (("run", {"engine": "local", "workers": 2}), ("whole", {})):
        monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / ("cache" if folder == "run" else "another cache")))
        run = kd.run(settings | {"reviews": str(reviews)}, out=tmp_path / folder, **how)
        shards = sorted((run.folder / "shards").iterdir())
        files.append({file.name: file.read_bytes() for file in (run.folder / "ledger.parquet", *shards)})
    assert run.feedback["trusted_label"].drop_nulls().len() >= 24
    assert len(files[0]) > 3 and files[0] == files[1]


def test_an_encoder_with_attention_gives_a_full_runs_vectors_but_for_the_last_bits(tmp_path, monkeypatch):
    source, steps = tmp_path / "feedback.jsonl", ["validate", {"embed": {"model": "packaged:all-minilm-l6-v2"}}]
    rows = [record(n, " ".join(WORDS[: 1 + n % 9]), "r", label=True) for n in range(30)]
    for folder, sizes in (("run", (24, 30)), ("whole", (30,))):
        monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / f"cache of {folder}"))
        for size in sizes:
            write_lines(source, rows[:size])
            run = kd.run(recipe(source) | {"steps": steps}, out=tmp_path / folder, until="embed")
            vectors = run.stage("embed").columns.sort("row_id")["prompt_embedding"].to_numpy()
        if folder == "run":
            grown_vectors = vectors
    assert np.abs(grown_vectors - vectors).max() < 1e-6


def test_what_has_changed_is_told(grown):
    run, _, _ = grown
    changes = read_changes(RunFiles(run.folder))
    assert changes is not None and (changes.added, changes.gone, changes.moved) == (80, 1, 0)
    assert [name for name, _ in changes.new_raters] == ["nia"] and [each.name for each in changes.raters] == ["r1"]
    assert changes.rate.added.value == 0.5 and changes.rate_differs
    assert len(changes.topics) >= 1 and changes.topics[0].added.value >= 0.4 > changes.topics[0].before.value
    page = (run.folder / "report.html").read_text()
    assert "Since the run before" in page and "80 rows added, 1 gone" in page and "nia (40)" in page
    assert "since the run before: 80 rows added" in run_text(run, None)


def test_an_edited_label_is_no_new_judgement(tmp_path):
    """Rates before are those of all rows before, not of those that are left of them."""
    source, steps = tmp_path / "feedback.jsonl", {"steps": ["validate", {"dedupe": None}, {"split": {"test": 0.2}}]}
    first = [record(n, "cooking with", f"r{n % 2}", n % 3 != 0) for n in range(120)]
    more = [record(n, "painting of", "r1", n % 3 != 0) for n in range(1000, 1060)]
    write_lines(source, first)
    kd.run(recipe(source) | steps, out=tmp_path / "run")
    write_lines(source, [row | {"label": True} for row in first] + more)
    run = kd.run(recipe(source) | steps, out=tmp_path / "run")
    changes = read_changes(RunFiles(run.folder))
    assert changes is not None and (changes.added, changes.gone) == (100, 40)
    assert (changes.relabelled.hits, changes.relabelled.total) == (40, 40)
    assert (changes.rate.added.total, changes.rate.before.hits, changes.rate.before.total) == (60, 80, 120)
    assert not changes.rate_differs and not changes.raters and not changes.new_raters
    assert "of the added rows 40 have a text of before with another label (40 now desirable)" in changes.lines
    lines = [line.replace("\u2009", " ") for line in changes.lines]
    assert "desirable among the new rows (66.7 % of 60, 66.7 % before): they differ no more than chance makes it" in lines


@pytest.mark.parametrize("export", ["beside", "beside, other ids", "instead, other ids", "nobody is known"])
def test_rows_of_before_that_come_again_are_no_new_judgements(tmp_path, export):
    """The next night's file holds all of the first's 120 rows, two thirds desirable, and 40 new ones of which none is."""
    steps = {"steps": ["validate", {"dedupe": None}, {"split": {"test": 0.2}}]}
    first = [record(n, "cooking with", f"r{n % 2}", n % 3 != 0) | {"id": f"a{n}"} for n in range(120)]
    more = [record(n, "cooking with", f"r{n % 2}", label=False) | {"id": f"b{n}"} for n in range(1000, 1040)]
    if export == "nobody is known":
        first, more = ([row | {"rater": None} for row in rows] for rows in (first, more))
    ingest = {"paths": [str(tmp_path / "*.jsonl")], "rater": "rater", "source_id": "id"}
    write_lines(tmp_path / "1.jsonl", first)
    kd.run(recipe(tmp_path) | steps | {"ingest": ingest}, out=tmp_path / "run")
    again = [row | {"id": f"c{number}"} for number, row in enumerate(first)] if "other ids" in export else first
    write_lines(tmp_path / ("1.jsonl" if "instead" in export else "2.jsonl"), again + more)
    changes = read_changes(RunFiles(kd.run(recipe(tmp_path) | steps | {"ingest": ingest}, out=tmp_path / "run").folder))
    assert changes is not None and (changes.added, changes.again) == (160, 120)
    assert (changes.rate.added.hits, changes.rate.added.total, changes.rate_differs) == (0, 40, True)
    assert "of the added rows 120 were there before, with the same label by the same rater: in no rate below" in changes.lines


def test_what_another_rater_says_of_a_text_of_before_is_new(tmp_path):
    steps = {"steps": ["validate", {"dedupe": None}, {"split": {"test": 0.2}}]}
    first = [record(n, "cooking with", "r0", n % 3 != 0) for n in range(120)]
    write_lines(tmp_path / "1.jsonl", first)
    kd.run(recipe(tmp_path / "*.jsonl") | steps, out=tmp_path / "run")
    write_lines(tmp_path / "2.jsonl", [row | {"rater": "nia"} for row in first[:60]])
    changes = read_changes(RunFiles(kd.run(recipe(tmp_path / "*.jsonl") | steps, out=tmp_path / "run").folder))
    assert changes is not None and (changes.added, changes.again, changes.rate.added.total) == (60, 0, 60)


def test_records_that_became_no_row_are_told(tmp_path):
    source, steps = tmp_path / "feedback.jsonl", {"steps": ["validate", {"dedupe": None}, {"split": {"test": 0.2}}]}
    first = [record(n, "cooking with", "r0", n % 3 != 0) for n in range(60)]
    write_lines(source, first)
    kd.run(recipe(source) | steps, out=tmp_path / "run")
    write_lines(source, first + [row | {"label": None, "prompt": f"also {row['prompt']}"} for row in first[:40]])
    run = kd.run(recipe(source) | steps, out=tmp_path / "run")
    changes = read_changes(RunFiles(run.folder))
    assert changes is not None and (changes.added, changes.gone, changes.unread) == (0, 0, 40)
    assert changes.lines[1:] == ["40 records more than before became no row"]


def test_what_has_changed_is_told_after_rows_were_withdrawn(tmp_path):
    source, steps = tmp_path / "feedback.jsonl", {"steps": ["validate", {"dedupe": None}, {"split": {"test": 0.2}}]}
    first = [record(n, "cooking with", f"r{n % 3}", n % 3 != 0) for n in range(60)]
    write_lines(source, first)
    kd.run(recipe(source) | steps, out=tmp_path / "run")
    (tmp_path / "ids.txt").write_text("r2\n")
    forget(tmp_path / "run", tmp_path / "ids.txt", by="rater")
    write_lines(source, first + [record(n, "painting of", "nia", label=True) for n in range(1000, 1030)])
    run = kd.run(recipe(source) | steps, out=tmp_path / "run")
    changes = read_changes(RunFiles(run.folder))
    assert changes is not None and (changes.added, changes.gone, changes.unread) == (30, 0, 0)
    assert changes.new_raters == (("nia", 30),)
    whole = kd.run(recipe(source) | steps | {"withdrawn": [str(run.folder / "withdrawn.json")]}, out=tmp_path / "whole")
    assert (run.folder / "ledger.parquet").read_bytes() == (whole.folder / "ledger.parquet").read_bytes()


def test_a_page_without_text_names_nobody(grown, tmp_path):
    from ktodata.report import write_page_without_text

    run, _, _ = grown
    write_page_without_text(run.folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "80 rows added" in page and not re.search(r"\bnia\b", page)


def test_a_run_that_was_stopped_is_no_run_before(grown, monkeypatch):
    """What is compared with is the last finished run, however often another was begun since."""
    run, _, _ = grown
    kept = (run.folder / "stages" / "previous" / "columns.parquet").read_bytes()
    monkeypatch.setattr("ktodata.pipeline.runner._make", lambda *args: (_ for _ in ()).throw(RunError("stopped")))
    source = Path(run.manifest["recipe"]["ingest"]["paths"][0])
    text = source.read_text()
    for more in ("\n", "\n\n"):
        source.write_text(text + more)
        with pytest.raises(RunError, match="stopped"):
            kd.run(recipe(source), out=run.folder)
    previous = pl.read_parquet(run.folder / "stages" / "previous" / "columns.parquet")
    assert previous.height == 319 and (run.folder / "stages" / "previous" / "columns.parquet").read_bytes() != kept
