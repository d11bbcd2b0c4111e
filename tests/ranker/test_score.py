"""SCORES: who scores whom, what an initial ranker trains on, and the table on disk."""

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.core import tables
from pipeline.core.config import RankerConfig
from pipeline.core.errors import TrainingError
from pipeline.ranker import score
from pipeline.ranker.predict import predict
from tests.samples import judgments, scores_of, write_part

CONFIG = RankerConfig(trees=5, leaves=4, min_rows_per_leaf=5, early_stopping=3)
KEYS = judgments(23, 7).select("row_id", "qid", "label")


def as_text(keys):
    """Return the keys with query ids that sort differently."""
    return keys.with_columns(pl.col("qid").cast(pl.String))


# ---- Who scores whom ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 4, 23])
@pytest.mark.parametrize("keys", [KEYS, as_text(KEYS)], ids=["int", "text"])
def test_no_ranker_trains_on_a_query_it_scores(keys, folds):
    """Over the folds every row is left out once, by the ranker that scores its query, and trained on else."""
    fold_of = keys.join(
        score.assign_folds(keys, folds=folds, seed=1), on="qid", how="left", maintain_order="left"
    )["fold"]
    assert fold_of.null_count() == 0
    for fold in range(folds):
        rows = score.training_rows(keys, folds=folds, leave_out=fold, seed=1)["row_id"]
        assert rows.to_list() == keys.filter(fold_of != fold)["row_id"].to_list()


def test_folds_are_assigned_by_query_whatever_the_row_order():
    """A query has one fold, sizes differ by one at most, and the file's order plays no part."""
    assigned = score.assign_folds(KEYS, folds=4, seed=1)
    assert assigned["qid"].to_list() == list(range(1, 24))
    assert sorted(assigned["fold"].value_counts()["count"]) == [5, 6, 6, 6]
    shuffled = KEYS.sample(fraction=1.0, shuffle=True, seed=1)
    assert score.assign_folds(shuffled, folds=4, seed=1).equals(assigned)
    assert not score.assign_folds(KEYS, folds=4, seed=2).equals(assigned)
    assert assigned.schema["fold"] == pl.Int16


def test_in_sample_trains_on_everything():
    """With -1 left out, every row is there."""
    rows = score.training_rows(KEYS, folds=1, leave_out=score.IN_SAMPLE, seed=1)
    assert rows.equals(KEYS.select("row_id"))


def test_over_limit_queries_lose_negatives_only():
    """Of six rows per query, both positives stay and four negatives are drawn; a short query is whole."""
    limit = {"folds": 1, "leave_out": score.IN_SAMPLE, "query_rows": 6}
    keys = scores_of((1, [0] * 20 + [1, 2], [0] * 22), (2, [0, 1], [0] * 2))
    draws = [score.training_rows(keys, seed=seed, **limit)["row_id"].to_list() for seed in (1, 2)]
    for rows in draws:
        assert rows == sorted(rows)
        assert {20, 21, 22, 23} < set(rows)
        assert len(rows) == 8
    assert draws[0] != draws[1]
    shuffled = keys.sample(fraction=1.0, shuffle=True, seed=1)
    again = score.training_rows(shuffled, seed=1, **limit)["row_id"]
    assert sorted(again) == draws[0]


# ---- The edge: paths, children -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a directory with ``train.parquet`` and the rankers of two folds."""
    where = tmp_path_factory.mktemp("score")
    file = write_part(where / "train.parquet", judgments(20, 10, seed=3))
    models = [where / f"{number}.txt" for number in range(4)]
    assert score.fit([file], models, repeats=2, config=CONFIG, seed=1, threads=1)["rows"] == 400
    score.fit([file], [where / "all.txt"], repeats=0, config=CONFIG, seed=1, threads=1)
    assert not list(where.glob("*-rows"))
    return where


def test_initial_rankers_train_every_tree(trained):
    """Early stopping is for the arms: an initial ranker has all its trees."""
    for number in range(4):
        assert (trained / f"{number}.txt").read_text().count("\nTree=") == CONFIG.trees


