"""The per-query columns that guards and strategies may read.

==============  ==========================================================================================
column          meaning
==============  ==========================================================================================
``score``       the initial ranker's score, float64
``negative``    label 0
``neg_rank``    1 for the query's hardest (highest scored) negative; ties by a seeded draw; null: positive
``neg_count``   negatives of the query
``quantile``    (neg_rank - 0.5) / neg_count, null for positives
``z``           score standardised over the query's rows; 0 where all scores are equal
``pos_count``   positives of the query
``pos_min``     lowest, ``pos_median`` median, ``pos_max`` highest score of the query's positives; null
                where it has none
``draw``        one uniform number per row, keyed by seed and row_id
==============  ==========================================================================================

After the guards, five more describe the candidates, the negatives that no guard excludes:

==============  ==========================================================================================
``candidate``   a negative that a strategy may choose
``rank``        1 for the query's hardest candidate
``count``       candidates of the query
``z_low``       lowest, ``z_high`` highest ``z`` of the query's candidates
==============  ==========================================================================================

What SCORES cannot tell, :mod:`pipeline.negatives.training` adds for the arms that ask for it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core import rng

QUERY: Final = "qid"
ENGINE: Final = "in-memory"
"""Polars' engine for plans of many windows over queries; its streaming one takes half as long again."""


def run_starts(qid: pl.Series) -> npt.NDArray[np.int64]:
    """Return the places where another query begins."""
    lengths = qid.rle().struct.field("len").cast(pl.Int64)
    return (lengths.cum_sum() - lengths).to_numpy()


def order(scores: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Return SCORES by query and then hardest first, ties by a draw keyed by ``seed``.

    ``place`` is where a row was; ``qid`` numbers the queries, as windows over numbers cost less than over text.
    """
    tie = rng.uniform(scores["row_id"].to_numpy(), seed=seed, stream="tie")
    numbered = scores.with_columns(pl.col(QUERY).rank("dense"), tie=pl.Series(tie))
    return hardest_first(numbered.with_row_index("place"))


def hardest_first(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of :func:`order` in order again, once they have other scores."""
    ordered = rows.sort(QUERY, "score", "tie", descending=[False, True, False])
    return ordered.with_columns(pl.col(QUERY).set_sorted())


def build(rows: pl.DataFrame, *, seed: int, round: int = 0) -> pl.LazyFrame:
    """Add the context columns; only those that are asked for are computed.

    Args:
        rows: Rows of :func:`order`, where a rank is a running count and sums do not depend on the given order.
        seed: Seed of the draws to choose by.
        round: Number of the choice; each draws anew.
    """
    draw = rng.uniform(rows["row_id"].to_numpy(), seed=seed, stream=f"draw {round}" if round else "draw")
    score, negative = pl.col("score"), pl.col("negative")
    positive = pl.when(~negative).then(score)
    lazy = rows.lazy().with_columns(draw=pl.Series(draw), negative=pl.col("label") == 0)
    lazy = lazy.with_columns(
        neg_rank=pl.when(negative).then(negative.cum_sum().over(QUERY)),
        neg_count=negative.sum().over(QUERY),
        pos_count=(~negative).sum().over(QUERY),
        pos_min=positive.min().over(QUERY),
        pos_median=positive.median().over(QUERY),
        pos_max=positive.max().over(QUERY),
        deviation=score - score.mean().over(QUERY),
    )
    return _with_z(lazy).with_columns(quantile=(pl.col("neg_rank") - 0.5) / pl.col("neg_count"))


def _with_z(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Turn ``deviation``, the difference to the query's mean score, into ``z``."""
    score, deviation = pl.col("score"), pl.col("deviation")
    # At most 1, so that squares of huge or tiny scores neither overflow nor vanish.
    rows = rows.with_columns(deviation=deviation / deviation.abs().max().over(QUERY))
    z = (deviation - deviation.mean().over(QUERY)) / deviation.std(ddof=0).over(QUERY)
    # Rounding gives equal scores a spread above 0, so the spread does not tell whether they differ.
    differ = score.max().over(QUERY) > score.min().over(QUERY)
    return rows.with_columns(z=pl.when(differ).then(z).otherwise(0.0)).drop("deviation")


def with_candidates(rows: pl.LazyFrame, excluded: pl.Expr) -> pl.LazyFrame:
    """Add what describes the candidates to rows of :func:`build`; ``excluded`` is never null."""
    candidate, z = pl.col("candidate"), pl.when("candidate").then("z")
    return rows.with_columns(candidate=pl.col("negative") & ~excluded).with_columns(
        rank=pl.when(candidate).then(candidate.cum_sum().over(QUERY)),
        count=candidate.sum().over(QUERY),
        z_low=z.min().over(QUERY),
        z_high=z.max().over(QUERY),
    )


def rank_within(value: pl.Expr | str, rows: pl.Expr, *, descending: bool = False) -> pl.Expr:
    """Return 1 for the row whose ``value`` is lowest (or highest) of its query's ``rows``; null for other rows."""
    return pl.when(rows).then(value).rank("ordinal", descending=descending).over(QUERY)
