"""Which row a verdict is on: by row_id, else by the record's own id, else by its text, as a later export has other row_ids.

A row_id is made of a row's text, label, rater, time and source_id, so any of these that an export writes otherwise makes another.
A verdict that was given on a text holds for every row with that text; one that may be meant for different texts is set aside and
listed. Of each reviewer the last word by time counts; a text on which people differ is contested, and nobody's label is trusted.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import polars as pl
import xxhash

from ktodata.errors import DataError
from ktodata.feedback import check_columns
from ktodata.formats.records import clip

ROW_ID, SOURCE_ID, TEXT = "row_id", "source_id", "text"
LISTED = 20  # verdicts without a row, in the metrics; the table has all of them
NO_ROW, OTHER_TEXT, SEVERAL = (
    "no row has it",
    "its source_id is that of another text",
    "it may be on rows with different texts",
)
# of one row_id in some 700 a spreadsheet keeps 15 digits
ROUNDED = re.compile(r"\d+([.,]\d+)?[eE]\+\d+|\d{15,}")


class RowKeys(NamedTuple):
    """What names the row of a verdict, as far as it is known."""

    row_id: str | None = None
    source_id: str | None = None
    content: str | None = None


KEYS = RowKeys._fields


def content_key(prompt: str, completion: str) -> str:
    """A short name of a row's text: the same whatever white space and composed letters an export has made of it."""
    folded = [" ".join(unicodedata.normalize("NFC", text).split()) for text in (prompt, completion)]
    return f"text-{xxhash.xxh3_128_hexdigest(chr(0).join(folded).encode('utf-8', 'surrogatepass'))}"


