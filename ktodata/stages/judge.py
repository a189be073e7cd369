"""A second opinion on labels: a language model says, under the team's criterion, whether each completion is desirable."""

from typing import Annotated, Any

import polars as pl
from pydantic import Field

from ktodata.stage import Seed, StageResult

NEEDS = ("prompt", "completion")
USES = ("part", "state", "label", "trusted_label", "model")
ADDS = ("judge_p_desirable", "judge_votes")


def judge(
    feedback: pl.DataFrame,
    *,
    model: Annotated[
        str,
        Field(
            min_length=1,
            description="the endpoint's model; without endpoint a causal model: packaged name, hub id or folder, "
            "which answers with P(yes) against P(no)",
        ),
    ],
    criterion: Annotated[
        str | None,
        Field(description="what makes a reply desirable, in words; a recipe takes its own `criterion` where it has one"),
    ] = None,
    endpoint: Annotated[
        str | None,
        Field(description="base of an OpenAI-compatible API, as https://host/v1; null: the model runs on this machine"),
    ] = None,
    api_key_env: Annotated[
        str | None, Field(description="NAME of the environment variable that holds the key, which is never stored or shown")
    ] = None,
    votes: Annotated[
        int,
        Field(ge=1, le=30, description="times that each row is asked about, the wording changing; over 3 takes a temperature"),
    ] = 3,
    max_rows: Annotated[int | None, Field(ge=1, description="judge the first so many training rows only")] = None,
    max_requests: Annotated[
        int | None, Field(ge=1, description="send so many questions at most; those left over are counted, and have no verdict")
    ] = None,
    max_chars: Annotated[
        int, Field(ge=1, description="of a prompt and of a completion that are read; more is cut, and counted")
    ] = 8_000,
    max_answer_tokens: Annotated[int, Field(ge=1, description="tokens of an answer, at most")] = 16,
    temperature: Annotated[float, Field(ge=0, description="of the endpoint's answers")] = 0.0,
    cache: Annotated[
        bool, Field(description="keep answers on disk by content: nothing is asked twice, and a killed run goes on where it was")
    ] = True,
    concurrency: Annotated[int, Field(ge=1, le=256, description="questions at a time to an endpoint")] = 4,
    timeout_s: Annotated[float, Field(gt=0, description="seconds for one whole answer")] = 60.0,
    retries: Annotated[int, Field(ge=0, description="after 408, 409, 429, 5xx and broken connections")] = 5,
    backoff_s: Annotated[float, Field(ge=0, description="seconds before the first retry, doubled each time")] = 1.0,
    extra: Annotated[
        dict[str, Any] | None,
        Field(description="further entries of the request, null takes one out: {max_tokens: null, max_completion_tokens: 99}"),
    ] = None,
    price_in: Annotated[float | None, Field(ge=0, description="money per million tokens read, for the cost before a run")] = None,
    price_out: Annotated[float | None, Field(ge=0, description="money per million tokens answered")] = None,
    probes: Annotated[
        bool,
        Field(description="also ask about planted pairs, to measure what the judge leans to: five more questions a probe row"),
    ] = False,
    probe_rows: Annotated[int, Field(ge=1, description="rows that pairs are planted on, drawn by seed")] = 100,
    family: Annotated[
        str | None, Field(description="models of the judge's own family begin so; null takes the first letters of its name")
    ] = None,
    seed: Seed = 0,
) -> StageResult:
    """Ask a language model whether each completion meets `criterion`; its verdict is that of one more rater, and turns no label.

    Asked are the rows that may be trained on (those that wait for a person among them, as raters are compared on them too), each
    text once; held-out rows are left alone, as label_noise leaves them. The labels are not shown, but in the probe that measures
    what showing one does. Answers that are not a plain yes or no count as none. judge_p_desirable is the share of verdicts that
    say desirable (endpoint) or the mean probability of it (local model), not calibrated: label_noise uses it as far as reviewed
    rows show that it is right. judge_votes holds its vote,
    the verdict of most wordings; a tie is none.

    A judge errs for reasons: length, style, its own kind of text. Findings KD072 to KD077 say what was measured of that, KD078
    how far it agrees with people. Tables: `verdicts` (each wording's), `probe_verdicts`.

    Raises SettingError and MissingColumnError before anything is asked; ModelError when the endpoint refuses the key (401, 403),
    does not exist (404) or fails many times in a row. Any other failure costs that verdict only, and is counted.
    """
    values = {**locals()}
    from ktodata.labels.judges.judge_run import run_judge  # scipy takes a second to load

    return run_judge(values.pop("feedback"), values)
