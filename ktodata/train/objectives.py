"""What is minimised: the loss as a pure function of tensors, and the objectives that the training loop is given.

An objective is a cost of each row's margin: how far the model sides with the desirable label, beta x (log-ratio - shift), or its
negative for the undesirable one. KTO, APO-zero, BCO and the Hoelder variant differ in that cost and in where the shift comes
from, the hybrid sets a row against its siblings; soft labels and flip rates say which label a row is pulled to, and how far.
A new objective is a new class in OBJECTIVES.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ktodata.errors import SettingError, ShapeError
from ktodata.train.setting_tables import FlipRates

Tensor = Any  # a torch.Tensor; each docstring says its shape and unit. Settings are checked here without loading torch
Point = Literal["mismatched", "zero", "running_mean"]


def kto_cost(margin: Tensor) -> Tensor:
    """1 - sigmoid(margin): float in [0, 1], same shape, falling; 1/2 at 0. Costs of a margin and its negative add up to 1."""
    return 1 - margin.sigmoid()


def kto_pull(margin: Tensor) -> Tensor:
    """-d kto_cost / d margin: float in [0, 1/4], same shape, largest at 0; the same for a margin and its negative."""
    return margin.sigmoid() * (-margin).sigmoid()


def kto_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    desirable: Tensor,
    kl: Tensor | float,
    *,
    beta: float = 0.1,
    desirable_weight: float | Tensor = 1.0,
    undesirable_weight: float | Tensor = 1.0,
    cost: Callable[[Tensor], Tensor] = kto_cost,
) -> Tensor:
    """KTO loss of each of B examples: in [0, its weight], lower is better, 0.5 x weight before training starts.

    policy_logps, reference_logps : float [B]
        log p(completion | prompt) in nats, summed over completion tokens; prompt and padding left out.
    desirable : bool [B], or float [B]: how much of a row's loss is the desirable label's, the rest being the undesirable one's
    kl : float []
        The reference point z0 in nats, >= 0, one for the batch, carrying no gradient.
    beta : per nat
        Larger holds the model closer to the reference; 0.1 is the paper's usual value.
    desirable_weight, undesirable_weight : float, or float [B] for a weight of each row
    cost : of a margin; every objective is this loss with a cost of its own, and this is the function that training runs

    Returns float [B]. Raises ShapeError when the [B] tensors differ in length, naming each length.
    Source: Ethayarajh et al. 2024, arXiv:2402.01306, section 4.
    """
    check_same_length(policy_logps=policy_logps, reference_logps=reference_logps, desirable=desirable)
    margin = beta * (policy_logps - reference_logps - kl)  # [B]; the label decides its sign, and nothing else
    desirable = desirable.to(margin.dtype)
    return desirable_weight * desirable * cost(margin) + undesirable_weight * (1 - desirable) * cost(-margin)


def kto_gradient_weight(
    policy_logps: Tensor,
    reference_logps: Tensor,
    desirable: Tensor,
    kl: Tensor | float,
    *,
    beta: float = 0.1,
    desirable_weight: float | Tensor = 1.0,
    undesirable_weight: float | Tensor = 1.0,
    pull: Callable[[Tensor], Tensor] = kto_pull,
) -> Tensor:
    """The derivative d kto_loss / d policy_logp of each row: float [B] per nat, signed: negative pushes the completion up.

    pull : -d cost / d margin. With KTO's, the size is in [0, weight x beta / 4], largest where the log-ratio equals kl, and near
    0 far away from it on either side. The other arguments, and what is raised, are those of `kto_loss`.
    """
    check_same_length(policy_logps=policy_logps, reference_logps=reference_logps, desirable=desirable)
    margin = beta * (policy_logps - reference_logps - kl)
    desirable = desirable.to(margin.dtype)
    return beta * (undesirable_weight * (1 - desirable) * pull(-margin) - desirable_weight * desirable * pull(margin))


@dataclass(frozen=True)
class Examples:
    """B rows as the losses need them; all [B], on the model's device."""

    desirable: Tensor  # bool, the label as given
    p_desirable: Tensor  # float, P(truly desirable); the label itself, 0 or 1, where none was given
    weight: Tensor  # float, >= 0, the row's own weight
    reference_logps: Tensor  # float, nats
    prompt: Tensor  # int, equal where the prompt is the same

    def __getitem__(self, part: slice | list[int]) -> "Examples":
        """These rows only, in this order."""
        return Examples(*(getattr(self, field.name)[part] for field in fields(self)))


