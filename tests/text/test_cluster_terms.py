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


BEFORE = {
    "support": "You are a helpful agent of ACME GmbH. Answer politely and never mention competitors.\n\nCustomer question: ",
    "rules": "Use only the context below.\nContext: The ACME handbook says that employees follow the rules of conduct.\nQuestion: ",
}
SUBJECTS = (
    "bread oven flour yeast dough soup pepper salt",
    "income return refund invoice vat receipt",
    "chain wheel brake saddle gear",
)


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("before", BEFORE)
def test_an_instruction_that_prompts_of_all_subjects_begin_with_names_none(before, share):
    rng = np.random.default_rng(0)
    of_text = np.repeat([0, 1, 2], [180, 60, 60])
    words = [" ".join(rng.choice(SUBJECTS[k].split(), 4, replace=False)) for k in of_text]
    texts = [BEFORE[before] * (rng.random() < share) + f"How do I {some}?" for some in words]
    for terms, subject in zip(cluster_terms(texts, of_text), SUBJECTS, strict=True):
        assert set(" ".join(terms[:3]).split()) <= set(subject.split())


def test_texts_of_one_cluster_are_named_by_what_they_share():
    assert cluster_terms(["convert ten feet to metres", "convert miles to kilometres"], np.array([0, 0]))[0][0] == "convert"
