"""What was judged is what is compared, counted, masked and trained on: calls, reasoning, tool results and the tools themselves."""

import json

import polars as pl
import pytest
from line_files import write_lines

from ktodata.errors import DataError
from ktodata.formats import read
from ktodata.formats.shards import write_shards
from ktodata.pipeline.self_training import run
from ktodata.pipeline.sharing import pii_in
from ktodata.stages.dedupe import dedupe
from ktodata.stages.export import export, shard_table
from ktodata.stages.validate import validate

TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{% if m['reasoning_content'] %}<think>{{ m['reasoning_content'] }}</think>{% endif %}"
    "{{ m['content'] }}{% for c in m['tool_calls'] or [] %}<call>{{ c['function']['name'] }}"
    "{{ c['function']['arguments'] | tojson }}</call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "mail", "parameters": {"type": "object", "properties": {"to": {}}}}}]


def byte_tokenizer():
    """One token a byte: nothing is unknown, and what was rendered can be read again."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tiny_models import tiny_llama

    folder, tokenizer = tmp_path_factory.mktemp("model"), byte_tokenizer()
    made = tiny_llama(len(tokenizer))
    made.config.max_position_embeddings = 1024
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def call(**arguments):
    return {"type": "function", "function": {"name": "mail", "arguments": arguments}}


def record(number, *, label, to="x", content="done"):
    return {
        "messages": [
            {"role": "user", "content": f"tell number {number}"},
            {"role": "assistant", "content": "", "tool_calls": [call(to=f"list {number}")]},
            {"role": "tool", "content": f"{number} readers"},
            {"role": "assistant", "content": content, "reasoning_content": f"all {number}", "tool_calls": [call(to=to)]},
        ],
        "tools": TOOLS,
        "label": label,
    }


def write_records(place, records):
    return str(write_lines(place, records))


def test_the_token_ids_of_a_training_are_those_of_the_records(tmp_path, model):
    records = [record(number, label=number % 2 == 0, to=f"person {number}") for number in range(12)]
    recipe = {
        "name": "calls",
        "ingest": {"paths": write_records(tmp_path / "calls.jsonl", records)},
        "steps": [{"validate": {"tokenizer": model}}, {"dedupe": {}}],
        "export": {"license": "apache-2.0"},
        "train": {"model": model, "max_steps": 1, "batch_size": 4, "max_length": 1024},
    }
    done = run(recipe, out=tmp_path / "run")
    from ktodata.train.data.tokens import tokenize
    from ktodata.train.data.training_rows import check_rows, read_part

    tokenizer = byte_tokenizer()
    shard_rows = check_rows(read_part(done.folder / "shards", "train"), part="train", both_classes=True)
    rows, _ = tokenize(shard_rows, tokenizer, max_length=1024, part="train")
    trained = {(*prompt.tolist(), *completion.tolist()) for prompt, completion in zip(rows.prompt, rows.completion, strict=True)}
    expected = {
        tuple(tokenizer.apply_chat_template(each["messages"], tools=TOOLS, return_dict=True)["input_ids"]) for each in records
    }
    assert trained == expected and len(expected) == 12
    answer = tokenizer.decode(rows.completion[0])
    assert "<think>all" in answer and '<call>mail{"to": "person' in answer
    counts = done.stage("validate").columns.join(pl.DataFrame({"row_id": rows.row_id}), on="row_id")
    by_row = dict(zip(rows.row_id, map(len, rows.completion), strict=True))
    assert dict(counts.select("row_id", "completion_tokens").iter_rows()) == by_row


def test_answers_that_differ_only_in_a_call_are_different_answers(tmp_path):
    records = [record(1, label=True, to="ann"), record(1, label=False, to="bob"), record(1, label=True, to="Ann")]
    feedback = read(write_records(tmp_path / "calls.jsonl", records)).feedback
    assert dedupe(feedback).actions() == {}


def test_an_answer_that_is_a_call_and_nothing_else_is_an_answer(tmp_path):
    only_call = record(1, label=True, content="")
    del only_call["messages"][-1]["reasoning_content"]
    feedback = read(write_records(tmp_path / "calls.jsonl", [only_call])).feedback
    assert validate(feedback).actions() == {}


def test_personal_data_in_calls_is_masked_in_the_shards_and_json_stays_json(tmp_path):
    secret = "ann@example.org"
    private = record(1, label=True, to=f"to:\n{secret}", content="sent")
    private["messages"][1]["tool_calls"] = [call(inner=json.dumps({"to": f"\n{secret}", "é": 'say "hi"'}))]
    private["messages"][2]["content"] = f"it is {secret}"
    private["messages"][3]["reasoning_content"] = f"she is {secret}"
    records = [private, *(record(number, label=number % 2 == 0, to=f"list {number}") for number in range(2, 9))]
    recipe = {
        "name": "calls",
        "ingest": {"paths": write_records(tmp_path / "calls.jsonl", records)},
        "steps": [{"validate": {"pii": "mask", "pii_finder": "patterns"}}],
        "export": {"license": "apache-2.0"},
    }
    done = run(recipe, out=tmp_path / "run")
    shards = sorted((done.folder / "shards").glob("*.parquet"))
    rows = pl.concat([pl.read_parquet(place) for place in shards])
    assert secret not in json.dumps(rows.select("prompt", "completion").to_dicts())
    row = next(row for row in rows.to_dicts() if row["completion"][0]["content"] == "sent")
    [answer_call] = json.loads(row["completion"][0]["tool_calls"])
    assert answer_call["function"]["arguments"] == {"to": "to:\n<EMAIL_1>"}
    [earlier_call] = json.loads(row["prompt"][1]["tool_calls"])
    inner = json.loads(earlier_call["function"]["arguments"]["inner"])
    assert inner == {"to": "\n<EMAIL_1>", "é": 'say "hi"'}
    assert (row["prompt"][2]["content"], row["completion"][0]["reasoning_content"]) == ("it is <EMAIL_1>", "she is <EMAIL_1>")
    assert pii_in(shards) == {}


def test_what_is_shared_is_searched_in_every_text_of_a_turn(tmp_path):
    records = [record(1, label=True, to="\nann@example.org"), record(2, label=False)]
    recipe = {
        "name": "calls",
        "ingest": {"paths": write_records(tmp_path / "calls.jsonl", records)},
        "steps": [{"validate": {"pii": "off"}}],
        "export": {"license": "apache-2.0"},
    }
    done = run(recipe, out=tmp_path / "run")
    assert {place: rows for place, (rows, _) in pii_in(sorted((done.folder / "shards").glob("*.parquet"))).items()} == {
        ("email", "completion"): 1
    }


def test_trl_reads_the_shards_of_tool_calls_as_they_are(tmp_path, model):
    """The token ids that TRL's trainer trains on are those of the records, rendered by the template: calls, tools and settings."""
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import KTOConfig, KTOTrainer

    records = [record(number, label=number % 2 == 0, to=f"person {number}") for number in range(8)]
    records[3]["chat_template_kwargs"] = {"today": "2026-05-01"}
    del records[4]["tools"]
    feedback = read(write_records(tmp_path / "calls.jsonl", records)).feedback.with_columns(state=pl.lit("keep"))
    write_shards(shard_table(feedback, export(feedback, block=4).columns), tmp_path / "shards")
    data = load_dataset("parquet", data_files=str(tmp_path / "shards" / "train-*.parquet"), cache_dir=str(tmp_path / "cache"))[
        "train"
    ]
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{% if today %}{{ today }}{% endif %}" + TEMPLATE
    config = KTOConfig(
        output_dir=str(tmp_path / "out"), per_device_train_batch_size=4, max_length=1024, report_to=[], use_cpu=True
    )
    trainer = KTOTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    trained = {(tuple(row["prompt_ids"] + row["completion_ids"]), bool(row["label"])) for row in trainer.train_dataset}
    assert trained == {
        (
            tuple(
                tokenizer.apply_chat_template(
                    each["messages"], tools=each.get("tools"), return_dict=True, **each.get("chat_template_kwargs", {})
                )["input_ids"]
            ),
            each["label"],
        )
        for each in records
    }


