"""Same text, same verdict: one row is enough. Same text, opposite verdicts: a person should look."""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.errors import SettingError
from ktodata.feedback import VOTE, check_columns
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.stage import Prompts, StageResult, decide, no_decisions
from ktodata.text.contamination import contaminated
from ktodata.text.near_duplicates import NO_PAIRS, SimilarPairs, Texts, near_rows, near_texts, nearest_kept, prepare
from ktodata.text.prompt_groups import components, different, first_of
from ktodata.text.words import Index, normalised

NEEDS = ("prompt", "completion", "label", "votes")
USES = ("state", "trusted_label")
ADDS = ("duplicate_of", "duplicate_similarity", "prompt_group", "pooled_votes", "contradicted", "trusted_label")
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
    ignore_case: Annotated[bool, Field(description="'Yes' and 'yes' are the same text")] = True,
    decontaminate: Annotated[
        Prompts, Field(description="evaluation prompts: rows whose prompt is one, is nearly one, or holds one are dropped")
    ] = None,
    seed: Annotated[int, Field(ge=0, description="seed of the MinHash functions")] = 0,
) -> StageResult:
    """Keep one row of each text and verdict, hold texts with both verdicts for review, and group near-duplicate prompts.

    Equal means equal after Unicode NFC, folding of white space and, unless told otherwise, of case. Of equal rows the
    best-evidenced stays: one that no earlier step has doubted, then most votes, then with a trusted label, then the first.
    It gets everybody's votes as `pooled_votes`. Where one text has both labels, one row of each label is held for review, with
    the votes of both sides; further repeats are dropped as repeats of their label's row. A trusted label settles it: rows of the
    other label are set aside as overruled.

    A trusted label is about the text: rows of one text that have none get that of the others, unless those differ, so that it is
    not lost when the row that was judged is the one that goes. Near rows share none; see metrics `trusted`.

    Near means that prompt and completion, each by itself, share at least `near` of their words and neighbouring word pairs with
    one kept row of the same label, that their numbers are the same and in the same order, and that the prompts are as alike
    without the words of a template (see `signals.shingles.template_words`). Near rows with opposite labels are listed in the
    table `near_contradictions` and both kept: the difference between them may be what was judged.
    """
    check_columns(feedback, NEEDS, who="dedupe")
    _check_similarities(near=near, near_prompts=near_prompts)
    rows = _numbered_rows(feedback, ignore_case)
    prompt_places, prompt_of = different(first_of(rows["prompt"]))
    completion_places, completion_of = different(first_of(rows["completion"]))
    prompts = prepare(rows["prompt"].gather(prompt_places), templates=True, seed=seed)
    rows = rows.with_columns(prompt_number=pl.Series(prompt_of), completion_number=pl.Series(completion_of))
    rows, examined = _with_contamination(rows, prompt_places, decontaminate, near_prompts, ignore_case, seed)
    rows = _with_repeats(rows)
    alike = _near_row_pairs(rows, prompts, completion_places, near, seed)
    rows = _with_near_repeats(rows, alike)
    grouped = near_texts(prompts, near_prompts)
    rows = _with_prompt_groups(rows, grouped, len(prompts))
    opposed = _near_contradictions(rows, alike)
    pairs = {"rows": alike, "prompts": grouped} | ({"evaluation": examined} if decontaminate else {})
    metrics = _dedupe_metrics(rows, opposed, prompts, pairs, decontaminate)
    return StageResult(
        columns=rows.sort("place").select("row_id", *ADDS),
        decisions=_dedupe_decisions(rows.sort("place")),
        metrics=metrics | {"findings": [finding.as_dict() for finding in _dedupe_findings(metrics)]},
        tables={"near_contradictions": opposed},
    )


def _check_similarities(**settings: float | None) -> None:
    for name, value in settings.items():
        if value is not None and not LOWEST <= value <= 1:
            hint = f" Did you mean {value / 100:g}?" if LOWEST * 100 <= value <= 100 else ""
            raise SettingError(f"dedupe: {name} is a similarity between {LOWEST:g} and 1; got {value:g}.{hint}")


def _numbered_rows(feedback: pl.DataFrame, ignore_case: bool) -> pl.DataFrame:
    """One line per row with normalised texts, best-evidenced rows first."""
    state = pl.col("state") if "state" in feedback.columns else pl.lit("keep")
    trusted_label = pl.col("trusted_label") if "trusted_label" in feedback.columns else pl.lit(None, pl.Boolean)
    rows = feedback.select(
        "row_id",
        "label",
        "votes",
        normalised(pl.col("prompt"), ignore_case=ignore_case),
        normalised(pl.col("completion"), ignore_case=ignore_case),
        place=pl.int_range(pl.len(), dtype=pl.Int64),
        sound=state.is_in(["keep", "relabel"]),
        vote_count=pl.col("votes").list.len(),
        trusted=trusted_label.is_not_null(),
        trusted_label=trusted_label,
    )
    return rows.sort("sound", "vote_count", "trusted", "place", descending=[True, True, True, False])


