"""p_desirable on its way from a shard into the loss, and what the loss makes of it."""

import math

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import text_rows

from ktodata.errors import DataError
from ktodata.feedback import feedback_table
from ktodata.formats.shards import write_shards
from ktodata.labels.classifier.detection import confident_learning
from ktodata.stages.export import export, shard_table
from ktodata.train.data.tokens import joined, tokenize
from ktodata.train.data.training_rows import check_rows, read_part
from ktodata.train.objectives import OBJECTIVES, Examples, Kto

nats, share = st.floats(-50, 50), st.floats(0, 1)
SHIFT = torch.tensor(1.5, dtype=torch.float64)
each_kind = pytest.mark.parametrize("kind", OBJECTIVES.values(), ids=OBJECTIVES.keys())


def checked(values, **options):
    rows = text_rows(4).with_columns(p_desirable=pl.Series(values, **options))
    return check_rows(rows, part="train", both_classes=True)


def one_row(label, p_desirable):
    ones = torch.ones(1, dtype=torch.float64)
    return Examples(torch.tensor([label]), p_desirable * ones, ones, 0 * ones, torch.zeros(len(ones), dtype=torch.int64))


# from the shard


def test_rows_keep_their_p_desirable_and_null_is_the_label_itself():
    """text_rows: the labels are false, true, true, false"""
    assert checked([0.25, None, 1.0, None])["p_desirable"].to_list() == [0.25, 1.0, 1.0, 0.0]


def test_without_the_column_or_with_nulls_only_every_row_has_its_label():
    rows = text_rows(4)
    for table in (rows, rows.with_columns(p_desirable=None)):
        p_desirable = check_rows(table, part="train", both_classes=True)["p_desirable"]
        assert (p_desirable.dtype, p_desirable.to_list()) == (pl.Float64, [0.0, 1.0, 1.0, 0.0])


def test_a_p_desirable_of_other_number_types_is_read():
    assert checked([0, 1, None, 1], dtype=pl.Int8)["p_desirable"].to_list() == [0.0, 1.0, 1.0, 1.0]
    assert checked([0.5, 1, 0, 0.25], dtype=pl.Float32)["p_desirable"].to_list() == [0.5, 1.0, 0.0, 0.25]


@pytest.mark.parametrize("bad", [1.01, -0.5, math.nan, math.inf])
def test_no_probability_is_refused_with_count_and_row_id(bad):
    with pytest.raises(
        DataError, match=rf"train: 2 of 4 values of p_desirable are not in \[0, 1\] \(row_id r1, r3; first: {bad}"
    ):
        checked([0.5, bad, None, bad])


def test_text_as_p_desirable_is_refused():
    with pytest.raises(DataError, match="column 'p_desirable' is String; it must be a number in"):
        checked(["high", "low", "low", "low"])


def test_tokens_carry_p_desirable_of_the_rows_that_fit(tokenizer):
    rows = check_rows(text_rows(12).with_columns(p_desirable=pl.int_range(pl.len()) / 100), part="train", both_classes=True)
    tokens, facts = tokenize(rows, tokenizer, max_length=5, part="train")
    assert facts["skipped_row_ids"]
    assert tokens.p_desirable.tolist() == [int(row_id[1:]) / 100 for row_id in tokens.row_id]
    both = joined(tokens, tokens)
    assert both.p_desirable.tolist() == 2 * tokens.p_desirable.tolist()


def test_export_writes_what_label_noise_found_and_the_trainer_reads_it(tmp_path):
    estimates = [0.9, None, 0.2, 0.6]
    feedback = feedback_table(*[(f"p{i}", f"c{i}", i % 2 == 0) for i in range(4)])
    feedback = feedback.with_columns(state=pl.Series(["keep", "keep", "relabel", "keep"]), p_desirable=pl.Series(estimates))
    write_shards(shard_table(feedback, export(feedback).columns), tmp_path)
    read = check_rows(read_part(tmp_path, "train"), part="train", both_classes=True).sort("row_id")
    # row 3 was labelled desirable and is relabelled: its p_desirable was of the truth, and is not turned round
    assert read["label"].to_list() == [True, False, False, False]
    assert read["p_desirable"].to_list() == [0.9, 0.0, 0.2, 0.6]


# into the loss


