"""A function's signature is its configuration: values are checked against its `Annotated[..., Field(...)]` parameters."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, create_model
from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on

from ktodata.errors import SettingError


class LoraSettings(TypedDict, total=False):
    """Low-rank adapters instead of full training. What is left out has the default that its description gives."""

    r: Annotated[int, Field(ge=1, le=1024, description="rank of the adapters; 16")]
    alpha: Annotated[float, Field(gt=0, description="the adapters' output is scaled by alpha / r; 32")]
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout on the adapters' input while training, fraction; 0")]
    target_modules: Annotated[list[str], Field(min_length=1, description="names of the linear layers that get one; all")]


LoraSettings.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


def checked_settings(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, checked and converted by the keyword-only parameters of `function`. Raises SettingError with the value in it."""
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name in given
    }
    # protected_namespaces: a setting may be called model or model_...
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    checker = create_model("Settings", __config__=config, **fields)
    try:
        checked = checker(**given)
    except ValidationError as error:
        raise SettingError(_readable(function.__name__, error)) from None
    return {name: getattr(checked, name) for name in fields}


def _readable(function: str, error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        setting = ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].replace("Input should", "it should")
        problems.append(f"{setting}: {said}; got {problem['input']!r}")
    return f"{function}: " + "; ".join(problems) + "."
