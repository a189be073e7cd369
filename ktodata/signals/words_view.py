"""Texts as vectors of the words in them: TF-IDF of words and pairs of words, in its leading directions."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DIRECTIONS = 200
FITTED = 20_000  # texts that the words and directions are learnt from, at most
MOST_WORDS = 100_000
MOST_CHARS = 10_000  # of a text
CHUNK = 20_000


def word_vectors(texts: pl.Series, fit_rows: NDArray[np.bool_]) -> Floats:
    """float32 [N, k], k <= 200; zero for a text without a word that two of the fitted texts share.

    fit_rows : bool [N], texts that words and directions are learnt from
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    cut = texts.str.slice(0, MOST_CHARS)
    rows = np.flatnonzero(fit_rows)
    some = cut.gather(rows[np.linspace(0, len(rows) - 1, min(len(rows), FITTED)).astype(np.int64)]).to_list() if len(rows) else []
    words = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", min_df=2, max_features=MOST_WORDS, sublinear_tf=True, dtype=np.float32
    )
    try:
        table = words.fit_transform(some)
    except ValueError:  # no word is in two texts
        return np.zeros((len(texts), 1), np.float32)
    directions = TruncatedSVD(min(DIRECTIONS, table.shape[1] - 1, max(table.shape[0] - 1, 1)), random_state=0)
    if directions.n_components < 1:
        return np.asarray(words.transform(cut.to_list()).toarray(), dtype=np.float32)
    with np.errstate(invalid="ignore"):  # of the share explained, which nobody asks for: 0 / 0 where all texts are equal
        directions.fit(table)
    parts = [directions.transform(words.transform(cut.slice(at, CHUNK).to_list())) for at in range(0, len(cut), CHUNK)]
    return np.vstack(parts).astype(np.float32)
