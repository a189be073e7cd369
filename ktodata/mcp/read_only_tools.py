"""What an assistant may ask of feedback and runs. No tool writes, none takes a verdict: labels are for people to judge.

Each returns JSON values. Texts of prompts and completions are strangers' words: every character of them is visible, and long
ones are cut, which is said. Each raises the errors of what it calls.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from ktodata.errors import SettingError
from ktodata.formats.data_files import find_sources
from ktodata.formats.inspection import inspect
from ktodata.formats.records import clip
from ktodata.mcp.allowed_folder import AllowedFolder
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.audit_recipe import audit_recipe, is_recipe
from ktodata.pipeline.reading_preview import preview_reading
from ktodata.pipeline.recipe import Recipe, load_recipe
from ktodata.pipeline.runner import paths_of, run_plan
from ktodata.pipeline.self_training import dry_run
from ktodata.report.audit_page import audit_headline
from ktodata.report.headline import headline_text
from ktodata.report.run_contents import read_contents
from ktodata.settings import check_settings
from ktodata.stages.ingest import ingest
from ktodata.visible_text import clean

Json = dict[str, Any]

MAX_CHARS, MAX_ENTRIES = 1_000, 100  # of a text, of any list that an answer holds
MAX_VECTOR = 16  # a longer list of numbers is a vector, which says nothing to a reader
MAX_KEPT = 4  # audits of files that are kept in memory
PACKAGED = "packaged:"
BY_TOOL = (
    f"The tool `next_reviews` names {{}} rows, {MAX_ENTRIES} at most in one answer; "
    "`ktodata review` of a run takes a person's verdicts."
)
ISSUE = "issue"


@dataclass
class ReadOnlyTools:
    """The tools over one folder. Audits of files are kept in memory by the file's time and size, so that a question is quick."""

    folder: AllowedFolder
    _audits: "dict[str, _Audited]" = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def inspect(self, file: str) -> Json:
        """Look at a file of feedback before it is read: its columns, which of them may be prompt, completion and label.

        The values of a label are listed; what they mean is for a person to say. `recipe` is a draft with that choice open.
        """
        inspection = inspect(self.folder.file(file))
        return _shown(inspection.as_dict()) | {"recipe": clean(inspection.recipe(self.folder.root))}  # whole: it is to be saved

    def audit(self, source: str, reading: Json | None = None) -> Json:
        """Say how far the labels of a run, of a recipe (.yaml) or of a file of feedback can be trusted; `headline` comes first.

        A recipe says how its files are read and audited. reading: of a file, the keys of a recipe's `ingest:` without paths, for
        example {"label": {"column": "thumb", "yes": true, "no": false}, "rater": "user"}.
        """
        made = self._audit(source, reading)
        return _shown(
            {
                "headline": made.headline,
                "findings": made.audit.findings.to_dicts(),
                "classes": made.audit.summary.to_dicts(),
                "p_wrong_was_measured": made.audit.p_wrong_was_measured,
                "reading": made.reading,
            }
        )

    def next_reviews(self, source: str, count: int = 10, reading: Json | None = None) -> Json:
        """The rows that a person should judge next, best first. Their verdicts are given by people, at `ktodata review`."""
        if not 1 <= count <= MAX_ENTRIES:
            raise SettingError(f"count is 1 to {MAX_ENTRIES}; got {count}.")
        rows = self._audit(source, reading).audit.next_reviews(count)
        return _shown({"rows": rows.to_dicts()})

    def explain(self, run: str, row_id: str) -> Json:
        """All that a run knows of a row: its text, what each stage measured, each decision with its evidence, its end."""
        return _shown(self.folder.run(run).explain(row_id))

    def findings(self, run: str) -> Json:
        """The run's five lines, and each check that found something (`issues`), could not look, or found nothing, by its code."""
        of = self.folder.run(run)
        lines = [(stage["name"], finding) for stage in of.manifest["stages"] for finding in stage["metrics"].get("findings", ())]
        issues = [{"stage": stage, **finding} for stage, finding in lines if finding["status"] == ISSUE]
        others = [{"stage": stage, **finding} for stage, finding in lines if finding["status"] != ISSUE]
        return _shown({"headline": headline_text(of.folder), "issues": issues, "others": others})

    def coverage(self, run: str) -> Json:
        """Which prompts the training rows cover: clusters, and regions of the reference prompts without rows."""
        return _shown(self.folder.run(run).stage("coverage").metrics)

    def dry_run(self, recipe: str) -> Json:
        """What a recipe would read and which of its stages would run. Nothing is run and nothing is written."""
        file = self.folder.file(recipe)
        plan = load_recipe(file)
        self.folder.check_recipe(plan)
        _, stages = dry_run(file, out=self.folder.path(f"runs/{plan.name}"))
        paths = paths_of(plan) or ()
        # the first row as it is written: as it is trained on, a model's template would have to be loaded
        reading = preview_reading(replace(plan, train=None), [str(self.folder.path(path, plan.folder)) for path in paths])
        return _shown({"stages": dict(stages), **reading.as_dict()})

    def _audit(self, source: str, reading: Json | None) -> "_Audited":
        if reading is not None and (self.folder.path(source).is_dir() or is_recipe(source)):
            raise SettingError("a run or a recipe is read as the recipe says; reading is for a file.")
        if is_recipe(source):
            return self._audit_of_plan(audit_recipe(str(self.folder.file(source)), ingest={}, steps={}))
        if not self.folder.path(source).is_dir():
            return self._audit_of_file(self.folder.file(source), reading or {})
        run = self.folder.run(source)
        return _Audited(LabelAudit.of_run(run), run.stage("ingest").metrics, headline_text(run.folder))

    def _audit_of_file(self, file: Path, reading: Json) -> "_Audited":
        if "paths" in reading:
            raise SettingError("reading: source names the file; paths is not taken.")
        check_settings(ingest, {**reading, "paths": [str(file)]}, where="reading")
        return self._audit_of_plan(replace(audit_recipe(str(file), ingest=reading, steps={}), folder=file.parent))

    def _audit_of_plan(self, audited: Recipe) -> "_Audited":
        """As `ktodata audit` does, in a folder of its own that is gone again: nothing is written where the feedback is."""
        plan = _without_fetched_models(audited)
        self.folder.check_recipe(plan)
        files = [Path(source.path) for source in find_sources(paths_of(plan) or ())]
        named = (*plan.reviews, *plan.withdrawn, *([plan.telemetry] if plan.telemetry else []))

        def made() -> _Audited:
            with TemporaryDirectory(prefix="ktodata-") as scratch:
                run = run_plan(plan, Path(scratch) / plan.name, until="label_noise")
                lines = audit_headline(read_contents(run.folder), how=BY_TOOL)
                return _Audited(LabelAudit.of_run(run), run.stage("ingest").metrics, lines)

        return self._kept([*files, *(plan.folder / Path(name).expanduser() for name in named)], plan.as_dict(), made)

    def _kept(self, files: Sequence[Path], settings: Json, made: Callable[[], "_Audited"]) -> "_Audited":
        """An audit of these files with these settings, from memory where it is there."""
        stamps = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()]
        key = json.dumps([stamps, settings], sort_keys=True, default=str)
        with self._lock:
            if key not in self._audits:
                self._audits[key] = made()
                for oldest in list(self._audits)[:-MAX_KEPT]:
                    del self._audits[oldest]
            return self._audits[key]


