"""What is written, what is left out, and that it is said."""

import json
from pathlib import Path

import pytest

from ktodata.errors import DataError, EmptyDataError, FormatError
from ktodata.feedback import feedback_table
from ktodata.formats import convert, read, write

SKY = {"prompt": "sky?", "completion": "blue", "label": True}
TALK = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "sky?"}]


def written(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_trl_is_the_default_and_what_it_cannot_hold_is_said(tmp_path: Path):
    feedback = feedback_table({**SKY, "rater": "ann", "model": "small"}, {**SKY, "rater": "bob", "colour": 3})
    result = write(feedback, tmp_path / "a.jsonl")
    assert written(tmp_path / "a.jsonl") == [SKY, SKY]
    assert (result.rows, result.records) == (2, 2)
    assert result.lost == ("trl has no place for rater (2 rows), model (1 rows), colour (1 rows)",)


def test_nothing_is_lost_where_there_is_nothing_to_lose(tmp_path: Path):
    assert write(feedback_table(SKY), tmp_path / "a.jsonl").lost == ()


def test_one_conversation_makes_all_prompts_conversations(tmp_path: Path):
    """A column that holds text in one row and turns in the next cannot be loaded by datasets."""
    write(feedback_table(SKY, {**SKY, "turns": TALK}), tmp_path / "a.jsonl")
    first, second = written(tmp_path / "a.jsonl")
    assert first["prompt"] == [{"role": "user", "content": "sky?"}]
    assert second["prompt"] == TALK
    assert first["completion"] == [{"role": "assistant", "content": "blue"}]


@pytest.mark.parametrize("format", ["trl_paired", "hh_rlhf", "preference"])
def test_pairs_are_put_together_again_and_lost_sides_are_counted(format: str, tmp_path: Path):
    """Pair a is whole, though its sides stand apart; b has lost a side; c says desirable twice; d answers two prompts."""
    rows = [
        ("a", "sky?", True),
        ("b", "sky?", True),
        ("c", "sky?", True),
        ("c", "sky?", True),
        ("d", "x", True),
        ("d", "y", False),
    ]
    rows += [("a", "sky?", False), (None, "sky?", True)]
    feedback = feedback_table(
        *({"prompt": p, "completion": f"{i}", "label": label, "pair_id": pair} for i, (pair, p, label) in enumerate(rows))
    )
    result = write(feedback, tmp_path / "a.jsonl", format=format)
    assert (result.rows, result.records) == (2, 1)
    assert result.lost[:3] == (
        "2 rows are left out: the other side of the pair is not there",
        "2 rows are left out: both sides of the pair have the same label",
        "2 rows are left out: the two sides of the pair have different prompts",
    )
    again = read(tmp_path / "a.jsonl", format=format).feedback
    assert again.select("prompt", "completion", "label").rows() == [("sky?", "0", True), ("sky?", "6", False)]


def test_pairs_without_any_pair_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no row has a pair_id"):
        write(feedback_table(SKY), tmp_path / "a.jsonl", format="trl_paired")


@pytest.mark.parametrize(
    ("format", "row", "why"),
    [
        ("axolotl", {"turns": TALK}, "several turns"),
        ("llamafactory_alpaca", {"turns": TALK[1:]}, "do not alternate"),
        ("ultrafeedback", {}, "there is no rating"),
        ("helpsteer", {}, "there is no rating"),
        ("langfuse", {"votes": [{"rater": "a", "label": False, "created_at": None}]}, "not what most of its votes say"),
        ("label_studio", {"votes": [{"rater": r, "label": r == "a", "created_at": None} for r in "ab"]}, "most of its votes"),
    ],
)
def test_what_would_not_be_true_is_not_written(format: str, row: dict, why: str, tmp_path: Path):
    with pytest.raises(EmptyDataError, match=why):
        write(feedback_table({**SKY, **row}), tmp_path / "a.jsonl", format=format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("turns", "completion"),
    [([{"role": "system", "content": "Be brief."}, *TALK], "blue"), (TALK, "blue\n\nHuman: and the sea?")],
)
def test_hh_rlhf_refuses_what_its_mark_up_would_change(turns, completion: str, tmp_path: Path):
    sides = [{**SKY, "turns": turns, "completion": c, "label": c == completion, "pair_id": "a"} for c in (completion, "red")]
    with pytest.raises(EmptyDataError, match=r"no turns of system|holds the mark-up"):
        write(feedback_table(*sides), tmp_path / "a.jsonl", format="hh_rlhf")


def test_csv_says_true_as_a_recipe_would_and_refuses_lists(tmp_path: Path):
    feedback = feedback_table({**SKY, "completion": 'say "blue",\nnow'}, {**SKY, "label": False})
    write(feedback, tmp_path / "a.csv")
    again = read(tmp_path / "a.csv", label={"true": True, "false": False}).feedback
    assert again.select("prompt", "completion", "label").equals(feedback.select("prompt", "completion", "label"))
    with pytest.raises(FormatError, match="CSV cannot hold prompt"):
        write(feedback_table({**SKY, "turns": TALK}), tmp_path / "b.csv")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".csv", ".parquet"])
def test_the_same_rows_give_the_same_bytes(suffix: str, tmp_path: Path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(feedback_table(SKY, {**SKY, "label": False}), tmp_path / folder / f"a{suffix}")
    assert (tmp_path / "one" / f"a{suffix}").read_bytes() == (tmp_path / "two" / f"a{suffix}").read_bytes()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path):
    (tmp_path / "a.csv").write_text("what was there before")
    with pytest.raises(FormatError):
        write(feedback_table(SKY, {**SKY, "turns": TALK}), tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "what was there before"
    with pytest.raises(FormatError, match="there is no folder"):
        write(feedback_table(SKY), tmp_path / "none" / "a.jsonl")


def test_convert_reads_one_format_and_writes_another(lines, tmp_path: Path):
    source = lines({"q": "sky?", "a": "blue", "thumb": "up"}, {"q": "sky?", "a": "red", "thumb": "down"}, {"q": "sky?", "a": "?"})
    result, out = convert(
        source,
        tmp_path / "out.jsonl",
        from_="mapping",
        to="llamafactory_sharegpt",
        prompt="q",
        completion="a",
        label={"column": "thumb", "up": True, "down": False},
    )
    assert (out.rows, result.quarantine.height) == (2, 1)
    assert written(tmp_path / "out.jsonl")[1] == {
        "messages": [{"role": "user", "content": "sky?"}, {"role": "assistant", "content": "red"}],
        "kto_tag": False,
    }


def test_ultrafeedback_puts_the_completions_of_a_prompt_together(tmp_path: Path):
    feedback = feedback_table(
        *(
            {"prompt": p, "completion": c, "label": r > 5, "rating": r}
            for p, c, r in (("a", "1", 8.0), ("b", "2", 3.0), ("a", "3", 1.0))
        )
    )
    write(feedback, tmp_path / "a.jsonl", format="ultrafeedback")
    assert [[c["response"] for c in record["completions"]] for record in written(tmp_path / "a.jsonl")] == [["1", "3"], ["2"]]


def test_trl_shapes_load_in_datasets(tmp_path: Path):
    import datasets

    write(feedback_table(SKY, {**SKY, "turns": TALK}), tmp_path / "a.jsonl")
    loaded = datasets.Dataset.from_list(written(tmp_path / "a.jsonl"))
    assert loaded.column_names == ["prompt", "completion", "label"]
