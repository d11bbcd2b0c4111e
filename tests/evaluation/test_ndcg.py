"""The formula against hand-computed values and against five tools, each in its own convention."""

import warnings
from itertools import pairwise
from math import log2, nan

import numpy as np
import pytest

from pipeline.core.errors import ConfigError, TableError
from pipeline.evaluation.ndcg import mean, ndcg

CUTOFFS = (1, 3, 5, 10)

# Three queries: graded, without a relevant document, and with a tie that input order resolves kindly.
LABELS = np.array([0, 1, 2, 4, 0, 0, 0, 0, 3, 0, 1, 0], dtype=np.uint8)
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2, 0.1, 0.1, 0.9, 0.5, 0.5])
OFFSETS = np.array([0, 5, 8, 12])


@pytest.fixture(scope="module")
def lists():
    """Return labels 0-4, tie-free scores and offsets of 60 queries of 1-30 documents; some lack positives."""
    rng = np.random.default_rng(7)
    sizes = np.concatenate(([1, 2, 4, 9], rng.integers(1, 31, 56)))
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    labels = rng.choice(5, size=offsets[-1], p=[0.7, 0.12, 0.08, 0.06, 0.04]).astype(np.uint8)
    for query in (2, 10, 20):
        labels[offsets[query] : offsets[query + 1]] = 0
    # Whole numbers survive a tool that keeps scores in float32.
    return labels, rng.permutation(offsets[-1]).astype(np.float64), offsets


def one(labels, scores, cutoff, **options):
    """Return the NDCG of a single list."""
    offsets = np.array([0, len(labels)])
    return ndcg(np.array(labels), np.array(scores, dtype=float), offsets, cutoffs=[cutoff], **options)[0, 0]


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        ("exponential", (1 / log2(3) + 3 / 2) / (3 + 1 / log2(3))),
        ("linear", (1 / log2(3) + 2 / 2) / (2 + 1 / log2(3))),
    ],
)
def test_formula_by_hand(gain, expected):
    """Labels 0, 1, 2 in ranked order give the value worked out with pen and paper."""
    assert one([0, 1, 2], [3, 2, 1], 3, gain=gain) == pytest.approx(expected, abs=1e-15)


def test_ideal_stops_at_the_cutoff_too():
    """With two relevant documents and cutoff 1, finding either of equal grade on top is perfect."""
    assert one([1, 0, 1], [3, 2, 1], 1) == 1.0


def test_relevant_documents_below_the_cutoff_earn_nothing():
    """The only relevant document at rank 3 is worth 1/2 at cutoff 3 and 0 at cutoff 2."""
    assert one([0, 0, 1], [3, 2, 1], 2) == 0.0
    assert one([0, 0, 1], [3, 2, 1], 3) == pytest.approx(0.5)


def test_ties_average_over_orders():
    """Two tied documents, one relevant, give the mean of the two orders; input order gives one of them."""
    assert one([1, 0], [5, 5], 2) == pytest.approx((1 + 1 / log2(3)) / 2)
    assert one([0, 1], [5, 5], 2) == pytest.approx((1 + 1 / log2(3)) / 2)
    assert one([1, 0], [5, 5], 2, ties="order") == 1.0
    assert one([0, 1], [5, 5], 2, ties="order") == pytest.approx(1 / log2(3))


def test_tie_across_the_cutoff_counts_in_part():
    """Three documents tied at ranks 2-4, one relevant, share the single place left above cutoff 2."""
    expected = (1 / log2(3)) / 3
    assert one([0, 1, 0, 0], [9, 5, 5, 5], 2) == pytest.approx(expected)


def test_tied_scores_do_not_join_neighbouring_queries():
    """Equal scores at the border of two queries are not a tie."""
    result = ndcg(np.array([1, 0, 0, 1]), np.array([2.0, 1.0, 1.0, 0.0]), np.array([0, 2, 4]), cutoffs=[1, 2])
    np.testing.assert_allclose(result, [[1, 1], [0, 1 / log2(3)]])


def test_infinite_and_signed_zero_scores_rank():
    """Infinities are the ends of the order, and -0.0 ties with 0.0."""
    assert one([1, 0, 0], [np.inf, 0, -np.inf], 1) == 1.0
    assert one([1, 0], [-0.0, 0.0], 2) == one([1, 0], [0.0, 0.0], 2)


def test_float32_ties_stay_ties():
    """Scores that are equal in float32 are tied, though their float64 parents were not."""
    scores = np.array([0.1, 0.1 + 1e-12]).astype(np.float32)
    result = ndcg(np.array([1, 0]), scores, np.array([0, 2]), cutoffs=[1])
    assert result[0, 0] == pytest.approx(0.5)


def test_empty_queries_and_empty_tables():
    """A query without a relevant document, or without any document, is NaN; no query gives no row."""
    result = ndcg(np.array([0, 1]), np.array([1.0, 0.0]), np.array([0, 1, 1, 2]), cutoffs=[1, 5])
    np.testing.assert_array_equal(result, [[nan, nan], [nan, nan], [1, 1]])
    none = ndcg(np.zeros(0, np.uint8), np.zeros(0), np.array([0]))
    assert none.shape == (0, 4)
    assert np.isnan(mean(none, empty=None)).all()


