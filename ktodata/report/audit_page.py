"""audit.html: label quality only, from a table in memory or from a run folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import RunError
from ktodata.report.files import RunFiles, pick
from ktodata.report.noise import Noise, Told, describe_noise, read_noise
from ktodata.report.page import flat, render
from ktodata.report.verdict import trust
from ktodata.stage import StageResult


@dataclass(frozen=True)
class _Table:
    """Rows looked up in a frame."""

    feedback: pl.DataFrame

    def rows(self, row_ids: Iterable[str], /) -> dict[str, dict[str, Any]]:
        wanted = pl.Series(sorted(set(row_ids)), dtype=pl.String)
        found = self.feedback.filter(pl.col("row_id").is_in(wanted.implode()))
        return {row["row_id"]: row for row in found.iter_rows(named=True)}


def build_audit_page(source: Path | StageResult, feedback: pl.DataFrame | None = None, *, name: str = "label audit") -> str:
    """The page of an audit, as HTML.

    source : a run folder that holds label_noise, or what the stage label_noise returned.
    feedback : with a result, the table that label_noise was given; column `contradicted` is used when it is there.
    """
    if isinstance(source, StageResult):
        if feedback is None:
            raise RunError("build_audit_page: a result has no texts; give the table that label_noise was given as feedback.")
        return _page(_of_result(source, feedback), name)
    run = RunFiles(source)
    found = read_noise(run)
    if found is None:
        raise RunError(f"{run.path} holds no result of label_noise, so there is nothing to audit. Add the step to its recipe.")
    return _page(found, str(pick(run.manifest, "name", default=name)))


def _of_result(result: StageResult, feedback: pl.DataFrame) -> Noise:
    contradicted = int(feedback["contradicted"].sum()) if "contradicted" in feedback.columns else 0
    given = feedback.select("row_id", "label", *[column for column in ("rater",) if column in feedback.columns])
    return describe_noise(
        _Table(feedback), given, Told(result.columns, result.facts, result.tables.get("trust_curve"), contradicted)
    )


def _page(noise: Noise, name: str) -> str:
    return render(
        "audit.html.j2",
        title=f"{name} · ktodata audit",
        name=name,
        noise=noise,
        trust=trust(noise),
        numbers={"label_noise": flat(noise.facts)},
    )
