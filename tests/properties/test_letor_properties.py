"""Properties of the LETOR reader and writer that hold for any input."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_svmlight_file

from pipeline.core.errors import SourceError
from pipeline.dataset.letor import read_letor, write_letor
from pipeline.dataset.letor_blocks import Limits

settings.register_profile("letor", deadline=None, max_examples=150)  # the first example may compile
relaxed = settings.get_profile("letor")

float32 = st.floats(width=32)
names = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Z"], blacklist_characters="#"), min_size=1)
digits = st.text("0123456789", max_size=25)
decimals = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    digits,
    st.one_of(st.just(""), st.builds(".{}".format, digits)),
    st.one_of(st.just(""), st.builds("{}{}".format, st.sampled_from(["e", "E-", "e+"]), st.integers(0, 400))),
)
tokens = st.one_of(
    decimals,
    st.floats().map(repr),
    float32.map("{:.9g}".format),
    st.floats(1e-10, 1e10).map("{:.25f}".format),
    st.text("0123456789.eE+-naifty_ ", min_size=1, max_size=8).map(lambda t: t.replace(" ", "")),
)


def read(data: bytes, **options) -> list[pa.RecordBatch]:
    """Write ``data`` to a file and read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.txt"
        path.write_bytes(data)
        return list(read_letor(path, **options))


def rows(batches: list[pa.RecordBatch]) -> list[tuple]:
    """Return rows without what may vary from block to block: absent features, the type of the id."""
    found = []
    for batch in batches:
        batch.validate(full=True)
        for row in batch.to_pylist():
            key = (str(row.pop("qid")), row.pop("label"), row.pop("doc_id", None))
            found.append((*key, {k: str(v) for k, v in row.items() if v != 0.0}))
    return found


def outcome(data: bytes, **options) -> object:
    """Return the rows, or what the error says and where."""
    try:
        return rows(read(data, **options))
    except SourceError as error:
        return error.what, error.line, error.column


@settings(relaxed)
@given(st.lists(tokens, min_size=1, max_size=40))
def test_any_number_equals_python(values):
    """A value is numpy.float32(float(token)) to the bit, or an error exactly where Python has one."""
    good = []
    for token in values:
        try:
            number = None if "_" in token else float(token)
        except ValueError:
            number = None
        if number is None:
            what = outcome(f"1 qid:1 1:0.5 2:{token}\n".encode())
            assert what[1:] == (1, 17)
        else:
            good.append((token, number))
    if good:
        text = "".join(f"1 qid:1 1:{token}\n" for token, _ in good).encode()
        (batch,) = read(text)
        with np.errstate(over="ignore"):
            expected = np.array([number for _, number in good]).astype(np.float32)
        found = batch["f1"].to_numpy()
        np.testing.assert_array_equal(found, expected)
        real = ~np.isnan(expected)
        np.testing.assert_array_equal(found[real].view(np.uint32), expected[real].view(np.uint32))


line_parts = st.sampled_from(
    [
        *(b"1", b"2.0", b"-1", b" ", b"\t", b"\n", b"\r\n", b"0 qid:1 1:1\n", b"\xef\xbb\xbf"),
        *(b"qid:", b"qid:7", b" qid:a ", b"1:", b" 2:0.5", b" 3:-1e-3", b":", b" 70000:1", b" 9:1e999"),
        *(b"#", b"docid = ", b"\xc3\xa9", b"\xff", b"\0", b"nan", b"NULL"),
    ]
)
texts = st.one_of(st.binary(max_size=200), st.lists(line_parts, max_size=40).map(b"".join))


