"""Each method on a two-layer model: it learns the right thing, from the very tokens that are scored, and on the same terms."""

import logging
import os
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from easy_rows import easy_rows
from tiny_models import token_rows, word_tokenizer

from ktodata.errors import EmptyDataError, MissingExtraError, ModelError, OneClassError, SettingError
from ktodata.evaluate.rewards import completion_logps
from ktodata.experiments.methods.preference_pairs import make_pairs
from ktodata.experiments.methods.reward_model import train_reward_model
from ktodata.experiments.methods.terms import LEARNING_RATES, TrainingTerms, check_sizes, rates_of, updates_of
from ktodata.experiments.methods.train_methods import TRAIN, check_can_train, training_rows
from ktodata.experiments.methods.trl_datasets import (
    dpo_examples,
    in_turn,
    orpo_examples,
    reward_examples,
    sft_examples,
    split_pair,
)
from ktodata.experiments.methods.trl_trainers import fresh_model, pad_token_of, quiet, require_trl
from ktodata.models import load_causal_lm
from ktodata.train.data.tokens import tokenize
from ktodata.train.data.training_rows import check_rows
from ktodata.train.schedule import learning_rate_at

CPU = torch.device("cpu")
# many times the usual rates, as the model is new and learns in a few updates; every method's alike
FACTOR = 1000
OFFLINE = ("sft", "kto", "kto_hybrid", "dpo", "orpo")


@pytest.fixture
def terms(folder):
    return TrainingTerms(
        model=folder, updates=10, batch_size=8, micro_batch_size=4, max_length=48, trainable_layers=1, beta=0.1,
        warmup_fraction=0.1, schedule="linear", max_grad_norm=1.0, rates=rates_of(None, FACTOR), rollout_tokens=6, rollouts=4,
        device=CPU, compute_dtype=torch.float32,
    )  # fmt: skip


def tokens_of(frame, folder, max_length=48):
    rows = check_rows(frame, part="test", both_classes=False)
    return tokenize(rows, load_causal_lm(folder)[1], max_length=max_length, part="test")[0]


def training_of(frame, folder, max_length=48):
    return training_rows(check_rows(frame, part="train", both_classes=True), load_causal_lm(folder)[1], max_length=max_length)


def rewards(policy, folder, tokens):
    """0.1 x (log p of the policy - log p of the base): float64 [N]."""
    logps = [
        completion_logps(model, tokens, device=CPU, compute_dtype=torch.float32) for model in (policy, load_causal_lm(folder)[0])
    ]
    return 0.1 * (logps[0] - logps[1])


def auc(scores, label):
    return float((scores[label][:, None] > scores[~label][None]).mean())


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
@pytest.mark.parametrize("method", OFFLINE)
def test_rewards_of_held_out_rows_move_the_right_way(method, chat, folder, terms):
    trained = TRAIN[method](training_of(easy_rows(30, chat=chat), folder), terms, 0)
    held_out = tokens_of(easy_rows(20, start=50, chat=chat), folder)
    found, label = rewards(trained.model, folder, held_out), held_out.label
    assert auc(found, label) > 0.85
    assert found[label].mean() > 0.05  # all of them make good answers likelier; SFT and ORPO may lift bad ones with them
    if method in ("kto", "kto_hybrid", "dpo"):
        assert found[~label].mean() < -0.05
    assert trained.metrics["updates"] == 10 and 0.9 * 80 <= trained.metrics["completions"] <= 80
    assert trained.metrics["rows"] == (30 if method == "sft" else 60)
    assert trained.metrics["learning_rate"] == LEARNING_RATES[method] * FACTOR