def test_run_scores_each_row_out_of_fold(trained):
    """SCORES has every row in order, with the raw score of the ranker named in ``fold``."""
    files, models = [trained / "train.parquet"], [trained / "0.txt", trained / "1.txt"]
    assert score.run(files, models, trained / "scores.parquet", seed=1, threads=2) == {"rows": 200}
    assert pq.read_schema(trained / "scores.parquet").equals(tables.scores(qid=tables.QID_INT))
    scores, frame = pl.read_parquet(trained / "scores.parquet"), pl.read_parquet(files[0])
    assert scores.select("row_id", "qid", "label").equals(frame.select("row_id", "qid", "label"))
    both = np.stack([predict([m], files, threads=1)["score"].to_numpy() for m in models])
    fold = scores["fold"].to_numpy()
    np.testing.assert_array_equal(scores["score"].to_numpy(), both[fold, np.arange(200)])
    keys = frame.select("row_id", "qid", "label")
    for left_out in range(2):
        rows = score.training_rows(keys, folds=2, leave_out=left_out, seed=1)
        assert scores.filter(pl.col("fold") == left_out).join(rows, on="row_id", how="semi").height == 0


def test_run_in_sample(trained):
    """A single model scores every row, and ``fold`` says that it saw them."""
    score.run(
        [trained / "train.parquet"], [trained / "0.txt"], trained / "in-sample.parquet", seed=1, threads=1
    )
    scores = pl.read_parquet(trained / "in-sample.parquet")
    assert set(scores["fold"]) == {score.IN_SAMPLE}
    assert scores["score"].n_unique() > 1


def test_scores_are_the_mean_over_the_repeats(trained):
    """With two repeats a row's score is the mean of two rankers that never saw its query."""
    files, models = [trained / "train.parquet"], [trained / f"{number}.txt" for number in range(4)]
    score.run(files, models, trained / "two.parquet", repeats=2, seed=1, threads=1)
    scores, keys = pl.read_parquet(trained / "two.parquet"), judgments(20, 10, seed=3).select("qid")
    each = np.stack([predict([m], files, threads=1)["score"].to_numpy() for m in models])
    assigned = [score.assign_folds(keys, folds=2, seed=1, repeat=repeat) for repeat in range(2)]
    assert not assigned[0].equals(assigned[1])
    fold = [keys.join(d, on="qid", how="left", maintain_order="left")["fold"].to_numpy() for d in assigned]
    row = np.arange(200)
    expected = (each[fold[0], row] + each[2 + fold[1], row]) / 2
    np.testing.assert_allclose(scores["score"].to_numpy(), expected, rtol=1e-12)
    np.testing.assert_array_equal(scores["fold"].to_numpy(), fold[0])


def test_run_in_sample_takes_the_ranker_that_saw_everything(trained):
    """Without repeats it trains on every query."""
    frame = pl.read_parquet(trained / "train.parquet")
    assert (trained / "all.txt").read_text() != (trained / "0.txt").read_text()
    rows = score.training_rows(frame.select("row_id", "qid", "label"), folds=1, leave_out=-1, seed=1)
    assert rows.height == 200


def test_failure_leaves_no_scratch_file(tmp_path):
    """When training fails, the lists of rows go too, and the message says what failed."""
    frame = judgments(4, 10).with_columns(label=pl.lit(40, pl.UInt8))  # a label beyond LightGBM's gains
    file = write_part(tmp_path / "train.parquet", frame)
    message = r"^training the initial rankers: .*label"
    with pytest.raises(TrainingError, match=message):
        score.fit([file], [tmp_path / "a.txt", tmp_path / "b.txt"], config=CONFIG, seed=1, threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]


def test_a_share_of_few_negatives_is_no_less_than_a_number():
    """A tenth of 30 is 3, but at least 5 are drawn; of 3 all."""
    keys = scores_of((1, [0] * 30 + [1, 2], [0] * 32), (2, [0, 0, 0, 1], [0] * 4))
    chosen = score.training_rows(keys, folds=1, leave_out=score.IN_SAMPLE, seed=1, negatives=0.1, at_least=5)
    counts = keys.join(chosen, on="row_id").filter(label=0).group_by("qid").len().sort("qid")
    assert counts["len"].to_list() == [5, 3]


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_initial_ranker_may_see_a_share_of_the_negatives(share):
    """Every positive and ceil(share * negatives) of each query, and a larger share sees the same and more."""
    keys = scores_of((1, [0] * 30 + [1, 2], [0] * 32), (2, [0, 0, 0, 1], [0] * 4))
    chosen = score.training_rows(keys, folds=1, leave_out=score.IN_SAMPLE, seed=1, negatives=share)
    counts = keys.join(chosen, on="row_id").group_by("qid", pl.col("label") > 0).len().sort("qid", "label")
    assert counts["len"].to_list() == {0.1: [3, 2, 1, 1], 0.25: [8, 2, 1, 1], 1.0: [30, 2, 3, 1]}[share]
    more = score.training_rows(keys, folds=1, leave_out=score.IN_SAMPLE, seed=1, negatives=min(1, share * 2))
    assert set(chosen["row_id"]) <= set(more["row_id"])
