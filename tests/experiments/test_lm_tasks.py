import json

import numpy as np
import polars as pl
import pytest
import yaml
from probe_files import lines, questions_file
from tiny_models import tiny_llama, word_tokenizer

from ktodata.errors import DataError, EmptyDataError, FormatError, SettingError
from ktodata.experiments.probes.lm_task_files import is_task_file, task_folder
from ktodata.experiments.probes.lm_tasks import load_tasks, score_tasks, task_measures

pytest.importorskip("lm_eval")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")


def big_bench(folder, examples, **told):
    (folder / "my task").mkdir()
    (folder / "my task" / "task.json").write_text(json.dumps({"name": "x", "examples": examples, **told}))
    return folder / "my task"


def items_of(folder):
    return {item["context"]: item for item in map(json.loads, (folder / "items.jsonl").read_text().splitlines())}


def test_a_big_bench_task_as_its_own_harness_puts_it(tmp_path):
    """The best choice is gold, wherever it is shown; an example with two best ones is left out and counted."""
    examples = [
        {"input": "horse?", "target_scores": {"two": 0, "four": 1}},
        {"input": "cat?", "target_scores": {"two": 1, "four": 1}},
    ]
    place = big_bench(tmp_path, examples, task_prefix="Legs.")
    folder, facts = task_folder(place)
    assert is_task_file(place) and (facts["task"], facts["items"], facts["left_out"]) == ("my_task", 1, 1)
    (context, item), *_ = items_of(folder).items()
    shown = item["choices"]
    assert context == f"Legs.\nQ: horse?\n  choice: {shown[0]}\n  choice: {shown[1]}\nA:"
    assert sorted(shown) == ["four", "two"] and shown[item["gold"]] == "four"
    assert task_folder(place / "task.json")[0] == folder  # made once


def test_prefixes_of_a_task_and_hidden_choices(tmp_path):
    told = {"example_input_prefix": "S: ", "example_output_prefix": " \nP? ", "append_choices_to_input": False}
    folder, _ = task_folder(big_bench(tmp_path, [{"input": "a", "target_scores": {"x": 0.2, "y": 0.1}}], **told))
    assert list(items_of(folder)) == ["S: a \nP?"]
    assert yaml.safe_load((folder / "task.yaml").read_text())["output_type"] == "multiple_choice"


def test_targets_are_written_and_matched(tmp_path):
    folder, _ = task_folder(
        big_bench(tmp_path, [{"input": "1 + 4 =", "target": "5"}, {"input": "2 + 2 =", "target": ["4", "four"]}])
    )
    assert {item["gold"][0] for item in items_of(folder).values()} == {"4", "5"}
    assert yaml.safe_load((folder / "task.yaml").read_text())["output_type"] == "generate_until"


@pytest.mark.parametrize(
    ("answers", "choices"), [([True, False, True], ["no", "yes"]), (["red", "sea", "red"], ["red", "sea"]), (["a"] * 3, None)]
)
def test_questions(tmp_path, answers, choices):
    """True and false are yes and no; one answer to all is no choice."""
    path = lines(tmp_path / "q.jsonl", [{"question": f"is {n}?", "answer": answer} for n, answer in enumerate(answers)])
    item = items_of(task_folder(path)[0])["Question: is 1?\nAnswer:"]
    assert item.get("choices") == choices
    assert (choices[item["gold"]] if choices else item["gold"]) == {False: "no", "sea": "sea", "a": ["a"]}[answers[1]]


@pytest.mark.parametrize(
    ("examples", "error", "says"),
    [
        ([], FormatError, "no list `examples`, or an empty one"),
        ([{"input": "a"}], FormatError, "example 1 has neither target_scores nor a target of text"),
        ([{"target_scores": {"a": 1}}], FormatError, "example 1: target_scores gives no score to each of several"),
        ([{"target_scores": {"a": 1, "b": "x"}}], FormatError, "example 1"),
        ([{"target_scores": {"a": 1, "b": 0}}, {"target": "a"}], FormatError, "some examples have target_scores and some do not"),
        ([{"target_scores": {"a": 1, "b": 1}}], EmptyDataError, r"no item that can be asked \(1 were left out\)"),
    ],
)
def test_what_is_no_big_bench_task(tmp_path, examples, error, says):
    with pytest.raises(error, match=says):
        task_folder(big_bench(tmp_path, examples))


