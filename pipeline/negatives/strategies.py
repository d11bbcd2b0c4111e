"""Strategies: which of a query's candidate negatives to keep.

A strategy is a function of keyword parameters that returns a :class:`Choice` of Polars expressions over the
context columns (see :mod:`pipeline.negatives.context`). ``kept`` is looked at on candidates only. To add one:
write the function, add one entry to :data:`STRATEGIES`.

``n``, the number to keep, is ``ceil(fraction * neg_count)`` for every query: the fraction is of all its
negatives, so that a guard changes which negatives are kept and not how many, as long as there are enough.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline.negatives.context import QUERY

_ROUNDING: Final = 1e-9
"""0.1 * 30 is 3.0000000000000004 in floating point, and must stay 3."""


@dataclass(frozen=True)
class Choice:
    """What a strategy says of each candidate.

    Attributes:
        kept: Keep it.
        reason: Why it is kept, or why not.
        weight: Its training weight when kept.
    """

    kept: pl.Expr
    reason: pl.Expr
    weight: pl.Expr


Strategy = Callable[..., Choice]


def share_of(share: float) -> pl.Expr:
    """Return ``ceil(share * neg_count)``: how many negatives of the query a share is."""
    return (pl.col("neg_count") * share - _ROUNDING).ceil().clip(lower_bound=0).cast(pl.UInt32)


def _one() -> pl.Expr:
    return pl.lit(1.0, dtype=pl.Float32)


def _why(kept: pl.Expr, *, kept_as: str, left_as: str) -> pl.Expr:
    return pl.when(kept).then(pl.lit(kept_as)).otherwise(pl.lit(left_as))


def keep_all() -> Choice:
    """Keep every negative: the full data, the baseline of every comparison."""
    return Choice(kept=pl.lit(True), reason=pl.lit("all"), weight=_one())


def random(*, fraction: float) -> Choice:
    """Keep n negatives drawn uniformly: the control at the same budget."""
    kept = pl.col("draw").rank("ordinal").over(QUERY, "candidate") <= share_of(fraction)
    return Choice(kept, _why(kept, kept_as="random", left_as="not drawn"), _one())


def top(*, fraction: float) -> Choice:
    """Keep the n hardest: Lucchese et al., "The Impact of Negative Samples on Learning to Rank", LEARNER 2017.

    On long lists a ranker trained on these alone never sees an easy negative and ranks them on top.
    """
    kept = pl.col("rank") <= share_of(fraction)
    return Choice(kept, _why(kept, kept_as="hard", left_as="too easy"), _one())


def semi_hard(*, fraction: float, skip: float) -> Choice:
    """Pass over the hardest ``skip`` share, keep the next n.

    A rank window in the spirit of FaceNet's semi-hard negatives (Schroff, Kalenichenko, Philbin, CVPR 2015):
    the hardest are mostly unjudged or mislabelled positives.
    """
    first = share_of(skip)
    kept = (pl.col("rank") > first) & (pl.col("rank") <= first + share_of(fraction))
    reason = (
        pl.when(pl.col("rank") <= first).then(pl.lit("too hard"))
        .when(kept).then(pl.lit("semi-hard")).otherwise(pl.lit("too easy"))
    )  # fmt: skip
    return Choice(kept, reason, _one())


def mixed(*, fraction: float, hard_share: float) -> Choice:
    """Keep the hardest ``ceil(hard_share * n)`` and draw the others uniformly from the rest.

    The random ones are weighted by rest / drawn, the inverse of the probability of being drawn, so that they
    stand for all the negatives they were drawn from (Horvitz and Thompson, JASA 1952).
    """
    n = share_of(fraction)
    hard_count = (n * hard_share - _ROUNDING).ceil().clip(lower_bound=0).cast(pl.UInt32)
    hard = pl.col("rank") <= hard_count
    drawn = pl.min_horizontal(n - hard_count, pl.col("count") - pl.min_horizontal("count", hard_count))
    lot = pl.col("draw").rank("ordinal").over(QUERY, "candidate", hard)
    rest = pl.col("count") - pl.min_horizontal("count", hard_count)
    kept = hard | (lot <= drawn)
    reason = (
        pl.when(hard).then(pl.lit("hard")).when(kept).then(pl.lit("random")).otherwise(pl.lit("not drawn"))
    )
    return Choice(kept, reason, pl.when(hard).then(1.0).otherwise(rest / drawn).cast(pl.Float32))


STRATEGIES: Final[dict[str, Strategy]] = {
    "all": keep_all,
    "random": random,
    "top": top,
    "semi-hard": semi_hard,
    "mixed": mixed,
}
