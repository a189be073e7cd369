"""What has changed since the last finished run, where its sources have grown or shrunk since: counts, rates, raters, topics."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ktodata.report.run_files import RunFiles
from ktodata.report.shares import Share
from ktodata.report.text import count, percent, plural

PREVIOUS = "previous"  # below stages/: row_id, label, action and part of each row when the run was last finished
MIN_ROWS = 20  # of either side, from which on two rates are compared
LEVEL = 0.05  # of all comparisons of one kind together (Bonferroni)
SHOWN = 5


@dataclass(frozen=True)
class GroupChange:
    """A rater's share of desirable rows, or a topic's share of all rows: among the added rows and among those before."""

    name: str
    added: Share
    before: Share

    def words(self) -> str:
        """In a few words."""
        return f"{self.name} ({percent(self.added.value)} of {count(self.added.total)}, {percent(self.before.value)} before)"


@dataclass(frozen=True)
class ChangesSection:
    """added, gone, moved, decided : rows that came, went, stand in another part, or have another outcome than before.

    rate : desirable rows among the added ones and those before; raters : those whose rate differs; topics : clusters that hold
    more of the added rows; each only where chance would hardly make it so (Fisher's exact test, rows taken one by one)
    """

    added: int
    gone: int
    moved: int
    decided: int
    rate: GroupChange
    rate_differs: bool
    new_raters: tuple[tuple[str, int], ...]
    raters: tuple[GroupChange, ...]
    topics: tuple[GroupChange, ...]

    @property
    def lines(self) -> list[str]:
        """A sentence each."""
        moved = f"{plural(self.moved, 'row')} moved to another part" if self.moved else "no row moved to another part"
        lines = [
            f"{plural(self.added, 'row')} added, {count(self.gone)} gone, {count(self.decided)} with another outcome; {moved}"
        ]
        if self.added:
            word = "more than chance would make it" if self.rate_differs else "no more than chance makes it"
            lines.append(f"{self.rate.words()}: they differ {word}")
        if self.new_raters:
            shown = ", ".join(f"{name} ({count(rows)})" for name, rows in self.new_raters[:SHOWN])
            lines.append(f"{plural(len(self.new_raters), 'new rater')}, with rows: {shown}{_more(self.new_raters)}")
        for what, groups in (("raters who judge otherwise than before", self.raters), ("more asked about", self.topics)):
            if groups:
                lines.append(f"{what}: {'; '.join(each.words() for each in groups[:SHOWN])}{_more(groups)}")
        return lines


def read_changes(run: RunFiles) -> ChangesSection | None:
    """None where nothing is kept of a run before, or the rows are the same."""
    before, now = run.columns(PREVIOUS), run.columns("ingest", "label", "rater")
    if before is None or now is None:
        return None
    now = now.with_columns(added=~pl.col("row_id").is_in(before["row_id"].implode()))
    gone = before.join(now, on="row_id", how="anti").height
    if not gone and not now["added"].any():
        return None
    clusters, names = run.columns("coverage", "cluster"), run.table("coverage", "clusters")
    rate, differs = _rate(now)
    return ChangesSection(
        added=int(now["added"].sum()),
        gone=gone,
        moved=_differing(before, run.columns("split", "part"), "part"),
        decided=_differing(before, _outcomes(run), "action"),
        rate=rate,
        rate_differs=differs,
        new_raters=_new_raters(now) if "rater" in now.columns else (),
        raters=_changed_raters(now) if "rater" in now.columns else (),
        topics=() if clusters is None or names is None else _topics(now.join(clusters.drop_nulls(), on="row_id"), names),
    )


def _rate(now: pl.DataFrame) -> tuple[GroupChange, bool]:
    added, before = (_share(now.filter(side)["label"]) for side in (pl.col("added"), ~pl.col("added")))
    return GroupChange("desirable among the added rows", added, before), _differs(added, before, tests=1)


def _new_raters(now: pl.DataFrame) -> tuple[tuple[str, int], ...]:
    raters = now.drop_nulls("rater").group_by("rater").agg(rows=pl.len(), new=pl.col("added").all())
    return tuple(raters.filter("new").sort("rows", "rater", descending=[True, False]).select("rater", "rows").iter_rows())


def _changed_raters(now: pl.DataFrame) -> tuple[GroupChange, ...]:
    groups = [
        GroupChange(str(name), _share(rows.filter("added")["label"]), _share(rows.filter(~pl.col("added"))["label"]))
        for (name,), rows in now.drop_nulls("rater").sort("rater").group_by("rater", maintain_order=True)
    ]
    return _beyond_chance([each for each in groups if min(each.added.total, each.before.total) >= MIN_ROWS])


def _topics(now: pl.DataFrame, names: pl.DataFrame) -> tuple[GroupChange, ...]:
    """Clusters that hold more of the added rows than of the others."""
    called = dict(names.select("cluster", "name").iter_rows())
    total = now.group_by("added").len()
    sizes = dict(total.iter_rows())
    counts = now.group_by("cluster").agg(new=pl.col("added").sum(), old=(~pl.col("added")).sum()).sort("cluster")
    groups = [
        GroupChange(str(called.get(cluster, cluster)), Share(new, sizes.get(True, 0)), Share(old, sizes.get(False, 0)))
        for cluster, new, old in counts.iter_rows()
    ]
    return tuple(each for each in _beyond_chance(groups) if each.added.value > each.before.value)


def _beyond_chance(groups: Sequence[GroupChange]) -> tuple[GroupChange, ...]:
    """Those whose shares differ; the largest difference first."""
    differing = [each for each in groups if _differs(each.added, each.before, tests=len(groups))]
    return tuple(sorted(differing, key=lambda each: -abs(each.added.value - each.before.value)))


def _differs(added: Share, before: Share, *, tests: int) -> bool:
    from scipy.stats import fisher_exact  # half a second to load

    if min(added.total, before.total) < MIN_ROWS:
        return False
    table = [[share.hits, share.total - share.hits] for share in (added, before)]
    return bool(fisher_exact(table).pvalue * tests <= LEVEL)


def _share(labels: pl.Series) -> Share:
    return Share(int(labels.sum()), len(labels))


def _outcomes(run: RunFiles) -> pl.DataFrame:
    return run.ledger.filter(pl.col("stage") == "export").select("row_id", "action")


def _differing(before: pl.DataFrame, now: pl.DataFrame | None, column: str) -> int:
    """Rows of both that have another value than before."""
    if now is None:
        return 0
    both = before.select("row_id", before=column).drop_nulls().join(now, on="row_id")
    return int((both["before"] != both[column]).sum())


def _more(shown: Sequence[object]) -> str:
    return f" and {len(shown) - SHOWN:,} more" if len(shown) > SHOWN else ""
