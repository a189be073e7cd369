"""A reward model from the same pairs and base as the policies: TRL's RewardTrainer, which takes pairs only (Bradley-Terry)."""

from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from ktodata.errors import EmptyDataError
from ktodata.experiments.methods.preference_pairs import Numbers, PreferencePairs
from ktodata.experiments.methods.terms import TrainingTerms
from ktodata.experiments.methods.trl_datasets import reward_examples
from ktodata.experiments.methods.trl_trainers import choose_layers, pad_token_of, quiet, train_with_trl
from ktodata.models import NO_CODE, load_causal_lm, resolve_model
from ktodata.train.data.tokens import TokenRows, tokenize


class RewardModel:
    """The base with a linear head on its last token. Higher is better; differences within a prompt are log-odds."""

    def __init__(self, model: Any, tokenizer: Any, terms: TrainingTerms) -> None:
        self._model, self._tokenizer, self._terms = model.eval(), tokenizer, terms
        self._given: list[float] = []  # means of the batches that RLOO asked about, in time

    def score(self, rows: TokenRows) -> NDArray[np.float64]:
        """The reward of each row: float64 [N]."""
        wholes = [np.concatenate([p, c]) for p, c in zip(rows.prompt, rows.completion, strict=True)]
        rewards = np.zeros(len(wholes))
        by_length = sorted(range(len(wholes)), key=lambda number: len(wholes[number]))
        size = self._terms.micro_batch_size
        for start in range(0, len(by_length), size):
            here = by_length[start : start + size]
            rewards[here] = self._batch([wholes[number] for number in here])
        return rewards

    def of_written(self, prompts: list[Any], completions: list[Any], **_: Any) -> list[float | None]:
        """What RLOO asks of its rollouts. None for a text of which the tokenizer makes nothing.

        They are encoded as the training rows were, the end included: the head reads the last token, and has only ever read ends
        there. TRL's own way leaves the end token out.
        """
        frame = pl.DataFrame(
            {"row_id": [str(n) for n in range(len(prompts))], "prompt": prompts, "completion": completions}
        ).with_columns(label=True, weight=1.0, p_desirable=1.0, prompt_group=pl.lit(None, dtype=pl.String))
        try:
            rows, _facts = tokenize(frame, self._tokenizer, max_length=self._terms.max_length + 16, part="rollouts")
        except EmptyDataError:
            return [None] * len(prompts)
        scores = dict(zip(rows.row_id, self.score(rows).tolist(), strict=True))
        self._given.append(float(np.mean(list(scores.values()))))
        return [scores.get(row_id) for row_id in frame["row_id"]]

    def mean_of(self, first: float, last: float) -> float | None:
        """Mean reward that RLOO's rollouts got between these shares of its training."""
        count = len(self._given)
        part = self._given[int(first * count) : max(int(first * count) + 1, int(last * count))]
        return float(np.mean(part)) if part else None

    def _batch(self, wholes: list[Any]) -> Any:
        pad, width = self._tokenizer.pad_token_id, max(map(len, wholes))
        ids = torch.full((len(wholes), width), pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for number, whole in enumerate(wholes):
            ids[number, : len(whole)] = torch.from_numpy(whole.astype(np.int64))
            mask[number, : len(whole)] = 1
        device = self._terms.device
        # RLOO calls from inside its own training step
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self._terms.compute_dtype == torch.bfloat16):
            logits = self._model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        return logits[:, 0].float().cpu().numpy()


def train_reward_model(rows: TokenRows, pairs: PreferencePairs, numbers: Numbers, terms: TrainingTerms, seed: int) -> RewardModel:
    """On the pairs in the order of `numbers`; the head starts at random, from `seed`."""
    import trl
    from transformers import AutoModelForSequenceClassification

    tokenizer = load_causal_lm(terms.model)[1]
    tokenizer.pad_token = pad_token_of(tokenizer)
    with quiet():
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            resolve_model(terms.model), num_labels=1, dtype=torch.float32, **NO_CODE
        )
        choose_layers(model, terms)
        model.score.requires_grad_(True)
        how = {"rate": terms.rates["reward_model"], "seed": seed, "max_length": terms.max_length, "completions": 2}
        examples = reward_examples(rows, pairs, numbers)
        trained = train_with_trl(trl.RewardTrainer, trl.RewardConfig, model, tokenizer, examples, terms, **how)
    return RewardModel(trained, tokenizer, terms)
