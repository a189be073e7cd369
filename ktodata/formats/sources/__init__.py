"""Feedback from running services: `ingest: {from: langfuse, url: …, since: …}` pulls it into the run folder and reads it there.

One file a service (from_langfuse.py, …) says what is asked for and how verdicts are joined with what they are about; the rest is
shared. Credentials come from the environment alone:

    langfuse      LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY
    langsmith     LANGSMITH_API_KEY (LANGSMITH_WORKSPACE_ID for a key of an organisation)
    phoenix       PHOENIX_API_KEY, where it has users
    mlflow        MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, where it has users
    open_webui    OPEN_WEBUI_API_KEY
    label_studio  LABEL_STUDIO_API_KEY
    argilla       ARGILLA_API_KEY
"""

from ktodata.errors import SettingError
from ktodata.formats.sources.from_argilla import ARGILLA_SOURCE
from ktodata.formats.sources.from_label_studio import LABEL_STUDIO_SOURCE
from ktodata.formats.sources.from_langfuse import LANGFUSE_SOURCE
from ktodata.formats.sources.from_langsmith import LANGSMITH_SOURCE
from ktodata.formats.sources.from_mlflow import MLFLOW_SOURCE
from ktodata.formats.sources.from_open_webui import OPEN_WEBUI_SOURCE
from ktodata.formats.sources.from_phoenix import PHOENIX_SOURCE
from ktodata.formats.sources.pulling import Pulled, connected, pull
from ktodata.formats.sources.source import PullSource
from ktodata.settings import unknown_name

SOURCES: dict[str, PullSource] = {
    source.name: source
    for source in (
        LANGFUSE_SOURCE,
        LANGSMITH_SOURCE,
        PHOENIX_SOURCE,
        MLFLOW_SOURCE,
        OPEN_WEBUI_SOURCE,
        LABEL_STUDIO_SOURCE,
        ARGILLA_SOURCE,
    )
}


def source_named(name: str) -> PullSource:
    """The source of that name. Raises SettingError with the nearest one."""
    if name not in SOURCES:
        raise SettingError(unknown_name("from: there is no service", name, list(SOURCES)))
    return SOURCES[name]


__all__ = ["SOURCES", "PullSource", "Pulled", "connected", "pull", "source_named"]
