"""Rows of any kind (weight 0, soft 0.5, wrong groups, held-out rows that are trained on): plan, findings and groups stay sound."""

import math
import re
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_models import WORDS, text_rows, word_tokenizer

from ktodata.errors import EmptyDataError, OneClassError, SettingError
from ktodata.train.data.preparation import prepare
from ktodata.train.data.training_rows import Part, check_part
from ktodata.train.loss_weights import balance
from ktodata.train.results.step_metrics import reward_gap
from ktodata.train.results.training_findings import training_findings

TOKENIZER = word_tokenizer()
SETTINGS = {
    **{"max_length": 64, "batch_size": 8, "seed": 0, "epochs": 2, "max_steps": None, "group_by_prompt": True},
    **{"kl_pairs_per_batch": None, "soft_labels": False, "flip_rates": None, "objective": "kto"},
}


def prepared(train, held_out=None, **given_settings):
    part = check_part(Part((train,)), part="train", both_classes=True)
    other = None if held_out is None else check_part(Part((held_out,)), part="validation", both_classes=False)
    return prepare(part, other, TOKENIZER, SETTINGS | given_settings)


def findings(made, *, soft=False):
    rows = made.train_rows
    weights = balance(rows, desirable_weight=None, undesirable_weight=None, soft=soft)
    facts = made.metrics["validation"]
    lines = training_findings(
        rows, weights, made.plan, soft=soft, flip_rates=None, router_facts={"coefficient": 0.0}, held_out=facts
    )
    return {line["code"]: line for line in lines}


ROW = st.fixed_dictionaries(
    {
        "prompt": st.sampled_from([f"{word} " for word in WORDS[:8]]),
        "completion": st.sampled_from(WORDS[8:18]),
        "label": st.booleans(),
        "weight": st.sampled_from([0.0, 1.0, 1.0, 0.5, 30.0]),
        "p_desirable": st.sampled_from([None, 0.5, 0.05, 0.9]),
        "prompt_group": st.sampled_from([None, None, "", "s1", "s2", "s3"]),
    }
)


def table(rows, name):
    schema = {"p_desirable": pl.Float64, "prompt_group": pl.String}
    return pl.DataFrame(rows, schema_overrides=schema).with_columns(row_id=pl.format(f"{name}{{}}", pl.int_range(pl.len())))


def are_together(rows):
    """By hand: bool [n, n], rows of one prompt or of one named group, over any number of steps."""
    linked = np.eye(rows.height, dtype=bool)
    for i, j in combinations(range(rows.height), 2):
        one, other = (rows.row(k, named=True) for k in (i, j))
        same_name = bool(one["prompt_group"]) and one["prompt_group"] == other["prompt_group"]
        linked[i, j] = linked[j, i] = same_name or one["prompt"] == other["prompt"]
    for _ in range(rows.height.bit_length()):
        linked = linked @ linked
    return linked


@settings(max_examples=40, deadline=None)
@given(
    train=st.lists(ROW, min_size=4, max_size=40),
    held_out=st.lists(ROW, min_size=2, max_size=12),
    batch_size=st.integers(2, 12),
    soft=st.booleans(),
)
def test_of_any_table(train, held_out, batch_size, soft):
    train, held_out = table(train, "t"), table(held_out, "v")
    try:
        made = prepared(train, held_out, batch_size=batch_size, soft_labels=soft)
    except (OneClassError, EmptyDataError, SettingError):
        assume(False)
    rows, plan = made.train_rows, made.plan
    sure = (2 * rows.p_desirable - 1) if soft else np.where(rows.label, 1, -1)
    pull = rows.weight * sure
    counted = np.flatnonzero(pull)

    # every row that counts once an epoch, and no other
    for epoch in (0, 1):
        dealt = np.concatenate([step.rows for step in plan.steps if step.epoch == epoch])
        assert sorted(dealt) == counted.tolist()

    # updates of one side only where there are fewer rows of the other than updates, and the advice does away with them
    lonely = sum(len(np.unique(np.sign(pull[step.rows]))) < 2 for step in plan.steps)
    rarer, updates = min((pull > 0).sum(), (pull < 0).sum()), len(plan.steps) // 2
    shown = findings(made, soft=soft)
    assert lonely == plan.metrics["one_class_batches"] == 2 * max(0, updates - rarer)
    assert (shown["KD066"]["status"] == "issue") == (lonely > 0)
    if lonely:
        advised = int(re.search(r"batch_size of ([\d,]+) or more", shown["KD066"]["text"])[1].replace(",", ""))
        assert advised > batch_size
        assert prepared(train, batch_size=advised, soft_labels=soft).plan.metrics["one_class_batches"] == 0

    # partners that share a prompt or a group are counted
    together = are_together(train)
    assert plan.metrics["partners_sharing_prompt_group"] == sum(together[step.rows, step.partners].sum() for step in plan.steps)

    # what is scored is trained on by no row that counts, and groups are those of names and prompts
    texts = set(train[counted.tolist()].select("prompt", "completion").iter_rows())
    apart = [k for k, row in enumerate(held_out.select("prompt", "completion").iter_rows()) if row not in texts]
    known = {prompt for prompt, _ in texts}
    facts = made.metrics["validation"]
    if len(apart) < 2:
        assert "not_applicable" in facts
        assert (shown["KD068"]["status"] == "issue") == (len(apart) < held_out.height)
    else:
        scored = made.rows.taken(np.arange(made.count, len(made.rows)))
        assert scored.row_id == tuple(f"v{k}" for k in apart)
        assert (facts["rows"], facts["trained_on_too"]) == (len(apart), held_out.height - len(apart))
        assert facts["prompt_trained_on_too"] == sum(held_out["prompt"][k] in known for k in apart)
        groups = scored.group_numbers
        # rows that were left out have linked theirs before
        assert ((groups[:, None] == groups) == are_together(held_out)[np.ix_(apart, apart)]).all()
        gap = reward_gap(np.arange(len(groups), dtype=float), scored.label, groups)
        assert gap["auc"] is None or gap["auc"]["low"] is None  # of at most 8 prompts no interval is known

    # no row is said to be heavy that is not, of those that count
    pulls = np.abs(pull[counted])
    heaviest = pulls.max() / min(
        np.average(np.abs(rows.weight[side]), weights=np.abs(sure[side])) for side in (pull > 0, pull < 0)
    )
    assert shown["KD065"]["status"] == "passed" or heaviest > 1
    assert math.isfinite(heaviest)


