"""What a language model makes of each completion: the mean hidden state of a middle layer, one forward pass, cached on disk.

A sentence encoder says what a text is about; a causal model that read the prompt first also holds how the completion answers it,
and most of that stands in the middle layers (Alain and Bengio 2016, arXiv:1610.01644). With a few reviewed rows it is the best
feature set there is here; see tests/benchmarks/label_noise.py.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ktodata.embeddings.vector_cache import BETWEEN, cache_folder, load_vectors, store_vectors, text_keys
from ktodata.errors import ModelError, SettingError
from ktodata.models import load_causal_lm, texts_to_ids
from ktodata.train.data.ragged_ids import Ids
from ktodata.train.model.device import device_name, pick_device
from ktodata.train.model.fingerprint import computation_hash, weights_hash
from ktodata.train.model.frozen_layers import decoder_layers, decoder_of, text_config
from ktodata.train.model.length_regimes import length_limits, regime
from ktodata.train.model.logprobs import collate
from ktodata.work_done import WorkDone

Vectors = NDArray[np.float32]
BATCH_TOKENS = 4096  # padded tokens run at once
ROWS_PER_FILE = 512  # of the cache, so that a killed run goes on where it was


@dataclass(frozen=True)
class HiddenStates:
    """vectors : float32 [N, hidden size], zero where a completion has no token; metrics : how they were made."""

    vectors: Vectors
    metrics: dict[str, Any]


def mean_hidden_states(
    prompts: Sequence[str],
    completions: Sequence[str],
    *,
    model: str,
    layer: int | None = None,
    max_length: int = 512,
    device: str = "auto",
    cache: bool = True,
) -> HiddenStates:
    """The mean over the completion's tokens of what decoder layer `layer` gives out, the prompt read before it.

    model : a causal language model, the one to be trained if there is a choice: packaged name, hub id or folder
    layer : 1 is the lowest; None takes the middle one. Layers above it are not run.
    max_length : tokens of prompt and completion together. Of a longer prompt the end is read (at most half), of a completion the
        beginning.

    Raises ModelError when the model cannot be read, SettingError for a layer that it does not have.
    """
    loaded, tokenizer = load_causal_lm(model)
    layers = decoder_layers(loaded)[0]
    chosen = len(layers) // 2 + 1 if layer is None else layer
    if not 1 <= chosen <= len(layers):
        raise SettingError(f"hidden_states: layer is {layer}, but {model!r} has layers 1 to {len(layers)}.")
    on = pick_device(device)
    loaded.to(on).eval()
    pairs = list(zip(prompts, completions, strict=True))
    distinct = sorted(set(pairs))
    computed_by = computation_hash(loaded, weights_hash(loaded), device=device_name(on))
    digest_of = repr((computed_by, tokenizer.chat_template, len(tokenizer), chosen, max_length))
    folder = cache_folder("hidden_states", model, hashlib.blake2b(digest_of.encode(), digest_size=8).hexdigest())
    keys = dict(zip(distinct, text_keys([BETWEEN.join(pair) for pair in distinct]), strict=True))
    stored = np.zeros((len(distinct), text_config(loaded.config).hidden_size), np.float32)
    held, unreadable = load_vectors(folder, list(keys.values()), stored) if cache else (np.zeros(len(distinct), bool), 0)
    states = {pair: vector for pair, vector, there in zip(distinct, stored, held, strict=True) if there}
    encoded = {pair: _encode_row(tokenizer, *pair, max_length) for pair in distinct}
    missing = sorted((pair for pair in distinct if pair not in states), key=lambda pair: len(encoded[pair].ids))
    done = WorkDone("tokens", sum(len(encoded[pair].ids) for pair in missing))
    for start in range(0, len(missing), ROWS_PER_FILE):
        part = missing[start : start + ROWS_PER_FILE]  # of nearly the same length
        made = _run_batches(loaded, layers[chosen - 1], [encoded[pair] for pair in part], on, done)
        if cache:
            store_vectors(folder, [keys[pair] for pair in part], made)
        states |= dict(zip(part, made, strict=True))
    vectors = (
        np.stack([states[pair] for pair in pairs]) if pairs else np.empty((0, text_config(loaded.config).hidden_size), np.float32)
    )
    metrics = {
        "model": model,
        "layer": chosen,
        "of_layers": len(layers),
        "max_length": max_length,
        "device": str(on),
        "distinct_texts": len(distinct),
        "from_cache": len(distinct) - len(missing),
        "unreadable_cache_files": unreadable,
        "cut_to_max_length": sum(text.cut for text in encoded.values()),
        "zero_vectors": int((~vectors.any(axis=1)).sum()),
    }
    return HiddenStates(vectors, metrics)


@dataclass(frozen=True)
class _Encoded:
    ids: Ids
    start: int  # of the completion
    cut: bool


def _encode_row(tokenizer: Any, prompt: str, completion: str, max_length: int) -> _Encoded:
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        before = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        (before,) = texts_to_ids([prompt], tokenizer)
    after = tokenizer(completion, add_special_tokens=False)["input_ids"]
    room = max(max_length // 2, max_length - len(after))
    start = before[-room:]
    ids = np.array((start + after)[:max_length], dtype=np.int32)
    return _Encoded(ids, len(start), len(ids) < len(before) + len(after))


def _run_batches(model: Any, layer: Any, rows: Sequence[_Encoded], device: Any, done: WorkDone) -> Vectors:
    longest = max(1, *(len(row.ids) for row in rows))
    size = max(1, BATCH_TOKENS // longest)
    limits = length_limits(model.config)
    parts = [list(part) for _, part in groupby(rows, key=lambda row: regime(len(row.ids), limits))]
    batches = [part[start : start + size] for part in parts for start in range(0, len(part), size)]
    made = []
    for batch in batches:
        made.append(_run_batch(model, layer, batch, device))
        done.add(sum(len(row.ids) for row in batch))
    return np.vstack(made)


class LayerReachedError(Exception):
    """Raised from inside the forward pass: what is above is not needed."""


def _run_batch(model: Any, layer: Any, rows: Sequence[_Encoded], device: Any) -> Vectors:
    batch = collate([(row.ids, row.start) for row in rows], device)
    if not batch.input_ids.shape[1]:  # texts in which the tokenizer sees nothing
        return np.zeros((len(rows), text_config(model.config).hidden_size), np.float32)
    caught: list[Any] = []

    def catch(_module: Any, _inputs: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)
        raise LayerReachedError

    hook = layer.register_forward_hook(catch)
    try:
        with torch.no_grad():
            decoder_of(model)(input_ids=batch.input_ids, use_cache=False)
    except LayerReachedError:
        pass
    finally:
        hook.remove()
    if not caught:
        raise ModelError(f"a {model.config.model_type} model does not run through its own layers; hidden_states cannot read it.")
    counted = batch.completion_mask.float()
    sums = (caught[0].float() * counted[..., None]).sum(dim=1)
    return np.asarray((sums / counted.sum(dim=1, keepdim=True).clamp(min=1)).cpu().numpy(), np.float32)
