"""`kd.audit`: from a table to a verdict, a queue, and back again with a person's verdicts."""

import json
import sys
from collections import OrderedDict

import numpy as np
import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import DataError, LabelError, MissingColumnError, SettingError
from ktodata.feedback import feedback_table
from ktodata.formats.verdicts.matching import settling_in_words
from ktodata.labels import label_classifier
from ktodata.labels.classifier import kept_predictions
from ktodata.labels.classifier.detection import predict_labels
from ktodata.stage import StageResult

DISHES = ("soup", "bread", "rice", "beans", "cake", "stew", "salad", "pie", "noodles", "omelette")
TOOLS = ("pan", "pot", "oven", "wok", "grill", "steamer")
FEW = feedback_table(("Soup?", "Yes.", True), ("Bread?", "No.", False))


@pytest.fixture(scope="module")
def feedback():
    """Help or refusal for 240 questions; every eighth label is flipped. source_id holds the truth."""
    rows = []
    for number in range(240):
        dish, tool = DISHES[number % 10], TOOLS[number % 6]
        helps = number % 3 > 0
        text = (
            f"Take the {tool}, heat it and cook the {dish} for {number} minutes."
            if helps
            else f"Sorry, I cannot talk about {dish}."
        )
        label = helps ^ (number % 8 == 0)
        rows.append(
            {
                "prompt": f"How do I make {dish} in a {tool}, way {number}?",
                "completion": text,
                "label": label,
                "source_id": str(helps),
            }
        )
    return feedback_table(*rows)


@pytest.fixture(scope="module")
def audit(feedback):
    return kd.audit(feedback, seed=0)


def truth_of(audit):
    return {row_id: truth == "True" for row_id, truth in audit.table.select("row_id", "source_id").iter_rows()}


def test_it_says_of_each_class_what_is_known(audit):
    summary = audit.summary
    assert summary["given"].to_list() == ["desirable", "undesirable"]
    assert summary["rows"].sum() == audit.metrics["rows"]["learnt_from"]
    assert summary["error_rate"].null_count() == 2  # nobody has reviewed anything
    assert json.dumps(dict(audit.metrics))
    assert {"KD040", "KD047", "KD048"} <= set(audit.findings["code"])


def test_doubtful_rows_come_first_and_the_flipped_ones_are_among_them(audit):
    truth = truth_of(audit)
    first = audit.rows.head(20)
    wrong = [label != truth[row_id] for row_id, label in first.select("row_id", "label").iter_rows()]
    assert sum(wrong) >= 15
    assert "prompt_embedding" not in audit.rows.columns


def test_the_queue_is_of_open_rows_and_says_what_is_not_known(audit):
    rows = audit.next_reviews(12)
    assert rows.columns == ["row_id", "source_id", "label", "doubt", "p_wrong", "prompt", "completion", "why"]
    assert rows["row_id"].n_unique() == 12
    # nobody has reviewed a row yet: 60 of the draw, as the headline says, then the others
    assert set(rows["why"]) == {"measures"}
    assert audit.next_reviews(70)["why"].to_list() == ["measures"] * 60 + ["gain"] * 10
    assert audit.next_reviews(12, draw=0)["why"].to_list() == ["measures"] * 6 + ["gain"] * 6
    bought = audit.buys(12)
    assert bought["rows"] == 12
    assert (bought["wrong_labels_expected"] is None) == (not audit.p_wrong_was_measured)


def test_the_models_of_the_labels_are_fitted_once_for_all_reviews(feedback, monkeypatch):
    fitted = []
    monkeypatch.setattr(kept_predictions, "_predictions", OrderedDict())
    monkeypatch.setattr(label_classifier, "predict_labels", lambda *of, **by: fitted.append(1) or predict_labels(*of, **by))
    audit = kd.audit(feedback, seed=3)
    verdicts = audit.ask_for_review.select("row_id", trusted_label=pl.lit(value=True))
    again = audit.with_reviews(verdicts)
    assert len(fitted) == 1
    kept_predictions._predictions.clear()
    anew = audit.with_reviews(verdicts)
    assert len(fitted) == 2 and anew.result.columns.equals(again.result.columns) and anew.metrics == again.metrics
    turned = feedback.with_columns(label=pl.col("label") ^ (pl.col("row_id") == feedback["row_id"][0]))
    for other, settings in ((turned, {}), (feedback, {"repeats": 2}), (feedback, {"noise_injection": 0.1})):
        kd.audit(other, **{"seed": 3} | settings)
    assert len(fitted) == 5  # another label, another setting: other predictions


