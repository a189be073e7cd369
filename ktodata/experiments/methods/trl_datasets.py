"""Token ids as each of TRL's trainers takes them, all from `ktodata.train.data.tokens`: every method reads the very same ones.

TRL's own encodings differ among its trainers: ORPO's puts a begin token before text that the tokenizer itself begins without,
puts a second end token after a chat template's, and refuses texts whose tokens merge across the end of the prompt.
"""

from typing import Any

import numpy as np

from ktodata.experiments.methods.preference_pairs import Numbers, PreferencePairs
from ktodata.train.data.tokens import TokenRows

Example = dict[str, Any]
# what a token is called that has no part in a loss
IGNORED = -100


def in_turn(items: int, wanted: int, seed: int) -> Numbers:
    """`wanted` numbers below `items`: all of them in random order, then all in another order, and so on."""
    random = np.random.default_rng([seed, 4])
    rounds = [random.permutation(items) for _ in range(-(-wanted // items))]
    return np.concatenate(rounds)[:wanted]


def sft_examples(rows: TokenRows, numbers: Numbers) -> list[Example]:
    """input_ids, labels: the loss is of the completion's tokens."""
    return [{"input_ids": ids, "labels": labels} for ids, labels in (_labelled(*_row_ids(rows, int(n))) for n in numbers)]


def dpo_examples(rows: TokenRows, pairs: PreferencePairs, numbers: Numbers) -> list[Example]:
    """prompt_ids, chosen_ids, rejected_ids of the pairs with these numbers."""
    splits = (split_pair(rows, int(pairs.chosen[n]), int(pairs.rejected[n])) for n in numbers)
    return [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in splits]


def orpo_examples(rows: TokenRows, pairs: PreferencePairs, numbers: Numbers) -> list[Example]:
    """input_ids, attention_mask and labels of chosen and rejected, prompts included."""
    examples = []
    for n in numbers:
        prompt, *both = split_pair(rows, int(pairs.chosen[n]), int(pairs.rejected[n]))
        example: Example = {}
        for name, completion in zip(("chosen", "rejected"), both, strict=True):
            ids, labels = _labelled(prompt, completion)
            example |= {f"{name}_input_ids": ids, f"{name}_attention_mask": [1] * len(ids), f"{name}_labels": labels}
        examples.append(example)
    return examples


def reward_examples(rows: TokenRows, pairs: PreferencePairs, numbers: Numbers) -> list[Example]:
    """chosen_ids, rejected_ids: prompt and completion in one."""

    def whole(number: int) -> list[int]:
        prompt, completion = _row_ids(rows, number)
        return prompt + completion

    return [{"chosen_ids": whole(int(pairs.chosen[n])), "rejected_ids": whole(int(pairs.rejected[n]))} for n in numbers]


def split_pair(rows: TokenRows, chosen: int, rejected: int) -> tuple[list[int], list[int], list[int]]:
    """(tokens that both have for their prompt, the rest of the one, the rest of the other).

    Where tokens merge across the end of the prompt, its last token may belong to a completion.
    """
    (first, good), (second, bad) = _row_ids(rows, chosen), _row_ids(rows, rejected)
    start = min(len(first), len(second))
    return first[:start], first[start:] + good, second[start:] + bad


def _row_ids(rows: TokenRows, number: int) -> tuple[list[int], list[int]]:
    return rows.prompt[number].tolist(), rows.completion[number].tolist()


def _labelled(prompt: list[int], completion: list[int]) -> tuple[list[int], list[int]]:
    return prompt + completion, [IGNORED] * len(prompt) + completion
