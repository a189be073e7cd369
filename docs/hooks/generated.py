"""Fills the pages' `{{ name: argument }}` lines from the code at build time, so that no setting and no command is typed twice.

    {{ settings: dedupe }}     a stage, or train, evaluate, self_training, compare: a table of its settings
    {{ stage: dedupe }}        what a stage does, needs and adds, and its settings
    {{ commands }}             the help of every command
    {{ formats }}              every format, and what comes back when it is read again
    {{ others: formats }}      a section for each format (or, with stages, each stage) that the page has none for
    {{ checks: MODULE }}       codes and meanings of the checks in a module
    {{ benchmarks }}           what each benchmark says of itself, with links to its results

Results of benchmarks, which stand elsewhere in the repository, become part of the site; see RESULTS.
"""

import ast
import html
import importlib
import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import ConfigDict, create_model
from pydantic.fields import FieldInfo

from ktodata.formats import FORMATS
from ktodata.pipeline.recipe import GIVEN_BY_RUNNER, self_training_settings, takes_prompts
from ktodata.settings import settings_of
from ktodata.stages import ORDER, load_stage

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"
MARK = re.compile(r"^\{\{ (\w+)(?:: (\S+))? \}\}$", re.MULTILINE)
HELP_WIDTH = 100
# of functions that a recipe does not call: what Python alone can give
PYTHON_ONLY = GIVEN_BY_RUNNER | {"notify"}
KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "`null`",
    "object": "table",
}
RESULTS = BENCHMARKS / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the benchmarks' results to the site."""
    for path in sorted(RESULTS.iterdir()):
        if path.suffix in (".json", ".png"):
            files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what they stand for in the place of the marks."""
    return MARK.sub(lambda mark: _rendered(mark[1], mark[2], page.file.src_uri), markdown)


def _rendered(name: str, argument: str | None, page: str) -> str:
    if name not in RENDERERS:
        raise PluginError(f"{page}: there is no mark {name!r}; there are {', '.join(RENDERERS)}.")
    return RENDERERS[name](argument) if argument else RENDERERS[name]()


# --- settings ----------------------------------------------------------------------------------------------------------


def settings_table(name: str) -> str:
    """The settings of a stage or section: name, what it may be, default, meaning."""
    lines = ["| setting | may be | default | what it says |", "|---|---|---|---|"]
    return "\n".join([*lines, *_setting_lines(_function(name))])


def _function(name: str) -> Callable[..., Any]:
    if name == "self_training":
        return self_training_settings
    if name in ("train", "evaluate", "compare"):
        from ktodata.evaluate import evaluate
        from ktodata.experiments.compare import compare
        from ktodata.train import fit

        functions: dict[str, Callable[..., Any]] = {"train": fit, "evaluate": evaluate, "compare": compare}
        return functions[name]
    return load_stage(name).function


def _setting_lines(function: Callable[..., Any]) -> Iterator[str]:
    parameters = {name: one for name, one in settings_of(function).items() if name not in PYTHON_ONLY}
    # in a recipe, prompts are a file: so it reads them, and so they are shown
    fields: dict[str, Any] = {
        name: (str | None if takes_prompts(one) else one.annotation, ... if one.default is one.empty else one.default)
        for name, one in parameters.items()
    }
    config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())
    schema = create_model("Settings", __config__=config, **fields).model_json_schema()
    definitions = schema.get("$defs", {})
    for name, one in schema["properties"].items():
        meaning = _meaning(parameters[name], one)
        files = "a file of prompts, or `null`" if takes_prompts(parameters[name]) else _may_be(one, definitions)
        yield _line(name, files, _default(name, parameters[name]), meaning)
        for table in _tables(one, definitions):
            required = table.get("required", ())
            for inner, schema_of_key in table["properties"].items():
                default = "must be given" if inner in required else "may be left out"
                yield _line(
                    f"{name}.{inner}", _may_be(schema_of_key, definitions), default, _words(schema_of_key.get("description", ""))
                )


def _line(*cells: str) -> str:
    name, *others = cells
    return f"| `{name}` | {' | '.join(cell.replace('|', chr(92) + '|') for cell in others)} |"


def _meaning(parameter: inspect.Parameter, schema: Mapping[str, Any]) -> str:
    description = schema.get("description") or _field(parameter).description
    return _words(description or ("of what is drawn by chance" if parameter.name == "seed" else ""))


def _field(parameter: inspect.Parameter) -> FieldInfo:
    return FieldInfo.from_annotation(parameter.annotation)


def _words(text: str) -> str:
    """A description as Markdown: nothing in it is mark-up."""
    return html.escape(text, quote=False).replace("*", r"\*").replace("[", r"\[")


def _default(name: str, parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "must be given"
    if name == "seed":
        return "the recipe's"
    value = parameter.default
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _tables(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tables of settings that a setting may be."""
    options = (_referred(option, definitions) for option in (schema, *schema.get("anyOf", ())))
    return (option for option in options if "properties" in option)


