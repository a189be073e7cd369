"""A run's data set for others: what goes to the Hub, and what must be true of it before anything does."""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ktodata.errors import DataError, KtodataError, RunError, SettingError
from ktodata.files import read_json, read_note, scan_parquet, whole_folder
from ktodata.formats.data_files import Source, find_sources, is_local
from ktodata.formats.shards import CHECKSUMS, changed_shards, check_shards, read_shard
from ktodata.report import build_card, build_feedback_section
from ktodata.report.cards.croissant import croissant
from ktodata.report.integrity import fault_lines
from ktodata.report.run_files import RunFiles
from ktodata.text.pii.json_texts import json_texts
from ktodata.text.pii.masks import IN_JSON, Placeholders, replaced
from ktodata.text.pii.patterns import find_in_texts, find_pii
from ktodata.train.results.hub import download, push_to_hub, upload

if TYPE_CHECKING:
    from ktodata.pipeline.run_folder import Run

# evidence can quote a text, and caused_by names a row beside it; neither is needed to say what was done
LEDGER_COLUMNS = ("row_id", "stage", "action", "reason")
PULLED = ("README.md", "croissant.json", "ledger.parquet", f"shards/{CHECKSUMS}", "shards/*.parquet")
OURS = ("row_id", "prompt_group")  # digests: one in some hundred thousand looks like a card number
ROWS_NAMED = 3


