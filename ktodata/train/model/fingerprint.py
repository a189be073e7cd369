"""What a model's numbers depend on, as a key: its weights, its whole config, and the code, libraries and kernels at work."""

import json
from collections.abc import Collection
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import xxhash

from ktodata.files import digest_file

# they name where a config lies and who wrote it, not what is computed
NOT_COMPUTED_WITH = ("_name_or_path", "transformers_version")


def weights_hash(model: Any) -> str:
    """32 hex digits, the same for the same weights under the same names, also where they are held in a narrower dtype."""
    digest = xxhash.xxh3_128()
    for name, held in sorted(model.state_dict().items()):
        tensor = held.float() if held.dtype in (torch.bfloat16, torch.float16) else held
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def computation_hash(model: Any, weights: str, **how: Any) -> str:
    """32 hex digits of all that a model's output depends on beside the tokens.

    weights : `weights_hash` of the model, which may have been hashed before adapters were put on
    how : what else decides the numbers: dtype, device, the way through the model

    The config counts whole, as rotary scaling, soft-caps and scales stand in it and in no weight.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in NOT_COMPUTED_WITH}
    facts = {
        "weights": weights,
        "config": config,
        "attention": getattr(model.config, "_attn_implementation", None),
        "float32_products": torch.get_float32_matmul_precision(),
        "torch": torch.__version__,  # with the build, as +cpu
        "transformers": version("transformers"),
        "code": scoring_code(),
        **how,
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(facts, sort_keys=True, default=_as_json).encode())


@cache
def scoring_code() -> str:
    """32 hex digits of the files of ktodata that make log-probs of tokens: once one is mended, old numbers are not met again."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.parent / "data" / "packing.py"]
    return xxhash.xxh3_128_hexdigest(" ".join(f"{file.name} {digest_file(file)}" for file in files).encode())


def _as_json(value: Any) -> Any:
    unordered = isinstance(value, Collection) and not isinstance(value, str)
    return sorted(map(str, value)) if unordered else str(value)
