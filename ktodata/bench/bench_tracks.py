"""The bench itself: every method on every source of a folder, at every budget of reviews; each answer is kept at once."""

import importlib.util
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ktodata.bench import own_methods, peer_methods, trained_methods  # noqa: F401 registers their methods
from ktodata.bench.answer_code import answer_code
from ktodata.bench.bench_answers import NoAnswerError, in_words, measured
from ktodata.bench.bench_cells import BenchCell
from ktodata.bench.bench_methods import METHODS, BenchMethod, at_random
from ktodata.bench.bench_rows import BenchRows, bench_rows
from ktodata.bench.bench_training import percent, train_track
from ktodata.bench.label_sources import label_sources
from ktodata.digests import digest
from ktodata.errors import KtodataError, MissingExtraError, ModelError, RecipeError, SettingError
from ktodata.experiments.ablation import Ablation
from ktodata.files import make_folder
from ktodata.settings import unknown_name

BUDGETS = (0.0, 0.01, 0.02, 0.05, 0.1)
Notify = Callable[[dict[str, Any]], None]
TRAINED = "packaged:smollm2-135m-instruct"


@dataclass(frozen=True)
class BenchPlan:
    """budgets : shares of the rows that are reviewed; 0 is the track "detect". methods, sources : beginnings of names.

    train : shares at which repaired labels are trained on; terms : in place of bench_training.TERMS
    model : what is trained in place of TRAINED; named, its loss is a method of its own, which costs a pass over all rows
    flips : draw them also where a column that is not read may be what was given
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
    flips: bool = False

    def __post_init__(self) -> None:
        if wrong := [budget for budget in (*self.budgets, *self.train) if not 0 <= budget < 1]:
            raise SettingError(f"bench: a budget is a share of the rows, at least 0 and under 1; got {wrong[0]}.")


@dataclass
class BenchOutcome:
    """cells : by source, budget and method, one for each seed. trained : by source and share.

    passed_over : what could not be measured, and why: files, columns, sources, and methods on a source
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

    A source that cannot be measured, and a method that does not answer, is passed over with the reason. Raises SettingError for
    names that nothing has, EmptyDataError for a folder without sources.
    """
    for file in plan.added:
        _import(file)
    methods = [replace(each, code=answer_code(each)) for each in _chosen(list(METHODS.items()), plan.methods, "method")]
    there, passed_over = label_sources(plan.data, flips=plan.flips)
    outcome = BenchOutcome(plan)
    model = plan.model if any(method.needs_model for method in methods) else None
    outcome.passed_over |= {name: why for name, why in passed_over.items() if _concerns(name, plan.sources)}
    named = [(source.name, source) for source in there] + [(name, None) for name in passed_over]
    sources = [source for source in _chosen(named, plan.sources, "source") if source is not None]
    for number, source in enumerate(sources, start=1):
        event = {"stage": source.name, "number": number, "of": len(sources)}
        notify({**event, "kind": "start"})
        started = time.perf_counter()
        try:
            rows = bench_rows(source, max_rows=plan.max_rows, encoder=plan.encoder, model=model)
        except (RecipeError, ModelError, MissingExtraError):  # of the whole bench
            raise
        except Exception as error:  # of this source: what a library raises of its rows
            outcome.passed_over[source.name] = in_words(error)
            continue
        outcome.rows[source.name], outcome.data[source.name] = len(rows.labels), source.data
        outcome.wrong[source.name] = float(rows.wrong.mean())
        content = [[vars(record) for record in source.records], list(source.given or ()), source.flips]
        made_of = digest(source.name, content, plan.max_rows, plan.encoder, model)
        able = _able(methods, rows)
        for method in able:
            _measure(outcome, source.name, rows, method, made_of, partial(_step_event, notify, event))
        _train(outcome, source.name, rows, able, made_of, partial(_training_event, notify, event))
        notify({**event, "kind": "done", "seconds": time.perf_counter() - started})
    return outcome


def _concerns(name: str, sources: Sequence[str]) -> bool:
    """Whether what is passed over is one of the sources that are asked for, or the file of one."""
    return not sources or any(name.startswith(each) or each.startswith(name) for each in sources)


def _measure(
    outcome: BenchOutcome, source: str, rows: BenchRows, method: BenchMethod, made_of: str, notify: Callable[[str], None]
) -> None:
    """Add the method's cells at every budget; where it does not answer, why."""
    plan, faults = outcome.plan, defaultdict[str, list[str]](list)
    for budget in _budgets(method, plan):
        notify(f"{method.name} at {percent(budget)} reviewed")
        try:
            cells = [_cell(plan, made_of, rows, method, budget, seed) for seed in range(plan.seeds)]
        except NoAnswerError as error:
            faults[str(error)].append(percent(budget))
        else:
            outcome.cells[source, budget, method.name] = cells
    if faults:
        reasons = (f"{', '.join(budgets)} reviewed: {why}" for why, budgets in faults.items())
        outcome.passed_over[f"{source}, {method.name}"] = "; ".join(reasons)


