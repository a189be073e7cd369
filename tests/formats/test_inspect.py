"""What `kd.inspect` shows of a file, and the recipe that it drafts."""

import csv
import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ktodata.errors import EmptyDataError, FormatError, KtodataError, SettingError
from ktodata.formats import read
from ktodata.formats.in_memory import frame_in_memory
from ktodata.formats.inspection import Inspection, inspect
from ktodata.formats.inspection.column_profiles import profile_columns
from ktodata.formats.inspection.draft_lines import yaml_value
from ktodata.formats.label_rules import label_rule

CASES = Path(__file__).parents[3] / "shared" / "cases"
TURNS = [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}]


def column(inspection: Inspection, path: str):
    return next(column for column in inspection.columns if column.path == path)


def ingest_of(inspection: Inspection) -> dict:
    return yaml.safe_load(inspection.recipe())["ingest"]


def roles_of(inspection: Inspection) -> dict[str, str]:
    return {role: candidates[0].column for role, candidates in inspection.roles.items() if candidates}


@pytest.fixture
def thumbs(tmp_path: Path) -> Path:
    """A support team's export: conversations as JSON text, a thumb that is often empty, a rater who is not always known."""
    path = tmp_path / "thumbs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(
            ["conversation_id", "user_id", "created_at", "messages", "rating", "model_version", "language", "latency_ms"]
        )
        for n in range(40):
            messages = json.dumps([*TURNS[:1], {"role": "assistant", "content": f"Blue, {n}."}]) if n else "[{broken"
            rating = ["1", "-1", "1", ""][n % 4]
            user = f"u{n % 7}" if n % 5 else ""
            writer.writerow(
                [f"c-{n}", user, f"2026-03-{n % 28 + 1:02}T08:00:00Z", messages, rating, f"m-{n % 2}", "en", 1000 + n]
            )
    return path


def test_a_table_with_conversations_as_json_text(thumbs):
    inspection = inspect(thumbs)
    assert (inspection.shape.kind, inspection.shape.delimiter, inspection.n_records, inspection.is_whole) == (
        "csv",
        ";",
        40,
        True,
    )
    assert roles_of(inspection) == {
        "messages": "messages",
        "label": "rating",
        "rater": "user_id",
        "created_at": "created_at",
        "source_id": "conversation_id",
        "model": "model_version",
    }
    assert column(inspection, "messages").types == {"conversation as JSON text": 39, "text": 1}
    assert column(inspection, "user_id").n_null == 8
    assert inspection.roles["messages"][0].evidence.startswith("39 of 40 values are conversations as JSON text")
    assert inspection.has_json_text
    assert ingest_of(inspection) == {
        "paths": [str(thumbs)],
        "delimiter": ";",
        "messages": "messages",
        "label": {"column": "rating", "1": "CHOOSE", "-1": "CHOOSE"},
        "rater": "user_id",
        "created_at": "created_at",
        "source_id": "conversation_id",
        "model": "model_version",
    }


@pytest.mark.parametrize(("again", "evidence"), [(0, "no value twice"), (12, "12 of 1,212 values stood before"), (200, None)])
def test_that_an_id_comes_back_is_seen_however_many_there_are(lines, again, evidence):
    """Also beyond as many values as are kept apart; an id that comes back often names something else than the record."""
    numbers = [*range(1200 if again else 1212), *range(again)]
    path = lines(*({"prompt": f"p{n}", "completion": f"c{n}", "thumb": n % 2, "record_id": f"r{n}"} for n in numbers))
    (candidate,) = inspect(path).roles["source_id"]
    assert candidate.is_named == (evidence is not None) == ("source_id" in ingest_of(inspect(path)))
    assert evidence is None or candidate.evidence == f"its name; {evidence}"


def test_each_value_of_the_label_is_counted_and_none_is_given_a_meaning(thumbs):
    inspection = inspect(thumbs)
    (choice,) = inspection.labels
    assert (choice.values, choice.n_null) == ([("1", 20), ("-1", 10)], 10)
    assert "rating: '1' 20, '-1' 10, empty 10" in inspection.text()
    with pytest.raises(SettingError, match="CHOOSE"):
        label_rule(ingest_of(inspection)["label"])


