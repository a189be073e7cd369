"""Two-layer models, a word tokenizer and rows, made here: nothing is downloaded. And log-probs spelt out, to compare with."""

import numpy as np
import polars as pl

VOCABULARY = 30
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


def tiny_llama(vocab_size, *, layers=2, seed=0, key_value_heads=2):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=128,
        initializer_range=0.5,  # large, so that log-probs differ much between rows
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def save_tiny_llama(folder):
    """A folder that holds the tiny model and its tokenizer; its path as text, as users give it."""
    tokenizer = word_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}


def tiny_of(kind, **settings):
    """A two-layer model of another architecture, by the name of its classes in transformers: "Qwen2", "Mistral", ..."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**(SHAPE | settings))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()  # they start at 0, where nobody would miss them
    return model


def tiny_gpt2(vocab_size=VOCABULARY):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **shape)).eval()


def token_rows(prompts, completions, *, labels=None, groups=None, max_length=64):
    """Rows of these token ids; every second one desirable unless `labels` say otherwise."""
    from ktodata.train.data.ragged_ids import RaggedIds
    from ktodata.train.data.tokens import TokenRows

    count = len(prompts)
    label = np.array(labels if labels is not None else [number % 2 == 0 for number in range(count)])
    return TokenRows(
        row_id=tuple(f"r{number}" for number in range(count)),
        label=label,
        weight=np.ones(count),
        p_desirable=label.astype(np.float64),
        group=tuple(groups or map(str, range(count))),
        prompt=RaggedIds.of(prompts),
        completion=RaggedIds.of(completions),
        max_length=max_length,
    )


def random_rows(count=6, *, seed=0, prompts=None, max_length=64):
    """Rows of random tokens: prompts of 2, 5 or 8 (as many different ones as `prompts` says), completions of 1, 3, 5, ..."""
    random = np.random.default_rng(seed)
    different = [random.integers(0, VOCABULARY, 2 + 3 * (number % 3)) for number in range(prompts or count)]
    completions = [random.integers(0, VOCABULARY, 1 + 2 * number) for number in range(count)]
    return token_rows([different[number % len(different)] for number in range(count)], completions, max_length=max_length)


def one_by_one(model, rows, pairs):
    """log p(completion | prompt) of unpadded single rows through the model's own logits, spelt out: float32 [pairs], nats."""
    import torch

    logps_of_pairs = []
    for pair in pairs:
        ids, start = rows.sequence(*pair)
        tokens = torch.tensor(ids.astype(np.int64), device=model.device)
        logps = model(tokens[None], use_cache=False).logits[0].float().log_softmax(-1)
        # without a prompt nothing predicts the first token
        logps_of_pairs.append(logps[range(max(start, 1) - 1, len(ids) - 1), tokens[max(start, 1) :]].sum())
    return torch.stack(logps_of_pairs)


def scorer_of(model, rows, **settings):
    import torch

    from ktodata.train.model.scorer import Scorer

    return Scorer(model, rows, **{"device": torch.device("cpu"), "compute_dtype": torch.float32, **settings})


def job_of(scorer, plan, *, objective=None, **settings):
    """A training of `plan` whose reference is the model as it is now, by plain gradient descent unless an optimizer is given."""
    import torch

    from ktodata.train.data.batches import BatchPlan
    from ktodata.train.job import Job
    from ktodata.train.objectives import Kto
    from ktodata.train.reference import ReferenceLogps
    from ktodata.train.state import State

    steps = [*plan.steps, *(settings["held_out"].steps if "held_out" in settings else ())]
    pairs = list({pair for step in steps for pair in (*step.matched(), *step.mismatched().values())})
    logps = scorer.without_gradient(pairs).cpu().numpy()
    defaults = {
        "optimizer": torch.optim.SGD([p for p in scorer.model.parameters() if p.requires_grad], lr=0.0),
        "held_out": BatchPlan((), {}),
        "state": State(),
        "learning_rate": lambda step: 0.01,
        "max_grad_norm": 1e9,
    }
    reference = ReferenceLogps(np.array(pairs), logps, scorer.device)
    return Job(scorer=scorer, reference=reference, objective=objective or Kto(0.3), plan=plan, **(defaults | settings))


def keep_gradients(job):
    """A list that gets the gradients of each update of `job`, as they are when the optimizer is asked to step."""
    recorded = []
    job.optimizer.register_step_pre_hook(lambda *_: recorded.append(gradients(job.scorer.model)))
    return recorded


def moved(model):
    """A policy that has left its reference, so that no log-ratio is 0."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def value_and_gradients(model, compute):
    """(what `compute` returns: float [n]; the gradients of its entries' sum, each weighted by its place: 1, 2, ...)."""
    import torch

    model.zero_grad()
    values = compute()
    (values * torch.arange(1.0, len(values) + 1)).sum().backward()
    return values.detach(), gradients(model)


def assert_same(result, expected, *, relative=1e-5):
    """Both are what `value_and_gradients` gives."""
    import torch

    torch.testing.assert_close(result[0], expected[0], rtol=relative, atol=relative)
    assert_same_gradients(result[1], expected[1], relative=relative)


def assert_same_gradients(result, expected, *, relative):
    """Each tensor differs by at most `relative` of its own largest entry."""
    assert result.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert (result[name] - gradient).abs().max() <= relative * gradient.abs().max(), name


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
