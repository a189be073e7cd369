"""Every kind of file, names of rows and sources, times, kept columns."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest

from ktodata.errors import FormatError, SettingError
from ktodata.feedback import COLUMNS, check_feedback
from ktodata.formats import read
from ktodata.formats.times import moment

ROWS = [
    {"id": "a", "prompt": "sky?", "completion": "blue", "label": True, "at": "2025-01-01T00:00:00Z", "n": 1},
    {"id": "b", "prompt": "sky?", "completion": "red", "label": False, "at": "2025-01-02T00:00:00Z", "n": 2},
]


def test_the_feedback_table_is_one(lines):
    feedback = read(lines(*ROWS)).feedback
    check_feedback(feedback)
    assert feedback.columns == list(COLUMNS)
    assert feedback["source_id"].to_list() == ["a", "b"]
    assert feedback["votes"].to_list() == [[{"rater": None, "label": label, "created_at": None}] for label in (True, False)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.parquet", "a.csv", "a.tsv", "a.arrow", "a.db", "saved"])
def test_all_kinds_of_files_give_the_same_rows(name: str, lines, tmp_path: Path):
    path = tmp_path / name
    table = pl.DataFrame(ROWS)
    if name == "saved":
        import datasets

        datasets.Dataset.from_list(ROWS).save_to_disk(path)
    elif name.endswith("parquet"):
        table.write_parquet(path)
    elif name.endswith("csv"):
        table.write_csv(path)
    elif name.endswith("tsv"):
        table.write_csv(path, separator="\t")
    elif name.endswith("arrow"):
        table.write_ipc(path)
    elif name.endswith("db"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"create table thumbs ({', '.join(ROWS[0])})")
            connection.executemany("insert into thumbs values (?, ?, ?, ?, ?, ?)", [tuple(row.values()) for row in ROWS])
    elif name.endswith("json") and not name.endswith("ndjson"):
        path.write_text(json.dumps(ROWS, indent=1))
    else:
        lines(*ROWS, name=name)
    label = {"csv": {"true": True, "false": False}, "tsv": {"true": True, "false": False}, "db": {1: True, 0: False}}.get(
        name[2:]
    )
    expected = read(lines(*ROWS, name="plain.jsonl"), created_at="at").feedback.drop("source", "source_line")
    assert read(path, label=label, created_at="at").feedback.drop("source", "source_line").equals(expected)


def test_a_hub_id_is_given_to_datasets_as_it_is(monkeypatch):
    import datasets

    splits = {"train": datasets.Dataset.from_list(ROWS[:1]), "test": datasets.Dataset.from_list(ROWS[1:])}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(splits) if name == "team/thumbs" else None)
    result = read("team/thumbs", join_parts=True)
    assert result.feedback.select("source", "source_line", "source_id").rows() == [
        ("team/thumbs", 1, "a"),
        ("team/thumbs", 2, "b"),
    ]
    assert result.metrics["files"][0] | {"formats": None} == {
        "name": "team/thumbs",
        "read_as": "a data set of the hub",
        "bytes": None,
        "sha256": None,
        "records": 2,
        "formats": None,
        "rows": 2,
    }


def test_a_saved_data_set_that_is_damaged(tmp_path: Path):
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(FormatError, match="'saved' cannot be read as a saved data set"):
        read(tmp_path / "saved")


def test_json_lines_under_the_name_json_and_a_single_object(tmp_path: Path):
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "one.json").write_text(json.dumps(ROWS[0], indent=2))
    assert read(tmp_path / "lines.json").feedback["source_line"].to_list() == [1, 2]
    assert read(tmp_path / "one.json").feedback["source_line"].to_list() == [1]


def test_csv_lines_quotes_and_bad_records(tmp_path: Path):
    """The first record takes lines 2 and 3, so the second starts at line 4; line 5 has a field too many, line 6 is Latin-1."""
    content = 'prompt,completion,label\n"sky,\nor séa?","say ""blue""",true\nsky?,red,false\na,b,true,d\n'
    (tmp_path / "a.csv").write_bytes(content.encode() + b'caf\xe9,b,true\na,"b"c,true\n')
    result = read(tmp_path / "a.csv", label={"true": True, "false": False})
    assert result.feedback.select("source_line", "prompt", "completion").rows() == [
        (2, "sky,\nor séa?", 'say "blue"'),
        (4, "sky?", "red"),
    ]
    assert result.quarantine.select("line", "reason").rows() == [(5, "field_count"), (6, "invalid_utf8"), (7, "malformed_csv")]
    assert result.quarantine["raw"][1] == "caf?,b,true"


