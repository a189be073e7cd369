"""The code that an answer hangs on: a cell is kept as long as that is the same, whatever other methods are."""

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ktodata.bench.bench_methods import BenchMethod
from ktodata.digests import PACKAGE, code_digest, digest
from ktodata.files import digest_file

OF_ALL = ("ktodata.bench.bench_rows", "ktodata.bench.bench_answers")
# where Python's own library and installed packages are
INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def answer_code(method: BenchMethod) -> str:
    """16 hex digits of a method's file and of what it imports, however deep; of installed packages, only this one counts."""
    waiting, reached, ours = [("", method.file)] if method.file else [], dict[Path, str](), set(OF_ALL)
    while waiting:
        name, file = waiting.pop()
        if file in reached:
            continue
        if file.is_relative_to(PACKAGE):
            ours.add(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"))
            continue
        reached[file] = digest_file(file)
        waiting += _imports_of(name, file)
    return digest([code_digest(*sorted(ours)), sorted(reached.values())])


def _imports_of(name: str, file: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of each module that a file imports, anywhere in it. name : its own, for imports from beside it"""
    for node in ast.walk(ast.parse(file.read_bytes())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            base = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), package) if package or not node.level else ""
            )
            modules = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        # of a.b.c the packages a and a.b are run, too
        for each in {
            ".".join(parts[: depth + 1]) for parts in (module.split(".") for module in modules) for depth in range(len(parts))
        }:
            if (place := _file_of(each)) is not None:
                yield each, place


def _file_of(module: str) -> Path | None:
    """Its source; none for what is installed, but for this package."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):  # a name in a module, or a module that is not there
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    file = Path(spec.origin).resolve()
    return None if not file.is_relative_to(PACKAGE) and any(file.is_relative_to(place) for place in INSTALLED) else file
