"""The folder of a trained model: it holds the files of one training, and none of another that would be read with them."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ktodata.errors import RunError, SettingError
from ktodata.files import check_siblings, discard, read_note, siblings_of
from ktodata.models import check_complete, load_causal_lm

# what transformers and peft read of any folder, whoever wrote it: an adapter comes before a model, one file before its parts
ADAPTER = ("adapter_config.json", "adapter_model*")
READ_UNASKED = (
    *ADAPTER,
    *("model*.safetensors*", "pytorch_model*", "config.json", "generation_config.json"),
    *("tokenizer*.json", "chat_template.*", "added_tokens.json", "special_tokens_map.json"),
)


def check_out(out: Path, model: str) -> None:
    """Raise SettingError where the trained model would take the place of the model that it is trained from."""
    if Path(model).expanduser().resolve() == out.resolve():
        raise SettingError(f"out is {out}, the folder of the model that is trained: give another, which keeps the reference.")


def remove_earlier(folder: Path, names: Collection[str]) -> None:
    """Leave nothing there of an earlier training, and nothing that would be read with the files of these names.

    training.json goes first: it must not vouch for a half-written model.
    """
    note = folder / "training.json"
    try:
        earlier = {name.split("/")[0] for name in siblings_of(note)}
    except RunError:  # there is none, or it is damaged
        earlier = set()
    note.unlink(missing_ok=True)
    for place in {*_read_unasked(folder), *(folder / name for name in earlier)}:
        if place.is_dir():
            discard(place)  # also where one of that name comes: no folder is moved onto another
        elif place.name not in names:
            place.unlink(missing_ok=True)


def check_one_training(folder: Path) -> None:
    """Raise RunError where a training's files were changed, or files of another training stand among them."""
    note = folder / "training.json"
    if not note.is_file():
        return
    check_siblings(note)
    named, settings = {name.split("/")[0] for name in siblings_of(note)}, read_note(note).get("settings", {})
    others = sorted(place.name for place in _read_unasked(folder) if place.name not in named)
    if not named:  # it came from the Hub
        others = [name for name in others if Path(name).match(ADAPTER[0]) and settings.get("lora") is None]
    if others:
        raise RunError(
            f"{folder} holds files of another training beside the model that training.json speaks of: {', '.join(others)}. "
            "They would be read with it. Delete them, or move them elsewhere."
        )


def load_trained(folder: str, reference: str) -> Any:
    """The trained model: a whole model, or an adapter on top of `reference`. Raises ModelError where weights are missing."""
    if (Path(folder) / ADAPTER[0]).is_file():
        from peft import PeftModel, load_peft_weights

        from ktodata.train.model.adapters import not_set

        model = PeftModel.from_pretrained(load_causal_lm(reference)[0], folder)
        check_complete(folder, not_set(model, load_peft_weights(folder, device="cpu")))
        return model
    return load_causal_lm(folder)[0]


def _read_unasked(folder: Path) -> set[Path]:
    return {place for pattern in READ_UNASKED for place in folder.glob(pattern)}
