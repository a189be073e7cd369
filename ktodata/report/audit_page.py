"""audit.html: label quality only, from a table in memory or from a run folder."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from ktodata.errors import RunError
from ktodata.report.audit_tables import AuditTables
from ktodata.report.headline import label_trust
from ktodata.report.page import flat, render
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections.flow_section import RecordAccount, record_account
from ktodata.report.sections.labels_section import LabelsSection, read_labels_section
from ktodata.stage import StageResult


def build_audit_page(source: Path | StageResult, feedback: pl.DataFrame | None = None, *, name: str = "label audit") -> str:
    """The page of an audit, as HTML.

    source : a run folder that holds label_noise, or what the stage label_noise returned.
    feedback : with a result, the table that label_noise was given; column `contradicted` is used when it is there.
    """
    if isinstance(source, StageResult):
        if feedback is None:
            raise RunError("build_audit_page: a result has no texts; give the table that label_noise was given as feedback.")
        return _render_audit(read_labels_section(AuditTables(source, feedback)), name, what="the result")
    run = RunFiles(source)
    title = str(pick(run.manifest, "name", default=name))
    account, ingest = record_account(run), run.metrics("ingest")
    return _render_audit(read_labels_section(run), title, what=str(run.path), account=account, ingest=ingest)


def _render_audit(
    noise: LabelsSection | None,
    name: str,
    *,
    what: str,
    account: RecordAccount | None = None,
    ingest: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    if noise is None:
        raise RunError(f"{what} holds no result of label_noise, so there is nothing to audit. Add the step to its recipe.")
    return render(
        "audit.html.j2",
        title=f"{name} · ktodata audit",
        name=name,
        noise=noise,
        account=account,
        ingest=ingest,
        trust=label_trust(noise),
        numbers=lambda _stage: flat(noise.facts),
    )
