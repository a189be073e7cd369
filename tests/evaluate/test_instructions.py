import json

import numpy as np
import polars as pl
import pytest

from ktodata.errors import EmptyDataError, FormatError
from ktodata.evaluate.instruction_checks import CHECKS, count_sentences, follows
from ktodata.evaluate.instructions import at_most, instruction_measures, read_instructions

AT_LEAST, LESS = "at least", "less than"
# each instruction of the paper's table: (arguments, an answer that keeps to it, one that does not)
CASES = [
    ("keywords:existence", {"keywords": ["Sea", "sky"]}, "the SEA and skyline", "the sea"),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": AT_LEAST}, "Sea, sea", "sea"),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": LESS}, "sea", "sea sea"),
    ("keywords:frequency", {"keyword": "a.c", "frequency": 1, "relation": AT_LEAST}, "a.c", "abc"),
    ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "a season", "The SEA!"),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": AT_LEAST}, "# one # two", "# one"),
    ("keywords:letter_frequency", {"letter": "T", "let_frequency": 3, "let_relation": LESS}, "a Tt", "t T t"),
    ("language:response_language", {"language": "de"}, "Das ist ein ganz gewöhnlicher deutscher Satz.", "This is English."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": AT_LEAST}, "One. Two", "Dr. Who is 3.5 tall"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS}, "One.", "One! Two?"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\na *** b\n***", "a *** *** b"),
    ("length_constraints:number_words", {"num_words": 3, "relation": AT_LEAST}, "one two three", "one two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, "one two", "one, two; three"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "sea"},
        'sky\n\n"Sea, he said',
        "sky\n\nsea\n\nsea",
    ),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "a"}, "a b", "b a"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [place]", "[name] of place]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "bye\n\np. s. more", "bye PS more"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "bye P.P.S more", "bye P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n  - b", "* a\n* b\n* c"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "* a\n**bold**", "**bold**"),
    ("detectable_format:constrained_response", {}, "Well. My answer is maybe.", "my answer is maybe"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and ** ** and *"),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1\na\nSECTION 2", "SECTION 1"),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', '{"a": 1} there'),
    ("detectable_format:title", {}, "<<A day>>\nIt was", "<< >>\n<a day>"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one ****** one"),
    ("combination:two_responses", {}, "****** one ****** two", "one ****** two ****** three"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "It. Say it."),
    ("startend:end_checker", {"end_phrase": "Is that all?"}, 'Yes. is that all?"', "Is that all? Yes."),
    ("startend:quotation", {}, ' "all of it" ', '"'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": AT_LEAST}, "NASA and X-RAY", "NASA Go"),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": LESS}, "I Go", "AI IS"),
    ("change_case:english_capital", {}, "THIS IS ALL THAT I WANT TO SAY.", "THIS is all that I want to say."),
    ("change_case:english_capital", {}, "THE WEATHER IS FINE TODAY.", "DAS IST EIN GANZ ANDERER SATZ."),
    ("change_case:english_lowercase", {}, "this is all that i want to say.", "This is all."),
    ("punctuation:no_comma", {}, "one; two", "one, two"),
]  # fmt: skip


def test_all_25_instructions_of_the_paper_have_a_case():
    assert {name for name, *_ in CASES} == set(CHECKS) and len(CHECKS) == 25


@pytest.mark.parametrize(("name", "arguments", "kept", "broken"), CASES)
def test_each_instruction(name, arguments, kept, broken):
    assert follows(name, kept, arguments) is True
    assert follows(name, broken, arguments) is False
    assert follows(name, " \n", arguments) is False  # an empty answer keeps to nothing


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("No end", 1),
        ("One.\nTwo.", 2),
        ("A heading\n\nand a sentence.", 1),
        ("1. One thing\n2. another thing.", 1),
        ('He said "No!" She left (at last.) Then?', 3),
        ("It was in 1999. Then it ended.", 2),
        ("The U.S. has one. E.g. this, by J. Smith vs. Mr. Jones.", 2),
        ("At 3.5 percent, www.example.com fell... It rose!", 2),
    ],
)
def test_sentences(text, count):
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "\x00\u202e{}",
        "[" * 100_000,
        "*" * 50_000,
        "<<" * 50_000,
        "(a.b" * 20_000,
        "." * 50_000 + "x",
        "\n" * 50_000,
        "e.g. " * 20_000,
    ],
)
def test_hostile_answers_end(text):
    for name, arguments, *_ in CASES:
        if not name.startswith(("language", "change_case:english")):  # the library that detects languages has limits of its own
            assert follows(name, text, arguments) in (True, False)


