"""Whether the alignment of KTO's gradients finds wrong labels from few reviews: as evidence beside what ships, and as a queue.

    python tests/benchmarks/gradient_alignment.py DATA_FOLDER [--sets ...] [--draws 20] [--rows 800] [--folder DIR]

Before training every row's log-ratio is 0, so KTO's loss has one and the same slope in the margin for all rows, and a row's gradient is
-(its label) x that slope x the gradient of log p(completion). Taken in the head and in what it reads, in closed form, one forward pass:
with h the last hidden state, W the head, p the next token's distribution and y the token,

    output    sum over tokens of W'(p - y), the gradient of the last layer's output            [576]
    head      sum over tokens of (p - y) x h, the gradient of W, sketched by random projections  [512]

each scaled to length 1. A row aligns with the reviewed ones by the mean of label x verdict x cosine, a reviewed row without those of its
own prompt group (arXiv 2501.05790, 2510.13212). Reviews are drawn at random within each given label, 5 % of the rows, 40 at least. On rows that
nobody reviewed: error AUROC within a given label and average precision of the alignment, of what ships with hidden states
(`learn_from_reviews`, stacked), and of both stacked. As a queue: wrong labels among the next as many rows, by "gain" and by suspicion,
with p of what ships and of both. Means over draws of reviews, and of paired differences their standard deviation.
"""

import argparse
from pathlib import Path
from typing import Any

import label_noise_alone
import numpy as np
import polars as pl
import torch
from label_noise import POLICY
from label_noise_alone import groups_of, score
from machine import machine, write_result

import ktodata as kd
from ktodata.labels.classifier.feature_sets import RowFeatures
from ktodata.labels.evidence.evidence import log_odds_of
from ktodata.labels.people.review_queue import queue, stratified
from ktodata.labels.people.reviewed_model import learn_from_reviews
from ktodata.labels.people.stacking import stack
from ktodata.models import load_causal_lm
from ktodata.pipeline.audit import features_of

SETS = ("xstest, GPT-4's labels", "xstest, string match", "openqa, gpt4", "evouna, string match")
MAX_TOKENS, SKETCH = 96, 512
Gradients = dict[str, np.ndarray]


@torch.no_grad()
def gradients(table: pl.DataFrame) -> Gradients:
    """Of log p of each completion, length 1: output [N, 576] and head [N, SKETCH], float32."""
    model, tokenizer = load_causal_lm(POLICY)
    model.float().eval()
    weight, rng = model.get_output_embeddings().weight.float(), torch.Generator().manual_seed(0)
    sides = [torch.randn(size, SKETCH, generator=rng) / SKETCH**0.25 for size in weight.shape]
    made: dict[str, list[np.ndarray]] = {"output": [], "head": []}
    for prompt, completion in table.select("prompt", "completion").iter_rows():
        before = tokenizer(prompt + "\n", add_special_tokens=False)["input_ids"][-MAX_TOKENS // 2 :]
        tokens = tokenizer(completion, add_special_tokens=False)["input_ids"][: MAX_TOKENS - len(before)] or [0]
        hidden = model.model(torch.tensor([before + tokens])).last_hidden_state[0, len(before) - 1 : -1]
        error = torch.softmax(hidden @ weight.T, dim=1)
        error[torch.arange(len(tokens)), torch.tensor(tokens)] -= 1
        made["output"].append((error @ weight).sum(dim=0).numpy())
        made["head"].append(((error @ sides[0]) * (hidden @ sides[1])).sum(dim=0).numpy())
    return {name: _unit(np.stack(each)) for name, each in made.items()}


def _unit(vectors: np.ndarray) -> np.ndarray:
    centred = vectors - vectors.mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)


