"""How long a row may be, and models that compute every token otherwise once a sequence is longer than some length.

LongRoPE (Ding et al. 2024, arXiv:2402.13753; Phi-3 to Phi-4) turns all places by other frequencies in a sequence longer than
`original_max_position_embeddings`. transformers decides that once a pass, by its longest row: a short row beside a long one would
be computed as if it were long. Their rows are kept apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from torch import nn

from ktodata.errors import ModelError
from ktodata.models import context_of, text_config
from ktodata.train.data.tokens import TokenRows
from ktodata.train.data.training_rows import named

SWITCHES_BY_LENGTH = ("longrope", "su")  # su: LongRoPE's first name
OF_TWO_SETS = ("long_factor", "long_mscale")


def length_limits(config: Any) -> tuple[int, ...]:
    """Lengths in tokens, rising; a sequence longer than one of them is computed otherwise as a whole. () for most models."""
    config, limits = text_config(config), set()
    for rope in _ropes(config):
        switches = _type_of(rope) in SWITCHES_BY_LENGTH or any(name in rope for name in OF_TWO_SETS)
        limit = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        if switches and limit:
            limits.add(int(limit))
    return tuple(sorted(limits))


def fitted(model: Any, rows: TokenRows) -> TokenRows:
    """The same rows, with mismatched pairs cut to the model's context where they are longer than any row of its own.

    Raises ModelError when a row itself is longer, or holds a token that the model has no embedding for.
    """
    context = _places(model, context_of(model.config))
    if context is not None and rows.lengths.max(initial=0) > context:
        over = pl.Series([rows.row_id[row] for row in np.flatnonzero(rows.lengths > context)])
        raise ModelError(
            f"{len(over):,} of {len(rows):,} rows are longer than the model's context of {context:,} tokens "
            f"(row_id {named(over)}). Set max_length to {context:,} or less."
        )
    largest, embeddings = max(rows.prompt.largest(), rows.completion.largest()), model.get_input_embeddings().num_embeddings
    if largest >= embeddings:
        raise ModelError(f"the tokenizer made token {largest}, but the model has {embeddings:,} embeddings: no match.")
    return rows if context is None else replace(rows, max_length=min(rows.max_length, context))


def _places(model: Any, context: int | None) -> int | None:
    """The context, less what RoBERTa and its kin leave of their table of places to padding, which the config counts in."""
    tables = (getattr(part, "position_embeddings", None) for part in model.modules())
    usable = [
        table.num_embeddings - table.padding_idx - 1
        for table in tables
        if isinstance(table, nn.Embedding) and table.padding_idx is not None
    ]
    return min([context, *usable]) if context is not None and usable else context


def regime(length: int, limits: tuple[int, ...]) -> int:
    """How many of the limits a sequence of this length is beyond: those of one number may share a pass."""
    return sum(length > limit for limit in limits)


def _ropes(config: Any) -> Iterator[dict[str, Any]]:
    """The tables of rotary parameters of a config, of which some models have one for each kind of layer."""
    yield from _tables_in(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None))


def _tables_in(parameters: Any) -> Iterator[dict[str, Any]]:
    if isinstance(parameters, dict):
        yield parameters
        for inner in parameters.values():
            yield from _tables_in(inner)


def _type_of(rope: dict[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type"))
