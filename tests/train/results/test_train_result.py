"""A finished training as a user looks at it: figures, a summary that is safe to show, and a folder that reads back."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from tiny_models import text_rows

from ktodata.errors import EmptyDataError, RunError
from ktodata.train import TrainResult, fit
from ktodata.train.results.summary import as_html, summary_lines
from ktodata.train.results.training_figures import MAP_POINTS, row_map

FAST = {"batch_size": 4, "learning_rate": 1e-3, "warmup_fraction": 0.0, "device": "cpu"}


@pytest.fixture(scope="module")
def result(model_folder, tmp_path_factory):
    """Two epochs on twelve rows with six held out, written to a folder."""
    out = tmp_path_factory.mktemp("trained")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("KTODATA_CACHE", str(out / "cache"))
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 12 + ["validation"] * 6))
    trained = fit(rows, model=model_folder, out=out / "model", epochs=2, eval_every_steps=2, undesirable_weight=1.7, **FAST)
    monkeypatch.undo()
    return trained


@pytest.fixture(scope="module")
def bare(model_folder, tmp_path_factory):
    """One epoch, nothing held out, nothing written."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path_factory.mktemp("cache")))
    trained = fit(text_rows(12), model=model_folder, **FAST)
    monkeypatch.undo()
    return trained


# --- figures ---------------------------------------------------------------------------------------------------------------


def test_every_panel_has_its_numbers_a_title_and_units(result):
    panels = result.plot().axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "loss",
        "z0, the reference point",
        "implicit reward",
        "held-out reward AUC",
        "gradient norm, before clipping",
        "learning rate",
    ]
    assert all(axes.get_ylabel() for axes in panels)
    assert {axes.get_xlabel() for axes in panels[3:]} == {"updates made"}
    loss, z0, rewards, auc, *_ = panels
    training, held_out = loss.get_lines()
    assert list(training.get_ydata()) == result.history["loss"].to_list()
    assert list(held_out.get_xdata()) == [2, 4, 6]
    assert list(rewards.get_lines()[1].get_ydata()) == result.history["reward_undesirable"].to_list()
    assert list(z0.get_lines()[0].get_ydata()) == result.history["z0"].to_list()
    assert list(auc.get_lines()[1].get_ydata()) == [evaluation["auc"]["value"] for evaluation in result.held_out]


def test_the_band_around_z0_is_its_interval(result):
    """Half its height is 1.96 standard errors of the unclamped estimate."""
    band = result.plot().axes[1].collections[0].get_paths()[0].vertices
    first = result.history.row(0, named=True)
    at_first = band[band[:, 0] == first["step"], 1]
    assert (at_first.max() + at_first.min()) / 2 == pytest.approx(first["z0_unclamped"], abs=1e-6)
    assert (at_first.max() - at_first.min()) / 2 == pytest.approx(1.96 * first["z0_standard_error"], abs=1e-6)


def test_a_panel_without_numbers_says_so(bare):
    auc = bare.plot().axes[3]
    assert [text.get_text() for text in auc.texts] == ["not measured"]


def test_an_objective_without_a_reference_point_leaves_its_panel_empty(bare):
    without = TrainResult(bare.history.drop("z0", "z0_unclamped", "z0_standard_error"), [], bare.telemetry, bare.metrics, None)
    assert [text.get_text() for text in without.plot().axes[1].texts] == ["not measured"]


def test_a_reference_point_that_was_not_estimated_has_no_band(bare):
    nothing = bare.history.with_columns(z0=pl.lit(0.0), z0_unclamped=pl.lit(0.0), z0_standard_error=pl.lit(float("nan")))
    without = TrainResult(nothing, [], bare.telemetry, bare.metrics, None)
    axes = without.plot().axes[1]
    assert (len(axes.collections), len(axes.get_lines())) == (0, 1)
    assert "standard error" not in dict(summary_lines(bare.metrics, nothing, [], None))["z0"]


def test_the_map_shows_every_row_twice_seen_under_its_label(result):
    axes = result.plot_rows().axes[0]
    drawn = {points.get_label(): len(points.get_offsets()) for points in axes.collections}
    assert drawn == {"desirable": 8, "undesirable": 4}
    assert axes.get_title(loc="left").startswith("12 rows")


def test_a_map_of_many_rows_says_how_many_it_shows():
    many = pl.DataFrame({"label": [True, False] * MAP_POINTS}).with_columns(
        part=pl.lit("train"), variability=pl.lit(0.1), confidence=pl.lit(0.5)
    )
    assert row_map(many).axes[0].get_title(loc="left").startswith("3,000 of 6,000 rows")


def test_a_map_needs_two_looks_at_a_row(bare):
    with pytest.raises(EmptyDataError, match=r"none of 12 training rows was seen twice.*two epochs"):
        bare.plot_rows()


def test_figures_show_in_a_notebook_and_leave_matplotlib_alone(result):
    import matplotlib

    before = dict(matplotlib.rcParams)
    assert result.plot()._repr_png_().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before


# --- summary ---------------------------------------------------------------------------------------------------------------


def test_the_summary_tells_what_a_reader_asks_first(result):
    summary = dict(summary_lines(result.metrics, result.history, result.held_out, result.folder))
    assert summary["rows"] == "8 desirable, 4 undesirable; 6 held out"
    assert summary["trained"] == "6 updates in 2 epochs; objective kto, beta 0.1"
    assert summary["balance"] == result.metrics["balance"]["sentence"]
    assert (
        f"{result.held_out[-1]['auc']['value']:.3f} (95 % interval not known: desirable rows are of"
        in summary["held-out reward AUC"]
    )
    assert f"{result.history['z0'][-1]:.3f} nats at the last update (standard error" in summary["z0"]
    assert "tokens/s (cpu, float32)" in summary["speed"] and "padded tokens per real one" in summary["speed"]
    assert summary["model"] == str(result.folder)


