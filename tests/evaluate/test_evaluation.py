import json

import numpy as np
import polars as pl
import pytest
from tiny_models import text_rows, word_tokenizer

from ktodata.errors import DataError, EmptyDataError, LabelError, MissingColumnError, ModelError, SettingError
from ktodata.evaluate import evaluate
from ktodata.evaluate.evaluation import measure
from ktodata.evaluate.generation import choose_prompts, describe, repeated_trigrams
from ktodata.files import read_note
from ktodata.train import fit

QUICK = {"bootstrap": 100, "device": "cpu", "max_new_tokens": 5}


def test_what_was_learnt_shows_and_the_base_model_did_not_know_it(trained):
    result = evaluate(trained, **QUICK)
    measures = result.as_dict()["against_label"]["measures"]
    assert measures["auc"]["value"] > 0.95 > measures["base_auc"]["value"]
    assert measures["policy_gain"]["value"] == pytest.approx(measures["policy_auc"]["value"] - measures["base_auc"]["value"])
    assert measures["policy_gain"]["low"] > 0
    assert measures["accuracy"]["value"] > 0.9
    by_class = {line["label"]: line["mean_reward"]["value"] for line in result.metrics["by_class"]}
    assert by_class[True] > 0 > by_class[False]
    assert [(line["model"], line["rows"]) for line in result.metrics["by_model"]] == [("large", 8), ("small", 8)]


def test_truth_that_says_the_opposite_is_measured_as_the_opposite(trained):
    result = evaluate(trained, truth_column="truth", generate=0, **QUICK)
    label, truth = (result.metrics[f"against_{name}"]["measures"]["auc"]["value"] for name in ("label", "truth"))
    assert truth == pytest.approx(1 - label)
    lines = result.table()
    assert lines["against"].unique(maintain_order=True).to_list() == ["label", "truth", "class"]
    rewards = {line["label"]: line["mean_reward"]["value"] for line in result.metrics["by_class"]}
    of_class = lines.filter(against="class").select("measure", "value", "rows")
    assert of_class.rows() == [("reward_desirable", rewards[True], 10), ("reward_undesirable", rewards[False], 6)]


def test_truth_from_a_file_by_its_id(trained, tmp_path):
    pl.DataFrame({"row_id": ["r0", "r1", "r2", "other"], "ok": [True, True, False, False]}).write_csv(tmp_path / "truth.csv")
    truth = {"path": str(tmp_path / "truth.csv"), "id": "row_id", "label": "ok"}
    result = evaluate(trained, truth=truth, generate=0, **QUICK)
    assert result.metrics["against_truth"]["rows"] == 3
    assert result.per_row.sort("row_id").filter(pl.col("truth").is_not_null())["truth"].to_list() == [True, True, False]


def test_rows_longer_than_the_context_have_no_score(trained, folder):
    rows = text_rows(12).with_columns(completion=pl.when(row_id="r3").then(pl.lit("one " * 200)).otherwise("completion"))
    with pytest.raises(ModelError, match=r"1 of 12 rows are longer than the model's context of 128 tokens \(row_id r3\)"):
        evaluate(rows.with_columns(part=pl.lit("test")), model=str(trained / "model"), reference=folder, generate=0, **QUICK)


def test_reward_by_hand(trained, folder):
    """reward = beta x (log p_policy - log p_reference), both summed over the completion by the models' own logits."""
    import torch
    from transformers import AutoModelForCausalLM

    per_row = evaluate(trained, beta=0.2, generate=0, **QUICK).per_row
    row, tokenizer = text_rows(1).row(0, named=True), word_tokenizer()
    start = len(tokenizer(row["prompt"])["input_ids"])
    ids = torch.tensor(tokenizer(row["prompt"] + row["completion"] + "<|end|>")["input_ids"])

    def logp(folder):
        with torch.no_grad():
            logps = AutoModelForCausalLM.from_pretrained(folder)(ids[None]).logits[0].log_softmax(-1)
        return sum(logps[place - 1, ids[place]].item() for place in range(start, len(ids)))

    line = per_row.filter(row_id="r0").row(0, named=True)
    assert line["reward"] == pytest.approx(0.2 * (logp(trained / "model") - logp(folder)), rel=1e-4)
    assert line["base_score"] == pytest.approx(logp(folder) / (len(ids) - start), rel=1e-4)
    assert line["policy_score"] == pytest.approx(logp(trained / "model") / (len(ids) - start), rel=1e-4)