def label_targets(
    desirable: Tensor, p_desirable: Tensor, *, soft_labels: bool, flip_rates: FlipRates | None
) -> tuple[Tensor, Tensor | float]:
    """(how much of each row's loss is the desirable label's, the rest being the other's: float [B]; times the row's weight).

    Plain labels: 1 for desirable rows, 0 for the others; times 1.

    Soft labels: a row is pulled to its likelier label, by how far that is the likelier one: 1 times 2 p - 1 where p = p_desirable
    is above 1/2, 0 times 1 - 2 p below; with p in {0, 1} it is the plain loss. With D = U that is KTO's gradient of the expected
    loss p x loss(desirable) + (1 - p) x loss(undesirable). With unequal weights it is not, and is meant not to be: the expected
    loss pulls down every row with p below U / (D + U), at weights of 1 : 6 all below 0.86, most of which are desirable; and a
    rare label's weight then lifts the small doubts of all other rows. What either wins back is in tests/benchmarks/LOG.md.

    Flip rates d = P(given undesirable | truly desirable), u = P(given desirable | truly undesirable): q times 1, with
    q = (y - u) / Z and Z = 1 - d - u for the plain label y in {0, 1}, so q = (1 - u) / Z >= 1 or q = -u / Z <= 0. Then the mean
    over flips is the clean loss: for a truly desirable row E[y] = 1 - d and E[q] = 1; for an undesirable one E[y] = u and
    E[q] = 0. That is the unbiased estimator of Natarajan et al. 2013 ("Learning with Noisy Labels", lemma 1), as a share.
    Limits: d + u < 1, flips that depend on the true label alone, rates that are known. The price is noise: what the two labels
    say lies 1 / Z times further apart. With KTO's cost, which of a margin and of its negative adds up to 1, flip rates change the
    weights D and U of the labels to [(1 - u) D + d U] / Z and [(1 - d) U + u D] / Z, and nothing else: they cannot say which
    rows are wrong, and with d = u and D = U the gradient is rescaled by 1 / Z and no more.

    Of both: a row's own weight must not depend on its given label, as `rebalance` by weights makes it do. Even them out with
    desirable_weight and undesirable_weight instead: they go with the label that is meant.
    """
    if soft_labels:
        return (p_desirable > 0.5).to(p_desirable.dtype), (2 * p_desirable - 1).abs()
    given = desirable.to(p_desirable.dtype)
    if flip_rates is not None:
        given = (given - flip_rates["undesirable"]) / (1 - flip_rates["desirable"] - flip_rates["undesirable"])
    return given, 1.0


