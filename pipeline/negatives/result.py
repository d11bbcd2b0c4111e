"""What a strategy returns, what it may ask for, and the expressions that strategies and guards share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import polars as pl

from pipeline.negatives.training import Training

UNIT_WEIGHT: Final = pl.lit(1.0, dtype=pl.Float32)
_ROUNDING: Final = 1e-9
"""0.1 * 30 is 3.0000000000000004 in floating point, and must stay 3."""


@dataclass(frozen=True)
class ExtraColumn:
    """A column that SCORES cannot give: it is made from the training split's document ids or features.

    ``add`` takes the context rows and the training split, and returns the rows in their order with the column.
    """

    reads: Literal["doc_id", "features"]
    add: Callable[[pl.DataFrame, Training], pl.DataFrame]


@dataclass(frozen=True)
class StrategyResult:
    """What a strategy says of each candidate.

    Attributes:
        kept: Keep it.
        reason: Why it is kept, or why not: text.
        weight: Its training weight when kept.
        extra_column: The column its expressions read beside those of the context.
        hard: It is a hard one, for a strategy that keeps these apart from easy ones; no draw decides it.
    """

    kept: pl.Expr
    reason: pl.Expr
    weight: pl.Expr = field(default_factory=lambda: UNIT_WEIGHT)
    extra_column: ExtraColumn | None = None
    hard: pl.Expr | None = None


Strategy = Callable[..., StrategyResult]


def ceil_count(count: pl.Expr) -> pl.Expr:
    """Return ``ceil(count)``, between 0 and the negatives of the query, as uint32."""
    return pl.min_horizontal((count - _ROUNDING).ceil().clip(lower_bound=0), "neg_count").cast(pl.UInt32)


def share_of_negatives(share: float) -> pl.Expr:
    """Return ``ceil(share * neg_count)``: how many of the query's negatives a share is."""
    return ceil_count(pl.col("neg_count") * share)


def reason_when(kept: pl.Expr, *, kept_as: str, left_as: str) -> pl.Expr:
    """Return one reason for what is kept and another for what is left."""
    return pl.when(kept).then(pl.lit(kept_as)).otherwise(pl.lit(left_as))


def first_ranks(rank: pl.Expr, n: pl.Expr, *, kept_as: str, left_as: str = "not drawn") -> StrategyResult:
    """Return the result that keeps the candidates ranked 1 to ``n``."""
    kept = rank <= n
    return StrategyResult(kept, reason_when(kept, kept_as=kept_as, left_as=left_as))
