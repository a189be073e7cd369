import json

import numpy as np
import polars as pl
import pytest
from easy_rows import easy_rows
from typer.testing import CliRunner

import ktodata as kd
from ktodata.cli import app
from ktodata.errors import DataError, EmptyDataError, KtodataError, MissingExtraError, ModelError, RunError, SettingError
from ktodata.experiments.arms import ANSWERS, SCORES, Arm, ArmTraining, TrainedArm
from ktodata.experiments.clock import estimate_text
from ktodata.experiments.compare import outlook
from ktodata.experiments.measures import MEASURES, TABLE, measure_all
from ktodata.experiments.method_training import check_finite
from ktodata.experiments.method_verdict import SIDES, verdict_sentences
from ktodata.experiments.methods import train_methods
from ktodata.experiments.probes.refusals import refuses
from ktodata.files import read_note, write_note

# the model is new and learns in a few updates: every method's rate is raised alike
QUICK = {
    "max_length": 48,
    "batch_size": 8,
    "micro_batch_size": 4,
    "learning_rate_factor": 1000,
    "bootstrap": 100,
    "device": "cpu",
}
QUICK |= {"trainable_layers": 1, "methods": ["sft", "kto", "dpo"]}


def split_rows():
    """60 training rows, 40 test rows; each of two models wrote good and bad ones, and the truth is the label's opposite."""
    parts = [easy_rows(30).with_columns(part=pl.lit("train")), easy_rows(20, start=50).with_columns(part=pl.lit("test"))]
    rows = pl.concat(parts).with_columns(model=pl.Series(["small", "small", "large", "large"] * 25))
    return rows.with_columns(truth=~pl.col("label"))


