"""What a file is, by its content; and its records, whatever it is."""

import bz2
import csv
import gzip
import io
import json
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ktodata.errors import EmptyDataError, FormatError, KtodataError, MissingExtraError, SettingError
from ktodata.formats.data_files import Source
from ktodata.formats.file_types.file_settings import FileSettings
from ktodata.formats.file_types.file_shape import FileShape, file_shape
from ktodata.formats.file_types.open_files import read_records

ROWS = [
    {"id": "1", "prompt": "Sky, by day?", "completion": "Blue;\nmostly.", "thumb": "up"},
    {"id": "2", "prompt": "Grass?", "completion": 'Purple "é".', "thumb": "down"},
    {"id": "3", "prompt": "Snow?", "completion": "White.", "thumb": "up"},
]


def source_of(path: Path) -> Source:
    return Source(str(path), path.name, "saved" if path.is_dir() else "file")


def shape_of(path: Path, **given) -> FileShape:
    return file_shape(source_of(path), FileSettings(**given))


def records_of(path: Path, **given) -> list[dict]:
    return [record.record for record in read_records(source_of(path), FileSettings(**given))]


def problems_of(path: Path, **given) -> list[tuple[int, str | None]]:
    records = read_records(source_of(path), FileSettings(**given))
    return [(record.line, record.problem and record.problem.reason) for record in records]


def csv_text(rows: list[dict] = ROWS, delimiter: str = ",", newline: str = "\r\n") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator=newline)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


# --- text tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a"])
def test_a_csv_is_read_by_its_content(tmp_path, encoding, delimiter, name):
    path = write(tmp_path / name, csv_text(delimiter=delimiter), encoding)
    shape = shape_of(path)
    assert (shape.kind, shape.delimiter) == ("csv", delimiter)
    assert shape.encoding_is_certain == (encoding != "cp1252")
    assert records_of(path) == ROWS


@pytest.mark.parametrize("char", [",", ";", "\t"])
def test_the_sep_line_of_excel_is_no_column_name(tmp_path, char):
    path = write(tmp_path / "a.csv", f"sep={char}\r\n{csv_text(delimiter=char)}", "utf-8-sig")
    assert shape_of(path).has_sep_line
    assert records_of(path) == ROWS
    assert [line for line, _ in problems_of(path)] == [3, 5, 6]  # the first record takes two lines


def test_a_semicolon_in_text_does_not_outvote_the_comma(tmp_path):
    rows = [{"prompt": f"a; b; c {n}", "completion": "d; e"} for n in range(5)]
    assert shape_of(write(tmp_path / "a.csv", csv_text(rows))).delimiter == ","


def test_a_letter_that_is_not_utf8_may_come_after_a_megabyte(tmp_path):
    rows = [{"prompt": "word " * 30, "completion": f"{n}"} for n in range(9_000)] + [{"prompt": "café", "completion": "naïve"}]
    path = write(tmp_path / "a.csv", csv_text(rows), "cp1252")
    assert path.stat().st_size > 1_300_000
    shape = shape_of(path)
    assert (shape.encoding, shape.encoding_is_certain) == ("cp1252", False)
    assert "café" in shape.evidence
    assert records_of(path)[-1] == {"prompt": "café", "completion": "naïve"}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Как дела?,Хорошо", "cp1251"),
        ("天空是什么颜色,蓝色的", "gbk"),
        ("하늘은 무슨 색,파란색", "euc-kr"),
        ("Ουρανός;,γαλάζιο", "iso8859-7"),
    ],
)
def test_text_of_another_code_page_is_no_windows_text(tmp_path, text, encoding):
    """Nearly all of its letters are beyond ASCII, in rows: read as cp1252 they would be words that nobody wrote."""
    lines = "prompt,completion,label\n" + f"{text},1\n" * 20
    path = write(tmp_path / "a.csv", lines, encoding)
    shape = shape_of(path)
    assert shape.encoding == "utf-8" and "say encoding: NAME" in shape.evidence
    assert {problem for _, problem in problems_of(path)} == {"invalid_utf8"}
    first, second = text.split(",")
    assert records_of(path, encoding=encoding)[0] == {"prompt": first, "completion": second, "label": "1"}


def test_utf8_with_a_bad_row_stays_utf8_and_the_row_is_set_aside(tmp_path):
    content = "a,b\nü,é\nö,x\n".encode() + b"caf\xe9,y\n"
    path = write(tmp_path / "a.csv", content)
    assert shape_of(path).encoding == "utf-8"
    assert problems_of(path) == [(2, None), (3, None), (4, "invalid_utf8")]


