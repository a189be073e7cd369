"""A source's rows as methods see them: validated, without repeats, with vectors. Their truth is kept apart."""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from ktodata.bench.label_sources import MIN_ROWS, MIN_WRONG, RATE, LabelledRecord, LabelSource
from ktodata.errors import EmptyDataError
from ktodata.formats import read
from ktodata.labels.row_groups import row_groups
from ktodata.ledger import add_columns
from ktodata.stages.dedupe import dedupe
from ktodata.stages.embed import embed
from ktodata.stages.validate import validate

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_TOKENS = 512  # of a row that the language model reads
# of the rows, what methods are given; all of it is made without the truth
COLUMNS = (
    *("row_id", "prompt", "completion", "label", "source_id", "rater", "votes", "pooled_votes", "contradicted", "state"),
    *("prompt_group", "prompt_leader", "prompt_embedding", "completion_embedding"),
)
TEXTS = ["prompt", "completion"]
ORDER_SEED = 5  # of prompt groups: which rows a large source is cut to


@dataclass(frozen=True)
class BenchRows:
    """table : feedback columns with prompt_group, votes and both embeddings. labels, truth : bool [N]. groups : int [N]."""

    table: pl.DataFrame
    labels: Bools
    truth: Bools
    groups: Ints

    @property
    def wrong(self) -> Bools:
        """Bool [N]."""
        return np.not_equal(self.labels, self.truth)

    def take(self, which: Bools) -> "BenchRows":
        """These rows alone. which : bool [N]"""
        return BenchRows(self.table.filter(pl.Series(which)), self.labels[which], self.truth[which], self.groups[which])


def bench_rows(source: LabelSource, *, max_rows: int, encoder: str, model: str | None = None) -> BenchRows:
    """At most about `max_rows` rows, whole prompt groups of them. model : a language model, whose loss of each row is added.

    Flips are drawn before the rows are read, so that all that is made of a label is made of the flipped one.
    Raises EmptyDataError where too little is left to measure by.
    """
    if source.flips is not None:
        source = _flipped(source, max_rows, encoder)
    table, records = _read(source, max_rows, encoder)
    if model is not None:
        table = table.with_columns(nats_per_token=_nats_per_token(table, model))
    labels, truth = table["label"].to_numpy(), np.array([record.truth for record in records])
    if len(np.unique(labels)) < 2 or len(np.unique(truth)) < 2:
        raise EmptyDataError(f"of the {table.height:,} rows that it is cut to, the labels or the truth are all one.")
    return BenchRows(table.select(*COLUMNS, cs.by_name("nats_per_token", require_all=False)), labels, truth, row_groups(table))


def _check_measurable(labels: Bools, truth: Bools) -> None:
    """Raise EmptyDataError unless enough rows are left, with both labels, and enough of them wrong; of all, before any cut."""
    count, wrong = len(labels), int((labels != truth).sum())
    faults = [
        f"{MIN_ROWS} are needed" if count < MIN_ROWS else "",
        "the truth is all one" if len(np.unique(truth)) < 2 else "",
        "the labels are all one" if len(np.unique(labels)) < 2 else "",
        f"{wrong:,} labels are wrong, and {MIN_WRONG} are needed" if wrong < MIN_WRONG else "",
    ]
    if any(faults):
        raise EmptyDataError(f"of {count:,} rows without repeats {'; '.join(filter(None, faults))}.")


def _read(source: LabelSource, max_rows: int, encoder: str) -> tuple[pl.DataFrame, list[LabelledRecord]]:
    """The rows, and the record of each, whose truth is handed to nothing that makes them.

    Its place in the file does not stay: files are ordered by truth, too.
    """
    given = [record.truth for record in source.records] if source.given is None else source.given
    judged = [(record, verdict) for record, verdict in zip(source.records, given, strict=True) if verdict is not None]
    raters = sorted({rater for record in source.records for rater in record.votes})
    lines = [
        {"prompt": record.prompt, "completion": record.completion, "given": verdict}
        | {f"said by {rater}": record.votes.get(rater) for rater in raters}
        for record, verdict in judged
    ]
    meant = {"column": "given", True: True, False: False}
    table = read(lines, label=meant, votes={f"said by {rater}": rater for rater in raters} or None).feedback
    for stage in (validate, dedupe):
        table = add_columns(table, stage(table))
    if source.given is not None:
        truth = np.array([judged[line - 1][0].truth for line in table["source_line"]])
        _check_measurable(table["label"].to_numpy(), truth)
    table = _cut(table.sort("row_id"), max_rows)
    return add_columns(table, embed(table, model=encoder)), [judged[line - 1][0] for line in table["source_line"]]