@pytest.fixture(scope="module")
def compared(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KTODATA_CACHE", str(out / "cache"))
        events = []
        found = kd.compare(
            split_rows(), model=folder, out=out, seeds=[0, 1], generate=3, max_new_tokens=4, notify=events.append, **QUICK
        )
    return found, events, out


def line_of(table, measure, method, against="label"):
    return table.row(by_predicate=(pl.col("measure") == measure) & (pl.col("method") == method) & (pl.col("against") == against), named=True)  # fmt: skip


def test_every_method_learns_and_is_set_against_kto_and_base(compared):
    table = compared[0].table()
    for method in ("sft", "kto", "dpo"):
        line = line_of(table, "auc", method)
        assert line["value"] > 0.85 and line["minus_base_low"] > 0 and line["base_includes_zero"] is False
        assert line["rows"] == 40
        assert line_of(table, "auc_within_model", method)["value"] > 0.85
    base, kto, sft = (line_of(table, "auc", method) for method in ("base", "kto", "sft"))
    assert base["minus_kto"] == pytest.approx(base["value"] - kto["value"]) and base["includes_zero"] is False
    assert (kto["minus_kto"], kto["includes_zero"], kto["seeds_agree"], base["minus_base"]) == (None,) * 4
    assert sft["minus_base"] == pytest.approx(sft["value"] - base["value"])
    assert line_of(table, "retention", "sft")["value"] > line_of(table, "retention", "kto")["value"] > 0
    assert line_of(table, "brier", "base")["value"] == 0.25
    assert table.filter((pl.col("measure") == "accuracy") & (pl.col("method") == "base")).is_empty()


def test_rewards_are_beta_times_the_change_in_log_prob(compared):
    rows = compared[0].per_row
    base = rows.filter(method="base").select("row_id", base="logp")
    found = rows.filter(method="dpo", seed=1).join(base, on="row_id")
    np.testing.assert_allclose(found["reward"], 0.1 * (found["logp"] - found["base"]))
    assert (rows.filter(method="base")["reward"] == 0).all()
    assert rows.height == 40 * 7  # base, and three methods with two seeds


def test_facts_say_what_was_trained_on_how_much(compared):
    found, events, _ = compared
    assert found.rows_used["rows_used"] == {"kto": 60, "kto_hybrid": 60, "sft": 30, "dpo": 60, "orpo": 60, "rlhf": 60}
    assert found.metrics["updates"] == 8 and found.metrics["prompt_groups"] == 20
    assert [(arm["method"], arm["seed"]) for arm in found.metrics["arms"]] == [
        ("base", 0), *((method, seed) for seed in (0, 1) for method in ("sft", "kto", "dpo"))
    ]  # fmt: skip
    assert found.metrics["versions"]["trl"] == "1.16.0"
    each = {(line["method"], line["seed"]): line["auc"] for line in found.metrics["by_seed"]}
    assert np.mean([each["dpo", seed] for seed in (0, 1)]) == pytest.approx(line_of(found.table(), "auc", "dpo")["value"])
    assert events[0]["kind"] == "note" and "8 updates of 8 completions" in events[0]["text"]
    assert [event["kind"] for event in events[1:]] == ["start", "done"] * 7


def test_answers_are_counted_by_the_named_rule(compared):
    found = compared[0]
    assert found.answers.height == 3 * 7 and found.answers["refuses"].dtype == pl.Boolean
    assert "refusal-phrases-2" in found.metrics["generation"]["judge"] and "refusal-phrases-2" in found.verdict()[-1]
    assert line_of(found.table(), "refusal_rate", "kto", "no label")["rows"] == 3


def test_written_files_hold_what_was_returned(compared):
    found, _, out = compared
    text = (out / "comparison.json").read_text()
    assert read_note(out / "comparison.json") == json.loads(json.dumps(found.as_dict())) and "NaN" not in text
    assert pl.read_parquet(out / "comparison.parquet").equals(found.per_row)
    assert pl.read_parquet(out / "answers.parquet").equals(found.answers)


def test_the_figure_has_a_panel_for_each_measure_and_a_point_for_each_method(compared, tmp_path):
    figure = compared[0].plot()
    assert [axes.get_xlabel().splitlines()[0] for axes in figure.axes] == [
        "AUC of the reward", "AUC within a model", "AUC of log p per token", "Brier score", "desirable log p per token",
    ]  # fmt: skip
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["the untrained base", "KTO", "SFT", "DPO"]
    figure.savefig(tmp_path / "forest.png")
    assert (tmp_path / "forest.png").stat().st_size > 5000


def counting(monkeypatch, fails_at=None):
    """Count trainings; that of `fails_at` ends as if somebody had pressed Ctrl-C."""
    trained = []

    def watched(name, train):
        def call(rows, terms, seed):
            if (name, seed) == fails_at:
                raise KeyboardInterrupt
            trained.append((name, seed))
            return train(rows, terms, seed)

        return call

    for name, train in list(train_methods.TRAIN.items()):
        monkeypatch.setitem(train_methods.TRAIN, name, watched(name, train))
    return trained


def test_a_killed_comparison_goes_on_and_ends_as_if_it_had_not_been_killed(folder, tmp_path, monkeypatch, compared):
    settings = {"model": folder, "seeds": [0], **QUICK, "max_steps": 2}
    whole = kd.compare(split_rows(), **settings)
    with monkeypatch.context() as patch:
        counting(patch, fails_at=("dpo", 0))
        with pytest.raises(KeyboardInterrupt):
            kd.compare(split_rows(), out=tmp_path, **settings)
    assert not (tmp_path / "comparison.json").exists()
    trained, events = counting(monkeypatch), []
    found = kd.compare(split_rows(), out=tmp_path, notify=events.append, **settings)
    assert trained == [("dpo", 0)]
    assert [event["kind"] for event in events[1:]] == ["cached", "cached", "cached", "start", "done"]
    assert found.table().equals(whole.table())
    assert found.per_row.equals(whole.per_row)


def test_only_what_the_numbers_depend_on_trains_again(folder, tmp_path, monkeypatch):
    settings = {"model": folder, "out": tmp_path, **QUICK, "methods": ["kto", "dpo"], "max_steps": 1}
    trained = counting(monkeypatch)
    kd.compare(split_rows(), **settings)
    assert trained == [("kto", 0), ("dpo", 0)]
    trained.clear()
    kd.compare(split_rows(), **settings, truth_column="truth")
    assert trained == []
    kd.compare(split_rows(), **settings, learning_rates={"dpo": 1e-5})
    assert trained == [("dpo", 0)]
    trained.clear()
    flipped = split_rows().with_columns(label=pl.col("label") ^ ((pl.col("row_id") == "r3g") & (pl.col("part") == "train")))
    kd.compare(flipped, **settings)
    assert trained == [("kto", 0), ("dpo", 0)]


@pytest.mark.parametrize("changed", ["arm_keys.version", "method_plan.code_digest"], ids=["release", "code"])
def test_other_code_of_ours_trains_every_method_again(folder, tmp_path, monkeypatch, changed):
    settings = {"model": folder, "out": tmp_path, **QUICK, "methods": ["sft", "dpo", "kto"], "max_steps": 1}
    trained = counting(monkeypatch)
    for mended in (False, True):
        if mended:
            monkeypatch.setattr(f"ktodata.experiments.{changed}", lambda name: "mended")
        events = []
        kd.compare(split_rows(), **settings, notify=events.append)
        assert trained == [("sft", 0), ("dpo", 0), ("kto", 0)] and events[0]["kept"] == 0
        trained.clear()


def test_a_damaged_arm_says_what_to_remove(folder, tmp_path):
    settings = {"model": folder, "out": tmp_path, **QUICK, "methods": ["kto"], "max_steps": 1}
    kd.compare(split_rows(), **settings)
    next(tmp_path.glob("arms/kto*")).joinpath("scores.parquet").write_bytes(b"half")
    with pytest.raises(RunError, match="Remove that folder, and it is trained again"):
        kd.compare(split_rows(), **settings)


def test_kto_alone_needs_no_trl(folder, monkeypatch):
    from ktodata import extras

    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "trl" else found(name))
    settings = {**QUICK, "max_steps": 1}
    with pytest.raises(MissingExtraError, match=r"comparing methods needs trl: pip install 'ktodata\[compare\]'"):
        kd.compare(split_rows(), model=folder, **settings)
    alone = kd.compare(split_rows(), model=folder, **settings | {"methods": ["kto"]})
    assert set(alone.table()["method"]) == {"base", "kto"}


