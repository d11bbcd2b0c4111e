"""Queries with more rows than LightGBM takes: announced before a run trains, cut when rows are chosen."""

from pathlib import Path

import polars as pl

from pipeline.core import rng
from pipeline.core.errors import SourceError
from pipeline.negatives.context import rank_within
from pipeline.ranker.fit import MAX_QUERY_ROWS


def too_long(keys: pl.DataFrame, where: Path, *, limit: int = MAX_QUERY_ROWS) -> list[str]:
    """Return a notice for queries LightGBM cannot take whole.

    Raises:
        SourceError: A query's positives alone are too many.
    """
    counts = keys.group_by("qid").agg(pl.len().alias("rows"), (pl.col("label") > 0).sum().alias("positives"))
    long = counts.filter(pl.col("rows") > limit).sort("rows", "qid", descending=True)
    if long.is_empty():
        return []
    query, rows, _ = long.row(0)
    hopeless = long.filter(pl.col("positives") > limit)
    if not hopeless.is_empty():
        raise SourceError(
            f"query {hopeless['qid'][0]} has {hopeless['positives'][0]:,} relevant rows, and LightGBM takes"
            f" {limit:,} rows per query; split the query or drop it",
            file=where,
        )
    more = f" and {long.height - 1} more" if long.height > 1 else ""
    return [
        f"query {query} ({rows:,} rows){more} is longer than the {limit:,} rows LightGBM takes; where a"
        " selection does not make it fit, negatives are left out at random (reason `over limit`)"
    ]


def within_limit(rows: pl.LazyFrame, *, seed: int, limit: int) -> pl.LazyFrame:
    """Leave kept negatives out at random where a query keeps more than ``limit`` rows."""
    # A draw of its own: those a strategy drew are the lowest in ``draw``, and would all stay.
    draw = pl.col("row_id").map_batches(
        lambda ids: pl.Series(rng.uniform(ids.to_numpy(), seed=seed, stream="limit")),
        return_dtype=pl.Float64,
        is_elementwise=True,
    )
    kept_negative = pl.col("kept") & pl.col("negative")
    over = rank_within(draw, kept_negative) > limit - pl.col("pos_count").cast(pl.Int64)
    return rows.with_columns(over=over.fill_null(False)).with_columns(
        kept=pl.col("kept") & ~pl.col("over"),
        reason=pl.when("over").then(pl.lit("over limit")).otherwise("reason"),
    )
