"""A SOURCE becomes a dataset: splits, missing values, Parquet sources, and what is wrong with them."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.config import IngestConfig, SplitConfig
from pipeline.core.errors import RanksieveError, SourceError, StorageError, TableError
from pipeline.core.files import atomic_write
from pipeline.dataset import ingest, parquet, parts
from pipeline.dataset.sources import locate
from tests.filesystem import small_disk

ROWS = "2 qid:10 1:0.5 2:1 #docid = a\n0 qid:10 1:0.25 2:0 #docid = b\n1 qid:20 1:4 #docid = c\n"
NAN = float("nan")


def run(source: Path, out: Path, *, threads: int = 1, seed: int = 1, **settings: Any) -> dict[str, Any]:
    """Ingest ``source`` into ``out``."""
    return ingest.run(
        locate(source), out, config=IngestConfig(**settings), split=SplitConfig(), seed=seed, threads=threads
    )


def read(dataset: Path, split: str) -> pl.DataFrame:
    """All rows of a split."""
    return pl.concat([pl.read_parquet(file) for file in parts.split_files(dataset, [split])])


def write_splits(root: Path, **texts: str) -> Path:
    """Write LETOR text under each split's name; returns ``root``."""
    for name, text in texts.items():
        path = root / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def queries(count: int, *, first: int = 1, rows: int = 2) -> str:
    """Return text with so many queries; label 1 for the first row of each, feature 1 counts the rows."""
    return "".join(
        f"{int(row == 0)} qid:{query} 1:{query * rows + row}\n"
        for query in range(first, first + count)
        for row in range(rows)
    )


# ---- The dataset -----------------------------------------------------------------------------------------


def test_splits_by_hand(tmp_path: Path) -> None:
    """Three files become three splits of one schema; rows keep their order and count from 0 in each."""
    other = "1 qid:7 3:2\n"
    source = write_splits(tmp_path / "data", train=ROWS, vali=other, test=other.replace("7", "8"))
    document = run(source, tmp_path / "out")
    assert read(tmp_path / "out", "train").to_dicts() == [
        {"row_id": 0, "qid": 10, "label": 2, "doc_id": "a", "f1": 0.5, "f2": 1.0, "f3": 0.0},
        {"row_id": 1, "qid": 10, "label": 0, "doc_id": "b", "f1": 0.25, "f2": 0.0, "f3": 0.0},
        {"row_id": 2, "qid": 20, "label": 1, "doc_id": "c", "f1": 4.0, "f2": 0.0, "f3": 0.0},
    ]
    assert read(tmp_path / "out", "vali").to_dicts() == [
        {"row_id": 0, "qid": 7, "label": 1, "doc_id": None, "f1": 0.0, "f2": 0.0, "f3": 2.0}
    ]
    assert document == {
        "layout": "splits",
        "features": 3,
        "qid": "int64",
        "doc_id": True,
        "splits": {
            "train": {"rows": 3, "queries": 2, "negatives": 1, "longest": 2, "queries_without_positive": 0},
            "vali": {"rows": 1, "queries": 1, "negatives": 0, "longest": 1, "queries_without_positive": 0},
            "test": {"rows": 1, "queries": 1, "negatives": 0, "longest": 1, "queries_without_positive": 0},
        },
        "notices": [],
    }
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == document
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*"))
    assert files == ["dataset.json", *(f"{split}/part-00000.parquet" for split in ("test", "train", "vali"))]


def test_schema_is_the_contract(tmp_path: Path) -> None:
    """Types as documented, nothing nullable but the document id."""
    run(write_splits(tmp_path / "data", train=ROWS, vali=ROWS, test=ROWS), tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out" / "train" / "part-00000.parquet")
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        ("row_id", "int64", False),
        ("qid", "int64", False),
        ("label", "uint8", False),
        ("doc_id", "string", True),
        ("f1", "float", False),
        ("f2", "float", False),
    ]


