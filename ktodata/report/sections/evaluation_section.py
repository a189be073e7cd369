"""Held-out results: the base model against the trained one, with intervals, and what they do and do not show."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ktodata.report import figures
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.text import Excerpt, excerpt, interval, percent, plural, signed

AGAINST = {"label": "labels as given", "truth": "the truth"}
MEASURES = {
    "base_auc": "AUC of the base model, by its log-probability per token",
    "policy_auc": "AUC of the trained model, by its log-probability per token",
    "policy_gain": "gain of the trained model over the base, paired",
    "auc": "AUC of what training changed (the reward)",
    "accuracy": "rows whose reward has the right sign",
    "brier": "Brier score of the reward (lower is better, 0.25 knows nothing)",
}
ANSWERS = {
    "base": "prompts whose answer passes, base model",
    "trained": "prompts whose answer passes, trained model",
    "gain": "gain of the trained model over the base in passed prompts, paired",
}
# measure, its name in the picture, its colour
AUC_POINTS = (("base_auc", "base", "gone"), ("policy_auc", "trained", "kept"), ("auc", "what training changed", "doubt"))
MAX_ANSWERS = 6
MODEL_IS_GONE = (
    "Not measured.",
    "What was evaluated is no longer the model in the run folder: another was trained since. `ktodata evaluate` measures it.",
)


@dataclass(frozen=True)
class Result:
    """One number, what it is held against, and on how many rows."""

    name: str
    against: str
    rows: int
    value: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> str:
        """The ends of its 95 % interval as text; empty where none was measured."""
        return interval([self.low, self.high])


@dataclass(frozen=True)
class Answer:
    """What the two models wrote to one held-out prompt."""

    prompt: Excerpt
    base: Excerpt
    trained: Excerpt


@dataclass(frozen=True)
class EvaluationSection:
    """What evaluation.json says, ready to be shown. ranking : of held-out rows, where `verdict` is of what models write"""

    lines: list[Result]
    not_applicable: list[str]
    groups: int | None
    picture: Markup | None
    answers: list[Answer]
    verdict: tuple[str, str]
    facts: Mapping[str, Any]
    ranking: str = ""

    @property
    def of_one_training(self) -> str:
        """What no interval here holds; empty where nothing is shown."""
        return "That is of one training: another seed may turn out otherwise." if self.lines else ""


def read_evaluation(run: RunFiles) -> EvaluationSection | None:
    """The held-out results; None when the run does not evaluate. Of a model that is gone no figure is shown."""
    facts = run.evaluation
    if not facts:
        return None
    if run.another_was_evaluated:
        return EvaluationSection([], [], None, None, [], MODEL_IS_GONE, {})
    generations, ranking = pick(facts, "generation.examples", default=[]), _ranking_verdict(facts)
    written = _answers_verdict(facts)
    return EvaluationSection(
        lines=list(_result_lines(facts)),
        not_applicable=[str(why) for name in AGAINST if (why := pick(facts, f"against_{name}.not_applicable"))],
        groups=pick(facts, "prompt_groups"),
        picture=_auc_picture(facts),
        answers=[
            Answer(*(excerpt(generated.get(name), 240) for name in ("prompt", "base", "trained")))
            for generated in generations[:MAX_ANSWERS]
        ],
        verdict=written or ranking,
        facts=facts,
        ranking=ranking[1] if written else "",
    )


def _result_lines(facts: Mapping[str, Any]) -> Iterator[Result]:
    checked = pick(facts, "instructions", default={})
    for key, name in ANSWERS.items():
        if checked and (measure := checked[key]).get("value") is not None:
            yield Result(name, "a program", checked["prompts"], measure["value"], measure.get("low"), measure.get("high"))
    for against, called in AGAINST.items():
        measures = pick(facts, f"against_{against}.measures", default={})
        rows = pick(facts, f"against_{against}.rows", default=0)
        for key, name in MEASURES.items():
            if (measure := measures.get(key)) and measure.get("value") is not None:
                yield Result(name, called, rows, measure["value"], measure.get("low"), measure.get("high"))


def _auc_picture(facts: Mapping[str, Any]) -> Markup | None:
    """AUC of the base and of the trained model, against each."""
    points = []
    for against, called in AGAINST.items():
        for key, model, role in AUC_POINTS:
            measure = pick(facts, f"against_{against}.measures.{key}", default={})
            if measure.get("value") is not None:
                points.append(
                    figures.RangePoint(f"{model}, {called}", measure["value"], measure.get("low"), measure.get("high"), role)
                )
    if not points:
        return None
    limits = (min(0.4, *(dot.low if dot.low is not None else dot.value for dot in points)), 1.0)
    axis = "AUC on held-out rows, with its 95 % interval"
    return figures.ranges(
        "results", "Held-out results", points, axis=axis, limits=limits, as_percent=False, reference=(0.5, "chance")
    )


def _answers_verdict(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    """Better, worse, or no difference that the paired interval shows, by the share of prompts whose answers pass a program."""
    checked = pick(facts, "instructions", default={})
    if not checked or (gain := checked["gain"]).get("low") is None:
        return None
    text = (
        f"Of {plural(checked['prompts'], 'prompt')} that no training row has, a program passes the answer of the trained "
        f"model to {_percent_with_interval(checked['trained'])}, of the base model to {_percent_with_interval(checked['base'])}: "
        f"{_points_with_interval(gain)}."
    )
    return _gain_word(gain), text


def _gain_word(gain: Mapping[str, Any]) -> str:
    return "Training did." if gain["low"] > 0 else "It got worse." if gain["high"] < 0 else "No clear difference."


def _ranking_verdict(facts: Mapping[str, Any]) -> tuple[str, str]:
    """In how held-out rows are ranked, against the truth where it is known.

    Base and trained model are judged alike, by their own log-probabilities. The reward says what training changed.
    """
    for against in ("truth", "label"):
        measures = pick(facts, f"against_{against}.measures", default={})
        gain = pick(measures, "policy_gain", default={})
        if gain.get("value") is None or gain.get("low") is None:
            continue
        rows = plural(pick(facts, f"against_{against}.rows", default=0), "held-out row")
        text = (
            f"On {rows}, measured against {AGAINST[against]}, the trained model finds a desirable answer likelier than an "
            f"undesirable one {_percent_with_interval(measures['policy_auc'])} of the time, the base model "
            f"{_percent_with_interval(measures['base_auc'])}: {_points_with_interval(gain)}. What training changed ranks them "
            f"right {_percent_with_interval(measures['auc'])} of the time; 50 % is chance."
        )
        return _gain_word(gain), text
    return "Not measured.", "The held-out rows do not hold both labels, so base and trained model cannot be compared."


def _points_with_interval(gain: Mapping[str, Any]) -> str:
    """A difference of two shares with its interval."""
    value, low, high = (signed(100 * gain[name], 1) for name in ("value", "low", "high"))
    return f"{value} percentage points ({low} to {high})"


def _percent_with_interval(measure: Mapping[str, Any]) -> str:
    return f"{percent(measure.get('value'), 0)} ({interval(measure, as_percent=True, digits=0)})"
