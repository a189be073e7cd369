"""`compare`: KTO beside the untrained base, SFT, DPO, ORPO and RLHF, trained on the same rows on the same terms."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from ktodata.errors import SettingError
from ktodata.evaluate.truth import TruthFile
from ktodata.experiments.comparison import Comparison, json_settings
from ktodata.experiments.methods.terms import METHODS, OURS, MethodName, check_sizes
from ktodata.experiments.probes.win_rate import JudgeEndpoint, check_win_rate
from ktodata.extras import require
from ktodata.files import alone_if_run, read_note
from ktodata.settings import check_settings
from ktodata.train.schedule import Schedule

# what a comparison takes over from the training of its run
OF_RUN = ("model", "max_length", "batch_size", "epochs", "trainable_layers", "beta", "warmup_fraction", "schedule")


def compare(
    run_or_shards: Path | str | pl.DataFrame,
    *,
    model: Annotated[str, Field(min_length=1, description="the base of all methods: hub id, folder, or packaged name")],
    methods: Annotated[
        Sequence[MethodName], Field(min_length=1, description="which to train; the base is always scored")
    ] = METHODS,
    seeds: Annotated[
        Sequence[Annotated[int, Field(ge=0)]], Field(min_length=1, description="each method is trained once for each")
    ] = (0,),
    part: Annotated[Literal["test", "validation"], Field(description="the held-out rows to score")] = "test",
    truth: Annotated[TruthFile | None, Field(description="a file that says what is true of rows; used to score only")] = None,
    truth_column: Annotated[str | None, Field(description="or the shards' own column that says it")] = None,
    max_rows: Annotated[int | None, Field(ge=2, description="score at most this many held-out rows; none: all")] = None,
    epochs: Annotated[int, Field(ge=1, le=1000, description="KTO's passes over the rows; all others make as many updates")] = 1,
    max_steps: Annotated[int | None, Field(ge=1, description="stop every method after this many updates")] = None,
    batch_size: Annotated[int, Field(ge=2, le=4096, description="completions of one update, of every method; even")] = 32,
    micro_batch_size: Annotated[int, Field(ge=2, le=4096, description="completions of one forward pass; memory only; even")] = 8,
    max_length: Annotated[int, Field(ge=2, description="tokens of prompt and completion; the end is cut off")] = 1024,
    trainable_layers: Annotated[
        int | None, Field(ge=1, description="train the top layers and final norm only; none: all")
    ] = None,
    learning_rates: Annotated[
        dict[str, float] | None,
        Field(description="peak rates of some methods, in place of those in experiments/methods/terms.py"),
    ] = None,
    learning_rate_factor: Annotated[float, Field(gt=0, le=10_000, description="multiplies the rate of every method alike")] = 1.0,
    warmup_fraction: Annotated[float, Field(ge=0, le=1, description="share of all updates during which the rate rises")] = 0.1,
    schedule: Annotated[Schedule, Field(description="how the rate falls after the warm-up")] = "linear",
    beta: Annotated[
        float, Field(gt=0, le=100, description="per nat; of KTO and DPO, and of the rewards that are measured")
    ] = 0.1,
    max_grad_norm: Annotated[float, Field(gt=0, description="longer gradients are shortened to this norm")] = 1.0,
    rollouts: Annotated[int, Field(ge=2, le=64, description="completions that RLOO writes to one prompt")] = 4,
    rollout_tokens: Annotated[int, Field(ge=1, description="length of those completions")] = 64,
    generate: Annotated[int, Field(ge=0, description="held-out prompts that every policy answers greedily")] = 0,
    max_new_tokens: Annotated[int, Field(ge=1, description="length of those answers")] = 64,
    safety: Annotated[
        Path | None,
        Field(description="file of prompts, each said to be unsafe or safe, that every policy answers; none: not asked"),
    ] = None,
    instructions: Annotated[
        Path | None,
        Field(description="file of prompts with instructions that a program can check, in IFEval's form; none: not asked"),
    ] = None,
    instruction_tokens: Annotated[int, Field(ge=1, description="length of the answers to instructions")] = 512,
    tasks: Annotated[
        Sequence[Annotated[str, Field(min_length=1)]],
        Field(description="of lm-eval: folders of its YAML files, BIG-bench task.json, JSON lines of questions, or names"),
    ] = (),
    max_items: Annotated[
        int | None, Field(ge=1, description="at most this many unsafe prompts, safe ones, instruction prompts, items of a task")
    ] = None,
    win_rate: Annotated[
        bool, Field(description="judge the answers of `generate` against the base's, by a reward model learnt from held-out rows")
    ] = False,
    judge: Annotated[JudgeEndpoint | None, Field(description="or by a language model behind this endpoint")] = None,
    bootstrap: Annotated[int, Field(ge=100, le=100_000, description="resamples of prompt groups for the intervals")] = 1000,
    device: Annotated[str, Field(description="auto (cuda when there is one), cpu or cuda")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], Field(description="of the arithmetic, not of the weights; auto: bfloat16 on cuda")
    ] = "auto",
    out: Annotated[Path | None, Field(description="folder for results and finished policies' scores; none: memory")] = None,
    notify: Annotated[Callable[[dict[str, Any]], None] | None, Field(description="called at every event, with a dict")] = None,
) -> Comparison:
    """Train each method for each seed on the training rows, and score the held-out rows with every policy.

    run_or_shards : as in `kd.train.fit`; held-out rows as in `kd.evaluate.evaluate`.

    On equal terms: one base, one set of trainable layers, AdamW with one schedule, as many updates of as many completions for
    all, the same token ids. Methods differ in the rows that they can use: KTO takes all, SFT the desirable ones, DPO, ORPO and
    the reward model of RLHF those whose prompt has both labels (`experiments/methods/preference_pairs.py`); they pass over fewer
    rows more often. RLHF trains twice. Only KTO reads the shards' `weight`. Learning rates: `experiments/methods/terms.py`.

    A policy's reward of a row is beta x (log p_policy - log p_base) of its completion; the base's own score is its log p per
    token. Prompts of files go through the chat template where the rows' own do, being messages. With `out`, a killed comparison
    goes on after the last policy that it finished. `notify` gets what the cost is before the first training, and an event before
    and after each arm (`ExperimentPlan.run_arms`).

    Raises before the expensive work: MissingExtraError without trl, and what `kd.train.fit` raises; EmptyDataError where a method
    needs pairs and no prompt has both labels. ModelError when a policy's log-probs are not finite: its rate was too high.
    """
    settings = _check_compare_settings({name: value for name, value in locals().items() if name != "run_or_shards"})
    from ktodata.experiments.method_plan import plan_methods

    with alone_if_run(settings["out"]):
        comparison = plan_methods(run_or_shards, settings).run(notify or (lambda event: None))
        if settings["out"] is not None:
            comparison.write(settings["out"])
    return comparison


def outlook(run_or_shards: Path | str | pl.DataFrame, **settings: Any) -> dict[str, Any]:
    """What `compare` with these settings would train: rows_used, updates, estimate and more. Nothing of it is kept."""
    checked = _check_compare_settings(settings)
    from ktodata.experiments.method_plan import plan_methods

    plan = plan_methods(run_or_shards, checked)
    return {"settings": json_settings(checked), **plan.metrics, "estimate": plan.cost}


def settings_of_run(folder: Path) -> dict[str, Any]:
    """Base, batches, lengths, layers and beta of the training in a run folder, where there is one: compare on its terms."""
    file = folder / "model" / "training.json"
    if not file.is_file():
        return {}
    trained: dict[str, Any] = read_note(file)["settings"]
    return {name: trained[name] for name in OF_RUN if trained.get(name) is not None}


def _check_compare_settings(requested: dict[str, Any]) -> dict[str, Any]:
    """Settings with defaults; raises SettingError, and MissingExtraError when what they ask for is not installed."""
    settings = check_settings(compare, requested, where="compare")
    check_sizes(settings)
    check_win_rate(settings)
    for name in ("methods", "seeds", "tasks"):
        settings[name] = list(settings[name])
        if len(set(settings[name])) < len(settings[name]):
            raise SettingError(f"compare: {name}: each once only; got {settings[name]}.")
    require("torch", "transformers", what="comparing methods", extra="compare")
    if settings["instructions"] is not None:
        require("langdetect", what="checking instructions", extra="compare")
    if set(settings["methods"]) - OURS:
        from ktodata.experiments.methods.trl_trainers import require_trl

        require_trl()
    return settings
