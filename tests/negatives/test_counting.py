"""Choices that are counts: by hand, and beside a sort of everything."""

import numpy as np
import pytest

from pipeline.negatives import counting
from pipeline.negatives.context import Layout
from pipeline.negatives.counting import Numbers
from tests.samples import scores_of


def numbers(skip, hard, drawn):
    """Return counts of the same number of queries."""
    return Numbers(*(np.array(one, dtype=np.int64) for one in (skip, hard, drawn)))


def test_two_queries_by_hand():
    """Row 1 may not be chosen; the second query has fewer rows than it is asked for."""
    may = np.array([True, False, True, True, True, True, True])
    lot = np.array([0.9, 0.0, 0.5, 0.4, 0.3, 0.2, 0.1])
    found = counting.choose(np.array([0, 5, 7]), may, numbers([1, 0], [1, 1], [2, 3]), lambda at: lot[at])
    assert found.hard.tolist() == [2, 5]
    assert found.drawn.tolist() == [4, 3, 6]
    assert found.stands_for.tolist() == [1.5, 1.5, 1.0]


def test_nothing_to_draw_asks_for_no_lots():
    """Where no query draws, nothing is drawn from nothing."""
    found = counting.choose(
        np.array([0, 3]), np.ones(3, bool), numbers([0], [2], [0]), lambda _: pytest.fail("asked")
    )
    assert (found.hard.tolist(), found.drawn.tolist(), found.stands_for.tolist()) == ([0, 1], [], [])


@pytest.mark.parametrize("low", [0.0, 0.9])
def test_lots_are_drawn_as_by_a_sort_of_all(low):
    """Few of many, whether or not the lots are as low as uniform ones are, and ties fall in the order of rows."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(0, 400, size=50)
    starts = np.append(0, np.cumsum(sizes))
    lot = low + np.round(rng.random(starts[-1]), 2) / 10 ** (low > 0)
    drawn = rng.integers(0, 9, size=50)
    found = counting.choose(
        starts, np.ones(starts[-1], bool), numbers([0] * 50, [0] * 50, drawn), lambda at: lot[at]
    )
    query = np.repeat(np.arange(50), sizes)
    order = np.lexsort((lot, query))
    expected = order[np.arange(starts[-1]) - starts[query] < drawn[query]]
    assert found.drawn.tolist() == expected.tolist()


def test_the_order_does_not_depend_on_how_often_it_is_asked_for():
    """Ties, near ties and zeros of both signs fall alike, where queries lie apart, too."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, size=900)
    for queries in (np.repeat(np.arange(9), 100), np.tile(np.arange(9), 100)):
        layout = Layout(scores_of(*_lists(queries, labels)), seed=3)
        for score in (
            np.round(rng.normal(size=900), 1),
            np.where(rng.random(900) < 0.5, 0.0, -0.0),
            1 + rng.integers(0, 4, size=900) * 2.0**-52,
        ):
            assert layout.hardest_first_again(score).tolist() == layout.hardest_first(score).tolist()


def _lists(queries, labels):
    return [(int(q), [int(label)], [0.0]) for q, label in zip(queries, labels, strict=True)]