@pytest.mark.parametrize("method", OFFLINE)
def test_only_the_top_layers_and_the_final_norm_are_trained_and_the_seed_decides(method, folder, terms):
    rows, short = training_of(easy_rows(12), folder), replace(terms, updates=2)
    before = load_causal_lm(folder)[0].state_dict()
    after = {seed: TRAIN[method](rows, short, seed).model.state_dict() for seed in (0, 1)}
    again = TRAIN[method](rows, short, 0).model.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[0][name])}
    assert moved == {name for name in before if name.startswith("model.layers.1.") or name == "model.norm.weight"}
    assert all(torch.equal(again[name], after[0][name]) for name in before)
    assert any(not torch.equal(after[1][name], after[0][name]) for name in before)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_how_an_update_is_cut_changes_memory_only(method, folder, terms):
    rows = training_of(easy_rows(12), folder)
    whole, cut = (TRAIN[method](rows, replace(terms, updates=3, micro_batch_size=size), 0).model.state_dict() for size in (8, 2))
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, atol=2e-4, rtol=0)


def test_trl_asks_its_reference_about_the_tokens_that_we_score(folder, terms, monkeypatch):
    """The log-probs that TRL's DPO computes before training are those of our own scorer, row by row."""
    import trl

    seen = {}
    train = trl.DPOTrainer.train

    def watched(self, *given, **settings):
        seen.update(chosen=self.train_dataset["ref_chosen_logps"][:], rejected=self.train_dataset["ref_rejected_logps"][:])
        return train(self, *given, **settings)

    monkeypatch.setattr(trl.DPOTrainer, "train", watched)
    rows = training_of(easy_rows(8, chat=True), folder)
    TRAIN["dpo"](rows, replace(terms, updates=2), 3)
    pairs, ours = make_pairs(rows.frame, seed=3), completion_logps(load_causal_lm(folder)[0], rows.tokens, device=CPU, compute_dtype=torch.float32)  # fmt: skip
    numbers = in_turn(len(pairs), 8, 3)
    np.testing.assert_allclose(seen["chosen"], ours[pairs.chosen[numbers]], rtol=1e-4)
    np.testing.assert_allclose(seen["rejected"], ours[pairs.rejected[numbers]], rtol=1e-4)


def test_trl_updates_at_the_rates_of_fit(folder, terms, monkeypatch):
    """10 updates, one of them warm-up; two passes each, so that the schedule must count updates, not passes."""
    import trl

    rates = []
    make = trl.SFTTrainer.__init__

    def watched(self, *given, **settings):
        make(self, *given, **settings)
        self.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(trl.SFTTrainer, "__init__", watched)
    TRAIN["sft"](training_of(easy_rows(8), folder), terms, 0)
    peak = terms.rates["sft"]
    wanted = [learning_rate_at(step, steps=10, peak=peak, warmup_fraction=0.1, schedule="linear") for step in range(10)]
    assert rates == pytest.approx(wanted) and rates[0] == peak


def test_examples_by_hand():
    """Prompt 7 8, completions 1 2 (desirable) and 3: what each of TRL's trainers is given."""
    tokens = token_rows([[7, 8], [7, 8]], [[1, 2], [3]], labels=[True, False])
    frame = pl.DataFrame({"row_id": ["a", "b"], "prompt": ["p", "p"], "completion": ["x", "y"], "label": [True, False]})
    pairs, first = make_pairs(frame, seed=0), np.array([0])
    assert sft_examples(tokens, first) == [{"input_ids": [7, 8, 1, 2], "labels": [-100, -100, 1, 2]}]
    assert dpo_examples(tokens, pairs, first) == [{"prompt_ids": [7, 8], "chosen_ids": [1, 2], "rejected_ids": [3]}]
    assert reward_examples(tokens, pairs, first) == [{"chosen_ids": [7, 8, 1, 2], "rejected_ids": [7, 8, 3]}]
    assert orpo_examples(tokens, pairs, first) == [
        {
            "chosen_input_ids": [7, 8, 1, 2], "chosen_attention_mask": [1] * 4, "chosen_labels": [-100, -100, 1, 2],
            "rejected_input_ids": [7, 8, 3], "rejected_attention_mask": [1] * 3, "rejected_labels": [-100, -100, 3],
        }
    ]  # fmt: skip


def test_a_token_that_merges_with_one_completion_belongs_to_both_rests():
    """The prompt is 7 8 alone; before the second completion its 8 has become part of 9."""
    tokens = token_rows([[7, 8], [7]], [[1], [9, 3]])
    assert split_pair(tokens, 0, 1) == ([7], [8, 1], [9, 3])


