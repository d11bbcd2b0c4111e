"""What describes each kind of table: figures from key columns, features never read."""

from collections.abc import Callable
from typing import Final

import polars as pl
import pyarrow as pa

from pipeline.core import tables
from pipeline.core.records import Facts

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def _judgments(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    counts = rows.group_by("qid", "label").agg(rows=pl.len()).collect(engine="streaming")
    queries = counts.group_by("qid").agg(pl.col("rows").sum(), pl.col("label").max())
    total = int(counts["rows"].sum())
    negatives = int(counts.filter(pl.col("label") == 0)["rows"].sum())
    return {
        "features": len(tables.features_of(schema.names)),
        "qid": str(schema.field("qid").type),
        "doc_id": "doc_id" in schema.names,
        "queries": queries.height,
        "negatives": negatives,
        "negatives_fraction": negatives / total if total else None,
        "longest": queries["rows"].max(),
        "queries_without_positive": queries.filter(pl.col("label") == 0).height,
        "labels": counts.group_by("label").agg(pl.col("rows").sum()).sort("label").to_dicts(),
    }


def value_counts(rows: pl.LazyFrame, column: str) -> list[Facts]:
    """Return each value of a column with its ``rows``, in ascending order."""
    counts = rows.group_by(column).agg(rows=pl.len()).sort(column)
    return counts.collect(engine="streaming").to_dicts()


def _prepared(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    weight = pl.col("weight").cast(pl.Float64)
    weights = rows.select(sum=weight.sum(), smallest=weight.min(), largest=weight.max()).collect()
    facts = {**_judgments(rows, schema), "weights": weights.to_dicts()[0]}
    if "grade" in schema.names:
        facts["grades"] = value_counts(rows, "grade")
    return facts


def _scores(rows: pl.LazyFrame, _schema: pa.Schema) -> Facts:
    score = pl.col("score")
    names = [f"{q:g}" for q in QUANTILES]
    quantiles = [score.quantile(q, "linear").alias(name) for q, name in zip(QUANTILES, names, strict=True)]
    by_label = rows.group_by("label").agg(pl.len().alias("rows"), score.mean().alias("mean"), *quantiles)
    by_fold = rows.group_by("fold").agg(rows=pl.len(), queries=pl.col("qid").n_unique())
    labels, folds = pl.collect_all([by_label.sort("label"), by_fold.sort("fold")])
    described = labels.select("label", "rows", "mean", quantiles=pl.struct(names))
    return {"labels": described.to_dicts(), "folds": folds.to_dicts()}


def _selection(rows: pl.LazyFrame, _schema: pa.Schema) -> Facts:
    weight = pl.col("weight").cast(pl.Float64)
    reasons = rows.group_by("reason", "kept").agg(rows=pl.len(), weight=weight.sum())
    negative = pl.col("label") == 0
    totals = rows.select(
        queries=pl.col("qid").n_unique(),
        kept=pl.col("kept").sum(),
        weight=weight.sum(),
        negatives=negative.sum(),
        negatives_kept=(negative & pl.col("kept")).sum(),
    )
    found, summed = pl.collect_all([reasons.sort("kept", "rows", descending=True), totals])
    return {**summed.to_dicts()[0], "reasons": found.to_dicts()}


def _metrics(rows: pl.LazyFrame, _schema: pa.Schema) -> Facts:
    key = ["arm", "split", "cutoff"]
    # METRICS is in panel order, and the mean keeps it.
    means = rows.group_by(key, maintain_order=True).agg(
        ndcg=pl.col("ndcg").mean(), queries=pl.len(), queries_empty=pl.col("ndcg").null_count()
    )
    folds = rows.select(pl.col("fold").unique().sort())
    found, seen = pl.collect_all([means, folds])
    return {"means": found.to_dicts(), "folds": seen["fold"].to_list()}


def _summary(rows: pl.LazyFrame, _schema: pa.Schema) -> Facts:
    return {"summary": rows.collect().to_dicts()}


def _search(rows: pl.LazyFrame, _schema: pa.Schema) -> Facts:
    # The candidates of a rung stand best first.
    rungs = rows.group_by("rung", "trees", maintain_order=True).agg(
        arms=pl.len(),
        kept=pl.col("kept").sum(),
        best=pl.col("arm").first(),
        ndcg_vali=pl.col("ndcg_vali").first(),
    )
    return {"rungs": rungs.collect().to_dicts()}


CONTENTS: Final[dict[str, Callable[[pl.LazyFrame, pa.Schema], Facts]]] = {
    "JUDGMENTS": _judgments,
    "PREPARED": _prepared,
    "SCORES": _scores,
    "SELECTION": _selection,
    "METRICS": _metrics,
    "SUMMARY": _summary,
    "SEARCH": _search,
}
"""The function that describes each table."""