def alignment(vectors: np.ndarray, reviewed: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """How far each row's gradient is along that of reviewed desirable rows, each class weighing the same: float [N], scaled."""
    sign = np.where(truth[reviewed], 1.0, -1.0)
    for side in (-1.0, 1.0):
        sign[sign == side] /= max((sign == side).sum(), 1)
    other = (groups[:, None] != groups[reviewed][None, :]).astype(float)
    along = (vectors @ vectors[reviewed].T * other) @ sign
    return along / max(along.std(), 1e-9)


def of_draw(table: pl.DataFrame, rows: RowFeatures, p: np.ndarray, made: Gradients, seed: int) -> dict[str, float]:
    """Every figure of one draw of reviews."""
    labels, truth, groups = table["label"].to_numpy(), table["truth"].to_numpy(), groups_of(table)
    count, reviewed = max(40, round(0.05 * len(labels))), np.zeros(len(labels), bool)
    reviewed[stratified(labels, ~reviewed, count, seed=seed)] = True
    shipped = log_odds_of(learn_from_reviews(rows, p, labels, reviewed, truth, groups=groups).p_desirable)
    along = {name: alignment(vectors, reviewed, truth, groups) for name, vectors in made.items()}
    chances = {"ships": _stacked({"text": shipped}, labels, groups, reviewed, truth)}
    for name, each in along.items():
        chances[f"{name} alone"] = 1 / (1 + np.exp(-each))
        chances[f"ships and {name}"] = _stacked({"text": shipped, "gradient": each}, labels, groups, reviewed, truth)
    unseen, result = table.filter(~pl.Series(reviewed)), {}
    for name, chance in chances.items():
        result[f"auroc, {name}"], result[f"average precision, {name}"] = score(unseen, chance[~reviewed])
        p_wrong = np.where(labels, 1 - chance, chance)
        wrong = labels != truth
        result[f"caught by gain, {name}"] = float(wrong[queue(rows, p_wrong, ~reviewed, count)].sum())
        open_rows = np.flatnonzero(~reviewed)
        result[f"caught by suspicion, {name}"] = float(wrong[open_rows[np.argsort(-p_wrong[open_rows])][:count]].sum())
    return result


def _stacked(
    pieces: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, reviewed: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    fit = stack(pieces, None, labels, groups, reviewed, truth)
    assert fit is not None
    return fit.p_desirable


def measured(table: pl.DataFrame, made: Gradients, draws: int) -> dict[str, Any]:
    """Means over draws; of what a gradient adds to what ships, the mean and the deviation over draws."""
    table = kd.add_columns(table, kd.hidden_states(table, model=POLICY))
    p, rows = kd.label_noise(table, repeats=1).columns["p_desirable"].to_numpy(), features_of(table)
    lines = pl.DataFrame([of_draw(table, rows, p, made, seed) for seed in range(draws)])
    result: dict[str, Any] = {"rows": table.height, "wrong": int((table["label"] != table["truth"]).sum())}
    result |= {name: float(lines[name].mean()) for name in lines.columns}
    for name in made:
        for figure in ("auroc", "average precision", "caught by gain", "caught by suspicion"):
            gain = lines[f"{figure}, ships and {name}"] - lines[f"{figure}, ships"]
            result[f"{figure}, {name} adds"] = {"mean": float(gain.mean()), "sd": float(gain.std())}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="*", choices=label_noise_alone.SETS, default=SETS)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--folder", type=Path, help="keeps gradients from one run to the next")
    options = parser.parse_args()
    result = {}
    for name in options.sets:
        table = label_noise_alone.load(options.data, name, options.rows)
        kept = (
            None if options.folder is None else options.folder / f"{name.replace(',', '').replace(' ', '-')}-{options.rows}.npz"
        )
        made = dict(np.load(kept)) if kept is not None and kept.exists() else gradients(table)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, **made)
        result[name] = measured(table, made, options.draws)
        print(name, {key: value for key, value in result[name].items() if "adds" in key or "auroc" in key}, flush=True)
    write_result("gradient_alignment", {"draws": options.draws, "sets": result} | machine())


if __name__ == "__main__":
    main()
