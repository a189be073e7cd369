"""One object that answers "how likely is this completion after that prompt, under the weights as they are now?"."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ktodata.models import first_line
from ktodata.train.data.packing import Leaf, Leaves, Pack, Pair, continuation, pack, packs_of
from ktodata.train.data.tokens import TokenRows
from ktodata.train.distributed.sharding import recover
from ktodata.train.distributed.world import Distributed, SingleProcess
from ktodata.train.model.activation_cache import ActivationCache, current_cache
from ktodata.train.model.attention import Kernel, pick_kernel
from ktodata.train.model.frozen_layers import can_split, decoder_of
from ktodata.train.model.logprobs import collate
from ktodata.train.model.packed_model import PackedPolicy, Passed

Tensor = Any
Method = Literal["packed", "padded", "logits"]

# what an architecture's own code raises when it is run over a layout that it does not know
FOREIGN_LAYOUT = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass
class Work:
    """Tokens that went through the model, and what they stood for."""

    asked: int = 0  # of the sequences whose log-probs were asked for, each counted whole
    computed: int = 0  # through the layers, padding included
    padding: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Facts. padding_ratio: computed per real token, 1 wastes none; shared_ratio: asked per real token, 1 shares none."""
        real = max(1, self.computed - self.padding)
        return {
            "asked_tokens": self.asked,
            "computed_tokens": self.computed,
            "padding_ratio": round(self.computed / real, 4),
            "shared_ratio": round(self.asked / real, 4),
        }


