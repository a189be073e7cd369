"""Paths into a record: names, numbers of lists, and entries chosen by a field."""

import pytest

from ktodata.formats.records import ABSENT, lookup

RECORD = {
    "a.b": "a column of that name",
    "a": {"b": "inside", "c": {"d.e": 1}},
    "response": {"choices": [{"message": {"content": "Blue."}}]},
    "scores": [{"name": "length", "value": 3}, {"name": "thumb", "value": 1}, {"name": "thumb", "value": 0}],
    "user-thumb": [1],
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("a.b", "a column of that name"),
        ("a.c.d", ABSENT),
        ("response.choices.0.message.content", "Blue."),
        ("response.choices[0].message.content", "Blue."),
        ("response.choices.1.message", ABSENT),
        ("scores[name=thumb].value", 1),
        ("scores[name=tone].value", ABSENT),
        ("scores[value=3].name", "length"),
        ("user-thumb.0", 1),
        ("user-thumb[0]", 1),
        ("response.choices.first", ABSENT),
        ("scores.-1.value", 0),
        ("scores[-3].name", "length"),
        ("scores.-4.name", ABSENT),
        ("user-thumb[]", [1]),
        ("scores[].value", [3, 1, 0]),
        ("a[]", ABSENT),
        ("nothing", ABSENT),
        ("nothing.at.all", ABSENT),
        ("a[", ABSENT),
        ("", ABSENT),
    ],
)
def test_a_path_leads_to_its_value(column, value):
    assert lookup(RECORD, column) is value or lookup(RECORD, column) == value
