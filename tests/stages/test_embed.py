"""embed adds one unit vector for each prompt and completion; what it could not read it counts."""

import numpy as np
import polars as pl
import pytest
from encoders import save_encoder

from ktodata.errors import ModelError
from ktodata.feedback import TURN, feedback_table
from ktodata.stages.embed import embed


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))


FEEDBACK = feedback_table(
    ("convert feet", "yes", True),
    ("convert feet", "no", False),  # the prompt again: encoded once
    ("poem love", "<script>", True),  # nothing the encoder knows
    ("pasta " * 9, "yes", True),
)


def test_each_row_has_the_vectors_of_its_own_texts(encoder):
    result = embed(FEEDBACK, model=encoder)
    assert result.columns.schema == {
        "row_id": pl.String,
        "prompt_embedding": pl.Array(pl.Float32, 8),
        "completion_embedding": pl.Array(pl.Float32, 8),
    }
    prompts, completions = (result.columns[f"{side}_embedding"].to_numpy() for side in ("prompt", "completion"))
    assert np.linalg.norm(prompts, axis=1) == pytest.approx([1] * 4, abs=1e-6)
    assert np.array_equal(prompts[0], prompts[1]) and not np.array_equal(prompts[0], prompts[2])
    assert np.array_equal(completions[0], completions[3]) and not np.array_equal(completions[0], completions[1])
    assert not completions[2].any()


def test_the_facts_say_what_ran_and_what_was_not_read(encoder):
    metrics = embed(FEEDBACK, model=encoder, max_chars=20).metrics
    ran = {
        key: metrics[key] for key in ("encoder", "device", "dimension", "rows", "distinct_texts", "from_cache", "zero_vectors")
    }
    assert ran == {
        "encoder": encoder,
        "device": ran["device"],
        "dimension": 8,
        "rows": 4,
        "distinct_texts": 6,  # three prompts, yes, no, <script>
        "from_cache": 0,
        "zero_vectors": 1,
    }
    assert metrics["truncated"] == {"prompt": 1, "completion": 0}
    assert {f["code"]: f["status"] for f in metrics["findings"]} == {
        "KD050": "issue",
        "KD051": "issue",
    }
    assert embed(FEEDBACK, model=encoder, max_chars=20).metrics["from_cache"] == 6


def test_kd050_and_kd051_are_silent_when_all_is_read(encoder):
    findings = embed(feedback_table(("convert feet", "yes", True)), model=encoder).metrics["findings"]
    assert [finding["status"] for finding in findings] == ["passed", "passed"]


def test_a_system_prompt_that_all_share_does_not_make_prompts_alike(encoder):
    """The vector is of what was asked: the same as that of the question alone, without system turn and role names."""
    asked = feedback_table(("convert feet", "yes", True), ("poem love", "no", False))
    turns = [[{"role": "system", "content": "pasta " * 30}, {"role": "user", "content": prompt}] for prompt in asked["prompt"]]
    whole = [{name: turn.get(name) for name in TURN.to_schema()} for of in turns for turn in of]
    column = pl.Series([whole[:2], whole[2:]], dtype=pl.List(TURN))
    wrapped = asked.with_columns(turns=column, prompt=pl.lit("System: ") + pl.lit("pasta " * 30) + pl.col("prompt"))
    alone, together = (embed(table, model=encoder).columns["prompt_embedding"].to_numpy() for table in (asked, wrapped))
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize(("alphabet", "told"), [("abcdefghijklmnoprstu", True), ("አበገደሀወዘሐጠየከለመነሠዐፈጸቀረ", False)])
def test_kd050_says_when_the_encoder_does_not_tell_a_script_apart(alphabet, told):
    """Random words: the packaged encoder sees letters of Latin, and hardly any of Ethiopic."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice([*alphabet, " "], 60)) for _ in range(60)]
    finding = embed(feedback_table(*((text, "yes", True) for text in texts))).metrics["findings"][0]
    assert (finding["status"] == "passed") is told
    assert told or "texts in other script" in finding["text"]


def test_the_order_of_the_rows_and_the_cache_change_nothing(encoder):
    plain = embed(FEEDBACK, model=encoder, cache=False).columns
    turned = embed(FEEDBACK.reverse(), model=encoder, cache=True).columns.reverse()
    again = embed(FEEDBACK, model=encoder, cache=True).columns
    assert plain.equals(turned) and plain.equals(again)


def test_no_rows_have_no_vectors(encoder):
    result = embed(feedback_table(), model=encoder)
    assert result.columns.height == 0
    assert result.columns.schema["prompt_embedding"] == pl.Array(pl.Float32, 8)


@pytest.mark.parametrize("model", ["nobody/no-such-model", "packaged:nothing", "", "./no/folder"])
def test_an_unreadable_model_is_named_with_what_works_instead(model):
    with pytest.raises(ModelError, match="packaged:wordllama-256") as caught:
        embed(FEEDBACK, model=model)
    assert model in str(caught.value)


@pytest.mark.parametrize("model", ["packaged:wordllama-256", "packaged:all-minilm-l6-v2"])
def test_packaged_encoders_find_the_paraphrase(model, monkeypatch):
    monkeypatch.delenv("KTODATA_CACHE")
    table = feedback_table(
        ("How do I cook pasta?", "a", True), ("What is the way to boil noodles?", "a", True), ("Who won the war?", "a", True)
    )
    first, same, other = embed(table, model=model, cache=False).columns["prompt_embedding"].to_numpy()
    assert first @ same > first @ other + 0.1
