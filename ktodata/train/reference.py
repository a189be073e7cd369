"""The reference model's log-probs: computed once with the untouched model, kept on disk by everything they depend on.

<cache>/<computation and tokens>/<pairs>.parquet holds those of one training. Another one of the same model and tokens, with other
partners, takes from there the pairs that both have. While they are computed, each part is kept in <pairs>.parts, so that a killed
pass goes on, and ends in the same bytes.
"""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import xxhash
from numpy.typing import NDArray

from ktodata.errors import ModelError
from ktodata.files import discard, read_parquet, scan_parquet, whole_file
from ktodata.train.data.packing import Pair
from ktodata.train.data.ragged_ids import Numbers
from ktodata.train.distributed.interface import Distributed, SingleProcess
from ktodata.train.distributed.work_split import shared_logps
from ktodata.train.model.activation_cache import ActivationCache, Key, tokens_of
from ktodata.train.model.scorer import Scorer
from ktodata.train.model.self_check import evenly, widest_arithmetic

Tensor = Any
Logps = NDArray[np.float32]

# nats, and share of the log-prob: what other packs may change. bfloat16 rounds each product to 8 bits
KEPT_TOLERANCE = {torch.float32: (1e-3, 1e-5), torch.bfloat16: (0.1, 1e-2)}
# nats, and times what rounding does to as many tokens: two roundings with nothing in common differ by the root of 2 of it, which
# this is 4.2 times. Other packs of 3 tiny families came to 1.8 times at most (tests/benchmarks/LOG.md, 2026-11-30)
ROUNDED_TOLERANCE = (0.01, 6.0)
CHECKED_PAIRS = 4
# of a part that is written when it is done; those of one prompt are in one part
PART_PAIRS = 1024


class ReferenceLogps:
    """log p of each pair's completion under the reference, in nats."""

    def __init__(self, pairs: Numbers, logps: Logps, device: Any) -> None:
        """Keep them in the order of their codes. pairs : int64 [P, 2]; logps : float32 [P]"""
        codes = _codes(pairs)
        order = np.argsort(codes)
        self._codes, self._logps, self._device = codes[order], logps[order], device

    def __call__(self, pairs: Sequence[Pair] | Numbers) -> Tensor:
        """float32 [len(pairs)]. Raises KeyError for a pair that was not among those computed."""
        codes = _codes(np.array(pairs, dtype=np.int64).reshape(-1, 2))
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        if (self._codes[places] != codes).any():
            raise KeyError("a pair has no reference log-prob")
        return torch.from_numpy(self._logps[places]).to(self._device)


def _codes(pairs: Numbers) -> Numbers:
    """One number for each pair."""
    codes: Numbers = pairs[:, 0] << 32 | pairs[:, 1]
    return codes


def reference_key(computed_by: str, scorer: Scorer, pairs: Numbers) -> str:
    """Two times 32 hex digits: of how they are computed (`Scorer.computed_by`) and the tokens, and of the pairs."""
    digest = xxhash.xxh3_128(f"{computed_by} {scorer.rows.max_length}".encode())
    for texts in (scorer.rows.prompt, scorer.rows.completion):
        digest.update(texts.lengths.tobytes())
        digest.update(b"".join(texts.digests))
    return f"{digest.hexdigest()}/{xxhash.xxh3_128_hexdigest(pairs.tobytes())}"


