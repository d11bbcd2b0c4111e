"""Scores of rows: each by its query's model, with LightGBM's bits whoever follows the trees, and damaged models."""

import lightgbm
import numpy as np
import polars as pl
import pytest

from pipeline.core.errors import StorageError, TableError
from pipeline.ranker import trees
from pipeline.ranker.predict import predict
from tests.ranker.test_binning import with_holes
from tests.samples import NOISE_FEATURES, judgments, write_part

FEATURES = [f"f{i}" for i in range(1, NOISE_FEATURES + 2)]


def model_of(path, frame, *, seed=1):
    """Write a small model trained in this process and return it."""
    settings = {
        "objective": "regression",
        "num_leaves": 4,
        "min_data_in_leaf": 2,
        "verbosity": -1,
        "seed": seed,
    }
    dataset = lightgbm.Dataset(frame.select(FEATURES).to_numpy(), label=frame["label"].to_numpy())
    booster = lightgbm.train({**settings, "num_threads": 1}, dataset, num_boost_round=seed + 1)
    booster.save_model(path)
    return booster


def test_each_query_is_scored_by_the_model_of_its_fold(tmp_path):
    """Three models, two parts of several row groups: each row has the score of its query's model."""
    frame = judgments(12, 10)
    files = [
        write_part(tmp_path / "part-0.parquet", frame.head(70), rows=30),
        write_part(tmp_path / "part-1.parquet", frame.tail(50), rows=30),
    ]
    models = [model_of(tmp_path / f"{i}.txt", frame, seed=i) for i in range(3)]
    folds = pl.DataFrame({"qid": range(12, 0, -1), "fold": pl.Series([0, 1, 2] * 4, dtype=pl.Int16)})
    paths = [tmp_path / f"{i}.txt" for i in range(3)]
    scored = predict(paths, files, [folds], threads=2)
    assert scored.select("row_id", "qid", "label").equals(frame.select("row_id", "qid", "label"))
    assert scored.schema["fold"] == pl.Int16
    features = frame.select(FEATURES).to_numpy()
    every = np.stack([model.predict(features) for model in models])
    fold = np.array([[0, 1, 2][(12 - q) % 3] for q in frame["qid"]])
    np.testing.assert_array_equal(scored["fold"].to_numpy(), fold)
    np.testing.assert_array_equal(scored["score"].to_numpy(), every[fold, np.arange(120)])
    alone = predict(paths[1:2], files, threads=1)
    np.testing.assert_array_equal(alone["score"].to_numpy(), every[1])
    assert set(alone["fold"]) == {-1}


@pytest.mark.parametrize("fold", [None, 1, -1])
def test_a_query_without_a_model_is_refused(tmp_path, fold):
    """No row is ever left with a score that nothing gave it."""
    frame = judgments(2, 20)
    part = write_part(tmp_path / "part.parquet", frame)
    model_of(tmp_path / "0.txt", frame)
    folds = pl.DataFrame({"qid": [1, 2], "fold": pl.Series([0, fold], dtype=pl.Int16)})
    with pytest.raises(TableError, match="query 2 has none of the 1 models"):
        predict([tmp_path / "0.txt"], [part], [folds], threads=1)


@pytest.mark.parametrize("damage", ["missing", "empty", "header", "trees", "parameters", "noise", "nonsense"])
def test_a_damaged_model_is_a_storage_error(tmp_path, damage):
    """A model that is missing, cut short or not LightGBM's is named, with what to do."""
    part = write_part(tmp_path / "part.parquet", judgments(2, 20))
    model_of(tmp_path / "model.txt", judgments(2, 20))
    whole = (tmp_path / "model.txt").read_bytes()
    (tmp_path / "model.txt").unlink()
    content = {
        "empty": b"",
        "header": whole[:200],
        "trees": whole[: whole.index(b"end of trees")],
        "parameters": whole[: whole.index(b"end of parameters")],
        "noise": b"\xff\xfe\x00",
        "nonsense": b"tree\nversion=v4\nend of parameters\n",
    }
    if damage != "missing":
        (tmp_path / "model.txt").write_bytes(content[damage])
    with pytest.raises(
        StorageError, match=r"model.txt: not a LightGBM model .*delete it and run again"
    ) as caught:
        predict([tmp_path / "model.txt"], [part], threads=1)
    assert "\n" not in str(caught.value)


KINDS = {
    "plain": {},
    "holes": {"max_bin": 15},
    "zero as missing": {"zero_as_missing": True},
    "categories": {"min_data_per_group": 2, "cat_smooth": 1},
    "linear": {"linear_tree": True},
    "many leaves": {"num_leaves": 150},
    "forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    "no split": {"min_data_in_leaf": 1_000},
}
FOLLOWED = {"plain", "holes", "no split"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_scores_have_the_bits_of_lightgbm(tmp_path, kind, threads):
    """Trees of known kinds are followed here, others by LightGBM, and every score is LightGBM's."""
    frame = with_holes()
    part, rows = write_part(tmp_path / "part.parquet", frame, rows=500), frame.select(FEATURES).to_numpy()
    settings = {"objective": "regression", "num_leaves": 12, "min_data_in_leaf": 3, "verbosity": -1}
    seen = np.nan_to_num(rows) if kind == "plain" else rows
    labels = frame["label"].to_numpy() + np.sin(np.arange(len(rows))) + 5 * (rows[:, 3] == 2)
    data = lightgbm.Dataset(seen, label=labels, categorical_feature=[3] if kind == "categories" else "auto")
    booster = lightgbm.train({**settings, **KINDS[kind]}, data, 7)
    booster.save_model(tmp_path / "model.txt")
    text = (tmp_path / "model.txt").read_text(encoding="utf-8")
    followed = trees.parse(text, features=len(FEATURES))
    assert (followed is not None) == (kind in FOLLOWED)
    found = predict([tmp_path / "model.txt"], [part], threads=threads)["score"].to_numpy()
    assert found.tobytes() == booster.predict(rows, raw_score=True).tobytes()
    assert len(np.unique(found)) > 20 or kind == "no split"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_tree_per_iteration=1", "num_tree_per_iteration=2"),
        ("\nend of trees", "\nend"),
        ("Tree=1", "Trees=1"),
        ("split_feature=", "feature="),
        ("left_child=", "left_child=9 "),
    ],
)
def test_a_changed_model_is_left_to_lightgbm(tmp_path, old, new):
    """What is not as it should be is not followed: LightGBM says what is wrong with it."""
    model_of(tmp_path / "model.txt", judgments(2, 20))
    text = (tmp_path / "model.txt").read_text(encoding="utf-8")
    assert trees.parse(text, features=len(FEATURES)) is not None
    assert trees.parse(text, features=len(FEATURES) + 1) is None
    assert old in text
    assert trees.parse(text.replace(old, new), features=len(FEATURES)) is None
