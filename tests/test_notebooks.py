"""Notebooks run from top to bottom, say up front what they are for, use public names only, and show what their code gives.

Those that train take a smaller size and another model from the environment (KTODATA_SIZE, KTODATA_MODEL): a reader does not.
"""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from tiny_models import save_tiny_llama
from traitlets.config import Config

import ktodata as kd

# figures of plain frames, which a notebook may import by name
FIGURES = "from ktodata.experiments.arm_figures import "
AGAIN = "the code gives something else now: python tools/run_notebooks.py notebooks/NAME.ipynb writes it down"
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {
        *("00_tour", "audit_label_noise", "compare_methods"),
        *("does_curation_help", "read_coverage", "review_in_a_notebook"),
    }


def test_it_opens_with_what_you_learn_how_long_it_takes_and_what_it_needs(notebook):
    opening = notebook.cells[0].source
    assert notebook.cells[0].cell_type == "markdown"
    for promise in ("**What you learn:**", "**Takes:**", "**Needs:**"):
        assert promise in opening


def test_it_uses_public_names_only(notebook):
    source = "\n".join(cell.source for cell in code_of(notebook)).replace(FIGURES, "")
    assert not re.search(r"from ktodata|import ktodata\.", source)
    assert set(re.findall(r"\bkd\.(\w+)", source)) <= set(kd.__all__)


def printed_lines(text):
    """Lines without their digits, which differ by machine."""
    return {re.sub(r"\d[\d,.]*", "#", line) for line in text.splitlines()}


def form_of(text):
    """Of a frame its shape, of other results how many lines they have: sentences are reworded."""
    lines = text.strip().splitlines()
    return lines[0] if lines[0].startswith("shape: ") else len(lines)


def test_what_it_shows_is_kept_whole_and_is_no_machine_s_own(notebook):
    """All of it was run in order, or none; pages that show it run nothing and load nothing."""
    cells = code_of(notebook)
    kept = [output for cell in cells for output in cell.outputs]
    numbers = [cell.execution_count for cell in cells]
    assert numbers in ([None] * len(cells), list(range(1, len(cells) + 1))), numbers
    assert bool(kept) == (numbers[0] is not None)
    text = json.dumps(kept)
    assert len(text) < 1_000_000
    assert not re.search(r"/(tmp|home|root|work|Users)/|Traceback|widget-view|0x[0-9a-f]{8}", text)
    html = "\n".join(output.data.get("text/html", "") for output in kept if "data" in output)
    assert not re.search(
        r"<(script|iframe|object|link)|\son\w+\s*=\s*[\"']|javascript:|https?://", re.sub(r'"data:[^"]*"', "", html)
    )


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, tmp_path_factory, monkeypatch, capsys):
    """In an empty folder: it reads nothing that is not in the package, and every code cell is executed without an error."""
    monkeypatch.setenv("KTODATA_SIZE", "small")
    monkeypatch.setenv("KTODATA_MODEL", save_tiny_llama(tmp_path_factory.mktemp("tiny")))
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # which a shell puts itself in the place of
    monkeypatch.chdir(tmp_path)
    # in this process, which has loaded what a kernel would load for each
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    whole = not any("KTODATA_SIZE" in cell.source for cell in code_of(notebook))
    for cell in code_of(notebook):
        given = shell.run_cell(cell.source)
        given.raise_error()
        printed = capsys.readouterr().out
        for output in cell.outputs if whole else ():
            if output.output_type == "stream":
                assert printed_lines(output.text) <= printed_lines(printed), AGAIN
            elif "text/plain" in output.data:
                plain = shell.display_formatter.format(given.result)[0]["text/plain"]
                assert form_of(output.data["text/plain"]) == form_of(plain), AGAIN
    assert list(tmp_path.iterdir()) == []