def record(prompt="Say it.", names=("punctuation:no_comma",), kwargs=({},)):
    return {"prompt": prompt, "instruction_id_list": list(names), "kwargs": list(kwargs)}


def written(folder, *records):
    path = folder / "if.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in records))
    return path


def test_prompts_with_unknown_instructions_are_left_out_and_counted(tmp_path):
    some = {"num_words": 5.0, "relation": AT_LEAST, "num_sentences": None}
    path = written(
        tmp_path,
        record("a", ["length_constraints:number_words"], [some]),
        "",
        record("b", ["made:up", "punctuation:no_comma"], [{"x": 1}, None]),
        record("c", ["punctuation:no_comma"], [None]),
    )
    prompts, facts = read_instructions(path)
    assert prompts.select("item", "prompt").rows() == [(0, "a"), (1, "c")]
    assert json.loads(prompts["instructions"][0]) == [
        ["length_constraints:number_words", {"num_words": 5.0, "relation": AT_LEAST}]
    ]
    assert facts == {"file": "if.jsonl", "prompts": 2, "left_out": 1, "unknown": {"made:up": 1}}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{half", "line 2 is not JSON"),
        ("[]", "line 2 has no prompt, instruction_id_list, kwargs"),
        ({"prompt": "a"}, "line 2 has no instruction_id_list, kwargs"),
        (record(prompt=" "), "line 2: the prompt is empty"),
        (record(kwargs=[{}, {}]), "lists of one length"),
        (record(names=[], kwargs=[]), "not empty"),
        (record(kwargs=["x"]), "something other than objects"),
        (record(kwargs=[{"commas": 1}]), "line 2: punctuation:no_comma: commas: Unexpected keyword"),
        (record(names=["keywords:existence"]), "keywords:existence: keywords: Missing required argument"),
        (
            record(names=["length_constraints:number_words"], kwargs=[{"num_words": 1, "relation": "about"}]),
            "relation: .*'about'",
        ),
    ],
)
def test_a_record_that_is_none_is_told_with_its_line(tmp_path, line, says):
    with pytest.raises(FormatError, match=says):
        read_instructions(written(tmp_path, record(), line))


def test_files_without_prompts(tmp_path):
    with pytest.raises(EmptyDataError, match="no prompt that can be scored; without a check: made:up"):
        read_instructions(written(tmp_path, record(names=["made:up"])))
    with pytest.raises(FormatError, match="there is no file"):
        read_instructions(tmp_path / "absent.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    with pytest.raises(FormatError, match="is not UTF-8"):
        read_instructions(tmp_path / "latin.jsonl")


def test_measures_by_hand():
    """Answer 1 follows both of two, answer 2 one of two, answer 3 none of one: 1 of 3 prompts, 3 of 5 instructions.
    Drawn twice, once and not at all: 2 of 3 prompts, (2 x 2 + 1) of (2 x 2 + 2) instructions.
    """
    both = json.dumps([["punctuation:no_comma", {}], ["detectable_format:title", {}]])
    one = json.dumps([["punctuation:no_comma", {}]])
    answers = pl.DataFrame({"text": ["<<a>> b", "a b", "a, b"], "instructions": [both, both, one]})
    measures = instruction_measures(answers)
    weights = np.array([[1.0, 1, 1], [2, 1, 0]])
    np.testing.assert_allclose(measures["instructions_strict"](weights), [1 / 3, 2 / 3])
    np.testing.assert_allclose(measures["instructions_each"](weights), [3 / 5, 5 / 6])


@pytest.mark.shared
def test_every_prompt_of_a_real_file_can_be_scored(shared):
    prompts, facts = read_instructions(shared / "tasks" / "ifeval_dev.jsonl")
    assert prompts.height == 120 and facts["unknown"] == {}
    assert at_most(prompts, 5).height == 5 and at_most(prompts, 5).equals(at_most(prompts, 5))
    echoed = instruction_measures(prompts.with_columns(text="prompt"))
    assert 0 < echoed["instructions_strict"](np.ones((1, 120)))[0] < echoed["instructions_each"](np.ones((1, 120)))[0] < 1
