"""How dedupe and split grow with the number of rows, in seconds and memory.

    python tests/benchmarks/dedupe_scaling.py --rows 20000 50000 100000 200000 [--kind mixed|templated|crowded]

Rows are made up: prompts of about 15 words, completions of about 40, words drawn with the frequencies of running text. `mixed`
has 10 % exact repeats, 10 % rows with one word changed, four rows to a prompt and about 1 % of the texts with both labels. In
`templated` every prompt fills one long template with two words. In `crowded` there are 20 prompts and one answer in which three
words differ from row to row: nearly all pairs look like near-duplicates and nearly none is.

Each size runs once, in a process of its own; making the rows is not timed. The last line is the exponent b of seconds = a * rows^b,
fitted by least squares on logarithms: 1 is linear.

Measured on 2 shared cores at a load of 5 to 8 (so seconds are an upper bound, and exponents rough), polars 2.1, numpy 2.4:

    kind        rows     dedupe s   split s   peak GB   exponent over 20k, 50k, 100k, 200k
    mixed       200,000      25.3       4.0      0.88   0.79
    templated   200,000      24.7       3.6      0.89   0.89
    crowded     200,000      33.6       1.3      1.47   1.12
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import polars as pl
from machine import machine, write_result

from ktodata.feedback import feedback_table
from ktodata.stages.dedupe import dedupe
from ktodata.stages.split import split

TEMPLATE = (
    "you are a careful assistant of a small shop and answer only what is asked . please write a friendly note to {} about {}"
)
CROWD = (
    "thank you for asking , we sent the {} to your address last week and {} will bring it to the door before noon so that you can"
    " use the {} as soon as you like , with our best wishes"
)


def made_up(rows: int, kind: str, seed: int = 0) -> pl.DataFrame:
    """A feedback table of `rows` rows."""
    random = np.random.default_rng(seed)
    words = np.array([f"{a}{b}{c}" for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES])
    prompts = _texts(random, words, rows // 4, 15)
    if kind == "templated":
        prompts = [TEMPLATE.format(*random.choice(words, 2)) for _ in range(rows // 4)]
    base = int(rows * 0.8)
    prompt = [prompts[place % 20 if kind == "crowded" else place] for place in random.integers(0, len(prompts), base)]
    completion = _texts(random, words, base, 40)
    if kind == "crowded":
        completion = [CROWD.format(*random.choice(words, 3)) for _ in range(base)]
    copied = random.integers(0, base, rows - base)
    prompt += [prompt[place] for place in copied]
    completion += [
        completion[place] if number % 2 else _one_word_changed(random, words, completion[place])
        for number, place in enumerate(copied)
    ]
    label = random.random(rows) < 0.7
    label[base:] = np.where(random.random(rows - base) < 0.1, ~label[copied], label[copied])
    return _as_feedback(prompt, completion, label)


_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeo"]


def _texts(random: np.random.Generator, words: np.ndarray, count: int, mean_words: int) -> list[str]:
    lengths = np.maximum(1, random.poisson(mean_words, count))
    drawn = words[(random.zipf(1.15, lengths.sum()) - 1) % len(words)]
    ends = np.cumsum(lengths)
    return [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def _one_word_changed(random: np.random.Generator, words: np.ndarray, text: str) -> str:
    parts = text.split(" ")
    parts[random.integers(len(parts))] = str(random.choice(words))
    return " ".join(parts)


def _as_feedback(prompt: list[str], completion: list[str], label: np.ndarray) -> pl.DataFrame:
    empty = feedback_table()
    table = pl.DataFrame({"prompt": prompt, "completion": completion, "label": label}).with_columns(
        row_id=pl.int_range(pl.len()).cast(pl.String),
        votes=pl.concat_list(
            pl.struct(rater=pl.lit(None, pl.String), label="label", created_at=pl.lit(None, pl.Datetime("us", "UTC")))
        ),
        source=pl.lit("made up"),
        source_line=pl.int_range(1, pl.len() + 1),
    )
    return pl.concat([empty, table], how="diagonal").select(empty.columns)


def measure(rows: int, kind: str) -> dict[str, object]:
    """Seconds of each stage and the process's peak memory."""
    feedback = made_up(rows, kind)
    before = _peak_gb()
    start = time.perf_counter()
    deduped = dedupe(feedback)
    middle = time.perf_counter()
    done = split(feedback.join(deduped.columns, on="row_id"))
    end = time.perf_counter()
    names = ("repeats", "near_repeats", "contradicted_texts", "prompt_groups", "largest_prompt_group", "pairs")
    return {
        "rows": rows,
        "dedupe_s": round(middle - start, 2),
        "split_s": round(end - middle, 2),
        "peak_gb": _peak_gb(),
        "peak_gb_of_making_the_rows": before,
        "leaks": done.metrics["leaks"],
        "groups_joined": done.metrics["groups_joined"],
    } | {name: deduped.metrics[name] for name in names}


def _peak_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 50_000, 100_000, 200_000])
    parser.add_argument("--kind", choices=("mixed", "templated", "crowded"), default="mixed")
    parser.add_argument("--here", action="store_true", help="measure the first size in this process and print JSON")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure(asked.rows[0], asked.kind)))
        return
    runs = []
    for rows in asked.rows:
        command = [sys.executable, __file__, "--here", "--kind", asked.kind, "--rows", str(rows)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(json.dumps(found), flush=True)
        runs.append(found)
    seconds = [run["dedupe_s"] + run["split_s"] for run in runs]
    exponent = np.polyfit(np.log(asked.rows), np.log(seconds), 1)[0] if len(runs) > 1 else None
    print(f"exponent: {exponent}")
    write_result(f"dedupe_scaling-{asked.kind}", {"runs": runs, "exponent": exponent, **machine()})


if __name__ == "__main__":
    main()
