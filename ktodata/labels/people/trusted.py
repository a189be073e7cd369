"""What trusted labels say about the given ones, which rows to ask for when there are none, and which of them measure."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray
from scipy.special import bdtrc

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.people.review_queue import shares
from ktodata.stage import HELD
from ktodata.stats import Interval, auroc, clopper_pearson, share, share_of_draw, share_with_unknown

NEARLY_ALL = 0.9  # of a random draw; a few rows are skipped because nobody could say
MIN_DRAWN = 10  # rows
BY_CHANCE = 0.001  # a beginning that is reviewed as far by chance, given how many of the others are, is no sign of a draw
RUN = 3  # reviewed rows in a row that carry a draw on past one that was skipped
DRAW_SEED = "draw_seed"  # the column that names the random draw for which the review desk asked about a row; null elsewhere
CONTESTED = "reviewed_contested"  # the column that marks rows which people judged, and which have no label that they agree on

RATES_SCHEMA = pl.Schema(
    {
        "by": pl.String(),
        "value": pl.String(),
        "given": pl.Boolean(),
        "rows": pl.Int64(),
        "wrong": pl.Int64(),
        "undecided": pl.Int64(),
        "error_rate": pl.Float64(),
        "error_low": pl.Float64(),
        "error_high": pl.Float64(),
    }
)


def trusted_rates(trusted: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Share of wrong labels, with exact intervals: per given class, and per class and value of each column of `by`.

    trusted : label, trusted_label (null of rows that are `undecided`: contested, or skipped) and the columns of `by`
    rows, wrong, error_rate : of the rows with a trusted label. An interval's low end takes undecided rows for right, its high end
    for wrong ones.
    """
    tables = [_rates(trusted, "label", pl.lit(None, pl.String))]
    tables += [_rates(trusted, name, pl.col(name).cast(pl.String)) for name in by if name in trusted.columns]
    return pl.concat(tables)


def _rates(trusted: pl.DataFrame, by: str, value: pl.Expr) -> pl.DataFrame:
    wrong = (pl.col("label") != pl.col("trusted_label")).sum().cast(pl.Int64)
    undecided = pl.col("trusted_label").null_count().cast(pl.Int64)
    counts = {"rows": pl.len().cast(pl.Int64) - undecided, "wrong": wrong, "undecided": undecided}
    table = trusted.group_by(value.alias("value"), given="label").agg(**counts).filter(pl.col("rows") > 0)
    hits, rows, open_rows = (table[name].to_numpy() for name in ("wrong", "rows", "undecided"))
    low, high = clopper_pearson(hits, rows + open_rows)[0], clopper_pearson(hits + open_rows, rows + open_rows)[1]
    return (
        table.with_columns(
            by=pl.lit(by), error_rate=pl.col("wrong") / pl.col("rows"), error_low=pl.Series(low), error_high=pl.Series(high)
        )
        .select(RATES_SCHEMA.names())
        .cast(RATES_SCHEMA)
        .sort("value", "given", nulls_last=True)
    )


def check_flags(
    trusted: pl.DataFrame, sample: pl.DataFrame, *, given: bool, size: int, contested: int = 0, skipped: int = 0
) -> dict[str, Any]:
    """How the labels and the detector did on the trusted rows of one given class, with exact intervals.

    trusted : label, trusted_label, label_quality, flagged, drawable
    sample : those of them that were drawn at random; every share is theirs, but for `reviewed_flags`, of all that were judged,
        and the ends of `error_rate`, which hold no share that the other verdicts rule out
    size : rows of the class that could be drawn; where all of them were, shares are counted, and have no interval
    contested, skipped : rows of the draw without a trusted label, as people differ on them, or nobody has judged them. They may
        all be right or all be wrong, and `error_rate` has room for both
    """
    drawn, rows = (table.filter(pl.col("label") == given) for table in (sample, trusted))
    wrong, flagged = (drawn["label"] != drawn["trusted_label"]).to_numpy(), drawn["flagged"].to_numpy()
    quality = drawn["label_quality"].to_numpy()
    known = np.isfinite(quality)
    judged_flags = rows.filter("flagged")
    right = wrong & flagged
    rate = share_of_draw(int(wrong.sum()), drawn.height, contested + skipped, size)

    def of_drawn(hits: int, trials: int) -> dict[str, float | None]:
        return share(hits, trials, of=trials if drawn.height == size else None).as_dict()

    return {
        "rows": rows.height,
        "drawn_at_random": drawn.height,
        "drawn_wrong": int(wrong.sum()),
        "rates_of": size,
        "drawn_contested": contested,
        "drawn_skipped": skipped,
        "error_rate": within_known(rate, rows.filter("drawable"), size).as_dict(),
        "drawn_flagged": int(flagged.sum()),
        "flag_precision": of_drawn(int(right.sum()), int(flagged.sum())),
        "flag_recall": of_drawn(int(right.sum()), int(wrong.sum())),
        "reviewed_flags": share(
            int((judged_flags["label"] != judged_flags["trusted_label"]).sum()), judged_flags.height
        ).as_dict(),
        "auroc": auroc(quality[wrong & known], quality[~wrong & known]).as_dict(),
    }


