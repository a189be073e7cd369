"""In which script a text is written, as far as a language can be told without a model: Latin is many languages, Hangul is one."""

import polars as pl

SCRIPTS = ("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Hiragana", "Han")
OTHER = "other"


def main_script(name: str) -> pl.Expr:
    """The script that most letters of column `name` are of, a tie going to the first of SCRIPTS; "other" where none is there.

    Japanese mixes Hiragana and Han, and any Hiragana makes a text Japanese: so it counts for more than it is there.
    """
    counts = [pl.col(name).str.count_matches(rf"\p{{{script}}}").cast(pl.Int64) for script in SCRIPTS]
    counts[SCRIPTS.index("Hiragana")] = counts[SCRIPTS.index("Hiragana")] * 10
    most = pl.max_horizontal(counts)
    commonest = pl.coalesce(pl.when(count == most).then(pl.lit(script)) for script, count in zip(SCRIPTS, counts, strict=True))
    return pl.when(most > 0).then(commonest).otherwise(pl.lit(OTHER))
