"""Does the label, given the content, change with who gave it, where it came from, or when?

p_desirable says what the content alone leads one to expect. Where a source, rater, model, script or period departs from it, the
criteria differ there. Three shapes are looked for, in each group and on all rows together:

- *offset*: the same slope, another threshold (a stricter source);
- *inverted*: the slope is below 0, the more the content promises the worse the verdict (up and down swapped); a slope that is
  merely different is called *slope* (a careless rater's is near 0);
- *change*: offset or slope differ before and after one date (a guideline was rewritten, a button was moved).

Every test is a score test on residuals of the labels, studentised over prompts, and p-values of all tests of all columns are
adjusted together (Holm 1979). What is found is taken into account before the next group is judged: otherwise one strict source
makes all others look lenient. Permuted residuals (Westfall and Young 1993) find a little more at five times the cost, and raise
more false alarms than their level where labels are one-sided (tests/benchmarks/LOG.md).

A group is compared with the rows of no finding and with nothing else: the fit that p is given on them is drawn to p itself, and
where p says too little of the content (of three raters one is inverted), all of them depart from that fit alike, and none from
the others.

Limits. p_desirable was learnt from all labels: what the model can guess of the group from the content it has partly absorbed, so
effects are lower bounds. A group whose content the model misjudges cannot be told from a group with criteria of its own. And one
change a group is looked for, not several.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from ktodata.feedback import check_columns
from ktodata.stats import Z95

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Likeness = Callable[[int, Ints], Floats]  # (place of a row, places [K] of others) -> similarity [K], 1 for the same

ALL = "(all rows)"
OTHERS = "(all others)"
OVER_TIME = "created_at"
WITHIN = ("source", "rater")  # columns in whose groups a change over time is looked for
MIN_ROWS = 20  # of a group; on either side of a change a quarter of that, or a 20th of the group, whichever is more
MIN_PROMPTS = 5
MIN_INFORMATION = 1.0  # sum of p (1 - p): under it a group's labels say too little of any offset
MAX_FINDINGS = 20
CHANGE_DROP = 7.35  # twice the log-likelihood given up at the ends of a 95 % interval of a change point; Hansen 2000, table I
FLOOR_SPREAD = 0.2  # log-odds between groups of one column that are expected whatever the data say
RIDGE = (0.25, 1.0)  # precision of a group's offset and slope around the rest's: sd 2 and 1
EXAMPLES = 5
CANDIDATES = 20  # rows of a finding from which its examples are chosen
LIKE_P = 1000  # rows of nearly the same p that are compared with one by likeness
SHAPES = ("offset", "slope")  # the tests of a change come after those of these

SCHEMA = pl.Schema(
    {
        "column": pl.String(),
        "value": pl.String(),
        "counterpart": pl.String(),
        "kind": pl.String(),
        "since": pl.Datetime("us", "UTC"),
        "since_low": pl.Datetime("us", "UTC"),
        "since_high": pl.Datetime("us", "UTC"),
        "rows": pl.Int64(),
        "effect_points": pl.Float64(),
        "effect_points_low": pl.Float64(),
        "effect_points_high": pl.Float64(),
        "effect_log_odds": pl.Float64(),
        "offset_before": pl.Float64(),
        "slope_before": pl.Float64(),
        "offset": pl.Float64(),
        "slope": pl.Float64(),
        "p_value": pl.Float64(),
        "p_adjusted": pl.Float64(),
        "significant": pl.Boolean(),
    }
)
EXAMPLES_SCHEMA = pl.Schema(
    {
        "column": pl.String(),
        "value": pl.String(),
        "row_id": pl.String(),
        "label": pl.Boolean(),
        "p_desirable": pl.Float64(),
        "other_row_id": pl.String(),
        "other_label": pl.Boolean(),
        "other_p_desirable": pl.Float64(),
        "similarity": pl.Float64(),
    }
)


@dataclass(frozen=True)
class Drift:
    """Where the criteria differ.

    table : one line a group, the most certain first. kind ("none" unless significant); since with its 95 % interval (a change);
        effect_points, share of rows called desirable above what the rest (change: its own past) would call so, -1..1, with its
        95 % interval; effect_log_odds, the same on the log-odds scale, drawn towards 0 by how much groups of the column differ;
        offset and slope against the rest's 0 and 1 (change: after it, with offset_before and slope_before); p_value of the
        group's best test alone, p_adjusted over all tests, significant at the level. `counterpart`: what a group differs from
        where labels cannot show which of the two is off, another group or OTHERS: a group is named alone only
        beside two other parties or more that have most of the rows between them (rows of no group are one party). Of two groups
        that are all of a column the smaller is the `value`. Null: it is the group
    examples : for each significant line rows of the group beside rows of the rest (change: of its past) with like content and the
        opposite label
    metrics : what was tested and how; JSON values only
    """

    table: pl.DataFrame
    examples: pl.DataFrame
    metrics: dict[str, Any]


@dataclass(frozen=True)
class _Grouping:
    """One grouping of the rows that have one, sorted by group and, inside, by time.

    rows : int [n], place in the table; code : int [n], 0..G-1; starts : int [G + 1]; cell : int [n], group x prompt, with
    cell_group its group; last : bool [n], a later time follows inside the group (a change may stand behind this row)
    outside : rows of the table that are in no group
    """

    name: str
    values: list[str]
    rows: Ints
    code: Ints
    starts: Ints
    cell: Ints
    cell_group: Ints
    last: Bools | None
    outside: int

    @property
    def sizes(self) -> Ints:
        """Rows of each group: int [G]."""
        return np.diff(self.starts)

    @property
    def rest(self) -> Ints:
        """Rows that each group is compared with: int [G]."""
        return np.asarray(len(self.rows) + self.outside - self.sizes)

    @property
    def is_mirrored(self) -> bool:
        """Whether two groups have nothing but each other to be compared with: what one departs by, the other does."""
        return len(self.values) == 2 and self.outside < MIN_ROWS

    def counterpart(self, group: int) -> str | None:
        """As `Drift.table` has it, of a group that departs from the others."""
        if self.is_mirrored:
            return self.values[1 - group]
        groups, more = len(self.values), self.outside >= MIN_ROWS
        is_odd = groups + more > 2 and self.sizes[group] < self.rest[group]
        return None if is_odd else OTHERS


@dataclass
class _Departure:
    """A group that departs: its rows in time order, the last one before a change (`cut`), and what was added to their fit."""

    column: _Grouping
    group: int
    shape: int
    p_value: float
    p_adjusted: float
    rows: Ints
    cut: int | None = None
    span: tuple[int, int] | None = None
    terms: list[Floats] = field(default_factory=list)
    covariance: list[Floats] = field(default_factory=list)


@dataclass
class _RowArrays:
    """The rows as arrays: label y, x = log-odds of p, prompt code, time (microseconds; the smallest integer where unknown)."""

    y: Floats
    x: Floats
    prompt: Ints
    time: Ints | None


def criteria_drift(
    rows: pl.DataFrame,
    by: tuple[str, ...],
    *,
    level: float = 0.05,
    likeness: Likeness | None = None,
) -> Drift:
    """Find groups and dates at which the label given the content changes.

    rows : row_id, label (bool), p_desirable (0..1, out of fold, from the content only), prompt_group (int; rows of one prompt may
        depend on each other), and those of `by` and created_at that exist; nulls are left out of that column's tests
    level : chance of any false alarm, over all groups of all columns
    likeness : how alike one row is to others, to choose the examples by; by p_desirable alone if not given

    Sources: Holm 1979; variances clustered by prompt, so that rows of one prompt may hang together (Liang and Zeger 1986).
    """
    check_columns(rows, ("row_id", "label", "p_desirable", "prompt_group"), who="criteria_drift")
    usable = rows.select((pl.col("label").is_not_null() & pl.col("p_desirable").is_finite()).fill_null(value=False)).to_series()
    places, rows = np.flatnonzero(usable.to_numpy()), rows.filter(usable)
    data = _arrays(rows)
    columns = _groupings(rows, by, data)
    metrics: dict[str, Any] = {
        "rows": rows.height,
        "tested": {grouping.name: len(grouping.values) for grouping in columns},
        "level": level,
    }
    if not columns or data.y.min() == data.y.max():
        return Drift(pl.DataFrame(schema=SCHEMA), pl.DataFrame(schema=EXAMPLES_SCHEMA), metrics | {"tests": 0, "significant": 0})
    base = _recalibrated(data.y, data.x, np.zeros(len(data.y)))
    eta = base[0] + base[1] * data.x
    tests = _all_statistics(data, columns, eta, [])
    departures, base, eta = _search_departures(data, columns, base, eta, tests, level)
    table = _drift_table(data, columns, departures, base, eta)
    alike = None if likeness is None else lambda row, others: likeness(int(places[row]), places[others])
    examples = _example_pairs(rows, data, departures, base, alike)
    metrics |= {
        "tests": int(np.isfinite(tests).sum()),
        "unseen_points": [] if departures else _unseen_points(data, columns, eta, tests, level),
        "significant": len(departures),
    }
    return Drift(table, examples, metrics)


def _arrays(rows: pl.DataFrame) -> _RowArrays:
    p = np.clip(rows["p_desirable"].to_numpy().astype(float), 1e-3, 1 - 1e-3)
    time = None
    if OVER_TIME in rows.columns and rows[OVER_TIME].null_count() < rows.height:
        micros = rows[OVER_TIME].cast(pl.Datetime("us", "UTC")).dt.timestamp("us")
        time = micros.fill_null(np.iinfo(np.int64).min).to_numpy().astype(np.int64)
    prompt = np.unique(rows["prompt_group"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    return _RowArrays(rows["label"].to_numpy().astype(float), logit(p), prompt, time)


def _groupings(rows: pl.DataFrame, by: tuple[str, ...], data: _RowArrays) -> list[_Grouping]:
    """The groupings that can be tested: groups of MIN_ROWS and MIN_PROMPTS or more, beside something to compare with."""
    groupings = []
    for name in (OVER_TIME, *by):
        if name not in rows.columns or (name == OVER_TIME and data.time is None):
            continue
        known = rows[name].is_not_null().to_numpy()
        value = pl.repeat(ALL, rows.height, eager=True) if name == OVER_TIME else rows[name].cast(pl.String)
        timed = data.time is not None and name in (OVER_TIME, *WITHIN)
        counted = pl.DataFrame({"value": value, "prompt": data.prompt}).filter(pl.Series(known))
        sizes = counted.group_by("value").agg(pl.len(), prompts=pl.col("prompt").n_unique())
        values = sizes.filter((pl.col("len") >= MIN_ROWS) & (pl.col("prompts") >= MIN_PROMPTS))["value"].sort().to_list()
        if not values or (name != OVER_TIME and sizes.height < 2):
            continue
        place = value.replace_strict(values, list(range(len(values))), default=-1, return_dtype=pl.Int64).to_numpy()
        groupings.append(_grouping(name, values, np.where(known, place, -1), data, timed=timed))
    return groupings


def _grouping(name: str, values: list[str], place: Ints, data: _RowArrays, *, timed: bool) -> _Grouping:
    time = data.time if timed and data.time is not None else np.zeros(len(place), np.int64)
    order = np.lexsort((time, place))
    order = order[place[order] >= 0]
    code = place[order]
    starts = np.searchsorted(code, np.arange(len(values) + 1))
    cells, cell = np.unique(code * (data.prompt.max() + 1) + data.prompt[order], return_inverse=True)
    last = None
    if timed:
        last = np.r_[(time[order][1:] > time[order][:-1]) & (code[1:] == code[:-1]), False]
        size, within = np.diff(starts)[code], np.arange(len(code)) - starts[code]
        min_rows = np.maximum(size // 20, MIN_ROWS // 4)
        last &= (within + 1 >= min_rows) & (size - within - 1 >= min_rows)
        last &= time[order] > np.iinfo(np.int64).min
    outside = len(place) - len(order)
    return _Grouping(name, values, order, code, starts, cell, cells // (data.prompt.max() + 1), last, outside)


@dataclass(frozen=True)
class _Directions:
    """What a column's residuals are summed against: u float [2, n] (1, and x centred in the group), variances of the sums."""

    u: Floats
    model: Floats  # [2, G], sum of v u^2 inside the group
    kept: Floats  # [2, G], share of it that is left once intercept and slope of the rows of no finding are fitted too
    expected: Floats  # [2, G], the sum of u times residual that a group has as those rows have it, whatever their fit is drawn to
    progress: Floats  # [2, n], running share of model variance inside the group, for the bridge


