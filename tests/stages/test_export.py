"""export: who goes where, in which order; and the table as it is written, which the trainer reads as it is."""

import json
from functools import partial

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktodata.errors import DataError, EmptyDataError, MissingColumnError
from ktodata.feedback import feedback_table
from ktodata.formats.shards import write_shards
from ktodata.ledger import StageDecisions, account, add_columns, outcomes, write_up
from ktodata.stages.dedupe import dedupe
from ktodata.stages.export import export, shard_table
from ktodata.stages.row_order import check_order


def rows(count, desirable=0.5):
    table = feedback_table(*[(f"p{i}", f"c{i}", i < desirable * count) for i in range(count)])
    return table.with_columns(state=pl.lit("keep"))


def statuses(result):
    """Of the findings about the order of rows."""
    return {finding["code"]: finding["status"] for finding in result.metrics["findings"] if finding["code"] in ("KD090", "KD091")}


def test_rows_in_state_keep_and_relabel_are_exported_and_each_part_has_its_own_positions():
    table = rows(10).with_columns(
        state=pl.Series(["keep", "relabel", "review", "drop"] + ["keep"] * 6),
        part=pl.Series(["train"] * 7 + ["test", "validation", "test"]),
    )
    result = export(table, shard_rows=2)
    assert result.columns.schema == {"row_id": pl.String, "part": pl.String, "shard": pl.Int32, "position": pl.Int64}
    placed = result.columns.select("part", "shard", "position").rows()
    assert placed == [
        *[("train", 0, 0), ("train", 0, 1), ("train", 1, 2), ("train", 1, 3), ("train", 2, 4)],
        ("validation", 0, 0),
        *[("test", 0, 0), ("test", 0, 1)],
    ]
    assert result.columns["row_id"].to_list()[5:] == ["9", "8", "10"]  # held out: in the order of the table
    assert set(result.columns["row_id"]) == {"1", "2", "5", "6", "7", "8", "9", "10"}
    assert result.metrics["rows"] == {"test": 2, "train": 5, "validation": 1}
    assert result.metrics["relabelled"] == 1
    json.dumps(result.metrics)


def test_every_block_holds_both_labels_and_no_prompt_twice():
    """80 desirable, 80 undesirable, each prompt with one of both; in file order the first five blocks are all desirable."""
    table = feedback_table(*[(f"p{i % 80}", f"c{i}", i < 80) for i in range(160)]).with_columns(state=pl.lit("keep"))
    result = export(table, block=16)
    written = shard_table(table, result.columns)
    for block in range(10):
        rows = written[block * 16 : block * 16 + 16]
        assert rows["label"].sum() == 8
        assert rows["prompt"].n_unique() == 16
    assert statuses(result) == {"KD090": "passed", "KD091": "passed"}


def test_near_duplicate_prompts_count_as_one_prompt():
    table = rows(64).with_columns(prompt_group=pl.format("g{}", pl.int_range(pl.len()) % 16))
    result = export(table, block=16)
    groups = shard_table(table, result.columns)["prompt_group"]
    assert [groups[start : start + 16].n_unique() for start in range(0, 64, 16)] == [16] * 4


def test_a_row_alone_in_the_last_block_is_left_out_by_a_decision():
    """33 rows in blocks of 16 leave one: the least trustworthy of the larger class, which is row 3."""
    quality = pl.Series("label_quality", [0.5] * 33).scatter(2, 0.1).scatter(32, 0.0)  # row 33 is worse, but of the rarer class
    table = rows(33, desirable=0.7).with_columns(quality)
    result = export(table, block=16)
    assert result.actions() == {"3": ("drop", "alone_in_last_block")}
    assert result.metrics["left_out"] == ["3"]
    assert result.columns.height == 32 and "3" not in result.columns["row_id"]
    assert json.loads(result.decisions["evidence"][0]) == {"block": 16, "label": True, "label_quality": 0.1}


def test_a_lone_row_can_be_kept_and_is_reported_then():
    result = export(rows(33), block=16, lone_row="keep")
    assert (result.columns.height, result.actions(), result.metrics["order"]["lone_last_row"]) == (33, {}, True)
    assert "1 row is alone in the last block" in result.metrics["findings"][1]["text"]


def test_the_only_row_is_not_left_out():
    assert export(rows(1)).columns.height == 1


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 90), block=st.integers(2, 20), seed=st.integers(0, 5))
def test_no_row_is_lost_and_no_last_block_is_a_single_row(count, block, seed):
    table = rows(count)
    result = export(table, block=block, seed=seed)
    assert set(result.columns["row_id"]) | set(result.actions()) == set(table["row_id"])
    assert result.columns.height + len(result.actions()) == count
    assert result.columns.height % block != 1 or count == 1


