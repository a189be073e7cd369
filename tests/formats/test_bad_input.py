"""Bad input: what is wrong with one record sets that record aside, what is wrong with a file is an error."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ktodata.errors import EmptyDataError, FormatError, KtodataError, LabelError, MissingExtraError, SettingError
from ktodata.formats import IngestResult, read
from ktodata.formats.table import RAW_CHARS
from ktodata.report.sections.flow_section import reading_account

GOOD = {"prompt": "sky?", "completion": "blue", "label": True}
SURROGATE = '{"prompt": "sky?", "completion": "blue \\ud800", "label": true}'


def reasons(result: IngestResult) -> list[tuple[int, str]]:
    return result.quarantine.select("line", "reason").rows()


# --- one record --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"prompt": "sky?", "completion": ', "malformed_json"),
        ("[" * 100_000, "malformed_json"),
        ("1" * 5000, "not_an_object"),  # more digits than Python turns into a number
        ("[1, 2]", "not_an_object"),
        ("null", "not_an_object"),
        (b'{"prompt": "sky \xff", "completion": "blue", "label": true}', "invalid_utf8"),
        (b'{"prompt": "sky \xed\xa0\x80", "completion": "blue", "label": true}', "invalid_utf8"),  # a surrogate in UTF-8
        (b'{"prompt": "sky \0", "completion": "blue", "label": true}', "nul"),
        (b"\0" * 64, "nul"),  # what a crashed writer leaves behind
        ({**GOOD, "completion": "blue \0"}, "nul"),
        (SURROGATE, "lone_surrogate"),
        ({**GOOD, "completion": True}, "not_text"),
        ({**GOOD, "completion": None}, "not_text"),
        ({**GOOD, "prompt": 3}, "not_text"),
        ({**GOOD, "prompt": []}, "no_turns"),
        ({**GOOD, "prompt": ["sky?"]}, "not_a_turn"),
        ({**GOOD, "prompt": [{"content": "sky?"}]}, "not_a_turn"),
        ({**GOOD, "prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "not_text"),
        ({**GOOD, "completion": [{"role": "user", "content": "blue"}]}, "no_assistant_turn"),
        ({**GOOD, "completion": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "blue"}]}, "several_turns"),
        ({"messages": [{"role": "user", "content": "sky?"}], "label": True}, "no_assistant_turn"),
        ({"messages": [{"role": "assistant", "content": "blue"}], "label": True}, "no_prompt"),
        ({"prompt": "sky?", "completion": "blue"}, "label_missing"),
        ({"chosen": "blue", "rejected": "green"}, "no_prompt"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: x\n\nAssistant: b"}, "prompts_differ"),
        ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a"}, "no_assistant_turn"),
        ({"prompt": "sky?", "response": "blue", "helpfulness": 4}, "needs_threshold"),
        ({"instruction": "sky?", "completions": []}, "no_completions"),
        ({"question": "sky?", "answer": "blue"}, "unknown_format"),
        ({"id": "\ud800", **GOOD}, "lone_surrogate"),
    ],
)
def test_one_bad_record_among_good_ones(record, reason: str, lines):
    result = read(lines(GOOD, record, {**GOOD, "label": False}))
    assert result.feedback["source_line"].to_list() == [1, 3]
    assert reasons(result) == [(2, reason)]
    assert result.quarantine["file"].to_list() == ["thumbs.jsonl"]
    assert result.metrics["quarantined"] == {reason: 1}
    assert (result.metrics["records"], result.metrics["records_used"]) == (3, 2)


def test_the_raw_text_is_kept_as_valid_text(lines):
    """16 characters before the byte that is no UTF-8; the surrogate stays as the six characters of its escape."""
    result = read(lines(GOOD, b'{"prompt": "sky \xff', SURROGATE))
    assert result.quarantine["raw"].to_list() == ['{"prompt": "sky \ufffd', SURROGATE]
    assert result.quarantine["raw_chars"].to_list() == [17, len(SURROGATE)]


def test_a_long_raw_text_is_cut_and_its_length_is_said(lines):
    broken = '{"prompt": "' + "x" * 50_000
    quarantine = read(lines(GOOD, broken)).quarantine
    assert quarantine["raw"].to_list() == [broken[:RAW_CHARS]]
    assert quarantine["raw_chars"].to_list() == [50_012]


def test_blank_lines_and_a_byte_order_mark_are_no_records(lines):
    result = read(lines(b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "", "   ", json.dumps(GOOD) + "\r"))
    assert result.feedback["source_line"].to_list() == [1, 4]
    assert result.metrics["records"] == 2


def test_mixed_formats_are_each_read_in_their_own(lines):
    talk = [{"role": "user", "content": "sky?"}, {"role": "assistant", "content": "blue"}]
    pair = {"prompt": "sky?", "chosen": "blue", "rejected": "red"}
    path = lines(GOOD, {"messages": talk, "kto_tag": True}, pair, {"messages": talk, "label": False})
    result = read(path)
    assert result.metrics["files"][0]["formats"] == {"llamafactory_sharegpt": 1, "ms_swift": 1, "trl": 1, "trl_paired": 1}
    assert result.feedback["source_line"].to_list() == [1, 2, 3, 3, 4]


def test_with_a_named_format_a_record_of_another_is_set_aside_and_named(lines):
    talk = [{"role": "user", "content": "sky?"}, {"role": "assistant", "content": "blue"}]
    result = read(lines(GOOD, {"messages": talk, "label": True}), format="trl")
    assert reasons(result) == [(2, "other_format")]
    assert "looks like ms_swift" in result.quarantine["detail"][0]


def test_a_completion_of_20_mb_on_one_line(lines):
    long = "x" * 20_000_000
    result = read(lines(GOOD, {**GOOD, "completion": long}, {**GOOD, "completion": long + "\0"}))
    assert result.feedback["completion"].str.len_bytes().to_list() == [4, 20_000_000]
    assert result.quarantine["raw"].str.len_chars().to_list() == [RAW_CHARS]
    assert result.quarantine["raw_chars"][0] > 20_000_000


def test_json_booleans_as_responses_take_their_pair_with_them(lines):
    base = {"prompt": "Is it?", "response2": "No.", "preference": 1}
    result = read(lines({**base, "response1": True}, {**base, "response1": "Yes."}))
    assert reasons(result) == [(1, "not_text")]
    assert result.quarantine["detail"].to_list() == ["response1 is a boolean, not text"]
    assert result.feedback.height == 2


def test_texts_are_never_altered(lines):
    odd = " <script>alert(1)</script> \u202e[bold]$x$\r\n\t\u200b\x07 "
    assert read(lines({**GOOD, "prompt": odd, "completion": odd})).feedback.select("prompt", "completion").row(0) == (odd, odd)


def test_zero_records_that_can_be_used(lines):
    with pytest.raises(FormatError, match=r"none of 2 records can be used: malformed_json 2 \(first: thumbs.jsonl line 1"):
        read(lines("{", "{"))


# --- a whole file ------------------------------------------------------------------------------------------------------


def test_a_missing_file_names_its_nearest(lines, tmp_path: Path):
    lines(GOOD)
    with pytest.raises(FormatError, match=r"there is no file .*thumb\.jsonl.*Nearest in .*: thumbs\.jsonl"):
        read(tmp_path / "thumb.jsonl")
    with pytest.raises(FormatError, match="there is no file"):
        read(tmp_path / "no" / "such" / "folder" / "a.jsonl")


def test_a_glob_that_matches_nothing(lines, tmp_path: Path):
    lines(GOOD)
    with pytest.raises(FormatError, match=r"no file matches .*\*\.csv"):
        read(str(tmp_path / "*.csv"))


def test_no_paths_an_unknown_kind_and_a_folder(tmp_path: Path):
    with pytest.raises(SettingError, match="paths is empty"):
        read([])
    (tmp_path / "thumbs.xlsx").write_bytes(b"PK")
    with pytest.raises(FormatError, match=r"what kind of file .*thumbs\.xlsx"):
        read(tmp_path / "thumbs.xlsx")
    with pytest.raises(FormatError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv"])
@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EmptyDataError, match=f"'{name}' holds no records"):
        read(tmp_path / name)


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", b""), ("a.json", b"[]"), ("a.csv", b"prompt,completion,label\n")])
def test_an_empty_file_among_others_is_no_error_and_is_told(name: str, content: bytes, lines, tmp_path: Path):
    """A day without feedback."""
    (tmp_path / name).write_bytes(content)
    result = read([tmp_path / name, lines(GOOD)])
    assert result.feedback.height == 1 and [file["records"] for file in result.metrics["files"]] == [0, 1]
    assert f"1 file holds no record: {name}" in reading_account(result.metrics).lines()


def test_several_files_none_of_which_holds_a_record(tmp_path: Path):
    for name in ("a.jsonl", "b.csv"):
        (tmp_path / name).touch()
    with pytest.raises(EmptyDataError, match=r"'a\.jsonl' holds no records"):
        read([tmp_path / "a.jsonl", tmp_path / "b.csv"])


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_a_truncated_archive_is_not_used_in_part(suffix: str, pack, tmp_path: Path):
    content = b"".join(json.dumps({**GOOD, "completion": f"{n * 7919}"}).encode() + b"\n" for n in range(5_000))
    whole = tmp_path / f"whole.jsonl{suffix}"
    whole.write_bytes(pack(content))
    assert read(whole).feedback.height == 5_000
    cut = tmp_path / f"cut.jsonl{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(FormatError, match=r"is damaged or cut off after line [\d,]+: .*Nothing of it is used"):
        read(cut)


def test_parquet_and_json_that_are_not(tmp_path: Path):
    for name in ("a.parquet", "a.json"):
        (tmp_path / name).write_bytes(b'[{"prompt": "sky?"')
        with pytest.raises(FormatError, match=rf"'{name}' (cannot be read as Parquet|is not JSON)"):
            read(tmp_path / name)


def test_a_quote_that_is_never_closed_in_a_csv(tmp_path: Path):
    (tmp_path / "a.csv").write_text('prompt,completion,label\nsky?,blue,true\nsky?,"red,false\nsky?,green,true\n')
    with pytest.raises(FormatError, match=r"a quote opened in the record at line 3 is never closed"):
        read(tmp_path / "a.csv", label={"true": True, "false": False})


@pytest.mark.parametrize(
    ("content", "message"),
    [('"', "at line 1 is never closed"), ('\n\n"a', "at line 3 is never closed"), ('"a"b,c\n1,2\n', "line 1 cannot be read")],
)
def test_column_names_that_are_no_csv(tmp_path: Path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / "a.csv")


def test_a_csv_column_that_is_there_twice_must_be_told_apart(tmp_path: Path):
    (tmp_path / "a.csv").write_text("prompt,completion,label,label\nsky?,blue,true,false\n")
    with pytest.raises(LabelError, match=r"label \(1\), label \(2\)"):
        read(tmp_path / "a.csv", label={"true": True, "false": False})
    assert read(tmp_path / "a.csv", label={"column": "label (2)", "false": False}).feedback["label"].to_list() == [False]


def test_a_hub_id_that_cannot_be_reached_and_a_library_that_is_not_there(monkeypatch):
    with pytest.raises(FormatError, match=r"'nobody/nothing-here' is no file here, and as a data set on the hub"):
        read("nobody/nothing-here")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ktodata\[hub\]'"):
        read("nobody/nothing-here")


# --- anything ----------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
turns = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", 3]), "content": json_values}), max_size=3)
known_columns = st.sampled_from(
    [
        "prompt",
        "completion",
        "label",
        "messages",
        "conversations",
        "kto_tag",
        "chosen",
        "rejected",
        "instruction",
        "input",
        "output",
        "system",
        "history",
        "response1",
        "response2",
        "preference",
        "data",
        "annotations",
        "fields",
        "responses",
        "label.responses",
        "inputs",
        "outputs",
        "feedback",
        "scores",
        "value",
        "dataType",
        "key",
        "score",
        "completions",
        "response",
        "helpfulness",
        "type",
        "output_A",
        "output_B",
        "id",
        "name",
    ]
)
words = st.sampled_from(
    ["BOOLEAN", "CATEGORICAL", "binary_feedback", "pairwise_feedback", "\n\nHuman: a\n\nAssistant: b", "submitted"]
)
records = st.dictionaries(known_columns, json_values | turns | words, max_size=8)
anything = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b" ")) | records.map(lambda r: json.dumps(r).encode())


@settings(max_examples=80, deadline=None)
@given(content=st.lists(anything, max_size=6), label=st.sampled_from([None, "label", {True: True, "a": False}]))
@example(content=[b'{"type": []}', b'{"data": 1, "annotations": {}}'], label=None)
@example(content=[b'{"input": "", "output": "", "dataType": "BOOLEAN", "value": []}'], label=None)
def test_any_bytes_are_accounted_for(content: list[bytes], label, tmp_path_factory):
    """The good first record makes it certain that something can be used: each further line must be a row or set aside."""
    path = tmp_path_factory.getbasetemp() / "anything.jsonl"
    path.write_bytes(b"\n".join([json.dumps(GOOD).encode(), *content]))
    try:
        result = read(path, label=label)
    except LabelError as unasked:  # a line that is a trace with scores of several names: which is the label must be said
        assert "which verdict is the label" in str(unasked)
        return
    given_records = 1 + sum(bool(line.strip()) for line in content)
    assert result.metrics["records"] == result.metrics["records_used"] + result.quarantine.height == given_records
    assert result.metrics["records_used"] == result.feedback["source_line"].n_unique()


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.parquet"]))
def test_any_file_is_read_or_refused(content: bytes, name: str, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    with pytest.raises(KtodataError):  # two hundred random bytes are never feedback
        read(path)


def test_a_reading_shows_its_counts(tmp_path):
    (tmp_path / "f.jsonl").write_text(
        '{"prompt": "p", "completion": "c", "label": true}\n{"prompt": "p", "completion": "c", "label": "<b>"}\n'
    )
    reading = read(tmp_path / "f.jsonl")
    assert repr(reading).splitlines() == ["2 records, 1 rows", "1 quarantined: label_unmapped (values: '<b>' 1)"]
    quarantined = "1 quarantined: label_unmapped (values: &#x27;&lt;b&gt;&#x27; 1)"
    assert reading._repr_html_() == f"<p>2 records, 1 rows</p><ul><li>{quarantined}</li></ul>"
