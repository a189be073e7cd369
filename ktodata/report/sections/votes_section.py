"""Everybody's votes, each text once: repeats are pooled, and rows that wait because their votes differ are among them."""

import polars as pl

from ktodata.report.run_files import Tables


def read_votes(run: Tables) -> pl.DataFrame | None:
    """row_id, label, votes (rater, label, created_at), a line a text; None where the rows carry no votes."""
    given = run.columns("ingest", "label", "votes")
    if given is None or not {"label", "votes"} <= set(given.columns):
        return None
    pooled = run.columns("dedupe", "pooled_votes")
    if pooled is None or "pooled_votes" not in pooled.columns:
        return given.select("row_id", "label", "votes")
    # of a text with both labels dedupe keeps a row of each, and both carry all votes
    rows = given.drop("votes").join(pooled.drop_nulls("pooled_votes"), on="row_id", maintain_order="left")
    rows = rows.join(run.text_numbers(), on="row_id", maintain_order="left")
    return rows.unique("text", keep="first", maintain_order=True).select("row_id", "label", votes="pooled_votes")
