"""Paired comparison: cases checkable by hand, agreement with SciPy, calibration, and what may not matter."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from pipeline.core import tables
from pipeline.core.errors import TableError
from pipeline.evaluation import paired
from pipeline.evaluation.compare import summarise
from pipeline.evaluation.panel import read_panel, read_split
from pipeline.evaluation.recommend import recommend
from pipeline.evaluation.verdict import verdict

SEED = 20


def arms_table(**rows):
    """Return ARMS: `all` is 1,000 rows, an arm named x-random is the control of x."""
    names = list(rows)
    return pl.DataFrame(
        {
            "arm": names,
            "control": [f"{name}-random" if f"{name}-random" in rows else None for name in names],
            "rows": list(rows.values()),
            "rows_fraction": [count / rows.get("all", 1000) for count in rows.values()],
            "negatives_fraction": [count / rows.get("all", 1000) for count in rows.values()],
            "train_seconds": [count / 100 for count in rows.values()],
        },
        schema_overrides={"control": pl.String},
    )


def metrics_table(*, cutoff=10, fold=1, **splits):
    """Return METRICS from {split: {arm: NDCG per query, None without a relevant document}}."""
    parts = [
        pl.DataFrame(
            {
                "arm": arm,
                "split": split,
                "fold": fold,
                "qid": range(len(values)),
                "cutoff": cutoff,
                "ndcg": values,
            },
            schema_overrides={"ndcg": pl.Float64},
        )
        for split, panel in splits.items()
        for arm, values in panel.items()
    ]
    return pl.concat(parts)


def noisy(rng, n, **shifts):
    """Return correlated NDCG values per arm: a shared query effect, small noise, and the arm's shift."""
    query = rng.uniform(0.35, 0.65, n)
    return {arm: np.clip(query + shift + rng.normal(0, 0.05, n), 0, 1) for arm, shift in shifts.items()}


def row(summary, arm, split="test"):
    """Return the one row of an arm."""
    return summary.row(by_predicate=(pl.col("arm") == arm) & (pl.col("split") == split), named=True)


def recommended(metrics, arms, **settings):
    """Return the arm to keep by METRICS."""
    panel = read_panel(arms)
    return recommend(panel, read_split(metrics, panel, split="vali"), **settings)


# --- paired: the statistics -------------------------------------------------------------------------------


def test_sign_flip_by_hand():
    """Three equal differences: 2 of the 8 sign patterns reach the observed mean, so p is near 1/4."""
    p = paired.sign_flip(np.full((3, 1), 0.1), seed=1, resamples=40_000)
    assert p[0] == pytest.approx(0.25, abs=0.01)


def test_sign_flip_is_never_zero_and_one_without_a_difference():
    """The smallest p is 1/(1 + B); differences of zero give exactly 1."""
    p = paired.sign_flip(np.column_stack((np.full(80, 0.5), np.zeros(80))), seed=1, resamples=999)
    assert p.tolist() == [0.001, 1.0]


@pytest.mark.parametrize("n", [5, 9, 12])
def test_sign_flip_agrees_with_full_enumeration(n):
    """The sampled p is within Monte-Carlo error of the p over all 2^n sign patterns."""
    differences = np.random.default_rng(n).normal(0.03, 0.1, (n, 6)).clip(-1, 1)
    signs = np.array(list(product((-1.0, 1.0), repeat=n)))
    exact = (np.abs(signs @ differences) >= np.abs(differences.sum(axis=0)) - 1e-12).mean(axis=0)
    p = paired.sign_flip(differences, seed=SEED, resamples=20_000)
    np.testing.assert_allclose(p, exact, atol=4 * 0.5 / np.sqrt(20_000))


def test_sign_flip_agrees_with_scipy():
    """scipy.stats.permutation_test over paired samples gives the same p, exact for 11 queries."""
    rng = np.random.default_rng(3)
    x, y = rng.random(11), rng.random(11)
    options = {"permutation_type": "samples", "vectorized": True, "n_resamples": np.inf}
    exact = stats.permutation_test((x, y), lambda a, b, axis: (a - b).mean(axis), **options)
    p = paired.sign_flip((x - y)[:, None], seed=SEED, resamples=40_000)
    assert p[0] == pytest.approx(exact.pvalue, abs=0.01)


