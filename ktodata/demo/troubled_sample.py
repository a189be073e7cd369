"""Feedback with known trouble: the shipped sample's answers, judged anew by simulated raters, with repeats, leaks and a gap.

All is drawn from one seed; which record has which trouble is kept beside the records, and nothing that audits them sees it.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ktodata.datasets import sample_path, truth_path
from ktodata.feedback import feedback_table
from ktodata.ledger import add_columns
from ktodata.stages.dedupe import dedupe
from ktodata.stages.split import split
from ktodata.stages.validate import validate

MAX_VOTES = 3  # an answer is judged by one, two or three raters, equally often
HELD_BACK = 0.12  # share of the other prompts that production asks, too, and nobody rated
TEST = 0.2
SLIP = 0.05  # chance that a careful verdict is wrong
DOUBLE_CLICKS, RETYPED, LEAKED = 30, 15, 12
TOPIC_PROMPTS = 50  # a topic has at least so many prompts to be taken out
LONG = 60  # characters


@dataclass(frozen=True)
class HabitRater:
    """coin : share of verdicts that are a fair coin toss. length : share that is "up" from LONG characters on, else "down".

    share : chance to be the first to judge an answer
    """

    name: str
    share: float
    coin: float = 0.0
    length: float = 0.0

    def verdict(self, answer: dict[str, Any], rng: np.random.Generator) -> bool:
        """Whether the rater says "up"."""
        habit, slip = rng.random(2)
        if habit < self.coin:
            return bool(rng.random() < 0.5)
        if habit < self.coin + self.length:
            return len(answer["completion"]) >= LONG
        return bool(answer["truth"]) ^ bool(slip < SLIP)


CARELESS, LIKES_LENGTH = HabitRater("dan", 0.17, coin=0.6), HabitRater("judge", 0.3, length=0.9)
RATERS = (HabitRater("ann", 0.18), HabitRater("ben", 0.18), HabitRater("cai", 0.17), CARELESS, LIKES_LENGTH)


@dataclass(frozen=True)
class TroubledSample:
    """records : as an export of thumbs holds them: id, prompt, completion, thumb, user, part. truth : id -> is the answer right.

    repeats : id of a copy -> that of its original. topic, topic_prompts : asked in production, and in no record.
    leaked : test prompts that stand in training too, written otherwise. reference : what production asks.
    """

    records: list[dict[str, Any]]
    truth: dict[str, bool]
    repeats: dict[str, str]
    leaked: frozenset[str]
    topic: str
    topic_prompts: frozenset[str]
    reference: list[str]

    def write(self, folder: Path) -> Path:
        """Write folder/feedback.jsonl, and the truth beside it, as truth.jsonl; the file of the feedback."""
        file = folder / "feedback.jsonl"
        pl.DataFrame(self.records).write_ndjson(file)
        truth = [{"id": record, "truth": right, "copy_of": self.repeats.get(record)} for record, right in self.truth.items()]
        pl.DataFrame(truth, schema_overrides={"copy_of": pl.String}).write_ndjson(folder / "truth.jsonl")
        return file


def troubled_sample(seed: int = 0) -> TroubledSample:
    """The sample's answers with trouble of every kind in them; another seed, other trouble."""
    rng = np.random.default_rng(seed)
    answers = list(_answers())
    topic = str(rng.choice(_large_topics(answers)))
    topic_prompts = {answer["prompt"] for answer in answers if answer["family"] == topic}
    others = sorted({answer["prompt"] for answer in answers} - topic_prompts)
    held_back = set(_drawn(others, int(HELD_BACK * len(others)), rng))
    rated = _with_parts([answer for answer in answers if answer["prompt"] not in topic_prompts | held_back], seed)
    leaked = _leak(rated, rng)
    records = [record for answer in rated for record in _judged(answer, rng)]
    for number, record in enumerate(records):
        record["id"] = f"d{number:05}"
    copies, repeats = _copies(records, rng)
    records = [records[place] for place in rng.permutation(len(records))] + copies
    truth = {record["id"]: record.pop("truth") for record in records}
    reference = sorted(topic_prompts | held_back)
    return TroubledSample(records, truth, repeats, frozenset(leaked), topic, frozenset(topic_prompts), reference)


