"""What an ablation and a comparison share on the page: what is shown, whose rows they scored, what those rows truly are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.report.run_files import RunFiles, pick
from ktodata.report.text import count, interval, number, percent, plural, signed

NOTHING = ("–", "")


@dataclass(frozen=True)
class Value:
    """A number with its 95 % interval; None where it was not measured."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def known(self) -> bool:
        """Whether there is something to show."""
        return None not in (self.value, self.low, self.high)

    @property
    def plain(self) -> tuple[str, str]:
        """("0.664", "0.544 to 0.766")."""
        return (number(self.value), interval((self.low, self.high))) if self.known else NOTHING

    @property
    def signed(self) -> tuple[str, str]:
        """("+0.086", "+0.009 to +0.162")."""
        return (signed(self.value), f"{signed(self.low)} to {signed(self.high)}") if self.known else NOTHING

    @property
    def percent(self) -> tuple[str, str]:
        """("79 %", "17 to 133 %")."""
        ends = (self.low, self.high)
        return (percent(self.value, 0), interval(ends, as_percent=True, digits=0)) if self.known else NOTHING


@dataclass(frozen=True)
class ExperimentSection:
    """What was measured, ready to be shown. `stale`: why it is not about the rows of today; then nothing else is shown.

    against : what held-out rows were judged by, "truth" or "label"; measured : how, as (what, in words)
    answer : (in a word, in sentences) whether it helped; rows : that were trained on
    used : of each method, (name, rows that it could learn from, seeds)
    """

    stale: str = ""
    against: str = "label"
    verdict: list[str] = field(default_factory=list)
    answer: tuple[str, str] | None = None
    forest: Markup | None = None
    curve: Markup | None = None
    rewards: Markup | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    measured: list[tuple[str, str]] = field(default_factory=list)
    rows: int | None = None
    used: list[tuple[str, int | None, int]] = field(default_factory=list)


def value_of(line: Mapping[str, Any], *names: str) -> Value:
    """From a line of a table: the columns that hold value, low and high."""
    return Value(*(line.get(name) for name in names))


def why_stale(run: RunFiles, scores: pl.DataFrame | None, part: str, *, file: str, trained: Any = None, now: Any = None) -> str:
    """Why what was measured is not about the run's rows of today; empty where it is. A row_id is named by the row's content.

    file : what the scores are read from, below the run folder
    trained, now : number of training rows, then and today; where one is not a number, it says nothing
    """
    if scores is None:
        return f"{file} says which rows were scored, and it is gone or has other columns."
    held_out = _held_out_ids(run, part)
    if held_out is None:
        return "The run no longer says which rows it holds out."
    scored = scores["row_id"].unique()
    foreign = int((~scored.is_in(held_out.implode())).sum())
    if foreign:
        is_are = "is" if foreign == 1 else "are"
        return f"{count(foreign)} of {plural(len(scored), 'scored row')} {is_are} not among its {part} rows."
    if isinstance(trained, int) and isinstance(now, int) and trained != now:
        return f"They were trained on {plural(trained, 'row')}; it now has {count(now)}."
    return ""


def _held_out_ids(run: RunFiles, part: str) -> pl.Series | None:
    for stage in ("split", "export", "ingest"):
        placed = run.columns(stage, "part")
        if placed is not None and "part" in placed.columns:
            return placed.filter(pl.col("part") == part)["row_id"]
    return None


def with_truth(run: RunFiles, scores: pl.DataFrame, *, by_label: bool) -> pl.DataFrame:
    """`scores` with `truth` (null where the run folder does not hold it) and `group` (rows of one prompt).

    Their own where they have them; else the truth that the run's evaluation was told.
    by_label : the scored rows were judged by their labels as given, which then stand for the truth
    """
    for name, known in (
        ("truth", _truth_of_run(run, by_label=by_label)),
        ("group", _groups_of_run(run, scores["row_id"].unique())),
    ):
        if name not in scores.columns:
            scores = scores.join(known, on="row_id", how="left", maintain_order="left")
    return scores


def _truth_of_run(run: RunFiles, *, by_label: bool) -> pl.DataFrame:
    stage, column = ("ingest", "label") if by_label else ("evaluate", "truth")
    known = run.columns(stage, column)
    if known is None or column not in known.columns:
        return pl.DataFrame(schema={"row_id": pl.String(), "truth": pl.Boolean()})
    return known.select("row_id", truth=column)


def _groups_of_run(run: RunFiles, row_ids: pl.Series) -> pl.DataFrame:
    """The groups that dedupe found; where it did not run, rows of one prompt."""
    known = run.columns("dedupe", "prompt_group")
    if known is not None and "prompt_group" in known.columns:
        return known.select("row_id", group="prompt_group")
    rows = run.rows(row_ids)
    schema = {"row_id": pl.String(), "group": pl.String()}
    return pl.DataFrame({"row_id": list(rows), "group": [row["prompt"] for row in rows.values()]}, schema=schema)


def table_of(values: Mapping[str, Any], key: str, schema: pl.Schema) -> pl.DataFrame:
    """A table from JSON: what is missing, or of another kind than this version knows, is null."""
    lines = lines_of(values, key)
    columns = {name: [line.get(name) for line in lines] for name in schema}
    return pl.DataFrame([pl.Series(name, columns[name], kind, strict=False) for name, kind in schema.items()])


def lines_of(values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of a list in JSON; none where there is something else."""
    lines = values.get(key)
    return [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []


def object_of(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object in JSON; empty where there is something else."""
    value = pick(values, key)
    return value if isinstance(value, Mapping) else {}


def sentences(verdict: Any) -> list[str]:
    """The verdict as it was written."""
    return [str(sentence) for sentence in verdict] if isinstance(verdict, list) else []


def how_trained(settings: Mapping[str, Any], updates: Any) -> str:
    """Updates, batch, rate, layers and lengths that all arms share, in a sentence."""
    layers, length = settings.get("trainable_layers"), settings.get("max_length")
    parts = [
        f"{count(updates)} updates of {count(settings.get('batch_size'))} completions",
        f"learning rate {settings['learning_rate']:g}" if isinstance(settings.get("learning_rate"), float) else "",
        f"the top {plural(layers, 'layer')}" if isinstance(layers, int) else "all layers",
        f"at most {count(length)} tokens a row" if isinstance(length, int) else "",
    ]
    return ", ".join(filter(None, parts)) + "."


def how_seeded(seeds: Any) -> str:
    """How many seeds, and which."""
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        return "Not said."
    return f"{plural(len(seeds), 'seed')} ({', '.join(str(seed) for seed in seeds[:10])}{', …' if len(seeds) > 10 else ''})."
