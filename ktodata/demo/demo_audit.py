"""The audit of a troubled sample, which never sees the truth, and beside it what was put in: both columns are computed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.demo.troubled_sample import CARELESS, LIKES_LENGTH, LONG, RATERS, TroubledSample
from ktodata.formats import read
from ktodata.ledger import add_columns
from ktodata.pipeline.audit import LabelAudit
from ktodata.stage import StageResult
from ktodata.stages.coverage import coverage
from ktodata.stages.dedupe import dedupe
from ktodata.stages.embed import embed
from ktodata.stages.label_noise import label_noise
from ktodata.stages.split import split
from ktodata.stages.validate import validate
from ktodata.stats import clopper_pearson

ENCODER = "packaged:wordllama-256"
JUDGED = 40  # rows that the truth judges, in a person's place
REPEATS = ("repeat", "near_repeat", "outvoted", "labels_disagree")


@dataclass(frozen=True)
class DemoRow:
    """One kind of trouble: what was put in, what the audit says of it, and how many of how many were detected."""

    trouble: str
    injected: str
    detected: str
    count: int
    of: int


@dataclass(frozen=True)
class DemoAudit:
    """feedback : as it was read. stages : what each returned. audit : before a row was judged. reviewed : after JUDGED were."""

    sample: TroubledSample
    feedback: pl.DataFrame
    stages: dict[str, StageResult]
    audit: LabelAudit
    reviewed: LabelAudit

    @property
    def rows(self) -> list[DemoRow]:
        """Every kind of trouble, detected or not."""
        careless = _rater(self, CARELESS.name, "careless rater", f"{CARELESS.coin:.0%} of the verdicts a coin toss")
        length = f'{LIKES_LENGTH.length:.0%} of the verdicts "up" for {LONG} characters or more'
        likes_length = _rater(self, LIKES_LENGTH.name, "judge that likes length", length)
        labels = [_labels(self, self.audit, "nobody has judged a row"), _labels(self, self.reviewed, f"{JUDGED} rows judged")]
        return [_repeats(self), _leaks(self), _topic(self), careless, likes_length, *labels]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"topic": self.sample.topic, "records": len(self.sample.records), "rows": [asdict(row) for row in self.rows]}


def audit_sample(sample: TroubledSample, file: Path, *, seed: int = 0) -> DemoAudit:
    """Read `file`, which holds the sample's records, and audit it; then once more with JUDGED verdicts by the truth."""
    label = {"column": "thumb", "up": True, "down": False}
    table = feedback = read(file, label=label, rater="user", source_id="id", split="part").feedback
    stages: dict[str, StageResult] = {}
    steps: dict[str, Callable[[pl.DataFrame], StageResult]] = {
        "validate": validate,
        "dedupe": dedupe,
        "split": partial(split, given=True),
        "embed": partial(embed, model=ENCODER, cache=False),
    }
    for name, stage in steps.items():
        stages[name] = stage(table)
        table = add_columns(table, stages[name])
    stages["coverage"] = coverage(table, reference=sample.reference, encoder=ENCODER, seed=seed)
    audit = LabelAudit(table, label_noise(table, seed=seed), {"seed": seed})
    queue = audit.next_reviews(JUDGED)
    verdicts = queue.select("row_id", trusted_label=_truth_of(queue["source_id"], sample))
    return DemoAudit(sample, feedback, stages, audit, audit.with_reviews(verdicts))


def _truth_of(ids: pl.Series, sample: TroubledSample) -> pl.Series:
    return ids.replace_strict(sample.truth, return_dtype=pl.Boolean)


def _repeats(demo: DemoAudit) -> DemoRow:
    decisions = demo.stages["dedupe"].decisions.filter(pl.col("reason").is_in(REPEATS))
    named = dict(demo.feedback.select("row_id", "source_id").iter_rows())
    repeated = {named[row_id] for row_id in decisions["row_id"]}
    pairs = demo.sample.repeats.items()
    caught = sum(copy in repeated or original in repeated for copy, original in pairs)
    return DemoRow(
        "repeats", f"{len(pairs)} records copied, a third of them retyped", f"{caught} are one row now", caught, len(pairs)
    )


