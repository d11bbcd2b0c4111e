"""The guard against unjudged positives, by hand."""

import polars as pl
import pytest

from pipeline.negatives import guards
from tests.samples import scores_of

# Positives at 1, 2, 3, 5: median 2.5, 75th percentile 3.5.
POSITIVES = ([1, 2, 1, 4], [1.0, 5.0, 3.0, 2.0])


def excluded(quantile, *queries):
    """Return which rows the guard excludes."""
    return (
        scores_of(*queries)
        .with_columns(negative=pl.col("label") == 0)
        .select(guards.above_positives(share=quantile).where.alias("negative"))["negative"]
        .to_list()
    )


@pytest.mark.parametrize(
    ("quantile", "bound"), [(0.0, 1.0), (0.25, 1.75), (0.5, 2.5), (0.75, 3.5), (0.9, 4.4), (1.0, 5.0)]
)
def test_bound_is_the_interpolated_quantile(quantile, bound):
    """A negative above the quantile of the positives is excluded, one below it is not."""
    labels, scores = POSITIVES
    found = excluded(quantile, (1, [*labels, 0, 0], [*scores, bound + 1e-9, bound - 1e-9]))
    assert found == [False] * 4 + [True, False]


def test_a_tie_with_the_bound_stays():
    """Above means above: a negative with the median positive's very score may be chosen."""
    assert excluded(0.5, (1, [1, 0, 0], [0.7, 0.7, 0.71])) == [False, False, True]


def test_one_positive_is_every_quantile():
    """With a single positive, every guard is a comparison with it."""
    for quantile in (0.0, 0.5, 1.0):
        assert excluded(quantile, (1, [0, 1, 0], [3.0, 2.0, 1.0])) == [True, False, False]


def test_queries_do_not_see_each_other():
    """A query without a positive excludes nothing, whatever its neighbours' positives score."""
    found = excluded(0.5, (1, [0, 1], [9.0, 1.0]), (2, [0, 0], [9.0, 8.0]), (3, [0, 1], [0.5, 1.0]))
    assert found == [True, False, False, False, False, False]


def test_graded_labels_all_count_as_positive():
    """The guard looks at label above 0, not at how relevant."""
    assert excluded(1.0, (1, [3, 1, 0], [1.0, 2.0, 1.5])) == [False, False, False]