def _directions(column: _Grouping, x: Floats, v: Floats, residual: Floats, rest: Bools) -> _Directions:
    """Score directions of one column at the present fit; v = p (1 - p). rest : bool [N], rows of no finding"""
    groups = len(column.values)
    here_x, here_v = x[column.rows], v[column.rows]
    total = np.bincount(column.code, here_v, groups)
    centre = np.bincount(column.code, here_v * here_x, groups) / np.maximum(total, 1e-12)
    u = np.stack([np.ones(len(here_x)), here_x - centre[column.code]])
    model = np.stack([np.bincount(column.code, here_v * direction**2, groups) for direction in u])
    z = np.stack([np.ones(len(x)), x])
    inverse = np.linalg.inv((v * rest * z) @ z.T + 1e-9 * np.eye(2))
    # 0 at the best fit; the fit of the rest is drawn to p, and what all rows have in common is no group's departure
    common = inverse @ (z @ (residual * rest))
    remaining, expected = np.empty_like(model), np.empty_like(model)
    for k, direction in enumerate(u):
        across = np.stack([np.bincount(column.code, here_v * direction * part[column.rows], groups) for part in z], axis=1)
        remaining[k] = 1 - np.einsum("gi,ij,gj->g", across, inverse, across) / np.maximum(model[k], 1e-12)
        expected[k] = across @ common
    running = np.cumsum(here_v * u**2, axis=1)
    before = np.concatenate([np.zeros((2, 1)), running], axis=1)[:, column.starts[:-1]]
    progress = (running - before[:, column.code]) / np.maximum(model[:, column.code], 1e-12)
    return _Directions(u, model.astype(float), remaining.astype(float), expected.astype(float), progress)


