"""Every strategy on a query whose choice can be worked out by hand, and the entries of the dictionary."""

import inspect

import polars as pl
import pytest

from pipeline.config import SelectConfig
from pipeline.negatives import context, strategies
from pipeline.negatives.arms import Arm
from pipeline.negatives.strategies import STRATEGIES
from tests.samples import scores_of

NEGATIVES = 10
# Ten negatives, hardest first, and a positive below all of them: row 0 has rank 1, row 9 rank 10.
SCORES = scores_of((1, [0] * NEGATIVES + [1], [float(10 - i) for i in range(NEGATIVES)] + [-1.0]))


def chosen(strategy, *, hidden=(), scores=SCORES, **options):
    """Return ``row_id, kept, reason, weight, draw`` of the candidates when rows ``hidden`` are guarded."""
    rows = context.build(scores, seed=1)
    rows = context.with_candidates(rows, pl.col("row_id").is_in(list(hidden)))
    choice = STRATEGIES[strategy](**options)
    rows = rows.with_columns(kept=choice.kept, reason=choice.reason, weight=choice.weight)
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


@pytest.mark.parametrize(
    ("count", "share", "n"),
    [
        (30, 0.1, 3),  # 0.1 * 30 is 3.0000000000000004
        (100, 0.29, 29),  # 0.29 * 100 is 28.999999999999996
        (200, 0.005, 1), (201, 0.005, 2), (8, 0.125, 1), (9, 0.125, 2), (1, 0.05, 1), (3, 1.0, 3),
        (10_000_000, 0.3, 3_000_000), (7, 0.0, 0), (0, 0.5, 0),
    ],
)  # fmt: skip
def test_share_is_rounded_up_exactly(count, share, n):
    """The number to keep is the exact ceiling, in spite of binary fractions."""
    frame = pl.DataFrame({"neg_count": pl.Series([count], dtype=pl.UInt32)})
    assert frame.select(strategies.share_of(share)).item() == n


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_documented_and_takes_what_arms_give(name):
    """Each entry has a docstring, keyword-only parameters that the settings know, and three expressions."""
    strategy = STRATEGIES[name]
    assert (strategy.__doc__ or "").strip()
    parameters = inspect.signature(strategy).parameters.values()
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)
    choice = strategy(**Arm(name, 0.2 if name != "all" else 1.0).options(SelectConfig()))
    assert all(isinstance(part, pl.Expr) for part in (choice.kept, choice.reason, choice.weight))
