"""METRICS: NDCG per query against the formula and by hand, and the table on disk."""

from math import log2

import lightgbm
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.core import tables
from pipeline.core.errors import StorageError
from pipeline.dataset import parts
from pipeline.evaluation import evaluate
from pipeline.evaluation.ndcg import ndcg
from pipeline.ranker.predict import predict
from tests.samples import judgments, write_part


def scored(*queries):
    """Return ``qid, label, score`` of ``(qid, labels, scores)`` per query."""
    rows = [
        (q, label, float(s)) for q, labels, scores in queries for label, s in zip(labels, scores, strict=True)
    ]
    return pl.DataFrame(rows, schema=["qid", "label", "score"], orient="row").with_columns(
        pl.col("label").cast(pl.UInt8)
    )


def test_by_hand():
    """A perfect query, one with the relevant document second, one with a tie, one without any."""
    frame = scored((9, [0, 1], [1, 2]), (2, [1, 0], [1, 2]), (5, [1, 0], [3, 3]), (7, [0, 0], [1, 2]))
    result = evaluate.evaluate(frame, cutoffs=[1, 2])
    assert result["qid"].to_list() == [9, 9, 2, 2, 5, 5, 7, 7]
    assert result["cutoff"].to_list() == [1, 2] * 4
    second = 1 / log2(3)
    expected = [1, 1, 0, second, 0.5, (1 + second) / 2]
    assert result["ndcg"].to_list()[:6] == pytest.approx(expected)
    assert result["ndcg"].to_list()[6:] == [None, None]


def test_gain_is_exponential():
    """Label 2 below label 1: (1 + 3 / log2 3) / (3 + 1 / log2 3)."""
    value = evaluate.evaluate(scored((1, [1, 2], [2, 1])), cutoffs=[5])["ndcg"].item()
    assert value == pytest.approx((1 + 3 / log2(3)) / (3 + 1 / log2(3)))


def test_agrees_with_the_formula():
    """Query for query and cutoff for cutoff, the values are those of ``ndcg``, text ids included."""
    frame = judgments(25, 9, seed=4).select(
        pl.col("qid").cast(pl.String), "label", pl.col("f2").round(0).cast(pl.Float64).alias("score")
    )
    values = ndcg(
        frame["label"].to_numpy(), frame["score"].to_numpy(), np.arange(0, 226, 9), cutoffs=[1, 3, 10]
    )
    result = evaluate.evaluate(frame, cutoffs=[1, 3, 10])
    np.testing.assert_array_equal(result["ndcg"].fill_null(np.nan).to_numpy().reshape(25, 3), values)
    assert result["qid"].to_list() == [str(q) for q in range(1, 26) for _ in range(3)]


@pytest.fixture
def run_directory(tmp_path):
    """Return a directory with two splits and a model that scores by ``f1``."""
    frame = judgments(20, 15)
    for name, seed in (("vali", 1), ("test", 2)):
        write_part(tmp_path / f"{name}.parquet", judgments(6, 15, seed=seed, first_qid=100 * seed))
    settings = {"objective": "regression", "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    features = frame.select("f1", "f2", "f3", "f4").to_numpy()
    lightgbm.train(settings, lightgbm.Dataset(features, frame["label"].to_numpy()), 10).save_model(
        tmp_path / "model.txt"
    )
    return tmp_path


def run(where, out, **options):
    """Evaluate the model on both splits."""
    splits = {name: [where / f"{name}.parquet"] for name in ("vali", "test")}
    return evaluate.run(where / "model.txt", splits, where / out, cutoffs=(1, 10), **options)


def test_run_writes_metrics(run_directory):
    """The file has the schema of METRICS, every query of both splits, and the values of model and formula."""
    facts = run(run_directory, "metrics.parquet", arm="top-20", fold=2, threads=1)
    assert facts == {"queries": {"vali": 6, "test": 6}}
    path = run_directory / "metrics.parquet"
    assert pq.read_schema(path).equals(tables.metrics(qid=tables.QID_INT))
    metrics = pl.read_parquet(path)
    assert metrics.select("arm", "fold").unique().rows() == [("top-20", 2)]
    for split in ("vali", "test"):
        rows = predict([run_directory / "model.txt"], [run_directory / f"{split}.parquet"], threads=1)
        expected = evaluate.evaluate(rows, cutoffs=(1, 10))
        assert metrics.filter(split=split).select("qid", "cutoff", "ndcg").equals(expected)


def test_threads_do_not_matter(run_directory):
    """One thread or two, the same bytes."""
    for threads in (1, 2):
        run(run_directory, f"{threads}.parquet", arm="all", fold=1, threads=threads)
    assert (run_directory / "1.parquet").read_bytes() == (run_directory / "2.parquet").read_bytes()


def test_concat_metrics_keeps_the_order(run_directory):
    """Two arms' tables become one, in the given order."""
    for arm in ("top-20", "all"):
        run(run_directory, f"{arm}.parquet", arm=arm, fold=1, threads=1)
    files = [run_directory / f"{arm}.parquet" for arm in ("top-20", "all")]
    assert evaluate.concat_metrics(files, run_directory / "both.parquet") == {"rows": 48}
    both = pl.read_parquet(run_directory / "both.parquet")
    assert both.equals(pl.concat([pl.read_parquet(file) for file in files]))
    assert parts.schema_of([run_directory / "both.parquet"]).equals(tables.metrics(qid=tables.QID_INT))


def test_a_missing_split_is_named(run_directory):
    """A part that is gone is a storage error with its path."""
    (run_directory / "test.parquet").unlink()
    with pytest.raises(StorageError, match=r"test.parquet: not there"):
        run(run_directory, "metrics.parquet", arm="all", fold=1, threads=1)
