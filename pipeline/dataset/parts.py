"""Splits and prepared sets on disk: Parquet parts whose row groups hold whole queries.

Features are float32 and not null. zstd level 1; a column gets a dictionary where it has few values,
BYTE_STREAM_SPLIT where hardly any comes twice, which compresses such floats best, and is left plain where they
repeat, as in a sparse column of mostly zeros. The bytes depend on the rows alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.errors import StorageError
from pipeline.core.paths import part_files
from pipeline.core.tables import features_of

if TYPE_CHECKING:  # the settings take long to import, and child processes do without
    from pipeline.core.config import Compression

ROW_GROUP_BYTES: Final = 20 << 20
"""Feature bytes a row group aims at, so that one fits a worker."""
_MOST_ROWS: Final = 131_072
_DICTIONARY_VALUES: Final = 256
_SAMPLE_ROWS: Final = 4_096
"""Rows that tell few values from many; counting those of a whole row group takes as long as writing it."""


def rows_per_group(features: int) -> int:
    """Return the rows a row group aims at, by its number of float32 features."""
    return int(np.clip(ROW_GROUP_BYTES // (4 * max(features, 1)), 1_024, _MOST_ROWS))


def conform(columns: pa.Table | pa.RecordBatch, schema: pa.Schema, *, fill: float = 0.0) -> pa.Table:
    """Return ``columns`` in the order and types of ``schema``.

    A feature that is not there becomes ``fill``, a ``doc_id`` that is not there null; integer query ids
    become strings where the schema says so.
    """
    if columns.schema.equals(schema, check_metadata=True):
        return columns if isinstance(columns, pa.Table) else pa.Table.from_batches([columns])
    rows = columns.num_rows
    # Looked up once: a schema makes its list of names anew each time it is asked.
    place = {name: at for at, name in enumerate(columns.schema.names)}
    arrays: list[pa.Array | pa.ChunkedArray] = []
    for field in schema:
        if field.name in place:
            column = columns.column(place[field.name])
            arrays.append(column if column.type == field.type else column.cast(field.type))
        elif field.name == "doc_id":
            arrays.append(pa.nulls(rows, field.type))
        else:
            arrays.append(pa.array(np.full(rows, fill, dtype=np.float32)))
    return pa.Table.from_arrays(arrays, schema=schema)


def _query_starts(qid: pa.Array) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the positions, but for the first, at which another query begins."""
    changes = pc.indices_nonzero(pc.not_equal(qid[1:], qid[:-1]))
    # Not by way of `to_numpy`, which imports pandas where there is one.
    return np.frombuffer(changes.buffers()[1], np.int64, len(changes)) + 1


class PartWriter:
    """Write tables of one schema to a Parquet part, in row groups of whole queries.

    A context manager. A query is whole when its rows arrive one after another. A row group ends with the query
    that reaches its aim, ``rows`` or what suits readers; one group and the last table may wait in memory.

    With ``background``, groups are written in a thread of their own, one at a time, while the rows of the next
    arrive; the bytes are the same.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        compression: "Compression" = "zstd",
        rows: int | None = None,
        background: bool = False,
    ) -> None:
        self._path, self._schema, self._compression = path, schema, compression
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="parquet") if background else None
        self._writing: Future[None] | None = None
        self._target = rows or rows_per_group(len(features_of(schema.names)))
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._starts = np.zeros(0, np.int64)  # where queries begin, from row `_target` of those waiting on
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and (self._rows or self._writer is None):
                self._write_group(self._rows)
            if kind is None and self._writing is not None:
                self._writing.result()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
            if self._writer is not None:
                self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Add rows; they reach the disk a row group at a time."""
        if table.num_rows == 0:
            return
        qid = table["qid"].combine_chunks()
        starts = _query_starts(qid) + self._rows
        if self._waiting and self._waiting[-1]["qid"][-1] != qid[0]:
            starts = np.append(self._rows, starts)
        self._starts = np.append(self._starts, starts[starts >= self._target])
        self._waiting.append(table)
        self._rows += table.num_rows
        while len(self._starts):
            self._write_group(int(self._starts[0]))

    def _write_group(self, rows: int) -> None:
        """Write the first ``rows`` of those waiting."""
        waiting = pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        group, rest = waiting.slice(0, rows), waiting.slice(rows)
        if self._writing is not None:
            self._writing.result()
        if self._pool is None:
            self._put(group)
        else:
            self._writing = self._pool.submit(self._put, group)
        self._waiting, self._rows = ([rest], rest.num_rows) if rest.num_rows else ([], 0)
        starts = self._starts - rows
        self._starts = starts[starts >= self._target]

    def _put(self, group: pa.Table) -> None:
        # In one piece each, so that the bytes do not depend on the pieces in which the rows came.
        group = group.combine_chunks()
        if self._writer is None:
            self._writer = open_writer(self._path, group, self._compression)
        self._writer.write_table(group, row_group_size=max(group.num_rows, 1))