@settings(relaxed)
@given(texts, st.integers(1, 30))
@example(b"\xef\xbb\xbf", 1)
@example(b"0 qid:1 1:1\n" * 500 + b"\0", 3)
@example(b"\xef\xbb\xbf0 qid:1 1:1\n0 qid:x # \xff", 2)
def test_any_bytes_parse_or_fail_alike(data, block_bytes):
    """Any bytes are rows or one SourceError, the same for any number of threads and size of blocks."""
    expected = outcome(data)
    assert outcome(data, limits=Limits(block_bytes=block_bytes)) == expected
    assert outcome(data, limits=Limits(block_bytes=block_bytes), threads=2) == expected
    assert outcome(data, threads=2) == expected


@st.composite
def tables(draw):
    """Any batch the writer takes: integer or text query ids, document ids or none."""
    count, width = draw(st.integers(1, 8)), draw(st.integers(0, 5))
    column = lambda each: draw(st.lists(each, min_size=count, max_size=count))  # noqa: E731
    ids = st.integers(-(2**63), 2**63 - 1) if draw(st.booleans()) else names.map("q{}".format)
    columns = {"qid": pa.array(column(ids)), "label": pa.array(column(st.integers(0, 30)), pa.uint8())}
    docs = column(st.one_of(st.none(), names, st.lists(names.map("w{}".format), min_size=2).map("  ".join)))
    if any(doc is not None for doc in docs):
        columns["doc_id"] = pa.array(docs, pa.string())
    for i in range(1, width + 1):
        columns[f"f{i}"] = pa.array(np.array(column(float32), np.float32))
    return pa.RecordBatch.from_pydict(columns)


def assert_same(found: pa.RecordBatch, expected: pa.RecordBatch) -> None:
    """Equal to the bit, NaN equal to NaN."""
    assert found.schema.names == expected.schema.names
    for name in expected.schema.names:
        if name.startswith("f"):
            ours, theirs = found[name].to_numpy(), expected[name].to_numpy()
            np.testing.assert_array_equal(ours, theirs)
            np.testing.assert_array_equal(np.signbit(ours[ours == 0]), np.signbit(theirs[theirs == 0]))
        else:
            assert found[name].equals(expected[name])


@settings(relaxed)
@given(tables(), st.sampled_from(["zero", "nan"]), st.sampled_from(["", ".gz", ".zst"]))
def test_written_rows_read_back(batch, missing, suffix):
    """What is written dense reads back to the bit under both policies for missing values."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{suffix}"
        write_letor([batch], path)
        (found,) = read_letor(path, missing=missing)
    assert_same(found, batch)


@settings(relaxed)
@given(tables())
def test_sparse_rows_read_back(batch):
    """What is written sparse reads back but for last columns that are zero everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.txt"
        write_letor([batch], path, sparse=True)
        (found,) = read_letor(path)
    dropped = batch.schema.names[found.num_columns :]
    assert all((batch[name].to_numpy() == 0).all() for name in dropped)
    assert_same(found, batch.select(found.schema.names))


@settings(relaxed, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.integers(0, 10**6),
            st.dictionaries(st.integers(1, 30), st.floats(allow_nan=False, allow_infinity=False), max_size=8),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_agrees_with_scikit_learn(lines):
    """Labels, query ids and values are those of scikit-learn's loader for the same file."""
    text = "".join(
        f"{label} qid:{qid} {' '.join(f'{i}:{features[i]!r}' for i in sorted(features))} # note\n"
        for label, qid, features in lines
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.txt"
        path.write_text(text)
        (batch,) = read_letor(path)
        values, labels, qids = load_svmlight_file(str(path), query_id=True, zero_based=False, n_features=30)
    np.testing.assert_array_equal(batch["label"].to_numpy(), labels)
    np.testing.assert_array_equal(batch["qid"].to_numpy(), qids)
    features = [n for n in batch.schema.names if n.startswith("f")]
    with np.errstate(over="ignore"):
        expected = values.toarray().astype(np.float32)
    for i, name in enumerate(features):
        np.testing.assert_array_equal(batch[name].to_numpy(), expected[:, i])
    assert not expected[:, len(features) :].any() or not features
