"""METRICS -> SUMMARY: what each way to prepare the training set changed, how sure that is, what to keep.

Arms are compared on the same queries, paired, with the lists of all folds pooled: in rotating partitions each
query is in one test list. Differences to `all` are what a user asks about; differences to `random` at the same
fraction tell whether the choice of negatives did it or their number. A run may hold neither arm.

The recommendation is made on validation lists alone, so the test figures of the recommended arm are those
of an arm chosen before looking.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.core import tables
from pipeline.dataset import parts
from pipeline.evaluation import ndcg, paired
from pipeline.evaluation.ndcg import Floats
from pipeline.evaluation.panel import SPLITS, Panel, SplitNdcg, read_panel, read_split
from pipeline.evaluation.recommend import recommend


def summarise(
    metrics: pl.DataFrame,
    arms: pl.DataFrame,
    *,
    seed: int,
    resamples: int = 10_000,
    cutoff: int = 10,
    prefer: str | None = None,
) -> pl.DataFrame:
    """Compare every arm with `all` and with its random control, where the run holds them.

    Args:
        metrics: METRICS of every arm, any row order; splits other than ``vali`` and ``test`` are ignored.
        arms: ARMS, one row per arm in panel order: ``arm``, ``control`` (the random arm at the same fraction, or
            null), ``rows`` (summed over folds), ``rows_fraction``, ``negatives_fraction``, ``train_seconds``.
        seed: Seed of all resampling.
        resamples: Bootstrap samples, and sign vectors of the randomisation test.
        cutoff: The cutoff to recommend an arm at.
        prefer: The preferred arm.

    Returns:
        SUMMARY, one row per split, cutoff and arm in that order. ``p_holm`` is adjusted over the arms other than
        `all` at one split and cutoff; ``recommended`` is the same on every row of an arm.

    Raises:
        TableError: A missing column or arm, or arms that were not measured on the same queries.
    """
    panel = read_panel(arms)
    splits = [read_split(metrics, panel, split=split) for split in SPLITS]
    compared = [_compare(each, panel, seed=seed, resamples=resamples) for each in splits if each is not None]
    chosen = recommend(panel, splits[0], prefer=prefer, cutoff=cutoff, seed=seed, resamples=resamples)
    empty = pl.Schema(tables.SUMMARY).to_frame()
    if not compared:
        return empty
    known = arms.select("arm", "rows", "rows_fraction", "negatives_fraction", "train_seconds").with_columns(
        recommended=pl.lit(None, dtype=pl.Boolean) if chosen is None else pl.col("arm") == chosen
    )
    summary = pl.concat(compared).join(known, on="arm", how="left", maintain_order="left")
    return summary.select(empty.columns).cast(empty.schema)


def _compare(measured: SplitNdcg, panel: Panel, *, seed: int, resamples: int) -> pl.DataFrame:
    """Return one split's rows of SUMMARY, without the columns that come from ARMS."""
    queries, cutoffs, arms = measured.values.shape
    statistics = _statistics(measured, panel, seed=seed, resamples=resamples)
    return pl.DataFrame(
        {name: values.ravel() for name, values in statistics.items()}, nan_to_null=True
    ).select(
        pl.Series("arm", panel.names * cutoffs),
        pl.lit(measured.split).alias("split"),
        pl.Series("cutoff", np.repeat(measured.cutoffs, arms)),
        pl.lit(queries).alias("queries"),
        pl.lit(queries - len(measured.judged)).alias("queries_empty"),
        pl.all(),
    )


def _statistics(measured: SplitNdcg, panel: Panel, *, seed: int, resamples: int) -> dict[str, Floats]:
    """Return SUMMARY's means, intervals and p-values, (cutoffs, arms) each; NaN where nothing is compared."""
    values, judged = measured.values, measured.judged
    shape, size = values.shape[1:], math.prod(values.shape[1:])
    to_all = judged - judged[:, :, panel.reference]
    to_random = judged - judged[:, :, panel.control]
    columns = np.concatenate([judged, to_all, to_random], axis=1).reshape(len(judged), 3 * size)
    interval = paired.bootstrap(
        columns[:, : 2 * size], seed=measured.seed(seed, "bootstrap"), resamples=resamples
    )
    low, high = (end.reshape(2, *shape) for end in interval)
    p = paired.sign_flip(columns[:, size:], seed=measured.seed(seed, "flip"), resamples=resamples)
    p = p.reshape(2, *shape)
    own = np.arange(shape[1])
    compared, controlled = own != panel.reference, own != panel.control
    p_holm = np.full(shape, np.nan)
    p_holm[:, compared] = paired.holm(p[0][:, compared])
    return {
        "ndcg": ndcg.mean(values, empty=None),
        "ndcg_empty0": ndcg.mean(values, empty=0.0),
        "ndcg_empty1": ndcg.mean(values, empty=1.0),
        "low": low[0],
        "high": high[0],
        "delta": np.where(compared, ndcg.mean(to_all, empty=None), np.nan),
        "delta_low": np.where(compared, low[1], np.nan),
        "delta_high": np.where(compared, high[1], np.nan),
        "p": np.where(compared, p[0], np.nan),
        "p_holm": p_holm,
        "delta_random": np.where(controlled, ndcg.mean(to_random, empty=None), np.nan),
        "p_random": np.where(controlled, p[1], np.nan),
    }


def run(metrics: Path, arms: pl.DataFrame, out: Path, **settings: Any) -> dict[str, Any]:
    """Write SUMMARY of METRICS, with the settings of :func:`summarise`; return the recommended arm, or None."""
    summary = summarise(pl.read_parquet(metrics), arms, **settings)
    parts.write_table(out, summary, tables.SUMMARY)
    chosen = summary.filter(pl.col("recommended"))["arm"]
    return {"recommended": chosen[0] if len(chosen) else None}
