"""Every strategy on a query whose choice can be worked out by hand, and the entries of the dictionary."""

import inspect
import itertools

import numpy as np
import polars as pl
import pytest

from pipeline.core.config import SelectConfig
from pipeline.negatives.arms import Arm
from pipeline.negatives.budget import Budget
from pipeline.negatives.result import share_of_negatives
from pipeline.negatives.strategies import STRATEGIES
from pipeline.negatives.training import Training
from tests.negatives.samples import context_of
from tests.samples import scores_of, training_of

NEGATIVES = 10
# Ten negatives, hardest first, and a positive below all of them: row 0 has rank 1, row 9 rank 10.
SCORES = scores_of((1, [0] * NEGATIVES + [1], [float(10 - i) for i in range(NEGATIVES)] + [-1.0]))


def chosen(strategy, *, hidden=(), scores=SCORES, training=None, **options):
    """Return ``row_id, kept, reason, weight, draw`` of the candidates when rows ``hidden`` are guarded."""
    rows = context_of(scores, excluded=pl.col("row_id").is_in(list(hidden)))
    if "fraction" in options:
        options["n"] = share_of_negatives(options.pop("fraction"))
    result = STRATEGIES[strategy](**options)
    if result.extra_column is not None:
        rows = result.extra_column.add(rows, training or training_of(scores))
    rows = rows.with_columns(kept=result.kept, reason=result.reason, weight=result.weight)
    return rows.filter("candidate").select("row_id", "kept", "reason", "weight", "draw")


def kept_rows(frame):
    """Return the ids of the kept rows."""
    return frame.filter("kept")["row_id"].to_list()


def lowest_draws(frame, rows, n):
    """Return the ``n`` of ``rows`` with the lowest draws, in file order."""
    return sorted(frame.filter(pl.col("row_id").is_in(rows)).sort("draw")["row_id"].to_list()[:n])


def test_all_keeps_everything():
    """Every candidate is kept, with weight 1."""
    frame = chosen("all")
    assert kept_rows(frame) == list(range(10))
    assert set(frame["reason"]) == {"all"}
    assert set(frame["weight"]) == {1.0}


def test_top_keeps_the_hardest():
    """30 % of ten negatives are ranks 1 to 3."""
    frame = chosen("top", fraction=0.3)
    assert kept_rows(frame) == [0, 1, 2]
    assert frame["reason"].to_list() == ["hard"] * 3 + ["too easy"] * 7
    assert set(frame["weight"]) == {1.0}


def test_top_under_a_guard_moves_down():
    """With the two hardest set aside, the same three places go to ranks 3 to 5."""
    assert kept_rows(chosen("top", hidden=[0, 1], fraction=0.3)) == [2, 3, 4]


def test_random_keeps_the_lowest_draws():
    """30 % of ten negatives are the three with the lowest draws, whatever their scores."""
    frame = chosen("random", fraction=0.3)
    assert kept_rows(frame) == lowest_draws(frame, range(10), 3)
    assert set(frame.filter("kept")["reason"]) == {"random"}
    assert set(frame.filter(~pl.col("kept"))["reason"]) == {"not drawn"}
    assert set(frame["weight"]) == {1.0}


def test_random_under_a_guard_draws_from_the_rest():
    """Guarded rows take no place among the drawn."""
    frame = chosen("random", hidden=[0, 1, 2, 3, 4], fraction=0.3)
    assert kept_rows(frame) == lowest_draws(frame, range(5, 10), 3)


def test_semi_hard_is_a_rank_window():
    """Skip 10 %, keep 30 %: rank 1 is too hard, ranks 2 to 4 are kept, the rest is too easy."""
    frame = chosen("semi-hard", fraction=0.3, skip=0.1)
    assert kept_rows(frame) == [1, 2, 3]
    assert frame["reason"].to_list() == ["too hard"] + ["semi-hard"] * 3 + ["too easy"] * 6


