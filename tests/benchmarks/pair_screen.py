"""Why hybrid KTO is behind DPO or ahead of KTO: a screen of losses and of ways to deal rows, by a linearised policy, in seconds an arm.

    python tests/benchmarks/pair_screen.py DATA_FOLDER [--sets xstest xstest_true gsm8k] [--updates 32 77] [--seeds 2] [--folder DIR]

The policy's log-ratio of a row is taken as linear in what training may change: r = theta x (gradient of the row's log p at the untrained
model, of three matrices in each of the top 6 layers of SmolLM2-135M-Instruct, projected at random to 24 x 24 numbers each; the
softmax is over the tokens that the set's completions use). theta is trained by Adam with the package's own losses. It is a guide to which
arms are worth training, and no result of a training. Gradients are kept in DIR.

    kto                     Kto, rows dealt as `fit` deals them
    dpo                     pairs as `kd.compare` makes and deals them: max(desirable, undesirable) a prompt, so that a rare row is in several
    hybrid                  KtoHybrid, dealt as `fit` does: up to half an update of one prompt
    hybrid, pair_weight 1/3 the same with that weight
    or                      row_weight 0: the pairs' term, or KTO's where a row has no siblings
    or, a quarter           the same, at most a quarter of an update of one prompt
    or, pair_weight 4       the same with that weight, half an update
    or, none                the same, rows without siblings cost nothing
    or, pairs as DPO's      the same on DPO's pairs and, once each, the rows that are in none

Five parts of the prompts (XSTest: of a prompt and its twin) are held out in turn. Of a set …_half every second prompt has one row to train on,
the first by its row_id's hash, and all of them held out: some prompts have answers to compare, others one, as in logs of use. Intervals over prompts and trainings, paired.
"""

import argparse
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from label_noise import POLICY, load
from machine import machine, write_result
from methods import SETS, XSTEST

from ktodata.experiments.contrast import contrast
from ktodata.experiments.methods.preference_pairs import make_pairs
from ktodata.experiments.methods.trl_datasets import in_turn
from ktodata.models import load_causal_lm, load_tokenizer
from ktodata.train.data.batches import plan_training
from ktodata.train.data.tokens import TokenRows, tokenize
from ktodata.train.objectives import Examples, Kto, KtoHybrid, Objective
from ktodata.train.schedule import learning_rate_at

LAYERS, SIDE, PARTS, BATCH, POINTS = 6, 24, 5, 16, 8
# Adam's on theta, where the median gradient has length 1: log-ratios then spread as in trainings of 32 updates, by 3 to 4 nats. From 0.01
# to 0.1 no arm's AUC moves by more than 0.03 (XSTest's first 640 rows, one seed)
RATE = 0.1
# bfloat16 is some sixty times slower than float32 on a processor that only emulates it
ARITHMETIC = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else torch.float32
MOST = {"xstest": (1300, 44), "xstest_true": (1300, 44), "gsm8k": (560, 96), "tulu": (560, 80), "hh": (560, 80)}  # rows, tokens
MOST |= {f"{name}_half": most for name, most in MOST.items()}
PIECE = 160  # sequences whose gradients are kept together
Ints = np.ndarray
Sequence = tuple[Ints, int]  # token ids; where the completion starts


@dataclass(frozen=True)
class Drawn:
    """A set: its N rows as tokens, `part` of them held out together, and P mismatched pairs. thinned : rows that are never trained on"""

    frame: pl.DataFrame
    tokens: TokenRows
    crossed: Ints  # int [P, 2]

    def train(self, part: int) -> Ints:
        """Rows to train on while this part is held out: int [n]."""
        return np.flatnonzero(self.frame.select((pl.col("part") != part) & ~pl.col("thinned")).to_series())

    @property
    def pairs(self) -> Ints:
        """(prompt's row, completion's row) of all N rows and P pairs: int [N + P, 2]."""
        return np.concatenate([np.arange(len(self.tokens))[:, None].repeat(2, 1), self.crossed])

    def crossed_in(self, train: Ints) -> Ints:
        """Where in `pairs` those mismatched ones are that are made of these rows only."""
        return np.flatnonzero(np.isin(self.crossed, train).all(1)) + len(self.tokens)


