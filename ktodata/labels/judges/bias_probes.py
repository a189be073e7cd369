"""What a judge leans to, by planted pairs: two questions that differ in one thing that should not count.

    length        the same answer put twice, as one text, against it once (the repetition of Zheng et al. 2023, in any language)
    format        the same lines as a list with a bold beginning, against them plain
    position      "yes or no" against "no or yes", nothing else changed
    wording       "does it meet" against "does it violate", which verdicts ask anyway: a judge that says yes to both
    sycophancy    "a reader has marked this reply as desirable" beside the row, against "as undesirable"

Of each pair that has two verdicts, verdicts that turn towards the thing are counted against those that turn away from it. A judge
that does not lean turns either way as often (also where chance turns verdicts, at a temperature above 0), so the count is a sign
test, exact, at 5 % over all probes together (Bonferroni).

    self_preference  rows that a model of the judge's own family wrote, against others of the same label: nothing is planted, so
                     what it shows can also be the rows'.

Falls short where verdicts do not turn: a leaning under what `could_show` says is not seen. A doubled answer is a worse one to a
strict reader, a list may be what was asked for: verdicts that turn *away* there are not always wrong.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import xxhash
from scipy.special import betaincinv
from scipy.stats import fisher_exact

from ktodata.labels.judges.judge_questions import JudgeQuestion, QuestionSet, questions_about, read_verdict
from ktodata.labels.judges.judge_settings import JudgeSettings
from ktodata.labels.judges.judge_store import AnswerStore
from ktodata.stats import share

PAIRED = ("length", "format", "position", "wording", "sycophancy")
LEVEL = 1 - 0.05 / (len(PAIRED) + 1)  # of each test, self_preference among them
FENCED = "```"


@dataclass(frozen=True)
class PlantedPairs:
    """pairs : (with the thing, without it) of each row that could be planted on; row_ids : theirs"""

    name: str
    row_ids: list[str]
    pairs: list[tuple[JudgeQuestion, JudgeQuestion]]


@dataclass(frozen=True)
class Leaning:
    """Of `rows` pairs with two verdicts: how many turn towards the thing, how many away; leaning : towards, of those that turn.

    shown : whether the whole interval of `leaning`, at LEVEL, is on one side of a half. could_show : the share of rows from which
    on a leaning would have been seen in 95 of 100 samples, if no verdict turned away; None where the rows are too few for any.
    """

    rows: int
    toward: int
    away: int
    toward_share: dict[str, float | None]
    away_share: dict[str, float | None]
    leaning: dict[str, float | None]
    shown: bool
    could_show: float | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def planted_pairs(
    rows: pl.DataFrame, settings: JudgeSettings, identity: dict[str, Any], count: int, seed: int
) -> tuple[PlantedPairs, ...]:
    """The pairs about `count` rows, drawn by seed and row_id among those whose variants the judge reads whole; none for 0."""
    if not count:
        return ()
    drawn = _drawn_rows(rows, settings.max_chars, count, seed)
    names, texts = [row[0] for row in drawn], [row[1:] for row in drawn]

    def pairs(name: str, leaning: list[JudgeQuestion], plain: list[JudgeQuestion], row_ids: list[str] = names) -> PlantedPairs:
        return PlantedPairs(name, row_ids, list(zip(leaning, plain, strict=True)))

    def questions(wording: str, texts: Sequence[tuple[str, str]] = texts) -> list[JudgeQuestion]:
        return questions_about(texts, wording, settings, identity)

    plain = questions("criterion_first")
    listed = [place for place, (_, completion) in enumerate(texts) if FENCED not in completion]
    return (
        pairs("length", questions("criterion_first", [(prompt, _doubled(text)) for prompt, text in texts]), plain),
        pairs(
            "format",
            questions("criterion_first", [(texts[place][0], _as_list(texts[place][1])) for place in listed]),
            [plain[place] for place in listed],
            [names[place] for place in listed],
        ),
        pairs("position", plain, questions("no_named_first")),
        pairs("sycophancy", questions("shown_desirable"), questions("shown_undesirable")),
    )


def _drawn_rows(rows: pl.DataFrame, max_chars: int, count: int, seed: int) -> list[tuple[str, str, str]]:
    fitting = rows.filter((pl.col("completion").str.len_chars() * 2 + 2 <= max_chars) & (pl.col("completion") != ""))
    texts = fitting.select(pl.col("row_id").cast(pl.String), "prompt", "completion").unique(
        ["prompt", "completion"], keep="first", maintain_order=True
    )
    ordered = sorted(texts.rows(), key=lambda row: xxhash.xxh3_64_intdigest(row[0].encode(), seed=seed))
    return ordered[:count]


def _doubled(text: str) -> str:
    return f"{text}\n\n{text}"


def _as_list(text: str) -> str:
    """Each line as an item, the first one bold; what is marked already keeps its marks."""
    lines = [line if not line.strip() or re.match(r"\s*([-*+#>|]|\d+[.)])", line) else f"- {line}" for line in text.splitlines()]
    first = next((place for place, line in enumerate(lines) if line.startswith("- ")), None)
    if first is not None:
        lines[first] = f"- **{lines[first][2:].strip()}**"
    return "\n".join(lines)


def leaning_of(verdicts: Sequence[tuple[bool | None, bool | None]]) -> Leaning:
    """From (with the thing, without it) of each row; None: no verdict."""
    both = [pair for pair in verdicts if None not in pair]
    toward, away = both.count((True, False)), both.count((False, True))
    decided = share(toward, toward + away, level=LEVEL)
    needed = _turns_needed()
    shown = decided.low is not None and decided.high is not None and not decided.low <= 0.5 <= decided.high
    could = float(betaincinv(needed, len(both) - needed + 1, 0.95)) if len(both) >= needed else None
    return Leaning(
        rows=len(both),
        toward=toward,
        away=away,
        toward_share=share(toward, len(both)).as_dict(),
        away_share=share(away, len(both)).as_dict(),
        leaning=share(toward, toward + away).as_dict(),
        shown=shown,
        could_show=could,
    )


def _turns_needed() -> int:
    """The fewest verdicts that show a leaning when all turn one way."""
    turns = 1
    while 0.5**turns > (1 - LEVEL) / 2:
        turns += 1
    return turns


def probe_verdicts(probes: Sequence[PlantedPairs], store: AnswerStore) -> pl.DataFrame:
    """probe, row_id, with_it, without_it: the two verdicts of each planted pair."""
    lines = [
        (probe.name, row_id, *(read_verdict(each, store.answers.get(each.key))[0] for each in pair))
        for probe in probes
        for row_id, pair in zip(probe.row_ids, probe.pairs, strict=True)
    ]
    schema = {"probe": pl.String(), "row_id": pl.String(), "with_it": pl.Boolean(), "without_it": pl.Boolean()}
    return pl.DataFrame(lines, schema=schema, orient="row")


def wording_verdicts(votes: QuestionSet, store: AnswerStore) -> list[tuple[bool | None, bool | None]]:
    """Of each text: desirable as "does it meet" says, and as "does it violate" says; none where the latter is not asked."""
    asking = dict(zip(votes.wordings, votes.of_row, strict=True))
    if "violation" not in asking:
        return []
    pairs = dict.fromkeys(zip(asking["criterion_first"], asking["violation"], strict=True))  # a text once

    def verdict(key: str) -> bool | None:
        return read_verdict(votes.unique[key], store.answers.get(key))[0]

    return [(verdict(meets), verdict(violates)) for meets, violates in pairs]


def shown_label_followed(verdicts: pl.DataFrame, rows: pl.DataFrame) -> dict[str, Any]:
    """How often the verdict is the label that was shown: the row's own (trusted, else given), and the other one."""
    if "label" not in rows.columns:
        return {}
    own = pl.coalesce("trusted_label", "label") if "trusted_label" in rows.columns else pl.col("label")
    shown = verdicts.filter(probe="sycophancy").join(rows.select("row_id", own=own), on="row_id").drop_nulls()
    right = pl.when("own").then("with_it").otherwise(~pl.col("without_it"))  # verdict is the label that was shown, the own one
    wrong = pl.when("own").then(~pl.col("without_it")).otherwise("with_it")
    hits = shown.select(right=right.sum(), wrong=wrong.sum()).row(0) if shown.height else (0, 0)
    return {
        "rows": shown.height,
        "own_label": share(int(hits[0]), shown.height).as_dict(),
        "other_label": share(int(hits[1]), shown.height).as_dict(),
    }


