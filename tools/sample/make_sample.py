"""Make the sample feedback: `python -m tools.sample.make_sample`. ktodata/sample/README.md describes what comes out.

Tasks are drawn, SmolLM2 answers them at two temperatures, programs say which answers are right, simulated raters give their
thumbs, and the faults that real feedback has are put in. Everything but the model's sampling is the same on every machine.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from ktodata.datasets import production_prompts_path, sample_path, truth_path
from tools.sample.answer_checks import CHECKS
from tools.sample.simulated_raters import RATERS, Rater, choose_rater
from tools.sample.task_families import Task, draw_tasks

MODEL = "packaged:smollm2-135m-instruct"
TEMPERATURES = {"smollm2-t0.2": 0.2, "smollm2-t0.8": 0.8}
BOTH_MODELS = 2 / 3  # share of prompts that both models answer; the others get one of them
MAX_NEW_TOKENS = 40
BATCH_ROWS = 48

# how many prompts of each family got feedback, and how many are in the reference of what users ask
FEEDBACK_PROMPTS = {
    "arithmetic": 62,
    "unit_conversion": 25,
    "extraction": 125,
    "sorting": 30,
    "counting": 15,
    "dates": 16,  # THIN_FAMILY: a few prompts here, one in eight below
    "output_format": 125,
    "unanswerable": 105,
    "comparison": 90,
    "word_problem": 50,
    "word_forms": 115,
    "capitals": 112,
    "categories": 50,
    "copying": 40,
}
PRODUCTION_PROMPTS = {
    "arithmetic": 22,
    "unit_conversion": 14,
    "extraction": 32,
    "sorting": 12,
    "counting": 8,
    "dates": 36,
    "output_format": 32,
    "unanswerable": 30,
    "comparison": 26,
    "word_problem": 18,
    "word_forms": 22,
    "capitals": 20,
    "categories": 16,
    "copying": 12,
}

# who gets a right answer votes, who gets a wrong one mostly just leaves: that makes four thumbs in five point up
VOTED_ON = {True: 1.0, False: 0.14}
# of the thin family so many answers are voted on, right or wrong: a handful of rows
THIN_FAMILY = "dates"
THIN_VOTED_ON = 0.2
SECOND_VOTES = 0.14  # share of the answers that another rater votes on as well
DOUBLE_CLICKS = 0.015  # share of the votes that are sent twice
NEAR_COPIES = 0.03  # share of the votes that come in again with other spaces, capitals or punctuation
FIRST_DAY = datetime(2025, 3, 3, 8, tzinfo=UTC)
DAYS = 42

# records that cannot become rows: what is wrong, and the thumb that is given
BROKEN: tuple[tuple[str, Any], ...] = (
    ("no_thumb", None),
    ("no_thumb", None),
    ("no_thumb", None),
    ("odd_thumb", "meh"),
    ("odd_thumb", "meh"),
    ("odd_thumb", "meh"),
    ("odd_thumb", "-1"),
    ("empty_completion", "down"),
    ("empty_completion", "down"),
    ("empty_completion", "up"),
)
# a line that a crash cut short
CUT_LINE = '{"id": "f0000", "prompt": "What is the capital of Fra\n'
# checks that do not mind other capitals, spaces or punctuation, so that a near copy is as right as what it copies
REWRITABLE = ("number", "only", "yes_no", "declines")

# (prompts, temperature, seed) -> one completion for each prompt
Generate = Callable[[Sequence[str], float, int], list[str]]


@dataclass(frozen=True)
class Answer:
    """What one model answered to one task."""

    task: Task
    model: str
    completion: str

    def is_right(self) -> bool:
        """What the task's checking program says."""
        return CHECKS[self.task.check](self.task.prompt, self.task.expected, self.completion)


@dataclass(frozen=True)
class Design:
    """What a sample's raters are to judge. is_desirable : what is true of an answer; voted_on : P(it gets a vote)"""

    is_desirable: Callable[[Answer], bool]
    voted_on: Callable[[Answer], float]
    raters: Sequence[Rater]


def _voted_on(answer: Answer) -> float:
    return THIN_VOTED_ON if answer.task.family == THIN_FAMILY else VOTED_ON[answer.is_right()]


