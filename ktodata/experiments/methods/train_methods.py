"""One function a method: from the same rows, on the same terms, to a trained policy. KTO is ours; all others are TRL's.

An update is terms.batch_size completions for every method (a pair is two of them), and all make the same number of updates.
Where a method can use fewer rows, it passes over those more often. RLHF trains twice: a reward model, then a policy with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import polars as pl

from ktodata.errors import EmptyDataError, OneClassError
from ktodata.experiments.methods.preference_pairs import PreferencePairs, make_pairs
from ktodata.experiments.methods.reward_model import RewardModel, train_reward_model
from ktodata.experiments.methods.terms import ORPO_LAMBDA, RLOO_BETA, MethodName, TrainingTerms
from ktodata.experiments.methods.trl_datasets import dpo_examples, in_turn, orpo_examples, sft_examples
from ktodata.experiments.methods.trl_trainers import fresh_model, policy_of, quiet, train_with_trl
from ktodata.feedback import LABEL_NAMES
from ktodata.train.data.tokens import TokenRows, tokenize


@dataclass(frozen=True)
class TrainingRows:
    """The rows that fit max_length, as text and as tokens, in one order."""

    frame: pl.DataFrame
    tokens: TokenRows
    metrics: dict[str, Any]


@dataclass(frozen=True)
class TrainedPolicy:
    """metrics: passes (over the method's own rows), completions (read with gradient), learning_rate, and the method's own."""

    model: Any
    metrics: dict[str, Any]
    reward_model: RewardModel | None = None


Method = Callable[[TrainingRows, TrainingTerms, int], TrainedPolicy]


def training_rows(rows: pl.DataFrame, tokenizer: Any, *, max_length: int) -> TrainingRows:
    """Those that have room for a completion. Raises OneClassError when they hold one label only."""
    tokens, facts = tokenize(rows, tokenizer, max_length=max_length, part="train")
    if tokens.label.all() or not tokens.label.any():
        only = LABEL_NAMES[bool(tokens.label[0])]
        raise OneClassError(f"train: all {len(tokens):,} rows that fit max_length {max_length:,} are {only}. Raise max_length.")
    kept = pl.DataFrame({"row_id": tokens.row_id}).join(rows, on="row_id", how="left", maintain_order="left")
    return TrainingRows(kept, tokens, facts)


def check_can_train(methods: Mapping[str, Any] | tuple[str, ...], pairs: PreferencePairs) -> None:
    """Raise EmptyDataError when a method needs pairs and there are none."""
    needing = [name for name in ("dpo", "orpo", "rlhf") if name in methods]
    if needing and not len(pairs):
        raise EmptyDataError(
            f"train: none of {pairs.metrics['prompts']:,} prompts has a desirable and an undesirable completion, so "
            f"{', '.join(needing)} cannot be trained on these rows. Leave them out: methods=[kto, sft]."
        )


def train_kto(
    rows: TrainingRows, terms: TrainingTerms, seed: int, objective: Literal["kto", "kto_hybrid"] = "kto"
) -> TrainedPolicy:
    """`kd.train.fit`: all rows."""
    from ktodata.train import fit

    count = len(rows.tokens)
    result = fit(
        rows.frame.drop("part", strict=False),
        model=terms.model,
        objective=objective,
        epochs=1000,  # the updates end it: an epoch may have fewer rows than there are, as some count nothing
        max_steps=terms.updates,
        batch_size=terms.batch_size,
        micro_batch_size=terms.micro_batch_size,
        learning_rate=terms.rates[objective],
        warmup_fraction=terms.warmup_fraction,
        schedule=terms.schedule,
        beta=terms.beta,
        max_length=terms.max_length,
        trainable_layers=terms.trainable_layers,
        max_grad_norm=terms.max_grad_norm,
        device=str(terms.device),
        dtype=terms.dtype,
        seed=seed,
    )
    n_read = result.telemetry.filter(part="train").height
    return TrainedPolicy(result.model.eval(), _method_facts(terms, objective, count, n_read))


def train_sft(rows: TrainingRows, terms: TrainingTerms, seed: int) -> TrainedPolicy:
    """Maximum likelihood of the desirable completions."""
    import trl

    desirable = rows.tokens.label.nonzero()[0]
    numbers = desirable[in_turn(len(desirable), terms.updates * terms.batch_size, seed)]
    model, tokenizer = fresh_model(terms)
    with quiet():
        examples = sft_examples(rows.tokens, numbers)
        how = {"rate": terms.rates["sft"], "seed": seed, "max_length": terms.max_length}
        trained = train_with_trl(trl.SFTTrainer, trl.SFTConfig, model, tokenizer, examples, terms, **how)
    return TrainedPolicy(policy_of(trained, terms), _method_facts(terms, "sft", len(desirable)))


def train_dpo(rows: TrainingRows, terms: TrainingTerms, seed: int) -> TrainedPolicy:
    """arXiv:2305.18290; reference log-probs are computed once, by the model before training."""
    import trl

    class EncodedDPOTrainer(trl.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # it has prompt_ids, chosen_ids and rejected_ids already

    pairs, numbers = _pairs_in_turn(rows, terms, seed)
    model, tokenizer = fresh_model(terms)
    with quiet():
        examples = dpo_examples(rows.tokens, pairs, numbers)
        how = {"rate": terms.rates["dpo"], "beta": terms.beta, "max_length": terms.max_length, "precompute_ref_log_probs": True}
        trained = train_with_trl(
            EncodedDPOTrainer, trl.DPOConfig, model, tokenizer, examples, terms, seed=seed, completions=2, **how
        )
    return TrainedPolicy(policy_of(trained, terms), _method_facts(terms, "dpo", pairs.metrics["rows_used"]["dpo"], pairs=pairs))


def train_orpo(rows: TrainingRows, terms: TrainingTerms, seed: int) -> TrainedPolicy:
    """arXiv:2403.07691; as in its own code, the likelihood term is of prompt and chosen completion."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class EncodedORPOTrainer(ORPOTrainer):  # type: ignore[misc]
        def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
            return {}  # the columns that it would make are there already

    pairs, numbers = _pairs_in_turn(rows, terms, seed)
    model, tokenizer = fresh_model(terms)
    with quiet():
        examples = orpo_examples(rows.tokens, pairs, numbers)
        how = {"rate": terms.rates["orpo"], "beta": ORPO_LAMBDA, "max_length": terms.max_length}
        trained = train_with_trl(
            EncodedORPOTrainer, ORPOConfig, model, tokenizer, examples, terms, seed=seed, completions=2, **how
        )
    return TrainedPolicy(policy_of(trained, terms), _method_facts(terms, "orpo", pairs.metrics["rows_used"]["orpo"], pairs=pairs))


def train_rlhf(rows: TrainingRows, terms: TrainingTerms, seed: int) -> TrainedPolicy:
    """A reward model on the pairs, then RLOO (arXiv:2402.14740) on the training prompts with it."""
    import trl

    pairs, numbers = _pairs_in_turn(rows, terms, seed)
    judge = train_reward_model(rows.tokens, pairs, numbers, terms, seed)
    prompts = _prompts_with_room(rows, terms)
    wanted = terms.updates * terms.batch_size // terms.rollouts
    turn = in_turn(len(prompts), wanted, seed)
    model, tokenizer = fresh_model(terms)
    with quiet():
        trained = train_with_trl(
            trl.RLOOTrainer,
            trl.RLOOConfig,
            model,
            tokenizer,
            [{"prompt": prompts[int(n)]} for n in turn],
            terms,
            rate=terms.rates["rlhf"],
            seed=seed,
            beta=RLOO_BETA,
            num_generations=terms.rollouts,
            max_completion_length=terms.rollout_tokens,
            shuffle_dataset=False,
            trainer={"reward_funcs": judge.of_written},
        )
    rollout_facts = {
        "prompts": len(prompts),
        "rollout_tokens": terms.rollout_tokens,
        "mean_reward_first_quarter": judge.mean_of(0, 0.25),
        "mean_reward_last_quarter": judge.mean_of(0.75, 1),
        "reward_model_learning_rate": terms.rates["reward_model"],
    }
    facts = _method_facts(terms, "rlhf", pairs.metrics["rows_used"]["rlhf"], pairs=pairs) | rollout_facts
    return TrainedPolicy(policy_of(trained, terms), facts, judge)


TRAIN: dict[MethodName, Method] = {
    "sft": train_sft,
    "kto": train_kto,
    "kto_hybrid": partial(train_kto, objective="kto_hybrid"),
    "dpo": train_dpo,
    "orpo": train_orpo,
    "rlhf": train_rlhf,
}


def _pairs_in_turn(rows: TrainingRows, terms: TrainingTerms, seed: int) -> tuple[PreferencePairs, Any]:
    """(the pairs of this seed, the order in which they are read)."""
    pairs = make_pairs(rows.frame, seed=seed)
    return pairs, in_turn(len(pairs), terms.updates * terms.batch_size // 2, seed)


def _prompts_with_room(rows: TrainingRows, terms: TrainingTerms) -> list[Any]:
    """Different prompts, in the order of the rows, that have a token to go on from and leave room for a whole rollout."""
    room = [0 < len(ids) <= terms.max_length - terms.rollout_tokens for ids in rows.tokens.prompt]
    prompts = [prompt for prompt, fits in zip(rows.frame["prompt"].to_list(), room, strict=True) if fits]
    if not prompts:
        raise EmptyDataError(
            f"train: no prompt leaves room for {terms.rollout_tokens} tokens within max_length {terms.max_length:,}, so RLOO has "
            "nothing to write to. Raise max_length, or lower rollout_tokens."
        )
    different = {str(prompt): prompt for prompt in prompts}
    return list(different.values())


def _method_facts(
    terms: TrainingTerms, method: MethodName, rows: int, completions: int | None = None, pairs: PreferencePairs | None = None
) -> dict[str, Any]:
    """What is told of every method; its passes are completions read with gradient, for each row that it can use."""
    read = terms.updates * terms.batch_size if completions is None else completions
    counts = {"rows": rows, "updates": terms.updates, "completions": read, "passes": round(read / rows, 3)}
    return counts | {"learning_rate": terms.rates[method]} | ({} if pairs is None else {"pairs": len(pairs)})
