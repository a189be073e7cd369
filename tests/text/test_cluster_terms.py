"""Clusters are named by the words that set them apart."""

import numpy as np
import pytest

from ktodata.text.cluster_terms import cluster_names, cluster_terms


def test_terms_set_a_cluster_apart_and_names_are_never_alike():
    texts = ["please convert ten feet to metres", "please convert miles to kilometres", "please write a poem about spring"] * 20
    of_text = np.array([0, 0, 1] * 20)
    terms = cluster_terms(texts, of_text)
    assert "convert" in terms[0] and "poem" in " ".join(terms[1])
    assert "please" not in terms[0][:2] + terms[1][:2]  # in both, so it says nothing
    assert cluster_names([["a", "b"], ["a", "b"], []], ["", "", "42 + 7"]) == ["a, b", "a, b (2)", "like '42 + 7'"]


@pytest.mark.parametrize("texts", [["1+1", "2+2"], ["", ""], ["\x00", "\u202e"], ["今日は", "明日"]])
def test_texts_without_words_have_a_name_all_the_same(texts):
    terms = cluster_terms(texts, np.array([0, 1]))
    assert len(terms) == 2
    assert all(cluster_names(terms, texts))