def test_sign_flip_sees_ties_through_rounding():
    """.1 + .2 - .3 is not 0 in floating point, yet flipping all its signs must count as a tie."""
    differences = np.array([[0.1], [0.2], [-0.3]])
    assert paired.sign_flip(differences, seed=1, resamples=500)[0] == 1.0
    columns = np.array([[0.1, 0.3], [0.2, 0.0], [0.0, 0.0], [0.3, 0.3]])
    first, second = paired.sign_flip(columns, seed=1, resamples=5_000)
    assert first == pytest.approx(1 / 4, abs=0.03)
    assert second == pytest.approx(1 / 2, abs=0.03)


def test_sign_flip_is_calibrated():
    """With no difference between arms, 5 % of 2,000 comparisons fall below 0.05, give or take 1.5."""
    rng = np.random.default_rng(11)
    differences = rng.laplace(0, 0.1, (40, 2_000)).clip(-1, 1)
    p = paired.sign_flip(differences, seed=SEED, resamples=2_000)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_bootstrap_by_hand():
    """A constant has no spread; for 0 and 1 the quarter points of the mean are 0 and 1."""
    low, high = paired.bootstrap(np.array([[0.25, 0.0], [0.25, 1.0]]), seed=1, resamples=2_000)
    assert low.tolist() == [0.25, 0.0]
    assert high.tolist() == [0.25, 1.0]


def test_bootstrap_covers_the_mean():
    """Of 1,000 intervals from 60 skewed draws each, about 95 % hold the true mean 1/3."""
    values = np.random.default_rng(5).beta(1, 2, (60, 1_000))
    low, high = paired.bootstrap(values, seed=SEED, resamples=1_000)
    assert ((low <= 1 / 3) & (high >= 1 / 3)).mean() == pytest.approx(0.95, abs=0.025)


def test_draws_do_not_depend_on_block_size_or_company():
    """A column has the same bits alone, among others, and with blocks of one sample."""
    values = np.random.default_rng(2).uniform(-1, 1, (37, 5))
    together = (
        *paired.bootstrap(values, seed=4, resamples=300),
        paired.sign_flip(values, seed=4, resamples=300),
    )
    alone = values[:, [2]]
    apart = (
        *paired.bootstrap(alone, seed=4, resamples=300, block=1),
        paired.sign_flip(alone, seed=4, resamples=300, block=1),
    )
    assert [part[2] for part in together] == [part[0] for part in apart]


def test_bits_do_not_depend_on_threads():
    """One thread and two give the same intervals and p-values, bit for bit."""
    values = np.random.default_rng(2).uniform(-1, 1, (700, 30))
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            low, high = paired.bootstrap(values, seed=4, resamples=400)
            results.append((low, high, paired.sign_flip(values, seed=4, resamples=400)))
    np.testing.assert_array_equal(*results)


def test_holm_by_hand():
    """Smallest p times m, next times m - 1, never falling, at most 1; families do not mix."""
    p = np.array([[0.01, 0.04, 0.03, 0.005], [0.9, 0.8, 0.01, 0.5]])
    expected = [[0.03, 0.06, 0.06, 0.02], [1.0, 1.0, 0.04, 1.0]]
    np.testing.assert_allclose(paired.holm(p), expected)


# --- summarise --------------------------------------------------------------------------------------------


