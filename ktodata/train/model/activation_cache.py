"""Several trainings of one model with the same frozen layers run those once per sequence, and not once per training and sequence.

    with shared_activations(most_mb=4000):
        for labels in variants:
            fit(labels, model=..., trainable_layers=6)

What frozen layers give, and what the untrained model says of a completion, depends on the weights and the tokens alone, so both
are kept by these; trainings stay what they were.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ktodata.train.data.packing import SequenceKey, Sequences

Tensor = Any
Key = tuple[bytes, bytes]


class ActivationCache:
    """Frozen layers' output by tokens, float [tokens, H] each, up to `most_mb`, and reference log-probs; of one model only."""

    def __init__(self, most_mb: float) -> None:
        self._most, self._bytes, self._made_by = most_mb * 1e6, 0, ("", 0)
        self._prompts: dict[bytes, Tensor] = {}
        self._completions: dict[Key, Tensor] = {}
        self.logps: dict[Key, float] = {}  # nats, of the completion under the untrained model

    def of(self, made_by: str, frozen: int) -> "ActivationCache":
        """The store itself, emptied if what it holds was made by another model, or with another number of frozen layers."""
        if self._made_by != (made_by, frozen):
            self._made_by, self._bytes = (made_by, frozen), 0
            self._prompts.clear()
            self._completions.clear()
            self.logps.clear()
        return self

    def find(self, sequences: Sequences, sequence: SequenceKey) -> tuple[Tensor, Tensor] | None:
        """(of the prompt, of the completion after it), if both are held."""
        key = tokens_of(sequences, sequence)
        return (self._prompts[key[0]], self._completions[key]) if key in self._completions else None

    def add(self, sequences: Sequences, sequence: SequenceKey, prompt_states: Tensor, states: Tensor) -> None:
        """Hold a sequence's states, unless that would be more than `most_mb` in all."""
        prompt, completion = tokens_of(sequences, sequence)
        held = self._prompts.get(prompt)
        wanted = states.numel() * states.element_size()
        wanted += prompt_states.numel() * prompt_states.element_size() if held is None else 0
        if (prompt, completion) in self._completions or self._bytes + wanted > self._most:
            return
        self._bytes += wanted
        self._prompts.setdefault(prompt, prompt_states)
        self._completions[prompt, completion] = states


def tokens_of(sequences: Sequences, sequence: SequenceKey) -> Key:
    """What names a sequence in every training."""
    return sequences.prompt(sequence).tobytes(), sequences.completion(sequence).tobytes()


_CURRENT: ContextVar[ActivationCache | None] = ContextVar("ktodata_shared_activations", default=None)


@contextmanager
def shared_activations(*, most_mb: float = 4000) -> Iterator[None]:
    """Let all trainings inside share what their frozen layers give; memory up to `most_mb`, beside that of each training.

    Inside another `shared_activations`, that one's store goes on being used.
    """
    if _CURRENT.get() is not None:
        yield
        return
    token = _CURRENT.set(ActivationCache(most_mb))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_cache(made_by: str, frozen: int) -> ActivationCache | None:
    """The store of the surrounding `shared_activations`, for this model; None outside of one."""
    store = _CURRENT.get()
    return None if store is None else store.of(made_by, frozen)
