"""Records read column by column give what reading them one by one gives: rows, quarantine, counts and errors."""

import json
import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ktodata.errors import KtodataError
from ktodata.formats import FORMATS, read, reading
from ktodata.formats.columnar.plain_records import plain_rows
from ktodata.formats.dialects import detect_format
from ktodata.formats.format import Fields

GOOD = {
    "prompt": "What colour is the sky?",
    "completion": " Blue.",
    "label": True,
    "rater": "ann",
    "created_at": "2025-05-01T10:00:00Z",
    "source": "app",
    "id": "q-1",
    "metadata": {"score": 3, "tags": ["a"]},
}
ABOUT = {"rater": "rater", "created_at": "created_at", "source": "source"}
ODD_VALUES = (
    *(None, True, False, 0, 1, -3, 2.5, -0.0, math.nan, math.inf, 10**400, "", " ", "\n", "no", "1", "3,5", "Ärger 🙂"),
    *("a\0b", "a\ud800b", '[{"role": "user", "content": "hi"}]', ' [{"role": "user"}]', "[not messages]", "\n\nHuman: a", [], {}),
    *([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}], {"role": "assistant", "content": "ho"}, ["x"]),
    *("2025-05-01 10:00:00", "2025-05-01T10:00:00.5+00:00", "2025-05-01T10:00:00.123456", "2025-02-30T10:00:00Z"),
    *("2025-05-01T24:00:00Z", "2025-05-01T10:00:60Z", "2025-05-01T10:00:00+02:00", "2025-05-01", 1_746_000_000, "1746000000.5"),
    *("0001-01-01T00:00:00Z", "Thu, 01 May 2025 10:00:00 +0000", "pairwise_feedback", "binary_feedback"),
)
ODD_KEYS = ("type", "chosen", "rejected", "tools", "system", "images", "query", "response", "output", "score", "text", "")
BROKEN_LINES = (b"{", b"[1]", b"null", b'{"prompt": "a", "prompt": "b"}', b'{"prompt": "\xff"}', b'{"a": 1} {"b": 2}', b"\0")


def outcome(min_columnar, *args, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "MIN_COLUMNAR", min_columnar)
        try:
            return read(*args, **options)
        except KtodataError as error:
            return type(error), str(error)


def read_both_ways(*args, **options):
    """What reading gives by columns wherever that can be, after a look that one by one gives the same."""
    by_columns, one_by_one = outcome(1, *args, **options), outcome(math.inf, *args, **options)
    if isinstance(one_by_one, tuple):
        assert by_columns == one_by_one
        return None
    assert_frame_equal(by_columns.feedback, one_by_one.feedback, check_exact=True)
    assert_frame_equal(by_columns.quarantine, one_by_one.quarantine)
    assert json.dumps(by_columns.metrics, default=str) == json.dumps(one_by_one.metrics, default=str)
    return by_columns


@pytest.fixture
def n_by_columns(monkeypatch):
    """How many rows were read by columns."""
    heights = []

    def counted(*given, **named):
        rows = plain_rows(*given, **named)
        heights.append(len(rows.places))
        return rows

    monkeypatch.setattr("ktodata.formats.reading.plain_rows", counted)
    return heights


def test_only_what_is_unusual_is_read_alone(n_by_columns, lines):
    odd = {**GOOD, "completion": [{"role": "assistant", "content": "Blue."}]}
    result = read_both_ways(lines(GOOD, odd, {**GOOD, "label": None}, {**GOOD, "label": False}, b"{"), **ABOUT)
    assert n_by_columns == [2]
    assert result.feedback["source_line"].to_list() == [1, 2, 4]
    assert result.quarantine["line"].to_list() == [3, 5]


mutation = st.tuples(st.sampled_from((*GOOD, *ODD_KEYS)), st.sampled_from(("set", "drop", "first")), st.sampled_from(ODD_VALUES))


def mutated(record, changes):
    for key, change, value in changes:
        record = {name: record[name] for name in record if name != key} if change == "drop" else {**record, key: value}
        if change == "first":
            record = {key: value} | record
    return record


