"""Same text, same verdict: one row is enough. Same text, opposite verdicts: most raters decide, or else a person."""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.errors import SettingError
from ktodata.feedback import TEMPLATE_FIELDS, VOTE, check_columns, check_row_ids
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.formats.records import text_id
from ktodata.labels.label_words import both_labels_sentence
from ktodata.stage import KEPT, Prompts, StageResult, decide, no_decisions
from ktodata.text.conclusions import conclude_alike
from ktodata.text.contamination import contaminated
from ktodata.text.near_duplicates import NO_PAIRS, SimilarPairs, Texts, near_rows, near_texts, nearest_kept, prepare
from ktodata.text.prompt_groups import components, continued, different, first_of, leaders
from ktodata.text.rendered_form import rendered_form
from ktodata.text.words import Index, meaning_key, normalised, unfolded_form
from ktodata.work_done import working_on

NEEDS = ("prompt", "completion", "label", "votes")
USES = ("state", "created_at", "trusted_label", "turns", "answer", *TEMPLATE_FIELDS)
ADDS = ("duplicate_of", "duplicate_similarity", "prompt_group", "prompt_leader", "pooled_votes", "contradicted", "trusted_label")
APPLIES_TO = "all"

# below this, MinHash buckets fill with texts that only share common words, and what is found is no duplicate
LOWEST = 0.5
LARGE_GROUP = 0.1


