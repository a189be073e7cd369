"""ingest as a recipe uses it, on made-up thumbs and on real feedback."""

import inspect
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from pydantic import TypeAdapter

from ktodata.feedback import COLUMNS, check_feedback
from ktodata.formats import IngestResult, read
from ktodata.stages import ingest as stage
from ktodata.stages.ingest import ingest

AS_BOOLEANS = {True: True, False: False}


def accounted(result: IngestResult) -> IngestResult:
    """The result, once it is sure that every record is a row (or a pair of rows) or in the quarantine."""
    check_feedback(result.feedback)
    used = result.feedback.select(pl.struct("source", "source_line").n_unique()).item()
    assert result.metrics["records"] == used + result.quarantine.height
    assert result.metrics["rows"] == result.feedback.height
    return result


def test_the_settings_of_the_stage_are_those_of_read():
    given, taken = inspect.signature(ingest).parameters, inspect.signature(read).parameters
    assert list(given) == list(taken)
    assert {name: p.default for name, p in given.items()} == {name: p.default for name, p in taken.items()}
    assert stage.NEEDS == ()
    assert tuple(COLUMNS) == stage.ADDS


def test_a_recipe_reads_as_written(tmp_path: Path):
    """Line 3 is neither up nor down, line 4 is set aside on purpose."""
    thumbs = ["up", "down", "-1", "meh"]
    rows = [{"prompt": "sky?", "completion": str(n), "thumb": t, "user_id": 7, "ts": 1740830400} for n, t in enumerate(thumbs)]
    (tmp_path / "may.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = "{label: {column: thumb, up: true, down: false, meh: null}, rater: user_id, created_at: ts}"
    result = accounted(ingest(paths=[str(tmp_path / "*.jsonl")], **yaml.safe_load(recipe)))
    assert result.feedback.select("completion", "label", "rater").rows() == [("0", True, "7"), ("1", False, "7")]
    assert result.quarantine.select("line", "reason").rows() == [(3, "label_unmapped"), (4, "unlabelled")]


@pytest.mark.parametrize("label", [{True: True, False: False}, {"1": True, 1: False}, {"column": "x", 1.0: True}, "thumb"])
def test_the_types_of_label_values_survive_the_check_of_a_recipe(label: Any):
    """pydantic would make 1 of true, or "1" of 1, if the annotation let it."""
    setting = TypeAdapter(inspect.signature(ingest).parameters["label"].annotation)
    assert repr(setting.validate_python(label)) == repr(label)


# --- real feedback -----------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_xstest_labelled_by_a_judge_that_was_silent_8_times(shared: Path):
    result = accounted(
        ingest(
            paths=str(shared / "kto_xstest.jsonl.gz"),
            label={"column": "weak_label_gpt4", **AS_BOOLEANS},
            trusted="label",
            model="model",
            keep=["type"],
        )
    )
    assert result.metrics["quarantined"] == {"unlabelled": 8}
    assert result.metrics["labels"] == {"desirable": 1030, "undesirable": 312}
    agreed = result.feedback.filter(pl.col("label") == pl.col("trusted_label")).height
    assert agreed == 1094  # of 1,342: the judge and the people
    assert result.feedback["type"].n_unique() > 10


@pytest.mark.shared
def test_xstest_with_the_votes_of_two_people(shared: Path):
    votes = {"label_annotator_1": "first", "label_annotator_2": "second"}
    result = accounted(ingest(paths=str(shared / "kto_xstest.jsonl.gz"), label=AS_BOOLEANS, votes=votes))
    assert result.metrics["quarantined"] == {}
    assert result.metrics["even_votes"] == result.feedback.height - 1350  # where they differ, each has a row
    assert result.metrics["votes"] == 2 * 1350
    both = accounted(ingest(paths=str(shared / "kto_xstest.jsonl.gz"), label={"column": "label", **AS_BOOLEANS}, votes=votes))
    assert both.feedback.height == 1350
    assert both.metrics["votes"] == 3 * 1350


@pytest.mark.shared
def test_tulu_with_its_raters_and_times(shared: Path):
    result = accounted(ingest(paths=str(shared / "kto_tulu1_human.jsonl.gz"), rater="annotator", created_at="timestamp"))
    assert result.feedback.height == 1400
    assert result.metrics["raters"] == 16
    assert result.metrics["busiest_raters"]["se"] == 246
    assert result.metrics["unparseable_times"] == 0
    assert result.feedback["created_at"].null_count() == 0
    assert {str(time.year) for time in result.feedback["created_at"]} == {"2023"}


@pytest.mark.shared
def test_hh_harmless_as_pairs_and_as_conversations(shared: Path):
    path = str(shared / "kto_hh_harmless.jsonl.gz")
    plain = accounted(ingest(paths=path, pair_id="pair")).feedback
    assert plain["pair_id"].n_unique() == plain.height / 2 == 1412
    assert plain["prompt"].str.starts_with("\n\nHuman:").all()
    talks = accounted(ingest(paths=path, pair_id="pair", transcripts=True)).feedback
    # two transcripts of the release really hold two assistant turns in a row
    assert (talks.select(pl.col("turns").list.last().struct.field("role")).to_series() == "assistant").sum() == 2
    assert sorted(talks["completion"]) == sorted(plain["completion"])


@pytest.mark.shared
def test_halueval(shared: Path):
    result = accounted(ingest(paths=str(shared / "kto_halueval_general.jsonl.gz"), keep=["spans"]))
    assert result.metrics["labels"] == {"desirable": 2154, "undesirable": 490}
    assert result.feedback["spans"].str.starts_with("[").all()


@pytest.mark.shared
def test_llamafactory_demo_with_its_conversations(shared: Path):
    result = accounted(ingest(paths=str(shared / "kto_llamafactory_demo.jsonl.gz"), prompt="messages"))
    assert result.feedback["turns"].null_count() == 0
    assert (result.feedback["turns"].list.len() > 1).sum() == 49
    assert result.metrics["labels"] == {"desirable": 83, "undesirable": 93}


PANDALM: dict[str, Any] = {
    "prompt": ["instruction", "input"],
    "completion": ["response1", "response2"],
    "label": {1: "first", 2: "second", 0: "tie"},
    "votes": {"annotator1": "one", "annotator2": "two", "annotator3": "three"},
    "source_id": "idx",
}


@pytest.mark.shared
def test_pandalm_by_the_most_votes(shared: Path):
    """54 pairs that all three call a tie, 9 that two of three do: 63 of 624."""
    result = accounted(ingest(paths=str(shared / "pref_pandalm.jsonl.gz"), **PANDALM))
    assert result.metrics["quarantined"] == {"tie": 63}
    assert result.metrics["labels"] == {"desirable": 561, "undesirable": 561}
    assert result.feedback["votes"].list.len().max() == 3


@pytest.mark.shared
def test_pandalm_with_json_booleans_for_responses(shared: Path, tmp_path: Path):
    import gzip

    lines = gzip.decompress((shared / "pref_pandalm.jsonl.gz").read_bytes()).decode().splitlines()
    dirty = [json.dumps({**json.loads(lines[0]), "response1": True}), *lines[1:]]
    (tmp_path / "dirty.jsonl").write_text("\n".join(dirty))
    result = accounted(ingest(paths=str(tmp_path / "dirty.jsonl"), **PANDALM))
    assert result.metrics["quarantined"] == {"not_text": 1, "tie": 63}
    assert result.quarantine.row(0, named=True)["detail"] == "response1 is a boolean, not text"


@pytest.mark.shared
def test_tulu_preferences(shared: Path):
    better = {
        f"{side}-is-{how}": word for side, word in (("a", "first"), ("b", "second")) for how in ("better", "slightly-better")
    }
    result = accounted(
        ingest(
            paths=str(shared / "pref_tulu1_human.jsonl.gz"),
            completion=["completion_a", "completion_b"],
            model=["model_a", "model_b"],
            label={"column": "preference", "tie": "tie", **better},
            rater="evaluator",
            created_at="timestamp",
        )
    )
    assert result.metrics["quarantined"] == {"tie": 235}
    assert result.feedback.height == 2 * 465
    assert result.feedback["model"].n_unique() == 4


@pytest.mark.shared
def test_convabuse_in_csv_with_eight_sparse_annotators(shared: Path):
    votes = {f"Annotator{n}_is_abuse.1": f"annotator{n}" for n in range(1, 9)}
    result = accounted(
        ingest(
            paths=str(shared / "multiannotator_convabuse_train.csv"),
            prompt="agent",
            completion="user",
            label={"1": True, "0": False, "": None, "1, 1": True, "0, 0": False, "1, 1, 1": True, "0, 0, 0": False},
            votes=votes,
        )
    )
    assert result.metrics["records"] == 2501
    assert set(result.metrics["quarantined"]) == {"label_unmapped"}
    assert result.metrics["even_votes"] > 0
    assert set(result.metrics["unmapped_labels"]) == {"'0, 1'", "'1, 0'"}  # one annotator, asked twice, said both
    assert result.metrics["raters"] == 8


@pytest.mark.shared
def test_many_files_at_once_keep_their_names_apart(shared: Path):
    names = ["kto_halueval_general.jsonl.gz", "kto_gsm8k_solutions.jsonl.gz"]
    result = accounted(ingest(paths=[str(shared / name) for name in names]))
    assert result.feedback["source"].unique(maintain_order=True).to_list() == names
    assert result.feedback.height == 2644 + 3068
    manifest = {file["file"]: file["sha256"] for file in json.loads((shared / "MANIFEST.json").read_text())["files"]}
    assert {file["name"]: file["sha256"] for file in result.metrics["files"]} == {name: manifest[name] for name in names}


def test_votes_that_the_recipe_sets_aside_are_votes(tmp_path):
    (tmp_path / "v.csv").write_text("p;c;a;b\nq;r;5;1\ns;t;5;5\nu;v;3;\nw;x;;\n")
    result = read(tmp_path / "v.csv", prompt="p", completion="c", votes=["a", "b"], label={"5": True, "3": None, "1": False})
    assert result.quarantine["detail"].to_list() == ["its votes are all ones that the recipe sets aside", "no rater has voted"]