def test_csv_text_is_no_boolean_until_the_recipe_says_so(tmp_path: Path):
    (tmp_path / "a.csv").write_text("prompt,completion,label\nsky?,blue,true\nsky?,red,1\n")
    result = read(tmp_path / "a.csv", label={"1": False})
    assert result.quarantine.select("line", "reason").rows() == [(2, "label_unmapped")]


def test_a_long_field_in_a_csv(tmp_path: Path):
    (tmp_path / "a.csv").write_text(f"prompt,completion,label\nsky?,{'x' * 300_000},1\n")
    assert read(tmp_path / "a.csv", label={"1": True}).feedback["completion"].str.len_bytes().to_list() == [300_000]


# --- names -------------------------------------------------------------------------------------------------------------


def test_row_ids_do_not_depend_on_the_order_of_files_or_on_other_rows(lines):
    """Two of the four rows are equal to the last letter, one in each file; a third file adds a row."""
    twin = {"prompt": "sky?", "completion": "blue", "label": True}
    first, second = lines(twin, ROWS[0], name="one.jsonl"), lines(ROWS[1], twin, name="two.jsonl")
    third = lines({**twin, "label": False}, name="three.jsonl")
    names = [
        {row[0]: row[1:] for row in read(paths).feedback.select("row_id", "source", "source_line").rows()}
        for paths in ([first, second], [second, first], [third, second, first])
    ]
    assert len(names[0]) == 4
    assert names[0] == names[1]
    assert names[0].items() < names[2].items()
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names[2])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "sea?"},
        {"completion": "grey"},
        {"label": False},
        {"id": "c"},
        {"who": "bob"},
        {"at": "2025-01-03"},
        {"prompt": [{"role": "user", "content": "sky?"}]},
        {"prompt": "sky?b", "completion": "lue"},
    ],
)
def test_a_row_id_stands_for_the_content(change, lines):
    row = {**ROWS[0], "who": "ann"}
    feedback = read(lines(row, {**row, **change}), rater="who", created_at="at").feedback
    assert feedback["row_id"].n_unique() == 2
    again = read(lines(row, {**row, "n": 5}), rater="who", created_at="at").feedback
    assert again["row_id"][0] == feedback["row_id"][0]


def test_sources_are_file_names_told_apart_by_folder_where_they_must_be(lines, tmp_path: Path):
    for folder in ("june", "july"):
        (tmp_path / folder).mkdir()
        lines(*ROWS, name=f"{folder}/thumbs.jsonl")
    both = read(str(tmp_path / "*" / "thumbs.jsonl"))
    assert both.feedback["source"].unique(maintain_order=True).to_list() == ["july/thumbs.jsonl", "june/thumbs.jsonl"]
    assert read(tmp_path / "july" / "thumbs.jsonl").feedback["source"].to_list() == ["thumbs.jsonl"] * 2
    assert str(tmp_path) not in json.dumps(both.metrics)


def test_a_file_named_twice_is_read_once(lines, tmp_path: Path):
    path = lines(*ROWS)
    assert read([path, str(tmp_path / "*.jsonl")]).feedback.height == 2