def dedupe(
    feedback: pl.DataFrame,
    *,
    near: Annotated[
        float | None,
        Field(
            ge=LOWEST,
            le=1,
            description="drop rows whose prompt and completion are both so similar to a kept row's (Jaccard); null: off",
        ),
    ] = 0.8,
    near_prompts: Annotated[
        float,
        Field(ge=LOWEST, le=1, description="prompts at least so similar (Jaccard) form one group; lower makes larger groups"),
    ] = 0.8,
    ignore_case: Annotated[
        bool, Field(description="'Yes' and 'yes' are the same text; never in code, formulas and units")
    ] = True,
    ignore_space: Annotated[
        bool, Field(description="runs of white space count as one space; never in code and indented lines")
    ] = True,
    decontaminate: Annotated[
        Prompts, Field(description="evaluation prompts: rows whose prompt is one, is nearly one, or holds one are dropped")
    ] = None,
    seed: Annotated[int, Field(ge=0, description="seed of the MinHash functions")] = 0,
) -> StageResult:
    """Keep one row of each text, hold texts on which raters are divided for review, and group near-duplicate prompts.

    One text is all that a chat template renders: prompt and completion, the roles and names of their turns, which result of a
    tool belongs to which call, `tools` and `chat_template_kwargs`. Equal means equal after Unicode NFC and, unless told
    otherwise, folding of white space and of case. In code (fenced, indented or between backticks), tool calls and formulas
    nothing is folded, nor the case of a unit (5 mW, 5 MW) or of letters beside a digit, nor lines of which some are indented.
    The case and the lines of prose are: where answers differ in those by what was asked for (title case, verse), set
    `ignore_case` and `ignore_space` to false. Of equal rows the best-evidenced stays: one that no earlier step has doubted, then
    most votes, then the earliest by `created_at`, then the smallest row_id. The order of the rows changes nothing.

    A prompt group is all prompts that are linked by near pairs, or go on from one another as turns of one conversation, over any
    number of steps; it is named by a digest of its eldest prompt: the earliest by `created_at` and, where times are unknown or
    equal, the one whose digest is smallest. `prompt_leader` is the prompt from which a prompt's line of such prompts began: it
    hangs on elder prompts alone, so feedback that is added later changes no leader, even where it links two groups. `split` goes
    by it.

    Where one text has both labels, its votes decide: of each known rater the last by time, of unknown raters each, but that a
    record which repeats another's verdict at the same time, or at none, may be its copy, and counts once. With a strict majority
    a row of its label stays; rows of the other label are dropped as outvoted, or as superseded where their raters have all
    changed their minds since. Else one row of each label is held for review, and further repeats are dropped as repeats of their
    label's row. The rows that stay get the votes that count as `pooled_votes`.

    A trusted label changes none of this: which rows are dropped never depends on it, so that a verdict moves no row from one side
    of a later split to the other. Where votes leave a text open it settles it: the other label's row is set aside as overruled.
    Where they decide otherwise, label_noise gives the row that stays the trusted label. It is about the text: rows of one text
    that have none get that of the others, unless those differ. Near rows share none; see metrics `trusted`.

    Near means that prompt and completion, each by itself, share at least `near` of their words and neighbouring word pairs with
    one kept row of the same label, that their numbers and formulas are the same and in the same order, and that the prompts are
    as alike without the words of a template (see `text.shingles.template_words`). A number is of digits of any script, fractions,
    raised and Han digits, with the signs beside it; a formula is of signs (`<=`, `⊂`, `C#`, ★) and TeX commands. Rows that
    differ in a negation ("not", "n't", "never"), a line of fenced or indented code, an option ("(A)", "B"), a short unit
    (5 mg, 5 PM), the beginning of a word ("safe", "unsafe") or in what they come to are both kept: in the last sentence or line
    where it has up to eight words, in the last word, and in a first sentence of up to four. Negations are known of English,
    German, French, Spanish, Italian, Portuguese, Dutch, Russian, Chinese and Japanese; for feedback in other languages set `near`
    to null. What any other word of a long text says is not seen: a number in words ("seven"), "left" and "right". Where answers
    differ in no more, set `near` to null.

    Near rows that both stay are listed, those with opposite labels in the table `near_contradictions`, others in `near_texts`:
    the difference between them may be what was judged.
    """
    check_columns(feedback, NEEDS, who="dedupe")
    check_row_ids(feedback, who="dedupe")
    _check_similarities(near=near, near_prompts=near_prompts)
    rows = _numbered_rows(feedback, ignore_case, ignore_space)
    numbered = _numbered_prompts(rows)
    completion_places, completion_of = different(first_of(rows["completion"]))
    working_on(f"reading the words of {numbered.height:,} prompts")
    prompts = prepare(numbered["prompt"], templates=True, seed=seed)
    rows = rows.join(numbered.select("prompt", "prompt_number"), on="prompt", how="left", maintain_order="left")
    rows = rows.with_columns(completion_number=pl.Series(completion_of))
    rows = _with_texts(rows, feedback)
    rows, examined = _with_contamination(rows, numbered["prompt"], decontaminate, near_prompts, (ignore_case, ignore_space), seed)
    rows = _with_repeats(_with_votes(rows))
    working_on(f"comparing {rows.height:,} rows with each other")
    alike = _near_row_pairs(rows, prompts, completion_places, near, seed)
    rows = _with_near_repeats(rows, _agreeing(rows, feedback, alike))
    working_on(f"comparing {numbered.height:,} prompts with each other")
    grouped = near_texts(prompts, near_prompts)
    rows = _with_prompt_groups(rows, grouped, numbered["prompt_name"], feedback)
    one_label = pl.col("label") == pl.col("other_label")
    kept = _near_and_kept(rows, alike)
    tables = {"near_contradictions": kept.filter(~one_label), "near_texts": kept.filter(one_label)}
    pairs = {"rows": alike, "prompts": grouped} | ({"evaluation": examined} if decontaminate else {})
    metrics = _dedupe_metrics(rows, tables, prompts, pairs, decontaminate)
    return StageResult(
        columns=rows.sort("place").select("row_id", *ADDS),
        decisions=_dedupe_decisions(rows.sort("place")),
        metrics=metrics | {"findings": [finding.as_dict() for finding in _dedupe_findings(metrics)]},
        tables=tables,
    )


def _check_similarities(**settings: float | None) -> None:
    for name, value in settings.items():
        if value is not None and not LOWEST <= value <= 1:
            hint = f" Did you mean {value / 100:g}?" if LOWEST * 100 <= value <= 100 else ""
            raise SettingError(f"dedupe: {name} is a similarity between {LOWEST:g} and 1; got {value:g}.{hint}")


