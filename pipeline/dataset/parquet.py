"""Parquet <-> Arrow record batches: a SOURCE that already has the columns of JUDGMENTS, checked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.errors import SourceError
from pipeline.core.tables import MAX_LABEL, QID_INT, QID_TEXT, check, features_of


def read_parquet(
    path: Path,
    *,
    missing: Literal["zero", "nan"] = "zero",
    sentinel: float | None = None,
    progress: Callable[[int], None] | None = None,
    at: Path | None = None,
    batch_rows: int = 65_536,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file in their order, as record batches.

    The file needs ``qid`` (integer or string), ``label`` and ``f1``..``fN`` (numbers); ``doc_id`` is read where
    there is one, other columns are left out.

    Args:
        path: The file.
        missing: What a null feature becomes: 0.0 or NaN.
        sentinel: A value, compared in the column's own precision, that stands for missing and becomes NaN.
        progress: Called with the bytes of the file read since the last call, more or less.
        at: Where the bytes are, when ``path`` is only what the file is called in messages.
        batch_rows: Rows of a batch.

    Yields:
        Columns as :func:`pipeline.dataset.letor.read_letor` yields them.

    Raises:
        SourceError: The file is missing, damaged or empty of features, a column has a type that does not fit,
            or a row (counted from 0) has no query id or no label from 0 to 30.
        TableError: A column is missing.
    """
    try:
        part = pq.ParquetFile(at or path, memory_map=False, pre_buffer=False)  # mapped, it counts as memory
        columns = _columns(part.schema_arrow.names, path)
        done = 0
        for group in range(part.num_row_groups):
            for batch in part.iter_batches(batch_rows, row_groups=[group], columns=columns):
                yield _checked(batch, path, done, np.nan if missing == "nan" else 0.0, sentinel)
                done += batch.num_rows
            if progress:
                progress((at or path).stat().st_size // part.num_row_groups)
    except (pa.ArrowException, OSError) as error:
        what = f"not a readable Parquet file ({str(error).splitlines()[0]}); fetch or write it again"
        raise SourceError(what, file=path) from None


def _columns(names: list[str], path: Path) -> list[str]:
    """Return the columns to read, features in the order of their numbers."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"column {twice!r} is there twice; drop one", file=path)
    check(names, ["qid", "label", "f1"], table="JUDGMENTS", where=path)
    if "f0" in names:
        raise SourceError("column 'f0': features count from f1; rename them", file=path)
    features = sorted(features_of(names), key=lambda name: int(name[1:]))
    check(names, [f"f{i}" for i in range(1, len(features) + 1)], table="JUDGMENTS", where=path)
    return ["qid", "label", *(["doc_id"] if "doc_id" in names else []), *features]


def _checked(
    batch: pa.RecordBatch, path: Path, row: int, fill: float, sentinel: float | None
) -> pa.RecordBatch:
    """Bring one batch to the types and the label range of JUDGMENTS; ``row`` is the number of its first."""
    columns = {"qid": _query_ids(batch["qid"], path, row), "label": _labels(batch["label"], path, row)}
    for name in batch.schema.names:
        if name == "doc_id":
            columns[name] = _cast(batch[name], pa.string(), f"column {name!r}", path)
        elif name not in columns:
            columns[name] = _feature(batch[name], name, path, fill, sentinel)
    return pa.RecordBatch.from_pydict(columns)


def _refuse(bad: pa.Array, values: pa.Array, name: str, what: str, path: Path, row: int) -> None:
    """Raise :class:`SourceError` about the first row where ``bad`` is true."""
    at = pc.index(bad, True).as_py()
    if at >= 0:
        raise SourceError(f"row {row + at}: {name} {values[at].as_py()!r} {what}", file=path)


def _cast(values: pa.Array, kind: pa.DataType, name: str, path: Path) -> pa.Array:
    try:
        return values.cast(kind, safe=not pa.types.is_floating(kind))
    except pa.ArrowException:
        raise SourceError(f"{name} is {values.type}; it cannot be read as {kind}", file=path) from None


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _query_ids(qid: pa.Array, path: Path, row: int) -> pa.Array:
    """Return query ids as int64, or as strings where they are text or do not fit."""
    if pa.types.is_dictionary(qid.type):
        qid = qid.dictionary_decode()
    _refuse(qid.is_null(), qid, "qid", "is missing; every row needs a query id", path, row)
    if pa.types.is_integer(qid.type):
        most = pa.scalar(np.iinfo(np.int64).max, pa.uint64())
        beyond = qid.type == pa.uint64() and pc.any(pc.greater(qid, most)).as_py()
        return qid.cast(QID_TEXT if beyond else QID_INT)
    if pa.types.is_floating(qid.type):
        whole = qid.cast(pa.float64())
        bad = pc.or_(pc.not_equal(pc.floor(whole), whole), pc.greater(pc.abs(whole), 2.0**53))
        _refuse(bad, qid, "qid", "is not a whole number; write query ids as integers or strings", path, row)
        return whole.cast(QID_INT)
    if not any(is_text(qid.type) for is_text in _TEXT):
        raise SourceError(f"column 'qid' is {qid.type}; it must be an integer or a string", file=path)
    text = _cast(qid, QID_TEXT, "column 'qid'", path)
    _refuse(pc.equal(text, ""), text, "qid", "is missing; every row needs a query id", path, row)
    return text


_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def _labels(label: pa.Array, path: Path, row: int) -> pa.Array:
    if not _is_number(label.type):
        raise SourceError(f"column 'label' is {label.type}; it must be a number", file=path)
    value = label.cast(pa.float64(), safe=False).fill_null(-1.0)
    out_of_range = pc.or_(pc.less(value, 0), pc.greater(value, MAX_LABEL))
    bad = pc.or_(out_of_range, pc.not_equal(pc.floor(value), value))
    _refuse(bad, label, "label", f"is not an integer from 0 to {MAX_LABEL}", path, row)
    return value.cast(pa.uint8())


def _feature(values: pa.Array, name: str, path: Path, fill: float, sentinel: float | None) -> pa.Array:
    if not _is_number(values.type):
        raise SourceError(f"column {name!r} is {values.type}; a feature must be a number", file=path)
    if sentinel is not None:
        # In single precision Istella's 1.79769313486e+308 is infinity.
        kind = pa.float32() if pa.types.is_float32(values.type) else pa.float64()
        exact, given = values.cast(kind, safe=False), pa.array([sentinel]).cast(kind, safe=False)
        values = pc.if_else(pc.equal(exact, given[0]), pa.scalar(np.nan, kind), exact)
    return values.cast(pa.float32(), safe=False).fill_null(pa.scalar(fill, pa.float32()))
