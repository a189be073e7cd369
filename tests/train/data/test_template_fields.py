"""Tools, template settings and thinking stand in the tokens where TRL puts them; what cannot be used is refused or counted."""

import json

import polars as pl
import pytest
from tiny_models import WORDS, text_rows, word_tokenizer

from ktodata.errors import DataError
from ktodata.models import load_causal_lm
from ktodata.train import fit
from ktodata.train.data.encoding import message_of, template_options
from ktodata.train.data.tokens import tokenize
from ktodata.train.data.training_rows import check_rows

# as Qwen3's: the last answer's thinking is written, empty or not; without thinking the prompt already holds the empty one
THINKING = (
    "{% if tools is not none %}yes {% endif %}{% if tools %}{% for tool in tools %}{{ tool.function.name }} {% endfor %}{% endif %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}:"
    "{% if m['role'] == 'assistant' and loop.last %}minus {{ m['reasoning_content'] or '' }} plus {% endif %}"
    "{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:"
    "{% if enable_thinking is defined and not enable_thinking %}minus plus {% endif %}{% endif %}"
)
# as DeepSeek-R1's: the prompt ends in a mark that a finished answer does not have
OPENED = (
    "{% for m in messages %}<|start|>{{ m['role'] }}:{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:minus {% endif %}"
)
TOOL = [{"type": "function", "function": {"name": "sky"}}]


def rows_of(tools=None, kwargs=None, reasoning=None, count=6):
    rows = []
    for number in range(count):
        turn = {"role": "assistant", "content": " ".join(WORDS[2 + number : 5 + number])}
        if reasoning is not None:
            turn["reasoning_content"] = reasoning[number]
        rows.append(
            {
                "row_id": f"r{number}",
                "prompt": [{"role": "user", "content": f"what is {WORDS[2 + number]}"}],
                "completion": [turn],
                "label": number % 2 == 0,
                **({} if tools is None else {"tools": tools[number]}),
                **({} if kwargs is None else {"chat_template_kwargs": kwargs[number]}),
            }
        )
    return pl.DataFrame(rows)


def ours(rows, tokenizer):
    tokens, metrics = tokenize(check_rows(rows, part="train", both_classes=True), tokenizer, max_length=64, part="train")
    pairs = zip(tokens.prompt, tokens.completion, strict=True)
    return [(prompt.tolist(), completion.tolist()) for prompt, completion in pairs], metrics


def theirs(records, model_folder, tokenizer, folder):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    config = trl.KTOConfig(
        output_dir=str(folder), per_device_train_batch_size=6, max_length=64, bf16=False, use_cpu=True, report_to="none"
    )
    tokenizer.pad_token = tokenizer.eos_token
    model = load_causal_lm(model_folder)[0]
    trainer = trl.KTOTrainer(model=model, args=config, train_dataset=Dataset.from_list(records), processing_class=tokenizer)
    return [(list(row["prompt_ids"]), list(row["completion_ids"])) for row in trainer.train_dataset]


CASES = {
    "thinking": {"kwargs": ['{"enable_thinking": true}'] * 6},
    "no_thinking": {"kwargs": ['{"enable_thinking": false}'] * 6},
    "of_each_row": {"kwargs": ['{"enable_thinking": false}', "{}"] * 3},
    "with_reasoning": {"kwargs": ['{"enable_thinking": true}'] * 6, "reasoning": ["yes no", "maybe"] * 3},
    "tools": {"tools": [json.dumps(TOOL)] * 6},
    "no_tools": {"tools": [[]] * 6},
    "tools_and_settings": {"tools": [json.dumps(TOOL)] * 6, "kwargs": ['{"enable_thinking": false}'] * 6},
}


@pytest.mark.parametrize("case", CASES)
def test_prompts_and_completions_are_those_that_trl_trains_on(case, model_folder, tmp_path):
    rows = rows_of(**CASES[case])
    records = rows.to_dicts()
    for record in records:  # TRL unpacks the settings of a row, and reads its tools as JSON
        if "chat_template_kwargs" in record:
            record["chat_template_kwargs"] = json.loads(record["chat_template_kwargs"]) or {"enable_thinking": True}
    tokens, metrics = ours(rows, word_tokenizer(THINKING))
    assert tokens == theirs(records, model_folder, word_tokenizer(THINKING), tmp_path)
    assert metrics["moved_boundaries"] == 0


def test_the_empty_thinking_is_in_the_prompt_where_the_template_puts_it():
    tokenizer = word_tokenizer(THINKING)
    for setting, prompt, completion in (("false", ["minus", "plus"], "three"), ("true", ["assistant", ":"], "minus")):
        (first, *_), _ = ours(rows_of(kwargs=[f'{{"enable_thinking": {setting}}}'] * 6), tokenizer)
        written = [tokenizer.convert_ids_to_tokens(ids) for ids in first]
        assert written[0][-2:] == prompt
        assert written[1][0] == {"three": WORDS[2], "minus": "minus"}[completion]


