"""Files that become tasks of lm-eval: BIG-bench's task.json (arXiv:2206.04615), and JSON lines of questions and answers."""

import glob
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ktodata.digests import code_digest, digest
from ktodata.errors import EmptyDataError, FormatError
from ktodata.files import digest_file, whole_folder
from ktodata.models import cache_dir

MAX_ANSWERS = 10  # different answers of a file of questions that are taken for choices
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "context",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
WRITTEN = {
    "output_type": "generate_until",
    "doc_to_text": "context",
    "doc_to_target": "gold",
    "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 32},
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "ignore_case": True,
            "ignore_punctuation": True,
        }
    ],
}
Item = dict[str, Any]


def is_task_file(place: Path) -> bool:
    """Whether this is a file, or a folder of BIG-bench's, that `task_folder` reads."""
    return (place.suffix in (".json", ".jsonl") and place.is_file()) or (place / "task.json").is_file()


def task_folder(place: Path) -> tuple[Path, dict[str, Any]]:
    """(a folder that lm-eval reads, under `models.cache_dir()`; facts: task, items, left_out, digest of the source).

    place : BIG-bench's task.json or the folder that it is in, or JSON lines with `question` and `answer`. Items are put into one
        random order, so that the first of them are a fair draw.

    BIG-bench: choices are ranked by their likelihood after the input (`target_scores`), or an answer is written and must be a
    `target`. Questions: true and false are the choices yes and no; up to MAX_ANSWERS different answers are each other's choices;
    other answers are written. An item with no single best choice is left out. Raises FormatError with the item's number.
    """
    source = place / "task.json" if place.is_dir() else place
    name = re.sub(
        r"[^A-Za-z0-9]+", "_", place.name if place.is_dir() else place.parent.name if place.stem == "task" else place.stem
    )
    items, left_out = _questions(source) if source.suffix == ".jsonl" else _big_bench(source)
    if not items:
        raise EmptyDataError(f"tasks: {source} holds no item that can be asked ({left_out:,} were left out).")
    random.Random(0).shuffle(items)
    key = digest(digest_file(source), code_digest(__name__), name)
    folder = cache_dir() / "tasks" / f"{name}-{key}"
    if not folder.is_dir():
        _write(folder, name, items)
    return folder, {"task": name, "source": source.name, "items": len(items), "left_out": left_out, "digest": key}


def _write(folder: Path, name: str, items: list[Item]) -> None:
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": glob.escape(str((folder / "items.jsonl").absolute()))}},
        "test_split": "test",
        "num_fewshot": 0,
        "target_delimiter": " ",
        **(CHOICE if "choices" in items[0] else WRITTEN),
        "metadata": {"version": 1},  # lm-eval wants one
    }
    with whole_folder(folder) as scratch:
        (scratch / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        (scratch / "task.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")


def _big_bench(source: Path) -> tuple[list[Item], int]:
    """(items, how many were left out)."""
    task = _json(source.read_text(encoding="utf-8", errors="replace"), str(source))
    examples = task.get("examples") if isinstance(task, dict) else None
    if not isinstance(examples, list) or not examples:
        raise FormatError(f"tasks: {source} is no BIG-bench task: it has no list `examples`, or an empty one.")
    kinds = {"target_scores" if "target_scores" in example else "target" for example in examples if isinstance(example, dict)}
    if len(kinds) != 1:
        raise FormatError(f"tasks: {source}: some examples have target_scores and some do not.")
    made = list(_choices(task, examples, source) if kinds == {"target_scores"} else _targets(task, examples, source))
    return [item for item in made if item is not None], made.count(None)


def _choices(task: dict[str, Any], examples: list[Any], source: Path) -> Iterator[Item | None]:
    shuffled = random.Random(0)
    for number, example in enumerate(examples, 1):
        scores = example.get("target_scores")
        if (
            not isinstance(scores, dict)
            or len(scores) < 2
            or not all(isinstance(score, int | float) for score in scores.values())
        ):
            raise FormatError(f"tasks: {source}: example {number:,}: target_scores gives no score to each of several choices.")
        choices, best = list(scores), max(scores.values())
        shuffled.shuffle(choices)
        if list(scores.values()).count(best) > 1:
            yield None
            continue
        shown = choices if task.get("append_choices_to_input", True) else []
        yield {"context": _context(task, example, shown), "choices": choices, "gold": choices.index(max(scores, key=scores.get))}  # type: ignore[arg-type]


def _targets(task: dict[str, Any], examples: list[Any], source: Path) -> Iterator[Item]:
    for number, example in enumerate(examples, 1):
        target = example.get("target") if isinstance(example, dict) else None
        targets = target if isinstance(target, list) else [target]
        if not targets or not all(isinstance(text, str) and text.strip() for text in targets):
            raise FormatError(f"tasks: {source}: example {number:,} has neither target_scores nor a target of text.")
        yield {"context": _context(task, example, []), "gold": targets}


def _context(task: dict[str, Any], example: dict[str, Any], choices: list[str]) -> str:
    """As BIG-bench puts an example: prefix, input, choices, and what stands before the answer."""
    shown = "".join(f"{task.get('choice_prefix', chr(10) + '  choice: ')}{choice}" for choice in choices)
    before, after = task.get("example_input_prefix", "\nQ: "), task.get("example_output_prefix", "\nA: ")
    return f"{task.get('task_prefix', '')}{before}{example.get('input', '')}{shown}{after}".strip()


def _questions(source: Path) -> tuple[list[Item], int]:
    """(items, 0)."""
    rows = []
    for number, line in enumerate(source.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip():
            row = _json(line, f"{source}, line {number:,}")
            if not isinstance(row, dict) or not str(row.get("question") or "").strip() or row.get("answer") in (None, ""):
                raise FormatError(f"tasks: {source}, line {number:,} has no question or no answer.")
            rows.append((str(row["question"]), row["answer"]))
    words = [({True: "yes", False: "no"}[answer] if isinstance(answer, bool) else str(answer)) for _, answer in rows]
    choices = sorted(set(words))
    contexts = [f"Question: {question}\nAnswer:" for question, _ in rows]
    if 2 <= len(choices) <= MAX_ANSWERS:
        items: list[Item] = [
            {"context": text, "choices": choices, "gold": choices.index(word)} for text, word in zip(contexts, words, strict=True)
        ]
    else:
        items = [{"context": text, "gold": [word]} for text, word in zip(contexts, words, strict=True)]
    return items, 0


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise FormatError(f"tasks: {where} is not JSON: {error}.") from error
