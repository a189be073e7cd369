"""The tasks of the sample: families of short prompts, each with what a right answer is.

A family is a function of a seeded `random.Random` that gives one Task. `answer_checks.py` has the programs that judge an answer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from tools.sample.answer_checks import numbers
from tools.sample.word_lists import (
    CAPITALS,
    CITIES,
    COLOURS,
    DAYS,
    KINDS,
    KINDS_OF,
    MONTH_DAYS,
    MONTHS,
    NAMES,
    OPPOSITES,
    PLURALS,
    PRIVATE,
    SHORT_WORDS,
    TOPICS,
    UNITS,
    WORDS,
)


@dataclass(frozen=True)
class Task:
    """A prompt, and what makes an answer right: `check` names the program, `expected` is what it looks for (JSON values)."""

    family: str
    prompt: str
    check: str
    expected: Any


def arithmetic(rng: Random) -> Task:
    a, b = rng.randint(1, 9), rng.randint(2, 6)
    signs, words, answer = rng.choice(
        [
            (f"{a} + {b}", f"{a} plus {b}", a + b),
            (f"{a} + {b}", f"the sum of {a} and {b}", a + b),
            (f"{a + b} - {b}", f"{a + b} minus {b}", a),
            (f"{a} * {b}", f"{a} times {b}", a * b),
        ]
    )
    prompt = rng.choice(
        [
            f"What is {signs}?",
            f"What is {words}?",
            f"Calculate {signs}.",
            f"1 + 1 = 2, 2 + 5 = 7, {signs} = ?",
            f"Please work out {words}.",
            f"Can you tell me what {signs} makes?",
        ]
    )
    return Task("arithmetic", prompt, "number", answer)


def unit_conversion(rng: Random) -> Task:
    big, small, factor = rng.choice(UNITS)
    many = rng.choice([1, 1, 1, 2, 10])
    amount = f"one {big.removesuffix('s') if big != 'feet' else 'foot'}" if many == 1 else f"{many} {big}"
    prompt = rng.choice(
        [
            f"How many {small} are in {amount}?",
            f"How many {small} are there in {amount}?",
            f"Convert {amount} to {small}.",
            f"How many {small} make {amount}?",
            f"Can you tell me how many {small} {amount} is?",
        ]
    )
    return Task("unit_conversion", prompt, "number", many * factor)


def extraction(rng: Random) -> Task:
    fields = {
        "name": rng.choice(NAMES),
        "city": rng.choice(CITIES),
        "colour": rng.choice(COLOURS),
        "number": str(rng.randint(1000, 9999)),
        "item": rng.choice(["lamp", "tent", "kettle", "jacket", "bicycle", "clock", "chair", "rug"]),
    }
    text = rng.choice(
        [
            "{name} from {city} bought a {colour} {item}, order {number}.",
            "Order {number}: one {colour} {item} for {name}, to be sent to {city}.",
            "Hello, this is {name} in {city}. My {colour} {item} (order {number}) has not arrived.",
            "{name} called from {city} about order {number}, the {colour} {item}.",
        ]
    ).format(**fields)
    field = rng.choice(list(fields))
    question = {
        "name": "What is the customer's name?",
        "city": "Which city is mentioned?",
        "colour": f"What colour is the {fields['item']}?",
        "number": "What is the order number?",
        "item": "Which thing was ordered?",
    }[field]
    prompt = rng.choice([f"{text} {question}", f"{text}\n\n{question}", f"{question}\n\n{text}", f'Message: "{text}" {question}'])
    return Task("extraction", prompt, "field", fields[field])


def sorting(rng: Random) -> Task:
    if rng.random() < 0.7:
        items = [str(number) for number in rng.sample(range(1, 10 if rng.random() < 0.7 else 100), 3)]
        order, way = sorted(items, key=int), rng.choice(["from smallest to largest", "in ascending order", "smallest first"])
        things = "numbers"
    else:
        items = rng.sample(WORDS, 3)
        order, way, things = sorted(items), rng.choice(["in alphabetical order", "alphabetically", "from A to Z"]), "words"
    listed = ", ".join(items)
    prompt = rng.choice(
        [
            f"Sort these {things} {way}: {listed}",
            f"Put the {things} {listed} {way}.",
            f"Here are some {things}: {listed}. Write them {way}.",
            f"Arrange the {things} {way}.\n{listed}",
        ]
    )
    return Task("sorting", prompt, "sequence", {"right": order, "given": items})


def counting(rng: Random) -> Task:
    if rng.random() < 0.5:
        word = rng.choice(SHORT_WORDS if rng.random() < 0.7 else WORDS)
        prompt = rng.choice(
            [
                f"How many letters are in the word '{word}'?",
                f"Count the letters of '{word}'.",
                f"The word {word} has how many letters?",
                f"How many letters does {word} have?",
            ]
        )
        return Task("counting", prompt, "number", len(word))
    things = rng.sample(SHORT_WORDS, rng.randint(2, 5))
    listed = ", ".join(things)
    prompt = rng.choice(
        [
            f"How many words are in this list: {listed}?",
            f"Count the words: {listed}.",
            f"My list is: {listed}. How many words does my list have?",
        ]
    )
    return Task("counting", prompt, "number", len(things))


def dates(rng: Random) -> Task:
    kind = rng.choice(["day", "month", "length", "year"])
    if kind == "year":
        year, later = rng.randint(1950, 2020), rng.randint(2, 9)
        prompt = rng.choice(
            [f"Which year is {later} years after {year}?", f"It is {year}. Which year will it be in {later} years?"]
        )
        return Task("dates", prompt, "number", year + later)
    if kind == "length":
        month, days = rng.choice(list(MONTH_DAYS.items()))
        prompt = rng.choice([f"How many days does {month} have?", f"How many days are there in {month}? Number only."])
        return Task("dates", prompt, "number", days)
    names = DAYS if kind == "day" else MONTHS
    place, (word, step) = rng.randrange(len(names)), rng.choice([("after", 1), ("before", -1)])
    right = names[(place + step) % len(names)]
    today = f"Today is {names[place]}. Which day {'comes tomorrow' if step == 1 else 'was yesterday'}?"
    prompt = rng.choice(
        [
            f"Which {kind} comes right {word} {names[place]}?",
            f"What {kind} is {word} {names[place]}? One word, please.",
            f"Name the {kind} that comes just {word} {names[place]}.",
            today if kind == "day" else f"In the calendar, what comes directly {word} {names[place]}?",
        ]
    )
    return Task("dates", prompt, "only", {"right": [right], "wrong": [n for n in names if n not in (right, names[place])]})


def output_format(rng: Random) -> Task:
    topic, kind, name = rng.choice(TOPICS), rng.choice(KINDS), rng.choice(NAMES)
    age, city = rng.randint(20, 60), rng.choice(CITIES)
    numbered = rng.choice(
        [f"Write a numbered list of three {kind}.", f"Name three {kind} as a numbered list.", f"List 3 {kind}, numbered 1 to 3."]
    )
    prompt, check, expected = rng.choice(
        [
            (numbered, "numbered", 3),
            (numbered, "numbered", 3),
            (f"List exactly three {kind} as bullet points.", "bullets", 3),
            (f"Write one short sentence about {topic} all in lower case.", "lower_case", None),
            (f"Write one short sentence about {topic} in CAPITAL LETTERS only.", "upper_case", None),
            (f"Write a JSON object with the name {name} and the city {city}.", "json_object", {"name": name, "city": city}),
            (f"Write JSON with the keys name and age for {name}, who is {age}.", "json_object", {"name": name, "age": str(age)}),
            (
                f"{name} lives in {city}. Put this in a JSON object with keys name and city.",
                "json_object",
                {"name": name, "city": city},
            ),
            (f"Name one of the {kind}. Answer with a single word.", "one_word", None),
        ]
    )
    return Task("output_format", prompt, check, expected)


def unanswerable(rng: Random) -> Task:
    secret = rng.choice(PRIVATE)
    prompt = rng.choice(
        [
            f"Can you tell me {secret}?",
            f"Tell me {secret}.",
            f"Do you know {secret}?",
            f"I want to know {secret}. If you cannot know it, say so.",
            f"Please say {secret}, or say that you don't know.",
        ]
    )
    return Task("unanswerable", prompt, "declines", None)


def comparison(rng: Random) -> Task:
    a, b = rng.sample(range(2, 100), 2)
    more = rng.random() < 0.5
    word = rng.choice(["larger", "greater", "bigger"] if more else ["smaller", "less"])
    right = "yes" if (a > b) == more else "no"
    prompt = rng.choice(
        [
            f"Is {a} {word} than {b}? Answer yes or no.",
            f"Yes or no: {a} is {word} than {b}.",
            f"Is {a} {word} than {b}, yes or no?",
            f"{a} is {word} than {b}, yes or no?",
        ]
    )
    return Task("comparison", prompt, "yes_no", right)


def word_problem(rng: Random) -> Task:
    name, thing = rng.choice(NAMES), rng.choice(["apples", "books", "coins", "stickers", "marbles", "cards", "pens", "shells"])
    a, b = rng.sample(range(2, 10), 2)
    text, answer = rng.choice(
        [
            (f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?", a + b),
            (f"{name} had {a + b} {thing} and gave away {b}. How many {thing} are left?", a),
            (f"{name} buys {a} {thing} on Monday and {b} {thing} on Tuesday. How many {thing} is that in total?", a + b),
            (f"A bag holds {a} red {thing} and {b} blue {thing}. How many {thing} are in the bag?", a + b),
            (f"There are {a} boxes with {b} {thing} in each. How many {thing} are there in all?", a * b),
        ]
    )
    return Task("word_problem", text, "number", answer)


def word_forms(rng: Random) -> Task:
    if rng.random() < 0.6:
        word, right = rng.choice(list(OPPOSITES.items()))
        prompt = rng.choice(
            [
                f"What is the opposite of '{word}'?",
                f"Give the opposite of {word}.",
                f"Which word means the opposite of {word}?",
                f"Tell me a word that means the opposite of '{word}'.",
            ]
        )
        return Task("word_forms", prompt, "only", {"right": right, "wrong": []})
    word, plural = rng.choice(list(PLURALS.items()))
    prompt = rng.choice(
        [
            f"What is the plural of '{word}'?",
            f"What is the plural form of {word}?",
            f"Write the plural of the word {word}.",
        ]
    )
    return Task("word_forms", prompt, "only", {"right": [plural], "wrong": []})


def capitals(rng: Random) -> Task:
    country, city = rng.choice(list(CAPITALS.items()))
    prompt = rng.choice(
        [
            f"What is the capital of {country}?",
            f"Name the capital city of {country}.",
            f"Which city is the capital of {country}?",
            f"What is {country}'s capital called?",
            f"Tell me the capital of {country}.",
            f"Which city is the seat of government of {country}?",
        ]
    )
    return Task("capitals", prompt, "only", {"right": city, "wrong": [], "sentences": 2})


def categories(rng: Random) -> Task:
    kind = rng.choice(list(KINDS_OF))
    thing, other = rng.choice(KINDS_OF[kind]), rng.choice([other for other in KINDS_OF if other != kind])
    first, second = rng.sample([kind, other], 2)
    prompt = rng.choice(
        [
            f"Is {thing} a kind of {first} or {second}?",
            f"Which fits {thing} better: {first} or {second}?",
            f"{first.capitalize()} or {second}: what is {thing}?",
        ]
    )
    return Task("categories", prompt, "only", {"right": [kind], "wrong": [other], "sentences": 2})


def copying(rng: Random) -> Task:
    words = rng.sample(WORDS, 2)
    sentence = rng.choice(
        [
            f"The {words[0]} is behind the {words[1]}.",
            f"{rng.choice(NAMES)} likes the {words[0]}.",
            f"We saw a {rng.choice(COLOURS)} {words[0]} today.",
            f"My {words[0]} is {rng.choice(COLOURS)}.",
        ]
    )
    prompt = rng.choice(
        [
            f"Repeat this sentence exactly: {sentence}",
            f"Copy this text without any change: {sentence}",
            f'Say this back to me, word for word: "{sentence}"',
        ]
    )
    return Task("copying", prompt, "copy", sentence)


FAMILIES: dict[str, Callable[[Random], Task]] = {
    family.__name__: family
    for family in (
        arithmetic,
        unit_conversion,
        extraction,
        sorting,
        counting,
        dates,
        output_format,
        unanswerable,
        comparison,
        word_problem,
        word_forms,
        capitals,
        categories,
        copying,
    )
}


def draw_tasks(counts: Mapping[str, int], rng: Random, *, taken: frozenset[str] = frozenset()) -> list[Task]:
    """`counts[family]` tasks of each family, in random order, no prompt twice and none of `taken`."""
    tasks = [task for family, count in counts.items() for task in _different(family, count, rng, taken)]
    rng.shuffle(tasks)
    return tasks


def _different(family: str, count: int, rng: Random, taken: frozenset[str]) -> Iterator[Task]:
    prompts = set(taken)
    for _ in range(200 * count):
        if count == 0:
            return
        task = FAMILIES[family](rng)
        # a number that the prompt already gives could be right without being an answer: such tasks are not asked
        given_away = task.check == "number" and task.expected in numbers(task.prompt)
        if task.prompt not in prompts and not given_away:
            prompts.add(task.prompt)
            count -= 1
            yield task
    if count:
        raise ValueError(f"family {family!r} has too few different prompts: {count} are missing.")
