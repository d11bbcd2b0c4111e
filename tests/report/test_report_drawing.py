"""What the charts are made of: scales, places that keep their distance, looks of series, counted queries."""

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from pipeline.report import axes, forest, marks, wins


def test_series_differ_in_colour_and_shape() -> None:
    """Arms of one strategy look alike; 20 strategies have 20 looks; the guard belongs to the strategy."""
    look = marks.looks(["all", "mixed-20-guard75", "mixed-0.5-guard75", "mixed-20", "random-5", "random-10"])
    assert look["mixed-20-guard75"] == look["mixed-0.5-guard75"]
    assert look["mixed-20-guard75"].series == "mixed-guard75"
    assert look["random-5"] == look["random-10"] != look["all"]
    counted = marks.looks(["top-20-skip5", "top-n19-skip5", "top-p2.5-skip5", "random-n19"])
    assert counted["top-20-skip5"] == counted["top-n19-skip5"] == counted["top-p2.5-skip5"]
    assert counted["top-n19-skip5"].series == "top-skip5"
    assert counted["random-n19"].series == "random"
    assert look["mixed-20"].colour != look["mixed-20-guard75"].colour
    assert look["mixed-20"].shape != look["mixed-20-guard75"].shape
    many = marks.looks([f"kind{chr(97 + i)}-10" for i in range(20)])
    assert len({(one.colour, one.shape) for one in many.values()}) == 20


def test_far_arms_do_not_press_the_others_flat() -> None:
    """Three arms around -0.01 set the scale; the one at -0.4 gets an arrow and keeps its figures."""
    near = {"delta_low": -0.02, "delta": -0.01, "delta_high": 0.0, "p_holm": 0.5, "recommended": False}
    rows = [{"arm": f"a-{i}", **near} for i in range(3)]
    far = {"arm": "top-5", **near, "delta_low": -0.45, "delta": -0.4, "delta_high": -0.35}
    assert not forest.off_scale(rows)
    assert forest.off_scale([*rows, far])
    texts = [t.text for t in ElementTree.fromstring(forest.chart([*rows, far], cutoff=10)).iter("text")]  # noqa: S314
    assert "\u22120.400 (\u22120.450 to \u22120.350)" in texts


def test_folds_are_pooled_by_fold_and_query() -> None:
    """A query id that stands in two folds is two queries."""
    frame = pl.DataFrame(
        {
            "arm": ["all", "all", "x", "x"],
            "split": ["test"] * 4,
            "fold": [1, 2, 1, 2],
            "qid": [7, 7, 7, 7],
            "cutoff": [10] * 4,
            "ndcg": [0.5, 0.25, 0.75, 0.0],
        }
    )
    assert wins.differences(frame, arm="x", cutoff=10).tolist() == [-0.25, 0.25]


def test_wins_count_by_hand() -> None:
    """Of 0.3, 0.1, 0, -0.2 two are won, one tied, one lost; bins of 0.025 meet at zero."""
    change = np.array([-0.2, 0.0, 0.1, 0.3])
    assert wins.counts(change) == (1, 1, 2)
    edges, tally = wins.bins(change)
    assert edges[0] == pytest.approx(-0.2)
    assert edges[-1] == pytest.approx(0.3)
    assert tally.tolist() == [1, *[0] * 7, *[0] * 3, 1, *[0] * 7, 1]


@given(st.lists(st.floats(-1, 1), max_size=60))
def test_bins_hold_every_query_that_changed(values: list[float]) -> None:
    """Bins left of zero hold the lost queries, bins right of it the won ones; no query falls out."""
    change = np.array(values, dtype=float)
    lost, tied, won = wins.counts(change)
    edges, tally = wins.bins(change)
    assert lost + tied + won == len(values)
    assert tally[edges[:-1] < -1e-12].sum() == lost
    assert tally[edges[:-1] >= -1e-12].sum() == won


@given(st.lists(st.floats(-50, 150), max_size=30), st.floats(0.5, 30))
def test_spread_keeps_distance_order_and_bounds(places: list[float], gap: float) -> None:
    """Places end up inside, in their order, and at least the gap apart where there is room for it."""
    moved = axes.spread(places, gap, 0.0, 100.0)
    order = sorted(range(len(places)), key=lambda i: places[i])
    fits = min(gap, 100.0 / max(len(places) - 1, 1))
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in moved)
    assert all(moved[b] - moved[a] >= fits - 1e-6 for a, b in pairwise(order))


@given(st.lists(st.floats(-50, 150), min_size=1, max_size=30), st.floats(0.5, 3))
def test_spread_is_isotonic_regression(places: list[float], gap: float) -> None:
    """Where there is room, the places are scikit-learn's least-squares solution, put back into the bounds."""
    steps = gap * np.arange(len(places))
    level = isotonic_regression(np.sort(places) - steps, y_min=0.0, y_max=100.0 - steps[-1])
    assert np.sort(axes.spread(places, gap, 0.0, 100.0)) == pytest.approx(level + steps, abs=1e-9)


def test_spread_moves_no_more_than_needed() -> None:
    """Two at 50 part by half the gap each; one far away stays."""
    assert axes.spread([50, 90, 50], 10, 0, 100) == [45, 90, 55]


@given(st.floats(-5, 5), st.floats(1e-6, 10))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    """A linear scale has two to eight ticks, in rising order, none outside."""
    made = axes.linear([low, low + span], 0, 100)
    ticks = made.ticks()
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert all(made.low - 1e-9 <= tick <= made.high + 1e-9 for tick in ticks)


def test_shares_take_a_logarithmic_scale_when_they_double_and_double_again() -> None:
    """From 5 % to 40 % a doubling is a step of its own; 20 % to 40 % is linear; none is above 1."""
    wide = axes.shares([0.05, 0.4], 0, 300)
    assert wide.log
    assert wide(0.1) - wide(0.05) == pytest.approx(wide(0.2) - wide(0.1))
    assert {0.05, 0.1, 0.2} <= set(wide.ticks())
    assert not axes.shares([0.2, 0.4], 0, 300).log
    assert max(axes.shares([1.0], 0, 300).ticks()) <= 1.0
