"""The bench itself: every method on every source of a folder, at every budget of reviews; each answer is kept at once."""

import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ktodata.bench import own_methods, peer_methods, trained_methods  # noqa: F401 registers their methods
from ktodata.bench.bench_answers import reviewed_rows
from ktodata.bench.bench_cells import BenchCell
from ktodata.bench.bench_methods import METHODS, BenchMethod, BenchTask, at_random
from ktodata.bench.bench_rows import BenchRows, bench_rows
from ktodata.bench.bench_training import percent, train_track
from ktodata.bench.label_sources import label_sources
from ktodata.errors import EmptyDataError, SettingError
from ktodata.experiments.ablation import Ablation
from ktodata.files import digest_file, make_folder
from ktodata.pipeline.code_digest import code_digest
from ktodata.pipeline.run_folder import digest
from ktodata.settings import unknown_name

BUDGETS = (0.0, 0.01, 0.02, 0.05, 0.1)
Notify = Callable[[dict[str, Any]], None]
CODE = tuple(f"ktodata.bench.{name}" for name in ("own_methods", "peer_methods", "trained_methods", "bench_rows"))
TRAINED = "packaged:smollm2-135m-instruct"


@dataclass(frozen=True)
class BenchPlan:
    """budgets : shares of the rows that are reviewed; 0 is the track "detect". methods, sources : beginnings of names.

    train : shares at which repaired labels are trained on; terms : in place of bench_training.TERMS
    model : what is trained in place of TRAINED; named, its loss is a method of its own, which costs a pass over all rows
    """

    data: Path
    out: Path
    budgets: Sequence[float] = BUDGETS
    seeds: int = 1
    max_rows: int = 800
    methods: Sequence[str] = ()
    sources: Sequence[str] = ()
    added: Sequence[Path] = ()
    encoder: str = "packaged:wordllama-256"
    train: Sequence[float] = ()
    model: str | None = None
    terms: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if wrong := [budget for budget in (*self.budgets, *self.train) if not 0 <= budget < 1]:
            raise SettingError(f"bench: a budget is a share of the rows, at least 0 and under 1; got {wrong[0]}.")

    @property
    def code(self) -> str:
        """What answers depend on besides data and settings."""
        return digest([code_digest(*CODE), [digest_file(file) for file in self.added]])


@dataclass
class BenchOutcome:
    """cells : by source, budget and method, one for each seed. trained : by source and share.

    passed_over : sources that could not be measured, and why
    """

    plan: BenchPlan
    rows: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, float] = field(default_factory=dict)  # share of the given labels
    data: dict[str, str] = field(default_factory=dict)  # the file of each source
    cells: dict[tuple[str, float, str], list[BenchCell]] = field(default_factory=dict)
    trained: dict[tuple[str, float], Ablation] = field(default_factory=dict)
    passed_over: dict[str, str] = field(default_factory=dict)

    def figures(self) -> list[dict[str, Any]]:
        """A line for each cell and seed, JSON values."""
        return [
            {"source": source, "data": self.data[source], "budget": budget, "method": method, "seed": seed} | cell.figures()
            for (source, budget, method), cells in self.cells.items()
            for seed, cell in enumerate(cells)
        ]


def run_bench(plan: BenchPlan, notify: Notify = lambda event: None) -> BenchOutcome:
    """Measure. Cells that are in `plan.out` already are read: a bench that was stopped goes on.

    Raises SettingError for names that nothing has, EmptyDataError for a folder without sources.
    """
    for file in plan.added:
        _import(file)
    methods = _chosen(list(METHODS.values()), plan.methods, "method")
    sources = _chosen(label_sources(plan.data), plan.sources, "source")
    outcome, code = BenchOutcome(plan), plan.code
    model = plan.model if any(method.needs_model for method in methods) else None
    for number, source in enumerate(sources, start=1):
        event = {"stage": source.name, "number": number, "of": len(sources)}
        notify({**event, "kind": "start"})
        started = time.perf_counter()
        try:
            rows = bench_rows(source, max_rows=plan.max_rows, encoder=plan.encoder, model=model)
        except EmptyDataError as error:
            outcome.passed_over[source.name] = str(error)
            continue
        outcome.rows[source.name], outcome.data[source.name] = len(rows.labels), source.data
        outcome.wrong[source.name] = float(rows.wrong.mean())
        content = [[vars(record) for record in source.records], list(source.given or ()), source.flips]
        made_of = digest(source.name, content, code, plan.max_rows, plan.encoder, model)
        able = _able(methods, rows)
        for method, budget, seed in _tasks(able, plan):
            notify({**event, "kind": "progress", "text": f"{method.name} at {percent(budget)} reviewed"})
            cell = _cell(plan, made_of, rows, method, budget, seed)
            outcome.cells.setdefault((source.name, budget, method.name), []).append(cell)
        _train(outcome, source.name, rows, able, made_of, partial(_training_event, notify, event))
        notify({**event, "kind": "done", "seconds": time.perf_counter() - started})
    return outcome


