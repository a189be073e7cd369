"""In which encoding a text file is written: by its byte order mark, by where its zero bytes are, by what UTF-8 forbids."""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ktodata.formats.records import clip

BOMS = (  # the longer first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16 LE"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16 BE"),
)
_HIGH_BYTES = bytes(range(0x80, 0x100))
_NOT_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"
# well-formed sequences of two to four bytes (Unicode standard, table 3-7)
_UTF8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_MIN_UTF16_BYTES = 8
# bytes over 127 in a row: of a text in Cyrillic, Chinese or Korean code nearly all are, of one with accents nearly none
_RUNS = re.compile(rb"[\x80-\xff]{3,}")


@dataclass(frozen=True)
class Encoding:
    """The name as Python knows it, whether it is certain, and why."""

    name: str
    is_certain: bool
    evidence: str


def encoding_of_start(sample: bytes) -> Encoding | None:
    """The encoding that the first bytes of a file show. None: they are neither marked, nor UTF-16, nor valid UTF-8."""
    for bom, name, label in BOMS:
        if sample.startswith(bom):
            return Encoding(name, True, f"{label} by its byte order mark")
    if (utf16 := _unmarked_utf16(sample)) is not None:
        return utf16
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return None
    return Encoding("utf-8", True, "plain ASCII" if sample.isascii() else "valid UTF-8")


def _unmarked_utf16(sample: bytes) -> Encoding | None:
    """Text whose every other byte is mostly zero, and that decodes: nothing else is."""
    units = sample[: len(sample) // 2 * 2]
    if len(units) < _MIN_UTF16_BYTES:
        return None
    zeros = units[0::2].count(0), units[1::2].count(0)
    for name, label, here, there in (("utf-16-le", "LE", zeros[1], zeros[0]), ("utf-16-be", "BE", zeros[0], zeros[1])):
        if here > 0.3 * len(units) / 2 and there == 0 and _decodes(units, name):
            return Encoding(name, True, f"UTF-16 {label}: every other byte is zero")
    return None


def _decodes(units: bytes, name: str) -> bool:
    try:
        codecs.getincrementaldecoder(name)().decode(units)
    except UnicodeDecodeError:
        return False
    return True


def encoding_of_table(chunks: Iterable[bytes]) -> Encoding:
    """The encoding of a whole text table without a mark: UTF-8, or, by elimination, cp1252, which spreadsheets still write.

    A file that is mostly valid UTF-8 stays UTF-8: its bad rows are damage, and are set aside one by one.
    """
    n_high, n_valid, n_in_runs, undefined, example, tail = 0, 0, 0, False, b"", b""
    for chunk in chain(chunks, [b""]):
        if chunk.isascii() and not tail:
            continue
        block = tail + chunk
        n_whole = len(block) - (_incomplete_bytes(block) if chunk else 0)
        block, tail = block[:n_whole], block[n_whole:]
        high = len(block) - len(block.translate(None, _HIGH_BYTES))
        valid = sum(map(len, _UTF8_SEQUENCE.findall(block)))
        n_high, n_valid = n_high + high, n_valid + valid
        n_in_runs += sum(map(len, _RUNS.findall(_UTF8_SEQUENCE.sub(b"", block)))) if high > valid else 0
        undefined = undefined or any(byte in block for byte in _NOT_IN_CP1252)
        example = example or (_around_high_byte(block) if high > valid else b"")
    if n_high == n_valid:
        return Encoding("utf-8", True, "valid UTF-8" if n_high else "plain ASCII")
    if 2 * n_valid > n_high:
        return Encoding("utf-8", True, f"UTF-8 with {n_high - n_valid:,} bytes that are not")
    if undefined or 2 * n_in_runs > n_high - n_valid:
        return Encoding("utf-8", False, "neither valid UTF-8 nor Windows text (cp1252); say encoding: NAME if you know it")
    shown = example.decode("cp1252", "replace")
    return Encoding("cp1252", False, f"not valid UTF-8; read as Windows text (cp1252), which gives e.g. {shown!r}")


def _incomplete_bytes(block: bytes) -> int:
    """How many bytes at the end may be the start of a sequence that the next chunk goes on with."""
    for length in (1, 2, 3):
        if len(block) >= length and block[-length] >= 0xC0:
            return length
        if len(block) >= length and block[-length] < 0x80:
            return 0
    return 0


def _around_high_byte(block: bytes) -> bytes:
    rest = _UTF8_SEQUENCE.sub(lambda match: b"?" * len(match[0]), block)
    position = next(index for index, byte in enumerate(rest) if byte >= 0x80)
    line_start = rest.rfind(b"\n", 0, position) + 1
    return block[max(line_start, position - 20) : position + 12].split(b"\n")[0].strip()


def guessed_lines(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each file whose encoding is a guess, which texts with accents show to be right or wrong.

    files : as the metrics of reading have them: name, and guessed_encoding (why, with an example) where it is one
    """
    return [
        f"{clip(file['name'], 60)}: {file['guessed_encoding']}: look at it, and say encoding: NAME if it is wrong"
        for file in files
        if file.get("guessed_encoding")
    ]
