"""A model with a chat template is trained with it; mark-up, dropped turns and characters without a token are findings."""

import json

import pytest
from tiny_models import WORDS, save_tiny_llama, word_tokenizer

import ktodata as kd
from ktodata.feedback import feedback_table
from ktodata.formats.shards import read_shards
from ktodata.stages.export import export
from ktodata.stages.validate import validate

PLAIN = [("what is one", "one is one", True), ("what is two", "no", False)]
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'] }}:{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
)
LAST_ONLY = "{{ messages[-1]['content'] }}<|end|>"
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}{{ messages[0]['content'] }}"
# divides by none for four turns
BREAKS = "{{ 1 // (messages | length - 4) }}{% for m in messages %}{{ m['content'] }}{% endfor %}"


def tokenizer_folder(folder, **changes):
    tokenizer = word_tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return str(folder)


def kept(*rows):
    import polars as pl

    return feedback_table(*rows).with_columns(state=pl.lit("keep"))


def finding(result, code):
    return next(finding for finding in result.metrics["findings"] if finding["code"] == code)


@pytest.fixture
def thumbs(tmp_path):
    rows = [
        {"prompt": f"what is {WORDS[3 + number % 8]} plus {WORDS[3 + number // 8]}", "completion": WORDS[3 + number % 9]}
        for number in range(32)
    ]
    place = tmp_path / "thumbs.jsonl"
    place.write_text("".join(json.dumps({**row, "thumb": number % 2 == 0}) + "\n" for number, row in enumerate(rows)))
    return place


@pytest.fixture
def recipe(thumbs, tmp_path):
    train = {"model": save_tiny_llama(tmp_path / "model"), "max_steps": 1, "batch_size": 8}
    ingest = {"paths": [str(thumbs)], "label": {"column": "thumb", True: True, False: False}}
    return {"name": "thumbs", "ingest": ingest, "steps": ["validate", {"dedupe": {"near": 1.0}}], "train": train}


def test_text_goes_through_the_template_of_the_model_that_is_trained(recipe, tmp_path):
    run = kd.run(recipe, out=tmp_path / "run")
    assert run.stage("export").metrics["conversational"] is True
    assert run.manifest["recipe"]["export"]["tokenizer"] == recipe["train"]["model"]
    assert finding(run.stage("export"), "KD092")["status"] == "passed"
    assert read_shards(run.folder, "train")["turns"].null_count() == 0


def test_told_otherwise_text_stays_text(recipe, tmp_path):
    run = kd.run({**recipe, "export": {"conversational": "never"}}, out=tmp_path / "run")
    assert run.stage("export").metrics["conversational"] is False
    assert "never" in finding(run.stage("export"), "KD092")["text"]


def test_a_model_without_a_template_is_trained_on_text(tmp_path):
    place = tokenizer_folder(tmp_path, chat_template=None)
    result = export(kept(*PLAIN), tokenizer=place)
    assert result.metrics["conversational"] is False
    assert finding(result, "KD092")["status"] == "passed"


def test_conversations_for_a_model_without_a_template_are_a_finding(tmp_path):
    turns = [{"role": "user", "content": "what"}]
    rows = kept({"prompt": "what", "completion": "one", "label": True, "turns": turns})
    assert finding(export(rows, tokenizer=tokenizer_folder(tmp_path, chat_template=None)), "KD092")["status"] == "issue"


