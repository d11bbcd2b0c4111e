"""What must hold for NDCG on any lists."""

from fractions import Fraction
from itertools import groupby, pairwise
from math import log2, nan

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.ndcg import ndcg

CUTOFFS = (1, 3, 5, 10)


@st.composite
def rankings(draw):
    """Draw labels, scores (ties likely) and offsets of up to six queries, some of them without a document."""
    sizes = draw(st.lists(st.integers(0, 14), min_size=1, max_size=6))
    n = sum(sizes)
    labels = draw(st.lists(st.integers(0, 30), min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(-6, 6), min_size=n, max_size=n))
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    return np.array(labels, dtype=np.uint8), np.array(scores, dtype=np.float64), offsets


gains = st.sampled_from(["exponential", "linear"])
ties = st.sampled_from(["average", "order"])


@given(rankings(), gains, ties)
def test_lies_in_the_unit_interval(data, gain, tied):
    """NDCG is in [0, 1], and NaN exactly for queries without a relevant document."""
    labels, scores, offsets = data
    values = ndcg(labels, scores, offsets, gain=gain, ties=tied)
    relevant = np.array([labels[a:b].any() for a, b in pairwise(offsets)])
    assert values.shape == (len(offsets) - 1, 4)
    assert np.array_equal(np.isnan(values), np.repeat(~relevant[:, None], 4, axis=1))
    assert ((values[relevant] >= 0) & (values[relevant] <= 1)).all()


@given(rankings(), gains, ties)
def test_depends_on_the_order_of_scores_alone(data, gain, tied):
    """Any strictly rising function of the scores gives the same bits."""
    labels, scores, offsets = data
    values = ndcg(labels, scores, offsets, gain=gain, ties=tied)
    for transformed in (np.exp(scores), 3 * scores - 7, scores**3, scores.astype(np.float32)):
        np.testing.assert_array_equal(ndcg(labels, transformed, offsets, gain=gain, ties=tied), values)


@given(rankings(), gains, st.integers(0, 2**32))
def test_averaged_ties_ignore_row_order(data, gain, seed):
    """Rows of a query may come in any order when ties are averaged."""
    labels, scores, offsets = data
    query = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), query))
    shuffled = ndcg(labels[order], scores[order], offsets, gain=gain)
    np.testing.assert_allclose(shuffled, ndcg(labels, scores, offsets, gain=gain), atol=1e-12)


@given(rankings(), gains, ties)
def test_perfect_order_is_one(data, gain, tied):
    """Scores equal to the labels give 1 wherever there is a relevant document."""
    labels, _, offsets = data
    values = ndcg(labels, labels.astype(np.float64), offsets, gain=gain, ties=tied)
    np.testing.assert_allclose(values[~np.isnan(values)], 1.0, atol=1e-12)


@given(rankings(), gains, ties)
def test_queries_do_not_touch_each_other(data, gain, tied):
    """Each query scored alone has the value it has among the others."""
    labels, scores, offsets = data
    alone = [
        ndcg(labels[a:b], scores[a:b], np.array([0, b - a]), gain=gain, ties=tied)
        for a, b in pairwise(offsets)
    ]
    np.testing.assert_allclose(
        np.concatenate(alone), ndcg(labels, scores, offsets, gain=gain, ties=tied), atol=1e-12
    )


# --- the definition ---------------------------------------------------------------------------------------

WIDE = st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, np.inf, -np.inf, 1.0, 2.0])


@st.composite
def any_lists(draw):
    """Draw lists with labels up to 255, any scores of any type of float, and cutoffs deeper than lists."""
    sizes = draw(st.lists(st.integers(0, 40), max_size=5))
    n = sum(sizes)
    top = draw(st.sampled_from([0, 1, 4, 30, 255]))
    labels = np.array(draw(st.lists(st.integers(0, top), min_size=n, max_size=n)))
    number = draw(st.sampled_from([WIDE, st.integers(-3, 3).map(float)]))
    scores = np.array(draw(st.lists(number, min_size=n, max_size=n)), dtype=np.float64)
    offsets = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
    cutoffs = draw(st.lists(st.integers(1, 45) | st.just(10**6), min_size=1, max_size=4))
    types = (
        draw(st.sampled_from([np.uint8, np.int64])),
        draw(st.sampled_from([np.float32, np.float64, ">f8"])),
    )
    return labels.astype(types[0]), scores.astype(types[1]), offsets, cutoffs


@given(any_lists(), gains, ties)
def test_follows_the_definition(data, gain, tied):
    """Sorting one list at a time in Python, with gains as exact fractions, gives the same to 1e-12."""
    labels, scores, offsets, cutoffs = data
    expected = [
        [_by_definition(labels[a:b].tolist(), scores[a:b].tolist(), k, gain, tied) for k in cutoffs]
        for a, b in pairwise(offsets)
    ]
    shape = len(offsets) - 1, len(cutoffs)
    values = ndcg(labels, scores, offsets, cutoffs=cutoffs, gain=gain, ties=tied)
    np.testing.assert_allclose(values, np.reshape(expected, shape), rtol=0, atol=1e-12)


def _by_definition(labels, scores, cutoff, gain, tied):
    gained = [Fraction(2**label - 1 if gain == "exponential" else label) for label in labels]
    order = sorted(range(len(labels)), key=lambda row: -scores[row])
    ranked = [gained[row] for row in order]
    if tied == "average":
        groups = [[gained[row] for row in rows] for _, rows in groupby(order, key=scores.__getitem__)]
        ranked = [sum(group) / len(group) for group in groups for _ in group]
    ideal = _dcg(sorted(gained, reverse=True)[:cutoff])
    return _dcg(ranked[:cutoff]) / ideal if ideal else nan


def _dcg(gained):
    return sum(float(value) / log2(rank + 2) for rank, value in enumerate(gained))
