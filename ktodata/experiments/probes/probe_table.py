"""What every policy of a comparison is asked beyond its held-out rows: prompts to answer greedily, and lm-eval's tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import polars as pl

from ktodata.digests import digest
from ktodata.errors import RunError, SettingError
from ktodata.evaluate import instructions
from ktodata.evaluate.generation import answer_all, encode_prompts
from ktodata.experiments.arms import ITEMS, PROBED, TrainedArm
from ktodata.experiments.measures import TABLE, lines_of
from ktodata.experiments.probes import safety
from ktodata.experiments.probes.lm_tasks import LmTasks, load_tasks, score_tasks, task_measures
from ktodata.stats.bootstrap import Statistic
from ktodata.train.data.ragged_ids import Ids


@dataclass(frozen=True)
class Probe:
    """Prompts that every policy answers greedily.

    prompts : item, prompt, and what its measures need; ids : their tokens; longest : tokens of an answer
    """

    name: str
    prompts: pl.DataFrame
    ids: Sequence[Ids]
    longest: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Probes:
    """All of a comparison; chat: whether prompts go through the chat template, as those of the rows do."""

    by_file: tuple[Probe, ...] = ()
    tasks: LmTasks | None = None
    chat: bool = False
    digests: dict[str, str] = field(default_factory=dict)  # of all that the answers and scores depend on

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values: what was read and answered, by name."""
        facts: dict[str, Any] = {probe.name: probe.facts for probe in self.by_file}
        return facts if self.tasks is None else facts | {"tasks": self.tasks.facts}

    def texts(self) -> list[tuple[int, int, int]]:
        """(prompts, their tokens, most tokens of one answer) of each set of prompts."""
        return [(len(probe.ids), sum(map(len, probe.ids)), probe.longest) for probe in self.by_file]


def make_probes(settings: Mapping[str, Any], tokenizer: Any, *, context: int | None, chat: bool) -> Probes:
    """Read and check everything that was asked for. context : tokens that the model reads; None: no limit."""
    limit, probes, digests = settings["max_items"], [], {}
    readers: tuple[tuple[str, Callable[..., Any], Callable[..., pl.DataFrame], str], ...] = (
        ("safety", safety.read_safety_prompts, safety.at_most, "max_new_tokens"),
        ("instructions", instructions.read_instructions, instructions.at_most, "instruction_tokens"),
    )
    for name, read, at_most, longest in readers:
        if settings[name] is not None:
            prompts, facts = read(settings[name])
            probe = _fitting_probe(
                name, at_most(prompts, limit), settings[longest], tokenizer, context=context, chat=chat, facts=facts
            )
            probes.append(probe)
            digests[name] = digest(probe.prompts["item", "prompt"].to_dicts(), probe.longest, chat)
    tasks = load_tasks(settings["tasks"], tokenizer, limit=limit, chat=chat) if settings["tasks"] else None
    if tasks is not None:
        digests["tasks"] = digest(tasks.digest, limit, chat)
    return Probes(tuple(probes), tasks, chat, digests)


def ask(probes: Probes, policy: Any, tokenizer: Any, *, device: Any, compute_dtype: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(probe, item, text, tokens, unfinished of each answer; task, item, score of each task's item)."""
    answers = [
        probe.prompts.select(pl.lit(probe.name).alias("probe"), "item").hstack(
            answer_all(policy, tokenizer, probe.ids, max_new_tokens=probe.longest, device=device)
        )
        for probe in probes.by_file
    ]
    written = pl.concat(answers) if answers else pl.DataFrame(schema=PROBED)
    if probes.tasks is None:
        return written, pl.DataFrame(schema=ITEMS)
    return written, score_tasks(probes.tasks, policy, tokenizer, compute_dtype=compute_dtype)


def probe_table(probes: Probes, arms: Sequence[TrainedArm], *, resamples: int, seed: int) -> pl.DataFrame:
    """The measures of all probes, one line per measure and method; columns as in `measures.TABLE`."""
    lines: list[dict[str, Any]] = []
    for probe in probes.by_file:
        if probe.name == "safety":
            for unsafe in (True, False):
                prompts = probe.prompts.filter(pl.col("unsafe") == unsafe)
                lines += _probe_lines(probe.name, prompts, arms, partial(safety.refusal_measures, unsafe=unsafe), resamples, seed)
        else:
            lines += _probe_lines(probe.name, probe.prompts, arms, instructions.instruction_measures, resamples, seed)
    if probes.tasks is not None:
        for items, measures in task_measures(probes.tasks):
            arm_rows = [(arm, _with_answers(items, arm.items, arm, "tasks", ["task", "item"])) for arm in arms]
            groups = items.select(pl.format("{} {}", "task", "item"))
            lines += lines_of("no label", arm_rows, measures, groups.to_series(), resamples, seed)
    return pl.DataFrame(lines, schema=TABLE)


def _fitting_probe(
    name: str, prompts: pl.DataFrame, longest: int, tokenizer: Any, *, context: int | None, chat: bool, facts: dict[str, Any]
) -> Probe:
    """The prompts that leave room for a whole answer. Raises SettingError when there are none."""
    ids = encode_prompts(prompts["prompt"].to_list(), tokenizer, chat=chat)
    room = [len(prompt) > 0 and (context is None or len(prompt) + longest <= context) for prompt in ids]
    if not any(room):
        raise SettingError(
            f"compare: {name}: none of {len(ids):,} prompts leaves room for an answer of {longest:,} tokens; the model reads "
            f"{context or 0:,}. Ask for shorter answers."
        )
    counts = {**facts, "answered": sum(room), "too_long": len(room) - sum(room), "longest_answer": longest, "chat_template": chat}
    return Probe(
        name, prompts.filter(pl.Series(room)), [prompt for prompt, fits in zip(ids, room, strict=True) if fits], longest, counts
    )


def _probe_lines(
    name: str,
    prompts: pl.DataFrame,
    arms: Sequence[TrainedArm],
    measures: Callable[[pl.DataFrame], dict[str, Statistic]],
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Lines of one probe's prompts; none where it has none."""
    if prompts.is_empty():
        return []
    arm_rows = [(arm, _with_answers(prompts, arm.probed.filter(pl.col("probe") == name), arm, name, ["item"])) for arm in arms]
    return lines_of("no label", arm_rows, measures, prompts["item"], resamples, seed)


def _with_answers(prompts: pl.DataFrame, answers: pl.DataFrame, arm: TrainedArm, name: str, on: list[str]) -> pl.DataFrame:
    """`prompts` with the arm's answers, in its order. Raises RunError when the arm does not answer each once."""
    both = prompts.join(answers, on=on, how="inner", maintain_order="left")
    if both.height != prompts.height:
        raise RunError(
            f"{arm.name}, seed {arm.seed}: {name}: {both.height:,} answers were kept to {prompts.height:,} prompts. Remove the "
            f"folders arms/{arm.name}-seed{arm.seed}-*, and it is trained again."
        )
    return both