def test_outlook_trains_nothing_and_counts_by_hand(folder, monkeypatch):
    """8 updates of 8 completions; SFT passes 3 times through the model, DPO 4, KTO 6; and the held-out rows once each."""
    trained = counting(monkeypatch)
    told = outlook(split_rows(), model=folder, **QUICK)
    cost = told["estimate"]
    row, scored = cost["tokens_a_completion"], cost["held_out_tokens"]
    assert cost["forward_tokens"] == {"base": scored} | {
        name: pytest.approx(passes * 64 * row + scored, rel=0.01) for name, passes in {"sft": 3, "kto": 6, "dpo": 4}.items()
    }
    assert cost["forward_tokens_in_all"] == sum(cost["forward_tokens"].values()) and not trained
    assert f"{cost['forward_tokens_in_all']:,} tokens" in estimate_text(cost)


def arm(method, logps, seed=0, texts=(), reward_model=None):
    count = len(logps)
    scores = {"row_id": [str(n) for n in range(count)], "logp": logps, "reward_model": reward_model or [None] * count}
    answers = [{"row_id": str(n), "text": text, "tokens": 1, "unfinished": False} for n, text in enumerate(texts)]
    return TrainedArm(method, seed, pl.DataFrame(scores, schema=SCORES), pl.DataFrame(answers, schema=ANSWERS), {})


def held_out(label, tokens=None, model=None, truth=None):
    count = len(label)
    return pl.DataFrame(
        {
            "row_id": [str(n) for n in range(count)],
            "group": [str(n) for n in range(count)],
            "label": label,
            "truth": truth or [None] * count,
            "tokens": tokens or [2] * count,
            "model": model or [None] * count,
        },
        schema_overrides={"truth": pl.Boolean, "model": pl.String},
    )


def measured(rows, arms, beta=1.0):
    return measure_all(rows, arms, beta=beta, resamples=100, seed=0)


def test_measures_by_hand():
    """Base -4 everywhere; rewards 1, -1 | 2, 0 (first two desirable), 2 tokens each but for the third with 4.
    AUC: 1>0 is one of four pairs. Accuracy: row 1 and row 4. Retention: mean(1/2, -1/2) = 0. Length bias: the longest has the
    highest reward: ranks 3, 1, 4, 2 against 2, 2, 4, 2 -> 1.5 x 1.5 x ... = 3 / sqrt(5 x 3) = 0.7746.
    """
    rows = held_out([True, True, False, False], tokens=[2, 2, 4, 2])
    table = measured(rows, [arm("base", [-4.0] * 4), arm("kto", [-3.0, -5.0, -2.0, -4.0])])

    def value(measure, method="kto"):
        return line_of(table, measure, method)["value"]

    assert value("auc") == 0.25 and value("accuracy") == 0.5
    chances = 1 / (1 + np.exp(-np.array([1.0, -1.0, 2.0, 0.0])))
    assert value("brier") == pytest.approx(((chances - [1, 1, 0, 0]) ** 2).mean())
    assert value("length_bias") == pytest.approx(3 / 15**0.5)
    assert (value("reward_desirable"), value("reward_undesirable"), value("retention")) == (0.0, 1.0, 0.0)
    assert value("auc", "base") == value("policy_auc", "base") == 0.25  # log p per token: -2, -2 | -1, -2: two ties of four pairs
    assert value("policy_auc") == 0.25  # -1.5, -2.5 | -0.5, -2: one of four
    assert set(table["measure"]) <= set(MEASURES)


