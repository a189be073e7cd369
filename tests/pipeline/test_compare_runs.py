"""Two runs beside each other: differences are paired, rows are those that both hold out, and no more is said than that shows."""

import json
from hashlib import sha256

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from ktodata.cli import app
from ktodata.errors import DataError, OneClassError, RunError
from ktodata.files import write_note
from ktodata.pipeline.run_folder import Run

ROWS = 120


@pytest.fixture
def make(tmp_path):
    """Writes a run folder with an evaluation: how strongly its model sees the truth, beside luck that all runs share."""

    def run(name, strength, *, start=0, rows=ROWS, truth=True, part="test", trained=("t1",), one_class=False):
        rng = np.random.default_rng(0)
        real, luck = rng.random(ROWS * 2) < 0.6, rng.normal(size=ROWS * 2)
        here = slice(start, start + rows)
        scored = pl.DataFrame(
            {
                "row_id": [f"r{n}" for n in range(ROWS * 2)][here],
                "label": np.ones(rows, bool) if one_class else (real ^ (rng.random(ROWS * 2) < 0.1))[here],
                "truth": pl.Series(real[here] if truth else [None] * rows, dtype=pl.Boolean),
                "group": [f"g{n // 2}" for n in range(ROWS * 2)][here],
                "reward": (strength * real + luck)[here],
            }
        )
        folder = tmp_path / name
        (folder / "stages" / "evaluate").mkdir(parents=True)
        (folder / "shards").mkdir()
        scored.write_parquet(folder / "stages/evaluate/columns.parquet")
        write_note(folder / "stages/evaluate/metrics.json", {"part": part})
        write_note(folder / "stages/evaluate/done.json", {"key": "k"})
        shard = folder / "shards/train-00000-of-00001.parquet"
        pl.DataFrame({"row_id": list(trained)}).write_parquet(shard)
        checksums = {shard.name: {"rows": len(list(trained)), "sha256": sha256(shard.read_bytes()).hexdigest()}}
        (folder / "shards/checksums.json").write_text(json.dumps(checksums))
        (folder / "stages" / "export").mkdir()
        write_note(folder / "stages/export/metrics.json", {"checksums": checksums})
        write_note(folder / "stages/export/done.json", {"key": "k"})
        write_note(folder / "manifest.json", {"recipe": {}, "stages": [{"name": "export", "key": "k"}, {"name": "evaluate"}]})
        return Run(folder)

    return run


