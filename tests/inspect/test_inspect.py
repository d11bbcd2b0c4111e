"""`inspect`: every table recognised, its figures right, and the state of a run told truly."""

import json
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from flows.cli.inspect_screen import show
from pipeline.core import tables
from pipeline.core.errors import ConfigError, SourceError, StorageError
from pipeline.inspect.look import inspect


def screen(facts: dict, width: int = 100) -> str:
    """Return what is shown, without colour."""
    out = StringIO()
    show(Console(file=out, width=width, no_color=True), facts)
    return out.getvalue()


def states(facts: dict) -> dict[str, str]:
    """Return each step that is not done, with its state."""
    return {step["name"]: step["state"] for step in facts["steps"] if step["state"] != "done"}


@pytest.fixture
def copied(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run, to be spoiled."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


# ---- A run ------------------------------------------------------------------------------------------------


def test_a_complete_run_has_nothing_left_to_do(small_run: Path) -> None:
    """Every step of a finished run is done, and its arms are those it was asked for."""
    facts = inspect(small_run)
    assert facts["kind"] == "run"
    assert states(facts) == {}
    assert facts["finish"] is None
    assert sorted(facts["arms"]) == ["all", "mixed-40-guard75", "random-40"]
    counts = {stage["stage"]: stage["steps"] for stage in facts["stages"]}
    assert counts == {
        "ingest": 1,
        "initial": 1,
        "scores": 1,
        "selection": 3,
        "prepared": 2,
        "model": 3,
        "metrics": 4,
        "summary": 1,
        "report": 1,
    }
    assert [Path(file["path"]).name for file in facts["source"]["files"]] == [
        "test.txt",
        "train.txt",
        "vali.txt",
    ]
    assert facts["unchecked"] == {"files": 0, "bytes": 0}


def test_steps_carry_their_seconds_and_peak_memory(small_run: Path) -> None:
    """The figures are those of the manifest, and the run's are their sum and maximum."""
    recorded = json.loads((small_run / "manifest.json").read_text())["steps"]
    facts = inspect(small_run)
    assert {s["name"]: s["seconds"] for s in facts["steps"]} == {n: r["seconds"] for n, r in recorded.items()}
    assert facts["seconds"] == pytest.approx(sum(record["seconds"] for record in recorded.values()))
    assert facts["peak_memory_mb"] == max(record["peak_memory_mb"] for record in recorded.values())


def test_spoiled_outputs_are_told_apart(copied: Path) -> None:
    """A changed byte is damage, a deleted file is missing, and both leave the other steps done."""
    model = copied / "models" / "random-40.txt"
    model.write_bytes(model.read_bytes().replace(b"tree", b"free", 1))
    (copied / "scores.parquet").unlink()
    facts = inspect(copied)
    assert states(facts) == {"model/random-40": "damaged", "scores": "missing"}
    assert facts["finish"] == f"ranksieve report {copied} --arms all,mixed-40-guard75,random-40"


def test_a_step_made_from_an_earlier_input_is_stale(copied: Path) -> None:
    """When the scores were made anew, what was selected by the old ones is stale."""
    file = copied / ".steps" / "selection" / "random-40.json"
    record = json.loads(file.read_text())
    record["inputs"]["scores"]["scores.parquet"] = "0" * 64
    file.write_text(json.dumps(record))
    assert states(inspect(copied)) == {"selection/random-40": "stale"}


def test_what_is_too_large_to_compare_is_said(small_run: Path) -> None:
    """With a limit of no bytes nothing is compared, and all outputs are counted as not compared."""
    facts = inspect(small_run, check_bytes=0)
    recorded = json.loads((small_run / "manifest.json").read_text())["steps"]
    outputs = {name for record in recorded.values() for name in record["outputs"]}
    assert facts["unchecked"]["files"] == len(outputs)
    assert facts["unchecked"]["bytes"] == sum((small_run / name).stat().st_size for name in outputs)
    assert "not compared" in screen(facts)


def test_an_unfinished_run_with_folds_lists_what_is_missing(folds_run: Path) -> None:
    """A run that ended after selection lacks each fold's models and metrics, the summary and the report."""
    facts = inspect(folds_run)
    missing = states(facts)
    assert set(missing.values()) == {"missing"}
    assert {"fold-1/model/all", "fold-2/metrics/random-50", "metrics", "summary", "report"} <= set(missing)
    assert not any("selection" in name or "prepared" in name for name in missing)
    assert (facts["folds"], facts["arms"], facts["summary"]) == (2, ["all", "random-50"], None)


def test_a_run_without_a_dataset_waits_for_its_source(tmp_path: Path) -> None:
    """A run that lost its dataset needs its source again; what comes behind depends on it."""
    (tmp_path / "config.toml").write_text("seed = 3\n")
    facts = inspect(tmp_path)
    assert {step["state"] for step in facts["steps"]} == {"missing"}
    assert facts["dataset"] is None
    assert facts["finish"] == f"ranksieve run SOURCE --out {tmp_path}"
    assert "1 missing" in screen(facts)


def test_a_run_whose_records_or_settings_are_damaged(copied: Path) -> None:
    """A step whose record cannot be read is missing; damaged settings are named, not shown as a traceback."""
    (copied / ".steps" / "summary.json").write_text("{")
    assert states(inspect(copied)) == {"summary": "missing"}
    (copied / "config.toml").write_text("seed = ")
    with pytest.raises(ConfigError, match=r"config\.toml: not a readable TOML file"):
        inspect(copied)


def test_a_damaged_summary_leaves_the_rest_readable(copied: Path) -> None:
    """Without a readable summary there is no table, but the state of the run is told."""
    (copied / "summary.parquet").write_bytes(b"PAR1 cut short")
    facts = inspect(copied)
    assert states(facts) == {"summary": "damaged"}
    assert facts["summary"] is None
    assert facts["verdict"] == []


# ---- A dataset and its parts ------------------------------------------------------------------------------


def test_a_dataset_counts_its_labels(small_run: Path) -> None:
    """Label counts add up to the rows, and those of label 0 to the negatives of dataset.json."""
    facts = inspect(small_run / "dataset")
    assert (facts["kind"], facts["features"], facts["qid"], facts["doc_id"]) == ("dataset", 4, "int64", True)
    assert [split["name"] for split in facts["splits"]] == ["train", "vali", "test"]
    assert [(s["rows"], s["queries"], s["longest"]) for s in facts["splits"]] == [
        (288, 24, 12),
        (144, 12, 12),
        (144, 12, 12),
    ]
    for split in facts["splits"]:
        counts = {row["label"]: row["rows"] for row in split["labels"]}
        assert sum(counts.values()) == split["rows"]
        assert counts[0] == split["negatives"]
        assert split["negatives_fraction"] == counts[0] / split["rows"]
    assert facts["problems"] == []


def test_a_dataset_that_lost_rows_or_parts_says_so(copied: Path) -> None:
    """Parts that are shorter than dataset.json says, gone or damaged are problems, one line each."""
    dataset = copied / "dataset"
    pq.write_table(
        pq.read_table(dataset / "train" / "part-00000.parquet").slice(0, 280),
        dataset / "train" / "part-00000.parquet",
    )
    shutil.rmtree(dataset / "vali")
    (dataset / "test" / "part-00000.parquet").write_bytes(b"PAR1")
    problems = inspect(dataset)["problems"]
    assert [line.partition(": ")[2].split(" (")[0] for line in problems] == [
        "280 rows, but dataset.json says 288",
        "no parts; ingest the source again",
        "a damaged or unreadable Parquet file",
    ]
    (dataset / "dataset.json").write_text('{"splits": 1}')
    with pytest.raises(StorageError, match=r"not a readable dataset\.json"):
        inspect(dataset)


def test_parts_are_one_table(tmp_path: Path) -> None:
    """Figures are those of all parts together, also of a query that goes on in the next."""
    schema = tables.judgments(3, qid=tables.QID_TEXT, doc_id=False)
    for number, (qid, label) in enumerate([(["a", "a", "b"], [0, 2, 0]), (["b", "b"], [0, 1])]):
        columns = {
            "row_id": range(len(qid)),
            "qid": qid,
            "label": label,
            **dict.fromkeys(["f1", "f2", "f3"], [0.5] * len(qid)),
        }
        pq.write_table(
            pa.table({k: list(v) for k, v in columns.items()}, schema=schema),
            tmp_path / f"part-{number:05d}.parquet",
        )
    facts = inspect(tmp_path)
    assert (facts["kind"], facts["table"], facts["rows"], facts["row_groups"]) == ("parts", "JUDGMENTS", 5, 2)
    contents = facts["contents"]
    assert (contents["queries"], contents["longest"], contents["negatives"]) == (2, 3, 3)
    assert contents["queries_without_positive"] == 0
    assert contents["labels"] == [{"label": 0, "rows": 3}, {"label": 1, "rows": 1}, {"label": 2, "rows": 1}]
    assert [column["name"] for column in facts["columns"]] == ["row_id", "qid", "label", "f1..f3"]
    pq.write_table(pa.table({"other": [1]}), tmp_path / "part-00002.parquet")
    with pytest.raises(SourceError, match=r"part-00002\.parquet: its columns differ"):
        inspect(tmp_path)


def test_a_directory_of_tables_lists_them(small_run: Path) -> None:
    """Selections of different arms are not parts of one table: each is named with its rows."""
    facts = inspect(small_run / "selection")
    assert facts["kind"] == "files"
    assert {(file["name"], file["table"], file["rows"]) for file in facts["files"]} == {
        (f"{arm}.parquet", "SELECTION", 288) for arm in ("all", "random-40", "mixed-40-guard75")
    }


# ---- Tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("scores.parquet", "SCORES"),
        ("metrics.parquet", "METRICS"),
        ("summary.parquet", "SUMMARY"),
        ("selection/all.parquet", "SELECTION"),
        ("metrics/all.parquet", "METRICS"),
        ("prepared/random-40/part-00000.parquet", "PREPARED"),
        ("dataset/test/part-00000.parquet", "JUDGMENTS"),
    ],
)
def test_every_table_is_recognised_by_its_columns(small_run: Path, name: str, table: str) -> None:
    """A file is recognised by its columns, its facts are JSON, and all of them fit on the screen."""
    facts = inspect(small_run / name)
    assert (facts["kind"], facts["table"]) == ("file", table)
    assert facts["rows"] == pq.read_metadata(small_run / name).num_rows
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert table in screen(facts)


