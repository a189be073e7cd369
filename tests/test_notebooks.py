"""Notebooks run from top to bottom, say up front what they are for, use public names only, and are kept without outputs.

Those that train take a smaller size and another model from the environment (KTODATA_SIZE, KTODATA_MODEL): a reader does not.
"""

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


def test_it_is_kept_without_outputs(notebook):
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_of(notebook))


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, tmp_path_factory, monkeypatch):
    """In an empty folder: it reads nothing that is not in the package, and every code cell is executed without an error."""
    monkeypatch.setenv("KTODATA_SIZE", "small")
    monkeypatch.setenv("KTODATA_MODEL", save_tiny_llama(tmp_path_factory.mktemp("tiny")))
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # which a shell puts itself in the place of
    monkeypatch.chdir(tmp_path)
    # in this process, which has loaded what a kernel would load for each
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    for cell in code_of(notebook):
        shell.run_cell(cell.source).raise_error()
    assert list(tmp_path.iterdir()) == []
