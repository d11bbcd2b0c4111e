"""Strategies: which of a query's candidate negatives to keep.

A strategy is a function of keyword parameters that returns a
:class:`~pipeline.negatives.result.StrategyResult` of Polars expressions over the context columns (see
:mod:`pipeline.negatives.context`). To add one: write the function, add one entry to :data:`STRATEGIES`.

``n``, the number to keep, is an expression too. It counts before any guard, so that a guard changes which
negatives are kept and not how many, as long as there are enough. Every strategy keeps exactly n, or all that it
may choose from where those are fewer, and keeps the same and more when n grows.
"""

from dataclasses import replace
from functools import partial
from typing import Final

import polars as pl

from pipeline.negatives import training
from pipeline.negatives.context import QUERY, rank_within
from pipeline.negatives.result import (
    UNIT_WEIGHT,
    ExtraColumn,
    Strategy,
    StrategyResult,
    ceil_count,
    first_ranks,
    reason_when,
    share_of_negatives,
)
from pipeline.negatives.sampling import distance_weighted, popularity, random, softmax


def keep_all() -> StrategyResult:
    """Keep every negative: the full data, the baseline of every comparison."""
    return StrategyResult(kept=pl.lit(True), reason=pl.lit("all"))


def top(*, n: pl.Expr) -> StrategyResult:
    """Keep the n hardest: Lucchese et al., "The Impact of Negative Samples on Learning to Rank", LEARNER 2017.

    On long lists a ranker trained on these alone never sees an easy negative and ranks them on top.
    """
    return first_ranks(pl.col("rank"), n, kept_as="hard", left_as="too easy")


def semi_hard(*, n: pl.Expr, skip: float) -> StrategyResult:
    """Pass over the hardest ``skip`` share, keep the next n.

    A rank window in the spirit of FaceNet's semi-hard negatives (Schroff, Kalenichenko, Philbin, CVPR 2015):
    the hardest are mostly unjudged or mislabelled positives.
    """
    skipped = share_of_negatives(skip)
    too_hard = pl.col("rank") <= skipped
    kept = ~too_hard & (pl.col("rank") <= skipped + n)
    reason = reason_when(kept, kept_as="semi-hard", left_as="too easy")
    return StrategyResult(kept, pl.when(too_hard).then(pl.lit("too hard")).otherwise(reason))


def margin(*, n: pl.Expr, margin: float) -> StrategyResult:
    """Keep the n hardest that score below the positives, but by less than a margin.

    Semi-hard negatives as FaceNet defines them, ``s_pos - margin < s_neg < s_pos`` (Schroff, Kalenichenko,
    Philbin, CVPR 2015, section 3.2, with scores for distances). The positive is the median one of the query,
    and the margin is in standard deviations of the query's scores, because those of LambdaMART have no scale.
    """
    positive = pl.col("z").filter(~pl.col("negative")).median().over(QUERY)
    below = (pl.col("score") < pl.col("pos_median")).fill_null(False)
    window = (below & (pl.col("z") > positive - margin)).fill_null(False)
    result = _hardest_in(window, n, kept_as="semi-hard")
    too_hard = ~below & (pl.col("pos_count") > 0)
    return replace(result, reason=pl.when(too_hard).then(pl.lit("too hard")).otherwise(result.reason))


def false_positive(*, n: pl.Expr) -> StrategyResult:
    """Keep the n hardest of the negatives that outrank at least one positive of their query.

    These are the initial ranker's mistakes, the false positives with which Sung and Poggio bootstrap a
    detector ("Example-based learning for view-based human face detection", PAMI 1998). A ranker trained on
    these alone never sees the easy ones, as under `top`; rounds mend that (:mod:`pipeline.negatives.dynamic`).
    """
    mistake = (pl.col("score") > pl.col("pos_min")).fill_null(False)
    return _hardest_in(mistake, n, kept_as="false positive")


def _hardest_in(window: pl.Expr, n: pl.Expr, *, kept_as: str) -> StrategyResult:
    """Return the result that keeps the n hardest in a window, which a query without a positive has not."""
    kept = window & (rank_within("rank", pl.col("candidate") & window) <= n)
    reason = reason_when(kept, kept_as=kept_as, left_as="too easy")
    reason = pl.when(pl.col("pos_count") == 0).then(pl.lit("no positive")).otherwise(reason)
    return StrategyResult(kept, reason)


def ohem(*, n: pl.Expr, similarity: float) -> StrategyResult:
    """Keep the n of highest loss, none of them much like a harder one that is kept.

    Online hard example mining (Shrivastava, Gupta, Girshick, CVPR 2016): order by loss, suppress what overlaps
    a kept example of higher loss, keep the first n. A negative's loss is the pairwise logistic one,
    ``sum over positives of log(1 + exp(s_neg - s_pos))``, whose order within a query is that of the scores.
    Overlap is a cosine above ``similarity`` between features standardised over the query.
    """
    rank = pl.col("unlike_rank")
    kept = (rank <= n).fill_null(False)
    reason = reason_when(kept, kept_as="hard", left_as="too easy")
    reason = pl.when(rank.is_null()).then(pl.lit("too similar")).otherwise(reason)
    extra_column = ExtraColumn("features", partial(training.unlike_rank, similarity=similarity))
    return StrategyResult(kept, reason, extra_column=extra_column)


def mixed(*, n: pl.Expr, hard_share: float) -> StrategyResult:
    """Keep the hardest ``ceil(hard_share * n)`` and draw the others uniformly from the rest.

    The random ones are weighted by rest / drawn, the inverse of the probability of being drawn, so that they
    stand for all the negatives they were drawn from (Horvitz and Thompson, JASA 1952).
    """
    hard_count = ceil_count(n * hard_share)
    hard = pl.col("rank") <= hard_count
    rest = pl.col("count") - pl.min_horizontal("count", hard_count)
    drawn = pl.min_horizontal(n - hard_count, rest)
    kept = hard | (rank_within("draw", pl.col("candidate") & ~hard) <= drawn)
    reason = reason_when(kept, kept_as="random", left_as="not drawn")
    reason = pl.when(hard).then(pl.lit("hard")).otherwise(reason)
    weight = pl.when(hard).then(1.0).otherwise(rest / drawn).cast(pl.Float32)
    return StrategyResult(kept, reason, weight, hard=hard)


def mixed_unweighted(*, n: pl.Expr, hard_share: float) -> StrategyResult:
    """Keep what `mixed` keeps, every negative at weight 1: how much of its effect is the weights'."""
    return replace(mixed(n=n, hard_share=hard_share), weight=UNIT_WEIGHT)


STRATEGIES: Final[dict[str, Strategy]] = {
    "all": keep_all,
    "random": random,
    "top": top,
    "semi-hard": semi_hard,
    "margin": margin,
    "false-positive": false_positive,
    "ohem": ohem,
    "softmax": softmax,
    "distance-weighted": distance_weighted,
    "popularity": popularity,
    "mixed": mixed,
    "mixed-unweighted": mixed_unweighted,
}
