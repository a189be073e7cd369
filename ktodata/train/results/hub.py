"""Publish a trained model: what `fit` wrote, with a model card that says how it was trained and what was measured.

`upload` is how anything of ktodata's gets to the Hub: as one commit, private unless asked otherwise. `download` is the way back.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ktodata.errors import ModelError, RunError, SettingError
from ktodata.extras import require
from ktodata.files import discard, note_text, read_note, siblings_of
from ktodata.models import first_line
from ktodata.train.objectives import OBJECTIVE_SETTINGS
from ktodata.train.results.kept_evaluation import choice_words, interval_words, kept_evaluation
from ktodata.train.results.trained_folder import check_one_training

# what a model, an adapter and a tokenizer are saved as; the other files (telemetry, logs, checkpoints) holds rows
SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt")
NOT_PUBLIC = re.compile(r".*_run\.txt")
HOW = "token=..., HF_TOKEN, or hf auth login."
READ_TOKEN, WRITE_TOKEN = f"a token: {HOW}", f"a token with write access: {HOW}"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# in the order of the card; a path, or what a training does not have, is not among them
SHOWN = (
    *("objective", *OBJECTIVE_SETTINGS),
    *("optimizer", "learning_rate", "schedule", "warmup_fraction", "weight_decay", "max_grad_norm"),
    *("epochs", "max_steps", "batch_size", "max_length", "early_stop", "trainable_layers", "lora", "seed"),
)
MEASURES = {
    "auc": "AUC of the implicit reward (0.5 is chance, 1 is perfect)",
    "reward_gap": "mean implicit reward, desirable minus undesirable (higher is better)",
}


def push_to_hub(
    folder: Path | str, repo_id: str, *, private: bool = True, token: str | None = None, about_feedback: str = ""
) -> str:
    """Upload the model in `folder` to the Hugging Face Hub as one commit, and return its address.

    folder : what `fit` wrote into `out`. Uploaded are the model or adapter, the tokenizer, training.json without row ids, and
        a model card made from it as README.md; telemetry.parquet, logs, checkpoints and anything else stay here, and so does
        the path of a base model that is a folder.
    repo_id : "name/model"; it is made when it is not there, readable by its owner only unless `private` is false. A `private`
        upload into a repository that everyone can read is refused.
    token : with write access; none: the one that `hf auth login` or HF_TOKEN gave.
    about_feedback : Markdown for the card, on what the model learnt from (`ktodata push RUN` writes it).

    Raises RunError when `folder` is not a finished training, SettingError for a bad repo_id or a token that the Hub does not
    take, ModelError when the Hub cannot be reached or refuses, MissingExtraError when huggingface_hub is not installed.
    """
    folder = Path(folder)
    facts = _read_training(folder)
    written = _public_texts(folder, facts, about_feedback)
    files: dict[str, Path | bytes] = {str(path.relative_to(folder)): path for path in _public_files(folder)}
    files |= {name: content.encode() for name, content in written.items()}
    return upload(repo_id, files, kind="model", message="Model trained with ktodata", private=private, token=token)


def upload(
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    kind: Literal["model", "dataset"],
    message: str,
    private: bool = True,
    token: str | None = None,
) -> str:
    """Commit {path in the repository: file or content} to the Hub and return the address; all files arrive, or none.

    The repository is made when it is not there. Raises as `push_to_hub` does.
    """
    require("huggingface_hub", what="pushing to the Hub", extra="hub")
    from huggingface_hub import CommitOperationAdd, HfApi

    added = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
    api = HfApi(token=token, library_name="ktodata")
    with _hub_errors(repo_id):
        address = api.create_repo(repo_id, private=private, repo_type=kind, exist_ok=True)
        if private and not api.repo_info(address.repo_id, repo_type=kind).private:
            raise SettingError(
                f"{repo_id!r} is there already, and everyone can read it. Say private=False (--public), or name another."
            )
        api.create_commit(address.repo_id, added, repo_type=kind, commit_message=message)
    return str(address)


def download(
    repo_id: str,
    folder: Path,
    patterns: Sequence[str],
    *,
    kind: Literal["model", "dataset"],
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Get the files that match a pattern, all of one commit, into `folder`, and return the commit.

    revision : branch, tag or commit; none: what the repository shows first.

    Raises SettingError for a repository that is not there or not to be read with this token, ModelError when the Hub cannot be
    reached or refuses, MissingExtraError when huggingface_hub is not installed.
    """
    require("huggingface_hub", what="pulling from the Hub", extra="hub")
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="ktodata")
    with _hub_errors(repo_id, reading=True):
        commit = api.repo_info(repo_id, repo_type=kind, revision=revision).sha
        api.snapshot_download(repo_id, repo_type=kind, revision=commit, local_dir=folder, allow_patterns=list(patterns))
    discard(folder / ".cache")  # what huggingface_hub notes of its downloads
    return str(commit)