@pytest.mark.parametrize(
    "options",
    [
        ABOUT,
        {},
        ABOUT | {"keep": {"was": "metadata", "tag": "metadata.tags", "s": "source"}, "trusted": "label"},
        ABOUT | {"label": {"column": "label", "values": [[True, True], ["no", False], [1, True], [0, None]]}},
        {"prompt": ["prompt", "source"], "completion": "completion", "label": {"column": "metadata.score", "at_least": 3}},
        {
            "prompt": "prompt",
            "label": {"column": "label", "at_least": 1, "undesirable_at_most": 0},
            "split": "source",
            "join_parts": False,
        },
        {"prompt": "prompt", "label": "label", "created_at": {"column": "created_at", "format": "%Y-%m-%d"}},
        {"format": "trl", "transcripts": True},
        {"format": "mapping", "votes": {"label": "a", "rater": "b"}, "label": {"no": False, True: True, "ann": True}},
        {"format": "halos"},
    ],
)
@settings(max_examples=25, deadline=None)
@given(records=st.lists(st.one_of(st.lists(mutation, max_size=3), st.sampled_from(BROKEN_LINES)), min_size=1, max_size=8))
def test_any_records_are_read_alike(options, records, tmp_path_factory):
    path = tmp_path_factory.mktemp("columnar") / "records.jsonl"
    lines = [record if isinstance(record, bytes) else json.dumps(mutated(GOOD, record)).encode() for record in records]
    path.write_bytes(b"\n".join(lines) + b"\n")
    read_both_ways(path, **options)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_format_is_read_alike(format, data, tmp_path_factory):
    """Its example with values of other types, from files that are told apart by their content, and with keys of other formats."""
    keys = st.sampled_from(sorted({*format.example, *format.fields, *ODD_KEYS, *GOOD}))
    change = st.tuples(keys, st.sampled_from(("set", "drop", "first")), st.sampled_from((*ODD_VALUES, "plain text", "more text")))
    records = [mutated(format.example, changes) for changes in data.draw(st.lists(st.lists(change, max_size=3), max_size=8))]
    path = tmp_path_factory.mktemp("columnar") / "records.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in [*records, format.example]))
    named = {"format": format.name} if data.draw(st.booleans()) else {}
    read_both_ways(path, **named, **(format.settings if data.draw(st.booleans()) else {}))


FLAT_VALUES = st.sampled_from([value for value in ODD_VALUES if not isinstance(value, list | dict)])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_is_flat_is_recognised_by_its_keys(data):
    """`Format.looks_into` names every field whose value decides."""
    looked_into = {name for format in FORMATS.values() for name in format.looks_into}
    fields = sorted({name for format in FORMATS.values() for name in format.fields} - looked_into)
    keys = data.draw(st.lists(st.sampled_from(fields), min_size=1, max_size=6, unique=True))
    first, second = (detect_format({key: data.draw(FLAT_VALUES) for key in keys}, Fields()) for _ in range(2))
    assert first is second


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_are_read_alike(suffix, n_by_columns, tmp_path):
    table = pl.DataFrame(
        {
            "prompt": ["a", "b", None, "d", "e\0"],
            "completion": ["x", "y", "z", '[{"role": "user", "content": "hi"}]', "v"],
            "thumb": ["up", "down", "up", "up", "sideways"],
            "rater": ["ann", None, "", "ben", "ann"],
            "score": [1, None, 3, 4, 5],
            "created_at": ["2025-05-01T10:00:00Z", "", None, "yesterday", "2025-05-01 10:00:00.25"],
        }
    )
    path = tmp_path / f"table.{suffix}"
    table.write_csv(path) if suffix == "csv" else table.write_parquet(path)
    label = {"column": "thumb", "up": True, "down": False}
    read_both_ways(path, prompt="prompt", label=label, rater="rater", created_at="created_at", keep=["score"])
    assert n_by_columns == [3 if suffix == "csv" else 2]


def test_values_in_memory_are_read_alike():
    records = [{**GOOD, "n": value} for value in ODD_VALUES]
    read_both_ways([*records, GOOD, {**GOOD, "created_at": None}], **ABOUT, keep=["n"])


def test_rows_with_equal_content_are_numbered_alike(lines):
    """Each of the four is named by content and place, although two are read by columns and two alone."""
    alone = {**GOOD, "completion": [{"role": "assistant", "content": " Blue."}]}
    assert read_both_ways(lines(alone, GOOD, alone, GOOD), **ABOUT).feedback["row_id"].n_unique() == 4
