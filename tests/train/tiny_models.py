"""A two-layer Llama and a word tokenizer, made here: nothing is downloaded."""

import polars as pl

WORDS = "what is one two three four five six seven eight nine ten plus minus yes no maybe sky sea red blue green".split()  # noqa: SIM905
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}:{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:{% endif %}"
)


def word_tokenizer(chat_template=TEMPLATE):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|unk|>", "<|start|>", "<|end|>"]
    pieces = [*special, *WORDS, "user", "assistant", "system", ":"]
    core = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|:"), "removed", invert=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<|unk|>", eos_token="<|end|>", additional_special_tokens=["<|start|>"]
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_llama(vocab_size, *, layers=2, seed=0):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.5,  # large, so that log-probs differ much between rows
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def assert_same_gradients(found, expected, *, relative):
    """Each tensor differs by at most `relative` of its own largest entry."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert (found[name] - gradient).abs().max() <= relative * gradient.abs().max(), name


def text_rows(count=12, *, start=0):
    """Rows of different lengths, one in three undesirable, two rows of each prompt."""
    rows = []
    for number in range(start, start + count):
        prompt = " ".join(["what is", *(WORDS[2 + (number // 2 + k) % 10] for k in range(1 + number // 2 % 4))])
        completion = " ".join(WORDS[2 + (7 * number + 3 * k) % (len(WORDS) - 2)] for k in range(1 + number % 5))
        rows.append({"row_id": f"r{number}", "prompt": prompt + " ", "completion": completion, "label": number % 3 != 0})
    return pl.DataFrame(rows).with_columns(prompt_group=pl.col("prompt"))


def chat_rows(count=12):
    def message(role):
        return pl.concat_list(pl.struct(role=pl.lit(role), content=pl.col({"user": "prompt", "assistant": "completion"}[role])))

    return text_rows(count).with_columns(prompt=message("user"), completion=message("assistant"))
