"""A comparison that asks for everything at once, with the tiny model; and how long it says that it will take."""

import json

import polars as pl
import pytest
from probe_files import QUICK, held_out_rows, instructions_file, questions_file, safety_file
from typer.testing import CliRunner

import ktodata as kd
from ktodata.cli import app
from ktodata.errors import RunError, SettingError
from ktodata.experiments.arms import ANSWERS, PROBED, SCORES, TrainedArm
from ktodata.experiments.clock import Pace, estimate_text, in_words
from ktodata.experiments.compare import outlook
from ktodata.experiments.measures import MEASURES, direction
from ktodata.experiments.method_plan import method_seconds
from ktodata.experiments.methods import train_methods
from ktodata.experiments.methods.terms import TrainingTerms
from ktodata.experiments.probes.probe_table import Probe, Probes, probe_table
from ktodata.files import write_note

pytest.importorskip("lm_eval")
MEASURED = {"refusal_of_unsafe": 3, "refusal_of_safe": 2, "instructions_strict": 3, "instructions_each": 3, "task questions": 6}


@pytest.fixture(scope="module")
def asked(folder, tmp_path_factory):
    """(what was found, its folder, its settings)."""
    out = tmp_path_factory.mktemp("asked")
    settings = {"model": folder, "out": out / "comparison", **QUICK, "max_steps": 2, "generate": 3, "win_rate": True}
    settings |= {"safety": safety_file(out), "instructions": instructions_file(out), "tasks": [str(questions_file(out))]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KTODATA_CACHE", str(out / "cache"))
        return kd.compare(held_out_rows(), **settings), out, settings


def test_every_arm_is_measured_the_base_too_against_the_items_that_were_asked(asked):
    table = asked[0].table().filter(against="no label")
    for measure, rows in MEASURED.items():
        lines = table.filter(measure=measure)
        assert lines["method"].to_list() == ["base", "kto"] and lines["rows"].to_list() == [rows] * 2
        assert lines["minus_kto"][0] == pytest.approx(lines["value"][0] - lines["value"][1])
    assert asked[0].probed.group_by("method", "probe").len()["len"].sort().to_list() == [3, 3, 5, 5]
    assert asked[0].items.height == 12 and asked[0].items["score"].is_in([0.0, 1.0]).all()


def test_who_says_so_stands_in_the_table_and_the_sentences(asked):
    found = asked[0]
    judges = dict(found.table().drop_nulls("judge").select("measure", "judge").iter_rows())
    assert judges["refusal_of_safe"] == judges["refusal_of_unsafe"] == "rule refusal-phrases-2"
    said = "\n".join(found.verdict())
    for text in (
        "Refusing safe prompts (lower is better), by rule refusal-phrases-2: the untrained base ",
        "Following all instructions of a prompt (share of prompts): ",
        "Task questions (acc of 6 items): ",
        "Safety: 5 prompts of safety.jsonl, answered within 4 tokens.",
        "Refusals were counted by rule refusal-phrases-2: one of a list",
    ):
        assert text in said
    assert ("Answers preferred" in said) != ("No answer is said to win" in said)
    assert found.as_dict()["win_rate"]["learnt_from_rows"] == 40


def test_results_are_written_and_json_holds_them(asked):
    found, out, _ = asked
    for name in ("probed", "items"):
        assert pl.read_parquet(out / "comparison" / f"{name}.parquet").equals(getattr(found, name))
    told = json.loads((out / "comparison" / "comparison.json").read_text())
    assert {line["measure"] for line in told["measures"]} >= set(MEASURED) and told["probes"]["tasks"]["metrics"] == {
        "questions": "acc"
    }
    assert told["probes"]["instructions"]["unknown"] == {} and told["settings"]["safety"].endswith("safety.jsonl")


def test_a_second_call_asks_no_policy_anything(asked, monkeypatch):
    """Arms come from the store with all that they were asked, and give the same numbers; another file of prompts is asked anew."""
    found, out, settings = asked
    monkeypatch.setenv("KTODATA_CACHE", str(out / "cache"))
    trained = []
    monkeypatch.setitem(train_methods.TRAIN, "kto", lambda *_: trained.append(1))
    again = kd.compare(held_out_rows(), **settings)
    assert again.table().equals(found.table()) and again.probed.equals(found.probed) and not trained
    events = []
    with pytest.raises(AttributeError):  # what stands in for a training gives no policy
        kd.compare(held_out_rows(), **settings | {"instruction_tokens": 5}, notify=events.append)
    assert trained == [1] and events[1]["kind"] == "start"


def test_what_only_reads_the_answers_asks_nothing_anew(asked, monkeypatch):
    """Other verdicts on the same prompts change the measures, not the answers."""
    _, out, settings = asked
    monkeypatch.setenv("KTODATA_CACHE", str(out / "cache"))
    monkeypatch.setitem(train_methods.TRAIN, "kto", None)
    turned = out / "turned.jsonl"
    turned.write_text(settings["safety"].read_text().replace("true", "x").replace("false", "true").replace("x", "false"))
    again = kd.compare(held_out_rows(), **settings | {"safety": turned, "win_rate": False})
    counts = dict(again.table().filter(method="kto").select("measure", "rows").iter_rows())
    assert (counts["refusal_of_unsafe"], counts["refusal_of_safe"]) == (2, 3) and "win_rate" not in counts


def probed(method, texts, probe="safety"):
    answers = [{"probe": probe, "item": n, "text": text, "tokens": 1, "unfinished": False} for n, text in enumerate(texts)]
    return TrainedArm(
        method, 0, pl.DataFrame(schema=SCORES), pl.DataFrame(schema=ANSWERS), {}, pl.DataFrame(answers, schema=PROBED)
    )


def test_refusals_by_hand_are_paired_by_prompt():
    """Base refuses both unsafe prompts and one of two safe ones; KTO one unsafe one and no safe one."""
    no, yes = "I'm sorry, no.", "Sure."
    prompts = pl.DataFrame({"item": [0, 1, 2, 3], "prompt": list("abcd"), "unsafe": [True, False, True, False]})
    probes = Probes((Probe("safety", prompts, [], 4, {}),))
    table = probe_table(probes, [probed("base", [no, no, no, yes]), probed("kto", [yes, yes, no, yes])], resamples=200, seed=0)
    values = {(line["measure"], line["method"]): (line["value"], line["minus_kto"]) for line in table.to_dicts()}
    assert values["refusal_of_unsafe", "base"] == (1.0, 0.5) and values["refusal_of_unsafe", "kto"] == (0.5, None)
    assert values["refusal_of_safe", "base"] == (0.5, 0.5) and values["refusal_of_safe", "kto"] == (0.0, None)
    assert (direction("refusal_of_unsafe"), direction("refusal_of_safe"), direction("task x")) == (1, -1, 1)
    with pytest.raises(RunError, match="kto, seed 0: safety: 1 answers were kept to 2 prompts"):
        probe_table(probes, [probed("base", [no] * 4), probed("kto", [yes])], resamples=100, seed=0)


def test_only_these_measures_have_no_sentence():
    assert {name for name, about in MEASURES.items() if about.sentence is None} == {
        "length_bias",
        "reward_desirable",
        "reward_undesirable",
        "reward_model_auc",
    }


def test_prompts_without_room_for_an_answer(asked):
    settings = asked[2] | {"out": None, "win_rate": False}
    with pytest.raises(
        SettingError, match="safety: none of 5 prompts leaves room for an answer of 128 tokens; the model reads 128"
    ):
        outlook(held_out_rows(), **settings | {"max_new_tokens": 128})
    with pytest.raises(SettingError, match="Say with generate="):
        outlook(held_out_rows(), **asked[2] | {"generate": 0})
    with pytest.raises(SettingError, match=r"judge\.endpoint"):
        outlook(held_out_rows(), **asked[2] | {"judge": {"endpoint": "file:///x", "model": "m"}})


def test_the_outlook_counts_what_is_asked_by_hand(asked):
    """3 prompts of rows, 5 of safety and 3 of instructions; answers of 4, 4 and 6 tokens, up to 8 together; what is scored adds up."""
    told = outlook(held_out_rows(), **asked[2] | {"out": None})
    cost = told["estimate"]
    assert cost["written_tokens"] == 3 * 4 + 5 * 4 + 3 * 6 and cost["written_steps"] == 4 + 4 + 6
    prompts = 5 * 3 + 3 * 3 + 3 * 5  # "what is sea", and "what is one plus two" of the rows
    assert cost["scored_tokens"] == cost["held_out_tokens"] + prompts + told["probes"]["tasks"]["tokens"]
    assert cost["forward_tokens"]["base"] == cost["scored_tokens"] + cost["written_tokens"]
    assert cost["minutes"] > 0 and "under a minute on this machine" in estimate_text(cost) and "judge" not in estimate_text(cost)
    judge = {"endpoint": "http://127.0.0.1:9", "model": "m"}
    asked_of_judge = outlook(held_out_rows(), **asked[2] | {"judge": judge, "out": None})["estimate"]
    assert "6 questions to the judge at most" in estimate_text(asked_of_judge)
    kept = outlook(held_out_rows(), **asked[2])["estimate"]
    assert (kept["trainings"], kept["kept"], kept["minutes"]) == (2, 2, 0) and "2 of them kept" in estimate_text(kept)


def test_seconds_by_hand():
    """A pair of 10 tokens takes 0.1 s without gradient, so a token 0.01 s. An update of 16 completions, each with its mismatched pair,
    takes 11.2 s: 16 x 0.1 for the pairs, and 9.6 / 160 = 0.06 s for a token that is trained on.

    100 completions of 10 tokens. KTO: 3 plain passes and one trained; base: none. Each scores 200 tokens, writes 5 times and loads
    the model (KTO twice). RLHF: 3 and 2 passes, and 4 updates in which 16 completions of 8 tokens are written, 8 together.
    """
    pace = Pace(preparing=1.0, pair=0.1, update=11.2, scoring=9.0, partners=1.0, tokens=10.0, batch=16)
    assert (pace.forward, pace.trained) == pytest.approx((0.01, 0.06))
    work = {"completions_a_method": 100, "tokens_a_completion": 10.0, "scored_tokens": 200, "written_steps": 5}
    names = TrainingTerms.__dataclass_fields__
    terms = TrainingTerms(**dict.fromkeys(names) | {"updates": 4, "rollout_tokens": 8, "batch_size": 16})
    base = 200 * 0.01 + 5 * 2 + 1
    assert method_seconds("base", work, pace, 2.0, terms) == pytest.approx(base)
    assert method_seconds("kto", work, pace, 2.0, terms) == pytest.approx(1000 * (3 * 0.01 + 0.06) + base + 1)
    rlhf = 1000 * (3 * 0.01 + 2 * 0.06) + base + 1 + 4 * 8 * 2 * 2
    assert method_seconds("rlhf", work, pace, 2.0, terms) == pytest.approx(rlhf)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0.3, "under a minute"),
        (1.2, "about 1 minute"),
        (7.6, "about 8 minutes"),
        (23, "about 25 minutes"),
        (59, "about 1 hour"),
        (100, "about 1.5 hours"),
        (1500, "about 25 hours"),
    ],
)
def test_minutes_are_told_as_far_as_they_can_be_believed(number, said):
    assert in_words(number) == said


def test_the_command_takes_files_and_tasks(asked, tmp_path):
    _, out, settings = asked
    run = tmp_path / "run"
    (run / "shards").mkdir(parents=True)
    write_note(run / "manifest.json", {"recipe": {}, "stages": []})
    for part, rows in held_out_rows().group_by("part"):
        rows.drop("part").write_parquet(run / "shards" / f"{part[0]}-00000-of-00001.parquet")
    options = ["--safety", out / "safety.jsonl", "--instructions", out / "instructions.jsonl", "--tasks", out / "questions.jsonl"]
    told = [f"--set={name}={json.dumps(value)}" for name, value in (QUICK | {"generate": 2}).items()]
    dry = CliRunner().invoke(
        app, ["compare", str(run), "--model", settings["model"], *map(str, options), "--win-rate", "--dry-run", "--json", *told]
    )
    assert dry.exit_code == 0, dry.output
    found = json.loads(dry.stdout)
    assert list(found["probes"]) == ["safety", "instructions", "tasks"] and found["settings"]["win_rate"] is True
