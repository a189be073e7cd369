"""A model that gets its values part by part is, in the end, the one that is read whole in float32."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import tiny_family
from tiny_models import word_tokenizer

from ktodata.models import load_causal_lm
from ktodata.train.distributed.mapped_weights import load_mapped
from ktodata.train.model.fingerprint import weights_hash
from ktodata.train.model.stored_dtype import SavedAs, as_stored, only_dtype


def stored(folder, family):
    tiny_family(family, window=64).bfloat16().save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


# a scale that is a buffer and would be rounded (gemma3), experts that are joined while they are read (mixtral), a tied head (gpt2)
@pytest.mark.parametrize("family", ["gemma3", "mixtral", "gpt2"])
def test_a_mapped_model_filled_is_the_one_read_in_float32(family, tmp_path):
    folder = stored(tmp_path, family)
    whole, (mapped, _, weights) = load_causal_lm(folder)[0], load_mapped(folder)
    assert weights.hash == weights_hash(whole)
    assert mapped.config.to_dict() == whole.config.to_dict()
    assert max(parameter.untyped_storage().nbytes() for parameter in mapped.parameters()) == 4
    weights.fill(mapped.parameters())
    assert weights_hash(mapped) == weights.hash
    for ours, theirs in ((mapped.named_parameters(), whole.named_parameters()), (mapped.named_buffers(), whole.named_buffers())):
        torch.testing.assert_close(dict(ours), dict(theirs), rtol=0, atol=0)
    assert not any(part.training for part in mapped.modules())


def test_weights_stored_in_two_dtypes_are_not_rounded(tmp_path):
    folder = stored(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    assert only_dtype(folder) == torch.bfloat16
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], 1 / 3, dtype=torch.float32)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert only_dtype(folder) == torch.float32
    mapped, _, weights = load_mapped(folder)
    assert as_stored(folder, mapped, weights.named(mapped)) == SavedAs(torch.bfloat16, frozenset({"model.norm.weight"}))
    weights.fill(mapped.parameters())
    assert torch.equal(mapped.model.norm.weight.data, tensors["model.norm.weight"])