def test_a_query_without_positives_is_counted(tmp_path: Path) -> None:
    """Of two queries one has label 0 only."""
    run(
        write_splits(tmp_path / "d", train="0 qid:1 1:1\n0 qid:1 1:2\n3 qid:2 1:1\n", test=ROWS, vali=ROWS),
        tmp_path / "o",
    )
    document = json.loads((tmp_path / "o" / "dataset.json").read_text())
    assert document["splits"]["train"]["queries_without_positive"] == 1


def test_one_text_id_anywhere_makes_all_ids_text(tmp_path: Path) -> None:
    """The type of the query id is that of the whole source."""
    run(write_splits(tmp_path / "d", train=ROWS, vali="1 qid:v1 1:1\n", test=ROWS), tmp_path / "o")
    assert read(tmp_path / "o", "train")["qid"].to_list() == ["10", "10", "20"]
    assert read(tmp_path / "o", "vali")["qid"].to_list() == ["v1"]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", None)],
)
def test_compressed_files_give_the_same_dataset(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes] | None
) -> None:
    """Compression is no part of the data."""
    data = ROWS.encode()
    plain = write_splits(tmp_path / "plain", train=ROWS, vali=ROWS, test=ROWS)
    (tmp_path / "packed").mkdir()
    for split in ("train", "vali", "test"):
        packed = compress(data) if compress else pa.compress(data, codec="zstd", asbytes=True)
        (tmp_path / "packed" / f"{split}.txt{suffix}").write_bytes(packed)
    assert run(plain, tmp_path / "a") == run(tmp_path / "packed", tmp_path / "b")
    for split in ("train", "vali", "test"):
        name = f"{split}/part-00000.parquet"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("compression", "stored"), [("zstd", "ZSTD"), ("lz4", "LZ4"), ("none", "UNCOMPRESSED")]
)
def test_compression_is_a_setting(tmp_path: Path, compression: str, stored: str) -> None:
    """Every column is compressed as asked; the rows are the same; bytes are only split where it compresses."""
    lines = "".join(f"{i % 2} qid:{i // 4} 1:{i / 7} 2:{i % 3}\n" for i in range(2400))
    (tmp_path / "all.txt").write_text(lines)
    run(tmp_path / "all.txt", tmp_path / "plain")
    run(tmp_path / "all.txt", tmp_path / "out", compression=compression)
    for name in ("train", "vali", "test"):
        [one], [other] = (parts.split_files(tmp_path / out, [name]) for out in ("plain", "out"))
        assert pq.read_table(one).equals(pq.read_table(other))
        group = pq.ParquetFile(other).metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
        assert {column.compression for column in columns.values()} == {stored}
        assert ("BYTE_STREAM_SPLIT" in columns["f1"].encodings) == (compression != "none")
        assert parts.compression_of([other]) == compression


def test_progress_adds_up_to_the_size_of_the_files(tmp_path: Path) -> None:
    """A bar that counts source bytes arrives at its end."""
    source = write_splits(tmp_path / "d", train=queries(50), vali=ROWS, test=ROWS)
    told: list[int] = []
    ingest.run(
        locate(source),
        tmp_path / "o",
        config=IngestConfig(),
        split=SplitConfig(),
        seed=1,
        advance=told.append,
    )
    assert sum(told) == sum(path.stat().st_size for path in source.iterdir())


# ---- Splits, folds, partitions, one file -----------------------------------------------------------------


def test_partitions_share_one_numbering(tmp_path: Path) -> None:
    """A fold trains on three partitions, so a row id must not be in two of them."""
    texts = {f"S{n}": queries(n, first=10 * n) for n in range(1, 6)}
    document = run(write_splits(tmp_path / "d", **texts), tmp_path / "o")
    ids = [read(tmp_path / "o", f"S{n}")["row_id"] for n in range(1, 6)]
    assert pl.concat(ids).to_list() == list(range(30))
    assert [split["queries"] for split in document["splits"].values()] == [1, 2, 3, 4, 5]


