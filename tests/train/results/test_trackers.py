"""Where numbers go: each logger gets every event once, also when the training was killed in between."""

import io
import json
import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from ktodata import extras
from ktodata.errors import MissingExtraError, SettingError
from ktodata.train.results.trackers import open_loggers, scalars
from ktodata.train.results.training_progress import described, reporting


def step(number, loss=0.5, **more):
    return {"step": number, "steps": 4, "epoch": 0, "loss": loss, "z0": 0.25, "reward_desirable": None, **more}


def look(number):
    auc = {"value": 0.75, "low": 0.6, "high": 0.9}
    metrics = {"step": number, "rows": 8, "loss": 0.4, "reward_gap": None, "auc": auc, "not_applicable": "no"}
    return {"step": number, "steps": 4, "held_out": metrics}


def logged(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_scalars_have_a_name_a_part_and_a_finite_value():
    assert scalars(step(3, grad_norm=math.inf, tokens_per_second=10)) == {
        "train/epoch": 0.0,
        "train/loss": 0.5,
        "train/z0": 0.25,
        "train/tokens_per_second": 10.0,
    }
    assert scalars(look(3)) == {
        "validation/rows": 8.0,
        "validation/loss": 0.4,
        "validation/auc": 0.75,
        "validation/auc_low": 0.6,
        "validation/auc_high": 0.9,
    }


def test_json_lines_are_there_as_soon_as_reported(tmp_path):
    with open_loggers(["jsonl"], folder=tmp_path / "new", settings={}) as report:
        report(step(1, loss=math.nan))
        assert logged(tmp_path / "new") == [{"step": 1, "steps": 4, "epoch": 0, "z0": 0.25}]
        report(look(1))
    assert logged(tmp_path / "new")[1]["held_out"]["auc"]["value"] == 0.75
    assert "reward_gap" not in logged(tmp_path / "new")[1]["held_out"]


def test_a_resumed_training_continues_the_file_and_repeats_no_step(tmp_path):
    """Killed while step 4 was written, last checkpoint at step 2: steps 3 and 4 are made again."""
    with open_loggers(["jsonl"], folder=tmp_path, settings={}) as report:
        for event in (step(1), step(2), look(2), step(3)):
            report(event)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with open_loggers(["jsonl"], folder=tmp_path, settings={}, resumed_step=2) as report:
        report(step(3))
        report(step(4))
    assert [(line["step"], "held_out" in line) for line in logged(tmp_path)] == [
        (1, False),
        (2, False),
        (2, True),
        (3, False),
        (4, False),
    ]


def test_a_training_from_the_start_begins_the_file_again(tmp_path):
    for _ in range(2):
        with open_loggers(["jsonl"], folder=tmp_path, settings={}) as report:
            report(step(1))
    assert len(logged(tmp_path)) == 1


def test_tensorboard_holds_each_step_once_after_a_resume(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with open_loggers(["tensorboard"], folder=tmp_path, settings={"beta": 0.1}) as report:
        for event in (step(1, 0.9), step(2, 0.8), look(2), step(3, 0.7)):
            report(event)
    with open_loggers(["tensorboard"], folder=tmp_path, settings={"beta": 0.1}, resumed_step=2) as report:
        report(step(3, 0.6))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, round(event.value, 4)) for event in events.Scalars("train/loss")] == [(1, 0.9), (2, 0.8), (3, 0.6)]
    assert [event.value for event in events.Scalars("validation/auc")] == [0.75]
    assert "train/reward_desirable" not in events.Tags()["scalars"]


class Service:
    """Stands in for wandb and trackio: keeps what it is told."""

    def __init__(self, monkeypatch, name):
        self.started, self.lines, self.finished = [], [], 0
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.init = self.init
        monkeypatch.setitem(sys.modules, name, module)

    def init(self, **options):
        self.started.append(options)
        return self

    def log(self, values, step):
        self.lines.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.mark.parametrize(("name", "key"), [("wandb", "id"), ("trackio", "name")])
