"""Which way to a log-prob may be taken: the fastest that gives, by token, what the model's own logits give for single rows.

The comparison is made in float32 whatever the training computes in: bfloat16's rounding would hide a dropped soft-cap or scale,
and what leaks from one row of a pass into the next. In the training's own arithmetic a way must then not fail, and be as close
as the model's own logits are in it.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from ktodata.errors import ModelError, is_out_of_memory
from ktodata.models import first_line, quantized_by
from ktodata.train.data.packing import Pair
from ktodata.train.distributed.sharding import is_sharded, recover
from ktodata.train.model.frozen_layers import decoder_of, layer_configs

if TYPE_CHECKING:
    from ktodata.train.model.scorer import Scorer

Tensor = Any
Method = Literal["packed", "padded", "logits", "rows"]
METHODS: tuple[Method, ...] = ("packed", "padded", "logits")  # from the fastest; "rows" is what they are held to

# what an architecture's own code raises when it is run over a layout that it does not know
FOREIGN_LAYOUT = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# nats a token, at most and on average: float32 sums in another order (2e-5 at most in SmolLM2-135M), bfloat16 keeps 8 bits
EXACT = (2e-4, 1e-4)
ROUNDED = (1.0, 0.1)
ROUNDING_MARGIN = 3.0  # times what rounding does to the model's own logits
# tokens of a completion that are compared, evenly taken: the model's own logits of all would be [tokens, V]
COMPARED_TOKENS = 256
REASON_LENGTH = 2000
# how many tokens, or blocks of them, each query picks to attend to, in models that pick (DeepSeek-V3.2, arXiv:2512.02556)
PICKED = {"index_topk": None, "indexer_budget": None, "keep_window_size": None, "index_topk_blocks": "index_block_size"}


@dataclass(frozen=True)
class Trial:
    """How a method did. off_by : nats, of the token that is furthest off, in the arithmetic compared; None where it failed."""

    method: Method
    agrees: bool
    off_by: float | None
    dtype: str
    reason: str | None = None  # why it cannot be used; an error's own text where there was one


@dataclass(frozen=True)
class SelfCheck:
    """The method in use, and what each one before it gave. For training.json."""

    method: Method
    row_ids: tuple[str, ...]
    compared_tokens: int
    trials: tuple[Trial, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"row_ids": list(self.row_ids), "trials": [asdict(trial) for trial in self.trials]}

    @property
    def rejected(self) -> dict[str, str]:
        """Faster methods -> why each cannot be used for this model, in one line."""
        return {trial.method: trial.reason.splitlines()[0] for trial in self.trials if trial.reason is not None}


@dataclass(frozen=True)
class _Pairs:
    """What is scored: the rows, and prompts with another row's completion; expected : float32 [compared tokens] of each, nats.

    rounding : what the training's arithmetic does to `expected`, nats a token, at most and on average
    """

    own: list[Pair]  # the longest stands between the others
    crossed: list[Pair]
    expected: dict[Pair, Tensor]
    rounding: tuple[float, float]

    @property
    def passes(self) -> list[tuple[list[Pair], list[Pair]]]:
        """(pairs of one pass, those of a pass that continues it): prompts shared within a pack, and across two."""
        crossed = {row for row, _ in self.crossed}
        short_ones = [pair for pair in self.own if pair[0] in crossed]
        return [([*short_ones, *self.crossed], []), (self.own, self.crossed)]


def check_methods(scorer: "Scorer") -> SelfCheck:
    """Try the methods on the shortest, a middling and the longest row, in several packs; leaves `scorer.method` at the choice."""
    trials: list[Trial] = []
    with torch.no_grad():
        with _own_pass(scorer):
            _check_causal(scorer)
            pairs = _trial_pairs(scorer)
        _measure_form(scorer, pairs.own[0])
        finite = all(bool(values.isfinite().all()) for values in pairs.expected.values())
        for method in METHODS:
            scorer.method = method
            trials.append(_tried(scorer, method, pairs))
            if trials[-1].agrees:
                break
        else:
            scorer.method = "rows" if finite else "logits"  # a model that gives no numbers is refused by `check_reference`
    rows = tuple(scorer.rows.row_id[row] for row, _ in pairs.own)
    check = SelfCheck(scorer.method, rows, sum(map(len, pairs.expected.values())), tuple(trials))
    if check.rejected and finite:
        kind, reasons = scorer.model.config.model_type, "; ".join(f"{name}: {why}" for name, why in check.rejected.items())
        warnings.warn(f"a {kind} model is scored by method {scorer.method!r}, which is slower ({reasons}).", stacklevel=3)
    return check


@contextmanager
def _own_pass(scorer: "Scorer") -> Iterator[None]:
    """Inside, the model runs as its own code has it; what that fails with is raised as a ModelError, in its own words."""
    try:
        yield
    except FOREIGN_LAYOUT as error:
        if is_out_of_memory(error):
            raise
        kind = quantized_by(scorer.model.config)
        way_out = f"\nIts weights are quantized ({kind}): give the model as it was before that." if kind else ""
        raise ModelError(
            f"this {scorer.model.config.model_type} model's own pass over one of the rows alone fails: {words(error)}{way_out}"
        ) from error


def _check_causal(scorer: "Scorer") -> None:
    """Raise ModelError for a model that sees what it predicts, as BERT does by its default config: every log-prob would be wrong.

    Or that gives one row other log-probs at each pass: something in it is drawn, as dropout is.

    Looked at on the shortest row that shows it, and a middling one: another second half must leave the first as likely as it was.
    """
    rows, exact = scorer.rows, _can_be_exact(scorer)
    showing = [row for row in _by_length(scorer) if len(np.unique(rows.sequence(row, row)[0])) > 2]
    for row in dict.fromkeys([*showing[:1], *showing[len(showing) // 2 :][:1]]):
        ids = rows.sequence(row, row)[0].astype(np.int64)
        half = (len(ids) + 1) // 2
        changed, others = ids.copy(), np.unique(ids)
        changed[half:] = others[(np.searchsorted(others, ids[half:]) + 1) % len(others)]
        places = np.array(evenly(half - 1, COMPARED_TOKENS), dtype=np.int64) + 1
        with _arithmetic(scorer, exact=exact):
            before, again, after = (scorer.plain_logps_at(tokens, places) for tokens in (ids, ids, changed))
        chance, off = (float((before - other).abs().max()) for other in (again, after))
        rounding = EXACT[0] if exact else ROUNDED[0]
        if chance > rounding:
            raise ModelError(
                f"this {scorer.model.config.model_type} model gives row_id {rows.row_id[row]} other log-probs at each pass, up "
                f"to {chance:.2g} nats a token: something in it is drawn, although dropout is off, so that they say nothing of "
                "what it has learnt. Take a model whose own code draws nothing in eval mode."
            )
        if off > max(10 * chance, rounding):
            raise ModelError(
                f"this {scorer.model.config.model_type} model sees the tokens that it is to predict: with another second half of "
                f"row_id {rows.row_id[row]} those before it change by up to {off:.2g} nats, so that its log-probs say nothing of "
                "a completion. Take a causal language model; of BERT's kin, config.json must hold is_decoder: true, of XLM's "
                "causal: true."
            )


def _by_length(scorer: "Scorer") -> list[int]:
    """Rows, shortest first."""
    return sorted(range(len(scorer.rows)), key=lambda row: scorer.length((row, row)))


def _trial_pairs(scorer: "Scorer") -> _Pairs:
    by_length = _by_length(scorer)
    short, middle, long = by_length[0], by_length[len(by_length) // 2], by_length[-1]
    own = [(row, row) for row in dict.fromkeys((middle, long, short))]
    crossed = [(short, middle), (middle, short)]
    wanted = list(dict.fromkeys([*own, *crossed]))
    expected = _plain(scorer, wanted, exact=_can_be_exact(scorer))
    rounded = _plain(scorer, wanted, exact=False) if _rounds(scorer) else expected
    off = torch.cat([(expected[pair] - rounded[pair]).abs() for pair in wanted])
    rounding = (float(off.max()), float(off.mean())) if len(off) else (0.0, 0.0)
    return _Pairs(own, crossed, expected, rounding)


def _plain(scorer: "Scorer", pairs: Sequence[Pair], *, exact: bool) -> dict[Pair, Tensor]:
    with _arithmetic(scorer, exact=exact):
        return {pair: scorer.plain_token_logps(pair, COMPARED_TOKENS) for pair in pairs}


def _measure_form(scorer: "Scorer", pair: Pair) -> None:
    if not _has_plain_head(scorer.model):
        return
    try:
        with _arithmetic(scorer, exact=_can_be_exact(scorer)):
            scorer.measure_form(pair)
    except torch.OutOfMemoryError:
        raise
    except FOREIGN_LAYOUT:  # what cannot be run apart is tried next, and its trial says why
        recover(scorer.packed_model)


def _tried(scorer: "Scorer", method: Method, pairs: _Pairs) -> Trial:
    """One method, in float32 where the weights are; where it agrees, in the training's arithmetic, too."""
    picked = _picked_tokens(scorer)
    if scorer.packed_model.reach > picked:
        reason = f"of rows longer than {picked:,} tokens it picks those to attend to, and equal ones by their place in the pass"
        return Trial(method, False, None, str(scorer.compute_dtype).removeprefix("torch."), reason)
    trial = _compared(scorer, method, pairs, pairs.passes, exact=_can_be_exact(scorer))
    if not trial.agrees or not _rounds(scorer):
        return trial
    rounded = _compared(scorer, method, pairs, pairs.passes[:1], exact=False)
    return trial if rounded.agrees else rounded


