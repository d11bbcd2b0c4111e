"""Choices that are counts, made on arrays: for arms that choose again and again.

The expressions of a strategy say of every row why it is kept or left. A choice that nobody reads needs the rows
alone, and most strategies keep so many of a query's hardest candidates and draw so many of the others
(:class:`~pipeline.negatives.result.Counts`). Both ways keep the same rows at the same weights. On 295,878 rows a
choice of `mixed-10-guard75` takes a fifth of the processor time that the expressions take.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.negatives.result import Counts
from pipeline.negatives.context import order_within

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Numbers:
    """How many of a query's candidates to pass over, to keep and to draw: one number per query each."""

    skip: Ints
    hard: Ints
    drawn: Ints


@dataclass(frozen=True)
class Chosen:
    """Which rows are chosen.

    Attributes:
        hard: Places of the hardest.
        drawn: Places of those that were drawn.
        stands_for: For each of these, from how many it was drawn over how many were.
    """

    hard: Ints
    drawn: Ints
    stands_for: npt.NDArray[np.float32]


def numbers(counts: Counts, queries: pl.DataFrame) -> Numbers:
    """Return the numbers of a strategy.

    Args:
        counts: What the strategy says.
        queries: ``n``, ``neg_count`` and ``pos_count``, one row per query.
    """
    found = queries.with_columns(
        getattr(counts, name).cast(pl.Int64).alias(name) for name in ("skip", "hard", "drawn")
    )
    return Numbers(*(found[name].to_numpy() for name in ("skip", "hard", "drawn")))


def choose(starts: Ints, may: Mask, numbers: Numbers, lot: Callable[[Ints], Floats]) -> Chosen:
    """Choose among rows that lie by query and then hardest first.

    Args:
        starts: Offsets of the queries, the end included, shape ``(queries + 1,)``.
        may: Which rows may be chosen, shape ``(n,)``.
        numbers: How many.
        lot: Given rows, returns what they are drawn by: lowest first, and of the same ones the hardest.
    """
    places = np.flatnonzero(may)
    count, rank = _ranks(starts, places)
    skip, last = np.repeat(numbers.skip, count), np.repeat(numbers.skip + numbers.hard, count)
    is_hard = (rank >= skip) & (rank < last)
    if not numbers.drawn.any():
        return Chosen(places[is_hard], places[:0], np.empty(0, dtype=np.float32))
    rest = places[~is_hard]
    left, _ = _ranks(starts, rest)
    wanted = np.minimum(numbers.drawn, left)
    drawn = rest[_lowest(lot(rest), left, wanted)]
    with np.errstate(divide="ignore", invalid="ignore"):
        stands_for = (left / wanted).astype(np.float32)
    return Chosen(places[is_hard], drawn, np.repeat(stands_for, wanted))


def _ranks(starts: Ints, places: Ints) -> tuple[Ints, Ints]:
    """Return how many of the places each query has, and for each place how many of them are before it."""
    bounds = np.searchsorted(places, starts)
    count = np.diff(bounds)
    return count, np.arange(len(places)) - np.repeat(bounds[:-1], count)


def _lowest(lot: Floats, count: Ints, wanted: Ints) -> Ints:
    """Return where the ``wanted`` lowest of each query's ``count`` lots are, by query and then lot."""
    # Of numbers drawn uniformly from [0, 1), these are enough but for one query in thousands of millions.
    with np.errstate(divide="ignore", invalid="ignore"):
        enough = (wanted + 6 * np.sqrt(wanted) + 6) / count
    few = np.flatnonzero(lot < np.repeat(enough, count))
    if len(few) < len(lot) // 2:
        found, _ = _ranks(np.append(0, np.cumsum(count)), few)
        if (found >= wanted).all():
            return few[_first(lot[few], found, wanted)]
    return _first(lot, count, wanted)


def _first(lot: Floats, count: Ints, wanted: Ints) -> Ints:
    offsets = np.append(0, np.cumsum(count))
    order = order_within(offsets, lot, None)
    rank = np.arange(len(lot)) - np.repeat(offsets[:-1], count)
    return np.asarray(order[rank < np.repeat(wanted, count)], dtype=np.int64)