def send_dataset(files: Mapping[str, Path | bytes], repo_id: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload `dataset_files` to a data set on the Hub, and return its address. Raises as `ktodata.train.push_to_hub`."""
    return upload(repo_id, files, kind="dataset", message="Feedback curated with ktodata", private=private, token=token)


def pull_dataset(repo_id: str, out: Path | str, *, revision: str | None = None, token: str | None = None) -> dict[str, Any]:
    """Get what `send_dataset` sent into the new folder `out`, which `ktodata train` reads; {repository, revision, folder, files}.

    revision : branch, tag or commit; the answer says which commit it was, so that a training can name its data.
    Nothing but shards, card, ledger and metadata is taken, and it is there only once every shard is what its checksum says.
    Raises SettingError where `out` holds something, RunError for shards that are not whole or not ktodata's, and as
    `ktodata.train.results.hub.download`.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingError(f"{out} is there already, and what is pulled would stand among other files; give a new folder.")
    with whole_folder(out) as scratch:
        commit = download(repo_id, scratch, PULLED, kind="dataset", revision=revision, token=token)
        if not (scratch / "shards" / CHECKSUMS).is_file():
            other = f"`ktodata convert {repo_id} FILE` reads any data set"
            raise RunError(f"{repo_id} has no shards/{CHECKSUMS}: it was not pushed by ktodata. {other}.")
        check_shards(scratch / "shards")
        files = {
            path.relative_to(scratch).as_posix(): path.stat().st_size for path in sorted(scratch.rglob("*")) if path.is_file()
        }
        listed = {f"shards/{name}" for name in read_json(scratch / "shards" / CHECKSUMS)}
        if strange := sorted(set(files) - listed - set(PULLED)):
            raise RunError(f"{repo_id} has files that no checksum names, such as {strange[0]}: nothing was kept.")
    return {"repository": repo_id, "revision": commit, "folder": out, "files": files}


def push_model(folder: Path | str, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload a trained model; where it was trained in a run, its card also says what the run did to its rows and found.

    folder : a run that trained, or a model's folder. Raises as `ktodata.train.push_to_hub`, and RunError where the run that it
    stands in is not whole.
    """
    folder = Path(folder)
    model = folder / "model" if (folder / "model" / "training.json").is_file() else folder
    return push_to_hub(model, repo_id, private=private, token=token, about_feedback=_about_feedback(model))


def _about_feedback(model: Path) -> str:
    """Nothing where the model stands in no run, or was trained on other rows than those that the run now holds."""
    run = model.absolute().parent
    if model.name != "model" or not (run / "manifest.json").is_file() or not (model / "training.json").is_file():
        return ""
    check_whole(run)
    training = read_note(model / "training.json")
    exported = read_note(run / "stages/export/metrics.json") if _has_export(run) else {}
    train = training.get("train", {})
    rows = train.get("rows", 0) + len(train.get("skipped_row_ids", ()))
    return build_feedback_section(run) if rows == exported.get("rows", {}).get("train") else ""


def _has_export(run: Path) -> bool:
    return (run / "stages/export/metrics.json").is_file()


def dataset_files(run: "Run", *, allow_pii: bool = False) -> dict[str, Path | bytes]:
    """{path in the repository: file or content} of all that is shared of a run.

    The shards as they are, shards/checksums.json, README.md (the card, made anew; e-mail addresses and the like in names of
    clusters are masked), croissant.json (what the shards are) and ledger.parquet with row_id, stage, action and reason.

    allow_pii : share texts that hold personal data or keys.
    Raises RunError when the run is not finished, a shard is not what export wrote, or something is gone that the card speaks of;
    DataError when the shards hold personal data or keys and `allow_pii` is false: which kinds, in which columns, of which rows.
    """
    shards = _checked_shards(run)
    check_whole(run.folder)
    personal = {} if allow_pii else pii_in(shards)
    if personal:
        raise DataError(_refusal(run, personal))
    files: dict[str, Path | bytes] = {f"shards/{path.name}": path for path in shards}
    files[f"shards/{CHECKSUMS}"] = run.folder / "shards" / CHECKSUMS
    files["ledger.parquet"] = _public_ledger(run)
    files["README.md"] = _public_card(run).encode()
    files["croissant.json"] = _croissant(run, shards)
    return files


def file_sizes(files: Mapping[str, Path | bytes]) -> dict[str, int]:
    """{path in the repository: bytes}."""
    return {name: len(content) if isinstance(content, bytes) else content.stat().st_size for name, content in files.items()}


def pii_in(shards: list[Path]) -> dict[tuple[str, str], tuple[int, list[str]]]:
    """{(kind, column): (rows, their first row_ids)} of what shards hold, the columns that describe a row among them."""
    rows: Counter[tuple[str, str]] = Counter()
    named: dict[tuple[str, str], list[str]] = {}
    for path in shards:
        for column, texts in _text_columns(read_shard(path)):
            kinds = {text: {span.kind for span in spans} for text, spans in find_in_texts(texts["text"]).items()}
            touched = texts.filter(pl.col("text").is_in(pl.Series(list(kinds), dtype=pl.String).implode()))
            hits = {(row_id, kind) for row_id, text in touched.iter_rows() for kind in kinds[text]}
            for row_id, kind in sorted(hits):
                rows[kind, column] += 1
                named.setdefault((kind, column), []).append(row_id)
    return {place: (count, named[place][:ROWS_NAMED]) for place, count in rows.most_common()}


def _text_columns(table: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """(column, its row_id and text) of each column of text or messages: every text of a turn, and those in JSON."""
    for name, dtype in table.schema.items():
        if dtype == pl.String and name not in OURS:
            texts = table.select("row_id", text=name)
            yield name, _json_parts(texts) if name in IN_JSON else texts
        elif isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
            turns = table.select("row_id", turn=name).explode("turn").drop_nulls()
            for field in dtype.inner.fields:
                texts = turns.select("row_id", text=pl.col("turn").struct.field(field.name).cast(pl.String)).drop_nulls()
                yield name, _json_parts(texts) if field.name in IN_JSON else texts


def _json_parts(texts: pl.DataFrame) -> pl.DataFrame:
    """row_id and text of every string and number in JSON texts."""
    lines = [(row_id, part.text) for row_id, raw in texts.drop_nulls().iter_rows() for part in json_texts(raw)]
    return pl.DataFrame(lines, schema={"row_id": pl.String, "text": pl.String}, orient="row")


def check_whole(folder: Path) -> None:
    """Raise RunError where files are gone, or are others, of which the card of a run is made."""
    files = RunFiles(folder)
    if lines := fault_lines([fault for fault in files.faults if fault.is_shown], files.place):
        raise RunError(f"nothing was sent: {' '.join(lines)}")


def check_not_read(run: "Run", target: Path) -> None:
    """Raise SettingError where the file to be written is one that the run's recipe names: feedback, reviews, truth, prompts."""
    home, real = run.folder / run.manifest["recipe_folder"], target.resolve()
    for text in _texts_in(run.manifest["recipe"]):
        sources: list[Source] = []
        with contextlib.suppress(KtodataError, OSError, ValueError, RuntimeError):  # most texts of a recipe name no file
            sources = find_sources(str(home / Path(text).expanduser()))
        if any(is_local(each.kind) and real.is_relative_to(Path(each.path).resolve()) for each in sources):
            raise SettingError(
                f"{target} is a file that the recipe of {run.folder} reads, and would be overwritten; write to another."
            )


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(inner)


def _checked_shards(run: "Run") -> list[Path]:
    """The shards that export wrote, each the same as then."""
    again = "`ktodata run` again with its recipe writes them anew; nothing was sent."
    status = run.manifest.get("status")
    if status != "done":
        raise RunError(f"{run.folder} is not finished (its status is {status!r}), so there is nothing to share yet: {again}")
    place = run.folder / "shards"
    if not (place / CHECKSUMS).is_file():
        raise RunError(f"{place} has no {CHECKSUMS}, so nobody can tell whether its files are whole: {again}")
    listed = read_json(place / CHECKSUMS)
    written = run.stage("export").metrics["checksums"]
    wrong = sorted({*changed_shards(place), *(name for name in {*listed, *written} if listed.get(name) != written.get(name))})
    if wrong:
        raise RunError(f"{len(wrong):,} of {len(written):,} shards are not what export wrote ({', '.join(wrong[:3])}): {again}")
    return [place / name for name in sorted(listed)]


def _public_ledger(run: "Run") -> bytes:
    buffer = io.BytesIO()
    run.ledger.select(LEDGER_COLUMNS).write_parquet(buffer)
    return buffer.getvalue()


def _croissant(run: "Run", shards: list[Path]) -> bytes:
    license_id = run.stage("export").metrics.get("license")
    schemas = {path.name: scan_parquet(path).collect_schema() for path in shards}
    name, day = _masked(run.manifest["name"]), run.manifest["finished"][:10]
    described = croissant(name, license_id, day, read_json(run.folder / "shards" / CHECKSUMS), schemas)
    return json.dumps(described, indent=1).encode()


def _public_card(run: "Run") -> str:
    """The card. A cluster's name is made of words of prompts that were not masked, so what is found in it is."""
    return _masked(build_card(run.folder))


def _masked(text: str) -> str:
    placeholders = Placeholders()
    return replaced(text, [(at.start, at.end, placeholders.of(at.kind, text[at.start : at.end])) for at in find_pii(text)])


def _refusal(run: "Run", personal: dict[tuple[str, str], tuple[int, list[str]]]) -> str:
    places = "; ".join(
        f"{kind.replace('_', ' ')} in {column} of {rows:,} row{'s' if rows > 1 else ''} (first: {', '.join(row_ids)})"
        for (kind, column), (rows, row_ids) in personal.items()
    )
    return (
        f"the shards of {run.folder} hold personal data or keys: {places}. Nothing was sent. Set validate: {{pii: mask}} in the "
        "recipe and run it again, or allow it with --allow-pii once you have looked at them (`ktodata explain RUN ROW_ID`)."
    )
