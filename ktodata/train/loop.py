"""The training loop, top to bottom: what happens when is an `if` where it happens."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import chain
from typing import Any, TypeVar

import torch

from ktodata.errors import ModelError, is_out_of_memory
from ktodata.train.data.batches import Batch, RowNumbers
from ktodata.train.data.packing import Pair
from ktodata.train.distributed.sharding import clip_gradients
from ktodata.train.distributed.work_split import shared_logps, split_work
from ktodata.train.early_stop import best
from ktodata.train.job import Job
from ktodata.train.model.router_loss import Routed, over_processes, total
from ktodata.train.model.scorer import Scorer
from ktodata.train.model.self_check import words
from ktodata.train.model.stored_dtype import rounded_weights
from ktodata.train.objectives import ReferencePoint, reference_point
from ktodata.train.out_of_memory import within_memory
from ktodata.train.results.step_metrics import StepMetrics, read, read_held_out
from ktodata.train.state import Weights

Tensor = Any
Result = TypeVar("Result")
Parts = list[list[int]]  # places in a step's rows, of one pass each


def train(job: Job) -> None:
    """Train `job.scorer.model` in place from `job.state.step` to the end of the plan; `job.state` grows as it goes."""
    state, first_step, last_step = job.state, job.state.step, len(job.plan.steps)
    unread: list[StepMetrics] = []  # steps whose numbers are still on the device: reading them waits for it
    read_every = 1 if job.objective.point == "running_mean" else job.log_every_steps  # its next step needs this one's rewards

    def due(every: int | None) -> bool:
        # at first_step there is nothing new: an untrained model is its reference, a resumed one was evaluated before
        return every is not None and step > first_step and step % every == 0

    for step in range(first_step, last_step + 1):
        done = step == last_step
        if done or due(read_every) or due(job.eval_every_steps) or due(job.save_every_steps):
            read(unread, job)
        if job.held_out.steps and (done or due(job.eval_every_steps)):
            with rounded_weights(job.scorer.model, job.saved):
                evaluate_held_out(job)
            job.report({"step": step, "steps": last_step, "held_out": state.held_out[-1]})
            if job.early_stop is not None:
                if best(state.held_out) == step:
                    state.best = Weights.of(job.scorer.model)
                done = done or job.early_stop.should_stop(state.held_out)
        if job.checkpoints is not None and not done and due(job.save_every_steps):
            state.work = asdict(job.scorer.work_of_all(job.distributed))
            job.checkpoints.save(job.scorer.model, job.optimizer, state)
        if done:
            break
        for group in job.optimizer.param_groups:
            group["lr"] = job.learning_rate(step)
        unread.append(train_step(job, job.plan.steps[step]))
        state.step = step + 1
    if state.best is not None:
        state.best.restore(job.scorer.model)


def train_step(job: Job, batch: Batch) -> StepMetrics:
    """One update from one effective batch, of which this process computes its share."""
    scorer, own = job.scorer, batch.matched()
    metrics = StepMetrics(scorer, job.reference, batch)
    dropout = dropout_of_adapters(scorer.model)
    with dropout or nullcontext():
        point, joined = measure_point(job, metrics, may_join=dropout is None and job.scorer.routers is None)

        def add_gradients(dealt: list[Parts]) -> None:
            nonlocal joined
            first, joined = joined, None  # made of the first of these parts, unless they were cut anew since
            job.optimizer.zero_grad(set_to_none=True)
            siblings, apart = siblings_apart(job, batch, dealt)
            routed = routed_tokens(job, metrics, dealt)
            for part, others in zip(dealt[job.distributed.rank], siblings, strict=True):
                with watched_routers(job) as passes:
                    logps = first if first is not None else scorer([own[place] for place in part])
                first = None
                # the losses of siblings in other parts pull at this part's rows too
                losses = job.objective.loss(torch.cat([logps, apart[others]]), metrics.examples[part + others], point.value)
                metrics.note(part, logps, losses[: len(part)])
                loss = losses.sum() / len(own)  # divided by the whole step's rows: accumulation equals one big batch
                backward(scorer, loss + router_share(job, metrics, passes, routed))

        in_passes(job, own, add_gradients)
    job.distributed.sum_gradients(scorer.model)
    trainable = [parameter for group in job.optimizer.param_groups for parameter in group["params"]]
    norm = clip_gradients(trainable, job.max_grad_norm)
    job.optimizer.step()
    job.optimizer.zero_grad(set_to_none=True)
    metrics.finish("train", job.state.step, point, norm, job.optimizer.param_groups[0]["lr"])
    return metrics


def routed_tokens(job: Job, metrics: StepMetrics, dealt: list[Parts]) -> Routed | None:
    """What routers do with the rows of all parts, of all processes; None where that is seen in the only part, or nobody asks.

    It takes another pass without gradient over all rows: a part's gradient depends on how often each expert is chosen in all.
    """
    parts, own = dealt[job.distributed.rank], metrics.batch.matched()
    if job.scorer.routers is None or (job.distributed.size == 1 and len(parts) == 1):
        return None
    with torch.no_grad(), job.scorer.routers.watched() as passes:
        for part in parts:
            job.scorer([own[place] for place in part])
    routed = over_processes(passes, job.scorer.routers.experts, job.distributed, job.scorer.device)
    metrics.router_loss = job.scorer.routers.of_update(routed)
    return routed


def router_share(job: Job, metrics: StepMetrics, passes: list[Routed], routed: Routed | None) -> Tensor | float:
    """What passes over a part add to the loss, times the coefficient. routed : of the update; None where this is all of it"""
    if job.scorer.routers is None or not passes:
        return 0.0
    if routed is None:
        metrics.router_loss = job.scorer.routers.of_update(total(passes)).detach()
    return job.scorer.routers.share(passes, routed or total(passes))


def watched_routers(job: Job) -> AbstractContextManager[list[Routed]]:
    """Inside, what routers do in each pass is added to the list; nothing where nobody asks."""
    return nullcontext([]) if job.scorer.routers is None else job.scorer.routers.watched()


def backward(scorer: Scorer, loss: Tensor) -> None:
    """Gradients of `loss`. Raises ModelError, in the model's own words, where its code gives none (RWKV, Reformer)."""
    try:
        loss.backward()
    except (RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"the backward pass of this {scorer.model.config.model_type} model fails, so it cannot be trained: {words(error)}"
        ) from error


