"""Train, validation and test with no prompt, equal or nearly so, on two sides, and the same mix of labels on each."""

from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.errors import DataError, EmptyDataError, MissingColumnError, SettingError
from ktodata.feedback import check_columns
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.stage import StageResult
from ktodata.text.prompt_groups import PARTS, components, different, find_leaks, first_of
from ktodata.text.split_parts import deal_groups
from ktodata.text.words import Index

NEEDS = ("prompt", "label", "prompt_group")
USES = ("source",)
ADDS = ("part",)

# a search with other random hashes can find a pair that the one before missed; each round joins what it found
SEARCHES = 5
# how far, in relative terms, a part's share of rows may be from what was asked before it is worth a word
TOLERANCE = 0.2
# the largest sources have their mix kept, one by one; all others are taken as one, since each costs memory for every group
SOURCES = 20


def split(
    feedback: pl.DataFrame,
    *,
    validation: Annotated[float, Field(ge=0, lt=1, description="fraction of rows held out to choose by")] = 0.05,
    test: Annotated[float, Field(ge=0, lt=1, description="fraction of rows held out to report on")] = 0.05,
    group: Annotated[
        str, Field(description="rows that stay together: prompt (near-duplicate prompts), another column's values, or none")
    ] = "prompt",
    stratify: Annotated[bool, Field(description="keep the mix of labels, and of labels within the 20 largest sources")] = True,
    near_prompts: Annotated[
        float, Field(ge=0.5, le=1, description="prompts at least so similar (Jaccard) count as one when leaks are searched")
    ] = 0.8,
    ignore_case: Annotated[bool, Field(description="prompts that differ in case only count as one")] = True,
    seed: Annotated[int, Field(ge=0, description="another seed makes another split")] = 0,
) -> StageResult:
    """Give every row a part: train, validation or test. Rows held for review get one too.

    Fractions are met as far as whole groups allow; metrics say what was reached. With group="prompt" the result is searched for
    near-duplicate prompts on two sides (`find_leaks`, with other random hashes than the grouping used); groups that turn out
    to belong together are joined and dealt again, so no leak that a search can see is left. With another group, leaks are
    counted and reported, not repaired.
    """
    needs = (*NEEDS, group) if group not in ("prompt", "none") else NEEDS
    _check_split_columns(feedback, needs, group)
    fractions = {part: fraction for part, fraction in (("test", test), ("validation", validation)) if fraction > 0}
    _check_split_fractions(validation, test)
    strata = _strata(feedback) if stratify else np.zeros((feedback.height, 0), np.int64)
    groups, joined = _row_groups(feedback, group), 0
    for search in range(1, SEARCHES + 1):
        part = deal_groups(groups, strata, fractions, rest="train", seed=seed)
        searched = feedback.select("row_id", "prompt", part=part)
        leaks = find_leaks(searched, near_prompts=near_prompts, ignore_case=ignore_case, seed=seed + search)
        if leaks.is_empty() or group != "prompt":
            break
        groups, newly = _join(feedback["row_id"], groups, leaks)
        joined += newly
    else:
        raise DataError(
            f"split: {leaks.height:,} held-out rows still have a near prompt on the other side after {SEARCHES} rounds of joining"
            f" prompt groups (first: row {leaks['row_id'][0]!r} and row {leaks['other_row_id'][0]!r}). Raise near_prompts."
        )
    _check_none_empty(part, fractions, groups)
    metrics = _split_metrics(feedback, part, groups, fractions, leaks, joined)
    findings = [finding.as_dict() for finding in _split_findings(metrics)]
    columns = feedback.select("row_id", part=part)
    return StageResult(columns=columns, metrics=metrics | {"findings": findings}, tables={"leaks": leaks})


def _check_split_columns(feedback: pl.DataFrame, needs: tuple[str, ...], group: str) -> None:
    if group in needs[3:] and group not in feedback.columns:
        raise MissingColumnError(
            f"split: group is {group!r}, which is neither prompt nor none nor a column;"
            f" the table has {', '.join(feedback.columns)}."
        )
    check_columns(feedback, ("row_id", *needs), who="split")
    if feedback.is_empty():
        raise EmptyDataError("split: there are no rows to split.")


def _check_split_fractions(validation: float, test: float) -> None:
    for name, value in (("validation", validation), ("test", test)):
        if not 0 <= value < 1:
            hint = f" Did you mean {value / 100:g}?" if 1 <= value < 100 else ""
            raise SettingError(f"split: {name} is a fraction of the rows, at least 0 and below 1; got {value:g}.{hint}")
    if validation + test >= 1:
        raise SettingError(
            f"split: validation {validation:g} and test {test:g} sum to {validation + test:g} and leave nothing to train on."
        )


def _strata(feedback: pl.DataFrame) -> Index:
    """Two divisions of the rows: by label, and by label within source."""
    label = feedback["label"].cast(pl.Int64).to_numpy()
    if "source" not in feedback.columns:
        return label[:, None]
    sizes = feedback["source"].value_counts(sort=False).sort("count", "source", descending=[True, False])
    own = sizes.head(SOURCES).with_row_index("code", offset=1).select("source", pl.col("code").cast(pl.Int64))
    code = feedback.select("source").join(own, on="source", how="left", maintain_order="left")["code"].fill_null(0).to_numpy()
    return np.column_stack([label, code * 2 + label])


