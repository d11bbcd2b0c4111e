"""`export`: each format is read back by the tool it is for, with the run's own numbers."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from flows.stages import run_pipeline
from pipeline.core.config import parse, read_toml
from pipeline.core.errors import ConfigError, StorageError, TableError
from pipeline.dataset import parts
from pipeline.dataset.letor import read_letor
from pipeline.dataset.sources import locate
from pipeline.export import formats as export
from pipeline.export import trec as export_trec
from pipeline.ranker.predict import predict
from pipeline.run.execute import Stage

MIXED = "mixed-40-guard75"


def stored(root: Path, arm: str) -> pl.DataFrame:
    """Return the rows an arm trains on."""
    where = root / "dataset" / "train" if arm == "all" else root / "prepared" / arm
    return pl.DataFrame(pa.concat_tables(parts.row_groups(sorted(where.glob("*.parquet")))))


# ---- LETOR ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["all", "random-40", MIXED])
def test_letor_text_is_the_prepared_set(small_run: Path, tmp_path: Path, arm: str) -> None:
    """Read back, train.txt.gz has the rows of the arm's set, bit for bit, and so have vali and test."""
    facts = export.run(small_run, tmp_path / "out", arm=arm, kind="letor")
    expected = stored(small_run, arm)
    found = pl.DataFrame(pa.Table.from_batches(read_letor(tmp_path / "out" / "train.txt.gz")))
    assert found.equals(expected.select(found.columns))
    assert facts["rows"] == {"train": expected.height, "vali": 144, "test": 144}
    source = locate(tmp_path / "out")
    assert (source.layout, [split.name for split in source.splits]) == ("splits", ["train", "vali", "test"])


def test_letor_weights_are_one_per_line(small_run: Path, tmp_path: Path) -> None:
    """The mixed arm's weights stand one per line in row order; an unweighted arm has no such file."""
    export.run(small_run, tmp_path / "mixed", arm=MIXED, kind="letor")
    export.run(small_run, tmp_path / "random", arm="random-40", kind="letor")
    lines = np.loadtxt(tmp_path / "mixed" / "train.weights", dtype=np.float32)
    assert lines.tolist() == stored(small_run, MIXED)["weight"].to_list()
    assert sorted(file.name for file in (tmp_path / "random").iterdir()) == [
        "export.json",
        "test.txt.gz",
        "train.txt.gz",
        "vali.txt.gz",
    ]


# ---- LightGBM ---------------------------------------------------------------------------------------------

PARAMETERS = {
    "objective": "lambdarank",
    "min_data_in_leaf": 5,
    "min_data_in_bin": 1,
    "num_leaves": 7,
    "verbosity": -1,
    "deterministic": True,
    "force_col_wise": True,
    "enable_bundle": False,
    "num_threads": 1,
}


def test_each_bag_is_a_training_set_of_its_own(small_run: Path, tmp_path: Path) -> None:
    """Of two bags there are two files, whose rows are those of the two parts, and a notice says what they are."""
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    arm = "mixed-40-guard75-bag2"
    config = parse(read_toml(run / "config.toml"))
    run_pipeline(None, run, config=config, arms=[arm], last_stage=Stage.TRAIN)
    facts = export.run(run, tmp_path / "out", arm=arm, kind="letor")
    names = ["train-1.txt.gz", "train-1.weights", "train-2.txt.gz", "train-2.weights"]
    assert [name for name in facts["files"] if name.startswith("train")] == names
    assert "its 2 training sets" in facts["notices"][0]
    for bag in (1, 2):
        part = pl.read_parquet(run / f"prepared/{arm}/part-{bag - 1:05}.parquet")
        assert facts["rows"][f"train-{bag}"] == part.height
        weights = (tmp_path / "out" / f"train-{bag}.weights").read_text().split()
        assert [float(weight) for weight in weights] == pytest.approx(part["weight"].to_list())


def in_memory(rows: pl.DataFrame) -> lgb.Dataset:
    """Return the data set LightGBM makes of the same rows without a file between."""
    features = rows.select("f1", "f2", "f3", "f4").to_numpy()
    weight = rows["weight"].to_numpy() if "weight" in rows.columns and (rows["weight"] != 1).any() else None
    group = rows["qid"].rle().struct.field("len").to_numpy()
    return lgb.Dataset(
        features, label=rows["label"].to_numpy(), group=group, weight=weight, params=PARAMETERS
    )


def binned(data: lgb.Dataset, file: Path) -> list[str]:
    """Return LightGBM's dump of the bins of every row, without the features' names."""
    data._dump_text(str(file))
    return [
        line for line in file.read_text().splitlines() if line.replace(",", "").replace(" ", "").isdigit()
    ]