def _flipped(source: LabelSource, max_rows: int, encoder: str) -> LabelSource:
    """The rows that are left of it, as a source whose labels are their truth with some of it flipped."""
    table, records = _read(source, max_rows, encoder)
    truth = np.array([record.truth for record in records])
    if len(np.unique(truth)) < 2:  # no model tells apart where it is unsure
        raise EmptyDataError(f"the truth of its {table.height:,} rows is all one.")
    given = truth ^ draw_flips(source.flips or "", table, truth, seed=zlib.crc32(source.name.encode()))
    return LabelSource(source.name, source.data, records, given.tolist())


def _nats_per_token(table: pl.DataFrame, model: str) -> pl.Series:
    """-log p of each completion by the model as it is, a token; of a row that does not fit, the median of the others."""
    scored = _scored_texts(tuple(sorted(set(table.select(*TEXTS).iter_rows()))), model)
    return table.join(scored, on=TEXTS, how="left", maintain_order="left")["nats"].fill_null(scored["nats"].median())


@lru_cache(1)  # the kinds of flips of one file follow each other, and ask it of the same texts
def _scored_texts(texts: tuple[tuple[str, str], ...], model: str) -> pl.DataFrame:
    """prompt, completion and nats. texts : (prompt, completion) each"""
    from ktodata.evaluate.rewards import completion_logps
    from ktodata.models import context_of, load_causal_lm
    from ktodata.train.data.tokens import tokenize
    from ktodata.train.data.training_rows import check_rows
    from ktodata.train.model.device import pick_device, pick_dtype

    loaded, tokenizer = load_causal_lm(model)
    table = pl.DataFrame(texts, schema=TEXTS, orient="row").with_row_index("row_id").cast({"row_id": pl.String})
    rows = check_rows(table.with_columns(label=True), part="bench", both_classes=False)  # its loss hangs on no label
    longest = min(MAX_TOKENS, context_of(loaded.config) or MAX_TOKENS)
    tokens, _ = tokenize(rows, tokenizer, max_length=longest, part="bench")
    device = pick_device("auto")
    logps = completion_logps(loaded, tokens, device=device, compute_dtype=pick_dtype("auto", device))
    scored = pl.DataFrame({"row_id": tokens.row_id, "nats": -logps / tokens.completion.lengths})
    return table.join(scored, on="row_id").drop("row_id")


def _cut(table: pl.DataFrame, rows: int) -> pl.DataFrame:
    if table.height <= rows:
        return table
    order = table["prompt_group"].unique(maintain_order=True).sample(fraction=1, shuffle=True, seed=ORDER_SEED)
    places = pl.DataFrame({"prompt_group": order, "place": range(len(order))})
    ordered = table.join(places, on="prompt_group").sort("place", maintain_order=True).drop("place")
    return ordered.head(rows)


def draw_flips(kind: str, table: pl.DataFrame, truth: Bools, *, seed: int) -> Bools:
    """Which labels are flipped: bool [N], RATE of them in the mean. kind : one of label_sources.FLIPS"""
    rng = np.random.default_rng(seed)
    chance = np.ones(len(truth))
    if kind == "class-conditional":
        chance = np.where(truth, 1.5, 0.5)
    if kind == "where a model is unsure":
        from sklearn.linear_model import LogisticRegression

        p = LogisticRegression(max_iter=500).fit(vectors(table), truth).predict_proba(vectors(table))[:, 1]
        chance = 0.1 + 4 * p * (1 - p)
    if kind == "by topic":
        prompts = table["prompt_embedding"].to_numpy()
        along = prompts @ rng.normal(size=prompts.shape[1])
        chance = np.where(along > np.quantile(along, 0.75), 3.2, 0.2)
    return np.asarray(rng.random(len(truth)) < np.minimum(chance * RATE / chance.mean(), 0.95))


def vectors(table: pl.DataFrame) -> NDArray[np.float32]:
    """Both embeddings side by side: float32 [N, 2 D]."""
    return np.hstack([table[f"{side}_embedding"].to_numpy() for side in ("prompt", "completion")])