def _numbered_rows(feedback: pl.DataFrame, ignore_case: bool, ignore_space: bool) -> pl.DataFrame:
    """One line per row with normalised texts, best-evidenced rows first."""
    state = pl.col("state") if "state" in feedback.columns else pl.lit("keep")
    trusted_label = pl.col("trusted_label") if "trusted_label" in feedback.columns else pl.lit(None, pl.Boolean)
    created_at = pl.col("created_at") if "created_at" in feedback.columns else pl.lit(None, pl.Datetime)
    rows = feedback.select(
        "row_id",
        "label",
        "votes",
        normalised(pl.col("prompt"), ignore_case=ignore_case, ignore_space=ignore_space),
        normalised(pl.col("completion"), ignore_case=ignore_case, ignore_space=ignore_space),
        given=rendered_form(feedback),
        created_at=created_at,
        place=pl.int_range(pl.len(), dtype=pl.Int64),
        sound=state.is_in(KEPT),
        vote_count=pl.col("votes").list.len(),
        trusted=trusted_label.is_not_null(),
        trusted_label=trusted_label,
    )
    return rows.sort("sound", "vote_count", "created_at", "row_id", descending=[True, True, False, False], nulls_last=True)


def _numbered_prompts(rows: pl.DataFrame) -> pl.DataFrame:
    """prompt, prompt_name (a digest of it), prompt_number; each different prompt once, the eldest first."""
    prompts = rows.group_by("prompt").agg(since=pl.col("created_at").min())
    prompts = prompts.with_columns(prompt_name=pl.Series([text_id(text) for text in prompts["prompt"]], dtype=pl.String))
    eldest_first = prompts.sort("since", "prompt_name", nulls_last=True)
    return eldest_first.with_columns(prompt_number=pl.int_range(pl.len(), dtype=pl.Int64))


