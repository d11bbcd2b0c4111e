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

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline import draws

QUERY: Final = "qid"
ENGINE: Final = "in-memory"
"""Polars' engine for plans of many windows over queries; its streaming one takes half as long again."""
_NEGATIVES: Final = (QUERY, "negative")
_CANDIDATES: Final = (QUERY, "candidate")

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def order_within(group: npt.NDArray[np.uint64], value: Floats) -> Ints:
    """Return the positions sorted by group, then value, then position; shapes ``(n,)``.

    It is ``np.lexsort((value, group))``, in two sorts that the processor does many numbers at a time.
    """
    rows = len(value)
    bits = np.uint64(rows.bit_length())
    if rows == 0 or int(group.max()).bit_length() + 2 * int(bits) > 64:
        return np.lexsort((value, group))
    by = np.argsort(value)
    ascending = value[by]
    dense = np.empty(rows, dtype=np.uint64)
    dense[by] = np.cumsum(np.append(False, ascending[1:] != ascending[:-1]), dtype=np.uint64)
    key = (group << (bits + bits)) | (dense << bits) | np.arange(rows, dtype=np.uint64)
    key.sort()
    return (key & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


class Layout:
    """The rows of a training split by query, ties drawn: what stays when the rows are scored again.

    Args:
        keys: ``row_id, qid``, any row order.
        seed: Seed of the draws that break ties and choose at random.
    """

    def __init__(self, keys: pl.DataFrame, *, seed: int) -> None:
        self._ids, self._seed = draws.hashed(keys["row_id"].to_numpy()), seed
        self.query = keys["qid"].rank("dense").to_numpy().astype(np.uint64)
        self._place = order_within(self.query, self.draw("tie"))
        self._laid = self.query[self._place]

    def draw(self, stream: str) -> Floats:
        """Draw one number per row."""
        return draws.uniform_of(self._ids, key=draws.stream_key(self._seed, stream))

    def hardest_first(self, score: Floats) -> Ints:
        """Return the places of the rows by query and then by falling score."""
        return self._place[order_within(self._laid, -score[self._place])]


def build(scores: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Add the context columns to SCORES.

    Args:
        scores: SCORES, any row order.
        seed: Seed of the draws that break ties and choose at random.

    Returns:
        The rows in their given order with the columns of the table above.
    """
    return plan(scores, Layout(scores, seed=seed)).sort("place").drop("place").collect(engine=ENGINE)


def plan(scores: pl.DataFrame, layout: Layout, *, round: int = 0) -> pl.LazyFrame:
    """Add the context columns to SCORES, computing those that are asked for.

    Args:
        scores: SCORES.
        layout: Of the same rows.
        round: Number of the choice, when the same rows are chosen from again and again: each has draws of its own.

    Returns:
        The rows by query and then hardest first, their places in ``scores`` in ``place`` (uint32).
    """
    order = layout.hardest_first(scores["score"].to_numpy())
    positive = pl.when(pl.col("label") > 0).then(pl.col("score"))
    score = pl.col("score")
    differ = score.max().over(QUERY) > score.min().over(QUERY)
    deviation = score - score.mean().over(QUERY)
    # At most 1, so that squares of huge or tiny scores neither overflow nor vanish.
    deviation = deviation / deviation.abs().max().over(QUERY)
    return (
        scores.lazy()
        .with_columns(
            pl.Series("draw", layout.draw(f"draw {round}" if round else "draw")),
            negative=pl.col("label") == 0,
            place=pl.int_range(pl.len(), dtype=pl.UInt32),
        )
        # In this order every rank below is a running count, and every sum is the same for any row order.
        .select(pl.all().gather(order))
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
    )


def with_candidates(context: Frame, aside: pl.Expr) -> Frame:
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
