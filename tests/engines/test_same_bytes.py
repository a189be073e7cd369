"""The result does not hang on the engine: ledger and shards are the same bytes, and a run that was killed goes on by part."""

import subprocess
import sys

import numpy as np
import pytest

import ktodata as kd
from ktodata.embeddings import encode, static_encoder, vector_parts
from ktodata.embeddings.encode import encode_texts
from ktodata.engines.running import running_on
from ktodata.models import cache_dir
from ktodata.pipeline import runner

STEPS = [
    {"dedupe": {}},
    {"split": {"validation": 0.1, "test": 0.15}},
    {"embed": {"cache": False, "batch_size": 32}},
    {"label_noise": {"folds": 3, "repeats": 1}},
]
READ = {"label": {"column": "thumb", "up": True, "down": False}, "rater": "user", "created_at": "ts", "model": "model"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))


def outcome(folder, **how):
    """The files of a run of 300 records that must be the same, and what the run says of its engine."""
    lines = kd.datasets.sample_path().read_text(encoding="utf-8").splitlines()[:300]
    folder.mkdir()
    (folder / "feedback.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = {"name": "parts", "ingest": {"paths": [str(folder / "feedback.jsonl")]} | READ, "steps": STEPS}
    run = kd.run(recipe, out=folder / "run", **how)
    files = [folder / "run/ledger.parquet", *sorted((folder / "run/shards").iterdir())]
    assert run.manifest["rows"]["kept"] > 100
    return {file.name: file.read_bytes() for file in files}, run.manifest["engine"]


@pytest.mark.slow
def test_ledger_and_shards_are_the_same_bytes_with_1_2_and_7_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(static_encoder, "BATCH", 32)  # of some 500 texts 16 parts
    monkeypatch.setattr(runner, "write_pages_of", lambda folder, keys: None)  # the same ledger makes the same page
    expected, engine = outcome(tmp_path / "here")
    assert engine == "in_process" and len(expected) > 3
    for workers in (2, 7):  # one is this process
        made, engine = outcome(tmp_path / str(workers), engine="local", workers=workers)
        assert made == expected and engine == f"local, {workers} workers"


@pytest.mark.slow
def test_an_encoder_with_attention_gives_the_same_bytes_in_other_processes():
    """Batches of 4 in parts of 32: 100 texts are four parts, whatever the number of workers and of threads of each."""
    texts = sorted({"word " * (number % 9) + str(number) for number in range(100)})
    how = {"model": "packaged:all-minilm-l6-v2", "batch_size": 4, "cache": False}
    here = encode_texts(texts, **how)
    with running_on("local", workers=2):
        elsewhere = encode_texts(texts, **how)
    assert np.array_equal(here.vectors, elsewhere.vectors) and here.vectors.any()
    assert (here.fingerprint, here.device) == (elsewhere.fingerprint, elsewhere.device)


TEXTS = [f"{number} texts that are counted" for number in range(100, 300)]
STATIC = "packaged:wordllama-256"


def encoded_lengths(monkeypatch):
    """A list that gets the number of texts of each part that is encoded from here on."""
    lengths, call = [], encode.EncodeWork.__call__
    monkeypatch.setattr(encode.EncodeWork, "__call__", lambda self, part: lengths.append(len(part)) or call(self, part))
    return lengths


def test_what_was_done_before_a_stop_is_not_done_again(monkeypatch):
    """200 texts in parts of 32; Ctrl-C comes in the fourth: 96 are kept, and 104 are left, in the parts that they had."""
    monkeypatch.setattr(static_encoder, "BATCH", 32)
    call, lengths = encode.EncodeWork.__call__, []

    def stopped(self, part):
        if len(lengths) == 3:
            raise KeyboardInterrupt
        lengths.append(len(part))
        return call(self, part)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encode.EncodeWork, "__call__", stopped)
        encode_texts(TEXTS, model=STATIC, batch_size=32)
    lengths = encoded_lengths(monkeypatch)
    again = encode_texts(TEXTS, model=STATIC, batch_size=32)
    assert (again.from_cache, lengths) == (96, [32, 32, 32, 8])
    assert np.array_equal(again.vectors, encode_texts(TEXTS, model=STATIC, batch_size=32, cache=False).vectors)


def test_a_driver_that_is_killed_has_kept_its_parts(monkeypatch, tmp_path):
    """It is killed when it says that 64 texts, of 26 characters each, are done."""
    script = f"""
import os
from ktodata.embeddings import static_encoder, vector_parts
from ktodata.embeddings.encode import encode_texts
from ktodata.engines.running import running_on
from ktodata.work_done import heard_by
static_encoder.BATCH, vector_parts.STORE_EVERY_S = 32, 0
with running_on("local", workers=2), heard_by(lambda work: work.get("done", 0) >= 64 * 26 and os.kill(os.getpid(), 9)):
    encode_texts({TEXTS!r}, model={STATIC!r}, batch_size=32)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert len(list((cache_dir() / "vectors").rglob("*.parquet"))) == 2
    monkeypatch.setattr(static_encoder, "BATCH", 32)
    lengths = encoded_lengths(monkeypatch)
    assert encode_texts(TEXTS, model=STATIC, batch_size=32).from_cache == 64
    assert lengths == [32, 32, 32, 32, 8]


def test_quick_parts_are_not_a_file_each(monkeypatch):
    monkeypatch.setattr(static_encoder, "BATCH", 32)
    assert vector_parts.STORE_EVERY_S > 5
    encode_texts(TEXTS, model=STATIC, batch_size=32)
    assert len(list((cache_dir() / "vectors").rglob("*.parquet"))) == 1
