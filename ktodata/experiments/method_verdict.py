"""What a comparison's table says, in plain sentences. No win is claimed where an interval includes zero, or seeds disagree."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ktodata.experiments.arms import BASE
from ktodata.experiments.measures import KTO, MEASURES, direction
from ktodata.experiments.probes.refusals import JUDGE

NAMES = {
    "base": "the untrained base",
    "kto": "KTO",
    "kto_hybrid": "hybrid KTO",
    "sft": "SFT",
    "dpo": "DPO",
    "orpo": "ORPO",
    "rlhf": "RLHF",
}
SIDES = ("Better than KTO", "Worse than KTO", "Different from KTO", "Not to be told from KTO")


def verdict_sentences(table: pl.DataFrame, facts: Mapping[str, Any]) -> list[str]:
    """What was trained on how much, then one sentence per measure, then what the numbers do not say."""
    sentences = [_what_was_trained(facts)]
    for against in ("truth", "no label") if _truth_is_label(table) else ("truth", "label", "no label"):
        tasks = [name for name in table["measure"].unique(maintain_order=True) if name.startswith("task ")]
        for measure in (*(name for name, about in MEASURES.items() if about.sentence), *tasks):
            lines = table.filter((pl.col("against") == against) & (pl.col("measure") == measure))
            if not lines.is_empty():
                sentences.append(
                    _measure_sentence(measure, _measure_head(measure, against, facts, lines["judge"][0]), lines.to_dicts())
                )
    return [*sentences, *_caveats(table, facts)]


def _truth_is_label(table: pl.DataFrame) -> bool:
    """Whether the same was measured against both, which need no second telling then."""
    truth, label = (table.filter(pl.col("against") == against).drop("against") for against in ("truth", "label"))
    return truth.equals(label)


def _what_was_trained(facts: Mapping[str, Any]) -> str:
    used, trained = facts["rows_used"], [arm["method"] for arm in facts["arms"] if arm["method"] != BASE]
    each = ", ".join(f"{NAMES[name]} {used['rows_used'][name]:,}" for name in dict.fromkeys(trained))
    return (
        f"Of {used['rows']:,} training rows, each could use: {each}. Every one made {facts['updates']:,} updates of "
        f"{facts['settings']['batch_size']} completions; scored on {facts['held_out_rows']:,} {facts['part']} rows of "
        f"{facts['prompt_groups']:,} prompt groups."
    )


def _measure_head(measure: str, against: str, facts: Mapping[str, Any], judge: str | None) -> str:
    head = MEASURES[measure].sentence or measure if measure in MEASURES else _task_head(measure.removeprefix("task "), facts)
    head += ("" if against == "no label" else f", against the {against}") + (f", by {judge}" if judge else "")
    if measure != "accuracy":
        return head
    # a method that lifts every completion is right about all desirable ones
    share = facts["share_desirable"][against]
    return f"{head} (rewards that are all above 0 would be right for {share:.3f}, all below for {1 - share:.3f})"


def _task_head(name: str, facts: Mapping[str, Any]) -> str:
    tasks = facts["probes"]["tasks"]
    return f"Task {name} ({tasks['metrics'][name]} of {tasks['items'][name]:,} items)"


def _measure_sentence(measure: str, head: str, lines: Sequence[Mapping[str, Any]]) -> str:
    of = {line["method"]: line for line in lines}
    if all(line["value"] is None for line in lines):
        return f"{head}: cannot be measured on these rows."
    values = "; ".join(f"{NAMES[method]} {_with_interval(line)}" for method, line in of.items())
    if KTO not in of:
        return f"{head}: {values}. KTO was not trained, so nothing is set against it."
    return f"{head}: {values}. {_against_kto(measure, [line for method, line in of.items() if method != KTO])}"


def _against_kto(measure: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Who is better, worse, or cannot be told from KTO, each with the difference and its interval."""
    by_side: dict[str, list[str]] = {}
    for line in lines:
        if line["minus_kto"] is not None:
            text = f"{NAMES[line['method']]} ({_difference_from_kto(line)})"
            by_side.setdefault(_side_of_kto(measure, line), []).append(text)
    return " ".join(f"{side}: {', '.join(by_side[side])}." for side in SIDES if side in by_side)


def _side_of_kto(measure: str, line: Mapping[str, Any]) -> str:
    if not proven(line):
        return SIDES[3]
    better = line["minus_kto"] * direction(measure)
    return SIDES[0] if better > 0 else SIDES[1] if better < 0 else SIDES[2]


def proven(line: Mapping[str, Any]) -> bool:
    """Whether a difference from KTO is more than chance: its interval excludes zero, and all seeds point one way."""
    return line["includes_zero"] is False and line["seeds_agree"] is True


def _caveats(table: pl.DataFrame, facts: Mapping[str, Any]) -> list[str]:
    seeds = len(facts["settings"]["seeds"])
    of_seeds = (
        "One seed was trained: another could turn out otherwise, and no interval here says how far: no difference is claimed."
        if seeds == 1
        else f"{seeds} seeds were trained and averaged; intervals are over held-out prompts and those seeds."
    )
    sentences = [
        of_seeds,
        "Learning rates were fixed beforehand and tuned for no method; another rate could change the order of any two.",
        "Intervals are 95 % for each difference by itself: of twenty that mean nothing, one will exclude zero.",
    ]
    alike = table.filter(
        (pl.col("against") == "no label") & (pl.col("low") == pl.col("high")) & (pl.col("measure") != "win_rate")
    )
    if not alike.is_empty():
        sentences.append("An interval of no width means that all n items came out alike: the true share may still be 3 / n away.")
    probes = facts.get("probes") or {}
    sentences += [_prompts_sentence(name, numbers) for name, numbers in probes.items() if name != "tasks"]
    if (judged := facts.get("win_rate") or {}).get("not_applicable"):
        sentences.append(f"No answer is said to win: the judge would be {judged['judge']}, so {judged['not_applicable']}.")
    elif "auc" in judged:
        sentences.append("The judge's AUC is of held-out rows as they were given; of the answers that it judged it is not known.")
    if facts.get("generation") or "safety" in probes:
        sentences.append(f"Refusals were counted by {JUDGE}.")
    return sentences


def _prompts_sentence(name: str, numbers: Mapping[str, Any]) -> str:
    """What a file's prompts were, and which of them were not answered."""
    answered, longest = numbers["answered"], numbers["longest_answer"]
    sentence = f"{name.capitalize()}: {answered:,} prompts of {numbers['file']}, answered within {longest:,} tokens"
    if numbers["too_long"]:
        sentence += f"; {numbers['too_long']:,} were too long to leave room for that"
    if numbers.get("left_out"):
        sentence += f"; {numbers['left_out']:,} left out for instructions without a check ({', '.join(numbers['unknown'])})"
    return f"{sentence}."


def _with_interval(line: Mapping[str, Any]) -> str:
    if line["value"] is None:
        return "not measurable"
    return f"{line['value']:.3f} ({line['low']:.3f} to {line['high']:.3f})"


def _difference_from_kto(line: Mapping[str, Any]) -> str:
    gap = f"{line['minus_kto']:+.3f}, {line['minus_kto_low']:+.3f} to {line['minus_kto_high']:+.3f}"
    return gap + ("; not in every seed" if line["includes_zero"] is False and line["seeds_agree"] is False else "")