def reference_logps(
    scorer: Scorer,
    pairs: Numbers,
    *,
    key: str,
    cache: Path,
    distributed: Distributed | None = None,
    store: ActivationCache | None = None,
) -> tuple[ReferenceLogps, dict[str, Any]]:
    """Log-probs of every pair, from `cache`/<key>.parquet or from the model with its adapters off; and metrics.

    pairs : int64 [P, 2], each once
    store : of an earlier training of the same model (activation_cache.py); what it holds is not computed again.
    Of several processes the first one looks into its cache and hands it to the others; else each computes its share.
    Call it before the first update: full training has no other copy of the reference. Raises ModelError, naming the file, where
    what was kept is not what the model gives now.
    """
    file, distributed = cache / f"{key}.parquet", distributed or SingleProcess()
    logps = distributed.broadcast(_read_cached(file, pairs) if distributed.rank == 0 else None)
    metrics: dict[str, Any] = {"key": key, "pairs": len(pairs), "source": "computed" if logps is None else "cache"}
    if logps is None:
        known = distributed.broadcast(_known(file, pairs) if distributed.rank == 0 else None)
        metrics |= _check_kept(scorer, pairs, known, np.flatnonzero(~np.isnan(known)), file.parent, distributed)
        with adapters_off(scorer.model):
            logps = _computed(scorer, pairs, known, file, distributed, store)
    else:
        metrics |= _check_kept(scorer, pairs, logps, np.arange(len(pairs)), file, distributed)
    if store is not None:
        store.logps |= dict(zip(_sequence_keys(scorer, pairs), logps.tolist(), strict=True))
    return ReferenceLogps(pairs, logps, scorer.device), metrics


def _check_kept(
    scorer: Scorer, pairs: Numbers, logps: Logps, kept: Numbers, place: Path, distributed: Distributed
) -> dict[str, Any]:
    """Metrics: nats by which kept log-probs of a few pairs, of all lengths, are off those of the model as it is; at most.

    Raises ModelError where that is more than rounding: policy and reference would not be one model at step 0.
    kept : the places in `pairs` of those that were
    """
    if not len(kept):
        return {"pairs_kept": 0}
    by_length = kept[np.argsort(scorer.sequences.lengths(pairs[kept]), kind="stable")]
    chosen = by_length[evenly(len(by_length), CHECKED_PAIRS)].tolist()
    with adapters_off(scorer.model):
        now = shared_logps(scorer, distributed, pairs[chosen].tolist()).cpu().numpy()
        allowed = _may_be_off(scorer, pairs[chosen].tolist(), now)
    off = np.abs(now - logps[chosen])
    wrong = ~(off <= distributed.broadcast(allowed))  # written so that nan is wrong, too
    if wrong.any() and np.isfinite(now).all():  # a model that gives no numbers is refused by `check_reference`
        worst = int(np.argmax(np.where(wrong, off, -1)))
        row, _ = pairs[chosen[worst]]
        raise ModelError(
            f"{place}: the reference log-probs kept there are not those of this model: for row_id {scorer.rows.row_id[row]} it "
            f"gives {now[worst]:.4f} nats, the file {logps[chosen[worst]]:.4f}. Delete it; it is made again."
        )
    return {"pairs_kept": len(kept), "recomputed_pairs": len(chosen), "recomputed_off_by": float(off.max(initial=0.0))}


def _may_be_off(scorer: Scorer, pairs: Sequence[Pair], logps: Logps) -> NDArray[np.float64]:
    """Nats by which what was kept of each pair may be off `logps`: what rounding gives, seen on these pairs beside float32."""
    absolute, relative = KEPT_TOLERANCE[scorer.compute_dtype]
    most = absolute + relative * np.abs(logps.astype(np.float64))
    if scorer.compute_dtype == torch.float32:
        return most
    rounded = scorer.token_logps(pairs)
    with widest_arithmetic(scorer) as exact:
        if not exact:
            return most
        off = torch.cat(rounded) - torch.cat(scorer.token_logps(pairs))
    each, (least, times) = float(off.square().mean().sqrt()), ROUNDED_TOLERANCE
    rounding: NDArray[np.float64] = np.minimum(most, least + times * each * np.sqrt([len(tokens) for tokens in rounded]))
    return rounding


def _computed(
    scorer: Scorer, pairs: Numbers, known: Logps, file: Path, distributed: Distributed, store: ActivationCache | None
) -> Logps:
    """float32 [P]: `known`, and the model's where that is nan. What is done is kept by parts, and in `file` at the end."""
    logps, parts = known.copy(), file.with_suffix(".parts")
    for number, part in enumerate(_parts(scorer, pairs, np.flatnonzero(np.isnan(known)))):
        place = parts / f"{number:06d}.npy"
        done = distributed.broadcast(_read_part(place, len(part)) if distributed.rank == 0 else None)
        if done is None:
            done = _compute_missing(scorer, pairs[part].tolist(), distributed, store)
            if distributed.rank == 0:
                _write_part(place, done)
        logps[part] = done
    if distributed.rank == 0:
        with whole_file(file) as scratch:
            _pair_table(pairs).with_columns(logp=pl.Series(logps)).write_parquet(scratch)
        discard(parts)
    return logps


