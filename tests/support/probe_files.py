"""Files that ask a comparison for more, in the words of the tiny model, and the settings of a quick one."""

import json

import polars as pl
from easy_rows import easy_rows

QUICK = {
    "max_length": 48,
    "batch_size": 8,
    "micro_batch_size": 4,
    "learning_rate_factor": 1000,
    "bootstrap": 100,
    "device": "cpu",
    "trainable_layers": 1,
    "methods": ["kto"],
    "max_new_tokens": 4,
    "instruction_tokens": 6,
}


def held_out_rows():
    """60 training rows, 40 test rows, 40 validation rows."""
    parts = {"train": easy_rows(30), "test": easy_rows(20, start=50), "validation": easy_rows(20, start=75)}
    return pl.concat([rows.with_columns(part=pl.lit(part)) for part, rows in parts.items()])


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def safety_file(folder):
    prompts = ("what is sea ", "what is sky ", "what is red ", "what is blue ", "what is green ")
    return lines(folder / "safety.jsonl", [{"prompt": text, "unsafe": len(text.split()[-1]) == 3} for text in prompts])


def instructions_file(folder):
    asked = {"instruction_id_list": ["punctuation:no_comma", "keywords:existence"], "kwargs": [{}, {"keywords": ["yes"]}]}
    return lines(folder / "instructions.jsonl", [{"prompt": f"what is {word} ", **asked} for word in ("one", "two", "ten")])


def questions_file(folder):
    words = ("one", "two", "six", "ten", "five", "seven")
    return lines(folder / "questions.jsonl", [{"question": f"what is {word}", "answer": len(word) == 3} for word in words])
