"""Whether wrong labels pull a language model against reviewed rows: KTO's gradient of each row beside those of REVIEWED reviewed ones.

    python tests/benchmarks/gradient_alignment.py DATA_FOLDER [--sets ...] [--draws 10] [--folder DIR]

At the untrained model KTO's gradient of a row is that of log p(completion | prompt), its sign and size by the label alone. It is taken of
three matrices in each of the top 6 layers of SmolLM2-135M-Instruct (pair_screen.py: projected at random to 24 x 24 numbers each), one
pass forth, and one back through these layers; kept in DIR. A row's alignment is its mean inner product with the truly desirable reviewed
rows less that with the undesirable ones, of other prompts: of unit vectors (cosine) or whitened over all rows (influence, arXiv
2501.05790), of all 6 layers or of the last. Which of the four is taken is chosen by what it does alone on the other sources.

Scored on the rows that nobody reviewed, means over draws: error AUROC within a given label, and average precision.
    text, hidden states     what reviewed rows make of labels and text today, and with hidden states of the same tokens
    alignment               alone
    ... + alignment         as evidence beside the former (left out by prompt), weighed by the reviewed rows
    ... + gradients         the gradients read as hidden states are: by the label models and in the kernel of the reviewed rows
Random: all reviewed rows are drawn at random. Queue: half of them, the others as today's queue on hidden states asks for them. Found:
wrong labels among 100 rows of that second half, by several queues. Intervals: 95 %, bootstrap over prompts, paired; of `found` over draws.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import torch
from label_noise import POLICY
from label_noise_alone import SETS, groups_of, load
from machine import machine, write_result
from pair_screen import LAYERS, gradients_of
from scipy.special import expit

import ktodata as kd
from ktodata.labels.classifier import out_of_fold
from ktodata.labels.evidence.evidence import log_odds_of
from ktodata.labels.people.review_queue import queue, stratified
from ktodata.labels.people.reviewed_model import learn_from_reviews
from ktodata.labels.people.stacking import stack
from ktodata.models import load_causal_lm, load_tokenizer
from ktodata.pipeline.audit import features_of
from ktodata.train.data.tokens import tokenize

MOST = {"openqa": (680, 512), "youtube": (600, 96), "xstest": (640, 96), "gsm8k": (240, 208)}  # of a source: rows, tokens
NAMES = (
    "openqa, gpt4",
    "youtube, majority of functions",
    "xstest, GPT-4's labels",
    "xstest, string match",
    "gsm8k, self-consistency",
)
REVIEWED, ROUNDS, MIN_WRONG, DRAWN, ASSIGNMENTS = 60, 4, 10, 200, 5
Array = np.ndarray


def gradients_by_text(folder: Path, source: str, kept: Path | None) -> tuple[pl.DataFrame, float | None]:
    """(prompt, completion and gradient of each text of a source that the model can read; CPU seconds a text, where none was kept)."""
    rows, length = MOST[source]
    tables = [load(folder, name, rows).select("prompt", "completion") for name in NAMES if SETS[name][0] == source]
    texts = pl.concat(tables).unique(maintain_order=True).with_columns(row_id=pl.int_range(pl.len()).cast(pl.String))
    facts = {"label": True, "weight": 1.0, "p_desirable": 0.5, "prompt_group": None}
    table = texts.with_columns(**{name: pl.lit(value) for name, value in facts.items()})
    tokens, _ = tokenize(table.cast({"prompt_group": pl.String}), load_tokenizer(POLICY), max_length=length, part="train")
    start, each = time.process_time(), np.arange(len(tokens))[:, None].repeat(2, 1)
    were_kept = kept is not None and (kept / source).is_dir()
    values = gradients_of(load_causal_lm(POLICY)[0], tokens, each, None if kept is None else kept / source).float().numpy()
    seconds = None if were_kept else (time.process_time() - start) / len(tokens)
    gradients = pl.DataFrame({"row_id": tokens.row_id, "gradient": values})
    return texts.join(gradients, on="row_id").drop("row_id"), seconds


def variants(gradients: Array) -> dict[str, Array]:
    """Vectors whose inner products are an alignment: float [N, .] each."""
    made = {}
    for name, part in (("top layers", gradients), ("last layer", gradients[:, -gradients.shape[1] // LAYERS :])):
        unit = _unit(part)
        left, spread, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
        made |= {f"cosine, {name}": unit, f"influence, {name}": left * spread / np.sqrt(spread**2 + (spread**2).mean())}
    return made


def rotated(gradients: Array) -> Array:
    """Unit vectors with the same inner products in N columns of about one size, about as many as a hidden state has."""
    left, spread, _ = np.linalg.svd(_unit(gradients), full_matrices=False)
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((len(spread), len(spread))))
    return (left * spread) @ turn


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


class Beliefs:
    """What is believed of a set's rows: by labels and text, and by what is read in the place of hidden states."""

    def __init__(self, table: pl.DataFrame, vectors: Array | None) -> None:
        if vectors is not None:
            states = pl.Series(vectors.astype(np.float32), dtype=pl.Array(pl.Float32, vectors.shape[1]))
            table = table.with_columns(hidden_state=states)
        with mock.patch.object(out_of_fold, "MAX_ASSIGNMENTS", ASSIGNMENTS):
            self.p = kd.label_noise(table, repeats=1, noise_injection=0, neighbours=0).columns["p_desirable"].to_numpy()
        self.rows = features_of(table)
        self.labels, self.truth, self.groups = table["label"].to_numpy(), table["truth"].to_numpy(), groups_of(table)
        self.wrong = self.labels != self.truth

    def learnt(self, reviewed: Array, align: Array | None = None) -> Array:
        """P(desirable) of every row by the reviewed ones."""
        pull = None if align is None else (2 * expit(align) - 1)[:, None]
        known = (self.p, self.labels, reviewed, self.truth)
        return learn_from_reviews(self.rows, *known, evidence=pull, groups=self.groups).p_desirable

    def after(self, reviewed: Array, drawn: Array, align: Array | None = None) -> Array:
        """The same as label_noise puts it together."""
        p = self.learnt(reviewed, align)
        stacked = stack({"text": log_odds_of(p)}, None, self.labels, self.groups, drawn, self.truth)
        return p if stacked is None else stacked.p_desirable

    def alignment(self, vectors: Array, reviewed: Array) -> Array:
        """+ : as truly desirable reviewed rows of other prompts; in standard deviations of the rows of its label: float [N]."""
        score = np.zeros(len(vectors))
        for side, sign in ((True, 1), (False, -1)):
            rows = np.flatnonzero(reviewed & (self.truth == side))
            counts = self.groups[:, None] != self.groups[rows]
            score += sign * (vectors @ vectors[rows].T * counts).sum(axis=1) / counts.sum(axis=1).clip(1)
        for of_label in (self.labels, ~self.labels):
            score[of_label] = (score[of_label] - score[of_label].mean()) / max(score[of_label].std(), 1e-12)
        return score

    def doubt(self, p: Array) -> Array:
        return np.where(self.labels, 1 - p, p)


