"""Whether an answer keeps to an instruction that a program can check: one function for each instruction of IFEval.

Source: Zhou et al. 2023, arXiv:2311.07911, table 1; ids and arguments are those of its data. Written from that table, as the
published checkers download data when they are imported. Ours differ from those in two things: sentences are told apart by a rule,
which takes the number of a list's item for none, and the language of a text is detected in its lower case.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, validate_call

Relation = Literal["less than", "at least"]
Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Check = Callable[..., bool]

CHECKS: dict[str, Check] = {}
_WORD = re.compile(r"\w+")
# an end, what may close after it, and then space or nothing; none is tried twice, as an answer may be nothing but points
_SENTENCE_END = re.compile(r"(?<![.!?\u2026\u3002\uff01\uff1f])[.!?\u2026\u3002\uff01\uff1f]++[\"'\u201d\u2019)\]*]*+(?=\s|$)")
_LOOKBACK = 24  # characters, for one of the next
# a point after one of these ends nothing: an initial, an abbreviation, the number of a list's item
_NO_END = re.compile(
    r"(?:^|[\s(\"'])(?:(?:[A-Z]\.)*[A-HJ-Z]|[Mm]rs?|[Mm]s|[Dd]r|[Pp]rof|[Ss]t|[JjSs]r|[Vv]s|[Ee]\.g|[Ii]\.e|[Ff]ig)$|\n\s*[0-9]+$"
)


def _checks(name: str) -> Callable[[Check], Check]:
    """Enter a function as the check of an instruction; its arguments are read and checked by their types."""

    def enter(check: Check) -> Check:
        CHECKS[name] = validate_call(config=ConfigDict(strict=False))(check)
        return check

    return enter


def follows(name: str, answer: str, arguments: dict[str, Any]) -> bool:
    """Whether the answer keeps to the instruction; an empty one keeps to none. Raises KeyError for an unknown name."""
    return CHECKS[name](answer, **arguments) and bool(answer.strip())


def _holds(count: int, relation: Relation, wanted: int) -> bool:
    return count < wanted if relation == "less than" else count >= wanted


@_checks("keywords:existence")
def has_keywords(answer: str, keywords: list[Text]) -> bool:
    """All of them, in any case, also within words."""
    return all(word.lower() in answer.lower() for word in keywords)


@_checks("keywords:frequency")
def has_keyword_often(answer: str, keyword: Text, frequency: Count, relation: Relation) -> bool:
    return _holds(answer.lower().count(keyword.strip().lower()), relation, frequency)


@_checks("keywords:forbidden_words")
def avoids_words(answer: str, forbidden_words: list[Text]) -> bool:
    """None of them as a word of its own."""
    return not any(re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) for word in forbidden_words)


@_checks("keywords:letter_frequency")
def has_letter_often(answer: str, letter: Text, let_frequency: Count, let_relation: Relation) -> bool:
    return _holds(answer.lower().count(letter.strip().lower()), let_relation, let_frequency)


@_checks("language:response_language")
def is_in_language(answer: str, language: Text) -> bool:
    """Whether its language, a code of ISO 639-1, is the likeliest."""
    return _language(answer) == language


@_checks("length_constraints:number_sentences")
def has_sentences(answer: str, num_sentences: Count, relation: Relation) -> bool:
    return _holds(count_sentences(answer), relation, num_sentences)


@_checks("length_constraints:number_paragraphs")
def has_paragraphs(answer: str, num_paragraphs: Count) -> bool:
    """Exactly so many, with *** between them; an empty one only before the first or after the last."""
    parts = [part.strip() for part in re.split(r"\*\*\*", answer)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


@_checks("length_constraints:number_words")
def has_words(answer: str, num_words: Count, relation: Relation) -> bool:
    return _holds(len(_WORD.findall(answer)), relation, num_words)


@_checks("length_constraints:nth_paragraph_first_word")
def has_paragraph_that_begins(
    answer: str, num_paragraphs: Count, nth_paragraph: Annotated[int, Field(ge=1)], first_word: Text
) -> bool:
    """Exactly so many paragraphs, with an empty line between them, of which the nth begins with the word."""
    parts = [part.strip() for part in answer.split("\n\n") if part.strip()]
    if len(parts) != num_paragraphs or nth_paragraph > len(parts):
        return False
    begins = parts[nth_paragraph - 1].split()[0].lstrip("\"'\u201c\u2018")
    return re.split(r"[.,?!'\"]", begins)[0].lower() == first_word.lower()


@_checks("detectable_content:number_placeholders")
def has_placeholders(answer: str, num_placeholders: Count) -> bool:
    """At least so many texts in square brackets."""
    return len(re.findall(r"\[[^\[\]\n]*\]", answer)) >= num_placeholders


@_checks("detectable_content:postscript")
def has_postscript(answer: str, postscript_marker: Text) -> bool:
    """The marker, in any case, with or without space between its letters."""
    letters = [re.escape(sign) for sign in postscript_marker.lower() if not sign.isspace()]
    return re.search(r"\s?".join(letters), answer.lower()) is not None


@_checks("detectable_format:number_bullet_lists")
def has_bullets(answer: str, num_bullets: Count) -> bool:
    """Exactly so many lines that begin with one * or with -."""
    return len(re.findall(r"^[^\S\n]*(?:\*[^*]|-)", answer, re.MULTILINE)) == num_bullets


@_checks("detectable_format:constrained_response")
def is_one_of_three(answer: str) -> bool:
    return any(f"My answer is {word}." in answer for word in ("yes", "no", "maybe"))


@_checks("detectable_format:number_highlighted_sections")
def has_highlights(answer: str, num_highlights: Count) -> bool:
    """At least so many texts between single or double asterisks, within a line."""
    doubled = re.findall(r"\*\*([^\n*]+)\*\*", answer)
    single = re.findall(r"\*([^\n*]+)\*", re.sub(r"\*\*[^\n*]+\*\*", "", answer))
    return sum(bool(text.strip()) for text in (*doubled, *single)) >= num_highlights


@_checks("detectable_format:multiple_sections")
def has_sections(answer: str, section_spliter: Text, num_sections: Count) -> bool:
    """At least so many marks such as "SECTION 1"."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", answer)) >= num_sections


