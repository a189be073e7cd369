"""The command `bench`: methods against wrong labels, on a folder of feedback whose truth is known."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="JSON lines with prompt, completion and a truth.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write to.")] = Path("bench"),
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Only methods whose name begins so; may be given again.")
    ] = None,
    sources: Annotated[list[str] | None, typer.Option("--source", help="Only sources whose name begins so.")] = None,
    budgets: Annotated[
        list[float] | None,
        typer.Option("--budget", help="Share of rows reviewed; 0 is detection.", show_default="0, .01, .02, .05, .1"),
    ] = None,
    train: Annotated[
        list[float] | None,
        typer.Option(metavar="SHARE", help="Train on repaired labels, this share reviewed; else nothing is trained."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Hub id, folder, or packaged name of what is trained; its loss is a method, too."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Of folds, of the reviews that are drawn, and of trainings.")] = 1,
    max_rows: Annotated[int, typer.Option(min=100, help="Of a source, at most.")] = 800,
    added: Annotated[
        list[Path] | None, typer.Option("--add", metavar="FILE.py", help="A Python file, which is run, that registers methods.")
    ] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Draw flips also where an unread column may say what was given.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The result as JSON on standard output, events on standard error.")
    ] = False,
) -> None:
    """Measure which methods find and repair wrong labels, on every label source of a folder whose truth is known.

    \b
    Reads   FOLDER/**/*.jsonl(.gz): columns weak_label…, votes, or flips drawn where there are neither (nor what may be)
    Writes  OUT/bench.md, OUT/bench.json, OUT/cells/, OUT/trainings/: stopped, the same command goes on

    \b
    Example:  ktodata bench --data feedback-with-truth/ --add my_method.py
    """  # noqa: D301
    from ktodata.bench.bench_table import bench_page
    from ktodata.bench.bench_tracks import BUDGETS, BenchPlan, outcome_json, run_bench
    from ktodata.files import whole_file
    from ktodata.progress import Progress
    from ktodata.visible_text import clean

    plan = BenchPlan(
        data,
        out,
        budgets=tuple(budgets or BUDGETS),
        seeds=seeds,
        max_rows=max_rows,
        methods=methods or (),
        sources=sources or (),
        added=added or (),
        train=train or (),
        model=model,
        flips=flips,
    )
    with Progress(quiet=quiet, as_json=as_json) as progress:
        outcome = run_bench(plan, progress)
    page, values = bench_page(outcome), outcome_json(outcome)
    for name, text in (("bench.md", page), ("bench.json", values)):
        with whole_file(out / name) as scratch:
            scratch.write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(values)
    elif not quiet:
        typer.echo(clean(f"{page}\n{out / 'bench.md'}"))
