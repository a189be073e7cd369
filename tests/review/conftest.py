"""A small run to review, made once; each test has a copy of its own."""

import shutil

import conversation_runs
import pytest
from review_runs import write_recipe

import ktodata as kd
from ktodata.pipeline.run_folder import Run

PAGES = ("ktodata.report.write_pages", lambda run: None)  # they take longer than all the rest, and nothing here looks at them


@pytest.fixture(autouse=True)
def no_pages(monkeypatch):
    """Runs without report.html."""
    monkeypatch.setattr(*PAGES)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """(the recipe, a finished run of it). Not to be changed: `run` is a copy."""
    folder = tmp_path_factory.mktemp("review")
    recipe = write_recipe(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(*PAGES)
        return recipe, kd.run(recipe, out=folder / "run").folder


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run."""
    return Run(shutil.copytree(made[1], tmp_path / "run"))


@pytest.fixture(scope="session")
def parcels(tmp_path_factory):
    """A run on conversations. Its verdicts are all tests'."""
    folder = tmp_path_factory.mktemp("parcels")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(*PAGES)
        return Run(kd.run(conversation_runs.write_recipe(folder), out=folder / "run").folder)


@pytest.fixture(scope="session")
def ids(parcels):
    """{name of a conversation: its row_id}"""
    return dict(parcels.feedback.select("source_id", "row_id").iter_rows())
