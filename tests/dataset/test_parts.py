"""Parts on disk: whole queries per row group, the schema's types, and bytes that depend on the rows alone."""

from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import tables
from pipeline.core.errors import StorageError
from pipeline.dataset import parts
from tests.samples import judgments, schema_for, write_part


def write_in_pieces(path, frame, cuts, **options):
    """Write ``frame`` in tables cut at the given rows."""
    schema = schema_for(frame)
    table = parts.conform(frame.to_arrow(), schema)
    with parts.PartWriter(path, schema, **options) as writer:
        for start, end in pairwise([0, *sorted(cuts), frame.height]):
            writer.write(table.slice(start, end - start))


def group_queries(path):
    """Return the queries of each row group."""
    return [table["qid"].to_pylist() for table in parts.row_groups([path], columns=["qid"])]


@pytest.mark.parametrize(
    ("features", "rows"), [(136, 38_550), (700, 7_489), (1, 131_072), (0, 131_072), (100_000, 1_024)]
)
def test_row_groups_aim_at_20_mib_of_features(features, rows):
    """136 float32 features: 38,550 rows are 20 MiB; few or many features stay within bounds."""
    assert parts.rows_per_group(features) == rows


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_row_groups_hold_whole_queries_however_rows_arrive(tmp_path_factory, data):
    """Any cut of the rows into tables gives the same bytes; a group ends with the query that fills it."""
    where = tmp_path_factory.mktemp("parts")
    sizes = data.draw(st.lists(st.integers(1, 25), min_size=1, max_size=12))
    n = sum(sizes)
    frame = judgments(1, n).with_columns(qid=pl.Series(np.repeat(np.arange(len(sizes)), sizes)))
    cuts = data.draw(st.lists(st.integers(0, n), max_size=6))
    write_in_pieces(where / "whole", frame, [], rows=20)
    write_in_pieces(where / "pieces", frame, cuts, rows=20)
    write_in_pieces(where / "background", frame, cuts, rows=20, background=True)
    assert (where / "whole").read_bytes() == (where / "pieces").read_bytes()
    assert (where / "whole").read_bytes() == (where / "background").read_bytes()
    expected, group = [], []
    for query, size in enumerate(sizes):
        group = group + [query] * size
        if len(group) >= 20:
            expected.append(group)
            group = []
    assert group_queries(where / "whole") == expected + ([group] if group else [])


def test_a_query_longer_than_two_groups_stays_whole(tmp_path):
    """A query that arrives in many tables is one row group."""
    frame = judgments(1, 100).vstack(judgments(1, 5, first_qid=2))
    write_in_pieces(tmp_path / "part", frame, range(5, 105, 5), rows=10)
    assert [len(group) for group in group_queries(tmp_path / "part")] == [100, 5]


def test_round_trip(tmp_path):
    """Rows and schema come back as they went in, text ids and documents included."""
    frame = judgments().with_columns(pl.col("qid").cast(pl.String), doc_id=pl.col("row_id").cast(pl.String))
    frame = frame.select("row_id", "qid", "label", "doc_id", "f1", "f2", "f3", "f4")
    path = write_part(tmp_path / "part.parquet", frame)
    assert parts.schema_of([path]).equals(tables.judgments(4, qid=pa.string(), doc_id=True))
    assert pl.read_parquet(path).equals(frame)
    assert parts.read_keys([path, path]).equals(pl.concat([frame, frame]).select("row_id", "qid", "label"))


def test_no_rows_are_a_file_too(tmp_path):
    """A part without rows can be read like any other."""
    path = write_part(tmp_path / "part.parquet", judgments().head(0))
    assert parts.read_keys([path]).height == 0
    assert parts.schema_of([path]).equals(schema_for(judgments()))
    assert [table.num_rows for table in parts.row_groups([path])] == [0]


def test_encodings_follow_the_values(tmp_path):
    """256 values are few and get a dictionary; of 257 in 600 rows most come twice, of 301 one in two does not."""
    n = 600
    frame = judgments(1, n).with_columns(
        f1=pl.Series(np.arange(n) % 256, dtype=pl.Float32),
        f2=pl.Series(np.arange(n) % 257, dtype=pl.Float32),
        f3=pl.Series(np.arange(n) % 301, dtype=pl.Float32),
    )
    path = write_part(tmp_path / "part.parquet", frame)
    group = pq.ParquetFile(path).metadata.row_group(0)
    encodings = {
        group.column(i).path_in_schema: set(group.column(i).encodings) for i in range(group.num_columns)
    }
    assert "RLE_DICTIONARY" in encodings["f1"]
    assert "BYTE_STREAM_SPLIT" not in encodings["f2"]
    assert "BYTE_STREAM_SPLIT" in encodings["f3"]
    assert "RLE_DICTIONARY" not in encodings["f2"] | encodings["f3"] | encodings["row_id"]
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


def test_nothing_is_finished_after_an_error(tmp_path):
    """Rows that wait when the body fails are not written as if all were well."""
    schema = schema_for(judgments())

    def fail():
        with parts.PartWriter(tmp_path / "part", schema) as writer:
            writer.write(parts.conform(judgments().to_arrow(), schema))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("rows", [10, 1000])
def test_what_fails_in_the_background_fails_the_writer(tmp_path, rows):
    """An error in the thread that writes is raised, whether more rows follow or the file ends."""
    with pytest.raises(FileNotFoundError):
        write_in_pieces(
            tmp_path / "nowhere" / "part",
            judgments(10, 10),
            range(10, 100, 10),
            rows=rows,
            background=True,
        )


def test_conform_fills_what_is_not_there():
    """A missing feature is the fill value, a missing document null, and columns take the schema's order."""
    frame = judgments(1, 3).select("label", "f2", "row_id", "qid")
    schema = tables.judgments(3, qid=pa.string(), doc_id=True)
    table = parts.conform(frame.to_arrow(), schema, fill=float("nan"))
    assert table.schema.equals(schema)
    assert table["qid"].to_pylist() == ["1", "1", "1"]
    assert table["doc_id"].to_pylist() == [None] * 3
    assert np.isnan(table["f1"].to_numpy()).all()
    assert table["f2"].to_pylist() == frame["f2"].to_list()
    assert parts.conform(frame.to_arrow(), schema)["f3"].to_pylist() == [0.0] * 3


def test_conform_refuses_what_does_not_fit():
    """A label that is no byte is an error, not a wrapped number."""
    frame = judgments(1, 2).with_columns(label=pl.Series([0, 300], dtype=pl.Int64))
    with pytest.raises(pa.ArrowInvalid, match="300"):
        parts.conform(frame.to_arrow(), schema_for(judgments()))


def test_split_files_are_in_order(tmp_path):
    """Parts come by split in the given order, then by number; other files are no parts."""
    for name in ("b/part-00001", "b/part-00000", "a/part-00000"):
        write_part(tmp_path / f"{name}.parquet", judgments(1, 2))
    (tmp_path / "a" / "notes.txt").write_text("")
    found = [str(file.relative_to(tmp_path)) for file in parts.split_files(tmp_path, ["b", "a"])]
    assert found == ["b/part-00000.parquet", "b/part-00001.parquet", "a/part-00000.parquet"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not there; run the earlier stage again"), (b"PAR1 or not", "not a readable Parquet file")],
)
def test_a_missing_or_damaged_part(tmp_path, content, message):
    """Both are storage errors of one line that name the file."""
    path = tmp_path / "part-00000.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        parts.read_keys([path])
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
