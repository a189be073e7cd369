"""Held-out figures hold where rows share prompts, say where they do not know, and are of the weights that were kept, everywhere."""

import numpy as np
import pytest

from ktodata.report.sections.training_section import TrainingSection
from ktodata.train.results.hub import model_card
from ktodata.train.results.step_metrics import reward_gap
from ktodata.train.results.summary import summary_lines
from ktodata.train.results.training_figures import training_figure


def rows_of_prompts(seed, prompts, each=8):
    """Rewards, labels by prompt and at random, groups: rows of a prompt are nearly alike."""
    random = np.random.default_rng(seed)
    rewards = np.repeat(random.normal(size=prompts), each) + 0.2 * random.normal(size=prompts * each)
    return rewards, np.repeat(random.random(prompts) < 0.5, each), np.repeat(np.arange(prompts), each)


def test_rows_of_one_prompt_are_not_taken_as_independent():
    """Of 100 trainings that learnt nothing 5 should exclude 0.5; with rows taken as independent 60 did."""
    measured = [reward_gap(*rows_of_prompts(seed, 40)) for seed in range(100)]
    assert sum(not line["auc"]["low"] <= 0.5 <= line["auc"]["high"] for line in measured) <= 12
    assert sum(not line["reward_gap"]["low"] <= 0 <= line["reward_gap"]["high"] for line in measured) <= 12


def test_few_prompts_give_a_value_and_no_interval():
    rewards, desirable, groups = rows_of_prompts(0, 12)
    line = reward_gap(rewards, desirable, groups)
    assert 0 < line["auc"]["value"] < 1 and line["auc"]["low"] is line["reward_gap"]["high"] is None
    assert line["interval_not_known"].startswith("desirable rows are of 6 prompts, undesirable ones of 6")
    held_out = [{"step": 3, "rows": 96, "loss": 0.5} | line]
    text = "95 % interval not known: desirable rows are of 6 prompts"
    assert text in dict(summary_lines({}, training_history(), held_out, None))["held-out reward AUC"]
    assert text in TrainingSection(None, {"held_out": held_out}, None).answer
    *_, auc = (
        axes for axes in training_figure(training_history(), held_out, beta=0.1).axes if "AUC" in axes.get_title(loc="left")
    )
    assert auc.has_data() and "not measured" not in [text.get_text() for text in auc.texts]


def test_a_perfect_order_of_few_rows_does_not_claim_to_be_certain():
    desirable = np.arange(24) % 2 == 0
    line = reward_gap(desirable + np.linspace(0, 0.5, 24), desirable, np.arange(24))
    assert line["auc"]["value"] == line["auc"]["high"] == 1.0
    assert 0.5 < line["auc"]["low"] < 0.95


@pytest.mark.parametrize(("early_stop", "shown"), [({"patience": 2}, 0.8), (None, 0.7)])
def test_page_summary_and_card_give_the_evaluation_of_the_weights_that_were_kept(early_stop, shown):
    """The page gave the last one, and only the card said what choosing does to it."""
    pytest.importorskip("huggingface_hub")
    aucs = {10: 0.6, 20: 0.8, 30: 0.7}
    held_out = [
        {"step": step, "rows": 50, "loss": 0.4, "auc": {"value": auc, "low": auc - 0.1, "high": auc + 0.1}, "reward_gap": None}
        for step, auc in aucs.items()
    ]
    facts = {"settings": {"model": "org/base", "early_stop": early_stop}, "held_out": held_out}
    texts = (
        TrainingSection(None, facts, None).answer,
        dict(summary_lines(facts, training_history(), held_out, None))["held-out reward AUC"],
        model_card(facts, held_out),
    )
    for text in texts:
        assert f"{shown:.2f}" in text
        assert ("highest AUC of 3 evaluations on these rows, which flatters it" in text) == (early_stop is not None)


def training_history():
    import polars as pl

    return pl.DataFrame({"step": [0], "epoch": [0], "loss": [0.5], "z0": [0.0]})