@dataclass(frozen=True)
class Objective:
    """A cost of margins under the loss of `kto_loss`, and all that the training loop knows of a loss.

    beta : per nat, > 0; a reward is beta x log-ratio
    desirable_weight, undesirable_weight : >= 0, times each row's own
    soft_labels : p_desirable says which way a row is pulled, and how far
    flip_rates : correct for labels that were flipped at these rates; not together with soft_labels

    point : where the shift comes from: z0 of mismatched pairs, 0 always, or the running mean of earlier rewards / beta

    Raises SettingError for values out of range; `loss` and `gradient_weight` raise ShapeError unless all is [B].
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    soft_labels: bool = False
    flip_rates: FlipRates | None = None
    name: ClassVar[str]
    point: ClassVar[Point] = "mismatched"
    contrasts: ClassVar[bool] = False  # whether a row's loss hangs on other rows of its prompt

    def __post_init__(self) -> None:
        _check_number(self.beta > 0, "beta", "> 0", self.beta)
        _check_number(self.desirable_weight >= 0, "desirable_weight", ">= 0", self.desirable_weight)
        _check_number(self.undesirable_weight >= 0, "undesirable_weight", ">= 0", self.undesirable_weight)
        if self.flip_rates is not None:
            _check_flip_rates(self.flip_rates, soft_labels=self.soft_labels)
            if self.contrasts or math.isinf(self.max_cost):  # a pair's is -log sigmoid
                raise SettingError(
                    f"flip_rates: the loss of {self.name} has no upper bound, so its correction has no lower one and would be "
                    "driven to -infinity. Use objective: kto or apo_zero with flip_rates, or this one with soft_labels."
                )

    def loss(self, policy_logps: Tensor, examples: Examples, shift: Tensor) -> Tensor:
        """Float [B], lower is better. policy_logps : float [B], nats. shift : float [], nats, carrying no gradient."""
        return kto_loss(policy_logps, **self._loss_terms(examples, shift), cost=self.cost)

    def gradient_weight(self, policy_logps: Tensor, examples: Examples, shift: Tensor) -> Tensor:
        """Float [B]: d loss / d policy_logp per nat, signed: negative pushes the completion up. Carries no gradient."""
        return kto_gradient_weight(policy_logps.detach(), **self._loss_terms(examples, shift), pull=self.pull)

    def cost(self, margin: Tensor) -> Tensor:
        """What a margin costs: float in [0, max_cost], same shape, falling."""
        raise NotImplementedError

    def pull(self, margin: Tensor) -> Tensor:
        """-d cost / d margin: float, same shape, >= 0."""
        raise NotImplementedError

    @property
    def max_cost(self) -> float:
        """The cost of a margin of -infinity; it may be infinite."""
        raise NotImplementedError

    def _loss_terms(self, examples: Examples, shift: Tensor | float) -> dict[str, Any]:
        """What `kto_loss` and `kto_gradient_weight` are given beside the model's log-probs."""
        rates: Any = {"soft_labels": self.soft_labels, "flip_rates": self.flip_rates}
        target, confidence = label_targets(examples.desirable, examples.p_desirable, **rates)
        return {
            "reference_logps": examples.reference_logps,
            "desirable": target,
            "kl": 0.0 if self.point == "zero" else shift,
            "beta": self.beta,
            "desirable_weight": self.desirable_weight * examples.weight * confidence,
            "undesirable_weight": self.undesirable_weight * examples.weight * confidence,
        }