def _row_groups(feedback: pl.DataFrame, group: str) -> pl.Series:
    """A name for each row's group; a row without a value is a group of its own."""
    if group == "none":
        return feedback["row_id"]
    column = "prompt_group" if group == "prompt" else group
    named = pl.lit("=") + pl.col(column).cast(pl.String)  # told apart from a row_id, whatever its value
    return feedback.select(pl.coalesce(named, "row_id").alias("group"))["group"]


def _join(row_ids: pl.Series, groups: pl.Series, leaks: pl.DataFrame) -> tuple[pl.Series, int]:
    """Groups with those joined that a leak runs between, and by how many there are fewer."""
    places, which = different(first_of(groups))
    number = pl.DataFrame({"row_id": row_ids, "number": which})
    left, right = (
        leaks.select(row_id=end).join(number, on="row_id", maintain_order="left")["number"].to_numpy()
        for end in ("row_id", "other_row_id")
    )
    leader = components(left, right, len(places))
    fewer = len(places) - len(np.unique(leader))
    return groups.gather(places[leader[which]]), fewer


def _check_none_empty(part: pl.Series, fractions: dict[str, float], groups: pl.Series) -> None:
    present = set(part.unique())
    empty = [name for name in ("train", *fractions) if name not in present]
    if empty:
        sizes = groups.value_counts(sort=True)["count"]
        requested = ", ".join(f"{name} {fraction:g}" for name, fraction in fractions.items())
        raise EmptyDataError(
            f"split: {' and '.join(empty)} would be empty. {len(part):,} rows form {len(sizes):,} groups, the largest of"
            f" {sizes[0]:,} rows, and groups are not divided; asked for were {requested}."
            " Ask for larger fractions or none, or group by something finer."
        )


def _split_metrics(
    feedback: pl.DataFrame, part: pl.Series, groups: pl.Series, fractions: dict[str, float], leaks: pl.DataFrame, joined: int
) -> dict[str, Any]:
    table = feedback.select("label", part=part, group=groups)
    requested = {"train": 1 - sum(fractions.values())} | fractions
    reached = {name: _part_metrics(table, name, requested[name]) for name in PARTS if name in requested}
    largest = groups.value_counts(sort=True)["count"][0]
    return {
        "rows": table.height,
        "groups": groups.n_unique(),
        "groups_joined": joined,
        "largest_group_rows": int(largest),
        "parts": reached,
        "leaks": leaks.height,
    }


def _part_metrics(table: pl.DataFrame, name: str, requested: float) -> dict[str, Any]:
    here = pl.col("part") == name
    counted = table.select(
        rows=here.sum(),
        groups=pl.col("group").filter(here).n_unique(),
        desirable=(here & pl.col("label")).sum(),
        all_desirable=pl.col("label").sum(),
    ).row(0, named=True)
    undesirable, all_undesirable = counted["rows"] - counted["desirable"], table.height - counted["all_desirable"]
    return {
        "requested": round(requested, 6),
        "rows": counted["rows"],
        "groups": counted["groups"],
        "share_of_rows": round(counted["rows"] / table.height, 4),
        "share_of_desirable": round(counted["desirable"] / max(counted["all_desirable"], 1), 4),
        "share_of_undesirable": round(undesirable / max(all_undesirable, 1), 4),
        "desirable": counted["desirable"],
        "undesirable": undesirable,
    }


def _split_findings(metrics: dict[str, Any]) -> list[Finding]:
    return [_size_finding(metrics), _class_finding(metrics), _leak_finding(metrics)]


def _size_finding(metrics: dict[str, Any]) -> Finding:
    """KD026: a part is far larger or smaller than asked."""
    off = [
        f"{name} holds {part['share_of_rows']:.1%} of the rows, {part['requested']:.1%} were asked for"
        for name, part in metrics["parts"].items()
        if abs(part["share_of_rows"] - part["requested"]) > TOLERANCE * part["requested"]
    ]
    if not off:
        return passed("KD026")
    return issue(
        "KD026", f"{'; '.join(off)}. The largest group has {metrics['largest_group_rows']:,} of {metrics['rows']:,} rows."
    )


def _class_finding(metrics: dict[str, Any]) -> Finding:
    """KD027: a part lacks one of the labels."""
    sides = ("desirable", "undesirable")
    if any(sum(part[side] for part in metrics["parts"].values()) == 0 for side in sides):
        return not_applicable("KD027", "every row has the same label")
    lacking = [f"{name} has no {side} row" for name, part in metrics["parts"].items() for side in sides if part[side] == 0]
    return issue("KD027", f"{'; '.join(lacking)}. Hold out a larger fraction.") if lacking else passed("KD027")


def _leak_finding(metrics: dict[str, Any]) -> Finding:
    """KD028: prompts stand, equal or nearly so, on two sides of the split."""
    if not metrics["leaks"]:
        return passed("KD028", "a search found no prompt, equal or nearly so, on two sides")
    return issue(
        "KD028",
        f"{metrics['leaks']:,} times a held-out row's prompt stands, equal or nearly so, in another part (table leaks)."
        " group: prompt keeps such prompts together.",
        metrics["leaks"],
    )