def _train(
    outcome: BenchOutcome, source: str, rows: BenchRows, methods: Sequence[BenchMethod], made_of: str, notify: Notify
) -> None:
    """Add what training on this source's labels gave, or why it was not trained on."""
    plan = outcome.plan
    settings: Any = {"model": plan.model or TRAINED, "seeds": plan.seeds, "terms": plan.terms, "folder": plan.out / "trainings"}
    for share in plan.train:

        def repair(training: BenchRows, part: int, method: BenchMethod, share: float = share) -> BenchCell | None:
            try:
                cell = _cell(plan, digest(made_of, "train", part), training, method, share, part)
            except NoAnswerError as error:
                why = str(error)
            else:
                if cell.trainable:
                    return cell
                why = f"the labels that it leaves outside part {part + 1} are all one, and nothing is learnt of them."
            outcome.passed_over[f"{source}, trained on, {method.name}"] = why
            return None

        try:
            outcome.trained[source, share] = train_track(rows, methods, repair, share=share, notify=notify, **settings)
        except (ModelError, MissingExtraError):
            raise
        except Exception as error:  # a method's terms are its own
            outcome.passed_over[f"{source}, trained on"] = in_words(error)


def _step_event(notify: Notify, source: dict[str, Any], text: str) -> None:
    notify({**source, "kind": "progress", "text": text})


def _training_event(notify: Notify, source: dict[str, Any], event: dict[str, Any]) -> None:
    if event["kind"] == "start":
        _step_event(notify, source, f"training on {event['stage']}")


def _able(methods: Sequence[BenchMethod], rows: BenchRows) -> list[BenchMethod]:
    """Those that have what they need of these rows."""
    several = bool((rows.table["votes"].list.len() > 1).any())
    scored = "nats_per_token" in rows.table.columns
    return [method for method in methods if (several or not method.needs_votes) and (scored or not method.needs_model)]


def _budgets(method: BenchMethod, plan: BenchPlan) -> list[float]:
    """Without reviews there is nothing to choose, and one way to choose is as good as another."""
    return [] if method.only_trained else [budget for budget in plan.budgets if budget or method.choose is at_random]


def _cell(plan: BenchPlan, made_of: str, rows: BenchRows, method: BenchMethod, budget: float, seed: int) -> BenchCell:
    place = plan.out / "cells" / f"{digest(made_of, method.name, method.code, budget, seed)}.npz"
    if (kept := BenchCell.load(place)) is not None:
        return kept
    cell = measured(method, rows, round(budget * len(rows.labels)), seed)
    make_folder(place.parent)
    cell.save(place)
    return cell


def _chosen(there: Sequence[tuple[str, Any]], names: Sequence[str], what: str) -> list[Any]:
    """Those whose name begins with one of `names`; all, when none is given."""
    for name in names:
        if not any(each.startswith(name) for each, _ in there):
            raise SettingError(unknown_name(f"bench: there is no {what}", name, [each for each, _ in there]))
    return [value for each, value in there if not names or each.startswith(tuple(names))]


def _import(file: Path) -> None:
    """Run a file that registers methods. It is code, and does what it says: only files that you would run yourself."""
    spec = importlib.util.spec_from_file_location(f"bench_method_{file.stem}_{digest(str(file.resolve()))}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SettingError(f"bench: {str(file)!r} is no Python file.")
    before, module = set(METHODS), importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its functions know their file by it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise (
            error if isinstance(error, KtodataError) else SettingError(f"bench: {file.name} does not run: {in_words(error)}.")
        ) from error
    if not set(METHODS) - before:
        raise SettingError(f"bench: {file.name} registers no method: put @method(name) on a function of a BenchTask.")


def outcome_json(outcome: BenchOutcome) -> str:
    """Everything that was measured."""
    trained = [{"source": source, "share": share, **each.as_dict()} for (source, share), each in outcome.trained.items()]
    value = {"cells": outcome.figures(), "trained": trained, "rows": outcome.rows, "passed_over": outcome.passed_over}
    return json.dumps(value, indent=1)
