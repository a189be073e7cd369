"""`kd.ablate`: which treatment of the labels makes the better model? Arms on equal terms, with a random control for each.

Every arm is trained from the same model with the same seeds and as many updates of the same size, and judged by held-out rows
whose truth is known. Dropping rows has its control, as many dropped at random; so has review, as many reviewed at random.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import DataError, RunError, SettingError
from ktodata.evaluate.arms import Arm, Notify, run_arms
from ktodata.evaluate.contrast import contrast
from ktodata.evaluate.truth import with_truth
from ktodata.files import whole_file, write_json
from ktodata.label_audit import LabelAudit
from ktodata.run_folder import Run
from ktodata.settings import unknown_name
from ktodata.signals.policy import DROP_FROM, LIKELIER_FROM, RELABEL_FROM, soft_labels, wrong_by_random_flips
from ktodata.signals.review_simulation import reviews_of
from ktodata.signals.reviewed_model import Reviewed

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# reviews_of, for one audit's rows: (labels, truth, count, order=, seed=) -> (which were reviewed, what they taught)
Reviewing = Callable[..., tuple[Bools, Reviewed]]

NOISY, CLEAN = "labels as given", "true labels"
Family = Literal[
    "as given",
    "confident learning",  # rows that it doubts are dropped
    "by the audit",  # what the audit's measured chances ask for
    "by guess",  # the same, where nothing measured them
    "at random",  # as many dropped at random as another arm drops
    "true",
    "oracle",  # exactly the wrong rows are dropped
    "reviewed",  # by the audit's queue, and the others softened by what was learnt
    "relabelled",  # the same reviews, and every other row has the likelier label
    "noise-corrected",  # the same reviews, and a loss corrected for the flip rates that they give
    "reviewed at random",  # as many put right, and nothing learnt from them
]
FAMILIES: tuple[Family, ...] = get_args(Family)
REVIEWING: tuple[Family, ...] = ("reviewed", "relabelled", "noise-corrected", "reviewed at random")
TERMS: Mapping[str, Any] = {"epochs": 1, "max_steps": 77, "batch_size": 16, "learning_rate": 2e-5, "trainable_layers": 6}
SOFT = {"soft_labels": True}
WORDS = {"says": pl.String(), "rows": pl.Int64(), "family": pl.String(), "budget": pl.Float64()}  # of each arm
# what a recipe's train: may say about every arm; labels and weights are what the arms differ in
TRAINED_BY = (
    *("objective", "epochs", "max_steps", "batch_size", "learning_rate", "warmup_fraction", "schedule", "beta", "max_length"),
    *("trainable_layers", "lora", "optimizer", "weight_decay", "device", "dtype", "z0_rows", "keep_states_mb"),
)


@dataclass(frozen=True)
class Ablation:
    """What was found.

    table : one line for each arm and measure, as `evaluate.contrast` gives it, with rows (trained on, of the last seed), says
        (what the arm is), family (the kind of treatment, of FAMILIES) and budget (share of the rows that it reviews; null: none)
    scores : arm, seed, row_id, reward; held_out : row_id, truth, group, model
    """

    table: pl.DataFrame
    scores: pl.DataFrame
    held_out: pl.DataFrame
    settings: Mapping[str, Any]

    def verdict(self) -> list[str]:
        """Sentences: what differs from the labels as given, and what does not. A difference counts if its interval lacks zero."""
        told = []
        for line in self.table.filter(pl.col("measure") == "auc", pl.col("arm") != NOISY).iter_rows(named=True):
            span = f"{line['minus_baseline']:+.3f} ({line['minus_low']:+.3f} to {line['minus_high']:+.3f})"
            word = (
                "no difference that this can show" if not line["differs"] else "better" if line["minus_baseline"] > 0 else "worse"
            )
            gap = "" if line["gap_recovered"] is None else f"; {line['gap_recovered']:.0%} of the gap to true labels"
            told.append(f"{line['arm']}: {word}, AUC {span}{gap}.")
        clean = self.table.filter(pl.col("measure") == "auc", pl.col("arm") == CLEAN)
        if clean.height and not clean["differs"][0]:
            told.append("True labels are not better than those as given by more than chance, so no share of that gap is told.")
        return told

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"settings": dict(self.settings), "verdict": self.verdict(), "arms": self.table.to_dicts()}

    def write(self, folder: Path) -> None:
        """ablation.json, and ablation.parquet with every score."""
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / "ablation.parquet") as scratch:
            self.scores.write_parquet(scratch)
        write_json(folder / "ablation.json", self.as_dict())

    def plot(self, measure: str = "auc") -> Any:
        """A matplotlib figure: each arm's difference from the labels as given, with its 95 % interval.

        Raises EmptyDataError when no arm has a difference in that measure.
        """
        from ktodata.evaluate.ablation_figures import forest

        return forest(self.table, measure=measure)


def ablate(
    audit: LabelAudit,
    held_out: pl.DataFrame,
    *,
    model: str,
    truth: Mapping[str, bool] | None = None,
    budgets: Sequence[float] = (0.05, 0.1),
    families: Sequence[Family] = FAMILIES,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    train: Mapping[str, Any] | None = None,
    conversational: bool = False,
    folder: Path | None = None,
    notify: Notify = lambda event: None,
) -> Ablation:
    """Train one model for each treatment of the labels, and say which of them helps.

    audit : as `kd.audit` gives it; its training rows are what all arms start from
    held_out : row_id, prompt, completion and truth (bool; rows of null are left out); prompt_group and model where known. No row
        of them, and no prompt, may be among the audit's: split first.
    truth : row_id -> true label of the audit's rows, for the arms that need it (true labels, wrong rows dropped, reviews played)
    budgets : shares of the rows that are reviewed
    families : the kinds of treatment to try; the labels as given are always among them
    train : settings of `kd.train.fit` in place of TERMS; every arm makes the same updates. Fix them beforehand.
    conversational : hand the model messages through its chat template, in place of plain text
    folder : keeps each arm's scores as it goes, so that a stopped ablation goes on

    An arm that would train on the same labels as another is left out. Raises what `fit` raises, and DataError for rows of truth
    that are missing or held-out rows of one class.
    """
    rows, known = _training_rows(audit), held_out.filter(pl.col("truth").is_not_null())
    if known["truth"].n_unique() < 2:
        raise DataError(f"ablate: {known.height:,} held-out rows have a known truth; both true and false are needed.")
    settings = _equal_budget({**TERMS, **(train or {})}, rows.height)
    told: dict[str, dict[str, Any]] = {}
    by_truth: Callable[[int], list[Arm]] = lambda seed: []  # noqa: E731
    if truth is not None:
        reviews = partial(reviews_of, audit.rows_of_trained(), audit.p_desirable_of_trained())
        played = budgets if {*REVIEWING} & {*families} else ()
        by_truth = partial(_by_truth, rows, _truth_of(rows, truth), reviews, played)
    guess = _guessed(audit) if "by guess" in families else None

    def arms_of(seed: int) -> list[Arm]:
        arms = [arm for arm in (*_arms(rows, guess, seed), *by_truth(seed)) if arm.family in ("as given", *families)]
        told.update({arm.name: _told(arm) for arm in arms})
        return [replace(arm, rows=_shown(arm.rows, conversational)) for arm in arms]

    scored = _shown(known.with_columns(label="truth"), conversational)
    scores = run_arms(arms_of, scored, model=model, seeds=seeds, train=settings, folder=folder, notify=notify)
    groups = pl.col("prompt_group") if "prompt_group" in known.columns else pl.col("prompt")
    about = known.select(
        "row_id", "truth", group=groups, model=pl.col("model") if "model" in known.columns else pl.lit(None, pl.String)
    )
    table = contrast(scores, about, baseline=NOISY, ceiling=CLEAN if CLEAN in told else None)
    return Ablation(_with_words(table, told), scores, about, {"model": model, "seeds": list(seeds), **settings})


def pool(parts: Sequence[Ablation]) -> Ablation:
    """One ablation of several, each with rows held out of its own and seeds of its own: cross-validation, every row judged once.

    An arm counts where every part has it. Measures are taken within a seed and averaged; intervals: over all prompts and seeds.
    """
    names = [
        name for name in parts[0].table["arm"].unique(maintain_order=True) if all(name in part.table["arm"] for part in parts)
    ]
    scores, held_out = pl.concat([part.scores for part in parts]), pl.concat([part.held_out for part in parts])
    told = {line["arm"]: line for part in parts for line in part.table.select("arm", *WORDS).iter_rows(named=True)}
    table = contrast(
        scores.filter(pl.col("arm").is_in(names)),
        held_out.unique(maintain_order=True),
        baseline=NOISY,
        ceiling=CLEAN if CLEAN in names else None,
    )
    seeds = [seed for part in parts for seed in part.settings["seeds"]]
    return Ablation(_with_words(table, told), scores, held_out, {**parts[0].settings, "seeds": seeds, "parts": len(parts)})


def as_family(name: str) -> Family:
    """The kind of treatment of that name. Raises SettingError for an unknown one."""
    for family in FAMILIES:
        if family == name:
            return family
    raise SettingError(unknown_name("ablate: unknown kind of treatment", name, FAMILIES))


def _told(arm: Arm) -> dict[str, Any]:
    return {"says": arm.says, "rows": arm.rows.height, "family": arm.family, "budget": arm.budget}


def _with_words(table: pl.DataFrame, told: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """The table with WORDS, what was told of each arm."""
    words = pl.DataFrame([{"arm": name, **of_arm} for name, of_arm in told.items()], schema={"arm": pl.String(), **WORDS})
    return table.join(words, on="arm", how="left", maintain_order="left")


def _equal_budget(settings: dict[str, Any], rows: int) -> dict[str, Any]:
    """As many updates for every arm, whatever it left out: those that `epochs` over all rows make, unless max_steps says."""
    steps = settings["max_steps"] or settings["epochs"] * -(-rows // settings["batch_size"])
    return settings | {"max_steps": steps, "epochs": 1000}


def ablate_run(
    folder: Path | str,
    *,
    part: str = "test",
    model: str | None = None,
    budgets: Sequence[float] = (0.05, 0.1),
    families: Sequence[Family] = FAMILIES,
    seeds: Sequence[int] = (0, 1, 2),
    train: Mapping[str, Any] | None = None,
    notify: Notify = lambda event: None,
) -> Ablation:
    """`ablate` on the rows of a run; writes ablation.json and ablation.parquet into the run folder, and goes on where it stopped.

    Held-out rows are judged by the truth that the recipe's `evaluate:` names, and so are the arms that need it; without one, by
    their labels as given, which then are what is learnt to please.
    model, train : those of the recipe's `train:` unless given. Raises RunError for a run without label_noise or held-out rows.
    """
    run = Run(folder)
    audit, recipe = LabelAudit.of_run(run), run.manifest["recipe"]
    asked = {name: value for name, value in (recipe["train"] or {}).items() if name in TRAINED_BY}
    base = model or (recipe["train"] or {}).get("model")
    if base is None:
        raise RunError(f"{run.folder}: its recipe trains no model; say which one to train.")
    rows = _with_truth(run)
    held_out = rows.filter(pl.col("part") == part) if "part" in rows.columns else rows.clear()
    if held_out.is_empty():
        raise RunError(f"{run.folder} holds out no {part} rows; put the step split into its recipe.")
    known = rows.filter(pl.col("row_id").is_in(audit.table.filter(pl.Series(audit.trained))["row_id"].implode()))
    every = rows["judged_by"][0] == "truth" and known["truth"].null_count() == 0
    found = ablate(
        audit,
        held_out,
        model=base,
        truth=dict(known.select("row_id", "truth").iter_rows()) if every else None,
        budgets=budgets,
        families=families,
        seeds=seeds,
        train={**asked, **(train or {})},
        conversational=bool(run.stage("export").facts["conversational"]) if "export" in run.stage_names() else False,
        folder=run.folder / "ablation",
        notify=notify,
    )
    found = replace(found, settings={**found.settings, "part": part, "judged_by": rows["judged_by"][0]})
    found.write(run.folder)
    return found


def _with_truth(run: Run) -> pl.DataFrame:
    """The run's rows with truth (from the file that its recipe names; else the label) and judged_by."""
    asked = run.evaluate_settings()
    if not asked.get("truth"):
        return run.feedback.with_columns(truth="label", judged_by=pl.lit("label"))
    return with_truth(run.feedback, asked["truth"], None).with_columns(judged_by=pl.lit("truth"))