def test_semi_hard_window_may_end_early():
    """Skip half, keep 80 %: only five negatives are left to keep."""
    assert kept_rows(chosen("semi-hard", fraction=0.8, skip=0.5)) == [5, 6, 7, 8, 9]


def test_semi_hard_without_a_skip_is_top():
    """A skip of 0 skips nothing."""
    frame = chosen("semi-hard", fraction=0.3, skip=0.0)
    assert kept_rows(frame) == kept_rows(chosen("top", fraction=0.3))


def test_mixed_weighs_the_random_part():
    """40 %, half hard: ranks 1 and 2 at weight 1, two drawn from the other eight at weight 8 / 2."""
    frame = chosen("mixed", fraction=0.4, hard_share=0.5)
    drawn = lowest_draws(frame, range(2, 10), 2)
    assert kept_rows(frame) == [0, 1, *drawn]
    weights = dict(zip(frame["row_id"], frame["weight"], strict=True))
    assert [weights[row] for row in (0, 1, *drawn)] == [1.0, 1.0, 4.0, 4.0]
    assert set(frame.filter(~pl.col("kept"))["reason"]) == {"not drawn"}
    assert frame["reason"].to_list()[:2] == ["hard", "hard"]
    assert set(frame.filter(pl.col("row_id").is_in(drawn))["reason"]) == {"random"}


def test_mixed_rounds_the_hard_part_up():
    """30 % of ten are three: two hard and one drawn from the other eight."""
    frame = chosen("mixed", fraction=0.3, hard_share=0.5)
    assert frame.filter("kept")["weight"].to_list() == [1.0, 1.0, 8.0]


def test_mixed_stands_for_the_unguarded():
    """With three guarded, seven candidates: two hard, two of the other five at weight 5 / 2."""
    frame = chosen("mixed", hidden=[0, 1, 2], fraction=0.4, hard_share=0.5)
    assert sorted(frame.filter("kept")["weight"]) == [1.0, 1.0, 2.5, 2.5]
    assert kept_rows(frame)[:2] == [3, 4]


@pytest.mark.parametrize(("share", "like"), [(1.0, "top"), (0.0, "random")])
def test_mixed_at_its_ends(share, like):
    """All hard is `top`; no hard part is `random`, each standing for 10 / 4."""
    frame = chosen("mixed", fraction=0.4, hard_share=share)
    assert kept_rows(frame) == kept_rows(chosen(like, fraction=0.4))
    assert set(frame.filter("kept")["weight"]) == {1.0 if like == "top" else 2.5}


def test_mixed_keeps_all_when_there_is_room():
    """When the random part takes all the rest, its weight is 1."""
    frame = chosen("mixed", hidden=range(6), fraction=0.8, hard_share=0.5)
    assert kept_rows(frame) == [6, 7, 8, 9]
    assert set(frame["weight"]) == {1.0}
    frame = chosen("mixed", hidden=range(4), fraction=0.8, hard_share=0.5)
    assert kept_rows(frame) == [4, 5, 6, 7, 8, 9]
    assert set(frame["weight"]) == {1.0}


def test_mixed_unweighted_keeps_the_same_at_weight_1():
    """The four that `mixed` keeps, none standing for others."""
    frame, weighted = (chosen(name, fraction=0.4, hard_share=0.5) for name in ("mixed-unweighted", "mixed"))
    assert frame.drop("weight").equals(weighted.drop("weight"))
    assert set(frame["weight"]) == {1.0}


# A positive at 6 among negatives 10 to 1, and one at 2: median 4. Mean 5.25, standard deviation 2.80.
WINDOW = scores_of((1, [0] * 10 + [1, 1], [*range(10, 0, -1), 6, 2]))


