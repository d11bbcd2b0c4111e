"""SCORES in, SELECTION out, a block of whole queries at a time.

A block is a row group of SELECTION, and begins with the first query at or behind each multiple of
:data:`ROWS`; so the bytes depend on the rows alone, and not on the row groups of SCORES.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import parts
from pipeline.negatives.context import run_starts

ROWS: Final = 1 << 20
"""Rows a block aims at: fewer cost more time, as planning takes as long for few rows as for many, more memory."""


def read(scores: Path, rows: int | None = ROWS) -> Iterator[pl.DataFrame]:
    """Yield SCORES, but for ``fold``, block by block; all at once without ``rows`` or if a query's lie apart."""
    stored = pl.scan_parquet(scores).select("row_id", "qid", "label", "score")
    qid = stored.select("qid").collect()["qid"]
    starts = run_starts(qid)
    if rows is None or qid.gather(starts).n_unique() < len(starts):
        yield stored.collect()
        return
    starts = np.append(starts, len(qid))
    first = np.searchsorted(starts, np.arange(0, len(qid), rows))
    for start, end in pairwise(np.unique(np.append(starts[first], len(qid))).tolist()):
        yield stored.slice(start, end - start).collect()


def open_writer(path: Path, schema: pa.Schema, *, rows: int = ROWS) -> pq.ParquetWriter:
    """Return a writer of SELECTION in the encodings that suit it, to be used as a context manager.

    Reasons are written as a dictionary of those in the row group, in order of the alphabet.
    """
    at = schema.get_field_index("reason")
    schema = schema.set(at, pa.field("reason", pa.dictionary(pa.uint8(), pa.string()), nullable=False))
    words = [field.name for field in schema if not pa.types.is_primitive(field.type)]
    numbers = [name for name in schema.names if name not in (*words, "score", "kept")]
    ids = ("row_id", "qid")
    # Scores hardly compress and are three quarters of the file: zstd would save a tenth and take longer.
    # Other numbers are as small in these encodings as in a dictionary, in less time.
    return pq.ParquetWriter(
        path,
        schema,
        use_dictionary=words,
        compression="lz4",
        column_encoding={n: "DELTA_BINARY_PACKED" if n in ids else "BYTE_STREAM_SPLIT" for n in numbers},
        write_statistics=[*ids, "label"],
        max_rows_per_page=2 * rows,
        write_batch_size=1 << 14,
        store_schema=False,  # a reader should see strings, not our dictionary
    )


def write(writer: pq.ParquetWriter, selection: pl.DataFrame, rows: int = ROWS) -> dict[str, int]:
    """Write a block, cut at twice ``rows``, which :func:`read` aimed at; return how often each reason occurs."""
    counts = dict(selection["reason"].value_counts().sort("reason").iter_rows())
    table = selection.with_columns(pl.col("reason").cast(pl.Enum(list(counts)))).to_arrow()
    writer.write_table(parts.conform(table, writer.schema), row_group_size=2 * rows)
    return counts
