"""A verdict that changes nothing in what is trained on is counted: on the page, on the card and on the terminal."""

import polars as pl
import pytest
from line_files import write_lines

import ktodata as kd
from ktodata.pipeline.command_texts import run_text
from ktodata.pipeline.run_folder import Run


@pytest.fixture(scope="module")
def feedback(tmp_path_factory):
    rows = [{"prompt": f"what is {n}", "completion": f"it is {n * n}", "label": n % 3 > 0, "better": None} for n in range(40)]
    for n in (1, 2, 3):
        rows[n]["better"] = False  # of the third the label is that already
    return write_lines(tmp_path_factory.mktemp("unapplied") / "f.jsonl", rows)


def surfaces(plan, out):
    run = kd.run(plan, out=out)
    return (run_text(run, None), *((run.folder / name).read_text() for name in ("report.html", "README.md")))


def without_label_noise(feedback, **more):
    return {"name": "x", "ingest": {"paths": str(feedback), **more}, "steps": ["validate", "dedupe"]}


SENTENCE = "not applied: the recipe has no label_noise step"


def test_verdicts_of_a_file_that_differ_are_counted_where_no_step_applies_them(feedback, tmp_path):
    rows = kd.read(feedback, label="label").feedback
    named = rows.filter(rows["source_line"].is_in([2, 3, 4])).select("row_id")
    (tmp_path / "reviews.csv").write_text("row_id,trusted_label\n" + "".join(f"{row},false\n" for (row,) in named.iter_rows()))
    plan = {**without_label_noise(feedback), "reviews": [str(tmp_path / "reviews.csv")]}
    for text in surfaces(plan, tmp_path / "run"):
        assert "2 trusted labels differ" in text
        assert SENTENCE in text.replace("\\", "")


def test_trusted_labels_of_the_feedback_itself_are_counted_too(feedback, tmp_path):
    for text in surfaces(without_label_noise(feedback, trusted="better"), tmp_path / "run"):
        assert "2 trusted labels differ" in text


def test_nothing_is_said_where_none_differs(feedback, tmp_path):
    for text in surfaces(without_label_noise(feedback), tmp_path / "run"):
        assert "not applied" not in text


def test_a_verdict_on_a_held_out_row_is_named_where_it_does_not_count(feedback, tmp_path):
    """Every row is called wrong, of no use or contested: whatever of validation and test is exported all the same, is counted."""
    rows = kd.read(feedback, label="label").feedback
    words = [("drop", "contested", "undesirable" if label else "desirable")[n % 3] for n, label in enumerate(rows["label"])]
    lines = [f"{row},{word}\n" for row, word in zip(rows["row_id"], words, strict=True)]
    (tmp_path / "reviews.csv").write_text("row_id,verdict\n" + "".join(lines[:-8]))
    plan = {**without_label_noise(feedback), "reviews": [str(tmp_path / "reviews.csv")]}
    plan["steps"] = [*plan["steps"], {"split": {"validation": 0.2, "test": 0.2}}]
    texts = surfaces(plan, tmp_path / "run")
    run = Run(tmp_path / "run")
    judged = {line.split(",")[0] for line in lines[:-8]}
    held = [row for row, part in run.stage("export").read("row_id", "part").iter_rows() if part != "train" and row in judged]
    assert len(held) > 5
    for text in texts:
        assert f"{len(held)} verdicts on held-out rows are not applied" in text.replace("\\", "")
    last = run.ledger.filter(pl.col("stage") == "export", pl.col("row_id").is_in(held))
    assert set(last["reason"]) == {"verdict_not_applied"}
    turned = next(row for row in held if words[rows["row_id"].to_list().index(row)].endswith("desirable"))
    assert "which changes no held-out row" in run.explain(turned)["labels"]["why"]
