import numpy as np
import polars as pl
import pytest

from ktodata.errors import DataError, FormatError, LabelError, MissingColumnError
from ktodata.experiments.probes.safety import at_most, read_safety_prompts, refusal_measures


def written(folder, name, table):
    path = folder / name
    {".csv": table.write_csv, ".jsonl": table.write_ndjson, ".parquet": table.write_parquet}[path.suffix](path)
    return path


def test_a_list_of_unsafe_prompts_as_advbench_is(tmp_path):
    path = written(tmp_path, "a.csv", pl.DataFrame({"goal": ["build a bomb", "rob a bank"], "target": ["Sure", "Sure"]}))
    prompts, facts = read_safety_prompts(path)
    assert prompts.to_dicts() == [
        {"item": 0, "prompt": "build a bomb", "unsafe": True},
        {"item": 1, "prompt": "rob a bank", "unsafe": True},
    ]
    assert facts == {"file": "a.csv", "rows": 2, "repeated": 0, "unsafe": 2, "safe": 0}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("column", "values"),
    [("unsafe", [True, False, False]), ("should_refuse", ["1", "no", "no"]), ("label", ["unsafe", "safe", " SAFE"])],
)
def test_files_and_columns_that_say_what_is_unsafe(tmp_path, suffix, column, values):
    """The same prompt again, with the same verdict, is one prompt."""
    table = pl.DataFrame({"prompt": ["kill him", "kill it", "kill it"], column: values, "type": ["x", "y", "y"]})
    prompts, facts = read_safety_prompts(written(tmp_path, f"x{suffix}", table))
    assert prompts["prompt"].to_list() == ["kill him", "kill it"] and prompts["unsafe"].to_list() == [True, False]
    assert (facts["repeated"], facts["unsafe"], facts["safe"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("table", "error", "says"),
    [
        ({"question": ["a"]}, MissingColumnError, "no column prompt or goal; it has question"),
        ({"prompt": ["a"]}, MissingColumnError, "does not say which prompts are unsafe.*Add a column `unsafe`"),
        ({"prompt": ["a", "b"], "unsafe": ["true", "perhaps"]}, LabelError, r"1 of 2 values .*first: 'perhaps' in row 2"),
        ({"prompt": ["a", "b"], "unsafe": [True, None]}, LabelError, "1 of 2 values"),
        ({"prompt": ["a"], "label": [True]}, LabelError, "true or false, which does not say what is unsafe"),
        ({"prompt": ["a", " "], "unsafe": [True, True]}, DataError, r"1 of 2 prompts are empty \(first: row 2\)"),
        ({"prompt": ["a", "a"], "unsafe": [True, False]}, DataError, "1 prompts are called both safe and unsafe"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, table, error, says):
    with pytest.raises(error, match=says):
        read_safety_prompts(written(tmp_path, "x.jsonl", pl.DataFrame(table)))


def test_files_that_are_none(tmp_path):
    with pytest.raises(FormatError, match=r"read from .*\.jsonl"):
        read_safety_prompts(tmp_path / "x.docx")
    with pytest.raises(FormatError, match="cannot be read"):
        read_safety_prompts(tmp_path / "absent.csv")
    (tmp_path / "broken.parquet").write_bytes(b"\x00half")
    with pytest.raises(FormatError, match="cannot be read"):
        read_safety_prompts(tmp_path / "broken.parquet")


def test_a_limit_draws_as_many_of_each_kind_and_the_same_each_time():
    prompts = pl.DataFrame({"item": range(30), "prompt": [str(n) for n in range(30)], "unsafe": [n < 25 for n in range(30)]})
    drawn = at_most(prompts, 3)
    assert drawn["unsafe"].sum() == 3 and drawn.height == 6 and drawn["item"].is_sorted()
    assert drawn.equals(at_most(prompts, 3)) and drawn["item"].to_list()[:3] != [0, 1, 2]
    assert at_most(prompts, None).equals(prompts)


def test_the_share_that_refuses_has_a_name_for_each_kind():
    answers = pl.DataFrame({"text": ["I'm sorry, no.", "Sure.", "I cannot do that.", ""]})
    for unsafe, name in ((True, "refusal_of_unsafe"), (False, "refusal_of_safe")):
        measures = refusal_measures(answers, unsafe)
        assert list(measures) == [name] and measures[name](np.ones((1, 4)))[0] == 0.5


@pytest.mark.shared
def test_advbench_and_xstest(shared):
    assert read_safety_prompts(shared / "tasks" / "advbench_harmful_behaviors.csv")[1]["unsafe"] == 520
    facts = read_safety_prompts(shared / "kto_xstest.jsonl.gz")[1]
    assert (facts["rows"], facts["repeated"], facts["unsafe"], facts["safe"]) == (1350, 1080, 120, 150)
