"""What the commands print stands in columns, however long the names are."""

import pytest

from ktodata.pipeline.command_texts import comparison_outlook_text, evaluation_text, plan_text, push_text


def columns_of(text, words):
    return {line.index(words) for line in text.splitlines() if words in line}


def test_texts_stand_under_each_other(monkeypatch):
    monkeypatch.setattr("ktodata.experiments.clock.estimate_text", lambda estimate: "an hour")
    methods = {"sft": 6, "kto": 9, "kto_hybrid": 9}
    used = {"rows": 9, "pairs": 4, "rows_used": methods}
    text = comparison_outlook_text({"rows_used": used, "updates": 3, "settings": {"methods": list(methods)}, "estimate": None})
    assert columns_of("\n".join(text.splitlines()[1:]), " rows") == {len("  kto_hybrid  9")}
    assert len(columns_of(plan_text([("ingest", "runs"), ("a_stage_of_a_very_long_name", "runs")], None), "runs")) == 1
    files = {"x" * 60: 1, "y": 2}
    assert len(columns_of(push_text({"files": files, "repository": "r", "private": True, "address": ""}), "bytes")) == 1


@pytest.mark.parametrize("measures", [{}, {"auroc": 0.7, "a_measure_of_a_long_name": 0.8}])
def test_measures_stand_under_each_other(measures):
    result = {"measures": {name: {"value": value, "low": 0.1, "high": 0.9} for name, value in measures.items()}}
    evaluation = {"rows": 3, "prompt_groups": 2, "part": "test", "against_label": result, "against_truth": {}}
    assert len(columns_of(evaluation_text(evaluation), "(0.100")) == min(len(measures), 1)