def test_margin_is_a_window_of_scores():
    """Below the median positive at 4 and above 4 - 0.9 * 2.80 = 1.48: scores 3 and 2, hardest first."""
    frame = chosen("margin", scores=WINDOW, fraction=0.3, margin=0.9)
    assert kept_rows(frame) == [7, 8]
    assert frame["reason"].to_list() == ["too hard"] * 7 + ["semi-hard"] * 2 + ["too easy"]
    assert kept_rows(chosen("margin", scores=WINDOW, fraction=0.1, margin=0.9)) == [7]
    assert kept_rows(chosen("margin", scores=WINDOW, fraction=0.5, margin=9.0)) == [7, 8, 9]
    assert kept_rows(chosen("margin", scores=WINDOW, hidden=[7], fraction=0.1, margin=0.9)) == [8]


def test_false_positives_outrank_a_positive():
    """Eight negatives outrank the positive at 2 (a tie outranks nothing): the hardest of them are kept."""
    frame = chosen("false-positive", scores=WINDOW, fraction=1.0)
    assert kept_rows(frame) == list(range(8))
    assert frame["reason"].to_list() == ["false positive"] * 8 + ["too easy"] * 2
    assert kept_rows(chosen("false-positive", scores=WINDOW, hidden=[0], fraction=0.2)) == [1, 2]


@pytest.mark.parametrize(("name", "options"), [("margin", {"margin": 1.0}), ("false-positive", {})])
def test_without_a_positive_there_is_no_window(name, options):
    """What is defined by the positives keeps nothing where there is none."""
    frame = chosen(name, scores=scores_of((1, [0, 0, 0], [3, 2, 1])), fraction=1.0, **options)
    assert kept_rows(frame) == []
    assert set(frame["reason"]) == {"no positive"}


def test_ohem_suppresses_what_is_like_a_harder_one():
    """Rows 0 and 1 point one way, rows 2 and 3 the other: 1 and 3 are copies; row 4 stands for itself."""
    scores = scores_of((1, [0] * 5 + [1], [9, 8, 7, 6, 5, 4]))
    training = Training.of_table(
        scores.with_columns(f1=pl.Series([1.0, 2, -1, -2, 0, 0]), f2=pl.Series([0.0, 0, 0, 0, 3, -3]))
    )
    frame = chosen("ohem", scores=scores, training=training, fraction=0.4, similarity=0.9)
    assert kept_rows(frame) == [0, 2]
    assert frame["reason"].to_list() == ["hard", "too similar", "hard", "too similar", "too easy"]
    assert kept_rows(chosen("ohem", scores=scores, training=training, fraction=1.0, similarity=0.9)) == [
        0,
        2,
        4,
    ]
    # A guarded row suppresses nothing.
    frame = chosen("ohem", scores=scores, training=training, hidden=[0], fraction=0.4, similarity=0.9)
    assert kept_rows(frame) == [1, 2]


def test_the_order_of_scores_is_the_order_of_losses():
    """`ohem` need not compute the pairwise logistic loss: it falls with the rank."""
    rng = np.random.default_rng(5)
    negatives, positives = rng.normal(size=200), rng.normal(size=7)
    loss = np.log1p(np.exp(negatives[:, None] - positives)).sum(axis=1)
    assert (np.argsort(-loss) == np.argsort(-negatives)).all()


# ---- Draws with weights ------------------------------------------------------------------------------------

QUERIES = 4000


def shares_drawn(strategy, scores, *, n, training=None, **options):
    """Return how often each of a query's negatives is drawn, over many queries with the same scores."""
    many = scores_of(*[(q, [0] * len(scores), scores) for q in range(QUERIES)])
    frame = chosen(strategy, scores=many, training=training, n=Budget("n", n).n, **options)
    return frame["kept"].to_numpy().reshape(QUERIES, -1).mean(axis=0)


def expected_shares(weights, n):
    """Return each item's probability of being among ``n`` successive draws without replacement."""
    weights, found = np.asarray(weights, dtype=float), np.zeros(len(weights))
    for drawn in itertools.permutations(range(len(weights)), n):
        left, probability = weights.copy(), 1.0
        for item in drawn:
            probability *= left[item] / left.sum()
            left[item] = 0.0
        found[list(drawn)] += probability
    return found


