"""Which rows are compared by who gave their label."""

import numpy as np
import polars as pl
import pytest

from ktodata.feedback import VOTE
from ktodata.labels.label_drift import find_drift
from ktodata.labels.label_rows import label_rows


@pytest.mark.parametrize("judged", [False, True])
def test_whose_row_a_text_is_that_several_judged_says_nothing_of_a_rater(judged):
    """Al and Bo are right nine times of ten, Cy votes inverted, and the first rater with the majority's label keeps the row."""
    rng = np.random.default_rng(0)
    sound = rng.random(400) < 0.5
    right = rng.random((400, 3)) < 0.9
    labels = np.where(right, sound[:, None], ~sound[:, None]) ^ np.array([False, False, True])
    majority = labels.sum(1) >= 2
    keeper = (labels == majority[:, None]).argmax(1)
    votes = [[{"rater": name, "label": bool(of)} for name, of in zip(("al", "bo", "cy"), row, strict=True)] for row in labels]
    judge = [[{"rater": "judge", "label": bool(of)}] if judged else None for of in sound]

    def rows(pooled):
        table = pl.DataFrame(
            {
                "row_id": [f"{place:03}" for place in range(400)],
                "prompt": [f"prompt {place}" for place in range(400)],
                "completion": "an answer",
                "prompt_group": range(400),
                "prompt_embedding": np.ones((400, 2), np.float32),
                "completion_embedding": np.ones((400, 2), np.float32),
                "label": majority,
                "rater": [("al", "bo", "cy")[place] for place in keeper],
                "votes": pl.Series(pooled, dtype=pl.List(VOTE)),
                "pooled_votes": pl.Series(pooled, dtype=pl.List(VOTE)),
                "judge_votes": pl.Series(judge, dtype=pl.List(VOTE)),
            }
        )
        return label_rows(table, neighbours=0, seed=0)

    p = np.where(sound, 0.8, 0.2) + rng.normal(0, 0.02, 400)
    assert find_drift(rows(votes), p).metrics["tested"] == {}
    alone = [
        [vote for vote in row if vote["rater"] == ("al", "bo", "cy")[place]] for row, place in zip(votes, keeper, strict=True)
    ]
    assert find_drift(rows(alone), p).metrics["tested"]["rater"] >= 2
