"""Near-duplicate texts and rows: candidates from MinHash, each verified by true Jaccard similarity and by its numbers."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.text.minhash import HASHES, Signatures, candidate_pairs, signatures
from ktodata.text.shingles import by_block, jaccard, shingle_sets, template_words
from ktodata.text.words import U64, Index, Ragged, figures, mixed, offsets_of, word_hashes


@dataclass(frozen=True)
class Texts:
    """n different texts, made ready to be compared.

    words : hashed. own : for each word whether it is more than template, or None where no template is looked for or there; a text
    that is all template keeps all its words. figures : hash of the numbers. signature : MinHash of the own shingles.
    """

    words: Ragged
    own: NDArray[np.bool_] | None
    figures: U64
    signature: Signatures

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class SimilarPairs:
    """Verified pairs left < right, sorted; similarity in [0, 1], 1 the same words.

    compared : pairs that were verified. skipped : pairs of crowded buckets that were not.
    """

    left: Index
    right: Index
    similarity: NDArray[np.float64]
    compared: int
    skipped: int


NO_PAIRS = SimilarPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), compared=0, skipped=0)


def prepare(texts: pl.Series, *, templates: bool, seed: int) -> Texts:
    """Make different, normalised texts comparable. templates: discount words that only fill a template (for prompts)."""
    words = word_hashes(texts)
    own = _own_words(words) if templates else None
    parts = by_block(words, own, lambda of_block: signatures(of_block, seed=seed))
    return Texts(words, own, figures(texts), np.concatenate([np.zeros((0, HASHES), np.uint32), *parts]))


def _own_words(words: Ragged) -> NDArray[np.bool_] | None:
    template = template_words(words)
    if not template.any():
        return None
    text = words.owners()
    has_own = np.bincount(text[~template], minlength=len(words)) > 0
    return np.asarray(~template | ~has_own[text])


def similarity(texts: Texts, left: Index, right: Index) -> NDArray[np.float64]:
    """How alike two texts are, in [0, 1]: Jaccard of all shingles or of the own ones, whichever is lower; 0 if numbers differ."""
    result = np.asarray(left == right, dtype=np.float64)
    open_ = np.flatnonzero((left != right) & (texts.figures[left] == texts.figures[right]))
    # sets are made of the texts in question alone: of most texts nothing is near
    among, place = np.unique(np.concatenate([left[open_], right[open_]]), return_inverse=True)
    a, b = place[: len(open_)], place[len(open_) :]
    of_word = texts.words.places(among)
    words = Ragged(texts.words.values[of_word], offsets_of(texts.words.lengths[among]))
    result[open_] = jaccard(shingle_sets(words), a, b)
    if texts.own is not None:
        result[open_] = np.minimum(result[open_], jaccard(shingle_sets(words, texts.own[of_word]), a, b))
    return result


def near_texts(texts: Texts, threshold: float) -> SimilarPairs:
    """All pairs of texts that are at least so similar."""
    candidates = candidate_pairs(texts.signature, threshold=threshold, apart=texts.figures)
    value = similarity(texts, candidates.left, candidates.right)
    near = value >= threshold
    return SimilarPairs(candidates.left[near], candidates.right[near], value[near], len(candidates.left), candidates.skipped)


def near_rows(prompts: Texts, completions: Texts, prompt_of: Index, completion_of: Index, threshold: float) -> SimilarPairs:
    """All pairs of rows whose prompts and whose completions are both at least so similar; the similarity is the lower of the two.

    prompt_of, completion_of : int [rows], which text is the row's. Either text alone would merge what it must not: one
    refusal given to two questions, or two answers to one question.
    """
    by_prompt, by_completion = prompts.signature[prompt_of], completions.signature[completion_of]
    candidates = candidate_pairs(
        np.minimum(by_prompt, by_completion),  # the signature of both sets' union: if both are near, so is the union
        threshold=threshold,
        apart=mixed(prompts.figures[prompt_of]) + completions.figures[completion_of],
        order_by=(by_completion, by_prompt),
    )
    left, right = candidates.left, candidates.right
    value = similarity(prompts, prompt_of[left], prompt_of[right])
    near = np.flatnonzero(value >= threshold)
    left, right, value = left[near], right[near], value[near]
    value = np.minimum(value, similarity(completions, completion_of[left], completion_of[right]))
    near = np.flatnonzero(value >= threshold)
    return SimilarPairs(left[near], right[near], value[near], len(candidates.left), candidates.skipped)


def nearest_kept(pairs: SimilarPairs, rows: int) -> tuple[Index, NDArray[np.float64]]:
    """Decide which of `rows` rows stay, best row first (row 0): for each the kept row it repeats, or -1, and their similarity.

    A row goes only if it is near a row that itself stays (a star, never a chain): A ~ B ~ C with A and C unlike keeps A and C.
    """
    undecided, kept, gone = np.ones(rows, bool), np.zeros(rows, bool), np.zeros(rows, bool)
    left, right = pairs.left, pairs.right
    while undecided.any():
        blocked = np.zeros(rows, bool)
        blocked[right] = True  # a better row beside it has not been decided yet
        now = undecided & ~blocked
        kept |= now
        gone[right[now[left]]] = True
        undecided &= ~(now | gone)
        still = undecided[left] & undecided[right]
        left, right = left[still], right[still]
    return _best_centre(pairs, kept, gone)


def _best_centre(pairs: SimilarPairs, kept: NDArray[np.bool_], gone: NDArray[np.bool_]) -> tuple[Index, NDArray[np.float64]]:
    star = np.flatnonzero(kept[pairs.left] & gone[pairs.right])
    star = star[np.lexsort((-pairs.left[star], pairs.similarity[star], pairs.right[star]))]  # the last of each row is its best
    centre, alike = np.full(len(kept), -1), np.full(len(kept), np.nan)
    centre[pairs.right[star]] = pairs.left[star]
    alike[pairs.right[star]] = pairs.similarity[star]
    return centre, alike
