"""A small run folder written by hand, so that a test knows every number on the page."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from ktodata.feedback import feedback_table
from ktodata.files import read_note, write_note
from ktodata.labels.people.drift import SCHEMA as DRIFT_SCHEMA
from ktodata.ledger import StageDecisions, account, outcomes, write_up
from ktodata.stage import decide

# of each rater: how often right, and its interval
ENDS = {"": [0.9, 0.92, 0.2, 0.8], "_low": [0.8, 0.85, 0.1, 0.3], "_high": [0.95, 0.97, 0.4, 0.99]}
PROOF = ("dedupe", "split", "label_noise", "export", "evaluate")  # of a run: what the proof needs, and no more to draw
HOSTILE = (
    "<script>window.pwned=1;document.title='pwned'</script>",
    "</script></style></title><img src=x onerror=\"document.title='pwned'\">",
    "<a href=\"javascript:document.title='pwned'\">javascript:alert(1)</a>",
    "abc \u202edcba right to left \u2066isolate",
    "x" * 100_000,
    "nul \x00 and bell \x07 and escape \x1b[31m",
    "{{ 7 * 7 }} {% for a in b %} {# no #}",
    "$\\frac{1}{2}$ and $unclosed",
    "--> ]]> &lt; &amp; ' \" ` | * _ [link](http://x)\n---\nlicense: evil\n---",
)


def rows(count=60):
    """Prompts on three subjects, every fourth undesirable; the hostile texts come first, as prompts and as completions."""
    subjects = ("sums", "dates", "lists")
    made = [
        {"prompt": f"{subjects[n % 3]} question {n}", "completion": f"answer {n}", "label": n % 4 != 0, "rater": f"rater {n % 3}"}
        for n in range(count)
    ]
    for number, text in enumerate(HOSTILE):
        made[number] |= {"prompt": text, "completion": f"{text} (again)", "rater": text[:200], "source": text[:200]}
    return feedback_table(*made)


def noted(path, facts):
    """A note of these facts and of all tables that stand beside it now."""
    write_note(path, facts, sorted(path.parent.glob("*.parquet")))


def renoted(path, change=lambda facts: facts):
    """The note again, with its facts changed, of the tables that stand beside it now."""
    noted(path, change(read_note(path)))


def write_run(
    folder: Path,
    *,
    stages=("dedupe", "split", "label_noise", "rebalance", "coverage", "export", "train", "evaluate"),
    dated=False,
) -> Path:
    """A run of 62 rows in: 2 quarantined; of 60 rows 5 dropped as repeats, 9 held for review, 46 exported (36 + 4 + 6).

    dated : each row a day after the one before it, from 2025-03-01
    """
    feedback = rows()
    if dated:
        feedback = feedback.with_columns(created_at=pl.datetime(2025, 3, 1, time_zone="UTC") + pl.duration(days=pl.int_range(60)))
    folder.mkdir(parents=True, exist_ok=True)
    _stage(folder, "ingest", feedback, {"rows": 60})
    _quarantine().write_parquet(folder / "quarantine.parquet")
    ids = feedback["row_id"]
    repeats, doubted = ids[20:25], ids[:9]
    marked = feedback.select("row_id").with_columns(of=pl.lit(ids[30]), similarity=pl.lit(0.91), label_quality=pl.lit(0.07))
    decided = []
    if "dedupe" in stages:
        is_repeat = pl.col("row_id").is_in(repeats.implode())
        decisions = decide(marked, is_repeat, action="drop", reason="near_repeat", evidence=["similarity"], caused_by="of")
        decided.append(StageDecisions("dedupe", "all", decisions))
        columns = marked.select(
            "row_id",
            duplicate_of=pl.when(is_repeat).then("of"),
            duplicate_similarity=pl.when(is_repeat).then("similarity"),
            contradicted=pl.col("row_id") == ids[40],
            pooled_votes=pooled_votes(feedback, repeats),
        )
        _stage(folder, "dedupe", columns, {"near_repeats": 5})
    if "label_noise" in stages:
        is_doubted = pl.col("row_id").is_in(doubted.implode())
        decisions = decide(marked, is_doubted, action="review", reason="doubted_label", evidence=["label_quality"])
        decided.append(StageDecisions("label_noise", "train", decisions))
        curve = {"given": [True] * 3, "rows_acted_on": [1, 5, 20], "expected_precision": [1.0, 0.9, 0.4]}
        ends = {"expected_precision_low": [0.9, 0.8, 0.3], "expected_precision_high": [1.0, 1.0, 0.5]}
        tables = {"trust_curve": pl.DataFrame(curve | ends), **judged_tables(ids)}
        _stage(folder, "label_noise", _noise(feedback, doubted), NOISE_FACTS, **tables)
    part = pl.DataFrame({"row_id": ids, "part": ["train"] * 50 + ["validation"] * 4 + ["test"] * 6})
    states = outcomes(ids, decided, part=part if "split" in stages else None, split_follows=False)
    exported = states.filter(pl.col("state").is_in(["keep", "relabel"])).select("row_id").join(part, on="row_id")
    if "split" in stages:
        _stage(folder, "split", part, {})
    if "rebalance" in stages:
        _stage(folder, "rebalance", marked.select("row_id", weight=pl.lit(1.0)), REBALANCE_FACTS)
    if "coverage" in stages:
        _coverage(folder, feedback)
    complete = "export" in stages
    if complete:
        counts = dict(exported.group_by("part").len().iter_rows())
        _stage(folder, "export", exported, {"rows": counts, "desirable": counts, "license": "cc-by-4.0"})
    if "train" in stages:
        _train(folder, feedback)
    if "evaluate" in stages:
        noted(folder / "evaluation.json", EVALUATION)
        _stage(folder, "evaluate", pl.DataFrame({"row_id": ids}), EVALUATION)
    ledger = write_up(decided, states if complete else states.clear(), exported)
    ledger.write_parquet(folder / "ledger.parquet")
    manifest = {
        "name": "small <b>run</b> \ud800",  # a lone surrogate can stand in JSON, and nowhere else
        "status": "done",
        "seed": 7,
        "recipe": {"name": "small", "export": {"license": "cc-by-4.0"}},
        "versions": {"ktodata": "0.1.0", "polars": "1"},
        "inputs": [{"name": "feedback.jsonl", "bytes": 12_345, "sha256": "0123456789abcdef"}],
        "encoder": "packaged:wordllama-256",
        "device": {"embed": "cpu"},
        "rows": account(ledger, ids, exported, quarantined_records=2) if complete else {},
        "stages": [{"name": name, "seconds": 0.5, "cached": False} for name in ("ingest", *stages)],
    }
    noted(folder / "manifest.json", manifest)
    return folder


NOISE_FACTS = {
    "rows_to_judge": 9,
    "injected_flips": {
        "auroc_averaged_over_given_classes": {"value": 0.93, "low": 0.91, "high": 0.95},
        "per_given_class": {
            "desirable": {
                "rows": 45,
                "flagged": 6,
                "basis": "injected flips",
                "error_rate_assumed": 0.05,
                "expected_precision": {"value": 0.85, "low": 0.8, "high": 0.9},
                "auroc_of_injected_flips": {"value": 0.94, "low": 0.92, "high": 0.96},
                "injected_flips_at_this_depth": {"flips": 12, "recall": {"value": 0.75, "low": 0.43, "high": 0.95}},
            },
        },
    },
    "label_noise_estimate": {"wrong": 0.12},
    "identifiability": {"verdict": "identifiable", "limits": "Systematic noise looks like signal."},
    "flags": {"desirable": {"rows": 6, "judged": 0}},
    "evidence_against": {"doubtful_label": 9, "outvoted": 0},
    "rows": {"learnt_from": 45},
    "trusted": {"rows": 0, "wrong": 0},
    "ask_for_review": {"rows": 60, "why": "A person's verdict on these 60 rows would tell."},
    "votes": {"raters": 12, "votes": 96, "rows_with_several_raters": 18, "training_rows_with_several_raters": 18},
    "agreement": {"alpha": {"value": 0.61, "low": 0.4, "high": 0.8}, "verdicts": {"sound": 14, "wrong": 2, "contested": 2}},
    "independence": {"identified": True, "reason": None},
    "drift": {"tested": {"created_at": 1, "source": 1, "rater": 2}, "tests": 14, "significant": 2},
}
REBALANCE_FACTS = {
    "n_D": 27,
    "n_U": 9,
    "lambda_D": 1.0,
    "lambda_U": 3.0,
    "weighted_ratio": 1.0,
    "trainer_settings": {
        "trl": {"desirable_weight": 1.0, "undesirable_weight": 3.0},
        "axolotl": {"kto_desirable_weight": 1.0, "kto_undesirable_weight": 3.0},
    },
}
EVALUATION = {
    "part": "test",
    "prompt_groups": 6,
    "against_label": {
        "rows": 6,
        "measures": {
            "auc": {"value": 0.8, "low": 0.7, "high": 0.9},
            "base_auc": {"value": 0.5, "low": 0.4, "high": 0.6},
            "policy_auc": {"value": 0.8, "low": 0.7, "high": 0.9},
            "policy_gain": {"value": 0.3, "low": 0.1, "high": 0.5},
        },
    },
    "against_truth": {"rows": 0, "not_applicable": "no rows: truth gives 0 desirable, 0 undesirable"},
    "generation": {"examples": [{"prompt": HOSTILE[0], "base": "4", "trained": HOSTILE[1]}]},
}


def _stage(folder, name, columns, facts, **tables):
    place = folder / "stages" / name
    place.mkdir(parents=True, exist_ok=True)
    columns.write_parquet(place / "columns.parquet")
    noted(place / "metrics.json", facts)
    for table, frame in tables.items():
        frame.write_parquet(place / f"{table}.parquet")


def _quarantine():
    raw = ['{"label": "meh", "prompt": "<script>document.title=\'pwned\'</script>"}', "\x00{{ broken }}"]
    return pl.DataFrame(
        {
            "file": ["thumbs.jsonl", "thumbs.jsonl"],
            "line": [3, 17],
            "reason": ["unmapped_label", "not_json"],
            "detail": ["'meh' is neither", "Expecting value"],
            "raw": raw,
        }
    )


def _noise(feedback, doubted):
    quality = np.where(feedback["row_id"].is_in(doubted.implode()).to_numpy(), 0.07, 0.9)
    return feedback.select(
        "row_id",
        p_desirable=pl.when("label").then(pl.Series(quality)).otherwise(1 - pl.Series(quality)),
        label_quality=pl.Series(quality),
        is_label_issue=pl.Series(quality < 0.5),
        evidence_against=pl.when(pl.Series(quality < 0.5)).then(pl.lit(["doubtful_label"])),
    )


def pooled_votes(feedback, repeats):
    """Each row's own vote, and of rows 30 to 47 three: rater 2 says the opposite of the label of the last six, the others the label."""
    votes = feedback["votes"].to_list()
    for number in range(30, 48):
        label = feedback["label"][number]
        says = {"rater 0": label, "rater 1": label, "rater 2": label != (number >= 42)}
        votes[number] = [{"rater": name, "label": label, "created_at": None} for name, label in says.items()]
    gone = feedback["row_id"].is_in(repeats.implode())
    return pl.Series([None if out else cast for out, cast in zip(gone, votes, strict=True)], dtype=feedback["votes"].dtype)