def _statistics(column: _Grouping, how: _Directions, residual: Floats) -> Floats:
    """Log p-value (large-sample) of each group's four tests: float [4, G], nan where it cannot be tested; residual float [N]."""
    groups = len(column.values)
    out = np.full((4, groups), np.nan)
    for k in range(2):
        scores, variance = how.u[k] * residual[column.rows], _variance(column, how, residual, k)
        total = np.bincount(column.code, scores, groups)
        known = how.model[k] > MIN_INFORMATION
        if column.name != OVER_TIME:
            # what differs from a handful of rows differs from nothing that could be told
            sound = known & (how.kept[k] > 0.02) & (column.rest >= MIN_ROWS)
            z = (total - how.expected[k])[sound] / np.sqrt(variance[sound] * how.kept[k][sound])
            out[k, sound] = np.log(2) + norm.logsf(np.abs(z))
        if column.last is None:
            continue
        running = np.cumsum(scores)
        before = np.concatenate([[0.0], running])[column.starts[:-1]]
        bridge = np.abs(running - before[column.code] - how.progress[k] * total[column.code])
        furthest = np.maximum.reduceat(np.where(column.last, bridge, -1.0), column.starts[:-1])
        sound = known & (furthest >= 0)
        out[2 + k, sound] = np.minimum(0, np.log(2) - 2 * furthest[sound] ** 2 / variance[sound])  # Kolmogorov's tail
    return out


