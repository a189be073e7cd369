"""Side by side with TRL's KTOTrainer on one fp32 batch with the same partners."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from tiny_families import tiny_family
from tiny_models import assert_same_gradients, chat_rows, job_of, keep_gradients, moved, scorer_of, text_rows, word_tokenizer

from ktodata.models import load_causal_lm
from ktodata.train import loop
from ktodata.train.data.batches import Batch, BatchPlan
from ktodata.train.data.tokens import tokenize
from ktodata.train.data.training_rows import check_rows
from ktodata.train.model.router_loss import coefficient_of, watch_routers
from ktodata.train.objectives import make_objective

trl = pytest.importorskip("trl")
SIZE = 6
WEIGHTS = {"desirable_weight": 1.5, "undesirable_weight": 0.7}


def trl_trainer(rows, model, tokenizer, folder, **settings):
    from datasets import Dataset

    config = trl.KTOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=SIZE,
        beta=0.3,
        max_length=24,
        bf16=False,
        use_cpu=True,
        report_to="none",
        gradient_checkpointing=False,
        learning_rate=1e-4,
        **{**WEIGHTS, **settings},
    )
    tokenizer.pad_token = tokenizer.eos_token
    return trl.KTOTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows.to_dicts()), processing_class=tokenizer)


def their_step(rows, model_folder, folder, **settings):
    """(loss, z0, gradients) of TRL's first batch, by a policy that has left its reference."""
    model, tokenizer = load_causal_lm(model_folder)
    trainer = trl_trainer(rows, model, tokenizer, folder, **settings)
    moved(trainer.model)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()  # the metrics go by this; the tiny model has no dropout
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    z0 = trainer._metrics["train"]["kl"][-1] if trainer._metrics["train"]["kl"] else None
    return loss.item(), z0, {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def our_step(rows, model_folder, objective, *, router_coefficient=0.0, **settings):
    """The same through the loop's own step."""
    model, tokenizer = load_causal_lm(model_folder)
    tokens, _ = tokenize(check_rows(rows, part="train", both_classes=True), tokenizer, max_length=24, part="train")
    # TRL pairs each prompt with the completion of the row before it
    step = Batch(0, np.arange(SIZE), np.roll(np.arange(SIZE), 1), np.arange(SIZE))
    scorer = scorer_of(model, tokens)
    assert scorer.method == "packed"
    if router_coefficient:
        assert watch_routers(scorer, router_coefficient) is None
    job = job_of(scorer, BatchPlan((step,), {}), objective=make_objective(objective, beta=0.3, **WEIGHTS), **settings)
    moved(model)
    recorded = keep_gradients(job)
    metrics = loop.train_step(job, step)
    loss = metrics.losses.mean() + (router_coefficient * metrics.router_loss if router_coefficient else 0)
    return loss.item(), metrics.point.value.item(), recorded[0]


@pytest.mark.parametrize("joined", [True, False], ids=["prompts_joined", "prompts_apart"])
@pytest.mark.parametrize("micro_batch_size", [None, 4])
@pytest.mark.parametrize("rows", [text_rows(SIZE), chat_rows(SIZE)], ids=["text", "chat"])
def test_loss_z0_and_every_gradient_equal_trl(rows, micro_batch_size, joined, model_folder, tmp_path, monkeypatch):
    if not joined:  # as with adapters that have dropout
        monkeypatch.setattr(loop, "dropout_of_adapters", lambda model: nullcontext())
    their_loss, their_z0, their_gradients = their_step(rows, model_folder, tmp_path)
    loss, z0, gradients = our_step(rows, model_folder, "kto", micro_batch_size=micro_batch_size)
    assert z0 > 0.01  # else the test would not see it
    assert z0 == pytest.approx(their_z0, rel=1e-5, abs=1e-5)
    assert loss == pytest.approx(their_loss, rel=1e-5, abs=1e-6)
    assert_same_gradients(gradients, their_gradients, relative=1e-5)


@pytest.mark.parametrize("micro_batch_size", [None, 4])
@pytest.mark.parametrize("coefficient", [None, 0.3])
def test_the_router_loss_of_a_mixture_equals_trl_where_the_update_is_one_batch(coefficient, micro_batch_size, tmp_path):
    """Without a setting it is the config's, 0.001. Cut into micro-batches, TRL's is a mean of theirs; ours stays as it is."""
    tokenizer = word_tokenizer()
    model = tiny_family("mixtral", window=64)
    model.config.update({"attention_dropout": 0.0, "router_jitter_noise": 0.0})  # TRL's model is in training mode
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "mixtral")
    tokenizer.save_pretrained(tmp_path / "mixtral")
    rows, folder = text_rows(SIZE), str(tmp_path / "mixtral")
    their_loss, _, their_gradients = their_step(rows, folder, tmp_path, router_aux_loss_coef=coefficient)
    in_force = coefficient_of(model.config, coefficient)
    loss, _, ours = our_step(rows, folder, "kto", router_coefficient=in_force, micro_batch_size=micro_batch_size)
    assert loss == pytest.approx(their_loss, rel=1e-5, abs=1e-6)
    used = {name: gradient for name, gradient in their_gradients.items() if gradient.abs().max() > 0}
    assert_same_gradients({name: ours[name] for name in used}, used, relative=1e-4)


def test_apo_zero_equals_trl(model_folder, tmp_path):
    rows = text_rows(SIZE)
    their_loss, _, their_gradients = their_step(rows, model_folder, tmp_path, loss_type="apo_zero_unpaired")
    loss, z0, gradients = our_step(rows, model_folder, "apo_zero")
    assert z0 == 0
    assert loss == pytest.approx(their_loss, rel=1e-5, abs=1e-6)
    assert_same_gradients(gradients, their_gradients, relative=1e-5)


def test_trl_trains_on_a_shard_in_our_layout_as_it_is(model_folder, tmp_path):
    import polars as pl
    from datasets import load_dataset

    rows = text_rows(SIZE).with_columns(weight=pl.lit(1.0))
    shard = tmp_path / "train-00000-of-00001.parquet"
    rows.select("row_id", "prompt", "completion", "label", "weight", "prompt_group").write_parquet(shard)
    read = load_dataset("parquet", data_files=str(shard), split="train", cache_dir=str(tmp_path / "hf"))
    theirs, tokenizer = load_causal_lm(model_folder)
    trainer = trl_trainer(pl.DataFrame(read.to_list()), theirs, tokenizer, tmp_path, max_steps=1)
    before = trainer.model.lm_head.weight.detach().clone()
    trainer.train()
    assert trainer.state.global_step == 1
    assert not torch.equal(before, trainer.model.lm_head.weight)
