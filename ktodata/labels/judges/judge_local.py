"""A judge on this machine: a causal language model that answers with P(yes) against P(no)."""

import inspect
import threading
from typing import Any

from ktodata.errors import ModelError
from ktodata.labels.judges.judge_questions import JudgeAnswer, JudgeQuestion, NoAnswer, chat_messages
from ktodata.labels.judges.judge_settings import JudgeSettings, JudgeSource
from ktodata.models import context_of, load_causal_lm, texts_to_ids

MIN_ANSWER_MASS = 0.05  # a model that gives yes and no together less than this is not answering the question


class LocalJudge:
    """P(yes) against P(no) as the first word of a causal model's answer. It has no retries."""

    def __init__(self, source: JudgeSource, settings: JudgeSettings) -> None:
        self.name = source.name
        self.stopped = threading.Event()
        self.retried = 0
        self._settings = settings
        self._model, self._tokenizer = load_causal_lm(source.model)
        self._yes, self._no = _first_tokens(self._tokenizer, source.name)
        self._model.eval()

    def __call__(self, question: JudgeQuestion) -> JudgeAnswer:
        """Ask one question. Raises NoAnswer for a text that is too long for the model."""
        import torch

        ids = self._input_ids(chat_messages(question, self._settings))
        longest = context_of(self._model.config)
        if longest and len(ids) > longest:
            raise NoAnswer(f"longer than the {longest:,} tokens that the model reads: lower max_chars")
        last_only = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        with torch.inference_mode():
            logits = self._model(torch.tensor([ids]), **({"logits_to_keep": 1} if last_only else {})).logits[0, -1]
        p = logits.float().softmax(-1)
        yes, no = float(p[self._yes].sum()), float(p[self._no].sum())
        p_yes = yes / (yes + no) if yes + no >= MIN_ANSWER_MASS else None
        return JudgeAnswer("", p_yes, {"in": len(ids), "out": 1})

    def close(self) -> None:
        """Nothing is held open."""

    def _input_ids(self, roles: dict[str, str]) -> list[int]:
        if self._tokenizer.chat_template:
            # one message: not every template knows a system's
            message = [{"role": "user", "content": "\n\n".join(roles.values())}]
            text = self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return texts_to_ids(["\n\n".join([*roles.values(), "Answer:"])], self._tokenizer)[0]


def _first_tokens(tokenizer: Any, name: str) -> tuple[list[int], list[int]]:
    """Ids that begin "yes" and "no" in their usual spellings, without those that begin both or are unknown."""
    sides = []
    for word in ("yes", "no"):
        spellings = [before + form for before in ("", " ") for form in (word, word.capitalize(), word.upper())]
        encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in spellings]
        # a word in several tokens begins with one that other words share ("y", "n", a lone space)
        sides.append({ids[0] for ids in encoded if len(ids) == 1} - {tokenizer.unk_token_id})
    yes, no = sides[0] - sides[1], sides[1] - sides[0]
    if not yes or not no:
        raise ModelError(f"the judge {name!r} has no single token for yes or for no, so its answer cannot be read. Take another.")
    return sorted(yes), sorted(no)