@pytest.mark.parametrize("values", [[True, False], ["good", "bad"], [1, 0], ["thumbs_up", "thumbs_down"], [True, True]])
@pytest.mark.parametrize("name", ["label", "negative_feedback", "is_good"])
def test_no_name_and_no_type_gives_a_label_its_meaning(lines, values, name):
    path = lines(*({"prompt": f"p{n}", "completion": f"c{n}", name: values[n % 2]} for n in range(8)))
    label = ingest_of(inspect(path))["label"]
    assert label == {"column": name} | dict.fromkeys(values, "CHOOSE")
    with pytest.raises(SettingError):
        label_rule(label)


@pytest.mark.parametrize("step", [1, 0.5])
def test_of_up_to_eleven_numbers_each_is_given_a_meaning(step, lines):
    path = lines(*({"question": f"Why {n}?", "answer": f"So {n}.", "score": n % 11 * step} for n in range(33)))
    label = ingest_of(inspect(path))["label"]
    assert list(label) == ["column", *(at * step for at in range(11))] and set(label.values()) == {"score", "CHOOSE"}


def test_one_value_is_said_to_give_one_label(lines):
    inspection = inspect(lines(*({"question": f"Why {n}?", "answer": f"So {n}.", "score": 1} for n in range(30))))
    assert "one value only: all rows would get one label" in inspection.text()
    assert "one value only: all rows would get one label" in inspection.recipe()


def test_a_scale_needs_a_threshold(lines):
    rated = ({"question": f"Why {n}?", "answer": f"So {n}.", "score": n % 5 + 1.3, "judge": f"j{n % 3}"} for n in range(30))
    path = lines(*rated)
    inspection = inspect(path)
    assert ingest_of(inspection) == {
        "paths": [str(path)],
        "prompt": "question",
        "completion": "answer",
        "label": {"column": "score", "at_least": "CHOOSE"},
        "rater": "judge",
    }
    assert "values: 1.3: 6, 2.3: 6, 3.3: 6, 4.3: 6, 5.3: 6" in inspection.recipe()
    assert "# desirable_at_most: CHOOSE" in inspection.recipe()
    with pytest.raises(SettingError, match="at_least"):
        label_rule(ingest_of(inspection)["label"])


def test_several_columns_that_may_be_the_label_are_all_offered(lines):
    path = lines(*({"prompt": f"p{n}", "completion": f"c{n}", "rating": n % 2, "helpful": n % 3 > 0} for n in range(12)))
    inspection = inspect(path)
    assert {choice.column for choice in inspection.labels} == {"rating", "helpful"}
    recipe = inspection.recipe()
    assert ingest_of(inspection)["label"] == {"column": "CHOOSE"}
    for line in ("#   column: rating", "#   column: helpful", "#   true: CHOOSE", "#   0: CHOOSE"):
        assert line in recipe


def test_a_choice_can_be_taken_by_uncommenting_it(lines):
    path = lines(*({"prompt": f"p{n}", "completion": f"c{n}", "rating": n % 2, "helpful": n % 3 > 0} for n in range(12)))
    lines_of_recipe = inspect(path).recipe().splitlines()
    start = next(at for at, line in enumerate(lines_of_recipe) if "or, from the column helpful" in line)
    end = next(at for at in range(start + 1, len(lines_of_recipe)) if not lines_of_recipe[at].startswith("  #"))
    block = "\n".join(line.replace("  # ", "  ", 1) for line in lines_of_recipe[start + 1 : end] if "or, from" not in line)
    assert yaml.safe_load(block)["label"] == {"column": "helpful", True: "CHOOSE", False: "CHOOSE"}