def _training_rows(audit: LabelAudit) -> pl.DataFrame:
    """The rows that the audit learnt from: row_id, prompt, completion, label, prompt_group, soft_label, is_label_issue."""
    measured = audit.result.columns.select("row_id", "soft_label", "is_label_issue")
    rows = audit.table.select("row_id", "prompt", "completion", "label", "prompt_group").filter(pl.Series(audit.trained))
    return rows.join(measured, on="row_id", how="left", maintain_order="left")


def _truth_of(rows: pl.DataFrame, truth: Mapping[str, bool]) -> Bools:
    missing = [row_id for row_id in rows["row_id"] if row_id not in truth]
    if missing:
        raise DataError(f"ablate: truth lacks {len(missing):,} of {rows.height:,} training rows (first: {missing[0]}).")
    return np.array([truth[row_id] for row_id in rows["row_id"]], dtype=bool)


def _plain(rows: pl.DataFrame) -> pl.DataFrame:
    """As they are trained on, whatever the audit thinks of them."""
    return rows.drop("soft_label", "is_label_issue")


def _guessed(audit: LabelAudit) -> Floats | None:
    """P(the label is wrong) of the training rows if errors were random: float [rows]; None where nothing was learnt."""
    if "not_learnt" in audit.facts:
        return None
    labels = audit.table["label"].to_numpy()[audit.trained]
    joint = np.asarray(audit.facts["label_noise_estimate"]["confident_joint"])
    return wrong_by_random_flips(audit.p_desirable_of_trained(), labels, joint)


