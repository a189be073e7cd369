"""Views of a row: what is learnt of words and topics, and that a topic which is taken away is gone."""

import numpy as np
import polars as pl
import pytest
from refusal_rows import refusals

from ktodata.labels.classifier.feature_sets import (
    kernel_components,
    linear_components,
    of_distinct,
    row_features,
    surface_components,
)
from ktodata.labels.classifier.features import surface_features
from ktodata.text.tfidf import part_vectors, parts_of, word_vectors


def test_what_the_prompt_foretells_is_gone_and_the_rest_stays():
    """Before: 1 in the direction of the row's topic, and 0.8 more in direction 5 where the reply refuses; then at length 1."""
    prompts, completions, texts, topic, refuses = refusals()
    rows = row_features(prompts, completions, texts, fit_rows=np.ones(240, bool))
    left, whole = rows.prompt_residual[0][:], rows.completions[0][:]
    for number in range(3):
        assert whole[topic == number, number].mean() > 0.5
        assert abs(left[topic == number, number].mean()) < 0.1
    assert left[refuses, 5].mean() - left[~refuses, 5].mean() > 0.6


def test_components_are_uncorrelated_of_one_size_and_project_other_rows():
    prompts, completions, texts, _, _ = refusals()
    fit_rows = np.arange(240) < 200
    rows = row_features(prompts, completions, texts, fit_rows=fit_rows)
    form = surface_features(pl.DataFrame({"prompt": texts, "completion": texts}))
    for made in (
        kernel_components(rows, "text", fit_rows=fit_rows),
        kernel_components(rows, "completion_residual", fit_rows=fit_rows),
        linear_components(prompts, completions, form, fit_rows=fit_rows),
        surface_components(form, fit_rows=fit_rows),
    ):
        assert made.values.shape[0] == 240
        fitted = made.values[fit_rows].astype(np.float64)
        moment = (fitted - fitted.mean(axis=0)).T @ (fitted - fitted.mean(axis=0))
        assert np.trace(moment) / 200 == pytest.approx(1000, rel=0.02)
        np.testing.assert_allclose(moment - np.diag(np.diag(moment)), 0, atol=2e-3 * np.trace(moment))


def test_a_row_is_most_like_itself_and_alike_answers_count_more_after_alike_prompts():
    """Two unit completions at cosine 1: exp(0) + 0.3 = 1.3 after one prompt; exp(-1) + 0.3 after prompts at right angles."""
    prompts = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    rows = row_features(
        prompts,
        np.ones((3, 2), np.float32),
        pl.Series(["same words here"] * 3),
        fit_rows=np.ones(3, bool),
    )
    near = rows.kernel("text", slice(0, 1), np.arange(3))[0]
    length = np.mean([np.square(part[0]).sum() for part in rows.completions])
    assert near / length == pytest.approx([1.3, 1.3, np.exp(-1) + 0.3], abs=1e-5)


def test_the_same_rows_give_the_same_components():
    prompts, completions, texts, _, _ = refusals()
    first, second = (
        kernel_components(
            row_features(prompts, completions, texts, fit_rows=np.ones(240, bool)),
            "completion_residual",
            fit_rows=np.ones(240, bool),
        )
        for _ in range(2)
    )
    assert first.values.tobytes() == second.values.tobytes()


@pytest.mark.parametrize("texts", [[], [""], ["one"], ["", "\x00", "<b>", "💥"], ["a b c", "d e f"], ["same", "same"]])
@pytest.mark.parametrize("vectors", [word_vectors, part_vectors])
def test_words_of_any_texts_are_finite(texts, vectors):
    made = vectors(pl.Series(texts, dtype=pl.String), np.ones(len(texts), bool))
    assert len(made) == len(texts)
    assert np.isfinite(made).all()


