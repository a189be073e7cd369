"""Train, validation and test with no prompt, equal or nearly so, on two sides; what was dealt once stays where it is."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.errors import DataError, EmptyDataError, MissingColumnError, SettingError
from ktodata.feedback import PARTS, check_columns, check_row_ids
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.formats.file_types.saved_data import unasked_parts
from ktodata.formats.format import GIVEN_PART
from ktodata.stage import StageResult, decide
from ktodata.text.prompt_groups import components, find_leaks
from ktodata.text.split_parts import deal_groups, hash_parts, parts_of_groups
from ktodata.text.words import Index

NEEDS = ("prompt", "label", "prompt_group")
USES = ("source", "prompt_leader", GIVEN_PART)
ADDS = ("part",)
APPLIES_TO = "all"

# a search with other random hashes can find a pair that the one before missed; each round joins what it found
SEARCHES = 5
# how far, in relative terms, a part's share of rows may be from what was asked before it is worth a word
TOLERANCE = 0.2
# the largest sources have their mix kept, one by one; all others are taken as one, since each costs memory for every group
SOURCES = 20


def split(
    feedback: pl.DataFrame,
    *,
    given: Annotated[
        bool | dict[Any, str],
        Field(description="keep the parts that the source gave: true, or {dev: validation, ...}; fractions are not used then"),
    ] = False,
    validation: Annotated[float, Field(ge=0, lt=1, description="fraction of rows held out to choose by")] = 0.05,
    test: Annotated[float, Field(ge=0, lt=1, description="fraction of rows held out to report on")] = 0.05,
    group: Annotated[
        str, Field(description="rows that stay together: prompt (near-duplicate prompts), another column's values, or none")
    ] = "prompt",
    stratify: Annotated[
        bool,
        Field(description="keep the mix of labels, also within the 20 largest sources; rows may then move as feedback grows"),
    ] = False,
    near_prompts: Annotated[
        float, Field(ge=0.5, le=1, description="prompts at least so similar (Jaccard) count as one when leaks are searched")
    ] = 0.8,
    ignore_case: Annotated[bool, Field(description="prompts that differ in case only count as one")] = True,
    seed: Annotated[int, Field(ge=0, description="another seed makes another split")] = 0,
) -> StageResult:
    """Give every row a part: train, validation or test. Rows held for review get one too.

    given : the parts of the source (column given_part) are kept as they are; dev, valid and other names need a meaning.

    A row's part is drawn by a digest of its `prompt_leader` (or of what `group` names) and the seed, and by nothing else: the
    order of the rows, other rows and their labels do not count, and fractions are met in expectation, within each label and
    source too. Feedback that is added later, by its `created_at`, moves no row while what is near stays near (a phrase that
    becomes a template is no longer compared). Where times are unknown, or older feedback is added, a new prompt can become the
    leader of old ones, and those follow it.

    Where near prompts link lines that were drawn into different parts, no row moves either: the part with most of the group's
    rows keeps them, the others are dropped (reason near_other_part, counted as `left_out`).

    With stratify whole groups are dealt so that fractions and the mix of labels are met as closely as groups allow; which group
    goes where then depends on all of them, and rows move when feedback is added.

    With group="prompt" the result is searched for near-duplicate prompts on two sides (`find_leaks`, with other random hashes
    than the grouping used); groups that turn out to belong together are joined, so no leak that a search can see is left. With
    another group, leaks are counted and reported, not repaired.
    """
    needs = (*NEEDS, group) if group not in ("prompt", "none") else NEEDS
    _check_split_columns(feedback, needs, group)
    if given:
        return _keep_given(feedback, given, group, near_prompts=near_prompts, ignore_case=ignore_case, seed=seed)
    _check_no_given(feedback)
    fractions = {part: fraction for part, fraction in (("test", test), ("validation", validation)) if fraction > 0}
    _check_split_fractions(validation, test)
    groups, joined = _row_groups(feedback, group), 0
    filled: list[str] = []
    lines = _row_groups(feedback, "prompt_leader") if group == "prompt" and "prompt_leader" in feedback.columns else None
    for search in range(1, SEARCHES + 1):
        if stratify:
            part = deal_groups(groups, _strata(feedback), fractions, rest="train", seed=seed)
        else:
            part, filled = hash_parts(groups if lines is None else lines, fractions, rest="train", seed=seed)
        rows = feedback.with_columns(parts_of_groups(groups, part), part=part)
        stays = rows["other_part"].is_null()
        searched = rows.filter(stays).select("row_id", "prompt", "part")
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
    _check_none_empty(part.filter(stays), fractions, groups)
    metrics = _split_metrics(rows.filter(stays), groups.filter(stays), fractions, leaks)
    metrics |= {"groups_joined": joined, "left_out": int((~stays).sum()), "filled": filled, "near_prompts": near_prompts}
    findings = [finding.as_dict() for finding in _split_findings(metrics)]
    return StageResult(
        columns=rows.select("row_id", "part"),
        decisions=decide(
            rows,
            pl.col("other_part").is_not_null(),
            action="drop",
            reason="near_other_part",
            evidence=("part", "other_part", "prompt_group"),
        ),
        metrics=metrics | {"findings": findings},
        tables={"leaks": leaks},
    )


def _keep_given(
    feedback: pl.DataFrame, given: bool | dict[Any, str], group: str, *, near_prompts: float, ignore_case: bool, seed: int
) -> StageResult:
    """The parts as the source gave them; near prompts on two sides are counted, and none is moved."""
    part = _given_parts(feedback, given if isinstance(given, dict) else {})
    groups = _row_groups(feedback, group)
    searched = feedback.select("row_id", "prompt", part=part)
    leaks = find_leaks(searched, near_prompts=near_prompts, ignore_case=ignore_case, seed=seed + 1)
    counts = dict(part.value_counts().iter_rows())
    fractions = {name: counts[name] / len(part) for name in PARTS if name != "train" and name in counts}
    metrics = _split_metrics(feedback.with_columns(part), groups, fractions, leaks)
    metrics |= {"groups_joined": 0, "left_out": 0, "filled": [], "near_prompts": near_prompts, "given": True}
    findings = [finding.as_dict() for finding in _split_findings(metrics)]
    columns = feedback.select("row_id", part=part)
    return StageResult(columns=columns, metrics=metrics | {"findings": findings}, tables={"leaks": leaks})


def _given_parts(feedback: pl.DataFrame, meanings: Mapping[Any, str]) -> pl.Series:
    """given_part in our words. Raises DataError where a name has no meaning, SettingError where there are no given parts."""
    if GIVEN_PART not in feedback.columns:
        raise SettingError(
            "split: given asks for the parts of the source, and it has none: read a data set that has, or name their column with "
            "ingest: {split: COLUMN}."
        )
    if wrong := [name for name in meanings.values() if name not in PARTS]:
        raise SettingError(f"split: given: a part is {', '.join(PARTS)}; got {wrong[0]!r}.")
    named = {name: name for name in PARTS} | {None if name is None else str(name): part for name, part in meanings.items()}
    counts = dict(feedback[GIVEN_PART].value_counts(sort=True).iter_rows())
    if unknown := {name: count for name, count in counts.items() if name not in named}:
        listed = ", ".join(f"{'null' if name is None else name} ({count:,})" for name, count in unknown.items())
        example = next("null" if name is None else name for name in unknown)
        raise DataError(
            f"split: given: the source's parts also have other names: {listed}. Say what each is, e.g. "
            f"given: {{{example}: validation}}; known are {', '.join(PARTS)}."
        )
    part = pl.Series("part", [named[name] for name in feedback[GIVEN_PART]], dtype=pl.String)
    if not (part == "train").any():
        raise EmptyDataError(f"split: given: no row is for training; the parts are {', '.join(map(str, counts))}.")
    return part


def _check_no_given(feedback: pl.DataFrame) -> None:
    """Raise SettingError where the rows would be dealt anew though their source has held some out."""
    if GIVEN_PART in feedback.columns and feedback[GIVEN_PART].n_unique() > 1:
        raise unasked_parts("the feedback", dict(feedback[GIVEN_PART].value_counts(sort=True).iter_rows()))


def _check_split_columns(feedback: pl.DataFrame, needs: tuple[str, ...], group: str) -> None:
    if group in needs[3:] and group not in feedback.columns:
        raise MissingColumnError(
            f"split: group is {group!r}, which is neither prompt nor none nor a column;"
            f" the table has {', '.join(feedback.columns)}."
        )
    check_columns(feedback, ("row_id", *needs), who="split")
    check_row_ids(feedback, who="split")
    if feedback.is_empty():
        raise EmptyDataError("split: there are no rows to split.")


def check_together(settings: Mapping[str, Any]) -> None:
    """Raise SettingError for fractions that leave nothing to train on, before a row is read."""
    if not settings["given"]:
        _check_split_fractions(settings["validation"], settings["test"])


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
    """Groups with those joined that a leak runs between, named by the smallest name, and by how many there are fewer."""
    names = groups.unique().sort()
    which = groups.rank("dense").cast(pl.Int64).to_numpy() - 1
    number = pl.DataFrame({"row_id": row_ids, "number": which})
    left, right = (
        leaks.select(row_id=end).join(number, on="row_id", maintain_order="left")["number"].to_numpy()
        for end in ("row_id", "other_row_id")
    )
    smallest = components(left, right, len(names))
    return names.gather(smallest[which]), len(names) - len(np.unique(smallest))


def _check_none_empty(part: pl.Series, fractions: dict[str, float], groups: pl.Series) -> None:
    present = set(part.unique())
    empty = [name for name in ("train", *fractions) if name not in present]
    if empty:
        sizes = groups.value_counts(sort=True)["count"]
        requested = ", ".join(f"{name} {fraction:g}" for name, fraction in fractions.items())
        raise EmptyDataError(
            f"split: {' and '.join(empty)} would be empty. {len(part):,} rows form {len(sizes):,} groups, the largest of"
            f" {sizes[0]:,} rows, and groups are not divided; asked for were {requested}."
            " Ask for larger fractions or none, or group by something finer; stratify: true deals what a hash leaves uneven."
        )


def _split_metrics(rows: pl.DataFrame, groups: pl.Series, fractions: dict[str, float], leaks: pl.DataFrame) -> dict[str, Any]:
    table = rows.select("label", "part", group=groups)
    requested = {"train": 1 - sum(fractions.values())} | fractions
    reached = {name: _part_metrics(table, name, requested[name]) for name in PARTS if name in requested}
    sizes = groups.value_counts()["count"].to_numpy().astype(np.float64)
    return {
        "rows": table.height,
        "groups": len(sizes),
        "largest_group_rows": int(sizes.max()),
        "effective_groups": round(float(sizes.sum() ** 2 / (sizes**2).sum()), 1),
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
        + " (no group fell to it, so that one was taken from another part)" * (name in metrics["filled"])
        for name, part in metrics["parts"].items()
        if abs(part["share_of_rows"] - part["requested"]) > TOLERANCE * part["requested"]
    ]
    if not off:
        return passed("KD026")
    return issue(
        "KD026",
        f"{'; '.join(off)}. The largest group has {metrics['largest_group_rows']:,} of {metrics['rows']:,} rows; the rows count"
        f" as {metrics['effective_groups']:,.0f} equal groups, and shares drawn from so few vary. Another seed draws anew;"
        " stratify: true deals what was asked for, but rows then move as feedback grows.",
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
    measure = (
        f"near is a Jaccard similarity of words and neighbouring word pairs of at least {metrics['near_prompts']:g}, with the"
        " same numbers; the same question in other words is not searched for"
    )
    left_out = (
        f"; {metrics['left_out']:,} rows were left out for it: near rows stand in another part" if metrics["left_out"] else ""
    )
    if not metrics["leaks"]:
        return passed("KD028", f"a search found no prompt, equal or near, on two sides{left_out} ({measure})")
    return issue(
        "KD028",
        f"{metrics['leaks']:,} times a held-out row's prompt stands, equal or near, in another part (table leaks; {measure})."
        " group: prompt keeps such prompts together.",
        metrics["leaks"],
    )
