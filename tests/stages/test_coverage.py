"""coverage: planted topics are found, named and counted; what a reference set has beyond them is a hole."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from encoders import save_encoder

from ktodata.embeddings.holes import Cut, Reach, Uncovered
from ktodata.errors import EmptyDataError, SettingError
from ktodata.feedback import feedback_table
from ktodata.stages.coverage import check_reference, coverage
from ktodata.stages.embed import embed

TOPICS = {"units": "convert feet metres", "poems": "poem spring love", "food": "pasta tomato"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder"), dimension=16)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))


def prompts(topic, count):
    """`count` different prompts with the topic's words in different amounts."""
    words = TOPICS[topic].split()
    rng = np.random.default_rng(len(topic))
    return [" ".join([*words, *rng.choice(words, 60), f"#{topic}{i}"]) for i in range(count)]


@pytest.fixture(scope="module")
def feedback(encoder):
    """120 units (half desirable), 60 poems (half), 40 food (all desirable), each prompt once; from two sources in turn."""
    table = pl.DataFrame({"prompt": prompts("units", 120) + prompts("poems", 60) + prompts("food", 40)}).with_row_index("i")
    table = table.with_columns(
        row_id=pl.format("{}", "i"),
        completion=pl.lit("yes"),
        label=(pl.col("i") % 2 == 0) | (pl.col("i") >= 180),
        source=pl.when(pl.col("i") % 4 < 2).then(pl.lit("a")).otherwise(pl.lit("b")),
        state=pl.lit("keep"),
    )
    return table.join(embed(table, model=encoder, cache=False).columns, on="row_id", maintain_order="left").drop("i")


def statuses(result):
    return {finding["code"]: finding["status"] for finding in result.metrics["findings"]}


def test_the_planted_topics_are_clusters_with_their_names_and_counts(feedback):
    result = coverage(feedback)
    clusters = result.tables["clusters"]
    assert clusters.select("cluster", "rows", "prompts", "desirable").rows() == [
        (0, 120, 120, 60),
        (1, 60, 60, 30),
        (2, 40, 40, 40),
    ]
    for name, words in zip(clusters["name"], TOPICS.values(), strict=True):
        assert set(words.split()) & set(name.replace(",", "").split())
    assert [near[0].split()[0] for near in clusters["exemplars"]] == ["convert", "poem", "pasta"]
    assert result.columns["cluster"].to_list() == [0] * 120 + [1] * 60 + [2] * 40
    assert result.columns.schema["cluster"] == pl.Int32
    json.dumps(result.metrics)


