"""Evidence is log-odds of being desirable; a file in the folder of evidence acts, as far as reviewed rows bear it out."""

import numpy as np
import polars as pl

from ktodata.feedback import feedback_table
from ktodata.labels import evidence as folder
from ktodata.labels.evidence.evidence import Evidence, from_quality, log_odds_of
from ktodata.labels.evidence.gather import gather_evidence
from ktodata.labels.label_rows import label_rows
from ktodata.stages.label_noise import label_noise

ORACLE = """
from ktodata.labels.evidence.evidence import Evidence, log_odds_of

def evidence(rows):
    return Evidence("oracle", log_odds_of(rows.table["answer_key"].cast(float).to_numpy()), ("answer_key",))
"""


def unlearnable(rows=400, *, reviewed=80, seed=0):
    """Texts that say nothing of labels of which a quarter is wrong, and a column that holds the truth; some rows reviewed."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.5
    labels = truth ^ (rng.random(rows) < 0.25)
    table = feedback_table(*[(f"prompt {n}", f"text {n}", bool(label)) for n, label in enumerate(labels)])
    vectors = pl.Series(rng.standard_normal((rows, 8)).astype(np.float32), dtype=pl.Array(pl.Float32, 8))
    verdict = pl.when(pl.int_range(pl.len()) < reviewed).then(pl.Series(truth))
    table = table.with_columns(prompt_group="row_id", prompt_embedding=vectors, completion_embedding=vectors)
    return table.with_columns(trusted_label=verdict, answer_key=pl.Series(truth))


def test_quality_is_read_in_the_light_of_the_label():
    """Sound and doubtful, of a desirable and of an undesirable label: a doubted "undesirable" speaks for desirable."""
    quality, labels = np.array([1.0, 0.0, 1.0, 0.0, np.nan]), np.array([True, True, False, False, True])
    piece = Evidence("one", from_quality(quality, labels), ())
    np.testing.assert_allclose(piece.pull, [1, -1, -1, 1, np.nan], atol=1e-5)
    np.testing.assert_allclose(piece.quality(labels), quality, atol=1e-5)
    assert piece.known.tolist() == [True] * 4 + [False]
    assert np.isfinite(log_odds_of(np.array([0.0, 1.0]))).all()


def test_a_file_in_the_folder_acts(monkeypatch, tmp_path):
    (tmp_path / "oracle_for_tests.py").write_text(ORACLE)
    table = unlearnable()
    before = label_noise(table)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    after = label_noise(table)
    wrong = table["label"] != table["answer_key"]
    unreviewed = table["trusted_label"].is_null()

    def auroc(result):
        doubt = 1 - result.columns["label_quality"].filter(unreviewed).to_numpy()
        is_wrong = wrong.filter(unreviewed).to_numpy()
        return float((doubt[is_wrong][:, None] > doubt[~is_wrong]).mean())

    assert auroc(before) < 0.6
    assert auroc(after) > 0.9
    weights = after.metrics["weighed"]["oracle"]["weights"]
    assert all(weight["low"] > 0 for weight in weights.values())
    assert "oracle" in after.tables["evidence"].columns


def test_evidence_on_few_rows_is_weighed_there_as_far_as_it_is_right(monkeypatch, tmp_path):
    """Two rows in five have it, on texts that say nothing: only a column of its own, as a vote has, is believed for those rows."""
    oracle = ORACLE.replace("to_numpy()", "fill_null(float('nan')).to_numpy()")
    (tmp_path / "oracle_for_tests.py").write_text(oracle)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    table = unlearnable(600, reviewed=300, seed=1)  # of either label some fifteen that it shows to be wrong
    speaks, wrong = pl.Series(np.random.default_rng(78).random(600) < 0.4), table["label"] != table["answer_key"]
    seen = table.with_columns(answer_key=pl.when(speaks).then("answer_key"))
    result = label_noise(seen, action="relabel", trusted_at_random=True, repeats=1, neighbours=0)
    weighed = [weight["evidence"] for weight in result.metrics["stacking"]["weights"]]
    assert {"text", "oracle", "oracle: has an answer"} <= set(weighed)
    turned = table["row_id"].is_in(result.decisions.filter(reason="likelier_label")["row_id"].implode())
    findable = wrong & speaks & table["trusted_label"].is_null()
    assert (turned & findable).sum() > 0.7 * findable.sum() and (turned & wrong).sum() >= 0.8 * turned.sum()


def test_nobody_reviewed_so_nothing_is_weighed(monkeypatch, tmp_path):
    (tmp_path / "oracle_for_tests.py").write_text(ORACLE)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    result = label_noise(unlearnable(reviewed=0))
    assert result.metrics["weighed"]["oracle"]["weights"] == {}
    assert "not acted on" in result.metrics["weighed"]["oracle"]["text"]


def test_rows_say_which_evidence_there_is():
    assert [piece.name for piece in gather_evidence(label_rows(unlearnable(), neighbours=0, seed=0))] == []
    assert [piece.name for piece in gather_evidence(label_rows(unlearnable(), neighbours=5, seed=0))] == ["neighbour_agreement"]
