"""Tasks of EleutherAI's lm-eval, asked of a policy in memory; one score an item, so that policies can be compared item by item.

A task is named as lm-eval names it (its data come from the hub), or is a folder of lm-eval's YAML files, or a file that
`lm_task_files` turns into one. YAML files of lm-eval may run code: give folders that you trust.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.digests import digest
from ktodata.errors import DataError, SettingError
from ktodata.evaluate.generation import ANSWER_BATCH_SIZE
from ktodata.experiments.arms import ITEMS
from ktodata.experiments.probes.lm_task_files import is_task_file, task_folder
from ktodata.extras import require
from ktodata.files import digest_file
from ktodata.models import first_line
from ktodata.stats.bootstrap import Statistic, weighted_mean

MEAN = "tasks_mean"
FEWSHOT_SEED = 1234


@dataclass(frozen=True)
class LmTasks:
    """loaded : task names and lm-eval's own objects; digest : of all that scores depend on; facts : JSON values.

    items : task, item, one line for each item that is asked
    """

    loaded: dict[str, Any] = field(repr=False)
    items: pl.DataFrame
    metrics: dict[str, str]
    limit: int | None
    chat: bool
    digest: str
    facts: dict[str, Any]


def load_tasks(sources: Sequence[str], tokenizer: Any, *, limit: int | None, chat: bool) -> LmTasks:
    """All tasks that the sources name: folders, files (`lm_task_files`), and lm-eval's own names.

    Raises SettingError for what is not there, is named twice, or whose score is not one number an item of which higher is
    better; DataError where a task's data cannot be read; MissingExtraError without lm-eval.
    """
    require("lm_eval", what="tasks of lm-eval", extra="tasks")
    loaded: dict[str, Any] = {}
    names, digests, made = [], [], []
    for source in sources:
        place = Path(source)
        if is_task_file(place):
            folder, facts = task_folder(place)
            made.append(facts)
            tasks = _folder_tasks(folder)
            digests.append(facts["digest"])
        elif place.is_dir():
            tasks = _folder_tasks(place)
            digests.append(digest([(path.name, digest_file(path)) for path in sorted(place.rglob("*")) if path.is_file()]))
        elif "/" in source or place.suffix in (".json", ".jsonl", ".yaml"):
            raise SettingError(f"compare: tasks: there is no folder, task.json or .jsonl file {source!r}.")
        else:
            names.append(source)
            digests.append(source)
            continue
        _add_tasks(loaded, tasks)
    if names:
        _add_tasks(loaded, _named_tasks(names))
    metrics = {name: _first_metric(name, task) for name, task in loaded.items()}
    counts = {name: _item_count(name, task, limit) for name, task in loaded.items()}
    with _quiet_lm_eval():
        tokens, requests = _request_tokens(loaded, tokenizer, limit)
    facts = {
        "lm_eval": version("lm_eval"),
        "metrics": metrics,
        "items": counts,
        "requests": requests,
        "tokens": tokens,
        "converted": made,
        "chat_template": chat,
    }
    items = [{"task": name, "item": number} for name, count in counts.items() for number in range(count)]
    frame = pl.DataFrame(items, schema={"task": pl.String(), "item": pl.Int64()})
    return LmTasks(loaded, frame, metrics, limit, chat, digest(digests, version("lm_eval")), facts)


def score_tasks(tasks: LmTasks, policy: Any, tokenizer: Any, *, compute_dtype: Any) -> pl.DataFrame:
    """task, item, score: what lm-eval gives for each item, its own first metric."""
    import torch
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    mixed = None if compute_dtype == torch.float32 else str(compute_dtype).removeprefix("torch.")
    with _quiet_lm_eval():
        lm = HFLM(
            pretrained=policy,
            tokenizer=deepcopy(tokenizer),  # it gets a pad token there
            backend="causal",
            batch_size=ANSWER_BATCH_SIZE,
            mixed_precision_dtype=mixed,
        )
        task_dict = {"tasks": tasks.loaded, "groups": {}, "group_map": {}}
        how = {"limit": tasks.limit, "apply_chat_template": tasks.chat, "bootstrap_iters": 0, "log_samples": True}
        results = evaluator.evaluate(lm=lm, task_dict=task_dict, **how)
    lines = [
        {"task": name, "item": sample["doc_id"], "score": _item_score(name, tasks.metrics[name], sample)}
        for name, samples in results["samples"].items()
        for sample in samples
        if sample["filter"] == samples[0]["filter"]  # several ways of reading an answer: the task's first
    ]
    return pl.DataFrame(lines, schema=ITEMS)


def task_measures(tasks: LmTasks) -> Iterator[tuple[pl.DataFrame, Callable[[pl.DataFrame], dict[str, Statistic]]]]:
    """(the items, what to measure of their scores): each task by itself, then the mean of several tasks."""
    names = list(tasks.loaded)
    for name in names:
        yield tasks.items.filter(pl.col("task") == name), partial(_task_statistics, name)
    if len(names) > 1:
        yield tasks.items, _mean_of_tasks


def measure_of(task: str) -> str:
    """What a task's score is called in the table."""
    return f"task {task}"


