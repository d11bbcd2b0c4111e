"""Folds of each layout, and queries assigned to groups."""

from collections import Counter

import numpy as np
import pytest

from pipeline.core.errors import SourceError
from pipeline.dataset.folds import Fold, assign_groups, of_splits, rotation, split_queries


def test_rotation_is_letors():
    """The five folds of LETOR's own table: three partitions train, the next validates, the last tests."""
    assert [(f.number, "".join(f.train), *f.vali, *f.test) for f in rotation()] == [
        (1, "S1S2S3", "S4", "S5"),
        (2, "S2S3S4", "S5", "S1"),
        (3, "S3S4S5", "S1", "S2"),
        (4, "S4S5S1", "S2", "S3"),
        (5, "S5S1S2", "S3", "S4"),
    ]


def test_layouts_of_a_dataset():
    """Partitions rotate, Fold directories stand for themselves by number, anything else is one fold."""
    assert of_splits(["S5", "S4", "S3", "S2", "S1"]) == rotation()
    names = [f"Fold{n}/{split}" for n in (10, 2) for split in ("train", "vali", "test")]
    assert [fold.number for fold in of_splits(names)] == [2, 10]
    assert of_splits(names)[0] == Fold(2, ("Fold2/train",), ("Fold2/vali",), ("Fold2/test",), folds=2)
    assert of_splits(["train", "vali", "test"]) == [Fold(1, ("train",), ("vali",), ("test",))]


@pytest.mark.parametrize(("queries", "groups"), [(10, 4), (3, 4), (1, 2), (0, 2), (100, 7)])
def test_groups_are_even(queries, groups):
    """Group sizes differ by one at most, and every query has a group."""
    assigned = assign_groups(queries, groups, seed=1)
    sizes = [Counter(assigned.tolist())[group] for group in range(groups)]
    assert sum(sizes) == queries == len(assigned)
    assert max(sizes) - min(sizes) <= 1
    assert assigned.dtype == np.int16


def test_groups_follow_the_seed():
    """The same seed assigns alike, another one differently, and neither in turn."""
    first = assign_groups(100, 4, seed=1)
    assert (first == assign_groups(100, 4, seed=1)).all()
    assert (first != assign_groups(100, 4, seed=2)).any()
    assert (first != np.arange(100) % 4).any()


def test_split_sizes():
    """Ten queries at 20 % each: two validate, two test, six train; a share of almost nothing is one query."""
    group = split_queries(10, {"vali": 0.2, "test": 0.2}, seed=1, where="x")
    assert np.bincount(group).tolist() == [6, 2, 2]
    small = split_queries(4, {"vali": 0.001, "test": 0.3}, seed=1, where="x")
    assert np.bincount(small).tolist() == [2, 1, 1]
    assert (group != split_queries(10, {"vali": 0.2, "test": 0.2}, seed=2, where="x")).any()


@pytest.mark.parametrize("queries", [0, 1, 2])
def test_too_few_queries_to_split(queries):
    """Two queries cannot make three splits; the message counts them and says what to do."""
    with pytest.raises(
        SourceError, match=rf"^x.txt: {queries} queries are too few to hold out vali and test"
    ):
        split_queries(queries, {"vali": 0.2, "test": 0.2}, seed=1, where="x.txt")
