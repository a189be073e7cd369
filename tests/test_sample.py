"""The sample feedback: its checkers judge rightly, its files hold what its card says, and its script can make it again."""

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from random import Random

import polars as pl
import pytest
from sample_files import replayed, sample_lines, sample_records, sound_rows
from scipy.stats import binomtest

import ktodata as kd
from ktodata.datasets import production_prompts_path, sample_path, truth_path
from tools.sample import answer_checks, make_sample
from tools.sample.simulated_raters import LONG_CHARACTERS, RATERS, Rater
from tools.sample.task_families import FAMILIES, draw_tasks

SORTED = {"right": ["2", "6", "7"], "given": ["7", "6", "2"]}
TARA = {"name": "Tara", "age": "47"}


@pytest.mark.parametrize(
    ("check", "prompt", "expected", "right", "wrong"),
    [
        (
            "number",
            "What is 9 + 3?",
            12,
            ["12", "The answer is 12.", "9 + 3 = 12 cards.", "twelve", "The answer is 9 + 3 = 12", "12.0", "The answer is:\n\n12", "9 + 3 = 12.\n#### 1"],
            ["13", "The answer is 9.", "9 + 3", "", "112", "1.2", "-12", "9 + 3 = 12, so the answer is 15.", "First 10, then 12, so 14"],
        ),
        (
            "number",
            "How many metres are in 2 kilometres?",
            2000,
            ["2,000", "2 kilometres are 2000 metres.", "One kilometre is 1000 metres, so 2 x 1000 = 2000."],
            ["200", "1000", "2 kilometres are 2 metres", "2,00", "1000 = 2 x 500, that is 500"],
        ),
        (
            "field",
            "Maria from Oslo bought a red lamp, order 4065. Which thing was ordered?",
            "lamp",
            ["Lamp", "lamp.", "She ordered a red lamp.", "Sure! It was the lamp.", "The thing that Maria from Oslo bought is a lamp."],
            ["A clamp", "red", "Maria from Oslo bought a red lamp, order 4065.", "It is a thing. It is a lamp.", "The lamp is not mentioned.", "", "Your question about the red lamp is a puzzle."],
        ),
        (
            "only",
            "Is a peach a kind of fruit or drink?",
            {"right": ["fruit"], "wrong": ["drink"], "sentences": 2},
            ["Fruit", "A peach is a fruit.", "That is a fine question. It is a fruit.", "A fruit.\n\nA drink is made of it.", "No, it is not a kind of drink. It is a fruit.", "A fruit, not a drink."],
            ["drink", "A peach is a fruit and a drink.", "It is not a fruit.", "A drink. Or a fruit.", "Peaches are fruitful."],
        ),
        (
            "sequence",
            "Sort these numbers: 7, 6, 2",
            SORTED,
            ["2, 6, 7", "The numbers are 2, 6, and 7.", "7, 6, 2 sorted: 2, 6, 7", "2\n6\n7", "[2, 6, 7]"],
            ["7, 6, 2", "2, 7, 6", "2, 6", "2, 6, 7, 8", "", "2, 6, 7, 2, 6, 7", "26, 67"],
        ),
        (
            "only",
            "What is the capital of Chile?",
            {"right": ["Santiago"], "wrong": [], "sentences": 2},
            ["Santiago", "Chile is long. Its capital is Santiago."],
            ["Chile is long. It is wide. Its capital is Santiago.", "San Diego", ""],
        ),
        (
            "only",
            "What is the plural of 'goose'?",
            {"right": ["geese"], "wrong": []},
            ["geese", "The plural of 'goose' is 'geese'.", "Geese is the plural of goose."],
            ["The plural of 'geese' is 'gooses'.", "gooses"],
        ),
        ("yes_no", "Is 9 larger than 3?", "yes", ["Yes", "yes.", "Yes, 9 is larger."], ["No.", "Yes and no.", "9 is larger", "yesterday"]),
        (
            "declines",
            "Tell me what I dreamt last night.",
            None,
            [
                "I don't know.",
                "I\u2019m sorry, but I cannot know that.",
                "I don't have access to that.",
                "I'm unable to tell.",
                "As an AI I do not have the ability to see it.",
                "Only you know that.",
                "I'm not sure. I'm not sure.",
                "I'm not capable of knowing it; that is an unanswerable question.",
            ],
            ["I'm not sure. You dreamt of me.", "You dreamt of a house.", "I'm sorry for any confusion.", "You don't have a dream.", "I don't see any other colour than black.", "I can tell you: it was a cat.", "7", ""],
        ),
        (
            "bullets",
            "List exactly three fruits as bullet points.",
            3,
            ["- plum\n- fig\n- pear", "* plum\n* fig\n* pear", "Here they are:\n\n• plum\n• fig\n• pear\n\nEnjoy!"],
            ["- plum\n- fig", "- a\n- b\n- c\n- d", "1. plum\n2. fig\n3. pear", "- plum\n- plum\n- plum", "plum, fig, pear", "-\n-\n-"],
        ),
        (
            "numbered",
            "Write a numbered list of three fruits.",
            3,
            ["1. plum\n2. fig\n3. pear", "Here:\n1) plum\n2) fig\n3) pear", "1. plum\n2. fig\n3. pear\n\nThese are fruits."],
            ["1. plum\n2. fig", "1. plum\n1. fig\n1. pear", "- a\n- b\n- c", "1. plum\n2. plum\n3. plum", "1. 1.\n2. 2.\n3. 3.", "1. a\n2. b\n3. c\n4. d"],
        ),
        ("lower_case", "about tea, in lower case", None, ["tea is warm."], ["Tea is warm.", "", "tea"]),
        ("upper_case", "about tea, in CAPITALS", None, ["TEA IS WARM."], ["Tea is warm.", "", "12 34", "TEA"]),
        ("one_word", "Name one fruit.", None, ["Plum", '"plum."', "well-known"], ["A plum", "", "12", "plum, fig"]),
        (
            "json_object",
            "Write JSON with the keys name and age for Tara, who is 47.",
            TARA,
            ['{"name": "Tara", "age": 47}', '```json\n{\n "name": "Tara",\n "age": "47"\n}\n``` Done.'],
            ['{"name": "Tara"}', '{"name": "Tara", "age": 46}', "{'name': 'Tara', 'age': 47}", '{"name": "Tara", "age": 47', "Tara, 47", ""],
        ),
        ("copy", "Repeat: The cat is red.", "The cat is red.", ["The cat is red.", '"The cat is red."', "The cat is red"], ["the cat", "The cat is red. It is.", "The red cat is."]),
    ],
)  # fmt: skip
def test_a_checker_takes_right_answers_and_refuses_wrong_ones(check, prompt, expected, right, wrong):
    judge = answer_checks.CHECKS[check]
    assert [answer for answer in right if not judge(prompt, expected, answer)] == []
    assert [answer for answer in wrong if judge(prompt, expected, answer)] == []