def test_a_query_in_two_partitions_is_refused(tmp_path: Path) -> None:
    """A fold that trains on both would take two queries for one."""
    texts = {f"S{n}": queries(2, first=10 * n) for n in range(1, 6)}
    texts["S4"] += "0 qid:21 1:5\n"
    with pytest.raises(SourceError, match="query 21 is in S2 and in S4"):
        run(write_splits(tmp_path / "d", **texts), tmp_path / "o")


def test_folds_are_ingested_fold_by_fold(tmp_path: Path) -> None:
    """Each fold's splits stand under its name; a fold without vali holds it out of its train."""
    texts = {
        "Fold1/train": queries(4),
        "Fold1/vali": queries(2, first=10),
        "Fold1/test": queries(2, first=20),
        "Fold2/train": queries(10),
        "Fold2/test": queries(2, first=30),
    }
    document = run(write_splits(tmp_path / "d", **texts), tmp_path / "o")
    assert {name: split["queries"] for name, split in document["splits"].items()} == {
        "Fold1/train": 4,
        "Fold1/vali": 2,
        "Fold1/test": 2,
        "Fold2/train": 8,
        "Fold2/vali": 2,
        "Fold2/test": 2,
    }
    assert document["notices"] == ["train.txt was split by query: 8 train, 2 vali"]


def test_one_file_is_split_by_query(tmp_path: Path) -> None:
    """Of 20 queries a fifth each goes to vali and test; row ids are those of the file."""
    (tmp_path / "data.txt").write_text(queries(20))
    document = run(tmp_path / "data.txt", tmp_path / "o")
    assert {name: split["queries"] for name, split in document["splits"].items()} == {
        "train": 12,
        "vali": 4,
        "test": 4,
    }
    assert document["notices"] == ["data.txt was split by query: 12 train, 4 vali, 4 test"]
    frames = [read(tmp_path / "o", name) for name in ("train", "vali", "test")]
    assert pl.concat(frames)["row_id"].sort().to_list() == list(range(40))
    for frame in frames:  # row n of the file has n + 2 as its feature
        assert (frame["f1"] == frame["row_id"] + 2).all()


def test_the_seed_decides_who_is_held_out(tmp_path: Path) -> None:
    """The same seed gives the same split, another one another."""
    (tmp_path / "data.txt").write_text(queries(40))
    held = []
    for number, seed in enumerate((1, 1, 2)):
        run(tmp_path / "data.txt", tmp_path / str(number), seed=seed)
        held.append(read(tmp_path / str(number), "test")["qid"].unique().sort().to_list())
    assert held[0] == held[1] != held[2]


def test_too_few_queries_to_split(tmp_path: Path) -> None:
    """Two queries cannot train, validate and test."""
    (tmp_path / "data.txt").write_text(queries(2))
    with pytest.raises(SourceError, match="2 queries are too few to hold out vali and test"):
        run(tmp_path / "data.txt", tmp_path / "o")


def test_queries_in_training_and_test_are_told(tmp_path: Path) -> None:
    """A leak, or files that number their queries anew: the user should know."""
    source = write_splits(
        tmp_path / "d", train=queries(5), vali=queries(3, first=10), test=queries(4, first=4)
    )
    assert run(source, tmp_path / "o")["notices"] == [
        "2 of 4 query ids of test are also in train; if they name the same queries, the figures of test are too good"
    ]