def judged_tables(ids):
    """What label_noise found of raters, contested rows and drift: two groups differ, one of them since the 31st of March."""
    names = ["rater 0", "rater 1", "rater 2", HOSTILE[0][:200]]
    raters = pl.DataFrame({"rater": names, "votes": [29, 29, 28, 1]})
    confusions = raters.with_columns(
        **{f"sensitivity{end}": pl.Series(values) for end, values in ENDS.items()},
        **{f"specificity{end}": pl.Series(values) for end, values in ENDS.items()},
        weight=pl.Series([1.0, 0.55, 1.0, 1.0]),
        inverted=pl.Series([False, False, True, False]),
    )
    contested = pl.DataFrame({"row_id": [ids[42], ids[43]], "label": [True, True], "p_contested": [0.83, 0.91]})
    since = {f"since{end}": datetime(2025, 3, day, tzinfo=UTC) for end, day in (("", 31), ("_low", 28), ("_high", 31))}
    table = {"rows": 60, "effect_points": -0.21, "effect_points_low": -0.31, "effect_points_high": -0.11}
    table |= dict.fromkeys(("effect_log_odds", "offset_before", "slope_before", "offset", "slope"), 0.5)
    table |= {"p_value": 0.0025, "p_adjusted": 0.0025, "significant": True}
    plain = {
        "effect_points": 0.02,
        "effect_points_low": -0.05,
        "effect_points_high": 0.09,
        "p_adjusted": 0.745,
        "significant": False,
    }
    strict = {"rows": 21, "effect_points": 0.34, "effect_points_low": 0.2, "effect_points_high": 0.45}
    drift = [
        {"column": "created_at", "value": "(all rows)", "kind": "change", **since, **table},
        {"column": "source", "value": HOSTILE[1][:200], "kind": "offset", **table, **strict},
        {"column": "rater", "value": HOSTILE[0][:200], "kind": "none", **table, **plain},
    ]
    pair = {"label": False, "p_desirable": 0.72, "other_label": True, "other_p_desirable": 0.74, "similarity": 0.88}
    examples = [
        {"column": "created_at", "value": "(all rows)", "row_id": ids[40 + 4 * n], "other_row_id": ids[13 + n], **pair}
        for n in range(3)
    ]
    examples.append({**examples[0], "column": "source", "value": HOSTILE[1][:200], "row_id": ids[0], "other_row_id": ids[1]})
    return {
        "raters": raters,
        "confusions": confusions,
        "contested": contested,
        "drift": pl.DataFrame(drift, schema=DRIFT_SCHEMA),
        "drift_examples": pl.DataFrame(examples),
    }