def rows_of(folder: Path, name: str) -> pl.DataFrame:
    """In an order by hash, whole prompt groups together; `part` of PARTS is held out together. …_true: truly labelled; …_half: thinned."""
    full = name.removesuffix("_half")
    file, label, leave_out, *_ = SETS[full.removesuffix("_true")]
    table = load(folder, file, label, leave_out, places=file == XSTEST)
    group = pl.col("place") if file == XSTEST else pl.col("prompt_group")
    hashed = group.cast(pl.String).map_elements(lambda text: zlib.crc32(text.encode()), pl.Int64)
    table = table.with_columns(hashed=hashed).sort("hashed", "row_id").filter(pl.col("prompt").str.len_chars() < 250)
    table = table.drop("prompt_embedding", "completion_embedding").with_columns(
        weight=1.0, p_desirable=pl.col("label").cast(pl.Float64)
    )
    true = pl.col("truth").cast(pl.String).str.to_lowercase() == "true"
    table = table.with_columns(part=pl.col("hashed").rank("dense") % PARTS, truth=true)
    table = table.with_columns(thinned=_thinned() if name != full else False)
    return table.with_columns(label="truth") if full.endswith("_true") else table


def _thinned() -> pl.Expr:
    """All rows but one of the prompts that a hash picks, about half of them: bool."""
    hashed = partial(pl.Expr.map_elements, function=lambda text: zlib.crc32(("half " + text).encode()), return_dtype=pl.Int64)
    return (hashed(pl.col("prompt_group").cast(pl.String)) % 2 == 0) & (hashed(pl.col("row_id")).rank().over("prompt_group") > 1)


def drawn(folder: Path, name: str) -> Drawn:
    rows, length = MOST[name]
    frame = rows_of(folder, name).head(rows)
    tokens, _ = tokenize(frame, load_tokenizer(POLICY), max_length=length, part="train")
    frame = pl.DataFrame({"row_id": tokens.row_id}).join(frame, on="row_id", how="left", maintain_order="left")
    random, groups = np.random.default_rng(0), tokens.group_numbers
    first = random.permutation(len(tokens))[:60]
    crossed = np.array([(row, random.choice(np.flatnonzero(groups != groups[row]))) for row in first])
    return Drawn(frame, tokens, crossed)


def gradients_of(model: Any, tokens: TokenRows, pairs: Ints, kept: Path | None) -> torch.Tensor:
    """Of log p of each pair's completion, nats, projected: float16 [pairs, matrices x SIDE x SIDE]. kept : folder of what is done"""
    compute, pieces = projected_gradients(model, tokens), []
    for start in range(0, len(pairs), PIECE):
        file = None if kept is None else kept / f"{start}.pt"
        if file is not None and file.is_file():
            pieces.append(torch.load(file))
            continue
        pieces.append(compute([tokens.sequence(int(row), int(partner)) for row, partner in pairs[start : start + PIECE]]))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(pieces[-1], file)
    return torch.cat(pieces)


def projected_gradients(model: Any, tokens: TokenRows) -> Callable[[list[Sequence]], torch.Tensor]:
    """A function of sequences; `model` is given hooks for it."""
    layers = model.model.layers[-LAYERS:]
    # nothing below them is asked about
    layers[0].register_forward_pre_hook(lambda _, inputs: (inputs[0].detach().requires_grad_(), *inputs[1:]))
    matrices = [matrix for layer in layers for matrix in (layer.mlp.down_proj, layer.self_attn.o_proj, layer.mlp.up_proj)]
    generator, given, pulled = torch.Generator().manual_seed(1), dict[int, Any](), dict[int, Any]()
    for number, matrix in enumerate(matrices):
        out, into = (torch.randn(size, SIDE, generator=generator) / SIDE**0.5 for size in matrix.weight.shape)
        matrix.register_forward_hook(partial(_keep_input, given, number, into))
        matrix.register_full_backward_hook(partial(_keep_pull, pulled, number, out))
    model.requires_grad_(False)
    head, place = cut_head(model, tokens)

    def compute(sequences: list[Sequence]) -> torch.Tensor:
        lines = torch.zeros(len(sequences), len(matrices) * SIDE**2, dtype=torch.float16)
        order = np.argsort([len(ids) for ids, _ in sequences], kind="stable")
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            _log_p(model, [sequences[n] for n in part], head, place).backward()
            each = [torch.einsum("btk,btl->bkl", pulled[n], given[n]).flatten(1) for n in range(len(matrices))]
            lines[part] = torch.cat(each, 1).half()
        return lines

    return compute


