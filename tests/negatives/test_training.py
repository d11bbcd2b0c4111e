"""Columns made from document ids and features, on rows whose angles can be worked out by hand."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from pipeline.core.errors import TableError
from pipeline.negatives import similarity, training
from pipeline.negatives.training import Training
from tests.negatives.samples import context_of
from tests.samples import scores_of, write_part


def cosines(features):
    """Return the matrix of cosines of all rows of a query's features."""
    units = similarity.unit_rows(features.astype(np.float32))
    return units @ units.T


def test_cosines_by_hand():
    """Four corners of a square around their mean: neighbours at a right angle, opposite ones at -1."""
    found = cosines(np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [3.0, 3.0]]))
    assert np.allclose(found, [[1, 0, 0, -1], [0, 1, -1, 0], [0, -1, 1, 0], [-1, 0, 0, 1]])


def test_scale_and_origin_of_a_feature_do_not_matter():
    """Each feature is standardised, so a large one does not drown the others."""
    features = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [4.0, 2.0]])
    assert np.allclose(cosines(features * [1000, 0.5] + [7, -7]), cosines(features), atol=1e-5)


def test_constant_and_missing_features_say_nothing():
    """A constant feature changes no angle, whatever its value; a missing value is the mean."""
    features = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [3.0, 3.0]])
    assert np.allclose(cosines(np.column_stack([features, np.full(4, 0.1)])), cosines(features))
    missing = np.array([[1.0, np.nan], [3.0, np.nan], [2.0, 1.0], [2.0, 5.0]])
    filled = np.array([[1.0, 3.0], [3.0, 3.0], [2.0, 1.0], [2.0, 5.0]])
    found, expected = cosines(missing), cosines(filled)
    assert np.allclose(found, expected)
    assert np.allclose(cosines(np.full((3, 2), np.nan)), 1)


