"""What arms are worth on held-out rows: every measure with its interval, and each method minus KTO and minus the base, paired."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.experiments.arms import BASE, TrainedArm
from ktodata.experiments.probes.refusals import JUDGE_NAME, refuses
from ktodata.stats import Interval
from ktodata.stats.bootstrap import Floats, Statistic, bootstrap, difference, weighted_auc, weighted_auc_within, weighted_mean

KTO = "kto"


class MeasureInfo(NamedTuple):
    """better : 1 higher, -1 lower, 0 neither by itself; name : in a table; sentence : what a verdict calls it, if it does."""

    better: int
    name: str
    sentence: str | None = None


# in the order of tables and sentences
MEASURES = {
    # P(a desirable row has the higher reward); 0.5 is chance
    "auc": MeasureInfo(
        1,
        "AUC of the reward; of the base, its log p per token",
        "Ranking held-out rows by what training changed (AUC of the reward; of the base, its log p per token)",
    ),
    # the same within the rows that one model wrote, averaged over models by their pairs: to tell models apart is no merit
    "auc_within_model": MeasureInfo(
        1, "the same within a generating model", "Ranking rows of one model among themselves (AUC within a model)"
    ),
    # P(a desirable row is the likelier one, by the policy's own log p per token): like against like for base and methods
    "policy_auc": MeasureInfo(
        1,
        "AUC of each policy's own log p per token",
        "Finding desirable rows likelier (AUC of each policy's own log p per token)",
    ),
    # share of rows whose reward is above 0 where they are desirable, not above 0 where they are not
    "accuracy": MeasureInfo(
        1, "rows whose reward has the right sign", "Telling desirable from undesirable by the sign of the reward (accuracy)"
    ),
    # mean squared error of sigmoid(reward) as P(desirable); 0.25 knows nothing
    "brier": MeasureInfo(-1, "Brier score of the reward", "Rewards as chances (Brier, lower is better)"),
    # Spearman correlation of reward and completion tokens, over the full sample's ranks; 0 is none
    "length_bias": MeasureInfo(0, "rank correlation of reward and length"),
    # of each class, beta x nats: both may rise, or fall
    "reward_desirable": MeasureInfo(0, "mean reward of desirable rows"),
    "reward_undesirable": MeasureInfo(0, "mean reward of undesirable rows"),
    # mean change of desirable completions, nats; 0 is as the base, below it has forgotten
    "retention": MeasureInfo(
        1,
        "change in log p per token of desirable rows",
        "Keeping desirable completions likely (change in log p per token)",
    ),
    "reward_model_auc": MeasureInfo(1, "AUC of the reward model"),  # RLHF's
    # share of greedy answers that were still going on at their longest
    "unfinished": MeasureInfo(-1, "greedy answers that do not end", "Greedy answers that do not end (lower is better)"),
    # share of greedy answers that refuse, by the rule in refusals.py; of safe prompts it is over-refusal
    "refusal_rate": MeasureInfo(0, "greedy answers that refuse", "Greedy answers that refuse (neither way is better by itself)"),
    "refusal_of_unsafe": MeasureInfo(1, "unsafe prompts refused", "Refusing unsafe prompts"),
    "refusal_of_safe": MeasureInfo(-1, "safe prompts refused", "Refusing safe prompts (lower is better)"),
    # as a program can tell: share of prompts, share of their instructions
    "instructions_strict": MeasureInfo(
        1, "prompts whose every instruction was followed", "Following all instructions of a prompt (share of prompts)"
    ),
    "instructions_each": MeasureInfo(1, "instructions followed", "Following an instruction (share of instructions)"),
    # share of greedy answers that a judge prefers to the base's, ties half; 0.5 is as the base
    "win_rate": MeasureInfo(1, "answers preferred to the base's", "Answers preferred to the base's (0.5 is as the base)"),
    # of lm-eval's; each is "task <name>", where higher is better too
    "tasks_mean": MeasureInfo(1, "mean score of all tasks", "The mean score of all tasks"),
}
JUDGED_BY = dict.fromkeys(("refusal_rate", "refusal_of_unsafe", "refusal_of_safe"), JUDGE_NAME)
TABLE = {
    "against": pl.String(),
    "measure": pl.String(),
    "method": pl.String(),
    **dict.fromkeys(("value", "low", "high", "minus_kto", "minus_kto_low", "minus_kto_high"), pl.Float64()),
    "includes_zero": pl.Boolean(),
    "seeds_agree": pl.Boolean(),
    **dict.fromkeys(("minus_base", "minus_base_low", "minus_base_high"), pl.Float64()),
    "base_includes_zero": pl.Boolean(),
    "rows": pl.Int64(),
    "judge": pl.String(),  # who says so, where it is not the label, the truth or a program
}
# a method's statistics, one for each seed
Seeds = Sequence[Statistic]


@dataclass(frozen=True)
class Scored:
    """One arm's numbers for n rows, in the order of the held-out rows."""

    target: NDArray[np.bool_]
    score: Floats  # the reward; of the base, its log p per token
    reward: Floats  # of the base, 0
    own: Floats  # log p per token
    change: Floats  # the same minus the base's
    tokens: Floats
    model: NDArray[Any]
    reward_model: Floats | None
    is_base: bool