def test_selection_counts_reasons(small_run: Path) -> None:
    """Rows by reason, kept rows and the sum of weights agree with the table itself."""
    file = small_run / "selection" / "mixed-40-guard75.parquet"
    contents, rows = inspect(file)["contents"], pl.read_parquet(file)
    assert {row["reason"]: row["rows"] for row in contents["reasons"]} == dict(
        rows["reason"].value_counts().iter_rows()
    )
    assert contents["kept"] == rows["kept"].sum()
    assert contents["weight"] == pytest.approx(rows.filter("kept")["weight"].cast(pl.Float64).sum())
    assert contents["negatives_kept"] == rows.filter(pl.col("label") == 0, "kept").height


def test_scores_have_quantiles_by_label(small_run: Path) -> None:
    """Quantiles are NumPy's, each label's on its own."""
    file = small_run / "scores.parquet"
    rows = pl.read_parquet(file)
    for row in inspect(file)["contents"]["labels"]:
        values = rows.filter(pl.col("label") == row["label"])["score"].to_numpy()
        expected = np.quantile(values, [float(q) for q in row["quantiles"]])
        assert list(row["quantiles"].values()) == pytest.approx(list(expected))
        assert row["rows"] == len(values)


def test_metrics_are_averaged_without_empty_queries(tmp_path: Path) -> None:
    """The mean is over queries with a relevant document, and the others are counted."""
    rows = [("all", "test", 1, 1, 10, 0.5), ("all", "test", 1, 2, 10, None), ("all", "test", 1, 3, 10, 1.0)]
    names = ["arm", "split", "fold", "qid", "cutoff", "ndcg"]
    table = pl.DataFrame(rows, schema=names, orient="row").to_arrow().cast(tables.metrics(qid=tables.QID_INT))
    pq.write_table(table, tmp_path / "m.parquet")
    facts = inspect(tmp_path / "m.parquet")
    assert facts["contents"]["means"] == [
        {"arm": "all", "split": "test", "cutoff": 10, "ndcg": 0.75, "queries": 3, "queries_empty": 1}
    ]


