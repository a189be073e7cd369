"""Verdicts that a platform keeps by name (Langfuse, LangSmith, Label Studio, Argilla): which is the label is said, not guessed.

A trace may hold a thumb, a toxicity check and a judge's grade. None of their names or types says which one is the label, nor
whether true is good: a *negative* flag that is true is bad. So without the name and the meaning of its values nothing is read,
and the error lists what there is. What models and what people said is never added up, unless the recipe says `by: both`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ktodata.formats.label_rules import LabelRule, yaml_name, yaml_value
from ktodata.formats.records import UnusableError, Verdict, Vote, clip

PEOPLE, MODELS = "people", "models"
MAX_NAMES, MAX_VALUES = 12, 5


class Score(NamedTuple):
    """One verdict; `by` is PEOPLE or MODELS, `created_at` still as the source gives it, `path` where it stands, or its name."""

    name: str
    value: Any
    by: str
    rater: str | None = None
    created_at: Any = None
    path: str | None = None


class UnaskedVerdictError(UnusableError):
    """A record whose label was not asked for by a name and meanings that it has; `scores` is what it has."""

    def __init__(self, detail: str, scores: Sequence[Score]) -> None:
        super().__init__("label_missing", detail)
        self.scores = scores


def verdict_of(scores: Sequence[Score], rule: LabelRule) -> Verdict:
    """The verdict of the scores that the rule names. Raises UnaskedVerdictError where it leaves out which, or what they mean."""
    labels = [(score, rule.truth(score.value)) for score in chosen_scores(scores, rule)]
    return Verdict.by_votes([Vote(score.rater, label, score.created_at) for score, label in labels if label is not None])


def chosen_scores(scores: Sequence[Score], rule: LabelRule) -> list[Score]:
    """The scores that the rule names. Raises UnaskedVerdictError where it leaves out which, or what they mean."""
    if not (judging := [score for score in scores if score.value not in (None, "")]):
        raise UnusableError("unlabelled", "no verdict on it")
    if rule.column is None or not rule.is_given:
        raise UnaskedVerdictError("which verdict is the label, and what its values mean, is not said", judging)
    if not (named := [score for score in judging if score.name == rule.column]):
        raise UnaskedVerdictError(f"no verdict is named {clip(rule.column, 40)!r}", judging)
    if rule.by is None and len({score.by for score in named}) > 1:
        raise UnaskedVerdictError("people and models have both given it: say label: {by: people}, models or both", named)
    return [score for score in named if _is_chosen(score, rule)]


def other_verdicts(scores: Sequence[Score], rule: LabelRule) -> list[str]:
    """Where the verdicts stand that `verdict_of` passes over: of another name, or not of those whose verdicts count."""
    others = [score for score in scores if score.value not in (None, "") and not _is_chosen(score, rule)]
    return [f"{score.path or score.name}{f' by {score.by}' if score.name == rule.column else ''}" for score in others]


def _is_chosen(score: Score, rule: LabelRule) -> bool:
    return score.name == rule.column and rule.by in (None, "both", score.by)


class ScoreNames:
    """What verdicts the records of a source hold: counted as they come, listed where the label was not found among them."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, scores: Sequence[Score]) -> None:
        """Count the scores of one record."""
        self._counts.update((score.name, score.by, yaml_value(score.value)) for score in scores)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def in_words(self) -> str:
        """Each name with who gave it, its values and how often; and a recipe's words for the first."""
        names = list(dict.fromkeys(name for name, _, _ in self._counts))
        lines = [self._line(name) for name in names[:MAX_NAMES]] + (["..."] if len(names) > MAX_NAMES else [])
        values = [value for (name, _, value), _ in self._counts.most_common() if name == names[0]][:2]
        meanings = ", ".join(f"{value}: true or false" for value in values)
        return (
            f"The verdicts are {'; '.join(lines)}. Say which is the label and what each value means, e.g. label: {{column: "
            + (f"{yaml_name(names[0])}, {meanings}}}.")
        )

    def _line(self, name: str) -> str:
        of_name = [(by, value, count) for (other, by, value), count in self._counts.most_common() if other == name]
        values = ", ".join(f"{value} {count:,}" for _, value, count in of_name[:MAX_VALUES])
        more = ", ..." if len(of_name) > MAX_VALUES else ""
        return f"{clip(name, 40)!r} by {' and '.join(sorted({by for by, _, _ in of_name}))} ({values}{more})"
