"""What is in Parquet files of one schema: which table it is, its size, and the figures that describe it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import tables
from pipeline.core.errors import SourceError, StorageError
from pipeline.core.records import Facts
from pipeline.inspect.contents import CONTENTS, value_counts

_FIRST_ROWS: Final = 5
_FIRST_COLUMNS: Final = 20
_FIRST_FEATURES: Final = 6
_TYPE_NAMES: Final = {"halffloat": "float16", "float": "float32", "double": "float64"}  # Arrow's and NumPy's


def table_facts(files: Sequence[Path]) -> Facts:
    """Describe Parquet files that hold one table, or its parts in order.

    Returns:
        ``table`` (its name in :mod:`pipeline.core.tables`, or None), ``columns`` (neighbouring features as one
        entry), ``rows``, ``row_groups``, ``bytes``, ``files`` (the same for each), ``first`` (rows) and
        ``contents``: the figures of :mod:`pipeline.inspect.contents`.

    Raises:
        SourceError: A file is not there or not Parquet, or the files differ in their columns.
        StorageError: A file is damaged.
    """
    opened = [open_parquet(file) for file in files]
    schema = opened[0].schema_arrow.remove_metadata()
    for file, part in zip(files, opened, strict=True):
        if part.schema_arrow.names != schema.names:
            raise SourceError(
                f"its columns differ from those of {files[0].name}; inspect one of them", file=file
            )
    table = recognise(schema)
    each = [file_facts(file, part) for file, part in zip(files, opened, strict=True)]
    with _readable(files):
        contents = CONTENTS[table](pl.scan_parquet(list(files)), schema) if table else {}
        first = _first_rows(opened, schema, table)
    return {
        "table": table,
        "columns": short_schema(schema),
        **{key: sum(entry[key] for entry in each) for key in ("rows", "row_groups", "bytes")},
        "files": each,
        "contents": plain(contents),
        "first": plain(first),
    }


def open_parquet(file: Path) -> pq.ParquetFile:
    """Open a Parquet file that need not be one of ours.

    Raises:
        SourceError: There is no such file, or it is of another kind.
        StorageError: It is damaged, cut short or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
        if magic != b"PAR1":
            kind = "not a Parquet file" if magic else "an empty file"
            raise SourceError(f"{kind}; inspect takes a run, a dataset directory or Parquet", file=file)
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{file}: a damaged or unreadable Parquet file ({_reason(error)})") from None


def file_facts(file: Path, part: pq.ParquetFile) -> Facts:
    """Return what a file's footer tells: ``name, rows, row_groups, bytes``."""
    rows, groups = part.metadata.num_rows, part.metadata.num_row_groups
    return {"name": file.name, "rows": rows, "row_groups": groups, "bytes": file.stat().st_size}


def recognise(schema: pa.Schema) -> str | None:
    """Return the name of our table with these columns, None if it is none of ours."""
    types = dict(zip(schema.names, schema.types, strict=True))
    qid, label = types.get("qid", tables.QID_INT), types.get("label", pa.null())
    contracts = {
        "METRICS": tables.metrics(qid=qid),
        "SELECTION": tables.selection(qid=qid),
        "SCORES": tables.scores(qid=qid),
        "SUMMARY": tables.SUMMARY,
        "SEARCH": tables.SEARCH,
    }
    for name, contract in contracts.items():
        if all(types.get(field.name) == field.type for field in contract):
            return name
    if {"qid", "f1"} <= types.keys() and (pa.types.is_integer(label) or pa.types.is_floating(label)):
        return "PREPARED" if types.get("weight") == pa.float32() else "JUDGMENTS"
    return None


def short_schema(schema: pa.Schema) -> list[Facts]:
    """Return ``name, type, nullable`` per column; neighbouring features are one entry with ``count``."""
    short: list[Facts] = []
    for field in schema:
        kind = _TYPE_NAMES.get(str(field.type), str(field.type))
        entry = {"name": field.name, "type": kind, "nullable": field.nullable}
        last = short[-1] if short else {}
        if not tables.features_of([field.name]):
            short.append(entry)
        elif "count" in last and (last["type"], last["nullable"]) == (kind, field.nullable):
            last["count"] += 1
            last["name"] = f"{last['name'].partition('..')[0]}..{field.name}"
        else:
            short.append({**entry, "count": 1})
    return short


def _first_rows(opened: Sequence[pq.ParquetFile], schema: pa.Schema, table: str | None) -> list[Facts]:
    """Return the first rows of the first file that has any, of a table with features only the first few."""
    names = list(schema.names)
    if table in ("JUDGMENTS", "PREPARED"):
        hidden = set(tables.features_of(names)[_FIRST_FEATURES:])
        names = [name for name in names if name not in hidden]
    for part in opened:
        filled = [group for group in range(part.num_row_groups) if part.metadata.row_group(group).num_rows]
        if filled:
            batches = part.iter_batches(_FIRST_ROWS, row_groups=filled[:1], columns=names[:_FIRST_COLUMNS])
            rows: list[Facts] = next(batches).to_pylist()
            return rows
    return []


def plain(value: Any) -> Any:
    """Return ``value`` with text for what JSON cannot hold: NaN, infinity, dates."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@contextmanager
def _readable(files: Sequence[Path]) -> Iterator[None]:
    """Turn a failure to read the data of a file whose footer is good into one line."""
    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        where = files[0] if len(files) == 1 else files[0].parent
        raise StorageError(f"{where}: damaged Parquet data ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def label_counts(files: Sequence[Path]) -> list[Facts]:
    """Return ``label, rows`` of the labels there are; raises StorageError when a file is damaged."""
    with _readable(files):
        return value_counts(pl.scan_parquet(list(files)), "label")
