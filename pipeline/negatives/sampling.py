"""Strategies that draw: n of a query's candidates without replacement, uniformly or by weight.

Successive draws without replacement, each with probability proportional to the weights ``w`` of what is left,
give the n largest of ``log w - log(-log u)`` with one uniform ``u`` per candidate: the Gumbel-top-k trick
(Kool, van Hoof, Welling, ICML 2019; with ``u^(1/w)`` as the key, Efraimidis and Spirakis, IPL 2006). ``u`` is
the context's ``draw``, keyed by row, so a weighted sample is a ranking that nothing but the row's own query
and the seed decides.
"""

from dataclasses import replace

import polars as pl

from pipeline.negatives import training
from pipeline.negatives.result import Choice, Counts, Need, one, why
from pipeline.negatives.context import QUERY, rank_within


def random(*, n: pl.Expr) -> Choice:
    """Keep n negatives drawn uniformly: the control at the same budget."""
    return _drawn(rank_within("draw", pl.col("candidate")), n, kept_as="random", counts=Counts(drawn=n))


def softmax(*, n: pl.Expr, temperature: float) -> Choice:
    """Draw n with probability proportional to ``exp(z / temperature)``.

    ``z`` is the standardised score. A low temperature tends to `top`, a high one to a uniform draw.
    Self-adversarial sampling: Sun, Deng, Nie, Tang, "RotatE", ICLR 2019.
    """
    return _by_weight(pl.col("z") / temperature, n, kept_as="softmax")


def distance_weighted(*, n: pl.Expr, bins: int, clip: float) -> Choice:
    """Draw n with probability proportional to the inverse density of the scores, so that all scores come up.

    Wu, Manmatha, Smola, Krähenbühl, "Sampling Matters in Deep Embedding Learning", ICCV 2017. The density
    there is known in closed form; here it is a histogram of the query's standardised scores, ``bins``
    equal intervals from the lowest candidate to the highest. A candidate's weight is the uniform density over
    that of its interval, ``count / (bins * count of the interval)``, and at most ``clip``.
    """
    z, low, high = pl.col("z"), pl.col("z_low"), pl.col("z_high")
    # Rounding must not move a score that lies on the edge of an interval.
    place = ((z - low) / (high - low) * bins + 1e-9).floor().clip(0, bins - 1)
    interval = pl.when(high > low).then(place).otherwise(0.0)
    weight = pl.col("count") / (bins * pl.len().over(QUERY, "candidate", interval))
    return _by_weight(weight.clip(upper_bound=clip).log(), n, kept_as="distance-weighted")


def popularity(*, n: pl.Expr, power: float) -> Choice:
    """Draw n with probability proportional to the document's popularity to a power.

    Popularity is the number of training queries that list the document; the power 0.75 is that of word2vec's
    negative sampling (Mikolov et al., "Distributed Representations of Words and Phrases", NeurIPS 2013). Alone
    among the strategies, it lets the other queries decide about a query.
    """
    need = Need("doc_id", training.doc_queries, once=True)
    return replace(_by_weight(pl.col("doc_queries").log() * power, n, kept_as="popular"), need=need)


def _by_weight(log_weight: pl.Expr, n: pl.Expr, *, kept_as: str) -> Choice:
    """Return a weighted draw of all candidates of a query."""
    lot = log_weight - (-pl.col("draw").log()).log()
    place = rank_within(lot, pl.col("candidate"), descending=True)
    return _drawn(place, n, kept_as=kept_as, counts=Counts(drawn=n, lot=lot))


def _drawn(place: pl.Expr, n: pl.Expr, *, kept_as: str, counts: Counts) -> Choice:
    """Return the choice of the first n places."""
    kept = place <= n
    return Choice(kept, why(kept, kept_as=kept_as, left_as="not drawn"), one(), counts=counts)
