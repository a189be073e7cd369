"""Answers that a program checks: what passes, what is paired, and which prompts are not asked."""

import json

import polars as pl
import pytest
from line_files import write_lines
from tiny_models import text_rows

from ktodata.errors import EmptyDataError, FormatError
from ktodata.evaluate.checked_answers import BaseAnswers, check_answers, measure_answers, read_checked_prompts, without_trained
from ktodata.files import is_being_made, one_at_a_time
from ktodata.models import cache_dir

SHORT = [["length_constraints:number_words", {"relation": "less than", "num_words": 4}]]
NO_COMMA = [["punctuation:no_comma", {}]]


def prompts(*instructions: list) -> pl.DataFrame:
    lines = [{"item": item, "prompt": f"p{item}", "instructions": json.dumps(each)} for item, each in enumerate(instructions)]
    return pl.DataFrame(lines)


def test_an_answer_passes_that_keeps_to_all_instructions_of_its_prompt():
    checked_prompts = prompts(SHORT, SHORT + NO_COMMA, SHORT, SHORT)
    texts = {"base": ["one two three four", "one, two", "", "one"], "trained": ["one two three", "one two", "one, two", "one"]}
    answers = {name: pl.DataFrame({"text": each, "unfinished": [False] * 3 + [True]}) for name, each in texts.items()}
    checked = check_answers(checked_prompts, answers)
    assert checked["base_passes"].to_list() == [False, False, False, False]  # too long; a comma; empty; cut off
    assert checked["trained_passes"].to_list() == [True, True, True, False]
    assert checked.columns == ["item", "prompt", "base", "trained", "base_passes", "trained_passes"]


def test_the_gain_is_paired():
    """Both pass every second prompt, the trained one three more: shares 0.5 and 0.53, and a gain whose interval is as narrow
    as three of 100 make it, however wide those of the shares are."""
    passed = [item % 2 == 0 for item in range(100)]
    checked = pl.DataFrame(
        {"item": range(100), "base_passes": passed, "trained_passes": [ok or item < 6 for item, ok in enumerate(passed)]}
    )
    measured = measure_answers(checked, resamples=500, seed=0)
    assert (measured["base"]["value"], measured["trained"]["value"]) == (0.5, 0.53)
    assert measured["gain"]["value"] == pytest.approx(0.03)
    assert measured["gain"]["high"] - measured["gain"]["low"] < 0.08 < measured["base"]["high"] - measured["base"]["low"]


@pytest.mark.parametrize("turns", [False, True])
def test_a_prompt_that_was_trained_on_is_not_asked(turns):
    texts = ["P1 ", "something else"]
    trained = pl.DataFrame({"prompt": [[{"role": "user", "content": text}] for text in texts] if turns else texts})
    assert without_trained(prompts(SHORT, SHORT), trained)["prompt"].to_list() == ["p0"]
    assert without_trained(prompts(SHORT), pl.DataFrame()).height == 1


def test_a_file_that_holds_no_prompts_is_refused(tmp_path):
    with pytest.raises(FormatError, match="there is no file"):
        read_checked_prompts(tmp_path / "none.jsonl")
    (tmp_path / "strange.jsonl").write_text(json.dumps({"prompt": "p", "instruction_id_list": ["x:y"], "kwargs": [{}]}))
    with pytest.raises(EmptyDataError, match="without a check: x:y"):
        read_checked_prompts(tmp_path / "strange.jsonl")


def held_out_file(path, texts):
    lines = [{"prompt": text, "instruction_id_list": [SHORT[0][0]], "kwargs": [SHORT[0][1]]} for text in texts]
    return write_lines(path, lines)


def test_both_models_are_asked_what_no_training_row_asks(trained, tmp_path):
    from ktodata.evaluate import evaluate

    trained_prompt = str(text_rows(1)["prompt"][0])
    file = held_out_file(tmp_path / "held_out.jsonl", ["a b c", "d e", trained_prompt])
    result = evaluate(trained, instructions=file, generate=0, bootstrap=100, device="cpu", max_new_tokens=3, out=tmp_path / "out")
    measured = result.metrics["instructions"]
    assert (measured["prompts"], measured["also_in_training"], measured["max_new_tokens"]) == (2, 1, 3)
    assert result.answers["prompt"].to_list() == ["a b c", "d e"]
    assert measured["base"]["value"] == result.answers["base_passes"].mean()
    asked = result.table().filter(against="instructions")
    assert asked.select("measure", "value", "rows").rows() == [
        (name, measured[name]["value"], 2) for name in ("base", "trained", "gain")
    ]
    assert pl.read_parquet(tmp_path / "out" / "evaluation_answers.parquet").equals(result.answers)
    with pytest.raises(EmptyDataError, match="all 1 prompts"):
        evaluate(trained, instructions=held_out_file(tmp_path / "known.jsonl", [trained_prompt]), device="cpu")


def test_it_measures_the_same_whichever_model_answers_first(trained, tmp_path, monkeypatch):
    from ktodata.evaluate import evaluate, scoring

    file = held_out_file(tmp_path / "held_out.jsonl", ["a b c", "d e"])
    settings = {"instructions": file, "generate": 2, "bootstrap": 100, "device": "cpu", "max_new_tokens": 3}
    usual = evaluate(trained, **settings)
    monkeypatch.setattr(scoring, "is_being_made", lambda place: True)
    first_asked = []
    other = evaluate(trained, **settings, progress=lambda event: first_asked.append(event["model"]))
    assert first_asked[0] == "trained"
    assert json.dumps(other.metrics) == json.dumps(usual.metrics) and other.answers.equals(usual.answers)


def test_a_base_model_answers_the_same_prompts_once(folder, own_cache, monkeypatch):
    times = []

    def write() -> pl.DataFrame:
        times.append(1)
        return pl.DataFrame({"text": ["a", "b"], "unfinished": [False, True]})

    def once(made_by: list, texts: list[str]) -> pl.DataFrame:
        return BaseAnswers.of(folder, made_by, texts).once(write)

    assert once(["cpu", 3], ["p", "q"]).equals(once(["cpu", 3], ["p", "q"]))
    assert len(times) == 1
    once(["cpu", 4], ["p", "q"])
    once(["cpu", 3], ["p", "r"])
    assert len(times) == 3
    for file in (cache_dir() / "base-answers").glob("*.parquet"):
        file.write_bytes(b"damaged")
    once(["cpu", 3], ["p", "q"])
    assert len(times) == 4
    monkeypatch.setattr("ktodata.evaluate.checked_answers.code_digest", lambda *modules: "mended")
    once(["cpu", 3], ["p", "q"])
    assert len(times) == 5


def test_whoever_waits_for_a_base_model_s_answers_sees_that_another_is_at_them(tmp_path):
    place = tmp_path / "cache" / "a.parquet"
    assert not is_being_made(place)
    with one_at_a_time(place):
        assert is_being_made(place)
    assert not is_being_made(place)
