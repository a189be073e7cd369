"""The programs that say whether an answer is right: the sample's truth is what they say. Strict, but fair to wording.

Each check is a function (prompt, expected, completion) -> bool; `families.Task` names one and says what it expects. A right
answer in a whole sentence is right; a right answer beside a wrong one is not; a format that is asked for is the answer.
"""

import json
import re
from collections.abc import Callable
from typing import Any

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?")
_LIST_MARK = re.compile(r"^[ \t]*\d+[.)][ \t]+(?=\S)", re.MULTILINE)
# "= 12", "#### 12" and "the answer is 12" state a result, but "= 10 + 2" and "the answer is 10 + 2" do not yet
_STATED = re.compile(
    r"(?:=|#+|\banswer(?: is|:| would be)?)[^\w+*/x×÷=-]*(-?\d[\d,]*(?:\.\d+)?)(?![\d,.]*\s*[-+*/x×÷=])", re.IGNORECASE
)
# what an answer may open with before it answers; and its repeating of the question: "the opposite of dry is ..."
_OPENING = re.compile(r"^(?:sure|certainly|of course|okay|yes)\b[^.!?\n]{0,20}[.!:,\n]\s*", re.IGNORECASE)
_QUESTION = re.compile(
    r"\b(?:plural|opposite|antonym|form)(?: form)? (?:of|to)(?: the word)? [\"'“‘]?\w+(?=\W{1,2}(?:is|are|would|means)\b)",
    re.IGNORECASE,
)
_SMALL_NUMBERS = re.findall(
    r"\w+",
    "zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, sixteen, "
    "seventeen, eighteen, nineteen, twenty",
)
_CANNOT = re.compile(
    r"\b(?:do not|don't)\W+(?:\w+\W+){0,2}?(?:know|remember|recall)\b"
    r"|\b(?:cannot|can't|can not|unable to|not able to|not capable of|no way (?:to|of)|(?:not |im)possible(?: for me)? to)\W+"
    r"(?:\w+\W+){0,2}?(?:know|knowing|tell|see|read|access|provide|providing|answer|determine|give|say|predict|remember|recall"
    r"|assist|help|share|guess)\b"
    r"|\bonly you (?:can )?know\b|\bno (?:information|access|knowledge)\b|(?:\bis|'s) (?:an )?unanswerable\b",
    re.IGNORECASE,
)
# "I don't have ..." declines only when what is missing is a way to know
_HAVE_NO_WAY = re.compile(
    r"\b(?:do not|don't)\s+(?:\w+ly\s+)?have\s+(?:\w+\s+){0,4}?(?:access|ability|abilities|capability|capabilities|capacity|"
    r"information|knowledge|way|means|memory|memories|experiences?|data|context|details|eyes|senses)\b",
    re.IGNORECASE,
)
# "I'm not sure" alone declines; before a guess it does not
_NOT_SURE = re.compile(r"\W*(?:I(?:'m| am) not sure\W*)+", re.IGNORECASE)


def numbers(text: str) -> list[float]:
    """Every number that `text` gives in digits or, up to twenty, in words; the numbering of a list is left out."""
    text = _LIST_MARK.sub("", text.replace("\u2019", "'"))
    in_digits = re.sub(r"\b(" + "|".join(_SMALL_NUMBERS) + r")\b", lambda word: _digits(word[0]), text, flags=re.IGNORECASE)
    return [float(digits.replace(",", "")) for digits in _NUMBER.findall(in_digits)]


def _digits(word: str) -> str:
    return str(_SMALL_NUMBERS.index(word.lower()))


def number(prompt: str, expected: float, completion: str) -> bool:
    """The number that the answer claims is the expected one.

    Numbers that the prompt gave are no claim (a task's answer is never among them). What is stated last as a result, after "=" or
    "the answer is", counts; without such a statement the first or the last other number does, since working may stand around it.
    """
    cut = re.search(r"\d+$", completion)
    if cut and str(expected).startswith(cut[0]) and str(expected) != cut[0]:  # the last token that was allowed cut it short
        completion = completion[: cut.start()]
    in_prompt = set(numbers(prompt))
    stated = [float(digits.strip(",").replace(",", "")) for digits in _STATED.findall(completion)]
    results = [value for value in stated if value not in in_prompt]
    if results:
        return results[-1] == expected
    claims = [value for value in numbers(completion) if value not in in_prompt]
    return bool(claims) and expected in (claims[0], claims[-1])


def only(prompt: str, expected: dict[str, Any], completion: str) -> bool:
    """The first sentence affirms one of the right words and none of the wrong ones.

    Where two sentences are allowed, the second counts if the first affirms and denies nothing that matters.
    """
    for sentence in _sentences(completion)[: expected.get("sentences", 1)]:
        claim = _QUESTION.sub("", sentence)
        if _mentions(claim, expected["right"]) or _affirms(claim, expected["wrong"]):
            return _affirms(claim, expected["right"]) and not _affirms(claim, expected["wrong"])
    return False


