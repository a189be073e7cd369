"""Tokens are made once for the same texts, tokenizer and length, and are those that are made in memory."""

import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from tiny_models import TEMPLATE, chat_rows, text_rows, word_tokenizer

from ktodata.errors import DataError, FormatError, LabelError, MissingColumnError
from ktodata.formats import shards
from ktodata.train.data import template_date, token_cache
from ktodata.train.data.token_cache import cached_tokens
from ktodata.train.data.tokens import tokenize
from ktodata.train.data.training_rows import check_part, check_rows, open_part, read_part


def checked(place, part="train"):
    return check_part(open_part(place, part), part=part, both_classes=True)


def cached(rows, tokenizer, max_length=64):
    return cached_tokens(checked(rows), tokenizer, max_length=max_length, part="train")


def in_memory(rows, tokenizer, max_length=64):
    return tokenize(check_rows(rows, part="train", both_classes=True), tokenizer, max_length=max_length, part="train")


def folders(tmp_path):
    return sorted(path for path in (tmp_path / "cache" / "tokens").iterdir() if path.is_dir())


def assert_equal_rows(ours, theirs):
    for name in ("row_id", "group", "max_length"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("label", "weight", "p_desirable"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("prompt", "completion"):
        assert [ids.tolist() for ids in getattr(ours, name)] == [ids.tolist() for ids in getattr(theirs, name)]
        for mine, yours in zip(getattr(ours, name).distinct(), getattr(theirs, name).distinct(), strict=True):
            assert np.array_equal(mine, yours)


def in_files(rows, folder, each=5):
    """The rows as Parquet files of `each` rows."""
    folder.mkdir()
    for number, piece in enumerate(rows.iter_slices(each)):
        piece.write_parquet(folder / f"train-{number:05d}.parquet")
    return folder


@pytest.mark.parametrize("max_length", [64, 5, 4], ids=["all_fit", "some_cut", "some_skipped"])
@pytest.mark.parametrize("rows", [text_rows(12), chat_rows(12)], ids=["text", "chat"])
def test_files_in_pieces_give_what_is_made_in_memory(rows, max_length, tokenizer, tmp_path, monkeypatch):
    if "content" in str(rows.schema["prompt"]):
        max_length += 12  # a template's own tokens
    monkeypatch.setattr(shards, "PIECE_ROWS", 3)
    monkeypatch.setattr(token_cache, "CHUNK_ROWS", 2)
    ours, our_facts = cached(in_files(rows, tmp_path / "shards"), tokenizer, max_length)
    theirs, facts = in_memory(rows, tokenizer, max_length)
    assert our_facts == facts
    assert_equal_rows(ours, theirs)


def test_no_more_rows_are_read_than_are_needed_at_a_time(tokenizer, tmp_path, monkeypatch):
    """A piece is let go before the next one is read."""
    monkeypatch.setattr(shards, "PIECE_ROWS", 4)
    heights, before = [], token_cache.encode
    monkeypatch.setattr(token_cache, "encode", lambda rows, *rest: heights.append(rows.height) or before(rows, *rest))
    (tmp_path / "shards").mkdir()
    text_rows(50).write_parquet(tmp_path / "shards" / "train-0.parquet")
    cached(tmp_path / "shards", tokenizer)
    assert (max(heights), sum(heights)) == (4, 50)


def test_the_same_texts_meet_their_tokens_whatever_else_is_in_the_rows(tokenizer, tmp_path, monkeypatch):
    rows = text_rows(12)
    first, _ = cached(rows, tokenizer)
    monkeypatch.setattr(token_cache, "encode", None)  # would fail if it were called
    again, _ = cached(rows.with_columns(label=~pl.col("label"), weight=pl.lit(2.0)), tokenizer)
    assert [ids.tolist() for ids in first.completion] == [ids.tolist() for ids in again.completion]
    assert np.array_equal(again.label, ~first.label)
    assert len(folders(tmp_path)) == 1


OTHERS = {
    "texts": (text_rows(12).with_columns(completion=pl.col("completion") + " two"), None, 64),
    "order": (text_rows(12).reverse(), None, 64),
    "length": (text_rows(12), None, 63),
    "template": (text_rows(12), "{{ messages }}", 64),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_tokens_depend_on_keeps_them_apart(name, tokenizer, tmp_path):
    rows, template, max_length = OTHERS[name]
    cached(text_rows(12), tokenizer)
    cached(rows, tokenizer if template is None else word_tokenizer(template), max_length)
    assert len(folders(tmp_path)) == 2


DATED = "{{ strftime_now('%d %S')|replace('30', 'one')|replace('01', 'two three') }}" + TEMPLATE  # two days, of other lengths


@pytest.mark.parametrize(("rows", "count"), [(chat_rows(12), 2), (text_rows(12), 1)], ids=["chat", "text"])
def test_the_day_that_a_template_writes_keeps_tokens_apart(rows, count, tmp_path, monkeypatch):
    """Rows that were cached yesterday had yesterday's prompt, and a part that was not had today's."""
    prompts = []
    for day in ("2026-11-30", "2026-12-01"):
        monkeypatch.setattr(template_date, "today", lambda day=day: day)
        tokenizer = word_tokenizer(DATED)
        made = [cached(part, tokenizer)[0].prompt for part in (rows, rows, rows[:6])]
        assert len({tuple(part[0].tolist()) for part in made}) == 1
        prompts.append(made[0][0].tolist())
        monkeypatch.setattr(template_date, "today", lambda: "2027-01-01")  # past midnight: a training's prompts name one day
        assert cached(rows[:8], tokenizer)[0].prompt[0].tolist() == prompts[-1]
    assert len({tuple(prompt) for prompt in prompts}) == count
    assert len(folders(tmp_path)) == 3 * count


def test_template_fields_keep_tokens_apart(tokenizer, tmp_path):
    for thinking in ('{"enable_thinking": true}', '{"enable_thinking": false}'):
        cached(chat_rows(12).with_columns(chat_template_kwargs=pl.lit(thinking)), tokenizer)
    assert len(folders(tmp_path)) == 2


@pytest.mark.parametrize("file", ["ids.bin", "rows.parquet"])
@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-1])])
def test_damaged_tokens_are_made_again(file, damage, tokenizer, tmp_path):
    first, _ = cached(text_rows(12), tokenizer)
    expected = [ids.tolist() for ids in first.prompt]
    (folder,) = folders(tmp_path)
    damage(folder / file)
    again, _ = cached(text_rows(12), tokenizer)
    assert [ids.tolist() for ids in again.prompt] == expected