# ---- Missing values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[-1.0, 0.0, 0.0], [1.0, 0.0, np.inf]]),
        ({"missing": "nan"}, [[-1.0, NAN, NAN], [1.0, 0.0, np.inf]]),
        ({"sentinel": -1}, [[NAN, 0.0, 0.0], [1.0, 0.0, np.inf]]),
        ({"sentinel": 1.79769313486e308}, [[-1.0, 0.0, 0.0], [1.0, 0.0, NAN]]),
        ({"missing": "nan", "sentinel": 0}, [[-1.0, NAN, NAN], [1.0, NAN, np.inf]]),
    ],
)
def test_missing_and_sentinel_in_text(
    tmp_path: Path, settings: dict[str, Any], expected: list[list[float]]
) -> None:
    """What a line does not name is filled; what it names is filled only when it is the sentinel."""
    text = "1 qid:1 1:-1\n0 qid:1 1:1 2:0 3:1.79769313486e+308\n"
    run(write_splits(tmp_path / "d", train=text, vali=text, test=text), tmp_path / "o", **settings)
    np.testing.assert_array_equal(read(tmp_path / "o", "train").select("f1", "f2", "f3"), expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.0, NAN, -1.0, np.inf]),
        ({"missing": "nan"}, [NAN, NAN, -1.0, np.inf]),
        ({"sentinel": -1}, [0.0, NAN, NAN, np.inf]),
        ({"sentinel": 1.79769313486e308}, [0.0, NAN, -1.0, NAN]),
    ],
)
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_missing_and_sentinel_in_parquet(
    tmp_path: Path, kind: pa.DataType, settings: dict[str, Any], expected: list[float]
) -> None:
    """A null is what a line does not name; the sentinel is found in single and in double precision."""
    values = pa.array([None, NAN, -1, 1.79769313486e308], pa.float64()).cast(kind, safe=False)
    found = list(parquet.read_parquet(write_parquet(tmp_path / "a.parquet", f1=values), **settings))
    np.testing.assert_array_equal(found[0]["f1"].to_numpy(), np.float32(expected))


def test_a_feature_that_no_part_has_before_is_filled_with_nan(tmp_path: Path) -> None:
    """With missing = nan the rows of an earlier, narrower file get NaN for features of a later one."""
    source = write_splits(
        tmp_path / "d", train="1 qid:1 1:1\n0 qid:1 1:1\n", vali="1 qid:2 2:1\n", test="1 qid:3 1:1\n"
    )
    run(source, tmp_path / "o", missing="nan")
    np.testing.assert_array_equal(read(tmp_path / "o", "train").select("f1", "f2"), [[1, NAN]] * 2)
    np.testing.assert_array_equal(read(tmp_path / "o", "vali").select("f1", "f2"), [[NAN, 1]])


# ---- Parquet sources -------------------------------------------------------------------------------------


def write_parquet(path: Path, **columns: Any) -> Path:
    """Write four judged rows, with ``columns`` in place of the usual ones (None: without it)."""
    usual = {"qid": [1, 1, 2, 2], "label": [0, 1, 0, 2], "f1": [0.5, 1.5, 2.5, 3.5]}
    table = {name: values for name, values in {**usual, **columns}.items() if values is not None}
    pq.write_table(pa.table(table), path)
    return path


def first_batch(path: Path) -> pa.RecordBatch:
    """The rows of a small Parquet source."""
    [batch] = parquet.read_parquet(path)
    return batch


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0, 1, 0, 2], pa.int64()),
        pa.array([0, 1, 0, 2], pa.uint8()),
        pa.array([0.0, 1.0, 0.0, 2.0], pa.float64()),
        pa.array([0, 1, 0, 2], pa.float16()),
        pa.array([Decimal(0), Decimal(1), Decimal(0), Decimal(2)], pa.decimal128(3, 1)),
    ],
    ids=lambda labels: str(labels.type),
)
def test_labels_of_any_numeric_type(tmp_path: Path, labels: pa.Array) -> None:
    """Tools write grades as integers, floats and decimals."""
    batch = first_batch(write_parquet(tmp_path / "a.parquet", label=labels))
    assert batch["label"].equals(pa.array([0, 1, 0, 2], pa.uint8()))


