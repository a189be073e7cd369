"""The audit of a troubled sample, which never sees the truth, and beside it what was put in: both columns are computed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.demo.troubled_sample import CARELESS, LIKES_LENGTH, LONG, RATERS, TroubledSample
from ktodata.formats import read
from ktodata.labels.label_words import span
from ktodata.ledger import add_columns
from ktodata.pipeline.audit import LabelAudit
from ktodata.stage import KEPT, StageResult
from ktodata.stages.coverage import coverage
from ktodata.stages.dedupe import dedupe
from ktodata.stages.embed import embed
from ktodata.stages.label_noise import label_noise
from ktodata.stages.split import split
from ktodata.stages.validate import validate
from ktodata.stats import Interval, clopper_pearson, percent

ENCODER = "packaged:wordllama-256"
JUDGED = 60  # rows of the random draw that the truth judges, in a person's place: as many as `review --budget 60` asks for
ACTION = "drop_and_relabel"  # what becomes of labels that the reviews show to be wrong; without reviews of none
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
class TrainingLabels:
    """How many labels of the rows that would be trained on are wrong, of how many."""

    wrong: int
    rows: int

    def __str__(self) -> str:
        return f"{self.wrong} of {self.rows} ({percent(self.wrong / max(self.rows, 1))})"


@dataclass(frozen=True)
class DemoGain:
    """What the reviews buy. verdicts_alone : were nothing done but to put the judged labels right"""

    judged: int
    given: TrainingLabels
    verdicts_alone: TrainingLabels
    curated: TrainingLabels

    def __str__(self) -> str:
        return (
            f"Wrong labels in the training set: {self.given} before a row was judged, {self.verdicts_alone} by the {self.judged}"
            f" verdicts alone, {self.curated} with what the verdicts say of the other rows."
        )


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
        labels = [_labels(self, self.audit, "no row judged"), _labels(self, self.reviewed, f"{JUDGED} rows judged")]
        return [_repeats(self), _leaks(self), _topic(self), careless, likes_length, *labels]

    @property
    def gain(self) -> DemoGain:
        """Wrong labels, by the truth, of the rows that were learnt from: as given, and after the reviews."""
        rows = _training_rows(self.reviewed, self.sample)
        judged, stay = rows["judged"], rows.filter(pl.col("state").is_in(KEPT))
        given, alone = (TrainingLabels(int(wrong.sum()), rows.height) for wrong in (rows["wrong"], rows["wrong"] & ~judged))
        return DemoGain(int(judged.sum()), given, alone, TrainingLabels(int(stay["wrong_now"].sum()), stay.height))

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        sizes = {"topic": self.sample.topic, "records": len(self.sample.records)}
        return sizes | {"rows": [asdict(row) for row in self.rows], "gain": asdict(self.gain)}


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
    settings: dict[str, Any] = {"seed": seed, "action": ACTION}
    audit = LabelAudit(table, label_noise(table, **settings), settings)
    queue = audit.next_reviews(JUDGED, draw=JUDGED)
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
    """The share of wrong labels beside the truth, and what became of the labels that nobody judged."""
    rows = _training_rows(audit, demo.sample)
    acted_on = rows.filter(~pl.col("judged"), pl.col("state").is_null() | (pl.col("state") == "relabel"))
    total, rightly = int(rows["wrong"].sum()), int(acted_on["wrong"].sum())
    put_right = int((rows["judged"] & rows["wrong"]).sum())
    waiting = int(audit.held.sum())
    injected = (
        f"{total} of {rows.height} labels are wrong ({percent(total / rows.height)}); {waiting} texts with both wait for a person"
    )
    rate = Interval(**audit.metrics["trusted"]["error_rate"])
    says = "how many are wrong is not known" if rate.value is None else f"{span(rate)} are wrong, by a random draw"
    acts = f"{put_right} judged labels are put right, {acted_on.height} others turned or dropped, {rightly} of them wrong"
    acts = acts if put_right + acted_on.height else "none is turned or dropped"
    return DemoRow(f"wrong labels, {when}", injected, f"{says}; {acts}", put_right + rightly, total)


def _training_rows(audit: LabelAudit, sample: TroubledSample) -> pl.DataFrame:
    """Rows that were learnt from: row_id, judged, wrong as given, wrong_now, and state, null where the row is dropped."""
    rows = audit.table.filter(pl.Series(audit.trained))
    states = add_columns(rows, audit.result).select("row_id", "state")
    wrong = rows["label"] != _truth_of(rows["source_id"], sample)
    judged = pl.Series(~audit.unjudged).filter(pl.Series(audit.trained))
    table = rows.select("row_id", judged=judged, wrong=wrong).join(states, on="row_id", how="left", maintain_order="left")
    return table.with_columns(wrong_now=pl.col("wrong") ^ (pl.col("state") == "relabel"))