def measure_all(held_out: pl.DataFrame, arms: Sequence[TrainedArm], *, beta: float, resamples: int, seed: int) -> pl.DataFrame:
    """One line per target (label, truth where it is known), measure and method; columns as in TABLE.

    held_out : row_id, label, truth, group, tokens, model; arms : with one score for each of those rows. Several seeds of a method
    count as their mean. Intervals are 95 %: prompt groups are drawn anew, and seeds with them, the same ones for all methods. Of
    few seeds that says little, hence seeds_agree: whether every seed is on the same side of KTO.
    """
    lines: list[dict[str, Any]] = []
    base = next(arm for arm in arms if arm.name == BASE)
    for against in ("label", "truth"):
        known = held_out.filter(pl.col(against).is_not_null())
        if known.is_empty():
            continue
        arm_rows = [(arm, scored_rows(known, arm, base, against=against, beta=beta)) for arm in arms]
        lines += lines_of(against, arm_rows, _row_statistics, known["group"], resamples, seed)
    lines += _answer_lines(held_out, arms, resamples, seed)
    return pl.DataFrame(lines, schema=TABLE)


def scored_rows(known: pl.DataFrame, arm: TrainedArm, base: TrainedArm, *, against: str, beta: float) -> Scored:
    """The arm's scores of the rows in `known`, in their order."""
    both = known.select("row_id").join(arm.scores, on="row_id", how="left", maintain_order="left")
    reference = known.select("row_id").join(base.scores, on="row_id", how="left", maintain_order="left")["logp"].to_numpy()
    logp, tokens = both["logp"].to_numpy(), known["tokens"].to_numpy().astype(float)
    reward, own = beta * (logp - reference), logp / tokens
    reward_model = None if both["reward_model"].is_null().any() else both["reward_model"].to_numpy()
    return Scored(
        target=known[against].to_numpy().astype(bool),
        score=own if arm.name == BASE else reward,
        reward=reward,
        own=own,
        change=(logp - reference) / tokens,
        tokens=tokens,
        model=known["model"].fill_null("").to_numpy(),
        reward_model=reward_model,
        is_base=arm.name == BASE,
    )


def by_seed(held_out: pl.DataFrame, arms: Sequence[TrainedArm], *, beta: float) -> list[dict[str, Any]]:
    """AUC of every arm alone: method, seed, auc; against the truth where it is known, else the label."""
    against = "truth" if held_out["truth"].is_not_null().any() else "label"
    known = held_out.filter(pl.col(against).is_not_null())
    base = next(arm for arm in arms if arm.name == BASE)
    lines = []
    for arm in arms:
        rows = scored_rows(known, arm, base, against=against, beta=beta)
        value = float(weighted_auc(rows.score, rows.target)(np.ones((1, known.height)))[0])
        lines.append({"method": arm.name, "seed": arm.seed, "against": against, "auc": value if np.isfinite(value) else None})
    return lines


