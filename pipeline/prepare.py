"""SELECTION + JUDGMENTS -> the prepared set: the kept rows with their features and weight, as Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline import parts, tables
from pipeline.errors import TableError


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
    kept = pl.scan_parquet(selection).filter("kept").collect()
    out.mkdir()
    rows = 0
    for bag in range(bags):
        chosen = kept if bags == 1 else kept.filter((pl.col("bags") & (1 << bag)) != 0)
        columns = ["row_id", "weight", *(["grade"] if "grade" in kept.columns else [])]
        rows += _write(files, chosen.select(columns), out / f"part-{bag:05}.parquet", selection)
    return {"rows": rows}


def _write(files: Sequence[Path], kept: pl.DataFrame, out: Path, selection: Path) -> int:
    rows = 0
    schema = tables.with_training(parts.schema_of(files), graded="grade" in kept.columns)
    with parts.PartWriter(out, schema) as writer:
        for table in parts.row_groups(files):
            chosen = prepare(table, kept)
            writer.write(chosen)
            rows += chosen.num_rows
    if rows != kept.height:
        raise TableError(
            f"{selection}: keeps {kept.height:,} rows, of which {rows:,} are in the training split; select again"
        )
    return rows
