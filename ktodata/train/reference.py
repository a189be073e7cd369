"""The reference model's log-probs: computed once with the untouched model, kept on disk by everything they depend on."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import xxhash

from ktodata.errors import ModelError
from ktodata.files import read_parquet
from ktodata.train.data.packing import Pair
from ktodata.train.distributed.interface import Distributed, SingleProcess
from ktodata.train.distributed.work_split import shared_logps
from ktodata.train.model.activation_cache import ActivationCache, Key, tokens_of
from ktodata.train.model.scorer import Scorer

Tensor = Any

# nats, and share of the log-prob: what other packs may change. bfloat16 rounds each product to 8 bits
KEPT_TOLERANCE = {torch.float32: (1e-3, 1e-5), torch.bfloat16: (0.1, 1e-2)}


class ReferenceLogps:
    """log p of each pair's completion under the reference, in nats."""

    def __init__(self, logps: dict[Pair, float], device: Any) -> None:
        self._logps, self._device = logps, device

    def __call__(self, pairs: Sequence[Pair]) -> Tensor:
        """float32 [len(pairs)]"""
        return torch.tensor([self._logps[pair] for pair in pairs], dtype=torch.float32, device=self._device)


def reference_key(computed_by: str, scorer: Scorer, pairs: Sequence[Pair]) -> str:
    """32 hex digits of all that the log-probs depend on: how they are computed (`Scorer.computed_by`), tokens and pairs."""
    digest = xxhash.xxh3_128(f"{computed_by} {scorer.rows.max_length}".encode())
    for texts in (scorer.rows.prompt, scorer.rows.completion):
        digest.update(np.array([len(ids) for ids in texts]).tobytes())
        digest.update(np.concatenate(texts).tobytes())
    digest.update(np.array(pairs).tobytes())
    return digest.hexdigest()


def reference_logps(
    scorer: Scorer,
    pairs: Sequence[Pair],
    *,
    key: str,
    cache: Path,
    distributed: Distributed | None = None,
    store: ActivationCache | None = None,
) -> tuple[ReferenceLogps, dict[str, Any]]:
    """Log-probs of every pair, from `cache`/<key>.parquet or from the model with its adapters off; and metrics.

    store : of an earlier training of the same model (activation_cache.py); what it holds is not computed again.
    Of several processes the first one looks into its cache and hands it to the others; else each computes its share.
    Call it before the first update: full training has no other copy of the reference. Raises ModelError, naming the file, where
    what was kept is not what the model gives now.
    """
    file, distributed = cache / f"{key}.parquet", distributed or SingleProcess()
    logps = distributed.broadcast(_read_cached(file, pairs) if distributed.rank == 0 else None)
    if logps is None:
        with adapters_off(scorer.model):
            logps = _compute_missing(scorer, pairs, distributed, store)
        if distributed.rank == 0:
            _write_cached(file, pairs, logps)
        source: dict[str, Any] = {"source": "computed"}
    else:
        off = _check_kept(scorer, pairs, logps, file, distributed)
        source = {"source": "cache", "recomputed_pairs": min(2, len(pairs)), "recomputed_off_by": off}
    if store is not None:
        store.logps |= dict(zip(_sequence_keys(scorer, pairs), logps.tolist(), strict=True))
    reference = ReferenceLogps(dict(zip(pairs, logps.tolist(), strict=True)), scorer.device)
    return reference, {"key": key, "pairs": len(pairs), **source}


def _check_kept(scorer: Scorer, pairs: Sequence[Pair], logps: Any, file: Path, distributed: Distributed) -> float:
    """Nats by which kept log-probs of the shortest and the longest pair are off those of the model as it is; at most.

    Raises ModelError where that is more than rounding: policy and reference would not be one model at step 0.
    """
    by_length = sorted(range(len(pairs)), key=lambda number: (scorer.length(pairs[number]), number))
    chosen = list(dict.fromkeys((by_length[0], by_length[-1])))
    with adapters_off(scorer.model):
        now = shared_logps(scorer, distributed, [pairs[number] for number in chosen]).cpu().numpy()
    off = np.abs(now - logps[chosen])
    absolute, relative = KEPT_TOLERANCE[scorer.compute_dtype]
    wrong = ~(off <= absolute + relative * np.abs(now))  # written so that nan is wrong, too
    if wrong.any() and np.isfinite(now).all():  # a model that gives no numbers is refused by `check_reference`
        worst = int(np.argmax(np.where(wrong, off, -1)))
        row, _ = pairs[chosen[worst]]
        raise ModelError(
            f"{file}: the reference log-probs kept there are not those of this model: for row_id {scorer.rows.row_id[row]} it "
            f"gives {now[worst]:.4f} nats, the file {logps[chosen[worst]]:.4f}. Delete the file; it is made again."
        )
    return float(off.max(initial=0.0))


def _compute_missing(scorer: Scorer, pairs: Sequence[Pair], distributed: Distributed, store: ActivationCache | None) -> Any:
    """float32 [len(pairs)], from `store` where it has them."""
    if store is None or distributed.size > 1:
        return shared_logps(scorer, distributed, pairs).cpu().numpy()
    keys = _sequence_keys(scorer, pairs)
    missing = [number for number, name in enumerate(keys) if name not in store.logps]
    computed = shared_logps(scorer, distributed, [pairs[number] for number in missing]).cpu().numpy() if missing else []
    known = store.logps | {keys[number]: float(logp) for number, logp in zip(missing, computed, strict=True)}
    return np.array([known[name] for name in keys], dtype=np.float32)


def _sequence_keys(scorer: Scorer, pairs: Sequence[Pair]) -> list[Key]:
    return [tokens_of(scorer.sequences, scorer.sequences.of(pair)) for pair in pairs]


def adapters_off(model: Any) -> Any:
    """A context in which a LoRA model is its reference; of no effect on other models."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext()


def _read_cached(file: Path, pairs: Sequence[Pair]) -> Any:
    try:
        table = read_parquet(file)
    except (OSError, pl.exceptions.PolarsError):  # absent or damaged: it is made again
        return None
    expected = pl.DataFrame(pairs, schema={"row": pl.Int64, "partner": pl.Int64}, orient="row")
    return table["logp"].to_numpy() if table.select("row", "partner").equals(expected) else None


def _write_cached(file: Path, pairs: Sequence[Pair], logps: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pl.DataFrame(pairs, schema={"row": pl.Int64, "partner": pl.Int64}, orient="row").with_columns(logp=pl.Series(logps))
    handle, scratch = tempfile.mkstemp(dir=file.parent, prefix=".writing-")
    os.close(handle)
    table.write_parquet(scratch)
    Path(scratch).replace(file)
