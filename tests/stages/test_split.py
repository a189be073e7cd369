"""split: whole groups to one side, the mix of the whole on each, and no prompt on two sides."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from ktodata.errors import DataError, EmptyDataError, MissingColumnError, SettingError
from ktodata.feedback import feedback_table
from ktodata.formats import read
from ktodata.stages.dedupe import dedupe
from ktodata.stages.split import split
from ktodata.text.prompt_groups import find_leaks


def word(number: int) -> str:
    """Another made-up word for each number, without digits."""
    return "".join("bdfgklmnprstvz"[number // 14**place % 14] + "aeo"[place % 3] for place in range(4))


def sentence(number: int) -> str:
    return " ".join(word(number * 17 + step) for step in range(14))


def planted(prompts: int, variants: int = 4) -> pl.DataFrame:
    """`variants` rows for each of `prompts` prompts: the prompt itself, and it with a word more. Seven rows in ten are desirable."""
    rows = []
    for number in range(prompts):
        for variant in range(variants):
            prompt = sentence(number) + (f" {word(variant)}" if variant else "")
            rows.append((prompt, f"answer {word(number)} {word(900 + variant)}", (number * variants + variant) % 10 < 7))
    return feedback_table(*rows)


def grouped(feedback: pl.DataFrame) -> pl.DataFrame:
    named = dedupe(feedback, near=None).columns.select("row_id", "prompt_group", "prompt_leader")
    return feedback.join(named, on="row_id", maintain_order="left")


def parts(feedback: pl.DataFrame, **settings) -> pl.DataFrame:
    return feedback.join(split(feedback, **settings).columns, on="row_id", maintain_order="left")


def findings(metrics) -> dict[str, str]:
    return {finding["code"]: finding["status"] for finding in metrics["findings"]}


def test_near_duplicate_prompts_stay_on_one_side():
    feedback = grouped(planted(200))
    result = split(feedback, validation=0.1, test=0.1, stratify=True)
    sides = feedback.join(result.columns, on="row_id").with_columns(family=(pl.col("row_id").cast(pl.Int64) - 1) // 4)
    assert sides.group_by("family").agg(pl.col("part").n_unique())["part"].max() == 1
    assert result.metrics["leaks"] == 0
    assert result.metrics["groups"] == 200
    assert findings(result.metrics) == {"KD026": "passed", "KD027": "passed", "KD028": "passed"}


def test_a_split_by_rows_leaks_and_is_caught():
    """200 prompts with four rows each, a random fifth of the rows held out: about 160 rows, and all but one in 125 (0.2^3: the
    three others are held out too) have a training row of the same prompt beside them. Exactly those are found."""
    feedback = planted(200)
    part = np.where(np.random.default_rng(0).random(feedback.height) < 0.2, "test", "train")
    foreign = feedback.with_columns(part=pl.Series(part))
    leaks = find_leaks(foreign)
    torn = foreign.with_columns(family=(pl.col("row_id").cast(pl.Int64) - 1) // 4)
    both = torn.filter(pl.col("part").n_unique().over("family") == 2, pl.col("part") == "test")
    assert both.height > 100
    assert set(leaks["row_id"]) == set(both["row_id"])
    assert leaks["similarity"].min() >= 0.8


def test_groups_that_do_not_hold_together_are_joined():
    """Prompt groups made by something that sees no near-duplicates: one a row. The search finds them, and they are dealt again."""
    feedback = planted(100).with_columns(prompt_group="row_id")
    for stratify in (True, False):
        result = split(feedback, validation=0.1, test=0.1, stratify=stratify)
        assert result.metrics["leaks"] == 0
        assert 0 < result.metrics["groups_joined"] <= 300
        assert result.metrics["left_out"] == 0
        assert find_leaks(feedback.join(result.columns, on="row_id"), seed=99).is_empty()


def test_a_split_that_still_leaks_is_an_error(monkeypatch):
    """The search is made to find a leak whatever is done about it."""
    leak = pl.DataFrame({"row_id": ["1"], "part": ["test"], "other_row_id": ["2"], "other_part": ["train"], "similarity": [1.0]})
    monkeypatch.setattr("ktodata.stages.split.find_leaks", lambda *_, **__: leak)
    with pytest.raises(DataError, match="1 held-out rows still have a near prompt on the other side after 5 rounds"):
        split(grouped(planted(50)), validation=0.1, test=0.1)


def test_every_part_has_the_mix_of_the_whole():
    """1,600 rows, 70 % desirable, three sources with other shares; parts of 10 % are within one group (4 rows) of their share."""
    feedback = grouped(planted(400)).with_columns(source=pl.Series([f"s{int(n**0.5) % 3}" for n in range(1600)]))
    table = parts(feedback, validation=0.1, test=0.1, stratify=True)
    for part in ("validation", "test"):
        here = table.filter(pl.col("part") == part)
        assert abs(here.height - 160) <= 4
        assert abs(here["label"].sum() - 112) <= 4
        for source in ("s0", "s1", "s2"):
            expected = table.filter(pl.col("source") == source).height / 10
            assert abs(here.filter(pl.col("source") == source).height - expected) <= 8


def test_a_rare_label_reaches_every_part():
    """40 undesirable rows of 2,000: a tenth is four."""
    feedback = feedback_table(*((sentence(n), word(n), n % 50 > 0) for n in range(2_000)))
    metrics = split(grouped(feedback), validation=0.1, test=0.1, stratify=True).metrics
    assert [metrics["parts"][part]["undesirable"] for part in ("train", "validation", "test")] == [32, 4, 4]
    assert metrics["parts"]["test"]["share_of_undesirable"] == 0.1


def test_a_hash_meets_fractions_within_chance():
    """3,000 prompts of four rows, a tenth of each label: 300 groups give or take 16.4; within three of them."""
    feedback = planted(3_000)
    named = feedback.with_columns(prompt_group=((pl.col("row_id").cast(pl.Int64) - 1) // 4).cast(pl.String))
    metrics = split(named, validation=0.1, test=0.2, near_prompts=1).metrics
    for part, share in (("validation", 0.1), ("test", 0.2), ("train", 0.7)):
        within = 3 * (share * (1 - share) / 3_000) ** 0.5
        for of in ("rows", "desirable", "undesirable"):
            assert metrics["parts"][part][f"share_of_{of}"] == pytest.approx(share, abs=within)


def test_large_groups_go_where_they_fit():
    """One prompt holds 60 of 160 rows. It fits neither a validation nor a test part of 16."""
    feedback = grouped(
        feedback_table(
            *[(sentence(0), word(n), n % 2 == 0) for n in range(60)], *((sentence(n), word(n), n % 2 == 0) for n in range(1, 101))
        )
    )
    table = parts(feedback, validation=0.1, test=0.1, stratify=True)
    assert set(table.head(60)["part"]) == {"train"}
    assert all(abs(table.filter(pl.col("part") == part).height - 16) <= 1 for part in ("validation", "test"))


def test_groups_too_large_for_the_fractions_are_reported():
    """Five prompts of 20 rows: a part of 10 rows becomes one of 20 or none."""
    feedback = grouped(feedback_table(*((sentence(n % 5), word(n), n % 3 > 0) for n in range(100))))
    result = split(feedback, validation=0, test=0.1)
    assert result.metrics["parts"]["test"]["rows"] % 20 == 0
    assert findings(result.metrics)["KD026"] == "issue"


def test_a_part_without_one_label_is_reported():
    feedback = grouped(feedback_table(*((sentence(n), word(n), n != 7) for n in range(100))))
    assert findings(split(feedback, validation=0.1, test=0.1).metrics)["KD027"] == "issue"
    same = feedback.with_columns(label=pl.lit(True))
    assert findings(split(same, validation=0.1, test=0.1).metrics)["KD027"] == "not_applicable"


def test_rows_held_for_review_get_a_part():
    feedback = grouped(planted(50)).with_columns(state=pl.Series(["review", "keep"] * 100))
    assert split(feedback, validation=0.1, test=0.1).columns["part"].null_count() == 0


def test_another_column_can_hold_rows_together():
    feedback = grouped(planted(100)).with_columns(rater=pl.Series([f"r{n % 40}" if n % 41 else None for n in range(400)]))
    result = split(feedback, validation=0.1, test=0.1, group="rater")
    table = feedback.join(result.columns, on="row_id").drop_nulls("rater")
    assert table.group_by("rater").agg(pl.col("part").n_unique())["part"].max() == 1
    assert result.metrics["leaks"] > 0  # near prompts were not asked to stay together: counted, not hidden
    assert result.tables["leaks"].height == result.metrics["leaks"]
    assert findings(result.metrics)["KD028"] == "issue"


def test_no_groups():
    result = split(grouped(planted(100)), validation=0.1, test=0.1, group="none")
    assert result.metrics["groups"] == 400
    assert result.metrics["parts"]["test"]["rows"] == pytest.approx(40, abs=18)  # three of its standard errors, sqrt(36)


def test_the_seed_decides():
    feedback = grouped(planted(100))
    first, again, other = (split(feedback, validation=0.1, test=0.1, seed=seed).columns for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_rows_that_are_added_move_few_others():
    feedback = grouped(planted(400))
    before = split(feedback.head(1200), validation=0.1, test=0.1, stratify=True).columns
    after = split(feedback, validation=0.1, test=0.1, stratify=True).columns
    moved = before.join(after, on="row_id").filter(pl.col("part") != pl.col("part_right")).height
    assert moved < 0.05 * 1200


@pytest.mark.parametrize("stratify", [True, False])
def test_order_of_the_rows_does_not_matter(stratify):
    feedback = planted(100)
    first, other = (
        parts(grouped(rows), validation=0.1, test=0.1, stratify=stratify).sort("row_id")
        for rows in (feedback, feedback.sample(fraction=1, shuffle=True, seed=0))
    )
    assert first.equals(other)


# what grows


def timed(feedback: pl.DataFrame, since: int = 0) -> pl.DataFrame:
    """Each row an hour after the one before."""
    hours = pl.datetime_range(pl.datetime(2025, 1, 1), pl.datetime(2035, 1, 1), "1h", time_zone="UTC", eager=True)
    return feedback.with_columns(created_at=hours.slice(since, feedback.height))


def chains(families: int, length: int, seed: int) -> list[tuple[str, str, bool]]:
    """Prompts that grow by one word, and lose one, at each step: near their neighbours, and the ends of a line are not; shuffled,
    so that what comes late links what came early."""
    rows = []
    for family in range(families):
        words = [word(family * 97 + step) for step in range(30 + length)]
        rows += [(" ".join(words[step : step + 30]), f"answer {family}", (family + step) % 3 > 0) for step in range(length)]
    return [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]


def test_feedback_that_comes_later_moves_no_row():
    """2,000 prompts in 200 chains; the last tenth comes later, and much of it is near old rows or links two old groups."""
    feedback = timed(feedback_table(*chains(200, 10, seed=3)))
    weeks = [grouped(feedback.head(rows)) for rows in (1_600, 1_800, 2_000)]
    results = [split(week, validation=0.1, test=0.15) for week in weeks]
    for (week, before), (later, after) in pairwise(zip(weeks, results, strict=True)):
        both = before.columns.join(after.columns, on="row_id")
        assert both.height == week.height
        assert both.filter(pl.col("part") != pl.col("part_right")).is_empty()
        renamed = week.join(later, on="row_id").filter(pl.col("prompt_group") != pl.col("prompt_group_right"))
        assert renamed.height > 0  # groups were linked: the case is there
    for week, result in zip(weeks, results, strict=True):
        stays = week.join(result.columns, on="row_id").join(result.decisions, on="row_id", how="anti")
        assert find_leaks(stays, seed=99).is_empty()
        assert week.height == stays.height + result.metrics["left_out"]
    assert results[-1].metrics["left_out"] > 0


def test_a_prompt_that_links_two_parts_moves_neither():
    """Two prompts 0.6 alike that are drawn into different parts, and one between them: rows of one part are left out."""
    words = [word(step) for step in range(60)]
    ends = [" ".join(words[:44]), " ".join(words[8:52])]
    link = " ".join(words[4:48])
    old = [(text, f"answer {word(n)}", n % 2 == 0) for text in ends for n in range(3)]
    more = [(sentence(100 + n), "x", n % 2 == 0) for n in range(40)]
    feedback = timed(feedback_table(*old, *more, (link, "between", True)))
    seed = next(
        seed
        for seed in range(100)
        if set(parts(grouped(feedback.head(46)), test=0.3, seed=seed).head(6)["part"]) == {"train", "test"}
    )
    before, after = (split(grouped(rows), test=0.3, seed=seed) for rows in (feedback.head(46), feedback))
    assert before.metrics["left_out"] == 0
    assert before.columns.join(after.columns, on="row_id").filter(pl.col("part") != pl.col("part_right")).is_empty()
    assert after.metrics["left_out"] == after.decisions.height == 3  # the link follows the elder end: four rows against three
    assert "3 rows were left out" in next(finding["text"] for finding in after.metrics["findings"] if finding["code"] == "KD028")
    assert set(after.decisions["reason"]) == {"near_other_part"}


def test_without_times_only_followers_of_a_new_leader_move():
    """A tenth more rows, drawn at random and without times: a row moves only where its leader is new, and few do."""
    feedback = feedback_table(*chains(200, 10, seed=3))
    old = grouped(feedback.sample(fraction=0.9, seed=1))
    new = grouped(feedback)
    both = split(old, validation=0.1, test=0.15).columns.join(split(new, validation=0.1, test=0.15).columns, on="row_id")
    moved = both.filter(pl.col("part") != pl.col("part_right"))
    leaders = old.join(new, on="row_id").filter(pl.col("prompt_leader") != pl.col("prompt_leader_right"))
    assert set(moved["row_id"]) <= set(leaders["row_id"])
    assert moved.height < leaders.height / 2


def test_a_part_that_the_hash_leaves_empty_is_filled_and_said():
    feedback = grouped(feedback_table(*((sentence(n), "x", n % 2 == 0) for n in range(20))))
    filled = [split(feedback, seed=seed).metrics for seed in range(20)]
    assert all(metrics["parts"][part]["rows"] >= 1 for metrics in filled for part in metrics["parts"])
    assert 0 < sum(bool(metrics["filled"]) for metrics in filled) < 20


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"validation": 5}, SettingError, r"split: validation is a fraction of the rows.*got 5. Did you mean 0.05\?"),
        ({"test": -0.1}, SettingError, "split: test is a fraction of the rows.*got -0.1"),
        ({"validation": 0.5, "test": 0.5}, SettingError, "validation 0.5 and test 0.5 sum to 1 and leave nothing to train on"),
        ({"group": "person"}, MissingColumnError, "split: group is 'person', which is neither prompt nor none nor a column"),
        ({}, EmptyDataError, "test would be empty. 4 rows form 4 groups, the largest of 1 rows"),
    ],
)
def test_what_cannot_be_split_is_an_error(settings, error, message):
    feedback = grouped(feedback_table(*((sentence(n), "x", n > 1) for n in range(4))))
    with pytest.raises(error, match=message):
        split(feedback, **settings)


def test_an_empty_table_and_a_missing_column_are_errors():
    with pytest.raises(EmptyDataError, match="split: there are no rows to split"):
        split(grouped(feedback_table()))
    with pytest.raises(MissingColumnError, match="split needs column 'prompt_group'"):
        split(planted(3))


def test_a_small_table_still_fills_small_parts():
    """20 prompts of one row, 5 % each: one row for validation and one for test."""
    feedback = grouped(feedback_table(*((sentence(n), "x", n % 2 == 0) for n in range(20))))
    metrics = split(feedback, stratify=True).metrics
    assert {name: part["rows"] for name, part in metrics["parts"].items()} == {"train": 18, "validation": 1, "test": 1}


def test_a_thousand_sources_are_not_a_thousand_strata():
    feedback = grouped(feedback_table(*((sentence(n), "x", n % 2 == 0) for n in range(1_000))))
    many = feedback.with_columns(source=pl.Series([f"s{n if n > 500 else 0}" for n in range(1_000)]))
    table = parts(many, validation=0.1, test=0.1, stratify=True)
    assert abs(table.filter(pl.col("source") == "s0", pl.col("part") == "test").height - 50) <= 1
    assert abs(table.filter(pl.col("source") != "s0", pl.col("part") == "test").height - 50) <= 1


def test_verdicts_on_several_turns_of_a_conversation_stand_on_one_side(tmp_path):
    """An answer that is held out would else stand in a prompt that is trained on, whose words are hardly the same."""
    lines = []
    for number in range(60):
        texts = [f"{sentence(10 * number + place)} " * (place + 1) for place in range(6)]
        turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
        about = {"talk": number, "created_at": f"2026-01-{1 + number % 28:02d}"}
        lines += [json.dumps(about | {"messages": turns[:end], "label": end % 4 == 0}) + "\n" for end in (2, 4, 6)]
    (tmp_path / "talks.jsonl").write_text("".join(lines))
    rows = read(tmp_path / "talks.jsonl", messages="messages", created_at="created_at", keep=["talk"]).feedback
    grouped = rows.join(dedupe(rows, near=None).columns, on="row_id")
    assert grouped["prompt_group"].n_unique() == grouped["prompt_leader"].n_unique() == 60
    parts = grouped.join(split(grouped, validation=0.2, test=0.2).columns, on="row_id")
    assert parts["part"].n_unique() == 3
    assert parts.group_by("talk").agg(pl.col("part").n_unique())["part"].max() == 1