def test_bytes_that_windows_text_has_not_are_no_windows_text(tmp_path):
    path = write(tmp_path / "a.csv", b"a,b\ncaf\x8f,x\nnot,odd\n")
    shape = shape_of(path)
    assert (shape.encoding, shape.encoding_is_certain) == ("utf-8", False)
    assert "encoding: NAME" in shape.evidence
    assert problems_of(path) == [(2, "invalid_utf8"), (3, None)]
    assert records_of(path, encoding="mac_roman")[0]["a"] == "cafè"


def test_settings_override_what_the_content_says(tmp_path):
    path = write(tmp_path / "a.csv", "a;b,c\n1;2,3\n4;5,6\n")
    assert records_of(path, delimiter=";") == [{"a": "1", "b,c": "2,3"}, {"a": "4", "b,c": "5,6"}]
    assert records_of(path, delimiter=",")[0] == {"a;b": "1;2", "c": "3"}
    latin = write(tmp_path / "b.csv", "a,b\nž,2\n", "cp1250")
    assert records_of(latin, encoding="cp1250") == [{"a": "ž", "b": "2"}]
    damaged = write(tmp_path / "c.csv", b"a,b\nok,1\n\x81,2\n")
    assert problems_of(damaged, encoding="cp1252") == [(2, None), (3, "invalid_utf8")]


def test_an_encoding_that_the_file_is_not_in_is_an_error(tmp_path):
    for encoding in ("utf-16", "utf-32", "utf-16-le"):
        with pytest.raises(KtodataError):
            records_of(write(tmp_path / "a.csv", "a,b\n1,2\n"), encoding=encoding)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"delimiter": ";;"}, "one character"),
        ({"delimiter": "\n"}, "one character"),
        ({"encoding": "utf-9"}, "no encoding 'utf-9'"),
        ({"encoding": "base64"}, "no encoding 'base64'"),
        ({"max_record_mb": 0}, "max_record_mb"),
        ({"max_record_mb": True}, "max_record_mb"),
    ],
)
def test_settings_that_cannot_be_meant(given, words):
    with pytest.raises(SettingError, match=words):
        FileSettings(**given)


# --- JSON --------------------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "array": json.dumps(ROWS),
    "pretty array": json.dumps(ROWS, indent=2),
    "array of lines": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "wrapped": json.dumps({"data": ROWS, "meta": {"totalItems": 3}}),
    "wrapped last": json.dumps({"object": "list", "next": None, "pages": [1, 2], "data": ROWS}, indent=1),
    "wrapped twice": json.dumps({"result": {"items": ROWS, "page": {"n": 1}}, "ok": True}),
    "concatenated": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "no break between": "".join(map(json.dumps, ROWS)),
    "lists": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
    "pandas columns": json.dumps({name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}),
    "pandas index": json.dumps({str(n): row for n, row in enumerate(ROWS)}),
    "pandas split": json.dumps({"columns": list(ROWS[0]), "index": [0, 1, 2], "data": [list(row.values()) for row in ROWS]}),
}
KINDS = {"lines": "json_lines", "concatenated": "json_objects", "no break between": "json_objects"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt", "a.csv"])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_json_document_is_read_by_its_content(tmp_path, document, name, encoding):
    path = write(tmp_path / name, DOCUMENTS[document], encoding)
    expected = KINDS.get(document, "json_columns" if document[:5] in ("lists", "panda") else "json_array")
    assert shape_of(path).kind == expected
    assert records_of(path) == ROWS


@pytest.mark.parametrize(("document", "key"), [("wrapped", "data"), ("wrapped last", "data"), ("wrapped twice", "result.items")])
def test_the_list_that_holds_the_records_is_named(tmp_path, document, key):
    assert shape_of(write(tmp_path / "a.json", DOCUMENTS[document])).wrapped_in == key


def test_a_wrapped_list_longer_than_what_is_looked_at(tmp_path):
    rows = [{**ROWS[0], "id": f"{n}", "pad": "x" * 500} for n in range(2_000)]
    for extra in ({"meta": {"n": 1}}, {}):
        path = write(tmp_path / "a.json", json.dumps({**extra, "data": rows, "end": [1]}))
        assert shape_of(path).wrapped_in == "data"
        assert records_of(path) == rows


def test_a_single_record_is_not_taken_for_a_wrapper(tmp_path):
    turns = [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}]
    trace = {"id": 1, "input": "a", "output": "b", "scores": [{"name": "x", "value": 1, "dataType": "BOOLEAN"}] * 6}
    for record in ({"messages": turns, "label": True}, trace, {"chosen": turns, "rejected": turns}):
        for indent in (None, 2):
            assert records_of(write(tmp_path / "a.json", json.dumps(record, indent=indent))) == [record]