def _answers() -> Iterator[dict[str, Any]]:
    """Each distinct answer of the sample once: prompt, completion, truth, family."""
    known = {line["id"]: line for line in map(json.loads, truth_path().read_text(encoding="utf-8").splitlines())}
    seen = set()
    for record in _whole_records(sample_path().read_text(encoding="utf-8").splitlines()):
        text, answer = (record["prompt"], record["completion"]), known[record["id"]]
        if record["completion"].strip() and text not in seen and "near" not in (answer["planted"] or ""):
            seen.add(text)
            yield {"prompt": text[0], "completion": text[1], "truth": answer["truth"], "family": answer["family"]}


def _whole_records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The records of the sample, of which one line was cut short."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _large_topics(answers: list[dict[str, Any]]) -> list[str]:
    prompts = pl.DataFrame(answers).group_by("family").agg(prompts=pl.col("prompt").n_unique())
    return prompts.filter(pl.col("prompts") >= TOPIC_PROMPTS)["family"].sort().to_list()


def _drawn(texts: list[str], count: int, rng: np.random.Generator) -> list[str]:
    return [str(text) for text in rng.choice(texts, min(count, len(texts)), replace=False)]


def _with_parts(answers: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Each answer in a part, with no near prompts on two sides: what leaks is put there afterwards."""
    table = feedback_table(*((answer["prompt"], answer["completion"], answer["truth"]) for answer in answers))
    for stage in (validate, dedupe):
        table = add_columns(table, stage(table))
    table = add_columns(table, split(table, validation=0, test=TEST, seed=seed)).filter(pl.col("state") == "keep")
    parts = dict(table.select("prompt", "part").iter_rows())
    return [answer | {"part": parts[answer["prompt"]]} for answer in answers if answer["prompt"] in parts]


def _leak(answers: list[dict[str, Any]], rng: np.random.Generator) -> list[str]:
    """Move one of two answers of some test prompts to training, under the prompt in other capitals and spaces; those prompts."""
    second: dict[str, int] = {}
    first = set()
    for place, answer in enumerate(answers):
        if answer["part"] == "test" and answer["prompt"] in first:
            second[answer["prompt"]] = place
        first.add(answer["prompt"])
    leaked = _drawn(sorted(second), LEAKED, rng)
    for prompt in leaked:
        answers[second[prompt]] |= {"part": "train", "prompt": _retyped(prompt)}
    return leaked


def _retyped(text: str) -> str:
    return "  ".join(text.upper().split())


def _judged(answer: dict[str, Any], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """A record for each rater who judged the answer."""
    shares = [rater.share for rater in RATERS]
    for place in rng.choice(len(RATERS), rng.integers(1, MAX_VOTES + 1), replace=False, p=shares):
        rater = RATERS[place]
        thumb = "up" if rater.verdict(answer, rng) else "down"
        text = {name: answer[name] for name in ("prompt", "completion", "part", "truth")}
        yield {"id": "", **text, "thumb": thumb, "user": rater.name}


def _copies(records: list[dict[str, Any]], rng: np.random.Generator) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Training records again, as they are or with other capitals and spaces, and of which record each is a copy."""
    training = [record for record in records if record["part"] == "train"]
    copies, originals = [], {}
    for number, place in enumerate(rng.choice(len(training), DOUBLE_CLICKS + RETYPED, replace=False)):
        original = training[place]
        changed = {} if number < DOUBLE_CLICKS else {"completion": _retyped(original["completion"])}
        copies.append(original | changed | {"id": f"c{number:05}"})
        originals[copies[-1]["id"]] = original["id"]
    return copies, originals
