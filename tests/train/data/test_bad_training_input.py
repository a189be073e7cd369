"""What becomes of input that is wrong: an error, or a count in the facts, that names the rows. The one place to look it up.

Most of the first table trains silently, or fails with a stranger's error, elsewhere: -1 read as a true label, all rows of one
label, a prompt that leaves no room for its completion.
"""

import polars as pl
import pytest
import torch
from tiny_models import chat_rows, text_rows, tiny_llama, word_tokenizer

from ktodata.errors import (
    DataError,
    EmptyDataError,
    FormatError,
    KtodataError,
    LabelError,
    MissingColumnError,
    ModelError,
    OneClassError,
    RunError,
    SettingError,
)
from ktodata.evaluate import evaluate
from ktodata.train import fit

FAST = {"batch_size": 4, "learning_rate": 1e-3, "warmup_fraction": 0.0, "device": "cpu"}
AS_IS = {**FAST, "desirable_weight": 1.0, "undesirable_weight": 1.0}  # no label is raised to balance the other
ROWS = text_rows(12)
NONE_IS_READ = "no/such-model"  # what is refused is refused before a model is looked for


def changed(column, value, *row_ids):
    """ROWS with `value` in the column of these rows."""
    rows = [
        row | ({column: value} if row["row_id"] in row_ids else {}) for row in ROWS.with_columns(weight=pl.lit(1.0)).to_dicts()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def saved(folder, tokenizer, seed=0, spoil=lambda model: None):
    """A folder with a tiny model, after `spoil` changed its weights."""
    model = tiny_llama(len(tokenizer), seed=seed)
    with torch.no_grad():
        spoil(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


# --- refused before a model is read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        pytest.param(ROWS.drop("label"), MissingColumnError, "needs column 'label'; the table has row_id, prompt", id="no_label"),
        pytest.param(
            changed("label", None, "r2", "r5"), LabelError, r"2 of 12 labels are null \(row_id r2, r5\)", id="null_label"
        ),
        pytest.param(
            ROWS.with_columns(label=pl.when("label").then(1).otherwise(-1)),
            LabelError,
            r"Int32 in all 12 rows \(-1, 1; first: row_id r0\).*-1, 0.3 and 'no' all count as true",
            id="plus_and_minus_one",
        ),
        pytest.param(
            ROWS.with_columns(label=pl.lit(0.3)), LabelError, r"Float64 in all 12 rows \(0.3; first: row_id r0\)", id="score"
        ),
        pytest.param(
            ROWS.with_columns(label=pl.lit("no")), LabelError, r"String in all 12 rows \('no'; first: row_id r0\)", id="word"
        ),
        pytest.param(
            changed("completion", "", "r3"), DataError, r"1 of 12 rows have an empty completion \(row_id r3\)", id="empty"
        ),
        pytest.param(
            changed("completion", " \n\t", "r3", "r4"), DataError, r"2 of 12 .* empty completion \(row_id r3, r4\)", id="blank"
        ),
        pytest.param(changed("completion", None, "r3"), DataError, r"empty completion \(row_id r3\)", id="null_completion"),
        pytest.param(changed("prompt", "", "r3"), DataError, r"empty prompt \(row_id r3\)", id="empty_prompt"),
        pytest.param(
            chat_rows().with_columns(completion=pl.lit([[{"role": "assistant", "content": ""}]]).list.first()),
            DataError,
            r"12 of 12 rows have an empty completion \(row_id r0, r1",
            id="empty_message",
        ),
        pytest.param(
            ROWS.with_columns(label=pl.lit(True)), OneClassError, "all 12 rows are desirable; KTO needs both", id="desirable"
        ),
        pytest.param(ROWS.with_columns(label=pl.lit(False)), OneClassError, "all 12 rows are undesirable", id="undesirable"),
        pytest.param(changed("weight", float("nan"), "r3"), DataError, r"1 of 12 weights are .* \(row_id r3\)", id="nan_weight"),
        pytest.param(changed("weight", -1.0, "r3"), DataError, r"1 of 12 weights are .* \(row_id r3\)", id="negative_weight"),
        pytest.param(
            changed("row_id", "r3", "r4"), DataError, r"2 of 12 rows have no row_id of their own \(r3, r3\)", id="repeated_id"
        ),
        pytest.param(
            chat_rows().with_columns(prompt=pl.lit("what is one ")),
            FormatError,
            "both must be text, or both lists",
            id="half_chat",
        ),
        pytest.param(ROWS.clear(), EmptyDataError, "train: there are no rows", id="no_rows"),
        pytest.param({"train": ROWS, "validation": ROWS}, KtodataError, "dict.*column 'part'", id="dict_of_tables"),
        pytest.param(None, KtodataError, "NoneType", id="nothing"),
    ],
)
def test_rows_are_refused_by_name(rows, error, says):
    with pytest.raises(error, match=says):
        fit(rows, model=NONE_IS_READ)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("batch_size", 1, "batch_size: it should be greater than or equal to 2; got 1"),
        ("dtype", "float16", "dtype: it should be .*'float32'.*'bfloat16'; got 'float16'"),
    ],
)
def test_settings_are_refused_with_their_value(setting, value, says):
    with pytest.raises(SettingError, match=says):
        fit(ROWS, model=NONE_IS_READ, **{setting: value})