def test_table_names_the_list_to_read(tmp_path):
    path = write(tmp_path / "a.json", json.dumps({"data": [{"x": 1}], "other": {"rows": [{"y": 2}, {"y": 3}]}}))
    assert records_of(path) == [{"x": 1}]
    assert records_of(path, table="other.rows") == [{"y": 2}, {"y": 3}]
    with pytest.raises(FormatError, match=r"no list 'thing'.*table"):
        records_of(path, table="thing")


@pytest.mark.parametrize(
    ("document", "line"),
    [("[{},\n{},\n]", 3), ("[{},\n{}", 2), ('{"data": [{}],\n"meta"}', 2), ("[{}] x", 1), ('[{"a": 1 2}]', 1)],
)
def test_a_broken_document_is_an_error_that_names_the_line(tmp_path, document, line):
    with pytest.raises(FormatError, match=rf"is not JSON: .*\(line {line},"):
        records_of(write(tmp_path / "a.json", document))


def test_one_bad_value_of_a_document_is_set_aside(tmp_path):
    document = b'[{"a": 1}, {"a": 1, "a": 2}, [3], {"a": "caf\xe9"}, {"b": {"c": 1, "c": 1}}, {"a": 4}]'
    path = write(tmp_path / "a.json", document)
    assert problems_of(path) == [
        (1, None),
        (2, "duplicate_keys"),
        (3, "not_an_object"),
        (4, "invalid_utf8"),
        (5, "duplicate_keys"),
        (6, None),
    ]


def test_lines_that_are_no_record(tmp_path):
    lines = [
        '{"a": 1}',
        '{"a": 1, "b": 2, "a": 3}',
        '{"a": [{"b": 1, "b": 1}]}',
        "[" * 5000,
        "1" * 5000,
        '{"a": NaN}',
        f'{{"a": {"9" * 400}}}',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    reasons = [None, "duplicate_keys", "duplicate_keys", "malformed_json", "not_an_object", None, None]
    assert problems_of(path) == list(enumerate(reasons, start=1))
    problem = list(read_records(source_of(path)))[1].problem
    assert "'a'" in problem.detail
    assert records_of(path)[-1] == {"a": int("9" * 400)}


def test_a_deep_document_is_an_error_and_no_traceback(tmp_path):
    for document in ("[" * 100_000, '{"a":' * 100_000, "[1, " + "[" * 100_000 + "]" * 100_000 + "]"):
        with pytest.raises(KtodataError):
            records_of(write(tmp_path / "a.json", document))


# --- packed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pack", "name"), [(gzip.compress, "gzip"), (zstandard.compress, "zstd"), (bz2.compress, "bz2")])
@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl", ".csv"])
def test_several_packed_members_are_one_file_under_any_name(tmp_path, pack, name, suffix):
    parts = [json.dumps(row).encode() + b"\n" for row in ROWS]
    path = write(tmp_path / f"a{suffix}", pack(parts[0]) + pack(parts[1] + parts[2][:5]) + pack(parts[2][5:]))
    assert shape_of(path).compression == name
    assert records_of(path) == ROWS


def test_packed_formats_that_are_read_at_any_place_are_refused(tmp_path):
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=r"packed with gzip.*unpack it first"):
        shape_of(write(tmp_path / "a.parquet.gz", gzip.compress((tmp_path / "a.parquet").read_bytes())))


@pytest.mark.parametrize(
    ("start", "end"), [(b'{"prompt": "', b'"}\n'), (b"[", b""), (b'prompt,completion\n"', b'",x\n'), (b"a,b\nx,", b"\n")]
)
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz"])
def test_a_small_archive_of_one_huge_record_ends_in_a_clear_error(tmp_path, start, end, name):
    """30 MB here, where 2 are allowed; that memory stays small is measured in the test below."""
    path = write(tmp_path / name, gzip.compress(start + b"x" * 30_000_000 + end, 1))
    try:
        reasons = {reason for _, reason in problems_of(path, max_record_mb=2)}
        assert reasons <= {"too_long", "malformed_json", None} and "too_long" in reasons
    except FormatError as error:
        assert "max_record_mb" in str(error) or "is not JSON" in str(error)


