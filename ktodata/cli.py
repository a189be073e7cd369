"""The command line: one command a job; words and exit codes only: docs/nightly.md has the codes.

What a command prints is worded in pipeline/command_texts.py; with --json, standard output holds one JSON value and nothing else.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand

from ktodata.bench.bench_command import bench
from ktodata.demo.demo_command import demo
from ktodata.errors import OUT_OF_MEMORY, KtodataError, RecipeError, SettingError, is_out_of_memory
from ktodata.extras import missing_text
from ktodata.mcp.mcp_command import mcp
from ktodata.train.train_command import train
from ktodata.visible_text import clean
from ktodata.withdrawal.forget_command import forget


class OnceOnly(TyperCommand):
    """A command that refuses an option of one value that is given twice: the parser would take the last, and say nothing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the parser's own. Ends with code 2, naming the option."""
        given: list[Any] = self.make_parser(ctx).parse_args(args=list(args))[2]
        for option in dict.fromkeys(given):
            if given.count(option) > 1 and not (option.multiple or option.is_flag or option.nargs != 1):
                ctx.fail(f"{option.opts[0]} is given {given.count(option)} times, and takes one value.")
        return super().parse_args(ctx, args)


Callback = TypeVar("Callback", bound=Callable[..., Any])


class Commands(typer.Typer):
    """All of them are of that kind."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Callback], Callback]:
        """As typer's."""
        return super().command(name, **{"cls": OnceOnly, **options})