def test_effective_number_of_clusters_by_hand(feedback):
    """Shares 6/11, 3/11, 2/11."""
    share = np.array([6, 3, 2]) / 11
    metrics = coverage(feedback).metrics["effective_clusters"]
    assert metrics["value"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert metrics["low"] < metrics["value"] < metrics["high"] <= 3


def test_the_cluster_of_one_label_differs_from_the_rest(feedback):
    result = coverage(feedback)
    clusters = result.tables["clusters"]
    assert clusters["one_label"].to_list() == [False, False, True]
    assert clusters["differs"].to_list()[2]
    assert clusters["desirable_share"].to_list() == [0.5, 0.5, 1.0]
    assert clusters["desirable_low"][2] == pytest.approx(0.025 ** (1 / 40))  # exact interval of 40 of 40
    assert clusters["desirable_high"][2] == 1
    assert statuses(result) == {
        "KD053": "not_applicable",
        "KD080": "issue",  # more than half of the rows are units
        "KD081": "issue",
        "KD082": "passed",
        "KD083": "issue",
        "KD084": "not_applicable",
    }


def test_labels_given_at_random_do_not_differ_between_clusters(feedback):
    """Six draws of labels: Holm's correction lets about one in twenty through."""
    fired = 0
    for seed in range(6):
        label = np.random.default_rng(seed).random(feedback.height) < 0.6
        result = coverage(feedback.with_columns(label=pl.Series(label)), clusters=3)
        fired += statuses(result)["KD081"] == "issue"
    assert fired <= 1


def test_cluster_labels_add_up(feedback):
    cells = coverage(feedback).tables["cluster_labels"]
    assert cells["rows"].sum() == feedback.height
    food_a = cells.filter(pl.col("cluster") == 2, pl.col("source") == "a").rows(named=True)
    assert [(row["label"], row["rows"], row["share"]) for row in food_a] == [(False, 0, 0.0), (True, 20, 1.0)]
    assert food_a[1]["low"] == pytest.approx(0.025 ** (1 / 20))


def test_a_thin_cluster_is_named(feedback):
    thin = feedback.filter(~pl.col("prompt").str.contains("#food[1-3][0-9]$"))  # 10 of 40 are left
    result = coverage(thin, clusters=3)
    assert result.tables["clusters"]["thin"].to_list() == [False, False, True]
    text = next(f["text"] for f in result.metrics["findings"] if f["code"] == "KD082")
    assert "pasta" in text and "10 rows" in text


def test_only_rows_trained_on_are_counted_but_every_row_has_a_cluster(feedback):
    table = feedback.with_columns(
        part=pl.when(pl.int_range(pl.len()) % 10 == 0).then(pl.lit("test")).otherwise(pl.lit("train")),
        state=pl.when(pl.int_range(pl.len()) % 10 == 1).then(pl.lit("review")).otherwise(pl.lit("keep")),
    )
    result = coverage(table)
    assert result.metrics["rows"] == result.tables["clusters"]["rows"].sum() == 176
    assert result.columns["cluster"].to_list() == [0] * 120 + [1] * 60 + [2] * 40
    assert result.columns.filter(pl.col("map_x").is_not_null()).height == 176


def test_a_relabelled_row_counts_with_its_new_label(feedback):
    flipped = feedback.with_columns(
        state=pl.when(pl.col("prompt").str.ends_with("#food0")).then(pl.lit("relabel")).otherwise("state")
    )
    assert coverage(flipped, clusters=3).tables["clusters"]["desirable"].to_list() == [60, 30, 39]


def test_a_region_that_the_training_prompts_lack_is_a_hole_with_the_rows_it_needs(feedback, encoder):
    """Units and poems are trained on, food is not. Of the reference 30 are units, 15 poems, 20 food: only food is uncovered.

    Rows per covered reference prompt: units 120/30 = 4, poems 60/15 = 4; the 20 food prompts need 80 rows to be level.
    """
    trained = feedback.filter(~pl.col("prompt").str.contains("food"))
    reference = prompts("units", 30) + prompts("poems", 15) + prompts("food", 20)
    result = coverage(trained, reference=reference, encoder=encoder)
    holes = result.tables["holes"]
    assert holes["reference_prompts"].sum() == 20
    assert holes["rows_needed"].sum() == 80
    assert holes.height == 1
    assert all(text.startswith("pasta") for text in holes["examples"][0])
    assert "pasta" in holes["name"][0] or "tomato" in holes["name"][0]
    assert result.metrics["reference"]["uncovered"]["share"] == pytest.approx(20 / 65)
    assert statuses(result)["KD084"] == "issue"


def test_a_covered_reference_has_no_holes(feedback, encoder):
    result = coverage(feedback, reference=prompts("units", 30) + prompts("food", 30), encoder=encoder)
    assert statuses(result)["KD084"] == "passed"
    assert result.metrics["reference"]["uncovered"]["share"] == 0
    assert result.tables["holes"].height == 0


def test_kd084_says_that_it_cannot_say_where_only_a_high_threshold_tells_a_difference():
    cuts = Cut(0.05, 0.3, False, -0.05, 0.02), Cut(0.4, 0.8, True, 0.5, 0.7)
    table = pl.DataFrame({"similarity": [0.7] * 9 + [0.9], "count": [2] * 10})
    missed = Uncovered(prompts=0, of=10, traffic=0, traffic_of=20)
    compared = SimpleNamespace(uncovered=lambda: missed, threshold=0.3, reach=Reach(*cuts, 0.1), table=table)
    finding = check_reference(compared, pl.DataFrame())
    assert finding.status == "not_applicable"
    assert finding.text.startswith("cannot say: 0 of 10 different reference prompts (0% of the 20 asked)")
    assert "but 9 have none within 0.80, as 40% of the training prompts" in finding.text


def test_repeated_reference_prompts_are_one_by_chance_and_a_hole_as_large_as_they_are_asked(feedback, encoder):
    result = coverage(feedback, reference=["yes no"] * 7 + prompts("units", 3), encoder=encoder, min_similarity=0.9)
    uncovered = result.metrics["reference"]["uncovered"]
    assert (uncovered["rows"], uncovered["share"], uncovered["share_of_traffic"]) == (1, 1 / 4, 7 / 10)
    assert result.tables["holes"]["reference_prompts"].to_list() == [7]


@pytest.mark.parametrize("min_similarity", [None, 0.6])
@pytest.mark.parametrize("foreign", [["yes no"] * 1000, ["yes no", "maybe so", "well then"] * 400])
def test_a_prompt_that_most_of_the_traffic_asks_is_never_passed_over(feedback, encoder, foreign, min_similarity):
    reference = prompts("units", 30) + prompts("food", 30) + foreign
    result = coverage(feedback, reference=reference, encoder=encoder, min_similarity=min_similarity)
    finding = next(each for each in result.metrics["findings"] if each["code"] == "KD084")
    assert finding["status"] == "issue" and "asked much more than others" in finding["text"]
    assert result.tables["holes"]["reference_prompts"].sum() == len(foreign)


@pytest.mark.parametrize("times", [1, 3, 500])
def test_one_unlike_prompt_of_many_passes_however_often_all_are_asked(feedback, encoder, times):
    """No more is made of one in 61 where each is asked 500 times, as repeats are no further draws."""
    reference = (prompts("units", 30) + prompts("food", 30) + ["yes no"]) * times
    for min_similarity in (None, 0.6):
        result = coverage(feedback, reference=reference, encoder=encoder, min_similarity=min_similarity)
        assert statuses(result)["KD084"] == "passed"
        assert result.metrics["reference"]["uncovered"]["rows"] == 1


def test_near_duplicates_of_one_group_do_not_set_the_threshold(feedback, encoder):
    """Each prompt twice, the copies differing in a mark the encoder does not see: nearest is 1 unless groups are left out."""
    twins = pl.concat(
        [
            feedback.with_columns(prompt_group="row_id"),
            feedback.with_columns(prompt_group="row_id", row_id="x" + pl.col("row_id"), prompt=pl.col("prompt") + " !"),
        ]
    )
    threshold = coverage(twins, reference=["yes"], encoder=encoder).metrics["reference"]["min_similarity"]
    assert threshold < 0.99999


@pytest.mark.parametrize(
    ("encoder_named", "message"), [(None, "needs encoder"), ("other", "other vectors"), ("larger", r"\(32 dimensions\)")]
)
def test_a_reference_needs_the_encoder_of_embed(feedback, encoder_named, message, tmp_path):
    named = {
        None: lambda: None,
        "other": lambda: save_encoder(tmp_path, dimension=16, seed=5),
        "larger": lambda: save_encoder(tmp_path, dimension=32),
    }[encoder_named]()
    with pytest.raises(SettingError, match=message):
        coverage(feedback, reference=["feet"], encoder=named)


def test_nothing_to_train_on_is_refused(feedback):
    with pytest.raises(EmptyDataError, match="none of 220 rows"):
        coverage(feedback.with_columns(state=pl.lit("drop")))


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_rows(feedback, encoder):
    reference = [*prompts("units", 30), "yes no"]
    first = coverage(feedback, reference=reference, encoder=encoder, seed=3)
    again = coverage(feedback.reverse(), reference=reference, encoder=encoder, seed=3)
    assert first.columns.equals(again.columns.reverse())
    assert first.metrics == again.metrics
    assert all(first.tables[name].equals(again.tables[name]) for name in ("clusters", "cluster_labels", "holes"))


def test_a_single_prompt_and_odd_texts_are_covered(encoder):
    table = pl.DataFrame({"prompt": ["", "<script>$x$[bold]", "\u202e\x00", "feet"], "completion": "yes"}).with_columns(
        row_id=pl.format("r{}", pl.int_range(pl.len())),
        label=pl.Series([True, False, True, False]),
        source=pl.lit("s"),
        state=pl.lit("keep"),
    )
    table = table.join(embed(table, model=encoder, cache=False).columns, on="row_id", maintain_order="left")
    for some in (table, table.head(1)):
        result = coverage(some)
        assert result.columns["map_x"].is_finite().all()
        assert statuses(result)["KD080"] == "not_applicable"


@pytest.mark.parametrize(
    "instruction", ["", "You are a careful assistant of ACME. Be polite, cite policy, answer in three sentences. "]
)
def test_kd053_calls_no_question_reworded_for_an_instruction_that_all_share(instruction):
    """Twenty of twenty held-out questions, all different, had a "reworded" training question where an instruction stood before each."""
    verbs = ("bake", "repair", "file", "train", "plant", "tune", "sell")
    things = ("bread", "engines", "taxes", "puppies", "tomatoes", "pianos", "houses", "letters")
    questions = [f"{instruction}How do I {verb} {thing}?" for verb in verbs for thing in things]
    questions += [f"{instruction}Could you describe the way to bake bread?"]
    held_out = pl.int_range(pl.len()) % 6 == 5
    table = feedback_table(*((question, "yes", True) for question in questions)).with_columns(
        part=pl.when(held_out | (pl.col("prompt") == questions[-1])).then(pl.lit("test")).otherwise(pl.lit("train")),
        prompt_group="row_id",
        state=pl.lit("keep"),
    )
    table = table.join(embed(table).columns, on="row_id", maintain_order="left")
    near = coverage(table, clusters=1).tables["near_held_out"]
    assert near["prompt"].to_list() == [questions[-1]]


def test_kd053_names_held_out_prompts_that_a_training_prompt_rewords():
    """No words search sees the first pair as near: its groups are two. The other held-out prompt is of another subject."""
    questions = [
        "how can i reset the password of my account",
        "please reset the password of my own account",
        "which wine suits fish",
    ]
    table = feedback_table(*((question, "yes", True) for question in questions)).with_columns(
        part=pl.Series(["train", "test", "test"]), prompt_group="row_id", state=pl.lit("keep")
    )
    table = table.join(embed(table).columns, on="row_id", maintain_order="left")
    result = coverage(table, clusters=1)
    near = result.tables["near_held_out"]
    assert near["prompt"].to_list() == [questions[1]] and near["nearest"].to_list() == [questions[0]]
    finding = result.metrics["findings"][-1]
    assert (finding["code"], finding["status"], finding["rows"]) == ("KD053", "issue", 1) and "1 of 2" in finding["text"]
    apart = coverage(table.filter(pl.col("prompt") != questions[1]), clusters=1).metrics["findings"][-1]
    assert apart["status"] == "passed"
