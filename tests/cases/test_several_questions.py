"""Several questions about one answer are never pooled without a word, whichever way an export writes them."""

import itertools
from pathlib import Path

import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import FormatError, LabelError
from ktodata.formats import read
from ktodata.formats.verdicts.several_questions import CODE

CASES = Path(__file__).parents[3] / "shared" / "cases"
QUESTIONS = ("fluent", "on_topic", "harmful")


def finding(records, **settings):
    findings = read(records, label={"column": "value", True: True, False: False}, **settings).metrics["findings"]
    return next(each for each in findings if each["code"] == CODE)


def one_record_a_question(texts=10, raters=("ann", "bob")):
    """Each text is fluent and on topic, every second one harmful."""
    return [
        {"prompt": f"{text} + 5?", "completion": f"Ten and {text}.", "by": rater, "metric": question, "value": value}
        for text, rater in itertools.product(range(texts), raters)
        for question, value in zip(QUESTIONS, (True, True, text % 2 == 0), strict=True)
    ]


@pytest.mark.parametrize("settings", [{"rater": "by"}, {}, {"rater": "by", "keep": ["day"]}])
def test_one_record_a_question_is_pointed_out(settings):
    records = [record | {"id": str(at), "day": str(at // 7)} for at, record in enumerate(one_record_a_question())]
    result = finding(records, **settings)
    assert result["status"] == "issue" and result["rows"] == 60
    assert "'metric' ('fluent', 'harmful', 'on_topic')" in result["text"] and "rater: metric" in result["text"]


def test_a_judge_whom_nobody_named_is_pointed_out_and_named_is_none():
    records = [record for record in one_record_a_question() if record["metric"] == "fluent"]
    assert "'by' ('ann', 'bob')" in finding(records)["text"]
    assert finding(records, rater="by")["status"] == "passed"


def test_a_question_that_a_setting_names_or_that_is_alone_is_none():
    records = one_record_a_question(raters=("ann",))
    assert finding(records, keep=["metric"])["status"] == "passed"
    assert finding(records[::3])["status"] == "passed"


@pytest.mark.parametrize(
    "values", [["a"] * 30, list("aababbbaaabbabaaab"), [str(at) for at in range(18)], [None] * 9 + ["a", "b", "c"] * 3]
)
def test_repeats_that_differ_by_chance_or_in_an_id_are_none(values):
    """Records of three to a text; a column with few values, one with a value each, one that is empty in half of them."""
    records = [{"prompt": f"{at // 3}?", "completion": "c", "value": True, "note": value} for at, value in enumerate(values)]
    assert finding(records)["status"] == "passed"


@pytest.mark.parametrize("repeated", [0, 2])
def test_few_repeats_among_other_texts_are_none(repeated):
    once = [{"prompt": f"{at}?", "completion": "c", "value": True, "metric": "fluent"} for at in range(50)]
    again = one_record_a_question(texts=repeated, raters=("ann",))
    assert finding(once + again)["status"] == "passed"


def test_a_judge_who_judges_some_twice_is_pointed_out_all_the_same():
    records = one_record_a_question(texts=20, raters=("ann",))
    assert finding(records + records[:12])["status"] == "issue"


@pytest.mark.shared
def test_three_judges_of_a_thousand_answers_are_raters():
    if not CASES.exists():
        pytest.skip(f"{CASES} is absent")
    settings = {"prompt": "question", "completion": "answer", "label": {"column": "score", "at_least": 4}}
    for rater, status in ((None, "issue"), ("judge", "passed")):
        findings = read(CASES / "people" / "judge_scores.jsonl", **settings, rater=rater).metrics["findings"]
        assert next(each for each in findings if each["code"] == CODE)["status"] == status


def test_questions_in_columns_are_listed_and_none_is_chosen(lines):
    path = lines(*({"prompt": f"{at}?", "completion": "c", "polite": at > 1, "harmful": at % 2 == 0} for at in range(4)))
    with pytest.raises(LabelError, match="polite, harmful"):
        read(path)
    assert [choice.column for choice in kd.inspect(path).labels] == ["polite", "harmful"]


@pytest.mark.shared
def test_questions_of_a_run_are_asked_for_and_only_the_one_chosen_votes():
    path = CASES / "ingest" / "62-several-questions" / "langsmith.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with pytest.raises(LabelError, match=r"'toxic' by models .*'user_thumb' by people .*Say which is the label"):
        read(path)
    feedback = read(path, label={"column": "user_thumb", True: True, False: False}).feedback
    assert feedback["label"].to_list() == [True, True] and feedback["votes"].list.len().to_list() == [1, 1]


@pytest.mark.shared
def test_a_thumb_pressed_again_counts_once_as_it_was_last():
    path = CASES / "ingest" / "63-revotes" / "langfuse.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    feedback = read(path, label={"column": "thumb", 1: True, 0: False}).feedback
    assert feedback["label"].to_list() == [True, True] and feedback["votes"].list.len().to_list() == [1, 1]
    assert feedback["earlier_votes"].list.len().to_list() == [3, 2]


SPAN = {"attributes": {"input.value": "5 + 5?", "output.value": "Ten."}, "span_kind": "LLM"}
ROOT = {"parent_span_id": None, "attributes": {"mlflow.spanInputs": "5 + 5?", "mlflow.spanOutputs": "Ten."}}


@pytest.mark.parametrize(
    "record",
    [
        {"id": "t", "input": "5 + 5?", "output": "Ten.", "scores": ["score-1"]},
        {"id": "r", "inputs": {"question": "5 + 5?"}, "outputs": {"output": "Ten."}, "feedback": ["feedback-1"]},
        {**SPAN, "annotations": [17, 18]},
        {"spans": [ROOT], "assessments": ["a-1"]},
    ],
    ids=["langfuse", "langsmith", "phoenix", "mlflow"],
)
def test_ids_in_place_of_verdicts_are_no_missing_verdict(record, lines):
    with pytest.raises(FormatError, match=r"score_ids 2 .* holds ids: export the verdicts themselves"):
        read(lines(record, record), label={"column": "thumb", 1: True})


def test_the_rows_are_those_of_the_records(tmp_path):
    """What is looked at in passing changes nothing that is read."""
    records = one_record_a_question()
    feedback = read(records, label={"column": "value", True: True, False: False}, rater="by").feedback
    assert feedback["label"].to_list() == [record["value"] for record in records]
    assert feedback.schema["votes"] == pl.List(
        pl.Struct({"rater": pl.String, "label": pl.Boolean, "created_at": pl.Datetime("us", "UTC")})
    )