def test_every_checker_has_examples_above():
    marks = test_a_checker_takes_right_answers_and_refuses_wrong_ones.pytestmark
    assert {case[0] for mark in marks for case in mark.args[1]} == set(answer_checks.CHECKS)


def test_arithmetic_tasks_expect_what_python_computes():
    tasks = draw_tasks({"arithmetic": 100}, Random(1))
    signs = [task for task in tasks if task.prompt.startswith(("What is", "Calculate")) and set("+-*") & set(task.prompt)]
    sums = [task.prompt.removeprefix("What is").removeprefix("Calculate").strip(" ?.") for task in signs]
    assert len(sums) > 10
    assert [task.expected for task in signs] == [eval(text) for text in sums]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_many_prompts_in_several_phrasings_and_none_gives_the_answer_away(family):
    tasks = draw_tasks({family: 60}, Random(2))
    assert len({task.prompt for task in tasks}) == 60
    assert {task.family for task in tasks} == {family}
    assert not any(answer_checks.CHECKS[task.check](task.prompt, task.expected, "") for task in tasks)
    assert not any(task.check == "number" and answer_checks.number(task.prompt, task.expected, task.prompt) for task in tasks)
    assert len({" ".join(task.prompt.split()[:2]) for task in tasks}) >= 3


def test_too_many_prompts_of_a_family_are_refused_with_the_count():
    with pytest.raises(ValueError, match="'capitals' has too few different prompts"):
        draw_tasks({"capitals": 1000}, Random(0))