def _with_contamination(
    rows: pl.DataFrame, prompt_places: Index, evaluation: Prompts, near_prompts: float, ignore_case: bool, seed: int
) -> tuple[pl.DataFrame, SimilarPairs]:
    """Add match, match_similarity and evaluation_prompt (its first 200 characters); null where a prompt is clean."""
    exams = list(evaluation or [])
    prompts = rows["prompt"].gather(prompt_places)
    matches, pairs = contaminated(prompts, exams, near_prompts=near_prompts, ignore_case=ignore_case, seed=seed)
    texts = pl.DataFrame({"evaluation_prompt": pl.Series(exams, dtype=pl.String).str.slice(0, 200)}).with_row_index("evaluation")
    matches = matches.join(texts.with_columns(pl.col("evaluation").cast(pl.Int64)), on="evaluation")
    matches = matches.select(
        prompt_number="prompt", match="match", match_similarity="similarity", evaluation_prompt="evaluation_prompt"
    )
    return rows.join(matches, on="prompt_number", how="left", maintain_order="left"), pairs


def _with_repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """Add contradicted, settled, opposite (the other label's row), overruled, duplicate_of, pooled_votes, trusted_differ.

    And fill trusted_label. Where one text has both labels and a trusted one, that settles it: rows of the other label are
    overruled, and nothing is contradicted. Expects best-evidenced rows first.
    """
    text = ("prompt_number", "completion_number")
    desirable = pl.col("row_id").filter("label").first().over(text)
    undesirable = pl.col("row_id").filter(~pl.col("label")).first().over(text)
    keeper = pl.col("row_id").first().over(*text, "label")
    has_both_labels = pl.col("label").n_unique().over(text) > 1
    least, most = pl.col("trusted_label").min().over(text), pl.col("trusted_label").max().over(text)
    votes = rows.sort("place").select(*text, "votes").explode("votes").group_by(text, maintain_order=True).agg(pooled="votes")
    settled = has_both_labels & (least == most).fill_null(False)
    # only by a row that can stand for the text
    sound = [pl.col("sound").filter(label).any().over(text) for label in (pl.col("label"), ~pl.col("label"))]
    other_label = (pl.col("label") != least) & pl.when("label").then(sound[1]).otherwise(sound[0])
    overruled = settled & other_label & (pl.col("row_id") == keeper)  # its repeats are repeats
    opposite = pl.when("label").then(undesirable).otherwise(desirable)
    return (
        rows.with_columns(
            contradicted=has_both_labels & ~settled,
            settled=settled,
            opposite=opposite,
            overruled=overruled,
            duplicate_of=pl.when(overruled).then(opposite).when(pl.col("row_id") != keeper).then(keeper),
            same_text=pl.len().over(text),
            trusted_differ=least != most,
            trusted_label=pl.coalesce("trusted_label", pl.when(least == most).then(least)),
        )
        .join(votes, on=text, how="left", maintain_order="left")
        # on the row that stays only: every repeat holding everybody's votes would grow with the square of a text's popularity
        .with_columns(pooled_votes=pl.when(pl.col("duplicate_of").is_null()).then("pooled").cast(pl.List(VOTE)))
    )


def _near_row_pairs(rows: pl.DataFrame, prompts: Texts, completion_places: Index, near: float | None, seed: int) -> SimilarPairs:
    """Near pairs of the rows that would stay so far, as places in `rows`."""
    if near is None:
        return NO_PAIRS
    # a text with both labels is near to nothing, settled or not: a verdict must not change which rows there are to split
    one_label = ~pl.col("contradicted") & ~pl.col("settled")
    stays = pl.col("sound") & pl.col("duplicate_of").is_null() & one_label & pl.col("match").is_null()
    open_ = np.flatnonzero(rows.select(stays).to_series().to_numpy())
    completions = prepare(rows["completion"].gather(completion_places), templates=False, seed=seed)
    prompt_of = rows["prompt_number"].to_numpy()[open_]
    completion_of = rows["completion_number"].to_numpy()[open_]
    pairs = near_rows(prompts, completions, prompt_of, completion_of, near)
    return replace(pairs, left=open_[pairs.left], right=open_[pairs.right])


def _with_near_repeats(rows: pl.DataFrame, alike: SimilarPairs) -> pl.DataFrame:
    """Add near_repeat and duplicate_similarity, and point near repeats at the row they are near."""
    label = rows["label"].to_numpy()
    agree = label[alike.left] == label[alike.right]
    agreeing = replace(alike, left=alike.left[agree], right=alike.right[agree], similarity=alike.similarity[agree])
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


def _with_prompt_groups(rows: pl.DataFrame, grouped: SimilarPairs, prompts: int) -> pl.DataFrame:
    """Add prompt_group: the row_id of the first row of the prompt's group."""
    member_of = components(grouped.left, grouped.right, prompts)
    group = pl.Series(member_of[rows["prompt_number"].to_numpy()])
    return rows.with_columns(prompt_group=pl.col("row_id").sort_by("place").first().over(group))