def with_content(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with `content`, the name of their text; rows without prompt and completion as they are."""
    if "content" in rows.columns or not {"prompt", "completion"} <= set(rows.columns):
        return rows
    texts = rows.select("prompt", "completion").iter_rows()
    keys = [None if None in (prompt, completion) else content_key(prompt, completion) for prompt, completion in texts]
    return rows.with_columns(content=pl.Series(keys, dtype=pl.String))


@dataclass(frozen=True)
class MatchedVerdicts:
    """`verdicts`: as given, with `number`, `matched_by` and a line for each row; `unmatched`: those on no row, and `why`."""

    verdicts: pl.DataFrame
    unmatched: pl.DataFrame

    @property
    def metrics(self) -> dict[str, Any]:
        """matched_by (verdicts of each key), ambiguous, unmatched, and the first of these two; together all that were given."""
        counts = self.verdicts.unique("number")["matched_by"].value_counts()
        by_key = dict.fromkeys((ROW_ID, SOURCE_ID, TEXT), 0) | dict(counts.iter_rows())
        ambiguous = int((self.unmatched["why"] == SEVERAL).sum())
        places = [name for name in ("row_id", "source_id", "file", "line", "why") if name in self.unmatched.columns]
        listed = self.unmatched.select(places).head(LISTED).to_dicts()
        return {
            "matched_by": by_key,
            "ambiguous": ambiguous,
            "unmatched": self.unmatched.height - ambiguous,
            "not_matched": listed,
        }

    def settled(self, answer: str, feedback: pl.DataFrame) -> "SettledVerdicts":
        """What people together say. answer : the column that holds what was said; feedback : as `match_verdicts` was given it"""
        lines = self.verdicts.join(_numbered_texts(feedback, self.verdicts["row_id"]), on="row_id", maintain_order="left")
        earlier = pl.lit(value=False)
        if {"reviewer", "reviewed_at"} <= set(lines.columns):
            last = pl.col("reviewed_at").max().over("_text", "reviewer")
            earlier = (pl.col("reviewer").is_not_null() & (pl.col("reviewed_at") < last)).fill_null(value=False)
        last_words = lines.filter(~earlier).with_columns(_differ=pl.col(answer).n_unique().over("_text") > 1)
        agreed = last_words.filter(~pl.col("_differ")).sort(pl.col("matched_by") != ROW_ID, maintain_order=True)
        per_row = agreed.unique("row_id", keep="first", maintain_order=True).sort("number", maintain_order=True)
        differing = last_words.filter("_differ").unique(["_text", "number"], keep="first", maintain_order=True)
        rows = with_same_text(feedback, differing.select("row_id", "_text").unique("_text", maintain_order=True))
        replaced = lines.join(last_words, on="number", how="anti")["number"].n_unique()
        return SettledVerdicts(
            per_row.drop("_text", "_differ"),
            rows.join(differing.drop("row_id", "_differ"), on="_text", maintain_order="left_right").drop("_text"),
            self.unmatched,
            self.metrics | {"replaced": replaced, "people_differ": rows.height},
        )


@dataclass(frozen=True)
class SettledVerdicts:
    """per_row : one verdict a row, the one that names it where there is one, of texts on which nobody differs.

    differing : of all other texts that were judged each row, with each verdict on its text; nobody's stands
    unmatched, metrics : of the match; and replaced, verdicts whose own reviewer gave a later one, people_differ, rows
    """

    per_row: pl.DataFrame
    differing: pl.DataFrame
    unmatched: pl.DataFrame
    metrics: Mapping[str, Any]


def with_same_text(feedback: pl.DataFrame, of: pl.DataFrame) -> pl.DataFrame:
    """Every row with the text of one of these: row_id, and the other columns of `of`, whose own row_id names the one of them.

    feedback : row_id, and, where rows can share a text, prompt and completion
    """
    if not {"prompt", "completion"} <= set(feedback.columns):
        return of
    texts = of.join(feedback.select("row_id", "prompt", "completion"), on="row_id", maintain_order="left").drop("row_id")
    rows = texts.join(feedback.select("row_id", "prompt", "completion"), on=["prompt", "completion"], maintain_order="left_right")
    return rows.select("row_id", *of.columns[1:])


def _numbered_texts(feedback: pl.DataFrame, row_ids: pl.Series) -> pl.DataFrame:
    """row_id, _text: the same number for rows of one prompt and completion; of these rows."""
    rows = feedback.filter(pl.col("row_id").is_in(row_ids.unique().implode()))
    has_texts = {"prompt", "completion"} <= set(feedback.columns)
    text = pl.struct("prompt", "completion") if has_texts else pl.col("row_id")
    return rows.select("row_id", _text=text.rank("dense"))


def match_verdicts(verdicts: pl.DataFrame, feedback: pl.DataFrame, *, who: str = "reviews") -> MatchedVerdicts:
    """Put verdicts beside the rows that they are on.

    verdicts : row_id, source_id, content or prompt and completion, of which some may be null or missing, and what was said
    feedback : row_id, prompt, completion, source_id where there is one. who : asks, for the message.
    Raises DataError when no verdict is on any row.
    """
    keyed = with_content(verdicts)
    keyed = keyed.with_columns(pl.lit(None, pl.String).alias(name) for name in KEYS if name not in keyed.columns)
    keyed = keyed.with_row_index("number")
    index = _RowIndex(feedback, who)
    matched: list[tuple[int, str, str]] = []
    missed: list[tuple[int, str]] = []
    for number, *keys in keyed.select("number", *KEYS).iter_rows():
        row_ids, how = index.rows_of(RowKeys(*keys))
        matched += [(number, row_id, how) for row_id in row_ids]
        missed += [] if row_ids else [(number, how)]
    if matched or not missed:
        columns = [name for name in keyed.columns if name != "row_id"]
        rows = _numbered(matched, "row_id", "matched_by").join(keyed.select(columns), on="number", maintain_order="left")
        rows = rows.select("row_id", *columns, "matched_by")
        return MatchedVerdicts(rows, keyed.join(_numbered(missed, "why"), on="number", maintain_order="left"))
    raise DataError(_none_text(keyed.join(_numbered(missed, "why"), on="number"), feedback["row_id"], who))


def _numbered(lines: Sequence[tuple[Any, ...]], *names: str) -> pl.DataFrame:
    return pl.DataFrame(lines, schema={"number": pl.UInt32(), **dict.fromkeys(names, pl.String())}, orient="row")


class _RowIndex:
    """Rows by each key; the texts are gone through only where a row_id is not there."""

    def __init__(self, feedback: pl.DataFrame, who: str) -> None:
        self._feedback, self._who = feedback, who
        self._row_ids = set(feedback["row_id"])

    def rows_of(self, keys: RowKeys) -> tuple[list[str], str]:
        """The row_ids of the rows that a verdict is on, and the key that says so; or none, and why."""
        row_id, source_id, content = keys
        if row_id in self._row_ids:
            return [str(row_id)], ROW_ID
        if source_id is None and content is None:
            return [], NO_ROW
        of_source = self._places["source_id"].get(source_id, []) if source_id is not None else []
        same_text = [place for place in of_source if content in (None, self._rows["content"][place])]
        places = same_text or (self._places["content"].get(content, []) if content is not None else [])
        if not places:
            return [], OTHER_TEXT if of_source else NO_ROW
        if len({self._rows.select("prompt", "completion").row(place) for place in places}) > 1:
            return [], SEVERAL
        return [self._rows["row_id"][place] for place in places], SOURCE_ID if same_text else TEXT

    @cached_property
    def _rows(self) -> pl.DataFrame:
        check_columns(self._feedback, ("row_id", "prompt", "completion"), who=self._who)
        names = [name for name in ("row_id", "source_id", "prompt", "completion") if name in self._feedback.columns]
        return with_content(self._feedback.select(names))

    @cached_property
    def _places(self) -> Mapping[str, Mapping[str, list[int]]]:
        places: dict[str, dict[str, list[int]]] = {"source_id": defaultdict(list), "content": defaultdict(list)}
        for name in places:
            for place, key in enumerate(self._rows[name] if name in self._rows.columns else ()):
                places[name][key].append(place)
        return places


def unmatched_in_words(metrics: Mapping[str, Any]) -> list[str]:
    """By what verdicts were put beside rows where it was not the row_id, and which were put beside none."""
    by_key = [f"{count:,} by {key}" for key, count in metrics["matched_by"].items() if count and key != ROW_ID]
    texts = [f"{', '.join(by_key)}, as their row_ids are not in the data"] if by_key else []
    if missed := metrics["ambiguous"] + metrics["unmatched"]:
        first = metrics["not_matched"][0]
        texts.append(f"{missed:,} verdicts on no row of the data ({_first_text(first)}: {first['why']})")
    return texts


def settling_in_words(metrics: Mapping[str, Any]) -> list[str]:
    """What became of verdicts that do not simply stand on a row. metrics : of `SettledVerdicts`, or more"""
    counts = {
        "rows on which people differ: contested, and nobody's label is trusted": metrics.get("people_differ"),
        "verdicts replaced by the same reviewer's last": metrics.get("replaced"),
        "verdicts without a label: not used": metrics.get("without_label"),
        "verdicts on texts of which no row is trained on: they change no label that is learnt from": metrics.get(
            "on_nothing_trained"
        ),
    }
    return [*unmatched_in_words(metrics), *(f"{count:,} {what}" for what, count in counts.items() if count)]


def _first_text(verdict: Mapping[str, Any]) -> str:
    name = next((f"{key} {clip(verdict[key], 40)}" for key in (ROW_ID, SOURCE_ID) if verdict.get(key) is not None), "one")
    return f"first: {name}" + (f" at {verdict['file']!r} line {verdict['line']:,}" if verdict.get("file") else "")


def _none_text(unmatched: pl.DataFrame, row_ids: pl.Series, who: str) -> str:
    first = unmatched.row(0, named=True)
    rounded = any(ROUNDED.fullmatch(row_id) for row_id in unmatched["row_id"].drop_nulls())
    hint = " It looks like a number that a spreadsheet has rounded: import the column row_id as text." if rounded else ""
    example = clip(row_ids[0], 40) if len(row_ids) else "none"
    return (
        f"{who}: none of {unmatched.height:,} verdicts is on a row of the data, by row_id, source_id or text "
        f"({_first_text(first)}: {first['why']}; a row_id of the data: {example}).{hint} They are probably on other "
        "data, or it was read with other settings."
    )