def _train(
    outcome: BenchOutcome, source: str, rows: BenchRows, methods: Sequence[BenchMethod], made_of: str, notify: Notify
) -> None:
    """Add what training on this source's labels gave, or why it was not trained on."""
    plan = outcome.plan
    settings: Any = {"model": plan.model or TRAINED, "seeds": plan.seeds, "terms": plan.terms, "folder": plan.out / "trainings"}
    for share in plan.train:

        def repair(training: BenchRows, part: int, method: BenchMethod, share: float = share) -> BenchCell:
            return _cell(plan, digest(made_of, "train", part), training, method, share, part)

        try:
            outcome.trained[source, share] = train_track(rows, methods, repair, share=share, notify=notify, **settings)
        except EmptyDataError as error:
            outcome.passed_over[f"{source}, trained on"] = str(error)


def _training_event(notify: Notify, source: dict[str, Any], event: dict[str, Any]) -> None:
    if event["kind"] == "start":
        notify({**source, "kind": "progress", "text": f"training on {event['stage']}"})


def _able(methods: Sequence[BenchMethod], rows: BenchRows) -> list[BenchMethod]:
    """Those that have what they need of these rows."""
    several = bool((rows.table["votes"].list.len() > 1).any())
    scored = "nats_per_token" in rows.table.columns
    return [method for method in methods if (several or not method.needs_votes) and (scored or not method.needs_model)]


def _tasks(methods: Sequence[BenchMethod], plan: BenchPlan) -> Iterator[tuple[BenchMethod, float, int]]:
    for method in (each for each in methods if not each.only_trained):
        # without reviews there is nothing to choose, and one way to choose is as good as another
        budgets = [budget for budget in plan.budgets if budget or method.choose is at_random]
        yield from ((method, budget, seed) for budget in budgets for seed in range(plan.seeds))


def _cell(plan: BenchPlan, made_of: str, rows: BenchRows, method: BenchMethod, budget: float, seed: int) -> BenchCell:
    place = plan.out / "cells" / f"{digest(made_of, method.name, budget, seed)}.npz"
    if (kept := BenchCell.load(place)) is not None:
        return kept
    reviewed = reviewed_rows(method, rows, round(budget * len(rows.labels)), seed)
    started = time.process_time()
    answer = method.answer(BenchTask.of(rows, reviewed, seed))
    _check_answer(method, answer, len(rows.labels))
    cell = BenchCell.of(rows, reviewed, answer, time.process_time() - started)
    make_folder(place.parent)
    cell.save(place)
    return cell


def _check_answer(method: BenchMethod, answer: Any, rows: int) -> None:
    """Raise SettingError for an answer of another length, or with gaps: it would be measured on fewer rows than others."""
    for name in ("doubt", "p_wrong", "labels"):
        values = getattr(answer, name)
        if values is not None and (np.shape(values) != (rows,) or not np.isfinite(np.asarray(values, float)).all()):
            raise SettingError(f"bench: {method.name!r} gave {name} of shape {np.shape(values)}; it is {rows:,} finite numbers.")


def _chosen(there: Sequence[Any], names: Sequence[str], what: str) -> list[Any]:
    """Those whose name begins with one of `names`; all, when none is given."""
    for name in names:
        if not any(each.name.startswith(name) for each in there):
            raise SettingError(unknown_name(f"bench: there is no {what}", name, [each.name for each in there]))
    return [each for each in there if not names or each.name.startswith(tuple(names))]


def _import(file: Path) -> None:
    """Run a file that registers methods. It is code, and does what it says: only files that you would run yourself."""
    spec = importlib.util.spec_from_file_location(f"bench_method_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SettingError(f"bench: {str(file)!r} is no Python file.")
    before = set(METHODS)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    if not set(METHODS) - before:
        raise SettingError(f"bench: {file.name} registers no method: put @method(name) on a function of a BenchTask.")


def outcome_json(outcome: BenchOutcome) -> str:
    """Everything that was measured."""
    trained = [{"source": source, "share": share, **each.as_dict()} for (source, share), each in outcome.trained.items()]
    value = {"cells": outcome.figures(), "trained": trained, "rows": outcome.rows, "passed_over": outcome.passed_over}
    return json.dumps(value, indent=1)
