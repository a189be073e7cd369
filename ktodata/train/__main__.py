"""`torchrun --nproc-per-node N -m ktodata.train SHARDS --model M --out O`: one training, several processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import typer

from ktodata.errors import KtodataError
from ktodata.extras import require
from ktodata.train.train_command import train

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
app.command()(train)


def main() -> None:
    """An error is printed by one process; exit codes are those of `ktodata`."""
    try:
        require("torch", "transformers", "safetensors")
        with only_rank_0_prints():
            app(prog_name="torchrun -m ktodata.train")
    except KtodataError as error:
        if is_first_to_fail():
            typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def only_rank_0_prints() -> Iterator[None]:
    """Inside, nothing is shown of what other processes than that of rank 0 print."""
    if int(os.environ.get("RANK", "0")) == 0:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def is_first_to_fail() -> bool:
    """Whether this process is the first to ask: an error that all of them meet is printed once, and so is that of any."""
    from ktodata.train.distributed.processes import meeting_place

    store = meeting_place()
    return store is None or store.add("ktodata/failed", 1) == 1


if __name__ == "__main__":
    main()
