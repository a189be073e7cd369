"""Treatments of the labels as an experiment: every arm is a KTO training on its own rows; what it gives back, and says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.digests import code_digest, digest
from ktodata.errors import DataError
from ktodata.experiments import kto_training
from ktodata.experiments.arm_keys import digest_model, digest_rows, releases
from ktodata.experiments.arm_store import ArmStore
from ktodata.experiments.arms import REWARDS, Arm, ArmTraining, TrainedArm
from ktodata.experiments.clock import Pace, measure_pace
from ktodata.experiments.contrast import contrast
from ktodata.experiments.experiment import ExperimentPlan, Notify, check_apart
from ktodata.experiments.kto_training import SCORED, train_treatment
from ktodata.experiments.treatments import CLEAN, NOISY
from ktodata.files import whole_file, write_note
from ktodata.stats.joined_groups import joined_groups

ONE_TRAINING = "Each was trained once: another seed may turn out otherwise, and the intervals do not say how far."
WORDS = {"says": pl.String(), "rows": pl.Int64(), "family": pl.String(), "budget": pl.Float64()}  # of each arm


@dataclass(frozen=True)
class Ablation:
    """What an ablation measured.

    table : one line for each arm and measure, as `contrast` gives it, with rows (trained on, of the last seed), says (what the
        arm is), family (the kind of treatment, of FAMILIES) and budget (share of the rows that it reviews; null: none)
    scores : arm, seed, row_id, reward; held_out : row_id, truth, group, model
    """

    table: pl.DataFrame
    scores: pl.DataFrame
    held_out: pl.DataFrame
    settings: Mapping[str, Any]

    def verdict(self) -> list[str]:
        """Sentences: what differs from the labels as given, and what does not. A difference counts if its interval lacks zero."""
        sentences, once = [], self.table["seeds"].max() == 1
        for line in self.table.filter(pl.col("measure") == "auc", pl.col("arm") != NOISY).iter_rows(named=True):
            span = f"{line['minus_baseline']:+.3f} ({line['minus_low']:+.3f} to {line['minus_high']:+.3f})"
            word = "better" if line["minus_baseline"] > 0 else "worse"
            word = word if line["differs"] else "no difference that this can show" if not once else "not known"
            gap = "" if line["gap_recovered"] is None else f"; {line['gap_recovered']:.0%} of the gap to true labels"
            sentences.append(f"{line['arm']}: {word}, AUC {span}{gap}.")
        clean = self.table.filter(pl.col("measure") == "auc", pl.col("arm") == CLEAN)
        if once:
            sentences.append(f"{ONE_TRAINING} Train more seeds.")
        elif clean.height and not clean["differs"][0]:
            sentences.append(
                "True labels are not better than those as given by more than chance, so a share of that gap is unknown."
            )
        return sentences

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"settings": dict(self.settings), "verdict": self.verdict(), "arms": self.table.to_dicts()}

    def write(self, folder: Path) -> None:
        """ablation.json, and ablation.parquet with every score."""
        with whole_file(folder / "ablation.parquet") as scratch:
            self.scores.write_parquet(scratch)
        write_note(folder / "ablation.json", self.as_dict(), [folder / "ablation.parquet"])

    def plot(self, measure: str = "auc") -> Any:
        """A matplotlib figure: each arm's difference from the labels as given, with its 95 % interval.

        Raises EmptyDataError when no arm has a difference in that measure.
        """
        from ktodata.experiments.arm_figures import forest

        return forest(self.table, measure=measure)


@dataclass(frozen=True)
class KtoPlan(ExperimentPlan):
    """Arms that `kd.train.fit` trains, each on its own rows. scored : held-out rows as the trainer takes them."""

    scored: pl.DataFrame = field(repr=False)

    def train(self, training: ArmTraining) -> TrainedArm:
        """Reward = beta x (log p of the trained policy - log p of the untrained model), in units of beta nats."""
        return train_treatment(training, self.scored)

    def expect(self, left: Sequence[ArmTraining]) -> tuple[list[float], dict[str, Any]]:
        """By the pace of the first that is left."""
        shared = self.trainings[0].settings
        numbers = {"updates": shared["max_steps"], "batch_size": shared["batch_size"], "tokens_a_completion": None}
        if not left:
            return [], numbers
        pace = measure_pace(left[0].arm.rows, self.scored, left[0].settings)
        seconds = [kto_seconds(training, self.scored.height, pace, first=training is left[0]) for training in left]
        return seconds, numbers | {"tokens_a_completion": round(pace.tokens, 1)}

    def rewards(self, notify: Notify = lambda event: None) -> pl.DataFrame:
        """Train every arm: arm, seed, row_id, reward (higher is more desirable). notify : as in `run_arms`"""
        from ktodata.train.model.activation_cache import shared_activations

        with shared_activations():
            arms = self.run_arms(notify)
        each = [
            arm.scores.select(pl.lit(arm.name).alias("arm"), pl.lit(arm.seed, pl.Int64).alias("seed"), *REWARDS) for arm in arms
        ]
        return pl.concat(each) if each else pl.DataFrame(schema={"arm": pl.String(), "seed": pl.Int64(), **REWARDS})

    def run(self, notify: Notify = lambda event: None) -> Ablation:
        """Train every arm, and set it against the labels as given."""
        scores = self.rewards(notify)
        words = {training.arm.name: _arm_words(training.arm) for training in self.trainings}
        return _ablation(scores, self.held_out, words, self.settings)

    def outlook(self) -> dict[str, Any]:
        """What `run` would train: settings, arms, and the cost as `estimate`. A few updates are timed."""
        arms: dict[str, dict[str, Any]] = {}
        store = ArmStore(self.folder)
        for training in self.trainings:
            line = arms.setdefault(
                training.arm.name, {"arm": training.arm.name, **_arm_words(training.arm), "trainings": 0, "kept": 0}
            )
            line["trainings"] += 1
            line["kept"] += training in store
        return {"settings": dict(self.settings), "arms": list(arms.values()), "estimate": self.cost}


def plan_arms(
    arms_of: Callable[[int], Sequence[Arm]],
    scored: pl.DataFrame,
    *,
    model: str,
    seeds: Sequence[int],
    train: Mapping[str, Any],
    folder: Path | None = None,
) -> KtoPlan:
    """Every arm with every seed, in the order in which they are trained.

    arms_of : the arms of one seed, as some of them draw rows at random
    scored : row_id, prompt, completion, label, as shards hold them; truth (else the label), prompt_group and model where known.
        They are held out: nothing of them is trained on, and their label is not used.
    train : settings of `kd.train.fit` that all arms share, the budget among them; folder : where each arm's scores are kept

    Raises DataError for two arms of one name, or a training row that is held out as well.
    """
    columns = [name for name in SCORED if name in scored.columns and name != "label"]
    made_by = [code_digest(kto_training.__name__), releases("kto"), digest_model(model), digest_rows(scored, columns)]
    trainings = []
    for seed in seeds:
        arms = list(arms_of(seed))
        _check_names(arms)
        for arm in arms:
            check_apart(arm.rows, scored, f"arm {arm.name!r}")
            settings = {**train, **arm.settings, "model": model, "seed": seed}
            key = digest(made_by, settings, digest_rows(arm.rows, arm.rows.columns))
            trainings.append(ArmTraining(arm, seed, settings, key))
    truth = pl.col("truth" if "truth" in scored.columns else "label")
    is_text = scored.schema["prompt"] == pl.String
    prompts = scored["prompt"] if is_text else scored.select("prompt").hash_rows().cast(pl.String)
    groups = joined_groups(scored["prompt_group"], prompts) if "prompt_group" in scored.columns else scored["prompt"]
    source = pl.col("model") if "model" in scored.columns else pl.lit(None, pl.String)
    held_out = scored.select("row_id", truth=truth, group=groups, model=source)
    return KtoPlan(trainings, held_out, {"model": model, "seeds": list(seeds), **train}, folder, scored)


def pool(parts: Sequence[Ablation]) -> Ablation:
    """One ablation of several, each with rows held out of its own and seeds of its own: cross-validation, every row judged once.

    An arm counts where every part has it. Measures are taken within a seed and averaged; intervals: over all prompts and seeds.
    """
    names = [
        name for name in parts[0].table["arm"].unique(maintain_order=True) if all(name in part.table["arm"] for part in parts)
    ]
    scores, held_out = pl.concat([part.scores for part in parts]), pl.concat([part.held_out for part in parts])
    lines = [line for part in parts for line in part.table.select("arm", *WORDS).iter_rows(named=True)]
    words = {line.pop("arm"): line for line in lines}
    seeds = [seed for part in parts for seed in part.settings["seeds"]]
    settings = {**parts[0].settings, "seeds": seeds, "parts": len(parts)}
    return _ablation(scores, held_out, {name: words[name] for name in names}, settings)


def kto_seconds(training: ArmTraining, held_out: int, pace: Pace, *, first: bool) -> float:
    """What it is expected to take. Rows' own pairs are paid for by the first that is trained: the others share its reference."""
    updates, batch = int(training.settings["max_steps"]), int(training.settings["batch_size"])
    pairs = pace.partners * (updates * batch + held_out)
    if first:
        pairs += min(training.arm.rows.height, updates * batch) + held_out
    return pace.preparing + pairs * pace.pair + updates * pace.update + held_out * pace.scoring


def _check_names(arms: Sequence[Arm]) -> None:
    names = [arm.name for arm in arms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"two arms are named {twice[0]!r}; each needs a name of its own.")


def _arm_words(arm: Arm) -> dict[str, Any]:
    """As in WORDS."""
    return {"says": arm.says, "rows": arm.rows.height, "family": arm.family, "budget": arm.budget}


def _ablation(
    scores: pl.DataFrame, held_out: pl.DataFrame, words: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> Ablation:
    """The scores with what they are compared with. words : of each arm that counts, as in WORDS"""
    counted = scores.filter(pl.col("arm").is_in(list(words)))
    ceiling = CLEAN if CLEAN in words else None
    table = contrast(counted, held_out.unique(maintain_order=True), baseline=NOISY, ceiling=ceiling)
    about = pl.DataFrame([{"arm": name, **line} for name, line in words.items()], schema={"arm": pl.String(), **WORDS})
    return Ablation(table.join(about, on="arm", how="left", maintain_order="left"), scores, held_out, settings)