@pytest.mark.parametrize("record", [[], {"question": "a"}, {"question": "", "answer": "b"}, {"question": "a", "answer": None}])
def test_what_is_no_question(tmp_path, record):
    with pytest.raises(FormatError, match="line 2 has no question or no answer"):
        task_folder(lines(tmp_path / "q.jsonl", [{"question": "a", "answer": "b"}, record]))


def test_scores_are_those_of_the_policy_in_memory(tmp_path):
    """The choice whose tokens are likelier after the context, spelt out: log p of " yes" and of " no", each one token."""
    import torch

    tokenizer, policy = word_tokenizer(), tiny_llama(len(word_tokenizer()))
    tasks = load_tasks([str(questions_file(tmp_path))], tokenizer, limit=None, chat=False)
    assert tasks.facts["items"] == {"questions": 6} and tasks.metrics == {"questions": "acc"} and tasks.facts["requests"] == 12
    scores = score_tasks(tasks, policy, tokenizer, compute_dtype=torch.float32)
    items = list(items_of(task_folder(tmp_path / "questions.jsonl")[0]).values())
    expected = []
    for item in items:
        logps = policy(torch.tensor([tokenizer(item["context"])["input_ids"]])).logits[0, -1].log_softmax(-1)
        likelier = max((0, 1), key=lambda n: logps[tokenizer(item["choices"][n])["input_ids"][0]])
        expected.append(float(likelier == item["gold"]))
    assert scores.sort("item")["score"].to_list() == expected
    assert tokenizer.pad_token is None  # lm-eval's own pad token stays its own


def test_a_folder_of_yaml_files_a_limit_and_the_mean_of_tasks(tmp_path):
    """Two tasks of 6 and 2 items count the same in the mean: (0.5 + 1) / 2."""
    folder = tmp_path / "own"
    folder.mkdir()
    items = lines(folder / "d.jsonl", [{"q": "what is one", "c": ["yes", "no"], "g": n % 2} for n in range(4)])
    task = {"task": "own", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(items)}}, "test_split": "test"}
    how = {"output_type": "multiple_choice", "doc_to_text": "q", "doc_to_choice": "c", "doc_to_target": "g"}
    (folder / "own.yaml").write_text(yaml.safe_dump(task | how | {"metric_list": [{"metric": "acc"}]}))
    sources = [str(questions_file(tmp_path)), str(folder)]
    tasks = load_tasks(sources, word_tokenizer(), limit=2, chat=False)
    assert tasks.facts["items"] == {"questions": 2, "own": 2}
    before = tasks.digest
    (folder / "d.jsonl").write_text((folder / "d.jsonl").read_text().replace("one", "two"))
    assert load_tasks(sources, word_tokenizer(), limit=2, chat=False).digest != before
    with pytest.raises(SettingError, match="'own' is named twice"):
        load_tasks([str(folder), str(folder)], word_tokenizer(), limit=None, chat=False)
    *_, (_, mean) = task_measures(tasks)
    rows = pl.DataFrame({"task": ["a"] * 6 + ["b"] * 2, "score": [1.0, 0, 1, 0, 1, 0, 1, 1]})
    assert mean(rows)["tasks_mean"](np.ones((1, 8)))[0] == 0.75


@pytest.mark.parametrize(
    ("yaml_text", "error", "says"),
    [
        (None, SettingError, "holds no lm-eval task"),
        (
            "task: broken\ndataset_path: json\ndataset_kwargs: {data_files: {test: nowhere.jsonl}}\ntest_split: test\n",
            DataError,
            "broken: its data cannot be read",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, yaml_text, error, says):
    if yaml_text:
        (tmp_path / "t.yaml").write_text(yaml_text)
    with pytest.raises(error, match=says):
        load_tasks([str(tmp_path)], word_tokenizer(), limit=None, chat=False)


@pytest.mark.parametrize("source", ["nowhere/tasks", "absent.jsonl", "t.yaml"])
def test_a_path_that_is_not_there_is_no_name(source):
    with pytest.raises(SettingError, match=f"no folder, task.json or .jsonl file '{source}'"):
        load_tasks([source], word_tokenizer(), limit=None, chat=False)


@pytest.mark.shared
def test_real_tasks_become_folders(shared):
    made = {
        path.parent.name: task_folder(path)[1]
        for path in sorted((shared / "tasks" / "bigbench").glob("*/task.json"))
        if path.parent.name != "cause_and_effect"
    }
    assert (made["snarks"]["items"], made["snarks"]["left_out"], made["object_counting"]["items"]) == (181, 0, 1000)
    assert task_folder(shared / "tasks" / "boolq_val.jsonl")[1]["items"] == 3270
