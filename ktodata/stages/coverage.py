"""What the prompts are about, where labels differ, which regions are thin, and what a reference set has that they have not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from ktodata.embeddings.clusters import (
    Clusters,
    cluster_as_tight,
    cluster_texts,
    effective_number,
    effective_number_interval,
    exemplars,
    nearest_cluster,
    tightness,
)
from ktodata.embeddings.encode import encode_texts
from ktodata.embeddings.held_out import check_held_out, near_held_out
from ktodata.embeddings.holes import (
    LEVELS,
    NearestPrompts,
    Reach,
    Uncovered,
    calibrate,
    nearest_prompts,
    rows_per_reference_prompt,
    similarity_among_themselves,
)
from ktodata.embeddings.map_layout import map_prompts, map_sample
from ktodata.errors import EmptyDataError, SettingError
from ktodata.feedback import question_text
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.stage import Prompts, Seed, StageResult, is_trained, trained_label
from ktodata.stats import clopper_pearson
from ktodata.text.cluster_terms import cluster_names, cluster_terms
from ktodata.work_done import working_on

NEEDS = ("prompt", "label", "prompt_embedding", "source", "state")
USES = ("part", "prompt_group", "turns")
ADDS = ("cluster", "map_x", "map_y")

Floats = npt.NDArray[np.floating]

EXEMPLAR_CHARS = 300
# a cluster is thin when it has less than a quarter of the rows that an even spread would give it
THIN = 0.25
SIGNIFICANT = 0.05


def coverage(
    feedback: pl.DataFrame,
    *,
    clusters: Annotated[
        Annotated[int, Field(ge=1, le=500)] | Literal["auto"],
        Field(description="prompt clusters; auto takes the finest of those with about the best silhouette"),
    ] = "auto",
    reference: Annotated[
        Prompts, Field(description="prompts that the training set should cover: production or evaluation prompts")
    ] = None,
    min_similarity: Annotated[
        float | None,
        Field(
            ge=-1,
            le=1,
            description="cosine to the nearest training prompt from which a reference prompt counts as covered; "
            "by default what 95 % of the training prompts reach among themselves, or 90 to 70 % where more stand alone",
        ),
    ] = None,
    encoder: Annotated[str | None, Field(description="embeds the reference; must be the model that embed used")] = None,
    seed: Seed = 0,
) -> StageResult:
    """Add cluster (0 is the largest) to every row, and map_x, map_y to one row of each prompt in the map's sample.

    Clusters are fitted to, and the tables count, the rows that will be trained on; held-out rows get the nearest cluster.
    Intervals are exact 95 % intervals for rows; rows that share a prompt are not independent, so the truth is less certain still.
    Tables: clusters, cluster_labels, with a reference set holes and reference (each of its prompts, covered or not), and with
    parts near_held_out.
    """
    feedback = feedback.with_columns(prompt=question_text(feedback))  # as embed reads them
    training = _rows_to_cover(feedback)
    # first, as it holds two copies of the vectors, and nothing else does yet
    close = near_held_out(feedback) if {"part", "prompt_group"} <= set(feedback.columns) else None
    prompts = _distinct_prompts(training)
    # the one copy of them that is held, beside the table's own
    vectors: Floats = feedback["prompt_embedding"].gather(prompts["place"]).to_numpy()
    weights = prompts["rows"].to_numpy().astype(float)
    working_on(f"grouping {prompts.height:,} prompts")
    fitted = cluster_texts(vectors, weights, clusters=None if clusters == "auto" else clusters, seed=seed)
    prompts = prompts.with_columns(cluster=pl.Series(fitted.of_text, dtype=pl.Int32))
    training = training.join(prompts.select("prompt", "cluster"), on="prompt", maintain_order="left")
    tables = {"clusters": _cluster_table(training, prompts, vectors, fitted, seed), "cluster_labels": _cluster_labels(training)}
    metrics = _coverage_metrics(tables["clusters"], fitted, weights, seed) | {
        "silhouettes": {str(k): v for k, v in fitted.silhouettes.items()}
    }
    compared = None
    if reference is not None:
        working_on(f"comparing them with {len(reference):,} reference prompts")
        compared = _compare_with_reference(reference, prompts, vectors, fitted, encoder, min_similarity, seed)
        tables |= {"holes": _hole_table(compared, seed), "reference": compared.table}
        metrics["reference"] = compared.metrics()
    findings = _coverage_findings(tables["clusters"], metrics, compared, tables.get("holes"))
    if close is not None:
        tables["near_held_out"], metrics["held_out"] = close
    metrics["findings"] = [finding.as_dict() for finding in (*findings, check_held_out(metrics.get("held_out")))]
    working_on("laying out the map")
    columns = _coverage_columns(feedback, training, prompts, vectors, fitted, seed)
    metrics["map_rows"] = int(columns["map_x"].is_not_null().sum())
    return StageResult(columns=columns, metrics=metrics, tables=tables)


def _rows_to_cover(feedback: pl.DataFrame) -> pl.DataFrame:
    group = pl.coalesce("prompt_group", "prompt") if "prompt_group" in feedback.columns else pl.col("prompt")
    rows = feedback.drop("prompt_embedding").with_columns(place=pl.int_range(pl.len()))
    rows = rows.filter(is_trained(feedback.columns)).select(
        "row_id",
        "prompt",
        "source",
        "place",
        group=group,
        desirable=trained_label(),
    )
    if rows.is_empty():
        raise EmptyDataError(
            f"coverage: none of {feedback.height:,} rows will be trained on. See the ledger for what dropped or holds them."
        )
    return rows


def _distinct_prompts(training: pl.DataFrame) -> pl.DataFrame:
    """prompt, place (of its first row in the feedback), group, rows; sorted by prompt: nothing depends on the rows' order."""
    return training.group_by("prompt").agg(pl.col("place").first(), pl.col("group").min(), rows=pl.len()).sort("prompt")


