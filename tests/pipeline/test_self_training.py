"""The loop from training back to the labels: telemetry enters a run, acts as far as reviews bear it out, and rounds end when told."""

import json
from functools import wraps

import numpy as np
import polars as pl
import pytest
from encoders import save_encoder

import ktodata as kd
from ktodata.errors import DataError, FormatError, OneClassError, RecipeError, RunError, SettingError
from ktodata.files import read_note
from ktodata.pipeline import run_stages, self_training
from ktodata.pipeline.self_training import changes, dry_run, rounds_of
from ktodata.stage import StageResult

ROWS, REVIEWED = 240, 100


@pytest.fixture(autouse=True, scope="module")
def no_pages():
    """Pages of single runs are drawn elsewhere, and take longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ktodata.report.write_pages", lambda run: (run / "report.html").write_text("a page"))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, a tiny encoder, and feedback on texts that say nothing of the truth; every fifth label is wrong."""
    from tiny_models import WORDS, save_tiny_llama

    folder = tmp_path_factory.mktemp("self-training")
    rng, lines = np.random.default_rng(0), []
    for number in range(ROWS):
        prompt, completion = (" ".join(WORDS[int(k)] for k in rng.integers(2, 22, size)) for size in (3, 4))
        truth = bool(rng.random() < 0.6)
        lines.append(
            {"prompt": f"{prompt} {number}", "completion": completion, "label": truth != (number % 5 == 0), "id": number}
        )
    (folder / "f.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_tiny_llama(folder / "model")
    save_encoder(folder / "encoder")
    return folder


def recipe(place, **more):
    label_noise = {"action": "soften", "noise_injection": 0.0, "folds": 3, "repeats": 1, "neighbours": 0}
    label_noise["trusted_at_random"] = True  # the first rows by id, which is a digest
    steps = ["validate", {"dedupe": {"near": 1.0}}, {"split": {"validation": 0.25, "test": 0.1}}]
    steps += [{"embed": {"model": str(place / "encoder")}}, {"label_noise": label_noise}]
    train = {"model": str(place / "model"), "max_steps": 6, "batch_size": 8, "learning_rate": 1e-2, "soft_labels": True}
    ingest = {"paths": [str(place / "f.jsonl")], "source_id": "id"}
    return {"name": "loop", "ingest": ingest, "reviews": str(place / "r.csv"), "steps": steps, "train": train, **more}


def rounds(place, rounds=3, patience=3, **more):
    return recipe(place, self_training={"rounds": rounds, "patience": patience, "bootstrap": 100}, **more)


@pytest.fixture(scope="module")
def truth(place):
    """{row_id: truth}; the verdicts on the first training rows are written into r.csv."""
    plan = recipe(place) | {"reviews": None}
    table = kd.run(plan, out=place / "asked", until="split").feedback
    known = {
        row_id: label != (int(number) % 5 == 0) for row_id, label, number in table.select("row_id", "label", "source_id").rows()
    }
    chosen = table.filter(pl.col("part") == "train")["row_id"].head(REVIEWED)
    (place / "r.csv").write_text("row_id,verdict\n" + "".join(f"{row},{known[row]}\n" for row in chosen))
    return known


def telemetry(truth, labels, rows=None):
    """One look at each row, late in training, by a policy that leans to the truth."""
    rng = np.random.default_rng(1)
    lines = [
        {
            "row_id": row_id,
            "part": "validation",
            "epoch": 0,
            "step": 9,
            "label": labels[row_id],
            "z0": 0.0,
            "completion_tokens": 4,
        }
        | {"log_ratio": (1.0 if truth[row_id] else -1.0) + 0.2 * float(rng.normal())}
        for row_id in list(truth)[:rows]
    ]
    return pl.DataFrame(lines)


def labels_of(run):
    return dict(run.stage("ingest").columns.select("row_id", "label").iter_rows())


def stages_run(run):
    return [stage["name"] for stage in run.manifest["stages"] if not stage["cached"]]


def error_auroc(run, truth):
    """Within each given label, among training rows that nobody reviewed: chance that a wrong label looks more doubtful."""
    table = run.feedback.filter((pl.col("part") == "train") & pl.col("trusted_label").is_null())
    wrong = np.array([truth[row_id] != label for row_id, label in table.select("row_id", "label").iter_rows()])
    quality, given = table["label_quality"].to_numpy(), table["label"].to_numpy()
    each = [(quality[wrong & here][:, None] < quality[~wrong & here]).mean() for here in (given, ~given)]
    return np.mean(each)


# --- telemetry in a recipe ---------------------------------------------------------------------------------------------------


def test_telemetry_enters_a_run_and_acts_as_far_as_reviews_bear_it_out(place, truth, tmp_path):
    plan, out = recipe(place), tmp_path / "run"
    without = kd.run(plan, out=out, until="label_noise")
    before = error_auroc(without, truth)
    file = tmp_path / "telemetry.parquet"
    telemetry(truth, labels_of(without), rows=ROWS - 10).write_parquet(file)
    run = kd.run(plan, out=out, telemetry=file, until="label_noise")
    assert stages_run(run) == ["telemetry", "label_noise"]  # no text is read or embedded again
    facts = run.stage("telemetry").metrics
    assert (facts["rows_observed"], facts["rows_without_observation"]) == (ROWS - 10, 10)
    assert facts["labels_other_than_trained_on"] == 0 and "no training.json" in facts["beta_from"]
    assert run.feedback["training_dynamics"].null_count() == 10
    told = run.stage("label_noise").metrics["weighed"]["training_dynamics"]
    assert told["weights"]["desirable"]["low"] > 0 and sum(told["reviewed_rows"].values()) > REVIEWED - 10
    assert any(told["text"] in finding["text"] for finding in run.stage("label_noise").metrics["findings"])
    assert before < 0.65 and error_auroc(run, truth) > 0.8
    again = kd.run(plan, out=out, until="label_noise")  # without it, as if it had never been there
    assert stages_run(again) == ["label_noise"] and not (out / "stages" / "telemetry").exists()
    assert again.stage("label_noise").columns.equals(without.stage("label_noise").columns)
    assert "training_dynamics" not in again.stage("label_noise").metrics["weighed"]


def test_without_reviews_telemetry_is_shown_and_moves_nothing(place, truth, tmp_path):
    plan = recipe(place) | {"reviews": None}
    without = kd.run(plan, out=tmp_path / "run", until="label_noise")
    columns = without.stage("label_noise").columns
    telemetry(truth, labels_of(without)).write_parquet(tmp_path / "telemetry.parquet")
    run = kd.run(plan, out=tmp_path / "run", telemetry=tmp_path, until="label_noise")
    assert run.stage("label_noise").columns.equals(columns)
    told = run.stage("label_noise").metrics["weighed"]["training_dynamics"]
    assert told["weights"] == {} and "not acted on" in told["text"]
    assert run.stage("label_noise").table("evidence")["training_dynamics"].null_count() == 0


def test_telemetry_that_cannot_be_used_is_said_before_or_after_reading(place, truth, tmp_path):
    plan, out = recipe(place, telemetry=str(tmp_path / "t.parquet")), tmp_path / "run"
    with pytest.raises(FormatError, match=r"there is no .*t\.parquet"):
        kd.run(plan, out=out)
    assert not out.exists()
    labels = dict.fromkeys(truth, True)
    other = telemetry(truth, labels).with_columns(pl.col("row_id").str.replace("^.", "x"))
    pl.concat([telemetry(truth, labels), other.head(7)]).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=rf"7 of {ROWS + 7} rows that were trained on are not in the data"):
        kd.run(plan, out=out)