def _picked_tokens(scorer: "Scorer") -> float:
    """The tokens that each query attends to at most, where the model picks them by a score of its own."""
    counts = [math.inf]
    for config in layer_configs(scorer.model.config):
        for name, size in PICKED.items():
            if isinstance(count := getattr(config, name, None), int):
                counts.append(count * (1 if size is None else getattr(config, size, 1)))
    return min(counts)


def _compared(
    scorer: "Scorer", method: Method, pairs: _Pairs, passes: Sequence[tuple[list[Pair], list[Pair]]], *, exact: bool
) -> Trial:
    dtype = "float32" if exact else str(scorer.compute_dtype).removeprefix("torch.")
    if method in ("packed", "padded") and not _has_plain_head(scorer.model):
        return Trial(method, False, None, dtype, "its head is no linear layer on top of a decoder")
    try:
        with _arithmetic(scorer, exact=exact):
            off = torch.cat([part for pass_of in passes for part in _differences(scorer, pass_of, pairs.expected)])
    except torch.OutOfMemoryError:
        raise
    except FOREIGN_LAYOUT as error:
        recover(scorer.packed_model)
        return Trial(method, False, None, dtype, words(error))
    if not len(off):  # completions of one token after no prompt
        return Trial(method, False, None, dtype, "no row has a token that it could be compared on")
    worst, average = float(off.max()), float(off.mean())
    allowed = EXACT if dtype == "float32" else ROUNDED
    if not exact:
        allowed = (allowed[0] + ROUNDING_MARGIN * pairs.rounding[0], allowed[1] + ROUNDING_MARGIN * pairs.rounding[1])
    if worst <= allowed[0] and average <= allowed[1]:
        return Trial(method, True, worst, dtype)
    reason = f"its log-probs are up to {worst:.3g} nats a token off those of the model's own logits"
    return Trial(method, False, worst, dtype, reason)