def _variance(column: _Grouping, how: _Directions, residual: Floats, k: int) -> Floats:
    """Of each group's sum along a direction: float [G]."""
    by_cell = np.bincount(column.cell, how.u[k] * residual[column.rows], len(column.cell_group))
    robust = np.bincount(column.cell_group, by_cell**2, len(column.values))
    # never under what independent rows would give: few prompts can look alike by chance
    return np.asarray(np.maximum(robust, how.model[k]))


def _unseen_points(data: _RowArrays, columns: list[_Grouping], eta: Floats, tests: Floats, level: float) -> list[float]:
    """Offsets that are found in half of cases at most, in points of the share called desirable, if no other group departs: the
    least and the most of all groups; empty where none is compared.
    """
    p, per_test = expit(eta), level / max(int(np.isfinite(tests).sum()), 1)
    residual, v, index = data.y - p, p * (1 - p), np.array(_index(columns))
    points: list[float] = []
    for number, column in enumerate(columns):
        how = _directions(column, data.x, v, residual, np.ones(len(data.y), bool))
        spread = np.sqrt(_variance(column, how, residual, 0) / np.maximum(how.kept[0], 1e-12)) / column.sizes
        tested = np.isfinite(tests[(index[:, 0] == number) & (index[:, 1] == 0)])
        points += np.minimum(norm.isf(per_test / 2) * spread, 1.0)[tested].tolist()
    return [min(points), max(points)] if points else []


def _all_statistics(data: _RowArrays, columns: list[_Grouping], eta: Floats, departures: list[_Departure]) -> Floats:
    """Log p-values of every test, in the order of _index. departures : those that eta holds"""
    p, rest = expit(eta), _rest(data, departures)
    residual, v = data.y - p, p * (1 - p)
    return np.concatenate([_statistics(each, _directions(each, data.x, v, residual, rest), residual).ravel() for each in columns])


