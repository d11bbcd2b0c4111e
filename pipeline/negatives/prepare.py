"""SELECTION + JUDGMENTS -> the prepared set: the kept rows with their features and weight, as Parquet."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from pipeline.core import tables
from pipeline.core.errors import TableError
from pipeline.dataset import parts

_SETS_PER_PASS: Final = 4
"""Training sets written in one pass over the split: a row group of each waits in memory."""


def prepare(judgments: pa.Table, selection: pl.DataFrame) -> pa.Table:
    """Return the kept rows of ``judgments`` in their order, plus ``weight`` float32 and any ``grade`` uint8.

    Args:
        judgments: JUDGMENTS, any part of the training split.
        selection: ``row_id, weight`` of the kept rows, and ``grade`` for a graded arm.
    """
    kept = pl.DataFrame(judgments).join(selection, on="row_id", how="inner", maintain_order="left")
    schema = tables.with_training(judgments.schema, graded="grade" in selection.columns)
    return parts.conform(kept.to_arrow(), schema)


def run(files: Sequence[Path], selection: Path, out: Path, *, bags: int = 1) -> dict[str, Any]:
    """Write the prepared set, row group after row group; only keys and weights are held in memory.

    Args:
        files: Parts of the training split.
        selection: SELECTION of the arm.
        out: Directory to make. A bagged arm has a part for each of its training sets.
        bags: Training sets of the arm.

    Raises:
        TableError: SELECTION has kept rows that the training split does not.
    """
    stored = pl.scan_parquet(selection)
    there = stored.collect_schema().names()
    columns = [name for name in ("row_id", "weight", "grade") if name in there]
    kept = stored.filter("kept").select(*columns, *(["bags"] if bags > 1 else [])).collect()
    out.mkdir()
    rows = 0
    for first in range(0, bags, _SETS_PER_PASS):
        some = range(first, min(first + _SETS_PER_PASS, bags))
        sets = [
            (kept if bags == 1 else kept.filter((pl.col("bags") & (1 << bag)) != 0)).select(columns)
            for bag in some
        ]
        _write(files, sets, [out / f"part-{bag:05}.parquet" for bag in some], selection)
        rows += sum(chosen.height for chosen in sets)
    return {"rows": rows}


def _write(
    files: Sequence[Path], sets: Sequence[pl.DataFrame], paths: Sequence[Path], selection: Path
) -> None:
    """Write a part for each set of chosen rows, reading the training split once."""
    schema = tables.with_training(parts.schema_of(files), graded="grade" in sets[0].columns)
    written = [0] * len(sets)
    with ExitStack() as stack:
        compression = parts.compression_of(files)
        writers = [
            stack.enter_context(parts.PartWriter(path, schema, compression=compression)) for path in paths
        ]
        for table in parts.row_groups(files):
            for number, chosen in enumerate(sets):
                rows = prepare(table, chosen)
                writers[number].write(rows)
                written[number] += rows.num_rows
    for chosen, count in zip(sets, written, strict=True):
        if count != chosen.height:
            raise TableError(
                f"{selection}: keeps {chosen.height:,} rows, of which {count:,} are in the training split;"
                " select again"
            )
