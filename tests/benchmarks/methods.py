"""KTO beside the untrained base, SFT, DPO, ORPO, RLHF and hybrid KTO on real sets, on equal terms: `kd.compare`, one table a set.

    python tests/benchmarks/methods.py DATA_FOLDER [--sets xstest tulu hh gsm8k] [--seeds 3] [--updates 32] [--ask N] [--win N]
        [--methods kto dpo sft] [--thinned] [--folder DIR]

Labels that are trained on: XSTest's by GPT-4 (xstest_true: the true ones), GSM8K's by self-consistency (all judged by the truth
that the set has), Tülu's and HH-harmless's by people (judged by the same kind of label). One prompt in five is held out, with its near repeats (XSTest: with its
contrasting twin). Rows are drawn by a hash of their prompt, all rows of a prompt together, so that pairs stay whole.

SmolLM2-135M-Instruct, its top 6 layers, bfloat16 arithmetic, updates of 16 completions. Rates: those of experiments/methods/terms.py times 20
for every method, as updates are few; KTO's is then that of trainer_quality.py. No score had a part in any of it. Finished arms are
kept in DIR.

--thinned leaves one training row a prompt, drawn by a hash: as feedback comes where nobody answers twice.

--ask N puts N questions of each kind to every policy, so that a method is not judged by rewards alone: unsafe prompts (AdvBench, XSTest)
and safe ones (XSTest), refused or not; IFEval's verifiable instructions; lm-eval on three of BIG-bench's tasks. Rows are then messages,
as the model was tuned on, and no XSTest prompt that a set trains on is asked.

--win N lets every policy answer N held-out prompts, and judges the answers against the base's by a reward model. It learns from the rows
of another fifth of the prompts, by the truth, and those are not trained on.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from ablation import by_hash
from label_noise import POLICY, load
from machine import machine, write_result

import ktodata as kd
from ktodata.experiments.methods.terms import METHODS
from ktodata.experiments.methods.train_methods import TRAIN
from ktodata.formats.dialects.hh_rlhf import is_transcript, transcript_prompt

XSTEST = "kto_xstest.jsonl.gz"
# file, label that is trained on, column of partial verdicts, tokens of a row, rows that are trained on, rows that are held out
SETS = {
    "xstest": (XSTEST, "weak_label_gpt4", "partial_refusal", 64, 1000, 300),
    "xstest_true": (XSTEST, "label", None, 64, 1000, 300),
    "tulu": ("kto_tulu1_human.jsonl.gz", "label", None, 128, 600, 200),
    "hh": ("kto_hh_harmless.jsonl.gz", "label", None, 128, 600, 200),
    "gsm8k": ("kto_gsm8k_solutions.jsonl.gz", "weak_label", None, 128, 600, 200),
}
TASKS = ("simple_ethical_questions", "implicatures", "general_knowledge")
PATHS = {"safety", "instructions", "tasks"}
ANSWER_TOKENS = {"max_new_tokens": 48, "instruction_tokens": 128}


def sides(folder: Path, name: str, *, judged: bool = False, thinned: bool = False) -> pl.DataFrame:
    """The rows of a set as shards hold them: part is "train" or "test", and "validation" if `judged`; truth only scores.

    thinned : one training row a prompt
    """
    file, label, leave_out, _, train, test = SETS[name]
    table = load(folder, file, label, leave_out, places=file == XSTEST)
    table = by_hash(table, pl.col("place") if file == XSTEST else pl.col("prompt_group"))
    part = {0: "test", 1: "validation" if judged else "train"}
    table = table.with_columns(part=pl.col("part_of_five").replace_strict(part, default="train"), weight=1.0)
    table = table.drop("prompt_embedding", "completion_embedding")
    if thinned:
        first = pl.col("row_id") == pl.col("row_id").min().over("prompt")  # a hash of the row
        table = table.filter((pl.col("part") != "train") | first)
    drawn = [table.filter(part=which).head(most) for which, most in (("train", train), ("validation", test), ("test", test))]
    rows = pl.concat(drawn)
    return rows.with_columns(label=pl.when(pl.col("part") == "validation").then("truth").otherwise("label"))


def as_messages(rows: pl.DataFrame) -> pl.DataFrame:
    """Prompts and completions as turns; a transcript is taken apart."""
    prompts = [
        transcript_prompt(prompt) if is_transcript(prompt) else [{"role": "user", "content": prompt}] for prompt in rows["prompt"]
    ]
    completions = [[{"role": "assistant", "content": completion}] for completion in rows["completion"]]
    return rows.with_columns(prompt=pl.Series(prompts), completion=pl.Series(completions))


def questions(data: Path, rows: pl.DataFrame, folder: Path, most: int) -> dict[str, Any]:
    """The settings of `compare` that ask every policy; `rows` are those of the set, as text."""
    trained = rows.filter(pl.col("part") == "train")["prompt"].implode()
    xstest = kd.read(data / SETS["xstest"][0], label="label", keep={"unsafe": "unsafe"}).feedback.select("prompt", "unsafe")
    advbench = pl.read_csv(data / "tasks" / "advbench_harmful_behaviors.csv").select(prompt="goal", unsafe=pl.lit("true"))
    asked = pl.concat([xstest.with_columns(pl.col("unsafe").cast(pl.String)), advbench]).filter(~pl.col("prompt").is_in(trained))
    asked.unique(maintain_order=True).write_csv(folder / "safety.csv")
    return {
        "safety": folder / "safety.csv",
        "instructions": data / "tasks" / "ifeval_dev.jsonl",
        "tasks": [str(data / "tasks" / "bigbench" / name / "task.json") for name in TASKS],
        "max_items": most,
        **ANSWER_TOKENS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=32)
    parser.add_argument("--ask", type=int, metavar="N", help="questions of each kind that every policy answers")
    parser.add_argument("--win", type=int, metavar="N", help="held-out prompts whose answers are judged against the base's")
    parser.add_argument("--methods", nargs="*", choices=TRAIN, default=METHODS)
    parser.add_argument("--thinned", action="store_true", help="train on one row a prompt")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    for name in options.sets:
        with tempfile.TemporaryDirectory() as scratch:
            measure(name, Path(scratch), options)


def measure(name: str, scratch: Path, options: argparse.Namespace) -> None:
    rows, asked, called = sides(options.data, name, judged=bool(options.win), thinned=options.thinned), {}, name
    if options.thinned:
        called = f"{name}_thinned"
    if options.ask:
        asked, called = questions(options.data, rows, scratch, options.ask), f"{called}_asked"
        rows = as_messages(rows)
    if options.win:
        asked |= {"win_rate": True, "generate": options.win, "max_new_tokens": ANSWER_TOKENS["max_new_tokens"]}
        called = f"{called}_judged"
    found = kd.compare(
        rows,
        model=POLICY,
        methods=options.methods,
        seeds=list(range(options.seeds)),
        truth_column="truth",
        max_steps=options.updates,
        epochs=1000,
        batch_size=16,
        max_length=SETS[name][3],
        trainable_layers=6,
        learning_rate_factor=20,
        rollout_tokens=24,
        dtype="bfloat16",
        **asked,
        out=None if options.folder is None else options.folder / called,
        notify=lambda event: print(event, flush=True),
    )
    print(*found.verdict(), sep="\n", flush=True)
    told = found.as_dict()
    told["settings"] |= {setting: _names(told["settings"][setting]) for setting in asked.keys() & PATHS}
    about = {"set": called, "rows": dict(rows["part"].value_counts().iter_rows())}
    place = write_result(f"methods_{called}", about | told | machine())
    found.plot().savefig(place.with_suffix(".png"), dpi=110)


def _names(path: Any) -> Any:
    """A file by its name, a task by its folder's as well: where they lie is the machine's."""
    return ["/".join(Path(one).parts[-2:]) for one in path] if isinstance(path, list) else Path(path).name


if __name__ == "__main__":
    main()
