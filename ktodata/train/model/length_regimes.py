"""Models that compute every token of a sequence otherwise once it is longer than some length. Their rows are kept apart by it.

LongRoPE (Ding et al. 2024, arXiv:2402.13753; Phi-3 to Phi-4) turns all places by other frequencies in a sequence longer than
`original_max_position_embeddings`. transformers decides that once a pass, by its longest row: a short row beside a long one would
be computed as if it were long.
"""

from collections.abc import Iterator
from typing import Any

from ktodata.errors import ModelError
from ktodata.train.data.packing import Sequences
from ktodata.train.model.frozen_layers import text_config

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


def check_lengths(config: Any, sequences: Sequences) -> None:
    """Raise ModelError for rows beyond the context of a model whose frequencies then depend on each row's length (dynamic NTK).

    transformers keeps the last ones that it made, so that they would depend on the rows before as well.
    """
    config = text_config(config)
    context = getattr(config, "max_position_embeddings", None)
    if context is None or not any("dynamic" in str(_type_of(rope)) for rope in _ropes(config)):
        return
    over = [row for row in range(len(sequences.rows)) if sequences.length(sequences.of((row, row))) > context]
    if over:
        raise ModelError(
            f"{len(over):,} of {len(sequences.rows):,} rows are longer than {context:,} tokens (first: row_id "
            f"{sequences.rows.row_id[over[0]]}), where this model's rotary frequencies change with the length of each row. "
            f"Set max_length to {context:,} or less."
        )


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
