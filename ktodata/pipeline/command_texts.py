"""What the commands print for a person: each text is made from the value that --json prints for a script."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.pipeline.judge_preview import JudgePreview
from ktodata.pipeline.reading_preview import ReadingPreview
from ktodata.pipeline.run_folder import Run
from ktodata.report.text import bytes_size

# findings about how rows came in, are written and count in training: without them a person would take them for sound
PRINTED = ("KD011", "KD012", "KD013", "KD014", "KD015", "KD016", "KD064", "KD065", "KD066", "KD067", "KD068", "KD092", "KD093")


def plan_text(stages: Sequence[tuple[str, str]], reading: ReadingPreview | None, judging: JudgePreview | None = None) -> str:
    """How the feedback is read, a line for each stage: its name, and whether it would run; what a judge would be asked."""
    lines = [] if reading is None else [*reading.lines(), ""]
    costs = [] if judging is None else ["", judging.words()]
    return "\n".join([*lines, *_aligned(stages), *costs])


def _aligned(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each (name, text), the texts under each other."""
    pairs = list(pairs)
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name:<{width}}  {text}" for name, text in pairs]


def run_value(run: Run, rounds: Mapping[str, Any] | None) -> dict[str, Any]:
    """What --json prints of a run: its manifest, or what its rounds of self-training came to; and the five lines."""
    from ktodata.report.headline import headline_text

    return {**(rounds or run.manifest), "headline": headline_text(run.folder)}


def run_text(run: Run, rounds: Mapping[str, Any] | None) -> str:
    """What self-training came to, if there was any; what was found, what people said, what was dropped, where the page is."""
    from ktodata.formats.verdicts.reviews import reviews_in_words
    from ktodata.report.headline import headline_text
    from ktodata.report.run_changes import read_changes
    from ktodata.report.run_files import RunFiles

    reviews = [reviews_in_words(stage["metrics"]) for stage in run.manifest["stages"] if stage["name"] == "reviews"]
    verdict = [] if rounds is None else [rounds["verdict"]]
    changes = read_changes(RunFiles(run.folder))
    since = [] if changes is None else ["since the run before: " + "; ".join(changes.lines)]
    page = run.folder / "report.html"
    place = f"page: {page}" if page.exists() else f"no page yet: `ktodata report {run.folder}` makes one"
    return "\n\n".join([*verdict, *_reading_text(run), *since, *headline_text(run.folder), *reviews, place])


def _reading_text(run: Run) -> list[str]:
    """What became of every record, and what reading, the template and the tokenizer showed to be wrong."""
    from ktodata.report.run_files import RunFiles
    from ktodata.report.sections.flow_section import record_account

    account = record_account(RunFiles(run.folder))
    findings = [
        finding
        for stage in run.manifest["stages"]
        for finding in stage["metrics"].get("findings", ())
        if finding["status"] == "issue" and finding["code"] in PRINTED
    ]
    lines = [*(account.lines() if account else ()), *(f"{finding['code']}  {finding['text']}" for finding in findings)]
    return ["\n".join(lines)] if lines else []


def written_text(path: Path, records: int, lost: Sequence[str]) -> str:
    """How many records are in a file now, and what it could not hold."""
    return "\n".join([f"{records:,} records written to {path}", *(f"  lost: {text}" for text in lost)])


def quarantine_lines(quarantine: pl.DataFrame) -> list[str]:
    """One sentence for each reason why records did not become rows."""
    counts = quarantine.group_by("reason").len().sort("len", "reason", descending=[True, False])
    return [f"{number:,} records not read: {reason}" for reason, number in counts.iter_rows()]


def push_text(upload: Mapping[str, Any]) -> str:
    """What goes to the Hub, a line for each file with its size, and where it is now."""
    files = [f"  {line}" for line in _aligned((name, bytes_size(size)) for name, size in sorted(upload["files"].items()))]
    head = f"{upload['repository']} ({'private' if upload['private'] else 'public'}):"
    return "\n".join([head, *files, upload["address"] or "nothing was sent (--dry-run)"])