@pytest.mark.parametrize("block", [2, 3, 7, 16])
@pytest.mark.parametrize("desirable", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_each_row_has_one_outcome_whatever_the_labels_and_the_block(block, desirable):
    """Repeats are dropped or held, and one row stands alone for some counts: decisions, ledger and account agree."""
    alone = 0
    for count in range(2 * block, 2 * block + 4):
        repeats = rows(2, desirable).with_columns(row_id=pl.format("again {}", "row_id"))
        table = left = pl.concat([rows(count, desirable), repeats])
        decided = []
        for name, stage in {"dedupe": dedupe, "export": partial(export, block=block)}.items():
            result = stage(left)
            assert not result.decisions["row_id"].is_duplicated().any()
            decided.append(StageDecisions(name, "all", result.decisions))
            left = add_columns(left, result)
        alone += len(result.metrics["left_out"])
        ledger = write_up(decided, outcomes(table["row_id"], decided, part=None, split_follows=False), result.columns)
        assert sorted(ledger.filter(pl.col("stage") == "export")["row_id"]) == sorted(table["row_id"])
        counts = account(ledger, table["row_id"], result.columns, quarantined_records=0)
        assert counts["dropped"] + counts["review"] == table.height - result.columns.height
    assert alone


def both_labels(table, **settings):
    return next(each for each in export(table, **settings).metrics["findings"] if each["code"] == "KD093")


EVEN_VOTES = (("sky?", "Blue", True), ("sky?", "blue ", False), ("sky?", "red", False), ("2+2?", "4", True), ("2+2?", "4", True))


def test_kd093_counts_texts_and_rows_that_are_written_with_both_labels():
    """Of three texts one has both, in two rows; relabelling one of the repeats makes it two, in four."""
    table = feedback_table(*EVEN_VOTES).with_columns(state=pl.lit("keep"))
    finding = both_labels(table)
    assert (finding["status"], finding["rows"]) == ("issue", 2)
    assert finding["text"].startswith("1 of 3 texts have both labels in what is written: 2 of 5 rows,")
    assert both_labels(table.with_columns(state=pl.Series(["keep"] * 4 + ["relabel"])))["rows"] == 4
    assert both_labels(table.with_columns(state=pl.Series(["review", "review"] + ["keep"] * 3)))["status"] == "passed"
    as_turns = pl.Series(
        [[{"role": role, "content": "sky?"}] for role in ("user", "system")] + [None] * 3, dtype=table.schema["turns"]
    )
    assert both_labels(table.with_columns(turns=as_turns))["status"] == "passed"  # asked by two roles: two texts


@pytest.mark.parametrize("ignore_case", [True, False])
def test_kd093_is_silent_where_dedupe_has_decided(ignore_case):
    """Held as one text by default; kept as two where case is said to matter."""
    table = feedback_table(*EVEN_VOTES)
    result = dedupe(table, near=None, ignore_case=ignore_case)
    state = pl.Series([result.actions().get(row, ("keep",))[0] for row in table["row_id"]])
    table = table.with_columns(state=state).join(result.columns.select("row_id", "duplicate_of"), on="row_id")
    assert state.to_list().count("review") == (2 if ignore_case else 0)
    assert both_labels(table)["status"] == "passed"


def test_the_order_depends_on_the_seed_only():
    table = rows(100)
    assert export(table, seed=1).columns.equals(export(table, seed=1).columns)
    assert not export(table, seed=1).columns.equals(export(table, seed=2).columns)


def test_kd090_and_kd091_count_what_cannot_be_kept():
    """48 rows in 3 blocks, 2 desirable: one block has none. Half of the rows are one prompt: 24 rows over 3 blocks, 21 too many."""
    table = rows(48, desirable=2 / 48).with_columns(prompt_group=pl.when(pl.int_range(pl.len()) < 24).then(0).otherwise("row_id"))
    result = export(table, block=16)
    assert statuses(result) == {"KD090": "issue", "KD091": "issue"}
    assert result.metrics["order"]["single_class_blocks"] == 1
    assert result.metrics["order"]["same_group_in_block"] == result.metrics["order"]["unavoidable_same_group_in_block"] == 21


def test_findings_do_not_apply_without_training_rows():
    result = export(rows(4).with_columns(part=pl.lit("test")))
    assert statuses(result) == {"KD090": "not_applicable", "KD091": "not_applicable"}


def test_nothing_left_to_export_says_where_the_rows_are():
    with pytest.raises(EmptyDataError, match=r"none of 3 rows is left to export \(states: \{'review': 3\}\)"):
        export(rows(3).with_columns(state=pl.lit("review")))


def test_an_unknown_part_is_refused():
    with pytest.raises(DataError, match="part is 'dev' in some rows"):
        export(rows(3).with_columns(part=pl.lit("dev")))


def test_the_written_table_holds_what_a_trainer_and_a_reader_need():
    table = rows(4).with_columns(
        weight=pl.Series([1.0, 2.0, 1.0, None]),
        cluster=pl.lit(7),
        ticket=pl.lit("T1"),
        images=pl.lit("hammer"),
        scratch=pl.lit(0),
    )
    written = shard_table(table, export(table).columns, metadata=["ticket", "images"])
    assert written.columns == [
        *["part", "shard", "position", "row_id", "prompt", "completion", "label", "weight", "cluster"],
        *["source", "source_id", "rater", "model", "ticket", "meta_images"],  # TRL would take a column `images` for its own
    ]
    assert dict(written.select("row_id", "weight").sort("row_id").rows()) == {"1": 1.0, "2": 2.0, "3": 1.0, "4": 1.0}


def test_a_relabelled_row_is_written_with_its_new_label():
    table = rows(4).with_columns(state=pl.Series(["relabel", "keep", "keep", "relabel"]))
    written = shard_table(table, export(table).columns).sort("row_id")
    assert written["label"].to_list() == [False, True, False, True]


TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]