def test_summary_by_hand():
    """Means, differences and counts of a table small enough to add up in the head."""
    panel = {
        "all": [0.5, 0.5, None, 0.5],
        "top": [0.8, 0.6, None, 0.7],
        "top-random": [0.5, 0.5, None, 0.2],
    }
    arms = arms_table(**{"all": 1000, "top": 200, "top-random": 210})
    summary = summarise(metrics_table(test=panel), arms, seed=1, resamples=4_000)
    assert summary.columns == tables.SUMMARY.names
    assert summary["arm"].to_list() == ["all", "top", "top-random"]
    top = row(summary, "top")
    assert (top["queries"], top["queries_empty"], top["rows"]) == (4, 1, 200)
    assert top["ndcg"] == pytest.approx(0.7)
    assert top["ndcg_empty0"] == pytest.approx(2.1 / 4)
    assert top["ndcg_empty1"] == pytest.approx(3.1 / 4)
    assert top["low"] == pytest.approx(0.6)
    assert top["high"] == pytest.approx(0.8)
    assert top["delta"] == pytest.approx(0.2)
    assert top["delta_random"] == pytest.approx(0.3)
    assert top["p"] == pytest.approx(0.25, abs=0.03)  # all three differences positive: 2 of 8 patterns
    assert top["p_holm"] == pytest.approx(2 * top["p"])
    assert row(summary, "top-random")["delta_random"] is None
    blank = ("delta", "delta_low", "delta_high", "p", "p_holm", "delta_random", "p_random")
    assert [row(summary, "all")[name] for name in blank] == [None] * len(blank)
    assert summary["recommended"].to_list() == [None] * 3


def test_folds_are_pooled_and_cutoffs_kept_apart():
    """The same qid in two folds is two queries; each cutoff is its own comparison."""
    arms = arms_table(all=10, half=5)
    parts = [
        metrics_table(cutoff=cutoff, fold=fold, test={"all": [0.2, 0.4], "half": [0.2 + add, 0.4 + add]})
        for cutoff, fold, add in [(5, 1, 0.1), (5, 2, 0.3), (10, 1, 0.2), (10, 2, 0.2)]
    ]
    summary = summarise(pl.concat(parts), arms, seed=1, resamples=200)
    half = summary.filter(arm="half")
    assert half["cutoff"].to_list() == [5, 10]
    assert half["queries"].to_list() == [4, 4]
    np.testing.assert_allclose(half["delta"], [0.2, 0.2])
    assert half["delta_low"].to_list()[1] == pytest.approx(0.2)
    assert half["delta_low"].to_list()[0] < 0.15


@pytest.fixture(scope="module")
def measured():
    """Return METRICS and ARMS of five arms on 80 validation and 80 test queries, string ids, two cutoffs."""
    rng = np.random.default_rng(8)
    shifts = {"all": 0.0, "mix": 0.04, "mix-random": -0.01, "top": -0.3, "half": 0.0}
    parts = [
        metrics_table(cutoff=cutoff, vali=noisy(rng, 80, **shifts), test=noisy(rng, 80, **shifts))
        for cutoff in (5, 10)
    ]
    arms = arms_table(**{"all": 1000, "mix": 220, "mix-random": 220, "top": 150, "half": 500})
    return pl.concat(parts).with_columns(pl.format("q{}", "qid").alias("qid")), arms


def test_input_order_is_irrelevant_and_the_seed_decides(measured):
    """Shuffled rows give the same frame bit for bit; another seed moves the intervals."""
    metrics, arms = measured
    summary = summarise(metrics, arms, seed=3, resamples=500)
    shuffled = summarise(metrics.sample(fraction=1.0, shuffle=True, seed=1), arms, seed=3, resamples=500)
    assert summary.equals(shuffled, null_equal=True)
    other = summarise(metrics, arms, seed=4, resamples=500)
    assert other["ndcg"].equals(summary["ndcg"])
    assert not other["low"].equals(summary["low"])


def test_queries_without_a_relevant_document_leave_only_counts():
    """When no query has a relevant document, every comparison is null and nothing is recommended."""
    panel = {"all": [None, None], "half": [None, None]}
    summary = summarise(
        metrics_table(vali=panel, test=panel), arms_table(all=10, half=5), seed=1, resamples=50
    )
    assert summary["queries_empty"].to_list() == [2] * 4
    assert summary["ndcg_empty1"].to_list() == [1.0] * 4
    assert (
        summary.select("ndcg", "low", "delta", "p", "p_holm", "recommended").null_count().row(0) == (4,) * 6
    )
    assert verdict(summary) == ["None of the 2 test queries has a relevant document: NDCG says nothing."]


def test_no_rows_give_an_empty_summary():
    """METRICS of other splits alone give SUMMARY's columns and no row."""
    summary = summarise(metrics_table(train={"all": [0.5]}), arms_table(all=10), seed=1, resamples=50)
    assert summary.is_empty()
    assert summary.columns == tables.SUMMARY.names
    assert verdict(summary) == ["There is no test result at cutoff 10."]