@pytest.mark.parametrize("arm", ["all", "random-40", MIXED])
def test_lightgbm_loads_what_it_would_hold_in_memory(small_run: Path, tmp_path: Path, arm: str) -> None:
    """From train.svm and its side files LightGBM gets the labels, queries, weights and bins of the rows."""
    export.run(small_run, tmp_path / "out", arm=arm, kind="lightgbm")
    rows = stored(small_run, arm)
    read = lgb.Dataset(str(tmp_path / "out" / "train.svm"), params=PARAMETERS).construct()
    held = in_memory(rows).construct()
    assert (read.num_data(), read.num_feature()) == (rows.height, 4)
    assert read.get_label().tolist() == rows["label"].to_list()
    assert read.get_group().tolist() == held.get_group().tolist()
    if arm == MIXED:
        assert read.get_weight().tolist() == rows["weight"].to_list()
    else:
        assert read.get_weight() is None
    bins = binned(read, tmp_path / "read.txt")
    assert len(bins) == rows.height
    assert bins == binned(held, tmp_path / "held.txt")


def test_lightgbm_trains_the_same_trees_from_the_file(small_run: Path, tmp_path: Path) -> None:
    """A ranker trained from the files scores the test rows as one trained from memory."""
    export.run(small_run, tmp_path / "out", arm=MIXED, kind="lightgbm")
    read = lgb.train(PARAMETERS, lgb.Dataset(str(tmp_path / "out" / "train.svm"), params=PARAMETERS), 5)
    held = lgb.train(PARAMETERS, in_memory(stored(small_run, MIXED)), 5)
    test = pl.read_parquet(small_run / "dataset" / "test").select("f1", "f2", "f3", "f4").to_numpy()
    assert read.predict(test) == pytest.approx(held.predict(test), rel=1e-6)


def test_lightgbm_text_counts_features_from_zero_and_keeps_zeros(tmp_path: Path) -> None:
    """Rows of zeros are written out, missing values as nan, the first feature as 0."""
    columns = {
        "label": pa.array([0, 3], pa.uint8()),
        "qid": pa.array([1, 1]),
        "weight": pa.array([1.0, 2.0], pa.float32()),
    }
    features = {"f1": pa.array([0.0, 0.1], pa.float32()), "f2": pa.array([0.0, float("nan")], pa.float32())}
    batch = pa.RecordBatch.from_pydict({**columns, **features})
    assert export.svm_text(batch) == b"0 0:0 1:0\n3 0:0.1 1:nan\n"
    assert export.svm_text(batch.slice(1)) == b"3 0:0.1 1:nan\n"


# ---- TREC -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["vali", "test"])
def test_ir_measures_finds_the_runs_own_ndcg(small_run: Path, tmp_path: Path, split: str) -> None:
    """With exponential gains trec_eval gives METRICS' values on every query without a tie between labels."""
    ir_measures = pytest.importorskip("ir_measures")
    export.run(small_run, tmp_path / "out", arm=MIXED, kind="trec")
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "out" / f"{split}.qrels")))
    ranking = list(ir_measures.read_trec_run(str(tmp_path / "out" / f"{split}.run")))
    measure = ir_measures.nDCG(gains={label: 2**label - 1 for label in range(4)}) @ 10
    found = {int(m.query_id): m.value for m in ir_measures.pytrec_eval.iter_calc([measure], qrels, ranking)}
    metrics = pl.read_parquet(small_run / "metrics.parquet").filter(
        pl.col("split") == split, pl.col("cutoff") == 10, pl.col("arm") == MIXED, pl.col("ndcg").is_not_null()
    )
    scores = pl.DataFrame(
        [(d.query_id, d.doc_id, d.score) for d in ranking], schema=["qid", "docid", "score"], orient="row"
    )
    labels = pl.DataFrame(
        [(d.query_id, d.doc_id, d.relevance) for d in qrels], schema=["qid", "docid", "label"], orient="row"
    )
    tied = (
        scores.join(labels, on=["qid", "docid"])
        .group_by("qid", "score")
        .agg(pl.col("label").n_unique())
        .filter(pl.col("label") > 1)
    )
    free = metrics.filter(~pl.col("qid").is_in(tied["qid"].cast(int).implode()))
    ours = dict(free.select("qid", "ndcg").iter_rows())
    assert len(ours) >= 2
    assert {qid: found[qid] for qid in ours} == pytest.approx(ours, abs=1e-6)


