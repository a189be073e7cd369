"""Exports of other tools: what stands for no value is none, two conversations are compared, no column hides another."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from line_files import write_lines

import ktodata as kd
from ktodata.errors import KtodataError
from ktodata.formats import read
from ktodata.formats.times import moment

THUMB = {"column": "thumb", "1": True, "0": False}
ARENA = {"column": "winner", "model_a": "first", "model_b": "second", "tie": "tie"}


def talk(question, *answers):
    turns = [{"role": "user", "content": question}]
    for answer in answers[:-1]:
        turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And?"}]
    return [*turns, {"role": "assistant", "content": answers[-1]}]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_null_of_a_database_is_no_value(tmp_path, end):
    r"""MySQL, PostgreSQL, Hive and Snowflake write \N: no rater of that name leads the chart."""
    lines = ["prompt,completion,thumb,user_id", "Sky?,Blue.,1,u1", r"Grass?,Purple.,0,\N", r"Snow?,White.,\N,u3", r"Sea?,\N,1,u4"]
    (tmp_path / "a.csv").write_text(end.join(lines), newline="")
    result = read(tmp_path / "a.csv", label=THUMB, rater="user_id")
    assert result.feedback["rater"].to_list() == ["u1", None]
    assert result.metrics["quarantined"] == {"not_text": 1, "unlabelled": 1}
    (choice,) = kd.inspect(tmp_path / "a.csv").labels
    assert (dict(choice.values), choice.n_null) == ({"1": 2, "0": 1}, 1)


@pytest.mark.parametrize("word", ["NULL", "null", "None", "NaN", "<NA>", "undefined", r"\N", " null ", "Anonymous", "N/A", "-"])
@pytest.mark.parametrize("copies", [1, 300])  # read one by one, and column by column
def test_a_word_for_no_value_is_no_rater(tmp_path, word, copies):
    records = [
        {"prompt": f"q{n}", "completion": "a", "label": n % 2 == 0, "who": word if n % 3 else "ann"} for n in range(3 * copies)
    ]
    result = read(write_lines(tmp_path / "a.jsonl", records), rater="who")
    assert result.metrics["busiest_raters"] == {"ann": copies}
    assert result.feedback["rater"].null_count() == 2 * copies


def arena(n_turns=1):
    answers = [("Blue.", "Red."), ("Purple.", "Green."), ("Dry.", "Wet.")]
    winners = ("model_a", "model_b", "tie")
    return [
        {
            "conversation_a": talk(f"{n}?", *["Well."] * (n_turns - 1), first),
            "conversation_b": talk(f"{n}?", *["Well."] * (n_turns - 1), second),
            "winner": winner,
        }
        for n, ((first, second), winner) in enumerate(zip(answers, winners, strict=True))
    ]


@pytest.mark.parametrize("n_turns", [1, 2])
def test_two_conversations_are_compared_and_neither_is_lost(tmp_path, n_turns):
    """Chatbot Arena's shape. Read as one conversation with winner as its label, half of the answers would go."""
    place = write_lines(tmp_path / "arena.jsonl", arena(n_turns))
    inspection = kd.inspect(place)
    assert inspection.compared == ("conversation_a", "conversation_b")
    draft = inspection.recipe()
    assert "completion: [conversation_a, conversation_b]" in draft and "prompt:" not in draft
    assert inspection.trial.startswith("3 of 3 records would become 6 rows")
    result = read(place, format="preference", completion=["conversation_a", "conversation_b"], label=ARENA)
    rows = result.feedback.select("completion", "label").rows()
    assert rows == [("Blue.", True), ("Red.", False), ("Purple.", False), ("Green.", True)]
    assert result.metrics["quarantined"] == {"tie": 1}
    assert result.feedback["prompt"].str.contains("Well.", literal=True).to_list() == [n_turns == 2] * 4


def test_conversations_that_part_before_the_answer_are_not_compared(tmp_path):
    records = [*arena(), {**arena()[0], "conversation_b": talk("another?", "Red.")}, {**arena()[0], "prompt": "another?"}]
    place = write_lines(tmp_path / "arena.jsonl", records)
    result = read(place, format="preference", completion=["conversation_a", "conversation_b"], label=ARENA)
    assert result.metrics["quarantined"] == {"prompts_differ": 2, "tie": 1}


def test_a_column_that_stands_twice_hides_no_other(tmp_path):
    values = [pa.array(["Sky?"]), pa.array(["Blue."]), pa.array([True]), pa.array([False])]
    pq.write_table(pa.Table.from_arrays(values, names=["prompt", "completion", "label", "label"]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("prompt,completion,label,label\nSky?,Blue.,true,false\n")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(KtodataError, match=r"label \(1\), label \(2\)"):
            read(tmp_path / name)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([["Sky?", "Blue.", True, False]], columns=["prompt", "completion", "label", "label"])
    with pytest.raises(KtodataError, match=r"label \(1\), label \(2\)"):
        read(frame)


def test_a_header_of_excel_that_stands_twice_hides_no_other(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["prompt", None, "completion", "label", "label"], ["Sky?", "x", "Blue.", True, False]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(KtodataError, match=r"label \(1\), label \(2\)"):
        read(tmp_path / "a.xlsx")


def test_reasoning_beside_the_message_of_a_response_is_kept(tmp_path):
    """OpenAI's Responses API, logged as the list that it calls output."""
    reasoning = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "The sky."}]}
    message = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Blue."}]}
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    records = [{"input": "Sky?", "output": output, "ok": True} for output in ([reasoning, message], [call], [message])]
    result = read(
        write_lines(tmp_path / "a.jsonl", records),
        prompt="input",
        completion="output",
        label={"column": "ok", True: True, False: False},
    )
    answers = result.feedback["answer"].to_list()
    assert answers[0]["reasoning_content"] == "The sky." and json.loads(answers[1]["tool_calls"])[0]["function"]["name"] == "look"
    assert result.feedback["completion"].to_list()[2] == "Blue."


def test_turns_of_others_are_no_part_of_an_answer(tmp_path):
    reasoning = {"type": "reasoning", "summary": []}
    both = [{"type": "message", "role": role, "content": "x"} for role in ("user", "assistant")]
    records = [{"input": "Sky?", "output": output, "ok": True} for output in ([*both, reasoning], "Blue.")]
    result = read(
        write_lines(tmp_path / "a.jsonl", records),
        prompt="input",
        completion="output",
        label={"column": "ok", True: True, False: False},
    )
    assert result.feedback.height == 1


@pytest.mark.parametrize(("text", "second"), [("1.7672256E9", 0), ("1.767225601E9", 1), ("1767225601.0", 1), ("1.5E3", None)])
def test_times_as_bigquery_writes_them(text, second):
    assert moment(text) == (None if second is None else datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC))


def test_a_format_that_reads_none_of_the_records_is_not_drafted(tmp_path):
    """OpenAI's stored completions: messages that end with the user, the answer beside them."""
    records = [
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{n}?"}],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": f"{n}."}}],
            "metadata": {"thumb": "up" if n % 3 else "down"},
            "label": None,
        }
        for n in range(6)
    ]
    inspection = kd.inspect(write_lines(tmp_path / "a.jsonl", records))
    draft = inspection.recipe()
    assert "format:" not in draft and "prompt: messages" in draft and "completion: choices.0.message" in draft
    assert inspection.trial == "6 of 6 records would become 6 rows"