def test_services_get_settings_scalars_and_the_same_run_after_a_resume(name, key, tmp_path, monkeypatch):
    service = Service(monkeypatch, name)
    with open_loggers([name], folder=tmp_path, settings={"beta": 0.1}) as report:
        report(step(1))
        report(look(1))
    assert [line[0] for line in service.lines] == [1, 1]
    assert service.lines[1][1]["validation/auc"] == 0.75
    with open_loggers([name], folder=tmp_path, settings={"beta": 0.1}, resumed_step=1):
        pass
    with open_loggers([name], folder=tmp_path, settings={"beta": 0.1}):
        pass
    first, resumed, afresh = (options[key] for options in service.started)
    assert first == resumed != afresh
    assert all(options["config"] == {"beta": 0.1} and options["project"] == "ktodata" for options in service.started)
    assert service.finished == 3


def train_twice_with_mlflow(folder):
    """Two updates; resumed after them by a training of other settings, one more."""
    for resumed, numbers in ((0, (1, 2)), (2, (3,))):
        settings = {"beta": 0.1, "max_steps": resumed + 2}
        with open_loggers(["mlflow"], folder=folder, settings=settings, resumed_step=resumed) as report:
            for number in numbers:
                report(step(number, loss=number / 10))
            report(look(numbers[-1]))


@pytest.mark.servers
def test_mlflow_gets_parameters_once_and_a_resumed_training_goes_on_in_its_run(tmp_path, monkeypatch):
    """MLflow's own package, 3.17 when written, into files of this folder."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    train_twice_with_mlflow(tmp_path)
    (run,) = mlflow.search_runs(experiment_names=["ktodata"], output_format="list")
    assert run.data.params == {"beta": "0.1", "max_steps": "2"} and run.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert run.data.metrics["validation/auc"] == 0.75


def test_the_run_that_mlflow_names_is_kept(tmp_path, monkeypatch):
    mlflow, calls = ModuleType("mlflow"), []
    mlflow.__spec__, mlflow.utils = ModuleSpec("mlflow", None), SimpleNamespace(validation=SimpleNamespace())
    mlflow.utils.validation.MAX_PARAM_VAL_LENGTH, mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH = 6000, 100
    mlflow.search_experiments = lambda filter_string: [SimpleNamespace(experiment_id="7")]
    mlflow.start_run = lambda **given: SimpleNamespace(
        info=SimpleNamespace(run_id=given["run_id"] or calls.append(given) or "new")
    )
    mlflow.log_params = calls.append
    mlflow.log_metrics = lambda values, step: calls.append(step)
    mlflow.end_run = lambda: calls.append("end")
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    train_twice_with_mlflow(tmp_path)
    assert (tmp_path / "mlflow_run.txt").read_text() == "new\n"
    assert calls[0]["run_id"] is None  # and the second start had "new": it is not among the calls
    assert calls[1:] == [{"beta": 0.1, "max_steps": 2}, 1, 2, 2, "end", 3, 3, "end"]


def test_a_service_is_told_the_end_when_training_fails(tmp_path, monkeypatch):
    service = Service(monkeypatch, "wandb")
    with pytest.raises(RuntimeError, match="no memory"), open_loggers(["wandb", "jsonl"], folder=tmp_path, settings={}) as report:
        report(step(1))
        raise RuntimeError("no memory")
    assert service.finished == 1
    assert len(logged(tmp_path)) == 1


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_says_what_to_install(name, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with (
        pytest.raises(MissingExtraError, match=rf"logger '{name}' needs {name}: pip install 'ktodata\[{name}\]'"),
        open_loggers([name], folder=tmp_path, settings={}),
    ):
        pass


def test_a_file_needs_a_folder():
    with (
        pytest.raises(SettingError, match="writes into out, which is not given"),
        open_loggers(["jsonl"], folder=None, settings={}),
    ):
        pass


def test_the_bar_says_what_is_known():
    assert described({}) == ""
    assert described(step(1)) == "loss 0.5000 z0 0.25"
    assert described({**step(2, tokens_per_second=12345.6), **look(2)}) == "loss 0.5000 z0 0.25 tokens/s 12,346 AUC 0.750"


def test_the_bar_keeps_the_last_auc_while_steps_go_on(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := io.StringIO())
    with reporting(True) as report:
        report(look(1))
        report(step(2))
    assert "loss 0.5000 z0 0.25 AUC 0.750" in " ".join(screen.getvalue().split())
