"""Graded arms: which rows are hard, what LightGBM trains on, and what the run's files say."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from flows.stages import run_pipeline
from pipeline.core import tables
from pipeline.core.config import RankerConfig, SelectConfig, parse
from pipeline.dataset import parts
from pipeline.dataset.letor import read_letor
from pipeline.export import formats as export
from pipeline.inspect.look import inspect
from pipeline.negatives import arms, grades, prepare, select
from pipeline.ranker.fit import Training, fit_all, parameters
from pipeline.ranker.predict import predict
from tests.conftest import SMALL
from tests.samples import judgments, schema_for, scores_of, write_letor_source, write_part

CONFIG = SelectConfig()
RANKER = RankerConfig(trees=12, leaves=5, min_rows_per_leaf=5)
GRADED, PLAIN = "mixed-40-guard75-graded", "mixed-40-guard75"
SCORES = scores_of(
    (1, [3, 1, 0, 0, 0, 0, 0], [9.0, 5.0, 8.5, 4.0, 3.0, 2.0, 1.0]),
    (2, [0, 0, 0, 0], [4.0, 3.0, 2.0, 1.0]),
)


def selection(name, scores=SCORES):
    """Return SELECTION of the arm called ``name``."""
    return select.select(scores, arms.parse(name), config=CONFIG, seed=1)


def test_grades_by_hand():
    """Of five negatives the guard sets one aside, and 40 % are two: the next one is hard, the drawn one easy."""
    rows = selection("mixed-40-guard75-graded")
    assert rows["grade"].to_list()[:7] == [4, 2, 0, 1, 0, 0, 0]
    assert rows.filter(pl.col("reason") == "hard")["row_id"].to_list() == [3, 7]
    assert rows.schema["grade"] == pl.UInt8


def test_a_query_without_a_positive_has_no_hard_grade():
    """Query 2 keeps its hardest negative, at the grade of the others."""
    rows = selection("mixed-40-guard75-graded").filter(pl.col("qid") == 2)
    assert rows["reason"].to_list().count("hard") == 1
    assert rows["grade"].to_list() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["mixed-30-guard75", "mixed-unweighted-50", "mixed-p3-bag3"])
def test_grades_change_no_choice(name):
    """Rows, weights and reasons are those of the arm that is not graded; hard negatives alone have grade 1."""
    frame = judgments(30, 20, seed=4)
    scores = frame.select(
        "row_id", "qid", "label", pl.col("f1").cast(pl.Float64).alias("score"), fold=pl.lit(0, pl.Int16)
    )
    head, bag, sets = name.partition("-bag")
    arm = arms.parse(f"{head}-graded{bag}{sets}")
    selector = select.Selector(scores, arm, config=CONFIG, seed=2)
    without = select.Selector(scores, arms.parse(name), config=CONFIG, seed=2)
    rows = selector.bagged(3) if sets else selector.selection()
    assert rows.drop("grade").equals(without.bagged(3) if sets else without.selection())
    judged = rows.filter(pl.col("label").max().over("qid") > 0)
    expected = pl.when(pl.col("label") > 0).then(pl.col("label") + 1).otherwise(pl.col("reason") == "hard")
    assert judged["grade"].to_list() == judged.select(expected.cast(pl.UInt8)).to_series().to_list()


def test_gains_keep_those_of_the_labels():
    """A positive has the gain it has without grades, up to the highest label."""
    found = grades.gains(0.25)
    assert found[:5] == [0, 0.25, 1, 3, 7]
    assert found[tables.MAX_LABEL + 1] == 2**30 - 1
    assert len(found) == tables.MAX_LABEL + 2


def test_the_prepared_set_has_both_columns(tmp_path):
    """``label`` stays as judged beside ``grade``, in the schema's types and order."""
    frame = judgments(1, 4)
    chosen = pl.DataFrame(
        {
            "row_id": [3, 1],
            "weight": pl.Series([2.5, 1.0], dtype=pl.Float32),
            "grade": pl.Series([1, 0], dtype=pl.UInt8),
        }
    )
    table = prepare.prepare(parts.conform(frame.to_arrow(), schema_for(frame)), chosen)
    assert table.schema.equals(tables.with_training(schema_for(frame), graded=True))
    assert table["grade"].to_pylist() == [0, 1]
    assert table["label"].to_pylist() == frame["label"].gather([1, 3]).to_list()