def test_mean_conventions():
    """One perfect, one half and one empty query average to 3/4, 1/2 and 5/6."""
    values = np.array([[1.0], [0.5], [nan]])
    assert mean(values, empty=None)[0] == 0.75
    assert mean(values, empty=0.0)[0] == 0.5
    assert mean(values, empty=1.0)[0] == pytest.approx(5 / 6)
    assert mean(values[:, 0], empty=1.0) == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"scores": np.array([1.0, nan])}, TableError, "row 1 is NaN"),
        ({"scores": np.array([1.0])}, TableError, "one of each per row"),
        ({"labels": np.array([0, -1])}, TableError, "0 to 255"),
        ({"labels": np.array([0.0, 1.0])}, TableError, "float64"),
        ({"offsets": np.array([0, 1])}, TableError, "number of rows, 2"),
        ({"offsets": np.array([1, 2])}, TableError, "number of rows, 2"),
        ({"offsets": np.array([0, 2, 1, 2])}, TableError, "without falling"),
        ({"offsets": np.array([], dtype=int)}, TableError, r"queries \+ 1"),
        ({"cutoffs": (5, 0)}, ConfigError, "each 1 or more"),
        ({"cutoffs": ()}, ConfigError, "at least one"),
        ({"gain": "exponentail"}, ConfigError, "Did you mean 'exponential'"),
        ({"ties": "docid"}, ConfigError, "average, order"),
    ],
)
def test_bad_input_is_refused_in_one_line(changed, error, message):
    """Each mistake names what is wrong."""
    good = {"labels": np.array([0, 1]), "scores": np.array([1.0, 0.0]), "offsets": np.array([0, 2])}
    with pytest.raises(error, match=message) as caught:
        ndcg(**(good | changed))
    assert "\n" not in str(caught.value)


# --- five tools -------------------------------------------------------------------------------------------


def lightgbm_means(labels, scores, offsets, cutoffs):
    """Return LightGBM's own metric on a model without trees whose initial scores are ``scores``."""
    lgb = pytest.importorskip("lightgbm")
    options = {"free_raw_data": False, "params": {"verbose": -1, "min_data_in_bin": 1}}
    features = np.arange(len(labels), dtype=np.float64)[:, None]
    sizes = np.diff(offsets)
    data = lgb.Dataset(features, labels, group=sizes, init_score=scores, **options)
    settings = {"objective": "lambdarank", "eval_at": list(cutoffs), "num_threads": 1, "verbose": -1}
    booster = lgb.Booster(settings | {"metric": "ndcg"}, data)
    return np.array([value for _, _, value, _ in booster.eval_train()])


def runs(labels, scores, offsets):
    """Return judgments and run as the dictionaries trec_eval's relatives take."""
    qrels, run = {}, {}
    for query in range(len(offsets) - 1):
        rows = range(offsets[query], offsets[query + 1])
        qrels[f"q{query:03}"] = {f"d{row:06}": int(labels[row]) for row in rows}
        run[f"q{query:03}"] = {f"d{row:06}": float(scores[row]) for row in rows}
    return qrels, run


def trec_eval_values(labels, scores, offsets, cutoffs, gains=None):
    """Return trec_eval's NDCG through ir-measures, (queries, cutoffs)."""
    ir_measures = pytest.importorskip("ir_measures")
    qrels, run = runs(labels, scores, offsets)
    options = {} if gains is None else {"gains": gains}
    measures = [ir_measures.nDCG(**options) @ cutoff for cutoff in cutoffs]
    result = np.full((len(qrels), len(cutoffs)), nan)
    for metric in ir_measures.pytrec_eval.iter_calc(measures, qrels, run):
        result[int(metric.query_id[1:]), measures.index(metric.measure)] = metric.value
    return result


def ranx_values(name, labels, scores, offsets, cutoffs):
    """Return ranx's NDCG, (queries, cutoffs)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranx = pytest.importorskip("ranx")
        qrels, run = runs(labels, scores, offsets)
        names = [f"{name}@{cutoff}" for cutoff in cutoffs]
        values = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names, return_mean=False)
    return np.stack([values[n] for n in names], axis=1) if len(names) > 1 else values[:, None]


@pytest.fixture(scope="session")
def ranx_compiled(once):
    """Let one test process compile ranx, which caches its machine code, while the others wait."""
    once("ranx", lambda _: [ranx_values(n, LABELS, SCORES, OFFSETS, [3]) for n in ("ndcg", "ndcg_burges")])


def uses_ranx(test):
    """Give a test the time that compiling ranx takes on a busy machine: 40 CPU seconds at first."""
    return pytest.mark.timeout(1800)(pytest.mark.usefixtures("ranx_compiled")(test))


def sklearn_values(labels, scores, offsets, cutoffs):
    """Return scikit-learn's NDCG, (queries, cutoffs); it wants two documents, so one alone gets a twin."""
    metrics = pytest.importorskip("sklearn.metrics")
    result = np.zeros((len(offsets) - 1, len(cutoffs)))
    for query, (start, stop) in enumerate(pairwise(offsets)):
        truth, guess = labels[None, start:stop], scores[None, start:stop]
        if stop - start == 1:
            truth, guess = np.append(truth, [[0]], axis=1), np.append(guess, guess - 1, axis=1)
        result[query] = [metrics.ndcg_score(truth, guess, k=cutoff) for cutoff in cutoffs]
    return result