def test_with_early_stopping_the_auc_is_that_of_the_weights_kept(result):
    aucs = [{"value": value, "low": value - 0.1, "high": value + 0.1} for value in (0.6, 0.8, 0.7)]
    held_out = [{"step": 10 * number, "auc": auc} for number, auc in enumerate(aucs, 1)]
    for early_stop, shown in ((None, "0.700"), ({"patience": 1}, "0.800")):
        facts = {"settings": {"early_stop": early_stop}}
        assert dict(summary_lines(facts, result.history, held_out, None))["held-out reward AUC"].startswith(shown)


def test_what_was_not_measured_is_said(bare):
    html = bare._repr_html_()
    assert "not measured: there are no validation rows" in html
    assert "in memory only" in html


def test_a_summary_of_an_older_training_invents_nothing():
    summary = dict(summary_lines({}, pl.DataFrame(), [], None))
    assert summary["speed"] == summary["balance"] == summary["z0"] == summary["rows"] == "not noted"


def test_names_are_text_and_never_markup():
    html = as_html([("model", "runs/<script>alert(1)</script>\udcff")])
    assert "<bdi>runs/&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script>" not in html
    html.encode()


# --- the folder ------------------------------------------------------------------------------------------------------------


def test_a_training_reads_back_from_its_folder(result):
    again = TrainResult.load(result.folder)
    assert again.history.equals(result.history)
    assert again.held_out == result.held_out
    assert again.telemetry.equals(result.telemetry)
    assert again.per_row().equals(result.per_row())
    assert again.metrics == json.loads(json.dumps(result.metrics))
    assert (again.model, again.tokenizer) == (None, None)
    assert again._repr_html_() == result._repr_html_()


def test_reading_back_loads_no_torch(result):
    code = f"import sys; from ktodata.train import TrainResult; TrainResult.load({str(result.folder)!r}).per_row(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_policy_comes_when_it_is_asked_for(result):
    again = TrainResult.load(result.folder).with_model()
    torch.testing.assert_close(dict(again.model.state_dict()), dict(result.model.state_dict()), rtol=0, atol=0)
    assert len(again.tokenizer) == len(result.tokenizer)
    assert result.with_model() is result


def test_a_training_in_memory_can_be_saved_later(bare, tmp_path):
    bare.save(tmp_path / "later")
    again = TrainResult.load(tmp_path / "later").with_model()
    assert again.telemetry.equals(bare.telemetry)
    torch.testing.assert_close(dict(again.model.state_dict()), dict(bare.model.state_dict()), rtol=0, atol=0)


def test_a_save_that_fails_leaves_the_earlier_training_whole(bare, tmp_path, monkeypatch):
    bare.save(tmp_path)
    monkeypatch.setattr(type(bare.tokenizer), "save_pretrained", full_disk)
    with pytest.raises(OSError, match="disk full"):
        bare.save(tmp_path)
    assert TrainResult.load(tmp_path).telemetry.equals(bare.telemetry)


def test_an_earlier_training_does_not_vouch_for_a_half_replaced_one(bare, tmp_path, monkeypatch):
    bare.save(tmp_path)
    replace = Path.replace
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda file, to: full_disk() if to.parent == tmp_path else replace(file, to))
        with pytest.raises(OSError, match="disk full"):
            bare.save(tmp_path)
    with pytest.raises(RunError, match="holds no finished training"):
        TrainResult.load(tmp_path)


def full_disk(*_):
    raise OSError("disk full")


def _without(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without("training.json"), "holds no finished training: training.json.*is not there"),
        (_without("telemetry.parquet"), "the training in .* is damaged .*Train again"),
        (lambda folder: (folder / "training.json").write_text('{"history": ['), "is damaged"),
        (lambda folder: (folder / "training.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "telemetry.parquet").write_bytes(b"PAR1"), "is damaged"),
    ],
)
def test_a_folder_that_is_no_training_is_refused(result, tmp_path, spoil, says):
    folder = tmp_path / "copy"
    shutil.copytree(result.folder, folder)
    spoil(folder)
    with pytest.raises(RunError, match=says):
        TrainResult.load(folder)


def test_without_its_policy_a_training_is_not_saved(result, tmp_path):
    with pytest.raises(RunError, match=r"not in memory. Call with_model\(\) first"):
        TrainResult.load(result.folder).save(tmp_path)


def test_a_policy_that_is_nowhere_cannot_be_read(bare):
    lost = TrainResult(bare.history, [], bare.telemetry, bare.metrics, None)
    with pytest.raises(RunError, match="neither its model in memory nor a folder"):
        lost.with_model()


def test_an_objective_without_mismatched_pairs_is_drawn_and_told_without_an_error_of_z0(model_folder, tmp_path):
    result = fit(text_rows(12), model=model_folder, objective="apo_zero", batch_size=6, out=tmp_path / "out")
    assert result.history["z0_standard_error"].null_count() == result.history.height
    assert "NaN" not in (tmp_path / "out" / "training.json").read_text()
    for training in (result, TrainResult.load(tmp_path / "out")):
        panels = {axes.get_title(loc="left"): [text.get_text() for text in axes.texts] for axes in training.plot().axes}
        assert len(panels) == 6 and panels["z0, the reference point"] == [] and "not measured" in panels["held-out reward AUC"]
        assert "standard error" not in training._repr_html_()
