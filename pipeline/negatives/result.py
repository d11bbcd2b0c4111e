"""What a strategy answers with, what it may ask for, and how it counts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import polars as pl

from pipeline.negatives.training import Training

_ROUNDING: Final = 1e-9
"""0.1 * 30 is 3.0000000000000004 in floating point, and must stay 3."""


REASON: Final = pl.Categorical(pl.Categories("ranksieve reason", physical=pl.UInt8))
"""A few words said of many rows: one byte each, which is a tenth of the work that strings are."""


@dataclass(frozen=True)
class Need:
    """A column that SCORES cannot give: it is made from the training split's document ids or features.

    Attributes:
        reads: What the training split must have.
        once: Whether the scores change nothing about it.
        add: Given the context rows and the training split, returns the rows, in their order, with the column.
    """

    reads: Literal["doc_id", "features"]
    add: Callable[[pl.DataFrame, Training], pl.DataFrame]
    once: bool = False


@dataclass(frozen=True)
class Counts:
    """A choice in numbers: what is kept, without why. Expressions see one row per query, but for the last two.

    Attributes:
        hard: How many of the hardest candidates are kept.
        skip: How many candidates, harder still, are passed over.
        drawn: How many of the other candidates are drawn, at most.
        weighted: Whether what is drawn stands for all that it was drawn from.
        window: Of a row: a candidate that it is not true of is left.
        lot: Of a row: the highest are drawn, and of the same ones the hardest; None: ``draw``, lowest first.
    """

    hard: pl.Expr = field(default_factory=lambda: pl.lit(0))
    skip: pl.Expr = field(default_factory=lambda: pl.lit(0))
    drawn: pl.Expr = field(default_factory=lambda: pl.lit(0))
    weighted: bool = False
    window: pl.Expr | None = None
    lot: pl.Expr | None = None


@dataclass(frozen=True)
class Choice:
    """What a strategy says of each candidate.

    Attributes:
        kept: Keep it.
        reason: Why it is kept, or why not: text, best by :func:`said`.
        weight: Its training weight when kept.
        need: The column its expressions read beside those of the context.
        hard: It is one of the hard ones, for a strategy that keeps these apart from easy ones. No draw
            decides it.
        counts: What ``kept`` and ``weight`` say, in numbers, where it can be said so.
        by_rank: The expressions read nothing but ``rank`` and what is one for the whole query, and have no
            window: they say the same of rows in any order.
    """

    kept: pl.Expr
    reason: pl.Expr
    weight: pl.Expr
    need: Need | None = None
    hard: pl.Expr | None = None
    counts: Counts | None = None
    by_rank: bool = False


Strategy = Callable[..., Choice]


def up_to(count: pl.Expr) -> pl.Expr:
    """Return ``ceil(count)``, between 0 and the negatives of the query, as a number of negatives."""
    return pl.min_horizontal((count - _ROUNDING).ceil().clip(lower_bound=0), "neg_count").cast(pl.UInt32)


def share_of(share: float) -> pl.Expr:
    """Return ``ceil(share * neg_count)``: how many negatives of the query a share is."""
    return up_to(pl.col("neg_count") * share)


def one() -> pl.Expr:
    """Return the weight 1."""
    return pl.lit(1.0, dtype=pl.Float32)


def why(kept: pl.Expr, *, kept_as: str, left_as: str) -> pl.Expr:
    """Return one reason for what is kept and another for what is left."""
    return pl.when(kept).then(said(kept_as)).otherwise(said(left_as))


def said(reason: str) -> pl.Expr:
    """Return a reason for SELECTION."""
    return pl.lit(reason).cast(REASON)