def _may_be(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    schema = _referred(schema, definitions)
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(_may_be(option, definitions) for option in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum") or [schema["const"]])
    if schema.get("type") == "array":
        return f"list ({_may_be(schema['items'], definitions)})"
    if "properties" in schema:
        return "a table of these"
    return KINDS[schema["type"]] + _range(schema)


def _referred(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    referred: Mapping[str, Any] = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return referred


def _range(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {_figure(schema[key])}" for key, word in words.items() if key in schema]
    return f" ({', '.join(limits)})" if limits else ""


def _figure(value: float) -> str:
    return f"{value:,}" if value == int(value) else f"{value:.4g}"


def stage(name: str) -> str:
    """What a stage does, needs and adds, and its settings."""
    loaded = load_stage(name)
    first = (inspect.getdoc(loaded.function) or "").partition("\n\n")[0].replace("\n", " ")
    columns = [("needs", loaded.needs), ("uses, where they are there", loaded.uses), ("adds", loaded.adds)]
    lines = [f"- {what}: {', '.join(f'`{one}`' for one in names)}" for what, names in columns if names and name != "ingest"]
    rows = "every row" if loaded.applies_to == "all" else "training rows only, as held-out rows keep their natural mix"
    return "\n".join([_words(first), "", *lines, f"- decisions, where it makes any, are about {rows}", "", settings_table(name)])


# --- formats ---------------------------------------------------------------------------------------------------------------


def formats() -> str:
    """Every format with its own first words, and what is still there when a file of it is read again."""
    lines = ["| `format` | what it is | what it holds |", "|---|---|---|"]
    for name, format in FORMATS.items():
        summary = _words(format.summary).replace("|", r"\|")
        lines.append(f"| [`{name}`](#{name}) | {summary} | {', '.join(format.holds)} |")
    return "\n".join(lines)


def format_section(name: str) -> str:
    """What a format is, and a record of it."""
    return f"{_words(FORMATS[name].summary)}\n\n```json\n{json.dumps(FORMATS[name].example, ensure_ascii=False)}\n```"


def others(kind: str) -> str:
    """Sections of what the page of that kind has no section for: what is added to the registry is on the site by being there."""
    page, names, section = {"formats": ("dialects.md", FORMATS, format_section), "stages": ("recipes.md", ORDER, stage)}[kind]
    own = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE))
    return "\n\n".join(f"## {name}\n{section(name)}" for name in names if name not in own)


# --- commands, checks, benchmarks ------------------------------------------------------------------------------------------


def commands() -> str:
    """The help of every command, as a terminal shows it."""
    from ktodata.cli import app

    group = typer.main.get_command(app)
    return "\n\n".join(_help(name, command) for name, command in group.commands.items())  # type: ignore[attr-defined]


def _help(name: str, command: click.Command) -> str:
    context = command.context_class(command, info_name=f"ktodata {name}", terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH)
    return f"## {name}\n```text\n{command.get_help(context)}\n```"


def checks(module: str) -> str:
    """Codes and meanings of the checks in a module: its functions whose docstring begins with a code."""
    codes = sorted(_codes(importlib.import_module(module)))
    if not codes:
        raise PluginError(f"{module} has no function whose docstring begins with a code such as KD040.")
    return "\n".join(["| code | what it looks at |", "|---|---|", *(f"| {code} | {_words(text)} |" for code, text in codes)])


def _codes(module: ModuleType) -> Iterator[tuple[str, str]]:
    for function in vars(module).values():
        code = re.match(r"(KD\d{3}): (.+)", inspect.getdoc(function) or "") if inspect.isfunction(function) else None
        if code and function.__module__ == module.__name__:
            yield code[1], code[2]


def benchmarks() -> str:
    """What each benchmark says of itself, and its dated results."""
    return "\n\n".join(_benchmark(path) for path in sorted(BENCHMARKS.iterdir()) if _is_benchmark(path))


def _is_benchmark(path: Path) -> bool:
    """Whether a file can be run, and is not a part of one that can."""
    return path.suffix == ".yaml" or (path.suffix == ".py" and f"python tests/benchmarks/{path.name}" in _says(path))


def _says(path: Path) -> str:
    """A benchmark's docstring, or a recipe's first lines, which are comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    return "\n".join(
        line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    )


def _benchmark(path: Path) -> str:
    headline, _, rest = _says(path).partition("\n\n")
    results = sorted(result.name for result in (BENCHMARKS / "results").iterdir() if _made_by(result) == path.stem)
    links = ", ".join(f"[{name}](results/{name})" for name in results) or "none is kept yet"
    return f"### {path.stem}\n{_words(headline)}\n\n```text\n{rest}\n```\n\nResults: {links}."


def _made_by(result: Path) -> str:
    """The benchmark that a result is of: that of the longest name with which its own begins."""
    return max((path.stem for path in BENCHMARKS.iterdir() if result.name.startswith(path.stem)), key=len, default="")


RENDERERS: dict[str, Callable[..., str]] = {
    "settings": settings_table,
    "stage": stage,
    "commands": commands,
    "formats": formats,
    "others": others,
    "checks": checks,
    "benchmarks": benchmarks,
}