def test_one_conversation_makes_all_rows_conversations():
    table = feedback_table({"prompt": "System: ...", "turns": TURNS, "completion": "4", "label": True}, ("sky?", "blue", False))
    table = table.with_columns(state=pl.lit("keep"))
    written = shard_table(table, export(table).columns).sort("row_id")
    assert written["prompt"].to_list() == [TURNS, [{"role": "user", "content": "sky?"}]]
    assert written["completion"].to_list() == [
        [{"role": "assistant", "content": "4"}],
        [{"role": "assistant", "content": "blue"}],
    ]
    assert export(table).metrics["conversational"] is True


@pytest.mark.parametrize(("setting", "expected"), [("auto", pl.String()), ("never", pl.String()), ("always", None)])
def test_plain_rows_stay_plain_unless_asked(setting, expected):
    table = rows(2)
    written = shard_table(table, export(table, conversational=setting).columns, conversational=setting)
    assert (written.schema["prompt"] == expected) is (expected is not None)


def test_metadata_that_is_not_there_is_named():
    with pytest.raises(MissingColumnError, match="shard_table needs column 'ticket'"):
        shard_table(rows(2), export(rows(2)).columns, metadata=["ticket"])


@pytest.mark.parametrize("chat", [False, True])
def test_datasets_and_trl_read_the_shards_as_they_are(tmp_path, chat):
    from datasets import List, Value, load_dataset
    from trl.data_utils import is_conversational

    table = rows(10).with_columns(part=pl.Series(["train"] * 8 + ["test"] * 2))
    columns = export(table, shard_rows=3).columns
    written = shard_table(table, columns, conversational="always" if chat else "never")
    files = write_shards(written, tmp_path / "shards")
    data = load_dataset(
        "parquet",
        data_files={"train": str(tmp_path / "shards" / "train-*.parquet"), "test": str(tmp_path / "shards" / "test-*.parquet")},
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(files) == 4 and (len(data["train"]), len(data["test"])) == (8, 2)
    assert data["train"].features["label"].dtype == "bool"
    text = Value("string")
    turns = List({"role": text, "content": text})
    assert [data["train"].features[side] for side in ("prompt", "completion")] == [turns if chat else text] * 2
    assert data["train"].features["weight"].dtype == "float64"
    assert is_conversational(data["train"][0]) is chat
    train = written.filter(pl.col("part") == "train")
    assert data["train"]["row_id"][:] == train["row_id"].to_list()
    assert data["train"]["prompt"][:] == train["prompt"].to_list()
    assert data["train"]["completion"][:] == train["completion"].to_list()


def test_the_checker_agrees_with_the_written_order():
    table = rows(50, desirable=0.3).with_columns(prompt_group=pl.format("g{}", pl.int_range(pl.len()) % 20))
    result = export(table, block=8, lone_row="keep")
    written = shard_table(table, result.columns)
    codes = written.select(pl.col("prompt_group", "completion").rank("dense").cast(pl.Int64))
    again = check_order(
        pl.int_range(50, eager=True).to_numpy(),
        written["label"].to_numpy(),
        codes["prompt_group"].to_numpy(),
        codes["completion"].to_numpy(),
        block=8,
    )
    assert again.as_dict() == result.metrics["order"]
