"""The shards of a run as Croissant metadata (https://docs.mlcommons.org/croissant/docs/croissant-spec.html, 1.0).

One FileObject a shard, with its sha256; one FileSet and one RecordSet a part, whose fields are the shard's columns.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import polars as pl

from ktodata.report import text

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
PARQUET = "application/x-parquet"


def croissant(
    name: str, license_id: str | None, day: str, shards: Mapping[str, Mapping[str, Any]], schemas: Mapping[str, pl.Schema]
) -> dict[str, Any]:
    """The JSON-LD of a data set whose shards lie in shards/ beside it.

    day : on which the run ended, e.g. "2026-11-29". shards : {file: {rows, bytes, sha256}}, as checksums.json has it
    schemas : {file: its columns}
    """
    parts = {part: list(files) for part, files in groupby(sorted(shards), key=_part_of)}
    described: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": text.one_line(name, 100),
        "datePublished": day,
        "description": _description(shards, parts),
        "distribution": [_file(file, shards[file]) for file in sorted(shards)] + [_files(part) for part in parts],
        "recordSet": [_records(part, schemas[files[0]]) for part, files in parts.items()],
    }
    return described | ({"license": text.one_line(license_id, 60)} if license_id else {})


def _part_of(file: str) -> str:
    """train, of train-00000-of-00002.parquet."""
    return file.partition("-")[0]


def _description(shards: Mapping[str, Mapping[str, Any]], parts: Mapping[str, list[str]]) -> str:
    counts = [f"{part} {sum(int(shards[file]['rows']) for file in files):,}" for part, files in parts.items()]
    return (
        f"Binary feedback on model outputs, curated with ktodata. Rows: {', '.join(counts)}. README.md says what was measured of "
        "its labels, and what was removed and why; ledger.parquet has the reason for each row."
    )


def _file(file: str, shard: Mapping[str, Any]) -> dict[str, Any]:
    place = f"shards/{file}"
    return {
        "@type": "cr:FileObject",
        "@id": place,
        "name": place,
        "contentUrl": place,
        "contentSize": f"{shard['bytes']} B",
        "encodingFormat": PARQUET,
        "sha256": shard["sha256"],
    }


def _files(part: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{part}-shards",
        "name": f"{part}-shards",
        "encodingFormat": PARQUET,
        "includes": f"shards/{part}-*.parquet",
    }


def _records(part: str, schema: pl.Schema) -> dict[str, Any]:
    fields = [_field(f"{part}/{column}", column, dtype, f"{part}-shards") for column, dtype in schema.items()]
    return {"@type": "cr:RecordSet", "@id": part, "name": part, "field": fields}


def _field(name: str, column: str, dtype: pl.DataType, files: str) -> dict[str, Any]:
    """A column; of a list, what it repeats; of a struct, the fields in it."""
    described: dict[str, Any] = {"@type": "cr:Field", "@id": name, "name": name}
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    source: dict[str, Any] = {"fileSet": {"@id": files}, "extract": {"column": column}}
    if inner is not dtype:
        described["repeated"] = True
    if isinstance(inner, pl.Struct):
        return described | {"source": source, "subField": [_sub_field(name, field, source) for field in inner.fields]}
    return described | {"dataType": _data_type(inner), "source": source}


def _sub_field(name: str, field: pl.Field, source: dict[str, Any]) -> dict[str, Any]:
    place = f"{name}/{field.name}"
    within = source | {"transform": {"jsonPath": f"[*].{field.name}"}}
    return {"@type": "cr:Field", "@id": place, "name": place, "dataType": _data_type(field.dtype), "source": within}


def _data_type(dtype: Any) -> str:
    kinds = ((dtype.is_integer(), "sc:Integer"), (dtype.is_float(), "sc:Float"), (dtype.is_temporal(), "sc:DateTime"))
    if dtype == pl.Boolean:
        return "sc:Boolean"
    return next((name for holds, name in kinds if holds), "sc:Text")
