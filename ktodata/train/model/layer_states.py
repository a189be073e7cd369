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

from ktodata.embeddings.vector_cache import BETWEEN, cache_folder, load_vectors, text_keys
from ktodata.embeddings.vector_parts import VectorStore, make_vectors
from ktodata.engines.engine import ModelWork
from ktodata.errors import ModelError, SettingError
from ktodata.models import context_of, load_causal_lm, text_config, texts_to_ids
from ktodata.train.data.ragged_ids import Ids
from ktodata.train.model.device import device_name, pick_device
from ktodata.train.model.fingerprint import computation_hash, weights_hash
from ktodata.train.model.frozen_layers import decoder_layers, decoder_of
from ktodata.train.model.length_regimes import length_limits, regime
from ktodata.train.model.logprobs import collate

Vectors = NDArray[np.float32]
BATCH_TOKENS = 4096  # padded tokens run at once
ROWS_A_PART = 128  # few enough that a part of long rows is over in half a minute


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
    max_length : tokens of prompt and completion together, no more than the model's context. Of a longer prompt the end is read
        (at most half), of a completion the beginning.

    Raises ModelError when the model cannot be read, SettingError for a layer that it does not have.
    """
    on = pick_device(device)
    work = ReadWork(model, str(on), layer)
    loaded, tokenizer = work.model
    n_layers, width, chat_template = (
        len(decoder_layers(loaded)[0]),
        text_config(loaded.config).hidden_size,
        tokenizer.chat_template,
    )
    max_length = min(max_length, context_of(loaded.config) or max_length)
    del loaded  # where the parts run elsewhere, no model stays here
    pairs = list(zip(prompts, completions, strict=True))
    distinct = sorted(set(pairs))
    digest_of = repr((work.made_with, chat_template, len(tokenizer), work.layer, max_length))
    folder = cache_folder("hidden_states", model, hashlib.blake2b(digest_of.encode(), digest_size=8).hexdigest())
    keys = text_keys([BETWEEN.join(pair) for pair in distinct])
    states = np.zeros((len(distinct), width), np.float32)
    held, unreadable = load_vectors(folder, keys, states) if cache else (np.zeros(len(distinct), bool), 0)
    encoded = [_encode_row(tokenizer, *pair, max_length) for pair in distinct]
    missing = np.array(sorted(np.flatnonzero(~held).tolist(), key=lambda line: len(encoded[line].ids)), dtype=np.int64)
    store = VectorStore(folder if cache else None, keys, states)
    make_vectors(states, missing, encoded, work, store, part_size=ROWS_A_PART, unit="tokens", size_of=lambda row: len(row.ids))
    line_of = {pair: line for line, pair in enumerate(distinct)}
    vectors = states[[line_of[pair] for pair in pairs]]
    metrics = {
        "model": model,
        "layer": work.layer,
        "of_layers": n_layers,
        "max_length": max_length,
        "device": str(on),
        "distinct_texts": len(distinct),
        "from_cache": len(distinct) - len(missing),
        "unreadable_cache_files": unreadable,
        "cut_to_max_length": sum(row.cut for row in encoded),
        "zero_vectors": int((~vectors.any(axis=1)).sum()),
    }
    return HiddenStates(vectors, metrics)


@dataclass(eq=False)
class ReadWork(ModelWork):
    """Mean hidden states of the rows of a part. layer : None takes the middle one; known once the model is loaded."""

    layer: int | None

    def load(self) -> tuple[Any, Any]:
        """(model, tokenizer). Raises ModelError when they cannot be read, SettingError for a layer that is not there."""
        loaded, tokenizer = load_causal_lm(self.name)
        layers = len(decoder_layers(loaded)[0])
        chosen = layers // 2 + 1 if self.layer is None else self.layer
        if not 1 <= chosen <= layers:
            raise SettingError(f"hidden_states: layer is {self.layer}, but {self.name!r} has layers 1 to {layers}.")
        self.layer = chosen
        return loaded.to(pick_device(self.device)).eval(), tokenizer

    def identity(self, model: tuple[Any, Any]) -> str:
        """As ModelWork has it."""
        return computation_hash(model[0], weights_hash(model[0]), device=device_name(pick_device(self.device)))

    def __call__(self, part: Sequence["_Encoded"]) -> Vectors:
        """As ModelWork has it."""
        loaded, _ = self.model
        assert self.layer is not None
        return _run_batches(loaded, decoder_layers(loaded)[0][self.layer - 1], part, pick_device(self.device))


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


def _run_batches(model: Any, layer: Any, rows: Sequence[_Encoded], device: Any) -> Vectors:
    longest = max(1, *(len(row.ids) for row in rows))
    size = max(1, BATCH_TOKENS // longest)
    limits = length_limits(model.config)
    parts = [list(part) for _, part in groupby(rows, key=lambda row: regime(len(row.ids), limits))]
    batches = [part[start : start + size] for part in parts for start in range(0, len(part), size)]
    return np.vstack([_run_batch(model, layer, batch, device) for batch in batches])


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
