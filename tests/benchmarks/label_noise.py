"""How well label errors are found where the truth is known, beside cleanlab's default recipe, a kNN vote and a ranking by class.

    python tests/benchmarks/label_noise.py DATA_FOLDER [--sets ...] [--draws 20]

DATA_FOLDER holds the real data sets as published (kto_xstest.jsonl.gz and others). The truth only scores. Error AUROC: a wrong
label against a sound one *within one given class*, averaged over the two, so a ranking by given class scores 0.5. Average
precision is over all rows, where that ranking is a peer. Figures are given on the half of the prompts that no choice was made on
("held_out", by a hash of the prompt) and on all rows. Intervals: bootstrap over prompts.

"hidden states" adds the mean hidden state of layer 16 of SmolLM2-135M-Instruct, the model to be trained. "5 % reviewed": the sample
that the audit asks for, drawn anew each time; scored on the rows that nobody reviewed. "review budget": reviews played through.
"5 % by the queue": the same number of rows, half drawn at random and half from the queue; what is believed of the others, and what
label_noise does about it: rows turned, and wrong labels left, by its rule and if every row took its likelier label.

cleanlab's recipe: logistic regression on the embeddings, or on TF-IDF, its own folds, self-confidence. All methods see the same
embeddings.
"""

import argparse
import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

import ktodata as kd
from ktodata.labels.people.calibration import Calibration
from ktodata.labels.people.review_simulation import PlayedReviews, reviews_of, simulate_review
from ktodata.labels.people.trusted import rows_to_review, trusted_rates
from ktodata.pipeline.audit import LabelAudit, features_of
from ktodata.stats import share

ENCODER = "packaged:all-minilm-l6-v2"
XSTEST = ("kto_xstest.jsonl.gz", "partial_refusal")
SYSTEMS = ("weak_label_gpt4", "weak_label_strmatch")
REVIEWED = 0.05  # of the rows
POLICY = "packaged:smollm2-135m-instruct"
FLIPS = ("uniform", "class-conditional", "instance-dependent")
DRAWN = 300  # bootstrap draws


def load(
    folder: Path,
    file: str,
    label: str,
    leave_out: str | None = None,
    *,
    places: bool = False,
    also: dict[str, str] | None = None,
    truth: str = "label",
) -> pl.DataFrame:
    """A feedback table with the column `truth` (`place` if asked for, and `also`), validated, without repeats, with vectors."""
    keep = {"truth": truth} | ({leave_out: leave_out} if leave_out else {}) | (also or {})
    if file == XSTEST[0]:
        keep |= {name: name for name in SYSTEMS}
    keep |= {"place": "index_in_type"} if places else {}
    meant = {"column": label, True: True, False: False}
    table = kd.read(folder / file, label=meant, keep=keep, **({"model": "model"} if places else {})).feedback
    if leave_out:
        table = table.filter(~pl.col(leave_out).cast(pl.Boolean, strict=False))
    for stage in (kd.validate, kd.dedupe):
        table = kd.add_columns(table, stage(table))
    known = table["truth"] if table.schema["truth"] == pl.Boolean else table["truth"].cast(pl.String) == "true"
    return kd.add_columns(table, kd.embed(table, model=ENCODER)).with_columns(truth=known)


def with_both_votes(table: pl.DataFrame) -> pl.DataFrame:
    """Both systems' labels as votes on each row."""
    votes = [
        [
            {"rater": name, "label": str(says).lower() == "true", "created_at": None}
            for name, says in zip(SYSTEMS, row, strict=True)
            if says is not None
        ]
        for row in table.select(SYSTEMS).iter_rows()
    ]
    return table.with_columns(votes=pl.Series(votes, dtype=table.schema["votes"])).drop("pooled_votes", strict=False)


def with_hidden_states(table: pl.DataFrame) -> pl.DataFrame:
    return kd.add_columns(table, kd.hidden_states(table, model=POLICY))