def _search_departures(
    data: _RowArrays, columns: list[_Grouping], base: Floats, eta: Floats, now: Floats, level: float
) -> tuple[list[_Departure], Floats, Floats]:
    """Take the most certain group, fit it, test the others beside it, until none is certain."""
    index = _index(columns)
    departures: list[_Departure] = []
    while len(departures) < MAX_FINDINGS:
        left = np.where(_open_tests(columns, departures, now), now, np.inf)
        best = int(np.argmin(left))
        adjusted = _adjusted(left[best], int(np.isfinite(left).sum()))
        if adjusted > level:
            break
        c, shape, group = index[best]
        if shape < 2 and columns[c].is_mirrored:
            group = int(columns[c].sizes.argmin())
        rows = columns[c].rows[columns[c].starts[group] : columns[c].starts[group + 1]]
        departure = _Departure(columns[c], group, shape, float(np.exp(left[best])), adjusted, rows)
        if shape >= 2:
            _date(departure, data, eta)
        departures.append(departure)
        _, eta = _refit(data, departures)
        now = _all_statistics(data, columns, eta, departures)
    return _judge_again(data, columns, departures, level)


def _judge_again(
    data: _RowArrays, columns: list[_Grouping], departures: list[_Departure], level: float
) -> tuple[list[_Departure], Floats, Floats]:
    """Judge each finding again beside all others: is it one at all, and did it depart always or since a date?

    A group found early may owe its change to a rater found later; one found as constant may have changed beside it.
    """
    for departure in list(departures):
        others = [other for other in departures if other is not departure]
        _, eta = _refit(data, others)
        every = _all_statistics(data, columns, eta, others)
        tests, count = _tests_of(departure, columns, every), int(_open_tests(columns, others, every).sum())
        if _adjusted(min(tests), count) > level:
            departures = others
            continue
        if departure.column.last is None:
            continue
        departure.cut = None
        if departure.column.name != OVER_TIME:  # there a constant departure is no departure
            _, constant = _refit(data, departures)
            tests = _tests_of(departure, columns, _all_statistics(data, columns, constant, departures))
        if _adjusted(min(tests[2:]), count) <= level:
            _date(departure, data, eta)
        elif departure.shape >= 2:
            departure.shape = 0
    return departures, *_refit(data, departures)


def _tests_of(departure: _Departure, columns: list[_Grouping], now: Floats) -> list[float]:
    """The group's four log p-values, infinite where it cannot be tested."""
    own = [
        value
        for value, (c, _, g) in zip(now, _index(columns), strict=True)
        if columns[c] is departure.column and g == departure.group
    ]
    return [value if np.isfinite(value) else np.inf for value in map(float, own)]


def _open_tests(columns: list[_Grouping], departures: list[_Departure], now: Floats) -> Bools:
    """Which tests can be made, of groups that are no finding yet: bool [tests]."""
    done = {(departure.column.name, departure.group) for departure in departures}
    return np.array([(columns[c].name, group) not in done for c, _, group in _index(columns)]) & np.isfinite(now)


def _index(columns: list[_Grouping]) -> list[tuple[int, int, int]]:
    """Column, shape and group of each test, in the order of _all_statistics."""
    return [(c, shape, g) for c, grouping in enumerate(columns) for shape in range(4) for g in range(len(grouping.values))]


def _adjusted(log_p: float, tests: int) -> float:
    """Holm's adjustment of the smallest p-value among `tests` that are left."""
    return float(min(1.0, np.exp(log_p) * max(tests, 1)))


def _fit_offset_slope(y: Floats, x: Floats, eta: Floats, ridge: Floats) -> tuple[Floats, Floats]:
    """Logistic regression y ~ eta + a + b x with a ridge on (a, b), by Newton: the two numbers, and their covariance [2, 2]."""
    z = np.stack([np.ones(len(x)), x])
    theta = np.zeros(2)
    information = np.eye(2)
    for _ in range(30):
        p = expit(eta + theta @ z)
        information = (p * (1 - p) * z) @ z.T + np.diag(ridge + 1e-6)
        step = np.linalg.solve(information, z @ (y - p) - ridge * theta)
        theta = theta + step / max(1.0, float(np.abs(step).max()))  # at most 1 a step: Newton may overshoot on few rows
        if np.abs(step).max() < 1e-6:
            break
    return theta, np.asarray(np.linalg.inv(information), np.float64)