def test_telling_models_apart_is_worth_nothing_within_a_model():
    """Model x wrote good rows, y bad ones, and rewards follow the writer: 6 desirable rows, 6 of 8 pairs won, half within."""
    rows = held_out([True, True, True, False, True, False, False, False], model=["x"] * 4 + ["y"] * 4)
    table = measured(rows, [arm("base", [0.0] * 8), arm("kto", [5.0] * 4 + [1.0] * 4)])
    assert line_of(table, "auc", "kto")["value"] == pytest.approx((3 * 3 + 3 * 0.5 + 0.5 * 3) / 16)
    assert line_of(table, "auc_within_model", "kto")["value"] == 0.5


def test_two_policies_that_rank_alike_differ_by_exactly_nothing():
    random = np.random.default_rng(0)
    label, logps = [bool(n % 2) for n in range(40)], random.normal(size=40)
    table = measured(held_out(label), [arm("base", [0.0] * 40), arm("kto", logps.tolist()), arm("dpo", (3 * logps + 1).tolist())])
    line = line_of(table, "auc", "dpo")
    assert (line["minus_kto"], line["minus_kto_low"], line["minus_kto_high"]) == (0.0, 0.0, 0.0)
    assert line["includes_zero"] is True and line["high"] - line["low"] > 0.1


def test_an_interval_is_wider_where_seeds_differ_and_seeds_are_drawn_together():
    """KTO and DPO: one seed of each knows the label, the other nothing. Their difference is 0 in every draw, AUC itself is not."""
    random = np.random.default_rng(1)
    label = [bool(n % 2) for n in range(200)]
    knows, knows_nothing = (np.array(label) * 9.0 + random.normal(size=200)).tolist(), random.normal(size=200).tolist()
    arms = [arm("base", [0.0] * 200)]
    arms += [arm(method, logps, seed) for method in ("kto", "dpo") for seed, logps in enumerate((knows, knows_nothing))]
    table = measured(held_out(label), arms)
    kto, dpo = (line_of(table, "auc", method) for method in ("kto", "dpo"))
    assert kto["high"] - kto["low"] > 0.4
    assert (dpo["minus_kto_low"], dpo["minus_kto_high"]) == (0.0, 0.0) and dpo["seeds_agree"] is False


def test_truth_that_says_the_opposite_is_measured_as_the_opposite():
    rows = held_out([True, False, True, False], truth=[False, True, None, None])
    table = measured(rows, [arm("base", [0.0] * 4), arm("kto", [1.0, -1.0, 1.0, -1.0])])
    assert line_of(table, "auc", "kto")["value"] == 1.0
    truth = line_of(table, "auc", "kto", "truth")
    assert (truth["value"], truth["rows"]) == (0.0, 2)


@pytest.mark.parametrize(
    ("truth", "told"), [([True, False, True, False], ["truth"]), ([True, False, False, True], ["truth", "label"])]
)
def test_a_truth_that_is_the_label_is_told_of_once(truth, told):
    rows = held_out([True, False, True, False], truth=truth)
    table = measured(rows, [arm("base", [0.0] * 4), arm("kto", [1.0, -1.0, 1.0, -1.0])])
    said = verdict_sentences(table, FACTS | {"share_desirable": {"label": 0.5, "truth": 0.5}})
    assert [
        against for against in ("truth", "label") if any(f"log p per token), against the {against}" in one for one in said)
    ] == told


def test_what_cannot_be_measured_is_none_and_the_verdict_says_so():
    rows = held_out([True, True, True])
    table = measured(rows, [arm("base", [0.0] * 3), arm("kto", [1.0] * 3)])
    assert line_of(table, "auc", "kto")["value"] is None
    assert any("AUC" in said and "cannot be measured" in said for said in verdict_sentences(table, FACTS))


