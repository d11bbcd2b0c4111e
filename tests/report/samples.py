"""METRICS, SUMMARY and dataset facts of made-up panels, for the renderers to show."""

import re
from typing import Any

import numpy as np
import polars as pl

from pipeline.evaluation import compare

PANEL = ["all"] + [
    f"{strategy}-{percent}{guard}"
    for percent in (5, 10, 20, 40)
    for strategy, guard in (("random", ""), ("top", ""), ("semi-hard", ""), ("mixed", "-guard75"))
]


def split_facts(rows: int, queries: int) -> dict[str, int]:
    """What ``dataset.json`` says of a split."""
    return {
        "rows": rows,
        "queries": queries,
        "negatives": rows * 9 // 10,
        "longest": 120,
        "queries_without_positive": 1,
    }


DATASET: dict[str, Any] = {
    "layout": "splits",
    "features": 30,
    "splits": {
        "train": split_facts(36_000, 300),
        "vali": split_facts(12_000, 100),
        "test": split_facts(12_000, 100),
    },
    "notices": [],
}


def arm_facts(arms: list[str]) -> pl.DataFrame:
    """ARMS: shares read from the names; an arm without a number keeps everything."""
    shares = [int(found[0]) / 100 if (found := re.findall(r"-(\d+)", arm)) else 1.0 for arm in arms]
    return pl.DataFrame(
        {
            "arm": arms,
            "control": pl.Series([None] * len(arms), dtype=pl.String),
            "rows": [int(36_000 * share) for share in shares],
            "rows_fraction": shares,
            "negatives_fraction": shares,
            "train_seconds": [30.0 * share for share in shares],
        }
    )


def metrics_of(
    arms: list[str], *, queries: int = 40, folds: int = 1, cutoffs: tuple[int, ...] = (1, 10)
) -> pl.DataFrame:
    """METRICS where `top` arms lost nearly everything, others differ a little, and query 0 has no answer."""
    rng = np.random.default_rng(7)
    base = rng.beta(3, 3, queries)
    frames = []
    for place, arm in enumerate(arms):
        noise = 0.0 if arm == "all" else 0.05 * rng.standard_normal(queries) + 0.002 * place
        value = np.clip(base * (0.05 if arm.startswith("top") else 1.0) + noise, 0, 1)
        frames += [
            pl.DataFrame(
                {
                    "arm": arm,
                    "split": split,
                    "fold": np.arange(queries, dtype=np.int16) % folds + 1,
                    "qid": np.arange(queries),
                    "cutoff": np.int16(cutoff),
                    "ndcg": pl.Series(np.where(np.arange(queries) == 0, np.nan, value)).fill_nan(None),
                }
            )
            for split in ("vali", "test")
            for cutoff in cutoffs
        ]
    return pl.concat(frames)


def summary_of(metrics: pl.DataFrame, arms: list[str]) -> pl.DataFrame:
    """SUMMARY of METRICS, with the made-up facts of its arms."""
    return compare.summarise(metrics, arm_facts(arms), seed=1, resamples=2000)