def _recalibrated(y: Floats, x: Floats, eta: Floats) -> Floats:
    """Intercept and slope of y on x beside eta, the slope drawn to 1 (sd 0.5) and not below 0.

    A p that knows nothing is all but constant, and what little it varies goes against the left-out labels: fitted freely its
    slope would be large and negative, and every group look inverted beside it.
    """
    base = _fit_offset_slope(y, x, eta + x, np.array([0.0, 4.0]))[0] + np.array([0.0, 1.0])
    return base if base[1] > 0 else _fit_offset_slope(y, x, eta, np.array([0.0, 1e9]))[0]


def _date(departure: _Departure, data: _RowArrays, eta: Floats) -> None:
    """The split of a group's rows that fits best, and the splits that fit hardly worse. Sets `cut` and `span`."""
    column, rows = departure.column, departure.rows
    last = np.zeros(0, bool) if column.last is None else column.last
    places = np.flatnonzero(last[column.starts[departure.group] : column.starts[departure.group + 1]])
    y, x, at = data.y[rows], data.x[rows], eta[rows]
    best, best_path, best_place = -np.inf, np.empty(0), 0
    # the likelihood of a split has local peaks: start from several
    for start in places[np.linspace(0, len(places) - 1, min(7, len(places))).astype(int)]:
        place, path = int(start), np.empty(0)
        for _ in range(10):
            before = _fit_offset_slope(y[: place + 1], x[: place + 1], at[: place + 1], np.array(RIDGE))[0]
            after = _fit_offset_slope(y[place + 1 :], x[place + 1 :], at[place + 1 :], np.array(RIDGE))[0]
            gain = _log_likelihood(y, at + before[0] + before[1] * x) - _log_likelihood(y, at + after[0] + after[1] * x)
            path = np.cumsum(gain)[places] + _log_likelihood(y, at + after[0] + after[1] * x).sum()
            following = int(places[path.argmax()])
            if following == place:
                break
            place = following
        if path.max() > best:
            best, best_path, best_place = float(path.max()), path, place
    near = places[2 * (best - best_path) <= CHANGE_DROP]
    departure.cut, departure.span = best_place, (int(near[0]), int(near[-1]))


def _log_likelihood(y: Floats, eta: Floats) -> Floats:
    return np.asarray(y * eta - np.logaddexp(0, eta))


def _refit(data: _RowArrays, departures: list[_Departure]) -> tuple[Floats, Floats]:
    """Recalibrate p on the rows of no finding, then fit each finding beside the others: (intercept, slope) and eta float [N]."""
    rest = _rest(data, departures)
    extra = np.zeros((len(departures), len(data.y)))
    base = np.zeros(2)
    for _ in range(4):
        added = extra.sum(axis=0)
        base = _recalibrated(data.y[rest], data.x[rest], added[rest])
        for k, departure in enumerate(departures):
            eta = base[0] + base[1] * data.x + extra.sum(axis=0) - extra[k]
            extra[k] = 0
            departure.terms, departure.covariance = [], []
            for part in _row_parts(departure):
                terms, covariance = (
                    _fit_offset_slope(data.y[part], data.x[part], eta[part], np.array(RIDGE))
                    if len(part)
                    else (np.zeros(2), np.eye(2))
                )
                extra[k][part] = terms[0] + terms[1] * data.x[part]
                departure.terms.append(terms)
                departure.covariance.append(covariance * _inflation(data, part, eta + extra[k]))
    return base, np.asarray(base[0] + base[1] * data.x + extra.sum(axis=0))


def _rest(data: _RowArrays, departures: list[_Departure]) -> Bools:
    """The rows of no finding, but for one of all rows; all where these are too few: bool [N]."""
    rest = np.ones(len(data.y), bool)
    for departure in departures:
        if departure.column.name != OVER_TIME:
            rest[departure.rows] = False
    return rest if rest.sum() >= MIN_ROWS else np.ones(len(data.y), bool)


def _row_parts(departure: _Departure) -> list[Ints]:
    """The group's rows, or those before and those after its change. Over all rows the time before the change *is* the rest."""
    if departure.cut is None:
        return [departure.rows]
    before, after = departure.rows[: departure.cut + 1], departure.rows[departure.cut + 1 :]
    return [before[:0], after] if departure.column.name == OVER_TIME else [before, after]