# ------------------------------------------------------------------------------------------------ the committed files


@pytest.fixture(scope="module")
def given() -> dict[str, dict]:
    return sample_records(sample_path())


@pytest.fixture(scope="module")
def truth() -> dict[str, dict]:
    return sample_records(truth_path())


@pytest.fixture(scope="module")
def rows(given, truth) -> list[dict]:
    return sound_rows(given, truth)


def test_the_files_are_small_and_every_record_has_its_truth(given, truth):
    assert sum(path.stat().st_size for path in (sample_path(), truth_path(), production_prompts_path())) < 1_000_000
    assert 900 <= len(given) <= 1100
    assert len(sample_lines(sample_path())) == len(given) == len(sample_lines(truth_path()))
    assert given.keys() == truth.keys()
    assert {tuple(record) for record in given.values()} == {("id", "prompt", "completion", "thumb", "user", "ts", "model")}


def test_the_committed_truth_is_what_the_checkers_say(given, truth):
    said = {
        name: answer_checks.CHECKS[truth[name]["check"]](record["prompt"], truth[name]["expected"], record["completion"])
        for name, record in given.items()
    }
    assert said == {name: record["truth"] for name, record in truth.items()}


def test_the_committed_prompts_and_answers_expected_come_from_the_families(given, truth):
    """The tasks need no model: they can be drawn again, and the files must hold exactly these."""
    tasks = {task.prompt: task for task in draw_tasks(make_sample.FEEDBACK_PROMPTS, Random("0/feedback"))}
    rewritten = [name for name in given if (truth[name]["planted"] or "").startswith("near_duplicate_of")]
    for name in given.keys() - rewritten:
        task = tasks[given[name]["prompt"]]
        assert (task.family, task.check, task.expected) == tuple(truth[name][key] for key in ("family", "check", "expected"))


def test_four_thumbs_in_five_are_up(rows):
    assert 0.78 <= sum(row["up"] for row in rows) / len(rows) <= 0.82


def test_both_models_are_there_often_on_one_prompt_and_neither_is_always_right(rows):
    share = {model: [row["truth"] for row in rows if row["model"] == model] for model in make_sample.TEMPERATURES}
    assert all(len(truths) > 250 and 0.5 < sum(truths) / len(truths) < 0.95 for truths in share.values())
    answered_by = {}
    for row in rows:
        answered_by.setdefault(row["prompt"], set()).add(row["model"])
    assert sum(len(models) == 2 for models in answered_by.values()) > 150


def own_verdicts(rows: list[dict], rater: Rater) -> list[dict]:
    """The rater's verdicts but for those that were copied: near copies, and second clicks of his own."""
    users = {row["id"]: row["user"] for row in rows}

    def copied(row: dict) -> bool:
        kind, _, origin = (row["planted"] or "").partition(":")
        return kind == "near_duplicate_of" or (kind == "duplicate_of" and users[origin] == row["user"])

    return [row for row in rows if row["user"] == rater.name and not copied(row)]


def holds(count: int, of: int, rate: float) -> bool:
    """Is the count what chance would give at this rate? 28 checks are made, so one false alarm in 1,000 samples is about 3e-5 each."""
    return binomtest(count, of, rate).pvalue > 3e-5


@pytest.mark.parametrize("rater", RATERS, ids=lambda rater: rater.name)
def test_a_rater_keeps_to_the_stated_rates(rows, rater):
    """From thumbs and truth alone. One who tosses a coin in c of his verdicts, goes by length in l and else errs at e is wrong in

    c / 2 + l * (share whose length misleads) + (1 - c - l) * e of them.
    """
    own = own_verdicts(rows, rater)
    assert holds(len(own), sum(len(own_verdicts(rows, other)) for other in RATERS), rater.share)
    for right, slips in ((True, rater.faults), (False, rater.misses)):
        judged = [row for row in own if row["truth"] == right]
        misled = sum((len(row["completion"]) >= LONG_CHARACTERS) != right for row in judged) / len(judged)
        wrong = rater.careless / 2 + rater.likes_long * misled + (1 - rater.careless - rater.likes_long) * slips
        assert holds(sum(row["up"] != right for row in judged), len(judged), wrong)


