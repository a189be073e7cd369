"""`ktodata ablate` and `ktodata compare` write the page of their run again, where it has one."""

import functools
import types

import folders
import pytest
from typer.testing import CliRunner

from ktodata.cli import app
from ktodata.experiments import compare as comparison

CURATED = ("dedupe", "split", "label_noise", "export")


@pytest.fixture(params=["ablate", "compare"])
def measured(request, monkeypatch):
    """(the command, the picture that it brings): the measuring itself is played, as other tests train."""
    result = types.SimpleNamespace(
        as_dict=dict, verdict=lambda: ["measured"], plot=lambda: types.SimpleNamespace(savefig=lambda *_, **__: None)
    )

    def ablate_run(folder, **_):
        folders.write_ablation(folder)
        return result

    @functools.wraps(comparison.compare)  # the command reads its settings from the signature
    def compare(folder, **_):
        folders.write_comparison(folder)
        return result

    monkeypatch.setattr("ktodata.pipeline.ablate.ablate_run", ablate_run)
    monkeypatch.setattr(comparison, "compare", compare)
    return request.param, {"ablate": "ablation-forest-title", "compare": "comparison-forest-title"}[request.param]


def typed(command, folder):
    done = CliRunner().invoke(app, [command, str(folder), *(["--model", "tiny"] if command == "compare" else [])])
    assert done.exit_code == 0 and "measured" in done.output, done.output


def test_the_page_shows_what_was_measured(measured, tmp_path):
    command, picture = measured
    folder = folders.write_run(tmp_path / "small", stages=CURATED)
    (folder / "report.html").write_text("old")
    typed(command, folder)
    assert picture in (folder / "report.html").read_text()


def test_a_run_without_a_page_gets_none(measured, tmp_path):
    folder = folders.write_run(tmp_path / "small", stages=CURATED)
    typed(measured[0], folder)
    assert not (folder / "report.html").exists()
