"""The page of a self-training: its rounds in one table, with links to their own pages."""

from collections.abc import Mapping
from typing import Any

from ktodata.report.page import render


def build_rounds_page(summary: Mapping[str, Any]) -> str:
    """report.html beside the rounds, as HTML, from what self_training.json says. Links are relative: the folder can be moved."""
    return render(
        "self_training.html.j2",
        title=f"{summary['name']} · ktodata self-training",
        name=summary["name"],
        summary=summary,
        rounds=[{**line, "page": f"{line['folder']}/report.html"} for line in summary["rounds"]],
    )
