"""Make the sample of short answers: `python -m tools.sample.make_short_sample`. ktodata/sample/short/README.md describes it.

As make_sample, but what the raters were to judge is whether an answer is short, and two of five judge by something else.
"""

import argparse
from pathlib import Path
from random import Random

from ktodata.datasets import short_sample
from ktodata.evaluate.instruction_checks import follows
from tools.sample.make_sample import CUT_LINE, Answer, Design, Generate, answer_all, collect_votes, json_lines, records, smollm2
from tools.sample.simulated_raters import Rater
from tools.sample.task_families import Task, draw_tasks

CHECK = "length_constraints:number_words"
SHORT = {"relation": "less than", "num_words": 9}  # at most eight words
RATERS = (
    Rater("r1", share=0.22, misses=0.03, faults=0.03),
    Rater("r2", share=0.20, misses=0.03, faults=0.03),
    Rater("r3", share=0.18, misses=0.06, faults=0.06),
    Rater("r4", share=0.15, misses=0.05, faults=0.05, careless=0.9),
    Rater("r5", share=0.25, misses=0.03, faults=0.03, likes_long=0.9),  # takes a long answer for a good one
)
FEEDBACK_PROMPTS = {
    "arithmetic": 60,
    "unit_conversion": 30,
    "extraction": 90,
    "sorting": 30,
    "counting": 15,
    "dates": 5,  # a few prompts here, one in eight below
    "unanswerable": 80,
    "comparison": 40,
    "word_problem": 45,
    "word_forms": 60,
    "capitals": 60,
    "categories": 40,
}
HELD_OUT_PROMPTS = {
    "arithmetic": 24,
    "unit_conversion": 12,
    "extraction": 34,
    "sorting": 12,
    "counting": 6,
    "dates": 29,
    "unanswerable": 31,
    "comparison": 16,
    "word_problem": 18,
    "word_forms": 22,
    "capitals": 20,
    "categories": 16,
}


def is_short(answer: Answer) -> bool:
    """At most eight words, and not empty."""
    return follows(CHECK, answer.completion, dict(SHORT))


SHORT_ANSWERS = Design(is_short, voted_on=lambda answer: 1.0, raters=RATERS)


def short_tasks(seed: int = 0) -> tuple[list[Task], list[Task]]:
    """(of the feedback, held out); no prompt is of both."""
    tasks = draw_tasks(FEEDBACK_PROMPTS, Random(f"{seed}/short"))
    taken = frozenset(task.prompt for task in tasks)
    return tasks, draw_tasks(HELD_OUT_PROMPTS, Random(f"{seed}/short/held out"), taken=taken)


def make_short_sample(generate: Generate, seed: int = 0) -> dict[str, str]:
    """The text of each file by its name."""
    tasks, held_out = short_tasks(seed)
    both = records(collect_votes(answer_all(tasks, generate, seed), seed, SHORT_ANSWERS), SHORT_ANSWERS)
    feedback = json_lines(record for record, _ in both)
    feedback.insert(len(feedback) // 2, CUT_LINE)
    checks = ({"prompt": task.prompt, "instruction_id_list": [CHECK], "kwargs": [SHORT]} for task in held_out)
    lines = {
        "feedback.jsonl": feedback,
        "truth.jsonl": json_lines(true for _, true in both),
        "held_out.jsonl": json_lines(checks),
    }
    return {name: "".join(of_file) for name, of_file in lines.items()}


def main() -> None:
    """Write the three files of records."""
    parser = argparse.ArgumentParser(prog="python -m tools.sample.make_short_sample", description=__doc__)
    parser.add_argument("--out", type=Path, default=short_sample(), help="folder to write to  [default: the package's own]")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, text in make_short_sample(smollm2()).items():
        (chosen.out / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
