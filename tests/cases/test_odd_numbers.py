"""NaN, Infinity, 1e999 and numbers of thousands of digits mean the same in every kind of file: nothing where nobody asks."""

import json
import math

import polars as pl
import pytest

from ktodata.formats import read

NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "9" * 5000)
LABELS = {".csv": {"column": "label", "true": True, "false": False}}
NAMES = {"prompt": "prompt", "completion": "completion"}


def write_file(place, number, name):
    """Three records: the second holds the number under `name`, the others have 5 there. None where the kind cannot hold it."""
    values = ["5", number, "5"]
    records = [
        {"prompt": f"q{place}", "completion": "a", "label": "true", "score": "5"} | {name: value}
        for place, value in enumerate(values)
    ]
    bare = (name, "label", "score")
    pairs = [[f'"{key}": {value if key in bare else json.dumps(value)}' for key, value in each.items()] for each in records]
    objects = [f"{{{', '.join(each)}}}" for each in pairs]
    if place.suffix == ".csv":
        lines = [",".join(each.values()) for each in records]
        place.write_text("\n".join([",".join(records[0]), *lines]))
    elif place.suffix == ".parquet":
        if len(number) > 20:
            pytest.skip("no column of Parquet holds such a number")
        numbers = [float(value) for value in values]
        frame = pl.DataFrame([each | {"label": True, "score": 5.0} for each in records]).with_columns(pl.Series(name, numbers))
        frame.write_parquet(place)
    else:
        place.write_text("\n".join(objects) if place.suffix == ".jsonl" else f"[{','.join(objects)}]")
    return place


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:9] + str(len(number)))
class TestOddNumbers:
    def test_in_a_column_that_nobody_asks_for_it_costs_no_record(self, tmp_path, number, suffix):
        place = write_file(tmp_path / f"a{suffix}", number, "extra")
        result = read(place, **NAMES, label=LABELS.get(suffix))
        assert (result.feedback.height, result.metrics["quarantined"]) == (3, {})
        assert result.metrics["not_kept"]["extra"] == 3

    def test_what_is_kept_is_the_number_or_its_text(self, tmp_path, number, suffix):
        place = write_file(tmp_path / f"a{suffix}", number, "extra")
        kept = read(place, **NAMES, label=LABELS.get(suffix), keep=["extra"]).feedback["extra"]
        if suffix == ".csv" or len(number) > 20:
            assert kept[1] == number
        else:
            assert not math.isfinite(kept[1]) and kept[0] == 5

    def test_it_is_no_rating(self, tmp_path, number, suffix):
        place = write_file(tmp_path / f"a{suffix}", number, "score")
        result = read(place, **NAMES, label={"column": "score", "at_least": 4})
        assert (result.feedback["source_line"].to_list()[0], result.feedback.height) == (2 if suffix == ".csv" else 1, 2)
        assert result.metrics["quarantined"] == {"label_unmapped": 1}

    def test_it_is_no_time(self, tmp_path, number, suffix):
        place = write_file(tmp_path / f"a{suffix}", number, "at")
        result = read(place, **NAMES, label=LABELS.get(suffix), created_at="at")
        assert (result.feedback.height, result.feedback["created_at"].null_count()) == (3, 3)
        assert result.metrics["unparseable_times"] == 3


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["tools", "chat_template_kwargs", "arguments"])
def test_what_a_template_is_given_holds_no_number_that_json_has_no_word_for(tmp_path, number, field):
    def record(odd):
        values = {name: number if name == odd else "1" for name in ("tools", "chat_template_kwargs", "arguments")}
        call = {"type": "function", "function": {"name": "f", "arguments": {"x": "<arguments>"}}}
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        tools = [{"name": "f", "default": "<tools>"}]
        kwargs = {"t": "<chat_template_kwargs>"}
        text = json.dumps({"messages": turns, "label": True, "tools": tools, "chat_template_kwargs": kwargs})
        for name, value in values.items():
            text = text.replace(f'"<{name}>"', value)
        return text

    (tmp_path / "a.jsonl").write_text(f"{record(None)}\n{record(field)}\n")
    result = read(tmp_path / "a.jsonl")
    assert result.quarantine.select("line", "reason").rows() == [(2, "not_json")]