def _leaks(demo: DemoAudit) -> DemoRow:
    leaks, leaked = demo.stages["split"].tables["leaks"], demo.sample.leaked
    prompts = dict(demo.feedback.select("row_id", "prompt").iter_rows())
    named = {prompts[row_id] for name in ("row_id", "other_row_id") for row_id in leaks[name]}
    caught = len(leaked & named)
    others = leaks.filter(~pl.col("row_id").replace_strict(prompts, return_dtype=pl.String).is_in(list(leaked))).height
    others_text = f", and {others} rows that nobody put there" if others else ""
    return DemoRow(
        "leak", f"{len(leaked)} test prompts, retyped, in training too", f"{caught} named{others_text}", caught, len(leaked)
    )


def _topic(demo: DemoAudit) -> DemoRow:
    sample, tables = demo.sample, demo.stages["coverage"].tables
    holes = tables["reference"].filter(~pl.col("covered"))["prompt"].to_list()
    caught = sum(prompt in sample.topic_prompts for prompt in holes)
    others = (
        f", and {len(holes) - caught} of the {len(sample.reference) - len(sample.topic_prompts)} other prompts"
        if len(holes) > caught
        else ""
    )
    largest = f'; the largest hole is "{tables["holes"]["name"][0]}"' if holes else ""
    injected = f"no row on {sample.topic.replace('_', ' ')}; production asks {len(sample.topic_prompts)} such prompts"
    return DemoRow("missing topic", injected, f"{caught} named as holes{others}{largest}", caught, len(sample.topic_prompts))


def _rater(demo: DemoAudit, name: str, trouble: str, habit: str) -> DemoRow:
    """A rater stands out where the whole interval of agreement with the others is under that of the careful ones together."""
    raters = demo.audit.result.tables["raters"]
    of = raters.row(by_predicate=pl.col("rater") == name, named=True)
    careful = raters.filter(~pl.col("rater").is_in([CARELESS.name, LIKES_LENGTH.name]))
    agrees, shared = int(careful["agrees"].sum()), int(careful["shared"].sum())
    low, _ = clopper_pearson(agrees, shared)
    stands_out = of["agreement_high"] < float(low)
    figures = f"agrees with the others on {of['agreement']:.0%} ({of['agreement_low']:.0%} to {of['agreement_high']:.0%})"
    verdict = "less than" if stands_out else "not told from"
    detected = f"{figures}, {verdict} the {len(RATERS) - 2} careful ones ({agrees / shared:.0%}); why, the audit does not say"
    return DemoRow(trouble, f"{name}: {habit}", detected, int(stands_out), 1)


def _labels(demo: DemoAudit, audit: LabelAudit, when: str) -> DemoRow:
    """Wrong labels of the training rows that nobody judged: how many are flagged, and how many lead the order of doubt."""
    judged = audit.table.filter(~pl.Series(audit.unjudged))["row_id"]
    rows = audit.rows.filter(pl.col("is_label_issue").is_not_null(), ~pl.col("row_id").is_in(judged.implode()))
    wrong = rows["label"] != _truth_of(rows["source_id"], demo.sample)
    total, flagged, caught = int(wrong.sum()), int(rows["flagged"].sum()), int((rows["flagged"] & wrong).sum())
    first, chance = int(wrong.head(total).sum()), round(total * total / max(rows.height, 1))
    turned = (rows["soft_label"] > 0.5) != rows["label"]
    likelier = f"; the likelier label turns {turned.sum()}, {(turned & wrong).sum()} of them rightly" if turned.any() else ""
    doubtful = f"of the {total} most doubtful {first} are wrong (by chance {chance})"
    detected = f"{flagged} flagged, {caught} of them wrong; {doubtful}{likelier}"
    held = audit.table.filter(pl.Series(audit.held)).height
    injected = f"{total} of {rows.height} labels are wrong; {held} texts that were given both labels wait for a person"
    return DemoRow(f"wrong labels, {when}", injected, detected, caught, total)
