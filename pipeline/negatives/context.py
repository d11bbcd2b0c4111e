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
``z_low``       lowest, ``z_high`` highest ``z`` of the query's candidates
==============  ==========================================================================================

What SCORES cannot tell, :mod:`pipeline.negatives.training` adds for the arms that ask for it.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core import rng

QUERY: Final = "qid"
ENGINE: Final = "in-memory"
"""Polars' engine for plans of many windows over queries; its streaming one takes half as long again."""
_AT_ONCE: Final = 1 << 16
"""Rows to sort at once, so that they stay in the processor's cache."""

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)
Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]


def edges(starts: Ints, rows: int) -> Ints:
    """Return where to cut so that pieces are whole groups and hold about ``rows`` rows.

    Args:
        starts: Offsets of the groups, the end included, shape ``(groups + 1,)``.
        rows: Every piece but the last holds at least one group, and a new one starts with the first group at
            or behind each multiple of ``rows``.

    Returns:
        Places in ``starts``, rising, from 0 to the last.
    """
    return np.unique(np.append(np.searchsorted(starts, np.arange(0, starts[-1], rows)), len(starts) - 1))


def order_within(starts: Ints, value: Floats, tie: Callable[[Ints], Floats] | None) -> Places:
    """Return the positions sorted by group, then value, then tie, then position; shape ``(n,)``.

    Args:
        starts: Offsets of the groups, the end included, shape ``(groups + 1,)``.
        value: Shape ``(n,)``, finite.
        tie: Given positions, returns what decides between those of equal value; None: the position.
    """
    order = np.empty(len(value), dtype=np.uint32)
    for first, last, at in _sorted(starts, value, tie):
        order[starts[first] : starts[last]] = at
    return order


def ranks_within(starts: Ints, value: Floats, tie: Callable[[Ints], Floats]) -> Places:
    """Return the rank of each position in its group, 1 the first, in the order of :func:`order_within`."""
    rank = np.empty(len(value), dtype=np.uint32)
    below, sizes = starts.astype(np.uint32), np.diff(starts)
    for first, last, at in _sorted(starts, value, tie):
        after = np.arange(below[first] + 1, below[last] + 1, dtype=np.uint32)
        after -= np.repeat(below[first:last], sizes[first:last])
        rank[at] = after
    return rank


def _sorted(
    starts: Ints, value: Floats, tie: Callable[[Ints], Floats] | None
) -> Iterator[tuple[int, int, Ints]]:
    """Yield first and last group and sorted positions of pieces, which may only be read until the next.

    One sort of integers that hold the group, the first bits of the value and the position; rows whose values
    have these bits in common are then put in order among themselves.
    """
    cuts = edges(starts, _AT_ONCE)
    # Memory that is used again is there already; asking the system for new costs more than any step but the sort.
    space = np.empty((2, max(np.diff(starts[cuts]), default=0)), dtype=np.uint64)
    count = np.arange(space.shape[1], dtype=np.uint64)
    for first, last in pairwise(cuts):
        low, high = starts[first], starts[last]
        key, other = space[:, : high - low]
        # The bits of a float rise with it, once those of a negative one are turned; 0.0 makes one zero of two.
        np.add(value[low:high], 0.0, out=key.view(np.float64))
        turned = np.right_shift(key.view(np.int64), 63, out=other.view(np.int64)).view(np.uint64)
        turned |= np.uint64(1 << 63)
        key ^= turned
        for_group, for_place = (np.uint64(int(n).bit_length()) for n in (last - first, high - low))
        key >>= for_group + for_place
        key <<= for_place
        groups = np.arange(last - first, dtype=np.uint64) << (np.uint64(64) - for_group)
        key |= np.repeat(groups, np.diff(starts[first : last + 1]))
        key |= count[: high - low]
        key.sort()
        at = np.bitwise_and(key, (np.uint64(1) << for_place) - np.uint64(1), out=other).view(np.int64)
        at += low
        key >>= for_place
        same = key[1:] == key[:-1]
        if same.any():
            _settle(at, same, value, tie)
        yield first, last, at


def _settle(
    at: Ints, same: npt.NDArray[np.bool_], value: Floats, tie: Callable[[Ints], Floats] | None
) -> None:
    """Order, in place, the positions ``at`` that are not told apart from the next: ``same``."""
    if tie is None:
        here = np.flatnonzero(same)
        wrong = here[value[at[here + 1]] < value[at[here]]]
        if not len(wrong):
            return
        run = np.append(0, np.cumsum(~same))[:-1]
        same = same & np.isin(run, run[wrong])
    as_before = np.append(False, same)
    slots = np.flatnonzero(np.append(same, False) | as_before)
    run = np.cumsum(~as_before[slots])
    rows = at[slots]
    at[slots] = rows[np.lexsort((value[rows], run) if tie is None else (tie(rows), value[rows], run))]


