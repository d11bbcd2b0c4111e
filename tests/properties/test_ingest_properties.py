"""However rows are arranged and however little memory there is, a dataset holds the same rows."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_svmlight_file

from pipeline.core.config import IngestConfig, SplitConfig
from pipeline.dataset import ingest
from pipeline.dataset.letor_blocks import Limits
from pipeline.dataset.sources import Source, SplitSource

Row = tuple[int, int | str, dict[int, float], str | None]
"""Label, query id, features, document id."""

MOST_FEATURES = 6
EXAMPLES = 25  # each writes several directories
values = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-3, 3).map(float)


@st.composite
def rows(draw: st.DrawFn, *, late: bool = False) -> list[Row]:
    """Rows of several queries in any arrangement, dense or sparse; ``late``: ids and documents of all kinds."""
    dense = draw(st.booleans())
    numbers = st.just(range(1, MOST_FEATURES + 1)) if dense else st.sets(st.integers(1, MOST_FEATURES))
    features = numbers.flatmap(lambda ids: st.fixed_dictionaries(dict.fromkeys(sorted(ids), values)))
    qid: st.SearchStrategy[int | str] = st.integers(-2, 4)
    doc: st.SearchStrategy[str | None] = st.none()
    if late:
        qid = st.integers(0, 3) | st.sampled_from(["a", "007", "3x"])
        doc = st.sampled_from([None, None, "d1", "d2"])
    found = draw(st.lists(st.tuples(st.integers(0, 4), qid, features, doc), min_size=1, max_size=40))
    # The first row has every feature that may be needed for the set not to be empty of them.
    return [(0, found[0][1], {1: 0.5, **found[0][2]}, found[0][3]), *found[1:]]


def text(found: list[Row], *, blanks: bool = False) -> str:
    """Write rows as LETOR text, with nothing of the code under test."""
    lines = []
    for label, qid, features, doc in found:
        cells = [str(label), f"qid:{qid}", *(f"{i}:{features[i]!r}" for i in sorted(features))]
        lines.append(" ".join(cells) + (f" # docid = {doc}" if doc else ""))
    return ("\n\n" if blanks else "\n").join(lines) + "\n"


# Row groups, buckets and blocks of text far smaller than they are.
memory = st.fixed_dictionaries(
    {
        "rows_per_group": st.integers(1, 8),
        "bucket_bytes": st.sampled_from([1, 100, 300, 1 << 20]),
        "limits": st.sampled_from([1, 40, 200, 1 << 20]).map(lambda size: Limits(block_bytes=size)),
    }
)


def source_of(file: Path, hold_out: tuple[str, ...] = ()) -> Source:
    """One file, with or without splits held out of it."""
    return Source(file, "file", (SplitSource("train", (file,), hold_out=hold_out),))


def run(source: Source, out: Path, *, threads: int = 1, missing: str = "zero", **sizes: Any) -> Path:
    """Ingest ``source`` into ``out``."""
    config = IngestConfig.model_validate({"missing": missing})
    ingest.run(source, out, config=config, split=SplitConfig(), seed=1, threads=threads, **sizes)
    return out


def bytes_of(directory: Path) -> dict[str, bytes]:
    """Every file below ``directory``."""
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def read(dataset: Path, split: str = "train") -> pl.DataFrame:
    """All rows of a split."""
    return pl.concat([pl.read_parquet(file) for file in sorted((dataset / split).iterdir())])


def check_row_groups(dataset: Path, split: str, rows_per_group: int) -> None:
    """Every query lies in one row group, and no row group holds more whole queries than it needs."""
    seen: set[object] = set()
    for file in sorted((dataset / split).iterdir()):
        part = pq.ParquetFile(file)
        for group in range(part.num_row_groups):
            qids = part.read_row_group(group, columns=["qid"])["qid"].to_pylist()
            queries = list(dict.fromkeys(qids))
            assert qids == sorted(qids, key=queries.index)
            assert not seen.intersection(queries)
            assert len(qids) - qids.count(queries[-1]) < rows_per_group
            seen.update(queries)


@settings(max_examples=EXAMPLES, deadline=None)
@given(found=rows(), blanks=st.booleans(), sizes=memory)
def test_same_rows_as_scikit_learn_reads(found: list[Row], blanks: bool, sizes: dict[str, Any]) -> None:
    """Per query the same labels and features in the same order; queries by first appearance, whole."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "data.txt"
        file.write_text(text(found, blanks=blanks))
        dataset = run(source_of(file), Path(directory) / "dataset", **sizes)
        frame = read(dataset)
        check_row_groups(dataset, "train", sizes["rows_per_group"])
        width = len(frame.columns) - 3
        matrix, label, qid = load_svmlight_file(str(file), n_features=width, query_id=True, zero_based=False)
    assert width == max(max(features, default=0) for _, _, features, _ in found)
    first = {query: at for at, query in reversed(list(enumerate(qid.tolist())))}
    order = sorted(range(len(qid)), key=lambda at: (first[qid[at]], at))
    assert frame["row_id"].to_list() == order
    assert frame["qid"].to_list() == qid[order].tolist()
    assert frame["label"].to_list() == label[order].tolist()
    features = frame.select([f"f{i}" for i in range(1, width + 1)]).to_numpy()
    np.testing.assert_array_equal(features, matrix.toarray()[order].astype(np.float32))


