"""Files become the feedback table; every record that cannot is set aside with its line and a reason.

The one stage that reads files, and the one that is given no table: the work is done by `ktodata.formats`, here are its settings.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from ktodata.feedback import COLUMNS
from ktodata.formats import IngestResult, read
from ktodata.formats.file_types.file_settings import MAX_RECORD_MB

NEEDS = ()
ADDS = tuple(COLUMNS)
APPLIES_TO = "all"

Column = str | None
Columns = str | list[str] | None


def ingest(
    *,
    paths: Annotated[
        str | list[str],
        Field(description="files, globs, s3://, gs://, az:// or hf:// URLs, folders of data sets or lake tables, hub ids"),
    ],
    format: Annotated[
        str, Field(description='its name, or "auto": each record is read in the first format that it looks like')
    ] = "auto",
    prompt: Annotated[Columns, Field(description="column of the prompt, or several that are joined line by line")] = None,
    completion: Annotated[Columns, Field(description="column of the completion, or of the two that are compared")] = None,
    messages: Annotated[Column, Field(description="column of whole conversations: turns, or turns as JSON text")] = None,
    judged: Annotated[
        Literal["last", "last_assistant"],
        Field(description="which turn of a conversation is judged: its last, or its last answer, whatever follows"),
    ] = "last",
    conversation: Annotated[
        str | dict[str, Any] | None,
        Field(description="where a record is one message: column of its conversation, or {column, id, parent, role, text}"),
    ] = None,
    label: Annotated[
        str | dict[Any, Any] | None,
        Field(description="column of the label; {column: thumb, up: true, down: false}; {column: score, at_least: 4}"),
    ] = None,
    votes: Annotated[
        dict[str, str] | list[str] | None,
        Field(description='{column: rater} of several verdicts in one record; ["votes[]"], a list of them'),
    ] = None,
    rater: Annotated[Column, Field(description="column: who gave the label")] = None,
    created_at: Annotated[
        str | dict[str, str] | None,
        Field(description='column: when; text or a count since 1970; {column: ts, format: "%d/%m/%Y"}; format: excel'),
    ] = None,
    source_id: Annotated[Column, Field(description='column: the record\'s own id; "id" where there is one')] = None,
    source: Annotated[Column, Field(description="column: where the row comes from; else the name of its file")] = None,
    model: Annotated[Columns, Field(description="column: what wrote the completion; two where two are compared")] = None,
    pair_id: Annotated[Column, Field(description="column: the pair that a row is one side of")] = None,
    trusted: Annotated[
        str | dict[Any, Any] | None, Field(description="column of an expert's verdict, or the same with meanings, as for label")
    ] = None,
    keep: Annotated[
        list[str] | dict[str, str] | None, Field(description="columns to keep as metadata, or {new name: column}")
    ] = None,
    transcripts: Annotated[bool, Field(description='read prompts that start with "Human:" as HH-RLHF transcripts')] = False,
    split: Annotated[Column, Field(description="column: the part that a row was given; the step split: given keeps it")] = None,
    join_parts: Annotated[
        bool | None, Field(description="read a data set's parts as one; without it they are kept apart, or not read")
    ] = None,
    delimiter: Annotated[str | None, Field(description="of a CSV, where its content does not show it")] = None,
    encoding: Annotated[str | None, Field(description="of a text file: utf-8, utf-16, cp1252, ...")] = None,
    table: Annotated[
        str | None, Field(description="of a database; a workbook's sheet; the list in a JSON document; a data set's split")
    ] = None,
    max_record_mb: Annotated[float, Field(gt=0, le=4096, description="a longer record is not read")] = MAX_RECORD_MB,
) -> IngestResult:
    """Read feedback. Texts are never altered, labels are only what the recipe says they are.

    Rows stand in the order of row_id.
    """
    settings: Mapping[str, Any] = {
        "format": format,
        "prompt": prompt,
        "completion": completion,
        "messages": messages,
        "judged": judged,
        "conversation": conversation,
        "label": label,
        "votes": votes,
        "rater": rater,
        "created_at": created_at,
        "source_id": source_id,
        "source": source,
        "model": model,
        "pair_id": pair_id,
        "trusted": trusted,
        "keep": keep,
        "transcripts": transcripts,
        "split": split,
        "join_parts": join_parts,
        "delimiter": delimiter,
        "encoding": encoding,
        "table": table,
        "max_record_mb": max_record_mb,
    }
    result = read(paths, **settings)
    # by name, not by place: every later stage then sees the same table however the records were shuffled or filed
    return replace(result, feedback=result.feedback.sort("row_id"))
