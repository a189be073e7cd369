"""Settings that are tables of settings."""

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on


class LoraSettings(TypedDict, total=False):
    """Low-rank adapters instead of full training. What is left out has the default that its description gives."""

    r: Annotated[int, Field(ge=1, le=1024, description="rank of the adapters; 16")]
    alpha: Annotated[float, Field(gt=0, description="the adapters' output is scaled by alpha / r; 32")]
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout on the adapters' input while training, fraction; 0")]
    target_modules: Annotated[list[str], Field(min_length=1, description="names of the linear layers that get one; all")]


LoraSettings.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
