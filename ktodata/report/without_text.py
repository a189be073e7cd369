"""The files of a run without anybody's words: what a page is made of when it leaves the team.

Numbers stay. Of texts only ktodata's own words stay, by a rule that needs no list of what is foreign: a word is shown if
ktodata's code holds it in a string or a name; any other becomes "…". Raters, sources, models and files become "rater 1",
"source 1", "model 1", "file 1", the same all over the page; other names "name 1". Rows are not shown at all: those that left are
found by row_id and reason, and a dot of the map has numbers. A row_id is a digest, and a word that is one stays.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.formats.table import QUARANTINE
from ktodata.report.run_files import RunFiles

LEFT_OUT = "…"
# columns of names that are replaced even where a name happens to be a word of ours
NAMED = ("rater", "source", "model")
ROW_IDS = ("row_id", "duplicate_of", "caused_by")
# lists of rows' texts inside a stage's metrics
EXAMPLES = ("examples", "exemplars", "answers", "nearest")
# tables with one line a group, whose `value` is a name of the kind that its `column` says
GROUPED = ("drift", "drift_examples")
# tables of coverage whose names are made of words of prompts
SUBJECTS = ("clusters", "holes")
# not ours to speak with: the sample's words are made up data
NOT_OURS = ("sample",)

_WORD = re.compile(r"[^\W_]+")
_PLAIN = re.compile(r"[0-9]+(?:[A-Za-z]|T[0-9]+)?|[0-9a-f]{16}|[0-9a-f]{32}|[0-9a-f]{64}")
# what is in quotes is somebody's; an apostrophe within it ends nothing
_QUOTED = re.compile(r"(?<!\w)(['\"])(?:(?!\1(?!\w)).){0,500}\1(?!\w)|“[^”]{0,500}”", re.DOTALL)
# as KD048 names those whose labels drift: a name can be a number
_WHOSE = re.compile(r"(?<!\w)(?:rater|source|model) (.{1,300}?)(?= \()")
_TOKEN = re.compile(r"[^\s'\"“”,;]+")
_PATH = re.compile(r"(?:^|[=(\[<:])(?:~|\.{1,2}|[A-Za-z]:)?[/\\]|\.(?:jsonl?|csv|parquet|gz|zst|ya?ml|txt|sqlite)\b")


class WithoutText(RunFiles):
    """Reads a run's files as RunFiles does; nothing that it returns holds a text of a row, or a name that somebody gave."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._run = RunFiles(path)
        self._names = _Names(self._run)

    @property
    def place(self) -> str:
        """A folder's name is somebody's."""
        return "RUN"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """As in the run, under the name "run"."""
        cleaned = self._cleaned(self._run.manifest)
        recipe = cleaned.get("recipe")
        return cleaned | {"name": "run", "recipe": recipe | {"name": "run"} if isinstance(recipe, dict) else {}}

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """Numbers only."""
        return self._cleaned(self._run.evaluation)

    @cached_property
    def training(self) -> dict[str, Any]:
        """Numbers only."""
        return self._cleaned(self._run.training)

    @cached_property
    def ablation(self) -> dict[str, Any]:
        """Numbers, and the names of arms where they are ours."""
        return self._cleaned(self._run.ablation)

    @cached_property
    def comparison(self) -> dict[str, Any]:
        """Numbers, and the names of methods where they are ours."""
        return self._cleaned(self._run.comparison)

    @cached_property
    def telemetry(self) -> pl.DataFrame | None:
        """Numbers by row_id."""
        return self._named(self._run.telemetry)

    @cached_property
    def ablation_scores(self) -> pl.DataFrame | None:
        """Numbers by row_id and arm."""
        return self._named(self._run.ablation_scores)

    @cached_property
    def comparison_rows(self) -> pl.DataFrame | None:
        """Numbers by row_id and method."""
        return self._named(self._run.comparison_rows)

    @cached_property
    def ledger(self) -> pl.DataFrame:
        """Decisions; of their evidence what the last lines say of part and stage."""
        last = pl.col("stage") == "export"
        return self._run.ledger.with_columns(evidence=pl.when(last).then("evidence").otherwise(pl.lit("{}")))

    @cached_property
    def quarantine(self) -> pl.DataFrame:
        """Reasons; neither file nor text."""
        reasons = self._run.quarantine.select("reason")
        return reasons.select(
            pl.col(name) if name == "reason" else pl.lit(None, of).alias(name) for name, of in QUARANTINE.items()
        )

    def metrics(self, stage: str) -> dict[str, Any]:
        """The stage's numbers."""
        return self._cleaned(self._run.metrics(stage))

    def table(self, stage: str, name: str) -> pl.DataFrame | None:
        """The table without names and examples; a cluster goes by its number."""
        table = self._run.table(stage, name)
        if table is None:
            return None
        if "name" in table.columns:
            table = table.with_columns(name=_called_subjects(table, name)["called"])
        if name in GROUPED and {"column", "value"} <= set(table.columns):
            table = self._names.grouped(table)
        return self._named(table.drop(EXAMPLES, strict=False))

    def columns(self, stage: str, *names: str) -> pl.DataFrame | None:
        """The columns, with names replaced."""
        return self._named(self._run.columns(stage, *names))

    def rows(self, row_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """{row_id: {row_id, prompt: a number}}: which rows share a prompt, and nothing else of them."""
        prompts: dict[str, str] = {}
        rows = self._run.rows(row_ids)
        number = {row_id: prompts.setdefault(row["prompt"], f"prompt {len(prompts) + 1}") for row_id, row in rows.items()}
        return {row_id: {"row_id": row_id, "prompt": prompt} for row_id, prompt in number.items()}

    def _cleaned(self, value: dict[str, Any]) -> dict[str, Any]:
        cleaned: dict[str, Any] = self._names.cleaned(value)
        return cleaned

    def _named(self, table: pl.DataFrame | None) -> pl.DataFrame | None:
        return None if table is None else self._names.table(table)


class _Names:
    """What each foreign name is called on the page."""

    def __init__(self, run: RunFiles) -> None:
        self._called: dict[str, str] = {}
        self._n_of_kind: Counter[str] = Counter()
        for kind, name in _foreign_names(run):
            if kind in (*NAMED, "file") or not is_ours(name):
                self._call(kind, name)
        subjects = dict(_subjects(run))
        self._called |= subjects
        longest_first = sorted(subjects, key=len, reverse=True)
        self._subjects = re.compile("|".join(map(re.escape, longest_first))) if subjects else None

    def _call(self, kind: str, name: str) -> str:
        if name not in self._called:
            self._n_of_kind[kind] += 1
            self._called[name] = f"{kind} {self._n_of_kind[kind]}"
        return self._called[name]

    def cleaned(self, value: Any) -> Any:
        """JSON with foreign keys and texts replaced."""
        if isinstance(value, dict):
            return {self._cleaned_key(key): self.cleaned(inner) for key, inner in value.items() if key not in EXAMPLES}
        if isinstance(value, list):
            return [self.cleaned(inner) for inner in value]
        return self._cleaned_text(value) if isinstance(value, str) else value

    def _cleaned_key(self, key: str) -> str:
        return self._called.get(key) or (key if is_ours(key) else self._call("name", key))

    def _cleaned_text(self, text: str) -> str:
        if text in self._called:
            return self._called[text]
        if self._subjects is not None:
            text = self._subjects.sub(lambda match: self._called[match[0]], text)
        text = _WHOSE.sub(lambda match: self._called.get(match[1], match[0]), text)
        text = _QUOTED.sub(lambda match: match[0] if match[0][1:-1] in self._called.values() else LEFT_OUT, text)
        text = _TOKEN.sub(lambda match: _ours_of(match[0]), text)
        return re.sub(rf"{LEFT_OUT}(?:[^\w\s]*\s?{LEFT_OUT})+", LEFT_OUT, text)

    def table(self, table: pl.DataFrame) -> pl.DataFrame:
        """A table whose texts are names; lists of texts become null, unless all their words are ours, and votes stay."""
        for name, dtype in table.schema.items():
            if dtype == pl.String and name not in ROW_IDS:
                texts = table[name].drop_nulls().unique(maintain_order=True)
                called = {text: self._replacement(name, text) for text in texts}
                table = table.with_columns(pl.col(name).replace_strict(called, return_dtype=pl.String))
            elif dtype == pl.List(pl.String) and not all(map(is_ours, table[name].explode().drop_nulls().unique())):
                table = table.with_columns(pl.lit(None, dtype).alias(name))
            elif isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
                table = table.with_columns(self._numbered_votes(table[name]))
        return table

    def grouped(self, table: pl.DataFrame) -> pl.DataFrame:
        """A table of groups, with each value, and what stands beside it, named by the kind of its column."""
        for name in {"value", "counterpart"} & set(table.columns):
            pairs = table.select("column", name).iter_rows()
            called = [value and self._replacement(column, value) for column, value in pairs]
            table = table.with_columns(pl.Series(name, called, dtype=pl.String))
        return table

    def _numbered_votes(self, votes: pl.Series) -> pl.Series:
        """Votes with their raters numbered; any other list of objects, as turns are, becomes null."""
        of_raters = pl.Schema(votes.explode().struct.schema).get("rater") == pl.String
        if not of_raters:
            return pl.Series(votes.name, [None] * len(votes), dtype=votes.dtype)
        raters = votes.explode().struct.field("rater").drop_nulls().unique(maintain_order=True)
        called = {name: self._replacement("rater", name) for name in raters}
        numbered = pl.field("rater").replace_strict(called, default=None, return_dtype=pl.String)
        return votes.list.eval(pl.element().struct.with_fields(numbered))

    def _replacement(self, column: str, text: str) -> str:
        if column not in NAMED and is_ours(text):
            return text
        return self._called.get(text) or self._call(column if is_ours(column) else "name", text)


def _foreign_names(run: RunFiles) -> Iterator[tuple[str, str]]:
    """(kind, name) of raters, sources, models, arms and methods, in the order of the files."""
    rows = run.columns("ingest", *NAMED, "votes")
    if rows is not None:
        for kind in (name for name in NAMED if name in rows.columns):
            yield from ((kind, name) for name in rows[kind].drop_nulls().unique(maintain_order=True))
        if "votes" in rows.columns:
            voters = rows["votes"].explode().drop_nulls().struct.field("rater").drop_nulls().unique(maintain_order=True)
            yield from (("rater", name) for name in voters)
    for listed in (run.manifest.get("inputs"), run.metrics("ingest").get("files"), run.metrics("reviews").get("files")):
        yield from (("file", file["name"]) for file in _objects(listed) if isinstance(file.get("name"), str))
    for kind, results, key in (("arm", run.ablation, "arms"), ("method", run.comparison, "measures")):
        yield from ((kind, line[kind]) for line in _objects(results.get(key)) if isinstance(line.get(kind), str))


def _subjects(run: RunFiles) -> Iterator[tuple[str, str]]:
    """(name, what it is called) of clusters and holes, whose names are made of words of prompts."""
    for table in SUBJECTS:
        subjects = run.table("coverage", table)
        if subjects is not None and "name" in subjects.columns:
            for name, called in _called_subjects(subjects, table).drop_nulls().unique("given", keep="first").iter_rows():
                if name.strip():
                    yield name, called


def _called_subjects(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """given, called: a cluster goes by its number, a hole by its place in the table."""
    number = pl.col("cluster") if "cluster" in table.columns else pl.int_range(1, pl.len() + 1)
    return table.select(given="name", called=pl.format("{} {}", pl.lit(name.removesuffix("s")), number))


def _objects(listed: Any) -> list[dict[str, Any]]:
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _ours_of(token: str) -> str:
    """A token with the words left out that are not ours; nothing of a path or a file's name is."""
    return LEFT_OUT if _PATH.search(token) else _WORD.sub(lambda word: word[0] if is_ours(word[0]) else LEFT_OUT, token)


def is_ours(text: str) -> bool:
    """Whether each word of it is a number, a digest, or a word of ktodata's code."""
    return all(_PLAIN.fullmatch(word) or word.casefold() in _vocabulary() for word in _WORD.findall(text))


@cache
def _vocabulary() -> frozenset[str]:
    """The words of all strings and names in ktodata's code; what its documentation gives as examples is not among them."""
    words: set[str] = set()
    package = Path(str(resources.files("ktodata")))
    for file in package.rglob("*.py"):
        if not set(NOT_OURS) & set(file.relative_to(package).parts):
            for text in _strings(ast.parse(file.read_text(encoding="utf-8"))):
                words.update(word.casefold() for word in _WORD.findall(text))
    return frozenset(words)


def _strings(tree: ast.Module) -> Iterator[str]:
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg
