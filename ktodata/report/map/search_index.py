"""Every row that is not exported as it came, and every record that never became one, encoded for the page's search.

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
from ktodata.report.text import one_line
from ktodata.report.without_text import WithoutText
from ktodata.visible_text import clean

TEXT_CHARS = 24_000_000  # decoded: what a browser reads and searches without a wait
EXCERPTS = (320, 200, 120, 80, 50, 30, 0)
TEXTS = ("prompt", "completion")
SAMPLE = 2000  # rows, to see what will not fit

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

    encoded : as the page's script decodes them. rows : how many there are; included : how many of them are in the page.
    excerpt : characters shown of each text at most; 0 where texts are left out.
    with_evidence : whether evidence, rater and source are there.
    """

    encoded: str
    rows: int
    included: int
    excerpt: int
    with_evidence: bool

    @property
    def left_out(self) -> int:
        """Rows that did not fit."""
        return self.rows - self.included


def read_search_index(run: RunFiles, *, max_bytes: int) -> SearchIndex | None:
    """Rows by the decision that settled them, in the ledger's order, then records by file; None when nothing left.

    run : of WithoutText there is row_id, reason, label and the row that caused it, and no text of a row, rater or source is read.
    max_bytes : encoded, at most; with less than a few hundred not even an empty list fits.
    """
    with_text = not isinstance(run, WithoutText)
    lines = pl.concat([_left_rows(run, with_text), _quarantined_records(run)])
    if lines.is_empty():
        return None
    causes = lines["caused_by"].drop_nulls().unique(maintain_order=True)
    cause_texts = read_prefixes(run, causes, limit=EXCERPTS[0]) if with_text else causes.alias("row_id").to_frame()
    for excerpt in EXCERPTS if with_text else (0,):
        if encoded := _encoded_within(lines, cause_texts, excerpt, max_bytes, with_evidence=with_text):
            return SearchIndex(encoded, lines.height, lines.height, excerpt, with_evidence=with_text)
    return _as_many_as_fit(lines, cause_texts, max_bytes)


def _left_rows(run: RunFiles, with_text: bool) -> pl.DataFrame:
    fate = run.fates
    words = [" · ".join(map(clean, evidence_in_words(evidence))) for evidence in fate["evidence"]]
    fate = fate.with_columns(evidence=pl.Series(words, dtype=pl.String))
    if with_text:
        texts = read_prefixes(run, fate["row_id"], limit=EXCERPTS[0])
    else:
        labels = run.columns("ingest", "label")
        texts = fate.select("row_id") if labels is None else labels
    return _as_lines(fate.join(texts, on="row_id", how="left", maintain_order="left"))


def _quarantined_records(run: RunFiles) -> pl.DataFrame:
    """Records have no row_id: they go by file and line, and what is shown of them is the record as it was read."""
    records = run.quarantine
    length = pl.col("raw").str.len_chars()
    number = pl.format("record {}", pl.int_range(1, pl.len() + 1))
    place = pl.format("{}:{}", "file", pl.col("line").cast(pl.String).fill_null("?"))
    return _as_lines(
        records.select(
            row_id=pl.coalesce(place, number),
            stage=pl.lit("ingest"),
            action=pl.lit("quarantine"),
            reason="reason",
            evidence=pl.Series([clean(detail[:200]) for detail in records["detail"].fill_null("")], dtype=pl.String),
            prompt=pl.col("raw").str.slice(0, EXCERPTS[0]),
            prompt_chars=pl.max_horizontal(length, "raw_chars") if "raw_chars" in records.columns else length,
        )
    )


def _as_lines(table: pl.DataFrame) -> pl.DataFrame:
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in _LINES.items() if name not in table.columns]
    return table.with_columns(missing).select(pl.col(name).cast(dtype) for name, dtype in _LINES.items())


def _encoded_within(
    lines: pl.DataFrame, causes: pl.DataFrame, excerpt: int, max_bytes: int, *, with_evidence: bool
) -> str | None:
    """Encoded; None where it would be too large."""
    chars = lines["evidence"].str.len_chars().sum() * with_evidence
    for table in (lines, causes) if excerpt else ():
        chars += sum(table.select(pl.col(text).str.slice(0, excerpt).str.len_chars().sum() for text in TEXTS).row(0))
    if chars > TEXT_CHARS or _much_too_large(lines, causes, excerpt, max_bytes, with_evidence=with_evidence):
        return None
    encoded = encode_payload(dict(_payload(lines, causes, excerpt, with_evidence=with_evidence)))
    return encoded if len(encoded) <= max_bytes else None


def _much_too_large(lines: pl.DataFrame, causes: pl.DataFrame, excerpt: int, max_bytes: int, *, with_evidence: bool) -> bool:
    """By a sample: to pack all of very many rows takes seconds, and is not worth it where they surely do not fit."""
    every = lines.height // SAMPLE
    if every < 2:
        return False
    few = _payload(lines.gather_every(every), causes.gather_every(every), excerpt, with_evidence=with_evidence)
    return len(encode_payload(dict(few))) * every > 1.2 * max_bytes


def _as_many_as_fit(lines: pl.DataFrame, causes: pl.DataFrame, max_bytes: int) -> SearchIndex:
    """Row, reason, label and cause of each; of as many rows as there is room for."""
    included = lines
    while (
        len(encoded := encode_payload(dict(_payload(included, _causes_of(included, causes), 0, with_evidence=False)))) > max_bytes
    ):
        included = included.head(int(included.height * 0.97 * max_bytes / len(encoded)))
    return SearchIndex(encoded, lines.height, included.height, 0, with_evidence=False)


def _causes_of(lines: pl.DataFrame, causes: pl.DataFrame) -> pl.DataFrame:
    return causes.join(lines.select(row_id="caused_by"), on="row_id", how="semi", maintain_order="left")


def _payload(lines: pl.DataFrame, causes: pl.DataFrame, excerpt: int, *, with_evidence: bool) -> Iterator[tuple[str, Any]]:
    """Column by column, as like values beside each other pack best; what comes again and again by its number."""
    kinds, kind = _by_number(lines, "action", "stage", "reason")
    yield "kinds", [[FATES.get(action, action), _readable(stage), _readable(reason)] for action, stage, reason in kinds]
    yield "kind", kind
    yield "row_id", [one_line(row_id, 200) for row_id in lines["row_id"]]
    place = {row_id: at for at, row_id in enumerate(causes["row_id"])}
    yield "cause", [place.get(row_id) for row_id in lines["caused_by"]]
    yield "causes", dict(_text_excerpts(causes, excerpt)) | {"row_id": list(place)}
    yield "label", lines["label"].cast(pl.Int8).to_list()
    if with_evidence:
        pairs, pair = _by_number(lines, "rater", "source")
        yield "rater_source_pairs", [[one_line(name or "", 48) for name in names] for names in pairs]
        yield "rater_source", pair
        yield "line", lines["source_line"].to_list()
        yield "evidence", lines["evidence"].to_list()
    if excerpt:
        yield "excerpt", excerpt
    yield from _text_excerpts(lines, excerpt)


def _text_excerpts(table: pl.DataFrame, excerpt: int) -> Iterator[tuple[str, list[Any]]]:
    for text in TEXTS if excerpt else ():
        yield text, [clean(begin) for begin in table[text].fill_null("").str.slice(0, excerpt)]
        yield f"{text}_chars", table[f"{text}_chars"].to_list()


def _by_number(lines: pl.DataFrame, *names: str) -> tuple[list[tuple[Any, ...]], list[int]]:
    """The distinct combinations in the order they come, and each line's number among them."""
    distinct = lines.select(names).unique(maintain_order=True).with_row_index("number")
    number = lines.select(names).join(distinct, on=names, how="left", nulls_equal=True, maintain_order="left")["number"]
    return distinct.drop("number").rows(), number.to_list()


def _readable(name: str | None) -> str:
    return one_line(name or "", 80).replace("_", " ")
