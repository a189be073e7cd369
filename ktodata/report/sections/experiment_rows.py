"""What an ablation and a comparison share on the page: whose rows they scored, and what those rows truly are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

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


def value_of(line: Mapping[str, Any], *names: str) -> Value:
    """From a line of a table: the columns that hold value, low and high."""
    return Value(*(line.get(name) for name in names))


def whose_rows(run: RunFiles, scores: pl.DataFrame | None, part: str) -> str:
    """Why scored rows are not the run's held-out rows of today; empty where they are. A row_id is named by the row's content."""
    if scores is None:
        return "The file that says which rows were scored is not there."
    held_out = _held_out(run, part)
    if held_out is None:
        return "The run no longer says which rows it holds out."
    scored = scores["row_id"].unique()
    foreign = int((~scored.is_in(held_out.implode())).sum())
    if not foreign:
        return ""
    return f"{count(foreign)} of {plural(len(scored), 'scored row')} {'is' if foreign == 1 else 'are'} not among its {part} rows."


def _held_out(run: RunFiles, part: str) -> pl.Series | None:
    for stage in ("split", "export", "ingest"):
        placed = run.columns(stage, "part")
        if placed is not None and "part" in placed.columns:
            return placed.filter(pl.col("part") == part)["row_id"]
    return None


def as_many(trained: Any, now: Any) -> str:
    """Why training rows are not those of today, by their number; empty where that cannot be told."""
    if not (isinstance(trained, int) and isinstance(now, int)) or trained == now:
        return ""
    return f"They were trained on {plural(trained, 'row')}; it now has {count(now)}."


def with_truth(run: RunFiles, scores: pl.DataFrame, *, by_label: bool) -> pl.DataFrame:
    """`scores` with `truth` (null where the run folder does not hold it) and `group` (rows of one prompt).

    Their own where they have them; else the truth that the run's evaluation was told.
    by_label : the scored rows were judged by their labels as given, which then stand for the truth
    """
    for name, known in (("truth", _truth(run, by_label=by_label)), ("group", _groups(run, scores["row_id"].unique()))):
        if name not in scores.columns:
            scores = scores.join(known, on="row_id", how="left", maintain_order="left")
    return scores


def _truth(run: RunFiles, *, by_label: bool) -> pl.DataFrame:
    stage, column = ("ingest", "label") if by_label else ("evaluate", "truth")
    known = run.columns(stage, column)
    if known is None or column not in known.columns:
        return pl.DataFrame(schema={"row_id": pl.String(), "truth": pl.Boolean()})
    return known.select("row_id", truth=column)


def _groups(run: RunFiles, row_ids: pl.Series) -> pl.DataFrame:
    """The groups that dedupe found; where it did not run, rows of one prompt."""
    known = run.columns("dedupe", "prompt_group")
    if known is not None and "prompt_group" in known.columns:
        return known.select("row_id", group="prompt_group")
    rows = run.rows(row_ids)
    schema = {"row_id": pl.String(), "group": pl.String()}
    return pl.DataFrame({"row_id": list(rows), "group": [row["prompt"] for row in rows.values()]}, schema=schema)


def table_of(told: Mapping[str, Any], key: str, schema: pl.Schema) -> pl.DataFrame:
    """A table from JSON: what is missing, or of another kind than this version knows, is null."""
    lines = lines_of(told, key)
    columns = {name: [line.get(name) for line in lines] for name in schema}
    return pl.DataFrame([pl.Series(name, columns[name], kind, strict=False) for name, kind in schema.items()])


def lines_of(told: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of a list in JSON; none where there is something else."""
    found = told.get(key)
    return [line for line in found if isinstance(line, dict)] if isinstance(found, list) else []


def facts_of(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object in JSON; empty where there is something else."""
    found = pick(told, key)
    return found if isinstance(found, Mapping) else {}


def sentences(told: Any) -> list[str]:
    """The verdict as it was written."""
    return [str(sentence) for sentence in told] if isinstance(told, list) else []


def how_trained(settings: Mapping[str, Any], updates: Any) -> str:
    """Updates, batch, rate, layers and lengths that all arms share, in a sentence."""
    layers, length = settings.get("trainable_layers"), settings.get("max_length")
    said = [
        f"{count(updates)} updates of {count(settings.get('batch_size'))} completions",
        f"learning rate {settings['learning_rate']:g}" if isinstance(settings.get("learning_rate"), float) else "",
        f"the top {plural(layers, 'layer')}" if isinstance(layers, int) else "all layers",
        f"at most {count(length)} tokens a row" if isinstance(length, int) else "",
    ]
    return ", ".join(filter(None, said)) + "."


def how_seeded(seeds: Any) -> str:
    """How many seeds, and which."""
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        return "Not said."
    return f"{plural(len(seeds), 'seed')} ({', '.join(str(seed) for seed in seeds[:10])}{', …' if len(seeds) > 10 else ''})."