def test_a_soft_label_by_hand():
    """p 0.75, log-ratio over z0 20 nats, beta 0.1: sigmoid(2) = 0.8808; D = 2, U = 1. Pulled up by 2 p - 1 = 0.5:
    loss            0.5 x 2 x 0.1192 = 0.1192
    gradient       -0.5 x 2 x 0.1 x 0.8808 x 0.1192 = -0.01050
    p 0.1: pulled down by 0.8: loss 0.8 x 1 x 0.8808 = 0.7046, gradient +0.8 x 0.1 x 0.8808 x 0.1192 = 0.00840
    """
    soft, logps = Kto(0.1, 2.0, 1.0, soft_labels=True), torch.tensor([20.0], dtype=torch.float64)
    for p, loss, gradient in ((0.75, 0.1192, -0.01050), (0.1, 0.7046, 0.00840)):
        row = one_row(False, p)
        assert soft.loss(logps, row, 0 * SHIFT).item() == pytest.approx(loss, abs=1e-4)
        assert soft.gradient_weight(logps, row, 0 * SHIFT).item() == pytest.approx(gradient, abs=1e-5)


@each_kind
@given(log_ratio=nats, label=st.booleans())
def test_a_certain_soft_label_is_the_plain_label_to_the_last_bit(kind, log_ratio, label):
    logps, row = torch.tensor([log_ratio], dtype=torch.float64), one_row(label, float(label))
    plain, soft = kind(0.3, 1.5, 0.7), kind(0.3, 1.5, 0.7, soft_labels=True)
    assert torch.equal(soft.loss(logps, row, SHIFT), plain.loss(logps, row, SHIFT))
    assert torch.equal(soft.gradient_weight(logps, row, SHIFT), plain.gradient_weight(logps, row, SHIFT))


@each_kind
@given(log_ratio=nats, p=share, label=st.booleans())
def test_a_row_is_pulled_to_its_likelier_label_whatever_the_label_was(kind, log_ratio, p, label):
    """Whatever the weights are: a row that is likelier desirable is never pulled down."""
    logps = torch.tensor([log_ratio], dtype=torch.float64)
    for ask in ("loss", "gradient_weight"):
        plain = getattr(kind(0.3, 1.5, 70.0), ask)
        expected = abs(2 * p - 1) * plain(logps, one_row(p > 0.5, float(p > 0.5)), SHIFT)
        soft = getattr(kind(0.3, 1.5, 70.0, soft_labels=True), ask)(logps, one_row(label, p), SHIFT)
        torch.testing.assert_close(soft, expected, rtol=1e-9, atol=1e-12)


@given(log_ratio=nats, p=share)
def test_with_equal_weights_ktos_gradient_is_that_of_the_expected_loss(log_ratio, p):
    logps, plain = torch.tensor([log_ratio], dtype=torch.float64), Kto(0.3).gradient_weight
    expected = p * plain(logps, one_row(True, 1.0), SHIFT) + (1 - p) * plain(logps, one_row(False, 0.0), SHIFT)
    soft = Kto(0.3, soft_labels=True).gradient_weight(logps, one_row(True, p), SHIFT)
    torch.testing.assert_close(soft, expected, rtol=1e-9, atol=1e-12)


@each_kind
@given(log_ratio=nats, p=share)
def test_plain_labels_do_not_look_at_p_desirable(kind, log_ratio, p):
    logps = torch.tensor([log_ratio], dtype=torch.float64)
    assert torch.equal(kind().loss(logps, one_row(True, p), SHIFT), kind().loss(logps, one_row(True, 1.0), SHIFT))


@given(log_ratio=nats, p=share)
def test_ktos_gradient_is_that_of_one_signed_weight(log_ratio, p):
    """-(2 p - 1) x (D above 1/2, U below) x beta x sigmoid x (1 - sigmoid): at 1/2 a row does not pull at all"""
    soft, logps = Kto(0.3, 1.5, 0.5, soft_labels=True), torch.tensor([log_ratio], dtype=torch.float64)
    s = torch.sigmoid(0.3 * (logps - SHIFT))
    expected = -(2 * p - 1) * (1.5 if p > 0.5 else 0.5) * 0.3 * s * (1 - s)
    torch.testing.assert_close(soft.gradient_weight(logps, one_row(True, p), SHIFT), expected, rtol=1e-9, atol=1e-12)
    assert abs(soft.gradient_weight(logps, one_row(True, 0.5), SHIFT).item()) < 1e-15


# flip rates from confident learning, as FlipRates says


def test_planted_flip_rates_are_where_the_description_says():
    """2000 rows, half truly desirable; 10 % of those turned undesirable, 30 % of the others desirable; a model that is sure."""
    truth = torch.arange(2000).numpy() < 1000
    place = torch.arange(2000).numpy() % 1000
    joint, _ = confident_learning(
        truth ^ (place < (truth * 100 + ~truth * 300)), torch.where(torch.from_numpy(truth), 0.95, 0.05).numpy()
    )
    given_if_true = joint / joint.sum(axis=0)
    rates = {"desirable": float(given_if_true[0, 1]), "undesirable": float(given_if_true[1, 0])}
    assert rates == pytest.approx({"desirable": 0.1, "undesirable": 0.3}, abs=1e-3)
    assert Kto(flip_rates=rates).flip_rates == rates