def _arms(rows: pl.DataFrame, guess: Floats | None, seed: int) -> list[Arm]:
    """Those that need no truth."""
    plain, doubted = _plain(rows), rows["is_label_issue"].fill_null(False)
    arms = [Arm(NOISY, "every row with the label it came with", plain, family="as given")]
    if doubted.any():
        says = "rows that confident learning doubts are dropped"
        arms.append(Arm("confident learning, dropped", says, plain.filter(~doubted), family="confident learning"))
        arms.append(_random_drop(plain, int(doubted.sum()), seed, "confident learning's count"))
    by_policy = _by_policy(rows, plain, seed)
    if not by_policy and guess is not None:
        labels = plain["label"].to_numpy()
        soft = _softened(plain, np.where(labels, 1 - guess, guess))
        says = "softened as if all errors were random; nothing measured it"
        arms.append(Arm("soft labels, by guess", says, soft, SOFT, family="by guess"))
    return arms + by_policy


def _by_truth(rows: pl.DataFrame, truth: Bools, reviews: Reviewing, budgets: Sequence[float], seed: int) -> list[Arm]:
    """What can be tried only where the truth is known."""
    plain, real = _plain(rows), pl.Series("truth", truth)
    right = plain.filter(real == rows["label"])
    arms = [
        Arm(CLEAN, "every row with its true label", plain.with_columns(label=real), family="true"),
        Arm("wrong rows dropped", "exactly the wrong rows are dropped, as only an oracle could", right, family="oracle"),
    ]
    return arms + [arm for budget in budgets for arm in _reviewed(plain, truth, reviews, budget, seed)]


