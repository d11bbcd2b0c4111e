"""The prepared set: the kept rows, their weights, their order, their bytes."""

import polars as pl
import pytest

from pipeline.core import tables
from pipeline.core.config import SelectConfig
from pipeline.core.errors import TableError
from pipeline.dataset import parts
from pipeline.negatives import prepare, select
from pipeline.negatives.arms import parse
from tests.samples import judgments, schema_for, write_part

CONFIG = SelectConfig()


def selection_of(frame, name):
    """Return SELECTION of an arm, scores being ``f1``."""
    scores = frame.select("row_id", "qid", "label", pl.col("f1").cast(pl.Float64).alias("score"))
    return select.select(scores, parse(name), config=CONFIG, seed=1)


def write_selection(path, selection):
    """Write SELECTION."""
    text = selection["qid"].dtype == pl.String
    parts.write_table(path, selection, tables.selection(qid=tables.QID_TEXT if text else tables.QID_INT))


def test_by_hand():
    """Rows 1 and 3 are kept, in the order of the judgments, with their weights; the rest goes."""
    frame = judgments(1, 4)
    chosen = pl.DataFrame({"row_id": [3, 1], "weight": pl.Series([2.5, 1.0], dtype=pl.Float32)})
    table = prepare.prepare(parts.conform(frame.to_arrow(), schema_for(frame)), chosen)
    assert table.schema.equals(tables.with_training(schema_for(frame), graded=False))
    assert table["row_id"].to_pylist() == [1, 3]
    assert table["weight"].to_pylist() == [1.0, 2.5]
    assert table["f2"].to_pylist() == frame["f2"].gather([1, 3]).to_list()


@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
@pytest.mark.parametrize("name", ["mixed-20-guard75", "all", "top-5"])
def test_run_is_a_filter_and_a_join(tmp_path, name, text):
    """Over several parts, the set is the judgments joined with the kept rows, queries together."""
    frame = judgments(30, 20)
    frame = frame.with_columns(doc_id=pl.lit("d")) if text else frame
    frame = frame.with_columns(pl.col("qid").cast(pl.String)) if text else frame
    files = [
        write_part(tmp_path / "part-00000.parquet", frame.head(240)),
        write_part(tmp_path / "part-00001.parquet", frame.tail(360)),
    ]
    selection = selection_of(frame, name)
    write_selection(tmp_path / "selection.parquet", selection.sample(fraction=1.0, shuffle=True, seed=3))
    facts = prepare.run(files, tmp_path / "selection.parquet", tmp_path / "out")
    made = pl.read_parquet(tmp_path / "out" / "part-00000.parquet")
    expected = frame.with_columns(weight=selection["weight"]).filter(selection["kept"])
    assert made.equals(expected.select(made.columns))
    assert facts == {"rows": expected.height}
    assert parts.schema_of([tmp_path / "out" / "part-00000.parquet"]).equals(
        tables.with_training(schema_for(frame), graded=False)
    )


def test_bytes_follow_from_the_rows(tmp_path):
    """Row groups and parts of the judgments leave no trace in the prepared set."""
    frame = judgments(30, 20)
    write_selection(tmp_path / "selection.parquet", selection_of(frame, "mixed-20-guard75"))
    one = [write_part(tmp_path / "one.parquet", frame)]
    two = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, rows in zip(two, (frame.head(40), frame.tail(560)), strict=True):
        with parts.PartWriter(path, schema_for(frame), rows=50) as writer:
            writer.write(parts.conform(rows.to_arrow(), schema_for(frame)))
    assert len(list(parts.row_groups(two))) > 5
    for files, out in ((one, "x"), (two, "y"), (one, "z")):
        prepare.run(files, tmp_path / "selection.parquet", tmp_path / out)
    x, y, z = ((tmp_path / out / "part-00000.parquet").read_bytes() for out in "xyz")
    assert x == y == z


def test_a_prepared_set_is_compressed_as_the_dataset_is(tmp_path):
    """LZ4 in, LZ4 out."""
    frame = judgments(30, 20)
    schema = schema_for(frame)
    with parts.PartWriter(tmp_path / "one.parquet", schema, compression="lz4") as writer:
        writer.write(parts.conform(frame.to_arrow(), schema))
    write_selection(tmp_path / "selection.parquet", selection_of(frame, "random-20"))
    prepare.run([tmp_path / "one.parquet"], tmp_path / "selection.parquet", tmp_path / "out")
    assert parts.compression_of([tmp_path / "out" / "part-00000.parquet"]) == "lz4"


def test_a_selection_of_other_data_is_refused(tmp_path):
    """Kept rows that the split does not have are counted, with what to do."""
    frame = judgments(2, 10)
    write_selection(tmp_path / "selection.parquet", selection_of(frame, "all"))
    files = [write_part(tmp_path / "part.parquet", frame.head(15))]
    with pytest.raises(
        TableError, match=r"keeps 20 rows, of which 15 are in the training split; select again"
    ):
        prepare.run(files, tmp_path / "selection.parquet", tmp_path / "out")