@pytest.mark.parametrize(
    ("qid", "expected"),
    [
        (pa.array([1, 1, 2, 2], pa.int32()), pa.array([1, 1, 2, 2], pa.int64())),
        (pa.array([1, 1, 2, 2], pa.uint64()), pa.array([1, 1, 2, 2], pa.int64())),
        (pa.array([1, 1, 2, 2**64 - 1], pa.uint64()), pa.array(["1", "1", "2", str(2**64 - 1)])),
        (pa.array([1.0, 1.0, 2.0, -3.0]), pa.array([1, 1, 2, -3], pa.int64())),
        (pa.array(["a", "a", "1", "2"]), pa.array(["a", "a", "1", "2"])),
        (pa.array(["a", "a", "1", "2"], pa.large_string()), pa.array(["a", "a", "1", "2"])),
        (pa.array(["a", "a", "1", "2"]).dictionary_encode(), pa.array(["a", "a", "1", "2"])),
    ],
    ids=lambda qid: str(qid.type),
)
def test_query_ids_of_any_type(tmp_path: Path, qid: pa.Array, expected: pa.Array) -> None:
    """Integers become int64, text stays text, categories are read as what they stand for."""
    assert first_batch(write_parquet(tmp_path / "a.parquet", qid=qid))["qid"].equals(expected)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2, 3, 2**53 + 1], pa.int64()),
        pa.array([1, 2, 3, 4], pa.uint8()),
        pa.array([1, 2, 3, 4], pa.float16()),
        pa.array([Decimal("1.5")] * 4, pa.decimal128(4, 2)),
    ],
    ids=lambda values: str(values.type),
)
def test_features_of_any_numeric_type(tmp_path: Path, values: pa.Array) -> None:
    """Each becomes the nearest float32, with and without a sentinel to look for."""
    path = write_parquet(tmp_path / "a.parquet", f1=values)
    expected = np.array([float(value) for value in values.to_pylist()], dtype=np.float32)
    for sentinel in (None, -9.0):
        [batch] = parquet.read_parquet(path, sentinel=sentinel)
        np.testing.assert_array_equal(batch["f1"].to_numpy(), expected)


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    """Order in the file, and columns of somebody else's, do not matter; features are in numeric order."""
    columns = {f"f{i}": [float(i)] for i in range(11, 0, -1)}
    table = pa.table({**columns, "weight": [2.0], "label": [3], "doc_id": [17], "qid": ["q"], "row_id": [99]})
    pq.write_table(table, tmp_path / "a.parquet")
    batch = first_batch(tmp_path / "a.parquet")
    expected = {"qid": "q", "label": 3, "doc_id": "17", **{f"f{i}": float(i) for i in range(1, 12)}}
    assert batch.to_pylist() == [expected]
    assert batch.schema.names == list(expected)


def test_parts_of_different_width_are_one_split(tmp_path: Path) -> None:
    """A later part may have more features and the document id."""
    for split in ("train", "vali", "test"):
        (tmp_path / "d" / split).mkdir(parents=True)
        write_parquet(tmp_path / "d" / split / "part-0.parquet")
        write_parquet(tmp_path / "d" / split / "part-1.parquet", qid=[3] * 4, f2=[9.0] * 4, doc_id=["x"] * 4)
    run(tmp_path / "d", tmp_path / "o")
    frame = read(tmp_path / "o", "train")
    assert frame["f2"].to_list() == [0.0] * 4 + [9.0] * 4
    assert frame["doc_id"].to_list() == [None] * 4 + ["x"] * 4
    assert frame["row_id"].to_list() == list(range(8))