def _by_policy(rows: pl.DataFrame, plain: pl.DataFrame, seed: int) -> list[Arm]:
    """What the audit's measured chances ask for; nothing where none was measured."""
    p_wrong = (rows["soft_label"] - rows["label"].cast(pl.Float64)).abs()
    if not (p_wrong > 0).any():
        return []
    dropped = int((p_wrong > DROP_FROM).sum())
    soft = _softened(plain, rows["soft_label"].to_numpy())
    ours: Family = "by the audit"
    arms = [Arm("soft labels", "each label weighs what the audit believes of it", soft, SOFT, family=ours)]
    if (p_wrong > LIKELIER_FROM).any():
        likelier = _turned(plain, p_wrong > LIKELIER_FROM)
        arms.append(Arm("likelier labels", "over 1/2 relabelled, none dropped", likelier, family=ours))
    if dropped:
        likely = plain.filter(p_wrong <= DROP_FROM)
        arms.append(Arm("likely wrong, dropped", "rows over 1/4 likely to be wrong are dropped", likely, family=ours))
        arms.append(_random_drop(plain, dropped, seed, "the audit's count"))
        kept = (p_wrong <= DROP_FROM) | (p_wrong > RELABEL_FROM)
        repaired = _turned(plain, p_wrong > RELABEL_FROM).filter(kept)
        arms.append(Arm("repaired", "over 1/4 dropped, over 3/4 relabelled", repaired, family=ours))
    return arms