def fast_arithmetic() -> Any:
    """Products in ARITHMETIC."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.bfloat16 == ARITHMETIC)


def cut_head(model: Any, tokens: TokenRows) -> tuple[Any, Any]:
    """(the head's rows for tokens that the completions use: [V, H]; a token's place among them, or -1)."""
    vocabulary = torch.tensor(sorted({int(token) for row in range(len(tokens)) for token in tokens.completion[row]}))
    place = torch.full((model.config.vocab_size,), -1)
    place[vocabulary] = torch.arange(len(vocabulary))
    return model.lm_head.weight[vocabulary].to(ARITHMETIC), place


def _keep_input(kept: dict[int, Any], number: int, onto: Any, module: Any, inputs: Any, output: Any) -> None:
    kept[number] = (inputs[0].detach().float() @ onto).float()


def _keep_pull(kept: dict[int, Any], number: int, onto: Any, module: Any, of_inputs: Any, of_outputs: Any) -> None:
    kept[number] = (of_outputs[0].detach().float() @ onto).float()


def padded(sequences: list[Sequence]) -> Any:
    """Token ids: int [B, T], 0 where a sequence has ended."""
    ids = torch.zeros(len(sequences), max(len(each) for each, _ in sequences), dtype=torch.long)
    for n, (each, _) in enumerate(sequences):
        ids[n, : len(each)] = torch.from_numpy(each.astype(np.int64))
    return ids


def scored_places(sequences: list[Sequence]) -> Any:
    """(row, place) of all tokens of completions: int [2, S]."""
    return torch.tensor([(n, t) for n, (each, start) in enumerate(sequences) for t in range(max(start, 1), len(each))]).T


def _log_p(model: Any, sequences: list[Sequence], head: Any, place: Any) -> Any:
    """The sum over sequences, padded at the end, which a causal model does not see."""
    ids, (row, token) = padded(sequences), scored_places(sequences)
    with fast_arithmetic():
        states = model.model(ids, use_cache=False).last_hidden_state[row, token - 1]
        logits = (states.to(ARITHMETIC) @ head.T).float()
    return logits.log_softmax(1).gather(1, place[ids[row, token]][:, None]).sum()


Update = tuple[Ints, Ints]  # rows, and numbers that are equal where rows are siblings
Scores = tuple[Ints, dict[str, float]]  # log-ratios of all rows, nats: float [N]; facts of the training


def as_fit(rows: TokenRows, updates: int, seed: int, *, together: bool) -> Iterator[Update]:
    """As `kd.train.fit` deals them."""
    _, prompts = np.unique([ids.tobytes() for ids in (rows.prompt[row] for row in range(len(rows)))], return_inverse=True)
    plan = plan_training(rows, batch_size=BATCH, epochs=1000, max_steps=updates, seed=seed, siblings_together=together)
    yield from ((step.rows, prompts[step.rows]) for step in plan.steps)


def as_pairs(rows: TokenRows, updates: int, seed: int, *, frame: pl.DataFrame, others: bool) -> Iterator[Update]:
    """DPO's pairs, and with `others` the rows that are in none, in one random order; nobody else is a sibling."""
    pairs = make_pairs(frame, seed=seed)
    units = [np.array(pair) for pair in zip(pairs.chosen, pairs.rejected, strict=True)]
    if others:
        units += [np.array([row]) for row in np.setdiff1d(np.arange(len(rows)), np.concatenate(units))]
    turn, at = in_turn(len(units), updates * BATCH, seed), 0
    for _ in range(updates):
        update: list[Ints] = []
        while sum(map(len, update)) + len(units[turn[at]]) <= BATCH:
            update.append(units[turn[at]])
            at += 1
        yield np.concatenate(update), np.concatenate([[n] * len(unit) for n, unit in enumerate(update)])