def test_paths_go_into_objects_and_lists(lines):
    record = {
        "request": {"model": "m", "messages": TURNS[:1]},
        "response": {"choices": [{"index": 0, "message": TURNS[1]}]},
        "scores": [{"name": "thumb", "value": 1, "source": "API"}, {"name": "tone", "value": 0.5, "source": "EVAL"}],
        "tags": ["a", "b"],
        "rated": [1],
    }
    inspection = inspect(lines(*[record] * 3))
    paths = [column.path for column in inspection.columns]
    for path in (
        "request.messages",
        "response.choices.0.message",
        "scores[name=thumb].value",
        "scores[name=tone].value",
        "tags",
        "rated.0",
    ):
        assert path in paths
    assert column(inspection, "response.choices.0.message").types == {"turn": 3}
    assert roles_of(inspection) | {"label": None} == {
        "prompt": "request.messages",
        "completion": "response.choices.0.message",
        "label": None,
        "model": "request.model",
    }


def test_what_a_person_or_a_model_is_called_is_no_verdict(lines):
    """A `name` or `id` inside `model` or `user` names that, and not the record."""
    things = [{"id": f"r{n}", "model": {"name": f"m{n % 2}"}, "user": {"id": f"u{n % 3}"}, "thumb": n % 2} for n in range(40)]
    inspection = inspect(lines(*({"prompt": f"Why {n}?", "answer": f"So {n}."} | thing for n, thing in enumerate(things))))
    roles = roles_of(inspection)
    assert {name: roles[name] for name in ("label", "model", "rater", "source_id")} == {
        **{"label": "thumb", "model": "model.name", "rater": "user.id", "source_id": "id"}
    }


def test_named_verdicts_of_a_known_format_are_asked_for_by_name(lines):
    def trace(n: int) -> dict:
        scores = [
            {"name": "thumb", "dataType": "BOOLEAN", "value": n % 2, "stringValue": str(bool(n % 2)), "source": "API"},
            {"name": "tone", "dataType": "CATEGORICAL", "value": 0, "stringValue": ["calm", "rude"][n % 2], "source": "EVAL"},
        ]
        return {"id": f"t{n}", "input": TURNS[:1], "output": f"Blue {n}.", "scores": scores}

    inspection = inspect(lines(*(trace(n) for n in range(6))))
    assert inspection.format == "langfuse"
    assert {choice.column: dict(choice.values) for choice in inspection.labels} == {
        "thumb": {0: 3, 1: 3},
        "tone": {"calm": 3, "rude": 3},
    }
    assert ingest_of(inspection)["format"] == "langfuse"