# --- counted, and named in the facts ---------------------------------------------------------------------------------------


def test_neighbours_of_one_prompt_are_not_each_others_partners(model_folder):
    """Rows 2k and 2k + 1 share their prompt; taking the next row's completion would pair them."""
    plan = fit(ROWS, model=model_folder, **FAST).metrics["plan"]
    assert (plan["partners_sharing_prompt_group"], plan["partners_with_equal_completion"]) == (0, 0)


def test_where_all_rows_are_one_prompt_the_partners_that_share_it_are_counted(model_folder):
    alike = ROWS.with_columns(prompt=pl.lit("what is one "), prompt_group=pl.lit("same"))
    assert fit(alike, model=model_folder, **FAST).metrics["plan"]["partners_sharing_prompt_group"] == 12


def test_where_all_completions_are_one_the_partners_that_are_equal_are_counted(model_folder):
    alike = ROWS.with_columns(completion=pl.lit("two"))
    assert fit(alike, model=model_folder, **FAST).metrics["plan"]["partners_with_equal_completion"] == 12


def test_a_prompt_that_fills_max_length_is_left_out_by_name(model_folder):
    """19 tokens leave room for one of the completion's, 20 for none."""
    rows = changed("prompt", "one " * 20, "r4").with_columns(
        prompt=pl.when(pl.col("row_id") == "r5").then(pl.lit("one " * 19)).otherwise("prompt")
    )
    result = fit(rows, model=model_folder, max_length=20, **FAST)
    assert result.metrics["train"]["skipped_row_ids"] == ["r4"]
    assert result.metrics["train"]["skipped_over_long_prompt"] == {"desirable": 1, "undesirable": 0}
    assert result.metrics["train"]["cut_row_ids"] == ["r5"]
    assert "r4" not in result.telemetry["row_id"]
    assert result.telemetry.filter(row_id="r5")["completion_tokens"].to_list() == [1]


def test_a_chat_completion_without_a_token_is_left_out_by_name(tmp_path):
    """This template says nothing for the message "yes": no token of it can be learnt from."""
    shown = "{% for m in messages %}{% if m['content'] != 'yes' %}{{ m['role'] }}:{{ m['content'] }}{% endif %}{% endfor %}"
    message = pl.concat_list(pl.struct(role=pl.lit("assistant"), content=pl.lit("yes")))
    rows = chat_rows().with_columns(completion=pl.when(pl.col("row_id") == "r4").then(message).otherwise("completion"))
    result = fit(rows, model=saved(tmp_path, word_tokenizer(chat_template=shown)), **FAST)
    assert result.metrics["train"]["skipped_row_ids"] == ["r4"]


def test_where_no_prompt_leaves_room_the_rows_are_named(model_folder):
    with pytest.raises(EmptyDataError, match=r"none of 12 rows has room for a completion.*row_id r0, r1.*Raise max_length"):
        fit(ROWS, model=model_folder, max_length=2)


def test_where_only_one_label_leaves_room_training_is_refused(model_folder):
    rows = ROWS.with_columns(prompt=pl.when("label").then("prompt").otherwise(pl.lit("one " * 30)))
    with pytest.raises(OneClassError, match="of 12 rows, 8 fit max_length 20, and all of those are desirable"):
        fit(rows, model=model_folder, max_length=20)


# --- the model does not fit the rows ---------------------------------------------------------------------------------------


def test_rows_longer_than_the_models_context_are_named(model_folder):
    rows = changed("completion", "one " * 200, "r3", "r7")
    with pytest.raises(ModelError, match=r"2 of 12 rows are longer than the model's context of 128 tokens \(row_id r3, r7\)"):
        fit(rows, model=model_folder)