app = Commands(
    name="ktodata",
    help="Find, measure and repair what spoils binary feedback, and train on it with KTO.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)

UNEXPECTED = 70  # the exit code of an error of our own, as in sysexits.h: neither the data nor the call is at fault
TRACEBACK = "KTODATA_TRACEBACK"  # set, an unexpected error is shown with where it comes from

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output, events on standard error.")]
DryTraining = Annotated[bool, typer.Option("--dry-run", help="Say what would be trained and what it costs; train nothing.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting; may be given again.")]
Reviews = Annotated[
    list[Path] | None,
    typer.Option("--reviews", metavar="FILE", help="People's verdicts (row_id, trusted_label); may be given again."),
]
Telemetry = Annotated[
    Path | None,
    typer.Option(
        "--telemetry", metavar="RUN|FILE", help="An earlier training on these rows: a run, its model/, or telemetry.parquet."
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Source = Annotated[Path, typer.Argument(metavar="RUN|SHARDS", help="A run folder, or a folder of shards.", show_default=False)]
Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub.", show_default=False)]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run folder.", show_default="runs/<recipe's name>")
    ] = None,
    reviews: Reviews = None,
    telemetry: Telemetry = None,
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage; without a page.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="local|ray",
            help="Where texts go through a model (embed, hidden_states); the result is the same.",
            show_default="in this process",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes of the engine.", show_default="one for each processor")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The Ray cluster.", show_default="where Ray looks, else one here")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the feedback, check the recipe, and say what would run; run nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: from raw feedback to clean shards, and to a trained model when the recipe trains.

    \b
    Reads   RECIPE, the feedback that it names, and people's verdicts on rows of it
    Writes  OUT/shards, OUT/ledger.parquet, OUT/report.html, OUT/README.md, OUT/manifest.json, ...

    Stages whose inputs have not changed are not run again; a run that was killed goes on where it stopped. A recipe with
    self_training: leaves its rounds in OUT/rounds, and says in OUT/report.html which one is the result.

    \b
    Example:  ktodata run pipelines/quickstart.yaml --set label_noise.min_precision=0.9
    Example:  ktodata run support.yaml --engine ray --address head:6379
    """
    from ktodata.engines.running import check_engine
    from ktodata.pipeline import self_training
    from ktodata.pipeline.command_texts import plan_text, run_text, run_value
    from ktodata.pipeline.judge_preview import preview_judging
    from ktodata.pipeline.reading_preview import preview_reading
    from ktodata.pipeline.runner import paths_of
    from ktodata.progress import Progress

    of_engine: dict[str, Any] = {"workers": workers, "address": address}
    with _wrong_usage():
        check_engine(engine, **of_engine)
    settings: dict[str, Any] = {"out": out, "overrides": overrides or (), "reviews": reviews or (), "telemetry": telemetry}
    settings |= {"engine": engine, **of_engine}
    if dry_run:
        plan, stages = self_training.dry_run(recipe, **settings)
        paths = paths_of(plan)
        reading = None if paths is None else preview_reading(plan, paths)
        judging = preview_judging(*self_training.first_run(plan, out), dict(stages), reading)
        value = {"recipe": plan.as_dict(), "stages": dict(stages)} | ({} if reading is None else reading.as_dict())
        value |= {} if judging is None else {"judge": judging.as_dict()}
        _print_result(
            value,
            lambda: plan_text(stages, reading, judging),
            quiet=quiet,
            as_json=as_json,
            of_run=out or Path("runs") / plan.name,
        )
        return
    with Progress(quiet=quiet, as_json=as_json) as progress:
        done = self_training.run(recipe, until=until, notify=progress, **settings)
    rounds = self_training.rounds_of(done)
    result = run_value(done, rounds) if as_json else None
    _print_result(result, lambda: run_text(done, rounds), quiet=quiet, as_json=as_json, of_run=done.folder)


@app.command()
def audit(
    feedback: Annotated[
        str,
        typer.Argument(
            metavar="FEEDBACK|RECIPE",
            help="What a recipe's paths may be, or a recipe (.yaml): it says how to read.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write to.")] = Path("audit"),
    format: Annotated[str | None, typer.Option(help="The format to read.", show_default="auto: each record by its looks")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="The column of the prompt; given again, they are joined.")
    ] = None,
    completion: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="The column of the completion; two are compared.")
    ] = None,
    messages: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of whole conversations.")] = None,
    label: Annotated[str | None, typer.Option(help="The column that holds the label.", show_default="label")] = None,
    up: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE", help="A value that means desirable, as JSON or text; give each.", show_default="true"),
    ] = None,
    down: Annotated[
        list[str] | None, typer.Option(metavar="VALUE", help="A value that means undesirable; give each.", show_default="false")
    ] = None,
    rater: Annotated[str | None, typer.Option(help="The column that says who gave the label.")] = None,
    created_at: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that says when.")] = None,
    source_id: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of the record's own id.")] = None,
    source: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that says where a row is from.")] = None,
    trusted: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="An expert's labels, read as --label is; else --set 'trusted={column: NAME, VALUE: true}'.",
        ),
    ] = None,
    reviews: Reviews = None,
    telemetry: Telemetry = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Sentence encoder: hub id, folder or packaged name.", show_default="packaged:wordllama-256"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The language model to be trained: it reads each row once, which finds more.", show_default="none"),
    ] = None,
    min_precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="Flag only what is this likely to be wrong.", show_default="0.8")
    ] = None,
    noise_injection: Annotated[
        float | None,
        typer.Option(min=0, max=0.4, help="Share of labels flipped to measure the audit itself.", show_default="0.05"),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=1, help="Minutes of review: write the rows they are best spent on.", show_default="none")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same answer.", show_default="0")] = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say how far the labels in FEEDBACK can be trusted, and which rows to look at first.

    \b
    Reads   any file that a recipe reads, a Hugging Face data set, or what a RECIPE names; verdicts with --reviews
    Writes  OUT/audit.parquet (label_quality for every row), OUT/audit.html, OUT/review.csv with --minutes

    Every setting of a recipe's `ingest:` can be given with --set. Fill in trusted_label in review.csv, and give it back with
    --reviews.

    \b
    Example:  ktodata audit thumbs.jsonl --label thumb --up up --down down --rater user_id --out audits/june
    Example:  ktodata audit support.yaml --minutes 30
    """
    from ktodata.pipeline.audit_command import audit_feedback
    from ktodata.pipeline.audit_recipe import is_recipe
    from ktodata.progress import Progress

    if is_recipe(feedback) and label is None and (up or down):
        raise SettingError("audit: --up and --down say what values mean, and the recipe says so too: name the column, --label.")
    columns = {
        **{"format": format, "prompt": _one_or_more(prompt), "completion": _one_or_more(completion), "messages": messages},
        **{"label": _label_setting(label, up, down), "rater": rater, "created_at": created_at, "source_id": source_id},
        **{"source": source, "trusted": trusted},
    }
    steps: dict[str, dict[str, Any]] = {
        "embed": {"model": encoder},
        "hidden_states": {"model": model},
        "label_noise": {"min_precision": min_precision, "noise_injection": noise_injection},
    }
    with Progress(quiet=quiet, as_json=as_json) as progress:
        result = audit_feedback(
            feedback,
            out=out,
            ingest=_given(columns),
            steps={name: settings for name, typed in steps.items() if (settings := _given(typed))},
            reviews=reviews or (),
            telemetry=telemetry,
            minutes=minutes,
            seed=seed,
            overrides=overrides or (),
            notify=progress,
        )
    _print_result(result.metrics, result.text, quiet=quiet, as_json=as_json)