def test_written_files_hold_what_was_returned(trained, tmp_path):
    result = evaluate(trained, out=tmp_path, generate=3, **QUICK)
    assert read_note(tmp_path / "evaluation.json") == result.as_dict()
    assert pl.read_parquet(tmp_path / "evaluation.parquet").equals(result.per_row)
    shown = result.metrics["generation"]
    assert len(shown["examples"]) == shown["base"]["texts"] == shown["trained"]["texts"] == 3
    assert shown["examples"][0].keys() == {"row_id", "prompt", "base", "trained"}


def test_the_same_again_is_the_same(trained):
    assert evaluate(trained, **QUICK).as_dict() == evaluate(trained, **QUICK).as_dict()


def test_an_adapter_is_put_on_its_reference(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))
    rows = text_rows(16).with_columns(part=pl.Series(["train"] * 10 + ["test"] * 6))
    fitted = fit(rows, model=folder, out=tmp_path / "out", lora={}, epochs=3, batch_size=4, learning_rate=1e-2, device="cpu")
    result = evaluate(rows, model=str(tmp_path / "out"), generate=0, **QUICK)
    assert result.metrics["reference"] == folder
    assert result.per_row["reward"].abs().min() > 0
    assert fitted.metrics["trainable_parameters"] < sum(p.numel() for p in fitted.model.parameters())