def model_card(facts: dict[str, Any], held_out: Sequence[dict[str, Any]], about_feedback: str = "") -> str:
    """Markdown with YAML front matter: base model, objective, settings, row counts, and what was measured on held-out rows.

    facts : of `TrainResult`, as in training.json. held_out : one entry per evaluation; the last is the model's, or the best where
        training was to stop early.

    about_feedback : sections on what it learnt from; without them the card says that it does not know.

    Holds no text of any row, no row id, and names no licence. Raises MissingExtraError when huggingface_hub is not installed.
    """
    require("huggingface_hub", what="a model card", extra="hub")
    from huggingface_hub import ModelCardData

    settings = facts["settings"]
    objective = str(settings.get("objective", "kto"))
    base = _public_name(settings["model"])
    front = ModelCardData(
        base_model=base if HUB_ID.fullmatch(base) else None,
        library_name="transformers" if settings.get("lora") is None else "peft",
        pipeline_tag="text-generation",
        tags=sorted({"ktodata", "kto", objective}),
    )
    # a label's weight that was left to the balance of the rows stands there
    in_force = {**facts.get("balance", {}), **{name: value for name, value in settings.items() if value is not None}}
    shown = [(name, _code_span(in_force[name])) for name in SHOWN if name in in_force]
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {_code_span(base)} after {_code_span(objective)}",
        f"Trained on binary feedback (single completions, each desirable or undesirable) with {_code_span(objective)} by ktodata"
        f"{_version_span(facts)}, starting from {_code_span(base)}, which is also the reference.",
        "## Rows\n\n" + _markdown_table(("part", "rows"), _row_counts(facts)),
        "## Held-out rows\n\n" + _held_out_text(held_out, settings),
        "## Settings\n\n" + _markdown_table(("setting", "value"), shown),
        about_feedback.strip()
        or "## What is not known\n\nHow the feedback was curated, and how far its labels hold: this card was "
        "made from the training alone.",
        "## Licence\n\nThis card names none: the base model's licence and the rights in the feedback decide.",
    ]
    return "\n\n".join(parts) + "\n"


def _read_training(folder: Path) -> dict[str, Any]:
    file = folder / "training.json"
    if not file.exists():
        raise RunError(f"{folder} has no training.json, so it is no finished training. Give the folder that fit wrote to (out).")
    check_one_training(folder)
    return read_note(file)


def _public_files(folder: Path) -> list[Path]:
    """Those that training.json speaks of, as others may be anybody's; all of a training that is older than that list."""
    named = siblings_of(folder / "training.json") or {path.name for path in folder.iterdir()}
    paths = [folder / name for name in named if name != "training.json"]
    return sorted(path for path in paths if path.is_file() and path.suffix in SUFFIXES and not NOT_PUBLIC.fullmatch(path.name))


def _public_texts(folder: Path, facts: dict[str, Any], about_feedback: str) -> dict[str, str]:
    """Text of the files that are not published as they stand in the folder, by name."""
    base = _public_name(facts["settings"]["model"])
    public = _without_row_ids(facts) | {"settings": facts["settings"] | {"model": base}}
    card = model_card(facts, facts.get("held_out", ()), about_feedback)
    written = {"README.md": card, "training.json": note_text("training.json", public)}
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        config = json.loads(adapter.read_text(encoding="utf-8"))
        written[adapter.name] = json.dumps(config | {"base_model_name_or_path": base}, indent=2)
    return written