def with_reviews(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """5 % of the rows reviewed, drawn as an audit draws them."""
    chosen = rows_to_review(table, total=round(REVIEWED * table.height), seed=seed)["row_id"]
    return table.with_columns(trusted_label=pl.when(pl.col("row_id").is_in(chosen.implode())).then("truth"))


def flipped(table: pl.DataFrame, rate: float, kind: str, seed: int = 0) -> pl.DataFrame:
    """The truth with `rate` of all labels flipped: anywhere, three times as often for desirable rows, or where a model is unsure."""
    rng, truth = np.random.default_rng(seed), table["truth"].to_numpy()
    chance = np.ones(len(truth))
    if kind == "class-conditional":
        chance = np.where(truth, 1.5, 0.5)
    if kind == "instance-dependent":
        p = cleanlab_recipe(table.with_columns(label="truth"))[1]
        chance = 0.1 + 4 * p * (1 - p)
    chance = np.minimum(chance * rate / chance.mean(), 0.95)
    return table.with_columns(label=pl.Series(truth ^ (rng.random(len(truth)) < chance)))


# --- methods: each gives a label quality, 1 sound .. 0 doubtful ------------------------------------------------------------------


def vectors(table: pl.DataFrame) -> np.ndarray:
    return np.hstack([table[f"{side}_embedding"].to_numpy() for side in ("prompt", "completion")])


def cleanlab_recipe(table: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    labels = table["label"].to_numpy().astype(int)
    probs = cross_val_predict(LogisticRegression(max_iter=1000), vectors(table), labels, method="predict_proba", cv=5)
    from cleanlab.rank import get_label_quality_scores

    return get_label_quality_scores(labels, probs), probs[:, 1]


def cleanlab_words(table: pl.DataFrame) -> np.ndarray:
    """The same recipe on TF-IDF of prompt and completion."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    labels, texts = table["label"].to_numpy().astype(int), (table["prompt"] + "\n" + table["completion"]).to_list()
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(max_iter=1000))
    return get_label_quality_scores(labels, cross_val_predict(model, texts, labels, method="predict_proba", cv=5))


def knn_vote(table: pl.DataFrame) -> np.ndarray:
    labels = table["label"].to_numpy().astype(int)
    votes = cross_val_predict(KNeighborsClassifier(10, metric="cosine"), vectors(table), labels, method="predict_proba", cv=5)
    return votes[np.arange(len(labels)), labels]


def by_class(table: pl.DataFrame) -> np.ndarray:
    return np.where(table["label"].to_numpy(), 0.9, 0.1)  # all that it knows: undesirable labels are wrong more often


# --- scores ----------------------------------------------------------------------------------------------------------------------


def held_out(table: pl.DataFrame) -> np.ndarray:
    return np.array([int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 2 == 1 for prompt in table["prompt"]])


def scored(table: pl.DataFrame, quality: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    wrong, given = (table["label"] != table["truth"]).to_numpy(), table["label"].to_numpy()

    def within(which: np.ndarray) -> list[float]:
        found = []
        for side in (True, False):
            here = which[given[which] == side]
            found.append(roc_auc_score(wrong[here], -quality[here]) if 0 < wrong[here].sum() < len(here) else np.nan)
        return found

    places = np.flatnonzero(rows)
    each = within(places)
    rng, groups = np.random.default_rng(0), table["prompt_group"].rank("dense").to_numpy()
    members = [places[groups[places] == group] for group in np.unique(groups[places])]
    draws = [
        np.mean(within(np.concatenate([members[n] for n in rng.integers(0, len(members), len(members))]))) for _ in range(DRAWN)
    ]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return {
        "desirable": each[0],
        "undesirable": each[1],
        "average": float(np.mean(each)),
        "low": float(low),
        "high": float(high),
        "average_precision": float(average_precision_score(wrong[places], -quality[places])),
        "p_auc": float(roc_auc_score(table["truth"].to_numpy()[places], np.where(given, quality, 1 - quality)[places])),
    }


def precision_gains(table: pl.DataFrame, methods: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """Average precision of ktodata minus each peer's, with its 95 % interval: bootstrap over prompts, paired."""
    wrong, places = (table["label"] != table["truth"]).to_numpy(), np.flatnonzero(rows)
    groups = table["prompt_group"].rank("dense").to_numpy()[places]
    members = [places[groups == group] for group in np.unique(groups)]
    rng, peers = np.random.default_rng(1), [name for name in methods if name != "ktodata"]
    drawn = []
    for draw in range(DRAWN + 1):
        taken = places if draw == 0 else np.concatenate([members[n] for n in rng.integers(0, len(members), len(members))])
        each = {name: average_precision_score(wrong[taken], -quality[taken]) for name, quality in methods.items()}
        drawn.append([each["ktodata"] - each[name] for name in peers])
    ends = np.quantile(drawn[1:], [0.025, 0.975], axis=0)
    return {name: {"value": drawn[0][n], "low": ends[0, n], "high": ends[1, n]} for n, name in enumerate(peers)}


def measure(table: pl.DataFrame) -> dict[str, Any]:
    """What label_noise says of `table`, how right that is, and the three peers; on rows that nobody reviewed."""
    found = kd.label_noise(table)
    quality = found.columns["label_quality"].to_numpy()
    unseen = table["trusted_label"].is_null().to_numpy() if "trusted_label" in table.columns else np.ones(table.height, bool)
    halves = {"all": unseen, "held_out": unseen & held_out(table)}
    peers = {"cleanlab": cleanlab_recipe(table)[0], "cleanlab, TF-IDF": cleanlab_words(table)}
    methods = {"ktodata": quality, **peers, "knn": knn_vote(table), "class": by_class(table)}
    wrong = (table["label"] != table["truth"]).to_numpy()
    flagged = found.columns["flagged"].to_numpy() & unseen
    sure = unseen & (quality < 0.5)
    return {
        "rows": table.height,
        "share_wrong": float(wrong.mean()),
        "scores": {name: {half: scored(table, q, rows) for half, rows in halves.items()} for name, q in methods.items()},
        "average_precision_minus": precision_gains(table, methods, unseen),
        "verdicts": {name: one["verdict"] for name, one in found.metrics["injected_flips"]["per_given_class"].items()},
        "estimated_wrong": found.metrics["label_noise_estimate"]["wrong"],
        "weights": found.metrics["out_of_fold"]["weights"],
        "labels_follow_the_prompt": found.metrics["out_of_fold"]["labels_follow_the_prompt"],
        "flagged": int(flagged.sum()),
        "flagged_precision": share(int((flagged & wrong).sum()), int(flagged.sum())).as_dict(),
        "likelier_wrong_than_right": {
            "rows": int(sure.sum()),
            "expected_precision": float(1 - quality[sure].mean()) if sure.any() else None,
            "precision": share(int((sure & wrong).sum()), int(sure.sum())).as_dict(),
        },
        "trusted": found.metrics["trusted"],
    }


def measure_reviewed(table: pl.DataFrame, draws: int) -> dict[str, Any]:
    """The mean over draws of 5 % reviewed rows, and how often the error rates' intervals hold the truth (50 draws)."""
    each = []
    for seed in range(draws):
        reviewed = with_reviews(table, seed)
        result = kd.label_noise(reviewed, repeats=1, trusted_at_random=True)  # drawn above, by a seed of its own
        unseen = reviewed["trusted_label"].is_null().to_numpy()
        quality = result.columns["label_quality"].to_numpy()
        wrong = (reviewed["label"] != reviewed["truth"]).to_numpy()
        sure = unseen & (quality < 0.5)
        each.append(
            scored(reviewed, quality, unseen)
            | {"expected": float(1 - quality[sure].mean()), "precision": float(wrong[sure].mean()), "rows": int(sure.sum())}
        )
    real = {given: float((part["label"] != part["truth"]).mean()) for (given,), part in table.group_by("label")}
    holds = []
    for seed in range(50):
        rates = trusted_rates(with_reviews(table, 1000 + seed).drop_nulls("trusted_label"), ())
        holds += [low <= real[given] <= high for given, low, high in rates.select("given", "error_low", "error_high").iter_rows()]
    means = {name: float(np.nanmean([one[name] for one in each])) for name in each[0]}
    return means | {
        "draws": draws,
        "sd_of_average": float(np.std([one["average"] for one in each])),
        "intervals_hold": float(np.mean(holds)),
    }


def measure_budget(table: pl.DataFrame, draws: int) -> dict[str, Any]:
    """Wrong labels left after reviews: as they are, after label_noise turned what it may, and if all took the likelier label.

    Means over draws, for each order.
    """
    p = kd.label_noise(table).columns["p_desirable"].to_numpy()
    labels, truth = table["label"].to_numpy(), table["truth"].to_numpy()
    rows, groups = features_of(table), table["prompt_group"].rank("dense").to_numpy()
    budgets = [round(share_reviewed * table.height) for share_reviewed in (0.025, 0.05, 0.1, 0.2)]
    played = pl.concat(
        [
            simulate_review(rows, p, labels, truth, budgets, groups=groups, seed=seed).with_columns(draw=pl.lit(seed))
            for seed in range(draws)
        ]
    )
    counts = [
        "errors_caught",
        "errors_left",
        "errors_left_after_relabelling",
        "relabelled",
        "errors_left_if_likelier",
        "likelier",
    ]
    spread = pl.col("errors_left_after_relabelling").std().alias("sd")
    means = played.group_by("order", "reviewed", maintain_order=True).agg(*(pl.col(name).mean() for name in counts), spread)
    return {"errors": int((labels != truth).sum()), "draws": draws, "budgets": means.to_dicts()}


def measure_queue(table: pl.DataFrame, draws: int) -> dict[str, Any]:
    """Means and totals over draws of 5 % of the rows reviewed by the queue, on the rows that nobody reviewed."""
    audit = LabelAudit(table, kd.label_noise(table), {"seed": 0})
    table = table.filter(pl.Series(audit.trained))
    labels, truth = table["label"].to_numpy(), table["truth"].to_numpy()
    p, rows, groups = audit.p_desirable_of_trained(), audit.features_of_trained(), table["prompt_group"].rank("dense").to_numpy()
    lines, wrong = [], labels != truth
    for seed in range(draws):
        played = reviews_of(rows, p, groups, labels, truth, round(REVIEWED * len(labels)), order="gain", seed=seed)
        fitted = played.calibration or OrderOnly.of(played, labels)
        lines.append(_after_queue(fitted, played.reviewed, labels, wrong) | {"wrong": int(wrong.sum())})
    totals = {name: sum(line[name] for line in lines) for name in ("turned", "turned_rightly", "likelier_wrong")}
    acted = [line["turned_rightly"] / line["turned"] for line in lines if line["turned"]]
    return {
        **{name: float(np.nanmean([line[name] for line in lines])) for name in lines[0] if name not in totals},
        **totals,
        "draws": draws,
        "draws_that_turn": len(acted),
        "draws_under_0.8_right": sum(share_right < 0.8 for share_right in acted),
    }


@dataclass(frozen=True)
class OrderOnly:
    """What a draw leaves that is too short for a probability: the model's p_wrong, on which nothing acts."""

    p_wrong: np.ndarray
    turned: np.ndarray
    least_sure: np.ndarray

    @classmethod
    def of(cls, played: PlayedReviews, labels: np.ndarray) -> "OrderOnly":
        p = played.learnt.p_desirable
        return cls(np.where(labels, 1 - p, p), np.zeros(len(labels), bool), np.zeros(len(labels)))


def _after_queue(fitted: Calibration | OrderOnly, reviewed: np.ndarray, labels: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    unseen, p = ~reviewed, fitted.p_wrong
    sides = [unseen & (labels == side) for side in (False, True)]
    likelier, turned = unseen & (p > 0.5), fitted.turned & unseen
    return {
        "auroc": float(np.mean([roc_auc_score(wrong[side], p[side]) for side in sides])),
        "average_precision": float(average_precision_score(wrong[unseen], p[unseen])),
        "likelier_wrong": int(likelier.sum()),
        "expected_wrong_of_those": float(p[likelier].mean()) if likelier.any() else float("nan"),
        "wrong_of_those": float(wrong[likelier].mean()) if likelier.any() else float("nan"),
        "caught": int((wrong & reviewed).sum()),
        "left": int((wrong & unseen).sum()),
        "left_after_turning": int((unseen & (wrong ^ turned)).sum()),
        "left_if_all_took_the_likelier": int((unseen & (wrong ^ likelier)).sum()),
        "soft_error_left": float(((fitted.least_sure - wrong)[unseen] ** 2).sum()),
        "turned": int(turned.sum()),
        "turned_rightly": int((turned & wrong).sum()),
    }


def cases(folder: Path, draws: int) -> dict[str, Callable[[], dict[str, Any]]]:
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for system in SYSTEMS:

        def one(system: str = system) -> pl.DataFrame:
            return load(folder, XSTEST[0], system, XSTEST[1])

        found[f"xstest {system}"] = lambda one=one: measure(one())
        found[f"xstest {system}, both votes"] = lambda one=one: measure(with_both_votes(one()))
        found[f"xstest {system}, hidden states"] = lambda one=one: measure(with_hidden_states(one()))
        found[f"xstest {system}, 5 % reviewed"] = lambda one=one: measure_reviewed(one(), draws)
        found[f"xstest {system}, hidden states, 5 % reviewed"] = lambda one=one: measure_reviewed(
            with_hidden_states(one()), draws
        )
        found[f"xstest {system}, hidden states, both votes, 5 % reviewed"] = lambda one=one: measure_reviewed(
            with_hidden_states(with_both_votes(one())), draws
        )
        found[f"xstest {system}, hidden states, 5 % by the queue"] = lambda one=one: measure_queue(
            with_hidden_states(one()), draws
        )
        found[f"xstest {system}, hidden states, review budget"] = lambda one=one: measure_budget(with_hidden_states(one()), draws)
    trivia = ("label_sources/evouna_tq_dev.jsonl.gz", "weak_label")
    found["evouna weak_label, 5 % by the queue"] = lambda: measure_queue(load(folder, *trivia, truth="truth"), draws)
    found["gsm8k weak_label"] = lambda: measure(load(folder, "kto_gsm8k_solutions.jsonl.gz", "weak_label"))
    found["gsm8k weak_label, 5 % reviewed"] = lambda: measure_reviewed(
        load(folder, "kto_gsm8k_solutions.jsonl.gz", "weak_label"), min(draws, 5)
    )
    found["hh_harmless 10 % uniform"] = lambda: measure(
        flipped(load(folder, "kto_hh_harmless.jsonl.gz", "label"), 0.1, "uniform")
    )
    for name in ("halueval_general", "tulu1_human"):
        for rate in (0.1, 0.2, 0.3, 0.4):
            for kind in FLIPS:
                found[f"{name} {rate:.0%} {kind}"] = lambda name=name, rate=rate, kind=kind: measure(
                    flipped(load(folder, f"kto_{name}.jsonl.gz", "label"), rate, kind)
                )
                found[f"{name} {rate:.0%} {kind}, hidden states"] = lambda name=name, rate=rate, kind=kind: measure(
                    with_hidden_states(flipped(load(folder, f"kto_{name}.jsonl.gz", "label"), rate, kind))
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="only cases whose name begins with one of these")
    parser.add_argument("--name", default="label_noise", help="of the result file")
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    found = {}
    for name, compute in cases(options.folder, options.draws).items():
        if options.sets and not name.startswith(tuple(options.sets)):
            continue
        found[name] = compute()
        if "budgets" in found[name] or "caught" in found[name]:
            print(name, found[name], flush=True)
            continue
        told = found[name].get("scores", {"ktodata": {"all": found[name]}})
        print(
            name,
            {
                method: {
                    half: (round(one["average"], 3), round(one["average_precision"], 3), round(one["p_auc"], 3))
                    for half, one in halves.items()
                }
                for method, halves in told.items()
            },
            flush=True,
        )
    write_result(options.name, {"encoder": ENCODER, "sets": found, **machine()})


if __name__ == "__main__":
    main()
