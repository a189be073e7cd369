"""Methods as an experiment: what a comparison reads and trains, known before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.digests import code_digest, digest
from ktodata.errors import EmptyDataError, SettingError
from ktodata.evaluate.generation import ANSWER_BATCH_SIZE, choose_prompts
from ktodata.evaluate.truth import with_truth
from ktodata.experiments import method_training
from ktodata.experiments.arm_keys import digest_model, digest_rows, releases
from ktodata.experiments.arms import BASE, Arm, ArmTraining, TrainedArm
from ktodata.experiments.clock import Pace, measure_pace, time_writing
from ktodata.experiments.comparison import Comparison, comparison_of
from ktodata.experiments.experiment import ExperimentPlan, Notify, check_apart
from ktodata.experiments.method_training import terms_of, train_method
from ktodata.experiments.methods.preference_pairs import make_pairs
from ktodata.experiments.methods.terms import TrainingTerms, rates_of
from ktodata.experiments.methods.train_methods import TrainingRows, check_can_train, training_rows
from ktodata.experiments.probes.probe_table import Probes, make_probes
from ktodata.experiments.probes.win_rate import Judging, judging_rows
from ktodata.models import check_no_adapter, context_of, load_causal_lm
from ktodata.train.data.tokens import TokenRows, tokenize
from ktodata.train.data.training_rows import check_rows, is_conversational, read_part

BACKWARD = 2  # a backward pass in forward passes; less where layers are frozen
# (passes without gradient, passes with one) of one completion through the whole model.
# kto: own and mismatched by the reference, mismatched by the policy. dpo: the reference. rlhf: the old and reference log-probs
# and the reward of what was written; with gradient the reward model, and the policy
PASSES = {"sft": (0, 1), "kto": (3, 1), "kto_hybrid": (3, 1), "dpo": (1, 1), "orpo": (0, 1), "rlhf": (3, 2)}


@dataclass(frozen=True)
class MethodPlan(ExperimentPlan):
    """Arms that each method's own trainer trains, all on the same rows; the base is first, and is not trained.

    held_out : row_id, label, truth, group, model, tokens: those that fit max_length, in the order of `tokens`
    work : tokens that go through the model, as `tokens_of_work` counts them; judging : None: no win rates
    """

    rows: TrainingRows
    tokens: TokenRows
    terms: TrainingTerms
    metrics: dict[str, Any]
    work: Mapping[str, Any]
    probes: Probes = field(repr=False)
    judging: Judging | None

    def train(self, training: ArmTraining) -> TrainedArm:
        """Train the method (or take the base as it is), and ask it about the held-out rows; its policy is not kept."""
        return train_method(training, self.rows, self.tokens, self.terms, self.probes)

    def expect(self, left: Sequence[ArmTraining]) -> tuple[list[float], dict[str, Any]]:
        """By the pace of our own trainer on these rows: every method's passes over as many tokens."""
        numbers = {"updates": self.terms.updates, "batch_size": self.terms.batch_size, **self.work}
        if not left:
            return [], numbers
        names = ("model", "max_length", "micro_batch_size", "trainable_layers")
        trial = {name: getattr(self.terms, name) for name in names} | {"batch_size": self.terms.micro_batch_size}
        trial |= {"device": str(self.terms.device), "dtype": self.terms.dtype, "activation_cache_mb": 0}  # as TRL, which has none
        rows = self.rows.frame.drop("part", strict=False)
        pace, written = measure_pace(rows, rows.clear(), trial), 0.0
        if self.work["written_steps"] or "rlhf" in {training.arm.name for training in left}:
            prompts = [ids for ids in self.rows.tokens.prompt if len(ids)][:ANSWER_BATCH_SIZE]
            written = time_writing(load_causal_lm(self.terms.model)[0], prompts, self.terms.device) if prompts else 0.0
        return [method_seconds(training.arm.name, self.work, pace, written, self.terms) for training in left], numbers

    def run(self, notify: Notify = lambda event: None) -> Comparison:
        """Train every arm, and measure them all."""
        return comparison_of(self, self.run_arms(notify))


