"""JUDGMENTS -> initial rankers -> SCORES: every training row scored, by default by a model that never saw its query.

In-sample scores hide most mistakes: a ranker has learned its own training negatives as negatives. Out of
fold, a negative that outranks the positives is news.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline.core import rng, tables
from pipeline.core.config import RankerConfig
from pipeline.dataset import parts
from pipeline.dataset.folds import assign_groups
from pipeline.ranker.fit import MAX_QUERY_ROWS, Training, fit_all
from pipeline.ranker.predict import predict
from pipeline.ranker.processes import TreesDone

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
    query_rows: int = MAX_QUERY_ROWS,
) -> pl.DataFrame:
    """Return the ``row_id`` of the rows an initial ranker trains on.

    Args:
        keys: ``row_id, qid, label`` of the training split.
        folds: Number of folds.
        leave_out: The fold it will score; -1: none, it sees every query.
        seed: Seed of the folds and of the draw of negatives.
        repeat: Number of the repeat, from 0.
        negatives: Share of each query's negatives to draw.
        at_least: Negatives of a query to draw even where they are a larger share.
        query_rows: Rows of a query, at most; positives come first.
    """
    rows = keys
    if leave_out != IN_SAMPLE:
        assigned = assign_folds(keys, folds=folds, seed=seed, repeat=repeat)
        rows = keys.join(
            assigned.filter(pl.col("fold") != leave_out), on="qid", how="semi", maintain_order="left"
        )
    # Each ranker draws its own negatives, so that over the repeats more of them are seen.
    stream = f"initial limit {repeat * folds + leave_out}" if repeat or leave_out > 0 else "initial limit"
    draw = rng.uniform(rows["row_id"].to_numpy(), seed=seed, stream=stream)
    rows = rows.with_columns(pl.Series("draw", draw), negative=pl.col("label") == 0).with_columns(
        # Positives first, then negatives in drawn order.
        place=pl.struct(pl.col("negative").cast(pl.UInt8), "draw").rank("ordinal").over("qid"),
        positives=(~pl.col("negative")).sum().over("qid"),
        wanted=pl.max_horizontal(
            _ceil_share(pl.col("negative").sum().over("qid"), negatives), pl.lit(at_least)
        ),
    )
    kept = pl.min_horizontal(pl.col("positives") + pl.col("wanted"), pl.lit(query_rows))
    return rows.filter(pl.col("place") <= kept).select("row_id")


def _ceil_share(count: pl.Expr, share: float) -> pl.Expr:
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
    """Train the initial rankers, in one worker process.

    Args:
        files: Parts of the training split.
        models: The model files to write, one per fold and repeat, those of the first repeat first; a
            single one trains on every query. Scratch files lie beside them.
        repeats: How often the queries are split into folds (as scikit-learn's RepeatedKFold).
        config: The rankers' settings.
        negatives: As in :func:`training_rows`.
        at_least: As in :func:`training_rows`.
        seed: LightGBM's seed, and that of the folds.
        bins: Binned features of ``files``. Their boundaries come from the features of all queries, also of
            those that a ranker will score, and from no label.
        threads: Threads to train with; the models do not depend on it.
        trees_done: Called with the number of trees so far, over all rankers.

    Returns:
        The facts of :func:`pipeline.ranker.fit.fit_all`, but for the trees.
    """
    keys = parts.read_keys(files)
    scratch = [model.with_name(f"{model.name}-rows") for model in models]
    folds = len(models) // max(repeats, 1)
    draw = partial(training_rows, keys, folds=folds, seed=seed, negatives=negatives, at_least=at_least)
    try:
        for number, rows in enumerate(scratch):
            repeat, fold = divmod(number, folds)
            chosen = draw(leave_out=fold if len(models) > 1 else IN_SAMPLE, repeat=repeat)
            parts.write_table(rows, chosen, tables.row_ids())
        trainings = [Training(files, model, rows=rows) for model, rows in zip(models, scratch, strict=True)]
        # Stopping early would spend the validation lists twice.
        facts = fit_all(
            trainings,
            config=config.model_copy(update={"early_stopping": 0}),
            seed=seed,
            threads=threads,
            bins=bins,
            what="the initial rankers",
            trees_done=trees_done,
        )
    finally:
        for rows in scratch:
            rows.unlink(missing_ok=True)
    return {name: facts[name] for name in ("rows", "train_seconds", "peak_memory_mb")}


def run(
    files: Sequence[Path], models: Sequence[Path], out: Path, *, repeats: int = 1, seed: int, threads: int
) -> dict[str, Any]:
    """Score the training rows and write SCORES, in the order of the rows.

    The score of a row is the mean of its scores over the repeats: single repeats are noisy, and guards compare
    single rows. ``fold`` is that of the first repeat.

    Args:
        files: Parts of the training split.
        models: One model per fold and repeat, the first repeat's first; a single one scores all rows, in-sample.
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