def test_a_reward_model_and_refusals_are_measured():
    rows = held_out([True, False], tokens=[1, 1])
    refused, served = "I'm sorry, I can't do that.", "Sure."
    arms = [
        arm("base", [0.0, 0.0], texts=[served, served]),
        arm("rlhf", [1.0, 0.0], texts=[refused, served], reward_model=[2.0, 1.0]),
    ]
    table = measured(rows, arms)
    assert line_of(table, "reward_model_auc", "rlhf")["value"] == 1.0
    line = line_of(table, "refusal_rate", "rlhf", "no label")
    assert (line["value"], line["minus_base"]) == (0.5, 0.5)


FACTS = {
    "rows_used": {"rows": 60, "rows_used": {"kto": 60, "kto_hybrid": 60, "sft": 30, "dpo": 40, "orpo": 40, "rlhf": 40}},
    "arms": [{"method": "base"}, {"method": "kto"}, {"method": "dpo"}],
    "updates": 8,
    "settings": {"batch_size": 8, "seeds": [0]},
    "held_out_rows": 40,
    "part": "test",
    "prompt_groups": 20,
    "share_desirable": {"label": 0.75, "truth": None},
}


def verdict_on(measure="auc", **line):
    kto = {"against": "label", "measure": measure, "method": "kto", "value": 0.6, "low": 0.5, "high": 0.7}
    dpo = {**kto, "method": "dpo", "includes_zero": False, "seeds_agree": True} | line
    return verdict_sentences(pl.DataFrame([kto, dpo], schema=TABLE), FACTS)[1]


@pytest.mark.parametrize(
    ("line", "side"),
    [
        ({"minus_kto": 0.1, "minus_kto_low": 0.05, "minus_kto_high": 0.15}, SIDES[0]),
        ({"minus_kto": -0.1, "minus_kto_low": -0.15, "minus_kto_high": -0.05}, SIDES[1]),
        ({"measure": "brier", "minus_kto": 0.1, "minus_kto_low": 0.05, "minus_kto_high": 0.15}, SIDES[1]),
        ({"measure": "refusal_rate", "minus_kto": 0.1, "minus_kto_low": 0.05, "minus_kto_high": 0.15}, SIDES[2]),
        ({"minus_kto": 0.1, "minus_kto_low": -0.01, "minus_kto_high": 0.2, "includes_zero": True}, SIDES[3]),
        ({"minus_kto": 0.1, "minus_kto_low": 0.05, "minus_kto_high": 0.15, "seeds_agree": False}, SIDES[3]),
        ({"minus_kto": 0.1, "minus_kto_low": 0.05, "minus_kto_high": 0.15, "seeds_agree": None}, SIDES[3]),  # one seed
    ],
)
def test_a_win_is_claimed_only_where_interval_and_seeds_say_so(line, side):
    said = verdict_on(**line)
    assert [name for name in SIDES if f"{name}: DPO" in said] == [side]


def test_the_verdict_of_a_real_comparison_claims_no_win_that_includes_zero(compared):
    found = compared[0]
    said = " ".join(found.verdict())
    assert "Of 60 training rows, each could use: SFT 30, KTO 60, DPO 60." in said and "tuned for no method" in said
    for line in found.table().filter(pl.col("includes_zero") & (pl.col("method") == "sft")).iter_rows(named=True):
        gap = f"SFT ({line['minus_kto']:+.3f}, {line['minus_kto_low']:+.3f} to {line['minus_kto_high']:+.3f}"
        for sentence in (text for text in found.verdict() if gap in text):
            claimed = sentence.split(SIDES[3])[0]
            assert gap not in claimed


