"""Guards: which negatives are too likely to be unjudged positives to train on.

A guard is a function of keyword parameters that returns an :class:`Exclusion`. The rows stay in SELECTION with
its reason, for a person to look at. A guard whose suffix takes a percentage has it as its parameter ``share``.
To add one: write the function, add one entry to :data:`GUARDS`.

Guards look at all negatives, each for itself, so their order changes nothing but the reason: the first of
:data:`GUARDS` that excludes a row names it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline.negatives import training
from pipeline.negatives.context import QUERY
from pipeline.negatives.result import ExtraColumn, share_of_negatives


@dataclass(frozen=True)
class Exclusion:
    """Which negatives a guard excludes (never null), why, and the column it reads beside those of the context."""

    where: pl.Expr
    reason: str
    extra_column: ExtraColumn | None = None


Guard = Callable[..., Exclusion]


def above_positives(*, share: float) -> Exclusion:
    """Exclude the negatives that score above a quantile of their query's positives: ``share`` 1 is the highest.

    With out-of-fold scores, a negative that a model which never saw its query puts above most known positives
    is more often an unjudged positive than a useful example. The quantile is interpolated linearly between
    positives; a query without a positive excludes nothing. Positive-aware mining: Moreira et al.,
    "NV-Retriever: Improving text embedding models with effective hard-negative mining", 2024.
    """
    positives = pl.when(pl.col("label") > 0).then(pl.col("score"))
    bound = positives.quantile(share, interpolation="linear").over(QUERY)
    return Exclusion(pl.col("negative") & (pl.col("score") > bound).fill_null(False), "guarded")


def near_duplicates(*, similarity: float) -> Exclusion:
    """Exclude the negatives whose features are much like those of a positive of their query.

    A copy of a relevant document is relevant, whatever its judgment says, and copies are many in web
    collections: Fröbe, Bevendorff, Reimer, Potthast, Hagen, "Sampling Bias Due to Near-Duplicates in Learning
    to Rank", SIGIR 2020. Features are standardised over the query, and much alike where their cosine is above
    ``similarity``.
    """
    where = pl.col("negative") & (pl.col("positive_cosine") > similarity).fill_null(False)
    return Exclusion(where, "near-duplicate", ExtraColumn("features", training.positive_cosine))


def hardest(*, share: float) -> Exclusion:
    """Exclude the hardest ``share`` of every query's negatives, rounded up, whether it has positives or not.

    The first ranks are where unjudged positives are; this is ``range_min`` of the hard-negative miner in
    sentence-transformers, as a share instead of a rank.
    """
    return Exclusion((pl.col("neg_rank") <= share_of_negatives(share)).fill_null(False), "skipped")


GUARDS: Final[dict[str, Guard]] = {"guard": above_positives, "neardup": near_duplicates, "skip": hardest}
"""Suffixes of an arm's name, in the order in which a name lists them."""