def _near_contradictions(rows: pl.DataFrame, alike: SimilarPairs) -> pl.DataFrame:
    """SimilarPairs of near rows that both stay and have opposite labels."""
    label, gone = rows["label"].to_numpy(), rows["near_repeat"].to_numpy()
    opposed = (label[alike.left] != label[alike.right]) & ~gone[alike.left] & ~gone[alike.right]
    left, right = alike.left[opposed], alike.right[opposed]
    return pl.DataFrame(
        {
            "row_id": rows["row_id"].gather(left),
            "label": rows["label"].gather(left),
            "other_row_id": rows["row_id"].gather(right),
            "other_label": rows["label"].gather(right),
            "similarity": alike.similarity[opposed],
        }
    ).sort("similarity", "row_id", "other_row_id", descending=[True, False, False])


def _dedupe_decisions(rows: pl.DataFrame) -> pl.DataFrame:
    clean = pl.col("match").is_null()
    repeat = clean & pl.col("duplicate_of").is_not_null() & ~pl.col("near_repeat") & ~pl.col("overruled")
    held = clean & pl.col("contradicted") & pl.col("duplicate_of").is_null()
    votes = pl.col("pooled").list.eval(pl.element().struct.field("label"))
    counted = rows.filter(held).with_columns(
        desirable_votes=votes.list.eval(pl.element().cast(pl.Int64)).list.sum(),
        undesirable_votes=votes.list.eval((~pl.element()).cast(pl.Int64)).list.sum(),
    )
    return pl.concat(
        [
            no_decisions(),
            decide(
                rows, ~clean, action="drop", reason="contaminated", evidence=("match", "match_similarity", "evaluation_prompt")
            ),
            decide(rows, repeat, action="drop", reason="repeat", evidence=("same_text",), caused_by="duplicate_of"),
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
            decide(
                counted,
                pl.lit(True),
                action="review",
                reason="labels_disagree",
                evidence=("desirable_votes", "undesirable_votes"),
                caused_by="opposite",
            ),
        ]
    )


def _dedupe_metrics(
    rows: pl.DataFrame, opposed: pl.DataFrame, prompts: Texts, pairs: dict[str, SimilarPairs], evaluation: Prompts
) -> dict[str, Any]:
    clean = rows.filter(pl.col("match").is_null())
    contradicted = clean.filter(pl.col("contradicted"))
    groups = rows["prompt_group"].value_counts(sort=False).sort("count", "prompt_group", descending=[True, False])
    group, group_rows = groups.row(0) if groups.height else (None, 0)
    return {
        "rows": rows.height,
        "texts": rows.select(pl.struct("prompt_number", "completion_number").n_unique()).item(),
        "repeats": clean.filter(pl.col("duplicate_of").is_not_null() & ~pl.col("near_repeat") & ~pl.col("overruled")).height,
        "near_repeats": int(rows["near_repeat"].sum()),
        "contradicted_texts": contradicted.select(pl.struct("prompt_number", "completion_number").n_unique()).item(),
        "contradicted_rows": contradicted.height,
        "held_for_review": contradicted.filter(pl.col("duplicate_of").is_null()).height,
        "near_contradictions": opposed.height,
        "evaluation_prompts": None if evaluation is None else len(evaluation),
        "contaminated": rows.height - clean.height,
        "trusted": _trusted_metrics(clean),
        "prompts": len(prompts),
        "prompts_with_template": int((prompts.own.lengths < prompts.sets.lengths).sum()),
        "prompt_groups": groups.height,
        "largest_prompt_group": {"row_id": group, "rows": group_rows, "share": round(group_rows / max(rows.height, 1), 4)},
        "pairs": {
            name: {"compared": near.compared, "near": len(near.left), "skipped": near.skipped} for name, near in pairs.items()
        },
    }


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
    differ = clean.filter("trusted_differ").select(pl.struct("prompt_number", "completion_number").n_unique()).item()
    return {name: int(clean.select(rows.sum()).item() or 0) for name, rows in counts.items()} | {"texts_with_both": differ}


def _dedupe_findings(metrics: dict[str, Any]) -> list[Finding]:
    rows, largest = metrics["rows"], metrics["largest_prompt_group"]
    if not rows:
        return [not_applicable(f"KD02{digit}", "the table has no rows") for digit in range(7)]
    repeats = metrics["repeats"] + metrics["near_repeats"]
    skipped = sum(pairs["skipped"] for pairs in metrics["pairs"].values())
    compared = sum(pairs["compared"] for pairs in metrics["pairs"].values())
    return [
        _count_finding("KD020", repeats, f"{repeats:,} of {rows:,} rows repeat another row's text and label, and are dropped."),
        _count_finding(
            "KD021",
            metrics["contradicted_rows"],
            f"{metrics['contradicted_texts']:,} texts have both labels ({metrics['contradicted_rows']:,} rows)."
            " They teach nothing as they are: let a person decide.",
        ),
        _count_finding(
            "KD022",
            metrics["near_contradictions"],
            f"{metrics['near_contradictions']:,} pairs of nearly equal rows have opposite labels."
            " Both rows are kept; the pairs are in the table near_contradictions.",
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
