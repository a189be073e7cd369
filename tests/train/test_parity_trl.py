"""Side by side with TRL's KTOTrainer on one fp32 batch with the same partners."""

import numpy as np
import pytest
import torch
from tiny_models import assert_same_gradients, chat_rows, text_rows

from ktodata.models import load_causal_lm
from ktodata.train.batches import Step
from ktodata.train.loop import matched, mismatched, reference_point_of
from ktodata.train.objectives import Kto
from ktodata.train.reference import reference_logps, unique_pairs
from ktodata.train.scorer import Scorer
from ktodata.train.shards import check_rows
from ktodata.train.tokens import tokenize

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


def moved(model):
    """A policy that has left its reference, so that no log-ratio is 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("rows", [text_rows(SIZE), chat_rows(SIZE)], ids=["text", "chat"])
def test_loss_z0_and_every_gradient_equal_trl(rows, model_folder, tmp_path):
    theirs, tokenizer = load_causal_lm(model_folder)
    trainer = trl_trainer(rows, theirs, tokenizer, tmp_path)
    moved(trainer.model)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()  # the metrics go by this; the tiny model has no dropout
    their_loss = trainer.compute_loss(trainer.model, batch)
    their_loss.backward()
    their_gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters()}

    model, tokenizer = load_causal_lm(model_folder)
    tokens, _ = tokenize(check_rows(rows, part="train", both_classes=True), tokenizer, max_length=24, part="train")
    # TRL pairs each prompt with the completion of the row before it
    step = Step(0, np.arange(SIZE), np.roll(np.arange(SIZE), 1))
    scorer = Scorer(model, tokens, device=torch.device("cpu"), compute_dtype=torch.float32)
    pairs = unique_pairs(matched(step) + mismatched(step))
    reference, _ = reference_logps(scorer, pairs, key="parity", cache=tmp_path / "cache")
    moved(model)
    z0 = reference_point_of(scorer, reference, step)
    logps = scorer(matched(step))
    labels, weight = torch.from_numpy(tokens.label), torch.ones(SIZE)
    loss = Kto(0.3, **WEIGHTS).loss(logps, reference(matched(step)), labels, z0.value, weight).sum() / SIZE
    loss.backward()

    assert z0.value > 0.01  # else the test would not see it
    torch.testing.assert_close(z0.value.item(), trainer._metrics["train"]["kl"][-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, their_loss, rtol=1e-5, atol=1e-6)
    ours = {name: p.grad for name, p in model.named_parameters()}
    assert_same_gradients(ours, their_gradients, relative=1e-5)


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