RIGHT_ANSWERS = Design(Answer.is_right, _voted_on, RATERS)


def answer_all(tasks: Sequence[Task], generate: Generate, seed: int) -> list[Answer]:
    """The models' answers, in an order that does not depend on how they were batched."""
    rng = Random(f"{seed}/models")
    tasks_of: dict[str, list[Task]] = {model: [] for model in TEMPERATURES}
    for task in tasks:
        for model in TEMPERATURES if rng.random() < BOTH_MODELS else [rng.choice(list(TEMPERATURES))]:
            tasks_of[model].append(task)
    return [
        Answer(task, model, completion.strip())
        for model, its_tasks in tasks_of.items()
        for task, completion in zip(
            its_tasks, generate([task.prompt for task in its_tasks], TEMPERATURES[model], seed), strict=True
        )
    ]


def smollm2() -> Generate:
    """A generator that samples from the packaged SmolLM2-135M-Instruct with its chat template."""
    import torch

    from ktodata.models import load_causal_lm

    model, tokenizer = load_causal_lm(MODEL)
    model.eval()
    tokenizer.padding_side = "left"

    def complete(prompts: Sequence[str], temperature: float) -> list[str]:
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "max_new_tokens": MAX_NEW_TOKENS}
        with torch.inference_mode():
            tokens = model.generate(**batch, **sampling, pad_token_id=tokenizer.pad_token_id)
        answers: list[str] = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return answers

    def generate(prompts: Sequence[str], temperature: float, seed: int) -> list[str]:
        torch.manual_seed(seed)
        by_length = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))  # little padding in a batch
        answers: dict[int, str] = {}
        for start in range(0, len(prompts), BATCH_ROWS):
            batch = by_length[start : start + BATCH_ROWS]
            answers.update(zip(batch, complete([prompts[index] for index in batch], temperature), strict=True))
        return [answers[index] for index in range(len(prompts))]

    return generate


@dataclass(frozen=True)
class Vote:
    """One thumb on one answer, and what is wrong with it. `fault` and `caused_by` say how the vote follows from another."""

    answer: Answer
    thumb: Any
    rater: str
    at: datetime
    habit: str | None
    fault: str | None = None
    caused_by: "Vote | None" = None


def collect_votes(answers: Iterable[Answer], seed: int, design: Design = RIGHT_ANSWERS) -> list[Vote]:
    """Thumbs of the simulated raters in order of time, with second votes, double clicks, near copies and broken records."""
    votes = [vote for answer in answers for vote in _votes_on(answer, seed, design)]
    rng = Random(f"{seed}/broken")
    broken = [
        _break(vote, fault, thumb, rng) for (fault, thumb), vote in zip(BROKEN, rng.sample(votes, len(BROKEN)), strict=True)
    ]
    return sorted([*votes, *broken], key=lambda vote: (vote.at, vote.rater, vote.answer.task.prompt))


def _votes_on(answer: Answer, seed: int, design: Design) -> list[Vote]:
    """No vote, or several. Chance starts afresh with each answer, so that one answer more changes nothing for the others."""
    rng = Random(f"{seed}/votes/{answer.model}/{answer.task.prompt}")
    if rng.random() >= design.voted_on(answer):
        return []
    first = _vote(answer, choose_rater(rng, design.raters), rng, design)
    votes = [first]
    if rng.random() < SECOND_VOTES:
        votes.append(_second_vote(first, rng, design))
    if rng.random() < DOUBLE_CLICKS:
        votes.append(_double_click(first, rng))
    if answer.task.check in REWRITABLE and rng.random() < NEAR_COPIES:
        votes.append(_near_copy(first, rng, design))
    return votes


def _vote(answer: Answer, rater: Rater, rng: Random, design: Design) -> Vote:
    thumb, habit = rater.verdict(right=design.is_desirable(answer), completion=answer.completion, rng=rng)
    at = FIRST_DAY + timedelta(days=rng.randrange(DAYS), seconds=rng.randrange(12 * 3600))
    return Vote(answer, _word(thumb), rater.name, at, habit)


def _word(thumb: bool) -> str:
    return "up" if thumb else "down"