def field(prompt: str, expected: str, completion: str) -> bool:
    """The first sentence names the field of the message that was asked for: in at most five words, or after a verb.

    What it copies from the message word for word does not count, nor does naming a thing in passing ("the red lamp was sold").
    """
    first = _sentences(completion)[0]
    own_words = _without_copies(first, prompt)
    names = (
        rf"(?:'s|\b(?:is|was|are|were|be|bought|ordered))\b.*(?<!\w){expected}(?!\w)"
        rf"|(?<!\w){expected} is mentioned\b|:\W*{expected}(?!\w)"
    )
    short = len(first.split()) <= 5
    denied = re.search(r"\bnot (?:mentioned|provided|given|specified|known)\b", first)
    return _affirms(own_words, [expected]) and not denied and (short or bool(re.search(names, own_words, re.IGNORECASE)))


def _without_copies(text: str, prompt: str) -> str:
    """`text` without its runs of five or more words that stand in `prompt` just so."""
    words, prompt_words = re.findall(r"\w+|\W+", text), " " + " ".join(re.findall(r"\w+", prompt.lower())) + " "
    places = [place for place, word in enumerate(words) if re.match(r"\w", word)]
    copied: set[int] = set()
    for run in zip(places, places[1:], places[2:], places[3:], places[4:], strict=False):
        if " " + " ".join(words[place].lower() for place in run) + " " in prompt_words:
            copied.update(run)
    return "".join(word for place, word in enumerate(words) if place not in copied)


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+|\n+", _OPENING.sub("", text.strip()))


def _mentions(text: str, words: list[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)


def _affirms(text: str, words: list[str]) -> bool:
    """It has one of the words, and does not deny it ("not a fruit")."""
    denied = any(re.search(rf"\bnot (?:\w+ ){{0,3}}{re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)
    return _mentions(text, words) and not denied


def sequence(prompt: str, expected: dict[str, list[str]], completion: str) -> bool:
    """The items in the right order, once; the given order may be repeated before it."""
    any_item = "|".join(re.escape(item) for item in sorted(expected["given"], key=len, reverse=True))
    items = re.findall(rf"(?<![\w.])(?:{any_item})(?!\w)", completion, re.IGNORECASE)
    foreign = set(numbers(completion)) - set(numbers(prompt)) if expected["given"][0].isdigit() else set()
    lowered = [item.lower() for item in items]
    return lowered in (expected["right"], [*expected["given"], *expected["right"]]) and not foreign


def yes_no(prompt: str, expected: str, completion: str) -> bool:
    """It says the right one of yes and no, and not the other."""
    answers = {word.lower() for word in re.findall(r"\b(?:yes|no)\b", completion, re.IGNORECASE)}
    return answers == {expected}


def declines(prompt: str, expected: None, completion: str) -> bool:
    """It says that it cannot know or tell."""
    text = completion.replace("\u2019", "'")
    return bool(_CANNOT.search(text) or _HAVE_NO_WAY.search(text) or _NOT_SURE.fullmatch(text))


def bullets(prompt: str, expected: int, completion: str) -> bool:
    """Exactly so many different items on lines that start with a dash, star or bullet; text around the list is fine."""
    return _is_list(re.findall(r"^[ \t]*[-*•–][ \t]+(\S.*)$", completion, re.MULTILINE), expected)


def numbered(prompt: str, expected: int, completion: str) -> bool:
    """Exactly so many different items on lines numbered 1., 2., ...; text around the list is fine."""
    marked = re.findall(r"^[ \t]*(\d+)[.)][ \t]+(\S.*)$", completion, re.MULTILINE)
    in_order = [int(mark) for mark, _ in marked] == list(range(1, expected + 1))
    return in_order and _is_list([item for _, item in marked], expected)


def _is_list(items: list[str], length: int) -> bool:
    """`length` different items that hold a word each."""
    words = {" ".join(re.findall(r"[^\W\d_]+", item)).lower() for item in items}
    return len(items) == length == len(words - {""})


def lower_case(prompt: str, expected: None, completion: str) -> bool:
    """Some words, and no capital letter."""
    return completion == completion.lower() and len(completion.split()) >= 2


def upper_case(prompt: str, expected: None, completion: str) -> bool:
    """Some words, and no small letter."""
    return completion == completion.upper() and len(re.findall(r"[A-Z]+", completion)) >= 2


def one_word(prompt: str, expected: None, completion: str) -> bool:
    """A single word, with or without punctuation around it."""
    return re.fullmatch(r"\W*[^\W\d_]+(?:['-][^\W\d_]+)*\W*", completion) is not None


def json_object(prompt: str, expected: dict[str, Any], completion: str) -> bool:
    """A JSON object with the expected keys and values; a code fence or a word before it is fine."""
    start, end = completion.find("{"), completion.find("}")
    try:
        parsed = json.loads(completion[start : end + 1])
    except ValueError:
        return False
    return isinstance(parsed, dict) and {key: str(value) for key, value in parsed.items()} == expected


def copy(prompt: str, expected: str, completion: str) -> bool:
    """The text and nothing else; quotation marks around it and the final full stop are free."""
    return completion.strip(" \n\"'“”.") == expected.strip(" .")


CHECKS: dict[str, Callable[[str, Any, str], bool]] = {
    check.__name__: check
    for check in (
        number,
        only,
        field,
        sequence,
        yes_no,
        declines,
        bullets,
        numbered,
        lower_case,
        upper_case,
        one_word,
        json_object,
        copy,
    )
}
