import numpy as np
import pytest

from ktodata.feedback import feedback_table
from ktodata.text import contradictions
from ktodata.text.contradictions import near_contradictions


def table(*rows):
    """(prompt_group, completion, label, angle of its vector in degrees)."""
    feedback = feedback_table(
        *[{"prompt": "sum?", "completion": text, "label": label, "prompt_group": g} for g, text, label, _ in rows]
    )
    angles = np.radians([angle for *_, angle in rows])
    return feedback, np.ones((len(rows), 2), np.float32), np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def found(*rows, similarity=0.98):
    twins = near_contradictions(*table(*rows), similarity=similarity)
    return dict(twins.select("row_id", "near_twin").iter_rows())


def test_near_twins_with_opposite_labels_name_each_other():
    assert found(("a", "blue.", True, 0), ("a", "blue!", False, 5), ("a", "red", False, 90)) == {"1": "2", "2": "1"}


def test_what_is_no_contradiction():
    assert found(("a", "blue.", True, 0), ("a", "blue!", True, 5)) == {}, "same label"
    assert found(("a", "blue.", True, 0), ("b", "blue!", False, 5)) == {}, "another prompt"
    assert found(("a", "A: 3", True, 0), ("a", "A: 4", False, 1)) == {}, "another number"
    assert found(("a", "blue.", True, 0), ("a", "teal", False, 20)) == {}, "not near: cos 20 deg = 0.94"


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("so x = 42", "so x = -42"),
        ("it is ½ of that", "it is ¾ of that"),
        ("so x > y holds", "so x < y holds"),
        ("total += x", "total -= x"),
        ("safe to take", "not safe to take"),
        ("you can mix them", "you can’t mix them"),
        ("one always should", "one never should"),
        ("safe for men, not for dogs", "not safe for men, for dogs"),
        ("Das ist sicher", "Das ist nicht sicher"),
        ("这是安全的", "这是不安全的"),
        ("    return a > b", "    return b > a"),
    ],
)
def test_what_turns_the_meaning_makes_no_twins(text, other):
    assert found(("a", text, True, 0), ("a", other, False, 0)) == {}


@pytest.mark.parametrize(
    ("text", "other"), [("It does not.", "it doesn't"), ("you can’t go", "you cannot go!"), ("It isnt so", "it is not so")]
)
def test_a_negation_may_be_written_in_two_ways(text, other):
    assert found(("a", text, True, 0), ("a", other, False, 0)) == {"1": "2", "2": "1"}


def test_the_nearest_twin_is_named():
    assert found(("a", "x", True, 0), ("a", "y", False, 8), ("a", "z", False, 3)) == {"1": "3", "2": "1", "3": "1"}


def test_large_groups_give_the_same_answer(monkeypatch):
    rng = np.random.default_rng(0)
    rows = [("a", "word", bool(label), angle) for label, angle in zip(rng.random(60) < 0.5, rng.random(60) * 360, strict=True)]
    small = found(*rows)
    monkeypatch.setattr(contradictions, "LARGE", 1)
    monkeypatch.setattr(contradictions, "CHUNK", 50)
    assert found(*rows) == small
    assert len(small) > 20


def test_no_rows_no_twins():
    assert near_contradictions(*table(("a", "x", True, 0)), similarity=0.9).height == 0