# ---- The ranker --------------------------------------------------------------------------------------------


def write_graded(path, frame):
    """Write a prepared set with grades."""
    schema = tables.with_training(tables.judgments(4, qid=tables.QID_INT, doc_id=False), graded=True)
    parts.write_table(path, frame.with_columns(weight=pl.lit(1.0, pl.Float32)).select(schema.names), schema)
    return path


def graded_frame():
    """Return judgments with every third negative hard."""
    hard = (pl.col("row_id") % 3 == 0).cast(pl.UInt8)
    return judgments(seed=1).with_columns(
        grade=pl.when(pl.col("label") > 0).then(pl.col("label") + 1).otherwise(hard).cast(pl.UInt8)
    )


def fit(files, model, *, gains=(), vali=(), config=RANKER):
    """Fit one ranker."""
    return fit_all(
        [Training(files, model)], config=config, seed=7, threads=1, gains=gains, vali=vali, cutoff=3
    )


def test_agrees_with_lightgbm_called_directly(tmp_path):
    """The child trains what ``lightgbm.train`` does with grades for labels, and not what it does with labels."""
    lightgbm = pytest.importorskip("lightgbm")
    frame = graded_frame()
    file = write_graded(tmp_path / "train.parquet", frame)
    fit([file], tmp_path / "model.txt", gains=grades.gains(0.4))
    features = frame.select("f1", "f2", "f3", "f4").to_numpy()
    settings = parameters(RANKER, seed=7) | {"num_threads": 1}
    scores = {}
    for column, gains in (("grade", [0, 0.4, 1, 3, 7]), ("label", [0, 1, 3, 7])):
        data = lightgbm.Dataset(features, label=frame[column].to_numpy(), group=np.full(40, 12))
        direct = lightgbm.train(settings | {"label_gain": gains}, data, num_boost_round=12)
        scores[column] = direct.predict(features, num_threads=1)
    found = predict([tmp_path / "model.txt"], [file], threads=1)["score"].to_numpy()
    np.testing.assert_allclose(found, scores["grade"], rtol=1e-12)
    assert not np.allclose(found, scores["label"])


def test_without_hard_negatives_grades_change_nothing(tmp_path):
    """Gains of positives and of easy negatives are those of their labels: the same trees, stopped at the same one."""
    frame = judgments(seed=1)
    shifted = frame.with_columns(grade=(pl.col("label") + (pl.col("label") > 0)).cast(pl.UInt8))
    files = [write_part(tmp_path / "plain.parquet", frame)]
    graded = [write_graded(tmp_path / "graded.parquet", shifted)]
    vali = [write_part(tmp_path / "vali.parquet", judgments(20, seed=2))]
    config = RANKER.model_copy(update={"trees": 300, "learning_rate": 0.5, "early_stopping": 5})
    plain = fit(files, tmp_path / "plain.txt", vali=vali, config=config)
    same = fit(graded, tmp_path / "graded.txt", vali=vali, config=config, gains=grades.gains(0.5))
    assert plain["trees"] == same["trees"] < 290
    texts = [(tmp_path / name).read_text().split("\nend of trees")[0] for name in ("plain.txt", "graded.txt")]
    assert texts[0] == texts[1]


# ---- In a run ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a finished run with graded arms."""
    where = tmp_path_factory.mktemp("run")
    source = write_letor_source(where / "source", queries=24, documents=12)
    names = [GRADED, PLAIN, "mixed-100-graded", "mixed-40-guard75-graded-bag2"]
    run_pipeline(source, where / "run", config=parse(SMALL), threads=2, arms=names)
    return where / "run"


def stored(root: Path, arm: str) -> pl.DataFrame:
    """Return an arm's prepared set."""
    return pl.concat([pl.read_parquet(file) for file in sorted((root / "prepared" / arm).glob("*.parquet"))])


