"""Every family of causal language models that transformers has: an update is that of single rows, by whichever way is taken.

A few that many people train are tested always, of the others another part each day; `make test-families` tests all.
"""

from datetime import UTC, date, datetime

import pytest
from families_page import PAGE, page_text, way_of, ways_on_page
from family_outcomes import WINDOWS, Errors, Outcome, agrees, has_windows, outcome_of
from tiny_families import NotTinyError, families, tiny_family

ALWAYS = ("llama", "qwen3", "gemma2", "gemma3", "gpt_oss", "llama4", "qwen3_moe", "falcon_h1")
PARTS = 24


def of_the_day(day):
    """The families of one day; PARTS days have all."""
    others = [family for family in families() if family not in ALWAYS]
    return [*ALWAYS, *others[day.toordinal() % PARTS :: PARTS]]


TODAY = of_the_day(datetime.now(UTC).date())
everything = [pytest.param(family, marks=[] if family in TODAY else [pytest.mark.families]) for family in families()]


@pytest.mark.parametrize("family", everything)
def test_an_update_is_that_of_single_rows_and_the_page_says_how_it_is_made(family):
    ways = []
    for window in WINDOWS if has_windows(family) else ["within"]:
        for dtype in ("float32", "bfloat16"):
            outcome = outcome_of(family, window=window, dtype=dtype)
            assert agrees(outcome, dtype), (window, dtype, outcome)
            ways += [way_of(outcome)] if dtype == "float32" else []  # the page is of that; in bfloat16 dbrx fails by itself
        again = outcome_of(family, window=window, dtype="float32", recomputed=True)
        assert agrees(again, "float32") and (again.method in (ways[-1], None)), (window, "gradient_checkpointing", again)
    assert ways_on_page()[family] == (ways[0], ways[-1]), f"make {PAGE.name} again: tests/benchmarks/model_families.py --write"


@pytest.mark.parametrize("family", ["opt", "biogpt", "mixtral"])  # dropout in the layers, around them, noise on routers
def test_nothing_is_drawn_where_activations_are_computed_again(family):
    """Layers in training mode were 1 to 12 nats off before; every family is looked at above."""
    outcome = outcome_of(family, window="within", dtype="float32", recomputed=True)
    assert (outcome.status, agrees(outcome, "float32")) == ("trained", True), outcome


def test_in_as_many_days_as_there_are_parts_every_family_is_tested():
    days = [of_the_day(date.fromordinal(739000 + number)) for number in range(PARTS)]
    assert set().union(*days) == set(families()) and max(map(len, days)) < 20


def test_the_page_has_every_family_and_says_why_one_is_not_tested():
    """A new release of transformers may bring families that the page does not know: it is made again, then."""
    assert set(ways_on_page()) == set(families())
    untested = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "| not built |" in line]
    assert 0 < len(untested) < 20
    assert all(len(line.split("|")[4].strip()) > 10 for line in untested)


def test_a_family_that_cannot_be_made_is_named_with_the_reason(monkeypatch):
    monkeypatch.setattr("tiny_families.MOST_WEIGHTS", 10)
    with pytest.raises(NotTinyError, match=r"its smallest config .* has [\d,]+ weights"):
        tiny_family("llama", window=8)
    outcome = outcome_of("llama", window="within", dtype="float32")
    assert (way_of(outcome), agrees(outcome, "float32")) == ("not built", True)


def test_what_differs_is_seen_and_the_page_is_read_as_it_is_written(monkeypatch, tmp_path):
    close, rounding = Errors(1e-5, 1e-6, 1e-6, 1e-6), Errors(0.1, 0.01, 0.01, 0.02)
    good = Outcome("a-b_c", "trained", "padded", "packed: its log-probs are up to 0.4 nats | off", ours=close, rounding=rounding)
    assert agrees(good, "float32") and agrees(good, "bfloat16")
    for wrong in (
        Errors(0.01, 0, 0, 0),
        Errors(0, 0.01, 0, 0),
        Errors(0, 0, 0.01, 0),
        Errors(0, 0, 0, 1e-3),
        Errors(0, 0, 0, float("nan")),
    ):
        assert not agrees(Outcome("a", "trained", "packed", ours=wrong, rounding=rounding), "float32")
    assert not agrees(Outcome("a", "trained", "packed", ours=Errors(2, 0, 0, 0), rounding=rounding), "bfloat16")
    (tmp_path / "page.md").write_text(page_text("5", {"a-b_c": {"within": good, "beyond": good}}))
    monkeypatch.setattr("families_page.PAGE", tmp_path / "page.md")
    assert ways_on_page() == {"a-b_c": ("padded", "padded")}