def test_reviews_come_back_as_trusted_labels(audit):
    truth = truth_of(audit)
    asked = audit.ask_for_review.select("row_id")
    verdicts = asked.with_columns(trusted_label=pl.col("row_id").replace_strict(truth, return_dtype=pl.Boolean))
    again = audit.with_reviews(verdicts)
    assert again.summary["reviewed"].sum() == verdicts.height
    assert again.p_wrong_was_measured
    assert again.buys(12)["wrong_labels_expected"] is not None
    assert set(again.next_reviews(12)["why"]) == {"gain"}
    assert not set(again.next_reviews(20)["row_id"]) & set(verdicts["row_id"])
    for row in again.summary.iter_rows(named=True):
        real = [
            truth[row_id] != label
            for row_id, label in audit.table.select("row_id", "label").iter_rows()
            if label == (row["given"] == "desirable")
        ]
        assert row["error_rate_low"] <= sum(real) / len(real) <= row["error_rate_high"]


def test_the_random_draw_is_recognised_among_the_rows_it_was_made_of():
    """Held-out rows and rows held for review were never to be drawn: they do not stand between those that were."""
    from ktodata.labels.people.trusted import mark_reviewed, rows_to_review

    rng = np.random.default_rng(0)
    trained = rng.random(600) < 0.5
    table = pl.DataFrame(
        {
            "row_id": [f"r{n:03}" for n in range(600)],
            "label": rng.random(600) < 0.8,
            "part": np.where(trained, "train", "test"),
            "state": ["keep"] * 600,
            "prompt": ["p"] * 600,
            "completion": ["c"] * 600,
            "trained": trained,
        }
    )
    asked = rows_to_review(table.filter("trained"), total=40, seed=3)["row_id"]
    others = table.filter(pl.Series(trained), ~pl.col("row_id").is_in(asked.implode()))["row_id"][:25]  # doubtful ones, say
    seen = pl.concat([asked, others])
    reviewed = table.with_columns(trusted_label=pl.when(pl.col("row_id").is_in(seen.implode())).then("label"))
    marked = mark_reviewed(reviewed, seed=3)
    assert marked["reviewed"].sum() == len(seen) > len(asked) > 20
    assert set(asked) <= set(marked.filter("drawn")["row_id"])
    assert marked["drawn"].sum() < len(asked) + 6  # but for a few that stand next in the order
    assert not marked.filter(~pl.col("trained"))["drawn"].any()


def test_verdicts_on_unknown_rows_are_refused(audit):
    with pytest.raises(DataError, match=r"with_reviews: none of 1 .*first: row_id nobody"):
        audit.with_reviews(pl.DataFrame({"row_id": ["nobody"], "trusted_label": [True]}))
    with pytest.raises(MissingColumnError, match="trusted_label"):
        audit.with_reviews(pl.DataFrame({"row_id": [audit.table["row_id"][0]]}))


def test_keep_and_flip_are_verdicts_on_the_label(audit):
    rows = audit.next_reviews(4).select("row_id", "label")
    words = rows.with_columns(trusted_label=pl.Series(["keep", "flip", "good", None]))
    again = audit.with_reviews(words).table.join(rows.select("row_id", given="label"), on="row_id", maintain_order="right")
    given = rows["label"].to_list()
    assert again["trusted_label"].to_list() == [given[0], not given[1], True, None]
    for wrong in (words.drop("label"), words.with_columns(trusted_label=pl.lit("drop"))):
        with pytest.raises(LabelError, match="keep or flip beside a column label"):
            audit.with_reviews(wrong)