def test_a_run_trains_on_grades_and_evaluates_on_labels(whole):
    """Same rows, another model, and METRICS over the same queries; a set of all rows is prepared, too."""
    graded, plain = stored(whole, GRADED), stored(whole, PLAIN)
    assert graded.drop("grade").equals(plain)
    assert 1 in graded["grade"]
    models = [(whole / "models" / f"{name}.txt").read_text() for name in (GRADED, PLAIN)]
    assert models[0] != models[1]
    assert "[label_gain: 0,0.25,1,3," in models[0]
    assert stored(whole, "mixed-100-graded").height == 24 * 12
    bagged = stored(whole, "mixed-40-guard75-graded-bag2")
    assert {"weight", "grade"} < set(bagged.columns)
    metrics = pl.read_parquet(whole / "metrics.parquet")
    judged = metrics.group_by("arm").agg(pl.col("ndcg").null_count())
    assert judged["ndcg"].n_unique() == 1
    perfect = inspect(whole)
    assert {step["state"] for step in perfect["steps"]} == {"done"}


def test_another_gain_trains_the_graded_arms_alone(whole, tmp_path):
    """``select.hard_gain`` decides the gains and no choice."""
    events = []
    config = parse({**SMALL, "select": {"hard_gain": 0.5}})
    root = tmp_path / "run"
    root.mkdir()
    for file in sorted(whole.rglob("*")):
        target = root / file.relative_to(whole)
        target.mkdir() if file.is_dir() else target.write_bytes(file.read_bytes())
    given = {"config": config, "threads": 2, "arms": [GRADED, PLAIN]}
    run_pipeline(None, root, **given, progress=events.append)
    ran = {event.step for event in events if event.state == "done"}
    assert ran <= {f"model/{GRADED}", f"metrics/{GRADED}", "metrics", "summary", "report"}
    assert f"model/{GRADED}" in ran
    assert "[label_gain: 0,0.5,1,3," in (root / "models" / f"{GRADED}.txt").read_text()


@pytest.mark.parametrize(
    ("kind", "name"), [("letor", "train.grades"), ("lightgbm", "train.svm.grades")], ids=["letor", "lightgbm"]
)
def test_an_export_has_labels_and_grades(whole, tmp_path, kind, name):
    """Labels are as judged, a grade per line stands beside them, and a notice says what to do with it."""
    facts = export.run(whole, tmp_path / "out", arm=GRADED, kind=kind)
    rows = stored(whole, GRADED)
    assert np.loadtxt(tmp_path / "out" / name, dtype=np.int64).tolist() == rows["grade"].to_list()
    assert facts["notices"] == [
        f"labels are as judged; the arm trains on the grades in {name} instead, with LightGBM's"
        " label_gain=0,0.25,1,3,7"
    ]
    assert json.loads((tmp_path / "out" / "export.json").read_text())["notices"] == facts["notices"]
    if kind == "letor":
        found = pl.DataFrame(pa.Table.from_batches(read_letor(tmp_path / "out" / "train.txt.gz")))
        assert found["label"].to_list() == rows["label"].to_list()
    else:
        lines = (tmp_path / "out" / "train.svm").read_text().splitlines()
        assert [int(line.split()[0]) for line in lines] == rows["label"].to_list()
    plain = export.run(whole, tmp_path / "plain", arm=PLAIN, kind=kind)
    assert plain["notices"] == []
    assert not (tmp_path / "plain" / name).exists()


def test_inspect_counts_grades(whole):
    """A prepared set with grades is one of PREPARED, and has their counts beside those of the labels."""
    found = inspect(whole / "prepared" / GRADED)
    rows = stored(whole, GRADED)
    counts = rows.group_by("grade").agg(rows=pl.len()).sort("grade").to_dicts()
    assert found["contents"]["grades"] == counts
    assert sum(row["rows"] for row in found["contents"]["labels"]) == rows.height
    assert "grades" not in inspect(whole / "prepared" / PLAIN)["contents"]
