"""What has changed since the last finished run, where its sources have grown or shrunk since: counts, rates, raters, topics."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ktodata.report.run_files import RunFiles
from ktodata.report.shares import Share
from ktodata.report.text import count, percent, plural

# below stages/: row_id, label, rater, number of the text, action and part of each row when the run was last finished
PREVIOUS = "previous"
LEVEL = 0.05  # of all comparisons of one kind together (Bonferroni)
SHOWN = 5
VERDICTS = {
    True: "they differ more than chance would make it",
    False: "they differ no more than chance makes it",
    None: "too few to say whether they differ",
}


@dataclass(frozen=True)
class GroupChange:
    """A share among the new rows, and beside it among the rows before, or among those of them that stayed."""

    name: str
    added: Share
    before: Share
    than: str = "before"

    def words(self) -> str:
        """In a few words."""
        shares = f"{percent(self.added.value)} of {count(self.added.total)}, {percent(self.before.value)} {self.than}"
        return f"{self.name} ({shares})"

    def is_testable(self, *, tests: int) -> bool:
        """Whether the least likely way to deal these hits to the two sides would differ, however they are dealt."""
        from scipy.stats import hypergeom  # half a second to load

        total, hits = self.added.total + self.before.total, self.added.hits + self.before.hits
        ends = [max(0, hits - self.before.total), min(hits, self.added.total)]
        return bool(hypergeom.pmf(ends, total, hits, self.added.total).min() * tests <= LEVEL)

    def differs(self, *, tests: int) -> bool:
        """By more than chance, at 95 % for so many tests together."""
        from scipy.stats import fisher_exact

        table = [[share.hits, share.total - share.hits] for share in (self.added, self.before)]
        return bool(fisher_exact(table).pvalue * tests <= LEVEL)


@dataclass(frozen=True)
class ChangesSection:
    """added, gone, moved, decided : rows that came, went, stand in another part, or have another outcome than before.

    unread : how many more records than before became no row
    again : added rows that say what a row before said, as a file does that holds yesterday's rows, too. Nobody new has spoken
    relabelled : added rows whose text a row before had, with another label; desirable : of those; all others that came are new
    rate : desirable rows among the new ones and among all before; raters : those whose rate differs; topics : clusters that hold
    more of the new rows than of those that stayed; each only where chance would hardly make it so (Fisher's exact test, rows
    taken one by one). rate_differs is None where that test could not tell so few rows apart, whatever their labels
    """

    added: int
    gone: int
    moved: int
    decided: int
    unread: int
    again: int
    relabelled: Share
    rate: GroupChange
    rate_differs: bool | None
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
        if self.unread:
            more = "more" if self.unread > 0 else "fewer"
            lines.append(f"{plural(abs(self.unread), 'record')} {more} than before became no row")
        if self.again:
            of_before = "1 was" if self.again == 1 else f"{count(self.again)} were"
            lines.append(f"of the added rows {of_before} there before, with the same label by the same rater: in no rate below")
        if self.relabelled.total:
            had = "1 has" if self.relabelled.total == 1 else f"{count(self.relabelled.total)} have"
            lines.append(
                f"of the added rows {had} a text of before with another label ({count(self.relabelled.hits)} now desirable)"
            )
        if self.rate.added.total:
            lines.append(f"{self.rate.words()}: {VERDICTS[self.rate_differs]}")
        if self.new_raters:
            shown = ", ".join(f"{name} ({count(rows)})" for name, rows in self.new_raters[:SHOWN])
            lines.append(f"{plural(len(self.new_raters), 'new rater')}, with rows: {shown}{_more(self.new_raters)}")
        for what, groups in (("raters who judge otherwise than before", self.raters), ("more asked about", self.topics)):
            if groups:
                lines.append(f"{what}: {'; '.join(each.words() for each in groups[:SHOWN])}{_more(groups)}")
        return lines


def read_changes(run: RunFiles) -> ChangesSection | None:
    """None where nothing is kept of a run before, or the rows are the same, and as many records became none."""
    before, now = run.columns(PREVIOUS), run.columns("ingest", "label", "rater", "created_at", "source_id")
    if before is None or now is None:
        return None
    now = now.with_columns(added=~pl.col("row_id").is_in(before["row_id"].implode()))
    gone = before.join(now, on="row_id", how="anti")
    unread = _unread(run, "ingest") - _unread(run, PREVIOUS)
    if gone.is_empty() and not now["added"].any() and not unread:
        return None
    again, others = _delivered_again(now, gone, run)
    relabelled = _relabelled(others, gone)
    new = others.join(relabelled, on="row_id", how="anti", maintain_order="left").select(now.columns)
    clusters, names = run.columns("coverage", "cluster"), run.table("coverage", "clusters")
    rate = GroupChange("desirable among the new rows", _share(new["label"]), _share(before["label"]))
    with_raters = {"rater"} <= set(now.columns) & set(before.columns)
    stayed = pl.concat([new, now.filter(~pl.col("added"))])
    return ChangesSection(
        added=int(now["added"].sum()),
        gone=gone.height,
        moved=_differing(before, run.columns("split", "part"), "part"),
        decided=_differing(before, _outcomes(run), "action"),
        unread=unread,
        again=again.height,
        relabelled=_share(relabelled["label"]),
        rate=rate,
        rate_differs=rate.differs(tests=1) if rate.is_testable(tests=1) else None,
        new_raters=_new_raters(now, before) if with_raters else (),
        raters=_changed_raters(new, before) if with_raters else (),
        topics=() if clusters is None or names is None else _topics(stayed.join(clusters.drop_nulls(), on="row_id"), names),
    )


def _unread(run: RunFiles, stage: str) -> int:
    """Records that became no row."""
    return sum(run.metrics(stage).get("quarantined", {}).values())


def _delivered_again(now: pl.DataFrame, gone: pl.DataFrame, run: RunFiles) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(added rows that say what a row before says, or what one said that has gone since; the other added ones, with `text`).

    What somebody known says of a text at one time is one verdict, whatever id an export gives it; else an id tells two apart.
    """
    if not now["added"].any():
        return now.clear(), now.clear().with_columns(text=pl.lit(0, pl.UInt64))
    now = now.join(run.text_numbers(), on="row_id", maintain_order="left")
    added, stayed = now.filter("added"), now.filter(~pl.col("added"))
    verdict = [name for name in ("text", "label", "rater") if name in gone.columns and name in now.columns]
    known = pl.col("rater").is_not_null() if "rater" in now.columns else pl.lit(value=False)
    source = pl.when(~known).then("source_id").alias("source_id")
    same = added.with_columns(source).join(
        stayed.with_columns(source), on=[*verdict, "created_at", "source_id"], how="semi", nulls_equal=True
    )
    back = added.join(gone, on=verdict, how="semi", nulls_equal=True)
    is_again = pl.col("row_id").is_in(pl.concat([same["row_id"], back["row_id"]]).implode())
    return added.filter(is_again), added.filter(~is_again)


