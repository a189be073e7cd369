"""KD064 to KD066 and KD068: labels that do not count the same, rows that own updates, updates of one label, rows held out."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from tiny_models import text_rows, token_rows

from ktodata.train import fit
from ktodata.train.data.batches import plan_training
from ktodata.train.loss_weights import balance, sides_pulled
from ktodata.train.results.training_findings import training_findings

NO_ROUTERS = {"coefficient": 0.0}
NONE = {"not_applicable": "there are no validation rows"}


def findings(desirable, undesirable, *, own=None, p_desirable=None, soft=False, flip_rates=None, batch_size=10, **given):
    labels = [True] * desirable + [False] * undesirable
    rows = token_rows([[n] for n in range(len(labels))], [[2]] * len(labels), labels=labels)
    columns = {"weight": own, "p_desirable": p_desirable}
    rows = dataclasses.replace(rows, **{name: np.array(values) for name, values in columns.items() if values is not None})
    weights = balance(rows, **{"desirable_weight": None, "undesirable_weight": None} | given, soft=soft, flip_rates=flip_rates)
    sides = sides_pulled(rows, soft=soft)
    plan = plan_training(rows, batch_size=batch_size, epochs=1, max_steps=None, seed=0, sides=sides)
    return {
        each["code"]: each
        for each in training_findings(
            rows, weights, plan, soft=soft, flip_rates=flip_rates, router_facts=NO_ROUTERS, held_out=NONE
        )
    }


def statuses(*counts, **settings):
    return [each["status"] for each in list(findings(*counts, **settings).values())[:3]]


@pytest.mark.parametrize("rare_is_desirable", [True, False])
def test_a_label_rarer_than_the_cap_allows_is_an_issue(rare_is_desirable):
    """3 : 500. Held at 10, the rarer label weighs 0.06 of the other."""
    shown = findings(3, 500) if rare_is_desirable else findings(500, 3)
    name, learnt = ("desirable", "not to write") if rare_is_desirable else ("undesirable", "to write")
    assert (shown["KD064"]["status"], shown["KD064"]["rows"]) == ("issue", 3)
    assert f" to 3 {name} rows is 16.7 : 1. Training mostly learns what {learnt}" in shown["KD064"]["text"]
    assert "A weight of 167 would even them out" in shown["KD064"]["text"]
    assert f"Get more {name} rows" in shown["KD064"]["text"]
    assert shown["KD065"]["status"] == "passed"  # no row counts more than ten
    assert "48 of 51 updates hold rows of one label only" in shown["KD066"]["text"]
    assert "a batch_size of 168 or more" in shown["KD066"]["text"]
    at_168 = findings(3, 500, batch_size=168) if rare_is_desirable else findings(500, 3, batch_size=168)
    assert at_168["KD066"]["status"] == "passed"


def test_what_can_be_evened_out_is_none():
    for counts in ((50, 50), (90, 10), (10, 90), (100, 10)):
        assert statuses(*counts, batch_size=11) == ["passed"] * 3


def test_a_weight_above_the_cap_that_somebody_sets_is_an_issue():
    """1 : 500 with a weight of 500: both labels count the same together, and one row owns the update that it is in."""
    shown = findings(1, 500, desirable_weight=500.0)
    assert shown["KD064"]["status"] == "passed"
    assert (shown["KD065"]["status"], shown["KD065"]["rows"]) == ("issue", 1)
    assert "up to 500: in 1 of 51 updates a single row pulls harder than all others together" in shown["KD065"]["text"]


def test_no_advice_is_what_was_done_already_or_what_is_refused():
    """Nothing was set, so nothing can be left out; and a batch_size ends at 4,096."""
    heavy = findings(50, 50, own=[400.0] + [1.0] * 99)["KD065"]["text"]
    assert heavy.endswith("Lower the weights of those rows.")
    rare = findings(1, 4999, batch_size=32)["KD066"]["text"]
    assert "batch_size" not in rare and "Get more of them" in rare
    assert "Leave desirable_weight" in findings(1, 500, desirable_weight=500.0)["KD065"]["text"]


def test_weights_as_set_that_let_one_label_weigh_more_are_an_issue():
    shown = findings(40, 60, desirable_weight=30.0, undesirable_weight=1.0)
    assert "40 desirable to 60 undesirable rows is 20 : 1" in shown["KD064"]["text"]
    assert "by the weights as set" in shown["KD064"]["text"]
    assert shown["KD065"]["rows"] == 40
    nothing = findings(4, 4, undesirable_weight=0.0)
    assert [nothing[code]["status"] for code in ("KD064", "KD065")] == ["issue", "passed"]
    assert "4 desirable to 4 undesirable rows leaves the latter nothing" in nothing["KD064"]["text"]


def test_rows_that_weigh_much_by_themselves_are_counted_whatever_their_label():
    own = [1.0] * 100
    own[3] = own[60] = 400.0
    shown = findings(50, 50, own=own)
    assert (shown["KD065"]["status"], shown["KD065"]["rows"]) == ("issue", 2)
    assert statuses(50, 50, own=[1.0, 2.0] * 50)[1] == "passed"


@pytest.mark.parametrize("even", [{"p_desirable": [0.9] * 50 + [0.45] * 50, "soft": True}, {"flip_rates": (0.05, 0.3)}])
def test_how_sure_a_label_is_makes_no_row_heavy(even):
    """Soft: 0.1 as sure as the others, so their weight is held at 10 of 8; flip rates pull desirable rows 1.1, others 1.5 times."""
    if "flip_rates" in even:
        even = {"flip_rates": dict(zip(("desirable", "undesirable"), even["flip_rates"], strict=True))}
    assert findings(50, 50, **even)["KD065"]["status"] == "passed"


@pytest.mark.parametrize(
    "counted", [(16, 16, {}), (5, 5, {"own": [1.0] * 8 + [30.0] * 2}), (3, 90, {}), (90, 3, {}), (1, 40, {})]
)
@pytest.mark.parametrize("beside", [(96, 0), (0, 150), (40, 40)])
@pytest.mark.parametrize("soft", [False, True])
def test_rows_that_count_nothing_change_no_finding(counted, beside, soft):
    """Beside 150 rows of weight 0, rows of weight 1 were said to count up to 31 of the other label; and updates were theirs alone."""
    up, down, more = counted
    own = more.get("own", [1.0] * (up + down))
    alone = findings(up, down, own=own, soft=soft)
    # desirable rows come first: the others are put between them and the undesirable ones
    if soft:
        nothing = {"own": own[:up] + [1.0] * sum(beside) + own[up:]}
        nothing["p_desirable"] = [1.0] * up + [0.5] * sum(beside) + [0.0] * down
    else:
        nothing = {"own": own[:up] + [0.0] * sum(beside) + own[up:]}
    assert findings(up + beside[0], down + beside[1], soft=soft, **nothing) == alone


def test_they_are_shown_where_a_training_is(model_folder, tmp_path):
    rows = text_rows(41).with_columns(label=pl.int_range(41) != 7)
    result = fit(rows, model=model_folder, batch_size=10, device="cpu", max_steps=3, out=tmp_path / "model")
    shown = {each["code"]: each["status"] for each in result.metrics["findings"]}
    assert shown == {"KD064": "issue", "KD065": "passed", "KD066": "issue", "KD067": "not_applicable", "KD068": "not_applicable"}
    for code, status in shown.items():
        assert (f">{code}<" in result._repr_html_()) == (status == "issue")
    assert type(result).load(tmp_path / "model").metrics["findings"] == result.metrics["findings"]