def _inflation(data: _RowArrays, part: Ints, eta: Floats) -> float:
    """How much more rows of one prompt vary together than apart: >= 1."""
    if not len(part):
        return 1.0
    p = expit(eta[part])
    together = np.bincount(data.prompt[part], data.y[part] - p)
    return max(1.0, float((together**2).sum() / max((p * (1 - p)).sum(), 1e-9)))


def _drift_table(
    data: _RowArrays, columns: list[_Grouping], departures: list[_Departure], base: Floats, eta: Floats
) -> pl.DataFrame:
    index, now = _index(columns), _all_statistics(data, columns, eta, departures)
    lines: list[dict[str, Any]] = []
    for number, column in enumerate(columns):
        by_group = {departure.group: departure for departure in departures if departure.column is column}
        own = np.array([c == number for c, _, _ in index])
        tests = now[own].reshape(4, -1)
        fitted = {}
        for group in range(len(column.values)):
            if group not in by_group and not np.isfinite(tests[:, group]).any():
                continue
            departure = by_group.get(group) or _no_departure(column, group, tests, int(np.isfinite(now).sum()))
            if group not in by_group:
                terms, covariance = _fit_offset_slope(
                    data.y[departure.rows], data.x[departure.rows], eta[departure.rows], np.array(RIDGE)
                )
                departure.terms, departure.covariance = [terms], [covariance * _inflation(data, departure.rows, eta)]
            fitted[group] = departure
        spread = _between([departure for departure in fitted.values() if departure.cut is None], data)
        lines += [
            _drift_line(departure, data, base, spread, significant=group in by_group) for group, departure in fitted.items()
        ]
    table = pl.DataFrame(lines, schema=SCHEMA, infer_schema_length=None)
    return table.sort("significant", "p_adjusted", "p_value", descending=[True, False, False], maintain_order=True)


def _no_departure(column: _Grouping, group: int, tests: Floats, count: int) -> _Departure:
    """A group of which nothing was found, with its most certain test."""
    shape = int(np.nanargmin(tests[:, group]))
    value = float(tests[shape, group])
    rows = column.rows[column.starts[group] : column.starts[group + 1]]
    return _Departure(column, group, shape, float(np.exp(value)), _adjusted(value, count), rows)


def _mean_effect(departure: _Departure, data: _RowArrays) -> tuple[float, float]:
    """A group's departure in log-odds at its own mean content, and the variance of that."""
    at = np.array([1.0, float(data.x[departure.rows].mean())])
    return float(departure.terms[-1] @ at), float(at @ departure.covariance[-1] @ at)


def _between(groups: list[_Departure], data: _RowArrays) -> float:
    """Variance of true departures between groups of one column, by moments, not under FLOOR_SPREAD squared."""
    if not groups:
        return FLOOR_SPREAD**2
    effects = np.array([_mean_effect(departure, data) for departure in groups])
    return max(FLOOR_SPREAD**2, float((effects[:, 0] ** 2 - effects[:, 1]).mean()))


def _drift_line(departure: _Departure, data: _RowArrays, base: Floats, spread: float, *, significant: bool) -> dict[str, Any]:
    part = _row_parts(departure)[-1]
    x = data.x[part]
    after, covariance = departure.terms[-1], departure.covariance[-1]
    before, covariance_before = (
        (departure.terms[0], departure.covariance[0]) if departure.cut is not None else (np.zeros(2), np.zeros((2, 2)))
    )
    if departure.cut is not None and departure.column.name == OVER_TIME:
        before, covariance_before = np.zeros(2), np.zeros((2, 2))
    at = np.array([1.0, float(x.mean())])
    difference, both = after - before, covariance + covariance_before
    shrink = spread / (spread + float(at @ both @ at)) if departure.cut is None else 1.0
    drawn = np.random.default_rng(0).multivariate_normal(difference * shrink, both * shrink, size=400)
    sample = x[np.linspace(0, len(x) - 1, min(len(x), 500)).astype(int)]
    start = base[0] + before[0] + (base[1] + before[1]) * sample
    points = (expit(start + drawn[:, :1] + drawn[:, 1:] * sample) - expit(start)).mean(axis=1)
    low, high = np.quantile(points, [0.025, 0.975])
    moved = shrink * difference
    slope = (base[1] + after[1]) / base[1] if abs(base[1]) > 1e-9 else float("nan")
    slope_high = base[1] + after[1] + Z95 * float(np.sqrt(covariance[1, 1]))
    return {
        "column": departure.column.name,
        "value": departure.column.values[departure.group],
        "counterpart": departure.column.counterpart(departure.group) if significant and departure.cut is None else None,
        "kind": _kind(departure, slope_high) if significant else "none",
        "rows": len(departure.rows),
        "effect_points": float((expit(start + moved[0] + moved[1] * sample) - expit(start)).mean()),
        "effect_points_low": float(low),
        "effect_points_high": float(high),
        "effect_log_odds": float(moved @ at),
        "offset_before": float(before[0]) if departure.cut is not None else None,
        "slope_before": float((base[1] + before[1]) / base[1]) if departure.cut is not None else None,
        "offset": float(after[0]),
        "slope": float(slope),
        "p_value": departure.p_value,
        "p_adjusted": departure.p_adjusted,
        "significant": significant,
        **_dates(departure, data),
    }


