"""Every row that is not exported as it came, and every record that never became one, packed for the page's search.

A page must open at once however many rows left: excerpts shrink first, then evidence and givers go, then rows, and it says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.report.map.payload import encode_payload
from ktodata.report.map.prefixes import read_prefixes
from ktodata.report.run_files import RunFiles
from ktodata.report.sections.dropped_rows import FATES, evidence_in_words
from ktodata.report.text import clean, one_line
from ktodata.report.without_text import WithoutText

TEXT_CHARS = 24_000_000  # unpacked: what a browser reads and searches without a wait
EXCERPTS = (320, 200, 120, 80, 50, 30, 0)
TEXTS = ("prompt", "completion")
SAMPLE = 2000  # rows, to tell what will not fit

# one line for each row that left; the texts cut to the longest excerpt
_LINES = pl.Schema(
    {
        "row_id": pl.String(),
        "stage": pl.String(),
        "action": pl.String(),
        "reason": pl.String(),
        "evidence": pl.String(),
        "caused_by": pl.String(),
        "label": pl.Boolean(),
        "rater": pl.String(),
        "source": pl.String(),
        "source_line": pl.Int64(),
        "prompt": pl.String(),
        "completion": pl.String(),
        "prompt_chars": pl.Int64(),
        "completion_chars": pl.Int64(),
    }
)


@dataclass(frozen=True)
class SearchIndex:
    """The rows that can be found on the page.

    packed : as the page's script unpacks them. rows : how many there are; there : how many of them are in the page.
    excerpt : characters shown of each text at most; 0 where texts are left out. whole : whether evidence and givers are told.
    """

    packed: str
    rows: int
    there: int
    excerpt: int
    whole: bool

    @property
    def left_out(self) -> int:
        """Rows that did not fit."""
        return self.rows - self.there


def read_search_index(run: RunFiles, *, most_bytes: int) -> SearchIndex | None:
    """Rows by the decision that settled them, in the ledger's order, then records by file; None when nothing left.

    run : of WithoutText there is row_id, reason, label and the row that caused it, and no text of a row, rater or source is read.
    most_bytes : packed, at most; with less than a few hundred not even an empty list fits.
    """
    with_text = not isinstance(run, WithoutText)
    lines = pl.concat([_rows(run, with_text), _records(run)])
    if lines.is_empty():
        return None
    causes = lines["caused_by"].drop_nulls().unique(maintain_order=True)
    known = read_prefixes(run, causes, limit=EXCERPTS[0]) if with_text else causes.alias("row_id").to_frame()
    for excerpt in EXCERPTS if with_text else (0,):
        if packed := _packed_within(lines, known, excerpt, most_bytes, whole=with_text):
            return SearchIndex(packed, lines.height, lines.height, excerpt, whole=with_text)
    return _as_many_as_fit(lines, known, most_bytes)


def _rows(run: RunFiles, with_text: bool) -> pl.DataFrame:
    fate = run.fates
    words = [" · ".join(map(clean, evidence_in_words(evidence))) for evidence in fate["evidence"]]
    fate = fate.with_columns(evidence=pl.Series(words, dtype=pl.String))
    if with_text:
        known = read_prefixes(run, fate["row_id"], limit=EXCERPTS[0])
    else:
        labels = run.columns("ingest", "label")
        known = fate.select("row_id") if labels is None else labels
    return _as_lines(fate.join(known, on="row_id", how="left", maintain_order="left"))


def _records(run: RunFiles) -> pl.DataFrame:
    """Records have no row_id: they go by file and line, and what is told of them is the record as it was read."""
    found = run.quarantine
    length = pl.col("raw").str.len_chars()
    number = pl.format("record {}", pl.int_range(1, pl.len() + 1))
    place = pl.format("{}:{}", "file", pl.col("line").cast(pl.String).fill_null("?"))
    return _as_lines(
        found.select(
            row_id=pl.coalesce(place, number),
            stage=pl.lit("ingest"),
            action=pl.lit("quarantine"),
            reason="reason",
            evidence=pl.Series([clean(detail[:200]) for detail in found["detail"].fill_null("")], dtype=pl.String),
            prompt=pl.col("raw").str.slice(0, EXCERPTS[0]),
            prompt_chars=pl.max_horizontal(length, "raw_chars") if "raw_chars" in found.columns else length,
        )
    )


def _as_lines(table: pl.DataFrame) -> pl.DataFrame:
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in _LINES.items() if name not in table.columns]
    return table.with_columns(missing).select(pl.col(name).cast(dtype) for name, dtype in _LINES.items())


def _packed_within(lines: pl.DataFrame, causes: pl.DataFrame, excerpt: int, most_bytes: int, *, whole: bool) -> str | None:
    """Packed; None where it would be too large."""
    chars = lines["evidence"].str.len_chars().sum() * whole
    for table in (lines, causes) if excerpt else ():
        chars += sum(table.select(pl.col(text).str.slice(0, excerpt).str.len_chars().sum() for text in TEXTS).row(0))
    if chars > TEXT_CHARS or _much_too_large(lines, causes, excerpt, most_bytes, whole=whole):
        return None
    packed = encode_payload(dict(_payload(lines, causes, excerpt, whole=whole)))
    return packed if len(packed) <= most_bytes else None


def _much_too_large(lines: pl.DataFrame, causes: pl.DataFrame, excerpt: int, most_bytes: int, *, whole: bool) -> bool:
    """By a sample: to pack all of very many rows takes seconds, and is not worth it where they surely do not fit."""
    every = lines.height // SAMPLE
    if every < 2:
        return False
    few = _payload(lines.gather_every(every), causes.gather_every(every), excerpt, whole=whole)
    return len(encode_payload(dict(few))) * every > 1.2 * most_bytes


def _as_many_as_fit(lines: pl.DataFrame, causes: pl.DataFrame, most_bytes: int) -> SearchIndex:
    """Row, reason, label and cause of each; of as many rows as there is room for."""
    there = lines
    while len(packed := encode_payload(dict(_payload(there, _of(there, causes), 0, whole=False)))) > most_bytes:
        there = there.head(int(there.height * 0.97 * most_bytes / len(packed)))
    return SearchIndex(packed, lines.height, there.height, 0, whole=False)


def _of(lines: pl.DataFrame, causes: pl.DataFrame) -> pl.DataFrame:
    return causes.join(lines.select(row_id="caused_by"), on="row_id", how="semi", maintain_order="left")


def _payload(lines: pl.DataFrame, causes: pl.DataFrame, excerpt: int, *, whole: bool) -> Iterator[tuple[str, Any]]:
    """Column by column, as like values beside each other pack best; what comes again and again by its number."""
    kinds, kind = _numbered(lines, "action", "stage", "reason")
    yield "kinds", [[FATES.get(action, action), _words(stage), _words(reason)] for action, stage, reason in kinds]
    yield "kind", kind
    yield "row_id", [one_line(row_id, 200) for row_id in lines["row_id"]]
    place = {row_id: at for at, row_id in enumerate(causes["row_id"])}
    yield "cause", [place.get(row_id) for row_id in lines["caused_by"]]
    yield "causes", dict(_texts(causes, excerpt)) | {"row_id": list(place)}
    yield "label", lines["label"].cast(pl.Int8).to_list()
    if whole:
        givers, giver = _numbered(lines, "rater", "source")
        yield "givers", [[one_line(name or "", 48) for name in names] for names in givers]
        yield "giver", giver
        yield "line", lines["source_line"].to_list()
        yield "evidence", lines["evidence"].to_list()
    if excerpt:
        yield "excerpt", excerpt
    yield from _texts(lines, excerpt)


def _texts(table: pl.DataFrame, excerpt: int) -> Iterator[tuple[str, list[Any]]]:
    for text in TEXTS if excerpt else ():
        yield text, [clean(begin) for begin in table[text].fill_null("").str.slice(0, excerpt)]
        yield f"{text}_chars", table[f"{text}_chars"].to_list()


def _numbered(lines: pl.DataFrame, *names: str) -> tuple[list[tuple[Any, ...]], list[int]]:
    """The distinct combinations in the order they come, and each line's number among them."""
    distinct = lines.select(names).unique(maintain_order=True).with_row_index("number")
    number = lines.select(names).join(distinct, on=names, how="left", nulls_equal=True, maintain_order="left")["number"]
    return distinct.drop("number").rows(), number.to_list()


def _words(name: str | None) -> str:
    return one_line(name or "", 80).replace("_", " ")