@dataclass(frozen=True)
class PairArm:
    """alone : what KTO's term of rows without siblings counts; row_weight : that of rows with siblings"""

    dealt: str = "fit"
    together: bool = True
    kto: bool = False
    pair_weight: float = 1.0
    row_weight: float = 0.0
    alone: float = 1.0


ARMS = {
    "kto": PairArm(kto=True, together=False),
    "dpo": PairArm("pairs", alone=0),
    "hybrid": PairArm(row_weight=1),
    "hybrid, pair_weight 1/3": PairArm(row_weight=1, pair_weight=1 / 3),
    "or": PairArm(),
    "or, a quarter": PairArm(together=False),
    "or, pair_weight 4": PairArm(pair_weight=4),
    "or, none": PairArm(alone=0),
    "or, pairs as DPO's": PairArm("pairs and rows"),
}


def updates_of(arm: PairArm, rows: TokenRows, frame: pl.DataFrame, updates: int, seed: int) -> Iterator[Update]:
    if arm.dealt == "fit":
        return as_fit(rows, updates, seed, together=arm.together)
    return as_pairs(rows, updates, seed, frame=frame, others=arm.dealt != "pairs")


def objective_of(arm: PairArm, labels: Ints) -> Objective:
    """Both labels weigh the same in sum, but for pairs, which have one of each."""
    rates = [labels.mean(), 1 - labels.mean()]
    even = [1.0, 1.0] if arm.dealt == "pairs" else [max(1.0, 1 / rate - 1) for rate in rates]
    return (Kto if arm.kto else partial(KtoHybrid, pair_weight=arm.pair_weight, row_weight=0.0))(0.1, *even)


def linear(of: Drawn, gradients: torch.Tensor, arm: PairArm, rows: TokenRows, part: int, seed: int, updates: int) -> Scores:
    """Rows with siblings, lengths of the two terms' gradients and their cosine. gradients : float [N + P, G]"""
    train = of.train(part)
    dealt, objective = updates_of(arm, rows, of.frame[train], updates, seed), objective_of(arm, rows.label)
    crossed = of.crossed_in(train)
    theta = torch.zeros(gradients.shape[1], requires_grad=True)
    adam, random, facts = torch.optim.Adam([theta], lr=RATE), np.random.default_rng(seed), []
    for step, (which, siblings) in enumerate(dealt):
        adam.param_groups[0]["lr"] = learning_rate_at(step, steps=updates, peak=RATE, warmup_fraction=0.1, schedule="linear")
        z0 = (gradients[random.choice(crossed, POINTS, replace=False)] @ theta).mean().clamp(min=0).detach()
        terms = terms_of(arm, objective, gradients[train[which]] @ theta, rows.label[which], siblings, z0)
        facts.append(_facts(terms, theta))
        adam.zero_grad()
        (sum(terms).sum() / len(which)).backward()
        adam.step()
    names = ("rows_with_siblings", "kto_gradient", "pair_gradient", "cosine")
    middle = np.nanmedian(np.array(facts)[:, 1:], axis=0) if not arm.kto and arm.alone else np.full(3, np.nan)
    terms_facts = dict(zip(names, [float(np.array(facts)[:, 0].sum()), *map(float, middle)], strict=True))
    return (gradients[: len(of.tokens)] @ theta).detach().numpy(), terms_facts


def terms_of(arm: PairArm, objective: Objective, ratios: Any, labels: Ints, siblings: Ints, z0: Any) -> tuple[Any, Any]:
    """(KTO's term, the pairs' term) of each row: float [B], float [B]."""
    label, who = torch.tensor(labels), torch.tensor(siblings)
    examples = Examples(label, label.float(), torch.ones(len(label)), torch.zeros(len(label)), who)
    loss = objective.loss(ratios, examples, z0)
    paired = ((who[:, None] == who) & (label[:, None] != label)).any(1) & (not arm.kto)
    alone = Kto.loss(objective, ratios, examples, z0)
    return torch.where(paired, arm.row_weight, arm.alone) * alone, torch.where(paired, loss, 0.0)