def _differences(scorer: "Scorer", pass_of: tuple[list[Pair], list[Pair]], expected: dict[Pair, Tensor]) -> Iterator[Tensor]:
    own, after = pass_of
    for pair, values in zip([*own, *after], scorer.token_logps(own, after), strict=True):
        yield (values[evenly(len(values), COMPARED_TOKENS)] - expected[pair]).abs()


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly taken, the first and the last among them."""
    return list(range(count)) if count <= most else [round(number * (count - 1) / (most - 1)) for number in range(most)]


def words(error: Exception) -> str:
    """An error's type and its whole text, the first line without a full stop."""
    name, first = type(error).__name__, first_line(error)
    rest = str(error).strip().split("\n", 1)[1:]
    return "\n".join([name if first == name else f"{name}: {first}", *rest])[:REASON_LENGTH]


def _has_plain_head(model: Any) -> bool:
    return isinstance(model.get_output_embeddings(), nn.Linear) and decoder_of(model) is not None


def _can_be_exact(scorer: "Scorer") -> bool:
    """Whether weights are at hand in float32: those in 4 bits are not, nor those that travel between processes in bfloat16."""
    if scorer.compute_dtype == torch.float32:
        return True
    whole = (not is_sharded(weight) and weight.dtype == torch.float32 for weight in scorer.model.parameters())
    return getattr(scorer.model.config, "quantization_config", None) is None and all(whole)


def _rounds(scorer: "Scorer") -> bool:
    """Whether the training computes otherwise than the comparison."""
    return _can_be_exact(scorer) and (scorer.compute_dtype != torch.float32 or scorer.kernel != "sdpa")


@contextmanager
def widest_arithmetic(scorer: "Scorer") -> Iterator[bool]:
    """Inside, `scorer` computes in float32 where it can; whether it does."""
    exact = _can_be_exact(scorer)
    with _arithmetic(scorer, exact=exact):
        yield exact


@contextmanager
def _arithmetic(scorer: "Scorer", *, exact: bool) -> Iterator[None]:
    """Inside, `scorer` computes in float32 by the plain kernel where `exact`."""
    if not exact:
        yield
        return
    model, before = scorer.packed_model, (scorer.compute_dtype, scorer.packed_model.dtype, scorer.packed_model.kernel)
    scorer.compute_dtype, model.dtype, model.kernel = torch.float32, torch.float32, "sdpa"
    try:
        yield
    finally:
        scorer.compute_dtype, model.dtype, model.kernel = before
