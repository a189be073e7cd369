"""In which script a text is written, as far as a language can be told without a model: Latin is many languages, Hangul is one."""

import numpy as np
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


def scripts_of(texts: pl.Series) -> pl.Series:
    """`main_script` of each text; one that repeats is looked at once, and letters of ASCII are Latin without being counted."""
    distinct, place = np.unique(texts.hash().to_numpy(), return_inverse=True)
    first = np.empty(len(distinct), np.int64)
    first[place] = np.arange(len(texts))
    each = texts.gather(first).rename("text").to_frame()
    plain = each["text"].str.len_bytes() == each["text"].str.len_chars()
    latin = pl.when(pl.col("text").str.contains("[A-Za-z]")).then(pl.lit(SCRIPTS[0])).otherwise(pl.lit(OTHER))
    script = pl.Series([OTHER]).new_from_index(0, len(distinct))
    for rows, how in ((plain, latin), (~plain, main_script("text"))):
        at = np.flatnonzero(rows.to_numpy())
        if len(at):
            script = script.scatter(at, each[at].select(how.alias("script"))["script"])
    return script.gather(place)
