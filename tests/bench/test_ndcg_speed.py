"""NDCG@10 of many lists beside the tools people use for it: `make bench`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench.conftest import ROWS
from tests.bench.timing import Program, compare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

DOCUMENTS = 120
LISTS = ROWS // DOCUMENTS

LOAD = """
import sys, time, numpy as np
data = np.load(sys.argv[1]); labels, scores = data["labels"], data["scores"]
"""
DICTIONARIES = """
def dictionaries(labels, scores):
    queries, documents = labels.shape
    names = [f"d{i}" for i in range(documents)]
    qrels = {f"q{q}": dict(zip(names, map(int, labels[q]))) for q in range(queries)}
    run = {f"q{q}": dict(zip(names, map(float, scores[q]))) for q in range(queries)}
    return qrels, run
"""
WHOLE = "call(labels, scores)\n"
# A first call on some of the lists, so that what is loaded or compiled then is not in the figures.
INSIDE = """
call(labels[:6_000], scores[:6_000])
began = time.process_time()
call(labels, scores)
print("CPU", time.process_time() - began)
"""
TOOLS = {
    "ranksieve": Program(
        """
from pipeline.evaluation.ndcg import ndcg
def call(labels, scores):
    queries, documents = labels.shape
    return ndcg(labels.ravel(), scores.ravel(), np.arange(queries + 1) * documents, cutoffs=[10])
"""
    ),
    "scikit-learn ndcg_score": Program(
        """
from sklearn.metrics import ndcg_score
def call(labels, scores):
    return ndcg_score(labels, scores, k=10)
""",
        "sklearn",
    ),
    "ranx": Program(
        DICTIONARIES
        + """
from ranx import Qrels, Run, evaluate
def call(labels, scores):
    qrels, run = dictionaries(labels, scores)
    return evaluate(Qrels(qrels), Run(run), "ndcg_burges@10")
""",
        "ranx",
    ),
    "pytrec_eval": Program(
        DICTIONARIES
        + """
import pytrec_eval
def call(labels, scores):
    qrels, run = dictionaries(labels, scores)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"})
    began = time.process_time()
    evaluator.evaluate(run)
    print("alone", time.process_time() - began)
""",
        "pytrec_eval",
    ),
    "ir-measures": Program(
        DICTIONARIES
        + """
import ir_measures
from ir_measures import nDCG
def call(labels, scores):
    qrels, run = dictionaries(labels, scores)
    return list(ir_measures.iter_calc([nDCG @ 10], qrels, run))
""",
        "ir_measures",
    ),
    "LightGBM, as a metric of training": Program(
        """
import lightgbm
def call(labels, scores):
    data = lightgbm.Dataset(
        np.zeros((labels.size, 1), np.float32), labels.ravel(), group=np.full(*labels.shape),
        init_score=scores.ravel(), params={"verbosity": -1, "feature_pre_filter": False},
    )
    options = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "verbosity": -1}
    return lightgbm.Booster(options, data).eval_train()
""",
        "lightgbm",
    ),
}


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write made-up lists, half of whose documents are not relevant, without ties."""
    path = tmp_path_factory.mktemp("lists") / "lists.npz"
    rng = np.random.default_rng(0)
    labels = rng.choice(5, p=[0.52, 0.32, 0.13, 0.02, 0.01], size=(LISTS, DOCUMENTS)).astype(np.uint8)
    np.savez(path, labels=labels, scores=rng.normal(size=labels.shape))
    return path


def test_ndcg_beside_other_tools(lists: Path) -> None:
    """Ours costs less CPU than each of the others, start of the process and loading included.

    Those that take dictionaries are given them: making these is part of using them.
    """
    programs = {name: Program(LOAD + tool.code + WHOLE, tool.needs) for name, tool in TOOLS.items()}
    medians = compare(f"NDCG@10, {LISTS * DOCUMENTS:,} rows, processes", programs, [str(lists)])
    ours = medians.pop("ranksieve")
    assert all(ours.cpu < other.cpu for other in medians.values())


def test_ndcg_inside_a_process_beside_other_tools(lists: Path) -> None:
    """In a process that has used them before, ours costs less than each tool with dictionaries."""
    costs: dict[str, float] = {}
    print(f"\n{f'NDCG@10, {LISTS * DOCUMENTS:,} rows, calls':44} {'CPU s':>8} {'ratio':>7}")
    for name, tool in TOOLS.items():
        if importlib.util.find_spec(tool.needs) is None:
            print(f"{name:44} not installed: {tool.needs}")
            continue
        found = min(_inside(tool, lists) for _ in range(3 if name in ("ranksieve", "pytrec_eval") else 1))
        for label, seconds in zip((name, f"{name}, evaluate alone"), found, strict=False):
            costs[label] = seconds
            print(f"{label:44} {seconds:8.3f} {seconds / costs['ranksieve']:7.1f}", flush=True)
    for name in ("pytrec_eval", "ranx", "ir-measures"):
        assert costs.get(name, np.inf) > costs["ranksieve"]


def _inside(tool: Program, lists: Path) -> list[float]:
    """Return the CPU seconds of a call, and of the part of it that does not make dictionaries."""
    command = [sys.executable, "-W", "ignore", "-c", LOAD + tool.code + INSIDE, str(lists)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    told = {line.split()[0]: float(line.split()[1]) for line in output if line.startswith(("CPU ", "alone "))}
    return [told[name] for name in ("CPU", "alone") if name in told]
