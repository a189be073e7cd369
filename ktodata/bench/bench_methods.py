r"""What a method of the bench is: one function of a task. `@method("its name")` puts it into the registry.

    from ktodata.bench.bench_methods import BenchAnswer, BenchTask, method

    @method("length")
    def length(task: BenchTask) -> BenchAnswer:
        '''Long answers are taken for good ones.'''
        words = task.table["completion"].str.count_matches(r"\S+").to_numpy().astype(float)
        return BenchAnswer(doubt=np.where(task.labels, -words, words))

`ktodata bench --data FOLDER --add mine.py` measures it beside all others.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.bench.bench_rows import BenchRows, Bools, Floats, Ints
from ktodata.errors import SettingError
from ktodata.labels.people.review_queue import stratified
from ktodata.labels.people.votes import last_votes, votes_of_rows

Kind = TypeVar("Kind", bound=np.generic)


def _own(array: NDArray[Kind]) -> NDArray[Kind]:
    """A copy that is not written to by mistake."""
    own = array.copy()
    own.setflags(write=False)
    return own


@dataclass(frozen=True)
class BenchTask:
    """What a method is given. It never sees the truth of a row that is not reviewed.

    table : bench_rows.COLUMNS and, where the bench has a language model, nats_per_token: its loss of the completion, lower
        is likelier
    labels : bool [N], as given. groups : int [N], of prompts: rows of one group belong on one side of any split
    reviewed : bool [N]; verdicts : bool [N], the truth of reviewed rows, and the given label of all others
    review_weight : float [N], how many rows of its given label a reviewed row stands for, where they were drawn at random: the
        rarer label is reviewed more often, and without it no rate of the reviewed rows is one of all. 0 where none is reviewed
    """

    table: pl.DataFrame
    labels: Bools
    groups: Ints
    reviewed: Bools
    verdicts: Bools
    review_weight: Floats
    seed: int

    @classmethod
    def of(cls, rows: BenchRows, reviewed: Bools, seed: int) -> "BenchTask":
        """The task of these rows, where a person has judged the reviewed ones; nothing in it is shared with another task."""
        verdicts = np.where(reviewed, rows.truth, rows.labels)
        weight = _review_weight(rows.labels, reviewed)
        return cls(rows.table.clone(), _own(rows.labels), _own(rows.groups), _own(reviewed), _own(verdicts), _own(weight), seed)


def _review_weight(labels: Bools, reviewed: Bools) -> Floats:
    """Rows of a given label over the reviewed ones of it, for each reviewed row."""
    weight = np.zeros(len(labels))
    for given in (False, True):
        judged = reviewed & (labels == given)
        weight[judged] = (labels == given).sum() / max(judged.sum(), 1)
    return weight


@dataclass(frozen=True)
class BenchAnswer:
    """doubt : float [N], the higher the likelier wrong; an order. None: the method ranks nothing.

    p_wrong : float [N], where it is meant as a probability. labels : bool [N], after repair; None: only
    reviewed rows change. terms : of the trainer, in the track "train", beside those that all share. dropped : bool [N], rows
    that it does not train on; None: none
    """

    doubt: Floats | None
    p_wrong: Floats | None = None
    labels: Bools | None = None
    terms: Mapping[str, Any] = field(default_factory=dict)
    dropped: Bools | None = None


Answering = Callable[[BenchTask], BenchAnswer]
Choosing = Callable[[BenchTask, int], Ints]


def at_random(task: BenchTask, count: int) -> Ints:
    """Places of `count` rows to review, drawn at random within each given label."""
    return stratified(task.labels, ~task.reviewed, count, seed=task.seed)


@dataclass(frozen=True)
class BenchMethod:
    """choose : places of the rows that a person should judge, as many different ones as it is asked for

    needs_votes : it is asked only where several raters judged the same rows
    needs_model : only where the bench has a language model
    only_trained : it changes no label, and is a line of the track "train" alone
    file : where it stands; code : a digest of it and of what it imports
    """

    name: str
    answer: Answering
    choose: Choosing = at_random
    needs_votes: bool = False
    needs_model: bool = False
    only_trained: bool = False
    file: Path | None = None
    code: str = ""


METHODS: dict[str, BenchMethod] = {}


def method(name: str, *, choose: Choosing = at_random, **kind: Any) -> Callable[[Answering], Answering]:
    """Register a function as a method. kind : fields of BenchMethod. Raises SettingError for a name that is taken."""

    def register(answer: Answering) -> Answering:
        if name in METHODS:
            raise SettingError(f"bench: there is a method {name!r} already.")
        file = getattr(sys.modules.get(answer.__module__), "__file__", None)
        METHODS[name] = BenchMethod(name, answer, choose, **kind, file=Path(file).resolve() if file else None)
        return answer

    return register


def vote_matrix(table: pl.DataFrame) -> Floats:
    """Float [N, raters], raters by name: 1 desirable, 0 undesirable, nan where one has not judged the row."""
    cast = last_votes(votes_of_rows(table)).drop_nulls("rater")
    if cast.is_empty():
        return np.empty((table.height, 0))
    wide = cast.with_columns(pl.col("verdict").cast(pl.Float64)).pivot("rater", index="row_id", values="verdict")
    joined = table.select("row_id").join(wide, on="row_id", how="left", maintain_order="left").drop("row_id")
    return joined.select(sorted(joined.columns)).to_numpy()