# --- rounds ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(monkeypatch, truth):
    """Dynamics that lean to the truth, whatever the tiny model has learnt."""

    def join(feedback, looks, *, beta):
        leans = np.random.default_rng(0).uniform(0.6, 1, feedback.height)
        sound = np.array([truth[row_id] == label for row_id, label in feedback.select("row_id", "label").iter_rows()])
        quality = pl.Series(np.where(sound, leans, 1 - leans))
        return StageResult(feedback.select("row_id", training_dynamics=quality), metrics={"rows_without_observation": 0})

    monkeypatch.setattr(run_stages, "join_dynamics", join)


@pytest.fixture
def fits(monkeypatch):
    """The rounds that were trained, in order."""
    from ktodata import train

    seen, fit = [], train.fit

    @wraps(fit)
    def noted(shards, **settings):
        seen.append(settings["out"].parent.name)
        return fit(shards, **settings)

    monkeypatch.setattr(train, "fit", noted)
    return seen


def result(out):
    return read_note(out / "self_training.json")


def test_rounds_go_on_until_nothing_changes_and_are_not_run_twice(place, truth, planted, fits, tmp_path):
    """Dynamics that say the same twice change nothing in round 2: it is curated, found equal, and not trained."""
    out, events = tmp_path / "run", []
    run = kd.run(rounds(place), out=out, notify=events.append)
    told = result(out)
    assert fits == ["0", "1"] and told["ended_because"].startswith("round 2 changed nothing")
    assert [line["trained"] for line in told["rounds"]] == [True, True, False]
    changed = told["rounds"][1]["changed"]
    assert changed["softened"] > 20 and changed["rows"] == kd.Run(out / "rounds" / "1").shards().height
    # which row is left out where one would stand alone in the last block hangs on its quality
    assert changed["entered"] == changed["left"] <= 1 and changed["relabelled"] == 0
    assert told["rounds"][2]["changed"]["changed"] == 0 and told["rounds"][2]["auc"] is None
    assert told["status"] == "done" and rounds_of(run) == told and run.folder == out / "rounds" / str(told["chosen_round"])
    ran = {(event["round"], event["stage"].split(", ")[1]) for event in events if event["kind"] == "start"}
    assert (0, "embed") in ran and {stage for number, stage in ran if number} == {"telemetry", "label_noise", "export", "train"}
    # equal terms: the same base and settings, and as many updates
    first, second = (json.loads((out / "rounds" / n / "model" / "training.json").read_text()) for n in "01")
    assert first["plan"]["steps"] == second["plan"]["steps"] == 6
    assert {k: v for k, v in first["settings"].items() if k != "epochs"} == {
        k: v for k, v in second["settings"].items() if k != "epochs"
    }
    # validation rows judge, and no others
    rows = kd.Run(out / "rounds" / "0").shards("validation")
    assert (told["part"], told["judged_by"], told["rows"]) == ("validation", "labels as given", rows.height)
    page = (out / "report.html").read_text()
    assert told["verdict"].split(":")[0] in page and 'href="rounds/1/report.html"' in page and "https:" not in page
    before = (out / "self_training.json").read_bytes()
    events.clear()
    again = kd.run(rounds(place), out=out, notify=events.append)
    assert again.folder == run.folder and fits == ["0", "1"] and (out / "self_training.json").read_bytes() == before
    assert not [event for event in events if event["kind"] == "start"]