@pytest.mark.parametrize(
    ("panel", "arms", "message"),
    [
        ({"all": [0.5, 0.5], "half": [0.5]}, arms_table(all=10, half=5), "all: 2, half: 1 rows"),
        ({"all": [0.5], "hafl": [0.5]}, arms_table(all=10, half=5), "Did you mean 'half'"),
        ({"all": [0.5, None], "half": [0.5, 0.5]}, arms_table(all=10, half=5), "not others"),
        ({"all": [0.5]}, arms_table(all=10).with_columns(control=pl.lit("random")), "needs the arm 'random'"),
        ({"all": [0.5]}, pl.concat([arms_table(all=10)] * 2), "lists an arm twice"),
        ({"all": [0.5]}, arms_table(all=10).drop("rows"), "needs a column 'rows'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(panel, arms, message):
    """Each mistake names the arm or the column."""
    with pytest.raises(TableError, match=message):
        summarise(metrics_table(test=panel), arms, seed=1, resamples=50)


def test_without_all_an_arm_s_own_figures_are_those_with_it(measured):
    """Leaving `all` out nulls what compares with it, and moves nothing else, the control's part included."""
    metrics, arms = measured
    whole = summarise(metrics, arms, seed=3, resamples=500).filter(pl.col("arm") != "all")
    alone = summarise(
        metrics.filter(pl.col("arm") != "all"), arms.filter(pl.col("arm") != "all"), seed=3, resamples=500
    )
    to_all = ["delta", "delta_low", "delta_high", "p", "p_holm", "recommended"]
    assert alone.select(pl.col(to_all).is_null().all()).row(0) == (True,) * len(to_all)
    assert alone.drop(to_all).equals(whole.drop(to_all))
    assert alone["delta_random"].is_not_null().any()


# --- recommend and verdict --------------------------------------------------------------------------------


def choose(arms, **panel):
    """Return the recommendation on one validation panel."""
    return recommended(metrics_table(vali=panel), arms, seed=1, resamples=1_000)


def test_fewest_rows_within_one_standard_error():
    """Differences +.1 and -.08 (mean .01, standard error .09) keep the small arm; a steady .01 does not."""
    arms = arms_table(all=100, small=10)
    full = [0.5, 0.6, 0.7, 0.5]
    assert choose(arms, all=full, small=[0.4, 0.68, 0.6, 0.58]) == "small"
    assert choose(arms, all=full, small=[0.49, 0.59, 0.69, 0.49]) == "all"


def test_the_preferred_arm_is_kept_until_the_lists_speak_against_it():
    """.01 below the best with a standard error of .09 it is kept; a steady .01 below, or absent, it is not."""
    arms = arms_table(all=100, small=10, large=90)
    full = [0.5, 0.6, 0.7, 0.5]

    def kept(large, prefer="large"):
        panel = metrics_table(vali={"all": full, "small": full, "large": large})
        return recommended(panel, arms, prefer=prefer, seed=1, resamples=1_000)

    assert kept([0.4, 0.68, 0.6, 0.58]) == "large"
    assert kept([0.49, 0.59, 0.69, 0.49]) == "small"
    assert kept([0.4, 0.68, 0.6, 0.58], prefer="another") == "small"


def test_a_preferred_arm_significantly_worse_than_all_is_not_kept():
    """Two standard errors of a noisy best are wide, but `all` beats the preferred arm on every query."""
    full = np.random.default_rng(0).uniform(0.4, 0.6, 40)
    noise = np.tile([0.39, -0.38], 20)
    arms = arms_table(**{"all": 100, "wild": 90, "worse": 10})
    panel = metrics_table(vali={"all": full, "wild": full + noise, "worse": full - 0.005})
    assert recommended(panel, arms, prefer="worse", seed=1, resamples=1_000) == "wild"


def test_equal_arms_go_to_the_fewest_rows_then_to_the_panel_order():
    """Identical values: 5 rows before 10; with equal rows the arm that stands first."""
    values = [0.5, 0.6, 0.7]
    arms = arms_table(all=100, b=5, a=5, c=10)
    assert choose(arms, all=values, a=values, b=values, c=values) == "b"


def test_an_arm_significantly_worse_than_all_is_never_kept():
    """An arm within one error of a noisy best is still refused when `all` beats it on every query."""
    rng = np.random.default_rng(0)
    full = rng.uniform(0.4, 0.6, 40)
    noise = np.tile([0.39, -0.38], 20)  # mean .005 above `all`, far noisier
    arms = arms_table(**{"all": 100, "wild": 90, "worse": 10})
    assert choose(arms, all=full, wild=full + noise, worse=full - 0.005) == "wild"


@pytest.mark.parametrize("panel", [{"all": [0.5], "half": [0.5]}, {"all": [0.5, None], "half": [0.5, None]}])
def test_one_query_decides_nothing(panel):
    """A single query has no standard error, so there is no recommendation."""
    assert choose(arms_table(all=10, half=5), **panel) is None


def test_nothing_is_recommended_without_all_and_another():
    """The best of two small arms may be worse than everything; one arm alone is no choice."""
    values = [0.5, 0.6, 0.7]
    assert choose(arms_table(half=5, tenth=1), half=values, tenth=values) is None
    assert choose(arms_table(half=5), half=values) is None
    assert choose(arms_table(all=10), all=values) is None


def test_a_cutoff_that_was_not_measured_decides_nothing():
    """Asking at cutoff 3 when only 10 was measured gives None."""
    values = {"all": [0.5, 0.6], "half": [0.5, 0.6]}
    arms = arms_table(all=10, half=5)
    assert recommended(metrics_table(vali=values), arms, cutoff=3, seed=1, resamples=50) is None
    assert recommended(metrics_table(test=values), arms, seed=1, resamples=50) is None


def test_recommendation_ignores_test(measured):
    """Permuting the arms' test results, or dropping them, changes no recommendation."""
    metrics, arms = measured
    names = arms["arm"].to_list()
    turned = metrics.with_columns(
        arm=pl.when(split="test").then(pl.col("arm").replace(names, names[::-1])).otherwise("arm")
    )
    chosen = recommended(metrics, arms, seed=3, resamples=500)
    assert chosen == "mix"
    assert recommended(turned, arms, seed=3, resamples=500) == chosen
    assert recommended(metrics.filter(split="vali"), arms, seed=3, resamples=500) == chosen
    summary = summarise(turned, arms, seed=3, resamples=500)
    assert summary.filter(pl.col("recommended"))["arm"].unique().to_list() == [chosen]


def test_verdict_names_winner_loser_and_what_to_keep(measured):
    """Five sentences, with the numbers of SUMMARY in them."""
    metrics, arms = measured
    summary = summarise(metrics, arms, seed=3, resamples=2_000)
    mix, full, top = (row(summary.filter(cutoff=10), arm) for arm in ("mix", "all", "top"))
    baseline, won, lost, keep, control = verdict(summary)
    assert f"NDCG@10 {full['ndcg']:.3f} on 80 test queries" in baseline
    assert f"`mix` {mix['delta']:+.3f} ({mix['delta'] / full['ndcg']:+.1%})" in won
    assert f"`top` {top['delta']:+.3f}" in lost
    assert lost.count("%, collapsed)") == 1
    assert f"95% interval {mix['delta_low']:+.3f} to {mix['delta_high']:+.3f}" in keep
    assert f"Holm-adjusted p = {mix['p_holm']:.3f})" in keep
    assert keep.startswith("Keep `mix`, chosen on validation: 220 rows (22.0% of the training rows)")
    assert "78% less training time (2.2 s against 10.0 s)" in keep
    assert f"{mix['delta_random']:+.3f}" in control


def test_verdict_without_a_difference_names_the_cheapest():
    """Equal arms: no winner is claimed, and the arm with the fewest rows is named."""
    panel = noisy(np.random.default_rng(1), 30, all=0, half=0, tenth=0)
    arms = arms_table(all=1000, half=500, tenth=100)
    sentences = verdict(summarise(metrics_table(test=panel), arms, seed=1, resamples=500))
    assert "does not prove them equal" in sentences[1]
    assert "`tenth` with 100 rows (10.0% of the training rows)" in sentences[1]
    assert sentences[2] == "No recommendation: there is no validation result to decide on."


def test_verdict_says_when_test_contradicts_validation():
    """An arm chosen on validation that loses on test is reported with that doubt."""
    rng = np.random.default_rng(4)
    arms = arms_table(all=1000, half=500)
    metrics = metrics_table(vali=noisy(rng, 60, all=0, half=0.05), test=noisy(rng, 60, all=0, half=-0.05))
    sentences = verdict(summarise(metrics, arms, seed=1, resamples=1_000))
    assert "Keep `half`, chosen on validation; on test it is worse" in sentences[3]


def test_verdict_without_all_gives_figures_and_how_to_compare():
    """One arm: two sentences; with its control a third; of many arms four are named."""
    values = {"mix": [0.5, 0.7, None], "mix-random": [0.4, 0.6, None]}
    one = verdict(
        summarise(metrics_table(test={"mix": values["mix"]}), arms_table(mix=200), seed=1, resamples=50)
    )
    assert one == [
        "NDCG@10 on 2 test queries with a relevant document: `mix` 0.600 (95% interval 0.500 to 0.700), "
        "trained on 200 rows (20.0% of the training rows) in 2.0 s.",
        "Whether this is better or worse than training on everything is not known: to compare, add `all` to "
        "the arms (`--arms all,mix`).",
    ]
    arms = arms_table(**{"mix-random": 200, "mix": 200})
    both = verdict(summarise(metrics_table(test=values), arms, seed=1, resamples=50))
    assert "; `mix` 0.600" in both[0]
    assert both[1].startswith("Against random negatives in the same number: `mix` +0.100 (p = ")
    assert both[2].endswith("(`--arms all,mix-random,mix`).")
    six = {name: [0.5, 0.6] for name in "abcdef"}
    said = verdict(
        summarise(metrics_table(test=six), arms_table(**dict.fromkeys(six, 5)), seed=1, resamples=50)
    )
    assert said[0].count("trained on") == 4
    assert said[0].endswith(", and 2 more arms.")


def test_verdict_at_the_edges():
    """Nothing smaller is good enough; `all` at 0 and times unknown leave out shares; `all` stands alone."""
    rng = np.random.default_rng(6)
    panel = noisy(rng, 60, all=0, top=-0.3)
    arms = arms_table(all=1000, top=100)
    sentences = verdict(summarise(metrics_table(vali=panel, test=panel), arms, seed=1, resamples=500))
    assert sentences[-1].startswith("Keep everything (`all`)")
    assert sentences[-1].endswith(" Every other arm is significantly worse there.")
    lists = {"all": [0.5] * 60, "mid": [0.4, 0.57] * 30, "top": [0.2, 0.21] * 30}
    three = summarise(
        metrics_table(vali=lists, test=lists), arms_table(all=1000, mid=400, top=100), seed=1, resamples=500
    )
    assert verdict(three)[-1] == (
        "Keep everything (`all`): on validation no smaller arm came close enough to the best. The cheapest that is"
        " not significantly worse there is `mid`: 400 rows (40.0% of the training rows), test NDCG"
        " -0.015 (-3.0%), 60% less training time (4.0 s against 10.0 s)."
    )
    tests = {**lists, "mid": [0.4, 0.41] * 30}
    doubtful = summarise(
        metrics_table(vali=lists, test=tests), arms_table(all=1000, mid=400, top=100), seed=1, resamples=500
    )
    assert "worse there is `mid`; on test it is worse, so think twice: 400 rows" in verdict(doubtful)[-1]
    untimed = arms.with_columns(train_seconds=pl.lit(None, dtype=pl.Float64))
    half = metrics_table(vali={"all": [0.5, 0.5], "top": [0.5, 0.5]}, test={"all": [0.0], "top": [0.1]})
    keep = verdict(summarise(half, untimed, seed=1, resamples=50))[2]
    assert keep.endswith("NDCG@10 +0.100 (95% interval +0.100 to +0.100, Holm-adjusted p = 1.000).")
    alone = metrics_table(test={"all": panel["all"]})
    assert verdict(summarise(alone, arms_table(all=10), seed=1, resamples=50))[1].startswith(
        "There is no other"
    )