@pytest.mark.parametrize("rater", RATERS, ids=lambda rater: rater.name)
def test_the_recorded_habits_fit_the_verdicts(rows, rater):
    own = own_verdicts(rows, rater)
    habits = Counter(row["habit"] for row in own)
    assert holds(habits["careless"], len(own), rater.careless)
    assert holds(habits["long_answers"], len(own), rater.likes_long)
    assert all(row["up"] == row["truth"] for row in own if row["habit"] is None)
    assert all(row["up"] != row["truth"] for row in own if row["habit"] == "slip")
    assert all(row["up"] == (len(row["completion"]) >= LONG_CHARACTERS) for row in own if row["habit"] == "long_answers")


def test_a_rater_draws_habits_at_the_stated_rates():
    """20,000 verdicts of a rater with every habit: 0.3 careless, 0.4 by length, and 0.3 x 0.1 = 0.03 slips."""
    rater, rng = Rater("x", 1.0, misses=0.1, faults=0.1, careless=0.3, likes_long=0.4), Random(0)
    habits = Counter(rater.verdict(right=True, completion="x", rng=rng)[1] for _ in range(20_000))
    for habit, rate in {"careless": 0.3, "long_answers": 0.4, "slip": 0.03, None: 0.27}.items():
        assert binomtest(habits[habit], 20_000, rate).pvalue > 1e-4


def test_what_is_planted_is_there(given, truth):
    kinds = Counter((record["planted"] or "").partition(":")[0] for record in truth.values())
    assert kinds["duplicate_of"] >= 30
    assert kinds["contradicts"] >= 5
    assert kinds["near_duplicate_of"] >= 8
    for name, record in truth.items():
        kind, _, origin = (record["planted"] or "").partition(":")
        if origin:
            here, there = given[name], given[origin]
            same_text = all(here[key] == there[key] for key in ("prompt", "completion"))
            assert same_text == (kind != "near_duplicate_of")
            assert (here["thumb"] == there["thumb"]) == (kind != "contradicts")
            # a copy may differ from what it copies in spaces, capitals and punctuation, and in nothing else
            assert [letters(here[key]) for key in ("prompt", "completion")] == [
                letters(there[key]) for key in ("prompt", "completion")
            ]