def test_a_dataset_is_a_source(tmp_path: Path) -> None:
    """What ingest made, ingested again, is the same dataset byte for byte."""
    source = write_splits(tmp_path / "d", train=ROWS, vali=queries(2, first=30), test=queries(2, first=40))
    run(source, tmp_path / "one")
    run(tmp_path / "one", tmp_path / "two")
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"qid": None}, TableError, "JUDGMENTS needs a column 'qid'"),
        ({"label": None}, TableError, "JUDGMENTS needs a column 'label'"),
        ({"f1": None}, TableError, "JUDGMENTS needs a column 'f1'"),
        ({"f3": [1.0] * 4}, TableError, "JUDGMENTS needs a column 'f2'"),
        ({"f0": [1.0] * 4}, SourceError, "column 'f0': features count from f1"),
        ({"qid": [1, 1, None, 2]}, SourceError, "row 2: qid None is missing"),
        ({"qid": ["a", "", "b", "b"]}, SourceError, "row 1: qid '' is missing"),
        ({"qid": [1.0, 1.0, 2.5, 2.5]}, SourceError, "row 2: qid 2.5 is not a whole number"),
        ({"qid": [1.0, NAN, 2.0, 2.0]}, SourceError, "row 1: qid nan is not a whole number"),
        ({"qid": [True] * 4}, SourceError, "column 'qid' is bool; it must be an integer or a string"),
        ({"qid": [b"\xff"] * 4}, SourceError, "column 'qid' is binary; it must be an integer or a string"),
        ({"qid": [[1]] * 4}, SourceError, "column 'qid' is list<element: int64>"),
        ({"label": [0, 1, None, 1]}, SourceError, "row 2: label None is not an integer from 0 to 30"),
        ({"label": [0, 1, 0, 31]}, SourceError, "row 3: label 31 is not an integer from 0 to 30"),
        ({"label": [0, -1, 0, 1]}, SourceError, "row 1: label -1 is not an integer from 0 to 30"),
        ({"label": [0.5, 1, 0, 1]}, SourceError, "row 0: label 0.5 is not an integer from 0 to 30"),
        ({"label": [0, NAN, 0, 1]}, SourceError, "row 1: label nan is not an integer from 0 to 30"),
        ({"label": [0, 2**53 + 1, 0, 1]}, SourceError, "row 1: label 9007199254740993 is not an integer"),
        ({"label": ["0"] * 4}, SourceError, "column 'label' is string; it must be a number"),
        ({"f1": ["0"] * 4}, SourceError, "column 'f1' is string; a feature must be a number"),
        (
            {"f1": [[0.5]] * 4},
            SourceError,
            "column 'f1' is list<element: double>; a feature must be a number",
        ),
        (
            {"doc_id": [[1]] * 4},
            SourceError,
            "column 'doc_id' is list<element: int64>; it cannot be read as string",
        ),
    ],
)
def test_what_is_wrong_with_a_parquet_source(
    tmp_path: Path, columns: dict[str, Sequence[Any]], error: type[RanksieveError], message: str
) -> None:
    """One line with the file, and the row or the column."""
    path = write_parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(error) as caught:
        list(parquet.read_parquet(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_are_counted_over_batches_and_row_groups(tmp_path: Path) -> None:
    """The number in the message is the row's place in the file."""
    table = pa.table({"qid": [1] * 20, "label": [0] * 17 + [99] * 3, "f1": [0.0] * 20})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=8)
    with pytest.raises(SourceError, match="row 17: label 99"):
        list(parquet.read_parquet(tmp_path / "a.parquet", batch_rows=3))


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    """Which of the two is meant, nobody can tell."""
    table = pa.Table.from_arrays([pa.array([1])] * 4, names=["qid", "label", "f1", "f1"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="column 'f1' is there twice"):
        list(parquet.read_parquet(tmp_path / "a.parquet"))


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "page"])
def test_a_damaged_parquet_source_is_the_sources_fault(tmp_path: Path, damage: str) -> None:
    """The message names the source, not the dataset that is being made, and not a file to delete."""
    path = write_parquet(tmp_path / "a.parquet")
    data = path.read_bytes()
    damaged = {
        "empty": b"",
        "text": ROWS.encode(),
        "cut": data[: len(data) // 2],
        "page": data[:4] + b"\xff" * 60 + data[64:],
    }[damage]
    path.write_bytes(damaged)
    with (
        pytest.raises(SourceError, match="not a readable Parquet file") as caught,
        atomic_write(tmp_path / "o") as [out],
    ):
        run(path, out)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


# ---- What is wrong with the rows -------------------------------------------------------------------------


def test_no_feature_at_all(tmp_path: Path) -> None:
    """Labels and query ids alone are nothing to rank by."""
    text = "1 qid:1\n0 qid:1\n"
    with pytest.raises(SourceError, match="no row has a feature"):
        run(write_splits(tmp_path / "d", train=text, vali=text, test=text), tmp_path / "o")


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n"])
def test_a_split_without_rows(tmp_path: Path, text: str) -> None:
    """The file is named."""
    source = write_splits(tmp_path / "d", train=ROWS, vali=text, test=ROWS)
    with pytest.raises(SourceError, match="no rows") as caught:
        run(source, tmp_path / "o")
    assert str(caught.value).startswith(str(source / "vali.txt"))


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    """The same as for text."""
    empty = pa.table(
        {"qid": pa.array([], pa.int64()), "label": pa.array([], pa.int64()), "f1": pa.array([], pa.float32())}
    )
    pq.write_table(empty, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="no rows"):
        run(tmp_path / "a.parquet", tmp_path / "o")


def test_a_bad_line_names_its_place_and_leaves_nothing(tmp_path: Path) -> None:
    """File, line and column; no half dataset, no staging."""
    source = write_splits(tmp_path / "d", train=ROWS, vali=ROWS, test=ROWS + "0 qid:3 1:x\n")
    with (
        pytest.raises(SourceError, match=r"test\.txt:4:11: "),
        atomic_write(tmp_path / "run" / "dataset") as [out],
    ):
        run(source, out)
    assert list((tmp_path / "run").iterdir()) == []


# ---- Buckets and the disk --------------------------------------------------------------------------------


def test_many_buckets_hold_little_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many buckets are open, together they wait with no more rows than one writer may."""
    held: list[int] = []
    opened: list[parts.PartWriter] = []
    real = parts.PartWriter.write

    class Watched(parts.PartWriter):
        def __enter__(self) -> "Watched":
            opened.append(self)
            return self

        def write(self, table: pa.Table) -> None:
            real(self, table)
            held.append(sum(writer._rows for writer in opened))

    monkeypatch.setattr(parts, "PartWriter", Watched)
    (tmp_path / "data.txt").write_text(queries(1_000))
    ingest.run(
        locate(tmp_path / "data.txt"),
        tmp_path / "o",
        config=IngestConfig(),
        split=SplitConfig(),
        seed=1,
        rows_per_group=256,
        bucket_bytes=2_000,
    )
    assert len(opened) > 30
    assert max(held) <= 3 * 2 * 256  # staging, then the buckets, then three splits
    assert read(tmp_path / "o", "train").height == 1_200


@pytest.mark.parametrize("kilobytes", [8, 24, 48, 80, 200])
def test_a_full_disk_at_any_point_is_one_line(tmp_path: Path, kilobytes: int) -> None:
    """However far the ingest came, the last dataset stays and nothing of the new one does."""
    random = np.random.default_rng(0)
    text = "".join(
        f"{query % 2} qid:{query} "
        + " ".join(f"{i}:{value:.6f}" for i, value in enumerate(row, start=1))
        + "\n"
        for query, row in enumerate(random.normal(size=(2_000, 20)))
    )
    (tmp_path / "data.txt").write_text(text)
    with small_disk(megabytes=1) as disk:
        out = disk / "run" / "dataset"
        out.mkdir(parents=True)
        (out / "good").write_text("good")
        (disk / "other").write_bytes(b"\0" * ((1 << 20) - kilobytes * 1024))
        with pytest.raises(StorageError, match="the disk is full") as caught, atomic_write(out) as [made]:
            run(tmp_path / "data.txt", made)
        assert str(caught.value).startswith(f"{out}")
        assert "\n" not in str(caught.value)
        assert [path.name for path in (disk / "run").iterdir()] == ["dataset"]
        assert (out / "good").read_text() == "good"