@pytest.mark.parametrize("field", ["tools", "chat_template_kwargs"])
def test_a_text_with_what_its_template_is_given_is_written_as_messages(tmp_path, field):
    value = TOOLS if field == "tools" else {"today": "2026-05-01"}
    records = [{"prompt": f"q{n}", "completion": f"a{n}", "label": n % 2 == 0} | ({field: value} if n else {}) for n in range(4)]
    feedback = read(write_records(tmp_path / "texts.jsonl", records)).feedback.with_columns(state=pl.lit("keep"))
    written = shard_table(feedback, export(feedback).columns)
    assert isinstance(written.schema["prompt"], pl.List)
    given = {row["prompt"][0]["content"]: json.loads(row[field] or "{}") for row in written.iter_rows(named=True)}
    assert given == {"q0": {}} | {f"q{n}": value for n in (1, 2, 3)}
    with pytest.raises(DataError, match="3 rows hold tool calls, reasoning, tools or settings"):
        export(feedback, conversational="never")


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, {"name": "ann"}),
        (0, {"role": "developer"}),
        (3, {"name": "helper"}),
        (2, {"tool_call_id": "c2"}),
        (3, {"reasoning_content": None, "content": "<think>all 1</think>\ndone"}),
    ],
)
def test_rows_that_differ_in_what_is_rendered_are_no_repeats(tmp_path, place, change):
    first, second = record(1, label=True), record(1, label=True)
    for each, number in ((first, 1), (second, 7)):  # ids of calls are made anew: they alone make no difference
        each["messages"][1]["tool_calls"] = [call(to="a") | {"id": f"c{number}"}, call(to="b") | {"id": f"c{number + 1}"}]
        each["messages"][2]["tool_call_id"] = f"c{number}"
    same = read(write_records(tmp_path / "same.jsonl", [first, second])).feedback
    assert dedupe(same).decisions["reason"].to_list() == ["repeat"]
    second = json.loads(json.dumps(first))
    second["messages"][place] |= change
    different = read(write_records(tmp_path / "different.jsonl", [first, second])).feedback
    assert dedupe(different).decisions["reason"].to_list() == []


def test_a_text_and_a_plain_turn_are_the_same_and_a_transcript_is_not(tmp_path):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    prompts = ["q", turns[1:], turns, "System: s\n\nUser: q"]
    records = [{"prompt": prompt, "completion": "a", "label": True} for prompt in prompts]
    decisions = dedupe(read(write_records(tmp_path / "a.jsonl", records)).feedback, near=None).decisions
    assert decisions["reason"].to_list() == ["repeat"]