def within_known(rate: Interval, judged: pl.DataFrame, size: int) -> Interval:
    """The draw's interval of the share of wrong labels, without what the verdicts on other rows rule out.

    judged : label and trusted_label of all judged rows of the `size` that the rate is of, picked ones too
    value : None where it is ruled out. Where the whole interval is, the draw is refuted, and what is left is all that is certain.
    """
    if rate.low is None or rate.high is None or rate.is_counted:
        return rate
    wrong = judged.filter(pl.col("label") != pl.col("trusted_label")).height
    least, most = wrong / size, 1 - (judged.height - wrong) / size
    low, high = max(rate.low, least), min(rate.high, most)
    if low > high:
        return Interval(None, least, most)
    return Interval(rate.value if rate.value is not None and low <= rate.value <= high else None, low, high)


def flip_rates(given: dict[bool, int], error_rates: dict[bool, float | None]) -> dict[str, float] | None:
    """How often a label of each *true* class was flipped, as `kd.train.fit(flip_rates=...)` takes it; None where it is not known.

    given : rows of each given label. error_rates : share of wrong ones among each given label, in [0, 1]
    With n the rows and e the error rates, n_U e_U of the n_D (1 - e_D) + n_U e_U truly desirable rows are labelled undesirable.
    """
    down, up = error_rates[False], error_rates[True]
    if down is None or up is None:
        return None
    lost, gained = given[False] * down, given[True] * up
    desirable, undesirable = given[True] - gained + lost, given[False] - lost + gained
    if min(desirable, undesirable) <= 0:
        return None
    return {"desirable": lost / desirable, "undesirable": gained / undesirable}


def rows_to_review(rows: pl.DataFrame, *, total: int, seed: int) -> pl.DataFrame:
    """A random sample of `total` rows, shared between the given classes as review_queue.shares says: row_id, label, stands_for,
    shuffled.

    rows : row_id, label
    `stands_for` is how many rows of its class each drawn row stands for: the weight to estimate the whole from.
    """
    ordered = rows[draw_order(rows["row_id"], seed)]
    strata = [ordered.filter(pl.col("label") == given).select("row_id", "label") for given in (False, True)]
    take = shares(strata[0].height, strata[1].height, total)
    drawn = [
        stratum.head(count).with_columns(stands_for=pl.lit(stratum.height / max(count, 1)))
        for stratum, count in zip(strata, take, strict=True)
    ]
    # the classes mixed by the rows themselves, so that a reviewer can learn no pattern, not even by reviewing two sets; each in
    # its order, so that whoever stops early has judged the beginning of the draw
    sides, of_rows = np.repeat([0, 1], take), xxhash.xxh3_64_intdigest("\n".join(pl.concat(drawn)["row_id"]).encode())
    mixed = np.empty(len(sides), np.int64)
    mixed[np.random.default_rng([seed, of_rows]).permutation(len(sides))] = sides
    places = np.where(mixed == 0, np.cumsum(mixed == 0) - 1, take[0] + np.cumsum(mixed == 1) - 1)
    return pl.concat(drawn)[places]