Order = Callable[[Array, int], Array]  # of the reviewed rows and a number: the next rows


def reviews(of: Beliefs, seed: int, order: Order | None) -> tuple[Array, Array]:
    """(reviewed, drawn at random): bool [N] each; half by `order`, in ROUNDS rounds, where there is one."""
    drawn = np.zeros(len(of.labels), bool)
    drawn[stratified(of.labels, ~drawn, REVIEWED if order is None else REVIEWED // 2, seed=seed)] = True
    reviewed = drawn.copy()
    while order is not None and (missing := REVIEWED - int(reviewed.sum())) > 0:
        reviewed[order(reviewed, min(missing, -(-REVIEWED // 2 // ROUNDS)))] = True
    return reviewed, drawn


def figures(doubts: Array, of: Beliefs, weights: Array) -> Array:
    """Error AUROC within a given label, and average precision, rows counted by `weights` [B, N]: float [B, 2]."""
    auroc = []
    for side in (of.labels, ~of.labels):
        if of.wrong[side].sum() >= MIN_WRONG:
            rows = np.flatnonzero(side)[np.argsort(doubts[side], kind="stable")]
            wrong, sound = weights[:, rows] * of.wrong[rows], weights[:, rows] * ~of.wrong[rows]
            auroc.append((wrong * (sound.cumsum(1) - sound / 2)).sum(1) / (wrong.sum(1) * sound.sum(1)))
    rows = np.argsort(-doubts, kind="stable")
    wrong = weights[:, rows] * of.wrong[rows]
    precision = wrong.cumsum(1) / weights[:, rows].cumsum(1).clip(1e-9)
    return np.stack([np.mean(auroc, axis=0), (wrong * precision).sum(1) / wrong.sum(1)], axis=1)


def compared(of: Beliefs, draws: list[tuple[Array, dict[str, Array]]]) -> dict[str, Any]:
    """Of each way both figures, and less the way that it adds to: value, low, high. draws : reviewed, and P(desirable) of each way"""
    random, (_, code) = np.random.default_rng(0), np.unique(of.groups, return_inverse=True)
    prompts = random.multinomial(code.max() + 1, np.full(code.max() + 1, 1 / (code.max() + 1)), DRAWN)
    weights = np.vstack([np.ones(len(code)), prompts[:, code]])
    table = {
        way: np.mean([figures(of.doubt(each[way]), of, weights * ~reviewed) for reviewed, each in draws], axis=0)
        for way in draws[0][1]
    }
    lines = {}
    for way, values in table.items():
        less = values - table[way.split(" + ")[0] if " + " in way else "text"] if "text" in table else values
        ends = np.nanquantile(less[1:], [0.025, 0.975], axis=0)
        lines[way] = {"figures": values[0].round(4).tolist(), "less": np.stack([less[0], *ends]).T.round(4).tolist()}
    return lines


def alone(of: Beliefs, gradients: Array, draws: int) -> dict[str, Any]:
    """What each variant of the alignment does alone."""
    kinds, drawn = variants(gradients), [reviews(of, seed, None)[0] for seed in range(draws)]
    aligned = [{k: expit(of.alignment(v, some)) for k, v in kinds.items()} for some in drawn]
    return compared(of, list(zip(drawn, aligned, strict=True)))


def chosen_elsewhere(each: Mapping[str, Any], name: str) -> str:
    """The variant that is best alone on the other sources, both figures together."""
    others = [of for other, of in each.items() if SETS[other][0] != SETS[name][0]]
    return max(each[name], key=lambda kind: sum(sum(of[kind]["figures"]) for of in others))


def measure(beliefs: Mapping[str, Beliefs], vectors: Array, draws: int) -> dict[str, Any]:
    """vectors : of the alignment that was chosen"""
    of, today = beliefs["text"], "hidden states" if "hidden states" in beliefs else "text"

    def align(reviewed: Array) -> Array:
        return of.alignment(vectors, reviewed)

    def ways(reviewed: Array, drawn: Array) -> dict[str, Array]:
        made = {name: each.after(reviewed, drawn) for name, each in beliefs.items()} | {"alignment": expit(align(reviewed))}
        return made | {f"{name} + alignment": beliefs[name].after(reviewed, drawn, align(reviewed)) for name in {"text", today}}

    def least_aligned(reviewed: Array, count: int) -> Array:
        return np.argsort(np.where(reviewed, -1, of.doubt(expit(align(reviewed)))), kind="stable")[::-1][:count]

    def orders() -> Iterator[tuple[str, Order]]:
        for name, each in beliefs.items():
            yield name, lambda seen, count, b=each: queue(b.rows, b.doubt(b.learnt(seen)), ~seen, count)
        now = beliefs[today]
        yield f"{today} + alignment", lambda seen, n: queue(now.rows, now.doubt(now.learnt(seen, align(seen))), ~seen, n)
        yield "least aligned", least_aligned

    queued = {name: [reviews(of, seed, order) for seed in range(draws)] for name, order in orders()}
    wrong_in_hundred = {
        name: np.array([100 * of.wrong[some & ~drawn].mean() for some, drawn in each]) for name, each in queued.items()
    }
    drawn = {"random": [reviews(of, seed, None) for seed in range(draws)], "queue": queued[today]}
    result = {name: compared(of, [(some[0], ways(*some)) for some in each]) for name, each in drawn.items()}
    return result | {"found": {name: _less(each, wrong_in_hundred[today]) for name, each in wrong_in_hundred.items()}}


def _less(found: Array, base: Array) -> dict[str, Any]:
    less, reach = (found - base).mean(), 2 * (found - base).std(ddof=1) / len(found) ** 0.5
    return {
        "of_100": round(float(found.mean()), 1),
        "less_todays": [round(float(x), 1) for x in (less, less - reach, less + reach)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="*", default=NAMES, help="only sets whose name begins with one of these")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    names = [name for name in NAMES if name.startswith(tuple(options.sets))]
    torch.set_num_threads(1)
    gradients = {source: gradients_by_text(options.data, source, options.folder) for source in {SETS[name][0] for name in names}}
    beliefs, own, each = {}, {}, {}
    for name in names:
        rows, length = MOST[source := SETS[name][0]]
        table = load(options.data, name, rows).join(gradients[source][0], on=["prompt", "completion"], maintain_order="left")
        hidden = kd.hidden_states(table, model=POLICY, max_length=length).columns["hidden_state"].to_numpy()
        own[name], turned = table["gradient"].to_numpy(), rotated(table["gradient"].to_numpy())
        read = {"text": None, "hidden states": hidden, "text + gradients": turned}
        read["hidden states + gradients"] = np.hstack([hidden, turned])
        beliefs[name] = {way: Beliefs(table, vectors) for way, vectors in read.items()}
        each[name] = alone(beliefs[name]["text"], own[name], options.draws)
        print(name, {kind: line["figures"] for kind, line in each[name].items()}, flush=True)
    results = {}
    for name in names:
        of, kind = beliefs[name]["text"], chosen_elsewhere(each, name)
        figures_of = measure(beliefs[name], variants(own[name])[kind], options.draws)
        results[name] = {"rows": len(of.labels), "wrong": int(of.wrong.sum()), "variant": kind, "alone": each[name]} | figures_of
        print(name, results[name], flush=True)
    seconds = {source: cost for source, (_, cost) in gradients.items()}
    write_result("gradient_alignment", {"draws": options.draws, "cpu_seconds_a_row": seconds, "sets": results} | machine())


if __name__ == "__main__":
    main()
