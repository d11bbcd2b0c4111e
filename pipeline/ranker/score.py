"""Initial rankers -> SCORES: every training row scored, by default by a model that never saw its query.

In-sample scores hide most mistakes: a ranker has learned its own training negatives as negatives. Out of
fold, a negative that outranks the positives is news.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline.core import rng, tables
from pipeline.core.config import RankerConfig
from pipeline.dataset import parts
from pipeline.dataset.folds import assign_groups
from pipeline.ranker.fit import MAX_QUERY_ROWS, Training, TreesDone, fit_all
from pipeline.ranker.predict import predict

IN_SAMPLE: Final = -1
"""Number of the one initial ranker that scores the rows it was trained on."""


def assign_folds(keys: pl.DataFrame, *, folds: int, seed: int, repeat: int = 0) -> pl.DataFrame:
    """Assign the queries of ``row_id, qid, label`` to folds at random; returns ``qid, fold`` (int16)."""
    queries = keys.select("qid").unique().sort("qid")
    key = rng.stream_key(seed, f"initial folds {repeat}" if repeat else "initial folds")
    return queries.with_columns(pl.Series("fold", assign_groups(queries.height, folds, seed=key)))


def training_rows(
    keys: pl.DataFrame,
    *,
    folds: int,
    leave_out: int,
    seed: int,
    repeat: int = 0,
    negatives: float = 1.0,
    at_least: int = 1,
) -> pl.DataFrame:
    """Return the ``row_id`` of the rows an initial ranker trains on.

    Args:
        keys: ``row_id, qid, label`` of the training split.
        folds: Number of folds.
        leave_out: The fold it will score; -1: none, it sees every query.
        seed: Seed of the folds, and of which negatives are drawn.
        repeat: Number of the repeat, from 0.
        negatives: Share of each query's negatives to draw; never more rows of a query than LightGBM takes.
        at_least: Negatives of a query to draw even where they are a larger share.
    """
    rows = keys
    if leave_out != IN_SAMPLE:
        assigned = assign_folds(keys, folds=folds, seed=seed, repeat=repeat)
        rows = keys.join(
            assigned.filter(pl.col("fold") != leave_out), on="qid", how="semi", maintain_order="left"
        )
    # Each ranker draws its own, so that the mean over the repeats knows more negatives than one of them.
    stream = f"initial limit {repeat * folds + leave_out}" if repeat or leave_out > 0 else "initial limit"
    draw = rng.uniform(rows["row_id"].to_numpy(), seed=seed, stream=stream)
    rows = rows.with_columns(pl.Series("draw", draw), negative=pl.col("label") == 0).with_columns(
        # Positives first, then negatives in drawn order.
        place=pl.struct(pl.col("negative").cast(pl.UInt8), "draw").rank("ordinal").over("qid"),
        positives=(~pl.col("negative")).sum().over("qid"),
        wanted=pl.max_horizontal(
            _share_of(pl.col("negative").sum().over("qid"), negatives), pl.lit(at_least)
        ),
    )
    room = pl.min_horizontal(pl.col("positives") + pl.col("wanted"), pl.lit(MAX_QUERY_ROWS))
    return rows.filter(pl.col("place") <= room).select("row_id")


def _share_of(count: pl.Expr, share: float) -> pl.Expr:
    """Return ``ceil(share * count)``, where 0.1 * 30 stays 3 in spite of floating point."""
    return (count * share - 1e-9).ceil().cast(pl.Int64)


def fit(
    files: Sequence[Path],
    models: Sequence[Path],
    *,
    repeats: int = 1,
    config: RankerConfig,
    negatives: float = 1.0,
    at_least: int = 1,
    seed: int,
    bins: Path | None = None,
    threads: int,
    trees_done: TreesDone | None = None,
) -> dict[str, Any]:
    """Train initial rankers, in one child process.

    Args:
        files: Parts of the training split.
        models: The model files to write, one per fold and repeat, those of the first repeat first; a
            single one trains on every query. Scratch files lie beside them.
        repeats: How often the queries are split into folds (as scikit-learn's RepeatedKFold).
        config: The rankers' settings.
        negatives: As in :func:`training_rows`.
        at_least: As in :func:`training_rows`.
        seed: LightGBM's seed, and that of the folds.
        bins: Binned features of ``files``: their boundaries come from all queries, those that a ranker will
            score included, whose labels they do not know.
        threads: Threads to train with; the models do not depend on it.
        trees_done: Told the number of trees so far, over all rankers.

    Returns:
        The training's facts: rows summed over the rankers, wall seconds of all, peak memory in MB.
    """
    keys = parts.read_keys(files)
    scratch = [model.with_name(f"{model.name}-rows") for model in models]
    folds = len(models) // max(repeats, 1)
    # Initial rankers always train every tree: stopping early would spend the validation lists twice.
    settings = config.model_copy(update={"early_stopping": 0})
    try:
        for number, rows in enumerate(scratch):
            chosen = training_rows(
                keys, folds=folds, leave_out=number % folds if len(models) > 1 else IN_SAMPLE, seed=seed,
                repeat=number // folds, negatives=negatives, at_least=at_least,
            )  # fmt: skip
            parts.write_table(rows, chosen, tables.row_ids())
        trainings = [Training(files, model, rows=rows) for model, rows in zip(models, scratch, strict=True)]
        fitted = fit_all(
            trainings,
            config=settings,
            seed=seed,
            threads=threads,
            bins=bins,
            what="the initial rankers",
            trees_done=trees_done,
        )
    finally:
        for rows in scratch:
            rows.unlink(missing_ok=True)
    return {"rows": fitted.rows, "train_seconds": fitted.seconds, "peak_memory_mb": fitted.peak_memory_mb}


def run(
    files: Sequence[Path], models: Sequence[Path], out: Path, *, repeats: int = 1, seed: int, threads: int
) -> dict[str, Any]:
    """Score the training rows and write SCORES, in the order of the rows.

    The score of a row is the mean of its scores over the repeats: single repeats are noisy, and guards compare
    single rows. ``fold`` is that of the first repeat.

    Args:
        files: Parts of the training split.
        models: One model per fold and deal, the first deal's first; a single model scores all rows, in-sample.
        out: The file to write.
        repeats: How often the queries were split into folds.
        seed: Seed of the folds.
        threads: Threads that predict; the scores do not depend on it.
    """
    qid = parts.schema_of(files).field("qid").type
    folds = []
    if len(models) > 1:
        keys = parts.read_keys(files)
        folds = [
            assign_folds(keys, folds=len(models) // repeats, seed=seed, repeat=repeat)
            for repeat in range(repeats)
        ]
    scored = predict(models, files, folds, threads=threads)
    parts.write_table(out, scored, tables.scores(qid=qid))
    return {"rows": scored.height}