def test_messages_need_a_chat_template(tmp_path):
    with pytest.raises(ModelError, match=r"the rows are conversations, but the tokenizer .* has no chat template"):
        fit(chat_rows(), model=saved(tmp_path, word_tokenizer(chat_template=None)))


def test_a_chat_template_that_refuses_a_row_is_told_with_its_name(tmp_path):
    strict = "{% for m in messages %}{% if m['content'] == 'yes' %}{{ raise_exception('no yes') }}{% endif %}{% endfor %}"
    message = pl.concat_list(pl.struct(role=pl.lit("assistant"), content=pl.lit("yes")))
    rows = chat_rows().with_columns(completion=pl.when(pl.col("row_id") == "r4").then(message).otherwise("completion"))
    with pytest.raises(ModelError, match="refuses row_id r4: no yes"):
        fit(rows, model=saved(tmp_path, word_tokenizer(chat_template=strict)))


def test_weights_beyond_their_dtype_are_seen_before_training(tmp_path, tokenizer):
    """3e38 is a float32, a sum of a few of it is none."""
    model = saved(tmp_path, tokenizer, spoil=lambda model: model.model.norm.weight.fill_(3e38))
    with pytest.raises(ModelError, match=r"12 of 12 rows a log-prob that is not finite \(row_id r.*dtype is too narrow"):
        fit(ROWS, model=model, **FAST)


# --- numbers that run away in training -------------------------------------------------------------------------------------


def test_a_loss_that_overflows_names_step_and_row(model_folder):
    """1e300 is a weight in float64, and infinite in the loss's float32."""
    with pytest.raises(ModelError, match=r"step \d: the loss is not finite for 1 of 4 rows \(row_id r3\)"):
        fit(changed("weight", 1e300, "r3"), model=model_folder, **AS_IS)


@pytest.mark.parametrize("beta", [0.1, 50.0])
def test_a_gradient_that_overflows_is_no_update(model_folder, beta):
    """Each row's loss is finite, half its weight, and so is the model; the gradient's norm is not. Clipped by an infinite norm the update
    would be nothing, and with an infinite gradient it would make every weight NaN."""
    with pytest.raises(ModelError, match="step 0: the gradient is not finite"):
        fit(ROWS.with_columns(weight=pl.lit(1e38 if beta < 1 else 3e38)), model=model_folder, beta=beta, max_steps=1, **AS_IS)


# --- another model than before ---------------------------------------------------------------------------------------------


def test_new_weights_under_an_old_name_have_a_reference_of_their_own(tmp_path, tokenizer):
    """Against the kept log-probs of the old weights the first update's log-ratios would not be 0."""
    for seed in (0, 1):
        result = fit(ROWS, model=saved(tmp_path / "model", tokenizer, seed=seed), **FAST)
        assert result.metrics["reference"]["source"] == "computed"
        assert result.telemetry.filter(step=0)["log_ratio"].abs().max() < 1e-4
    assert fit(ROWS, model=str(tmp_path / "model"), **FAST).metrics["reference"]["source"] == "cache"


def test_a_training_is_not_resumed_under_another_model(tmp_path, tokenizer):
    often = {"out": tmp_path / "out", "save_every_steps": 1, "keep_checkpoints": True, **FAST}
    fit(ROWS, model=saved(tmp_path / "model", tokenizer), **often)
    with pytest.raises(RunError, match=r"checkpoints of another training .*or reference.*resume=False"):
        fit(ROWS, model=saved(tmp_path / "model", tokenizer, seed=1), **often)


def test_rows_that_came_later_are_scored_against_the_same_reference(model_folder, tmp_path):
    """After full training nothing of the reference is left in memory; its name in training.json is enough."""
    fit(ROWS, model=model_folder, out=tmp_path / "out", **FAST)
    later = text_rows(8, start=12).with_columns(part=pl.lit("test"))
    evaluation = evaluate(later, model=str(tmp_path / "out"), generate=0, bootstrap=100, device="cpu")
    assert evaluation.metrics["rows"] == 8
    assert evaluation.per_row["row_id"].sort().to_list() == sorted(later["row_id"])


def test_an_out_that_is_a_file_is_refused_before_anything_is_read(tmp_path):
    """Before, it was trained, and the model had no place to go to."""
    place = tmp_path / "thumbs.jsonl"
    place.write_text("")
    with pytest.raises(RunError, match=r"thumbs\.jsonl is a file: out is the folder"):
        fit(ROWS, model=NONE_IS_READ, out=place, **FAST)
