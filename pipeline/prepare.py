"""SELECTION + JUDGMENTS -> the prepared set: the kept rows with their features and weight, as Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline import parts
from pipeline.errors import TableError


def prepare(judgments: pa.Table, selection: pl.DataFrame) -> pa.Table:
    """Return the kept rows of ``judgments`` in their order, plus ``weight`` float32.

    Args:
        judgments: JUDGMENTS, any part of the training split.
        selection: ``row_id, weight`` of the kept rows.
    """
    kept = pl.DataFrame(judgments).join(selection, on="row_id", how="inner", maintain_order="left")
    schema = judgments.schema.append(pa.field("weight", pa.float32(), nullable=False)).remove_metadata()
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
        rows += _write(files, chosen.select("row_id", "weight"), out / f"part-{bag:05}.parquet", selection)
    return {"rows": rows}


def _write(files: Sequence[Path], kept: pl.DataFrame, out: Path, selection: Path) -> int:
    rows = 0
    schema = parts.schema_of(files).append(pa.field("weight", pa.float32(), nullable=False)).remove_metadata()
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