def test_facts_count_and_name_what_was_read(lines, tmp_path: Path):
    import hashlib

    path = lines(*ROWS, "{")
    metrics = read(path, rater="id").metrics
    assert metrics["files"] == [
        {
            "name": "thumbs.jsonl",
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "read_as": "JSON lines, UTF-8",
            "records": 3,
            "formats": {"trl": 2},
            "rows": 2,
        }
    ]
    assert metrics["labels"] == {"desirable": 1, "undesirable": 1}
    assert (metrics["rows"], metrics["votes"], metrics["raters"], metrics["busiest_raters"]) == (2, 2, 2, {"a": 1, "b": 1})
    json.dumps(metrics)


# --- columns -----------------------------------------------------------------------------------------------------------


def test_settings_name_columns_also_inside_others(lines):
    row = {"q": "sky?", "a": "blue", "ok": True, "meta": {"user": 7, "model": "small"}, "pair": 3, "where": "app"}
    feedback = read(
        lines(row),
        prompt="q",
        completion="a",
        label={"column": "ok", True: True, False: False},
        rater="meta.user",
        model="meta.model",
        pair_id="pair",
        source="where",
    ).feedback
    assert feedback.select("rater", "model", "pair_id", "source").row(0) == ("7", "small", "3", "app")


def test_kept_columns_keep_their_type_and_mixed_ones_are_text(lines):
    rows = [
        {**ROWS[0], "i": 1, "f": 0.5, "b": True, "t": "x", "mixed": 1, "deep": {"a": [1]}, "big": 2**70},
        {**ROWS[1], "i": 2, "f": 1, "b": None, "t": "y", "mixed": "1", "deep": [], "big": 1},
    ]
    feedback = read(
        lines(*rows), keep={"i": "i", "f": "f", "b": "b", "text": "t", "mixed": "mixed", "deep": "deep", "big": "big"}
    ).feedback
    assert feedback.select("i", "f", "b", "text").rows() == [(1, 0.5, True, "x"), (2, 1.0, None, "y")]
    assert feedback.select("mixed", "deep", "big").rows() == [("1", '{"a": [1]}', str(2**70)), ("1", "[]", "1")]
    assert feedback.columns == [*COLUMNS, "i", "f", "b", "text", "mixed", "deep", "big"]


def test_several_prompt_columns_are_joined_and_empty_ones_left_out(lines):
    path = lines(*({"i": "Sort.", "x": x, "a": "1 2", "label": True} for x in ("2 1", "")))
    assert read(path, prompt=["i", "x"], completion="a").feedback["prompt"].to_list() == ["Sort.\n2 1", "Sort."]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2025-03-01T12:00:00", datetime(2025, 3, 1, 12, tzinfo=UTC)),
        ("2025-03-01T12:00:00+02:00", datetime(2025, 3, 1, 10, tzinfo=UTC)),
        (" 2025-03-01 ", datetime(2025, 3, 1, tzinfo=UTC)),
        (1740830400, datetime(2025, 3, 1, 12, tzinfo=UTC)),
        (1740830400000, datetime(2025, 3, 1, 12, tzinfo=UTC)),
        ("1740830400", datetime(2025, 3, 1, 12, tzinfo=UTC)),
        (1740830400.5, datetime(2025, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
        (datetime(2025, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))), datetime(2025, 3, 1, 10, tzinfo=UTC)),
        (date(2025, 3, 1), datetime(2025, 3, 1, tzinfo=UTC)),
        ("yesterday", None),
        (True, None),
        (float("nan"), None),
        (1e300, None),
        ([], None),
        ("", None),
    ],
)
def test_times(given, expected: datetime | None):
    assert moment(given) == expected


def test_times_that_are_none_are_counted(lines):
    rows = [{**ROWS[0], "at": at} for at in ("yesterday", 1740830400, None)]
    result = read(lines(*rows), created_at="at")
    assert result.feedback["created_at"].to_list() == [None, datetime(2025, 3, 1, 12, tzinfo=UTC), None]
    assert result.metrics["unparseable_times"] == 1
    assert result.feedback["votes"].to_list()[1][0]["created_at"] == datetime(2025, 3, 1, 12, tzinfo=UTC)


# --- settings of the file itself ---------------------------------------------------------------------------------------