def _coverage(folder, feedback):
    rng = np.random.default_rng(0)
    cluster = np.arange(feedback.height) % 3
    place = np.array([[0, 0], [4, 1], [2, 5]])[cluster] + rng.normal(size=(feedback.height, 2)) / 3
    columns = feedback.select(
        "row_id", cluster=pl.Series(cluster, dtype=pl.Int32), map_x=pl.Series(place[:, 0]), map_y=pl.Series(place[:, 1])
    )
    clusters = pl.DataFrame(
        {
            "cluster": pl.Series([0, 1, 2], dtype=pl.Int32),
            "name": ["sums $\\frac{1}{2}$", "dates <script>document.title='pwned'</script>", "lists | pipes"],
            "exemplars": [["sums question 12"], [HOSTILE[0]], ["lists question 14"]],
            "rows": [20, 20, 20],
            "prompts": [20, 20, 20],
            "desirable": [15, 15, 15],
            "differs": [False, True, False],
        }
    )
    holes = pl.DataFrame(
        {
            "name": ["poems {{ 7 * 7 }}"],
            "reference_prompts": [11],
            "rows_needed": [22],
            "examples": [["write a poem"]],
            "nearest": ["lists question 14"],
        }
    )
    facts = {"effective_clusters": {"value": 2.9, "low": 2.5, "high": 3.0}, "reference": {"prompts": 40}}
    _stage(folder, "coverage", columns, facts, clusters=clusters, holes=holes)


