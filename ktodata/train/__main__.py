"""`torchrun --nproc-per-node N -m ktodata.train SHARDS --model M --out O`: one training, several processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ktodata.errors import KtodataError
from ktodata.extras import require
from ktodata.settings import given_settings

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def train(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|SHARDS", help="A run folder, or a folder of shards.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="Hub id, folder or packaged name of a causal language model.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Where the model goes.", show_default="RUN/model")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting; may be given again.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train a model with KTO on all processes that torchrun starts, as `ktodata train` does on one.

    Every setting of `train:` in a recipe can be given with --set; batch_size counts the rows of all processes together.

    \b
    Example:  torchrun --nproc-per-node 8 -m ktodata.train runs/support --model Qwen/Qwen3-0.6B --set epochs=2
    """  # noqa: D301
    from ktodata.train import fit
    from ktodata.train.distributed.processes import process_group
    from ktodata.train.results.summary import summary_lines

    settings = given_settings(fit, {"model": model}, overrides or (), section="train")
    with process_group(settings.get("device", "auto")) as first:
        fitted = fit(source, out=out or source / "model", progress=first and not quiet, **settings)
    if not quiet:
        for name, text in summary_lines(fitted.metrics, fitted.history, fitted.held_out, fitted.model):
            typer.echo(f"{name:<20} {text}")


def main() -> None:
    """What is wrong is said by one process; exit codes are those of `ktodata`."""
    try:
        require("torch", "transformers", "safetensors")
        with only_the_first_speaks():
            app(prog_name="torchrun -m ktodata.train")
    except KtodataError as error:
        if may_speak():
            typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def only_the_first_speaks() -> Iterator[None]:
    """Inside, nothing is shown of what other processes than that of rank 0 print."""
    if int(os.environ.get("RANK", "0")) == 0:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def may_speak() -> bool:
    """Whether this is the first of the processes to ask: an error that all of them meet is said once, one of any is said."""
    from ktodata.train.distributed.processes import meeting_place

    store = meeting_place()
    return store is None or store.add("ktodata/said", 1) == 1


if __name__ == "__main__":
    main()