def test_updates_that_pull_one_way_are_not_dealt_for_rows_that_count_nothing():
    """96 rows of weight 0 beside 16 and 16: 6 of 16 updates pulled one way, and a batch_size of 8 was advised where it was 8."""
    rows = text_rows(128).with_columns(label=pl.int_range(128) % 2 == 0)
    few = pl.int_range(128) < 96
    weighed = rows.with_columns(weight=pl.when(few).then(0.0).otherwise(1.0))
    unsure = rows.with_columns(p_desirable=pl.when(few).then(0.5).otherwise(pl.col("label").cast(pl.Float64)))
    for train, soft in ((weighed, False), (unsure, True)):
        made = prepared(train, soft_labels=soft, epochs=1)
        assert [len(step.rows) for step in made.plan.steps] == [8] * 4
        assert made.plan.metrics["one_class_batches"] == 0
        assert made.plan.metrics["rows_left_out"] == 96


def test_a_row_of_weight_0_that_its_sibling_pulls_is_in_the_hybrids_updates():
    rows = text_rows(24).with_columns(
        label=pl.int_range(24) % 2 == 0, weight=pl.when(pl.int_range(24) < 8).then(0.0).otherwise(1.0)
    )
    half = rows.with_columns(weight=pl.when(pl.int_range(24) == 0).then(1.0).otherwise("weight"))
    assert prepared(rows, objective="kto_hybrid").plan.metrics["rows_left_out"] == 8  # whole prompts
    assert prepared(half, objective="kto_hybrid").plan.metrics["rows_left_out"] == 6
    assert prepared(half).plan.metrics["rows_left_out"] == 7


@pytest.mark.parametrize("ids", ["{}", "{}v"])
def test_rows_that_are_trained_on_are_not_scored_as_held_out(ids):
    """Their AUC was 0.992, after five passes over them."""
    train = text_rows(24)
    twins = train.with_columns(row_id=pl.format(ids, "row_id"))
    alone = prepared(train, twins)
    assert alone.held_out.steps == ()
    assert alone.metrics["validation"]["not_applicable"].startswith("24 of 24 validation rows (row_id r0")
    assert findings(alone)["KD068"]["status"] == "issue"
    some = prepared(train, pl.concat([twins.head(5), text_rows(10, start=24)]))
    assert list(some.rows.row_id[24:]) == [f"r{number}" for number in range(24, 34)]
    assert "5 validation rows are trained on too" in findings(some)["KD068"]["text"]
    fresh = prepared(train, text_rows(10, start=24))
    assert findings(fresh)["KD068"]["status"] == "passed"
    answers = prepared(train, train.with_columns(completion=pl.lit("sea sky sea")))
    assert "24 of 24 that are scored have a prompt that is trained on" in findings(answers)["KD068"]["text"]
    unused = train.with_columns(weight=pl.when(pl.int_range(24) < 6).then(0.0).otherwise(1.0))
    assert len(prepared(unused, twins).rows) == 24 + 6
