"""SOURCE -> JUDGMENTS: LETOR text or Parquet becomes a dataset directory.

Reading is one pass with constant memory. What only the end of the last file tells (the number of features,
whether query ids are integers, whether there are document ids) may differ between the parts staged on the
way; parts that turn out too narrow are rewritten. Rows of a query that are scattered over the file, and
queries that go to held-out splits, are brought together through buckets that fit in memory.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.core.config import IngestConfig, SplitConfig
from pipeline.core.errors import SourceError
from pipeline.core.files import write_text
from pipeline.core.rng import stream_key
from pipeline.core.tables import QID_INT, QID_TEXT, features_of, judgments
from pipeline.dataset import letor, parquet, parts
from pipeline.dataset.archive import Opener
from pipeline.dataset.folds import of_splits, split_queries
from pipeline.dataset.letor_blocks import DamagedArchiveError
from pipeline.dataset.sources import Source, SplitSource, is_parquet

_BUCKET_BYTES: Final = 256 << 20
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Staged:
    """A split as first written: parts in reading order, each with the schema it needed then."""

    source: SplitSource
    files: list[Path]
    features: int
    text_qid: bool
    doc_id: bool


def run(
    source: Source,
    out: Path,
    *,
    config: IngestConfig,
    split: SplitConfig,
    seed: int,
    threads: int = 1,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Read every file of ``source`` and write the dataset directory ``out``.

    Args:
        source: Where the data is.
        out: Directory to make: ``<split>/part-*.parquet`` and ``dataset.json``.
        config: What missing values become.
        split: Shares of the queries for splits held out of a file.
        seed: Seed of that split.
        threads: Threads that parse text; the bytes written do not depend on it.
        advance: Told the source bytes read since the last call.

    Returns:
        What ``dataset.json`` says: features, id types, and per split rows, queries and labels.

    Raises:
        SourceError: With file, line and column of the first thing that is wrong.
    """
    out.mkdir(parents=True, exist_ok=True)
    staging = out / ".staging"
    staged: list[Staged] = []
    first_row = 0
    with source.reading() as opener:
        for split_source in source.in_reading_order():
            batches = _read(split_source, staging, config, threads=threads, advance=advance, opener=opener)
            stage, rows = _stage(
                split_source, batches, staging / split_source.name, first_row, config, aside=threads > 1
            )
            if rows == 0:
                raise SourceError("no rows", file=split_source.files[0])
            staged.append(stage)
            first_row = first_row + rows if source.layout == "partitions" else 0
    staged.sort(key=lambda stage: source.splits.index(stage.source))
    schema = judgments(
        max(s.features for s in staged),
        qid=QID_TEXT if any(s.text_qid for s in staged) else QID_INT,
        doc_id=any(s.doc_id for s in staged),
    )
    if not features_of(schema.names):
        raise SourceError("no row has a feature, such as 1:0.5", file=source.files[0])
    notices: list[str] = []
    for stage in staged:
        notices += _finish(stage, out, schema, config, shares=split.model_dump(), seed=seed)
    shutil.rmtree(staging)
    names = [n for s in source.splits for n in (s.name, *s.hold_out)]
    notices += _overlaps(source, out, names)
    splits = {name: describe(parts.split_files(out, [name])) for name in names}
    document = {
        "layout": source.layout,
        "features": len(features_of(schema.names)),
        "qid": str(schema.field("qid").type),
        "doc_id": "doc_id" in schema.names,
        "splits": splits,
        "notices": notices,
    }
    write_text(out / "dataset.json", json.dumps(document, indent=1) + "\n")
    return document


def require_contrast(source: Source, splits: dict[str, dict[str, int]]) -> None:
    """Raise :class:`SourceError` unless every fold's training lists have positives and negatives.

    Args:
        source: What was read.
        splits: What ``dataset.json`` says of each split.
    """
    for fold in of_splits(list(splits)):
        rows = sum(splits[name]["rows"] for name in fold.train)
        negatives = sum(splits[name]["negatives"] for name in fold.train)
        lists = " and ".join(fold.train)
        if negatives == rows:
            raise SourceError(
                f"no relevant row: every label of {lists} is 0, so there is nothing to learn",
                file=source.path,
            )
        if negatives == 0:
            raise SourceError(
                f"no negatives: no label of {lists} is 0, so there is nothing to select from",
                file=source.path,
            )