def open_writer(path: Path, sample: pa.Table, compression: "Compression" = "zstd") -> pq.ParquetWriter:
    """Open a Parquet writer whose encodings fit the columns of ``sample``."""
    rows = sample.slice(0, _SAMPLE_ROWS)
    few, split = [], []
    for field in sample.schema:
        if not pa.types.is_floating(field.type):
            few.append(field.name)
            continue
        distinct = pc.count_distinct(rows[field.name]).as_py()
        if distinct <= _DICTIONARY_VALUES:
            few.append(field.name)
        elif distinct > rows.num_rows // 2 and compression != "none":  # it only helps compression
            split.append(field.name)
    options = {
        "compression": compression,
        "compression_level": 1 if compression == "zstd" else None,
        "use_dictionary": [name for name in few if name != "row_id"],
        "use_byte_stream_split": split,
        "write_statistics": [name for name in ("row_id", "qid", "label") if name in sample.schema.names],
    }
    return pq.ParquetWriter(path, sample.schema, store_schema=True, **options)


def write_table(path: Path, frame: pl.DataFrame, schema: pa.Schema) -> None:
    """Write a table (SCORES, SELECTION, METRICS, SUMMARY) in the types of its schema."""
    table = conform(frame.to_arrow(), schema)
    # Ids count up and scores hardly repeat: looking for a dictionary of them is half the work of writing, and
    # zstd, which saves a twentieth of what scores take, is half the work of reading.
    few = [field.name for field in schema if field.name != "row_id" and not pa.types.is_floating(field.type)]
    options = {
        "compression": {name: "lz4" if name == "score" else "zstd" for name in schema.names},
        "compression_level": {name: 1 for name in schema.names if name != "score"},
        "use_dictionary": few,
        "column_encoding": {"row_id": "DELTA_BINARY_PACKED"} if "row_id" in schema.names else None,
    }
    pq.write_table(table, path, row_group_size=1 << 20, **options)


def open_part(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        StorageError: It is not there or damaged.
    """
    try:
        # Not mapped: what was once read of a mapped file counts as this process's memory.
        return pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except FileNotFoundError:
        raise StorageError(f"{path}: not there; run the earlier stage again") from None
    except (pa.ArrowInvalid, OSError) as error:
        what = f"not a readable Parquet file ({str(error).splitlines()[0]}); delete it and run again"
        raise StorageError(f"{path}: {what}") from None


def compression_of(files: Sequence[Path]) -> "Compression":
    """Return how the parts are compressed."""
    kept: dict[str, Compression] = {"LZ4": "lz4", "UNCOMPRESSED": "none"}
    groups = open_part(files[0]).metadata
    return kept.get(groups.row_group(0).column(0).compression, "zstd") if groups.num_row_groups else "zstd"


def count_rows(files: Iterable[Path]) -> int:
    """Return the number of rows of Parquet files, which their footers tell."""
    return sum(open_part(file).metadata.num_rows for file in files)


def row_groups(files: Iterable[Path], *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of Parquet files one at a time, in order."""
    for file in files:
        part = open_part(file)
        for group in range(part.num_row_groups):
            yield part.read_row_group(group, columns=None if columns is None else list(columns))


Read = Callable[[Sequence[str]], Iterable[pa.Table]]
"""Given column names, yields the row groups of a split, in order."""


def reader(files: Sequence[Path], *, columns: Sequence[str], most_values: int) -> Read:
    """Return a function that yields the row groups each time it is called.

    They are held in memory where rows times ``columns``, those that will be asked for, are at most
    ``most_values``.
    """
    if count_rows(files) * len(columns) > most_values:
        return lambda names: row_groups(files, columns=names)
    held = list(row_groups(files, columns=columns))
    return lambda names: (table.select(list(names)) for table in held)


def split_files(dataset: Path, splits: Iterable[str]) -> list[Path]:
    """Return the Parquet parts of a dataset's splits, in order."""
    return [file for split in splits for file in part_files(dataset / split)]


def schema_of(files: Sequence[Path]) -> pa.Schema:
    """Return the schema that the parts share."""
    return open_part(files[0]).schema_arrow


def read_keys(files: Sequence[Path]) -> pl.DataFrame:
    """Return ``row_id, qid, label`` of all rows, in order."""
    names = ["row_id", "qid", "label"]
    tables = list(row_groups(files, columns=names))
    return pl.DataFrame(pa.concat_tables(tables).select(names)) if tables else pl.DataFrame(schema=names)