def _parts(scorer: Scorer, pairs: Numbers, missing: Numbers) -> list[Numbers]:
    """Places in `pairs` in parts of some PART_PAIRS, by prompt: one that several pairs share is computed once for them."""
    if not len(missing):
        return []
    prompts = scorer.sequences.prompt_of[pairs[missing, 0]]
    order = np.argsort(prompts, kind="stable")
    first_of_prompt = np.searchsorted(prompts[order], prompts[order])
    return np.split(missing[order], np.flatnonzero(np.diff(first_of_prompt // PART_PAIRS)) + 1)


def _compute_missing(scorer: Scorer, pairs: Sequence[Pair], distributed: Distributed, store: ActivationCache | None) -> Logps:
    """float32 [len(pairs)], from `store` where it has them."""
    if store is None or distributed.size > 1:
        return np.asarray(shared_logps(scorer, distributed, pairs).cpu().numpy())
    keys = _sequence_keys(scorer, pairs)
    missing = [number for number, name in enumerate(keys) if name not in store.logps]
    computed = shared_logps(scorer, distributed, [pairs[number] for number in missing]).cpu().numpy() if missing else []
    known = store.logps | {keys[number]: float(logp) for number, logp in zip(missing, computed, strict=True)}
    return np.array([known[name] for name in keys], dtype=np.float32)


def _sequence_keys(scorer: Scorer, pairs: Sequence[Pair] | Numbers) -> list[Key]:
    return [tokens_of(scorer.sequences, scorer.sequences.of((row, partner))) for row, partner in pairs]


def adapters_off(model: Any) -> Any:
    """A context in which a LoRA model is its reference; of no effect on other models."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def _known(file: Path, pairs: Numbers) -> Logps:
    """float32 [P]: what files beside it say of these pairs, the first by name of several; nan for the others.

    What a pass starts from is kept with its parts: another training may end before it goes on.
    """
    place = file.with_suffix(".parts") / "known.npy"
    known = _read_part(place, len(pairs))
    if known is None:
        discard(place.parent)
        known = _from_others(sorted(file.parent.glob("*.parquet")), pairs)
        _write_part(place, known)
    return known


def _from_others(files: Sequence[Path], pairs: Numbers) -> Logps:
    known = np.full(len(pairs), np.nan, dtype=np.float32)
    missing = _pair_table(pairs).with_row_index("place")
    for file in files:
        try:
            same = scan_parquet(file).join(missing.lazy(), on=["row", "partner"]).select("place", "logp").collect()
        except (OSError, pl.exceptions.PolarsError):  # damaged
            continue
        known[same["place"].to_numpy()] = same["logp"].to_numpy()
        missing = missing.join(same, on="place", how="anti")
    return known


def _read_part(place: Path, count: int) -> Logps | None:
    try:
        logps: Logps = np.load(place)
    except (OSError, ValueError, EOFError):  # absent or damaged: it is made again
        return None
    return logps if logps.shape == (count,) else None


def _write_part(place: Path, logps: Logps) -> None:
    """Another process at the same pass may end meanwhile, and take the folder of the parts away: this one ends as well, then."""
    with suppress(FileNotFoundError), whole_file(place) as scratch, scratch.open("wb") as file:
        np.save(file, logps)


def _read_cached(file: Path, pairs: Numbers) -> Any:
    try:
        table = read_parquet(file)
    except (OSError, pl.exceptions.PolarsError):  # absent or damaged: it is made again
        return None
    return table["logp"].to_numpy() if table.select("row", "partner").equals(_pair_table(pairs)) else None


def _pair_table(pairs: Numbers) -> pl.DataFrame:
    return pl.DataFrame({"row": pairs[:, 0], "partner": pairs[:, 1]})
