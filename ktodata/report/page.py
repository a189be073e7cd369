"""report.html: one page that holds everything, opens from disk without a network, and runs no script but its own."""

import base64
import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ktodata.report import text
from ktodata.report.headline import headline
from ktodata.report.integrity import fault_lines
from ktodata.report.map.map_data import read_map_data
from ktodata.report.map.search_index import read_search_index
from ktodata.report.run_contents import RunContents, contents_of, read_contents
from ktodata.report.run_files import pick
from ktodata.report.sections.dropped_rows import read_pairs, read_reasons, read_unreadable
from ktodata.report.templating import template_environment
from ktodata.report.without_text import WithoutText
from ktodata.stages import ORDER

# anchor, title, what makes it: a step of the recipe, or a command after the run
SECTIONS = (
    ("flow", "Where the rows went", "ingest"),
    ("labels", "Can the labels be trusted", "label_noise"),
    ("balance", "Balance and weights", "ingest"),
    ("coverage", "What the prompts cover", "coverage"),
    ("search", "Find a row", "ingest"),
    ("training", "Training", "train"),
    ("results", "Held-out results", "evaluate"),
    ("curation", "Did curation help", "ktodata ablate"),
    ("methods", "Methods side by side", "ktodata compare"),
    ("measured", "How each number was measured", ""),
)
PAGE_BYTES = 4_900_000  # under five million, so that it opens at once and can be sent by mail
MIN_SEARCH_BYTES = 500_000  # bytes for the search, whatever the rest of the page takes
SCRIPTS = ("page.js", "map.js", "search.js")
MAX_NUMBERS = 60  # of a stage's own numbers, shown folded away


def build_report(run: Path, *, text: bool = True) -> str:
    """The page of a run, finished or not, as HTML. Raises RunError when `run` is no run folder.

    text : without it, the page holds numbers only: no text of any row, no name of a rater, source, model or file.
    """
    return page_of(read_contents(run) if text else contents_of(WithoutText(run)), text=text)


def page_of(contents: RunContents, *, text: bool = True) -> str:
    """The same from contents that are read."""
    page = partial(
        render, "report.html.j2", script=_script(), map_data=read_map_data(contents.files), **run_context(contents, text=text)
    )
    room = max(PAGE_BYTES - len(page(search_index=None).encode()), MIN_SEARCH_BYTES)
    return page(search_index=read_search_index(contents.files, max_bytes=room))


def run_context(contents: RunContents, *, text: bool = True) -> dict[str, Any]:
    """What the page's template shows of a run, but for its search, its map and its scripts."""
    files = contents.files
    facts = cache(files.metrics)
    place = shlex.quote(files.place)
    unreadable = read_unreadable(files)
    parts = {field.name: getattr(contents, field.name) for field in fields(contents) if field.name != "files"}
    return parts | {
        "title": f"{contents.name} · ktodata",
        "kind": "Report of a ktodata run",
        "manifest": files.manifest,
        "sections": [(anchor, title, _is_there(contents, anchor)) for anchor, title, _ in SECTIONS],
        "missing": {
            anchor: f"`{maker} {place}`" if " " in maker else f"`{maker}` in the recipe" for anchor, _, maker in SECTIONS
        },
        "place": place,
        "faults": fault_lines(files.faults, files.place),
        "stages": (*ORDER, "reviews", "telemetry", "train", "evaluate"),
        "verdict": headline(contents),
        "noise": contents.noise if text or contents.noise is None else replace(contents.noise, examples=[]),
        "without_text": not text,
        "reasons": read_reasons(files, with_examples=text),
        "pairs": read_pairs(files),
        "unreadable": unreadable if text else [replace(group, examples=[]) for group in unreadable],
        "facts": facts,
        "numbers": lambda stage: flat(facts(stage)),
        "settings": flat(pick(files.manifest, "recipe", default={}), most=200),
    }


def _is_there(contents: RunContents, anchor: str) -> bool:
    """Whether a section has something to show; what the search finds and how things were measured is there once rows are."""
    parts = {
        "labels": contents.noise,
        "coverage": contents.coverage,
        "training": contents.training,
        "results": contents.evaluation,
        "curation": contents.ablation,
        "methods": contents.comparison,
    }
    return parts.get(anchor, contents.flow) is not None or anchor == "measured"


def render(template: str, *, script: str = "", **context: Any) -> str:
    """A page from its template; every text that is not Markup is escaped, and cleaned of what no page can show.

    script : the page's own; the page's policy lets this run and nothing else, and without it nothing at all.
    """
    around = {"style": Markup(_template_file("style.css")), "script": Markup(script), "policy": Markup(_policy(script))}
    return str(template_environment("ktodata.report").get_template(template).render(around, **context))


def _policy(script: str) -> str:
    """Content-Security-Policy: nothing is loaded, one script may run, and not even that one may make markup of a text."""
    may_run = ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        may_run = f"script-src 'sha256-{digest}'; require-trusted-types-for 'script'; trusted-types 'none'; "
    return f"default-src 'none'; style-src 'unsafe-inline'; {may_run}base-uri 'none'; form-action 'none'"


def _script() -> str:
    return "\n" + "".join(_template_file(f"script/{name}") for name in SCRIPTS)


def _template_file(name: str) -> str:
    return resources.files("ktodata.report").joinpath("templates", name).read_text(encoding="utf-8")


def flat(facts: Mapping[str, Any], *, most: int = MAX_NUMBERS) -> list[tuple[str, str]]:
    """Nested facts as (dotted name, value) for a table; long lists and what is shown elsewhere are left out."""
    return list(_flat_entries("", {name: value for name, value in facts.items() if name not in ("findings", "checksums")}))[:most]


def _flat_entries(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            entry for name, inner in value.items() for entry in _flat_entries(f"{prefix}.{name}" if prefix else str(name), inner)
        ]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [entry for number, inner in enumerate(value[:20]) for entry in _flat_entries(f"{prefix}.{number}", inner)]
    text_of_value = ", ".join(_setting_text(item) for item in value[:8]) if isinstance(value, list) else _setting_text(value)
    return [(prefix, text_of_value)]


def _setting_text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else text.one_line(value, 200)
