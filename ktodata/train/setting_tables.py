"""Settings that are tables of settings."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on


class LoraSettings(TypedDict, total=False):
    """Low-rank adapters instead of full training. What is left out has the default that its description gives."""

    r: Annotated[int, Field(ge=1, le=1024, description="rank of the adapters; 16")]
    alpha: Annotated[float, Field(gt=0, description="the adapters' output is scaled by alpha / r; 32")]
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout on the adapters' input while training, fraction; 0")]
    target_modules: Annotated[
        list[str],
        Field(min_length=1, description="names of the linear layers that get one; all. Experts held in one tensor get none"),
    ]
    quantize: Annotated[Literal["4bit"], Field(description="hold the base model's linear layers in 4 bits (QLoRA); as they are")]


LoraSettings.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


OptimizerName = Literal["adamw", "adamw_8bit", "adamw_paged_8bit"]


class FlipRates(TypedDict):
    """How often a label was given wrongly, by the true label; the two together below 1.

    Of the `confident_joint` in the facts of label_noise (rows the given label, columns the true one, undesirable first), divided
    by the sum of its columns: desirable is entry [0, 1], undesirable is [1, 0]. Those are estimates for noise that depends on
    the true label alone: rates from a checked sample are better.
    """

    desirable: Annotated[float, Field(ge=0, lt=1, description="share of truly desirable rows that are labelled undesirable")]
    undesirable: Annotated[float, Field(ge=0, lt=1, description="share of truly undesirable rows that are labelled desirable")]


FlipRates.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
