"""The documentation site: it builds without a warning, loads nothing from elsewhere, and what it shows is what happens."""

import re
import runpy
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import chromium
import pytest
import typer
from mkdocs.exceptions import PluginError
from ruamel.yaml import YAML
from typer.testing import CliRunner

import ktodata as kd
from ktodata.cli import app
from ktodata.evaluate import evaluate
from ktodata.experiments.compare import compare
from ktodata.formats import FORMATS
from ktodata.pipeline.recipe import GIVEN_BY_RUNNER, SECTIONS, load_recipe, self_training_settings
from ktodata.settings import settings_of
from ktodata.stages import ORDER, load_stage
from ktodata.train import fit

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    return [found["text"] for found in BLOCK.finditer(text) if found["language"] == language]


def sections(text: str) -> dict[str, str]:
    """The text under each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# --- what the pages show, run ---------------------------------------------------------------------------------------------


EXAMPLES = {name: text for name, text in sections(PAGES["dialects.md"]).items() if blocks(text, "bash")}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_its_section(name, pages):
    page = pages["dialects.html"]
    assert name in page.names
    assert " ".join(FORMATS[name].summary.replace("`", "").split()[:6]) in " ".join("".join(page.words).split())


def test_what_the_pages_have_no_section_for_gets_one(monkeypatch, tmp_path):
    generated = runpy.run_path(str(DOCS / "hooks" / "generated.py"))
    monkeypatch.setitem(generated["others"].__globals__, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for page, names in (("dialects.md", FORMATS), ("recipes.md", ORDER)):
        first, *others = names
        (tmp_path / "docs" / page).write_text(f"## {first}\n")
        assert list(sections(generated["others"]("formats" if names is FORMATS else "stages"))) == others


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_format_is_read_and_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = EXAMPLES[name]
    (sample,) = (found for found in BLOCK.finditer(section) if found["title"])
    assert len(sample["text"].splitlines()) == 3
    Path(sample["title"]).write_text(sample["text"], encoding="utf-8")
    (command,) = blocks(section, "bash")
    words = shlex.split(command)
    assert words[:3] == ["ktodata", "convert", sample["title"]]
    assert words[words.index("--from") + 1] == name
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.exception
    records = int(re.match(r"(\d+) records written", done.output)[1])
    assert records == len(Path("out.jsonl").read_text(encoding="utf-8").splitlines()) >= 2
    (shown,) = blocks(section, "text")
    assert done.output == shown


RUN = re.compile(
    r"<!-- run(?P<about>, about)? -->\n```python\n(?P<code>.*?)^```\n(?:```text\n(?P<shown>.*?)^```)?", re.DOTALL | re.MULTILINE
)
MOVES = 0.1  # share by which a figure of an audit may move with another processor
RUNNABLE = [name for name, text in PAGES.items() if RUN.search(text)]


def test_pages_have_blocks_to_run():
    assert {"quickstart.md", "reading-an-audit.md", "faq.md"} <= set(RUNNABLE)


@pytest.mark.parametrize("name", RUNNABLE)
def test_python_that_is_marked_to_be_run_prints_what_is_shown(name, capsys):
    """Blocks of a page run one after the other, in one scope, as a reader would."""
    scope: dict = {}
    for block in RUN.finditer(PAGES[name]):
        exec(compile(block["code"], name, "exec"), scope)
        printed, shown = capsys.readouterr().out, block["shown"] or ""
        assert words_and_figures(printed)[0] == words_and_figures(shown)[0]
        if block["about"]:
            assert words_and_figures(printed)[1] == pytest.approx(words_and_figures(shown)[1], rel=MOVES, abs=2)
        else:
            assert printed == shown


def words_and_figures(text: str) -> tuple[list[str], list[float]]:
    figure = r"\d+(?:\.\d+)?"
    return re.split(figure, text), [float(found) for found in re.findall(figure, text)]


def commands() -> Iterator[str]:
    for text in PAGES.values():
        for block in blocks(text, "bash"):
            yield from (re.sub(r"\s+# .*", "", line) for line in block.splitlines() if line.startswith("ktodata "))


def test_every_command_that_is_shown_can_be_given():
    """Names and options exist and have values of the right type; nothing is run."""
    group = typer.main.get_command(app)
    shown = list(commands())
    assert len(shown) > 25
    for line in shown:
        name, *arguments = shlex.split(line)[1:]
        group.commands[name].make_context(name, arguments)


def test_every_command_has_its_place_in_the_pages():
    told = {line.split()[1] for line in commands()} | set(re.findall(r"`ktodata ([a-z]+)", "".join(PAGES.values())))
    assert told >= {command.name or command.callback.__name__ for command in app.registered_commands}


def recipes() -> list[str]:
    return [text for page in PAGES.values() for text in blocks(page, "yaml")]


@pytest.mark.parametrize("text", recipes())
def test_every_recipe_passes_the_check(text):
    """A part of a recipe is given what it lacks."""
    given = YAML(typ="safe", pure=True).load(text)
    load_recipe({"name": "part", "ingest": {"paths": ["feedback.jsonl"]}} | given)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", "".join(blocks("".join(PAGES.values()), "bash")))) | {"docs"}:
        assert f"\n{target}: install" in makefile


# --- the site -------------------------------------------------------------------------------------------------------------


class Loads(HTMLParser):
    """What a page loads by itself, where it links to, what may be linked to, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif tag == "link" and given.get("rel") not in ("next", "prev", "canonical"):
            self.loads.append(given.get("href") or "")
        self.loads += [given[name] or "" for name in ("src", "srcset", "data", "poster") if name in given]
        self.loads += re.findall(r"url\(([^)]*)\)", given.get("style") or "")
        self.names |= {given[name] or "" for name in ("id", "name") if name in given}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built with every warning an error."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Loads]:
    return {str(path.relative_to(site)): Loads(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def outside(address: str) -> bool:
    return bool(re.match(r"\s*['\"]?\s*(?:[a-z][a-z0-9+.-]*:)?//", address, re.IGNORECASE))


@pytest.mark.parametrize(
    ("address", "answer"),
    [("https://a.b/c.js", True), ("//a.b/c", True), ("'http://a'", True), ("a/b.js", False), ("data:x", False)],
)
def test_outside_knows_an_address_of_elsewhere(address, answer):
    assert outside(address) is answer


def test_no_page_loads_anything_from_elsewhere(site, pages):
    assert set(pages) >= {name.replace(".md", ".html") for name in PAGES}
    assert sum(len(page.loads) for page in pages.values()) > 20
    assert [(name, one) for name, page in pages.items() for one in page.loads if outside(one)] == []
    for style in site.rglob("*.css"):
        loaded = re.findall(r"url\(([^)]*)\)|@import\s+([^;]+)", style.read_text(encoding="utf-8"))
        assert not [one for pair in loaded for one in pair if outside(one)], style.name
    assert not list(site.rglob("*.py"))


@chromium.NEEDED
def test_the_search_works_in_pages_that_are_opened_from_the_disk(site):
    with chromium.launched(chromium.THIS_MACHINE) as browser, chromium.listening(browser, 1200) as page:
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("random draw")
        page.wait_for_selector(".md-search-result__item a[href*='reading-an-audit.html']", state="attached")
        assert page.console == []


def test_every_link_within_the_site_leads_somewhere(site, pages):
    seen = 0
    for name, page in pages.items():
        if name == "404.html":  # its links start at the root of whatever serves it
            continue
        for link in (link for link in page.links + page.loads if not outside(link) and not link.startswith(("data:", "mailto:"))):
            place, _, part = link.partition("#")
            target = ((site / name).parent / unquote(place.partition("?")[0])).resolve() if place else site / name
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), (name, link)
            if part and target.suffix == ".html":
                assert unquote(part) in pages[str(target.relative_to(site.resolve()))].names, (name, link)
            seen += 1
    assert seen > 200


def test_every_setting_of_a_recipe_is_there(pages):
    words = set(pages["recipes.html"].words)
    functions = [load_stage(name).function for name in ORDER] + [fit, evaluate, compare, self_training_settings]
    keys = {name for function in functions for name in settings_of(function)} - GIVEN_BY_RUNNER - {"notify"}
    assert len(keys) > 80
    assert keys | set(SECTIONS) <= words
    assert "lora.r" in words


def test_a_setting_says_what_it_may_be(pages):
    text = "".join(pages["recipes.html"].words)
    for said in (
        "number (at least 0.5, at most 1), or null",
        "weights, drop, none",
        "a file of prompts, or null",
        "must be given",
    ):
        assert said in text


def test_every_public_name_is_there(pages):
    shown = pages["python.html"].names
    modules = {name: getattr(kd, name).__all__ for name in ("datasets", "evaluate", "notebook", "train")}
    wanted = {f"ktodata.{name}" for name in kd.__all__ if name not in modules}
    wanted |= {f"ktodata.{module}.{name}" for module, names in modules.items() for name in names}
    assert wanted <= shown


def test_every_command_and_its_options_are_there(pages):
    text = "".join(pages["commands.html"].words)
    for name, command in typer.main.get_command(app).commands.items():
        assert f"Usage: ktodata {name} " in text
        for option in (one for parameter in command.params for one in parameter.opts if one.startswith("--")):
            assert option in text, (name, option)


def test_every_result_is_linked_to(pages):
    linked = {Path(link).name for link in pages["how-we-measured.html"].links}
    results = {path.name for path in (ROOT / "tests" / "benchmarks" / "results").iterdir() if path.suffix in (".json", ".png")}
    assert len(results) > 8
    assert results <= linked


def test_checks_of_the_audit_are_listed(pages):
    assert {"KD040", "KD049", "KD070"} <= set(pages["reading-an-audit.html"].words)


def test_an_unknown_mark_is_an_error():
    generated = runpy.run_path(str(DOCS / "hooks" / "generated.py"))
    with pytest.raises(PluginError, match=r"x\.md: there is no mark 'setings'"):
        generated["_rendered"]("setings", "dedupe", "x.md")


def test_lines_of_parameters_become_a_list():
    as_markdown = runpy.run_path(str(DOCS / "hooks" / "docstrings.py"))["as_markdown"]
    text = "What it does.\n\na, b : one thing\n    and more\nc : another\n\nRaises nothing: it is like this."
    assert (
        as_markdown(text) == "What it does.\n\n\n- `a, b`: one thing and more\n- `c`: another\n\nRaises nothing: it is like this."
    )
