"""The command `demo`: trouble put into the shipped sample, and what the audit says of it."""

import json
from pathlib import Path
from typing import Annotated

import typer

OUT = Path("ktodata-demo")


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write to.")] = OUT,
    seed: Annotated[int, typer.Option(min=0, help="Another seed: other trouble.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output, for scripts.")] = False,
) -> None:
    """Put trouble into the shipped sample and audit it: what was put in, beside what was detected. Offline, in seconds.

    \b
    Reads   nothing of yours
    Writes  OUT/demo.html, OUT/audit.html, OUT/feedback.jsonl, and OUT/truth.jsonl, which the audit never sees

    Raters are simulated, answers are a small model's. What is not detected is listed as such.

    \b
    Example:  ktodata demo --seed 1
    """  # noqa: D301
    from ktodata.demo.demo_audit import audit_sample
    from ktodata.demo.demo_page import demo_text, write_demo
    from ktodata.demo.troubled_sample import troubled_sample
    from ktodata.files import make_folder
    from ktodata.visible_text import clean

    if not (quiet or as_json):
        typer.echo("auditing the shipped sample: some ten seconds on two cores", err=True)
    sample = troubled_sample(seed)
    make_folder(out)
    file = sample.write(out)
    result = audit_sample(sample, file, seed=seed)
    write_demo(result, out, seed=seed)
    if as_json:
        typer.echo(json.dumps(result.as_dict(), indent=1))
    elif not quiet:
        typer.echo(clean(demo_text(result, out, seed=seed)))
