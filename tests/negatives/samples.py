"""The context of made-up rows, as strategies and guards see it."""

import polars as pl

from pipeline.negatives import context


def context_of(scores: pl.DataFrame, *, excluded: pl.Expr | None = None, seed: int = 1) -> pl.DataFrame:
    """Return SCORES with context and candidates, in their order; ``excluded``: rows that are no candidates."""
    rows = context.build(context.order(scores, seed=seed), seed=seed)
    rows = context.with_candidates(rows, pl.lit(False) if excluded is None else excluded)
    return rows.sort("place").collect()