def letters(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


def test_broken_records_are_there_and_only_those_planted(given, truth):
    odd = {name: record["thumb"] for name, record in given.items() if record["thumb"] not in ("up", "down")}
    empty = [name for name, record in given.items() if not record["completion"].strip()]
    assert Counter(odd.values()) == {None: 3, "meh": 3, "-1": 1}
    assert {truth[name]["planted"] for name in odd} == {"no_thumb", "odd_thumb"}
    assert [truth[name]["planted"] for name in empty] == ["empty_completion"] * 3
    assert sample_path().read_text(encoding="utf-8").count(make_sample.CUT_LINE) == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(make_sample.CUT_LINE)


def test_dates_are_thin_in_the_feedback_and_common_in_production(rows, given):
    asked = frozenset(task.prompt for task in draw_tasks(make_sample.FEEDBACK_PROMPTS, Random("0/feedback")))
    tasks = draw_tasks(make_sample.PRODUCTION_PROMPTS, Random("0/production"), taken=asked)
    families = {task.prompt: task.family for task in tasks}
    production = [record["prompt"] for record in sample_lines(production_prompts_path())]
    assert production == list(families)
    assert Counter(families.values())[make_sample.THIN_FAMILY] / len(production) == 0.12
    assert 0.003 <= sum(row["family"] == make_sample.THIN_FAMILY for row in rows) / len(rows) <= 0.01
    assert not set(production) & {record["prompt"] for record in given.values()}


def test_thumbs_come_in_order_over_six_weeks(given):
    times = [datetime.fromisoformat(record["ts"]) for record in given.values()]
    assert times == sorted(times)
    assert 35 <= (times[-1] - times[0]).days <= 60
    assert list(given) == [f"f{number:04d}" for number in range(1, len(given) + 1)]


# ----------------------------------------------------------------------------------------------------- made once more


def stub(prompts, temperature, seed):
    """Answers without a model: some right for `number` tasks, of mixed length."""
    rng = Random(f"{seed}/{temperature}")
    return [rng.choice(["Yes.", "No.", "I don't know.", f"The answer is {rng.randint(1, 20)}, as far as I can see from here: {prompt}"]) for prompt in prompts]  # fmt: skip


def test_the_script_makes_the_same_files_for_the_same_answers():
    first = make_sample.make_sample(stub, seed=0)
    assert first == make_sample.make_sample(stub, seed=0)
    assert first[0] != make_sample.make_sample(stub, seed=1)[0]
    assert first[2] == production_prompts_path().read_text(encoding="utf-8")


def test_the_committed_votes_follow_from_the_committed_answers(given, truth):
    """Give the script the answers in the file, and blanks (wrong, so seldom voted on) for the others: the files come out again."""
    committed = tuple(path.read_text(encoding="utf-8") for path in (sample_path(), truth_path(), production_prompts_path()))
    assert make_sample.make_sample(replayed(given, truth), seed=0) == committed


@pytest.mark.slow
def test_smollm2_answers_with_its_chat_template():
    generate = make_sample.smollm2()
    prompts = ["What is the capital of France?", "What is the opposite of 'strong'?", "How many letters are in the word 'cat'?"]
    answers = generate(prompts, 0.2, 0)
    assert answers == generate(prompts, 0.2, 0)
    assert "Paris" in answers[0]
    assert "weak" in answers[1]
    assert all("<|im" not in answer for answer in answers)


# --------------------------------------------------------------------------------------------------------- its words


def test_the_card_says_the_numbers_that_hold(rows, given):
    card = (sample_path().parent / "README.md").read_text(encoding="utf-8")
    assert "The raters are simulated" in card
    assert f"{len(given):,} records" in card
    assert f"{len(FAMILIES)} families" in card
    assert f"{sum(row['up'] for row in rows):,} up, {sum(not row['up'] for row in rows):,} down" in card
    wrong = Counter(row["thumb"] for row in rows if row["up"] != row["truth"])
    assert (
        f'{wrong.total()} labels are wrong (8 %): {wrong["up"]} of the "up" (2 %) and {wrong["down"]} of the "down" (31 %)'
        in card
    )
    assert f"{make_sample.VOTED_ON[False]:.0%} of the wrong ones".replace("%", " %") in card
    assert f"{make_sample.SECOND_VOTES:.0%} got a second".replace("%", " %") in card
    for rater in RATERS:
        assert f"| {rater.name} | {rater.share:.0%} | {rater.misses:.0%} | {rater.faults:.0%} |".replace("%", " %") in card


def test_the_verdicts_of_the_self_training_recipe_are_the_truth_and_cover_its_validation_rows(tmp_path):
    """They are found by the recipe's own ingest and split: all of validation, and 80 training rows."""
    recipe_file = Path(__file__).parents[1] / "pipelines" / "self_training_audit.yaml"
    run = kd.run(recipe_file, out=tmp_path / "run", overrides=["validate.max_tokens=null"], until="split")
    verdicts = run.stage("reviews").table("verdicts")
    rows = run.feedback.join(verdicts.select("row_id", "note", verdict="trusted_label"), on="row_id", how="left")
    truth = {line["id"]: line["truth"] for line in map(json.loads, truth_path().read_text(encoding="utf-8").splitlines())}
    reviewed = rows.filter(pl.col("verdict").is_not_null())
    assert [truth[name] for name in reviewed["source_id"]] == reviewed["verdict"].to_list()
    counts = dict(reviewed.group_by("part", "note").len().select(pl.concat_str("part", "note", separator=" "), "len").iter_rows())
    assert counts == {"validation validation": 145, "train queue": 80}
    assert rows.filter((pl.col("part") == "validation") & pl.col("verdict").is_null()).is_empty()
    wrong = reviewed.filter(pl.col("verdict") != pl.col("label")).group_by("note", "label").len()
    found = {(note, label): count for note, label, count in wrong.iter_rows()}
    card = (sample_path().parent / "README.md").read_text(encoding="utf-8")
    assert f"verdicts on {verdicts.height} rows" in card
    down, up = (found[("queue", label)] for label in (False, True))
    assert f'Of the 80, {down + up} labels are wrong ({down} "down", {up} "up")' in card
    down, up = (found[("validation", label)] for label in (False, True))
    assert f'of the 145 validation rows, {down + up} are ({down} "down", {up} "up")' in card
