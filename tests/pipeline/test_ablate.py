"""`kd.ablate` on a set whose truth is known: every arm has its control, all make the same updates, and better labels win."""

import json
import sys

import numpy as np
import polars as pl
import pytest
from tiny_models import save_tiny_llama

import ktodata as kd
from ktodata import cli
from ktodata.errors import DataError, RunError
from ktodata.experiments import ablation as experiment
from ktodata.experiments.ablation import Ablation, kto_seconds, pool
from ktodata.experiments.arms import Arm, ArmTraining
from ktodata.experiments.clock import Pace, TimeLeft
from ktodata.experiments.experiment import ExperimentPlan
from ktodata.experiments.treatments import CLEAN, NOISY, expected_flip_rates, repaired_rows
from ktodata.feedback import feedback_table
from ktodata.pipeline.ablate import plan_of_run
from ktodata.pipeline.audit import LabelAudit

DISHES = ("soup", "bread", "rice", "beans", "cake", "stew", "salad", "pie", "noodles", "omelette")
TERMS = {"max_steps": 8, "batch_size": 16, "learning_rate": 1e-3, "trainable_layers": 1, "max_length": 48, "device": "cpu"}


def rows(count, start=0):
    """Help or refusal; the truth is help."""
    made = []
    for n in range(start, start + count):
        dish, helps = DISHES[n % 10], n % 3 > 0
        text = f"take the pan and cook the {dish} for {n % 7} minutes" if helps else f"sorry i cannot talk about {dish}"
        made.append({"prompt": f"how do i make {dish} way {n} ?", "completion": text, "label": helps, "source_id": str(n)})
    return feedback_table(*made).with_columns(row_id=pl.format("r{}", "source_id"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def sides():
    """(training rows with 85 % flipped labels: they teach the opposite, their truth, held-out rows)."""
    clean = rows(240)
    truth = dict(clean.select("row_id", "label").iter_rows())
    wrong = np.random.default_rng(0).random(240) < 0.85
    noisy = clean.with_columns(label=pl.col("label") ^ pl.Series(wrong))
    return noisy, truth, rows(90, start=240).with_columns(truth="label")


@pytest.fixture(scope="module")
def found(sides, model, tmp_path_factory):
    noisy, truth, held_out = sides
    audit, events = kd.audit(noisy, repeats=1), []
    folder = tmp_path_factory.mktemp("arms")
    arguments = {"model": model, "truth": truth, "budgets": [0.2], "seeds": [0, 1], "train": TERMS, "folder": folder}
    return kd.ablate(audit, held_out, **arguments, notify=events.append), audit, arguments, events


def test_true_labels_win_and_every_treatment_has_its_control(found):
    ablation, _, _, events = found
    table = ablation.table.filter(measure="auc")
    arms = table["arm"].to_list()
    assert {
        NOISY,
        CLEAN,
        "wrong rows dropped",
        "20% reviewed, soft labels",
        "20% reviewed, repaired",
        "20% reviewed at random",
    } <= set(arms)
    for dropped in ("confident learning, dropped", "likely wrong, dropped"):
        if dropped in arms:
            control = "confident learning's count" if "confident" in dropped else "the audit's count"
            twin = table.filter(arm=f"dropped at random, {control}")
            assert twin["rows"][0] == table.filter(arm=dropped)["rows"][0] < table.filter(arm=NOISY)["rows"][0]
    line = {row["arm"]: row for row in table.iter_rows(named=True)}
    assert line[CLEAN]["value"] > 0.9 and line[CLEAN]["differs"] and line[CLEAN]["minus_baseline"] > 0
    assert line["wrong rows dropped"]["gap_recovered"] > 0.5
    assert line[NOISY]["seeds"] == 2
    estimate, *each = events
    assert estimate["kind"] == "note" and estimate["trainings"] == len(arms) * 2 and not estimate["kept"]
    assert estimate["updates"] == TERMS["max_steps"] and estimate["minutes"] > 0
    begun = [event for event in each if event["kind"] != "done"]
    assert [event["number"] for event in begun] == list(range(1, len(arms) * 2 + 1)) and begun[0]["kind"] == "start"
    assert {(event["arm"], event["seed"]) for event in begun} == {(arm, seed) for arm in arms for seed in (0, 1)}
    assert begun[0]["seconds_left"] == pytest.approx(estimate["minutes"] * 60)
    assert each[-1]["seconds_left"] == pytest.approx(0, abs=1e-6)
    assert any(told.startswith(f"{CLEAN}: better") for told in ablation.verdict())
    json.dumps(ablation.as_dict())
    assert len(ablation.plot().axes[0].get_yticklabels()) == len(arms) - 1


def test_what_was_trained_is_not_trained_again(found, sides, monkeypatch):
    ablation, audit, arguments, _ = found

    for name in ("train_treatment", "measure_pace"):
        monkeypatch.setattr(experiment, name, lambda *_: pytest.fail("trained again"))
    events: list[dict] = []
    again = kd.ablate(audit, sides[2], **arguments, notify=events.append)
    assert again.table.equals(ablation.table)
    estimate, *each = events
    assert estimate["kept"] == estimate["trainings"] == len(each) and estimate["minutes"] == 0
    assert {(event["kind"], event["seconds_left"]) for event in each} == {("cached", 0)}
    assert estimate["text"].endswith("nothing is left to train")


def test_the_estimate_counts_what_is_left_to_train():
    """By hand: 2 updates of 4 rows, 6 held-out rows, half a partner to each row that is trained on or scored: 7 mismatched pairs."""
    pace = Pace(preparing=100, pair=1, update=10, scoring=2, partners=0.5, tokens=30)
    training = ArmTraining(Arm("one", "", rows(20)), 0, {"max_steps": 2, "batch_size": 4}, "key")
    own = 2 * 4 + 6  # paid for by the first that is trained, as all train on and score the same rows
    each = 100 + 7 + 2 * 10 + 6 * 2
    assert [kto_seconds(training, 6, pace, first=first) for first in (True, False)] == [each + own, each]


def test_only_the_first_of_a_key_that_is_not_kept_takes_time(tmp_path):
    class Plan(ExperimentPlan):
        def train(self, training):
            raise NotImplementedError

        def expect(self, left):
            return [float(training.seed) for training in left], {}

    (tmp_path / "any-seed0-kept").mkdir()
    names = ("kept", "left", "left", "too")  # two come to the same
    trainings = [ArmTraining(Arm(f"arm {seed}", "", rows(2)), seed, {}, name) for seed, name in enumerate(names, 1)]
    cost = Plan(trainings, rows(2), {}, tmp_path).cost
    assert cost == {"trainings": 4, "kept": 1, "seconds": [0, 2, 0, 4], "minutes": 6 / 60}


def test_the_time_to_go_follows_what_trainings_took():
    left = TimeLeft([10.0, 0.0, 20.0])
    assert left.as_event()["seconds_left"] == 30
    left.took(0, 30.0)  # three times what was expected, and so may be the rest
    assert left.as_event() == {"seconds_left": 60, "text": "about 1 minute to go"}


def test_only_the_families_asked_for_are_trained_and_the_table_says_which(found, sides):
    ablation, audit, arguments, _ = found
    few = kd.ablate(audit, sides[2], **(arguments | {"families": ["true", "reviewed at random"]}))
    assert few.table.filter(measure="auc").select("arm", "family", "budget").rows() == [
        (NOISY, "as given", None),
        (CLEAN, "true", None),
        ("20% reviewed at random", "reviewed at random", 0.2),
    ]
    families = dict(ablation.table.filter(measure="auc").select("arm", "family").iter_rows())
    assert families["20% reviewed, soft labels"] == "reviewed" and families["wrong rows dropped"] == "oracle"
    assert ablation.table["family"].null_count() == 0


def test_parts_with_rows_of_their_own_are_pooled(found, sides):
    """Cross-validation: the value is the mean of the parts', and each part's rows count."""
    _, audit, arguments, _ = found
    halves = [sides[2][:45], sides[2][45:]]
    parts = [kd.ablate(audit, half, **(arguments | {"families": ["true"], "seeds": [seed]})) for seed, half in enumerate(halves)]
    whole = pool(parts)
    assert whole.settings["seeds"] == [0, 1] and whole.held_out.height == 90
    each = [part.table.filter(arm=CLEAN, measure="auc")["value"][0] for part in parts]
    assert whole.table.filter(arm=CLEAN, measure="auc")["value"][0] == pytest.approx(np.mean(each))
    assert whole.table["says"].null_count() == 0


def test_flip_rates_are_what_is_expected_of_the_rows_asked_about():
    labels = np.array([True, True, False, False, True])
    here = np.array([True, True, True, True, False])
    rates = expected_flip_rates(labels, np.array([0.9, 0.5, 0.4, 0.2, 0.0]), here)
    assert rates == pytest.approx({"desirable": 0.6 / 2.0, "undesirable": 0.6 / 2.0})


def test_repairing_drops_what_may_be_wrong_and_relabels_what_likely_is():
    table = pl.DataFrame({"row_id": ["sure", "doubted", "even", "wrong"], "label": [True, True, False, False]})
    assert repaired_rows(table, pl.Series([0.1, 0.3, 0.5, 0.9])).rows() == [("sure", True), ("wrong", True)]


def test_without_truth_the_arms_that_need_it_are_left_out(found, sides, model, monkeypatch):
    _, audit, arguments, _ = found
    monkeypatch.setattr(LabelAudit, "features_of_trained", lambda _: pytest.fail("reviews were prepared that cannot be played"))
    told = kd.ablate(audit, sides[2], **(arguments | {"truth": None, "seeds": [0]}))
    assert not {CLEAN, "wrong rows dropped"} & set(told.table["arm"])
    assert told.table["gap_recovered"].null_count() == told.table.height


def test_training_on_a_held_out_row_is_refused(found, sides):
    _, audit, arguments, _ = found
    leaked = pl.concat([sides[2], audit.table.select(sides[0].columns).head(1).with_columns(truth="label")])
    with pytest.raises(DataError, match="1 of its 240 training rows are held out as well"):
        kd.ablate(audit, leaked, **arguments)
    one_class = sides[2].filter("truth")
    with pytest.raises(DataError, match="both true and false are needed"):
        kd.ablate(audit, one_class, **arguments)


def test_a_run_is_ablated_by_the_truth_that_its_recipe_names(model, tmp_path, monkeypatch, capsys):
    table = pl.concat([rows(200), rows(60, start=200)])
    flipped = np.random.default_rng(1).random(table.height) < 0.3
    lines = table.select("prompt", "completion", "label", id="source_id").with_columns(label=pl.col("label") ^ pl.Series(flipped))
    lines.write_ndjson(tmp_path / "rows.jsonl")
    table.select(id="source_id", truth="label").write_ndjson(tmp_path / "truth.jsonl")
    recipe = {
        "name": "dishes",
        "ingest": {"paths": ["rows.jsonl"], "source_id": "id"},
        "steps": ["validate", "dedupe", {"split": {"test": 0.3, "validation": 0}}, "embed", {"label_noise": {"repeats": 1}}],
        "train": {"model": model} | TERMS,
        "evaluate": {"truth": {"path": "truth.jsonl", "id": "id", "label": "truth"}},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    run = kd.run(tmp_path / "recipe.json", out=tmp_path / "run", until="export")
    typed = ["ktodata", "ablate", str(run.folder), "--seeds", "1", "--review-share", "0.2", "--set", "train.max_steps=2"]

    def entered(*more):
        monkeypatch.setattr(sys, "argv", [*typed, *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        return out, err

    out, _ = entered("--dry-run")
    assert "20% reviewed at random" in out and "2 updates of 16 completions each" in out and "that were timed" in out
    assert not (run.folder / "ablation.json").exists() and not (run.folder / "ablation").exists()
    out, err = entered()
    assert f"{CLEAN}: " in out and "20% reviewed at random: " in out
    assert "that were timed" in err and f"{CLEAN}, seed 0: " in err and "s; under a minute to go" in err
    told = json.loads((run.folder / "ablation.json").read_text())
    assert told["settings"]["judged_by"] == "truth"
    assert told["settings"]["max_steps"] == 2 and told["settings"]["batch_size"] == TERMS["batch_size"]
    assert told["settings"]["kl_pairs_per_batch"] == 8
    assert {arm["rows"] for arm in told["arms"] if arm["arm"] == NOISY} == {
        run.stage("label_noise").metrics["rows"]["learnt_from"]
    }
    out, _ = entered("--dry-run", "--json")
    outlook = json.loads(out)
    assert {arm["kept"] for arm in outlook["arms"]} == {1} and outlook["estimate"]["minutes"] == 0
    with pytest.raises(RunError, match="holds out no validation rows"):
        plan_of_run(run.folder, part="validation")


@pytest.mark.parametrize("differs", [True, False])
def test_a_gap_that_may_be_chance_is_said_to_be_one(differs):
    line = {"arm": CLEAN, "measure": "auc", "minus_baseline": 0.1, "minus_low": 0.0, "minus_high": 0.2, "gap_recovered": None}
    table = pl.DataFrame([line | {"differs": differs, "seeds": 2}], schema_overrides={"gap_recovered": pl.Float64})
    said = Ablation(table, pl.DataFrame(), pl.DataFrame(), {}).verdict()
    assert ("a share of that gap is unknown" in said[-1]) is not differs