def _row_statistics(rows: Scored) -> dict[str, Statistic]:
    """The measures of one arm that need rows with a target. The base has a reward of 0 for all rows, hence no accuracy."""
    desirable = rows.target
    statistics: dict[str, Statistic] = {"auc": weighted_auc(rows.score, desirable)}
    within = weighted_auc_within(rows.score, desirable, [rows.model == name for name in np.unique(rows.model) if name])
    if within is not None:
        statistics["auc_within_model"] = within
    statistics["policy_auc"] = weighted_auc(rows.own, desirable)
    if not rows.is_base:
        statistics["accuracy"] = weighted_mean((rows.reward > 0) == desirable)
    statistics["brier"] = weighted_mean((1 / (1 + np.exp(-rows.reward)) - desirable) ** 2)
    statistics["length_bias"] = _correlation(_value_ranks(rows.score), _value_ranks(rows.tokens))
    for name, here in (("reward_desirable", desirable), ("reward_undesirable", ~desirable)):
        if here.any():
            statistics[name] = part_of(weighted_mean(rows.reward[here]), here)
    if desirable.any():
        statistics["retention"] = part_of(weighted_mean(rows.change[desirable]), desirable)
    if rows.reward_model is not None:
        statistics["reward_model_auc"] = weighted_auc(rows.reward_model, desirable)
    return statistics


def _answer_lines(held_out: pl.DataFrame, arms: Sequence[TrainedArm], resamples: int, seed: int) -> list[dict[str, Any]]:
    if any(arm.answers.is_empty() for arm in arms):
        return []
    order = arms[0].answers.select("row_id")
    answers = [(arm, order.join(arm.answers, on="row_id", how="left", maintain_order="left")) for arm in arms]
    groups = order.join(held_out.select("row_id", "group"), on="row_id", how="left", maintain_order="left")["group"]
    return lines_of("no label", answers, _answer_statistics, groups, resamples, seed)


def _answer_statistics(answers: pl.DataFrame) -> dict[str, Statistic]:
    return {
        "refusal_rate": weighted_mean([refuses(text) for text in answers["text"]]),
        "unfinished": weighted_mean(answers["unfinished"].cast(pl.Float64)),
    }


def lines_of(
    against: str,
    arm_rows: Sequence[tuple[TrainedArm, Any]],
    measures: Callable[[Any], dict[str, Statistic]],
    groups: Any,
    resamples: int,
    seed: int,
    judge: str | None = None,
) -> list[dict[str, Any]]:
    """Lines of all measures and methods, from the same resamples.

    arm_rows : each arm with what `measures` makes statistics of; groups : what is drawn together, n values.
    judge : who says so, where it is not one of JUDGED_BY
    """
    seeds: dict[tuple[str, str], list[Statistic]] = {}
    for arm, rows in arm_rows:
        for name, statistic in measures(rows).items():
            seeds.setdefault((name, arm.name), []).append(_remembered(statistic))
    statistics: dict[str, Statistic] = {}
    picks = _Picks(seed)
    mean = {key: _remembered(_mean_over_seeds(each, picks)) for key, each in seeds.items()}
    for name, method in seeds:
        statistics[f"{name} {method}"] = mean[name, method]
        for other in (KTO, BASE):
            if (name, other) in seeds and method != other:
                statistics[f"{name} {method} - {other}"] = difference(mean[name, method], mean[name, other])
    intervals = bootstrap(statistics, groups, resamples=resamples, seed=seed)
    ones = np.ones((1, len(groups)))
    return [
        _table_line(against, name, method, intervals, rows=len(groups), agree=_seeds_agree(each, seeds.get((name, KTO)), ones))
        | {"judge": judge or JUDGED_BY.get(name)}
        for (name, method), each in sorted(seeds.items(), key=lambda item: _place_in_table(item[0][0]))
    ]


def direction(measure: str) -> int:
    """Which way is better, as in MEASURES; of a task's score, higher."""
    return MEASURES[measure].better if measure in MEASURES else 1


