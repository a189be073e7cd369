"""The one place where the shared terms of a comparison become TRL's: its configuration, its optimizer, its quiet.

What TRL 1.16 would do otherwise and would weaken or blur a baseline is switched off here:
- gradient checkpointing and bfloat16, on by default, are as in `kd.train.fit`; dropout is off for all
- its schedule and AdamW are replaced by those of `kd.train.fit`: the same weights decay, the same first step
- a reference that it would read again from the model's folder is computed from the model handed over, before the first update
- its random order is replaced by ours, so that every update is full and the number of updates is exact
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch

from ktodata.errors import MissingExtraError, ModelError
from ktodata.experiments.methods.terms import TrainingTerms
from ktodata.experiments.methods.trl_datasets import Example
from ktodata.extras import require
from ktodata.models import check_no_adapter, load_causal_lm, no_progress_bars
from ktodata.train.model.frozen_layers import freeze_below
from ktodata.train.model.stored_dtype import as_stored, round_weights
from ktodata.train.optimizers import make_optimizer
from ktodata.train.schedule import learning_rate_at

TRL_VERSION = "1.16.0"


def require_trl() -> None:
    """Raise MissingExtraError unless the TRL that this was written against is installed."""
    require("torch", "transformers", "trl", "datasets", "accelerate", what="comparing methods", extra="compare")
    if version("trl") != TRL_VERSION:
        raise MissingExtraError(
            f"comparing methods needs trl {TRL_VERSION}, whose defects it knows and goes around; trl {version('trl')} is "
            "installed: pip install 'ktodata[compare]'"
        )


def fresh_model(terms: TrainingTerms) -> tuple[Any, Any]:
    """(the untrained model with the wanted layers trainable, its tokenizer with a pad token other than its end token)."""
    model, tokenizer = load_causal_lm(terms.model)
    check_no_adapter(terms.model, model)
    choose_layers(model, terms)
    tokenizer.pad_token = pad_token_of(tokenizer)
    return model, tokenizer


def choose_layers(model: Any, terms: TrainingTerms) -> None:
    """Put the model where it trains, without dropout, and leave only the wanted layers trainable."""
    model.to(terms.device)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if terms.trainable_layers is None:
        model.requires_grad_(True)
    else:
        freeze_below(model, terms.trainable_layers)


def pad_token_of(tokenizer: Any) -> str:
    """A token that no completion ends with: a reward model reads the last token that is not padding.

    TRL takes the end token where there is no pad token, and its reward model then never sees that a text ends.
    """
    named = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *tokenizer.all_special_tokens)
    chosen = next((token for token in named if token is not None and token != tokenizer.eos_token), None)
    if chosen is None:
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path!r} has no special token beside its end token {tokenizer.eos_token!r} to pad "
            "with. Give it a pad token and save it beside the model."
        )
    return str(chosen)


def config_of(kind: type, terms: TrainingTerms, folder: str, *, rate: float, seed: int, completions: int = 1, **own: Any) -> Any:
    """A TRL configuration of this `kind`. completions : of one example; a pair has two."""
    return kind(
        output_dir=folder,
        max_steps=terms.updates,
        per_device_train_batch_size=terms.micro_batch_size // completions,
        gradient_accumulation_steps=terms.batch_size // terms.micro_batch_size,
        train_sampling_strategy="sequential",
        learning_rate=rate,
        max_grad_norm=terms.max_grad_norm,
        seed=seed,
        bf16=terms.compute_dtype == torch.bfloat16,
        use_cpu=terms.device.type == "cpu",
        gradient_checkpointing=False,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **own,
    )


def optimizers_of(model: Any, terms: TrainingTerms, rate: float) -> tuple[Any, Any]:
    """(AdamW, its schedule) as in `kd.train.fit`."""
    optimizer = make_optimizer(model, "adamw", weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = rate

    def share(step: int) -> float:
        # asked once more after the last update
        step = min(step, terms.updates - 1)
        return learning_rate_at(
            step, steps=terms.updates, peak=1.0, warmup_fraction=terms.warmup_fraction, schedule=terms.schedule
        )

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def train_with_trl(
    kind: type, config_kind: type, model: Any, tokenizer: Any, examples: list[Example], terms: TrainingTerms, **how: Any
) -> Any:
    """The trained model, by a trainer of this `kind`. how : what `config_of` takes, and trainer={...} for the trainer itself.

    Raises ModelError when TRL left examples out, stopped early, or the weights are no longer finite.
    """
    from datasets import Dataset
    from transformers import PrinterCallback

    of_trainer = how.pop("trainer", {})
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(config_kind, terms, folder, **how)
        trainer = kind(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer,
            optimizers=optimizers_of(model, terms, how["rate"]),
            **of_trainer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if trainer.state.global_step != terms.updates or len(trainer.train_dataset) != len(examples):
        made = f"{trainer.state.global_step} of {terms.updates} updates, from {len(trainer.train_dataset):,} of {len(examples):,}"
        raise ModelError(f"{kind.__name__} made {made} examples. This is a fault of the comparison: please report it.")
    return trainer.model


def policy_of(trained: Any, terms: TrainingTerms) -> Any:
    """The same weights in a model that no trainer has touched, rounded as `fit` rounds its own: to what the base is stored in.

    TRL and accelerate leave patches on theirs.
    """
    policy = load_causal_lm(terms.model)[0]
    saved = as_stored(terms.model, policy, policy.named_parameters())
    weights = {name: tensor.detach() for name, tensor in trained.named_parameters() if tensor.requires_grad}
    policy.load_state_dict(weights, strict=False)
    round_weights(policy, saved)
    return policy.to(terms.device).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no warnings from the libraries; what they had been told is restored."""
    import datasets
    from transformers.utils import logging as transformers_logging

    bars, level = datasets.are_progress_bars_disabled(), transformers_logging.get_verbosity()
    trl_level, tqdm_before = logging.getLogger("trl").level, os.environ.get("TQDM_DISABLE")
    restore: list[Callable[[], Any]] = [
        lambda: transformers_logging.set_verbosity(level),
        lambda: logging.getLogger("trl").setLevel(trl_level),
        lambda: os.environ.pop("TQDM_DISABLE") if tqdm_before is None else os.environ.update(TQDM_DISABLE=tqdm_before),
        lambda: None if bars else datasets.enable_progress_bars(),
    ]
    try:
        datasets.disable_progress_bars()
        transformers_logging.set_verbosity_error()
        logging.getLogger("trl").setLevel(logging.ERROR)
        os.environ["TQDM_DISABLE"] = "1"
        with no_progress_bars(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for undo in restore:
            undo()