class Scorer:
    """Log-probs of pairs of one table of rows.

    `method` is how, the first of these that reproduces the model's own logits on a few rows (to rounding):
    "packed"  sequences one after the other, shared prompts once, completion-only head; frozen lower layers once per sequence
    "padded"  rows padded to one length, whole decoder, completion-only head
    "logits"  the model's own logits, for architectures whose head is more than a projection

    share : shares a policy's weights out over processes, which must then make the same passes, empty ones for lack of pairs
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
        share: Callable[[PackedPolicy], Any] = lambda policy: policy,
    ) -> None:
        self.model, self.rows, self.device = model, rows, device
        self.leaves = Leaves(rows)
        self.kernel: Kernel = pick_kernel(device, compute_dtype, model.config)
        self.work = Work()
        self.compute_dtype = compute_dtype
        self._keep_bytes = int(activation_cache_mb * 1e6)
        self._states = _States()
        self._no_grad_tokens = 16384 if device.type == "cuda" else 4096
        self.policy: Any = share(
            PackedPolicy(
                model,
                kernel=self.kernel,
                dtype=compute_dtype,
                frozen_layers=frozen_layers if can_split(model) else 0,
                reach=min(rows.max_length, max(map(len, rows.prompt), default=0) + max(map(len, rows.completion), default=0)),
            )
        )
        self.rejected: dict[str, str] = {}  # faster methods -> why each cannot be used for this model
        self.method: Method = self._choose_method()

    @property
    def frozen_layers(self) -> int:
        """Lowest layers that are run apart from the rest, and once only where there is room to keep their output."""
        return self.policy.frozen_layers if self.method == "packed" else 0

    @property
    def continues(self) -> bool:
        """Whether `with_partners` always makes two passes, the second after the prompts of the first."""
        return self.method == "packed" and not self.frozen_layers

    def __call__(self, pairs: Sequence[Pair]) -> Tensor:
        """Summed log-prob of each pair's completion: float32 [len(pairs)], nats; one pass, with gradient unless switched off.

        Without pairs the pass is made all the same, and weighs nothing: other processes may need this one's part in it.
        """
        if not pairs:
            return self._for_others(self([self._shortest()]))
        if self.method == "packed":
            return self._packed(pairs)[0]
        return self._padded(pairs, self.method)

    def with_partners(self, pairs: Sequence[Pair], partners: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(log-probs of `pairs` with gradient, those of `partners` without): float32 [len(pairs)], [len(partners)], nats.

        The prompts of `partners` must be among those of `pairs`; they are computed once where the method allows it.
        Without any of the one or the other, the same passes are made all the same, as in a call.
        """
        if not pairs:
            logps, _ = self.with_partners([self._shortest()], [])
            return self._for_others(logps), logps.new_zeros(0)
        if not partners:
            logps, found = self.with_partners(pairs, pairs[:1])
            self.work.asked -= self.length(pairs[0])
            return logps, found[:0]
        wanted = [self.leaves.of(pair) for pair in partners]
        if self.method != "packed" or not self._may_continue(pairs, wanted):
            return self(pairs), self.without_gradient(partners)
        logps, earlier, passed = self._packed(pairs, record=True)
        later = continuation(self.leaves, list(dict.fromkeys(wanted)), earlier)
        self.work.asked += sum(map(self.length, partners))
        self.work.computed += len(later.ids)
        with torch.no_grad(), self._autocast():
            found = self.policy(later, earlier=passed, states=self._states.of(later)).logps
        return logps, found[later.places_of(wanted)]

    def without_gradient(self, pairs: Sequence[Pair], *, passes: int = 0) -> Tensor:
        """The same for any number of pairs, float32 [len(pairs)], in as many passes as memory asks for, or `passes` if more."""
        logps = torch.zeros(len(pairs), dtype=torch.float32, device=self.device)
        parts = self.micro_batches(pairs, tokens=self._no_grad_tokens)
        with torch.no_grad():
            for part in [*parts, *([[]] * (passes - len(parts)))]:
                logps[part] = self([pairs[number] for number in part])
        return logps

    def passes(self, pairs: Sequence[Pair]) -> int:
        """How many passes `without_gradient` needs for them."""
        return len(self.micro_batches(pairs, tokens=self._no_grad_tokens))

    def micro_batches(self, pairs: Sequence[Pair], *, tokens: int, rows: int | None = None) -> list[list[int]]:
        """Positions in `pairs` that go through the model together: at most `tokens` tokens (or one pair), `rows` pairs each."""
        parts = self._packs(pairs, tokens) if self.method == "packed" else self._by_length(pairs, tokens)
        if rows is None:
            return parts
        return [part[start : start + rows] for part in parts for start in range(0, len(part), rows)]

    def length(self, pair: Pair) -> int:
        """Tokens of the pair's sequence."""
        return self.leaves.length(self.leaves.of(pair))

    def keep_states(self, pairs: Sequence[Pair], *, made_by: str = "") -> dict[str, Any]:
        """Run the frozen layers once for as many of `pairs`, in order, as may be kept; the others run them each time.

        made_by : names weights and arithmetic, to find what an earlier training with them made (kept.py)
        Returns facts: sequences and MB kept, of how many, and how many were there from an earlier training.
        """
        wanted = list(dict.fromkeys(self.leaves.of(pair) for pair in pairs))
        kept: list[Leaf] = []
        if self.frozen_layers:
            bytes_per_token = 4 * self.model.config.hidden_size
            prompts: set[int] = set()
            used = 0
            for leaf in wanted:
                new = 0 if leaf[0] in prompts else len(self.leaves.prompt(leaf))
                used += bytes_per_token * (len(self.leaves.completion(leaf)) + new)
                if used > self._keep_bytes:
                    break
                prompts.add(leaf[0])
                kept.append(leaf)
        store = current_cache(made_by, self.frozen_layers)
        missing = [leaf for leaf in kept if store is None or not self._states.take(store, self.leaves, leaf)]
        for part in packs_of(self.leaves, missing, tokens=self._no_grad_tokens):
            one = pack(self.leaves, part)
            with self._autocast():
                self._states.keep(one, self.policy.lower(one))
        facts = {"kept_sequences": len(kept), "of_sequences": len(wanted), "kept_mb": round(self._states.megabytes, 1)}
        if store is None:
            return facts
        for leaf in missing:
            self._states.give(store, self.leaves, leaf)
        return facts | {"from_earlier_trainings": len(kept) - len(missing)}

    def take_work(self, world: Distributed | None = None) -> dict[str, Any]:
        """Facts of what was computed since this was last asked, by all processes of `world` together."""
        work, self.work = self.work, Work()
        counts = torch.tensor([work.asked, work.computed, work.padding], device=self.device)
        return Work(*(world or SingleProcess()).sum(counts).tolist()).as_dict()

    def _shortest(self) -> Pair:
        row = min(range(len(self.rows)), key=lambda row: self.length((row, row)))
        return row, row

    def _for_others(self, logps: Tensor) -> Tensor:
        """None of them: nobody asked, so what the pass over the shortest row computed counts as padding."""
        tokens = self.length(self._shortest())
        self.work.asked -= tokens
        self.work.padding += tokens
        return logps[:0]

    def _packed(self, pairs: Sequence[Pair], *, record: bool = False) -> tuple[Tensor, Pack, Passed]:
        one = pack(self.leaves, list(dict.fromkeys(self.leaves.of(pair) for pair in pairs)))
        self.work.asked += sum(map(self.length, pairs))
        self.work.computed += len(one.ids)
        with self._autocast():
            passed = self.policy(one, states=self._states.of(one), record=record)
        return passed.logps[one.places_of([self.leaves.of(pair) for pair in pairs])], one, passed

    def _may_continue(self, pairs: Sequence[Pair], wanted: Sequence[Leaf]) -> bool:
        """Whether every layer will have seen the prompts: with frozen ones, only where the states of all are kept."""
        return not self.frozen_layers or self._states.hold([*(self.leaves.of(pair) for pair in pairs), *wanted])

    def _packs(self, pairs: Sequence[Pair], tokens: int) -> list[list[int]]:
        places: dict[Leaf, list[int]] = {}
        for number, pair in enumerate(pairs):
            places.setdefault(self.leaves.of(pair), []).append(number)
        return [
            [number for leaf in part for number in places[leaf]] for part in packs_of(self.leaves, list(places), tokens=tokens)
        ]

    def _by_length(self, pairs: Sequence[Pair], tokens: int) -> list[list[int]]:
        """Positions in `pairs`, longest first, cut so that no part holds more than `tokens` padded tokens."""
        lengths = [self.length(pair) for pair in pairs]
        parts: list[list[int]] = []
        for number in sorted(range(len(pairs)), key=lambda number: (-lengths[number], number)):
            if not parts or (len(parts[-1]) + 1) * lengths[parts[-1][0]] > tokens:
                parts.append([])
            parts[-1].append(number)
        return parts

    def _padded(self, pairs: Sequence[Pair], method: Literal["padded", "logits"]) -> Tensor:
        batch = collate([self.rows.sequence(row, partner) for row, partner in pairs], self.device)
        real = sum(map(self.length, pairs))
        self.work.asked += real
        self.work.computed += batch.input_ids.numel()
        self.work.padding += batch.input_ids.numel() - real
        with self._autocast():
            return self.policy.padded(batch, method)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32)

    def _choose_method(self) -> Method:
        """The first method that reproduces the model's own logits on a few pairs; why those before it do not is in `rejected`."""
        own, crossed = self._trial_pairs()
        with torch.no_grad():
            expected = self._padded([*own, *crossed], "logits")
            for method in ("packed", "padded"):
                self.method = method
                reason = self._objection(own, crossed, expected)
                if reason is None:
                    break
                self.rejected[method] = reason
            else:
                self.method = "logits"
        self.work = Work()
        if self.rejected:
            kind, reasons = self.model.config.model_type, "; ".join(f"{name}: {why}" for name, why in self.rejected.items())
            warnings.warn(f"a {kind} model is scored by method {self.method!r}, which is slower ({reasons}).", stacklevel=3)
        return self.method

    def _trial_pairs(self) -> tuple[list[Pair], list[Pair]]:
        """(two rows with their own completions, the same prompts with each other's): the shortest row, and a middling one."""
        by_length = sorted(range(len(self.rows)), key=lambda row: self.length((row, row)))
        short, middle = by_length[0], by_length[len(by_length) // 2]
        return [(short, short), (middle, middle)], [(short, middle), (middle, short)]

    def _objection(self, own: list[Pair], crossed: list[Pair], expected: Tensor) -> str | None:
        """Why the method that is set cannot be used for this model; None when it gives the `expected` log-probs."""
        if not isinstance(self.model.get_output_embeddings(), nn.Linear) or decoder_of(self.model) is None:
            return "its head is no linear layer on top of a decoder"
        try:
            # once with prompts shared within a pack, once with completions that continue it
            trials = [self([*own, *crossed]), torch.cat(self.with_partners(own, crossed))]
        except torch.OutOfMemoryError:
            raise
        except FOREIGN_LAYOUT as error:
            recover(self.policy)
            return f"{type(error).__name__}: {first_line(error)}"
        # bf16 keeps 8 bits: a sum over a completion may be off by some 1 %
        tolerance = 1e-4 if self.compute_dtype == torch.float32 else 3e-2
        if all(torch.allclose(trial, expected, rtol=tolerance, atol=tolerance) for trial in trials):
            return None
        off = max(float((trial - expected).abs().max()) for trial in trials)
        return f"its log-probs are up to {off:.3g} nats off those of the model's own logits"


class _States:
    """What the frozen layers made of prompts and completions: float [tokens, H] each."""

    def __init__(self) -> None:
        self._prompts: dict[int, Tensor] = {}
        self._completions: dict[Leaf, Tensor] = {}

    @property
    def megabytes(self) -> float:
        held = (*self._prompts.values(), *self._completions.values())
        return float(sum(state.numel() * state.element_size() for state in held)) / 1e6

    def keep(self, one: Pack, states: Tensor) -> None:
        # copies: a view would keep the whole pack's output, prompts that are held already included
        self._prompts |= {
            prompt: states[start:end].clone() for prompt, (start, end) in one.prompts.items() if prompt not in self._prompts
        }
        self._completions |= {leaf: states[start:end].clone() for leaf, (start, end) in one.completions.items()}

    def take(self, store: ActivationCache, leaves: Leaves, leaf: Leaf) -> bool:
        """Whether the store has the leaf's states, which are held then."""
        found = store.find(leaves, leaf)
        if found is not None:
            self._prompts.setdefault(leaf[0], found[0])
            self._completions[leaf] = found[1]
        return found is not None

    def give(self, store: ActivationCache, leaves: Leaves, leaf: Leaf) -> None:
        store.add(leaves, leaf, self._prompts[leaf[0]], self._completions[leaf])

    def hold(self, leaves: Sequence[Leaf]) -> bool:
        return all(leaf in self._completions for leaf in leaves)

    def of(self, one: Pack) -> Tensor | None:
        """Those of a whole pack, [L, H]; None unless all of it is held."""
        if not one.leaves or not self.hold(one.leaves):
            return None
        prompts = {} if one.continues else one.prompts
        pieces = [(span, self._prompts[prompt]) for prompt, span in prompts.items()]
        pieces += [(span, self._completions[leaf]) for leaf, span in one.completions.items()]
        return torch.cat([state for _, state in sorted(pieces, key=lambda piece: piece[0])])