def _facts(terms: tuple[Any, Any], theta: Any) -> tuple[float, ...]:
    with_siblings = float((terms[1] > 0).sum())
    first, second = (
        torch.autograd.grad(term.sum() / len(term), theta, retain_graph=True, allow_unused=True)[0] for term in terms
    )
    if first is None or second is None or not first.any() or not second.any():
        return with_siblings, np.nan, np.nan, np.nan
    return with_siblings, float(first.norm()), float(second.norm()), float(torch.cosine_similarity(first, second, 0))


def right_in_prompt(frame: pl.DataFrame, reward: Ints) -> float:
    """Of all pairs of a truly desirable and an undesirable answer to one prompt, the share that is ranked rightly."""
    both = frame.select("prompt", "truth", reward=pl.Series(reward))
    pairs = both.filter("truth").join(both.filter(~pl.col("truth")), on="prompt")
    return float((pairs["reward"] > pairs["reward_right"]).mean())


def measure(of: Drawn, train: Callable[..., Scores], arms: Iterable[str], updates: int, seeds: int, parts: int) -> dict[str, Any]:
    """train : of an arm, the rows that are not held out, the part that is, a seed and a number of updates; parts : held out in turn"""
    tokenizer, length = load_tokenizer(POLICY), of.tokens.max_length
    each_part = [of.frame[of.train(part)] for part in range(parts)]
    rows_of_part = [tokenize(frame, tokenizer, max_length=length, part="train")[0] for frame in each_part]
    scores, lines = [], {}
    for name in arms:
        metrics, right = [], []
        for part in range(parts):
            held_out = (of.frame["part"] == part).to_numpy()
            for seed in range(seeds):
                reward, facts = train(ARMS[name], rows_of_part[part], part, seed, updates)
                metrics.append(facts)
                right.append(right_in_prompt(of.frame.filter(held_out), reward[held_out]))
                some = of.frame.filter(held_out).select(
                    "row_id", arm=pl.lit(name), seed=part * seeds + seed, reward=pl.Series(reward[held_out])
                )
                scores.append(some)
        means = {fact: float(np.mean([each[fact] for each in metrics])) for fact in metrics[0]}
        lines[name] = {fact: round(value, 4) for fact, value in means.items() if value == value} | {
            "right_in_prompt": round(float(np.mean(right)), 4)
        }
        print(name, lines[name], flush=True)
    held_out = of.frame.select("row_id", "truth", group="prompt_group", model=pl.lit(None, pl.String))
    for baseline in ("kto", "dpo"):
        table = contrast(pl.concat(scores), held_out, baseline=baseline).filter(measure="auc")
        for line in table.iter_rows(named=True):
            lines[line["arm"]]["auc"] = line["value"]
            lines[line["arm"]][f"minus_{baseline}"] = [line[f"minus_{end}"] for end in ("baseline", "low", "high")]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="*", choices=MOST, default=list(MOST))
    parser.add_argument("--updates", type=int, nargs="*", default=[32, 77])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    for name in options.sets:
        of, rows = drawn(options.data, name), name.removesuffix("_half").removesuffix("_true")
        kept = None if options.folder is None else options.folder / rows
        gradients = gradients_of(load_causal_lm(POLICY)[0], of.tokens, of.pairs, kept).float()
        train = partial(linear, of, gradients / gradients.norm(dim=1).median())
        arms = {f"{updates} updates": measure(of, train, ARMS, updates, options.seeds, PARTS) for updates in options.updates}
        facts = {"rows": of.frame.height, "prompt_groups": of.frame["prompt_group"].n_unique(), "seeds": options.seeds}
        write_result(f"pair_screen_{name}", {"set": name} | facts | arms | machine())


if __name__ == "__main__":
    main()
