"""Files of object stores (s3://, gs://, az://, hf://), by fsspec: looked up, and copied to this machine while they are read."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ktodata.errors import FormatError, SettingError
from ktodata.extras import require
from ktodata.formats.records import clip

# scheme: the module that serves it, and the extra that brings it. memory:// is fsspec's own
SCHEMES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "hf": ("huggingface_hub", "hub"),
    "memory": ("fsspec", "hub"),
}
# what stores say of a file, of which one tells its versions apart
VERSION_MARKS = ("etag", "ETag", "e_tag", "md5Hash", "content_md5", "blob_id", "oid", "last_commit")
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")


def is_remote(path: str) -> bool:
    """Whether a path begins with a scheme."""
    return "://" in path and path.partition("://")[0].isalnum()


def remote_files(url: str) -> list[str]:
    """The files that a URL or a glob names, in order. Raises FormatError where there is none, SettingError for other schemes."""
    system, place = _file_system(url)
    scheme = url.partition("://")[0]
    with _in_one_line(url):
        if system.isfile(place):
            return [url]
        if system.isdir(place):
            raise FormatError(f"{url!r} is a folder. Name its files, e.g. '{url.rstrip('/')}/*.jsonl'.")
        files = sorted(name for name in system.glob(place) if system.isfile(name))
    if not files:
        raise FormatError(f"there is no file {url!r}.")
    return [f"{scheme}://{name.lstrip('/')}" for name in files]


def remote_version(url: str) -> tuple[str, ...]:
    """What tells whether a file has changed, without reading it: its size, and its ETag or else its time."""
    system, place = _file_system(url)
    with _in_one_line(url):
        about = system.info(place)
    mark = next((about[name] for name in (*VERSION_MARKS, *TIMES) if about.get(name)), None)
    return url, str(about.get("size")), str(mark)


@contextmanager
def local_copy(url: str) -> Iterator[str]:
    """The path of a copy that is gone afterwards: readers of Parquet, databases and workbooks read at any place in a file."""
    system, place = _file_system(url)
    with tempfile.TemporaryDirectory(prefix="ktodata-") as folder:
        # the store's name for it is no path of this machine: only its ending says something
        path = Path(folder) / f"copy{''.join(PurePosixPath(place).suffixes[-2:])}"
        with _in_one_line(url):
            system.get_file(place, str(path))
        yield str(path)


def _file_system(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES if name != "memory")
        raise SettingError(f"{clip(url)!r} cannot be read from there: paths are files here, hub ids, or begin with {known}.")
    module, extra = SCHEMES[scheme]
    require("fsspec", module, what=f"reading {scheme}://", extra=extra)
    from fsspec.core import url_to_fs

    with _in_one_line(url):
        system, place = url_to_fs(url)
        system.invalidate_cache()  # a file may be another than a minute ago
    return system, place


@contextmanager
def _in_one_line(url: str) -> Iterator[None]:
    """Each store's library raises errors of its own: no access, no network, no bucket."""
    try:
        yield
    except FormatError:
        raise
    except Exception as error:
        raise FormatError(f"{url!r} cannot be read: {type(error).__name__}: {clip(str(error), 200)}.") from error