def _second_vote(first: Vote, rng: Random, design: Design) -> Vote:
    vote = _vote(first.answer, choose_rater(rng, design.raters, but=first.rater), rng, design)
    return replace(vote, fault="duplicate_of" if vote.thumb == first.thumb else "contradicts", caused_by=first)


def _double_click(vote: Vote, rng: Random) -> Vote:
    return replace(vote, at=vote.at + timedelta(seconds=rng.randint(1, 3)), fault="duplicate_of", caused_by=vote)


def _near_copy(vote: Vote, rng: Random, design: Design) -> Vote:
    task, completion = vote.answer.task, vote.answer.completion
    prompt, completion = rng.choice(
        [
            (task.prompt.lower(), completion),
            (task.prompt.replace(" ", "  ", 2), completion + " "),
            (task.prompt.rstrip("?.") + " ?", completion),
            (task.prompt, completion.rstrip(".") + "!"),
            (task.prompt.upper(), completion.lower()),
        ]
    )
    answer = Answer(replace(task, prompt=prompt), vote.answer.model, completion)
    rater = choose_rater(rng, design.raters).name
    at = vote.at + timedelta(hours=rng.randint(1, 200))
    return Vote(answer, vote.thumb, rater, at, vote.habit, fault="near_duplicate_of", caused_by=vote)


def _break(vote: Vote, fault: str, thumb: Any, rng: Random) -> Vote:
    answer = replace(vote.answer, completion=rng.choice(["", "  "])) if fault == "empty_completion" else vote.answer
    at = vote.at + timedelta(minutes=rng.randint(1, 60))
    return replace(vote, answer=answer, thumb=thumb, at=at, habit=None, fault=fault, caused_by=None)


def records(votes: Sequence[Vote], design: Design = RIGHT_ANSWERS) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(the feedback record, the truth) of each vote. Ids are numbered in order of time."""
    ids = {id(vote): f"f{number:04d}" for number, vote in enumerate(votes, start=1)}
    return [(_feedback_record(vote, ids[id(vote)]), _truth_record(vote, ids, design)) for vote in votes]


def _feedback_record(vote: Vote, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": vote.answer.task.prompt,
        "completion": vote.answer.completion,
        "thumb": vote.thumb,
        "user": vote.rater,
        "ts": vote.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "model": vote.answer.model,
    }


def _truth_record(vote: Vote, ids: dict[int, str], design: Design) -> dict[str, Any]:
    return {
        "id": ids[id(vote)],
        "truth": design.is_desirable(vote.answer),
        "family": vote.answer.task.family,
        "check": vote.answer.task.check,
        "expected": vote.answer.task.expected,
        "habit": vote.habit,
        "planted": f"{vote.fault}:{ids[id(vote.caused_by)]}" if vote.caused_by else vote.fault,
    }


def make_sample(generate: Generate, seed: int = 0) -> tuple[str, str, str]:
    """The text of feedback.jsonl, truth.jsonl and production_prompts.jsonl."""
    tasks = draw_tasks(FEEDBACK_PROMPTS, Random(f"{seed}/feedback"))
    taken = frozenset(task.prompt for task in tasks)
    production = draw_tasks(PRODUCTION_PROMPTS, Random(f"{seed}/production"), taken=taken)
    both = records(collect_votes(answer_all(tasks, generate, seed), seed))
    feedback = json_lines(record for record, _ in both)
    feedback.insert(len(feedback) // 2, CUT_LINE)
    true, prompts = json_lines(record for _, record in both), json_lines({"prompt": task.prompt} for task in production)
    return "".join(feedback), "".join(true), "".join(prompts)


def json_lines(rows: Iterable[dict[str, Any]]) -> list[str]:
    """One line of JSON for each."""
    return [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]


def main() -> None:
    """Write the three files of records."""
    parser = argparse.ArgumentParser(prog="python -m tools.sample.make_sample", description=__doc__)
    parser.add_argument("--out", type=Path, default=sample_path().parent, help="folder to write to  [default: the package's own]")
    parser.add_argument("--seed", type=int, default=0, help="[default: 0]")
    chosen = parser.parse_args()
    texts = make_sample(smollm2(), chosen.seed)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for path, text in zip((sample_path(), truth_path(), production_prompts_path()), texts, strict=True):
        (chosen.out / path.name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