def _turned(plain: pl.DataFrame, wrong: pl.Series) -> pl.DataFrame:
    return plain.with_columns(label=pl.col("label") ^ wrong)


def _random_drop(plain: pl.DataFrame, count: int, seed: int, whose: str) -> Arm:
    places = np.sort(np.random.default_rng([seed, 0xD209]).permutation(plain.height)[count:])
    return Arm(f"dropped at random, {whose}", f"{count:,} rows are dropped at random", plain[places], family="at random")


def _reviewed(plain: pl.DataFrame, truth: Bools, reviews: Reviewing, budget: float, seed: int) -> list[Arm]:
    """Soft labels after a share of rows was reviewed, chosen by the audit's queue, or the likelier labels, or a loss corrected
    by the flip rates that those reviews give; and as many drawn at random, put right only.
    """
    labels, count = plain["label"].to_numpy(), round(budget * plain.height)
    queued, learnt = reviews(labels, truth, count, order="gain", seed=seed)
    known = np.where(labels, learnt.scale[True] is not None, learnt.scale[False] is not None)
    p_wrong = np.where(labels, 1 - learnt.p_desirable, learnt.p_desirable)
    soft = soft_labels(labels, p_wrong, known, queued, truth)
    drawn, _ = reviews(labels, truth, count, order="random", seed=seed)
    righted = plain.with_columns(label=pl.Series(np.where(drawn, truth, labels)))
    says, name = f"{count:,} rows of the queue reviewed", f"{budget:.0%} reviewed"
    arms = [Arm(f"{name}, soft labels", f"{says}; the rest softened", _softened(plain, soft), SOFT, "reviewed", budget)]
    likelier = plain.with_columns(label=pl.Series(np.where(known | queued, soft > 1 / 2, labels)))
    told = f"{says}; the rest have the likelier label"
    arms.append(Arm(f"{name}, relabelled", told, likelier, family="relabelled", budget=budget))
    rates = _flip_rates(labels, learnt.p_desirable, ~queued)
    if known.all() and sum(rates.values()) < 1:  # from there on labels say the opposite, and no loss can be corrected
        put_right = plain.with_columns(label=pl.Series(np.where(queued, truth, labels)))
        told = f"{says} and put right; the loss corrected for the flip rates of the rest"
        arms.append(Arm(f"{name}, noise-corrected", told, put_right, {"flip_rates": rates}, "noise-corrected", budget))
    at_random = f"{count:,} rows drawn at random and put right"
    return [*arms, Arm(f"{name} at random", at_random, righted, family="reviewed at random", budget=budget)]


def _flip_rates(labels: Bools, p_desirable: Floats, here: Bools) -> dict[str, float]:
    """Shares of each true class that are labelled otherwise, as expected of the rows `here`."""
    p, up = p_desirable[here], labels[here]
    return {"desirable": float(p[~up].sum() / p.sum()), "undesirable": float((1 - p)[up].sum() / (1 - p).sum())}


def _softened(plain: pl.DataFrame, soft: Floats) -> pl.DataFrame:
    return plain.with_columns(p_desirable=pl.Series(soft))


def _shown(rows: pl.DataFrame, conversational: bool) -> pl.DataFrame:
    """Prompts and completions as messages, if asked for."""
    if not conversational:
        return rows
    told = {"prompt": "user", "completion": "assistant"}
    turns = [
        pl.concat_list(pl.struct(pl.lit(role).alias("role"), pl.col(name).alias("content"))).alias(name)
        for name, role in told.items()
    ]
    return rows.with_columns(turns)
