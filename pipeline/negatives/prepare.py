"""SELECTION + JUDGMENTS -> the prepared set: the kept rows with their features and weight, as Parquet."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
from polars import selectors

from pipeline.core import tables
from pipeline.core.errors import TableError
from pipeline.dataset import parts

_SETS_PER_PASS: Final = 4
"""Training sets written in one pass over the split: a row group of each waits in memory."""


def prepare(judgments: pa.Table, selection: pl.DataFrame) -> pa.Table:
    """Return the rows of ``judgments`` that the kept rows of a selection name, with their weight and any grade."""
    kept = pl.DataFrame(judgments).join(selection, on="row_id", how="inner", maintain_order="left")
    schema = tables.with_training(judgments.schema, graded="grade" in selection.columns)
    return parts.conform(kept.to_arrow(), schema)


def run(files: Sequence[Path], selection: Path, out: Path, *, bags: int = 1) -> dict[str, Any]:
    """Write the prepared set, row group after row group; only keys and weights are held in memory.

    Args:
        files: Parts of the training split.
        selection: SELECTION of the arm.
        out: Directory to make, with a part for each training set of the arm.
        bags: How many these are.

    Raises:
        TableError: SELECTION has kept rows that the training split does not.
    """
    columns = selectors.by_name("row_id", "weight", "grade", "bags", require_all=False)
    kept = pl.scan_parquet(selection).filter("kept").select(columns).collect()
    out.mkdir()
    rows = 0
    for first in range(0, bags, _SETS_PER_PASS):
        some = range(first, min(first + _SETS_PER_PASS, bags))
        sets = [kept.filter((pl.col("bags") & (1 << bag)) != 0) if bags > 1 else kept for bag in some]
        _write(files, sets, [out / f"part-{bag:05}.parquet" for bag in some], selection)
        rows += sum(chosen.height for chosen in sets)
    return {"rows": rows}


def _write(files: Sequence[Path], sets: Sequence[pl.DataFrame], out: Sequence[Path], selection: Path) -> None:
    """Write a part for each set of chosen rows, reading the training split once."""
    schema = tables.with_training(parts.schema_of(files), graded="grade" in sets[0].columns)
    compression = parts.compression_of(files)
    written = [0] * len(sets)
    with ExitStack() as stack:
        writers = [stack.enter_context(parts.PartWriter(o, schema, compression=compression)) for o in out]
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