def _public_name(model: str) -> str:
    """A hub id or packaged name as it is; of a folder its name only: the path says more about its owner than about the model."""
    known = model.startswith("packaged:") or (HUB_ID.fullmatch(model) and not Path(model).exists())
    return model if known else Path(model).name


def _without_row_ids(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _without_row_ids(value) for name, value in facts.items() if not name.endswith("row_ids")}
    return facts


def _row_counts(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for part in ("train", "validation"):
        if (rows := facts.get(part, {}).get("rows")) is not None:
            yield part, rows
    for label in ("desirable", "undesirable"):
        if (rows := facts.get("balance", {}).get(label)) is not None:
            yield f"train, {label}", rows


def _held_out_text(held_out: Sequence[dict[str, Any]], settings: Mapping[str, Any]) -> str:
    evaluation = kept_evaluation(held_out, settings)
    if evaluation is None:
        return "None were scored."
    lines = [("rows", evaluation["rows"]), ("mean loss (lower is better)", f"{evaluation['loss']:.4f}")]
    for name, meaning in MEASURES.items():
        if interval := evaluation.get(name):
            lines.append((meaning, f"{interval['value']:.3f} ({interval_words(evaluation, name)})"))
    paragraphs = [
        f"After {evaluation['step']:,} updates, on validation rows that training did not see.",
        _markdown_table(("measure", "value"), lines),
    ]
    if chosen := choice_words(held_out, settings):
        paragraphs.append(chosen)
    if not evaluation.get("auc"):
        paragraphs.append("AUC was not measured: it needs two rows of each label.")
    return "\n\n".join(paragraphs)


def _version_span(facts: dict[str, Any]) -> str:
    version = facts.get("versions", {}).get("ktodata")
    return f" {_code_span(version)}" if version else ""


def _markdown_table(head: tuple[str, str], lines: Iterable[tuple[str, Any]]) -> str:
    rows = [f"| {name} | {value} |" for name, value in lines]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *rows])


def _code_span(text: Any) -> str:
    """Foreign text as a code span that it cannot break out of, nor out of a table's cell."""
    plain = text if isinstance(text, str) else json.dumps(text)
    return "`" + re.sub(r"[`|\x00-\x1f\x7f\u2028\u2029]", " ", plain).strip() + "`"


@contextmanager
def _hub_errors(repo_id: str, *, reading: bool = False) -> Iterator[None]:
    """Turn what huggingface_hub raises into ktodata's errors. The token is in none of them."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    verb, done = ("pull", "pulled") if reading else ("push", "published")
    try:
        yield
    except HFValidationError as error:
        raise SettingError(f"repo_id {repo_id!r} cannot be a Hub repository: {first_line(error)}.") from error
    except LocalTokenNotFoundError as error:
        needs = f"pulling {repo_id!r} needs {READ_TOKEN}" if reading else f"pushing to {repo_id!r} needs {WRITE_TOKEN}"
        raise SettingError(needs) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if reading and status in (401, 403, 404):
            raise SettingError(
                f"the Hub shows you no {repo_id!r} (status {status}). Check the name and revision; of a private repository, give "
                f"{READ_TOKEN}"
            ) from error
        if status in (401, 403):
            raise SettingError(f"the Hub does not let you write {repo_id!r} (status {status}). Give {WRITE_TOKEN}") from error
        raise ModelError(f"the Hub refused {repo_id!r}: {first_line(error)}. Nothing was {done}.") from error
    except OfflineModeIsEnabled as error:
        raise ModelError(f"cannot {verb} {repo_id!r}: HF_HUB_OFFLINE is set. Unset it and {verb} again.") from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise ModelError(
            f"cannot reach the Hub to {verb} {repo_id!r}: {first_line(error)}. Try again when it is there."
        ) from error
    except ValueError as error:  # a file's name that leads out of the folder
        raise ModelError(f"{repo_id!r} cannot be {done}: {first_line(error)}") from error
