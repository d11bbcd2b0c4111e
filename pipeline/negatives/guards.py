"""Guards: which negatives are too likely to be unjudged positives to train on.

A guard is a function of keyword parameters that returns a boolean Polars expression over the context columns:
set this negative aside. The rows stay in SELECTION with the reason ``guarded``, for a person to look at.
"""

import polars as pl

from pipeline.negatives.context import QUERY


def above_positives(*, quantile: float) -> pl.Expr:
    """Set aside the negatives that score above a quantile of their query's positives.

    With out-of-fold scores, a negative that a model which never saw its query puts above most known positives
    is more often an unjudged positive than a useful example. The quantile is interpolated linearly between
    positives; a query without a positive sets nothing aside. Positive-aware mining: Moreira et al.,
    "NV-Retriever: Improving text embedding models with effective hard-negative mining", 2024.

    Args:
        quantile: 0 is the lowest scored positive, 0.5 the median, 1 the highest.
    """
    positives = pl.when(pl.col("label") > 0).then(pl.col("score"))
    bound = positives.quantile(quantile, interpolation="linear").over(QUERY)
    return pl.col("negative") & (pl.col("score") > bound).fill_null(False)
