"""How likely a completion is after a prompt, under the weights as they are now."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ktodata.models import text_config
from ktodata.train.data.packing import Pack, Pair, SequenceKey, Sequences, continuation, pack, packs_of
from ktodata.train.data.ragged_ids import Numbers
from ktodata.train.data.tokens import TokenRows
from ktodata.train.distributed.interface import Distributed, SingleProcess
from ktodata.train.model.activation_cache import ActivationCache, current_cache
from ktodata.train.model.attention import Kernel, pick_kernel
from ktodata.train.model.device import device_name
from ktodata.train.model.fingerprint import computation_hash
from ktodata.train.model.frozen_layers import can_split
from ktodata.train.model.length_regimes import fitted, length_limits, regime
from ktodata.train.model.logprobs import collate, summed
from ktodata.train.model.packed_model import PackedModel, Passed, on
from ktodata.train.model.self_check import Method, check_methods, evenly
from ktodata.train.out_of_memory import within_memory

if TYPE_CHECKING:
    from ktodata.train.model.router_loss import RouterLoss

Tensor = Any


@dataclass
class Work:
    """Tokens that went through the model, and what they stood for."""

    requested: int = 0  # of the sequences whose log-probs were requested, each counted whole
    computed: int = 0  # through the layers, padding included
    padding: int = 0

    def as_dict(self) -> dict[str, Any]:
        """padding_ratio: computed per real token, 1 wastes none; shared_ratio: requested per real token, 1 shares none."""
        real = max(1, self.computed - self.padding)
        return {
            "requested_tokens": self.requested,
            "computed_tokens": self.computed,
            "padding_ratio": round(self.computed / real, 4),
            "shared_ratio": round(self.requested / real, 4),
        }


class Scorer:
    """Log-probs of pairs of one table of rows.

    `method` is how, the first of these that reproduces the model's own logits on a few rows (self_check.py):
    "packed"  sequences one after the other, shared prompts once, completion-only head; frozen lower layers once per sequence
    "padded"  rows padded to one length, whole decoder, completion-only head
    "logits"  the model's own logits of padded rows, for architectures whose head is more than a projection
    "rows"    the model's own logits of single rows, where it gives others in a batch

    shard : shares the model's weights out over processes, which must then make the same passes, empty ones for lack of pairs
    """

    def __init__(
        self,
        model: Any,
        rows: TokenRows,
        *,
        device: Any,
        compute_dtype: Any,
        frozen_layers: int = 0,
        activation_cache_mb: float = 0,
        shard: Callable[[PackedModel], Any] = lambda packed_model: packed_model,
    ) -> None:
        self.model, self.rows, self.device = model, fitted(model, rows), device
        self.sequences = Sequences(self.rows)
        self.kernel: Kernel = pick_kernel(device, compute_dtype, model.config)
        self.work = Work()
        self.routers: RouterLoss | None = None  # of a mixture of experts, where its router loss is wanted
        self.compute_dtype = compute_dtype
        self._limits = length_limits(model.config)
        self.cache_bytes = int(activation_cache_mb * 1e6)
        self._activations = _Activations()
        self.no_grad_tokens = 16384 if device.type == "cuda" else 4096
        self.packed_model: Any = shard(
            PackedModel(
                model,
                kernel=self.kernel,
                dtype=compute_dtype,
                frozen_layers=frozen_layers if can_split(model) and not self._limits else 0,
                reach=min(self.rows.max_length, int(rows.prompt.lengths.max(initial=0) + rows.completion.lengths.max(initial=0))),
            )
        )
        self.method: Method = "logits"
        self.self_check = check_methods(self)
        self.work = Work()

    @property
    def frozen_layers(self) -> int:
        """Lowest layers that are run apart from the rest, and once only where there is room to keep their output."""
        return self.packed_model.frozen_layers if self.method == "packed" else 0

    @property
    def cached_mb(self) -> float:
        """Memory of the frozen layers' output that is kept, MB."""
        return self._activations.megabytes

    @property
    def continues(self) -> bool:
        """Whether `with_partners` always makes two passes, the second after the prompts of the first."""
        return self.method == "packed" and not self.frozen_layers and not self._limits

    def __call__(self, pairs: Sequence[Pair]) -> Tensor:
        """Summed log-prob of each pair's completion: float32 [len(pairs)], nats; one pass, with gradient unless switched off.

        One for those on each side, where the model computes longer sequences otherwise (length_regimes.py).
        Without pairs the pass is made all the same, and weighs nothing: other processes may need this one's part in it.
        """
        if not pairs:
            return self._for_others(self([self._shortest()]))
        apart = self._by_regime(pairs)
        if len(apart) > 1:
            logps = torch.cat([self([pairs[number] for number in part]) for part in apart])
            return logps[np.argsort(np.concatenate(apart)).tolist()]
        if self.method == "packed":
            return self._score_packed(pairs)[0]
        if self.method == "rows":
            return torch.cat([self._score_padded([pair]) for pair in pairs])
        return self._score_padded(pairs)

    def with_partners(self, pairs: Sequence[Pair], partners: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(log-probs of `pairs` with gradient, those of `partners` without): float32 [len(pairs)], [len(partners)], nats.

        The prompts of `partners` must be among those of `pairs`; they are computed once where the method allows it.
        Without any of the one or the other, the same passes are made all the same, as in a call.
        """
        if not pairs:
            logps, _ = self.with_partners([self._shortest()], [])
            return self._for_others(logps), logps.new_zeros(0)
        if not partners:
            logps, partner_logps = self.with_partners(pairs, pairs[:1])
            self.work.requested -= self.length(pairs[0])
            return logps, partner_logps[:0]
        wanted = [self.sequences.of(pair) for pair in partners]
        if not self._may_continue(pairs, partners):
            return self(pairs), self.without_gradient(partners)
        logps, earlier, passed = self._score_packed(pairs, record=True)
        self.work.requested += sum(map(self.length, partners))
        later, continued = self._continued(wanted, earlier, passed)
        return logps, continued.logps[later.places_of(wanted)]

    def token_logps(self, pairs: Sequence[Pair], after: Sequence[Pair] = ()) -> list[Tensor]:
        """The log-probs of each completion's tokens, float32 [tokens] each, nats, of `pairs` and then of `after`; no gradient.

        One pass, and one for `after` that continues it where the method and what is kept allow it.
        """
        together, wanted = [*pairs, *after], [self.sequences.of(pair) for pair in after]
        apart = self._by_regime(together)
        if len(apart) > 1:
            parts = [self.token_logps([together[number] for number in part]) for part in apart]
            places = np.argsort(np.concatenate(apart)).tolist()
            logps = [logp for part in parts for logp in part]
            return [logps[place] for place in places]
        with torch.no_grad():
            if self.method != "packed":
                values, owners = self._padded_tokens(together)
                return [values[owners == number] for number in range(len(together))]
            if after and not self._may_continue(pairs, after):
                return self.token_logps(pairs) + self.token_logps(after)
            _, packed, passed = self._score_packed(pairs, record=bool(after))
            logps = _of_sequences(packed, passed, [self.sequences.of(pair) for pair in pairs])
            return logps + (_of_sequences(*self._continued(wanted, packed, passed), wanted) if after else [])

    def measure_form(self, pair: Pair) -> None:
        """See on one pair what the model does to its head's output before it is called logits (logit_form.py)."""
        ids = on(self.rows.sequence(*pair)[0].astype(np.int64)[None], self.device)
        with torch.no_grad(), self._autocast():
            self.packed_model.measure_form(ids)

    def own_router_loss(self, pair: Pair) -> float | None:
        """The model's own loss of its routers on one pair; None for a model without."""
        ids = on(self.rows.sequence(*pair)[0].astype(np.int64)[None], self.device)
        with torch.no_grad(), self._autocast():
            loss = self.packed_model.own_router_loss(ids)
        return None if loss is None else float(loss)

    def plain_token_logps(self, pair: Pair, most: int) -> Tensor:
        """Those of one pair by the model's own logits for its tokens alone: float32 [tokens, or `most` evenly taken], nats."""
        ids, start = self.rows.sequence(*pair)
        first = max(start, 1)  # without a prompt nothing predicts the first token
        places = np.array([first + number for number in evenly(len(ids) - first, most)], dtype=np.int64)
        return self.plain_logps_at(ids.astype(np.int64), places)

    def plain_logps_at(self, ids: Numbers, places: Numbers) -> Tensor:
        """Those of the tokens of one row, int64 [T], at `places`, each 1 or more: float32 [places], nats; no gradient."""
        with torch.no_grad(), self._autocast():
            return self.packed_model.plain(on(ids[None], self.device), on(places, self.device))

    def without_gradient(
        self, pairs: Sequence[Pair], *, passes: int = 0, passed: Callable[[list[int]], None] = lambda part: None
    ) -> Tensor:
        """The same for any number of pairs, float32 [len(pairs)], in as many passes as memory asks for, or `passes` if more.

        passed : called after each pass with the places in `pairs` that it was over
        """

        def compute(tokens: int) -> Tensor:
            logps = torch.zeros(len(pairs), dtype=torch.float32, device=self.device)
            parts = self.micro_batches(pairs, tokens=tokens)
            with torch.no_grad():
                for part in [*parts, *([[]] * (passes - len(parts)))]:
                    logps[part] = self([pairs[number] for number in part])
                    passed(part)
            return logps

        if passes or not pairs:  # other processes make as many
            return compute(self.no_grad_tokens)
        logps, self.no_grad_tokens = within_memory(compute, self.no_grad_tokens, lengths=[self.length(pair) for pair in pairs])
        return logps

    def passes(self, pairs: Sequence[Pair]) -> int:
        """How many passes `without_gradient` needs for them."""
        return len(self.micro_batches(pairs, tokens=self.no_grad_tokens))

    def micro_batches(self, pairs: Sequence[Pair], *, tokens: int, rows: int | None = None) -> list[list[int]]:
        """Positions in `pairs` that go through the model together: at most `tokens` tokens (or one pair), `rows` pairs each."""
        cut = self._packs if self.method == "packed" else self._by_length
        apart = self._by_regime(pairs)
        parts = [[numbers[n] for n in part] for numbers in apart for part in cut([pairs[n] for n in numbers], tokens)]
        if rows is None:
            return parts
        return [part[start : start + rows] for part in parts for start in range(0, len(part), rows)]

    def length(self, pair: Pair) -> int:
        """Tokens of the pair's sequence."""
        return self.sequences.length(self.sequences.of(pair))

    def cache_activations(self, pairs: Sequence[Pair], *, made_by: str = "") -> dict[str, Any]:
        """Run the frozen layers once for as many of `pairs`, in order, as may be kept; the others run them each time.

        made_by : names weights and arithmetic, to find what an earlier training with them made (activation_cache.py)
        Returns metrics: sequences and MB cached, of how many, and how many were there from an earlier training.
        """
        wanted = list(dict.fromkeys(self.sequences.of(pair) for pair in pairs))
        cached: list[SequenceKey] = []
        if self.frozen_layers:
            bytes_per_token = 4 * text_config(self.model.config).hidden_size
            prompts: set[int] = set()
            used = 0
            for sequence in wanted:
                new = 0 if sequence[0] in prompts else len(self.sequences.prompt(sequence))
                used += bytes_per_token * (len(self.sequences.completion(sequence)) + new)
                if used > self.cache_bytes:
                    break
                prompts.add(sequence[0])
                cached.append(sequence)
        store = current_cache(made_by, self.frozen_layers)
        missing = [
            sequence for sequence in cached if store is None or not self._activations.take(store, self.sequences, sequence)
        ]
        for part in packs_of(self.sequences, missing, tokens=self.no_grad_tokens):
            packed = pack(self.sequences, part)
            with self._autocast():
                self._activations.keep(packed, self.packed_model.lower(packed))
        metrics = {"sequences": len(cached), "of_sequences": len(wanted), "mb": round(self.cached_mb, 1)}
        if store is None:
            return metrics
        for sequence in missing:
            self._activations.give(store, self.sequences, sequence)
        return metrics | {"from_earlier_trainings": len(cached) - len(missing)}

    def computed_by(self, weights: str) -> str:
        """32 hex digits of all that log-probs depend on beside the tokens. weights: `weights_hash` of the untouched model."""
        return computation_hash(
            self.model,
            weights,
            method=self.method,
            kernel=self.kernel,
            frozen_layers=self.frozen_layers,
            dtype=self.compute_dtype,
            device=device_name(self.device),
        )

    def work_of_all(self, distributed: Distributed) -> Work:
        """What was computed since `take_work`, by all processes together. Every process must call it."""
        counts = torch.tensor(dataclasses.astuple(self.work), device=self.device)
        return Work(*distributed.sum(counts).tolist())

    def take_work(self, distributed: Distributed | None = None) -> dict[str, Any]:
        """Metrics of what was computed since the last call, by all processes together."""
        work = self.work_of_all(distributed or SingleProcess())
        self.work = Work()
        return work.as_dict()

    def _shortest(self) -> Pair:
        row = min(range(len(self.rows)), key=lambda row: self.length((row, row)))
        return row, row

    def _for_others(self, logps: Tensor) -> Tensor:
        """None of them: nothing was requested, so what the pass over the shortest row computed counts as padding."""
        tokens = self.length(self._shortest())
        self.work.requested -= tokens
        self.work.padding += tokens
        if self.routers is not None:
            self.routers.forget_last()
        return logps[:0]

    def _score_packed(self, pairs: Sequence[Pair], *, record: bool = False) -> tuple[Tensor, Pack, Passed]:
        packed = pack(self.sequences, list(dict.fromkeys(self.sequences.of(pair) for pair in pairs)))
        self.work.requested += sum(map(self.length, pairs))
        self.work.computed += len(packed.ids)
        with self._autocast():
            passed = self.packed_model(packed, states=self._activations.of(packed), record=record)
        if self.routers is not None and self.routers.is_watched:
            self.routers.add(self._rows_of_tokens(packed, pairs))
        return passed.logps[packed.places_of([self.sequences.of(pair) for pair in pairs])], packed, passed

    def _rows_of_tokens(self, packed: Pack, pairs: Sequence[Pair]) -> Tensor:
        """Float32 [L]: how many of `pairs` each token of their pack belongs to."""
        counts = np.zeros(len(packed.ids), dtype=np.float32)
        for sequence in map(self.sequences.of, pairs):
            for start, end in (packed.prompts[sequence[0]], packed.completions[sequence]):
                counts[start:end] += 1
        return on(counts, self.device)

    def _may_continue(self, pairs: Sequence[Pair], partners: Sequence[Pair]) -> bool:
        """Whether every layer will have seen the prompts as `partners` need them; with frozen ones, where all states are kept."""
        together = [*pairs, *partners]
        if self.method != "packed" or len(self._by_regime(together)) > 1:
            return False
        return not self.frozen_layers or self._activations.hold([self.sequences.of(pair) for pair in together])

    def _by_regime(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Positions in `pairs` that may share a pass: all, but for models that compute long sequences otherwise."""
        apart: dict[int, list[int]] = {}
        for number, pair in enumerate(pairs):
            apart.setdefault(regime(self.length(pair), self._limits) if self._limits else 0, []).append(number)
        return [apart[side] for side in sorted(apart, reverse=True)]  # long ones first: what does not fit fails at once

    def _packs(self, pairs: Sequence[Pair], tokens: int) -> list[list[int]]:
        places: dict[SequenceKey, list[int]] = {}
        for number, pair in enumerate(pairs):
            places.setdefault(self.sequences.of(pair), []).append(number)
        return [
            [number for sequence in part for number in places[sequence]]
            for part in packs_of(self.sequences, list(places), tokens=tokens)
        ]

    def _by_length(self, pairs: Sequence[Pair], tokens: int) -> list[list[int]]:
        """Positions in `pairs`, longest first, cut so that no part holds more than `tokens` padded tokens."""
        lengths = [self.length(pair) for pair in pairs]
        parts: list[list[int]] = []
        for number in sorted(range(len(pairs)), key=lambda number: (-lengths[number], number)):
            if not parts or self.method == "rows" or (len(parts[-1]) + 1) * lengths[parts[-1][0]] > tokens:
                parts.append([])
            parts[-1].append(number)
        return parts

    def _continued(self, wanted: Sequence[SequenceKey], earlier: Pack, passed: Passed) -> tuple[Pack, Passed]:
        """The pass over the completions of `wanted` alone, after the prompts of `earlier`; no gradient."""
        later = continuation(self.sequences, list(dict.fromkeys(wanted)), earlier)
        self.work.computed += len(later.ids)
        with torch.no_grad(), self._autocast():
            return later, self.packed_model(later, earlier=passed, states=self._activations.of(later))

    def _score_padded(self, pairs: Sequence[Pair]) -> Tensor:
        return summed(*self._padded_tokens(pairs), len(pairs))

    def _padded_tokens(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(log-probs of all completion tokens: float32 [C], nats; place in `pairs` of each: int64 [C])."""
        batch = collate([self.rows.sequence(row, partner) for row, partner in pairs], self.device)
        real = sum(map(self.length, pairs))
        self.work.requested += real
        self.work.computed += batch.input_ids.numel()
        self.work.padding += batch.input_ids.numel() - real
        with self._autocast():
            values, owners = self.packed_model.padded(batch, "padded" if self.method == "padded" else "logits")
        if self.routers is not None:
            self.routers.add(batch.real_mask.flatten().float())
        return values, owners

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32)


def _of_sequences(packed: Pack, passed: Passed, wanted: Sequence[SequenceKey]) -> list[Tensor]:
    """The log-probs of each wanted sequence's tokens: float32 [tokens] each."""
    owners = on(packed.owners, passed.per_token.device)
    return [passed.per_token[owners == place] for place in packed.places_of(wanted)]


class _Activations:
    """What the frozen layers made of prompts and completions: float [tokens, H] each."""

    def __init__(self) -> None:
        self._prompts: dict[int, Tensor] = {}
        self._completions: dict[SequenceKey, Tensor] = {}

    @property
    def megabytes(self) -> float:
        held = (*self._prompts.values(), *self._completions.values())
        return float(sum(state.numel() * state.element_size() for state in held)) / 1e6

    def keep(self, packed: Pack, states: Tensor) -> None:
        # copies: a view would keep the whole pack's output, prompts that are held already included
        self._prompts |= {
            prompt: states[start:end].clone() for prompt, (start, end) in packed.prompts.items() if prompt not in self._prompts
        }
        self._completions |= {sequence: states[start:end].clone() for sequence, (start, end) in packed.completions.items()}

    def take(self, store: ActivationCache, sequences: Sequences, sequence: SequenceKey) -> bool:
        """Whether the store has the sequence's states, which are held then."""
        states = store.find(sequences, sequence)
        if states is not None:
            self._prompts.setdefault(sequence[0], states[0])
            self._completions[sequence] = states[1]
        return states is not None

    def give(self, store: ActivationCache, sequences: Sequences, sequence: SequenceKey) -> None:
        store.add(sequences, sequence, self._prompts[sequence[0]], self._completions[sequence])

    def hold(self, sequences: Sequence[SequenceKey]) -> bool:
        return all(sequence in self._completions for sequence in sequences)

    def of(self, packed: Pack) -> Tensor | None:
        """Those of a whole pack, [L, H]; None unless all of it is held."""
        if not packed.sequences or not self.hold(packed.sequences):
            return None
        prompts = {} if packed.continues else packed.prompts
        pieces = [(span, self._prompts[prompt]) for prompt, span in prompts.items()]
        pieces += [(span, self._completions[sequence]) for sequence, span in packed.completions.items()]
        return torch.cat([state for _, state in sorted(pieces, key=lambda piece: piece[0])])