def close(found, expected):
    """Whether shares over many queries agree within 4 standard deviations."""
    return (np.abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / QUERIES) + 1e-12).all()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_softmax_draws_by_score(n, temperature):
    """The shares are those of successive draws with weights exp(z / temperature)."""
    scores = np.array([3.0, 1.0, 0.0, -1.0, 2.5])
    z = (scores - scores.mean()) / scores.std()
    found = shares_drawn("softmax", scores, n=n, temperature=temperature)
    assert close(found, expected_shares(np.exp(z / temperature), n))


def test_softmax_at_its_ends():
    """A low temperature is `top`, a high one `random`."""
    low = chosen("softmax", fraction=0.3, temperature=0.001)
    assert kept_rows(low) == kept_rows(chosen("top", fraction=0.3))
    high = shares_drawn("softmax", [3.0, 2.0, 1.0, 0.0], n=1, temperature=1000.0)
    assert close(high, np.full(4, 0.25))


@pytest.mark.parametrize(
    ("clip", "weights"), [(10.0, [5 / 8] * 4 + [5 / 2]), (2.0, [5 / 8] * 4 + [2.0]), (0.5, [0.5] * 5)]
)
@pytest.mark.parametrize("n", [1, 2])
def test_distance_weighted_evens_out_the_scores(clip, weights, n):
    """Four of five candidates share one of two intervals: weights 5 / (2 * 4) and 5 / (2 * 1), or the clip."""
    found = shares_drawn("distance-weighted", [1.0, 1.1, 1.2, 1.3, 9.0], n=n, bins=2, clip=clip)
    assert close(found, expected_shares(weights, n))


def test_distance_weighted_of_equal_scores_is_uniform():
    """One interval holds all."""
    found = shares_drawn("distance-weighted", [1.0] * 4, n=1, bins=10, clip=10.0)
    assert close(found, np.full(4, 0.25))


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_popularity_draws_by_document(power):
    """One document is in every query, two in every fourth, one in its own alone, one has no id."""
    many = scores_of(*[(q, [0] * 5, [0.0] * 5) for q in range(QUERIES)])
    place, query = pl.col("row_id") % 5, pl.col("qid")
    name = (
        pl.when(place == 0)
        .then(pl.lit("everywhere"))
        .when(place <= 2)
        .then(pl.format("group{}-{}", place, query // 4))
        .when(place == 3)
        .then(pl.format("own{}", query))
    )
    training = Training.of_table(many.with_columns(doc_id=name))
    found = shares_drawn("popularity", [0.0] * 5, n=2, training=training, power=power)
    assert close(found, expected_shares(np.array([QUERIES, 4, 4, 1, 1]) ** power, 2))


@pytest.mark.parametrize(
    ("count", "share", "n"),
    [
        (30, 0.1, 3),  # 0.1 * 30 is 3.0000000000000004
        (100, 0.29, 29),  # 0.29 * 100 is 28.999999999999996
        (200, 0.005, 1),
        (201, 0.005, 2),
        (8, 0.125, 1),
        (9, 0.125, 2),
        (1, 0.05, 1),
        (3, 1.0, 3),
        (10_000_000, 0.3, 3_000_000),
        (7, 0.0, 0),
        (0, 0.5, 0),
    ],
)
def test_share_is_rounded_up_exactly(count, share, n):
    """The number to keep is the exact ceiling, in spite of binary fractions."""
    frame = pl.DataFrame({"neg_count": pl.Series([count], dtype=pl.UInt32)})
    assert frame.select(share_of_negatives(share)).item() == n


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_documented_and_takes_what_arms_give(name):
    """Each entry has a docstring, keyword-only parameters that the settings know, and three expressions."""
    strategy = STRATEGIES[name]
    assert (strategy.__doc__ or "").strip()
    parameters = inspect.signature(strategy).parameters.values()
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)
    result = Arm(name, Budget("", 0.2 if name != "all" else 1.0)).result(SelectConfig())
    assert all(isinstance(part, pl.Expr) for part in (result.kept, result.reason, result.weight))
