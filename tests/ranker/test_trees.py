"""Scores by new trees alone: against LightGBM's own, to the last bit, and where they are left to LightGBM."""

import numpy as np
import pytest

from pipeline.core.config import RankerConfig
from pipeline.ranker import boosting, trees
from pipeline.ranker.boosting import Ranker, Split
from pipeline.ranker.fit import parameters
from tests.ranker.test_binning import with_holes
from tests.samples import NOISE_FEATURES, write_part

MODEL = """tree
num_tree_per_iteration=1
max_feature_idx=1
tree_sizes=100 80

Tree=0
num_leaves=3
num_cat=0
split_feature=0 1
threshold=0.1 -2
decision_type=2 {kind}
left_child=1 -1
right_child=-2 -3
leaf_value=0.5 -1 0.25
is_linear=0


Tree=1
num_leaves=1
num_cat=0
split_feature=
threshold=
decision_type=
left_child=
right_child=
leaf_value=0.125
is_linear=0


end of trees
"""


def by_hand(kind):
    """Return what :data:`MODEL` gives four rows."""
    columns = {0: [0.2, 0.1, 0.05, 0.0], 1: [0.0, -2.0, -1.0, np.nan]}
    columns = {number: np.array(column, dtype=np.float32) for number, column in columns.items()}
    score = np.array([10.0, 20.0, 30.0, 40.0])
    trees.add(score, trees.parse(MODEL.format(kind=kind), features=2), columns)
    return score.tolist()


@pytest.mark.parametrize(("kind", "missing"), [(2, 0.25), (0, 0.25), (10, 0.5), (8, 0.25)])
def test_two_trees_by_hand(kind, missing):
    """A row goes right above the bound: 0.1 is 0.10000000149 in single precision; missing is 0, left or right."""
    assert by_hand(kind) == [9.125, 19.125, 30.375, 40.125 + missing]


@pytest.mark.parametrize("kind", [1, 6])
def test_trees_of_other_kinds_are_left_to_lightgbm(kind):
    """Categories, and zeros that stand for missing values, are not known here."""
    assert trees.parse(MODEL.format(kind=kind), features=2) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("left_child=1 -1", "left_child=0 -1"),
        ("left_child=1 -1", "left_child=-2 -1"),
        ("left_child=1 -1", "left_child=2 -1"),
        ("right_child=-2 -3", "right_child=-2"),
        ("leaf_value=0.5 -1 0.25", "leaf_value=0.5 -1"),
        ("threshold=0.1 -2", "threshold=0.1"),
    ],
)
def test_nodes_that_are_no_tree_are_left_to_lightgbm(old, new):
    """A node that is its own child, comes twice or is not there makes no tree."""
    text = MODEL.format(kind=2)
    assert len(trees.parse(text, features=2)) == 2
    assert old in text
    assert trees.parse(text.replace(old, new), features=2) is None


def test_a_ranker_without_splits_adds_its_constants():
    """No feature is asked for, and every row gets the same."""
    constant = trees.parse(MODEL.format(kind=2), features=2)[1:]
    assert trees.features_of(constant) == set()
    score = np.array([1.0, 2.0])
    trees.add(score, constant * 2, {}, threads=2)
    assert score.tolist() == [1.25, 2.25]


# ---- While a ranker grows ----------------------------------------------------------------------------------


@pytest.fixture(params=[5, 40, 150])
def boosted(request, tmp_path):
    """Return a split with zeros and holes in several row groups, and a booster of 8 trees on some of its rows.

    With 150 leaves the trees are left to LightGBM.
    """
    lightgbm = pytest.importorskip("lightgbm")
    files = [write_part(tmp_path / "train.parquet", with_holes(), rows=500)]
    config = RankerConfig(trees=8, leaves=request.param, min_rows_per_leaf=1 if request.param > 100 else 5)
    settings = {**parameters(config, seed=7), "metric": "none", "num_threads": 1}
    split = Split(files, bins=None, parameters=settings)
    some = np.flatnonzero(np.arange(1200) % 20 < 13)
    weight = np.ones(len(some), dtype=np.float32)
    booster = lightgbm.Booster(settings, split.take(some, weight=weight, start=None))
    for _ in range(8):
        booster.update()
    known = trees.parse(booster.model_to_string(), features=NOISE_FEATURES + 1) is not None
    assert known == (request.param < 100)
    return split, booster


def test_scores_are_those_that_lightgbm_keeps(boosted):
    """All rows, trained on or not, start from scores of their own; bits are the same with missing values, too."""
    split, booster = boosted
    start = np.random.default_rng(1).normal(size=1200)
    kept = start.copy()
    found = split.add_trees(start, booster, 8)
    split.data.set_init_score(start)
    booster.add_valid(split.data, "full")
    assert found.tobytes() == boosting.scores_of(booster, split.data).tobytes()
    assert start.tobytes() == kept.tobytes()


def test_the_first_trees_alone(boosted):
    """The others add nothing, whoever scores."""
    split, booster = boosted
    features = with_holes().select(f"f{i}" for i in range(1, NOISE_FEATURES + 2)).to_numpy()
    expected = booster.predict(features, num_iteration=3, raw_score=True)
    np.testing.assert_allclose(split.add_trees(None, booster, 3), expected, rtol=1e-12)


@pytest.mark.parametrize("leaves", [5, 150])
def test_a_ranker_that_grows_in_steps_scores_with_all_its_trees(tmp_path, leaves):
    """Three rounds on other rows each: the scores are those of the model that is written."""
    lightgbm = pytest.importorskip("lightgbm")
    files = [write_part(tmp_path / "train.parquet", with_holes())]
    config = RankerConfig(trees=6, leaves=leaves, min_rows_per_leaf=1)
    settings = {**parameters(config, seed=7), "metric": "none", "num_threads": 1}
    counted = []
    ranker = Ranker(Split(files, bins=None, parameters=settings), None, counted.append)
    assert ranker.scores() is None
    for first in range(3):
        rows = np.arange(first, 1200, 2)
        ranker.grow(rows, weight=np.ones(len(rows), dtype=np.float32), number=2)
    scores = ranker.scores()
    ranker.write(tmp_path / "model.txt")
    assert (ranker.trees, sum(counted), ranker.is_over) == (6, 6, False)
    features = with_holes().select(f"f{i}" for i in range(1, NOISE_FEATURES + 2)).to_numpy()
    expected = lightgbm.Booster(model_file=tmp_path / "model.txt").predict(features, num_threads=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