@_checks("detectable_format:json_format")
def is_json(answer: str) -> bool:
    """All of it, but for a fence around it."""
    bare = re.sub(r"\A\s*```(?:json|JSON|Json)?|```\s*\Z", "", answer)
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


@_checks("detectable_format:title")
def has_title(answer: str) -> bool:
    """A text in double angular brackets, within a line."""
    return any(text.strip() for text in re.findall(r"<<([^<>\n]+)>>", answer))


@_checks("combination:two_responses")
def is_two_answers(answer: str) -> bool:
    """Two different texts with ****** between them."""
    parts = [part.strip() for part in answer.split("******")]
    if not all(parts[1:-1]):
        return False
    texts = [part for part in parts if part]
    return len(texts) == 2 and texts[0] != texts[1]


@_checks("combination:repeat_prompt")
def begins_with_request(answer: str, prompt_to_repeat: Text) -> bool:
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


@_checks("startend:end_checker")
def ends_with(answer: str, end_phrase: Text) -> bool:
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@_checks("startend:quotation")
def is_quoted(answer: str) -> bool:
    """All of it between double quotation marks."""
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@_checks("change_case:capital_word_frequency")
def has_capital_words(answer: str, capital_frequency: Count, capital_relation: Relation) -> bool:
    """Words in capitals only; words joined by hyphens are one."""
    words = re.findall(r"\w+(?:[-']\w+)*", answer)
    return _holds(sum(word.isupper() for word in words), capital_relation, capital_frequency)


@_checks("change_case:english_capital")
def is_upper_case_english(answer: str) -> bool:
    return answer.isupper() and _language(answer) in ("en", None)


@_checks("change_case:english_lowercase")
def is_lower_case_english(answer: str) -> bool:
    return answer.islower() and _language(answer) in ("en", None)


@_checks("punctuation:no_comma")
def has_no_comma(answer: str) -> bool:
    return "," not in answer


def count_sentences(text: str) -> int:
    """Ends of sentences, and a last one without an end. A new line alone ends none."""
    count, start, text = 0, 0, "\n" + text
    for end in _SENTENCE_END.finditer(text):
        if end.group().startswith(".") and _NO_END.search(text[max(start, end.start() - _LOOKBACK) : end.start()]):
            continue
        count, start = count + bool(_WORD.search(text[start : end.start()])), end.end()
    return count + bool(_WORD.search(text[start:]))


def _language(text: str) -> str | None:
    """The likeliest code of ISO 639-1; None where nothing tells."""
    detect, failed = _detector()
    try:
        return str(detect(text.lower()))
    except failed:
        return None


@cache
def _detector() -> tuple[Callable[[str], str], type[Exception]]:
    import langdetect

    langdetect.DetectorFactory.seed = 0  # it draws at random otherwise
    return langdetect.detect, langdetect.LangDetectException