def _cluster_table(training: pl.DataFrame, prompts: pl.DataFrame, vectors: Floats, fitted: Clusters, seed: int) -> pl.DataFrame:
    texts = prompts["prompt"].to_list()
    terms = cluster_terms(texts, fitted.of_text, seed=seed)
    examples = [[texts[i][:EXEMPLAR_CHARS] for i in near] for near in exemplars(vectors, fitted)]
    counts = training.group_by("cluster").agg(
        rows=pl.len(), prompts=pl.col("prompt").n_unique(), desirable=pl.col("desirable").sum()
    )
    table = counts.sort("cluster").with_columns(
        name=pl.Series(cluster_names(terms, [near[0] for near in examples])),
        terms=pl.Series(terms, dtype=pl.List(pl.String)),
        exemplars=pl.Series(examples, dtype=pl.List(pl.String)),
        share=pl.col("rows") / pl.col("rows").sum(),
        desirable_share=pl.col("desirable") / pl.col("rows"),
        one_label=(pl.col("desirable") == 0) | (pl.col("desirable") == pl.col("rows")),
        thin=pl.col("rows") < THIN * pl.col("rows").mean(),
    )
    low, high = clopper_pearson(table["desirable"].to_numpy(), table["rows"].to_numpy())
    adjusted = _differs_from_rest(table["desirable"].to_numpy(), table["rows"].to_numpy())
    return table.select(
        "cluster", "name", "terms", "exemplars", "rows", "prompts", "share", "desirable", "desirable_share",
        desirable_low=pl.Series(low), desirable_high=pl.Series(high),
        p_adjusted=pl.Series(adjusted), differs=pl.Series(adjusted) < SIGNIFICANT,
        one_label="one_label", thin="thin",
    )  # fmt: skip