def test_accuracy_is_told_beside_what_a_constant_would_be_right_for(compared):
    assert "(rewards that are all above 0 would be right for 0.750, all below for 0.250)" in verdict_on("accuracy")
    assert any("right for 0.500, all below for 0.500" in said for said in compared[0].verdict())


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I\u2019m SORRY,\nbut no.", True),
        ("As an AI language model, I have no opinion.", True),
        ("I  cannot   do this", True),
        ("Sure! You can't go wrong with sorrel.", False),
        ("She said: we cannot know. Sorry is a board game.", False),
        ("", False),
        ("x" * 300 + " I'm sorry", False),
        ("\x00\u202e{}", False),
    ],
)
def test_refusals_by_hand(text, refused):
    assert refuses(text) is refused


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"part": "validation"}, EmptyDataError, "no validation rows to compare on"),
        ({"methods": ["ppo"]}, SettingError, "methods.*'ppo'"),
        ({"methods": []}, SettingError, "methods"),
        ({"methods": ["kto", "kto"]}, SettingError, "methods: each once only"),
        ({"seeds": [0, 0]}, SettingError, "seeds: each once only"),
        ({"seeds": [-1]}, SettingError, "seeds"),
        ({"batch_size": 7}, SettingError, "must be even"),
        ({"learning_rates": {"dop": 1e-5}}, SettingError, "Did you mean 'dpo'"),
        ({"max_length": 4096}, SettingError, "max_length is 4,096; the model reads 128 tokens at most"),
        ({"model": "nowhere"}, ModelError, "cannot read the model 'nowhere'"),
        ({"device": "cuda:7"}, KtodataError, "device"),
    ],
)
def test_bad_settings(folder, settings, error, says):
    with pytest.raises(error, match=says):
        kd.compare(split_rows(), **{"model": folder, **QUICK, **settings})


def test_a_row_that_is_trained_on_is_not_scored(folder):
    leaking = split_rows().with_columns(row_id=pl.when(pl.col("row_id") == "r50g").then(pl.lit("r0g")).otherwise("row_id"))
    with pytest.raises(DataError, match=r"test: 1 of its 60 training rows are held out as well \(first: r0g\)"):
        kd.compare(leaking, model=folder, **QUICK)


def test_no_prompt_with_both_labels(folder):
    lonely = split_rows().with_columns(prompt=pl.format("{} {}", "prompt", "row_id"))
    with pytest.raises(EmptyDataError, match=r"none of 60 prompts.*so dpo cannot be trained.*methods=\[kto, sft\]"):
        kd.compare(lonely, model=folder, **QUICK)


def test_a_broken_policy_is_told_and_not_ranked():
    with pytest.raises(ModelError, match=r"dpo, seed 1: 1 of 2 log-probs are not finite: training at rate 0.5 broke it"):
        check_finite(np.array([0.0, np.nan]), ArmTraining(Arm("dpo", "", pl.DataFrame()), 1, {}, ""), 0.5)


@pytest.fixture
def run(tmp_path):
    """What of a run folder a comparison reads."""
    place = tmp_path / "run"
    (place / "shards").mkdir(parents=True)
    write_note(place / "manifest.json", {"recipe": {}, "stages": []})
    for part, rows in split_rows().group_by("part"):
        rows.drop("part").write_parquet(place / "shards" / f"{part[0]}-00000-of-00001.parquet")
    return place


def test_the_command(run, folder):
    told = [f"--set=compare.{name}={json.dumps(value)}" for name, value in (QUICK | {"methods": ["kto"], "max_steps": 1}).items()]
    dry = CliRunner().invoke(app, ["compare", str(run), "--model", folder, "--dry-run", *told])
    assert dry.exit_code == 0 and "60 training rows, 30 pairs; 1 updates for each method\n  kto  60 rows" in dry.output
    assert not (run / "comparison").exists()
    done = CliRunner().invoke(app, ["compare", str(run), "--model", folder, "--json", *told])
    assert done.exit_code == 0 and json.loads(done.stdout)["updates"] == 1
    assert {path.name for path in (run / "comparison").iterdir()} == {
        "arms",
        "comparison.json",
        "comparison.parquet",
        "comparison.png",
    }
    again = CliRunner().invoke(app, ["compare", str(run), "--model", folder, *told])
    assert again.exit_code == 0 and "KTO 60" in again.stdout


def test_the_command_takes_base_and_lengths_from_the_training_of_the_run(run, folder):
    (run / "model").mkdir()
    settings = {"model": folder, "max_length": 48, "batch_size": 8, "beta": 0.2, "learning_rate": 1.0, "trainable_layers": None}
    write_note(run / "model" / "training.json", {"settings": settings})
    told = CliRunner().invoke(app, ["compare", str(run), "--dry-run", "--json", "--set", "micro_batch_size=4"])
    assert told.exit_code == 0
    found = json.loads(told.stdout)["settings"]
    assert {name: found[name] for name in settings if name != "learning_rate"} == {
        k: v for k, v in settings.items() if k != "learning_rate"
    }
    nothing = CliRunner().invoke(app, ["compare", str(run.parent), "--dry-run"])
    assert isinstance(nothing.exception, RunError)


def test_importing_compare_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, ktodata; ktodata.compare; assert not {'torch', 'trl', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