@pytest.mark.parametrize("count", [-1, 1.5, "60", True, None])
def test_a_count_of_rows_is_a_whole_number(audit, count):
    with pytest.raises(SettingError, match="count is a whole number of rows"):
        audit.next_reviews(count)


@pytest.fixture
def small(monkeypatch):
    """An audit of five rows, one of them a repeat and one without a row to train on; nothing is learnt anew."""
    module = sys.modules["ktodata.pipeline.audit"]
    result = StageResult(pl.DataFrame({"row_id": []}), metrics={"findings": []})
    monkeypatch.setattr(module, "label_noise", lambda table, **settings: result)
    texts = {"r1": "x", "repeat": "x", "r2": "y", "gone": "z", "r3": "w"}
    table = feedback_table(*({"row_id": name, "prompt": "p", "completion": text, "label": True} for name, text in texts.items()))
    state = pl.when(pl.col("row_id").is_in(["repeat", "gone"])).then(pl.lit("drop")).otherwise(pl.lit("keep"))
    return module.LabelAudit(table.with_columns(state=state), result, {})


def judged(audit, *verdicts):
    """(row_id -> trusted label, row_id -> state, the counts)"""
    again = audit.with_reviews(pl.DataFrame(verdicts, schema={"row_id": pl.String, "trusted_label": pl.Boolean}, orient="row"))
    trusted = dict(again.table.select("row_id", "trusted_label").drop_nulls().iter_rows())
    return trusted, dict(again.table.select("row_id", "state").iter_rows()), again.metrics["verdicts"]


def test_a_verdict_on_a_repeat_is_one_on_the_row_that_stays(small):
    trusted, _, counts = judged(small, ("repeat", False), ("r2", True))
    assert trusted == {"r1": False, "repeat": False, "r2": True} and counts["on_nothing_trained"] == 0


def test_contradictory_verdicts_on_one_text_are_contested_and_counted(small):
    for pair in ((("r1", True), ("repeat", False)), (("r1", True), ("r1", False))):
        trusted, state, counts = judged(small, *pair, ("r2", True))
        assert trusted == {"r2": True} and state["r1"] == "drop" and state["r2"] == "keep"
        assert counts["people_differ"] == 2
        assert any("people differ" in line for line in settling_in_words(counts))


def test_verdicts_that_change_nothing_are_counted_and_said(small):
    _, _, counts = judged(small, ("gone", False), ("r2", None), ("r3", True))
    assert (counts["on_nothing_trained"], counts["without_label"]) == (1, 1)
    assert "1 verdicts on texts of which no row is trained on" in "; ".join(settling_in_words(counts))


def test_a_budget_can_be_played_through(audit):
    played = audit.simulate_review(truth_of(audit), [10, 30])
    assert set(played["order"]) == {"gain", "suspicion", "random"}
    best, chance = (played.filter(order=order, reviewed=30)["errors_left"][0] for order in ("gain", "random"))
    assert best < chance
    with pytest.raises(DataError, match="truth lacks"):
        audit.simulate_review({}, [10])


def test_it_draws_itself(audit):
    assert audit.plot_trust_curve().axes[0].get_ylabel()
    assert "<table" in audit._repr_html_() or "<div" in audit._repr_html_()
    issues = [finding["text"] for finding in audit.metrics["findings"] if finding["status"] == "issue"]
    assert repr(audit).startswith("Can these labels be trusted? ") and repr(audit).endswith("\n".join(issues)) and issues


