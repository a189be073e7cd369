"""The benchmark of the desk makes runs that the desk can open and ask about."""

import sys
from pathlib import Path

from ktodata.pipeline.run_folder import Run
from ktodata.review.filters import Filters
from ktodata.review.session import open_session

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def test_made_up_rows_can_be_judged(tmp_path):
    from review_speed import SIGNALS, write_run

    write_run(tmp_path / "run", 120)
    session = open_session(Run(tmp_path / "run"), reviewer="ann", blind=False, minutes=20)
    item = session.item(Filters())
    assert (item.waiting, item.sitting, item.row.siblings_in_all) == (120, 20, 3)
    assert len(item.row.evidence.scores) == len(SIGNALS) and item.row.nearest
    session.store.close()
