"""The loss that keeps a mixture of experts (MoE) from sending all tokens to a few, of a whole update.

E x sum over experts of f_e x P_e, with f_e how many of the k experts chosen for a token are e, on average over tokens and layers,
and P_e the mean probability that routers give e: Fedus et al. 2021, arXiv:2101.03961, Eq. 4 to 6, as transformers computes it for
a batch. It is at least k, where all experts are used alike. f_e has no gradient.

It is no mean over rows: halves of a batch have another loss than the whole. So f is counted over all rows of an update first, and
each pass adds its part of P. A token of a prompt that is computed once counts for every row that has it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ktodata.errors import SettingError, is_out_of_memory
from ktodata.models import text_config
from ktodata.train.distributed.interface import Distributed
from ktodata.train.distributed.sharding import recover
from ktodata.train.model.self_check import FOREIGN_LAYOUT, widest_arithmetic, words

if TYPE_CHECKING:
    from ktodata.train.model.scorer import Scorer

Tensor = Any
CHOSEN_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")
EXACT, ROUNDED = 1e-4, 0.1  # share of the model's own loss by which ours may be off; rounding moves tokens between experts


class Routed(NamedTuple):
    """Sums over the tokens of passes and over layers, each token as often as rows hold it."""

    probabilities: Tensor  # float32 [E], with gradient where the pass had one
    chosen: Tensor  # float32 [E], how often each expert was among the k
    tokens: Tensor  # float32 []


class RouterLoss:
    """Watches the routers of a model. coefficient : what the loss is multiplied by; top_k : experts that each token is sent to"""

    def __init__(self, model: Any, *, coefficient: float, top_k: int) -> None:
        self.coefficient, self.top_k, self.experts = coefficient, top_k, 0  # experts: known from the first pass on
        self._routers = list(_routers(model))
        self._caught: list[Tensor] = []
        self._passes: list[Routed] | None = None  # none: nobody watches

    @contextmanager
    def watched(self) -> Iterator[list[Routed]]:
        """Inside, what routers do in each pass is added to the list."""
        hooks = [router.register_forward_hook(partial(self._catch, index)) for router, index in self._routers]
        passes: list[Routed] = []
        self._passes = passes
        try:
            yield passes
        finally:
            self._passes = None
            self._caught.clear()
            for hook in hooks:
                hook.remove()

    def add(self, rows: Tensor) -> None:
        """A pass is over. rows : float32 [tokens], how many rows hold each token; 0 for padding."""
        if self._passes is not None:
            self._passes.append(total([self._sums(logits, rows) for logits in self._caught]))
            self._caught.clear()
            self.experts = len(self._passes[-1].chosen)

    @property
    def is_watched(self) -> bool:
        """Whether somebody asks for the next pass."""
        return self._passes is not None

    def forget_last(self) -> None:
        """The last pass was made for other processes' sake."""
        if self._passes:
            self._passes.pop()

    def of_update(self, routed: Routed) -> Tensor:
        """The loss, float32 [], of all rows of an update, without its coefficient."""
        return len(routed.chosen) * (routed.chosen * routed.probabilities).sum() / routed.tokens.square()

    def share(self, passes: Sequence[Routed], update: Routed) -> Tensor:
        """What passes add to the loss of an update, times the coefficient; their gradients sum up to that of the whole."""
        return self.coefficient * self.of_update(update._replace(probabilities=total(passes).probabilities))

    def _catch(self, index: int, _router: Any, _inputs: Any, output: Any) -> None:
        self._caught.append(output[index] if isinstance(output, tuple) else output)

    def _sums(self, logits: Tensor, rows: Tensor) -> Routed:
        """Of one layer. logits : [tokens, E] or [1, tokens, E]"""
        probabilities = torch.softmax(logits.reshape(-1, logits.shape[-1]).float(), -1)
        chosen = probabilities.detach().topk(self.top_k, -1).indices.flatten()
        counts = torch.zeros_like(probabilities[0]).index_add(0, chosen, rows.repeat_interleave(self.top_k))
        return Routed(rows @ probabilities, counts, rows.sum())