def test_golden_vector():
    """One vector, seven conventions: the published values, to six places."""
    at3 = {"cutoffs": [3]}
    order = ndcg(LABELS, SCORES, OFFSETS, ties="order", **at3)
    linear = ndcg(LABELS, SCORES, OFFSETS, ties="order", gain="linear", **at3)
    assert mean(order, empty=1.0)[0] == pytest.approx(0.401733, abs=5e-7)
    assert mean(order, empty=0.0)[0] == pytest.approx(0.068400, abs=5e-7)
    assert mean(linear, empty=0.0)[0] == pytest.approx(0.152274, abs=5e-7)
    averaged = ndcg(LABELS, SCORES, OFFSETS, gain="linear", **at3)
    np.testing.assert_allclose(averaged[:, 0], [0.283056, nan, 0.155736], atol=5e-7)


def test_golden_vector_with_ties_by_document_id():
    """trec_eval puts the later document id of a tie first: input order after turning the rows around."""
    turned = np.array([4, 3, 2, 1, 0, 7, 6, 5, 11, 10, 9, 8])
    values = ndcg(LABELS[turned], SCORES[turned], OFFSETS, cutoffs=[3], gain="linear", ties="order")
    assert mean(values, empty=0.0)[0] == pytest.approx(0.140254, abs=5e-7)


def test_golden_vector_in_the_tools_themselves():
    """Each tool, called on the vector, gives the value that stands for it."""
    data = (LABELS, SCORES, OFFSETS, [3])
    assert lightgbm_means(*data)[0] == pytest.approx(0.401733, abs=5e-7)
    assert trec_eval_values(*data).mean() == pytest.approx(0.140254, abs=5e-7)
    np.testing.assert_allclose(sklearn_values(*data)[:, 0], [0.283056, 0, 0.155736], atol=5e-7)


@uses_ranx
def test_golden_vector_in_ranx():
    """The two NDCGs of ranx give the values that stand for them."""
    data = (LABELS, SCORES, OFFSETS, [3])
    assert ranx_values("ndcg_burges", *data).mean() == pytest.approx(0.068400, abs=5e-7)
    assert ranx_values("ndcg", *data).mean() == pytest.approx(0.152274, abs=5e-7)


def test_agrees_with_lightgbm(lists):
    """LightGBM's ndcg metric: exponential gain, an empty query counts as 1."""
    ours = mean(ndcg(*lists, cutoffs=CUTOFFS), empty=1.0)
    np.testing.assert_allclose(ours, lightgbm_means(*lists, CUTOFFS), atol=1e-9)


def test_agrees_with_lightgbm_on_ties(lists):
    """Under ties="order" the agreement holds for coarse scores full of ties."""
    labels, scores, offsets = lists
    coarse = np.floor(scores / 100)
    ours = mean(ndcg(labels, coarse, offsets, cutoffs=CUTOFFS, ties="order"), empty=1.0)
    np.testing.assert_allclose(ours, lightgbm_means(labels, coarse, offsets, CUTOFFS), atol=1e-9)


@pytest.mark.parametrize("gain", ["linear", "exponential"])
def test_agrees_with_trec_eval(lists, gain):
    """trec_eval's ndcg_cut, per query; exponential gain by naming the gain of each label."""
    gains = {label: 2**label - 1 for label in range(5)} if gain == "exponential" else None
    ours = np.nan_to_num(ndcg(*lists, cutoffs=CUTOFFS, gain=gain), nan=0.0)
    np.testing.assert_allclose(ours, trec_eval_values(*lists, CUTOFFS, gains), atol=1e-9)


@uses_ranx
@pytest.mark.parametrize(("name", "gain"), [("ndcg", "linear"), ("ndcg_burges", "exponential")])
def test_agrees_with_ranx(lists, name, gain):
    """The two NDCGs of ranx, per query."""
    ours = np.nan_to_num(ndcg(*lists, cutoffs=CUTOFFS, gain=gain), nan=0.0)
    np.testing.assert_allclose(ours, ranx_values(name, *lists, CUTOFFS), atol=1e-9)


@pytest.mark.parametrize("step", [1, 100], ids=["tie-free", "ties"])
def test_agrees_with_scikit_learn(lists, step):
    """scikit-learn's ndcg_score, per query, with and without ties."""
    labels, scores, offsets = lists
    coarse = np.floor(scores / step)
    ours = np.nan_to_num(ndcg(labels, coarse, offsets, cutoffs=CUTOFFS, gain="linear"), nan=0.0)
    np.testing.assert_allclose(ours, sklearn_values(labels, coarse, offsets, CUTOFFS), atol=1e-9)