def test_in_turn_uses_every_item_before_any_again():
    found = in_turn(5, 13, seed=0)
    assert sorted(found[:5]) == sorted(found[5:10]) == list(range(5)) and len(set(found[10:])) == 3
    assert in_turn(5, 13, seed=0).tolist() == found.tolist() != in_turn(5, 13, seed=1).tolist()


@pytest.mark.parametrize("method", [*OFFLINE, "rlhf"])
def test_hostile_text_is_trained_on_like_any_other(method, folder, terms):
    signs = ["<|end|> yes", "\x00", "\u202eno", "{% for %}", "\U0001f9e8" * 40, '"}]\n', "<|start|>assistant:yes", "sea " * 200]
    lines = [(f"{n}{label}", sign, f"{sign} {label}", label) for n, sign in enumerate(signs) for label in (True, False)]
    frame = pl.DataFrame(lines, schema=["row_id", "prompt", "completion", "label"], orient="row")
    rows = training_of(frame, folder, max_length=32)
    assert 10 <= len(rows.tokens) < 16  # the longest prompts leave no room
    trained = TRAIN[method](rows, replace(terms, max_length=32, updates=1), 0)
    assert np.isfinite(completion_logps(trained.model, rows.tokens, device=CPU, compute_dtype=torch.float32)).all()


def test_a_reward_model_ranks_and_reads_what_is_written_as_it_reads_rows(folder, terms):
    rows = training_of(easy_rows(30), folder)
    pairs = make_pairs(rows.frame, seed=0)
    judge = train_reward_model(rows.tokens, pairs, in_turn(len(pairs), 40, 0), replace(terms, trainable_layers=2), 0)
    frame = easy_rows(20, start=50)
    held_out = tokens_of(frame, folder)
    found = judge.score(held_out)
    assert auc(found, held_out.label) > 0.9
    written = judge.of_written(frame["prompt"].to_list(), frame["completion"].to_list())
    np.testing.assert_allclose(written, found, rtol=1e-4, atol=1e-5)
    assert judge.of_written([frame["prompt"][0]], [""]) != written[:1]  # nothing but an end: it is scored, not refused


def test_rlhf_raises_the_reward_that_it_is_given(folder, terms):
    rates = rates_of({"rlhf": 5e-3, "reward_model": 1e-2}, 1)
    longer = replace(terms, updates=40, batch_size=16, micro_batch_size=16, trainable_layers=2, rates=rates, rollouts=8)
    facts = TRAIN["rlhf"](training_of(easy_rows(30), folder), longer, 0).metrics
    assert facts["mean_reward_last_quarter"] > facts["mean_reward_first_quarter"] + 0.3
    assert facts["completions"] == 640 and facts["prompts"] == 30


def test_rlhf_needs_room_to_write(folder, terms):
    with pytest.raises(EmptyDataError, match="no prompt leaves room for 47 tokens within max_length 48"):
        TRAIN["rlhf"](training_of(easy_rows(4), folder), replace(terms, rollout_tokens=47, updates=1), 0)


def test_padding_is_not_the_end_token():
    tokenizer = word_tokenizer()
    assert pad_token_of(tokenizer) == "<|unk|>" != tokenizer.eos_token
    tokenizer.pad_token = tokenizer.eos_token
    assert pad_token_of(tokenizer) == "<|unk|>"
    tokenizer.pad_token = "<|start|>"
    assert pad_token_of(tokenizer) == "<|start|>"


def test_a_tokenizer_without_a_token_to_pad_with():
    class Bare:
        name_or_path, pad_token, unk_token, bos_token, eos_token, all_special_tokens = "bare", None, None, None, "E", ["E"]

    with pytest.raises(ModelError, match="no special token beside its end token 'E'"):
        pad_token_of(Bare())


def test_dropout_is_off_for_all(folder, terms, monkeypatch):
    from ktodata.experiments.methods import trl_trainers

    def with_dropout(name):
        model, tokenizer = load_causal_lm(name)
        model.model.layers[1].mlp.add_module("drop", torch.nn.Dropout(0.5))
        return model, tokenizer

    monkeypatch.setattr(trl_trainers, "load_causal_lm", with_dropout)
    model, _ = fresh_model(terms)
    assert [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)] == [0.0]


