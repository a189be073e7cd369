"""Rows whose label is told by whether an answer refuses, not by its topic."""

import numpy as np
import polars as pl

TOPICS = ("boats", "cats", "stars")


def refusals(rows=240, width=12, seed=0):
    """Answers that refuse or help, on three topics: prompts and completions as vectors of the topic, and one number for refusal."""
    rng = np.random.default_rng(seed)
    topic, refuses = rng.integers(0, 3, rows), rng.random(rows) < 0.5
    prompts = 0.1 * rng.standard_normal((rows, width)).astype(np.float32)
    prompts[np.arange(rows), topic] += 1
    completions = prompts + 0.1 * rng.standard_normal((rows, width)).astype(np.float32)
    completions[:, 5] += np.where(refuses, 0.4, -0.4)
    texts = pl.Series(
        [f"{'I cannot talk of' if no else 'Here is all about'} {TOPICS[one]}" for one, no in zip(topic, refuses, strict=True)]
    )
    return prompts, completions, texts, topic, refuses
