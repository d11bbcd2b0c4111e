"""Scores by new trees alone: against LightGBM's own, to the last bit, and where they are left to LightGBM."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.config import RankerConfig
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.negatives import dynamic_worker as dynamic_child
from pipeline.ranker import binning as binned
from pipeline.ranker import trees as tree_scores
from pipeline.ranker.fit import parameters
from tests.ranker.test_binning import with_holes
from tests.samples import NOISE_FEATURES, write_part

FEATURES = [f"f{i}" for i in range(1, NOISE_FEATURES + 2)]
MODEL = """tree

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


def columns_of(table):
    """Return the columns of a table in two row groups."""
    half = table.num_rows // 2
    groups = [table.slice(0, half), table.slice(half)]
    return tree_scores.Columns(
        table.column_names, lambda names: (group.select(names) for group in groups), rows=table.num_rows
    )


def by_hand(kind):
    """Return what :data:`MODEL` gives four rows."""
    values = {"a": [0.2, 0.1, 0.05, 0.0], "b": [0.0, -2.0, -1.0, np.nan]}
    table = pa.table({name: np.array(column, dtype=np.float32) for name, column in values.items()})
    score = np.array([10.0, 20.0, 30.0, 40.0])
    assert tree_scores.add(score, columns_of(table), tree_scores.trees(MODEL.format(kind=kind)))
    return score.tolist()


@pytest.mark.parametrize(("kind", "missing"), [(2, 0.25), (0, 0.25), (10, 0.5), (8, 0.25)])
def test_two_trees_by_hand(kind, missing):
    """A row goes right above the bound: 0.1 is 0.10000000149 in single precision; missing is 0, left or right."""
    assert by_hand(kind) == [9.125, 19.125, 30.375, 40.125 + missing]


@pytest.mark.parametrize("kind", [1, 6])
def test_trees_of_other_kinds_are_left_to_lightgbm(kind):
    """Categories, and zeros that stand for missing values, are not known here."""
    assert tree_scores.trees(MODEL.format(kind=kind)) is None


def test_trees_of_many_leaves_are_left_to_lightgbm(monkeypatch):
    """With more leaves than pay, no tree is returned."""
    monkeypatch.setattr(tree_scores, "MOST_LEAVES", 2)
    assert tree_scores.trees(MODEL.format(kind=2)) is None


def test_a_ranker_without_splits_adds_its_constants():
    """No feature is asked for, and every row gets the same."""
    constant = tree_scores.trees(MODEL.format(kind=2))[1:]
    score = np.array([1.0, 2.0])
    columns = columns_of(pa.table({"a": np.zeros(2, np.float32)}))
    assert tree_scores.add(score, columns, constant * 2)
    assert score.tolist() == [1.25, 2.25]


@pytest.fixture(params=[5, 40])
def boosted(request, tmp_path):
    """Return a booster on some rows of a split with zeros and holes, the split, and its columns."""
    lightgbm = pytest.importorskip("lightgbm")
    write_part(tmp_path / "train.parquet", with_holes())
    files = [tmp_path / "train.parquet"]
    config = RankerConfig(trees=8, leaves=request.param, min_rows_per_leaf=5)
    settings = {**parameters(config, seed=7), "metric": "none", "num_threads": 1}
    full = binned.build(files, parameters=settings)
    some = np.flatnonzero(np.arange(1200) % 20 < 13)
    booster = lightgbm.Booster(settings, binned.take(full, some, np.full(60, 13, dtype=np.int32)))
    for _ in range(8):
        booster.update()
    return booster, full, files


def columns_from(files):
    """Return the columns of a split as the child reads them."""
    names = features_of(parts.schema_of(files).names)
    return tree_scores.Columns(names, lambda some: parts.row_groups(files, columns=some), rows=1200)


def test_scores_are_those_that_lightgbm_keeps(boosted):
    """All rows, trained on or not, start from scores of their own; bits are the same with missing values, too."""
    booster, full, files = boosted
    start = np.random.default_rng(1).normal(size=1200)
    full.set_init_score(start)
    booster.add_valid(full, "full")
    expected = dynamic_child.scores_of(booster, full)
    score = start.copy()
    grown = tree_scores.of_booster(booster, 8)
    assert len(grown) == 8
    assert tree_scores.add(score, columns_from(files), grown)
    assert score.tobytes() == expected.tobytes()
    assert tree_scores.of_booster(booster, 3)[2].values.tolist() == grown[2].values.tolist()


def test_without_room_lightgbm_scores_and_says_the_same(boosted, monkeypatch):
    """Both ways give the same bits, and leave the scores before the trees as they are."""
    booster, full, files = boosted
    start = np.random.default_rng(2).normal(size=1200)
    kept = start.copy()
    here = dynamic_child.scored(full, start, booster, 8, columns_from(files))
    monkeypatch.setattr(tree_scores, "HELD_VALUES", 1199)
    there = dynamic_child.scored(full, start, booster, 8, columns_from(files))
    assert here.tobytes() == there.tobytes()
    assert start.tobytes() == kept.tobytes()
    assert here.tobytes() != start.tobytes()


def test_columns_make_room_for_others(monkeypatch):
    """Two columns fit: the third asked for takes the place of those not asked for, and is read once."""
    monkeypatch.setattr(tree_scores, "HELD_VALUES", 8)
    table = pa.table({name: np.full(4, i, dtype=np.float32) for i, name in enumerate("abc")})
    read = []

    def reader(names):
        read.append(list(names))
        return [table.select(names)]

    columns = tree_scores.Columns(["a", "b", "c"], reader, rows=4)
    assert columns.have([0])
    assert columns.have([0, 1])
    assert columns.have([2, 1])
    assert not columns.have([0, 1, 2])
    assert read == [["a"], ["b"], ["c"]]
    [(rows, values)] = columns.blocks()
    assert rows == slice(0, 4)
    assert {number: column.tolist() for number, column in values.items()} == {1: [1.0] * 4, 2: [2.0] * 4}