def test_a_frame_of_records_and_a_file_are_read_first(feedback, tmp_path):
    """As `kd.read` would: the same rows, the same audit, and what was read is said first, also once rows were reviewed."""
    pandas = pytest.importorskip("pandas")
    thumb = pl.when("label").then(pl.lit("up")).otherwise(pl.lit("down")).alias("thumb")
    records = feedback.head(12).select(thumb, "rater", q="prompt", a="completion", id="source_id")
    records = pl.concat([records, records.head(1).with_columns(thumb=pl.lit("meh"))])
    records.write_ndjson(tmp_path / "thumbs.jsonl")
    reading = {"prompt": "q", "completion": "a", "label": {"column": "thumb", "up": True, "down": False}, "rater": "rater"}
    table = kd.read(records, **reading).feedback
    for data in (records, pandas.DataFrame(records.to_dicts()), tmp_path / "thumbs.jsonl"):
        audit = kd.audit(data, **reading)
        assert set(audit.table["row_id"]) == set(table["row_id"])
        assert repr(audit).startswith(
            "13 records, 12 rows\n1 quarantined: label_unmapped (values: 'meh' 1)\nCan these labels be trusted?"
        )
    judged = audit.with_reviews(audit.next_reviews(3).select("row_id", trusted_label="label"))
    assert repr(judged).startswith("13 records") and "13 records" in judged._repr_html_()
    with pytest.raises(SettingError, match="a feedback table was read before; label is for what is read now"):
        kd.audit(table, label="thumb")
    (tmp_path / "own.yaml").touch()
    for wrong, message in {"own.yaml": "is a recipe", "nothing.csv": "there is no file and no run folder"}.items():
        with pytest.raises(SettingError, match=message):
            kd.audit(tmp_path / wrong)
    with pytest.raises(SettingError, match=r"audit has no setting 'labl'\. Did you mean 'label'"):
        kd.audit(records, labl="thumb")
    with pytest.raises(SettingError, match=r"audit: seed: .*greater than or equal to 0; got -1"):
        kd.audit(records, seed=-1, **reading)
    with pytest.raises(LabelError, match="column 'thumb': none of 13 records has a usable label"):
        kd.audit(records, **reading | {"label": "thumb"})


def test_the_answer_is_that_of_a_run_in_whatever_order_rows_stand(feedback, audit, tmp_path):
    """In memory, shuffled, and of a run's folder: the same numbers, rows and tables, whatever is asked of the audit."""
    shuffled = kd.audit(feedback.sample(fraction=1, shuffle=True, seed=5), seed=0)
    assert dict(shuffled.metrics) == dict(audit.metrics) and shuffled.rows.equals(audit.rows)
    feedback.select("prompt", "completion", "label", "source_id").write_ndjson(tmp_path / "rows.jsonl")
    recipe = {"ingest": {"paths": [str(tmp_path / "rows.jsonl")], "label": "label", "source_id": "source_id"}}
    steps = [{name: {}} for name in ("validate", "dedupe", "embed", "label_noise")]
    kd.run(recipe | {"name": "rows", "seed": 0, "steps": steps}, out=tmp_path / "run", until="label_noise")
    of_run, of_file = kd.audit(tmp_path / "run"), kd.audit(tmp_path / "rows.jsonl", label="label", source_id="source_id")
    assert json.dumps(dict(of_run.metrics)) == json.dumps(dict(of_file.metrics))
    shown = ("raters", "drift", "trust_curve", "ask_for_review", "summary", "findings")
    assert all(getattr(of_run, name).equals(getattr(of_file, name)) for name in shown)
    assert of_run._repr_html_() and repr(of_run) == repr(of_file).partition("\n")[2]


def test_too_few_rows_to_learn_from_are_said_and_drawn_at_random(feedback):
    few = kd.audit(feedback.head(12))
    assert few.next_reviews(5)["why"].to_list() == ["measures"] * 5
    assert few.buys(5) == {"minutes": 5, "rows": 5, "wrong_labels_expected": None}
    assert few.trust_curve.height == 0


def test_a_model_and_its_training_are_further_views(feedback, tmp_path, monkeypatch):
    """A stand-in for the model whose hidden states tell help from refusal, and telemetry that sides with the truth."""
    from ktodata.train.model import layer_states as module

    def states(prompts, completions, **_):
        hidden = np.array([[float("Sorry" in text), len(text), 1.0] for text in completions], np.float32)
        return module.HiddenStates(hidden, {"cut_to_max_length": 0, "max_length": 512})

    monkeypatch.setattr(module, "mean_hidden_states", states)
    truth = {row_id: text == "True" for row_id, text in feedback.select("row_id", "source_id").iter_rows()}
    looks = [
        {"row_id": row_id, "part": "train", "epoch": 0, "step": step, "z0": 0.0, "completion_tokens": 9, "label": label}
        | {"log_ratio": (1.0 if truth[row_id] else -1.0) * step / 20}
        for step, (row_id, label) in enumerate(feedback.select("row_id", "label").iter_rows(), start=1)
    ]
    audit = kd.audit(feedback, model="any", telemetry=pl.DataFrame(looks), noise_injection=0.05, repeats=1)
    signals = audit.result.tables["evidence"]
    assert {"hidden_state", "text", "completion_residual", "neighbour_agreement", "training_dynamics", "together"} <= set(
        signals.columns
    )
    assert "hidden_state" not in audit.rows.columns
    wrong = pl.Series([truth[row_id] != label for row_id, label in audit.table.select("row_id", "label").iter_rows()])
    for name in ("hidden_state", "training_dynamics"):
        assert signals[name].filter(wrong).mean() < signals[name].filter(~wrong).mean() - 0.1