def test_a_better_model_is_said_to_be_better_by_the_plain_difference(make):
    now, before = make("now", 2.0), make("before", 0.5)
    found = now.compare(before, resamples=400)
    told, rows = found.as_dict(), now.stage("evaluate").columns
    plain = [roc_auc_score(rows["truth"], run.stage("evaluate").columns["reward"]) for run in (now, before)]
    assert told["auc"]["value"] == pytest.approx(plain[0]) and told["baseline_auc"]["value"] == pytest.approx(plain[1])
    assert told["gain"]["value"] == pytest.approx(plain[0] - plain[1]) and not told["includes_zero"]
    assert (told["judged_by"], told["rows"], told["prompt_groups"], told["baseline"]) == ("truth", ROWS, ROWS // 2, "before")
    assert (
        "better by more than chance. 120 test rows in 60 prompt groups that both runs hold out, judged by the truth."
        in found.verdict()
    )
    width = {name: told[name]["high"] - told[name]["low"] for name in ("gain", "auc")}
    assert width["gain"] < width["auc"] * 2  # the luck that both share cancels
    assert "worse by more than chance" in before.compare(now.folder, resamples=400).verdict()


def with_answers(run, passed, base=False):
    """The run with answers to 100 checked prompts, of which the first `passed` pass, and `base` says which did before training."""
    answers = {
        "prompt": [f"p{n}" for n in range(100)],
        "base_passes": [base] * 100,
        "trained_passes": [n < passed for n in range(100)],
    }
    pl.DataFrame(answers).write_parquet(run.folder / "stages/evaluate/answers.parquet")
    write_note(run.folder / "stages/evaluate/metrics.json", {"part": "test", "instructions": {"prompts": 100}})
    return Run(run.folder)


def test_answers_that_a_program_checks_are_compared_prompt_by_prompt(make):
    now, before = with_answers(make("now", 1.0), 60), with_answers(make("before", 1.0), 40)
    comparison = now.compare(before, resamples=400)
    answers = comparison.as_dict()["instructions"]
    assert answers["prompts"] == 100 and answers["passes"]["value"] == 0.6 and answers["baseline_passes"]["value"] == 0.4
    assert answers["gain"]["value"] == pytest.approx(0.2) and answers["gain"]["high"] - answers["gain"]["low"] < 0.18  # paired
    assert comparison.verdict().startswith(
        "Of 100 prompts whose answers a program checks, 0.0 % pass before any training, 40.0 % with the baseline's model, "
        "60.0 % with this one: +20.0 ("
    )
    same = now.compare(with_answers(make("same", 1.0), 60), resamples=100)
    assert same.as_dict()["instructions"]["gain"]["value"] == 0
    assert "points over the baseline, no difference that this can show" in same.verdict()


def test_answers_of_one_run_alone_are_not_compared(make):
    assert with_answers(make("now", 1.0), 60).compare(make("before", 0.5), resamples=50).as_dict()["instructions"] is None


def test_the_same_model_shows_no_difference(make):
    found = make("now", 1.0).compare(make("before", 1.0), resamples=100)
    assert found.as_dict()["includes_zero"] and "no difference that this can show" in found.verdict()


def test_only_rows_that_both_hold_out_count(make):
    told = make("now", 1.0).compare(make("before", 1.0, start=40), resamples=50).as_dict()
    assert told["rows"] == ROWS - 40
    with pytest.raises(DataError, match="hold out no row in common"):
        make("a", 1.0).compare(make("b", 1.0, start=ROWS), resamples=50)


def test_labels_judge_where_either_run_lacks_the_truth(make):
    found = make("now", 1.0).compare(make("before", 1.0, truth=False), resamples=50)
    assert found.as_dict()["judged_by"] == "label" and "judged by their labels as given" in found.verdict()


@pytest.mark.parametrize("which", ["now", "before"])
def test_rows_that_either_was_trained_on_tell_nothing(make, which):
    runs = {name: make(name, 1.0, trained=("r3",) if name == which else ("t1",)) for name in ("now", "before")}
    with pytest.raises(DataError, match=f"{which} was trained on 1 of the 120 rows that both evaluated .first: r3"):
        runs["now"].compare(runs["before"], resamples=50)


def test_what_cannot_be_compared_says_why(make, tmp_path):
    with pytest.raises(DataError, match=r"was evaluated on test rows and .* on validation rows"):
        make("a", 1.0).compare(make("b", 1.0, part="validation"))
    with pytest.raises(OneClassError, match="the 120 rows that both runs hold out are all of one label"):
        make("c", 1.0, truth=False, one_class=True).compare(make("d", 1.0, truth=False))
    (tmp_path / "bare").mkdir()
    write_note(tmp_path / "bare" / "manifest.json", {"recipe": {}, "stages": []})
    with pytest.raises(RunError, match="bare was not evaluated"):
        make("e", 1.0).compare(Run(tmp_path / "bare"))


def test_the_command_says_it_in_a_sentence(make):
    now, before = make("now", 2.0), make("before", 0.5)
    done = CliRunner().invoke(app, ["evaluate", str(now.folder), "--baseline", str(before.folder)])
    assert done.exit_code == 0 and "better by more than chance" in done.output
    as_json = CliRunner().invoke(app, ["evaluate", str(now.folder), "--baseline", str(before.folder), "--json"])
    assert json.loads(as_json.output)["rows"] == ROWS
    both = CliRunner().invoke(app, ["evaluate", str(now.folder), "--baseline", str(before.folder), "--reference", "x"])
    assert both.exit_code != 0 and "--reference and --set go without it" in str(both.exception)
