"""SCORES in, SELECTION out, a block of whole queries at a time.

A block is a row group of SELECTION, and begins with the first query at or behind each multiple of
:data:`ROWS`; so the bytes depend on the rows alone, and not on the row groups of SCORES.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import parts
from pipeline.negatives.result import REASON
from pipeline.negatives.context import edges, run_starts

ROWS: Final = 1 << 20
"""Rows a block aims at: fewer cost more time, as planning takes as long for few rows as for many, more memory."""
_COLUMNS: Final = ("row_id", "qid", "label", "score")

Ints = npt.NDArray[np.int64]


def query_starts(scores: Path) -> Ints | None:
    """Return the offsets of the queries, the end included; None where one's rows are not all together."""
    starts, queries, rows = [np.zeros(0, np.int64)], [pl.Series()], 0
    for table in parts.row_groups([scores], columns=["qid"]):
        qid = pl.Series(table["qid"])
        here = run_starts(qid)
        if rows and len(here) and queries[-1][-1] == qid[0]:
            here = here[1:]
        if len(here):
            starts.append(here + rows)
            queries.append(qid.gather(here))
        rows += len(qid)
    apart = rows and pl.concat(queries[1:]).n_unique() < sum(map(len, queries))
    return None if apart else np.append(np.concatenate(starts), rows)


def read(scores: Path, starts: Ints) -> Iterator[pl.DataFrame]:
    """Yield SCORES, but for ``fold``, block by block.

    Args:
        scores: SCORES.
        starts: Of :func:`query_starts`.
    """
    sizes = np.diff(starts[edges(starts, ROWS)]).tolist()
    waiting: list[pa.Table] = []
    tables = parts.row_groups([scores], columns=_COLUMNS)
    for size in sizes:
        while (there := sum(table.num_rows for table in waiting)) < size:
            waiting.append(next(tables))
        rows = pa.concat_tables(waiting)
        yield pl.DataFrame(rows.slice(0, size)).select(_COLUMNS)
        waiting = [rows.slice(size)] if there > size else []


class Writer:
    """Write SELECTION, a row group for every block; what comes all at once is cut by the number of its rows.

    Used as a context manager. Reasons, of which there are few, are written from a dictionary of those in the
    row group, so that the strings never are made.

    Args:
        path: File to write.
        schema: SELECTION.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        at = schema.get_field_index("reason")
        self._schema = schema.set(
            at, pa.field("reason", pa.dictionary(pa.uint8(), pa.string()), nullable=False)
        )
        words = [field.name for field in self._schema if not pa.types.is_primitive(field.type)]
        self._writer = pq.ParquetWriter(
            path, self._schema, use_dictionary=words,
            # Scores hardly compress, and are three quarters of the file: zstd would take a tenth off its bytes,
            # and a tenth longer to write it.
            compression="lz4",
            # For as few bytes, once compressed, in less time than it takes to look numbers up in a dictionary.
            column_encoding={
                name: "DELTA_BINARY_PACKED" if name in ("row_id", "qid") else "BYTE_STREAM_SPLIT"
                for name in schema.names if name not in (*words, "score", "kept")
            },
            write_statistics=["row_id", "qid", "label"], max_rows_per_page=2 * ROWS, write_batch_size=1 << 14,
            # Or the file would say that reasons are numbers for words, which is our way to write them.
            store_schema=False,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, selection: pl.DataFrame) -> dict[str, int]:
        """Write SELECTION, its reasons :data:`~pipeline.negatives.result.REASON`; returns how often each occurs."""
        at = self._schema.get_field_index("reason")
        words = tally(selection["reason"])
        reasons = worded(selection["reason"], words)
        table = selection.drop("reason").to_arrow().add_column(at, "reason", reasons)
        self._writer.write_table(parts.conform(table, self._schema), row_group_size=2 * ROWS)
        return dict(words.select("word", "count").iter_rows())


def tally(reasons: pl.Series) -> pl.DataFrame:
    """Return the reasons that occur as ``word, code, count``, in order of the alphabet."""
    codes = reasons.to_physical().alias("code")
    # A pass for each code there may be, of which there are few, is quicker than counting all row by row.
    most = codes.max()
    known = range(most + 1 if isinstance(most, int) else 0)
    counts = pl.Series("count", [(codes == code).sum() for code in known], dtype=pl.Int64)
    words = pl.DataFrame([pl.Series("code", known, dtype=pl.UInt8), counts]).filter(pl.col("count") > 0)
    names = words["code"].cat.to(REASON).cast(pl.String).alias("word")
    return words.select(names, "code", "count").sort("word")


def worded(reasons: pl.Series, words: pl.DataFrame) -> pa.DictionaryArray:
    """Return reasons with ``words``, their :func:`tally`, for a dictionary."""
    place = np.zeros(256, dtype=np.uint8)
    place[words["code"].to_numpy()] = np.arange(words.height)
    # Bytes for bytes: NumPy and Polars would make every one of them an index of four or eight first.
    codes = reasons.to_physical().to_numpy().tobytes().translate(place.tobytes())
    # Not by way of `pa.array`, which imports pandas where there is one.
    names = words["word"].to_arrow().cast(pa.string())
    places = pa.Array.from_buffers(pa.uint8(), len(codes), [None, pa.py_buffer(codes)])
    return pa.DictionaryArray.from_arrays(places, names)