@pytest.fixture(scope="module")
def disputed(feedback):
    """The same questions, twelve of them given the other label as well by somebody else."""
    again = feedback.slice(100, 12).with_columns(pl.lit("again ").add(pl.col("row_id")).alias("row_id"), label=~pl.col("label"))
    vote = pl.struct(rater=pl.lit("somebody else"), label="label", created_at="created_at")
    again = again.with_columns(votes=pl.concat_list(vote).cast(feedback.schema["votes"]))
    repeated = feedback.head(7).with_columns(pl.lit("repeat ").add(pl.col("row_id")).alias("row_id"))
    return kd.audit(pl.concat([feedback, again, repeated]), seed=0)


def test_it_says_what_is_held_and_what_was_left_out(disputed):
    assert disputed.left_out == {"repeat": 7} and disputed.rows.height == 252
    text = repr(disputed)
    assert "12 texts (24 rows) have both labels" in text and "Of 259 rows 7 were left out first (repeat 7)" in text
    assert "Judge what is held for review: the 12 texts with both labels" in text and "audit.next_reviews(72)" in text
    assert disputed.next_reviews(72)["why"].value_counts().sort("why").rows() == [("held", 12), ("measures", 60)]


def test_texts_with_both_labels_are_asked_about_once_each(disputed):
    queue = disputed.next_reviews(40, draw=0)
    held = queue.filter(why="held")
    assert held.height == 12 and held["doubt"].to_list() == [0.5] * 12 and held["p_wrong"].null_count() == 12
    assert held.select("prompt", "completion").n_unique() == 12
    assert queue.filter(why="measures").height == 20 and not set(queue.filter(why="measures")["row_id"]) & set(held["row_id"])
    assert disputed.held.sum() == 12 and not (disputed.held & disputed.trained).any()
    doubted = disputed.table.select("row_id").with_columns(disputed.evidence_against).filter(pl.Series(disputed.held))
    assert doubted["evidence_against"].to_list() == [["contradicted"]] * 12


def test_a_verdict_lets_training_have_the_row(disputed):
    row_id, label = disputed.next_reviews(40, draw=0).filter(why="held").select("row_id", "label").row(0)
    again = disputed.with_reviews(pl.DataFrame({"row_id": [row_id], "trusted_label": [not label]}))
    assert again.trained.sum() == disputed.trained.sum() + 1 and again.held.sum() == 11  # and the text is not asked about again
    text = again.table.filter(row_id=row_id).select("prompt", "completion")
    (of_text,) = again.table.filter(pl.Series(again.trained)).join(text, on=["prompt", "completion"]).iter_rows(named=True)
    assert of_text["label"] == of_text["trusted_label"] == (not label)  # the row whose label the verdict is
    assert row_id not in again.next_reviews(40, draw=0)["row_id"]


@pytest.mark.parametrize("work", [kd.audit, kd.validate, kd.dedupe, lambda table: kd.add_columns(table, kd.validate(FEW))])
def test_rows_that_share_an_id_are_refused_before_anything_is_put_beside_them(work):
    """As two tables that were read apart and laid together may have it: what is joined by it would grow without end."""
    with pytest.raises(DataError, match=r"2 of 4 rows share their row_id with another row \(first: 1\)"):
        work(pl.concat([FEW, FEW]))