def plan_methods(run_or_shards: Path | str | pl.DataFrame, settings: Mapping[str, Any]) -> MethodPlan:
    """Read and check everything. Raises before the expensive work, as `kd.train.fit` does."""
    part = settings["part"]
    rows = read_part(run_or_shards, part)
    if rows.is_empty():
        raise EmptyDataError(f"there are no {part} rows to compare on. Hold some out with the step `split`.")
    rows = with_truth(check_rows(rows, part=part, both_classes=False), settings["truth"], settings["truth_column"])
    limit = settings["max_rows"]
    rows = rows if limit is None else rows.sample(min(limit, rows.height), seed=0).sort("row_id")
    train = check_rows(read_part(run_or_shards, "train"), part="train", both_classes=True)
    check_apart(train, rows, f"compare, {part}")
    model, tokenizer = load_causal_lm(settings["model"])
    check_no_adapter(settings["model"], model)
    context = context_of(model.config)
    check_context(context, settings["max_length"])
    used = training_rows(train, tokenizer, max_length=settings["max_length"])
    tokens, token_facts = tokenize(rows, tokenizer, max_length=settings["max_length"], part=part)
    pairs = make_pairs(used.frame, seed=0)
    check_can_train(tuple(settings["methods"]), pairs)
    terms = terms_of(settings, rows=len(used.tokens))
    arms = ((BASE, 0), *((method, seed) for seed in settings["seeds"] for method in settings["methods"]))
    probes = make_probes(settings, tokenizer, context=context, chat=is_conversational(train))
    judging = judging_rows(run_or_shards, rows, part=part, endpoint=bool(settings["judge"])) if settings["win_rate"] else None
    if judging is not None:
        check_apart(train, judging.learnt, "compare, win_rate")
    prompts = [*probes.texts(), _prompts_answered(tokens, settings)]
    task_tokens = 0 if probes.tasks is None else probes.tasks.facts["tokens"]
    work = tokens_of_work(used.tokens, tokens, terms, [method for method, _ in arms], prompts, tasks=task_tokens)
    work["judge_requests"] = prompts[-1][0] * 2 * (len(arms) - 1) if settings["judge"] else 0
    facts = {
        "part": part,
        "held_out_rows": len(tokens),
        "prompt_groups": len(set(tokens.group)),
        "updates": terms.updates,
        "rows_used": pairs.metrics,
        "tokens": {"train": used.metrics, part: token_facts},
        "probes": probes.facts,
    }
    keys = _training_keys(settings, train, rows, arms, probes.digests)
    trainings = [ArmTraining(Arm(method, method, train), seed, settings, keys[method, seed]) for method, seed in arms]
    folder = None if settings["out"] is None else settings["out"] / "arms"
    about = held_out_table(rows, tokens)
    return MethodPlan(trainings, about, settings, folder, used, tokens, terms, facts, work, probes, judging)


def check_context(context: int | None, max_length: int) -> None:
    """Raise SettingError when rows may be longer than the model reads. context : tokens that it reads; None: no limit"""
    if context is not None and max_length > context:
        raise SettingError(f"compare: max_length is {max_length:,}; the model reads {context:,} tokens at most.")


def held_out_table(rows: pl.DataFrame, tokens: TokenRows) -> pl.DataFrame:
    """What is known of each held-out row that fits; without its text."""
    model = pl.col("model").cast(pl.String) if "model" in rows.columns else pl.lit(None, dtype=pl.String)
    counts = [len(completion) for completion in tokens.completion]
    fits = pl.DataFrame({"row_id": tokens.row_id, "group": tokens.group, "tokens": counts})
    return fits.join(rows.select("row_id", "label", "truth", model=model), on="row_id", how="left", maintain_order="left")


