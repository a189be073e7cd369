"""Adapters on a base model in 4 bits: its own weights unpacked give the same gradients."""

import pytest
import torch
from tiny_models import assert_same_gradients

from ktodata import extras
from ktodata.errors import MissingExtraError, ModelError, SettingError
from ktodata.models import load_causal_lm
from ktodata.train.model.adapters import quantized_options, with_adapters
from ktodata.train.model.fingerprint import weights_hash

CPU = torch.device("cpu")
LORA = {"r": 4, "quantize": "4bit"}


@pytest.fixture
def wide_folder(tmp_path, tokenizer):
    """A tiny Llama, wide enough for bitsandbytes to repack its weights for inference where the CPU can."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def quantized(folder, compute_dtype=torch.float32):
    pytest.importorskip("bitsandbytes")
    return load_causal_lm(folder, **quantized_options(LORA, device=CPU, compute_dtype=compute_dtype))[0]


def trained(model):
    """Gradients of the adapters, none of which is zero."""
    generator = torch.Generator().manual_seed(0)
    adapters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for parameter in adapters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    ids = torch.randint(0, 20, (2, 9), generator=generator)
    logps = model(input_ids=ids).logits.log_softmax(-1)
    logps[..., :-1, :].gather(-1, ids[:, 1:, None]).sum().backward()
    return {name: parameter.grad for name, parameter in adapters.items()}


def test_gradients_equal_those_through_the_unpacked_weights(wide_folder):
    """In eval mode, as the policy is: adapters of the lowest layer get their gradient through all layers above."""
    import bitsandbytes

    in_bits = quantized(wide_folder)
    unpacked = load_causal_lm(wide_folder)[0]
    apart = 0.0
    for name, module in in_bits.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            values = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            target = unpacked.get_submodule(name).weight.data
            apart = max(apart, float((target - values).abs().max()))
            target.copy_(values)
    assert apart > 1e-3  # the quantization did something
    in_bits, unpacked = (with_adapters(model, LORA, None)[0].eval() for model in (in_bits, unpacked))
    for model in (in_bits, unpacked):
        with torch.no_grad():  # as the reference is scored, before the first update
            model(input_ids=torch.arange(6)[None])
    assert_same_gradients(trained(in_bits), trained(unpacked), relative=1e-4)


def test_what_is_in_4_bits_and_what_is_not(wide_folder):
    model, _ = with_adapters(quantized(wide_folder), LORA, None)
    dtypes = {name.split(".")[-2]: parameter.dtype for name, parameter in model.get_base_model().named_parameters()}
    assert dtypes["base_layer"] == torch.uint8
    for name in ("embed_tokens", "lm_head", "norm", "input_layernorm", "default"):  # "default": the adapter
        assert dtypes[name] == torch.float32, name


def test_the_reference_is_told_apart_by_the_scales_too(wide_folder):
    """The 4-bit numbers of a layer stay when its weights are doubled: only the scales tell."""
    first, second = quantized(wide_folder), quantized(wide_folder)
    assert weights_hash(first) == weights_hash(second)
    second.model.layers[0].self_attn.q_proj.weight.quant_state.offset *= 2
    assert weights_hash(first) != weights_hash(second)


def test_only_a_quantized_base_has_options():
    assert quantized_options(None, device=CPU, compute_dtype=torch.float32) == {}
    assert quantized_options({"r": 4}, device=CPU, compute_dtype=torch.float32) == {}


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "bitsandbytes" else object())
    with pytest.raises(MissingExtraError, match=r"lora.quantize needs bitsandbytes: pip install 'ktodata\[quantize\]'"):
        quantized_options(LORA, device=CPU, compute_dtype=torch.float32)


def test_a_device_without_kernels_is_refused(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    with pytest.raises(SettingError, match="works on cpu and cuda, not on mps"):
        quantized_options(LORA, device=torch.device("mps"), compute_dtype=torch.float32)


def test_a_layer_that_is_not_there_is_named(wide_folder):
    with pytest.raises(SettingError, match="q_projection is no linear layer"):
        with_adapters(load_causal_lm(wide_folder)[0], {"target_modules": ["q_projection"]}, None)


def test_a_model_without_layers_is_refused(wide_folder):
    model = load_causal_lm(wide_folder)[0]
    model.config.num_hidden_layers = 3
    with pytest.raises(ModelError, match="cannot tell the layers"):
        with_adapters(model, {"r": 4}, None)