def next_of_draw(rows: pl.DataFrame, count: int, *, seed: int) -> pl.Series:
    """Row ids of the next `count` rows of the draw that nobody has judged: of the shortest draw that holds so many.

    rows : row_id, label, unjudged, of all that could be drawn. Whatever a judged row was judged for, it takes nobody's place
    """
    ordered = rows[draw_order(rows["row_id"], seed)]
    sides = [ordered.filter(pl.col("label") == given)["unjudged"].to_numpy() for given in (False, True)]
    unjudged = [np.r_[0, np.cumsum(side)] for side in sides]

    def holds(total: int) -> int:
        return int(sum(side[take] for side, take in zip(unjudged, shares(len(sides[0]), len(sides[1]), total), strict=True)))

    count = min(count, int(rows["unjudged"].sum()))
    draw = rows_to_review(rows, total=bisect_left(range(rows.height), count, key=holds), seed=seed)
    return draw.join(rows.filter("unjudged"), on="row_id", how="semi", maintain_order="left")["row_id"]


def draw_order(row_ids: pl.Series, seed: int) -> NDArray[np.int64]:
    """Places of the rows in a random order that each row's id and the seed fix, whatever rows are there: int [N]."""
    numbers = np.array([xxhash.xxh3_64_intdigest(name.encode(), seed=seed) for name in row_ids], dtype=np.uint64)
    return np.argsort(numbers, kind="stable")


