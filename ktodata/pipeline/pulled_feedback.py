"""`ingest: {from: langfuse, url: …, project: …, since: …}`: a recipe whose feedback is pulled from a service.

It is pulled into the run folder, under pulled/, before anything else runs; what is pulled is then read as a file is, in the
service's own format unless the recipe names another.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ktodata.errors import SettingError
from ktodata.formats.sources import SOURCES, pull, source_named
from ktodata.settings import check_settings

FOLDER = "pulled"
KEYS = ("from", "url", "project", "since")


def pull_settings(
    *,
    url: Annotated[str | None, Field(description="address of the service, without credentials")] = None,
    project: Annotated[str | int | None, Field(description="where to look there: a project, an experiment, a data set")] = None,
    since: Annotated[str | date | None, Field(description="nothing older: 2026-10-01 or 2026-10-01T12:00:00Z")] = None,
) -> None:
    """The keys beside `from`, as a recipe gives them."""


def split_ingest(section: Any) -> tuple[Any, dict[str, Any] | None]:
    """The `ingest:` section as settings of the stage, and what is pulled for it; None where it reads files."""
    if not isinstance(section, Mapping) or not set(section) & set(KEYS):
        return section, None
    name = section.get("from")
    if name is None:
        key = next(key for key in KEYS if key in section)
        raise SettingError(f"ingest: {key} says what to pull: name the service as well, from: {' | '.join(SOURCES)}.")
    if section.get("paths") is not None:
        raise SettingError(f"ingest: paths and from: {name} exclude each other: what is pulled is what is read.")
    source = source_named(str(name))
    pulling = {key: section[key] for key in KEYS[1:] if key in section}
    checked = check_settings(pull_settings, pulling, where="ingest")
    given = {key: None if value is None else str(value) for key, value in checked.items()}
    reading = {key: value for key, value in section.items() if key not in (*KEYS, "paths")}
    return {"format": source.name, "paths": f"{FOLDER}/{source.name}.jsonl", **reading}, {"from": source.name, **given}


def pull_for_run(folder: Path, settings: Mapping[str, Any]) -> None:
    """Bring what was pulled into a run folder up to date."""
    given = {key: settings[key] for key in KEYS[1:]}
    pull(source_named(settings["from"]), folder / FOLDER, **given)
