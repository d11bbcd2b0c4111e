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

After the guards, five more describe the candidates, the negatives no guard set aside:

==============  ==========================================================================================
``candidate``   a negative that a strategy may choose
``rank``        1 for the query's hardest candidate
``count``       candidates of the query
``z_low``       lowest, ``z_high`` highest ``z`` of the query's candidates (of its other rows, on those)
==============  ==========================================================================================

What SCORES cannot tell, :mod:`pipeline.negatives.training` adds for the arms that ask for it.
"""

from typing import Final

import polars as pl

from pipeline import draws

QUERY: Final = "qid"
_NEGATIVES: Final = (QUERY, "negative")
_CANDIDATES: Final = (QUERY, "candidate")


def build(scores: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Add the context columns to SCORES.

    Args:
        scores: SCORES, any row order.
        seed: Seed of the draws that break ties and choose at random.

    Returns:
        The rows in their given order with the columns of the table above.
    """
    ids = scores["row_id"].to_numpy()
    positive = pl.when(pl.col("label") > 0).then(pl.col("score"))
    score = pl.col("score")
    differ = score.max().over(QUERY) > score.min().over(QUERY)
    deviation = score - score.mean().over(QUERY)
    # At most 1, so that squares of huge or tiny scores neither overflow nor vanish.
    deviation = deviation / deviation.abs().max().over(QUERY)
    return (
        scores.with_columns(
            pl.Series("draw", draws.uniform(ids, seed=seed, stream="draw")),
            pl.Series("tie", draws.uniform(ids, seed=seed, stream="tie")),
            negative=pl.col("label") == 0,
            place=pl.int_range(pl.len(), dtype=pl.UInt32),
        )
        # Sorting once makes every rank below a running count.
        .sort(QUERY, "score", "tie", descending=[False, True, False])
        .with_columns(
            neg_rank=pl.when("negative").then(
                pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over(_NEGATIVES)
            ),
            neg_count=pl.col("negative").sum().over(QUERY).cast(pl.UInt32),
            pos_count=(~pl.col("negative")).sum().over(QUERY).cast(pl.UInt32),
            pos_min=positive.min().over(QUERY),
            pos_median=positive.median().over(QUERY),
            pos_max=positive.max().over(QUERY),
            # Rounding gives equal scores a spread above 0, so that is not the question to ask.
            z=pl.when(differ)
            .then((deviation - deviation.mean().over(QUERY)) / deviation.std(ddof=0).over(QUERY))
            .otherwise(0.0),
        )
        .with_columns(quantile=(pl.col("neg_rank") - 0.5) / pl.col("neg_count"))
        .sort("place")
        .drop("place")
    )


def with_candidates(context: pl.DataFrame, aside: pl.Expr) -> pl.DataFrame:
    """Add what describes the candidates, once a guard has said which negatives are set aside."""
    return (
        context.with_columns(candidate=pl.col("negative") & ~aside)
        .with_columns(rank=pl.col("neg_rank").rank("ordinal").over(_CANDIDATES).cast(pl.UInt32))
        .with_columns(
            rank=pl.when("candidate").then("rank"),
            count=pl.col("candidate").sum().over(QUERY).cast(pl.UInt32),
            z_low=pl.col("z").min().over(_CANDIDATES),
            z_high=pl.col("z").max().over(_CANDIDATES),
        )
    )
