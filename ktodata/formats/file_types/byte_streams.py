"""The bytes of a file: unpacked, and in UTF-8 whatever the file is written in; damage is an error that says where."""

import codecs
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast

from ktodata.errors import FormatError
from ktodata.formats.records import clip

BUFFER_BYTES = 1 << 20
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
T = TypeVar("T")


class LongLine(NamedTuple):
    """A line that is longer than the limit: how it starts, and its whole length in bytes."""

    start: bytes
    n_bytes: int


def first_bytes(path: str, n_bytes: int) -> bytes:
    """The start of a file as it is stored. Raises FormatError where the file cannot be opened."""
    try:
        with Path(path).open("rb") as file:
            return file.read(n_bytes)
    except OSError as error:
        raise FormatError(f"{path!r} cannot be opened: {error.strerror}.") from error


def compression_of(start: bytes) -> str | None:
    """How a file is packed, by its first bytes, whatever its name says."""
    return next((name for magic, name in COMPRESSIONS.items() if start.startswith(magic)), None)


def open_unpacked(path: str) -> BinaryIO:
    """The bytes of a file, unpacked; a gzip may have several members."""
    import pyarrow as pa

    compression = compression_of(first_bytes(path, 4))
    # Arrow's streams raise on a truncated gzip or zstd stream; zstandard's own reader takes it for the end of the file
    stream = pa.input_stream(path, compression=compression, buffer_size=BUFFER_BYTES)
    return cast(BinaryIO, io.BufferedReader(stream, BUFFER_BYTES))


def open_as_utf8(path: str, encoding: str) -> BinaryIO:
    """The text of a file as UTF-8 without a byte order mark. Bytes that are no text stay bytes that are not UTF-8."""
    file = open_unpacked(path)
    if codecs.lookup(encoding).name not in ("utf-8", "ascii"):
        file = cast(BinaryIO, io.BufferedReader(_Utf8Stream(file, encoding), BUFFER_BYTES))
    if cast(io.BufferedReader, file).peek(3)[:3] == codecs.BOM_UTF8:
        file.read(3)
    return file


class _Utf8Stream(io.RawIOBase):
    """A byte stream in any encoding, read as UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._encoding = encoding
        # half a surrogate pair and a byte that the encoding does not define go on as bytes that are not UTF-8
        self._errors = "surrogatepass" if encoding.lower().replace("_", "-").startswith("utf") else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(encoding)(self._errors)
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: bytearray) -> int:  # type: ignore[override]
        while not self._ready:
            chunk = self._file.read(BUFFER_BYTES)
            try:
                self._ready = self._decoder.decode(chunk, final=not chunk).encode("utf-8", self._errors)
            except UnicodeError as error:
                raise OSError(f"the bytes are not {self._encoding}: {error}") from error
            if not chunk:
                break
        n_bytes = min(len(target), len(self._ready))
        target[:n_bytes], self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
        return n_bytes

    def close(self) -> None:
        self._file.close()
        super().close()


def limited_lines(file: BinaryIO, max_bytes: int) -> Iterator[bytes | LongLine]:
    """Every line; of one that is longer than `max_bytes` only its start is ever in memory."""
    while line := file.readline(max_bytes + 1):
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line
            continue
        n_bytes, start = len(line), line[:10_000]
        del line
        while (part := file.readline(BUFFER_BYTES)) and not part.endswith(b"\n"):
            n_bytes += len(part)
        yield LongLine(start, n_bytes + len(part))


def named_damage(items: Iterable[T], name: str, unit: str = "line") -> Iterator[T]:
    """`items` of a file, with a damaged file named along with the place of the damage."""
    count = 0
    try:
        for item in items:
            count += 1
            yield item
    except OSError as error:
        raise damaged(name, f"{unit} {count:,}", error) from error


def damaged(name: str, place: str, error: Exception) -> FormatError:
    """A file that cannot be read to its end."""
    return FormatError(
        f"{name!r} is damaged or cut off after {place}: {clip(str(error))}. Nothing of it is used; fetch the file again."
    )
