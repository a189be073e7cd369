"""The code that a result depends on: a module, and all modules of the package that it imports, however deep."""

import re
from functools import cache
from pathlib import Path

from ktodata.files import digest_file
from ktodata.pipeline.run_folder import digest

PACKAGE = Path(__file__).parents[1]
# imports inside functions count; names in brackets may stand on lines of their own
IMPORT = re.compile(r"^\s*(?:from\s+(ktodata[\w.]*)\s+import\s+(\([^)]*\)|[^\n]*)|import\s+(ktodata[\w.]*))", re.MULTILINE)
# imports for type checkers load nothing; in a package they say where a name is that is loaded when it is asked for
FOR_CHECKERS = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t]+[^\n]*\n|\n)+", re.MULTILINE)
SHOWS = ("report", "review", "cli.py", "progress.py", "notebook.py")  # rooms that show results and make none
DISCOVERS = "iter_modules"  # a module that looks its neighbours up depends on all of them


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
    return digest([(file.relative_to(PACKAGE).as_posix(), _content(file)) for file in sorted(reached)])


@cache
def _content(file: Path) -> str:
    return digest_file(file)


@cache
def _imports_of(file: Path) -> list[Path]:
    source = file.read_text(encoding="utf-8")
    files: list[Path] = [] if DISCOVERS not in source else list(file.parent.glob("*.py"))
    for module, names, plain in IMPORT.findall(FOR_CHECKERS.sub("", source)):
        files += _file_of(module or plain)
        for name in re.findall(r"\w+", names.split("#")[0]):
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