def test_trec_files_have_every_row_once(small_run: Path, tmp_path: Path) -> None:
    """Each row is judged and ranked once; ranks count from 1 as scores fall; the tag is the arm."""
    export.run(small_run, tmp_path / "out", arm="random-40", kind="trec")
    read = {"has_header": False, "separator": " "}
    qrels = pl.read_csv(
        tmp_path / "out" / "test.qrels", new_columns=["qid", "zero", "docid", "label"], **read
    )
    ranked = pl.read_csv(
        tmp_path / "out" / "test.run", new_columns=["qid", "q0", "docid", "rank", "score", "tag"], **read
    )
    rows = pl.read_parquet(small_run / "dataset" / "test")
    assert (
        qrels.select("qid", "docid", "label").rows()
        == rows.select("qid", "doc_id", pl.col("label").cast(int)).rows()
    )
    assert set(ranked.select("qid", "docid").rows()) == set(qrels.select("qid", "docid").rows())
    for _, query in ranked.group_by("qid"):
        assert query["rank"].to_list() == list(range(1, 13))
        assert query["score"].is_sorted(descending=True)
    assert ranked["tag"].unique().to_list() == ["random-40"]
    scored = predict(
        [small_run / "models" / "random-40.txt"],
        [small_run / "dataset" / "test" / "part-00000.parquet"],
        threads=1,
    )
    assert sorted(ranked["score"]) == sorted(scored["score"])  # to the last bit


def test_ties_are_ranked_in_row_order() -> None:
    """Equal scores stand in the order of row_id, and queries in the order they come."""
    scored = pl.DataFrame(
        {"qid": ["b", "b", "b", "a"], "row_id": [3, 1, 2, 0], "score": [0.5, 0.5, 0.9, 0.1]}
    )
    assert export_trec.rank(scored).select("qid", "row_id", "rank").rows() == [
        ("b", 2, 1),
        ("b", 1, 2),
        ("b", 3, 3),
        ("a", 0, 1),
    ]


def test_document_ids_are_words_that_name_one_row() -> None:
    """A missing id becomes the row's, spaces become underscores, and ids that repeat in a query give way."""
    rows = pl.DataFrame({"row_id": [0, 1, 2], "qid": ["1", "1", "2"], "docid": ["a b", None, "a b"]})
    named, notices = export_trec.document_ids(rows, what="test")
    assert (named["docid"].to_list(), notices) == (["a_b", "row-1", "a_b"], [])
    twice, notices = export_trec.document_ids(rows.with_columns(qid=pl.lit("1")), what="test")
    assert twice["docid"].to_list() == ["row-0", "row-1", "row-2"]
    assert notices == [
        "test: a document id names two rows of one query; documents are called row-<row_id> instead"
    ]


def test_a_query_id_with_a_space_is_refused(small_run: Path, tmp_path: Path) -> None:
    """TREC files are words between spaces, so such a query id cannot stand in one."""
    part = tmp_path / "part-00000.parquet"
    rows = pl.read_parquet(small_run / "dataset" / "test").with_columns(qid=pl.lit("q 1")).drop("doc_id")
    rows.write_parquet(part)
    scored = predict([small_run / "models" / "all.txt"], [part], threads=1)
    with pytest.raises(TableError, match="test: query id 'q 1' has a space"):
        export_trec.write(scored, [part], tmp_path / "test", tag="all")


# ---- Folds, directories, mistakes -------------------------------------------------------------------------


def test_a_fold_is_named_where_there_are_several(folds_run: Path, tmp_path: Path) -> None:
    """Fold 2's set is that fold's own; no fold or an unknown one is refused with those there are."""
    export.run(folds_run, tmp_path / "out", arm="random-50", kind="letor", fold=2)
    found = pl.DataFrame(pa.Table.from_batches(read_letor(tmp_path / "out" / "train.txt.gz")))
    assert found.equals(stored(folds_run / "fold-2", "random-50").select(found.columns))
    with pytest.raises(ConfigError, match="folds 1 to 2; choose one with --fold"):
        export.run(folds_run, tmp_path / "none", arm="random-50", kind="letor")
    with pytest.raises(ConfigError, match="--fold 3: this run has folds 1 to 2"):
        export.run(folds_run, tmp_path / "none", arm="random-50", kind="letor", fold=3)
    with pytest.raises(
        StorageError, match=r"no model of all \(fold 1\) here; `ranksieve train .* --arms all` makes it"
    ):
        export.run(folds_run, tmp_path / "none", arm="all", kind="trec", fold=1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["letor", "lightgbm", "trec"])
