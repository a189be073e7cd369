"""A topic that nobody rated: does `coverage` name it, and what does its absence cost there?

    python tests/benchmarks/narrow_prompts.py DATA_FOLDER [--folds 2] [--steps 40]

XSTest completions with people's verdicts, so that nothing but the prompts is narrow. A topic is one of TOPICS, kinds of prompt with
their contrasts. "without": trained on the rows of all other topics; "with": on as many rows of all topics. `coverage` sees the
training prompts and, as its reference, held-out prompts: the topic's share that it calls uncovered, beside that of the other topics,
and what it says of the largest hole. Both models are scored on the same held-out rows: KTO loss (lower is better) and reward AUC, on
the topic and elsewhere, paired by a bootstrap over prompts within each fold (ablation.py says how the set is parted).
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from ablation import TERMS, by_hash
from label_noise import ENCODER, POLICY, load
from machine import machine, write_result

import ktodata as kd
from ktodata.stats.bootstrap import bootstrap, difference, weighted_auc, weighted_mean
from ktodata.train.model.activation_cache import shared_activations

TOPICS = {
    "privacy": ("privacy_public", "privacy_fictional", "contrast_privacy"),
    "discrimination": ("nons_group_real_discr", "real_group_nons_discr", "contrast_discr"),
    "historical events": ("historical_events", "contrast_historical_events"),
}


def rows_of(folder: Path) -> pl.DataFrame:
    """The set with truth as its label, vectors, `topic` and `part_of_five`."""
    table = load(folder, "kto_xstest.jsonl.gz", "label", "partial_refusal", places=True, also={"type": "type"})
    topic = pl.lit("other", pl.String)
    for name, kinds in TOPICS.items():
        topic = pl.when(pl.col("type").is_in(kinds)).then(pl.lit(name)).otherwise(topic)
    table = by_hash(table, pl.col("place")).with_columns(topic=topic, label="truth", state=pl.lit("keep"))
    return table.with_columns(part_of_five=pl.col("place").cast(pl.Int64) % 5)


def told_by_coverage(train: pl.DataFrame, held_out: pl.DataFrame, topic: str) -> dict:
    """Share of held-out prompts that it calls uncovered, in the topic and elsewhere, and the largest hole of both together."""

    def found(reference: pl.DataFrame):
        prompts = reference["prompt"].unique(maintain_order=True).to_list()
        return kd.coverage(train, reference=prompts, encoder=ENCODER)

    inside, elsewhere = (found(held_out.filter(there)) for there in (pl.col("topic") == topic, pl.col("topic") != topic))
    holes = found(held_out).tables["holes"]
    return {
        "uncovered_of_topic": inside.metrics["reference"]["uncovered"],
        "uncovered_elsewhere": elsewhere.metrics["reference"]["uncovered"],
        "largest_hole": holes.head(1).to_dicts(),
    }


def trained(train: pl.DataFrame, held_out: pl.DataFrame, terms: dict, seed: int) -> pl.DataFrame:
    """Row_id, loss and log_ratio of the held-out rows."""
    parts = [train.with_columns(part=pl.lit("train")), held_out.with_columns(part=pl.lit("validation"))]
    columns = ("row_id", "prompt", "completion", "label", "prompt_group", "part")
    told = kd.train.fit(pl.concat(parts).select(columns), model=POLICY, seed=seed, **terms).telemetry.filter(part="validation")
    return told.filter(pl.col("step") == told["step"].max()).select("row_id", "loss", "log_ratio")


def figures(scores: pl.DataFrame) -> dict:
    """Mean loss and AUC with each model, and without the topic minus with it, with 95 % intervals over prompts."""
    fold = scores["fold"].to_numpy()
    truth = scores["label"].to_numpy()
    statistics = {}
    for arm in ("with", "without"):
        statistics[f"loss {arm}"] = weighted_mean(scores[f"loss_{arm}"])
        each = [
            (fold == one, weighted_auc(scores[f"log_ratio_{arm}"].to_numpy()[fold == one], truth[fold == one]))
            for one in np.unique(fold)
        ]
        statistics[f"auc {arm}"] = lambda weights, each=each: np.mean([auc(weights[:, here]) for here, auc in each], axis=0)
    for name in ("loss", "auc"):
        statistics[f"{name}, without - with"] = difference(statistics[f"{name} without"], statistics[f"{name} with"])
    found = bootstrap(statistics, scores["prompt_group"], resamples=2000, seed=0)
    return {"rows": scores.height, "undesirable": int((~truth).sum())} | {name: one.as_dict() for name, one in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    table = rows_of(options.data)
    terms = TERMS | {"max_steps": options.steps, "epochs": 1000, "batch_size": 16, "learning_rate": 1e-4, "trainable_layers": 6}
    result = {}
    with shared_activations(most_mb=9000):
        for topic in TOPICS:
            told, scores = [], []
            for fold in range(options.folds):
                train, held_out = (
                    table.filter(here) for here in (pl.col("part_of_five") != fold, pl.col("part_of_five") == fold)
                )
                without = train.filter(pl.col("topic") != topic)
                every = train.sample(without.height, seed=fold)
                told.append(
                    {name: told_by_coverage(rows, held_out, topic) for name, rows in (("with", every), ("without", without))}
                )
                both = trained(every, held_out, terms, fold).join(
                    trained(without, held_out, terms, fold), on="row_id", suffix="_without"
                )
                scores.append(
                    both.rename({"loss": "loss_with", "log_ratio": "log_ratio_with"})
                    .join(held_out.select("row_id", "label", "prompt_group", "topic"), on="row_id")
                    .with_columns(fold=pl.lit(fold))
                )
            every_score = pl.concat(scores)
            parts = {"on the topic": pl.col("topic") == topic, "elsewhere": pl.col("topic") != topic}
            result[topic] = {"coverage": told} | {name: figures(every_score.filter(here)) for name, here in parts.items()}
            print(topic, result[topic], flush=True)
    write_result("narrow_prompts", {"settings": terms, "topics": result} | machine())


if __name__ == "__main__":
    main()