def test_rows_at_the_mean_are_like_each_other_alone():
    """Rows at the mean of every feature have no direction; equal rows are alike all the same."""
    found = cosines(np.array([[0.0], [2.0], [1.0], [1.0]]))
    assert np.allclose(found, [[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize("seed", range(5))
def test_cosines_agree_with_scikit_learn(seed):
    """Random queries: standardise and compare with scikit-learn."""
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(30, 6)) * rng.uniform(0.01, 1000, 6)).astype(np.float32)
    exact = features.astype(np.float64)
    expected = cosine_similarity((exact - exact.mean(axis=0)) / exact.std(axis=0))
    assert np.allclose(cosines(features), expected, atol=1e-9)


SCORES = scores_of((1, [1, 0, 0, 0], [0.0, 3.0, 2.0, 1.0]), (2, [0, 0], [1.0, 2.0]), (3, [1], [1.0]))
JUDGMENTS = SCORES.select(
    "row_id",
    "qid",
    "label",
    pl.Series("doc_id", ["a", "b", "b", None, "a", "c", "a"]),
    f1=pl.Series([1.0, 1, 3, 3, 0, 1, 5], dtype=pl.Float32),
    f2=pl.Series([1.0, 3, 1, 3, 0, 1, 5], dtype=pl.Float32),
)


def test_doc_queries_counts_queries():
    """Document a is in three queries, b twice in one, c in one; a row without an id counts for itself."""
    found = training.doc_queries(context_of(SCORES), Training.of_table(JUDGMENTS))
    assert found["doc_queries"].to_list() == [3, 1, 1, 1, 3, 1, 3]


def test_doc_queries_counts_beyond_the_rows():
    """The training split says how popular a document is, not the rows that are looked at."""
    one = SCORES.filter(pl.col("qid") == 3)
    found = training.doc_queries(context_of(one), Training.of_table(JUDGMENTS))
    assert found["doc_queries"].to_list() == [3]


def test_positive_cosine_by_hand():
    """Right angles and opposites to the positive; query 2 has none; a lone positive is like itself."""
    found = training.positive_cosine(context_of(SCORES), Training.of_table(JUDGMENTS))[
        "positive_cosine"
    ].to_list()
    assert found[:4] == pytest.approx([1, 0, 0, -1], abs=1e-12)
    assert found[4:6] == [None, None]
    assert found[6] == 1.0


def test_positive_cosine_is_the_highest():
    """With positives at two opposite corners, every corner is as far as the nearer one."""
    scores = scores_of((1, [1, 0, 0, 2], [0.0] * 4))
    found = training.positive_cosine(context_of(scores), Training.of_table(JUDGMENTS.head(4)))
    assert found["positive_cosine"].to_list() == pytest.approx([1, 0, 0, 1], abs=1e-12)


@pytest.mark.parametrize(
    ("similarity", "ranks"),
    [(0.5, [None, 1, 2, 3]), (-0.5, [None, 1, 2, None]), (-1.5, [None, 1, None, None])],
)
def test_unlike_rank_by_hand(similarity, ranks):
    """Rows 1 and 2 are opposite, row 3 at right angles to both: a lower threshold suppresses more."""
    found = training.unlike_rank(context_of(SCORES), Training.of_table(JUDGMENTS), similarity=similarity)
    assert found["unlike_rank"].to_list()[:4] == ranks


def test_suppression_is_greedy():
    """Eight directions 45 degrees apart (cosine 0.71): a suppressed row does not suppress its neighbour."""
    angles = np.arange(8) * np.pi / 4
    scores = scores_of((1, [0] * 8, [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))
    table = scores.with_columns(f1=pl.Series(np.cos(angles)), f2=pl.Series(np.sin(angles)))
    found = training.unlike_rank(context_of(scores), Training.of_table(table), similarity=0.6)
    assert found["unlike_rank"].to_list() == [1, None, 2, None, 3, None, 4, None]


def test_long_queries_are_compared_piece_by_piece():
    """Of 1,300 rows on a coarse grid, those kept and the highest cosines are what a loop over rows finds."""
    features = np.random.default_rng(3).integers(-1, 2, size=(1300, 4)).astype(np.float32)
    units = similarity.unit_rows(features)
    cosine = np.round(units @ units.T, 9)
    kept = []
    for row in range(len(units)):
        if not (cosine[row, kept] > 0.8).any():
            kept.append(row)
    assert len(kept) < 200
    assert np.flatnonzero(similarity.unlike_earlier(units, 0.8)).tolist() == kept
    highest = similarity.highest_cosine(units, units[600:])
    np.testing.assert_allclose(highest, cosine[:, 600:].max(axis=1), atol=1e-8)
    assert np.isnan(similarity.highest_cosine(units, units[:0])).all()


@pytest.mark.parametrize(("similar", "kept"), [(0.5, [True, True]), (0.4999, [True, False])])
def test_a_cosine_at_the_bound_is_not_above_it(similar, kept):
    """Rows at 60 degrees, whose computed cosine may be a little above one half, are not much alike at 0.5."""
    units = np.array([[1.0, 0.0], [0.5 + 2**-53, np.sqrt(0.75)]])
    assert similarity.unlike_earlier(units, similar).tolist() == kept
    assert (similarity.highest_cosine(units[1:], units[:1]) > similar).tolist() == [not kept[1]]


def test_parts_on_disk_give_what_a_table_gives(tmp_path):
    """Two parts, queries in another order: the same values, to the bit, in the order of the rows."""
    late = pl.col("qid") > 1
    files = [
        write_part(tmp_path / "a.parquet", JUDGMENTS.filter(late).reverse()),
        write_part(tmp_path / "b.parquet", JUDGMENTS.filter(~late).reverse()),
    ]
    for add in (
        training.doc_queries,
        training.positive_cosine,
        lambda rows, split: training.unlike_rank(rows, split, similarity=0.5),
    ):
        expected = add(context_of(SCORES), Training.of_table(JUDGMENTS))
        assert add(context_of(SCORES), Training.of_files(files)).equals(expected)


@pytest.mark.parametrize("add", [training.doc_queries, training.positive_cosine])
def test_scored_rows_that_the_split_lacks(add):
    """Scores of another dataset are refused with what to do."""
    with pytest.raises(
        TableError, match=r"^7 rows have scores, of which 6 are in the training split; score again"
    ):
        add(context_of(SCORES), Training.of_table(JUDGMENTS.tail(6)))