def _with_texts(rows: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    """Add text, a number: rows of one text have the same, which two that are folded alike may not be (`unfolded_form`)."""
    rows = rows.with_columns(text=pl.struct("prompt_number", "completion_number", "given").rank("dense"))
    repeated = rows.select("text", "place").filter(pl.col("text").is_duplicated())
    written = feedback.select("prompt", "completion")[repeated["place"].to_numpy()]
    repeated = repeated.with_columns(written.select(raw=pl.struct(pl.all()).hash()))
    varied = repeated.select(pl.col("raw").min().over("text") != pl.col("raw").max().over("text")).to_series()
    if not varied.any():  # nearly all repeats are the same to the last character
        return rows
    forms = written.filter(varied).select(form=pl.struct(*(unfolded_form(text) for text in written.filter(varied))).hash())
    rows = rows.join(repeated.filter(varied).select("place").hstack(forms), on="place", how="left", maintain_order="left")
    return rows.with_columns(text=pl.struct("text", pl.col("form").fill_null(0)).rank("dense")).drop("form")


def _with_contamination(
    rows: pl.DataFrame, prompts: pl.Series, evaluation: Prompts, near_prompts: float, folding: tuple[bool, bool], seed: int
) -> tuple[pl.DataFrame, SimilarPairs]:
    """Add match, match_similarity and evaluation_prompt (its first 200 characters); null where a prompt is clean."""
    exams = list(evaluation or [])
    matches, pairs = contaminated(
        prompts, exams, near_prompts=near_prompts, ignore_case=folding[0], ignore_space=folding[1], seed=seed
    )
    texts = pl.DataFrame({"evaluation_prompt": pl.Series(exams, dtype=pl.String).str.slice(0, 200)}).with_row_index("evaluation")
    matches = matches.join(texts.with_columns(pl.col("evaluation").cast(pl.Int64)), on="evaluation")
    matches = matches.select(
        prompt_number="prompt", match="match", match_similarity="similarity", evaluation_prompt="evaluation_prompt"
    )
    return rows.join(matches, on="prompt_number", how="left", maintain_order="left"), pairs


def _with_votes(rows: pl.DataFrame) -> pl.DataFrame:
    """Add pooled (the votes that count), desirable_votes and undesirable_votes of each text.

    And of each row earlier_votes, how many of its votes their raters have given anew since, and withdrawn: all say otherwise now.

    Only a vote with a time is ever an earlier one: a rater who has said both at times unknown has said both. And copies, which
    count nowhere: of one label without a known rater, those at one time (or at none) are no more than the record has with most.
    """
    votes = (
        rows.sort("created_at", "row_id", nulls_last=True).select("text", "row_id", "votes").explode("votes").drop_nulls("votes")
    )
    votes = votes.select("text", "row_id", pl.col("votes").struct.unnest())
    known = (pl.col("rater").str.strip_chars() != "").fill_null(value=False)
    votes = votes.with_columns(last=pl.col("created_at").max().over("text", "rater"))
    upheld = (pl.col("created_at") == pl.col("last")).any().over("text", "rater", "label")
    votes = votes.with_columns(earlier=known & (pl.col("created_at") < pl.col("last")).fill_null(value=False))
    votes = votes.with_columns(withdrawn=pl.col("earlier") & ~upheld)
    number = pl.int_range(pl.len()).over("row_id", "label", "created_at")
    votes = votes.with_columns(copy=~known & ~pl.struct("text", "label", "created_at", number, known).is_first_distinct())
    of_rows = votes.group_by("row_id").agg(
        earlier_votes=pl.col("earlier").sum(), withdrawn=pl.col("withdrawn").all(), copies=pl.col("copy").sum()
    )
    # what a rater says twice at one time, or at times unknown, is said once
    first = pl.when(known).then(pl.struct("text", "rater", "label")).is_first_distinct()
    counted = votes.filter(~pl.col("earlier")).filter(pl.when(known).then(first).otherwise(~pl.col("copy")))
    of_texts = counted.group_by("text", maintain_order=True).agg(
        pooled=pl.struct("rater", "label", "created_at"),
        desirable_votes=pl.col("label").sum().cast(pl.Int64),
        undesirable_votes=(~pl.col("label")).sum().cast(pl.Int64),
    )
    rows = rows.join(of_rows, on="row_id", how="left", maintain_order="left")
    rows = rows.join(of_texts, on="text", how="left", maintain_order="left")
    return rows.with_columns(pl.col("withdrawn").fill_null(value=False))


def _with_repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """Add both_labels, contradicted, opposite (the other label's row), overruled, outvoted, duplicate_of, pooled_votes, and
    trusted_differ. And fill trusted_label.

    Where one text has both labels, a majority of the votes that count settles it, else a trusted label does; a row of the other
    label is outvoted or overruled, and nothing is contradicted. Expects best-evidenced rows first.
    """
    desirable, undesirable = _standing_row(pl.col("label")), _standing_row(~pl.col("label"))
    keeper, opposite = (
        pl.when("label").then(one).otherwise(other) for one, other in ((desirable, undesirable), (undesirable, desirable))
    )
    both = pl.col("label").n_unique().over("text") > 1
    least, most = pl.col("trusted_label").min().over("text"), pl.col("trusted_label").max().over("text")
    settled = both & (least == most).fill_null(value=False)
    ups, downs = pl.col("desirable_votes"), pl.col("undesirable_votes")
    majority = pl.when(both & (ups != downs)).then(ups > downs)
    rows = rows.with_columns(
        same_text=pl.len().over("text"),
        both_labels=both,
        keeper=keeper,
        opposite=opposite,
        least=least,
        settled=settled,
        majority=majority,
        trusted_differ=least != most,
    )
    return _with_losers(rows)


def _standing_row(label: pl.Expr) -> pl.Expr:
    """The best-evidenced row of a label, one whose raters still say so where there is one."""
    upheld = label & pl.col("sound") & ~pl.col("withdrawn")
    return pl.coalesce(pl.col("row_id").filter(rows).first().over("text") for rows in (upheld, label))


def _can_stand(label: str) -> pl.Expr:
    """Whether a sound row of the text has the label that this column holds; false where it holds none."""
    return (pl.col("sound") & (pl.col("label") == pl.col(label))).any().over("text")


def _with_losers(rows: pl.DataFrame) -> pl.DataFrame:
    against_trusted = pl.col("settled") & (pl.col("label") != pl.col("least")) & _can_stand("least")
    by_votes = _can_stand("majority")
    outvoted = by_votes & (pl.col("label") != pl.col("majority"))
    # its repeats are repeats
    overruled = against_trusted & ~by_votes & (pl.col("row_id") == pl.col("keeper"))
    repeated_row = pl.when(outvoted | overruled).then("opposite").when(pl.col("row_id") != pl.col("keeper")).then("keeper")
    rows = rows.with_columns(
        contradicted=pl.col("both_labels") & ~pl.col("settled") & ~by_votes,
        outvoted=outvoted,
        overruled=overruled,
        duplicate_of=repeated_row,
        trusted_label=pl.coalesce("trusted_label", pl.when(~pl.col("trusted_differ")).then("least")),
    )
    # on the row that stays only: every repeat holding everybody's votes would grow with the square of a text's popularity
    pooled_votes = pl.when(pl.col("duplicate_of").is_null()).then("pooled").cast(pl.List(VOTE))
    return rows.with_columns(pooled_votes=pooled_votes).drop("keeper", "least", "majority")


def _near_row_pairs(rows: pl.DataFrame, prompts: Texts, completion_places: Index, near: float | None, seed: int) -> SimilarPairs:
    """Near pairs of the rows that would stay so far, as places in `rows`."""
    if near is None:
        return NO_PAIRS
    # a text with both labels is near to nothing, settled or not: a verdict must not change which rows there are to split
    stays = pl.col("sound") & pl.col("duplicate_of").is_null() & ~pl.col("both_labels") & pl.col("match").is_null()
    open_ = np.flatnonzero(rows.select(stays).to_series().to_numpy())
    completions = prepare(rows["completion"].gather(completion_places), templates=False, seed=seed)
    prompt_of = rows["prompt_number"].to_numpy()[open_]
    completion_of = rows["completion_number"].to_numpy()[open_]
    pairs = near_rows(prompts, completions, prompt_of, completion_of, near)
    return replace(pairs, left=open_[pairs.left], right=open_[pairs.right])


def _agreeing(rows: pl.DataFrame, feedback: pl.DataFrame, alike: SimilarPairs) -> SimilarPairs:
    """The pairs of one label, tools that were given, `meaning_key` and conclusion: others are no repeats.

    Nor are those that would be one text, were it not for their `unfolded_form`.
    """
    among, place = np.unique(np.concatenate([alike.left, alike.right]), return_inverse=True)
    written = feedback.select("prompt", "completion")[rows["place"].to_numpy()[among]]
    exact = rows.select("label", "given")[among].with_columns(meaning_key(text).alias(text.name) for text in written)
    verdict = exact.select(pl.struct(pl.all()).rank("dense")).to_series().to_numpy()
    left, right = place[: len(alike.left)], place[len(alike.left) :]
    agree = verdict[left] == verdict[right]
    for text in written:
        same = np.flatnonzero(agree)
        agree[same] = conclude_alike(text, left[same], right[same])
        number = rows[f"{text.name}_number"].to_numpy()[among]
        same = np.flatnonzero(agree & (number[left] == number[right]))
        of_text, at = np.unique(np.concatenate([left[same], right[same]]), return_inverse=True)
        form = unfolded_form(text.gather(of_text)).rank("dense").to_numpy()
        agree[same] = form[at[: len(same)]] == form[at[len(same) :]]
    return replace(alike, left=alike.left[agree], right=alike.right[agree], similarity=alike.similarity[agree])


def _with_near_repeats(rows: pl.DataFrame, agreeing: SimilarPairs) -> pl.DataFrame:
    """Add near_repeat and duplicate_similarity, and point near repeats at the row they are near."""
    centre, similarity = nearest_kept(agreeing, rows.height)
    near_repeat = centre >= 0
    centre_id = rows["row_id"].gather(np.maximum(centre, 0))
    return rows.with_columns(
        near_repeat=pl.Series(near_repeat),
        duplicate_of=pl.when(pl.Series(near_repeat)).then(centre_id).otherwise("duplicate_of"),
        duplicate_similarity=pl.when(pl.col("duplicate_of").is_not_null())
        .then(1.0)
        .otherwise(pl.Series(similarity).fill_nan(None)),
    )


def _with_prompt_groups(rows: pl.DataFrame, grouped: SimilarPairs, names: pl.Series, feedback: pl.DataFrame) -> pl.DataFrame:
    """Add prompt_group and prompt_leader: names of the group's eldest prompt and of the one that the prompt's line began with."""
    number = rows["prompt_number"].to_numpy()
    further = continued(feedback, number[np.argsort(rows["place"].to_numpy())])
    left, right = (np.concatenate(both) for both in zip((grouped.left, grouped.right), further, strict=True))
    eldest, leader = (find(left, right, len(names))[number] for find in (components, leaders))
    return rows.with_columns(prompt_group=names.gather(eldest), prompt_leader=names.gather(leader))


def _near_and_kept(rows: pl.DataFrame, alike: SimilarPairs) -> pl.DataFrame:
    """Near rows that both stay: row_id, label, other_row_id, other_label, similarity."""
    gone = rows["near_repeat"].to_numpy()
    stay = ~gone[alike.left] & ~gone[alike.right]
    left, right = alike.left[stay], alike.right[stay]
    return pl.DataFrame(
        {
            "row_id": rows["row_id"].gather(left),
            "label": rows["label"].gather(left),
            "other_row_id": rows["row_id"].gather(right),
            "other_label": rows["label"].gather(right),
            "similarity": alike.similarity[stay],
        }
    ).sort("similarity", "row_id", "other_row_id", descending=[True, False, False])


def _is_repeat() -> pl.Expr:
    decided = pl.any_horizontal("near_repeat", "overruled", "outvoted")
    return pl.col("duplicate_of").is_not_null() & ~decided


def _waits() -> pl.Expr:
    """A text has both labels, nothing decides, and no earlier step has set the row aside."""
    return pl.col("contradicted") & pl.col("duplicate_of").is_null() & pl.col("sound")


def _has_the_majority() -> pl.Expr:
    """A row stays with the label of most of its text's votes, and no trusted label takes its place."""
    majority = pl.col("desirable_votes") > pl.col("undesirable_votes")
    decided = pl.col("desirable_votes") != pl.col("undesirable_votes")
    label = pl.coalesce("trusted_label", "label")
    return pl.col("sound") & pl.col("duplicate_of").is_null() & decided & (label == majority)


def _dedupe_decisions(rows: pl.DataFrame) -> pl.DataFrame:
    clean = pl.col("match").is_null()
    repeat = clean & _is_repeat()
    held = clean & pl.col("contradicted") & pl.col("duplicate_of").is_null()
    votes = ("desirable_votes", "undesirable_votes")
    outvoted: dict[str, Any] = {"action": "drop", "evidence": votes, "caused_by": "duplicate_of"}
    superseded = pl.col("outvoted") & pl.col("withdrawn")
    return pl.concat(
        [
            no_decisions(),
            decide(
                rows, ~clean, action="drop", reason="contaminated", evidence=("match", "match_similarity", "evaluation_prompt")
            ),
            decide(rows, repeat, action="drop", reason="repeat", evidence=("same_text",), caused_by="duplicate_of"),
            decide(rows, clean & superseded, reason="superseded", **outvoted),
            decide(rows, clean & pl.col("outvoted") & ~superseded, reason="outvoted", **outvoted),
            # set aside, not dropped: a verdict must not move other rows from one side of a later split to the other
            decide(
                rows,
                clean & pl.col("overruled"),
                action="review",
                reason="overruled",
                evidence=("same_text", "trusted_label"),
                caused_by="duplicate_of",
            ),
            decide(
                rows,
                clean & pl.col("near_repeat"),
                action="drop",
                reason="near_repeat",
                evidence=("duplicate_similarity",),
                caused_by="duplicate_of",
            ),
            decide(rows, held, action="review", reason="labels_disagree", evidence=votes, caused_by="opposite"),
        ]
    )


def _dedupe_metrics(
    rows: pl.DataFrame, tables: dict[str, pl.DataFrame], prompts: Texts, pairs: dict[str, SimilarPairs], evaluation: Prompts
) -> dict[str, Any]:
    clean = rows.filter(pl.col("match").is_null())
    held, outvoted = clean.filter(_waits()), clean.filter("outvoted")
    superseded = int(outvoted["withdrawn"].sum())
    votes_differ = (pl.col("desirable_votes") > 0) & (pl.col("undesirable_votes") > 0)
    groups = rows["prompt_group"].value_counts(sort=False).sort("count", "prompt_group", descending=[True, False])
    group, group_rows = groups.row(0) if groups.height else (None, 0)
    example = rows.filter(pl.col("prompt_group") == group)["row_id"].min() if groups.height else None
    return {
        "rows": rows.height,
        "texts": rows["text"].n_unique(),
        "repeats": clean.filter(_is_repeat()).height,
        "repeats_by_other_raters": _repeats_by_other_raters(clean),
        "near_repeats": int(rows["near_repeat"].sum()),
        "contradicted_texts": held["text"].n_unique(),
        "held_for_review": held.height,
        "texts_to_judge": held.filter(~pl.col("trusted_differ").fill_null(value=False))["text"].n_unique(),
        "majority_texts": clean.filter(votes_differ & _has_the_majority()).height,
        "outvoted_texts": outvoted.filter(votes_differ)["text"].n_unique(),
        "texts_taken_back": outvoted.filter(~votes_differ)["text"].n_unique(),
        "outvoted_rows": outvoted.height - superseded,
        "superseded_rows": superseded,
        "earlier_votes": int(rows["earlier_votes"].sum() or 0),
        "copied_votes": int(clean["copies"].sum() or 0),
        **{name: table.height for name, table in tables.items()},
        "evaluation_prompts": None if evaluation is None else len(evaluation),
        "contaminated": rows.height - clean.height,
        "trusted": _trusted_metrics(clean),
        "prompts": len(prompts),
        "prompt_groups": groups.height,
        "largest_prompt_group": {"row_id": example, "rows": group_rows, "share": round(group_rows / max(rows.height, 1), 4)},
        "pairs": {
            name: {"compared": near.compared, "near": len(near.left), "skipped": near.skipped} for name, near in pairs.items()
        },
    }


def _repeats_by_other_raters(clean: pl.DataFrame) -> int:
    """Rows dropped as repeats that are the first of their text by a known rater: no copies, but votes on the row that stays."""
    stays_first = clean.sort(pl.col("duplicate_of").is_not_null(), maintain_order=True)
    votes = stays_first.explode("votes").select(
        "row_id", "text", rater=pl.col("votes").struct.field("rater").str.strip_chars(), repeat=_is_repeat() & pl.col("sound")
    )
    known = votes.filter(pl.col("rater").str.len_chars() > 0)
    first = known.filter(pl.struct("text", "rater").is_first_distinct())
    others = first.filter(pl.col("row_id") != pl.col("row_id").first().over("text"))
    return others.filter("repeat")["row_id"].n_unique()


def _trusted_metrics(clean: pl.DataFrame) -> dict[str, int]:
    """Rows that came with a trusted label, rows that stay and got one from the same text, labels lost, rows of the label that a
    trusted one overrules, texts judged both ways.
    """
    stays = pl.col("duplicate_of").is_null()
    counts = {
        "rows": pl.col("trusted"),
        "from_same_text": stays & ~pl.col("trusted") & pl.col("trusted_label").is_not_null(),
        "lost_with_near_repeats": pl.col("near_repeat") & pl.col("trusted"),
        "overruled": pl.col("overruled"),
    }
    differ = clean.filter("trusted_differ")["text"].n_unique()
    return {name: int(clean.select(rows.sum()).item() or 0) for name, rows in counts.items()} | {"texts_with_both": differ}


def _dedupe_findings(metrics: dict[str, Any]) -> list[Finding]:
    rows, largest = metrics["rows"], metrics["largest_prompt_group"]
    if not rows:
        return [not_applicable(f"KD02{digit}", "the table has no rows") for digit in range(7)]
    repeats, near_texts_kept = metrics["repeats"] + metrics["near_repeats"], _near_in_words(metrics)
    skipped = sum(pairs["skipped"] for pairs in metrics["pairs"].values())
    compared = sum(pairs["compared"] for pairs in metrics["pairs"].values())
    return [
        _count_finding(
            "KD020",
            repeats,
            f"{repeats:,} of {rows:,} rows repeat another row's text and label, and are dropped.{_copies_in_words(metrics)}"
            f"{near_texts_kept}",
        )
        if repeats
        else passed("KD020", near_texts_kept.strip()),
        _disagreement_finding(metrics),
        _count_finding(
            "KD022",
            metrics["near_contradictions"],
            f"{_counted(metrics['near_contradictions'], 'pair')} of nearly equal rows with opposite labels."
            " This step takes out neither row of a pair; they are in the table near_contradictions.",
        ),
        _count_finding(
            "KD023",
            largest["rows"] if largest["rows"] > 1 and largest["share"] > LARGE_GROUP else 0,
            f"the largest group of near-duplicate prompts holds {largest['share']:.1%} of {rows:,} rows"
            f" and must stay on one side of a split. Look at row {largest['row_id']!r};"
            " a higher near_prompts makes smaller groups.",
        ),
        _contamination_finding(metrics),
        _count_finding(
            "KD025",
            skipped,
            f"{skipped:,} pairs of texts were left uncompared ({compared:,} were compared): very many texts look alike."
            " Near-duplicates among them may remain.",
        ),
        _trusted_finding(metrics["trusted"]),
    ]


def _near_in_words(metrics: dict[str, Any]) -> str:
    """Pairs of nearly the same words of which nothing is dropped."""
    pairs = metrics["near_texts"]
    if not pairs:
        return ""
    return f" {_counted(pairs, 'pair')} of nearly equal rows may say different things and stay; see the table near_texts."


def _copies_in_words(metrics: dict[str, Any]) -> str:
    """What becomes of verdicts that nothing tells from a copy."""
    if not metrics["copied_votes"]:
        return ""
    copies = _counted(metrics["copied_votes"], "verdict")
    return f" {copies} without a rater or a time of their own may be copies, and are no second votes."


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _disagreement_finding(metrics: dict[str, Any]) -> Finding:
    """KD021: one text has both labels."""
    tied, decided, taken_back = (metrics[name] for name in ("contradicted_texts", "outvoted_texts", "texts_taken_back"))
    texts = []
    if tied:
        texts.append(f"{both_labels_sentence(tied, metrics['held_for_review'])}. They are held: let a person decide.")
    if decided:
        texts.append(f"Both labels, of which most raters' last votes gave one: {_counted(decided, 'text')}.")
    if taken_back:
        texts.append(f"Both labels, but votes were taken back, and all last votes agree: {_counted(taken_back, 'text')}.")
    if decided or taken_back:
        texts.append(
            "Dropped there:"
            f" {_counted(metrics['outvoted_rows'], 'outvoted row')} of the other label, and"
            f" {_counted(metrics['superseded_rows'], 'row')} superseded by what the same rater said later."
        )
    rows = metrics["held_for_review"] + metrics["outvoted_rows"] + metrics["superseded_rows"]
    return _count_finding("KD021", rows, " ".join(texts))


def _count_finding(code: str, count: int, text: str) -> Finding:
    return issue(code, text, count) if count else passed(code)


def _trusted_finding(trusted: dict[str, int]) -> Finding:
    if not trusted["rows"]:
        return not_applicable("KD029", "no row has a trusted label")
    lost, differ = trusted["lost_with_near_repeats"], trusted["texts_with_both"]
    return _count_finding(
        "KD029",
        lost + differ,
        f"{lost:,} of {trusted['rows']:,} trusted labels are on rows dropped as near repeats, and nothing uses them."
        f" {differ:,} texts have trusted labels that differ.",
    )


def _contamination_finding(metrics: dict[str, Any]) -> Finding:
    exams, dropped = metrics["evaluation_prompts"], metrics["contaminated"]
    if exams is None:
        return not_applicable("KD024", "no evaluation prompts were given (dedupe: decontaminate)")
    if not dropped:
        return passed("KD024", f"no prompt matches one of {exams:,} evaluation prompts")
    return issue(
        "KD024",
        f"{dropped:,} of {metrics['rows']:,} rows have a prompt that is, nearly is or holds one of {exams:,} evaluation prompts,"
        " and are dropped.",
        dropped,
    )
