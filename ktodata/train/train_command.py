"""The command `train`: on one process as `ktodata train`, on several as `torchrun -m ktodata.train`."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ktodata.extras import require


def train(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|SHARDS", help="A run folder, or a folder of shards.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="Hub id, folder or packaged name of a causal language model.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder that the model goes to.", show_default="RUN/model")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting; may be given again.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The result as JSON on standard output, events on standard error.")
    ] = False,
) -> None:
    """Train a model on clean shards with KTO. Every setting of `train:` in a recipe can be given with --set.

    Under torchrun all processes that it starts train one model; batch_size counts the rows of all of them together.

    \b
    Example:  ktodata train runs/support --model HuggingFaceTB/SmolLM2-135M-Instruct --set epochs=2
    Example:  torchrun --nproc-per-node 8 -m ktodata.train runs/support --model Qwen/Qwen3-0.6B
    """  # noqa: D301
    from ktodata.progress import show_progress
    from ktodata.settings import given_settings
    from ktodata.train import fit
    from ktodata.train.results.summary import summary_lines

    settings = given_settings(fit, {"model": model}, overrides or (), section="train")
    require("torch", "transformers", "safetensors")
    from ktodata.train.distributed.processes import process_group
    from ktodata.train.results.training_progress import updates_heard_by

    with (
        process_group(settings.get("device", "auto")) as is_main,
        show_progress("train", quiet=quiet or not (is_main and as_json), as_json=True) as events,
    ):
        shown = updates_heard_by(partial(events.of_stage, "train")) if as_json else is_main and not quiet
        result = fit(source, out=out or source / "model", progress=shown, **settings)
    if as_json:
        typer.echo(json.dumps(result.metrics, indent=1, default=str))
    elif not quiet:
        for name, text in summary_lines(result.metrics, result.history, result.held_out, result.folder):
            typer.echo(f"{name:<20} {text}")
