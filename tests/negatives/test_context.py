"""The columns strategies read, on queries small enough to work out by hand."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import rng
from pipeline.negatives import context
from tests.negatives.samples import context_of
from tests.samples import scores_of

# Query 7: negatives at 0.9, 0.5, 0.5, 0.1 and positives at 0.2, 0.4, 0.8; query 3: no positive.
SCORES = scores_of(
    (7, [0, 1, 0, 2, 0, 0, 1], [0.9, 0.4, 0.5, 0.2, 0.5, 0.1, 0.8]),
    (3, [0, 0], [1.0, -1.0]),
    (5, [4], [0.3]),
)


def test_ranks_and_counts():
    """The hardest negative has rank 1, positives none; counts and quantiles are of the query alone."""
    rows = context_of(SCORES)
    ranks = rows["neg_rank"].to_list()
    assert ranks[0] == 1
    assert sorted([ranks[2], ranks[4]]) == [2, 3]
    assert ranks[5] == 4
    assert ranks[1] is ranks[3] is ranks[6] is None
    assert ranks[7:] == [1, 2, None]
    assert rows["neg_count"].to_list() == [4] * 7 + [2, 2] + [0]
    assert rows["pos_count"].to_list() == [3] * 7 + [0, 0] + [1]
    assert rows["quantile"].to_list()[5:8] == [3.5 / 4, None, 0.25]


def test_positives_of_the_query():
    """Lowest, median and highest positive of query 7; null where there is none."""
    rows = context_of(SCORES)
    for column, value in (("pos_min", 0.2), ("pos_median", 0.4), ("pos_max", 0.8)):
        assert rows[column].to_list() == [value] * 7 + [None, None] + [0.3]


def test_z_is_standardised_per_query():
    """Scores 1 and -1 are one standard deviation from their mean, and a lone row is at 0."""
    assert context_of(SCORES)["z"].to_list()[7:] == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("rows", [2, 3, 7, 10, 30])
@pytest.mark.parametrize("score", [0.1, 0.3, -7.77, 1e16 / 3])
def test_z_of_equal_scores_is_zero(rows, score):
    """Where all scores are equal, z is 0 though their mean is not exactly the score."""
    z = context_of(scores_of((1, [1] + [0] * (rows - 1), [score] * rows)))["z"]
    assert z.to_list() == [0.0] * rows


def test_ties_follow_a_seeded_draw_not_the_file():
    """Ten equal negatives are ranked by their ``tie`` draw: neither in file order nor as they are chosen."""
    rows = context_of(scores_of((1, [0] * 10, [0.5] * 10)), seed=3)
    ties = rng.uniform(rows["row_id"].to_numpy(), seed=3, stream="tie")
    assert rows["neg_rank"].to_list() == pl.Series(ties).rank().cast(pl.Int64).to_list()
    assert rows["neg_rank"].to_list() != list(range(1, 11))
    assert rows["neg_rank"].to_list() != rows["draw"].rank().cast(pl.Int64).to_list()


def test_minus_zero_ties_with_zero():
    """-0.0 and 0.0 are one score: whichever row has the lower tie draw is harder."""
    ties = rng.uniform(pl.Series([0, 1]).to_numpy(), seed=3, stream="tie")
    for scores in ([0.0, -0.0], [-0.0, 0.0]):
        ranks = context_of(scores_of((1, [0, 0], scores)), seed=3)["neg_rank"].to_list()
        assert ranks == pl.Series(ties).rank().cast(pl.Int64).to_list()


def test_rows_keep_their_order():
    """By ``place`` the given rows are in their order again, with all but ``qid`` as it was."""
    shuffled = SCORES.sample(fraction=1.0, shuffle=True, seed=4)
    rows = context_of(shuffled)
    assert rows.select(SCORES.drop("qid").columns).equals(shuffled.drop("qid"))
    assert rows["qid"].equals(shuffled["qid"].rank("dense"))


def test_candidates_close_ranks():
    """Once the hardest negative is set aside, the next has rank 1 and the count is one lower."""
    rows = context_of(SCORES, excluded=pl.col("score") == 0.9)
    assert rows["candidate"].to_list() == [False, False, True, False, True, True, False, True, True, False]
    ranks = rows["rank"].to_list()
    assert sorted([ranks[2], ranks[4]]) == [1, 2]
    assert ranks[5] == 3
    assert [ranks[i] for i in (0, 1, 3, 6, 9)] == [None] * 5
    assert rows["count"].to_list() == [3] * 7 + [2, 2] + [0]
    assert rows["neg_rank"][0] == 1


def test_no_guard_makes_every_negative_a_candidate():
    """Without a guard, rank is neg_rank."""
    rows = context_of(SCORES)
    assert rows["rank"].to_list() == rows["neg_rank"].to_list()
    assert rows["count"].to_list() == rows["neg_count"].to_list()


values = st.sampled_from(
    [0.0, -0.0, 1.0, 1.0 + 2**-50, 1.0 + 2**-52, -1.0, 1e300, -1e300, 5e-324]
) | st.floats(allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(st.integers(1, 3), values), min_size=1, max_size=40))
def test_order_is_that_of_lexsort(rows):
    """By query, then falling score, then the tie draw, as NumPy has it, for near ties and both zeros, too."""
    scores = scores_of(*((qid, [0], [score]) for qid, score in rows))
    qid, score = (np.array(column) for column in zip(*rows, strict=True))
    tie = rng.uniform(scores["row_id"].to_numpy(), seed=1, stream="tie")
    order = np.lexsort((tie, -score, qid)).tolist()
    assert context.order(scores, seed=1)["place"].to_list() == order
    again = context.order(scores.with_columns(score=0.0), seed=1)
    again = context.hardest_first(again.with_columns(score=scores["score"].gather(again["place"])))
    assert again["place"].to_list() == order
