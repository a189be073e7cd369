"""Hybrid KTO beside KTO and DPO, trained: the arms of pair_screen.py, on its rows, by gradient steps of a model's top layers.

    python tests/benchmarks/pair_trainings.py DATA_FOLDER [--sets xstest gsm8k] [--arms kto dpo hybrid] [--updates 77] [--seeds 1]
        [--parts 5] [--folder DIR]

SmolLM2-135M-Instruct, its top 6 layers and last norm, bfloat16 where the processor has it, updates of 16, the rate of methods.py. What the
frozen layers make of each row is computed once, and the softmax is over the tokens that the set's completions use, so that a training
costs a minute and not ten; dealing, losses and weights are the package's. `parts` of five are held out in turn. Finished trainings are kept
in DIR. Intervals over prompts and trainings, paired.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_noise import POLICY
from machine import machine, write_result
from pair_screen import (
    ARITHMETIC,
    ARMS,
    BATCH,
    LAYERS,
    MOST,
    PARTS,
    POINTS,
    Drawn,
    Ints,
    PairArm,
    Scores,
    Sequence,
    cut_head,
    drawn,
    fast_arithmetic,
    measure,
    objective_of,
    padded,
    scored_places,
    terms_of,
    updates_of,
)

from ktodata.experiments.methods.terms import LEARNING_RATES
from ktodata.models import load_causal_lm
from ktodata.train.data.tokens import TokenRows
from ktodata.train.schedule import learning_rate_at

RATE = 20 * LEARNING_RATES["kto"]  # as in methods.py
FORMS = ("kto", "dpo", "hybrid", "or, a quarter")  # the last: the hybrid of the first trial


@dataclass(frozen=True)
class TopLayers:
    """What is trained, and what the frozen layers below made of each of S sequences."""

    layers: Any  # gives the last hidden states of states
    head: torch.Tensor  # of the tokens in use, [V, H]
    place: torch.Tensor  # of a token among them
    sequences: list[Sequence]
    states: list[torch.Tensor]  # float [T, H] each

    @classmethod
    def of(cls, drawn_rows: Drawn) -> "TopLayers":
        model, _ = load_causal_lm(POLICY)
        model.requires_grad_(False)
        head, place = cut_head(model, drawn_rows.tokens)
        sequences = [drawn_rows.tokens.sequence(int(row), int(partner)) for row, partner in drawn_rows.pairs]
        body, states = model.model, [torch.empty(0)] * len(sequences)
        for batch in _by_length(sequences):
            with torch.no_grad(), fast_arithmetic():
                below = body(padded([sequences[n] for n in batch]), use_cache=False, output_hidden_states=True).hidden_states
            for line, n in enumerate(batch):
                states[n] = below[-LAYERS - 1][line, : len(sequences[n][0])].float().clone()
        body.layers = body.layers[-LAYERS:]
        for trained in (body.layers, body.norm):
            trained.requires_grad_(True)
        return cls(body, head, place, sequences, states)

    def log_p(self, which: Ints) -> torch.Tensor:
        """Of the completions of these sequences, nats: float [len(which)]."""
        sequences = [self.sequences[n] for n in which]
        (row, token), ids = scored_places(sequences), padded(sequences)
        states = torch.nn.utils.rnn.pad_sequence([self.states[n] for n in which], batch_first=True)
        with fast_arithmetic():
            last = self.layers(inputs_embeds=states, use_cache=False).last_hidden_state[row, token - 1]
            logits = (last.to(ARITHMETIC) @ self.head.T).float()
        each = logits.log_softmax(1).gather(1, self.place[ids[row, token]][:, None])[:, 0]
        return torch.zeros(len(which)).index_add(0, row, each)

    def score(self, which: Ints) -> torch.Tensor:
        """log p of these sequences, nats, NaN for the others: float [S]."""
        scores = torch.full((len(self.sequences),), torch.nan)
        with torch.no_grad():
            for batch in _by_length([self.sequences[n] for n in which]):
                scores[which[batch]] = self.log_p(which[batch])
        return scores


def _by_length(sequences: list[Sequence]) -> list[list[int]]:
    order = np.argsort([len(ids) for ids, _ in sequences], kind="stable").tolist()
    return [order[start : start + 2 * BATCH] for start in range(0, len(order), 2 * BATCH)]


def top_layers(
    of: Drawn, top: TopLayers, reference: torch.Tensor, arm: PairArm, rows: TokenRows, part: int, seed: int, updates: int
) -> Scores:
    """One training from the untrained layers, which it leaves as they were; NaN for rows that it saw. reference : float [S]"""
    train = of.train(part)
    dealt, objective = updates_of(arm, rows, of.frame[train], updates, seed), objective_of(arm, rows.label)
    crossed, random = of.crossed_in(train), np.random.default_rng(seed)
    weights = [weight for weight in top.layers.parameters() if weight.requires_grad]
    untrained = [weight.detach().clone() for weight in weights]
    adam, siblings = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0), 0
    for step, (which, prompts) in enumerate(dealt):
        adam.param_groups[0]["lr"] = learning_rate_at(step, steps=updates, peak=RATE, warmup_fraction=0.1, schedule="linear")
        with torch.no_grad():
            mismatched = random.choice(crossed, POINTS, replace=False)
            z0 = (top.log_p(mismatched) - reference[mismatched]).mean().clamp(min=0)
        ratios = top.log_p(train[which]) - reference[train[which]]
        terms = terms_of(arm, objective, ratios, rows.label[which], prompts, z0)
        siblings += int((terms[1] > 0).sum())
        adam.zero_grad()
        (sum(terms).sum() / len(which)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
    held_out = np.flatnonzero((of.frame["part"] == part).to_numpy())
    scores = (top.score(held_out) - reference)[: len(of.tokens)].numpy()
    with torch.no_grad():
        for weight, before in zip(weights, untrained, strict=True):
            weight.copy_(before)
    return scores, {"rows_with_siblings": float(siblings)}


def kept_in(folder: Path | None, train: Callable[..., Scores]) -> Callable[..., Scores]:
    """`train`, whose finished trainings are read back from `folder`."""

    def once(arm: PairArm, rows: TokenRows, part: int, seed: int, updates: int) -> Scores:
        if folder is None:
            return train(arm, rows, part, seed, updates)
        name = next(name for name, each in ARMS.items() if each == arm)
        file = folder / f"{name.replace('/', ' of ')}, part {part}, seed {seed}, {updates} updates.pt"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(train(arm, rows, part, seed, updates), file)
        return torch.load(file, weights_only=False)

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="*", choices=MOST, default=list(MOST))
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(FORMS))
    parser.add_argument("--updates", type=int, default=77)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parts", type=int, choices=range(1, PARTS + 1), default=PARTS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    for name in options.sets:
        of = drawn(options.data, name)
        top = TopLayers.of(of)
        train = kept_in(
            options.folder and options.folder / name, partial(top_layers, of, top, top.score(np.arange(len(top.sequences))))
        )
        arms = measure(of, train, options.arms, options.updates, options.seeds, options.parts)
        facts: dict[str, Any] = {"rows": of.frame.height, "prompt_groups": of.frame["prompt_group"].n_unique()}
        facts |= {setting: getattr(options, setting) for setting in ("updates", "seeds", "parts")}
        facts["arithmetic"] = str(ARITHMETIC)
        write_result(f"pair_trainings_{name}", {"set": name} | facts | arms | machine())


if __name__ == "__main__":
    main()
