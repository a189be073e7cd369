"""The house rules: imports run downwards, there is no circle, and `import ktodata` is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ktodata

PACKAGE = Path(ktodata.__file__).parent
# bottom first; a module may import from its own layer (its own package) and from the layers under it
LAYERS = (
    ("errors",),
    ("feedback",),
    ("files", "settings"),
    ("findings", "meter", "models", "stage"),
    ("formats", "sample", "signals"),
    ("train",),
    ("evaluate",),
    ("report",),
    ("stages",),
    ("ledger", "recipe", "run_folder"),
    ("runner",),
    ("label_audit", "self_training", "sharing"),
    ("treatments",),
    ("ablation", "review", "two_runs"),
    ("auditing", "progress"),
    ("cli",),
)
# a result in a notebook draws itself on demand; nothing else looks up
UPWARDS = {("stage", "report.notebook")}
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def home(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The ktodata modules ("stages.embed") that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {_module(node.module, alias.name) for alias in node.names}
    names = {name.removeprefix("ktodata.") for name in found if name.startswith("ktodata.")}
    return {name for name in names if (home(path), name) not in UPWARDS}


def _module(package: str, name: str) -> str:
    """`from package import name` imports package.name where that is a module, else package."""
    place = PACKAGE.parent / package.replace(".", "/") / name
    return f"{package}.{name}" if place.with_suffix(".py").exists() or place.is_dir() else package


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_module_has_its_layer():
    assert {home(path) for path in FILES} <= set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    for name in imported(path):
        other = name.split(".")[0]
        assert other == home(path) or HEIGHT[other] < HEIGHT[home(path)], f"{path} imports ktodata.{name}, which stands no lower"


def test_no_stage_imports_another():
    for path in (PACKAGE / "stages").glob("*.py"):
        assert not {name for name in imported(path) if name.startswith("stages")}, path


def test_no_circle_between_modules():
    """Function-level imports count too: a circle is one wherever it stands."""
    edges = {str(path.relative_to(PACKAGE).with_suffix("")).replace("/", "."): imported(path) for path in FILES}
    edges = {name.removesuffix(".__init__"): found for name, found in edges.items()}
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in edges.get(name, ()):
                if other != name:
                    walk(other, (*above, name))
            done.add(name)

    for name in edges:
        walk(name, ())


def test_import_is_light():
    """Under half a second by the interpreter's own clock (the least of three), and no heavy library is loaded."""
    code = (
        "import sys, time; t = time.perf_counter(); import ktodata; s = time.perf_counter() - t;"
        "print(s, *[m for m in ('torch', 'transformers', 'sklearn', 'cleanlab', 'datasets', 'matplotlib') if m in sys.modules])"
    )
    answers = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() for _ in range(3)
    ]
    assert all(len(answer) == 1 for answer in answers), answers
    assert min(float(answer[0]) for answer in answers) < 0.5


def test_public_names_are_sorted_and_there():
    assert list(ktodata.__all__) == sorted(ktodata.__all__)
    for name in ktodata.__all__:
        assert getattr(ktodata, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ktodata.nonsense