@settings(max_examples=EXAMPLES, deadline=None)
@given(found=rows(late=True), sizes=memory, missing=st.sampled_from(["zero", "nan"]))
def test_what_appears_late_holds_for_all_rows(found: list[Row], sizes: dict[str, Any], missing: str) -> None:
    """More features, a text id or a document id in a later block give the dataset of one large block."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "data.txt"
        file.write_text(text(found))
        large = {"rows_per_group": sizes["rows_per_group"], "missing": missing}
        whole = bytes_of(run(source_of(file), Path(directory) / "whole", **large))
        little = run(source_of(file), Path(directory) / "little", missing=missing, **sizes)
        again = bytes_of(run(source_of(file), Path(directory) / "again", missing=missing, threads=2, **sizes))
        frame = read(little)
        assert bytes_of(little) == whole == again
    all_int = all(isinstance(qid, int) for _, qid, _, _ in found)
    assert frame["qid"].dtype == (pl.Int64 if all_int else pl.String)
    fill = 0.0 if missing == "zero" else float("nan")
    for at, query, doc, *features in frame.select(
        "row_id", "qid", pl.col("doc_id") if "doc_id" in frame.columns else pl.lit(None), pl.col("^f[0-9]+$")
    ).iter_rows():
        _, qid, given_features, given_doc = found[at]
        assert query == (qid if all_int else str(qid))
        assert doc == given_doc
        expected = [given_features.get(i + 1, fill) for i in range(len(features))]
        np.testing.assert_array_equal(np.float32(features), np.float32(expected))


@settings(max_examples=EXAMPLES, deadline=None)
@given(found=rows(late=True), sizes=memory)
def test_text_and_parquet_give_the_same_dataset(found: list[Row], sizes: dict[str, Any]) -> None:
    """A dataset, given again as a Parquet source, comes out as it went in."""
    with tempfile.TemporaryDirectory() as directory:
        file, parquet = Path(directory) / "data.txt", Path(directory) / "data.parquet"
        file.write_text(text(found))
        one = read(run(source_of(file), Path(directory) / "one", **sizes))
        # In the order of the file, columns in an order of their own.
        one.sort("row_id").select(sorted(one.columns)).write_parquet(parquet, row_group_size=7)
        two = read(run(source_of(parquet), Path(directory) / "two", **sizes))
        schemas = [
            pq.read_schema(Path(directory) / name / "train" / "part-00000.parquet") for name in ("one", "two")
        ]
    assert one.equals(two)
    assert schemas[0].equals(schemas[1])


@settings(max_examples=EXAMPLES, deadline=None)
@given(found=rows(late=True), sizes=memory)
def test_held_out_queries_are_whole_and_chosen_by_id(found: list[Row], sizes: dict[str, Any]) -> None:
    """Every row is in one split, every query in one split; the file's order does not decide in which."""
    queries = {str(row[1]) for row in found}
    if len(queries) < 3:
        return
    with tempfile.TemporaryDirectory() as directory:
        frames = []
        for name, arranged in (("given", found), ("turned", found[::-1])):
            file = Path(directory) / f"{name}.txt"
            file.write_text(text(arranged))
            out = run(source_of(file, ("vali", "test")), Path(directory) / name, **sizes)
            frames.append({split: read(out, split) for split in ("train", "vali", "test")})
            for split in ("train", "vali", "test"):
                check_row_groups(out, split, sizes["rows_per_group"])
    one, two = frames
    assert sorted(at for frame in one.values() for at in frame["row_id"].to_list()) == list(range(len(found)))
    sets = {split: set(map(str, frame["qid"].to_list())) for split, frame in one.items()}
    assert sets == {split: set(map(str, frame["qid"].to_list())) for split, frame in two.items()}
    assert sum(map(len, sets.values())) == len(queries)
    assert sets["vali"]
    assert sets["test"]
    turned = len(found) - 1
    for split, frame in one.items():
        back = two[split].with_columns(row_id=turned - pl.col("row_id"))
        assert back.sort("row_id").equals(frame.sort("row_id"))