def test_moved_boundaries_are_in_the_summary(model_folder, tmp_path):
    model, _ = load_causal_lm(model_folder)
    for part in (model, word_tokenizer(OPENED)):
        part.save_pretrained(tmp_path / "opened")
    result = fit(rows_of(), model=str(tmp_path / "opened"), max_steps=1, batch_size=6, device="cpu")
    assert result.metrics["train"]["moved_boundaries"] == 6
    assert "6 whose prompt is written otherwise before its completion than alone" in result._repr_html_()


@pytest.mark.parametrize("empty", [[], "[]"])
def test_no_tools_in_a_list_are_not_no_list(empty):
    """Llama 3's template asks whether there is one."""
    assert template_options({"tools": empty, "chat_template_kwargs": ""}) == {"tools": []}


def test_a_null_in_a_column_of_settings_is_no_setting():
    """A frame with one row that has a setting gives all others a null for it."""
    rows = rows_of(kwargs=[{"enable_thinking": False}, {"enable_thinking": None}] * 3)
    texts = rows_of(kwargs=['{"enable_thinking": false}', "{}"] * 3)
    assert ours(rows, word_tokenizer(THINKING))[0] == ours(texts, word_tokenizer(THINKING))[0]
    assert template_options({"tools": None, "chat_template_kwargs": {"a": None, "b": 0}}) == {"b": 0}


def seen_by_template(monkeypatch, **given):
    """What the template of each row is given: its messages, and the options beside them."""
    tokenizer, seen = word_tokenizer(THINKING), []
    render = tokenizer.apply_chat_template
    monkeypatch.setattr(tokenizer, "apply_chat_template", lambda turns, **o: seen.append((turns, o)) or render(turns, **o))
    ours(rows_of(**given), tokenizer)
    return seen[1::2]


def test_tools_and_calls_of_a_frame_are_those_that_were_put_in(monkeypatch):
    """A struct has the fields of all rows of its column: a tool with `city` would have given all others a null for it."""
    tools = [[{"function": {"name": name, "parameters": {"properties": {name: {"type": "x"}}}}}] for name in ("sky", "sea")]
    seen = seen_by_template(monkeypatch, tools=tools * 3)
    assert [options["tools"] for _, options in seen] == tools * 3
    given = [{"a": 1}, {"b": 2}]
    turns = [{"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]} for arguments in given]
    assert pl.DataFrame(turns)["tool_calls"][0].to_list() == [{"function": {"arguments": {"a": 1, "b": None}}}]
    calls = [message_of(turn)["tool_calls"] for turn in pl.DataFrame(turns).iter_rows(named=True)]
    assert calls == [turn["tool_calls"] for turn in turns]


def test_a_null_that_is_written_in_json_stays_and_null_alone_is_none(monkeypatch):
    written = json.dumps([{"function": {"name": "sky", "default": None}}])
    (_, options), (_, without), *_ = seen_by_template(
        monkeypatch, tools=[written, "null"] * 3, kwargs=["null", '{"a": null}'] * 3
    )
    assert options["tools"] == json.loads(written)
    assert ("tools" in without, without["a"]) == (False, None)
    assert template_options({"tools": "null", "chat_template_kwargs": "null"}) == {}


@pytest.mark.parametrize("own", ["truncation", "max_length", "return_tensors", "continue_final_message", "add_generation_prompt"])
def test_settings_of_the_tokenizer_are_no_settings_of_the_template(own):
    with pytest.raises(DataError, match=f"row_id r1: chat_template_kwargs holds {own}, which no template reads"):
        ours(rows_of(kwargs=["{}", json.dumps({own: 3})] * 3), word_tokenizer(THINKING))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kwargs": ["{}", "{enable"] * 3}, "row_id r1: tools or chat_template_kwargs cannot be read"),
        ({"kwargs": ["{}", "[1]"] * 3}, "row_id r1: tools or chat_template_kwargs cannot be read"),
        ({"tools": ["[]", "not json"] * 3}, "row_id r1: tools or chat_template_kwargs cannot be read"),
        ({"tools": [json.dumps(TOOL), '{"a": 1}'] * 3}, "row_id r1: tools is dict"),
    ],
)
def test_what_no_template_could_be_given_is_refused_by_row(given, words):
    with pytest.raises(DataError, match=words):
        ours(rows_of(**given), word_tokenizer(THINKING))


def test_tools_beside_plain_text_are_counted_as_unused(model_folder):
    rows = text_rows(6).with_columns(tools=pl.Series([json.dumps(TOOL), None] * 3), chat_template_kwargs=pl.lit("{}"))
    result = fit(rows, model=model_folder, max_steps=1, batch_size=6, device="cpu")
    assert result.metrics["train"]["template_fields_unused"] == 3
    assert "3 whose tools or template settings plain text has no place for" in result._repr_html_()
