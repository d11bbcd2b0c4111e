"""Graded hardness: hard negatives are a grade of their own, between easy negatives and positives.

An arm that keeps hard negatives apart from easy ones can tell its ranker which is which: a hard negative gets
grade 1, an easy one 0, a positive ``label + 1``, and the gain of grade 1 lies between 0 and that of the lowest
positive. After DSReg, which tells hard negatives from easy ones in training: Meng, Ren, Sun, Li, Yuan, Jiao, Li,
"DSReg: Using Distant Supervision as a Regularizer", 2019; there in a second loss, here in LambdaMART's gains.
Measured, it does not help: see ``tests/bench/quality.md``. Rankers are evaluated on the labels as judged.
"""

import polars as pl

from pipeline.core.tables import MAX_LABEL


def grade(hard: pl.Expr) -> pl.Expr:
    """Return the grade of every row, uint8, by which candidates are hard.

    In a query without a positive every negative is an easy one: there is nothing for LambdaMART to learn from
    its labels, and among two grades alone the gain of the higher would not count.
    """
    hard = pl.col("candidate") & hard & (pl.col("pos_count") > 0)
    negative = hard.fill_null(False).cast(pl.UInt8)
    return pl.when("negative").then(negative).otherwise(pl.col("label") + 1).cast(pl.UInt8)


def gains(hard_gain: float) -> list[float]:
    """Return the gain of each grade, LightGBM's ``label_gain``: 0, ``hard_gain``, then ``2^label - 1``."""
    return [0.0, hard_gain, *(float(2**label - 1) for label in range(1, MAX_LABEL + 1))]