def test_weights_of_a_prepared_set_are_summed(small_run: Path) -> None:
    """The weights' sum, least and largest are those of the column."""
    part = small_run / "prepared" / "mixed-40-guard75" / "part-00000.parquet"
    weight = pl.read_parquet(part, columns=["weight"])["weight"].cast(pl.Float64)
    weights = inspect(part.parent)["contents"]["weights"]
    assert weights == pytest.approx({"sum": weight.sum(), "smallest": weight.min(), "largest": weight.max()})


def test_an_unknown_file_shows_columns_and_first_rows(tmp_path: Path) -> None:
    """A Parquet file of another kind shows its columns and first five rows; values JSON lacks are text."""
    frame = pl.DataFrame(
        {"qid": ["x"] * 7, "label": ["yes"] * 7, "v": [float("nan"), float("inf"), 1.5, None, 2, 3, 4]}
    )
    frame.with_columns(day=pl.date(2024, 5, 17)).write_parquet(tmp_path / "other.parquet")
    facts = inspect(tmp_path / "other.parquet")
    assert (facts["table"], facts["rows"]) == (None, 7)
    assert [column["name"] for column in facts["columns"]] == ["qid", "label", "v", "day"]
    assert [row["v"] for row in facts["first"]] == ["nan", "inf", 1.5, None, 2.0]
    assert facts["first"][0]["day"] == "2024-05-17"
    assert "does not know" in screen(facts)