def test_parts_of_words_are_those_of_scikit_learn():
    """Each word with a space on both sides, in 2 to 5 characters: as many parts, as often; only their columns are hashes."""
    from sklearn.feature_extraction.text import CountVectorizer

    words = ["red", "a", "naïve", "3.5", "aaaa", "中文", "💥x"]
    theirs = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5)).fit_transform(words).toarray()
    ours = parts_of(pl.Series(words)).toarray()
    np.testing.assert_array_equal(np.sort(ours, axis=1)[:, -40:], np.pad(np.sort(theirs, axis=1), ((0, 0), (40, 0)))[:, -40:])


def test_words_with_parts_in_common_are_alike_and_others_are_not():
    texts = pl.Series(["refusing", "refused", "refuses", "banana", "bananas", "kumquat"])
    made = part_vectors(texts, np.ones(6, bool))
    alike = made @ made.T
    assert alike[0, 1] > 0.3 > abs(alike[0, 3])
    assert alike[3, 4] > 0.5
    np.testing.assert_allclose(np.diag(alike), 1, atol=1e-5)


def test_parts_are_learnt_from_the_rows_that_are_fitted():
    texts = pl.Series(["red boat", "green cat", "blue star"])
    made = part_vectors(texts, np.arange(3) < 2)
    assert not made[2].any()


def test_texts_that_repeat_are_looked_at_once():
    calls = []

    def vectors(texts, fit_rows):
        calls.append((sorted(texts), fit_rows.sum()))
        return np.array([[len(text)] for text in texts], np.float32)

    made = of_distinct(pl.Series(["a", "bbb", "a", "cc"]), np.array([True, False, False, True]), vectors)
    assert made[:].tolist() == [[1], [3], [1], [2]]
    assert calls == [(["a", "bbb", "cc"], 2)]


def test_words_are_those_of_scikit_learn():
    from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer

    from ktodata.text.tfidf import counts, terms_of, vocabulary

    rng = np.random.default_rng(0)
    some = ["Red", "boats", "sail", "ÉTÉ", "x_1", "don't", "naïve", "中文", "हिन्दी", "3.5", "💥", "-", "sail\n"]
    texts = [" ".join(rng.choice(some, rng.integers(0, 9))) for _ in range(80)]
    expected = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", min_df=2, sublinear_tf=True, dtype=np.float32
    ).fit_transform(texts)
    found = terms_of(pl.Series(texts))
    result = TfidfTransformer(sublinear_tf=True).fit_transform(counts(found, vocabulary(found), 80))
    np.testing.assert_allclose(result.toarray(), expected.toarray(), atol=1e-6)


def test_a_pair_of_words_never_spans_two_texts():
    from ktodata.text.tfidf import terms_of

    found = terms_of(pl.Series(["a b", "", "b c", "c"]))
    assert found.written(np.arange(len(found.hashes))).to_list() == ["a", "a b", "b", "b", "b c", "c", "c"]
    assert found.text.tolist() == [0, 0, 0, 2, 2, 2, 3]


def test_of_a_large_table_a_sample_is_held_and_all_rows_can_be_scored(monkeypatch):
    from ktodata.labels.classifier import features

    prompts, completions, texts, _, _ = refusals()
    everything = np.ones(240, bool)
    rows = row_features(prompts, completions, texts, fit_rows=everything)
    form = surface_features(pl.DataFrame({"prompt": texts, "completion": texts}))
    monkeypatch.setattr(features, "MAX_FITTED", 150)
    for made in (
        kernel_components(rows, "text", fit_rows=everything),
        linear_components(prompts, completions, form, fit_rows=everything),
        surface_components(form, fit_rows=everything),
    ):
        assert made.values.shape[0] == len(made.rows) == 150
        said = made.scores(np.eye(made.values.shape[1]), np.zeros(made.values.shape[1]))(slice(0, 240))
        np.testing.assert_allclose(said[made.rows], made.values, atol=2e-3 * np.abs(made.values).max())


def test_words_are_learnt_from_the_rows_that_are_fitted():
    texts = pl.Series(["red boat", "red boat", "green cat", "green cat", "blue star", "blue star"])
    made = word_vectors(texts, np.arange(6) < 4)
    assert np.abs(made[:4]).sum(axis=1).min() > 0
    assert not made[4:].any()
