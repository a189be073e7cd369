import polars as pl
import pytest
from tiny_models import chat_rows, text_rows, word_tokenizer
from tokenizers import Tokenizer, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from ktodata.errors import EmptyDataError, FormatError, ModelError
from ktodata.evaluate.generation import encode_prompts
from ktodata.train.data.encoding import common_prefix_length
from ktodata.train.data.tokens import tokenize
from ktodata.train.data.training_rows import check_rows


def tokens_of(rows, tokenizer, max_length=64):
    return tokenize(check_rows(rows, part="train", both_classes=False), tokenizer, max_length=max_length, part="train")


def row(prompt, completion, label=True):
    return {"row_id": f"{prompt}{completion}", "prompt": prompt, "completion": completion, "label": label}


def test_text_completion_counts_from_its_first_token_to_the_end_token(tokenizer):
    rows, facts = tokens_of(pl.DataFrame([row("what is one ", "two three")]), tokenizer)
    assert tokenizer.decode(rows.prompt[0]).split() == ["what", "is", "one"]
    assert tokenizer.decode(rows.completion[0]).replace("<|end|>", " <|end|>").split() == ["two", "three", "<|end|>"]
    assert facts["without_end_token"] == 0


def test_an_end_token_that_is_there_is_not_doubled(tokenizer):
    once, _ = tokens_of(pl.DataFrame([row("what is ", "two")]), tokenizer)
    given, _ = tokens_of(pl.DataFrame([row("what is ", "two<|end|>")]), tokenizer)
    assert once.completion[0].tolist() == given.completion[0].tolist()


@pytest.mark.parametrize("single", ["$A", "$A <|end|>", "<|start|> $A <|end|>", "<|end|> $A"])
def test_a_tokenizer_that_adds_its_end_token_ends_a_completion_once_and_no_prompt(single):
    own = word_tokenizer()
    special = [(token, own.convert_tokens_to_ids(token)) for token in ("<|start|>", "<|end|>")]
    own.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    for completion in ("two three", "two three<|end|>"):
        rows, facts = tokens_of(pl.DataFrame([row("what is ", completion)]), own)
        assert own.convert_ids_to_tokens(rows.prompt[0]) == [*single.split("$A")[0].split(), "what", "is"]
        assert own.convert_ids_to_tokens(rows.completion[0]) == ["two", "three", "<|end|>"]
        assert (facts["moved_boundaries"], facts["without_end_token"]) == (0, 0)
    assert (
        own.convert_ids_to_tokens(encode_prompts(["what is "], own, chat=False)[0])[-1] == "is"
    )  # else the answer would be over


def test_chat_completion_is_what_the_template_puts_after_the_assistants_header(tokenizer):
    """prompt  <|start|>user:what is one<|end|><|start|>assistant:     completion  two three<|end|>"""
    rows = chat_rows(1).with_columns(
        prompt=pl.lit([[{"role": "user", "content": "what is one"}]]).list.first(),
        completion=pl.lit([[{"role": "assistant", "content": "two three"}]]).list.first(),
    )
    tokens, facts = tokens_of(rows, tokenizer)
    assert tokenizer.convert_ids_to_tokens(tokens.prompt[0])[-3:] == ["<|start|>", "assistant", ":"]
    assert tokenizer.convert_ids_to_tokens(tokens.completion[0]) == ["two", "three", "<|end|>"]
    assert facts["moved_boundaries"] == 0


def test_a_template_that_writes_the_prompt_differently_alone_is_counted():
    odd = word_tokenizer(
        "{% for m in messages %}<|start|>{{ m['role'] }}:{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant:system{% endif %}"
    )
    tokens, facts = tokens_of(chat_rows(4), odd)
    assert facts["moved_boundaries"] == 4
    assert odd.convert_ids_to_tokens(tokens.prompt[0])[-1] == ":"


def test_conversations_need_a_chat_template():
    with pytest.raises(ModelError, match="no chat template"):
        tokens_of(chat_rows(4), word_tokenizer(chat_template=None))


def test_a_template_that_refuses_names_the_row():
    fussy = word_tokenizer("{{ raise_exception('no system turn') }}")
    with pytest.raises(ModelError, match="refuses row_id r0: no system turn"):
        tokens_of(chat_rows(4), fussy)


