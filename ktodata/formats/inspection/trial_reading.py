"""What becomes of the inspected records with the drafted settings: read once, with any meaning for the label's values."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ktodata.errors import KtodataError
from ktodata.formats.inspection.column_roles import as_number
from ktodata.formats.inspection.draft_lines import undecided
from ktodata.formats.inspection.label_choices import LabelChoice
from ktodata.formats.inspection.label_draft import drafted_label
from ktodata.formats.reading import read
from ktodata.formats.records import clip

if TYPE_CHECKING:
    from ktodata.formats.inspection.inspection import Inspection

OF_THE_FILE = ("paths", "delimiter", "encoding", "table", "max_record_mb", "split", "join_parts")
MAX_CHARS = 400
NOTHING_READ = "no record can be read like this"


def trial_reading(inspection: "Inspection", records: Sequence[Mapping[str, Any]]) -> str | None:
    """In words: how many records would become rows, and why others would not. None where texts are still to be named."""
    settings = _as_drafted(inspection)
    if settings is None or not records:
        return None
    try:
        metrics = read(list(records), **settings).metrics
    except KtodataError as error:
        problem = str(error).partition(" The formats are ")[0].rstrip(".")
        return f"{NOTHING_READ}: {clip(problem, MAX_CHARS)}"
    n_rows = metrics["rows"]
    rows = f"{metrics['records_used']:,} of {metrics['records']:,} records would become {n_rows:,} row{'s' * (n_rows != 1)}"
    if inspection.labels and drafted_label(inspection) is None:
        rows = f"with the label from {clip(inspection.labels[0].column, 60)} {rows}"
    reasons = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in metrics["quarantined"].items())
    return f"{rows}; not read: {reasons}" if reasons else rows


def _as_drafted(inspection: "Inspection") -> dict[str, Any] | None:
    from ruamel.yaml import YAML

    drafted = YAML(typ="safe", pure=True).load(inspection.recipe())["ingest"]
    settings = {name: value for name, value in drafted.items() if name not in OF_THE_FILE}
    if inspection.labels and "label" in settings:
        choice = drafted_label(inspection) or inspection.labels[0]
        settings["label"] = _with_meanings(inspection, choice)
        settings |= {"votes": [choice.column]} if choice.is_list else {}
    elif "label" in settings:
        del settings["label"]  # the reader itself says what it lacks
    return None if undecided(settings) else settings


def _with_meanings(inspection: "Inspection", choice: LabelChoice) -> dict[Any, Any]:
    meaning: Any = "first" if inspection.compared else True
    by = {"by": "both"} if len(choice.by) > 1 else {}
    column = {} if choice.is_list else {"column": choice.column}
    if choice.is_scale:
        return {**column, "at_least": min(as_number(value) for value, _ in choice.values), **by}
    return {**column, "values": [[value, meaning] for value, _ in choice.values], **by}