class Layout:
    """The rows of a training split by query: what stays when the rows are scored again.

    Args:
        keys: ``row_id, qid``, any row order.
        seed: Seed of the draws that break ties and choose at random.

    Attributes:
        starts: Offsets of the queries in the laid rows, the end included, shape ``(queries + 1,)``.
        sizes: Rows of each query.
        whole: The rows of each query come one after another: the laid rows are the given ones.
    """

    starts: Ints
    sizes: Ints
    whole: bool

    def __init__(self, keys: pl.DataFrame, *, seed: int) -> None:
        self._row_id, self._seed = keys["row_id"], seed
        starts = run_starts(keys["qid"])
        self._place: Ints | None = None  # of the laid rows, where queries do not come whole
        if keys["qid"].gather(starts).n_unique() < len(starts):
            query = keys["qid"].rank("dense")
            self._place = np.argsort(query.to_numpy(), kind="stable")
            starts = run_starts(query.gather(self._place))
        self.whole = self._place is None
        self.starts = np.append(starts, keys.height)
        self.sizes = np.diff(self.starts)

    def draw(self, row_id: pl.Series, *, round: int) -> pl.Series:
        """Draw one number per row id, to choose by."""
        return pl.Series(rng.uniform(row_id.to_numpy(), seed=self._seed, stream=_stream(round)))

    def hardest_first(self, score: Floats) -> Places:
        """Return the places of the rows by query and then by falling score, ties drawn."""
        if self._place is None:
            return order_within(self.starts, -score, self._tie)
        place = self._place
        order = order_within(self.starts, -score[place], lambda at: self._tie(place[at]))
        return place[order].astype(np.uint32)

    def hardest_first_again(self, score: Floats) -> Places:
        """Return the same as :meth:`hardest_first`, for less where it is asked for more than once.

        Rows that a few trees score have many ties, and how these fall does not depend on the scores.
        """
        return self._tied[order_within(self.starts, -score[self._tied], None)]

    @cached_property
    def _tied(self) -> Places:
        """The places of the rows by query and then in the order in which ties fall."""
        place = np.arange(int(self.starts[-1])) if self._place is None else self._place
        return place[order_within(self.starts, self._tie(place), None)].astype(np.uint32)

    @cached_property
    def _hashed(self) -> npt.NDArray[np.uint64]:
        return rng.hashed(self._row_id.to_numpy())

    def lots(self, places: Places, *, round: int) -> Floats:
        """Draw as :meth:`draw` does, for places of rows."""
        return rng.uniform_of(self._hashed[places], key=rng.stream_key(self._seed, _stream(round)))

    def ranks(self, score: Floats, label: npt.NDArray[np.uint8]) -> Places:
        """Return 1 for the query's hardest negative, ties drawn, and 0 for positives; where queries come whole."""
        negatives = np.flatnonzero(label == 0)
        starts = np.searchsorted(negatives, self.starts)
        rank = np.zeros(len(label), dtype=np.uint32)
        rank[negatives] = ranks_within(starts, -score[negatives], lambda at: self._tie(negatives[at]))
        return rank

    def sums(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
        """Count, for each query, the rows of a mask in the order of the keys."""
        here = mask if self._place is None else mask[self._place]
        if not len(here):
            return np.zeros(0, np.uint32)
        return np.add.reduceat(here, self.starts[:-1], dtype=np.uint32)

    def counts(self, label: pl.Series) -> pl.DataFrame:
        """Return ``neg_count`` and ``pos_count``, one row per query."""
        neg_count = self.sums(label.to_numpy() == 0)
        pos_count = self.sizes.astype(np.uint32) - neg_count
        return pl.DataFrame({"neg_count": neg_count, "pos_count": pos_count})

    def laid(self) -> pl.Series:
        """Return a number for the query of each laid row."""
        queries = np.repeat(np.arange(len(self.sizes), dtype=np.uint32), self.sizes)
        return pl.Series(QUERY, queries).set_sorted()

    def _tie(self, places: Ints) -> Floats:
        return rng.uniform(self._row_id.to_numpy()[places], seed=self._seed, stream="tie")


def _stream(round: int) -> str:
    return f"draw {round}" if round else "draw"


def run_starts(qid: pl.Series) -> Ints:
    """Return the places where another query begins."""
    changes = qid.slice(1) != qid.slice(0, max(len(qid) - 1, 0))
    return np.append(np.zeros(min(len(qid), 1), np.int64), np.flatnonzero(flags(changes)) + 1)


def flags(mask: pl.Series) -> npt.NDArray[np.bool_]:
    """Return a mask without nulls as NumPy's, in a twentieth of the time that ``to_numpy`` takes."""
    bits = mask.to_arrow()
    if not len(bits):
        return np.zeros(0, dtype=np.bool_)
    stored = np.frombuffer(bits.buffers()[1], dtype=np.uint8)
    unpacked = np.unpackbits(stored, count=bits.offset + len(bits), bitorder="little")
    return unpacked[bits.offset :].view(np.bool_)


def build(scores: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Add the context columns to SCORES.

    Args:
        scores: SCORES, any row order.
        seed: Seed of the draws that break ties and choose at random.

    Returns:
        The rows in their given order with the columns of the table above.
    """
    layout = Layout(scores, seed=seed)
    order = layout.hardest_first(scores["score"].to_numpy())
    rows = plan(scores, layout, order).with_columns(place=pl.Series(order))
    return rows.sort("place").drop("place").with_columns(scores["qid"]).collect(engine=ENGINE)


def plan(scores: pl.DataFrame, layout: Layout, order: Places | None, *, round: int = 0) -> pl.LazyFrame:
    """Add the context columns to SCORES, computing those that are asked for.

    Args:
        scores: SCORES.
        layout: Of the same rows.
        order: :meth:`Layout.hardest_first` of their scores; None, for queries that come whole: as they are.
            Sums, and so ``z``, may then differ in the last bit, and ranks of what is equal.
        round: Number of the choice, when the same rows are chosen from again and again: each has draws of its own.

    Returns:
        The rows in ``order``, by query and then, but for None, hardest first; ``qid`` counts the queries from 0,
        as windows over numbers cost less than those over text.
    """
    counts = layout.counts(scores["label"])
    before = counts["neg_count"].cum_sum() - counts["neg_count"]
    positive = pl.when(pl.col("label") > 0).then(pl.col("score"))
    score = pl.col("score")
    differ = score.max().over(QUERY) > score.min().over(QUERY)
    deviation = pl.col("deviation")
    if order is None:
        rows = scores.lazy()
        neg_rank = pl.lit(pl.Series(layout.ranks(scores["score"].to_numpy(), scores["label"].to_numpy())))
    else:
        # In this order every rank is a running count, and every sum is the same for any row order.
        rows = scores.lazy().with_columns(pl.all().gather(order))
        neg_rank = pl.col("negative").cum_sum() - of_query(before)
    return (
        rows.with_columns(layout.laid(), negative=pl.col("label") == 0)
        .with_columns(
            draw=pl.col("row_id").map_batches(
                lambda ids: layout.draw(ids, round=round), return_dtype=pl.Float64, is_elementwise=True
            ),
            neg_rank=pl.when("negative").then(neg_rank),
            neg_count=of_query(counts["neg_count"]),
            pos_count=of_query(counts["pos_count"]),
            pos_min=positive.min().over(QUERY),
            pos_median=positive.median().over(QUERY),
            pos_max=positive.max().over(QUERY),
            deviation=score - score.mean().over(QUERY),
        )
        # At most 1, so that squares of huge or tiny scores neither overflow nor vanish.
        .with_columns(deviation=deviation / deviation.abs().max().over(QUERY))
        .with_columns(
            quantile=(pl.col("neg_rank") - 0.5) / pl.col("neg_count"),
            # Rounding gives equal scores a spread above 0, so that is not the question to ask.
            z=pl.when(differ)
            .then((deviation - deviation.mean().over(QUERY)) / deviation.std(ddof=0).over(QUERY))
            .otherwise(0.0),
        )
        .drop("deviation")
    )


def of_query(values: pl.Series) -> pl.Expr:
    """Return, for each row of a plan, what ``values`` has for its query."""
    return pl.lit(values).gather(QUERY)


def with_candidates(context: Frame, aside: pl.Expr | None) -> Frame:
    """Add what describes the candidates, once a guard has said which negatives are set aside.

    Args:
        context: Rows of :func:`build` or :func:`plan`.
        aside: Which rows are set aside; None: none is.
    """
    if aside is None:
        candidates = context.with_columns(candidate="negative", rank="neg_rank", count="neg_count")
    else:
        candidates = context.with_columns(candidate=pl.col("negative") & ~aside).with_columns(
            rank=rank_within("neg_rank", pl.col("candidate")),
            count=pl.col("candidate").sum().over(QUERY).cast(pl.UInt32),
        )
    z = pl.when("candidate").then("z")
    return candidates.with_columns(z_low=z.min().over(QUERY), z_high=z.max().over(QUERY))


def rank_within(value: pl.Expr | str, rows: pl.Expr, *, descending: bool = False) -> pl.Expr:
    """Return 1 for the row whose ``value`` is lowest (or highest) of its query's ``rows``; null for other rows.

    A window over queries alone costs half of one over queries and whatever tells the rows apart.
    """
    return pl.when(rows).then(value).rank("ordinal", descending=descending).over(QUERY)
