"""The code that a result depends on: a module, and all modules of the package that it imports, however deep."""

import re
from functools import cache
from pathlib import Path

from ktodata.files import digest_file
from ktodata.pipeline.run_folder import digest

PACKAGE = Path(__file__).parents[1]
# imports inside functions count, those for type checkers do no harm; names in brackets may stand on lines of their own
IMPORT = re.compile(r"^\s*(?:from\s+(ktodata[\w.]*)\s+import\s+(\([^)]*\)|[^\n]*)|import\s+(ktodata[\w.]*))", re.MULTILINE)
SHOWS = ("report", "review", "cli.py", "progress.py", "notebook.py")  # rooms that show results and make none
DISCOVERS = "iter_modules"  # a module that looks its neighbours up depends on all of them


def code_digest(*modules: str) -> str:
    """16 hex digits of the sources of these modules and of all they import. modules : "ktodata.stages.dedupe", ..."""
    reached: set[Path] = set()
    waiting = [file for module in modules for file in _files_of(module)]
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting += _imports_of(file)
    return digest([(file.relative_to(PACKAGE).as_posix(), _content(file)) for file in sorted(reached)])


@cache
def _content(file: Path) -> str:
    return digest_file(file)


@cache
def _imports_of(file: Path) -> list[Path]:
    source = file.read_text(encoding="utf-8")
    files: list[Path] = [] if DISCOVERS not in source else list(file.parent.glob("*.py"))
    for module, names, plain in IMPORT.findall(source):
        files += _files_of(module or plain)
        for name in re.findall(r"\w+", names.split("#")[0]):
            files += _files_of(f"{module}.{name}")
    return files


def _files_of(module: str) -> list[Path]:
    """The module's file and those of the packages that it is in, but for the package itself, which loads nothing unasked."""
    parts = module.split(".")[1:]
    if not parts:
        return []
    place = PACKAGE.joinpath(*parts)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file() or parts[0] in SHOWS or f"{parts[0]}.py" in SHOWS:
        return []
    return [file, *(PACKAGE.joinpath(*parts[:depth]) / "__init__.py" for depth in range(1, len(parts)))]