@app.command()
def review(
    folder: RunFolder,
    reviewer: Annotated[str | None, typer.Option(help="Who judges.", show_default="your user name")] = None,
    blind: Annotated[
        bool | None,
        typer.Option(
            "--blind/--not-blind",
            help="Hide the given label, and all that hints at it: of every row, or of none.",
            show_default="rows drawn at random, until judged",
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=1, help="Time for this sitting, at a minute a row.")] = 60,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="ROWS", help="Rows to judge now, beside those judged before, in place of minutes.", show_default="none"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on this machine; 0 takes a free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser: go to the address that is printed.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the verdicts into FILE and end: .csv, .jsonl, .parquet, .json.")
    ] = None,
    format: Annotated[str, typer.Option(help="Of --export: verdicts, argilla or label_studio.")] = "verdicts",
    import_: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="Take the verdicts in FILE in and end; its format is found out."),
    ] = None,
    push: Annotated[
        bool, typer.Option("--push", help="Send the verdicts back to where the feedback was pulled from, and end.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Of --push: say what would be sent; send nothing.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Judge a run's rows in the browser, with the keyboard: those first whose review is worth most.

    \b
    Reads   RUN, which has a label_noise stage
    Writes  RUN/reviews/reviews.sqlite: each verdict the moment it is given, none ever overwritten

    Give the verdicts back with `reviews: RUN/reviews/reviews.sqlite` in the recipe, or with --reviews. A second reviewer takes
    another name. Nothing leaves this machine, but with --push: verdict, reviewer and record of each, no text.

    \b
    Example:  ktodata review runs/support --reviewer ann --minutes 30
    """
    from ktodata.pipeline.run_folder import Run
    from ktodata.progress import show_progress
    from ktodata.review import export_verdicts, import_verdicts, push_verdicts
    from ktodata.review import review as serve
    from ktodata.review.serve import places_text

    if push:
        pushed = push_verdicts(Run(folder), dry_run=dry_run)
        _print_result(pushed.as_dict(), pushed.text, quiet=quiet, as_json=as_json)
        return
    if import_ is not None or export is not None:
        imported = import_verdicts(Run(folder), import_, reviewer=reviewer) if import_ else None
        exported = export_verdicts(Run(folder), export, format=format) if export else None
        moved = {"imported": imported and imported.as_dict(), "exported": exported and exported.as_dict()}
        words = "\n".join(summary.text() for summary in (imported, exported) if summary)
        _print_result(moved, words, quiet=quiet, as_json=as_json, of_run=folder)
        return

    opening = ExitStack()

    def announce(address: str, store: Path) -> None:
        opening.close()
        _print_result(
            {"address": address, "store": store}, places_text(address, store), quiet=quiet, as_json=as_json, of_run=folder
        )

    with opening:
        opening.enter_context(show_progress("review", quiet=quiet, as_json=as_json))
        serve(
            folder,
            reviewer=reviewer,
            blind=blind,
            minutes=minutes,
            budget=budget,
            port=port,
            open_browser=not no_open,
            announce=announce,
        )


@app.command()
def explain(
    folder: RunFolder,
    row_id: Annotated[str, typer.Argument(metavar="ROW_ID", help="As in the ledger and the shards.", show_default=False)],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say everything that happened to one row, and why.

    \b
    Example:  ktodata explain runs/quickstart 0f3a9c2b7d41e856
    """
    from ktodata.pipeline.command_texts import row_text
    from ktodata.pipeline.run_folder import Run

    explained = Run(folder).explain(row_id)
    _print_result(explained, lambda: row_text(explained), quiet=quiet, as_json=as_json, of_run=folder)


@app.command()
def export(
    folder: RunFolder,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write.", show_default=False)] = None,
    format: Annotated[str, typer.Option(help="The format to write; a wrong name lists them.")] = "trl",
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the run's shards to this data set on the Hub instead.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Of --push: let everyone see it; otherwise it is private.")] = False,
    allow_pii: Annotated[bool, typer.Option("--allow-pii", help="Of --push: also where personal data or keys are left.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Of --push: say what would be sent; send nothing.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the clean rows of a run in another trainer's format, or upload its shards with their card.

    \b
    Uploaded are the shards of all parts, the card, checksums, and the ledger without evidence: row_id, stage, action, reason.

    \b
    Example:  ktodata export runs/quickstart --format llamafactory_sharegpt --out kto.jsonl
    Example:  ktodata export runs/support --push our-team/support-feedback --dry-run
    """
    from ktodata.files import alone_if_run
    from ktodata.formats import write
    from ktodata.formats.shards import read_shards
    from ktodata.pipeline.command_texts import push_text, written_text
    from ktodata.pipeline.run_folder import Run
    from ktodata.pipeline.sharing import check_not_read, dataset_files, file_sizes, send_dataset
    from ktodata.progress import show_progress
    from ktodata.work_done import working_on

    if push is not None and out is None:
        with show_progress("export", quiet=quiet, as_json=as_json):
            working_on("looking for personal data in the shards")
            files = dataset_files(Run(folder), allow_pii=allow_pii)
            working_on(f"sending {len(files):,} files")
            address = None if dry_run else send_dataset(files, push, private=not public)
        upload = {"repository": push, "private": not public, "files": file_sizes(files), "address": address}
        _print_result(upload, lambda: push_text(upload), quiet=quiet, as_json=as_json, of_run=folder)
        return
    if out is None or push is not None:
        raise SettingError("export: give --out FILE to write a file, or --push OWNER/NAME to upload the run's shards.")
    check_not_read(Run(folder), out)
    with alone_if_run(out), show_progress("export", quiet=quiet, as_json=as_json):
        working_on(f"writing {out}")
        written = write(read_shards(folder, part), out, format=format)
    counts = {"file": out, "records": written.records, "lost": written.lost}
    _print_result(counts, lambda: written_text(out, written.records, written.lost), quiet=quiet, as_json=as_json, of_run=folder)


@app.command()
def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A data set on the Hub.", show_default=False)],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The new folder.", show_default="NAME")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="the newest")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Get the shards that `export --push` uploaded, each checked against its checksum.

    \b
    Writes  FOLDER/shards, FOLDER/README.md, FOLDER/ledger.parquet

    \b
    Example:  ktodata pull our-team/support-feedback && ktodata train support-feedback --model HuggingFaceTB/SmolLM2-135M-Instruct
    """
    from ktodata.pipeline.command_texts import pulled_text
    from ktodata.pipeline.sharing import pull_dataset
    from ktodata.progress import show_progress
    from ktodata.work_done import working_on

    with show_progress("pull", quiet=quiet, as_json=as_json):
        working_on(f"getting {repository}")
        pulled = pull_dataset(repository, out or Path(repository.rpartition("/")[2]), revision=revision)
    _print_result(pulled, lambda: pulled_text(pulled), quiet=quiet, as_json=as_json)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="The feedback to read.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.", show_default=False)],
    from_: Annotated[str, typer.Option("--from", help="The format to read; auto looks at each record.")] = "auto",
    to: Annotated[str, typer.Option("--to", help="The format to write; a wrong name lists them.")] = "trl",
    overrides: Overrides = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Rewrite feedback from one format into another. Every setting of `ingest:` in a recipe can be given with --set.

    \b
    Example:  ktodata convert kto.json feedback.jsonl --from llamafactory_sharegpt --to trl
    Example:  ktodata convert thumbs.jsonl kto.jsonl --set "label={column: thumb, up: true, down: false}"
    """
    from ktodata.formats import convert as convert_file
    from ktodata.pipeline.command_texts import quarantine_lines, written_text
    from ktodata.progress import show_progress
    from ktodata.report.sections.flow_section import not_kept_lines
    from ktodata.settings import given_settings
    from ktodata.stages.ingest import ingest

    settings = given_settings(ingest, {"paths": source, "format": from_}, overrides or (), section="ingest")
    reading = {name: value for name, value in settings.items() if name not in ("paths", "format")}
    with show_progress("convert", quiet=quiet, as_json=as_json):
        result, written = convert_file(source, target, from_=settings["format"], to=to, **reading)
    lost = [*written.lost, *not_kept_lines(result.metrics["not_kept"]), *quarantine_lines(result.quarantine)]
    counts = {"file": target, "records": written.records, "rows": written.rows, "lost": lost, "read": result.metrics}
    _print_result(counts, lambda: written_text(target, written.records, lost), quiet=quiet, as_json=as_json)


app.command()(train)
app.command()(demo)
app.command()(mcp)
app.command()(bench)
app.command()(forget)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A trained run, or a model's folder.", show_default=False)],
    repo: Repository,
    public: Annotated[bool, typer.Option("--public", help="Let everyone see it; otherwise it is private.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Upload a trained model with a card that says what it was trained on and measured at. No row's text goes with it.

    \b
    Example:  ktodata push runs/support our-team/support-kto
    """
    from ktodata.pipeline.sharing import push_model
    from ktodata.progress import show_progress
    from ktodata.work_done import working_on

    with show_progress("push", quiet=quiet, as_json=as_json):
        working_on(f"sending {folder}")
        address = push_model(folder, repo, private=not public)
    _print_result({"repository": repo, "private": not public, "address": address}, address, quiet=quiet, as_json=as_json)


@app.command()
def evaluate(
    folder: RunFolder,
    reference: Annotated[
        str | None, typer.Option(help="The model before training.", show_default="the one it was trained from")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Another run of this feedback: is this one's model better? Nothing is scored anew."),
    ] = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score a trained run on its held-out rows: reward AUC and accuracy with intervals, base against trained.

    \b
    Example:  ktodata evaluate runs/support --set evaluate.max_rows=500
              ktodata evaluate runs/reviewed --baseline runs/support
    """
    from ktodata.pipeline.command_texts import evaluation_text
    from ktodata.pipeline.run_folder import Run

    if baseline is not None:
        if reference or overrides:
            raise SettingError("evaluate: --baseline reads what both runs have evaluated; --reference and --set go without it.")
        comparison = Run(folder).compare(baseline)
        _print_result(comparison.as_dict(), comparison.verdict, quiet=quiet, as_json=as_json, of_run=folder)
        return
    from ktodata.evaluate import evaluate as evaluate_model
    from ktodata.pipeline.run_stages import Evaluate
    from ktodata.pipeline.runner import make_stage
    from ktodata.progress import show_progress
    from ktodata.settings import given_settings

    given = {**Run(folder).evaluate_settings(), **({"reference": reference} if reference else {})}
    settings = given_settings(evaluate_model, given, overrides or (), section="evaluate")
    with show_progress("evaluate", quiet=quiet, as_json=as_json) as progress:
        evaluation = make_stage(folder, Evaluate(settings, progress.of_stage)).metrics
    _print_result(evaluation, lambda: evaluation_text(evaluation), quiet=quiet, as_json=as_json, of_run=folder)


@app.command()
def ablate(
    folder: RunFolder,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm, each with its own seed.")] = 3,
    budget: Annotated[
        list[float] | None,
        typer.Option(
            "--review-share", min=0, max=1, help="Share of rows to review; may be given again.", show_default="0.05, 0.1"
        ),
    ] = None,
    families: Annotated[
        list[str] | None, typer.Option("--only", help="A kind of treatment to try; may be given again.", show_default="all")
    ] = None,
    part: Annotated[str, typer.Option(help="The held-out rows to judge by: test or validation.")] = "test",
    model: Annotated[str | None, typer.Option(help="The model to train.", show_default="that of the recipe")] = None,
    overrides: Overrides = None,
    dry_run: DryTraining = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say which treatment of the labels makes the better model: each is trained on equal terms and judged by held-out rows.

    \b
    Reads   RUN: its rows, what label_noise found, and the truth that its evaluate: names
    Writes  RUN/ablation.json, RUN/ablation.parquet, and RUN/report.html again; finished arms are kept in RUN/ablation

    Rows dropped or reviewed at random are the controls. Kinds: confident learning, by the audit, by guess, at random, true,
    oracle, reviewed, relabelled, repaired, noise-corrected, reviewed at random. Ablating again goes on where it stopped.

    \b
    Example:  ktodata ablate runs/support --seeds 5 --dry-run
    Example:  ktodata ablate runs/support --seeds 5 --set train.max_steps=50
    """
    from ktodata.experiments.treatments import FAMILIES, as_family
    from ktodata.pipeline.ablate import ablate_run, plan_of_run
    from ktodata.pipeline.command_texts import ablation_outlook_text
    from ktodata.progress import Progress
    from ktodata.settings import given_settings
    from ktodata.train import fit

    train = given_settings(fit, {"model": model or "the recipe's"}, overrides or (), section="train")
    del train["model"]
    settings: dict[str, Any] = {
        **{"part": part, "model": model, "budgets": budget or [0.05, 0.1], "seeds": range(seeds), "train": train},
        "families": [as_family(name) for name in families or FAMILIES],
    }
    if dry_run:
        outlook = plan_of_run(folder, **settings).outlook()
        _print_result(outlook, lambda: ablation_outlook_text(outlook), quiet=quiet, as_json=as_json, of_run=folder)
        return
    with Progress(quiet=quiet, as_json=as_json) as progress:
        result = ablate_run(folder, **settings, notify=progress)
    _renew_pages(folder)
    text = "\n".join([*result.verdict(), "", f"{folder / 'ablation.json'}"])
    _print_result(result.as_dict(), text, quiet=quiet, as_json=as_json, of_run=folder)


@app.command()
def compare(
    folder: RunFolder,
    model: Annotated[
        str | None, typer.Option(help="The base of all methods.", show_default="what the run trained its model from")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder for results.", show_default="RUN/comparison")
    ] = None,
    safety: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompts, each said to be unsafe or safe: who refuses which?")
    ] = None,
    instructions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompts with instructions that a program checks, in IFEval's form.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER|FILE|NAME", help="Tasks for lm-eval; may be given again.")
    ] = None,
    win_rate: Annotated[
        bool, typer.Option("--win-rate", help="Judge the answers of --set generate=N against the base's.")
    ] = False,
    overrides: Overrides = None,
    dry_run: DryTraining = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train SFT, KTO, DPO, ORPO and RLHF on a run's rows on equal terms, and set them against KTO and the untrained base.

    \b
    Reads   RUN/shards; base, batches and lengths from RUN/model/training.json where the run has trained
    Writes  OUT/comparison.json, OUT/comparison.parquet, OUT/comparison.png, OUT/arms, and RUN/report.html again

    A difference whose interval includes zero is nobody's win. Stopped, the same command goes on after the last finished method.

    \b
    Example:  ktodata compare runs/support --set "compare.methods=[kto, dpo]" --set "compare.seeds=[0, 1, 2]"
    Example:  ktodata compare runs/support --safety xstest.csv --instructions ifeval.jsonl --tasks tasks/snarks --dry-run
    """
    from ktodata.experiments.compare import compare as compare_methods
    from ktodata.experiments.compare import outlook, settings_of_run
    from ktodata.pipeline.command_texts import comparison_outlook_text
    from ktodata.pipeline.run_folder import Run
    from ktodata.progress import Progress
    from ktodata.settings import given_settings

    typed = {"model": model, "safety": safety, "instructions": instructions, "tasks": tasks, "win_rate": win_rate}
    given = {**settings_of_run(Run(folder).folder), **{name: value for name, value in typed.items() if value}}
    if "model" not in given and not any(override.partition("=")[0].endswith("model") for override in overrides or ()):
        raise SettingError(f"compare: {folder} has trained no model whose base could be taken: name one with --model.")
    settings = given_settings(compare_methods, given, overrides or (), section="compare")
    if dry_run:
        plan = outlook(folder, **settings)
        _print_result(plan, lambda: comparison_outlook_text(plan), quiet=quiet, as_json=as_json, of_run=folder)
        return
    place = out or folder / "comparison"
    with Progress(quiet=quiet, as_json=as_json) as progress:
        comparison = compare_methods(folder, out=place, notify=progress, **settings)
    comparison.plot().savefig(place / "comparison.png", dpi=150)
    _renew_pages(folder)
    _print_result(comparison.as_dict(), lambda: "\n".join(comparison.verdict()), quiet=quiet, as_json=as_json, of_run=folder)


@app.command()
def report(
    folder: RunFolder,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="A page of numbers: no text of any row, names numbered. For outside the team.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of --no-text: the file to write.", show_default="RUN/report-without-text.html"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the page and the card of a run again: RUN/report.html and RUN/README.md.

    \b
    Example:  ktodata report runs/quickstart
    Example:  ktodata report runs/support --no-text --out for-the-board.html
    """
    from ktodata.files import check_no_run_file
    from ktodata.pipeline.run_folder import Run
    from ktodata.progress import show_progress
    from ktodata.report import write_page_without_text, write_pages
    from ktodata.work_done import working_on

    Run(folder)
    if out is not None:
        check_no_run_file(out)
    if out is not None and not no_text:
        raise SettingError("--out is for the page without text: give --no-text too. The whole page stays in the run folder.")
    page = (out or folder / "report-without-text.html") if no_text else folder / "report.html"
    with show_progress("report", quiet=quiet, as_json=as_json):
        working_on("writing the page")
        if no_text:
            write_page_without_text(folder, page)
        else:
            write_pages(folder)
    _print_result({"page": page}, str(page), quiet=quiet, as_json=as_json, of_run=folder)


@app.command()
def init(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="The folder to start in.", show_default=False)] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Look at FILE, and write the recipe that reads it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="The recipe to write.", show_default="DIR/recipe.yaml, or FILE's name")
    ] = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a recipe to start from: a commented one, or one for FILE, with the evidence for each choice beside it.

    \b
    Reads   FILE: any kind that `ktodata run` reads; up to 2,000 of its records
    Writes  DIR/recipe.yaml, or RECIPE

    What the values of a label mean is never guessed: the recipe lists them, and a run refuses it until each has a meaning.
    With --set: delimiter, encoding, table and max_record_mb of FILE.

    \b
    Example:  ktodata init support && ktodata run support/recipe.yaml --dry-run
    Example:  ktodata init --from thumbs.csv --out support.yaml
    """
    from importlib.resources import files

    from ktodata.files import check_no_run_file, make_folder, whole_file

    target = _recipe_target(folder, from_, out)
    check_no_run_file(target)
    if from_ is None:
        recipe = files("ktodata").joinpath("recipe_template.yaml").read_text(encoding="utf-8")
        summary, facts = f"{target}: say there which files to read, then  ktodata run {target}", {}
    else:
        from ktodata.formats.inspection import inspect

        inspection = inspect(from_, **_file_settings(overrides or ()))
        recipe, facts = inspection.recipe(target.parent), inspection.as_dict()
        is_open = any("CHOOSE" in line.partition("#")[0] for line in recipe.splitlines())
        todo = "put what is meant for each CHOOSE, then" if is_open else "nothing is left to choose; next"
        summary = f"{inspection.text()}\n\n{target}: {todo}  ktodata run {target}"
    make_folder(target.parent)
    with whole_file(target) as scratch:
        scratch.write_text(recipe, encoding="utf-8")
    _print_result({"recipe": target, **facts}, summary, quiet=quiet, as_json=as_json)


def _recipe_target(folder: Path | None, file: str | None, out: Path | None) -> Path:
    """Where the recipe goes. Raises RecipeError where one is already, SettingError where nothing says where."""
    if folder is None and file is None:
        raise SettingError("init: name the folder to start in, or the file to look at with --from FILE.")
    target = out or (folder / "recipe.yaml" if folder else Path(f"{Path(file or '').name.partition('.')[0]}.yaml"))
    if target.exists():
        raise RecipeError(f"{target} is there already; nothing was written. --out RECIPE names another file.")
    return target


def _file_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """What --set says of the file itself."""
    from ktodata.settings import given_settings
    from ktodata.stages.ingest import ingest

    names = ("delimiter", "encoding", "table", "max_record_mb")
    settings = given_settings(ingest, {"paths": "."}, overrides, section="ingest")
    return {name: settings[name] for name in names if name in settings}


def main() -> None:
    """The console script: an error becomes one line and an exit code."""
    with _errors_in_one_line():
        try:
            app()
        except SystemExit as ended:  # typer makes this of Ctrl-C, and says nothing
            stop = next((error for error in _behind(ended) if isinstance(error, KeyboardInterrupt)), None)
            if stop is None:
                raise
            raise stop from None


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__context__


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except KtodataError as error:
        _end(f"{type(error).__name__}: {error}", 1)
    except KeyboardInterrupt as stop:
        _end(f"{' '.join(getattr(stop, '__notes__', ())) or 'stopped'}; the same command goes on from there.", 130)
    except BaseException as error:
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        if is_out_of_memory(error):
            _end(OUT_OF_MEMORY, 1)
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("ktodata"):
            _end(f"MissingExtraError: {missing_text(error)}", 1)
        if isinstance(error, OSError):  # a folder that cannot be made, a full disk, a file that may not be read
            place = "" if error.filename is None else f"{error.filename}: "
            _end(f"{type(error).__name__}: {place}{error.strerror or error}", 1)
        if os.environ.get(TRACEBACK):
            raise
        _end(_unexpected_text(error), UNEXPECTED)


@contextmanager
def _wrong_usage() -> Iterator[None]:
    """Inside, options are checked that no recipe gives: what is wrong is the call."""
    try:
        yield
    except SettingError as error:
        raise typer.BadParameter(str(error)) from error


def _end(text: str, code: int) -> NoReturn:
    _say_beside("error", text)
    sys.exit(code)


def _say_beside(kind: str, text: str) -> None:
    """A line on standard error; an event for whoever reads those."""
    typer.echo(json.dumps({"kind": kind, "text": clean(text)}) if "--json" in sys.argv else clean(text), err=True)


def _unexpected_text(error: BaseException) -> str:
    """One line for an error that nobody has thought of: what, and where in ktodata."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "ktodata" in Path(frame.filename).parts]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    text = next(iter(str(error).strip().splitlines()), "")[:300]
    return f"unexpected {type(error).__name__}: {text}{place}. Please report it; {TRACEBACK}=1 shows where it comes from."