def total(passes: Sequence[Routed]) -> Routed:
    """Sums over passes, of which there is at least one."""
    return Routed(*(torch.stack(parts).sum(0) for parts in zip(*passes, strict=True)))


def over_processes(passes: Sequence[Routed], experts: int, distributed: Distributed, device: Any) -> Routed:
    """Without gradient, over the passes of all processes, of which this one may have made none."""
    own = torch.zeros(2 * experts + 1, device=device)
    if passes:
        routed = total(passes)
        own = torch.cat([routed.probabilities.detach(), routed.chosen, routed.tokens[None]])
    summed = distributed.sum(own)
    return Routed(summed[:experts], summed[experts:-1], summed[-1])


def coefficient_of(config: Any, setting: float | None) -> float:
    """What the router loss is multiplied by: as set, else as the model's config says; 0: there is none. The rule is TRL 1.16's.

    Raises SettingError where one is set for a model without routers.
    """
    text = text_config(config)
    has_routers = hasattr(text, "output_router_logits")
    if setting and not has_routers:
        raise SettingError(
            f"router_aux_loss_coef is {setting:g}, and a {config.model_type} model is no mixture of experts: leave it out."
        )
    coefficient = getattr(text, "router_aux_loss_coef", None) if setting is None else setting
    return float(coefficient or 0.0) if has_routers else 0.0


def watch_routers(scorer: "Scorer", coefficient: float) -> str | None:
    """Set `scorer.routers`, where our loss is the model's own of the longest row; else gives the reason why it cannot be had.

    A model without routers, although its kind may have some, has no loss for no reason.
    """
    config = text_config(scorer.model.config)
    counts = dict.fromkeys(count for name in CHOSEN_EXPERTS if isinstance(count := getattr(config, name, None), int))
    row = max(range(len(scorer.rows)), key=lambda row: scorer.length((row, row)))
    theirs = _own_loss(scorer, (row, row))
    if not list(_routers(scorer.model)):
        return "its routers are not where transformers records them" if theirs else None
    if not theirs:
        return "its own code gives no such loss"
    reason: str | None = "its config does not say how many experts a token is sent to"
    for top_k in counts:
        loss = RouterLoss(scorer.model, coefficient=coefficient, top_k=top_k)
        reason = _off_by(scorer, loss, (row, row), theirs)
        if reason is None:
            scorer.routers = loss
            return None
    return reason


def _own_loss(scorer: "Scorer", pair: tuple[int, int]) -> float | None:
    """Of the model's own code on one row; None where it has none, or fails for want of routers."""
    try:
        with torch.no_grad(), widest_arithmetic(scorer):
            return scorer.own_router_loss(pair)
    except FOREIGN_LAYOUT as error:
        if is_out_of_memory(error):
            raise
        recover(scorer.packed_model)
        return None


def _off_by(scorer: "Scorer", loss: RouterLoss, pair: tuple[int, int], theirs: float) -> str | None:
    """Why `loss` is not the model's own of a row, `theirs`; None where it is, to rounding."""
    scorer.routers = loss
    try:
        with torch.no_grad(), widest_arithmetic(scorer) as exact, loss.watched() as passes:
            scorer([pair])
            ours = float(loss.of_update(total(passes)))
    except FOREIGN_LAYOUT as error:
        if is_out_of_memory(error):
            raise
        recover(scorer.packed_model)
        return words(error)
    finally:
        scorer.routers = None
    if abs(ours - theirs) <= (EXACT if exact else ROUNDED) * abs(theirs):
        return None
    return f"its own code gives {theirs:.6g} for a row, and the formula {ours:.6g}"


def _routers(model: Any) -> Iterator[tuple[Any, int]]:
    """(each module that gives router logits, their place in what it gives), as transformers itself records them."""
    recorders: list[Any] = []
    for part in model.modules():
        recorded = (getattr(part, "_can_record_outputs", None) or {}).get("router_logits")
        recorders += [] if recorded is None else recorded if isinstance(recorded, list) else [recorded]
    for name, part in model.named_modules():
        for recorder in {id(recorder): recorder for recorder in recorders}.values():
            if isinstance(part, getattr(recorder, "target_class", ())) and (recorder.layer_name or "") in name:
                yield part, recorder.index
                break