def test_a_loop_that_was_killed_goes_on_where_it_stopped(place, truth, planted, fits, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(event):
        if event["kind"] == "start" and event["stage"] == "round 1, train":
            raise Killed

    out = tmp_path / "run"
    with pytest.raises(Killed):
        kd.run(rounds(place, rounds=1), out=out, notify=kill)
    assert fits == ["0"] and result(out)["status"] == "running" and "(result)" in (out / "report.html").read_text()
    kd.run(rounds(place, rounds=1), out=out)
    assert fits == ["0", "1"] and result(out)["ended_because"] == "1 rounds were asked for"


def test_patience_ends_it_and_only_the_round_that_is_the_result_meets_test_rows(
    place, truth, planted, fits, tmp_path, monkeypatch
):
    """Round 1 is made to see the labels and is the result; round 2, made to see them less, ends it."""
    strengths, leans = {0: 0.0, 1: 3.0, 2: 1.0}, np.random.default_rng(2)

    def rewards(run):
        rows = run.shards("validation")
        noise = np.random.default_rng(3).normal(size=rows.height)
        return rows.select("row_id", reward=pl.Series(strengths[int(run.folder.name)] * rows["label"].to_numpy() + noise))

    def join(feedback, looks, *, beta):  # another opinion in each round, so that each is trained
        return StageResult(feedback.select("row_id", training_dynamics=pl.Series(leans.random(feedback.height))))

    monkeypatch.setattr(self_training, "_validation_rewards", rewards)
    monkeypatch.setattr(self_training, "changes", lambda *args, **kwargs: {"changed": 1, "rows": 1})
    monkeypatch.setattr(run_stages, "join_dynamics", join)
    run = kd.run(rounds(place, patience=1, evaluate={"generate": 0, "bootstrap": 100}), out=tmp_path / "run")
    told = result(tmp_path / "run")
    assert fits == ["0", "1", "2"] and told["chosen_round"] == 1 and told["helped"] and run.folder.name == "1"
    assert told["verdict"].startswith("Round 1 helped and is the result") and "did not raise it" in told["ended_because"]
    assert told["rounds"][2]["best_before"] == 1 and told["rounds"][2]["minus_best"]["high"] < 0
    there = [(tmp_path / "run" / "rounds" / n / "evaluation.json").exists() for n in "012"]
    assert there == [False, True, False]
    assert json.loads((run.folder / "evaluation.json").read_text())["part"] == "test"


def test_the_verdict_is_plain_where_nothing_helped():
    auc = {"value": 0.6, "low": 0.5, "high": 0.7}
    gain = {"value": 0.02, "low": -0.01, "high": 0.05, "includes_zero": True}
    told = {
        "rows": 50,
        "judged_by": "labels as given",
        "best_round": 0,
        "helped": False,
        "ended_because": None,
        "rounds": [{"auc": auc}],
    }
    assert self_training.verdict(told).startswith(
        "No round helped: round 0 is the result, with an AUC of 0.600 on 50 validation rows"
    )
    told |= {"best_round": 1, "rounds": [{"auc": auc}, {"auc": auc, "minus_round_0": gain}]}
    assert self_training.verdict(told).startswith("No round is shown to help, so round 0 is the result. Round 1 was highest")
    assert "+0.020 (-0.010 to +0.050), which includes zero" in self_training.verdict(told)


def test_changes_by_hand():
    """b left, d entered, c was turned (its soft label moved too, and it counts once), a was softened by 0.02, e by 0.001."""
    schema = {"row_id": pl.String, "label": pl.Boolean, "p_desirable": pl.Float64}
    rows = [("a", True, 0.9), ("b", True, 1.0), ("c", True, 0.9), ("e", False, 0.1)]
    before = pl.DataFrame(rows, schema=schema, orient="row")
    rows = [("d", True, 1.0), ("a", True, 0.88), ("c", False, 0.1), ("e", False, 0.101)]
    after = pl.DataFrame(rows, schema=schema, orient="row")
    found = changes(before, after, soft=True)
    assert found == {"entered": 1, "left": 1, "relabelled": 1, "softened": 1, "changed": 4, "rows": 4}
    assert changes(before.drop("p_desirable"), after.drop("p_desirable"), soft=False)["changed"] == 3


def test_folders_of_others_are_left_alone(place, truth, planted, tmp_path):
    kd.run(recipe(place), out=tmp_path / "plain", until="ingest")
    with pytest.raises(RunError, match="holds a run without rounds"):
        kd.run(rounds(place), out=tmp_path / "plain")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds no rounds"):
        kd.run(rounds(place), out=tmp_path / "papers")
    kd.run(rounds(place), out=tmp_path / "run", until="ingest")
    assert not (tmp_path / "run" / "self_training.json").exists()
    with pytest.raises(RunError, match="holds the rounds of 'loop', and this recipe is 'other'"):
        kd.run(rounds(place) | {"name": "other"}, out=tmp_path / "run")
    plan, stages = dry_run(rounds(place), out=tmp_path / "run")
    assert (
        plan.self_training["patience"] == 3 and dict(stages)["ingest"] == "unchanged" and dict(stages)["train"].startswith("runs")
    )


def test_what_cannot_be_judged_is_said_before_the_first_training(place, truth, fits, tmp_path, monkeypatch):
    def refuse(held_out):
        raise OneClassError(f"{held_out['part'].unique().to_list()} is all of one label")

    monkeypatch.setattr(self_training, "ruler", refuse)
    with pytest.raises(OneClassError, match=r"\['validation'\] is all of one label"):
        kd.run(rounds(place), out=tmp_path / "run")
    assert fits == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"train": None}, RecipeError, "self_training but trains nothing"),
        ({"steps": ["validate", "dedupe", {"split": {"validation": 0.2}}]}, RecipeError, "add the step label_noise"),
        ({"steps": ["validate", "dedupe", "embed", "label_noise"]}, RecipeError, "judged by validation rows"),
        ({"self_training": {"round": 3}}, SettingError, "'round'. Did you mean 'rounds'"),
        ({"self_training": {"patience": 0}}, SettingError, "patience"),
        ({"telemetry": ["a", "b"]}, SettingError, "telemetry is the folder of a run"),
        ({"telemetry": " "}, SettingError, "got ' '"),
    ],
)
def test_recipes_that_cannot_go_round_are_refused(place, change, error, words):
    plan = rounds(place) | change
    plan = {name: value for name, value in plan.items() if name != "train" or value is not None}
    with pytest.raises(error) as caught:
        dry_run(plan)
    assert words in str(caught.value)
