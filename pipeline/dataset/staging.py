"""A split as first written: parts in reading order, each as wide as was known when it was begun.

Reading is one pass with constant memory. What only the end of the last file tells (the number of features,
whether query ids are integers, whether there are document ids) may differ between the parts;
:mod:`pipeline.dataset.regroup` turns them into final ones.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.core.config import IngestConfig
from pipeline.core.tables import QID_INT, QID_TEXT, features_of, judgments
from pipeline.dataset import parts
from pipeline.dataset.sources import SplitSource

BUCKET_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class Output:
    """How parts are written."""

    config: IngestConfig  # compression, and what a feature is that a row does not name
    rows_per_group: int | None = None  # rows a row group aims at; None for what suits readers
    bucket_bytes: int = BUCKET_BYTES  # bytes of rows that are brought in order at a time

    def writer(self, path: Path, schema: pa.Schema, *, background: bool = False) -> parts.PartWriter:
        """Return a writer of one part."""
        compression, rows = self.config.compression, self.rows_per_group
        return parts.PartWriter(path, schema, compression=compression, rows=rows, background=background)

    def conform(self, rows: pa.Table | pa.RecordBatch, schema: pa.Schema) -> pa.Table:
        """Return ``rows`` with the columns of ``schema``, features that are not there filled."""
        return parts.conform(rows, schema, fill=0.0 if self.config.missing == "zero" else float("nan"))


@dataclass(frozen=True)
class StagedSplit:
    """A split as first written."""

    source: SplitSource
    files: list[Path]
    rows: int
    schema: pa.Schema  # fits the rows of every file


def common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return the JUDGMENTS that the rows of all these schemas fit."""
    schemas = list(schemas)
    features = max(len(features_of(schema.names)) for schema in schemas)
    integers = all(schema.field("qid").type == QID_INT for schema in schemas)
    doc_id = any("doc_id" in schema.names for schema in schemas)
    return judgments(features, qid=QID_INT if integers else QID_TEXT, doc_id=doc_id)


def stage(
    source: SplitSource,
    batches: Iterable[pa.RecordBatch],
    directory: Path,
    output: Output,
    *,
    first_row: int,
    background: bool,
) -> StagedSplit:
    """Write a split's batches as they come; a new part begins whenever one needs a wider schema than the last.

    Args:
        source: The split.
        batches: Its rows, without ``row_id``.
        directory: Directory to make for the parts.
        output: How they are written.
        first_row: ``row_id`` of the first row.
        background: Write in a thread of its own while the next rows are read; the bytes are the same.
    """
    directory.mkdir(parents=True)
    files: list[Path] = []
    rows, schema = 0, judgments(0, qid=QID_INT, doc_id=False)
    writer: Any = None
    last: pa.Schema | None = None
    with ExitStack() as open_part:
        for batch in batches:
            if last is None or not batch.schema.equals(last):
                last, before = batch.schema, schema
                schema = common_schema([schema, last])
                if writer is None or schema != before:
                    open_part.close()
                    files.append(directory / f"part-{len(files):05d}.parquet")
                    writer = open_part.enter_context(output.writer(files[-1], schema, background=background))
            ids = np.arange(first_row + rows, first_row + rows + batch.num_rows, dtype=np.int64)
            column = pa.Int64Array.from_buffers(pa.int64(), len(ids), [None, pa.py_buffer(ids)])
            writer.write(output.conform(batch.add_column(0, schema.field("row_id"), column), schema))
            rows += batch.num_rows
    return StagedSplit(source, files, rows, schema)
