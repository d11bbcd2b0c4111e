"""Strategies that draw: n of a query's candidates without replacement, uniformly or by weight.

Successive draws without replacement, each with probability proportional to the weights ``w`` of what is left,
give the n largest of ``log w - log(-log u)`` with one uniform ``u`` per candidate: the Gumbel-top-k trick
(Kool, van Hoof, Welling, ICML 2019; with ``u^(1/w)`` as the key, Efraimidis and Spirakis, IPL 2006). ``u`` is
the context's ``draw``, keyed by row: nothing but the row's own query and the seed decides.
"""

from dataclasses import replace

import polars as pl

from pipeline.negatives import training
from pipeline.negatives.context import QUERY, rank_within
from pipeline.negatives.result import ExtraColumn, StrategyResult, first_ranks


def random(*, n: pl.Expr) -> StrategyResult:
    """Keep n negatives drawn uniformly: the control at the same budget."""
    return first_ranks(rank_within("draw", pl.col("candidate")), n, kept_as="random")


def softmax(*, n: pl.Expr, temperature: float) -> StrategyResult:
    """Draw n with probability proportional to ``exp(z / temperature)``.

    ``z`` is the standardised score. A low temperature tends to `top`, a high one to a uniform draw.
    Self-adversarial sampling: Sun, Deng, Nie, Tang, "RotatE", ICLR 2019.
    """
    return _weighted(pl.col("z") / temperature, n, kept_as="softmax")


def distance_weighted(*, n: pl.Expr, bins: int, clip: float) -> StrategyResult:
    """Draw n with probability proportional to the inverse density of the scores, so that all scores come up.

    Wu, Manmatha, Smola, Krähenbühl, "Sampling Matters in Deep Embedding Learning", ICCV 2017. The density
    there is known in closed form; here it is a histogram of the query's standardised scores, ``bins``
    equal intervals from the lowest candidate to the highest. A candidate's weight is the uniform density over
    that of its interval, ``count / (bins * count of the interval)``, and at most ``clip``.
    """
    z, low, high = pl.col("z"), pl.col("z_low"), pl.col("z_high")
    # Rounding must not move a score that lies on the edge of an interval.
    number = ((z - low) / (high - low) * bins + 1e-9).floor().clip(0, bins - 1)
    interval = pl.when(high > low).then(number).otherwise(0.0)
    weight = pl.col("count") / (bins * pl.len().over(QUERY, "candidate", interval))
    return _weighted(weight.clip(upper_bound=clip).log(), n, kept_as="distance-weighted")


def popularity(*, n: pl.Expr, power: float) -> StrategyResult:
    """Draw n with probability proportional to the document's popularity to a power.

    Popularity is the number of training queries that list the document; the power 0.75 is that of word2vec's
    negative sampling (Mikolov et al., "Distributed Representations of Words and Phrases", NeurIPS 2013). Alone
    among the strategies, it lets the other queries decide about a query.
    """
    result = _weighted(pl.col("doc_queries").log() * power, n, kept_as="popular")
    return replace(result, extra_column=ExtraColumn("doc_id", training.doc_queries))


def _weighted(log_weight: pl.Expr, n: pl.Expr, *, kept_as: str) -> StrategyResult:
    """Return a weighted draw of n of the query's candidates."""
    sampling_key = log_weight - (-pl.col("draw").log()).log()
    return first_ranks(rank_within(sampling_key, pl.col("candidate"), descending=True), n, kept_as=kept_as)
