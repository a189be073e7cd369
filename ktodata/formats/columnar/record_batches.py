"""The records of a source in batches, and which of a batch have the same keys."""

import gc
from collections.abc import Iterator, Sequence

from ktodata.formats.file_types.source_record import SourceRecord

BATCH_RECORDS = 10_000
BATCH_BYTES = 1 << 26  # of text: few records may be as long as many


def record_batches(entries: Iterator[SourceRecord]) -> Iterator[list[SourceRecord]]:
    """All records in their order."""
    entries = iter(entries)
    while batch := _next_batch(entries):
        yield batch


def _next_batch(entries: Iterator[SourceRecord]) -> list[SourceRecord]:
    batch: list[SourceRecord] = []
    n_bytes = 0
    # records make no circles: looking for some whenever a few hundred are new takes a tenth of the time of reading
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for entry in entries:
            batch.append(entry)
            if entry.raw is not None:
                n_bytes += len(entry.raw)
            if len(batch) == BATCH_RECORDS or n_bytes > BATCH_BYTES:
                break
    finally:
        if was_enabled:
            gc.enable()
    return batch


def groups_of_keys(batch: Sequence[SourceRecord]) -> dict[tuple[str, ...], list[int]]:
    """{keys: numbers in the batch} of the records that could be read; keys in another order are others."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, entry in enumerate(batch):
        if entry.problem is None:
            groups.setdefault(tuple(entry.record), []).append(place)
    return groups
