"""NDCG@10 of many lists beside the tools people use for it: `make bench`."""

from pathlib import Path

import numpy as np
import pytest

from tests.bench.timing import compare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

LISTS, DOCUMENTS = 5_000, 120

LOAD = """
import sys, numpy as np
data = np.load(sys.argv[1]); labels, scores = data["labels"], data["scores"]
queries, documents = labels.shape
"""
PROGRAMS = {
    "ranksieve": LOAD
    + """
from pipeline.ndcg import ndcg
ndcg(labels.ravel(), scores.ravel(), np.arange(queries + 1, dtype=np.int64) * documents, cutoffs=[10])
""",
    "scikit-learn ndcg_score": LOAD
    + """
from sklearn.metrics import ndcg_score
ndcg_score(labels, scores, k=10)
""",
    "ranx": LOAD
    + """
from ranx import Qrels, Run, evaluate
names = [f"d{i}" for i in range(documents)]
qrels = Qrels({f"q{q}": dict(zip(names, map(int, labels[q]))) for q in range(queries)})
run = Run({f"q{q}": dict(zip(names, map(float, scores[q]))) for q in range(queries)})
evaluate(qrels, run, "ndcg_burges@10")
""",
    "ir-measures (trec_eval)": LOAD
    + """
import ir_measures
from ir_measures import nDCG
names = [f"d{i}" for i in range(documents)]
qrels = {f"q{q}": dict(zip(names, map(int, labels[q]))) for q in range(queries)}
run = {f"q{q}": dict(zip(names, map(float, scores[q]))) for q in range(queries)}
list(ir_measures.iter_calc([nDCG @ 10], qrels, run))
""",
}


def test_ndcg_beside_other_tools(tmp_path: Path) -> None:
    """Ours costs less CPU than each of the others, start of the process and loading included."""
    rng = np.random.default_rng(0)
    labels = rng.choice(5, p=[0.52, 0.32, 0.13, 0.02, 0.01], size=(LISTS, DOCUMENTS)).astype(np.uint8)
    np.savez(tmp_path / "lists.npz", labels=labels, scores=rng.normal(size=labels.shape))
    medians = compare(PROGRAMS, [str(tmp_path / "lists.npz")])
    ours = medians.pop("ranksieve")
    assert all(ours.cpu < other.cpu for other in medians.values())
