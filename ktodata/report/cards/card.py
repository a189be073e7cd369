"""README.md of a run: a dataset card that says what was removed and why, how far the labels hold, and how to load and train."""

from pathlib import Path
from typing import Any

import yaml

from ktodata.feedback import PARTS
from ktodata.formats.verdicts.reviews import reviews_in_words
from ktodata.report import text
from ktodata.report.headline import label_trust
from ktodata.report.integrity import fault_lines
from ktodata.report.run_contents import RunContents, read_contents
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections.dropped_rows import read_reasons
from ktodata.report.sections.flow_section import FlowSection
from ktodata.report.templating import template_environment

# the Hub's size categories: the first whose upper end is not reached
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
)
MAX_CLUSTERS = 15


def build_card(run: Path) -> str:
    """The card of a run, finished or not, as Markdown with the Hub's YAML header. Raises RunError when `run` is no run folder."""
    return card_of(read_contents(run))


def card_of(contents: RunContents) -> str:
    """The same from contents that are read."""
    values = _card_values(contents)
    header = _yaml_header(contents.name, values["license"], contents.flow)
    return (
        template_environment("ktodata.report", html=False)
        .get_template("card.md.j2")
        .render(values, header=header, most_clusters=MAX_CLUSTERS)
    )


def build_feedback_section(run: Path) -> str:
    """Of a model's card, what is to be said of the run it was trained in: its rows, labels, results, and what is not known.

    Markdown without any row's text, row_id, or word of a prompt. Raises RunError when `run` is no run folder.
    """
    return template_environment("ktodata.report", html=False).get_template("model.md.j2").render(_card_values(read_contents(run)))


def _card_values(contents: RunContents) -> dict[str, Any]:
    manifest, reviews = contents.files.manifest, contents.files.metrics("reviews")
    return {
        "license": pick(contents.files.metrics("export"), "license") or pick(manifest, "recipe.export.license"),
        "manifest": manifest,
        "run": contents,
        "flow": contents.flow,
        "noise": contents.noise,
        "balance": contents.balance,
        "coverage": contents.coverage,
        "evaluation": contents.evaluation,
        "trust": label_trust(contents.noise),
        "reasons": read_reasons(contents.files, with_examples=False),
        "reviews": reviews_in_words(reviews) if "matched_by" in reviews else "",
        "faults": fault_lines(contents.files.faults, "RUN"),
        "personal_data": _personal_data(contents.files),
        "texts_are": _masking_sentence(contents.files),
    }


def _personal_data(files: RunFiles) -> str:
    """What was looked for and found, and what was done about it."""
    pii = files.metrics("validate").get("pii") or {}
    if pii.get("setting", "off") == "off":
        return "Not looked for."
    kinds = ", ".join(f"{text.plural(kind['rows'], 'row')} with {name.replace('_', ' ')}" for name, kind in pii["kinds"].items())
    sentences = [f"Looked for by form, with {pii['finder']}; names and postal addresses have none."]
    if not kinds:
        return " ".join([*sentences, "None was found."])
    written = files.metrics("export").get("masked") or {}
    done = {
        "count": "Nothing was done about it: the texts are as they came.",
        "mask": f"In {text.plural(written.get('rows'), 'exported row')}, {text.plural(written.get('places'), 'place')} "
        "are masked by a placeholder such as <EMAIL_1>, the same for the same value within a row.",
        "quarantine": "Those rows were left out.",
    }
    return " ".join([*sentences, f"Found in the rows that were read: {kinds}.", done[pii["setting"]]])


def _masking_sentence(files: RunFiles) -> str:
    masked = pick(files.metrics("validate"), "pii.setting") == "mask"
    return "Texts are as they came in, but for what was masked." if masked else "Texts are as they came in."


def _yaml_header(name: str, license_id: Any, flow: FlowSection | None) -> str:
    """The YAML that the Hub reads; dumped, never pasted, so that no name can break out of it."""
    parts = [part for part, rows in flow.parts if rows] if flow else []
    fields: dict[str, Any] = {
        "pretty_name": text.one_line(name, 100),
        "license": text.one_line(license_id, 60) if license_id else "unknown",
        "task_categories": ["text-generation", "reinforcement-learning"],
        "tags": ["kto", "preference", "human-feedback", "trl", "ktodata"],
        "size_categories": [_size(flow.kept if flow else 0)],
    }
    if parts:
        files = [{"split": part, "path": f"shards/{part}-*.parquet"} for part in PARTS if part in parts]
        fields["configs"] = [{"config_name": "default", "data_files": files}]
    # by PyYAML, for it is what the Hub reads cards with: a name such as `no` must come out quoted
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _size(rows: int) -> str:
    return next((category for below, category in SIZES if rows < below), "n>100M")
