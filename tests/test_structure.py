"""Where things may stand: imports run downwards without a circle, and what has a name has it once.

Each test reads the whole package and lists every breach, so that a move is judged in one run.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import ktodata
from ktodata import feedback, ledger, stage
from ktodata.stages import ORDER

PACKAGE = Path(ktodata.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# bottom first; a module may import from its own room and from the layers under it
LAYERS = (
    ("errors", "visible_text"),
    ("extras", "feedback"),
    ("files", "settings", "stats"),
    ("datasets", "digests", "findings", "meter", "models", "stage", "work_done"),
    ("engines", "ledger", "progress"),
    ("embeddings", "formats"),
    ("text", "train"),
    ("evaluate", "labels"),
    ("experiments", "stages"),
    ("report",),
    ("pipeline",),
    ("bench", "demo", "mcp", "review", "withdrawal"),
    ("notebook",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
# a stage's result in a notebook draws itself on demand; nothing else reaches up
UPWARDS = {("stage", "report.notebook_html")}

MAX_FILES = 17  # Python files of a folder; the model code bases that are read most have no more
MAX_P90_LINES = 20  # of a function, its docstring left out
MAX_BODY_LINES = 52  # of any function
LONG_LOOPS = {"run_training", "train_all"}  # the loop of a training, from setting up to what is left
MAX_PUBLIC = 26

# names that say that somebody found, told, asked or saw a value, or a word that the field has another one for (CONTRIBUTING.md)
NOT_A_WORD = {"found", "told", "said", "asked", "looked"}  # as a word of any name
NOT_A_NAME = {
    *("foretold", "topic_free", "robustness", "z0_rows", "share_prompts", "keep_states_mb"),
    *("look_at_held_out", "two_runs", "beside", "in_step", "plant", "planted"),
    *("Seen", "Found", "Judged", "Step", "Rows", "Leaf", "Leaves", "World", "Alone", "Desk", "RowBook", "Guard", "Standing"),
}
NOT_A_BEGINNING = ("FEWEST", "MOST", "LEAST", "LONGEST")


def module_of(path: Path) -> str:
    """ "stages.embed" for ktodata/stages/embed.py; "stages" for its __init__."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imports_of(tree: ast.AST, *, for_types: bool = True) -> Iterator[str]:
    """The ktodata modules that a file imports, inside functions too; `for_types`: also where only a type checker looks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("ktodata.") for alias in node.names if alias.name.startswith("ktodata."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".", maxsplit=1)[0] == "ktodata":
            package = node.module.removeprefix("ktodata").removeprefix(".")
            for alias in node.names:
                name = f"{package}.{alias.name}".removeprefix(".")
                yield name if name in MODULES else package
        else:
            yield from imports_of(node, for_types=for_types)


def room_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def test_imports_run_downwards():
    assert {room_of(module) for module in MODULES if module not in ("", "__init__")} == set(HEIGHT)
    upwards = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        if module != "__init__"
        for other in imports_of(TREES[path])
        if room_of(other) != room_of(module)
        and HEIGHT[room_of(other)] >= HEIGHT[room_of(module)]
        and (module, other) not in UPWARDS
    ]
    assert upwards == []


def test_no_stage_imports_another():
    """What a stage needs beside it (stages/row_order.py) it may import; another stage it may not."""
    stages = {f"stages.{name}" for name in ORDER}
    for path in (PACKAGE / "stages").glob("*.py"):
        assert not stages.intersection(imports_of(TREES[path])), path


def test_imports_make_no_circle():
    """An import inside a function counts; one that only a type checker reads does not."""
    edges = {module: set(imports_of(TREES[path], for_types=False)) - {module} for module, path in MODULES.items()}
    done: set[str] = {"__init__"}

    def walk(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in edges[module]:
                if (module, other) not in UPWARDS:
                    walk(other, (*above, module))
            done.add(module)

    for module in edges:
        walk(module, ())


def test_a_name_stands_for_one_thing():
    """No class name twice, and no file name twice beside __init__.py and __main__.py."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in TREES.items():
        places[path.name].append(module_of(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[f"class {node.name}"].append(module_of(path))
    assert {name: at for name, at in places.items() if len(at) > 1 and name not in ("__init__.py", "__main__.py")} == {}


def literals_of(tree: ast.AST) -> Iterator[tuple[int, object]]:
    """Line and value of each tuple, list and mapping of literals; lists as tuples."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Tuple, ast.List, ast.Dict)):
            with suppress(ValueError):
                value = ast.literal_eval(node)
                yield node.lineno, tuple(value) if isinstance(value, list) else value


def test_parts_states_and_names_of_labels_are_written_once():
    """Which rows are held out, exported or trained on, and what a label is called, is asked of feedback.py, stage.py and ledger.py."""
    known = [feedback.PARTS, feedback.HELD_OUT, feedback.LABEL_NAMES, feedback.LABEL_OF, stage.KEPT, stage.STRENGTH, ledger.AWAY]
    again = [
        f"{module_of(path)}:{line} {value}"
        for path, tree in TREES.items()
        if module_of(path) not in ("feedback", "ledger", "stage")
        for line, value in literals_of(tree)
        if any(value == one for one in known)
    ]
    assert again == []


def test_a_folder_can_be_taken_in_at_a_glance():
    sizes = {str(folder.relative_to(PACKAGE)): len(list(folder.glob("[!_]*.py"))) for folder in {path.parent for path in FILES}}
    assert {folder: size for folder, size in sizes.items() if size > MAX_FILES} == {}


def names_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a file gives to something, with its line."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Attribute(attr=name, ctx=ast.Store())
                | ast.Name(id=name, ctx=ast.Store())
                | ast.arg(arg=name)
                | ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name, node.lineno


def test_values_are_named_by_what_they_are():
    breaches = [
        f"{module_of(path)}:{line} {name}"
        for path, tree in TREES.items()
        for name, line in names_of(tree)
        if name in NOT_A_NAME or NOT_A_WORD & {*name.lower().split("_")} or name.lstrip("_").split("_")[0] in NOT_A_BEGINNING
    ]
    assert breaches == []


def lines_of(function: ast.FunctionDef) -> int:
    """How long a function is without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    return function.end_lineno - function.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def body_lines(function: ast.FunctionDef) -> int:
    """How long a function is without its signature and its docstring."""
    docstring = ast.get_docstring(function) is not None
    return function.end_lineno - function.body[int(docstring and len(function.body) > 1)].lineno + 1


def test_functions_are_short():
    lengths = sorted(lines_of(node) for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    assert lengths[int(0.9 * len(lengths))] <= MAX_P90_LINES


def test_no_body_is_longer_than_a_screen():
    functions = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if node.name not in LONG_LOOPS and body_lines(node) > MAX_BODY_LINES] == []


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
    assert len(ktodata.__all__) <= MAX_PUBLIC
    for name in ktodata.__all__:
        assert getattr(ktodata, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ktodata.nonsense