def test_over_long_prompts_are_skipped_and_long_completions_cut_both_counted_by_label(tokenizer):
    """max_length 4: a prompt of 4 tokens has no room; prompt 2 + completion 3 + end token is cut to 2 completion tokens."""
    rows, facts = tokens_of(
        pl.DataFrame(
            [
                row("one two three four ", "yes", False),
                row("one two ", "yes no maybe", True),
                row("one ", "yes", True),
            ]
        ),
        tokenizer,
        max_length=4,
    )
    assert facts["skipped_over_long_prompt"] == {"desirable": 0, "undesirable": 1}
    assert facts["skipped_row_ids"] == ["one two three four yes"]
    assert facts["cut_completions"] == {"desirable": 1, "undesirable": 0}
    assert facts["cut_row_ids"] == ["one two yes no maybe"]
    assert [len(ids) for ids in rows.completion] == [2, 2]
    assert rows.row_id == ("one two yes no maybe", "one yes")


def test_no_row_left_is_an_error(tokenizer):
    with pytest.raises(EmptyDataError, match=r"none of 12 rows has room for a completion.*row_id r0, r1"):
        tokens_of(text_rows(), tokenizer, max_length=2)


def test_a_mismatched_sequence_is_cut_too(tokenizer):
    rows, _ = tokens_of(pl.DataFrame([row("one two ", "yes"), row("one ", "yes no maybe sea", False)]), tokenizer, max_length=5)
    ids, start = rows.sequence(0, 1)
    assert (len(ids), start) == (5, 2)


def test_text_without_end_token_in_the_tokenizer():
    endless = word_tokenizer()
    endless.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        tokens_of(text_rows(), endless)


def test_text_prompt_with_messages_as_completion_is_refused(tokenizer):
    with pytest.raises(FormatError, match="both must be text, or both lists of messages"):
        tokens_of(chat_rows().with_columns(prompt=text_rows()["prompt"]), tokenizer)


def test_rows_of_one_prompt_are_one_group_even_without_prompt_group(tokenizer):
    rows, _ = tokens_of(text_rows(4).drop("prompt_group"), tokenizer)
    assert rows.group[0] == rows.group[1] != rows.group[2]


@pytest.mark.parametrize("group", [pl.col("row_id"), pl.when(pl.int_range(24) % 2 == 0).then("row_id")], ids=["rows", "half"])
def test_rows_of_one_prompt_are_one_group_whatever_prompt_group_says(tokenizer, group):
    """136 of 480 partners had the very same prompt, and none was counted."""
    rows, _ = tokens_of(text_rows(24).with_columns(prompt_group=group), tokenizer)
    plain, _ = tokens_of(text_rows(24).drop("prompt_group"), tokenizer)
    assert rows.group_numbers.tolist() == plain.group_numbers.tolist()


@pytest.mark.parametrize(("first", "second", "common"), [([1, 2], [1, 2, 3], 2), ([1, 9], [1, 2], 1), ([], [1], 0)])
def test_common_prefix_length(first, second, common):
    assert common_prefix_length(first, second) == common


def without_words():
    """A tokenizer that leaves out all it does not know, which is every text but the end token."""
    core = Tokenizer(models.BPE(vocab={"<|end|>": 0, "x": 1}, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


def test_a_completion_of_which_the_tokenizer_knows_nothing_is_left_out_by_name():
    rows, facts = tokens_of(pl.DataFrame([row("x", "x"), row("x", "xx"), row("x", "words")]), without_words())
    assert (rows.row_id, facts["skipped_row_ids"]) == (("xx", "xxx"), ["xwords"])


def test_texts_without_a_token_are_no_rows():
    with pytest.raises(EmptyDataError, match=r"2 completions have none but the end's.*the tokenizer does not know its words"):
        tokens_of(pl.DataFrame([row("x", "one"), row("xx", "two")]), without_words())
    with pytest.raises(EmptyDataError, match=r"none of 2 prompts has a token of its own \(row_id onex, twoxx\)"):
        tokens_of(pl.DataFrame([row("one", "x"), row("two", "xx")]), without_words())