def _train(folder, feedback):
    lines = []
    for step in range(6):
        for number in range(12):
            label = number % 4 != 0
            lines.append(
                {
                    "row_id": feedback["row_id"][number],
                    "part": "validation" if step in (0, 5) else "train",
                    "epoch": max(step - 1, 0),
                    "step": step,
                    "label": label,
                    "loss": 0.5 - 0.02 * step,
                    "z0": 0.1 * step,
                    "log_ratio": step * (1.0 if label else -1.0) * (number % 5 - 1),
                    "gradient_weight": 0.02,
                    "completion_tokens": 5,
                }
            )
    (folder / "model").mkdir(exist_ok=True)
    pl.DataFrame(lines).write_parquet(folder / "model" / "telemetry.parquet")
    noted(folder / "model" / "training.json", {"steps": 6, "settings": {"beta": 0.1}})
    _stage(folder, "train", feedback.select("row_id"), {"device": "cpu", "steps": 6})


def write_ablation(
    folder: Path, *, row_ids=None, judged_by="label", truth=True, families=True, chance=-1.0, changed=None
) -> None:
    """Six arms, two seeds, the run's six test rows: every second is desirable. The numbers are made up.

    chance : what the reward of the arm that was reviewed at random is multiplied by: 1 ranks as the arm reviewed by the queue does
    changed : {family: columns of its line to be changed}
    """
    ids = list(row_ids) if row_ids is not None else held_out_ids(folder)
    arms = [
        # arm, family, budget, rows, what it gains, low, high
        ("labels as given", "as given", None, 45, None, None, None),
        (HOSTILE[0], "confident learning", None, 40, 0.05, -0.02, 0.11),
        ("dropped at random", "at random", None, 40, -0.01, -0.05, 0.04),
        ("true labels", "true", None, 45, 0.2, 0.1, 0.3),
        ("10% reviewed", "reviewed", 0.1, 45, 0.15, 0.05, 0.25),
        ("10% at random", "reviewed at random", 0.1, 45, 0.04, -0.01, 0.1),
    ]
    lines = []
    for arm, family, budget, rows, gain, low, high in arms:
        line = {"arm": arm, "says": f"what {arm} is", "measure": "auc", "rows": rows, "seeds": 2}
        line |= {"value": 0.6 + (gain or 0), "low": 0.5, "high": 0.9}
        line |= {"minus_baseline": gain, "minus_low": low, "minus_high": high}
        line |= {"differs": None if gain is None else low > 0 or high < 0}
        share = gain is not None and family != "true"
        line |= {
            "gap_recovered": gain / 0.2 if share else None,
            "gap_low": 0.0 if share else None,
            "gap_high": 1.5 if share else None,
        }
        lines.append(line | ({"family": family, "budget": budget} if families else {}) | (changed or {}).get(family, {}))
    settings = {"model": "tiny {{ 7 * 7 }} <b>", "seeds": [0, 1], "max_steps": 8, "batch_size": 16, "learning_rate": 1e-3}
    settings |= {"trainable_layers": 1, "max_length": 48, "part": "test", "judged_by": judged_by}
    results = {"settings": settings, "verdict": [f"{HOSTILE[1]}: no difference that this can show."], "arms": lines}
    scores = [
        {"arm": arm, "seed": seed, "row_id": row_id, "reward": _reward(family, number, seed, chance)}
        for arm, family, *_ in arms
        for seed in (0, 1)
        for number, row_id in enumerate(ids)
    ]
    table = pl.DataFrame(scores)
    if truth:
        truths = pl.DataFrame({"row_id": ids, "truth": [number % 2 == 0 for number in range(len(ids))]})
        table = table.join(truths, on="row_id")
    table.write_parquet(folder / "ablation.parquet")
    noted(folder / "ablation.json", results)