def measure_point(job: Job, metrics: StepMetrics, *, may_join: bool) -> tuple[ReferencePoint, Tensor | None]:
    """(reference point of one effective batch, before any of its losses; the first part's log-probs where those were made too).

    z0 is pooled over the whole step, of all processes. The first part's prompts are computed once, for its rows and their
    partners' completions.
    """
    if job.objective.point != "mismatched":
        return fixed_point(job), None
    crossed = metrics.batch.mismatched()
    joined = 1 if may_join and (job.scorer.continues or not job.distributed.is_sharded) else 0
    logps, first = in_passes(job, metrics.batch.matched(), lambda dealt: partner_logps(job, metrics.batch, dealt, joined))
    logps = job.distributed.sum(logps)[list(crossed)]
    return reference_point(logps - job.reference(list(crossed.values()))), first


def partner_logps(job: Job, batch: Batch, dealt: list[Parts], joined: int) -> tuple[Tensor, Tensor | None]:
    """(log-probs of this process's mismatched pairs at their places in the step, 0 elsewhere; those of the first part's rows).

    dealt : of every process, the places in the step's rows that go through its model together; joined : 1 to compute the first
        of these parts with its partners, 0 to leave it
    """
    own, crossed, scorer = batch.matched(), batch.mismatched(), job.scorer
    apart = [[place for part in parts[joined:] for place in part if place in crossed] for parts in dealt]
    passes = max(scorer.passes([crossed[place] for place in places]) for places in apart) if job.distributed.is_sharded else 0
    mine = apart[job.distributed.rank]
    logps = torch.zeros(len(own), device=scorer.device)
    logps[mine] = scorer.without_gradient([crossed[place] for place in mine], passes=passes)
    first = None
    for part in dealt[job.distributed.rank][:joined]:
        partnered = [place for place in part if place in crossed]
        if partnered or job.distributed.is_sharded:
            first, logps[partnered] = scorer.with_partners(
                [own[place] for place in part], [crossed[place] for place in partnered]
            )
    return logps, first


