"""Reads both models, one after the other, and scores every row with each."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch

from ktodata.evaluate.checked_answers import MODELS, BaseAnswers, check_answers, write_answers
from ktodata.evaluate.evaluation_progress import Report, RowsScored
from ktodata.evaluate.generation import choose_prompts, describe, examples, write_greedily
from ktodata.evaluate.rewards import completion_logps, reward_table
from ktodata.files import is_being_made
from ktodata.models import load_causal_lm
from ktodata.train.data.tokens import tokenize
from ktodata.train.model.device import device_name, pick_device, pick_dtype
from ktodata.train.model.fingerprint import computation_hash
from ktodata.train.results.trained_folder import load_trained


@dataclass(frozen=True)
class ScoredByBoth:
    """rows : one line per row that fits. answers : as `check_answers` gives them; None: none to check. metrics : JSON values"""

    rows: pl.DataFrame
    answers: pl.DataFrame | None
    metrics: dict[str, Any]


def score(
    rows: pl.DataFrame,
    settings: dict[str, Any],
    checked_prompts: pl.DataFrame | None,
    *,
    trained: str,
    reference: str,
    report: Report,
) -> ScoredByBoth:
    """Every row under both models, and their answers.

    checked_prompts : their answers are checked; report : called with how far it is
    """
    device = pick_device(settings["device"])
    compute_dtype = pick_dtype(settings["dtype"], device)
    base, tokenizer = load_causal_lm(reference)
    tokens, token_metrics = tokenize(rows, tokenizer, max_length=settings["max_length"], part=settings["part"])
    chosen = choose_prompts(tokens, settings["generate"], settings["seed"])
    logps, written, answers = {}, {}, {}
    answering = {"chat": rows.schema["prompt"] != pl.String, "max_new_tokens": settings["max_new_tokens"], "device": device}
    texts = [] if checked_prompts is None else checked_prompts["prompt"].to_list()
    computed_by = computation_hash(base, reference, device=device_name(device))
    kept = BaseAnswers.of(reference, [computed_by, *answering.values()], texts) if texts else None
    # whoever finds another process at the base's answers has the trained model's to write meanwhile
    for name in reversed(MODELS) if kept and is_being_made(kept.place) else MODELS:
        report({"model": name, "text": "is read"})
        loaded = (base if name == "base" else load_trained(trained, reference)).to(device).eval()
        if kept is not None:
            report({"model": name, "text": f"answers {len(texts):,} prompts that are checked"})
            write = partial(write_answers, loaded, tokenizer, texts, **answering)
            answers[name] = kept.once(write) if name == "base" else write()
        rows_done = RowsScored(name, tokens.lengths, report)
        logps[name] = completion_logps(loaded, tokens, device=device, compute_dtype=compute_dtype, passed=rows_done.add)
        if chosen:
            report({"model": name, "text": f"answers {len(chosen):,} prompts"})
            prompts, longest = [tokens.prompt[row] for row in chosen], settings["max_new_tokens"]
            written[name] = write_greedily(loaded, tokenizer, prompts, max_new_tokens=longest, device=device)
        loaded.cpu()  # the other model gets the device's memory
    table = reward_table(tokens, logps["trained"], logps["base"], beta=settings["beta"])
    given = rows.select("row_id", "truth", model=pl.col("model") if "model" in rows.columns else pl.lit(None, dtype=pl.String))
    metrics = {
        "model": Path(trained).name,  # not where it lies: results are shared
        "reference": reference,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": str(compute_dtype).removeprefix("torch."),
        "tokens": token_metrics,
        "generation": _generation_check(written, tokenizer, tokens, chosen, settings["max_new_tokens"]),
    }
    checked = None if checked_prompts is None else check_answers(checked_prompts, answers)
    return ScoredByBoth(table.join(given, on="row_id", how="left", maintain_order="left"), checked, metrics)


def _generation_check(written: dict[str, Any], tokenizer: Any, tokens: Any, chosen: list[int], longest: int) -> dict[str, Any]:
    if not chosen:
        return {"not_applicable": "generate is 0"}
    written = {name: written[name] for name in MODELS}
    shares = {name: describe(texts, longest) for name, texts in written.items()}
    return {**shares, "max_new_tokens": longest, "examples": examples(tokenizer, tokens, chosen, written)}