def _kind(departure: _Departure, slope_high: float) -> str:
    if departure.cut is not None or departure.shape >= 2:
        return "change"
    if slope_high < 0:
        return "inverted"
    return SHAPES[departure.shape]


def _dates(departure: _Departure, data: _RowArrays) -> dict[str, datetime | None]:
    """When it changed: `since` is the first row after; the interval runs from the row before its first likely cut on."""
    if departure.cut is None or departure.span is None or data.time is None:
        return {"since": None, "since_low": None, "since_high": None}
    time = data.time[departure.rows]
    places = (departure.cut + 1, departure.span[0], departure.span[1] + 1)
    since, low, high = (pl.Series([int(time[k])]).cast(pl.Datetime("us", "UTC")).item() for k in places)
    return {"since": since, "since_low": low, "since_high": high}


def _example_pairs(
    rows: pl.DataFrame, data: _RowArrays, departures: list[_Departure], base: Floats, likeness: Likeness | None
) -> pl.DataFrame:
    """For each finding rows that it explains best, each beside a row like it outside that has the other label."""
    ids, p = rows["row_id"].cast(pl.String), rows["p_desirable"].to_numpy()
    lines = []
    for departure in departures:
        group = {"column": departure.column.name, "value": departure.column.values[departure.group]}
        pairs = [
            _most_alike(row, _rows_to_compare(departure, data.y, row), data.x, likeness)
            for row in _explained(departure, data, base)
        ]
        matched = [pair for pair in pairs if pair is not None]
        for row, other, similarity in sorted(matched, key=lambda pair: -(pair[2] or 0.0))[:EXAMPLES]:
            pair = {"row_id": ids[row], "label": bool(data.y[row]), "p_desirable": float(p[row])}
            pair |= {"other_row_id": ids[other], "other_label": bool(data.y[other]), "other_p_desirable": float(p[other])}
            lines.append(group | pair | {"similarity": similarity})
    return pl.DataFrame(lines, schema=EXAMPLES_SCHEMA)


def _explained(departure: _Departure, data: _RowArrays, base: Floats) -> list[int]:
    """The rows that a finding explains best; the most alike of these pairs are shown."""
    inside = _row_parts(departure)[-1]
    plain = base[0] + base[1] * data.x[inside]
    moved = departure.terms[-1][0] + departure.terms[-1][1] * data.x[inside]
    gain = _log_likelihood(data.y[inside], plain + moved) - _log_likelihood(data.y[inside], plain)
    order = np.argsort(-gain, kind="stable")[:CANDIDATES]
    return [int(row) for row in inside[order[gain[order] > 0]]]


def _rows_to_compare(departure: _Departure, y: Floats, row: int) -> Ints:
    """Rows with the other label: outside the group, or before its change."""
    outside = np.ones(len(y), bool)
    outside[departure.rows] = False
    if departure.cut is not None:
        outside[:] = False
        outside[departure.rows[: departure.cut + 1]] = True
    return np.flatnonzero(outside & (y != y[row]))


def _most_alike(row: int, others: Ints, x: Floats, likeness: Likeness | None) -> tuple[int, int, float | None] | None:
    """(row, the most alike of the others, how alike): among those of like p, by `likeness`; by p alone without it."""
    if not len(others):
        return None
    near = others[np.argsort(np.abs(x[others] - x[row]), kind="stable")[:LIKE_P]]
    if likeness is None:
        return row, int(near[0]), None
    alike = likeness(row, near)
    return row, int(near[alike.argmax()]), float(alike.max())
