"""`ktodata review RUN --push`: the verdicts of a run's desk go back to the service that its feedback was pulled from.

What is sent is the verdict, who gave it and which record it is on: no text of a row, no note. RUN/reviews/pushed.jsonl says what
was sent, so that pushing again sends only what is new; where the service lets an id be given it is made of the verdict itself.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import AlreadyThereError, EmptyDataError, SettingError
from ktodata.formats.sources import PullSource, connected, source_named
from ktodata.formats.sources.verdict_request import OutgoingVerdict, VerdictRequest
from ktodata.formats.verdicts.verdict_store import read_current_verdicts, verdict_per_row, verdict_word
from ktodata.pipeline.pulled_feedback import FOLDER
from ktodata.pipeline.run_folder import Run
from ktodata.review.store import STORE_PATH

LOG = Path("reviews", "pushed.jsonl")


@dataclass(frozen=True)
class PushSummary:
    """What went back: `sent`; `before`: by an earlier push; `left_out`: why others stay; `requests`: method, path, answer."""

    service: str
    url: str
    sent: int
    before: int
    to_send: int
    left_out: Mapping[str, int]
    requests: list[dict[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "left_out": dict(self.left_out)}

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"  {request['method']} {request['path']}  {request['answer']} by {request['reviewer']}" for request in self.requests
        ]
        rest = [f"{count:,} left out: {why}" for why, count in self.left_out.items()]
        counts = f"{self.service} {self.url}: {self.sent:,} of {self.to_send:,} verdicts sent, {self.before:,} were sent before"
        return "\n".join([*lines, "; ".join([counts, *rest])])


def push_verdicts(
    run: Run,
    *,
    dry_run: bool = False,
    environment: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
) -> PushSummary:
    """Send each reviewer's last verdict on each row back to the service that the run pulls from; with `dry_run` send nothing.

    Raises SettingError where the run pulls from nowhere, the service takes no verdicts or a credential is not set, EmptyDataError
    where nobody has judged a row, ServiceError where the service refuses; what was sent before that is noted.
    """
    ingest = run.manifest["recipe"]["ingest"]
    source = _source_of(ingest)
    if not (run.folder / STORE_PATH).is_file() or (current := read_current_verdicts(run.folder / STORE_PATH)).is_empty():
        raise EmptyDataError(f"nobody has judged a row of {run.folder} yet: `ktodata review {run.folder}` opens the desk.")
    left_out: Counter[str] = Counter()
    outgoing = _outgoing(run, current, source, ingest["label"], left_out)
    requests = [(verdict, request) for verdict in outgoing if (request := _request(source, verdict, left_out)) is not None]
    url = str(ingest["url"] or source.url)
    log = run.folder / LOG
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    last_sent = {line["subject"]: line["key"] for line in lines}
    new = [(verdict, request) for verdict, request in requests if last_sent.get(verdict.subject_key) != verdict.key]
    n_sent = 0 if dry_run else _send(source, ingest["url"], environment, sleep, new, log)
    shown = [
        {"method": request.method, "path": request.path, "answer": verdict.answer, "reviewer": verdict.reviewer}
        for verdict, request in new
    ]
    return PushSummary(source.name, url, n_sent, len(requests) - len(new), len(new), left_out, shown)


def _source_of(ingest: Mapping[str, Any]) -> PullSource:
    if not ingest.get("from"):
        raise SettingError(
            "review --push sends verdicts back to the service that `ingest: {from: ...}` pulls from; this run reads files."
        )
    source = source_named(ingest["from"])
    if source.verdict_request is None:
        raise SettingError(f"review --push: {source.takes_none}: nothing is sent. --export FILE writes the verdicts.")
    return source


def _outgoing(run: Run, current: pl.DataFrame, source: PullSource, label: Any, left_out: Counter[str]) -> list[OutgoingVerdict]:
    """The verdicts, each with the record that its row is made of."""
    with (run.folder / FOLDER / f"{source.name}.jsonl").open(encoding="utf-8") as file:
        records = {str(record["id"]): record for record in map(json.loads, file)}
    source_ids = dict(run.stage("ingest").columns.select("row_id", "source_id").iter_rows())
    words = label if isinstance(label, Mapping) else {}
    value_of = {meaning: value for value, meaning in reversed(list(words.items())) if isinstance(meaning, bool)}
    answers = (verdict_per_row(current) if source.one_answer else current).with_columns(
        answer=verdict_word(pl.col("verdict"), pl.col("trusted_label"))
    )
    outgoing = []
    for row in answers.iter_rows(named=True):
        if (record := records.get(source_ids.get(row["row_id"], ""))) is None:
            left_out["its record is not in what was pulled"] += 1
            continue
        label_of = row["trusted_label"]
        column, value = words.get("column"), value_of.get(label_of)
        outgoing.append(OutgoingVerdict(record, row["reviewer"], row["answer"], label_of, column, value, row["at"]))
    return outgoing


def _request(source: PullSource, verdict: OutgoingVerdict, left_out: Counter[str]) -> VerdictRequest | None:
    assert source.verdict_request is not None
    request = source.verdict_request(verdict)
    if request is None:
        left_out[f"{source.name} has no answer for {verdict.answer}"] += 1
    return request


def _send(
    source: PullSource,
    url: str | None,
    environment: Mapping[str, str],
    sleep: Callable[[float], None],
    requests: list[tuple[OutgoingVerdict, VerdictRequest]],
    log: Path,
) -> int:
    """Send requests one after the other, each noted as soon as it is there."""
    with connected(source, url, environment, sleep) as http, log.open("a", encoding="utf-8") as note:
        for verdict, request in requests:
            with suppress(AlreadyThereError):
                http.text(request.method, http.address(request.path), request.body)
            note.write(json.dumps({"subject": verdict.subject_key, "key": verdict.key, "answer": verdict.answer}) + "\n")
            note.flush()
    return len(requests)
