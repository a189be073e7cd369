"""What all methods of a comparison share, and the little in which they differ: fixed before anything was trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ktodata.errors import SettingError
from ktodata.settings import unknown_name
from ktodata.train.schedule import Schedule

MethodName = Literal["sft", "kto", "kto_hybrid", "dpo", "orpo", "rlhf"]
METHODS: tuple[MethodName, ...] = ("sft", "kto", "dpo", "orpo", "rlhf")  # unless others are named
OURS = frozenset[str]({"kto", "kto_hybrid"})  # of train/; the others are TRL's trainers

# Peak rates of AdamW, none of them tuned on anything here. AdamW's steps do not depend on the size of a loss, so the methods that
# compare with a reference share one rate; the KTO paper's. DPO is mostly run at a half to a tenth of it, and many more updates.
LEARNING_RATES: dict[str, float] = {
    "kto": 5e-6,  # arXiv:2402.01306, version 4
    "kto_hybrid": 5e-6,  # KTO's
    "dpo": 5e-6,  # KTO's
    "orpo": 8e-6,  # arXiv:2403.07691: no reference holds it back
    "sft": 2e-5,  # SFTConfig of TRL 1.16
    "rlhf": 5e-6,  # KTO's; RLOOConfig of TRL 1.16 has 1e-6
    "reward_model": 1e-5,  # arXiv:2203.02155 has 9e-6
}
# the weight of ORPO's odds ratio: lambda of arXiv:2403.07691; per nat the pull of RLOO to its reference: RLOOConfig of TRL 1.16
ORPO_LAMBDA = 0.1
RLOO_BETA = 0.05


@dataclass(frozen=True)
class TrainingTerms:
    """Of one comparison. An update is batch_size completions: of a pair, two."""

    model: str
    updates: int
    batch_size: int
    micro_batch_size: int  # completions of one forward pass; memory only
    max_length: int
    trainable_layers: int | None
    beta: float  # per nat; KTO's and DPO's
    warmup_fraction: float
    schedule: Schedule
    max_grad_norm: float
    rates: Mapping[str, float]
    rollout_tokens: int  # longest completion that RLOO writes
    rollouts: int  # completions that RLOO writes to one prompt
    device: Any
    compute_dtype: Any

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """Of the arithmetic, as `kd.train.fit` takes it."""
        return "bfloat16" if "bfloat16" in str(self.compute_dtype) else "float32"


def rates_of(own_rates: Mapping[str, float] | None, factor: float) -> dict[str, float]:
    """LEARNING_RATES, or those given in their place, times `factor`. Raises SettingError for an unknown name or a bad rate."""
    for name, rate in (own_rates or {}).items():
        if name not in LEARNING_RATES:
            raise SettingError(unknown_name("compare: learning_rates: unknown method", name, LEARNING_RATES))
        if not 0 < rate <= 1:
            raise SettingError(f"compare: learning_rates: {name}: a rate is above 0, at most 1; got {rate!r}.")
    return {name: rate * factor for name, rate in {**LEARNING_RATES, **(own_rates or {})}.items()}


def updates_of(rows: int, *, batch_size: int, epochs: int, max_steps: int | None) -> int:
    """As many updates as `kd.train.fit` makes in so many epochs."""
    wanted = epochs * min(-(-rows // batch_size), max(1, rows // 2))
    return wanted if max_steps is None else min(wanted, max_steps)


def check_sizes(settings: Mapping[str, Any]) -> None:
    """Raise SettingError where an update cannot be cut as asked for."""
    batch, micro, rollouts = settings["batch_size"], settings["micro_batch_size"], settings["rollouts"]
    if batch % 2 or micro % 2:
        raise SettingError(
            f"compare: batch_size ({batch}) and micro_batch_size ({micro}) must be even: a pair is two completions."
        )
    if batch % micro:
        raise SettingError(f"compare: micro_batch_size ({micro}) must divide batch_size ({batch}), else updates would differ.")
    if "rlhf" in settings["methods"] and batch % rollouts:
        raise SettingError(
            f"compare: rollouts ({rollouts}) must divide batch_size ({batch}): all of a prompt's are in one update."
        )