def _differs_from_rest(desirable: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Floats:
    """For each cluster, how likely a share so unlike that of all others is by chance: Fisher's exact test, Holm's correction."""
    from scipy.stats import fisher_exact

    other, rest = desirable.sum() - desirable, rows.sum() - rows
    p = np.array(
        [
            fisher_exact([[d, n - d], [o, r - o]]).pvalue
            for d, n, o, r in zip(desirable.tolist(), rows.tolist(), other.tolist(), rest.tolist(), strict=True)
        ]
    )
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def _cluster_labels(training: pl.DataFrame) -> pl.DataFrame:
    """Rows of each cluster and source by label, each with its share of that cluster and source and the exact interval."""
    cells = training.group_by("cluster", "source").agg(of=pl.len(), desirable=pl.col("desirable").sum())
    counts = pl.concat(
        [
            cells.select("cluster", "source", "of", label=pl.lit(value=True), rows="desirable"),
            cells.select("cluster", "source", "of", label=pl.lit(value=False), rows=pl.col("of") - pl.col("desirable")),
        ]
    ).sort("cluster", "source", "label")
    low, high = clopper_pearson(counts["rows"].to_numpy(), counts["of"].to_numpy())
    return counts.select(
        "cluster", "source", "label", "rows", share=pl.col("rows") / pl.col("of"), low=pl.Series(low), high=pl.Series(high)
    )


def _coverage_metrics(table: pl.DataFrame, fitted: Clusters, weights: Floats, seed: int) -> dict[str, Any]:
    low, high = effective_number_interval(fitted.of_text, weights, seed=seed)
    return {
        "rows": int(table["rows"].sum()),
        "distinct_prompts": len(fitted.of_text),
        "clusters": table.height,
        "effective_clusters": {"value": effective_number(table["rows"].to_numpy()), "low": low, "high": high},
        "largest": {"name": table["name"][0], "share": table["share"][0]},
    }


def _coverage_columns(
    feedback: pl.DataFrame, training: pl.DataFrame, prompts: pl.DataFrame, vectors: Floats, fitted: Clusters, seed: int
) -> pl.DataFrame:
    sampled = map_sample(fitted.of_text, seed=seed)
    place = map_prompts(vectors[sampled], seed=seed)
    on_map = prompts[sampled].select(
        "prompt", map_x=pl.Series(place[:, 0], dtype=pl.Float32), map_y=pl.Series(place[:, 1], dtype=pl.Float32)
    )
    chance = pl.Series("chance", np.random.default_rng(seed).permutation(training.height))
    # one row for each prompt, any of its rows: its label then stands for the prompt's labels as they are mixed
    points = training.sort("row_id").with_columns(chance).sort("chance").unique("prompt", keep="first", maintain_order=True)
    points = points.join(on_map, on="prompt").select("row_id", "map_x", "map_y")
    others = feedback.select("row_id", "prompt_embedding").join(training, on="row_id", how="anti")
    cluster = pl.Series("cluster", nearest_cluster(others["prompt_embedding"].to_numpy(), fitted), dtype=pl.Int32)
    every = pl.concat([training.select("row_id", "cluster"), others.select("row_id", cluster)])
    return (
        feedback.select("row_id")
        .join(every, on="row_id", how="left", maintain_order="left")
        .join(points, on="row_id", how="left", maintain_order="left")
    )


@dataclass(frozen=True)
class _Compared:
    """A reference set beside the training prompts.

    table : prompt, count, similarity, nearest (training prompt), covered, cluster (of the nearest).
    reach : what the threshold rests on; None where it is a setting.
    clusters, tight : the training prompts' clusters, and how tight they are.
    """

    table: pl.DataFrame
    vectors: Floats
    threshold: float
    reach: Reach | None
    rows_per_prompt: float
    clusters: Clusters
    tight: float

    def uncovered(self) -> Uncovered:
        """Those below the threshold."""
        missed = self.table.filter(~pl.col("covered"))
        return Uncovered(missed.height, self.table.height, int(missed["count"].sum()), int(self.table["count"].sum()))

    def metrics(self) -> dict[str, Any]:
        missed = self.uncovered()
        low, high = clopper_pearson(missed.prompts, missed.of)
        return {
            "prompts": missed.traffic_of,
            "distinct_prompts": missed.of,
            "uncovered": {
                "rows": missed.prompts,
                "share": missed.prompts / missed.of,
                "low": float(low),
                "high": float(high),
                "share_of_traffic": missed.traffic / missed.traffic_of,
            },
            "min_similarity": self.threshold,
            "min_similarity_from": "the setting"
            if self.reach is None
            else f"{self.reach.cut.level:.0%} quantile of the training prompts' similarity to their nearest",
            "rows_per_reference_prompt": self.rows_per_prompt,
        }


def _compare_with_reference(
    reference: Sequence[str],
    prompts: pl.DataFrame,
    vectors: Floats,
    fitted: Clusters,
    encoder: str | None,
    min_similarity: float | None,
    seed: int,
) -> _Compared:
    table = (
        pl.DataFrame({"prompt": pl.Series(list(reference), dtype=pl.String)})
        .group_by("prompt")
        .agg(count=pl.len())
        .sort("prompt")
    )
    if table.is_empty():
        raise EmptyDataError("coverage: the reference set holds no prompts.")
    embedded = _embed_reference(table["prompt"].to_list(), prompts, vectors, encoder)
    near: NearestPrompts = nearest_prompts(embedded, vectors)
    if min_similarity is None:
        groups = prompts["group"].rank("dense").cast(pl.Int64).to_numpy()
        reach = calibrate(similarity_among_themselves(vectors, groups, seed=seed), near.similarity)
        threshold = reach.cut.threshold
    else:
        reach, threshold = None, min_similarity
    table = table.with_columns(
        similarity=pl.Series(near.similarity),
        nearest=prompts["prompt"].gather(near.number),
        covered=pl.Series(near.similarity >= threshold),
        cluster=pl.Series(fitted.of_text[near.number], dtype=pl.Int32),
    )
    covered = table.filter("covered")
    total = int(fitted.of_text.max()) + 1
    rate = rows_per_reference_prompt(
        np.bincount(fitted.of_text, weights=prompts["rows"].to_numpy(), minlength=total).astype(float),
        np.bincount(covered["cluster"].to_numpy(), weights=covered["count"].to_numpy(), minlength=total).astype(float),
    )
    tight = tightness(vectors, prompts["rows"].to_numpy().astype(float), fitted)
    return _Compared(table, embedded, threshold, reach, rate, fitted, tight)


def _embed_reference(texts: list[str], prompts: pl.DataFrame, vectors: Floats, encoder: str | None) -> Floats:
    """Vectors of the reference prompts, after a look whether the encoder gives the training prompts the vectors they have."""
    if encoder is None:
        raise SettingError("coverage: a reference set needs encoder: the model that embed used (its metrics.json names it).")
    probes = prompts.with_row_index().sort(pl.col("prompt").str.len_bytes(), "prompt")["index"].head(8).to_numpy()
    encoded = encode_texts([*prompts["prompt"].gather(probes), *texts], model=encoder).vectors
    again, reference = encoded[: len(probes)], encoded[len(probes) :]
    if again.shape[1] != vectors.shape[1] or not np.allclose(again, vectors[probes], atol=0.01):
        raise SettingError(
            f"coverage: encoder {encoder!r} gives the training prompts other vectors ({again.shape[1]} dimensions) than "
            f"prompt_embedding holds ({vectors.shape[1]} dimensions). Name the model that embed used."
        )
    return reference


def _hole_table(compared: _Compared, seed: int) -> pl.DataFrame:
    """Uncovered reference prompts in groups: name, terms, examples, how many, and the rows that would bring them level.

    Holes are the fewest groups that are as tight as the clusters of the training prompts.
    rows_needed : the group's prompts times the training rows per covered reference prompt of the median cluster.
    """
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "hole": pl.Int32, "name": pl.String, "terms": pl.List(pl.String), "examples": pl.List(pl.String),
        "reference_prompts": pl.Int64, "share": pl.Float64, "similarity": pl.Float64, "nearest": pl.String,
        "rows_needed": pl.Int64,
    }  # fmt: skip
    missed = compared.table.with_row_index().filter(~pl.col("covered"))
    if missed.is_empty():
        return pl.DataFrame(schema=schema)
    vectors = compared.vectors[missed["index"].to_numpy()]
    texts = missed["prompt"].to_list()
    # each prompt once: of one that is asked a thousand times the centre would be its own, and any others would do beside it
    holes = cluster_as_tight(vectors, np.ones(len(vectors)), compared.clusters, compared.tight, seed=seed)
    terms = cluster_terms(texts, holes.of_text, seed=seed)
    near = exemplars(vectors, holes)
    examples = [[texts[i][:EXEMPLAR_CHARS] for i in numbers] for numbers in near]
    table = (
        missed.with_columns(hole=pl.Series(holes.of_text, dtype=pl.Int32))
        .group_by("hole")
        .agg(reference_prompts=pl.col("count").sum().cast(pl.Int64), similarity=pl.col("similarity").median().cast(pl.Float64))
        .sort("hole")
        .with_columns(
            name=pl.Series(cluster_names(terms, [some[0] for some in examples])),
            terms=pl.Series(terms, dtype=pl.List(pl.String)),
            examples=pl.Series(examples, dtype=pl.List(pl.String)),
            share=pl.col("reference_prompts") / int(compared.table["count"].sum()),
            nearest=missed["nearest"].gather([numbers[0] for numbers in near]).str.slice(0, EXEMPLAR_CHARS),
            rows_needed=(pl.col("reference_prompts") * compared.rows_per_prompt).ceil().cast(pl.Int64),
        )
        .sort(pl.col("reference_prompts"), "hole", descending=[True, False])
        .with_columns(hole=pl.int_range(pl.len()))
    )
    return table.select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def _coverage_findings(
    table: pl.DataFrame, metrics: dict[str, Any], compared: _Compared | None, holes: pl.DataFrame | None
) -> list[Finding]:
    return [
        check_spread(metrics["effective_clusters"], metrics["largest"], table.height),
        check_labels_by_cluster(table),
        check_thin_clusters(table),
        check_one_label_clusters(table),
        check_reference(compared, holes),
    ]