def siblings_apart(job: Job, batch: Batch, dealt: list[Parts]) -> tuple[Parts, Tensor]:
    """(for each part of this process the places of its rows' siblings in other parts; float [B], nats: their log-probs, else 0).

    Under an objective that sets siblings against one another, so that it does not matter how a step is cut into parts. The
    log-probs carry no gradient. All rows of a prompt are one process's (`split_work`).
    """
    own, scorer, rank = batch.matched(), job.scorer, job.distributed.rank
    logps = torch.zeros(len(own), device=scorer.device)
    if not job.objective.contrasts:
        return [[] for _ in dealt[rank]], logps
    siblings = [_in_other_parts(scorer.sequences.prompt_of[batch.rows], parts) for parts in dealt]
    wanted = [sorted(set().union(*of_parts)) for of_parts in siblings]
    passes = max(scorer.passes([own[place] for place in places]) for places in wanted) if job.distributed.is_sharded else 0
    logps[wanted[rank]] = scorer.without_gradient([own[place] for place in wanted[rank]], passes=passes)
    return siblings[rank], logps


def _in_other_parts(prompts: RowNumbers, parts: Parts) -> Parts:
    """For each part the places of rows in the others, prompts [B], that share a prompt with one of its rows."""
    of_prompt: dict[int, set[int]] = {}
    for place in chain.from_iterable(parts):
        of_prompt.setdefault(int(prompts[place]), set()).add(place)
    return [sorted(set().union(*(of_prompt[int(prompts[place])] for place in part)) - set(part)) for part in parts]


def in_passes(job: Job, pairs: list[Pair], compute: Callable[[list[Parts]], Result]) -> Result:
    """What `compute` gives of the pairs as they are dealt into passes; again in smaller ones where memory runs out.

    Where processes pass through the model in step, none can do something again, and the error is raised.
    """
    tokens = job.state.pass_tokens or job.micro_batch_tokens
    if job.distributed.is_sharded:
        return compute(micro_batches(job, pairs, tokens))
    lengths = [job.scorer.length(pair) for pair in pairs]
    result, job.state.pass_tokens = within_memory(lambda most: compute(micro_batches(job, pairs, most)), tokens, lengths=lengths)
    return result


def fixed_point(job: Job) -> ReferencePoint:
    """The reference point of objectives without mismatched pairs: 0, or the running mean of past rewards, in nats."""
    value = job.state.running.value / job.objective.beta if job.objective.point == "running_mean" else 0.0
    tensor = torch.tensor(value, dtype=torch.float32, device=job.scorer.device)
    return ReferencePoint(value=tensor, unclamped=tensor, standard_error=torch.full_like(tensor, torch.nan))


def evaluate_held_out(job: Job) -> None:
    """Loss and implicit rewards of held-out rows under the model as it is now; their telemetry goes into the state."""
    evaluations = []
    for batch in job.held_out.steps:
        metrics = StepMetrics(job.scorer, job.reference, batch)
        if job.objective.point == "mismatched":
            crossed = list(batch.mismatched().values())
            point = reference_point(shared_logps(job.scorer, job.distributed, crossed) - job.reference(crossed))
        else:
            point = fixed_point(job)
        everything = list(range(len(batch.rows)))
        logps = shared_logps(job.scorer, job.distributed, batch.matched())
        metrics.note(everything, logps, job.objective.loss(logps, metrics.examples, point.value))
        metrics.finish("validation", job.state.step, point)
        evaluations.append(metrics)
    read_held_out(evaluations, job)


def micro_batches(job: Job, pairs: list[Pair], tokens: int) -> list[Parts]:
    """For every process, the places in the step's rows that go through its model together, at most `tokens` tokens or one row.

    Where processes pass through the model in step, those with fewer parts get empty ones.
    """
    dealt = []
    for share in split_work(job.scorer.sequences, pairs, job.distributed.size):
        own = [pairs[place] for place in share]
        parts = job.scorer.micro_batches(own, tokens=tokens, rows=job.micro_batch_size)
        dealt.append([[share[number] for number in part] for part in parts])
    turns = max(map(len, dealt)) if job.distributed.is_sharded else 0
    return [[*parts, *([[]] * (turns - len(parts)))] for parts in dealt]


def dropout_of_adapters(model: Any) -> AbstractContextManager[None] | None:
    """A context in which the adapters' own dropout is on; None without any. The base model's is off always."""
    modules = [module for name, module in model.named_modules() if "lora_dropout" in name and getattr(module, "p", 0) > 0]
    return _Training(modules) if modules else None


class _Training:
    """Inside, these modules are in training mode."""

    def __init__(self, modules: list[Any]) -> None:
        self._modules = modules

    def __enter__(self) -> None:
        for module in self._modules:
            module.train()

    def __exit__(self, *_: object) -> None:
        for module in self._modules:
            module.eval()