def _task_statistics(name: str, rows: pl.DataFrame) -> dict[str, Statistic]:
    return {measure_of(name): weighted_mean(rows["score"])}


def _mean_of_tasks(rows: pl.DataFrame) -> dict[str, Statistic]:
    """Every task counts the same, however many items it has."""
    scores = rows["score"].to_numpy()
    parts = [(rows["task"] == name).to_numpy() for name in rows["task"].unique(maintain_order=True)]
    each = [weighted_mean(scores[part]) for part in parts]

    def statistic(weights: Any) -> Any:
        return sum(mean(weights[:, part]) for mean, part in zip(each, parts, strict=True)) / len(parts)

    return {MEAN: statistic}


def _folder_tasks(folder: Path) -> dict[str, Any]:
    """The tasks of a folder's YAML files."""
    from lm_eval.tasks import TaskManager

    with _quiet_lm_eval():
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        names = manager.all_subtasks
    if not names:
        raise SettingError(f"compare: tasks: {folder} holds no lm-eval task: no YAML file with `task:`, no task.json.")
    return _load_from(manager, names)


def _named_tasks(names: Sequence[str]) -> dict[str, Any]:
    """Tasks that lm-eval brings along."""
    from lm_eval.tasks import TaskManager

    with _quiet_lm_eval():
        manager = TaskManager()
    for name in names:
        if name not in manager.task_index:
            near = get_close_matches(name, manager.all_tasks, n=5)
            raise SettingError(
                f"compare: tasks: {name!r} is no folder or file, and lm-eval {version('lm_eval')} has no task of that name. "
                f"Nearest: {', '.join(near) or 'none'}."
            )
    return _load_from(manager, list(names))


def _load_from(manager: Any, names: Sequence[str]) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for name in names:
        try:
            with _quiet_lm_eval():
                tasks |= manager.load([name])["tasks"]
        except Exception as error:  # YAML, templates, data sets and the hub all raise what they like
            raise DataError(
                f"compare: tasks: {name}: its data cannot be read: {first_line(error)}. Without a network, give a folder "
                "whose YAML names local files."
            ) from error
    for task in tasks.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return tasks


def _add_tasks(loaded: dict[str, Any], tasks: dict[str, Any]) -> None:
    for name, task in tasks.items():
        if name in loaded:
            raise SettingError(f"compare: tasks: {name!r} is named twice. Give each task once.")
        loaded[name] = task


def _first_metric(name: str, task: Any) -> str:
    """The task's first metric. Raises SettingError when lower is better."""
    known = task.higher_is_better()
    first = next(iter(known), None)
    if first is None or known[first] is False:
        raise SettingError(
            f"compare: tasks: {name}: of its score {first}, higher is not better, so it cannot stand in one table."
        )
    return str(first)


def _item_count(name: str, task: Any, limit: int | None) -> int:
    count = len(task.eval_docs)
    if not count:
        raise DataError(f"compare: tasks: {name} has no items.")
    return count if limit is None else min(count, limit)


def _request_tokens(loaded: dict[str, Any], tokenizer: Any, limit: int | None) -> tuple[int, int]:
    """(tokens that all requests have together, requests)."""
    texts: list[str] = []
    for task in loaded.values():
        task.build_all_requests(limit=limit, rank=0, world_size=1)
        for request in task.instances:
            texts.append("".join(part for part in request.args if isinstance(part, str)))
    return sum(map(len, tokenizer(texts)["input_ids"])), len(texts)


def _item_score(name: str, metric: str, sample: dict[str, Any]) -> float:
    value = sample.get(metric)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise SettingError(
            f"compare: tasks: {name}: its score {metric} is not one number an item, so it cannot be used."
        ) from None


@contextmanager
def _quiet_lm_eval() -> Iterator[None]:
    """No bars and no log lines of lm-eval and datasets."""
    from ktodata.experiments.methods.trl_trainers import quiet

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(level)