def scored(labels, rewards, truth=None):
    count = len(labels)
    return pl.DataFrame(
        {
            "row_id": [str(number) for number in range(count)],
            "label": labels,
            "truth": truth or [None] * count,
            "group": [str(number // 2) for number in range(count)],
            "reward": rewards,
            "base_score": [0.0] * count,
            "policy_score": [-reward for reward in rewards],
            "model": [None] * count,
        },
        schema_overrides={"truth": pl.Boolean, "model": pl.String},
    )


def test_one_class_is_not_applicable_with_its_reason():
    metrics = measure(scored([True] * 4, [0.1, 0.2, 0.3, 0.4]), resamples=100, seed=0)
    assert metrics["against_label"]["not_applicable"] == "one class only: label gives 4 desirable, 0 undesirable"
    assert metrics["against_truth"]["not_applicable"].startswith("no rows")
    assert metrics["by_class"][1]["not_applicable"] == "no rows"
    assert "NaN" not in json.dumps(metrics)


def test_measures_by_hand():
    """rewards 1, -1 | 2, 0, true first two of three: AUC pairs (1>0, 1>2 no, -1>0 no, -1>2 no) = 1/4; r > 0 right in 1 and 0: 2/4"""
    metrics = measure(scored([True, True, False, False], [1.0, -1.0, 2.0, 0.0]), resamples=100, seed=0)["against_label"][
        "measures"
    ]
    assert metrics["auc"]["value"] == 0.25
    assert metrics["accuracy"]["value"] == 0.5
    assert metrics["base_auc"]["value"] == 0.5
    assert metrics["policy_auc"]["value"] == 0.75 and metrics["policy_gain"]["value"] == 0.25  # the other way round
    chances = 1 / (1 + np.exp(-np.array([1.0, -1.0, 2.0, 0.0])))
    assert metrics["brier"]["value"] == pytest.approx(((chances - [1, 1, 0, 0]) ** 2).mean())


def test_generation_is_described_by_hand():
    """[1,1,1,1,1]: trigrams 3, different 1 -> 2/3 repeated; [1,2,3]: 0; []: no trigram. Mean of the two: 1/3."""
    shares = describe([[1, 1, 1, 1, 1], [1, 2, 3], []], max_new_tokens=5)
    assert shares == {
        "texts": 3,
        "empty": pytest.approx(1 / 3),
        "unfinished": pytest.approx(1 / 3),
        "mean_tokens": pytest.approx(8 / 3),
        "repeated_trigrams": pytest.approx(1 / 3),
    }
    assert repeated_trigrams([1, 2]) is None


def test_greedy_writing_is_the_likeliest_token_each_time_whatever_the_padding(trained):
    import torch
    from transformers import AutoModelForCausalLM

    from ktodata.evaluate.generation import write_greedily

    model = AutoModelForCausalLM.from_pretrained(trained / "model").eval()
    prompts = [np.array([3, 4, 5], dtype=np.int32), np.array([3, 4, 6, 7, 8, 9], dtype=np.int32)]
    written = write_greedily(model, word_tokenizer(), prompts, max_new_tokens=6, device=torch.device("cpu"))
    for prompt, expected in zip(prompts, written, strict=True):
        ids = prompt.tolist()
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 2:
                ids.pop()
                break
        assert expected == ids[len(prompt) :]


def test_generated_prompts_are_of_different_groups():
    from ktodata.train.data.tokens import tokenize
    from ktodata.train.data.training_rows import check_rows

    rows, _ = tokenize(check_rows(text_rows(12), part="test", both_classes=False), word_tokenizer(), max_length=64, part="test")
    chosen = choose_prompts(rows, 4, seed=0)
    assert len({rows.group[row] for row in chosen}) == 4
    assert chosen != choose_prompts(rows, 4, seed=1)
    assert len(choose_prompts(rows, 99, seed=0)) == len(set(rows.group))


def test_max_rows(trained):
    assert evaluate(trained, max_rows=5, generate=0, **QUICK).per_row.height == 5


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"part": "validation"}, EmptyDataError, "no validation rows to evaluate on"),
        ({"part": "train"}, SettingError, "part: it should be 'test' or 'validation'; got 'train'"),
        ({"truth_column": "truht"}, MissingColumnError, "truth_column 'truht'"),
        ({"truth_column": "model"}, LabelError, "column 'model' is String"),
        ({"truth": {"path": "x.csv", "id": "row_id"}}, SettingError, "truth.label"),
        ({"model": "nowhere", "reference": None}, ModelError, "training.json is not there"),
        ({"bootstrap": 5}, SettingError, "bootstrap.*100; got 5"),
    ],
)
def test_bad_settings(trained, settings, error, says):
    with pytest.raises(error, match=says):
        evaluate(trained, **{**QUICK, **settings})


def test_a_row_with_two_truths(trained, tmp_path):
    pl.DataFrame({"row_id": ["r0", "r0"], "ok": [True, False]}).write_parquet(tmp_path / "truth.parquet")
    with pytest.raises(DataError, match="1 ids have more than one truth"):
        evaluate(trained, truth={"path": str(tmp_path / "truth.parquet"), "id": "row_id", "label": "ok"}, **QUICK)


def test_truth_of_other_rows(trained, tmp_path):
    pl.DataFrame({"id": ["x9"], "ok": [True]}).write_ndjson(tmp_path / "truth.jsonl")
    with pytest.raises(DataError, match=r"none of its 1 ids \(first: 'x9'\) is a row_id of the 16 rows \(first: 'r0'\)"):
        evaluate(trained, truth={"path": str(tmp_path / "truth.jsonl"), "id": "id", "label": "ok"}, **QUICK)


def test_importing_the_package_and_its_signature_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, ktodata.evaluate; ktodata.evaluate.evaluate; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_pass_of_either_model_is_reported(trained, monkeypatch):
    events = []
    evaluate(trained, **QUICK | {"generate": 2, "progress": events.append})
    assert [event["model"] for event in events] == sorted(event["model"] for event in events)  # base, then trained
    for model in ("base", "trained"):
        of_model = [event for event in events if event["model"] == model]
        assert [event.get("text") for event in (of_model[0], of_model[-1])] == ["is read", "answers 2 prompts"]
        assert [(event["rows"], event["of"]) for event in of_model if "rows" in event] == [(0, 16), (16, 16)]