def tokens_of_work(
    train: TokenRows,
    held_out: TokenRows,
    terms: TrainingTerms,
    methods: Sequence[str],
    prompts: Sequence[tuple[int, int, int]] = (),
    *,
    tasks: int = 0,
) -> dict[str, Any]:
    """Tokens that go through the whole model at most, as forward passes, for each method once and for all arms together.

    methods : of all arms. prompts : (prompts, their tokens, most tokens of one answer) of everything that is answered
    tasks : tokens of lm-eval's items
    """
    row = _token_count(train) / len(train)
    held_out_tokens = _token_count(held_out)
    written = sum(count * longest for count, _, longest in prompts)
    scored = held_out_tokens + sum(read for _, read, _ in prompts) + tasks
    completions = terms.updates * terms.batch_size
    once = {name: round(_passes(name) * completions * row) + scored + written for name in methods}
    return {
        "completions_a_method": completions,
        "tokens_a_completion": round(row, 1),
        "held_out_tokens": held_out_tokens,
        "scored_tokens": scored,
        "written_tokens": written,
        "written_steps": sum(-(-count // ANSWER_BATCH_SIZE) * longest for count, _, longest in prompts),
        "forward_tokens": once,
        "forward_tokens_in_all": sum(once[name] for name in methods),
    }


def method_seconds(method: str, work: Mapping[str, Any], pace: Pace, written: float, terms: TrainingTerms) -> float:
    """What one arm is expected to take. written : seconds of one more token to ANSWER_BATCH_SIZE prompts"""
    plain, trained = PASSES.get(method, (0, 0))
    tokens: float = work["completions_a_method"] * work["tokens_a_completion"]
    seconds: float = tokens * (plain * pace.forward + trained * pace.trained) + work["scored_tokens"] * pace.forward
    seconds += work["written_steps"] * written + pace.preparing * (1 + (trained > 0))
    if method == "rlhf":
        seconds += terms.updates * terms.rollout_tokens * written * max(1, terms.batch_size / ANSWER_BATCH_SIZE)
    return seconds


def _passes(method: str) -> int:
    """Of one completion through the whole model, in forward passes; what RLOO writes is read once more for that."""
    plain, trained = PASSES.get(method, (0, 0))
    return plain + trained * (1 + BACKWARD) + (method == "rlhf")


def _prompts_answered(tokens: TokenRows, settings: Mapping[str, Any]) -> tuple[int, int, int]:
    """(prompts, their tokens, most tokens of one answer) of the held-out prompts that are answered."""
    chosen = choose_prompts(tokens, settings["generate"], 0)
    return len(chosen), sum(len(tokens.prompt[row]) for row in chosen), settings["max_new_tokens"]


def _token_count(rows: TokenRows) -> int:
    return sum(len(p) + len(c) for p, c in zip(rows.prompt, rows.completion, strict=True))


def _training_keys(
    settings: Mapping[str, Any],
    train: pl.DataFrame,
    rows: pl.DataFrame,
    arms: Sequence[tuple[str, int]],
    probes: Mapping[str, str],
) -> dict[tuple[str, int], str]:
    """A digest of all that an arm's scores and answers depend on. Settings that only read them have no part in it.

    probes : of each, what its answers depend on
    """
    common = ("part", "max_length", "generate", "max_new_tokens", "device", "dtype")
    of_training = (
        *("epochs", "max_steps", "batch_size", "micro_batch_size", "trainable_layers", "beta", "warmup_fraction", "schedule"),
        *("max_grad_norm", "rollout_tokens", "rollouts"),
    )
    scored = [digest_model(settings["model"]), digest_rows(rows, ("row_id", "prompt", "completion"))]
    trained = digest_rows(train, ("row_id", "prompt", "completion", "label", "weight", "prompt_group"))
    rates = rates_of(settings["learning_rates"], settings["learning_rate_factor"])
    keys, code = {}, code_digest(method_training.__name__)
    for method, seed in arms:
        used_settings: dict[str, Any] = {name: settings[name] for name in common} | dict(probes)
        if method != BASE:
            used_settings |= {name: settings[name] for name in of_training} | {"train": trained, "rate": rates[method]}
        if method == "rlhf":
            used_settings["reward_model_rate"] = rates["reward_model"]
        keys[method, seed] = digest(method, seed, scored, used_settings, releases(method), code)
    return keys