def pulled_text(pulled: Mapping[str, Any]) -> str:
    """What came from the Hub, of which commit, and what next."""
    files = [f"  {line}" for line in _aligned((name, bytes_size(size)) for name, size in pulled["files"].items())]
    head = f"{pulled['repository']} at {pulled['revision']}, in {pulled['folder']}:"
    return "\n".join([head, *files, f"Next: ktodata train {shlex.quote(str(pulled['folder']))} --model MODEL"])


def evaluation_text(evaluation: Mapping[str, Any]) -> str:
    """One line per measure, against the given label and against the truth where that is known."""
    rows, groups = evaluation["rows"], evaluation["prompt_groups"]
    lines = [f"{rows:,} {evaluation['part']} rows, {groups:,} prompt groups; intervals are 95 %"]
    if checked := evaluation.get("instructions"):
        lines += [f"answers that a program passes, of {checked['prompts']:,} prompts:"]
        lines += [f"  {line}" for line in _aligned((name, _with_ends(checked[name])) for name in ("base", "trained", "gain"))]
    for against in ("label", "truth"):
        result = evaluation[f"against_{against}"]
        lines += [f"against {against}: {result.get('not_applicable', '')}".rstrip()]
        measures = result.get("measures", {}).items()
        values = ((name, _with_ends(value)) for name, value in measures)
        lines += [f"  {line}" for line in _aligned(values)]
    return "\n".join(lines)


def _with_ends(measure: Mapping[str, float]) -> str:
    return f"{measure['value']:.3f}  ({measure['low']:.3f} to {measure['high']:.3f})"


def comparison_outlook_text(outlook: Mapping[str, Any]) -> str:
    """What each method can use, and what training them all costs."""
    from ktodata.experiments.clock import estimate_text

    used = outlook["rows_used"]
    lines = [f"{used['rows']:,} training rows, {used['pairs']:,} pairs; {outlook['updates']:,} updates for each method"]
    rows = ((name, f"{used['rows_used'][name]:,} rows") for name in outlook["settings"]["methods"])
    lines += [f"  {line}" for line in _aligned(rows)]
    return "\n".join([*lines, estimate_text(outlook["estimate"])])


def ablation_outlook_text(outlook: Mapping[str, Any]) -> str:
    """Each arm with what it is, and what training them all costs."""
    from ktodata.experiments.clock import estimate_text

    arms = (
        (arm["arm"], f"{arm['rows']:>9,} rows  {arm['says']}" + (f" ({arm['kept']} kept)" if arm["kept"] else ""))
        for arm in outlook["arms"]
    )
    return "\n".join([*_aligned(arms), "", estimate_text(outlook["estimate"])])


def row_text(explained: Mapping[str, Any]) -> str:
    """One row's story, for a terminal: control signs of untrusted text are shown, not obeyed."""
    if "record" in explained:
        record = explained["record"]
        place, why = f"{record['file']}:{record['line']}", f"{record['reason']}: {record['detail']}"
        return "\n".join(
            [f"record {_printable(place)}", f"outcome: quarantined ({_printable(why)})", "", _printable(record["raw"])]
        )
    row = explained["row"]
    read, exported, why = (explained["labels"][name] for name in ("read", "exported", "why"))
    lines = [f"row {row['row_id']}  from {row['source']}:{row['source_line']}", f"outcome: {explained['outcome']}", ""]
    lines += [f"label as read: {read}", f"label as exported: {exported or 'none'} ({_printable(why)})"]
    lines += [
        f"{name}: {_printable(row[name])}"
        for name in ("prompt", "completion", "rater", "created_at", "model")
        if row[name] is not None
    ]
    for stage, columns in explained["measured"].items():
        values = {name: value for name, value in columns.items() if not isinstance(value, list) and value is not None}
        if values:
            lines.append(f"{stage}: " + ", ".join(f"{name}={_printable(value)}" for name, value in values.items()))
    return "\n".join([*lines, "", "decisions:", *map(_decision_line, explained["decisions"])])


def _decision_line(decision: Mapping[str, Any]) -> str:
    cause = f", caused by row {decision['caused_by']}" if decision["caused_by"] else ""
    evidence = _printable(json.dumps(decision["evidence"], ensure_ascii=False))
    return f"  {decision['stage']}: {decision['action']} ({decision['reason']}{cause})  {evidence}"


def _printable(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    cut = text[:2000] + (f" ... ({len(text):,} characters)" if len(text) > 2000 else "")
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in cut)
