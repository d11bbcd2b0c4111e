"""NDCG@10 of many lists beside the tools people use for it: `make bench`."""

from pathlib import Path

import numpy as np
import pytest

from tests.bench.conftest import ROWS
from tests.bench.timing import Program, compare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

DOCUMENTS = 120
LISTS = ROWS // DOCUMENTS

LOAD = """
import sys, numpy as np
data = np.load(sys.argv[1]); labels, scores = data["labels"], data["scores"]
queries, documents = labels.shape
"""
NAMES = """
names = [f"d{i}" for i in range(documents)]
qrels = {f"q{q}": dict(zip(names, map(int, labels[q]))) for q in range(queries)}
run = {f"q{q}": dict(zip(names, map(float, scores[q]))) for q in range(queries)}
"""
PROGRAMS = {
    "ranksieve": Program(
        LOAD
        + """
from pipeline.ndcg import ndcg
ndcg(labels.ravel(), scores.ravel(), np.arange(queries + 1, dtype=np.int64) * documents, cutoffs=[10])
"""
    ),
    "scikit-learn ndcg_score": Program(
        LOAD + "from sklearn.metrics import ndcg_score\nndcg_score(labels, scores, k=10)\n", "sklearn"
    ),
    "ranx": Program(
        LOAD + NAMES + "from ranx import Qrels, Run, evaluate\n"
        'evaluate(Qrels(qrels), Run(run), "ndcg_burges@10")\n',
        "ranx",
    ),
    "pytrec_eval": Program(
        LOAD + NAMES + "import pytrec_eval\n"
        'pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)\n',
        "pytrec_eval",
    ),
    "ir-measures": Program(
        LOAD + NAMES + "import ir_measures\nfrom ir_measures import nDCG\n"
        "list(ir_measures.iter_calc([nDCG @ 10], qrels, run))\n",
        "ir_measures",
    ),
    "LightGBM, as a metric of training": Program(
        LOAD
        + """
import lightgbm
data = lightgbm.Dataset(
    np.zeros((labels.size, 1), np.float32), labels.ravel(), group=np.full(queries, documents),
    init_score=scores.ravel(), params={"verbosity": -1, "feature_pre_filter": False},
)
options = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "verbosity": -1}
lightgbm.Booster(options, data).eval_train()
""",
        "lightgbm",
    ),
}


def test_ndcg_beside_other_tools(tmp_path: Path) -> None:
    """Ours costs less CPU than each of the others, start of the process and loading included.

    Those that take dictionaries are given them: making these is part of using them.
    """
    rng = np.random.default_rng(0)
    labels = rng.choice(5, p=[0.52, 0.32, 0.13, 0.02, 0.01], size=(LISTS, DOCUMENTS)).astype(np.uint8)
    np.savez(tmp_path / "lists.npz", labels=labels, scores=rng.normal(size=labels.shape))
    medians = compare(f"NDCG@10, {labels.size:,} rows", PROGRAMS, [str(tmp_path / "lists.npz")])
    ours = medians.pop("ranksieve")
    assert all(ours.cpu < other.cpu for other in medians.values())