@pytest.mark.slow
def test_a_gigabyte_in_one_line_under_two_gigabytes_of_addresses(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    start, spaces, end = map(gzip.compress, (b'{"prompt": "', b" " * 1_000_000, b'"}\n{"prompt": "p"}\n'))
    path.write_bytes(start + 1_000 * spaces + end)  # members of one archive, one after the other
    assert path.stat().st_size < 4_000_000
    code = (
        "import sys\nfrom ktodata.formats.data_files import Source\nfrom ktodata.formats.file_types.open_files import read_records\n"
        "for record in read_records(Source(sys.argv[1], 'bomb', 'file')): print(record.line, record.problem)"
    )
    limit = 2 * 2**30
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "1 too_long: 1,000,000,015 bytes are more than max_record_mb: 64 allows",
        "2 None",
    ]
    code = "import sys\nfrom ktodata.formats import read\nread(sys.argv[1], max_record_mb=float(sys.argv[2]))"
    for max_record_mb, words in (
        ("64", "too_long 1"),
        ("4096", "needs more memory than there is. max_record_mb: 4096 allows it"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), max_record_mb],
            check=False,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        assert "FormatError" in done.stderr and words in done.stderr, done.stderr


# --- tables ------------------------------------------------------------------------------------------------------------


def test_parquet_and_arrow_by_their_bytes(tmp_path):
    table = pl.DataFrame(ROWS)
    table.write_parquet(tmp_path / "parquet.csv")
    table.write_ipc(tmp_path / "arrow_file.jsonl")
    table.write_ipc_stream(tmp_path / "arrow_stream.arrow")
    for path in tmp_path.iterdir():
        assert shape_of(path).kind == path.stem
        assert records_of(path) == ROWS
        with pytest.raises(SettingError, match="one table"):
            records_of(path, table="x")


def test_a_damaged_arrow_file_is_an_error(tmp_path):
    pl.DataFrame(ROWS).write_ipc_stream(tmp_path / "a.arrow")
    for size in (8, 200, 600):
        path = write(tmp_path / "cut.arrow", (tmp_path / "a.arrow").read_bytes()[:size])
        with pytest.raises((FormatError, EmptyDataError)):
            records_of(path)


def sqlite_file(path: Path, **tables: list[dict]) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, rows in tables.items():
            columns = ", ".join(f'"{column}"' for column in ROWS[0])
            quoted = '"' + name.replace('"', '""') + '"'
            connection.execute(f"create table {quoted} ({columns})")
            marks = ", ".join("?" for _ in ROWS[0])
            connection.executemany(f"insert into {quoted} values ({marks})", [tuple(row.values()) for row in rows])
    return path


def test_the_one_filled_table_of_a_database_is_read(tmp_path):
    path = sqlite_file(tmp_path / "chat.backup", feedback=ROWS, audit=[])
    shape = shape_of(path)
    assert (shape.kind, dict(shape.tables)) == ("sqlite", {"feedback": 3, "audit": 0})
    assert records_of(path) == ROWS


def test_of_several_tables_one_must_be_named(tmp_path):
    path = sqlite_file(tmp_path / "a.db", **{'odd " name': ROWS, "users": ROWS[:1]})
    with pytest.raises(SettingError, match=r"several tables: odd \" name \(3 rows\), users \(1 row\).*table:"):
        records_of(path)
    assert records_of(path, table="users") == ROWS[:1]
    assert records_of(path, table='odd " name') == ROWS
    with pytest.raises(SettingError, match=r"no table 'user'\. Did you mean 'users'\?"):
        records_of(path, table="user")


def test_an_empty_or_damaged_database(tmp_path):
    with pytest.raises(EmptyDataError, match="holds no records"):
        records_of(sqlite_file(tmp_path / "a.db", users=[]))
    with pytest.raises(FormatError, match="SQLite"):
        records_of(write(tmp_path / "b.db", b"SQLite format 3\0" + b"x" * 5000))


