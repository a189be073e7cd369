"""Run folders of known numbers, for whatever is read off a page."""

import folders
import pytest


@pytest.fixture(scope="session")
def proven(tmp_path_factory):
    """A run with an ablation and a comparison. Not to be changed: all tests read the same."""
    folder = folders.write_run(tmp_path_factory.mktemp("proven") / "small", stages=folders.PROOF)
    folders.write_ablation(folder)
    folders.write_comparison(folder)
    return folder


@pytest.fixture
def measured_run(tmp_path):
    """A run of the test's own, with ablation and comparison, to be changed."""
    folder = folders.write_run(tmp_path / "small", stages=folders.PROOF)
    folders.write_ablation(folder)
    folders.write_comparison(folder)
    return folder


@pytest.fixture
def ablated(tmp_path):
    """Makes the run of a test, with an ablation as `folders.write_ablation` is told."""

    def make(**how):
        folder = folders.write_run(tmp_path / "small", stages=folders.PROOF)
        folders.write_ablation(folder, **how)
        return folder

    return make


@pytest.fixture
def rounds():
    """What self_training.json says of three rounds: the second helps, the third was not trained. Some of it may be changed."""
    span = {"value": 0.7, "low": 0.6, "high": 0.8}
    gain = {"value": 0.06, "low": 0.01, "high": 0.11, "includes_zero": False}
    changed = {"entered": 1, "left": 2, "relabelled": 3, "softened": 4, "changed": 10, "rows": 36}
    lines = [
        {"round": 0, "folder": "rounds/0", "auc": span, "minus_best": None, "minus_round_0": None, "changed": None},
        {"round": 1, "folder": "rounds/1", "auc": {**span, "value": 0.76}, "minus_best": gain, "minus_round_0": gain},
        {"round": 2, "folder": "rounds/2", "auc": None, "minus_best": None, "minus_round_0": None},
    ]
    lines[1]["changed"], lines[2]["changed"] = changed, {**changed, "changed": 0}
    summary = {"name": folders.HOSTILE[1], "status": "done", "chosen_round": 1, "helped": True, "judged_by": "reviewed verdicts"}
    summary |= {
        "rows": 40,
        "prompt_groups": 31,
        "desirable": 25,
        "verdict": f"Round 1 is the result. {folders.HOSTILE[0]}",
        "rounds": lines,
    }
    return lambda **changes: summary | changes
