"""What must hold for every strategy, guard and fraction on any scores."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import draws
from pipeline.config import SelectConfig
from pipeline.negatives import context, guards
from pipeline.negatives.arms import Arm
from pipeline.negatives.select import select, shortfall
from pipeline.negatives.strategies import STRATEGIES

CONFIG = SelectConfig(skip=0.15, hard_share=0.5)
GUARDS = [None, 0.5, 0.75, 1.0]

# A busy machine is no reason to fail.
unhurried = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
some = settings(max_examples=40, **unhurried)

strategy_of = st.sampled_from(list(STRATEGIES))
guard_of = st.sampled_from(GUARDS)
fraction_of = st.one_of(
    st.sampled_from([0.005, 0.05, 0.1, 0.125, 0.2, 0.29, 0.4, 0.999, 1.0]),
    st.integers(1, 1000).map(lambda k: k / 1000),
)
seeds = st.integers(0, 2**31 - 1)
# Whole numbers make ties and exact quantiles; the others are as wild as finite numbers get.
whole = st.integers(-5, 5).map(float)
wild = st.one_of(
    whole,
    st.sampled_from([1e300, -1e300, 1e-300, -0.0]),
    st.floats(-1e9, 1e9, width=32, allow_subnormal=False),
)


@st.composite
def scored(draw, values=wild):
    """Draw SCORES of up to five queries of 1-24 rows, rows in any order, ids with gaps, qids int or text."""
    sizes = draw(st.lists(st.integers(1, 24), min_size=1, max_size=5))
    n = sum(sizes)
    # Mostly negatives; queries without a positive or without a negative come up by themselves.
    label = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=n, max_size=n))
    score = draw(st.lists(values, min_size=n, max_size=n))
    gaps = draw(st.lists(st.integers(1, 1000), min_size=n, max_size=n))
    qid = np.repeat(np.arange(len(sizes)) * 7 + 1, sizes)
    frame = pl.DataFrame(
        {
            "row_id": np.cumsum(gaps),
            "qid": [f"q{q}" for q in qid] if draw(st.booleans()) else qid,
            "label": pl.Series(label, dtype=pl.UInt8),
            "score": pl.Series(score, dtype=pl.Float64),
            "fold": pl.Series([0] * n, dtype=pl.Int16),
        }
    )
    return frame[draw(st.permutations(range(n)))] if draw(st.booleans()) else frame


def arm_of(strategy, fraction, guard):
    """Return the arm; `all` has no fraction."""
    return Arm(strategy, 1.0 if strategy == "all" else fraction, guard)


def chosen(scores, strategy, fraction, guard, seed=1, config=CONFIG):
    """Return SELECTION."""
    return select(scores, arm_of(strategy, fraction, guard), config=config, seed=seed)


def exact_share(share, count):
    """Return ``ceil(share * count)`` of the decimal that ``share`` is written as."""
    return math.ceil(Fraction(repr(share)) * count)


# ---- Against a plain implementation, query by query and row by row -----------------------------------------


def bound_of(positives, quantile):
    """Return the quantile between neighbouring positives, in rational numbers."""
    ordered = [Fraction(p) for p in sorted(positives)]
    at = Fraction(quantile) * (len(ordered) - 1)
    low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
    return low + (high - low) * (at - math.floor(at))


def plain_query(rows, strategy, fraction, guard, seed):
    """Return ``{row_id: (neg_rank, weight, reason)}`` of one query, weight 0 for a row left out."""
    ids = np.array([row["row_id"] for row in rows])
    lots = dict(zip(ids, draws.uniform(ids, seed=seed, stream="draw"), strict=True))
    ties = dict(zip(ids, draws.uniform(ids, seed=seed, stream="tie"), strict=True))
    found = {row["row_id"]: (None, 1.0, "positive") for row in rows if row["label"]}
    negatives = sorted(
        (row for row in rows if not row["label"]), key=lambda r: (-r["score"], ties[r["row_id"]])
    )
    positives = [row["score"] for row in rows if row["label"]]
    bound = None if guard is None or not positives else bound_of(positives, guard)
    rank = {row["row_id"]: i for i, row in enumerate(negatives, start=1)}
    candidates = [r["row_id"] for r in negatives if bound is None or Fraction(r["score"]) <= bound]
    left = {row: (r, 0.0, "guarded") for row, r in rank.items() if row not in candidates}
    n = exact_share(1.0 if strategy == "all" else fraction, len(negatives))
    by_lot = sorted(candidates, key=lots.get)
    if strategy == "all":
        kept = dict.fromkeys(candidates, (1.0, "all"))
    elif strategy == "random":
        kept, other = dict.fromkeys(by_lot[:n], (1.0, "random")), "not drawn"
    elif strategy == "top":
        kept, other = dict.fromkeys(candidates[:n], (1.0, "hard")), "too easy"
    elif strategy == "semi-hard":
        skip = exact_share(CONFIG.skip, len(negatives))
        left |= {row: (rank[row], 0.0, "too hard") for row in candidates[:skip]}
        kept, other = dict.fromkeys(candidates[skip : skip + n], (1.0, "semi-hard")), "too easy"
    elif strategy == "mixed":
        hard = candidates[: exact_share(CONFIG.hard_share, n)]
        rest = [row for row in by_lot if row not in hard]
        drawn = rest[: n - exact_share(CONFIG.hard_share, n)]
        kept = dict.fromkeys(hard, (1.0, "hard"))
        kept |= {row: (float(np.float32(len(rest) / len(drawn))), "random") for row in drawn}
        other = "not drawn"
    else:
        pytest.fail(f"no plain implementation of {strategy}: write one")
    left |= {row: (rank[row], 0.0, other) for row in candidates if row not in kept and row not in left}
    return found | left | {row: (rank[row], *why) for row, why in kept.items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25, **unhurried)
@given(scores=scored(values=whole), fraction=fraction_of, guard=guard_of, seed=seeds)
def test_agrees_with_a_plain_implementation(strategy, scores, fraction, guard, seed):
    """Rank, weight and reason of every row are those of loops and sorted lists."""
    expected = {}
    for rows in scores.partition_by("qid"):
        expected |= plain_query(rows.to_dicts(), strategy, fraction, guard, seed)
    result = chosen(scores, strategy, fraction, guard, seed)
    got = {row: tuple(rest) for row, *rest in result.select("row_id", "neg_rank", "weight", "reason").rows()}
    assert got == expected
    assert (result["kept"] == (result["weight"] > 0)).all()


# ---- Promises ----------------------------------------------------------------------------------------------


@some
@given(strategy=strategy_of, scores=scored(), fraction=fraction_of, guard=guard_of)
def test_positives_stay_and_the_number_is_exact(strategy, scores, fraction, guard):
    """Every positive is kept at weight 1; n negatives are, less what guard and skip leave no room for."""
    result = chosen(scores, strategy, fraction, guard)
    assert result.select("row_id", "qid", "label", "score").equals(scores.drop("fold"))
    positives = result.filter(pl.col("label") > 0)
    assert positives["kept"].all()
    assert (positives["weight"] == 1).all()
    short = 0
    for _, query in result.filter(pl.col("label") == 0).group_by("qid"):
        n = exact_share(arm_of(strategy, fraction, guard).fraction, query.height)
        room = query.height - int((query["reason"] == "guarded").sum())
        if strategy == "semi-hard":
            room = max(0, room - exact_share(CONFIG.skip, query.height))
        assert int(query["kept"].sum()) == min(n, room)
        short += n - min(n, room)
    assert shortfall(result, arm_of(strategy, fraction, guard).fraction) == short


@some
@given(
    strategy=strategy_of,
    scores=scored(),
    fractions=st.tuples(fraction_of, fraction_of).map(sorted),
    guard=guard_of,
)
def test_a_larger_fraction_keeps_a_superset(strategy, scores, fractions, guard):
    """Ranks, windows with one start, and the lowest draws are nested; so is hard plus drawn from the rest."""
    small, large = (chosen(scores, strategy, fraction, guard) for fraction in fractions)
    assert not (small["kept"] & ~large["kept"]).any()
    hard = small["reason"] == "hard"
    assert (large["reason"].filter(hard) == "hard").all()


@some
@given(strategy=strategy_of, scores=scored(), fraction=fraction_of, guard=guard_of, order=seeds)
def test_row_order_does_not_matter(strategy, scores, fraction, guard, order):
    """Shuffled rows get the same decisions."""
    shuffled = scores.sample(fraction=1.0, shuffle=True, seed=order)
    expected = chosen(scores, strategy, fraction, guard).sort("row_id")
    assert chosen(shuffled, strategy, fraction, guard).sort("row_id").equals(expected)


@some
@given(strategy=strategy_of, scores=scored(), fraction=fraction_of, guard=guard_of)
def test_other_queries_do_not_matter(strategy, scores, fraction, guard):
    """A query alone gets the decisions it gets among others."""
    query = pl.col("qid") == scores["qid"][0]
    alone = chosen(scores.filter(query), strategy, fraction, guard)
    assert alone.equals(chosen(scores, strategy, fraction, guard).filter(query))


@some
@given(strategy=strategy_of, scores=scored(), fraction=fraction_of, guard=guard_of)
def test_names_of_queries_do_not_matter(strategy, scores, fraction, guard):
    """Numbers and their text, sorted differently, give the same decisions."""
    codes = scores["qid"].rank("dense").cast(pl.Int64) * 5
    number, text = scores.with_columns(qid=codes), scores.with_columns(qid=codes.cast(pl.String))
    expected = chosen(number, strategy, fraction, guard).drop("qid")
    assert chosen(text, strategy, fraction, guard).drop("qid").equals(expected)


@some
@given(strategy=strategy_of, scores=scored(), fraction=fraction_of, guard=guard_of)
def test_weights_stand_for_the_candidates(strategy, scores, fraction, guard):
    """Kept negatives weigh 1 each; where some are drawn by `mixed`, together as much as all candidates."""
    result = chosen(scores, strategy, fraction, guard).filter(pl.col("label") == 0)
    assert ((result["weight"] > 0) == result["kept"]).all()
    if strategy != "mixed":
        assert result.filter("kept")["weight"].n_unique() <= 1
        assert (result.filter("kept")["weight"] == 1).all()
        return
    for _, query in result.group_by("qid"):
        candidates = int((query["reason"] != "guarded").sum())
        if (query["reason"] == "random").any():
            assert query["weight"].sum() == pytest.approx(candidates, rel=1e-6)
        else:
            assert query["weight"].sum() == query["kept"].sum()


@some
@given(
    strategy=strategy_of,
    scores=scored(),
    fraction=fraction_of,
    factor=st.sampled_from([0.25, 8.0, 1024.0]),
    guard=guard_of,
)
def test_scale_of_the_scores_does_not_matter(strategy, scores, fraction, factor, guard):
    """Scores times a power of two, which rounds nothing, give the same decisions."""
    scaled = scores.with_columns(pl.col("score") * factor)
    expected = chosen(scores, strategy, fraction, guard).drop("score")
    assert chosen(scaled, strategy, fraction, guard).drop("score").equals(expected)


@some
@given(strategy=strategy_of, scores=scored(), fraction=fraction_of, guard=guard_of)
def test_engine_does_not_matter(strategy, scores, fraction, guard):
    """The expressions give the same on the lazy streaming engine as on a table in memory."""
    arm = arm_of(strategy, fraction, guard)
    choice = STRATEGIES[strategy](**arm.options(CONFIG))
    aside = pl.lit(False) if guard is None else guards.above_positives(quantile=guard)
    columns = ["row_id", choice.kept.alias("kept"), choice.reason.alias("why"), choice.weight.alias("weight")]
    built = context.build(scores, seed=1)
    eager = context.with_candidates(built, aside).filter("candidate").select(columns)
    lazy = built.lazy().with_columns(
        context.with_candidates(built, aside).select("candidate", "rank", "count")
    )
    streamed = lazy.filter("candidate").select(columns).collect(engine="streaming")
    assert streamed.sort("row_id").equals(eager.sort("row_id"))


@some
@given(scores=scored(values=st.just(0.1)), fraction=fraction_of, guard=guard_of)
def test_equal_scores_guard_nothing(scores, fraction, guard):
    """Where all scores are equal, no negative is above a positive, and `top` is a draw of n."""
    result = chosen(scores, "top", fraction, guard)
    assert "guarded" not in result["reason"].to_list()


@given(queries=st.integers(1, 5), fraction=fraction_of)
@some
def test_one_negative_per_query(queries, fraction):
    """The only negative is kept by every strategy, except by a window that skips it."""
    n = 2 * queries
    scores = pl.DataFrame(
        {
            "row_id": range(n),
            "qid": [i // 2 for i in range(n)],
            "label": pl.Series([0, 1] * queries, dtype=pl.UInt8),
            "score": [0.5] * n,
            "fold": pl.Series([0] * n, dtype=pl.Int16),
        }
    )
    for strategy in STRATEGIES:
        kept = chosen(scores, strategy, fraction, 0.75).filter(pl.col("label") == 0)["kept"]
        assert kept.to_list() == [strategy != "semi-hard"] * queries


# ---- Seeds, threads ----------------------------------------------------------------------------------------


def sample():
    """Return SCORES of 300 queries of 5-120 rows with many ties."""
    rng = np.random.default_rng(11)
    sizes = rng.integers(5, 121, 300)
    n = int(sizes.sum())
    return pl.DataFrame(
        {
            "row_id": np.arange(n),
            "qid": np.repeat(np.arange(300), sizes),
            "label": (rng.random(n) < 0.1).astype(np.uint8),
            "score": np.round(rng.normal(size=n), 1),
            "fold": np.zeros(n, dtype=np.int16),
        }
    )


SELECT_ALL = """
import sys
import polars as pl
from pipeline.config import SelectConfig
from pipeline.negatives.arms import parse
from pipeline.negatives.select import select
source, out, *arms = sys.argv[1:]
scores = pl.read_parquet(source)
made = [select(scores, parse(arm), config=SelectConfig(), seed=1) for arm in arms]
pl.concat(made).write_parquet(out)
print(pl.thread_pool_size())
"""


def test_thread_count_does_not_matter(tmp_path):
    """Processes with one and with five Polars threads decide as this one does."""
    arms = [arm_of(strategy, 0.2, guard) for strategy in STRATEGIES for guard in (None, 0.75)]
    sample().write_parquet(tmp_path / "scores.parquet")
    expected = pl.concat([select(sample(), arm, config=SelectConfig(), seed=1) for arm in arms])
    for threads in (1, 5):
        out = tmp_path / f"{threads}.parquet"
        answer = subprocess.run(
            [sys.executable, "-c", SELECT_ALL, tmp_path / "scores.parquet", out, *(arm.name for arm in arms)],
            env={
                **os.environ,
                "POLARS_MAX_THREADS": str(threads),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.split() == [str(threads)]
        assert pl.read_parquet(out).equals(expected)


def test_seed_decides_the_draws():
    """One seed twice gives one result; another seed changes what is drawn and how ties fall, nothing else."""
    scores = sample()
    for strategy in STRATEGIES:
        first, again, other = (chosen(scores, strategy, 0.2, None, seed) for seed in (1, 1, 2))
        assert first.equals(again)
        assert first["kept"].equals(other["kept"]) == (strategy == "all")
        assert first["kept"].sum() == other["kept"].sum()


def test_draws_are_fair():
    """Over 200 seeds each of ten negatives is among the three drawn in 30 % of the cases, within 4 sigma."""
    scores = (
        sample()
        .head(0)
        .vstack(sample().head(10).with_columns(qid=pl.lit(1, pl.Int64), label=pl.lit(0, pl.UInt8)))
    )
    times = np.zeros(10)
    for seed in range(200):
        times += chosen(scores, "random", 0.3, None, seed)["kept"].to_numpy()
    assert np.abs(times / 200 - 0.3).max() < 4 * math.sqrt(0.3 * 0.7 / 200)
