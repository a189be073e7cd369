"""How a language model reads each completion after its prompt: a view of label noise that a sentence encoder does not have."""

from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.findings import issue, passed
from ktodata.stage import StageResult

NEEDS = ("prompt", "completion")
ADDS = ("hidden_state",)


def hidden_states(
    feedback: pl.DataFrame,
    *,
    model: Annotated[
        str, Field(description="causal language model, the one that will be trained if possible: packaged name, hub id or folder")
    ],
    layer: Annotated[
        int | None, Field(ge=1, description="decoder layer whose output is taken, 1 is the lowest; none takes the middle one")
    ] = None,
    max_length: Annotated[int, Field(ge=16, description="tokens of prompt and completion that are read")] = 512,
    device: Annotated[str, Field(description="where the model runs: auto, cpu, cuda or cuda:N")] = "auto",
    cache: Annotated[bool, Field(description="keep vectors on disk by content, so that no text is read twice")] = True,
) -> StageResult:
    """Add hidden_state, the mean over the completion's tokens; zero where a completion has no token."""
    from ktodata.train.model.layer_states import mean_hidden_states

    states = mean_hidden_states(
        feedback["prompt"].to_list(),
        feedback["completion"].to_list(),
        model=model,
        layer=layer,
        max_length=max_length,
        device=device,
        cache=cache,
    )
    metrics = dict(states.metrics) | {"rows": feedback.height}
    cut, length = metrics["cut_to_max_length"], metrics["max_length"]
    too_long = issue("KD052", f"{cut:,} texts are longer than {length:,} tokens; what is beyond was not read.", cut)
    metrics["findings"] = [(too_long if cut else passed("KD052")).as_dict()]
    vectors = pl.Series(states.vectors.astype(np.float32), dtype=pl.Array(pl.Float32, states.vectors.shape[1]))
    return StageResult(columns=feedback.select("row_id").with_columns(hidden_state=vectors), metrics=metrics)
