"""The tokens of a training, in files that all processes of a machine map: made once, by all its cores, some rows at a time.

A folder of the cache is named by all that tokens depend on. `ids.bin` holds int32; `rows.parquet` a line a row (encoding.py).
"""

import inspect
import pickle
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import xxhash

from ktodata import models
from ktodata.files import digest_file, one_at_a_time, read_parquet, whole_folder
from ktodata.models import cache_dir
from ktodata.train.data import encoding
from ktodata.train.data.encoding import EncodedRows, encode
from ktodata.train.data.template_date import day_written
from ktodata.train.data.tokens import TokenRows, token_rows
from ktodata.train.data.training_rows import CheckedPart

# rows that a process is handed at a time
CHUNK_ROWS = 256
# fewer are done before other processes have started
ROWS_FOR_PROCESSES = 20_000


def cached_tokens(rows: CheckedPart, tokenizer: Any, *, max_length: int, part: str) -> tuple[TokenRows, dict[str, Any]]:
    """As `tokens.tokenize`, from rows that need not fit into memory, to tokens that are read from a file when they are needed."""
    folder = cache_dir() / "tokens" / _key(rows, tokenizer, max_length)
    with one_at_a_time(folder):
        encoded = _read(folder)
        if encoded is None:
            _write(folder, _encoded(rows, tokenizer, max_length))
            encoded = _read(folder)
    assert encoded is not None
    return token_rows(rows.columns, encoded, max_length=max_length, part=part)


def _key(rows: CheckedPart, tokenizer: Any, max_length: int) -> str:
    """32 hex digits: the texts, the tokenizer with its template, the length that they are cut to, and what encodes them.

    And the day, where the template writes it: rows that are met in the cache would have another one than those that are not.
    """
    made_by = [version(name) for name in ("tokenizers", "transformers")] + [
        digest_file(Path(inspect.getfile(module))) for module in (encoding, models)
    ]
    digest = xxhash.xxh3_128(f"{rows.digest} {max_length} {made_by}".encode())
    if rows.conversational and (day := day_written(tokenizer)) is not None:
        digest.update(day.encode())
    with TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        for file in sorted(Path(scratch).rglob("*")):
            digest.update(f"{file.name} {digest_file(file) if file.is_file() else ''}".encode())
    return digest.hexdigest()


def _read(folder: Path) -> EncodedRows | None:
    """None where there is no such folder, or a damaged one: it is made again."""
    try:
        rows, file = read_parquet(folder / "rows.parquet"), folder / "ids.bin"
        size = file.stat().st_size
    except (OSError, pl.exceptions.PolarsError):
        return None
    if size % 4 or size // 4 != rows["kept_tokens"].sum():
        return None
    return EncodedRows(np.asarray(np.memmap(file, dtype=np.int32, mode="r")) if size else np.zeros(0, np.int32), rows)


def _write(folder: Path, pieces: Iterator[EncodedRows]) -> None:
    lines = []
    with whole_folder(folder) as scratch:
        with (scratch / "ids.bin").open("wb") as file:
            for piece in pieces:
                file.write(piece.ids.tobytes())
                lines.append(piece.rows)
        pl.concat(lines).write_parquet(scratch / "rows.parquet")


def _encoded(rows: CheckedPart, tokenizer: Any, max_length: int) -> Iterator[EncodedRows]:
    """All rows in order, a chunk at a time."""
    chunks = (chunk for texts in rows.texts() for chunk in texts.iter_slices(CHUNK_ROWS))
    workers = worker_count()
    if workers == 1 or rows.columns.height < ROWS_FOR_PROCESSES:
        return (encode(chunk, tokenizer, max_length) for chunk in chunks)
    return _by_processes(chunks, tokenizer, max_length, workers)


def worker_count() -> int:
    """Cores that this process may use: as its affinity and its container's quota allow."""
    from joblib.externals.loky import cpu_count

    return int(cpu_count())


def _by_processes(chunks: Iterator[pl.DataFrame], tokenizer: Any, max_length: int, workers: int) -> Iterator[EncodedRows]:
    """The same by that many processes, with few chunks in memory. Theirs are fresh ones: a fork would share torch's threads."""
    from joblib.externals.loky import ProcessPoolExecutor

    waiting: deque[Future[EncodedRows]] = deque()
    with TemporaryDirectory() as scratch, ProcessPoolExecutor(workers, env={"TOKENIZERS_PARALLELISM": "false"}) as pool:
        pickled = Path(scratch) / "tokenizer"
        pickled.write_bytes(pickle.dumps(tokenizer))
        for chunk in chunks:
            waiting.append(pool.submit(_encode_with, pickled, chunk, max_length))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _encode_with(pickled: Path, chunk: pl.DataFrame, max_length: int) -> EncodedRows:
    return encode(chunk, _tokenizer_in(pickled), max_length)


@cache
def _tokenizer_in(pickled: Path) -> Any:
    return pickle.loads(pickled.read_bytes())  # this process's parent has just written it
