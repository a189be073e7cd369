"""What training makes of a family of models, beside rows that go one at a time through the model's own logits."""

import warnings
from dataclasses import asdict, dataclass

from tiny_families import NotTinyError, tiny_config, tiny_family
from tiny_models import gradients, job_of, keep_gradients, moved, one_by_one, random_rows, scorer_of

BETA = 0.3
WINDOWS = {"within": 64, "beyond": 8}  # tokens of a window: longer than every row and pair of prompt and completion, or shorter
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Errors:
    """How far an update is off one of single rows in float32. of_* : largest difference; gradient: share of its norm."""

    logp: float  # nats
    loss: float
    z0: float  # nats, before the clamp
    gradient: float


@dataclass(frozen=True)
class Outcome:
    """status : trained, refused by us, or not built here. method : how it is scored; reason : why not faster, or not at all."""

    family: str
    status: str
    method: str | None = None
    reason: str | None = None
    ours: Errors | None = None
    rounding: Errors | None = None  # of single rows in the same arithmetic

    def as_dict(self):
        return asdict(self)


EXACT = Errors(logp=1e-3, loss=1e-4, z0=1e-3, gradient=1e-4)
ROUNDED = (0.1, 0.02, 0.1, 0.05)  # beside twice what rounding does to single rows: another order of sums rounds otherwise


def outcome_of(family, *, window, dtype, device="cpu", recomputed=False):
    """Score and train one update of a tiny model of `family`, its windows as WINDOWS says, in "float32" or "bfloat16".

    recomputed : with gradient_checkpointing
    """
    from ktodata.errors import ModelError, SettingError

    try:
        model = tiny_family(family, window=WINDOWS[window])
    except NotTinyError as error:
        return Outcome(family, "not built", reason=str(error))
    try:
        return trained(family, model.to(device), dtype, recomputed)
    except (ModelError, SettingError) as error:
        return Outcome(family, "refused", reason=str(error))


def agrees(outcome, dtype):
    """Whether an update is that of single rows: to float32's own rounding, or as close as single rows are in bfloat16."""
    if outcome.status != "trained":
        return True
    allowed = EXACT
    if dtype == "bfloat16":
        allowed = Errors(*(2 * other + least for other, least in zip(vars(outcome.rounding).values(), ROUNDED, strict=True)))
    return all(value <= most for value, most in zip(vars(outcome.ours).values(), vars(allowed).values(), strict=True))


def has_windows(family):
    """Whether `window` changes anything in its tiny config."""
    from transformers import CONFIG_MAPPING

    try:
        configs = [tiny_config(CONFIG_MAPPING[family], tokens).to_json_string() for tokens in WINDOWS.values()]
    except Exception:  # it is not built, for a reason that its outcome says
        return False
    return configs[0] != configs[1]


def trained(family, model, dtype, recomputed=False):
    """The outcome of one update of twelve rows of two prompts, of 3 to 28 tokens, in several micro-batches."""
    import torch

    from ktodata.train import loop
    from ktodata.train.data.batches import plan_training
    from ktodata.train.model.gradient_checkpointing import checkpoint_layers, keep_activations
    from ktodata.train.objectives import Kto

    model.requires_grad_(True)
    if recomputed:
        checkpoint_layers(model)
    rows = random_rows(12, prompts=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scorer = scorer_of(model, rows, compute_dtype=getattr(torch, dtype), device=model.device)
    plan = plan_training(rows, batch_size=12, epochs=1, max_steps=1, seed=0)
    (step,) = plan.steps
    job = job_of(scorer, plan, objective=Kto(BETA), micro_batch_tokens=120)
    with torch.no_grad():
        references = {name: plain_logps(model, rows, step, name) for name in {dtype, "float32"}}
    moved(model)
    kept, metrics = keep_gradients(job), loop.train_step(job, step)
    ours = (metrics.logps, metrics.losses, metrics.point.unclamped, kept[0])
    keep_activations(model)
    exact, rounded = (plain_update(model, rows, step, references[name], name) for name in ("float32", dtype))
    rejected = "; ".join(f"{method}: {why}" for method, why in scorer.self_check.rejected.items())
    return Outcome(family, "trained", scorer.method, rejected or None, errors(ours, exact), errors(rounded, exact))


def plain_logps(model, rows, step, dtype):
    import torch

    with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        return one_by_one(model, rows, step.matched()), one_by_one(model, rows, list(step.mismatched().values()))


def plain_update(model, rows, step, reference, dtype):
    """(log-probs, losses, z0 before the clamp, gradients) of one update of KTO (arXiv:2402.01306, Eq. 8), spelt out."""
    import torch

    model.zero_grad()
    own, crossed = plain_logps(model, rows, step, dtype)
    z0 = (crossed.detach() - reference[1]).mean()
    sign = torch.where(torch.tensor(rows.label[step.rows], device=own.device), 1.0, -1.0)
    losses = 1 - torch.sigmoid(sign * BETA * (own - reference[0] - z0.clamp(min=0)))
    losses.mean().backward()
    return own.detach(), losses.detach(), z0, gradients(model)


def errors(result, exact):
    import torch

    nothing = {name: torch.zeros_like(gradient) for name, gradient in exact[3].items()}
    ours = nothing | result[3]
    off = sum(float((ours[name] - exact[3].get(name, 0.0)).square().sum()) for name in ours)
    norm = sum(float(gradient.square().sum()) for gradient in exact[3].values())
    logp, loss, z0 = (float((a - b).abs().max()) for a, b in zip(result[:3], exact[:3], strict=True))
    return Errors(logp, loss, z0, (off / norm) ** 0.5)