def _print_result(value: Any, text: str | Callable[[], str], *, quiet: bool, as_json: bool, of_run: Path | None = None) -> None:
    """of_run : a run folder that the command read: what is gone from it is named on standard error"""
    if as_json:
        typer.echo(json.dumps(value, indent=1, default=str))
    elif not quiet:
        typer.echo(clean(text if isinstance(text, str) else text()))
    if of_run is not None:
        _name_faults(of_run)


def _name_faults(run: Path) -> None:
    from ktodata.report.integrity import fault_lines
    from ktodata.report.run_files import RunFiles

    if (run / "manifest.json").is_file():
        files = RunFiles(run)
        for line in fault_lines(files.faults, files.place):
            _say_beside("note", line)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed."""
    return {name: value for name, value in options.items() if value is not None}


def _one_or_more(columns: list[str] | None) -> str | list[str] | None:
    return columns[0] if columns and len(columns) == 1 else columns


def _label_setting(column: str | None, up: list[str] | None, down: list[str] | None) -> str | dict[Any, Any] | None:
    """What the options say of the label, as a recipe would."""
    if not up and not down:
        return column
    pairs = [[_label_value(text), meaning] for texts, meaning in ((up, True), (down, False)) for text in texts or ()]
    return {"column": column or "label", "values": pairs}


def _label_value(text: str) -> Any:
    """1, true and null are what JSON says they are; anything else is a word."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return text if isinstance(value, list | dict) else value


def _renew_pages(folder: Path) -> None:
    """The page and the card once more, where the run has them: they show what was measured on it since."""
    from ktodata.report import write_pages

    if (folder / "report.html").is_file():
        write_pages(folder)
