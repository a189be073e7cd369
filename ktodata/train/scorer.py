"""One object that answers "how likely is this completion after that prompt, under the weights as they are now?"."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from ktodata.train.logprobs import Batch, collate, completion_logps, full_logit_logps
from ktodata.train.shared_prompts import Pair, Shared, collate_shared, share_prompts
from ktodata.train.tokens import TokenRows
from ktodata.train.trunk import can_split, decoder_of, lower_states, upper_states

Tensor = Any

# padded tokens in one forward pass without gradient: it keeps one layer's activations only
NO_GRAD_TOKENS = 8192


class Scorer:
    """Log-probs of pairs of one table of rows.

    `method` is how, the first of these that reproduces the model's own logits on two rows (to rounding):
    "split"   frozen lower layers once per sequence, upper layers and completion-only head each time
    "hidden"  whole decoder, completion-only head
    "logits"  the model's own logits, for architectures whose head is more than a projection
    """

    def __init__(
        self, model: Any, rows: TokenRows, *, device: Any, compute_dtype: Any, frozen_layers: int = 0, keep_states_mb: float = 0
    ) -> None:
        self.model, self.rows, self.device = model, rows, device
        self.frozen_layers = frozen_layers
        self._compute_dtype = compute_dtype
        self._keep_bytes = int(keep_states_mb * 1e6)
        self._states: dict[Pair, Tensor] = {}
        self.real_tokens = self.padded_tokens = 0
        self.method: Literal["split", "hidden", "logits"] = self._fastest_that_agrees()

    def __call__(self, pairs: Sequence[Pair]) -> Tensor:
        """Summed log-prob of each pair's completion: float32 [len(pairs)], nats; with gradient unless it is switched off."""
        batch = self._collate(pairs)
        self.real_tokens += sum(self.length(pair) for pair in pairs)
        self.padded_tokens += batch.input_ids.numel()
        return self._logps(batch, pairs, self.method)

    def without_gradient(self, pairs: Sequence[Pair]) -> Tensor:
        """The same for any number of pairs, float32 [len(pairs)], batched by length."""
        logps = torch.zeros(len(pairs), dtype=torch.float32, device=self.device)
        with torch.no_grad():
            for chunk in self._by_length(pairs):
                logps[chunk] = self([pairs[number] for number in chunk])
        return logps

    def length(self, pair: Pair) -> int:
        """Tokens of the pair's sequence."""
        row, partner = pair
        return min(len(self.rows.prompt[row]) + len(self.rows.completion[partner]), self.rows.max_length)

    def keep_states(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Run the frozen layers once for as many of `pairs`, in order, as may be kept; the others run them each time.

        Returns facts: sequences and MB kept, and of how many.
        """
        if self.method != "split":
            return {"kept_sequences": 0, "of_sequences": len(pairs), "kept_mb": 0.0}
        bytes_per_token = 4 * self.model.config.hidden_size
        kept: list[Pair] = []
        used = 0
        for pair in pairs:
            used += bytes_per_token * self.length(pair)
            if used > self._keep_bytes:
                break
            kept.append(pair)
        for chunk in self._chunks(share_prompts(self.rows, kept)):
            self._keep(chunk)
        held = sum(state.numel() * state.element_size() for state in self._states.values())
        return {"kept_sequences": len(kept), "of_sequences": len(pairs), "kept_mb": round(held / 1e6, 1)}

    def _keep(self, shared: Sequence[Shared]) -> None:
        input_ids, positions, mask = collate_shared(shared, self.device)
        with self._autocast():
            layout = {"position_ids": positions, "attention_mask": mask}
            states = lower_states(decoder_of(self.model), input_ids, self.frozen_layers, **layout)
        for one, state in zip(shared, states, strict=True):
            self._states.update(zip(one.pairs, one.states_of(state), strict=True))

    def _chunks(self, shared: Sequence[Shared]) -> list[list[Shared]]:
        """Neighbours, longest first, cut so that no chunk holds more than NO_GRAD_TOKENS padded tokens."""
        chunks: list[list[Shared]] = []
        for one in shared:
            if not chunks or (len(chunks[-1]) + 1) * len(chunks[-1][0].ids) > NO_GRAD_TOKENS:
                chunks.append([])
            chunks[-1].append(one)
        return chunks

    def _logps(self, batch: Batch, pairs: Sequence[Pair], method: str) -> Tensor:
        with self._autocast():
            if method == "logits":
                return full_logit_logps(self.model, batch)
            decoder = decoder_of(self.model)
            if method == "split":
                hidden = upper_states(decoder, self._lower(batch, pairs), self.frozen_layers)
            else:
                hidden = decoder(input_ids=batch.input_ids, use_cache=False).last_hidden_state
            return completion_logps(hidden, self.model.get_output_embeddings(), batch)

    def _lower(self, batch: Batch, pairs: Sequence[Pair]) -> Tensor:
        if all(pair in self._states for pair in pairs):
            return pad_sequence([self._states[pair] for pair in pairs], batch_first=True)
        return lower_states(decoder_of(self.model), batch.input_ids, self.frozen_layers)

    def _collate(self, pairs: Sequence[Pair]) -> Batch:
        return collate([self.rows.sequence(row, partner) for row, partner in pairs], self.device)

    def _by_length(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Positions in `pairs`, longest first, cut so that no chunk holds more than NO_GRAD_TOKENS padded tokens."""
        lengths = [self.length(pair) for pair in pairs]
        chunks: list[list[int]] = []
        for number in sorted(range(len(pairs)), key=lambda number: (-lengths[number], number)):
            if not chunks or (len(chunks[-1]) + 1) * lengths[chunks[-1][0]] > NO_GRAD_TOKENS:
                chunks.append([])
            chunks[-1].append(number)
        return chunks

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, self._compute_dtype, enabled=self._compute_dtype != torch.float32)

    def _fastest_that_agrees(self) -> Literal["split", "hidden", "logits"]:
        by_length = sorted(range(len(self.rows)), key=lambda row: self.length((row, row)))
        pairs = [(row, row) for row in {by_length[0], by_length[len(by_length) // 2]}]
        batch = self._collate(pairs)
        # bf16 keeps 8 bits: a sum over a completion may be off by some 1 %
        tolerance = 1e-4 if self._compute_dtype == torch.float32 else 3e-2
        candidates: list[Literal["split", "hidden"]] = []
        if self.frozen_layers and can_split(self.model):
            candidates.append("split")
        if decoder_of(self.model) is not None and self.model.get_output_embeddings() is not None:
            candidates.append("hidden")
        with torch.no_grad():
            expected = self._logps(batch, pairs, "logits")
            for method in candidates:
                if torch.allclose(self._logps(batch, pairs, method), expected, rtol=tolerance, atol=tolerance):
                    return method
        return "logits"