def check_spread(effective: dict[str, float], largest: dict[str, Any], clusters: int) -> Finding:
    """KD080: most prompts are about one thing."""
    if clusters < 2:
        return not_applicable("KD080", "there is one cluster only: too few distinct prompts, or all are alike.")
    text = (
        f"{clusters} clusters are as varied as {effective['value']:.1f} of equal size (95 %: {effective['low']:.1f} to "
        f"{effective['high']:.1f}); the largest, '{largest['name']}', holds {largest['share']:.0%} of the rows"
    )
    if effective["high"] >= clusters / 2 and largest["share"] <= 0.5:
        return passed("KD080", f"{text}.")
    return issue("KD080", f"{text}. Collect feedback on other prompts, or cap the largest (rebalance: max_per_cluster).")


def check_labels_by_cluster(table: pl.DataFrame) -> Finding:
    """KD081: the share of desirable rows differs between clusters, so the label can be guessed from the topic."""
    if table.height < 2:
        return not_applicable("KD081", "there is one cluster only.")
    unlike = table.filter("differs").sort("p_adjusted", "cluster")
    if unlike.is_empty():
        return passed("KD081", "no cluster's share of desirable rows differs from the rest (Fisher, Holm-corrected, 5 %).")
    named = "; ".join(f"'{row['name']}' {row['desirable_share']:.0%}" for row in unlike.head(3).iter_rows(named=True))
    return issue(
        "KD081",
        f"in {unlike.height} of {table.height} clusters the share of desirable rows differs from the rest ({named}). Either the "
        "model is better at some topics, or raters judge topics differently: look at examples of each.",
        rows=int(unlike["rows"].sum()),
    )