def random_sample(
    row_ids: pl.Series,
    labels: NDArray[np.bool_],
    reviewed: NDArray[np.bool_],
    seed: int,
    recorded: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Which rows were drawn at random, reviewed or skipped, and so may stand for their class: bool [N].

    Within a class rows are drawn in `draw_order`, so its beginning is a random sample, and whether it was reviewed can be
    checked; a row further down was reviewed for another reason: because it looked doubtful, say. The beginning ends where less
    than NEARLY_ALL of it is reviewed, and after a gap it goes on only for RUN reviewed rows in a row.

    recorded : bool [N], rows that the desk is known to have asked about in this order. The beginning that ends with one of them
    was drawn, however many others are reviewed, and so was a class of which all were. What comes after, all of it without a
    record, is inferred: with under MIN_DRAWN rows, or where so many of the others are reviewed that it may be by chance, nobody
    can be shown to have followed the order, no such row is known to be drawn, and no rate follows from it.
    """
    known, inferred = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    if not reviewed.any():
        return known
    every = draw_order(row_ids, seed)
    for given in (False, True):
        order = every[labels[every] == given]
        start = 0 if recorded is None else _end_of_draw(reviewed[order], recorded[order])
        start = len(order) if reviewed[order].all() else start
        known[order[:start]] = True
        # of nearly all rows it does not matter why they were reviewed: the few others count as undecided
        all_of_them = len(order) > 0 and reviewed[order].mean() >= NEARLY_ALL
        rest = order[start:]
        end = len(rest) if all_of_them else _end_of_draw(reviewed[rest])
        first, others = reviewed[rest[:end]], reviewed[rest[end:]]
        if not len(others) or bdtrc(first.sum() - 1.0, end, others.mean()) <= BY_CHANCE:
            inferred[rest[:end]] = True
    return known | inferred if (inferred & reviewed).sum() >= MIN_DRAWN else known


def unjudged_before(
    row_ids: pl.Series, labels: NDArray[np.bool_], judged: NDArray[np.bool_], ends: NDArray[np.bool_], seed: int
) -> NDArray[np.bool_]:
    """Rows that nobody has judged, and that stand before the last of `ends` of their class in the order of the draw: bool [N]."""
    before = np.zeros(len(labels), bool)
    every = draw_order(row_ids, seed) if ends.any() else np.zeros(0, np.int64)
    for given in (False, True):
        order = every[labels[every] == given]
        places = np.flatnonzero(ends[order])
        before[order[: places[-1] if len(places) else 0]] = True
    return before & ~judged


def _end_of_draw(reviewed: NDArray[np.bool_], recorded: NDArray[np.bool_] | None = None) -> int:
    """How many rows of an order were drawn, by which of them were reviewed: bool [N].

    recorded : it ends with one of these, as a row that was judged for what it looks like must not say how far the draw went
    """
    may_end = reviewed if recorded is None else reviewed & recorded
    share = np.cumsum(reviewed) / np.arange(1, len(reviewed) + 1)
    skipped = np.flatnonzero(~reviewed)
    run = np.arange(len(reviewed)) - np.r_[-1, skipped][np.searchsorted(skipped, np.arange(len(reviewed)))]
    in_first_run = np.arange(len(reviewed)) < (skipped[0] if len(skipped) else len(reviewed))
    ends = np.flatnonzero(may_end & (share >= NEARLY_ALL) & (in_first_run | (run >= RUN)))
    return int(ends[-1]) + 1 if len(ends) else 0


def drawable(table: pl.DataFrame) -> pl.Series:
    """Which rows a random draw is made of: training rows, and those that wait as people differ on them (`is_contested`), but none
    whose text is held for having both labels, or was until a verdict settled it.

    Such a text's rows were picked for that, and the one that a verdict overrules would count as wrong twice.

    table : row_id, label, trained, and, where rows may be held, state, prompt, completion
    """
    contested = is_contested(table)
    rows = table.with_columns(drawable=pl.col("trained") | contested)
    held = table.filter((pl.col("state") == HELD) & ~contested) if "state" in table.columns else table.clear()
    if held.is_empty():
        return rows["drawable"]
    texts = held.select("prompt", "completion", held=pl.lit(value=True)).unique()
    joined = rows.join(texts, on=["prompt", "completion"], how="left", maintain_order="left")
    return joined.select(pl.col("drawable") & pl.col("held").is_null()).to_series()


def is_contested(table: pl.DataFrame) -> pl.Series:
    """Rows to train on that people judged and have no label for that they agree on, each text once: bool [N].

    None whose text is there with both labels.
    """
    if CONTESTED not in table.columns or not table[CONTESTED].any():
        return pl.repeat(value=False, n=table.height, dtype=pl.Boolean, eager=True)
    in_training = pl.col("part") == "train" if "part" in table.columns else pl.lit(value=True)
    marked, text = pl.col(CONTESTED).fill_null(value=False) & in_training, ("prompt", "completion")
    one_label = pl.col("label").n_unique().over(text) == 1
    return table.select(marked & one_label & pl.struct(*text, marked.alias("marked")).is_first_distinct()).to_series()


def mark_reviewed(table: pl.DataFrame, seed: int, *, all_at_random: bool = False) -> pl.DataFrame:
    """Add, of training rows: reviewed, wrong (by their review), and drawn (they were reviewed because a random draw said so:
    the desk's record in DRAW_SEED tells, or else which rows were reviewed).

    And drawable; contested (as `is_contested` says); undecided: of the draw as far as it went, those without a trusted label, as
    they are contested or nobody has judged them. outgrown : judged, and drawn by the desk's record, but the draw no longer holds:
    too many rows came since, or were passed over; between : those that nobody has judged, before the last outgrown one.
    all_at_random : somebody vouches that every row with a trusted label was drawn at random within its given class
    """
    reviewed = pl.col("trusted_label").is_not_null() & pl.col("trained")
    table = table.with_columns(
        reviewed=reviewed,
        wrong=reviewed & (pl.col("trusted_label") != pl.col("label")).fill_null(False),
        drawable=drawable(table),
        contested=is_contested(table),
    )
    # the draw was made among these rows; held ones and held-out ones would count as drawn and not reviewed
    recorded = (pl.col(DRAW_SEED) == seed).fill_null(value=False) if DRAW_SEED in table.columns else pl.lit(value=False)
    judged = pl.col("reviewed") | pl.col("contested")
    rows = table.filter("drawable").select("row_id", "label", judged=judged, recorded=recorded)
    labels, is_judged, by_record = (np.asarray(rows[name].to_numpy(), bool) for name in ("label", "judged", "recorded"))
    sample = is_judged if all_at_random else random_sample(rows["row_id"], labels, is_judged, seed, by_record)
    outgrown = is_judged & by_record & ~sample
    between = unjudged_before(rows["row_id"], labels, is_judged, outgrown, seed)
    marks = {"sampled": sample, "outgrown": outgrown, "between": between}
    drawn = rows.select("row_id", **{name: pl.Series(of_rows, dtype=pl.Boolean) for name, of_rows in marks.items()})
    table = table.join(drawn, on="row_id", how="left", maintain_order="left").with_columns(pl.col(*marks).fill_null(value=False))
    return table.with_columns(
        drawn=pl.col("sampled") & pl.col("reviewed"), undecided=pl.col("sampled") & ~pl.col("reviewed")
    ).drop("sampled")


def reviewed_metrics(table: pl.DataFrame) -> dict[str, Any]:
    """What trusted labels say of the given ones, as JSON values: counts, and shares of the random draw with exact intervals.

    table : what mark_reviewed adds, label, trusted_label, label_quality, flagged
    rows : judged training rows; a row that a verdict on its text overruled is none. judged_wrong : of these; wrong : of those
    drawn at random. judged_elsewhere : judged texts of which no row is to train on.
    left_to_draw : rows that could be drawn and that nobody has judged. not_to_draw : training rows of texts with both labels,
    which no rate is of. draw_outgrown : judged rows that the desk drew, of a draw that no longer holds; left_between : rows to
    judge until it does
    error_rate : of all rows that could be drawn, each given class by its size; `value` leaves rows of the draw out that nobody
    has judged or that people differ on, the ends take them all for right and all for wrong, and hold no share that the other
    verdicts rule out. draw_refuted : whether they rule all of it out. flip_rates : see `flip_rates`; _low
    and _high with both error rates at that end of their intervals.
    """
    trusted = table.filter("reviewed")
    sample = trusted.filter("drawn")
    sizes = {given: int((table["drawable"] & (table["label"] == given)).sum()) for given in LABEL_NAMES}
    undecided = {given: table.filter("undecided", pl.col("label") == given)["contested"] for given in LABEL_NAMES}
    counts = {given: {"contested": int(rows.sum()), "skipped": int((~rows).sum())} for given, rows in undecided.items()}
    classes = {given: check_flags(trusted, sample, given=given, size=sizes[given], **counts[given]) for given in LABEL_NAMES}
    hits, trials = ([classes[given][name] for given in LABEL_NAMES] for name in ("drawn_wrong", "drawn_at_random"))
    unknown = (len(undecided[False]), len(undecided[True]))
    by_draw = share_with_unknown((hits[0], hits[1]), (trials[0], trials[1]), unknown, (sizes[False], sizes[True]))
    whole = within_known(by_draw, trusted.filter("drawable"), sum(sizes.values()))
    ends = {end: {given: classes[given]["error_rate"][end] for given in LABEL_NAMES} for end in ("value", "low", "high")}
    return {
        "rows": trusted.height,
        "drawn_at_random": sample.height,
        "drawn_contested": sum(of["contested"] for of in counts.values()),
        "drawn_skipped": sum(of["skipped"] for of in counts.values()),
        "wrong": sum(hits),
        "judged_wrong": int(trusted["wrong"].sum()),
        "judged_elsewhere": _judged_elsewhere(table),
        "error_rate": whole.as_dict(),
        "draw_refuted": whole.low is not None and not (by_draw.low or 0.0) <= whole.low <= (by_draw.high or 0.0),
        "rates_of": sum(sizes.values()),
        "not_to_draw": _not_to_draw(table),
        "left_to_draw": int((table["drawable"] & ~table["reviewed"] & ~table["contested"]).sum()),
        "draw_outgrown": int(table["outgrown"].sum()),
        "left_between": int(table["between"].sum()),
        **{LABEL_NAMES[given]: classes[given] for given in LABEL_NAMES},
        "flip_rates": flip_rates(sizes, ends["value"]),
        # both grow with the error rate of either class
        "flip_rates_low": flip_rates(sizes, ends["low"]),
        "flip_rates_high": flip_rates(sizes, ends["high"]),
    }


def _not_to_draw(table: pl.DataFrame) -> int:
    """Training rows that wait for a person, or did until a verdict settled their text, and that no draw is made of."""
    waits = pl.col("state") == HELD if "state" in table.columns else pl.lit(value=False)
    waits &= pl.col("part") == "train" if "part" in table.columns else pl.lit(value=True)
    return table.filter(~pl.col("drawable"), pl.col("trained") | waits).height


def _judged_elsewhere(table: pl.DataFrame) -> int:
    text = [name for name in table.columns if name in ("prompt", "completion")] or ["row_id"]
    of_text = table.group_by(text).agg(pl.col("trusted_label").is_not_null().any(), pl.col("trained").any())
    return of_text.filter("trusted_label", ~pl.col("trained")).height
