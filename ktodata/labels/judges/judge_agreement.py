"""How far a judge agrees with people: on rows with a trusted label, within each given class."""

from dataclasses import replace
from typing import Any

import polars as pl

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.judges.judge_findings import judge_findings
from ktodata.labels.people.trusted import mark_reviewed
from ktodata.stage import StageResult, is_trained
from ktodata.stats import share


def judge_agreement(table: pl.DataFrame, verdicts: pl.DataFrame, *, seed: int) -> dict[str, Any]:
    """{given class: figures}, empty where no judged row has a trusted label.

    table : row_id, and label and trusted_label where known, part and state where they are; verdicts : row_id, verdict
    Within a class: `rows` with both verdicts, on how many of them the judge `agrees`, how many of the given labels are `wrong` by
    the trusted one and on how many of those the judge says so too (`wrong_seen`); how many labels are right and it doubts them
    (`right_doubted`). Figures are of the random draw where it is known as one (`drawn`), else of all reviewed rows: these were
    chosen for a reason, so that nothing follows for the others, and there is no interval.
    """
    if not {"label", "trusted_label"} <= set(table.columns):
        return {}
    table = table.with_columns(trained=is_trained(table.columns))
    marked = mark_reviewed(table, seed).filter("reviewed").join(verdicts, on="row_id", maintain_order="left")
    judged = marked.drop_nulls("verdict")
    names = ((given, LABEL_NAMES[given]) for given in (True, False))
    return {name: _of_class(judged.filter(pl.col("label") == given)) for given, name in names} if judged.height else {}


def with_agreement(judged: StageResult, table: pl.DataFrame, *, seed: int) -> StageResult:
    """What a judge said, compared with the trusted labels that `table` has by now: nothing is asked again."""
    vote = pl.col("judge_votes").list.first().struct.field("label")
    facts = {**judged.metrics, "agreement": judge_agreement(table, judged.columns.select("row_id", verdict=vote), seed=seed)}
    findings = [finding.as_dict() for finding in judge_findings(facts)]
    return replace(judged, metrics=facts | {"findings": findings})


def _of_class(rows: pl.DataFrame) -> dict[str, Any]:
    drawn = bool(rows["drawn"].any())
    rows = rows.filter("drawn") if drawn else rows
    agrees, wrong = (rows["verdict"] == rows["trusted_label"]), rows["wrong"]
    counted = {
        "agreement": (int(agrees.sum()), rows.height),
        "wrong_seen": (int((agrees & wrong).sum()), int(wrong.sum())),
        "right_doubted": (int((~agrees & ~wrong).sum()), int((~wrong).sum())),
    }
    figures = {name: {"hits": hits, "of": of, **_share(hits, of, drawn)} for name, (hits, of) in counted.items()}
    return {"rows": rows.height, "drawn": drawn, **figures}


def _share(hits: int, of: int, drawn: bool) -> dict[str, float | None]:
    exact = share(hits, of)
    return (exact if drawn else exact._replace(low=None, high=None)).as_dict()