def check_thin_clusters(table: pl.DataFrame) -> Finding:
    """KD082: regions with less than a quarter of the rows of an even spread."""
    if table.height < 2:
        return not_applicable("KD082", "there is one cluster only.")
    thin = table.filter("thin")
    if thin.is_empty():
        return passed("KD082", "no cluster is thin.")
    named = "; ".join(f"'{row['name']}' {row['rows']:,} rows" for row in thin.head(5).iter_rows(named=True))
    return issue(
        "KD082",
        f"{thin.height} of {table.height} clusters are thin: {named}. "
        f"An even spread would give each {table['rows'].sum() / table.height:,.0f}.",
        rows=int(thin["rows"].sum()),
    )


def check_one_label_clusters(table: pl.DataFrame) -> Finding:
    """KD083: clusters in which every row has the same label."""
    alike = table.filter("one_label")
    if alike.is_empty():
        return passed("KD083", "every cluster holds both labels.")
    named = "; ".join(
        f"'{row['name']}' {row['rows']:,} rows, all {'desirable' if row['desirable'] else 'undesirable'}"
        for row in alike.head(5).iter_rows(named=True)
    )
    return issue(
        "KD083",
        f"{alike.height} of {table.height} clusters hold one label only: {named}. "
        "Nothing there tells good from bad; collect the other label.",
        rows=int(alike["rows"].sum()),
    )


def check_reference(compared: _Compared | None, holes: pl.DataFrame | None) -> Finding:
    """KD084: more of the reference set is uncovered than the threshold alone explains."""
    if compared is None or holes is None:
        return not_applicable("KD084", "there is no reference set to compare with.")
    missed = compared.uncovered()
    text = f"{missed.words()} no training prompt within cosine {compared.threshold:.2f}"
    if missed.holds_much_traffic:
        text += ", and they are asked much more than others"
    elif compared.reach is None:
        if float(clopper_pearson(missed.prompts, missed.of)[0]) <= LEVELS[0]:
            return passed("KD084", f"{text}; that is not shown to be more than {LEVELS[0]:.0%}.")
    elif (farther := compared.reach.elsewhere) is not None:
        there = int((compared.table["similarity"] < farther.threshold).sum())
        lower, higher = f"as about {LEVELS[0]:.0%} of the training prompts", f"as {farther.level:.0%} of the training prompts"
        text = f"cannot say: {text}, {lower}; but {there:,} have none within {farther.threshold:.2f}, {higher}"
        return not_applicable("KD084", f"{text}. Look at the reference prompts, and give min_similarity.")
    elif not (cut := compared.reach.cut).is_beyond_chance:
        unseen = f"up to {compared.reach.most_unseen:.0%} may lie farther off and not show"
        return passed("KD084", f"{text}; about {cut.level:.0%} are to be expected, and {unseen}.")
    elif cut.level > LEVELS[0]:
        text += f", where {cut.level:.0%} of the training prompts have none"
    unit = "prompts" if missed.traffic_of == missed.of else "times asked"
    named = "; ".join(
        f"'{row['name']}' {row['reference_prompts']:,} {unit}, about {row['rows_needed']:,} rows needed"
        for row in holes.head(5).iter_rows(named=True)
    )
    return issue("KD084", f"{text}: {named}.", rows=missed.traffic)