def _without_fetched_models(plan: Recipe) -> Recipe:
    """A recipe of an audit that counts no tokens, as a tokenizer may have to be fetched. SettingError for another such model."""
    for step in plan.steps:
        if not (step.settings.get("model") or PACKAGED).startswith(PACKAGED):
            model = clip(step.settings["model"])
            raise SettingError(f"{step.name}: the model {model!r} is not ktodata's own; none is fetched here.")
    steps = [replace(step, settings=step.settings | dict.fromkeys({"tokenizer"} & set(step.settings))) for step in plan.steps]
    return replace(plan, steps=tuple(steps), train=None)


@dataclass(frozen=True)
class _Audited:
    """An audit, how its rows were read, and what it says first: of a run, its five lines."""

    audit: LabelAudit
    reading: Mapping[str, Any]
    headline: Sequence[str]


def _shown(values: Mapping[str, Any]) -> Json:
    return {clean(str(key)): _visible(value) for key, value in values.items()}


def _visible(value: Any) -> Any:
    """JSON values; no text hides a character, and what is cut says so."""
    if isinstance(value, str):
        shown = clean(value[:MAX_CHARS])
        return shown if len(value) <= MAX_CHARS else f"{shown}… (the first {MAX_CHARS:,} of {len(value):,} characters)"
    if isinstance(value, Mapping):
        return _shown(value)
    if isinstance(value, list | tuple):
        if len(value) > MAX_VECTOR and isinstance(value[0], float):
            return f"{len(value):,} numbers"
        more = [f"… and {len(value) - MAX_ENTRIES:,} more"] if len(value) > MAX_ENTRIES else []
        return [_visible(item) for item in value[:MAX_ENTRIES]] + more
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)