def test_settings_say_what_the_content_does_not(tmp_path: Path):
    content = "prompt;completion, of the model;label\nž?;blue, blue;1\nsky?;red;0\n"
    (tmp_path / "a.csv").write_bytes(content.encode("cp1250"))
    result = read(
        tmp_path / "a.csv",
        encoding="cp1250",
        delimiter=";",
        completion="completion, of the model",
        prompt="prompt",
        label={"1": True, "0": False},
    )
    assert result.feedback["prompt"].to_list() == ["ž?", "sky?"]
    assert "semicolon, CP1250" in result.metrics["files"][0]["read_as"]


def test_a_guessed_encoding_is_in_the_record_of_what_was_read(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("prompt,completion,label\ncafé?,thé,1\n".encode("cp1252"))
    result = read(tmp_path / "a.csv", label={"1": True})
    assert result.feedback["completion"].to_list() == ["thé"]
    assert "CP1252 (a guess)" in result.metrics["files"][0]["read_as"]
    assert "read as Windows text (cp1252), which gives e.g. 'café?,thé,1': look at it" in repr(result)


def test_the_table_of_a_database_is_named(tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        for table in ("thumbs", "old"):
            connection.execute(f"create table {table} (prompt, completion, label)")
            connection.execute(f"insert into {table} values ('sky?', '{table}', 1)")
    with pytest.raises(SettingError, match="several tables: thumbs"):
        read(tmp_path / "a.db", label={1: True})
    assert read(tmp_path / "a.db", table="old", label={1: True}).feedback["completion"].to_list() == ["old"]


def test_a_line_longer_than_the_limit_is_set_aside(lines):
    result = read(lines(*ROWS, {**ROWS[0], "completion": "x" * 60_000}), max_record_mb=0.05)
    assert result.quarantine.select("line", "reason").rows() == [(3, "too_long")]


def test_a_key_twice_and_a_number_without_bounds_are_set_aside(lines):
    rated = [{"prompt": "sky?", "completion": "blue", "score": score} for score in (5, 10**400)]
    twice = '{"prompt": "sky?", "completion": "blue", "score": 5, "score": 1}'
    result = read(lines(*rated, twice), label={"column": "score", "at_least": 4})
    assert result.quarantine.select("line", "reason").rows() == [(2, "label_unmapped"), (3, "duplicate_keys")]


def test_conversations_as_json_text_in_a_cell(tmp_path: Path):
    """The second is not JSON, the third has a key twice, the fourth ends with the user's turn."""
    talk = [{"role": "user", "content": "sky?"}, {"role": "assistant", "content": "blue"}]
    cells = [json.dumps(talk), "[{broken", '[{"role": "user", "role": "x"}]', json.dumps(talk[:1])]
    pl.DataFrame({"talk": cells, "label": ["1"] * 4}).write_csv(tmp_path / "a.csv")
    result = read(tmp_path / "a.csv", messages="talk", label={"1": True})
    assert result.feedback.select("prompt", "completion").rows() == [("sky?", "blue")]
    assert result.quarantine.select("line", "reason").rows() == [
        (3, "malformed_json"),
        (4, "duplicate_keys"),
        (5, "no_assistant_turn"),
    ]
    with pytest.raises(SettingError, match="messages"):
        read(tmp_path / "a.csv", messages="talk", prompt="talk")


def test_messages_reach_into_a_record(lines):
    talk = [{"role": "user", "content": "sky?"}, {"role": "assistant", "content": "blue"}]
    result = read(
        lines({"log": {"talk": talk}, "ok": True}), messages="log.talk", label={"column": "ok", True: True, False: False}
    )
    assert result.feedback["completion"].to_list() == ["blue"]


def test_one_column_is_not_prompt_and_completion(lines):
    with pytest.raises(SettingError, match="prompt and completion both name the column 'q'"):
        read(lines({"q": "Why?", "up": True}), prompt="q", completion="q", label={"column": "up", True: True, False: False})
