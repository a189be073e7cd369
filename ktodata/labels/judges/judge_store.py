"""A judge's answers on disk, so that nothing is asked twice and a killed run goes on where it was."""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from ktodata.errors import RunError
from ktodata.labels.judges.judge_questions import JudgeAnswer


class AnswerStore:
    """Answers by key, in memory and in a folder of JSONL files. Each process appends to a file of its own, a line at once.

    So a killed process loses no answer but the one it was writing: half a line is passed over, and counted, when it is read.
    """

    def __init__(self, folder: Path | None) -> None:
        self.answers: dict[str, JudgeAnswer] = {}
        self.unreadable = 0
        self._folder = folder
        self._file: Any = None
        for path in sorted(folder.glob("*.jsonl")) if folder else ():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._load(line)

    def add(self, key: str, answer: JudgeAnswer) -> None:
        """Keep an answer, on disk first. Raises RunError when it cannot be written."""
        self.answers[key] = answer
        if self._folder is None:
            return
        line = json.dumps({"key": key, "text": answer.text, "p_yes": answer.p_yes, "tokens": answer.tokens})
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = (self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl").open("x", encoding="utf-8")
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"cannot keep the judge's answers in {self._folder}: {error.strerror}. Make room or set KTODATA_CACHE, and run "
                "again: what was kept is not asked twice. Or give cache=False."
            ) from error

    def close(self) -> None:
        """Close this process's file."""
        if self._file is not None:
            self._file.close()

    def _load(self, line: str) -> None:
        try:
            saved = json.loads(line)
            self.answers[str(saved["key"])] = JudgeAnswer(str(saved["text"]), saved["p_yes"], dict(saved["tokens"]))
        except (ValueError, LookupError, TypeError):
            self.unreadable += 1


def digest_json(value: Any) -> str:
    """32 hex digits of a JSON value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