def test_without_a_model_it_is_said_which_form_was_chosen_and_why():
    chosen = finding(export(kept(*PLAIN)), "KD092")
    assert chosen["status"] == "not_applicable"
    assert "plain text" in chosen["text"] and "no model" in chosen["text"]
    plain = finding(export(kept(*PLAIN), conversational="never"), "KD092")
    assert (plain["status"], plain["text"]) == ("not_applicable", "rows are written as plain text: conversational is never.")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<|im_start|>user\nHi<|im_end|>", "<|im_start|>"),
        ("[INST] Hi [/INST]", "[INST]"),
        ("<<SYS>>Be brief<</SYS>> Hi", "[INST]"),
        ("<start_of_turn>user\nHi<end_of_turn>", "<start_of_turn>"),
        ("### Human: Hi\n### Assistant:", "### Human:"),
        ("<|start_header_id|>user<|end_header_id|>Hi<|eot_id|>", "<|start_header_id|>"),
        ("Human: Hi\n\nAssistant:", "Human: ... Assistant:"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_mark_up_left_in_a_text_is_counted(text, name, side):
    row = ["Say hello", "Hello", True]
    row[side] = text
    issue = finding(validate(feedback_table(tuple(row), *PLAIN)), "KD012")
    assert (issue["status"], issue["rows"]) == ("issue", 1)
    assert f"{name} 1" in issue["text"]


@pytest.mark.parametrize("text", ["List[int] and a < b", "# Human rights\nAssistant: a job", "User: hi\n\nAssistant: hello"])
def test_what_only_resembles_mark_up_is_none(text):
    assert finding(validate(feedback_table((text, text, True))), "KD012")["status"] == "passed"


def test_a_special_token_of_the_tokenizer_is_mark_up(tmp_path):
    rows = feedback_table(("what <|start|> one", "no", True), *PLAIN)
    assert finding(validate(rows), "KD012")["status"] == "passed"
    assert finding(validate(rows, tokenizer=tokenizer_folder(tmp_path)), "KD012")["rows"] == 1


TALK = [
    {"role": "system", "content": "yes"},
    {"role": "user", "content": "what is one"},
    {"role": "assistant", "content": "no"},
    {"role": "user", "content": "what is two"},
]


@pytest.mark.parametrize(
    ("template", "mentions"),
    [
        (DROPS_SYSTEM, {"system turns left out 1": True, "user turns": False}),
        (LAST_ONLY, {"system turns left out 1": True, "user turns left out 1": True}),
        (REFUSES, {"conversations refused 1": True}),
        (BREAKS, {"conversations refused 1": True}),
    ],
)
def test_a_template_that_loses_turns_is_a_finding(template, mentions, tmp_path):
    rows = feedback_table({"prompt": "p", "completion": "one", "label": True, "turns": TALK}, *PLAIN)
    issue = finding(validate(rows, tokenizer=tokenizer_folder(tmp_path, chat_template=template)), "KD013")
    assert (issue["status"], issue["rows"]) == ("issue", 1)
    assert {words: words in issue["text"] for words in mentions} == mentions


def test_a_template_that_keeps_all_turns_passes(tmp_path):
    rows = feedback_table({"prompt": "p", "completion": "one", "label": True, "turns": TALK}, *PLAIN)
    assert finding(validate(rows, tokenizer=tokenizer_folder(tmp_path)), "KD013")["status"] == "passed"


def test_a_template_that_drops_the_only_user_turn_is_said_of_plain_prompts_too(tmp_path):
    place = tokenizer_folder(tmp_path, chat_template="{% for m in messages %}{{ m['role'] }}{% endfor %}")
    assert finding(validate(feedback_table(*PLAIN), tokenizer=place), "KD013")["rows"] == 2


def test_characters_without_a_token_are_a_finding_with_examples(tmp_path):
    rows = feedback_table(("what is один", "one", True), *PLAIN)
    issue = finding(validate(rows, tokenizer=tokenizer_folder(tmp_path)), "KD014")
    assert (issue["status"], issue["rows"]) == ("issue", 1)
    assert "один" in issue["text"]
    assert finding(validate(feedback_table(*PLAIN), tokenizer=str(tmp_path)), "KD014")["status"] == "passed"


def test_a_tokenizer_without_an_end_token_is_a_finding(tmp_path):
    place = tokenizer_folder(tmp_path, eos_token=None)
    assert finding(validate(feedback_table(*PLAIN), tokenizer=place), "KD015")["status"] == "issue"


def test_a_tokenizer_of_bytes_knows_every_character():
    rows = feedback_table(("один ☃ 🙂", "да", True))
    assert finding(validate(rows, tokenizer="packaged:smollm2-135m-instruct"), "KD014")["status"] == "passed"