def _reward(family, number, seed, chance):
    """Perfect for the arm reviewed by the queue."""
    right = 1.0 if number % 2 == 0 else -1.0
    return {"reviewed": right, "reviewed at random": chance * right}.get(family, float(number % 3)) + 0.1 * seed


def write_comparison(folder: Path, *, row_ids=None) -> None:
    """The base, KTO and DPO; DPO is worse than KTO by more than chance, and both are better than the base."""
    ids = list(row_ids) if row_ids is not None else held_out_ids(folder)
    lines = []
    for method, value, kto, base in (("base", 0.5, -0.3, None), ("kto", 0.8, None, 0.3), ("dpo", 0.7, -0.1, 0.2)):
        line = {"against": "truth", "measure": "auc", "method": method, "value": value, "low": value - 0.1, "high": value + 0.1}
        for other, gap in (("kto", kto), ("base", base)):
            ends = {"": gap, "_low": gap and gap - 0.05, "_high": gap and gap + 0.05}
            line |= {f"minus_{other}{end}": number for end, number in ends.items()}
        line |= {"includes_zero": None if kto is None else False, "seeds_agree": None if kto is None else True}
        lines.append(line | {"base_includes_zero": None if base is None else False, "rows": len(ids)})
    measures = {"against": "no label", "method": "kto", "value": 0.25, "low": 0.1, "high": 0.4, "rows": 20}
    lines += [measures | {"measure": "refusal_of_safe", "judge": "a rule <b>"}, measures | {"measure": "task <b>sums"}]
    settings = {"model": "tiny", "seeds": [0, 1], "batch_size": 8, "max_length": 48, "trainable_layers": None, "bootstrap": 1000}
    results = {
        "settings": settings,
        "part": "test",
        "held_out_rows": len(ids),
        "prompt_groups": len(ids),
        "updates": 8,
        "rows_used": {"rows": 36, "pairs": 9, "rows_used": {"kto": 36, "sft": 27, "dpo": 17}},
        "tokens": {"train": {"skipped_row_ids": []}},
        "learning_rates": {"kto": 5e-6, "dpo": 5e-6},
        "arms": [{"method": name, "seed": seed} for name, seed in (("base", 0), ("kto", 0), ("dpo", 0), ("kto", 1), ("dpo", 1))],
        "versions": {"torch": "2", "trl": HOSTILE[2]},
        "measures": lines,
        "verdict": ["Of 36 training rows, each could use: ...", HOSTILE[0], HOSTILE[6]],
    }
    (folder / "comparison").mkdir(exist_ok=True)
    rows = [
        {"method": method, "seed": seed, "row_id": row_id, "label": number % 2 == 0, "truth": number % 3 == 0, "reward": reward}
        for method, seed, reward in (("base", 0, 0.0), ("kto", 0, 1.0), ("kto", 1, 3.0), ("dpo", 0, -1.0))
        for number, row_id in enumerate(ids)
    ]
    pl.DataFrame(rows).write_parquet(folder / "comparison" / "comparison.parquet")
    noted(folder / "comparison" / "comparison.json", results)


def held_out_ids(folder):
    return pl.read_parquet(folder / "stages/split/columns.parquet").filter(part="test")["row_id"].to_list()