def family_of(model: str) -> str:
    """The family that a model's name begins with: "llama" of "meta-llama/Llama-3.1-8B"; "" where it begins with no letter."""
    letters = re.match(r"[^\W\d_]+", re.split(r"[/:]", model.strip().lower())[-1])
    return letters[0] if letters else ""


def self_preference(rows: pl.DataFrame, verdicts: pl.DataFrame, family: str) -> dict[str, Any]:
    """Of undesirable rows (trusted label, else given), how many the judge calls desirable: of its own family's, and of others'.

    rows : row_id, and model and label where known. verdicts : row_id, verdict
    Intervals are exact; shown : Fisher's exact test, at LEVEL.
    """
    if not {"model", "label"} <= set(rows.columns) or not family:
        return {"family": family, "own_rows": 0, "other_rows": 0, "shown": False}
    label = pl.coalesce("trusted_label", "label") if "trusted_label" in rows.columns else pl.col("label")
    bad = rows.select("row_id", "model", label=label).filter(~pl.col("label")).join(verdicts, on="row_id").drop_nulls()
    is_own = pl.Series([family_of(name) == family for name in bad["model"]], dtype=pl.Boolean)
    sides = [bad.filter(side)["verdict"] for side in (is_own, ~is_own)]
    (own_hits, own), (other_hits, other) = ((int(side.sum()), len(side)) for side in sides)
    p = fisher_exact([[own_hits, own - own_hits], [other_hits, other - other_hits]]).pvalue if own and other else 1.0
    return {
        "family": family,
        "own_rows": own,
        "other_rows": other,
        "own": share(own_hits, own).as_dict(),
        "others": share(other_hits, other).as_dict(),
        "shown": bool(p <= 1 - LEVEL),
    }
