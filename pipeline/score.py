"""Initial rankers -> SCORES: every training row scored, by default by a model that never saw its query.

In-sample scores hide most mistakes: a ranker has learned its own training negatives as negatives. Out of
fold, a negative that outranks the positives is news.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline import draws, parts, ranker, tables
from pipeline.config import RankerConfig
from pipeline.folds import deal

IN_SAMPLE: Final = -1
"""Number of the one initial ranker that scores the rows it was trained on."""


def assign(keys: pl.DataFrame, *, folds: int, seed: int) -> pl.DataFrame:
    """Deal the queries of ``row_id, qid, label`` into folds at random; returns ``qid, fold`` (int16)."""
    queries = keys.select("qid").unique().sort("qid")
    key = draws.stream_key(seed, "initial folds")
    return queries.with_columns(pl.Series("fold", deal(queries.height, folds, seed=key)))


def training_rows(
    keys: pl.DataFrame, *, folds: int, leave_out: int, seed: int, negatives: float = 1.0
) -> pl.DataFrame:
    """Return the ``row_id`` of the rows an initial ranker trains on.

    Args:
        keys: ``row_id, qid, label`` of the training split.
        folds: Number of folds.
        leave_out: The fold it will score; -1: none, it sees every query.
        seed: Seed of the deal, and of which negatives are drawn.
        negatives: Share of each query's negatives to draw; never more rows of a query than LightGBM takes.
    """
    rows = keys
    if leave_out != IN_SAMPLE:
        dealt = assign(keys, folds=folds, seed=seed)
        rows = keys.join(
            dealt.filter(pl.col("fold") != leave_out), on="qid", how="semi", maintain_order="left"
        )
    draw = draws.uniform(rows["row_id"].to_numpy(), seed=seed, stream="initial limit")
    rows = rows.with_columns(pl.Series("draw", draw), negative=pl.col("label") == 0).with_columns(
        # Positives first, then negatives in drawn order.
        place=pl.struct(pl.col("negative").cast(pl.UInt8), "draw").rank("ordinal").over("qid"),
        positives=(~pl.col("negative")).sum().over("qid"),
        wanted=_share_of(pl.col("negative").sum().over("qid"), negatives),
    )
    room = pl.min_horizontal(pl.col("positives") + pl.col("wanted"), pl.lit(ranker.MAX_QUERY_ROWS))
    return rows.filter(pl.col("place") <= room).select("row_id")


def _share_of(count: pl.Expr, share: float) -> pl.Expr:
    """Return ``ceil(share * count)``, where 0.1 * 30 stays 3 in spite of floating point."""
    return (count * share - 1e-9).ceil().cast(pl.Int64)


def fit(
    files: Sequence[Path],
    model: Path,
    rows: Path,
    *,
    folds: int,
    leave_out: int,
    config: RankerConfig,
    negatives: float = 1.0,
    seed: int,
    bins: Path | None = None,
    threads: int,
    trees_done: ranker.TreesDone | None = None,
) -> dict[str, Any]:
    """Train the initial ranker that will score fold ``leave_out`` and write it to ``model``.

    ``rows`` is a scratch file. ``bins`` are the binned features of ``files``: their boundaries come from all
    queries, those that the ranker will score included, whose labels they do not know. Returns the training's
    facts.
    """
    keys = parts.read_keys(files)
    chosen = training_rows(keys, folds=folds, leave_out=leave_out, seed=seed, negatives=negatives)
    what = "the initial ranker" if leave_out == IN_SAMPLE else f"initial ranker {leave_out}"
    # Initial rankers always train every tree: stopping early would spend the validation lists twice.
    settings = config.model_copy(update={"early_stopping": 0})
    try:
        parts.write_table(rows, chosen, tables.row_ids())
        fitted = ranker.fit(
            files, model, config=settings, seed=seed, threads=threads, rows=rows, bins=bins, what=what,
            trees_done=trees_done,
        )  # fmt: skip
    finally:
        rows.unlink(missing_ok=True)
    return {"rows": fitted.rows, "train_seconds": fitted.seconds, "peak_memory_mb": fitted.peak_memory_mb}


def run(
    files: Sequence[Path], models: Sequence[Path], out: Path, *, seed: int, threads: int
) -> dict[str, Any]:
    """Score the training rows and write SCORES, in the order of the rows.

    Args:
        files: Parts of the training split.
        models: One model per fold, in order; a single model scores all rows, in-sample.
        out: The file to write.
        seed: Seed of the deal of queries into folds.
        threads: Threads that predict; the scores do not depend on it.
    """
    qid = parts.schema_of(files).field("qid").type
    folds = assign(parts.read_keys(files), folds=len(models), seed=seed) if len(models) > 1 else None
    scored = ranker.predict(models, files, folds, threads=threads)
    parts.write_table(out, scored, tables.scores(qid=qid))
    return {"rows": scored.height}
