"""Recipes drafted for files of every kind: what is certain stands there, what is not waits for a person, and a run says so."""

import csv
import json
import random
from typing import Any

import datasets
import pytest
import yaml

import ktodata as kd
from ktodata.errors import RecipeError
from ktodata.formats.inspection import inspect
from ktodata.formats.times import time_formats
from ktodata.pipeline.recipe import load_recipe


def drafted(path: Any) -> dict[str, Any]:
    return yaml.safe_load(inspect(path).recipe())


def labelled(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"Why {n}?", "completion": f"So {n}.", "thumb": ("up", "down")[n % 2], **more} for n in range(count)]


# --- parts ------------------------------------------------------------------------------------------------------------------


def test_parts_of_a_data_set_wait_for_a_choice(tmp_path):
    rows = labelled(10)
    parts = {"train": datasets.Dataset.from_list(rows[:6]), "test": datasets.Dataset.from_list(rows[6:])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    recipe = drafted(tmp_path / "saved")
    assert {"split": "CHOOSE"} in recipe["steps"] and "split" not in recipe["ingest"]
    assert "train (6), test (4)" in inspect(tmp_path / "saved").recipe()
    recipe["ingest"]["label"] |= {"up": True, "down": False}
    with pytest.raises(RecipeError, match=r"1 choice is .*steps\.3\.split"):
        load_recipe(recipe)
    recipe["steps"] = ["validate", {"dedupe": {"near": None}}, {"split": "given"}]
    run = kd.run(recipe, out=tmp_path / "run")
    assert {name: part["rows"] for name, part in run.stage("split").metrics["parts"].items()} == {"train": 6, "test": 4}


def test_a_column_of_parts_waits_for_a_choice_and_for_names_that_are_not_ours(lines):
    rows = [{**row, "split": part} for part in ("train", "dev", "test") for row in labelled(6)]
    text = inspect(lines(*rows)).recipe()
    recipe = yaml.safe_load(text)
    assert recipe["ingest"]["split"] == "split" and {"split": "CHOOSE"} in recipe["steps"]
    assert "- split: {given: {dev: CHOOSE}}" in text and "join_parts: true" in text
    assert inspect(lines(*rows)).as_dict()["parts"] == {"column": "split", "rows": {"train": 6, "dev": 6, "test": 6}}


def test_folds_and_one_part_are_no_given_split(lines):
    folds = [{**row, "fold": n % 5} for n, row in enumerate(labelled(10))]
    assert {"split": "CHOOSE"} not in drafted(lines(*folds))["steps"]
    assert {"split": "CHOOSE"} not in drafted(lines(*labelled(10, split="train")))["steps"]


def test_every_open_choice_is_named_before_anything_is_read(lines):
    recipe = drafted(lines(*labelled(4)))
    with pytest.raises(RecipeError, match=r"2 choices are .*ingest\.label\.up, ingest\.label\.down"):
        load_recipe(recipe)


def test_a_label_that_is_named_so_is_offered_in_all_its_spellings(lines):
    """Each word once, the commonest first; few words of many spellings are a label, comments under the same name are none."""
    thumbs = ["yes", "YES", "Yes", "no", "No", "ja", "Ja", "nein", "1", "1.0", "true", "TRUE", "0", "0.0", "false", "meh"]
    thumbs += ["\U0001f44d", "\U0001f44d\ufe0f", "\U0001f44e"]
    rows = [{**row, "thumb": thumbs[n % len(thumbs)]} for n, row in enumerate(labelled(10 * len(thumbs)))]
    looked_at = inspect(lines(*rows))
    assert looked_at.labels[0].text().startswith("thumb: 'yes' 30 in 3 spellings, 'no' 20 in 2 spellings, 'ja' 20")
    words = ["yes", "no", "ja", "1", "true", "0", "\U0001f44d", "nein", "false", "meh", "\U0001f44e"]
    assert yaml.safe_load(looked_at.recipe())["ingest"]["label"] == {"column": "thumb", **dict.fromkeys(words, "CHOOSE")}
    comments = [{**row, "thumb": None, "feedback": f"I liked {n % 60}"} for n, row in enumerate(labelled(90))]
    assert not inspect(lines(*comments)).labels


def test_the_summary_says_what_the_recipe_says(lines):
    """Which texts are open, how times are written, and that nothing was tried where a column is still to be chosen."""
    rows = [
        {"frage": f"Warum ist Nummer {n} so?", "antwort": f"Darum ist Nummer {n} so.", "ts": f"{n + 1:02}.01.2026"}
        for n in range(30)
    ]
    text = inspect(lines(*({**row, "bewertung": "ja"} for row in rows))).text()
    assert text.count("; yours to choose") == 4 and "is not known yet: it leaves a column to choose" in text
    assert "its name; all of 30 different values read as %d.%m.%Y" in text and "As drafted" not in text


# --- one record per message --------------------------------------------------------------------------------------------------


def messages(roles: tuple[Any, Any], *, role: str = "role", key: str = "conversation_id") -> list[dict[str, Any]]:
    rows = []
    for talk in range(6):
        for turn in range(2):
            text = f"Which lake is no. {talk}?" if turn == 0 else f"Lake {talk}."
            rows.append({"id": f"m{talk}-{turn}", key: f"t{talk}", role: roles[turn], "content": text})
            rows[-1]["thumb"] = None if turn == 0 else ("up", "down")[talk % 2]
    return rows


def test_a_table_of_messages_becomes_conversations(lines):
    path = lines(*messages(("user", "assistant")))
    recipe = drafted(path)
    assert recipe["ingest"]["conversation"] == {"column": "conversation_id", "id": "id", "role": "role", "text": "content"}
    assert inspect(path).trial == "6 of 6 records would become 6 rows"
    recipe["ingest"]["label"] |= {"up": True, "down": False}
    feedback = kd.run({**recipe, "steps": []}, out=path.parent / "run").stage("ingest").columns
    assert ("Which lake is no. 0?", "Lake 0.") in feedback.select("prompt", "completion").rows()


@pytest.mark.parametrize(
    ("roles", "column"), [((True, False), "isCreatedByUser"), (("Customer", "Support"), "sender"), (("1", "0"), "is_user")]
)
def test_who_speaks_is_asked_where_no_usual_word_says_it(lines, roles, column):
    setting = drafted(lines(*messages(roles, role=column, key="conversationId")))["ingest"]["conversation"]
    assert setting["role"] == {"column": column, roles[0]: "CHOOSE", roles[1]: "CHOOSE"}


def test_parents_are_named(lines):
    rows = messages(("human", "ai"), key="thread_id")
    rows = [{**row, "parent_id": None if n % 2 == 0 else rows[n - 1]["id"]} for n, row in enumerate(rows)]
    assert drafted(lines(*rows))["ingest"]["conversation"]["parent"] == "parent_id"


def test_prompts_with_a_session_are_no_messages(lines):
    assert "conversation" not in drafted(lines(*labelled(8, session_id="s", role="user")))["ingest"]


# --- two answers, several votes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("response_a", "response_b"), ("answer1", "answer2"), ("output_left", "output_right")])
def test_two_answers_are_compared_by_a_label_with_sides(lines, names):
    rows = [{"prompt": f"Why {n}?", names[0]: f"So {n}.", names[1]: f"Thus {n}.", "winner": "AB"[n % 2]} for n in range(6)]
    recipe = drafted(lines(*rows))
    assert recipe["ingest"]["format"] == "preference" and recipe["ingest"]["completion"] == list(names)
    assert "first, second, tie" in inspect(lines(*rows)).recipe()
    recipe["ingest"]["label"] |= {"A": "first", "B": "second"}
    assert kd.read(lines(*rows), **{k: v for k, v in recipe["ingest"].items() if k != "paths"}).feedback.height == 12


def test_columns_that_differ_in_one_word_are_offered_as_votes(lines):
    rows = [{**row, "vote_1": "y", "vote_2": "yn"[n % 2], "vote_3": "n", "tone": "calm"} for n, row in enumerate(labelled(24))]
    text = inspect(lines(*rows)).recipe()
    at = text.index("# votes: [vote_1, vote_2, vote_3]")
    assert "CHOOSE" in text[at : at + 300]


def offered_votes(rows, lines):
    """The columns after each `# votes:` of a draft, and the line before it."""
    text = inspect(lines(*rows)).recipe().splitlines()
    at = [n for n, line in enumerate(text) if "# votes:" in line]
    return [(text[n].partition("votes: ")[2], " ".join(text[n - 4 : n])) for n in at]


def answers(n_raters, n_rows=60):
    """What raters say of each row: of ten each gives one other answer than most."""
    return [["yn"[n % 2 ^ (n % 10 == rater)] for rater in range(n_raters)] for n in range(n_rows)]


def test_raters_are_seen_by_their_answers_whatever_their_columns_are_called(lines):
    rows = [
        {**row, **dict(zip(("ann", "ben", "cy"), three, strict=True))}
        for row, three in zip(labelled(60), answers(3), strict=True)
    ]
    [(columns, why)] = offered_votes([{k: v for k, v in row.items() if k != "label"} for row in rows], lines)
    assert columns == "[ann, ben, cy]" and "80% of cases, 49% would by chance; in 60 records" in why


def drawn(columns, n_rows, *, good, right=0.9, seed=9, per_row=None):
    """Rows with what raters say who are right in that share of rows; of each row, `per_row` of them. right None: all are unrelated."""
    r = random.Random(seed)
    for row in labelled(n_rows):
        truth = r.random() < good
        verdicts = {name: r.random() < good if right is None else truth == (r.random() < right) for name in columns}
        raters = r.sample(columns, per_row or len(columns))
        yield {
            "prompt": row["prompt"],
            "completion": row["completion"],
            **{name: verdicts[name] if name in raters else None for name in columns},
        }


def test_raters_of_answers_that_are_nearly_all_good_are_seen(lines):
    """Two of them say the same in most records by chance, which varies less than a coin does."""
    for seed in (0, 3, 6):
        [(columns, _)] = offered_votes(drawn(["ann", "ben", "cy"], 300, good=0.95, seed=seed), lines)
        assert columns == "[ann, ben, cy]"


def test_raters_who_share_few_records_each_are_seen_by_all_that_they_share(lines):
    names = ["mia", "noah", "zoe", "kai", "lea", "tom"]
    [(columns, why)] = offered_votes(drawn(names, 200, good=0.6, per_row=2), lines)
    assert columns == f"[{', '.join(names)}]" and "in 200 records" in why


@pytest.mark.parametrize(("good", "n_rows"), [(0.5, 300), (0.02, 200)])
def test_of_many_unrelated_columns_two_that_are_alike_by_chance_are_no_raters(lines, good, n_rows):
    """28 pairs: one of them is two standard errors off; and where yes is rare, one record in common is many."""
    names = ["grammar", "emoji", "long", "code", "french", "urgent", "formal", "jokes"]
    for seed in range(6):
        assert not offered_votes(drawn(names, n_rows, good=good, right=None, seed=seed), lines)


def test_one_rater_with_other_words_keeps_no_other_from_being_seen(lines):
    rows = [
        {**row, "vote_1": "yn"[n % 2], "vote_2": "yn"[n // 2 % 2 and n % 2], "vote_3": n % 2}
        for n, row in enumerate(labelled(60))
    ]
    [(columns, _)] = offered_votes([{k: v for k, v in row.items() if k != "label"} for row in rows], lines)
    assert columns == "[vote_1, vote_2]"


def test_answers_in_a_list_are_raters_too(lines):
    rows = [
        {**row, "marks": [{"by": "x", "value": v} for v in three]} for row, three in zip(labelled(60), answers(3), strict=True)
    ]
    [(columns, why)] = offered_votes(rows, lines)
    assert columns == "[marks.0.value, marks.1.value, marks.2.value]"
    assert "where it has more, add theirs" in why


def test_columns_of_contrary_meaning_and_other_questions_are_no_raters(lines):
    """Every row would tie, or be decided by what was not asked."""
    contrary = [{**row, "thumbs_up": n % 3 == 0, "thumbs_down": n % 3 > 0} for n, row in enumerate(labelled(60))]
    assert not offered_votes([{k: v for k, v in row.items() if k != "label"} for row in contrary], lines)
    questions = [{**row, "is_toxic": "yn"[n % 2], "is_right": "yn"[n // 2 % 2]} for n, row in enumerate(labelled(60))]
    assert not offered_votes(questions, lines)


def test_a_rater_who_guesses_is_named_beside_those_who_agree(lines):
    rows = [
        {"prompt": row["prompt"], "completion": row["completion"], "ann": two[0], "ben": two[1], "cy": "yn"[n // 2 % 2]}
        for n, (row, two) in enumerate(zip(labelled(60), answers(2), strict=True))
    ]
    [(columns, why)] = offered_votes(rows, lines)
    assert columns == "[ann, ben]" and "not among them: cy, with the same values, which do not show" in why


@pytest.mark.parametrize("column", ["conversation", "messages"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_conversation_that_goes_on_after_its_answer_is_read(lines, column, as_text):
    """No turn ends it but the user's thanks, and no other column holds an answer: the last answer in it is the judged one."""
    turns = [{"role": role, "content": text} for role, text in (("user", "Why?"), ("assistant", "So."), ("user", "Thanks."))]
    rows = [{column: json.dumps(turns) if as_text else turns, "rating": [1, 5][n % 2]} for n in range(12)]
    assert inspect(lines(*rows)).is_readable
    ingest = drafted(lines(*rows))["ingest"]
    assert ingest["judged"] == "last_assistant"
    settings = {name: value for name, value in ingest.items() if name not in ("paths", "label")}
    read = kd.read(lines(*rows), **settings, label={"column": "rating", 5: True, 1: False})
    assert set(read.feedback["completion"]) == {"So."}


def test_conversations_without_an_answer_wait_for_its_column(lines):
    rows = [{"conversation": [{"role": "user", "content": f"Why {n}?"}], "rating": [1, 5][n % 2]} for n in range(12)]
    assert "completion: CHOOSE" in inspect(lines(*rows)).recipe()


# --- what is said beside ------------------------------------------------------------------------------------------------------


def test_verdicts_of_people_and_of_models_under_one_name_wait_for_whose_counts(lines):
    def trace(n: int) -> dict[str, Any]:
        scores = [
            {"name": "good", "dataType": "NUMERIC", "value": n % 2, "source": source} for source in ("API", "EVAL")[: 1 + n % 2]
        ]
        return {"id": f"t{n}", "input": f"Why {n}?", "output": "So.", "scores": scores}

    label = drafted(lines(*(trace(n) for n in range(6))))["ingest"]["label"]
    assert label == {"column": "good", "by": "CHOOSE", 0: "CHOOSE", 1: "CHOOSE"}


def test_named_verdicts_with_a_decimal_comma_are_a_scale(lines):
    scores = [{"name": "stars", "dataType": "CATEGORICAL", "stringValue": f"{n},3"} for n in (3, 1, 10, 2)]
    path = lines(*({"id": f"t{n}", "input": "Why?", "output": "So.", "scores": [score]} for n, score in enumerate(scores)))
    (choice,) = inspect(path).labels
    assert choice.is_scale and [value for value, _ in choice.values] == ["1,3", "2,3", "3,3", "10,3"]
    assert inspect(path).trial == "4 of 4 records would become 4 rows"


def test_one_and_true_in_one_column_are_a_list_of_pairs(lines):
    rows = [{"prompt": f"p{n}", "completion": "c", "label": [1, True, 0][n % 3]} for n in range(9)]
    recipe = drafted(lines(*rows))
    assert recipe["ingest"]["label"] == {"column": "label", "values": [[1, "CHOOSE"], [True, "CHOOSE"], [0, "CHOOSE"]]}
    values = [[1, True], [True, True], [0, False]]
    assert kd.read(lines(*rows), label={"column": "label", "values": values}).feedback.height == 9


def test_conversations_that_go_on_are_counted_beside_the_setting_that_takes_them(lines):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    on = [*talk, {"role": "user", "content": "thanks"}]
    text = inspect(lines({"messages": talk, "label": True}, {"messages": on, "label": False})).recipe()
    assert "# judged: last_assistant" in text and "1 conversation goes on" in text


@pytest.mark.parametrize(
    ("values", "formats"),
    [
        (["01.10.2026 12:00", "31.10.2026 08:30"], ["%d.%m.%Y %H:%M"]),
        (["03/03/2025", "04/03/2025"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["03/03/2025", "14/03/2025"], ["%d/%m/%Y"]),
        ([20260301, 20260315], ["%Y%m%d"]),
        (["45000", "45001.5"], ["excel"]),
        (["yesterday"], []),
        ([], []),
    ],
)
def test_a_format_that_all_values_have(values, formats):
    assert time_formats(values) == formats


def test_times_in_another_order_are_drafted_with_their_format(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["prompt", "completion", "label", "rated at"])
        writer.writerows([["p", "c", "1", f"{day}.10.2026 12:00"] for day in range(10, 20)])
    assert drafted(path)["ingest"]["created_at"] == {"column": "rated at", "format": "%d.%m.%Y %H:%M"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"id": "t", "input": "Sky?", "output": "Blue.", "scores": ["sc-1"]}, "scores holds ids"),
        ({"messages": [{"role": "user", "content": "Hi"}], "label": True}, "no_assistant_turn"),
    ],
)
def test_a_draft_that_leads_nowhere_says_so_at_once(lines, record, reason):
    inspection = inspect(lines(record, record))
    assert reason in inspection.trial and reason in inspection.recipe() and reason in inspection.text()
    assert json.loads(json.dumps(inspection.as_dict()))["reading"] == inspection.trial


VOTE_LISTS = {"booleans": (True, False), "words": ("good", "bad"), "numbers": (1, 0)}


@pytest.mark.parametrize("values", VOTE_LISTS.values(), ids=VOTE_LISTS)
@pytest.mark.parametrize("name", ["votes", "said_by_people"])
def test_a_list_of_values_is_offered_as_votes_of_which_most_decide(lines, name, values):
    yes, no = values
    given = [[yes], [no, yes, yes], [no, no], [], [yes, no], [yes, yes, no, yes]] * 20
    rows = [{"prompt": f"p{n}", "completion": f"c{n}", name: votes} for n, votes in enumerate(given)]
    path = lines(*rows)
    inspection = inspect(path)
    [choice] = inspection.labels
    assert sorted((str(value), count) for value, count in choice.values) == sorted([(str(yes), 80), (str(no), 80)])
    assert choice.n_null == 20 and "100 of 120 records would become" in (inspection.trial or "")
    drafted = yaml.safe_load(inspection.recipe())["ingest"]
    assert drafted["votes"] == [f"{name}[]"] and set(drafted["label"].values()) == {"CHOOSE"}
    result = kd.read(path, votes=drafted["votes"], label={"values": [[yes, True], [no, False]]})
    labels = {
        completion: label for completion, label in result.feedback.select("completion", "label").iter_rows() if completion != "c4"
    }
    assert [labels[f"c{n}"] for n in (0, 1, 2, 5)] == [True, True, False, True]
    assert result.metrics["even_votes"] == 20 and not result.metrics["not_kept"]
    assert [vote["label"] for vote in result.feedback["votes"][1]] == [False, True, True]


def test_lists_with_one_entry_each_are_no_votes_and_tags_none_either(lines):
    rows = [{"prompt": f"p{n}", "completion": f"c{n}", "rating": [n % 2]} for n in range(40)]
    assert [choice.column for choice in inspect(lines(*rows)).labels] == ["rating.0"]
    tags = [{"prompt": f"p{n}", "completion": f"c{n}", "topics": ["a", "b", "c"][n % 3 :]} for n in range(40)]
    assert not inspect(lines(*tags)).labels


def turns_of_a_case(n: int, n_turns: int) -> dict[str, Any]:
    turns = [
        {"speaker": ("customer", "agent")[at % 2], "text": f"what was said as {at} in the long case {n}"} for at in range(n_turns)
    ]
    return {"turns": turns, "ok": n % 3 > 0}


@pytest.mark.parametrize(("sizes", "words"), [([4], "4"), ([2, 6, 4], "2 to 6")])
def test_the_last_entry_of_a_list_is_listed_and_which_is_judged_is_left_open(lines, sizes, words):
    path = lines(*(turns_of_a_case(n, sizes[n % len(sizes)]) for n in range(30)))
    inspection = inspect(path)
    assert inspection.roles["completion"][0].column == "turns.-1.text"
    assert f"turns: lists of {words} entries" in inspection.text() and f"entry 1 of {words}" in inspection.text()
    assert f"turns.-1.text (the last of {words})" in inspection.recipe()
    result = kd.read(path, prompt="turns.0.text", completion="turns.-1.text", label={"column": "ok", True: True, False: False})
    assert result.feedback["completion"][0] == f"what was said as {sizes[0] - 1} in the long case 0"


def test_a_list_of_two_entries_has_no_third_name_for_its_last(lines):
    columns = {column.path for column in inspect(lines(*(turns_of_a_case(n, 2) for n in range(30)))).columns}
    assert columns == {"turns.0.speaker", "turns.0.text", "turns.1.speaker", "turns.1.text", "ok"}


def test_a_name_does_not_say_which_of_several_entries_is_the_answer(lines):
    rows = [{"turns": [{"ask": f"why {n}?", "answer": f"so {at} {n}"} for at in range(3)], "ok": n % 2 > 0} for n in range(30)]
    drafted = yaml.safe_load(inspect(lines(*rows)).recipe())["ingest"]
    assert (drafted["prompt"], drafted["completion"]) == ("CHOOSE", "CHOOSE")


def test_of_several_entries_with_one_name_the_first_is_not_taken_for_the_judged_one(lines):
    talk = [{"name": "agent", "answer": f"a first long answer in case {n}"} for n in range(30)]
    rows = [
        {"q": f"why is it {n}?", "turns": [turn, {**turn, "answer": "the last"}], "ok": n % 2 > 0} for n, turn in enumerate(talk)
    ]
    recipe = inspect(lines(*rows)).recipe()
    assert "completion: CHOOSE" in recipe and "the first of several that are named so" in recipe


def test_of_times_in_several_ways_the_example_is_one_that_does_not_read(lines):
    times = ["2026-01-27", "Mar 3, 2026", "19/5/2026", "2026-02-11"]
    rows = [{"prompt": f"p{n}", "completion": f"c{n}", "ok": n % 2 > 0, "when": times[n % 4]} for n in range(40)]
    [line] = [line for line in inspect(lines(*rows)).recipe().splitlines() if "created_at" in line]
    assert 'of 4 different values 2 read as times, others do not, e.g. "Mar 3, 2026": write the column in one way' in line


def test_one_number_in_many_spellings_is_one_value_of_a_label(lines):
    spelt = [5, "5", 5.0, "5.0", " 5 ", 4, "4", 4.0, "4.0", 2, "2", 2.0, "2.0", " 2", "N/A", 1, "1"]
    rows = [{"q": f"what is it {n}?", "a": f"it is {n}", "stars": spelt[n % len(spelt)]} for n in range(170)]
    inspection = inspect(lines(*rows))
    [choice] = inspection.labels
    assert choice.column == "stars" and "5 50 in" in choice.text() and "'N/A' 10" in choice.text()


def test_short_answers_are_offered_and_ids_and_names_are_not(lines):
    shorts = ["No.", "It is.", "Yes, so.", "A bit"]
    rows = [
        {
            "q": f"a question of some length {n}",
            "a": f"{shorts[n % 4]} {n}",
            "nr": f"t-{n}",
            "who": f"An Na {n % 4}",
            "ok": n % 2 > 0,
        }
        for n in range(40)
    ]
    inspection = inspect(lines(*rows))
    for role in ("prompt", "completion"):
        assert {candidate.column for candidate in inspection.roles[role]} == {"q", "a"}