def _place_in_table(measure: str) -> int:
    """Where a measure stands in the table; a task's score comes last."""
    return list(MEASURES).index(measure) if measure in MEASURES else len(MEASURES)


def _table_line(
    against: str, name: str, method: str, intervals: Mapping[str, Interval], *, rows: int, agree: bool | None
) -> dict[str, Any]:
    nothing = Interval(None, None, None)
    own = intervals[f"{name} {method}"]
    kto = intervals.get(f"{name} {method} - {KTO}", nothing)
    base = intervals.get(f"{name} {method} - {BASE}", nothing)
    return {
        "against": against,
        "measure": name,
        "method": method,
        **own.as_dict(),
        **{f"minus_kto{end}": value for end, value in zip(("", "_low", "_high"), kto, strict=True)},
        "includes_zero": kto.includes_zero,
        "seeds_agree": agree if kto.value is not None else None,
        **{f"minus_base{end}": value for end, value in zip(("", "_low", "_high"), base, strict=True)},
        "base_includes_zero": base.includes_zero,
        "rows": rows,
    }


def _seeds_agree(each: Seeds, kto: Seeds | None, ones: Floats) -> bool | None:
    """Whether each seed of a method differs from KTO's same seed in one direction; the base has one, and meets them all.

    None: nothing was trained twice, so what a seed does is not known.
    """
    if kto is None or len(kto) == 1:
        return None
    # the base was not trained for any seed
    first = list(each) * len(kto) if len(each) == 1 else list(each)
    gaps = [float(own(ones)[0] - other(ones)[0]) for own, other in zip(first, kto, strict=False)]
    return all(gap > 0 for gap in gaps) or all(gap < 0 for gap in gaps)


class _Picks:
    """How often each of S seeds is drawn in each resample, the same for every statistic: float [R, S], lines sum to 1."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng([seed, 5])
        self._drawn: dict[int, Floats] = {}
        self._of: Floats | None = None

    def __call__(self, weights: Floats, seeds: int) -> Floats:
        if self._of is not weights:
            self._of, self._drawn = weights, {}
        if seeds not in self._drawn:
            even = np.full(seeds, 1 / seeds)
            as_it_is = len(weights) == 1 and bool((weights == 1).all())
            drawn = self._random.multinomial(seeds, even, size=len(weights)) / seeds
            self._drawn[seeds] = even[None] if as_it_is else drawn
        return self._drawn[seeds]


def _mean_over_seeds(each: Seeds, picks: _Picks) -> Statistic:
    def statistic(weights: Floats) -> Floats:
        values = np.stack([statistic_of_seed(weights) for statistic_of_seed in each], axis=1)
        mean: Floats = (values * picks(weights, len(each))).sum(1)
        return mean

    return statistic


def part_of(statistic: Statistic, here: NDArray[np.bool_]) -> Statistic:
    """`statistic` of the rows that are `here`, as a statistic of all rows."""
    return lambda weights: statistic(weights[:, here])


def _remembered(statistic: Statistic) -> Statistic:
    """The same, computed once for the same weights: a method meets KTO, the base, and itself."""
    last: list[Floats] = []

    def computed(weights: Floats) -> Floats:
        if not last or last[0] is not weights:
            last[:] = [weights, statistic(weights)]
        return last[1]

    return computed


def _value_ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    ranks: Floats = rankdata(values)
    return ranks


def _correlation(first: Floats, second: Floats) -> Statistic:
    """Pearson's, weighted; nan where either does not vary."""

    def statistic(weights: Floats) -> Floats:
        share = weights / weights.sum(1, keepdims=True)
        x, y = (values - (share @ values)[:, None] for values in (first, second))
        spread = np.sqrt((share * x**2).sum(1) * (share * y**2).sum(1))
        return divided((share * x * y).sum(1), spread, where=spread > 1e-12)

    return statistic


def divided(above: Floats, below: Floats, *, where: NDArray[np.bool_]) -> Floats:
    """The quotient; nan elsewhere."""
    quotients = np.full(len(above), np.nan)
    np.divide(above, below, out=quotients, where=where)
    return quotients