def _relabelled(added: pl.DataFrame, gone: pl.DataFrame) -> pl.DataFrame:
    """Rows whose text went with another label, and not with this one: nobody new has spoken, a label was edited."""
    return added.join(gone, on="text", how="semi").join(gone, on=["text", "label"], how="anti")


def _new_raters(now: pl.DataFrame, before: pl.DataFrame) -> tuple[tuple[str, int], ...]:
    raters = now.drop_nulls("rater").join(before, on="rater", how="anti").group_by("rater").len("rows")
    return tuple(raters.sort("rows", "rater", descending=[True, False]).select("rater", "rows").iter_rows())


def _changed_raters(new: pl.DataFrame, before: pl.DataFrame) -> tuple[GroupChange, ...]:
    of_both = [rows.group_by("rater").agg(pl.col("label").sum(), pl.len()) for rows in (new, before)]
    both = of_both[0].join(of_both[1], on="rater", suffix="_before").sort("rater")
    groups = [
        GroupChange(name, Share(hits, n), Share(hits_before, n_before))
        for name, hits, n, hits_before, n_before in both.iter_rows()
    ]
    return beyond_chance(groups)


def _topics(now: pl.DataFrame, names: pl.DataFrame) -> tuple[GroupChange, ...]:
    """Clusters that hold more of the new rows than of those that stayed."""
    called = dict(names.select("cluster", "name").iter_rows())
    total = now.group_by("added").len()
    sizes = dict(total.iter_rows())
    counts = now.group_by("cluster").agg(new=pl.col("added").sum(), old=(~pl.col("added")).sum()).sort("cluster")
    groups = [
        GroupChange(
            str(called.get(cluster, cluster)),
            Share(new, sizes.get(True, 0)),
            Share(old, sizes.get(False, 0)),
            than="of those that stayed",
        )
        for cluster, new, old in counts.iter_rows()
    ]
    return tuple(each for each in beyond_chance(groups) if each.added.value > each.before.value)


def beyond_chance(groups: Sequence[GroupChange]) -> tuple[GroupChange, ...]:
    """Those whose shares differ; the largest difference first. Only groups that the test could tell count as tests."""
    testable = [each for each in groups if each.is_testable(tests=len(groups))]
    differing = [each for each in testable if each.differs(tests=len(testable))]
    return tuple(sorted(differing, key=lambda each: -abs(each.added.value - each.before.value)))


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