def test_tokens_that_were_not_finished_leave_nothing(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "CHUNK_ROWS", 5)
    before = token_cache.encode

    def killed(rows, *rest):
        if rows.height < 5:  # the last chunk
            raise KeyboardInterrupt
        return before(rows, *rest)

    monkeypatch.setattr(token_cache, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        cached(text_rows(12), tokenizer)
    assert folders(tmp_path) == []


def test_of_several_at_once_one_makes_them(tokenizer, monkeypatch):
    calls, before = [], token_cache.encode
    monkeypatch.setattr(token_cache, "encode", lambda *given: calls.append(1) or before(*given))
    results = []
    threads = [threading.Thread(target=lambda: results.append(cached(text_rows(12), tokenizer)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(results), len(calls)) == (4, 1)


def test_several_processes_make_the_same_files(tokenizer, tmp_path, monkeypatch):
    cached(chat_rows(12), tokenizer)
    (folder,) = folders(tmp_path)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in folder.iterdir():
        file.unlink()
    monkeypatch.setattr(token_cache, "CHUNK_ROWS", 2)
    monkeypatch.setattr(token_cache, "ROWS_FOR_PROCESSES", 1)
    monkeypatch.setattr(token_cache, "worker_count", lambda: 2)
    monkeypatch.setattr(token_cache, "encode", None)  # here; the other processes have their own
    cached(chat_rows(12), tokenizer)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files


def test_a_mapped_file_is_not_read_into_memory(tokenizer, tmp_path):
    rows, _ = cached(text_rows(12), tokenizer)
    base = rows.prompt[0]
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert Path(base.filename).name == "ids.bin"


# --- rows in files are refused as rows in memory are ---------------------------------------------------------------------------

BAD = {
    "no_label": (lambda rows: rows.drop("label"), MissingColumnError),
    "same_row_id": (lambda rows: rows.with_columns(row_id=pl.lit("a")), DataError),
    "null_label": (lambda rows: rows.with_columns(label=pl.when(pl.col("row_id") != "r7").then("label")), LabelError),
    "blank_prompt": (
        lambda rows: rows.with_columns(prompt=pl.when(pl.col("row_id") == "r7").then(pl.lit(" ")).otherwise("prompt")),
        DataError,
    ),
    "number_as_text": (lambda rows: rows.with_columns(completion=pl.lit(7)), FormatError),
    "weight": (lambda rows: rows.with_columns(weight=pl.when(pl.col("row_id") == "r7").then(-1.0).otherwise(1.0)), DataError),
}


@pytest.mark.parametrize("name", BAD)
def test_the_same_rows_are_refused_in_the_same_words(name, tmp_path):
    spoil, kind = BAD[name]
    folder = in_files(spoil(text_rows(12)), tmp_path / "shards")
    with pytest.raises(kind) as of_file:
        checked(folder)
    with pytest.raises(kind) as of_frame:
        check_rows(read_part(folder, "train"), part="train", both_classes=True)
    assert str(of_file.value) == str(of_frame.value)


def test_files_of_text_and_of_messages_are_not_one_part(tmp_path):
    folder = in_files(text_rows(6), tmp_path / "shards", each=6)
    chat_rows(6).write_parquet(folder / "train-00001.parquet")
    with pytest.raises(FormatError, match="text in some files"):
        checked(folder)


def test_what_is_filled_in_is_that_of_a_frame(tmp_path):
    rows = text_rows(12).drop("prompt_group")
    assert_frame_equal(
        checked(in_files(rows, tmp_path / "shards")).columns,
        check_rows(rows, part="train", both_classes=True).select("row_id", "label", "weight", "p_desirable", "prompt_group"),
    )