def _overlaps(source: Source, out: Path, names: list[str]) -> list[str]:
    """Tell of query ids that are in training and in held-out lists.

    Raises:
        SourceError: A query id is in two partitions, which a fold may train on together.
    """
    if source.layout == "file":
        return []
    queries = {name: _queries(parts.split_files(out, [name]))["qid"].unique() for name in names}
    if source.layout == "partitions":
        pairs = list(combinations(names, 2))
    else:
        pairs = [
            (f.train[0], held) for f in of_splits(names) for held in (*f.vali, *f.test) if held in queries
        ]
    notices = []
    for one, other in pairs:
        shared = queries[one].filter(queries[one].is_in(queries[other].implode()))
        if len(shared) and source.layout == "partitions":
            raise SourceError(
                f"query {shared.sort().to_list()[0]} is in {one} and in {other}; its rows belong in one partition",
                file=source.path,
            )
        if len(shared):
            notices.append(
                f"{len(shared):,} of {len(queries[other]):,} query ids of {other} are also in {one}; if they name"
                f" the same queries, the figures of {other} are too good"
            )
    return notices


def describe(files: list[Path]) -> dict[str, int]:
    """Count a split's rows, queries and labels."""
    # By row group, so that what is held is as long as the list of queries, not as the data.
    label = pl.col("label")
    counted = [
        pl.DataFrame(table).group_by("qid").agg(pl.len().alias("rows"), label.max(), zeros=(label == 0).sum())
        for table in parts.row_groups(files, columns=["qid", "label"])
    ]
    queries = pl.concat(counted).group_by("qid").agg(pl.col("rows", "zeros").sum(), label.max())
    return {
        "rows": int(queries["rows"].sum()),
        "queries": queries.height,
        "negatives": int(queries["zeros"].sum()),
        "longest": int(queries.select(pl.col("rows").max()).item() or 0),
        "queries_without_positive": int((queries["label"] == 0).sum()),
    }


def _read(
    source: SplitSource,
    staging: Path,
    config: IngestConfig,
    *,
    threads: int,
    advance: Advance | None,
    opener: Opener | None,
) -> Iterator[pa.RecordBatch]:
    for file in source.files:
        if not is_parquet(file):
            yield from letor.read_letor(
                file, missing=config.missing, sentinel=config.sentinel, threads=threads, progress=advance,
                opener=opener,
            )  # fmt: skip
            continue
        with nullcontext(file) if opener is None else _unpacked(file, opener, staging) as at:
            yield from parquet.read_parquet(
                file, missing=config.missing, sentinel=config.sentinel, progress=advance, at=at
            )


@contextmanager
def _unpacked(file: Path, opener: Opener, staging: Path) -> Iterator[Path]:
    """Copy one packed Parquet file, which cannot be read as a stream, for as long as it is read."""
    staging.mkdir(exist_ok=True)
    copy = staging / "packed.parquet"
    with opener(file) as packed, copy.open("wb") as stream:
        try:
            shutil.copyfileobj(packed, stream, 1 << 20)
        except DamagedArchiveError as error:
            raise SourceError(str(error), file=file) from error
    yield copy
    copy.unlink()


def _stage(
    source: SplitSource,
    batches: Iterable[pa.RecordBatch],
    where: Path,
    row_id: int,
    config: IngestConfig,
    *,
    aside: bool,
) -> tuple[Staged, int]:
    """Write batches as they come; a new part begins whenever one needs a wider schema than the last."""
    where.mkdir(parents=True)
    files: list[Path] = []
    features, text_qid, doc_id, rows = 0, False, False, 0
    writer: parts.PartWriter | None = None
    last: pa.Schema | None = None
    with ExitStack() as open_part:
        for batch in batches:
            if last is None or not batch.schema.equals(last):
                last = batch.schema
                needs = (
                    max(features, len(features_of(last.names))), text_qid or last.field("qid").type != QID_INT,
                    doc_id or "doc_id" in last.names,
                )  # fmt: skip
            if writer is None or needs != (features, text_qid, doc_id):
                features, text_qid, doc_id = needs
                open_part.close()
                files.append(where / f"part-{len(files):05d}.parquet")
                schema = judgments(features, qid=QID_TEXT if text_qid else QID_INT, doc_id=doc_id)
                writer = open_part.enter_context(
                    parts.PartWriter(files[-1], schema, compression=config.compression, aside=aside)
                )
            ids = np.arange(row_id + rows, row_id + rows + batch.num_rows, dtype=np.int64)
            column = pa.Int64Array.from_buffers(pa.int64(), len(ids), [None, pa.py_buffer(ids)])
            numbered = batch.add_column(0, schema.field("row_id"), column)
            writer.write(parts.conform(numbered, schema, fill=_fill(config)))
            rows += batch.num_rows
    return Staged(source, files, features, text_qid, doc_id), rows


def _fill(config: IngestConfig) -> float:
    return 0.0 if config.missing == "zero" else float("nan")