def test_an_empty_table_is_no_error(tmp_path: Path) -> None:
    """A table with no rows has zero of everything."""
    schema = tables.judgments(2, qid=tables.QID_INT, doc_id=True)
    pq.write_table(schema.empty_table(), tmp_path / "none.parquet")
    facts = inspect(tmp_path / "none.parquet")
    assert (facts["rows"], facts["first"], facts["contents"]["queries"]) == (0, [], 0)
    assert "no rows" in screen(facts)


# ---- The screen and mistakes ------------------------------------------------------------------------------


def test_the_recommended_arm_is_marked_in_plain_text(small_run: Path) -> None:
    """Without colour or bold the recommended arm still has its star."""
    facts = inspect(small_run)
    chosen = next(row["arm"] for row in facts["summary"] if row["recommended"])
    assert f"* {chosen}" in screen(facts)


def test_mistakes_are_one_clear_line(tmp_path: Path, small_run: Path) -> None:
    """A path that is not there, text, an empty or damaged file, an odd directory: each says what it is."""
    (tmp_path / "letor.txt").write_text("1 qid:1 1:0.5\n")
    (tmp_path / "empty.parquet").touch()
    whole = (small_run / "scores.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "notes.md").touch()
    for name, kind, message in (
        ("gone", SourceError, "no such file or directory"),
        ("letor.txt", SourceError, "not a Parquet file"),
        ("empty.parquet", SourceError, "an empty file"),
        ("cut.parquet", StorageError, "damaged"),
        ("odd", SourceError, r"it has: notes\.md"),
    ):
        with pytest.raises(kind, match=message) as caught:
            inspect(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_damaged_data_behind_a_good_footer_is_one_line(tmp_path: Path) -> None:
    """A file whose pages are overwritten is reported as damaged, whatever reads it."""
    schema = tables.scores(qid=tables.QID_INT)
    rows = {
        "row_id": range(5000),
        "qid": [1] * 5000,
        "label": [0] * 5000,
        "score": np.random.default_rng(1).random(5000),
        "fold": [0] * 5000,
    }
    file = tmp_path / "scores.parquet"
    pq.write_table(pa.table({k: list(v) for k, v in rows.items()}, schema=schema), file, compression="zstd")
    content = bytearray(file.read_bytes())
    content[4 : len(content) - 4000] = b"\xff" * (len(content) - 4004)
    file.write_bytes(content)
    with pytest.raises(StorageError, match="damaged Parquet data"):
        inspect(file)


def test_other_files_of_a_run_point_to_their_directory(small_run: Path) -> None:
    """Someone who names manifest.json is told to name the run."""
    with pytest.raises(SourceError, match="inspect its directory instead"):
        inspect(small_run / "manifest.json")