def test_a_paired_format_needs_no_label(lines):
    inspection = inspect(lines(*({"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(3))))
    assert "label" not in ingest_of(inspection)
    assert inspection.format == "trl_paired"
    assert "says which answer is better" in inspection.text()


def test_what_a_turn_says_of_itself_is_a_column(lines):
    talk = [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Blue.", "rating": 1}]
    inspection = inspect(lines({"conversations": talk}, {"conversations": talk}))
    assert column(inspection, "conversations[].rating").counts == {(int, 1): 2}


def test_only_the_first_two_thousand_records_are_read(lines):
    inspection = inspect(lines(*({"prompt": f"p{n}", "completion": "c", "label": n % 2 == 0} for n in range(2_100)), "{broken"))
    assert (inspection.n_records, inspection.is_whole, inspection.problems) == (2_000, False, {})
    assert "2,000 records, the first of more" in inspection.text()


def test_records_that_cannot_be_read_are_counted(lines):
    good = {"prompt": "p", "completion": "c", "label": True}
    inspection = inspect(lines(good, "{", '{"a": 1, "a": 2}', good))
    assert inspection.problems == {"malformed_json": 1, "duplicate_keys": 1}
    assert "2 of them unreadable" in inspection.text()


def test_one_and_one_point_zero_are_not_one_key(lines):
    path = lines(*({"prompt": f"p{n}", "completion": "c", "rating": [1, 1.0, 0][n % 3]} for n in range(9)))
    assert ingest_of(inspect(path))["label"] == {"column": "rating", 1: "CHOOSE", 0: "CHOOSE"}
    assert "# 6 records, 1 3 and 1.0 3" in inspect(path).recipe()


@pytest.mark.parametrize(
    ("values", "is_time"),
    [
        (["2026-10-01T10:00:00Z", "2026-10-02"], True),
        ([1759312800, 1759312900], True),
        ([1759312800000], True),
        ([3.2, 4.1], False),
        ([20260301, 20260302], False),
        (["03/03/2025", "04/03/2025"], False),
    ],
)
def test_what_reads_as_a_time(lines, values, is_time):
    inspection = inspect(lines(*({"prompt": "p", "completion": "c", "label": True, "created_at": value} for value in values)))
    assert (ingest_of(inspection).get("created_at") == "created_at") is is_time
    if not is_time and isinstance(values[0], str):
        assert '# created_at: {column: created_at, format: "%d/%m/%Y"}' in inspection.recipe()  # said in a comment


# --- hostile -----------------------------------------------------------------------------------------------------------

HOSTILE = "a\x1b[31m\n# x: y\u202e<script>alert(1)</script>" + "z" * 5_000


def test_hostile_text_is_clipped_escaped_and_on_one_line(lines):
    records = [
        {"prompt": HOSTILE, "completion": HOSTILE + str(n), HOSTILE: n % 2, "label": ["\x1b]0;x\x07", "b\nc: d"][n % 2]}
        for n in range(4)
    ]
    inspection = inspect(lines(*records))
    for text in (inspection.text(), inspection.recipe()):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert max(map(len, inspection.text().splitlines())) < 600
    assert "<script>" not in inspection._repr_html_()
    assert repr(inspection) == inspection.text()
    assert ingest_of(inspection)["label"] == {"column": "label", "\x1b]0;x\x07": "CHOOSE", "b\nc: d": "CHOOSE"}
    json.dumps(inspection.as_dict())


@given(
    value=st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
def test_a_value_in_a_recipe_gives_itself_back(value):
    parsed = yaml.safe_load(f"{{key: {yaml_value(value)}}}")["key"]
    assert type(parsed) is type(value) and parsed == value
    if not isinstance(value, str) or value:
        assert yaml.safe_load(f"{yaml_value(value)}: 1") == {value: 1}


@pytest.mark.parametrize(
    "word", ["yes", "No", "on", "null", "1", "1.0", "-1", "1e5", "~", "true", "2026-01-01", "0x1f", "1_000", "=", "<<"]
)
def test_a_word_that_yaml_takes_for_something_else_stays_text(word):
    assert yaml.safe_load(f"{yaml_value(word)}: 1") == {word: 1}


leaf_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["prompt", "messages", "label", "score", "scores", "created_at", "id", "role", "content", "type", "name", "value"]
)


@settings(max_examples=100)
@given(records=st.lists(st.dictionaries(NAMES, leaf_values, min_size=1, max_size=6), min_size=1, max_size=4))
def test_any_records_are_inspected(records, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    try:
        inspection = inspect(path)
    except KtodataError:
        return
    assert inspection.n_records >= 1
    inspection.text(), inspection._repr_html_(), inspection.as_dict()
    yaml.safe_load(inspection.recipe())


def test_a_deep_and_a_wide_record(lines):
    deep: dict = {}
    for _ in range(300):
        deep = {"a": deep, "b": [deep]}  # shared parts: written out it would be endless, so one level at a time
        if len(json.dumps(deep)) > 20_000:
            break
    wide = {f"c{n}": n for n in range(1_000)}
    columns, n_more = profile_columns([deep, wide])
    assert len(columns) == 300 and n_more >= 700
    assert "more columns" in inspect(lines(wide, wide)).text()


def test_files_that_cannot_be_inspected(tmp_path, lines):
    lines({"a": 1}, name="a.jsonl"), lines({"a": 1}, name="b.jsonl")
    with pytest.raises(FormatError, match="matches 2 files"):
        inspect(str(tmp_path / "*.jsonl"))
    with pytest.raises(FormatError, match=r"there is no file .*Nearest"):
        inspect(tmp_path / "c.jsonl")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(EmptyDataError):
        inspect(tmp_path / "empty.csv")


# --- the handed cases --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cases() -> Path:
    if not CASES.is_dir():
        pytest.skip("the shared cases are not on this machine")
    return CASES


@pytest.mark.shared
def test_support_thumbs(cases):
    """The file has 1,215 records; three hold broken JSON, 224 have no rating, the assistant has not the last word in all."""
    inspection = inspect(cases / "people" / "support_thumbs.csv")
    assert (inspection.n_records, inspection.is_whole) == (1215, True)
    assert column(inspection, "messages").types == {"conversation as JSON text": 1212, "text": 3}
    assert dict(inspection.labels[0].values) == {"1": 657, "-1": 334}
    assert ingest_of(inspection)["messages"] == "messages"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "ingest"),
    [
        (
            "13-json-in-csv/messages.csv",
            {"messages": "messages", "label": {"column": "label", "true": "CHOOSE", "false": "CHOOSE"}},
        ),
        ("22-csv-semicolon/de.csv", {"delimiter": ";", "label": {"column": "thumb", "up": "CHOOSE", "down": "CHOOSE"}}),
        ("23-csv-utf16/excel_unicode_tab.csv", {"delimiter": "\t", "encoding": "utf-16"}),
        ("23-csv-utf16/cp1252.csv", {"encoding": "cp1252"}),
        ("24-tsv/feedback.tsv", {"delimiter": "\t"}),
        ("26-json-shapes/wrapped.json", {"table": "data"}),
        ("26-json-shapes/utf16.json", {"encoding": "utf-16"}),
        ("51-openai-log/log.jsonl", {"prompt": "request.messages", "completion": "response.choices.0.message"}),
        ("72-langfuse-negative-feedback/traces.jsonl", {"label": {"column": "negative_user_feedback", 0: "CHOOSE", 1: "CHOOSE"}}),
    ],
)
def test_a_handed_case(cases, file, ingest):
    drafted = ingest_of(inspect(cases / "ingest" / file))
    assert {name: drafted.get(name) for name in ingest} == ingest


def test_fields_of_argilla_with_names_of_their_own_are_drafted_and_read(lines):
    answers = [
        {"value": "good", "user_id": "ann", "status": "submitted"},
        {"value": "bad", "user_id": "bo", "status": "discarded"},
    ]
    fields = {"instruction": "Why is the sky blue today?", "response": "So that the sun can be seen in it."}
    path = lines(*({"id": str(n), "fields": fields, "responses": {"quality": answers}} for n in range(8)))
    ingest = ingest_of(inspect(path))
    assert (ingest["format"], ingest["prompt"], ingest["completion"]) == ("argilla", "instruction", "response")
    assert ingest["label"] == {"column": "quality", "good": "CHOOSE"}
    result = read(path, format="argilla", prompt="instruction", completion="response", label={"column": "quality", "good": True})
    assert result.feedback["label"].to_list() == [True] * 8
    assert {vote["rater"] for votes in result.feedback["votes"] for vote in votes} == {"ann"}


def test_what_is_in_memory_is_looked_at_as_its_file_is(lines):
    """The same columns, roles and values; a recipe cannot read it, and says so."""
    pandas = pytest.importorskip("pandas")
    records = [{"question": f"Why {n}?", "answer": f"So {n}.", "thumb": ("up", "down")[n % 2], "who": "ann"} for n in range(30)]
    of_file = inspect(lines(*records))
    for data in (records, pl.DataFrame(records), pl.LazyFrame(records), pandas.DataFrame(records)):
        inspection = inspect(data)
        assert inspection.column_rows() == of_file.column_rows()
        assert (inspection.roles, inspection.labels) == (of_file.roles, of_file.labels)
        assert "in memory: records in memory" in inspection.text() and inspection.trial == of_file.trial
        assert yaml.safe_load(inspection.recipe())["ingest"]["paths"] == ["CHOOSE"]
    for other in (None, 5):
        with pytest.raises(SettingError, match="a polars or pandas frame"):
            inspect(other)


def test_a_misspelt_column_of_texts_is_answered_with_the_nearest(lines):
    with pytest.raises(FormatError, match="Did you mean 'answer'"):
        read(lines({"question": "q", "answer": "a", "label": True}), prompt="question", completion="answr")


def test_records_of_dicts_become_a_frame_and_anything_else_is_refused():
    assert frame_in_memory([{"row_id": "a", "trusted_label": None}], who="with_reviews").rows() == [("a", None)]
    for other in (None, 3, "verdicts.csv"):
        with pytest.raises(SettingError, match="with_reviews takes a polars or pandas frame"):
            frame_in_memory(other, who="with_reviews")
