"""What a kept result is made of, in 16 hex digits: any values, and the code of this package that makes it."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

from ktodata.files import digest_file

PACKAGE = Path(__file__).parent
# imports inside functions count; names in brackets may stand on lines of their own
IMPORT = re.compile(r"^\s*(?:from\s+(ktodata[\w.]*)\s+import\s+(\([^)]*\)|[^\n]*)|import\s+(ktodata[\w.]*))", re.MULTILINE)
# imports for type checkers load nothing; in a package they say where a name is that is loaded when it is asked for
FOR_CHECKERS = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t]+[^\n]*\n|\n)+", re.MULTILINE)
SHOWS = ("report", "review", "cli.py", "progress.py", "notebook.py")  # rooms that show results and make none
DISCOVERS = re.compile(r"\biter_modules\(")  # a module that looks its neighbours up depends on all of them


def digest(*parts: Any) -> str:
    """16 hex digits of any JSON values. The key 1 is another than the key "1" or true, and so is another label mapping."""
    return xxhash.xxh3_64_hexdigest(json.dumps(_typed(parts), default=str).encode())


@cache
def code_digest(*modules: str) -> str:
    """16 hex digits of the sources of these modules and of all they import. modules : "ktodata.stages.dedupe", ...

    Of the packages that a module is in, what they themselves import for others does not count.
    """
    reached: set[Path] = set()
    waiting = [file for module in modules for file in _file_of(module)]
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting += _imports_of(file)
    reached |= {package / "__init__.py" for file in reached for package in file.parents if package.is_relative_to(PACKAGE)}
    reached.discard(PACKAGE / "__init__.py")  # loads nothing unasked
    return digest([(file.relative_to(PACKAGE).as_posix(), digest_file(file)) for file in sorted(reached)])


def _typed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ["mapping", *sorted([type(key).__name__, str(key), _typed(item)] for key, item in value.items())]
    return [_typed(item) for item in value] if isinstance(value, list | tuple) else value


@cache
def _imports_of(file: Path) -> list[Path]:
    source = file.read_text(encoding="utf-8")
    files: list[Path] = list(file.parent.glob("*.py")) if DISCOVERS.search(source) else []
    for module, names, plain in IMPORT.findall(FOR_CHECKERS.sub("", source)):
        files += _file_of(module or plain)
        for name in re.findall(r"\w+", re.sub("#.*", "", names)):
            files += _file_of(f"{module}.{name}") + _loaded_for(module, name)
    return files


def _loaded_for(package: str, name: str) -> list[Path]:
    """The files of the module that a package loads when this name of it is asked for."""
    place = PACKAGE.joinpath(*package.split(".")[1:]) / "__init__.py"
    later = "".join(FOR_CHECKERS.findall(place.read_text(encoding="utf-8"))) if place.is_file() else ""
    modules = [module for module, names, _ in IMPORT.findall(later) if name in re.findall(r"\w+", names)]
    return [file for module in modules for file in _file_of(module)]


def _file_of(module: str) -> list[Path]:
    """The module's file; none where it is not of this package, or only shows results."""
    parts = module.split(".")[1:]
    if not parts or parts[0] in SHOWS or f"{parts[0]}.py" in SHOWS:
        return []
    place = PACKAGE.joinpath(*parts)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return [file] if file.is_file() else []