def test_a_database_is_not_changed_by_being_read(tmp_path):
    path = sqlite_file(tmp_path / "a.db", feedback=ROWS)
    before = path.read_bytes()
    records_of(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.db"]


def test_duckdb_tables(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    with closing(duckdb.connect(str(tmp_path / "a.bin"))) as connection:
        connection.execute("create table feedback (id varchar, prompt varchar, completion varchar, thumb varchar)")
        connection.executemany("insert into feedback values (?, ?, ?, ?)", [tuple(row.values()) for row in ROWS])
        connection.execute("create table users (name varchar)")
        connection.execute("create view v as select * from feedback")
        connection.execute(
            "create schema s; create table s.t (turns struct(role varchar)[]); insert into s.t values ([{'role': 'user'}])"
        )
    assert dict(shape_of(tmp_path / "a.bin").tables) == {"feedback": 3, "users": 0, "v": None, "s.t": 1}
    assert records_of(tmp_path / "a.bin", table="feedback") == records_of(tmp_path / "a.bin", table="v") == ROWS
    assert records_of(tmp_path / "a.bin", table="s.t") == [{"turns": [{"role": "user"}]}]
    with pytest.raises(SettingError, match="several tables"):
        records_of(tmp_path / "a.bin")
    with pytest.raises(FormatError, match="DuckDB"):
        records_of(write(tmp_path / "b.bin", (tmp_path / "a.bin").read_bytes()[:4096] + b"x" * 9000))


def test_a_sheet_of_a_workbook(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "notes"
    sheet = book.create_sheet("thumbs")
    for row in (
        [],
        ["prompt", "completion", None, "thumb"],
        ["Sky?", "Blue.", None, 1],
        [],
        ["Grass?", "Purple.", "extra", None],
    ):
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    assert dict(shape_of(tmp_path / "a.xlsx").tables) == {"notes": 0, "thumbs": 2}
    records = list(read_records(source_of(tmp_path / "a.xlsx")))
    assert [record.line for record in records] == [3, 5]
    assert [record.record for record in records] == [
        {"prompt": "Sky?", "completion": "Blue.", "thumb": 1},
        {"prompt": "Grass?", "completion": "Purple.", "thumb": None, "column 3": "extra"},
    ]


@pytest.mark.parametrize("missing", ["duckdb", "openpyxl"])
def test_a_library_that_is_not_there_is_named_with_its_extra(tmp_path, monkeypatch, missing):
    import zipfile

    from ktodata import extras

    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    path = write(tmp_path / "a", b"x" * 8 + b"DUCK" + b"x" * 100)
    if missing == "openpyxl":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("xl/workbook.xml", "<x/>")
    extra = {"duckdb": "duckdb", "openpyxl": "excel"}[missing]
    with pytest.raises(MissingExtraError, match=rf"{missing}: pip install 'ktodata\[{extra}\]'"):
        shape_of(path)


def test_a_saved_data_set_with_its_splits(tmp_path):
    import datasets

    parts = {"train": datasets.Dataset.from_list(ROWS[:2]), "test": datasets.Dataset.from_list(ROWS[2:])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert dict(shape_of(tmp_path / "saved").tables) == {"train": 2, "test": 1}
    assert records_of(tmp_path / "saved", table="test") == ROWS[2:]
    with pytest.raises(SettingError, match="no split 'tests'"):
        records_of(tmp_path / "saved", table="tests")


# --- what is no feedback -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "save it as .xlsx"),
        (b"PK\x03\x04 nothing", "damaged"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_that_is_something_else_is_said_to_be_that(tmp_path, name, content, words):
    with pytest.raises(FormatError, match=words):
        shape_of(write(tmp_path / name, content))


def test_a_name_and_a_content_that_say_nothing(tmp_path):
    with pytest.raises(FormatError, match=r"cannot tell what kind of file 'notes\.md' is.*'Dear team'"):
        shape_of(write(tmp_path / "notes.md", "Dear team"))


STARTS = st.sampled_from(
    [b"", b"[", b"{", b'{"data": [', b"PAR1", b"\xff\xfe", b"a,b\n", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"ARROW1\0\0"]
)


@settings(max_examples=150)
@given(
    start=STARTS, content=st.binary(max_size=120), name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a"])
)
@example(start=b"", content=b"\xff\xff\xff\xff\x70\0\0\0", name="a.arrow")
@example(start=b"\xff\xfe", content=b"\0", name="a.jsonl")
@example(start=b"SQLite format 3\0", content=b"", name="a.db")
def test_any_bytes_are_records_or_an_error_of_ours(start, content, name, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"shape-{name}"
    path.write_bytes(start + content)
    try:
        records = list(read_records(source_of(path)))
    except KtodataError:
        return
    assert all((record.record is None) != (record.problem is None) or record.problem for record in records)