def _finish(
    stage: Staged, out: Path, schema: pa.Schema, config: IngestConfig, *, shares: dict[str, float], seed: int
) -> list[str]:
    """Turn a staged split into its final parts; returns notices for the user."""
    runs = _queries(stage.files, schema.field("qid"))
    queries = runs.group_by("qid", maintain_order=True).agg(pl.col("rows").sum()).with_row_index("rank")
    scattered = int((runs["qid"] != runs["qid"].shift()).fill_null(True).sum()) > queries.height
    names = [stage.source.name, *stage.source.hold_out]
    if not scattered and len(names) == 1:
        _rewrite(stage.files, out / names[0], schema, config)
        return []
    group = np.zeros(queries.height, dtype=np.int16)
    if len(names) > 1:
        wanted = {name: shares[name.rpartition("/")[2]] for name in names[1:]}
        key = stream_key(seed, f"split/{names[0]}")
        group = split_queries(queries.height, wanted, seed=key, where=stage.source.files[0])
    # Independent of the file's order: which queries are held out follows from their sorted ids.
    by_id = queries.sort("qid").with_columns(pl.Series("split", group)).sort("split", "rank")
    _regroup(stage, out, names, by_id, schema, config)
    if len(names) > 1:
        counts = by_id["split"].value_counts().sort("split")["count"].to_list()
        parts_of = ", ".join(f"{n} {name.rpartition('/')[2]}" for name, n in zip(names, counts, strict=True))
        return [f"{stage.source.files[0].name} was split by query: {parts_of}"]
    return []


def _queries(files: list[Path], field: pa.Field | None = None) -> pl.DataFrame:
    """Return ``qid, rows`` of each run of rows with one query id, in order; a row group ends a run.

    Held is as much as there are runs, which is far less than rows unless queries are scattered.
    """
    runs = []
    for table in parts.row_groups(files, columns=["qid"]):
        qid = table if field is None else parts.conform(table, pa.schema([field]))
        runs.append(pl.DataFrame(qid)["qid"].rle().struct.unnest().select(qid="value", rows="len"))
    return pl.concat(runs)


def _rewrite(files: list[Path], out: Path, schema: pa.Schema, config: IngestConfig) -> None:
    """Move the one staged part into place, or write several, or a narrow one, again in the final schema."""
    out.mkdir(parents=True)
    target = out / "part-00000.parquet"
    if len(files) == 1 and parts.schema_of(files) == schema:
        files[0].replace(target)
        return
    with parts.PartWriter(target, schema, compression=config.compression) as writer:
        for table in parts.row_groups(files):
            writer.write(parts.conform(table, schema, fill=_fill(config)))


def _regroup(
    stage: Staged, out: Path, names: list[str], queries: pl.DataFrame, schema: pa.Schema, config: IngestConfig
) -> None:
    """Bring each query's rows together, in the order of ``queries`` (split, then first appearance)."""
    bytes_before = pl.col("rows").cum_sum() * (4 * len(features_of(schema.names)) + 32)
    queries = queries.with_columns(
        bucket=(bytes_before // _BUCKET_BYTES).rle_id() if queries.height else pl.lit(0),
        order=pl.int_range(pl.len()),
    ).select("qid", "split", "bucket", "order")
    buckets = _scatter(stage, queries, schema, config)
    writers = {}
    with ExitStack() as open_parts:
        for number, name in enumerate(names):
            (out / name).mkdir(parents=True)
            file = out / name / "part-00000.parquet"
            part = parts.PartWriter(file, schema, compression=config.compression)
            writers[number] = open_parts.enter_context(part)
        for files in buckets:
            rows = pl.concat([_conformed(t, schema, config) for t in parts.row_groups(files)])
            ordered = rows.join(queries, on="qid", how="left").sort("order", "row_id")
            for (number,), chunk in ordered.group_by(["split"], maintain_order=True):
                table = chunk.drop("split", "bucket", "order").to_arrow()
                writers[int(number)].write(parts.conform(table, schema))


def _conformed(table: pa.Table, schema: pa.Schema, config: IngestConfig) -> pl.DataFrame:
    return pl.DataFrame(parts.conform(table, schema, fill=_fill(config)))


def _scatter(
    stage: Staged, queries: pl.DataFrame, schema: pa.Schema, config: IngestConfig
) -> list[list[Path]]:
    """Deal staged rows into buckets that fit in memory; one bucket needs no copy."""
    count = int(queries["bucket"].max() or 0) + 1  # type: ignore[arg-type]
    if count == 1:
        return [stage.files]
    where = stage.files[0].parent
    files = [where / f"bucket-{number:05d}.parquet" for number in range(count)]
    # All buckets together hold no more rows in memory than the writer of one split does.
    share = max(parts.rows_per_group(len(features_of(schema.names))) // count, 1)
    with ExitStack() as open_parts:
        writers = [open_parts.enter_context(parts.PartWriter(file, schema, rows=share)) for file in files]
        for table in parts.row_groups(stage.files):
            rows = _conformed(table, schema, config).join(
                queries.select("qid", "bucket"), on="qid", how="left"
            )
            for (number,), chunk in rows.group_by(["bucket"], maintain_order=True):
                writers[int(number)].write(parts.conform(chunk.drop("bucket").to_arrow(), schema))
    return [[file] for file in files]
