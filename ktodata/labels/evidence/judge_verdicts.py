"""What a judge model's P(desirable) says, where the rows were put to one (stages/judge.py)."""

import polars as pl

from ktodata.labels.evidence.evidence import Evidence, log_odds_of
from ktodata.labels.label_rows import LabelRows


def evidence(rows: LabelRows) -> Evidence | None:
    """The judge's own log-odds; None where no row was judged."""
    judged = rows.table["judge_p_desirable"].cast(pl.Float64)
    if not judged.count():
        return None
    return Evidence("judge", log_odds_of(judged.to_numpy()), ("judge_p_desirable",))
