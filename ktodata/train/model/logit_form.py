"""What models do to their head's output before it is called logits: a factor (Granite, Cohere), a soft-cap (Gemma 2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ktodata.models import text_config

Tensor = Any

# a config says the number, and not whether the model multiplies by it or divides: Granite divides, HyperCLOVA X multiplies
FACTORS = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


@dataclass(frozen=True)
class LogitForm:
    """logits = cap * tanh(factor * x / cap) for a head's output x; without a cap, factor * x."""

    factor: float = 1.0
    cap: float | None = None

    def apply_(self, x: Tensor) -> Tensor:
        """The logits, in the place of a head's output x, any shape."""
        if self.factor != 1.0:
            x.mul_(self.factor)
        return x if self.cap is None else x.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, logits: Tensor) -> Tensor | float:
        """D logits / d x at these logits: of their shape, or one number for all."""
        return self.factor if self.cap is None else (logits / self.cap).square_().neg_().add_(1.0).mul_(self.factor)


def possible_forms(config: Any) -> list[LogitForm]:
    """Those that a model of this config may have, capped ones first; the plain one alone for most."""
    text = text_config(config)
    factors = [value for number in _numbers(text, FACTORS) for value in (number, 1 / number)]
    caps = list(_numbers(text, CAPS))
    return list(dict.fromkeys(LogitForm(factor, cap) for cap in (*caps, None) for factor in (*factors, 1.0)))


def nearest_form(forms: list[LogitForm], x: Tensor, logits: Tensor) -> LogitForm:
    """The form that makes a head's output x the model's own logits, both float32 of one shape; the first of those that do.

    The first, as a cap that is far above all logits of the sample changes nothing there, and may later.
    """
    off = [float((form.apply_(x.clone()) - logits).abs().max()) for form in forms]
    return next(form for form, error in zip(forms, off, strict=True) if error <= 1.5 * min(off) + 1e-6)


def _numbers(config: Any, names: tuple[str, ...]) -> Iterator[float]:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value > 0 and value != 1:
            yield float(value)
