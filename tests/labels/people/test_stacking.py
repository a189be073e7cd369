"""Reviewed rows say what each piece of evidence is worth; votes that share errors are worth less than they seem."""

import numpy as np
import pytest
from scipy.special import expit, logit

from ktodata.labels.people.stacking import VoteColumns, stack


def columns(says):
    names = tuple(f"judge {n}" for n in range(says.shape[1]))
    return VoteColumns(names, says, (says > 0).sum(axis=1), (says < 0).sum(axis=1))


def judges(rows=2000, seed=0):
    """Three judges right on 85 % of rows who mostly err on the same ones; a model of the text at 70 %; labels by the first."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.6
    shared = rng.random(rows) < 0.12
    wrong = shared[:, None] ^ (rng.random((rows, 3)) < 0.04)
    says = np.where(truth[:, None] ^ wrong, 1.0, -1.0)
    text = np.where(truth, 1, -1) * 0.4 + rng.standard_normal(rows) * 0.8
    return truth, says, text


def reviewed_rows(rows, count, seed=0):
    reviewed = np.zeros(rows, bool)
    reviewed[np.random.default_rng(seed).permutation(rows)[:count]] = True
    return reviewed


def test_judges_who_share_errors_are_not_surer_than_right():
    truth, says, text = judges()
    surer = []
    for seed in range(10):
        reviewed = reviewed_rows(2000, 100, seed)
        stacked = stack({"text": text}, columns(says), says[:, 0] > 0, np.arange(2000), reviewed, truth)
        p = stacked.p_desirable[~reviewed]
        surer.append(np.maximum(p, 1 - p).mean() - ((p > 0.5) == truth[~reviewed]).mean())
    assert np.mean(surer) < 0.02 and max(surer) < 0.06
    independent = expit(logit(0.85) * says.sum(axis=1))
    assert np.maximum(independent, 1 - independent).mean() - ((independent > 0.5) == truth).mean() > 0.1


def test_too_few_reviewed_rows_say_nothing():
    truth, says, text = judges(200)
    groups = np.arange(200)
    assert stack({"text": text}, columns(says), truth, groups, reviewed_rows(200, 39), truth) is None
    assert stack({"text": text}, columns(says), truth, groups, reviewed_rows(200, 40), truth) is not None


def test_useless_and_inverted_evidence_is_seen():
    truth, _, text = judges()
    noise = np.random.default_rng(5).standard_normal(2000)
    pieces = {"inverted": -3 * text, "noise": noise}
    stacked = stack(pieces, None, truth, np.arange(2000), reviewed_rows(2000, 400), truth ^ (np.arange(2000) % 5 == 0))
    weights = {weight.evidence: weight for weight in stacked.facts.weights}
    assert weights["noise"].low < 0 < weights["noise"].high
    stacked = stack(pieces, None, np.ones(2000, bool), np.arange(2000), reviewed_rows(2000, 400), truth)
    assert {weight.evidence: weight.high for weight in stacked.facts.weights}["inverted"] < 0


def test_reviewed_rows_are_answered_without_their_prompt_group():
    """A row's own verdict, turned, moves the answers to other groups and not its own."""
    truth, says, text = judges(300)
    reviewed, groups = reviewed_rows(300, 100), np.arange(300) // 3
    answers = []
    for verdicts in (truth, truth ^ (groups == groups[np.flatnonzero(reviewed)[0]])):
        answers.append(stack({"text": text}, columns(says), says[:, 0] > 0, groups, reviewed, verdicts).p_desirable)
    own = reviewed & (groups == groups[np.flatnonzero(reviewed)[0]])
    assert np.abs(answers[0] - answers[1])[reviewed & ~own].max() > 0.001
    assert np.abs(answers[0] - answers[1])[own].max() == 0


def test_a_label_that_is_also_a_vote_counts_once_and_verdicts_of_one_kind_do_not_break_it():
    truth, says, text = judges(300)
    stacked = stack({"text": text}, columns(says), says[:, 0] > 0, np.arange(300), reviewed_rows(300, 60), truth)
    assert "vote of judge 0" not in {weight.evidence for weight in stacked.facts.weights}
    always = stack({"text": text}, columns(says), says[:, 0] > 0, np.arange(300), reviewed_rows(300, 60), np.ones(300, bool))
    assert always.p_desirable.min() > 0.5 and np.isfinite(always.p_desirable).all()


def test_what_raters_are_called_is_nothing_to_the_fit():
    """Names that read like those of other columns, or are the same as one."""
    truth, says, text = judges(600)
    says[np.random.default_rng(1).random(says.shape) < 0.3] = np.nan
    answers = []
    for names in (("a", "b", "c"), ("who voted", "vote of who voted", "has an answer")):
        votes = VoteColumns(names, says, (says > 0).sum(axis=1), (says < 0).sum(axis=1))
        answers.append(stack({"text": text}, votes, truth, np.arange(600), reviewed_rows(600, 200), truth).p_desirable)
    np.testing.assert_array_equal(*answers)


def test_silent_raters_and_pieces_without_an_answer():
    truth, says, text = judges(600)
    says[np.random.default_rng(1).random(says.shape) < 0.7] = np.nan
    text[::2] = np.nan
    stacked = stack({"text": text}, columns(says), truth, np.arange(600), reviewed_rows(600, 200), truth)
    assert np.isfinite(stacked.p_desirable).all()
    assert stacked.facts.log_loss <= stacked.facts.by_rates + 0.05


@pytest.mark.parametrize("raters", [60])
def test_many_raters_of_few_rows_speak_by_their_share(raters):
    """Fifteen votes a row of raters nobody knows well: their share decides, whatever a poor model says."""
    rng = np.random.default_rng(3)
    truth = rng.random(1500) < 0.5
    up = rng.binomial(15, np.where(truth, 0.75, 0.25))
    votes = VoteColumns((), np.empty((1500, 0)), up, 15 - up)
    reviewed = reviewed_rows(1500, raters)
    stacked = stack({"text": rng.standard_normal(1500)}, votes, rng.random(1500) < 0.5, np.arange(1500), reviewed, truth)
    assert ((stacked.p_desirable > 0.5) == truth)[~reviewed].mean() > 0.93