@dataclass(frozen=True)
class Kto(Objective):
    """KTO: cost = 1 - sigmoid(margin), pull = sigmoid x (1 - sigmoid); shift = z0 >= 0 of mismatched pairs.

    In [0, weight]; half the weight before training starts. With flip rates it may be negative, down to -weight x rate / Z.
    The pull is largest, beta / 4 x weight per nat, where the log-ratio equals z0, and fades as exp(-|margin|) on both sides: for
    rows that fit, and for rows that contradict their label, the wrongly labelled and the merely hard alike.
    Source: Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7 and 8; the cost of the two labels adds up to 1.
    """

    name: ClassVar[str] = "kto"

    def cost(self, margin: Tensor) -> Tensor:
        """1 - sigmoid(margin)."""
        return kto_cost(margin)

    def pull(self, margin: Tensor) -> Tensor:
        """In [0, 1/4], the same for both labels."""
        return kto_pull(margin)

    @property
    def max_cost(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class ApoZero(Kto):
    """APO-zero on single completions: KTO's cost with the shift at 0, whatever `loss` is given, and so no mismatched pairs.

    It is KTO in the steps where z0 is clamped to 0, at the price of one pass less. It drives the log-ratios of desirable
    completions above 0 and those of undesirable ones below, not only apart.
    Source: arXiv:2408.06266 for pairs; the form for single completions is the one that TRL calls apo_zero_unpaired.
    """

    name: ClassVar[str] = "apo_zero"
    point: ClassVar[Point] = "zero"


@dataclass(frozen=True)
class KtoHoelder(Objective):
    """KTO's margin under a cost that lets go of rows which contradict their label. With m = sigmoid(margin), g = holder_gamma:

    cost = 2^g x [1 / (g (1 + g)) - m^g / g + m^(1 + g) / (1 + g)],   pull = 2^g x m^g x (1 - m)^2

    holder_gamma : > 1. A contradicting row's pull falls as m^g, KTO's as m; at 1 it would fall no faster.
    In [0, weight x 2^g / (g (1 + g))]. The pull vanishes at both ends; at g = 2 it is 4 times KTO's squared. It equals KTO's,
    1/4, at margin 0, so that beta and learning rate mean the same there; for g > 2 it is largest beyond 0, at m = g / (2 + g).

    From the paper (Hoelder-DPO, arXiv:2505.17859): the score -(1 + g) m^g + g m^(1 + g) of a pair's margin, which is the density
    power divergence among Hoelder divergences. Made here: a single completion's margin in the pair's place, scale and constant.
    The paper's theorems are on pairs, and nothing of them is claimed for this loss: that one row's pull vanishes does not make
    the minimiser that of clean labels. The two labels' costs do not add up to a constant, unlike KTO's. Hard rows with right
    labels are let go as well, and a model that starts on the wrong side of a row hardly comes back.
    """

    holder_gamma: float = 2.0
    name: ClassVar[str] = "kto_hoelder"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number(
            self.holder_gamma > 1, "holder_gamma", "> 1 (at 1 or less no row is let go faster than by kto)", self.holder_gamma
        )

    def cost(self, margin: Tensor) -> Tensor:
        """Not convex."""
        m, g = margin.sigmoid(), self.holder_gamma
        return 2**g * (1 / (g * (1 + g)) - m**g / g + m ** (1 + g) / (1 + g))

    def pull(self, margin: Tensor) -> Tensor:
        """1/4 at margin 0, and 0 far away on either side."""
        return 2**self.holder_gamma * margin.sigmoid() ** self.holder_gamma * (-margin).sigmoid() ** 2

    @property
    def max_cost(self) -> float:
        """2^g / (g (1 + g))."""
        return 2**self.holder_gamma / (self.holder_gamma * (1 + self.holder_gamma))


@dataclass(frozen=True)
class Bco(Objective):
    """BCO: cost = -log sigmoid(margin), pull = sigmoid(-margin); shift = delta / beta, delta the mean reward of earlier steps.

    A classifier whose logit is reward - delta. In [0, infinity), weight x ln 2 at margin 0. The pull is largest, beta x weight,
    on rows that contradict their label most: wrong labels are fitted hardest. No flip rates: a corrected loss has no lower bound.
    Limits: delta is the mean over both labels as they come, so with few rows of one label it lies near the other's. The paper's
    weights for prompts of different kinds (underlying distribution matching) are not applied.
    Source: Jung et al. 2024, arXiv:2404.04656.
    """

    name: ClassVar[str] = "bco"
    point: ClassVar[Point] = "running_mean"

    def cost(self, margin: Tensor) -> Tensor:
        """-log sigmoid(margin), convex."""
        from torch.nn.functional import softplus

        return softplus(-margin)

    def pull(self, margin: Tensor) -> Tensor:
        """In [0, 1]."""
        return (-margin).sigmoid()

    @property
    def max_cost(self) -> float:
        """Infinite."""
        return math.inf


@dataclass(frozen=True)
class KtoHybrid(Kto):
    """KTO's loss of every row and, for rows with siblings of the other label, DPO's beside it.

    Siblings are the rows of the same prompt in the same batch. With r = log-ratio in nats, s = 1 for desirable and -1 for
    undesirable rows, a row i with siblings S(i) of the other label costs

        row_weight x KTO's loss of i + pair_weight x weight_i x mean over j in S(i) of -log sigmoid(s_i x beta x (r_i - r_j))

    and the gradient of the second term goes to r_i and to every r_j: what a judge gets wrong about a whole prompt cancels between
    them. Where no prompt has both labels it is KTO. With row_weight 0, where every prompt has as many of one as of the other, it
    is DPO's mean over all pairs of a prompt, in [0, infinity), ln 2 at first. A row with k siblings stands in k pairs and counts
    as one row.

    pair_weight : > 0. At margin 0 each side of a lone pair is pulled by beta x pair_weight per nat, a row without siblings by
        beta / 4. It has no effect where row_weight is 0, all rows have siblings and the optimizer is indifferent to a scale.
    row_weight : >= 0. At 0 KTO's term is left to rows without siblings. Those are mostly of prompts whose answers are all alike,
        so they teach what a prompt's label is, and no longer what KTO learns from all rows (docs/hybrid.md).

    With soft labels the sides are the likelier labels, and a pair (i, j) weighs as P(i is the better one) - P(j is it), the
    mean of 2 p - 1 of its sides. z0 is that of all rows' mismatched pairs, and bears on KTO's term only. No flip rates: the loss
    has no upper bound.
    Source: made here, of Rafailov et al. 2023, arXiv:2305.18290, eq. 7, and Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7.
    """

    pair_weight: float = 1.0
    row_weight: float = 1.0
    name: ClassVar[str] = "kto_hybrid"
    contrasts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number(self.pair_weight > 0, "pair_weight", "> 0", self.pair_weight)
        _check_number(self.row_weight >= 0, "row_weight", ">= 0", self.row_weight)

    def loss(self, policy_logps: Tensor, examples: Examples, shift: Tensor) -> Tensor:
        """Float [B], lower is better; the rows of a prompt in one batch hang on one another."""
        from torch.nn.functional import softplus

        alone = super().loss(policy_logps, examples, shift)
        margin, share = self._pairs(policy_logps, examples)
        return (self.row_weight * alone + (share * softplus(-margin)).sum(1)).where(share.any(1), alone)

    def gradient_weight(self, policy_logps: Tensor, examples: Examples, shift: Tensor) -> Tensor:
        """Float [B]: d (sum of losses) / d policy_logp per nat, signed. Carries no gradient."""
        alone = super().gradient_weight(policy_logps, examples, shift)
        margin, share = self._pairs(policy_logps.detach(), examples)
        target, _ = label_targets(examples.desirable, examples.p_desirable, soft_labels=self.soft_labels, flip_rates=None)
        # a pair's margin is the same from either side, and a row of weight 0 is pulled by what its siblings lose
        shares = share + share.T
        pulls = self.beta * (-margin).sigmoid() * shares
        return (self.row_weight * alone + (1 - 2 * target) * pulls.sum(1)).where(shares.any(1), alone)

    def _pairs(self, policy_logps: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
        """Of row i and row j: (margin of i over j by i's side, what it weighs in i's loss; 0 unless siblings of two labels)."""
        terms = self._loss_terms(examples, 0.0)
        target = terms["desirable"]
        weight = self.pair_weight * (terms["desirable_weight"] * target + terms["undesirable_weight"] * (1 - target))
        opposed = (examples.prompt[:, None] == examples.prompt) & (target[:, None] != target)
        ratio = policy_logps - examples.reference_logps
        margin = self.beta * (2 * target - 1)[:, None] * (ratio[:, None] - ratio)
        return margin, opposed * (weight / opposed.sum(1).clamp(min=1))[:, None]


OBJECTIVES: dict[str, type[Objective]] = {cls.name: cls for cls in (Kto, KtoHoelder, KtoHybrid, ApoZero, Bco)}
# of any of them, each once
OBJECTIVE_SETTINGS = tuple(dict.fromkeys(field.name for cls in OBJECTIVES.values() for field in fields(cls)))
if TYPE_CHECKING:
    ObjectiveName = str
else:
    ObjectiveName = Literal[tuple(OBJECTIVES)]


def make_objective(name: str, **settings: Any) -> Objective:
    """The objective of that name in OBJECTIVES; a setting that is None has the objective's own default.

    Raises SettingError for an unknown name, for a value out of its range, and for settings that do not go together.
    """
    if name not in OBJECTIVES:
        raise SettingError(f"objective is one of {', '.join(OBJECTIVES)}; got {name!r}.")
    given = {setting: value for setting, value in settings.items() if value is not None}
    for setting in given:
        owners = [cls.name for cls in OBJECTIVES.values() if setting in (field.name for field in fields(cls))]
        if name not in owners:
            raise SettingError(
                f"{setting} is a setting of {', '.join(owners)}, and the objective is {name}. Leave it out, or change that."
            )
    return OBJECTIVES[name](**given)


class RunningMean:
    """The mean of all rewards so far (beta x nats): BCO's delta; 0 before any.

    A step's shift is the mean known before it, and the step's rewards go in after it: so the order of micro-batches cannot
    matter. Every reward counts alike however old, so the mean lags behind a model that moves fast.
    """

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    @property
    def value(self) -> float:
        """Reward units; in nats after division by beta."""
        return self._total / self._count if self._count else 0.0

    def update(self, rewards: Tensor) -> None:
        """Take in the rewards of one step, float [B]. Reads them off the device."""
        self._total += float(rewards.detach().sum())
        self._count += rewards.numel()

    def state(self) -> dict[str, float]:
        """Plain numbers for a checkpoint; JSON gives them back to the last bit."""
        return {"total": self._total, "count": self._count}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave."""
        self._total, self._count = float(state["total"]), int(state["count"])


@dataclass(frozen=True)
class ReferencePoint:
    """KTO's z0 of one effective batch, in nats, and how well it is known."""

    value: Tensor  # float [], >= 0
    unclamped: Tensor  # float []
    standard_error: Tensor  # float [], of the unclamped mean; nan for a single pair


def reference_point(log_ratios: Tensor) -> ReferencePoint:
    """z0 from the log-ratios (nats, float [B]) of one effective batch's mismatched pairs: their mean, at least 0, no gradient.

    All micro-batches of a step go in together: a mean of clamped means would be biased upwards.
    """
    log_ratios = log_ratios.detach()
    mean = log_ratios.mean()
    error = log_ratios.std(unbiased=True) / len(log_ratios) ** 0.5 if len(log_ratios) > 1 else mean.new_full((), math.nan)
    # a true KL is never negative, but its estimate from mismatched pairs can be: hence the clamp
    return ReferencePoint(value=mean.clamp(min=0), unclamped=mean, standard_error=error)


def check_same_length(**tensors: Tensor) -> None:
    """Raise ShapeError, naming each length, unless all tensors are [B] with one B."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        named = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ShapeError(f"these must all be [B] with the same B: {named}.")


def _check_number(good: bool, name: str, wanted: str, value: float) -> None:
    if not (good and math.isfinite(value)):
        raise SettingError(f"{name} is a number {wanted}; got {value}.")


def _check_flip_rates(rates: FlipRates, *, soft_labels: bool) -> None:
    if set(rates) != set(FlipRates.__annotations__):
        raise SettingError(f"flip_rates holds desirable and undesirable, a rate each; got {dict(rates)}.")
    for name, rate in rates.items():
        if not (isinstance(rate, int | float) and 0 <= rate < 1):
            raise SettingError(f"flip_rates: {name} is a share in [0, 1) of the truly {name} rows; got {rate!r}.")
    if (total := rates["desirable"] + rates["undesirable"]) >= 1:
        raise SettingError(
            f"flip_rates: desirable {rates['desirable']} + undesirable {rates['undesirable']} is {total:g}; it must be below 1. "
            "At 1 the labels say nothing of the truth, above it the opposite: turn the labels round, or estimate the rates again."
        )
    if soft_labels:
        raise SettingError(
            "flip_rates and soft_labels both say how far a label is believed. Give one: flip_rates correct the labels, "
            "soft_labels takes p_desirable for them."
        )
