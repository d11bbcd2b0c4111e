"""Staged parts become final ones: one schema, whole queries, held-out splits.

Rows of a query that are scattered over the file, and queries that go to held-out splits, are brought together
through buckets that fit in memory. Parts that turned out too narrow are written again.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.core.rng import stream_key
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.dataset.folds import split_queries
from pipeline.dataset.staging import Output, StagedSplit


def finish(
    staged: StagedSplit, out: Path, schema: pa.Schema, output: Output, *, shares: dict[str, float], seed: int
) -> list[str]:
    """Turn a staged split into the final parts of it and of the splits held out of it; return notices.

    Args:
        staged: The split; its files are moved or read.
        out: The dataset's directory.
        schema: The final schema.
        output: How parts are written.
        shares: Share of the queries per held-out split, which are drawn by ``seed``.
        seed: The run's seed.

    Raises:
        SourceError: There are too few queries to hold any out.
    """
    runs = query_runs(staged.files, schema.field("qid"))
    queries = runs.group_by("qid", maintain_order=True).agg(pl.col("rows").sum()).with_row_index("rank")
    scattered = int((runs["qid"] != runs["qid"].shift()).fill_null(True).sum()) > queries.height
    names = [staged.source.name, *staged.source.hold_out]
    if not scattered and len(names) == 1:
        _rewrite(staged.files, out / names[0], schema, output)
        return []
    group = np.zeros(queries.height, dtype=np.int16)
    if len(names) > 1:
        wanted = {name: shares[name.rpartition("/")[2]] for name in names[1:]}
        key = stream_key(seed, f"split/{names[0]}")
        group = split_queries(queries.height, wanted, seed=key, where=staged.source.files[0])
    # Independent of the file's order: which queries are held out follows from their sorted ids.
    by_id = queries.sort("qid").with_columns(pl.Series("split", group)).sort("split", "rank")
    _regroup(staged.files, [out / name for name in names], by_id, schema, output)
    if len(names) > 1:
        counts = by_id["split"].value_counts().sort("split")["count"].to_list()
        parts_of = ", ".join(f"{n} {name.rpartition('/')[2]}" for name, n in zip(names, counts, strict=True))
        return [f"{staged.source.files[0].name} was split by query: {parts_of}"]
    return []


def query_runs(files: Sequence[Path], field: pa.Field | None = None) -> pl.DataFrame:
    """Return ``qid, rows`` of each run of rows with one query id, in order; a row group ends a run.

    It holds as many rows as there are runs, which is far less than rows unless queries are scattered.
    """
    runs = []
    for table in parts.row_groups(files, columns=["qid"]):
        qid = table if field is None else parts.conform(table, pa.schema([field]))
        runs.append(pl.DataFrame(qid)["qid"].rle().struct.unnest().select(qid="value", rows="len"))
    return pl.concat(runs)


def _rewrite(files: list[Path], directory: Path, schema: pa.Schema, output: Output) -> None:
    """Move the one staged part into place, or write several, or a narrow one, again in the final schema."""
    directory.mkdir(parents=True)
    target = directory / "part-00000.parquet"
    if len(files) == 1 and parts.schema_of(files) == schema:
        files[0].replace(target)
        return
    with output.writer(target, schema) as writer:
        for table in parts.row_groups(files):
            writer.write(output.conform(table, schema))


def _regroup(
    files: list[Path], splits: list[Path], queries: pl.DataFrame, schema: pa.Schema, output: Output
) -> None:
    """Write each query's rows together, in the order of ``queries`` (split, then first appearance)."""
    bytes_before = pl.col("rows").cum_sum() * (4 * len(features_of(schema.names)) + 32)
    queries = queries.with_columns(
        bucket=(bytes_before // output.bucket_bytes).rle_id() if queries.height else pl.lit(0),
        order=pl.int_range(pl.len()),
    ).select("qid", "split", "bucket", "order")
    buckets = _scatter(files, queries, schema, output)
    with ExitStack() as open_parts:
        writers = []
        for directory in splits:
            directory.mkdir(parents=True)
            writers.append(open_parts.enter_context(output.writer(directory / "part-00000.parquet", schema)))
        for bucket in buckets:
            rows = pl.concat([pl.DataFrame(output.conform(t, schema)) for t in parts.row_groups(bucket)])
            ordered = rows.join(queries, on="qid", how="left").sort("order", "row_id")
            _distribute(ordered, "split", writers, schema)


def _scatter(files: list[Path], queries: pl.DataFrame, schema: pa.Schema, output: Output) -> list[list[Path]]:
    """Distribute staged rows to buckets that fit in memory; one bucket needs no copy."""
    count = int(queries["bucket"].max() or 0) + 1  # type: ignore[arg-type]
    if count == 1:
        return [files]
    buckets = [files[0].with_name(f"bucket-{number:05d}.parquet") for number in range(count)]
    # All buckets together hold no more rows in memory than the writer of one split does.
    rows_per_group = output.rows_per_group or parts.rows_per_group(len(features_of(schema.names)))
    share = max(rows_per_group // count, 1)
    with ExitStack() as open_parts:
        writers = [open_parts.enter_context(parts.PartWriter(file, schema, rows=share)) for file in buckets]
        for table in parts.row_groups(files):
            rows = pl.DataFrame(output.conform(table, schema))
            _distribute(rows.join(queries, on="qid", how="left"), "bucket", writers, schema)
    return [[file] for file in buckets]


def _distribute(rows: pl.DataFrame, column: str, writers: list[parts.PartWriter], schema: pa.Schema) -> None:
    """Write each row by the writer that ``column`` numbers."""
    for (number,), chunk in rows.group_by([column], maintain_order=True):
        writers[int(number)].write(parts.conform(chunk.to_arrow(), schema))