def test_the_libraries_are_as_loud_as_before(monkeypatch):
    from transformers.utils import logging as transformers_logging

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    before = transformers_logging.get_verbosity(), logging.getLogger("trl").level
    with pytest.raises(ZeroDivisionError), quiet():
        assert os.environ["TQDM_DISABLE"] == "1"
        _ = 1 / 0
    assert "TQDM_DISABLE" not in os.environ
    assert (transformers_logging.get_verbosity(), logging.getLogger("trl").level) == before


def test_without_trl(monkeypatch):
    from ktodata import extras

    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "trl" else found(name))
    with pytest.raises(MissingExtraError, match=r"comparing methods needs trl: pip install 'ktodata\[compare\]'"):
        require_trl()


def test_with_another_trl(monkeypatch):
    from ktodata.experiments.methods import trl_trainers

    monkeypatch.setattr(trl_trainers, "version", lambda name: "1.17.0")
    with pytest.raises(MissingExtraError, match=r"needs trl 1\.16\.0.*trl 1\.17\.0 is installed"):
        require_trl()


def test_rows_that_a_method_cannot_use(folder):
    frame = easy_rows(4)
    with pytest.raises(EmptyDataError, match="none of 4 prompts has a desirable and an undesirable completion, so dpo cannot"):
        check_can_train(("kto", "dpo"), make_pairs(frame.filter("label"), seed=0))
    check_can_train(("kto", "sft"), make_pairs(frame.filter("label"), seed=0))
    with pytest.raises(OneClassError, match="all 4 rows that fit max_length 48 are desirable"):
        training_rows(
            check_rows(frame.filter("label"), part="train", both_classes=False), load_causal_lm(folder)[1], max_length=48
        )


def test_rates_and_updates_by_hand():
    """60 rows in batches of 8: 8 updates an epoch, as `fit` makes them; at least two rows are in one."""
    assert updates_of(60, batch_size=8, epochs=2, max_steps=None) == 16
    assert updates_of(60, batch_size=8, epochs=2, max_steps=5) == 5
    assert updates_of(3, batch_size=2, epochs=1, max_steps=None) == 1
    assert rates_of({"dpo": 1e-6}, 10) == {name: 10 * (1e-6 if name == "dpo" else rate) for name, rate in LEARNING_RATES.items()}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 9}, "must be even"),
        ({"micro_batch_size": 6}, r"micro_batch_size \(6\) must divide batch_size \(8\)"),
        ({"rollouts": 3}, r"rollouts \(3\) must divide batch_size \(8\)"),
    ],
)
def test_updates_that_cannot_be_cut(settings, says):
    given = {"batch_size": 8, "micro_batch_size": 4, "rollouts": 4, "methods": ["rlhf"]} | settings
    with pytest.raises(SettingError, match=says):
        check_sizes(given)


@pytest.mark.parametrize(("rates", "says"), [({"ppo": 1e-5}, "unknown method 'ppo'"), ({"dpo": 0.0}, "above 0")])
def test_bad_rates(rates, says):
    with pytest.raises(SettingError, match=says):
        rates_of(rates, 1)


@pytest.mark.parametrize("name", ["sft", "kto", "dpo"])
def test_policies_are_compared_as_they_would_be_saved(name, terms, folder, tmp_path):
    """A base stored in bfloat16: else the method that rounds nothing would seem better than it is."""
    model, tokenizer = load_causal_lm(folder)
    model.bfloat16().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rows = training_of(easy_rows(24), str(tmp_path))
    policy = TRAIN[name](rows, replace(terms, model=str(tmp_path)), 0).model
    weights = dict(policy.named_parameters())
    assert all(torch.equal(weight.bfloat16().float(), weight) for weight in weights.values())
    before = dict(load_causal_lm(str(tmp_path))[0].named_parameters())
    assert any(not torch.equal(weight, before[place]) for place, weight in weights.items())