def test_the_same_export_has_the_same_bytes(small_run: Path, tmp_path: Path, kind: export.Format) -> None:
    """An earlier export is replaced by equal bytes, whatever the thread count."""

    def fingerprints() -> dict[str, str]:
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (tmp_path / "out").iterdir()
        }

    export.run(small_run, tmp_path / "out", arm=MIXED, kind=kind)
    before = fingerprints()
    facts = export.run(small_run, tmp_path / "out", arm=MIXED, kind=kind, threads=2)
    assert fingerprints() == before
    assert sorted(before) == facts["files"]
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == facts


def test_a_directory_with_other_files_is_left_alone(small_run: Path, tmp_path: Path) -> None:
    """Files that no export wrote are never replaced; an empty directory may be."""
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds other files \(notes\.md\)"):
        export.run(small_run, tmp_path, arm="all", kind="letor")
    with pytest.raises(ConfigError, match="a file; name a directory"):
        export.run(small_run, tmp_path / "notes.md", arm="all", kind="letor")
    (tmp_path / "empty").mkdir()
    export.run(small_run, tmp_path / "empty", arm="random-40", kind="letor")
    (tmp_path / "empty" / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"holds other files \(mine\.txt\)"):
        export.run(small_run, tmp_path / "empty", arm="random-40", kind="letor")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def change_prepared(root: Path) -> None:
    """Change a byte of the prepared set."""
    part = root / "prepared" / "random-40" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-9] + b"changed!!")


def lose(name: str) -> Callable[[Path], None]:
    """Return a function that removes a file or directory of a run."""

    def remove(root: Path) -> None:
        (root / name).rename(root.with_name("lost"))

    return remove


def test_a_set_that_lost_one_of_its_parts_is_not_handed_over(small_run: Path, tmp_path: Path) -> None:
    """A part that a record names must be there, even where another part is."""
    root = Path(shutil.copytree(small_run, tmp_path / "run"))
    file = root / ".steps" / "prepared" / "random-40.json"
    record = json.loads(file.read_text())
    record["outputs"]["prepared/random-40/part-00001.parquet"] = "0" * 64
    file.write_text(json.dumps(record))
    with pytest.raises(StorageError, match=r"part-00001\.parquet: not there"):
        export.run(root, tmp_path / "out", arm="random-40", kind="letor")


@pytest.mark.parametrize(
    ("change", "kind", "error", "message"),
    [
        (change_prepared, "letor", StorageError, "not what the run wrote; `ranksieve train"),
        (lose("prepared/random-40"), "lightgbm", StorageError, "no prepared set of random-40"),
        (lose("models/random-40.txt"), "trec", StorageError, "no model of random-40"),
        (lose("dataset/dataset.json"), "trec", StorageError, r"no readable dataset\.json"),
        (lose("config.toml"), "trec", ConfigError, "not a run"),
        (lambda root: shutil.rmtree(root / ".steps"), "trec", ConfigError, "no arm is selected yet"),
    ],
)
def test_a_spoiled_run_is_not_handed_over(
    small_run: Path,
    tmp_path: Path,
    change: Callable[[Path], object],
    kind: export.Format,
    error: type[Exception],
    message: str,
) -> None:
    """What is missing or not what the run wrote is named in one line, and nothing is written."""
    root = Path(shutil.copytree(small_run, tmp_path / "run"))
    change(root)
    with pytest.raises(error, match=message) as caught:
        export.run(root, tmp_path / "out", arm="random-40", kind=kind)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_arm_or_format_names_the_nearest(small_run: Path, tmp_path: Path) -> None:
    """The arms offered are those the run has."""
    with pytest.raises(ConfigError, match=r"no arm 'mixed-40-guard57'\. Did you mean 'mixed-40-guard75'\?"):
        export.run(small_run, tmp_path / "out", arm="mixed-40-guard57", kind="letor")
    with pytest.raises(ConfigError, match=r"no arm 'x'\. There is: all, mixed-40-guard75, random-40"):
        export.run(small_run, tmp_path / "out", arm="x", kind="letor")
    with pytest.raises(ConfigError, match=r"Did you mean 'letor'\?"):
        export.run(small_run, tmp_path / "out", arm="all", kind="lettor")  # type: ignore[arg-type]


def test_progress_counts_the_rows_written(small_run: Path, tmp_path: Path) -> None:
    """The rows told add up to the rows of all splits."""
    told: list[int] = []
    facts = export.run(small_run, tmp_path / "out", arm="all", kind="lightgbm", advance=told.append)
    assert sum(told) == sum(facts["rows"].values()) == 288 + 144 + 144
