"""The command `forget`: rows that were withdrawn at their source leave a run, and stay out of it."""

import json
from pathlib import Path
from typing import Annotated

import typer


def forget(
    place: Annotated[
        Path, typer.Argument(metavar="RUN|RECIPE", help="A run folder, or a recipe that has run.", show_default=False)
    ],
    rows: Annotated[
        Path, typer.Option("--rows", metavar="FILE", help="Ids: CSV, JSON lines, JSON, Parquet, or text, one a line.")
    ],
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="What they are ids of: row_id, source_id, rater, pair_id, or a column that `keep` names.",
            show_default="FILE's column",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; touch nothing.")] = False,
    no_run: Annotated[bool, typer.Option("--no-run", help="Remove, and do not make the run again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The receipt as JSON on standard output, events on standard error.")
    ] = False,
) -> None:
    """Take rows out of a run and of all that was made of them, and keep them out: somebody has had them deleted.

    \b
    Reads   FILE, RUN, and the sources of its recipe, to make the run again
    Writes  RUN/withdrawn.json (salted digests of the ids), RUN/withdrawals/0001.json and .txt (the receipt), and RUN anew

    Caches, verdicts, pages and other files in RUN lose the rows too. Models keep their weights; the receipt says what was not
    reached. Interrupted, the same command goes on. For runs in other folders say `withdrawn: RUN/withdrawn.json` in their recipe.

    \b
    Example:  ktodata forget runs/support --rows deleted-users.csv --by rater --dry-run
    """  # noqa: D301
    from ktodata.progress import Progress
    from ktodata.visible_text import clean
    from ktodata.withdrawal.forget import forget as forget_rows

    with Progress(quiet=quiet, as_json=as_json) as progress:
        receipt = forget_rows(place, rows, by=by, dry_run=dry_run, run_again=not no_run, notify=progress)
    if as_json:
        typer.echo(json.dumps(receipt.as_dict(), indent=1))
    elif not quiet:
        typer.echo(clean("Nothing was touched. What would go:\n" * dry_run + receipt.text()))
