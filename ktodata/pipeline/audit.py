"""`kd.audit`: how far the labels can be trusted, what to look at next, and what reviews would buy, in memory."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import DataError, LabelError, RunError, SettingError, ShapeError
from ktodata.feedback import check_columns, check_row_ids
from ktodata.formats import IngestResult, read
from ktodata.formats.data_files import nearest
from ktodata.formats.in_memory import frame_in_memory
from ktodata.formats.records import UnusableError, clip
from ktodata.formats.verdicts.matching import match_verdicts, settling_in_words, with_same_text
from ktodata.formats.verdicts.reviews import as_trusted_label
from ktodata.labels.classifier.feature_sets import RowFeatures, row_features
from ktodata.labels.evidence.training_dynamics import training_dynamics
from ktodata.labels.judges.judge_agreement import with_agreement
from ktodata.labels.label_decisions import waiting_rows
from ktodata.labels.label_words import BY_INJECTED, next_for_labels, p_was_measured, reviewed_labels
from ktodata.labels.people.review_queue import queue
from ktodata.labels.people.review_simulation import simulate_review
from ktodata.labels.people.stacking import MIN_REVIEWED
from ktodata.labels.people.trusted import CONTESTED, draw_order, drawable, is_contested, next_of_draw
from ktodata.labels.row_groups import row_groups
from ktodata.ledger import add_columns
from ktodata.pipeline.audit_recipe import is_recipe
from ktodata.pipeline.run_folder import Run
from ktodata.settings import check_settings, unknown_name
from ktodata.stage import HELD, StageResult, is_trained, no_decisions
from ktodata.stages.dedupe import dedupe
from ktodata.stages.embed import embed
from ktodata.stages.hidden_states import hidden_states
from ktodata.stages.label_noise import ADDS as LABEL_NOISE_ADDS
from ktodata.stages.label_noise import label_noise
from ktodata.stages.validate import validate

SECONDS_A_ROW = 60.0
ROWS_DRAWN = 6  # of the queue, where an audit draws itself
AS_LIKELY_AS_NOT = 0.5  # P(wrong) of a text with both labels
OF_A_TABLE = {"row_id", "votes"}  # columns of a feedback table that hardly any other frame has both of
# what `read` takes, but for what means something else here: a column of models, which turn is judged
READING = set(inspect.signature(read).parameters) - {"paths", "model", "judged"}
ABOUT_HELD = ("held_text", "left_to_a_person")
TABLES = ("raters", "confusions", "drift", "trust_curve", "ask_for_review")  # of label_noise, those that an audit shows
MEASURED = ("label_quality", "p_desirable", "is_label_issue", "flagged", "soft_label", "evidence_against")


def audit(
    feedback: Any,
    *,
    encoder: str = "packaged:wordllama-256",
    model: str | None = None,
    judged: StageResult | None = None,
    telemetry: pl.DataFrame | None = None,
    seed: int = 0,
    **settings: Any,
) -> "LabelAudit":
    """Say how far the labels of feedback can be trusted; of a run, or its folder, the audit that it made.

    feedback : the table that `kd.read(...).feedback` is; or a file, a polars or pandas frame or a list of dicts, which are read
        first. Several votes on a text, and trusted_label where an expert has judged, are used. A run takes no settings beside it:
        its recipe says how it was audited
    encoder : a sentence encoder: packaged name, hub id or folder
    model : a causal language model, the one to be trained if possible: its hidden states are a feature set of their own, and by
        far the best one once some rows are reviewed (one forward pass, cached)
    judged : what `kd.judge` returned, on these rows: its votes count as those of one more rater, and its scores as far as
        reviewed rows show that it is right
    telemetry : of a training on these rows (`kd.train.fit(...).telemetry`, or model/telemetry.parquet of a run); counts as far as
        reviewed rows show that it is right
    settings : as `kd.label_noise` takes them; where feedback is read first, those of `kd.read` too (label, prompt, rater, ...)

    Rows that cannot be used and repeats are left out first, as in a recipe; in whatever order rows stand, the answer is the same,
    and `ktodata audit` gives it too. Errors are those of reading and of the stages; RunError for a run without label_noise.
    """
    if isinstance(feedback, Path | str) and not Path(feedback).exists():
        raise SettingError(f"audit: there is no file and no run folder {clip(str(feedback))!r}. {nearest(str(feedback))}")
    if isinstance(feedback, Run) or (isinstance(feedback, Path | str) and Path(feedback).is_dir()):
        if model is not None or judged is not None or telemetry is not None or settings:
            raise SettingError("audit: a run was audited as its recipe says; settings are for feedback that is audited now.")
        return LabelAudit.of_run(feedback if isinstance(feedback, Run) else Run(feedback))
    if isinstance(feedback, Path | str) and is_recipe(str(feedback)):
        raise SettingError(
            f"audit: {str(feedback)!r} is a recipe: kd.audit(kd.run({str(feedback)!r}, until='label_noise')) audits it."
        )
    reading = {name: settings.pop(name) for name in READING & set(settings)}
    known = [*inspect.signature(label_noise).parameters][1:]
    if unknown := sorted(set(settings) - set(known)):
        raise SettingError(unknown_name("audit has no setting", unknown[0], [*known, *sorted(READING)]))
    check_settings(label_noise, {**settings, "seed": seed}, where="audit")  # before the minutes that embedding takes
    is_table = isinstance(feedback, pl.DataFrame) and set(feedback.columns) >= OF_A_TABLE
    if is_table and reading:
        raise SettingError(f"audit: a feedback table was read before; {', '.join(sorted(reading))} is for what is read now.")
    source = None if is_table else read(feedback, **reading)
    if is_table:
        check_row_ids(feedback, who="audit")
    # as ingest leaves them: of rows that are worth as much, the queue takes the first
    table: pl.DataFrame = (feedback if source is None else source.feedback).sort("row_id")
    row_ids, checked = table["row_id"], validate(table)
    table = add_columns(table, checked)
    repeats = dedupe(table)
    table = _with_held_texts(add_columns(table, repeats), repeats.decisions)
    left_out = _why_gone(row_ids, table["row_id"], pl.concat([checked.decisions, repeats.decisions]))
    table = add_columns(table, embed(table, model=encoder))
    if model is not None:
        table = add_columns(table, hidden_states(table, model=model))
    if judged is not None:
        _check_judged(table, judged)
        table = add_columns(table, judged)
    if telemetry is not None:
        dynamics = training_dynamics(telemetry, table["row_id"].to_list(), table["label"].to_numpy())
        table = table.with_columns(training_dynamics=pl.Series(dynamics.quality(table["label"].to_numpy())).fill_nan(None))
    settings |= {"seed": seed}
    return LabelAudit(table, label_noise(table, **settings), settings, judged, source, left_out)


def _check_judged(table: pl.DataFrame, judged: StageResult) -> None:
    """Raise ShapeError for a result of `kd.judge` that is about other rows."""
    unknown = table.join(judged.columns, on="row_id", how="anti")
    if unknown.height:
        raise ShapeError(
            f"audit: judged is about other rows: {unknown.height:,} of {table.height:,} are not in it (first: "
            f"{unknown['row_id'][0]}). Hand the same table to kd.judge."
        )


@dataclass(frozen=True)
class LabelAudit:
    """`table`: the rows of the audit, with their vectors; `result`: what label_noise returned; `settings`: those it was given.

    judged : what a judge said of the rows, and how far it agrees with the verdicts there are; None where none was asked
    reading : how the rows were read, where the audit read them; left_out : rows that no label is asked of, by why
    """

    table: pl.DataFrame
    result: StageResult
    settings: Mapping[str, Any]
    judged: StageResult | None = None
    reading: IngestResult | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_run(cls, run: Run) -> "LabelAudit":
        """The audit that a run made: its rows as label_noise was given them, and its result. RunError where it has none."""
        if not {"embed", "label_noise"} <= set(run.stage_names()):
            raise RunError(f"{run.folder} has no label_noise: put the steps embed and label_noise into its recipe.")
        noise = run.stage("label_noise")
        learnt = pl.col("is_label_issue").is_not_null()  # label_noise says so of the rows that it learnt from, and of no others
        contradicted = _contradicted(run)
        held = pl.col("row_id").is_in(contradicted["row_id"].implode())
        if "not_learnt" in noise.metrics:
            learnt = ~pl.col("row_id").is_in(_waiting_row_ids(run).implode())
        state = pl.when(learnt).then(pl.lit("keep")).when(held).then(pl.lit(HELD)).otherwise(pl.lit("drop"))
        states = noise.columns.select("row_id", state=state)
        table = run.feedback.drop(LABEL_NOISE_ADDS, strict=False).join(states, on="row_id", maintain_order="left")
        table = _with_held_texts(table, contradicted).with_columns(
            left_to_a_person=pl.col("row_id").is_in(waiting_rows(table, noise.decisions).implode())
        )
        steps = {name: settings for step in run.manifest["recipe"]["steps"] for name, settings in step.items()}
        judged = None
        if "judge" in run.stage_names():
            judge = run.stage("judge")
            judged = StageResult(judge.columns, metrics=judge.metrics)
        tables = {name: noise.table(name) for name in TABLES}
        return cls(table, StageResult(noise.columns, metrics=noise.metrics, tables=tables), steps["label_noise"], judged)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Every number, as JSON values; `findings` says them in words."""
        return self.result.metrics

    @property
    def rows(self) -> pl.DataFrame:
        """Every row of the audit with what was measured of it, the most doubtful label first; those in `left_out`, as repeats
        are, are not among them.
        """
        plain = self.table.drop("prompt_embedding", "completion_embedding", "hidden_state", *ABOUT_HELD, strict=False)
        measured = self.result.columns.select("row_id", *MEASURED)
        joined = plain.drop(MEASURED, strict=False).join(measured, on="row_id", how="left", maintain_order="left")
        return joined.sort("label_quality", "row_id", nulls_last=True)

    @property
    def issues(self) -> pl.DataFrame:
        """Rows doubted for a reason (`evidence_against`), the most doubtful first."""
        return self.rows.filter(pl.col("evidence_against").is_not_null())

    @property
    def summary(self) -> pl.DataFrame:
        """One line for each given class.

        rows; verdict (can random errors be told there?); injected_auroc (0.5 is chance); flagged, and which share of them is
        expected to be wrong, expected_precision, where reviewed rows measured that (measured_on); reviewed rows, how many of them
        were drawn at random, and error_rate among those with its exact 95 % interval, which takes rows of the draw on which
        people differ (drawn_contested), and that nobody has judged (drawn_skipped), for right at one end and for wrong at the
        other. Null: not measured.
        """
        return pl.DataFrame([self._of_class(name) for name in ("desirable", "undesirable")], infer_schema_length=None)

    @property
    def findings(self) -> pl.DataFrame:
        """code, status ("issue", "passed", "not_applicable") and text; those of a judge last."""
        return pl.DataFrame(self._findings, infer_schema_length=None)

    @property
    def raters(self) -> pl.DataFrame:
        """Each rater's agreement with the others and, where they share rows, confusion by Dawid and Skene with intervals."""
        agreement, confusions = self.result.tables["raters"], self.result.tables["confusions"]
        return agreement.join(confusions.drop("votes"), on="rater", how="left", maintain_order="left")

    @property
    def drift(self) -> pl.DataFrame:
        """Sources, raters, models and dates tested for criteria of their own; `significant` marks those that differ."""
        return self.result.tables["drift"]

    @property
    def trust_curve(self) -> pl.DataFrame:
        """Expected precision with its interval against rows acted on, for each given class, and what it was measured on."""
        return self.result.tables["trust_curve"]

    @property
    def ask_for_review(self) -> pl.DataFrame:
        """A random sample, half of each given class, whose verdicts would measure the labels."""
        return self.result.tables["ask_for_review"]

    def next_reviews(self, count: int, *, draw: int | None = None) -> pl.DataFrame:
        """The `count` rows whose review is worth most, best first: those that the desk asks about, in its order.

        row_id, source_id, label, doubt, p_wrong, prompt, completion, why.

        doubt : 1 doubtful .. 0 sound, an order only. p_wrong : the same as a probability, null unless `p_wrong_was_measured`

        First the random draw (why "measures"), as many rows as the headline asks for until the share of wrong labels is known:
        it says how wrong the labels are, what no model suspects, and, from 40 on, what a doubt is worth. Then what is out of the
        data until somebody decides (why "held"): one row of each text with both labels, which count as wrong as likely as not,
        in random order, as those judged stand for the rest of them where raters are measured, and rows that a run's label_noise
        holds. The others (why "gain") are those that nobody can call yet. Of the last two a row is less worth the more it is like
        one before it: labels/people/review_queue.py. Where nothing was learnt of the labels there are no others.
        draw : rows of the draw, in place of what the headline asks for; while fewer than 40 were judged, half of all at least,
        or all that is left beside those held
        """
        for name, number in (("count", count), ("draw", 0 if draw is None else draw)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise SettingError(f"next_reviews: {name} is a whole number of rows, 0 or more; got {number!r}.")
        draw = self.draw_to_judge if draw is None else draw
        p_wrong = self.p_wrong
        known = pl.col("doubt") if self.p_wrong_was_measured else pl.lit(None, pl.Float64)
        rows = self.table.select("row_id", "source_id", "label", "prompt", "completion", pl.Series("doubt", p_wrong))
        rows = rows.select("row_id", "source_id", "label", "doubt", known.alias("p_wrong"), "prompt", "completion")
        open_rows = self.trained & self.unjudged
        drawn = self.metrics["trusted"]["drawn_at_random"]
        waits = self.waits
        others = count - int(waits.sum())
        if "not_learnt" not in self.metrics:
            others = 0 if drawn >= MIN_REVIEWED else min(-(-count // 2), others)
        # the beginning of one draw, however few rows are wanted: so that the next ones go on with it
        first = self._random_draw(max(draw, others))[:count]
        waits[first] = False
        open_rows[first] = False
        open_rows &= ~waits & ("not_learnt" not in self.metrics)
        held, rest = self._queued(waits, open_rows, count - len(first))
        whys = (pl.lit(why).alias("why") for why in ("measures", "held", "gain"))
        return pl.concat([rows[part].with_columns(why) for part, why in zip((first, held, rest), whys, strict=True)])

    def _queued(
        self, waits: NDArray[np.bool_], others: NDArray[np.bool_], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of `count` rows whose review is worth most: of those that wait, then, where these are fewer, of the others."""
        if not count:  # what the models see is not computed anew for nothing
            return np.array([], np.int64), np.array([], np.int64)
        held = np.flatnonzero(self.held & waits)
        texts = held[draw_order(self.table["row_id"][held], self.seed)][:count]
        features = features_of(self.table)
        left = queue(features, self.p_wrong, waits & ~self.held, count - len(texts))
        return np.r_[texts, left], queue(features, self.p_wrong, others, count - len(texts) - len(left))

    def _random_draw(self, count: int) -> NDArray[np.int64]:
        """Places of the next rows of the random order that nobody has judged: int [<= count]."""
        table = self.table.with_columns(trained=pl.Series(self.trained), unjudged=pl.Series(self.unjudged))
        rows = table.with_columns(unjudged=pl.col("unjudged") & ~is_contested(table)).filter(drawable(table))
        sample = next_of_draw(rows.select("row_id", "label", "unjudged"), count, seed=self.seed)
        places = dict(zip(self.table["row_id"], range(self.table.height), strict=True))
        return np.array([places[row_id] for row_id in sample], dtype=np.int64)

    @property
    def draw_to_judge(self) -> int:
        """Rows of the random draw that the headline asks a person to judge."""
        return next_for_labels(reviewed_labels(self.metrics["trusted"])).draw

    @property
    def unjudged(self) -> NDArray[np.bool_]:
        """Rows without a trusted label: bool [N]."""
        return np.asarray(self.table_column("trusted_label", None).is_null().to_numpy())

    @cached_property
    def held(self) -> NDArray[np.bool_]:
        """The first row of each text that waits for a verdict because it has both labels, held-out ones too: bool [N]."""
        waits = (self.table_column("state", "keep") == HELD) & self.table_column("held_text", None).is_not_null()
        table = self.table.select("row_id", text=self.table_column("held_text", None), waits=waits, judged=~self.unjudged)
        first = pl.col("row_id") == pl.col("row_id").filter("waits").min().over("text")
        waiting = pl.col("waits") & ~pl.col("judged").any().over("text") & first
        return np.asarray(table.select(waiting).to_series().to_numpy())

    @property
    def waits(self) -> NDArray[np.bool_]:
        """Rows that are out of the data until somebody judges them, one of each text with both labels: bool [N]."""
        left = self.table_column("left_to_a_person", default=False).to_numpy()
        return np.asarray(self.held | (left & self.unjudged))

    @property
    def p_wrong_was_measured(self) -> bool:
        """Whether p_wrong may be read as a probability: enough rows of each label were reviewed, and the draw does not refute it.

        Elsewhere it says which labels the models of the labels find odd, and no more: an order only.
        """
        return p_was_measured(self.metrics)

    def buys(self, minutes: float, *, seconds_a_row: float = SECONDS_A_ROW) -> dict[str, float | None]:
        """What so many minutes of review are expected to find: rows, wrong_labels_expected (None where that cannot be told)."""
        rows = self.next_reviews(int(minutes * 60 // seconds_a_row))
        expected = float(rows["p_wrong"].sum()) if self.p_wrong_was_measured else None
        return {"minutes": minutes, "rows": rows.height, "wrong_labels_expected": expected}

    def with_reviews(self, verdicts: Any) -> "LabelAudit":
        """The audit made anew with people's verdicts as trusted labels.

        verdicts : a frame of polars or pandas, or a list of dicts, with trusted_label (true desirable; keep and flip where
            it has a column label), and what names the row:
            row_id, source_id, or prompt and completion, tried in this order; reviewer and reviewed_at where they are
            known. A verdict is on a text: it holds for every row that has it, so for the row that stays where a repeat was
            judged. A text on which people differ is contested: it has no trusted label, and is left out.
            metrics["verdicts"] counts how each was put beside a row, rows that people differ on,
            texts of which no row is left to train on, and lists verdicts that are on no row.
        Raises DataError where none is on a row, LabelError for a trusted_label that is none.
        """
        verdicts = frame_in_memory(verdicts, who="with_reviews")
        check_columns(verdicts, ("trusted_label",), who="with_reviews")
        reviewed = _as_booleans(verdicts)
        labelled = verdicts.with_columns(reviewed=reviewed).drop_nulls("reviewed")
        settled = match_verdicts(labelled, self.table, who="with_reviews").settled("reviewed", self.table)
        labels = with_same_text(self.table, settled.per_row.select("row_id", "reviewed")).unique("row_id", keep="first")
        joined = self.table.join(labels, on="row_id", how="left", maintain_order="left")
        contested = pl.col("row_id").is_in(settled.differing["row_id"].implode())
        table = joined.with_columns(
            trusted_label=pl.when(~contested).then(pl.coalesce("reviewed", "trusted_label")),
            **{CONTESTED: contested | (self.table_column(CONTESTED, default=False) & pl.col("reviewed").is_null())},
        )
        # of a text that was held until somebody decides, the row whose label that is
        decided = (pl.col("state") == HELD) & (pl.col("trusted_label") == pl.col("label")).fill_null(value=False)
        state = pl.when(contested).then(pl.lit("drop")).when(decided).then(pl.lit("keep")).otherwise("state")
        table = table.with_columns(state=self.table_column("state", "keep")).with_columns(state=state).drop("reviewed")
        result = label_noise(table, **self.settings)
        idle = _without_trained_text(table, settled.per_row["row_id"])
        counts = {"without_label": verdicts.height - labelled.height, "on_nothing_trained": idle}
        metrics = {**result.metrics, "verdicts": {**settled.metrics, **counts}}
        judged = None if self.judged is None else with_agreement(self.judged, table, seed=self.seed)
        return LabelAudit(table, replace(result, metrics=metrics), self.settings, judged, self.reading, self.left_out)

    def simulate_review(self, truth: Mapping[str, bool], budgets: Sequence[int], *, seed: int = 0) -> pl.DataFrame:
        """What budgets of reviewed rows buy under several orders, where the truth is known: labels/people/review_simulation.py.

        truth : row_id -> the true label, of every row that was learnt from
        """
        rows = self.table.filter(pl.Series(self.trained))
        missing = [row_id for row_id in rows["row_id"] if row_id not in truth]
        if missing:
            raise DataError(f"simulate_review: truth lacks {len(missing):,} of {rows.height:,} rows (first: {missing[0]}).")
        true_labels = np.array([truth[row_id] for row_id in rows["row_id"]], dtype=bool)
        p = self.p_desirable_of_trained()
        features, labels, groups = self.features_of_trained(), rows["label"].to_numpy(), row_groups(rows)
        return simulate_review(features, p, labels, true_labels, budgets, groups=groups, seed=seed)

    @property
    def _findings(self) -> list[dict[str, Any]]:
        return [*self.metrics["findings"], *([] if self.judged is None else self.judged.metrics["findings"])]

    def table_column(self, name: str, default: bool | str | None) -> pl.Series:
        """A column of the table, or the same value for every row."""
        if name in self.table.columns:
            return self.table[name]
        return pl.Series(name, [default] * self.table.height)

    def plot_trust_curve(self) -> Any:
        """A matplotlib figure: expected precision against rows acted on, with its interval, for each given class."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots()
        on = {BY_INJECTED: "if errors are as random as injected flips", "trusted rows": "by reviewed rows"}
        for (given, basis), part in self.trust_curve.group_by("given", "basis", maintain_order=True):
            acted = part["rows_acted_on"].to_numpy()
            axes.plot(acted, part["expected_precision"], label=f"given {'desirable' if given else 'undesirable'} ({on[basis]})")
            axes.fill_between(acted, part["expected_precision_low"], part["expected_precision_high"], alpha=0.2)
        axes.set(xscale="log", ylim=(0, 1), xlabel="rows acted on, most doubtful first", ylabel="share expected to be wrong")
        if axes.lines:
            axes.legend(frameon=False)
        return figure

    def __repr__(self) -> str:
        from ktodata.report.audit_page import audit_lines

        findings = (finding["text"] for finding in self._findings if finding["status"] == "issue")
        verdicts = settling_in_words(self.metrics["verdicts"]) if "verdicts" in self.metrics else []
        read_before = [] if self.reading is None else [repr(self.reading)]
        lines = audit_lines(self.result, self.table, self.judged, held=int(self.held.sum()), left_out=self.left_out)
        return "\n".join([*read_before, *lines, *verdicts, *findings])

    def _repr_html_(self) -> str:
        from ktodata.report.notebook_html import label_audit_html

        next_rows = self.next_reviews(ROWS_DRAWN)
        page = label_audit_html(self.result, self.summary, self.plot_trust_curve(), next_rows, self.judged)
        return page if self.reading is None else self.reading._repr_html_() + page

    def _of_class(self, name: str) -> dict[str, Any]:
        detection = self.metrics.get("injected_flips", {}).get("per_given_class", {}).get(name, {})
        reviewed = self.metrics["trusted"][name]
        rate = reviewed["error_rate"]
        by_reviews = detection.get("basis") not in (None, BY_INJECTED)  # injected flips give a condition, and no measurement
        return {
            "given": name,
            "rows": self.metrics["rows"][name],
            "verdict": detection.get("verdict"),
            "injected_auroc": detection.get("auroc_of_injected_flips", {}).get("value"),
            "flagged": self.metrics.get("flags", {}).get(name, {}).get("rows", 0),
            "expected_precision": detection["expected_precision"]["value"] if by_reviews else None,
            "measured_on": detection["basis"] if by_reviews else None,
            "reviewed": reviewed["rows"],
            **{name: reviewed[name] for name in ("drawn_at_random", "drawn_contested", "drawn_skipped")},
            "error_rate": rate["value"],
            "error_rate_low": rate["low"],
            "error_rate_high": rate["high"],
        }

    def features_of_trained(self) -> RowFeatures:
        """What the models of the labels see of the rows that were learnt from."""
        return features_of(self.table.filter(pl.Series(self.trained)))

    def p_desirable_of_trained(self) -> NDArray[np.float64]:
        """Of the same rows, before any further review: float [rows]."""
        return np.asarray(self.result.columns["p_desirable"].to_numpy()[self.trained])

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Which rows of the table were learnt from: bool [N]."""
        return self.table.with_columns(trained=is_trained(self.table.columns))["trained"].to_numpy()

    @property
    def evidence_against(self) -> pl.Series:
        """Why each row is doubted, as label_noise says it; of those that are held, "contradicted": list of text [N], or null."""
        kinds = self.result.columns.select("evidence_against", held=pl.Series(self.held))
        with_held = pl.when("held").then(pl.lit(["contradicted"])).otherwise("evidence_against")
        return kinds.select(with_held.alias("evidence_against")).to_series()

    @property
    def p_wrong(self) -> NDArray[np.float64]:
        """P(the given label is wrong) where `p_wrong_was_measured`, else an order of doubt: float [N], 0 of unknown rows."""
        p_wrong = 1 - self.result.columns["label_quality"].cast(pl.Float64).fill_null(1.0).to_numpy()
        return np.where(self.held, AS_LIKELY_AS_NOT, p_wrong)

    @property
    def seed(self) -> int:
        """Of the random draw."""
        return int(self.settings.get("seed", 0))


def _why_gone(row_ids: pl.Series, left: pl.Series, decisions: pl.DataFrame) -> dict[str, int]:
    """How many of these rows are not among those left, by the first decision that took them out, the most frequent first."""
    out = decisions.filter(pl.col("action").is_in(["drop", "quarantine"])).unique("row_id", keep="first", maintain_order=True)
    gone = row_ids.to_frame().join(left.to_frame(), on="row_id", how="anti").join(out, on="row_id")
    return dict(gone["reason"].value_counts().sort("count", "reason", descending=[True, False]).iter_rows())


def _contradicted(run: Run) -> pl.DataFrame:
    """Decisions of dedupe on rows whose text has both labels, and that no earlier step has set aside."""
    names = run.stage_names()
    if "dedupe" not in names:
        return no_decisions()
    held = run.stage("dedupe").decisions.filter(pl.col("reason") == "labels_disagree")
    for name in names[: names.index("dedupe")]:
        held = held.join(run.stage(name).decisions, on="row_id", how="anti", maintain_order="left")
    return held


def _with_held_texts(table: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """Add held_text: the same for the two rows of a text that dedupe held because it has both labels, else null."""
    name = pl.min_horizontal("row_id", "caused_by")
    held = decisions.filter(pl.col("reason") == "labels_disagree").select("row_id", held_text=name)
    return table.drop("held_text", strict=False).join(held, on="row_id", how="left", maintain_order="left")


def _waiting_row_ids(run: Run) -> pl.Series:
    """Row ids that a stage before label_noise left to a person."""
    names = run.stage_names()
    before = [run.stage(name).decisions for name in names[: names.index("label_noise")]]
    waiting = [decisions.filter(pl.col("action") == "review")["row_id"] for decisions in before if decisions is not None]
    return pl.concat([pl.Series("row_id", [], pl.String), *waiting])


def _as_booleans(verdicts: pl.DataFrame) -> pl.Series:
    """What trusted_label says, as in a file of verdicts: true, good, 1, ..., keep and flip of the column label; null: nothing.

    Raises LabelError for anything else; drop and contested are no label.
    """
    given = verdicts["trusted_label"].to_list()
    labels = verdicts["label"].to_list() if "label" in verdicts.columns else [None] * len(given)
    answers: list[bool | None] = []
    unclear: list[Any] = []
    for value, label in zip(given, labels, strict=True):
        if value is None or str(value).lower() == "none":
            answers.append(None)
            continue
        try:
            answers.append(as_trusted_label(value, label))
        except UnusableError:
            answers.append(None)
        unclear += [value] if answers[-1] is None else []
    if unclear:
        raise LabelError(
            f"with_reviews: {len(unclear):,} of {len(given):,} values of trusted_label are not true (desirable), false"
            " (undesirable) or null, nor keep or flip beside a column label;"
            f" first: {clip(unclear[0], 40)}."
        )
    return pl.Series("reviewed", answers, dtype=pl.Boolean)


def _without_trained_text(table: pl.DataFrame, row_ids: pl.Series) -> int:
    """How many of these rows have a text of which no row is trained on: what is said of them changes nothing."""
    text = ["prompt", "completion"]
    trained = table.filter(is_trained(table.columns))
    judged = table.filter(pl.col("row_id").is_in(row_ids.implode()))
    return judged.join(trained.select(text).unique(), on=text, how="anti").height


def features_of(table: pl.DataFrame) -> RowFeatures:
    """What the models of the labels see of a table: prompt_embedding, completion_embedding and, if it is there, hidden_state."""
    prompts, completions = (table[f"{side}_embedding"].to_numpy().astype(np.float32) for side in ("prompt", "completion"))
    states = table["hidden_state"].to_numpy().astype(np.float32) if "hidden_state" in table.columns else None
    return row_features(prompts, completions, table["completion"], fit_rows=np.ones(table.height, bool), hidden_states=states)
