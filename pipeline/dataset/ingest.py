"""SOURCE -> JUDGMENTS: LETOR text or Parquet becomes a dataset directory.

An archive is unpacked, every split is staged as it is read (:mod:`pipeline.dataset.staging`), and once all is
known the staged parts become final ones (:mod:`pipeline.dataset.regroup`). What is made on the way lies in
``.staging`` in the dataset's directory.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.core.config import IngestConfig, SplitConfig
from pipeline.core.errors import SourceError
from pipeline.core.files import write_text
from pipeline.core.tables import features_of
from pipeline.dataset import letor, parquet, parts
from pipeline.dataset.folds import of_splits
from pipeline.dataset.letor_blocks import Limits
from pipeline.dataset.regroup import finish, query_runs
from pipeline.dataset.sources import Source, SplitSource, is_parquet
from pipeline.dataset.staging import BUCKET_BYTES, Output, StagedSplit, common_schema, stage

Advance = Callable[[int], None]


def run(
    source: Source,
    out: Path,
    *,
    config: IngestConfig,
    split: SplitConfig,
    seed: int,
    threads: int = 1,
    advance: Advance | None = None,
    limits: Limits | None = None,
    rows_per_group: int | None = None,
    bucket_bytes: int = BUCKET_BYTES,
) -> dict[str, Any]:
    """Read every file of ``source`` and write the dataset directory ``out``; return what its dataset.json says.

    The bytes written do not depend on ``threads``, ``limits`` and ``bucket_bytes``.

    Args:
        source: Where the data is.
        out: Directory to make: ``<split>/part-*.parquet`` and ``dataset.json``.
        config: What missing values become.
        split: Shares of the queries for splits held out of a file.
        seed: Seed of that split.
        threads: Threads that parse text.
        advance: Told the source bytes read since the last call.
        limits: How much text is read and held at once.
        rows_per_group: Rows a row group aims at; None for what suits readers.
        bucket_bytes: Bytes of rows that are brought in order at a time.

    Raises:
        SourceError: With file, line and column of the first thing that is wrong.
        StorageError: There is no room to unpack an archive.
    """
    out.mkdir(parents=True, exist_ok=True)
    staging, output = out / ".staging", Output(config, rows_per_group, bucket_bytes)
    unpacked = staging / "unpacked"
    place, advance = _unpack(source, unpacked, advance or (lambda _: None))
    staged: list[StagedSplit] = []
    first_row = 0
    for part in source.splits:
        batches = _read(part, config, place, advance, threads=threads, limits=limits)
        directory = staging / "splits" / part.name
        staged.append(stage(part, batches, directory, output, first_row=first_row, background=threads > 1))
        if staged[-1].rows == 0:
            raise SourceError("no rows", file=part.files[0])
        # A fold trains on several partitions, so their row ids go on from one to the next.
        first_row = first_row + staged[-1].rows if source.layout == "partitions" else 0
    schema = common_schema(done.schema for done in staged)
    if not features_of(schema.names):
        raise SourceError("no row has a feature, such as 1:0.5", file=source.files[0])
    shutil.rmtree(unpacked, ignore_errors=True)
    notices: list[str] = []
    for done in staged:
        notices += finish(done, out, schema, output, shares=split.model_dump(), seed=seed)
    shutil.rmtree(staging)
    names = [n for s in source.splits for n in (s.name, *s.hold_out)]
    notices += _overlaps(source, out, names)
    document = {
        "layout": source.layout,
        "features": len(features_of(schema.names)),
        "qid": str(schema.field("qid").type),
        "doc_id": "doc_id" in schema.names,
        "splits": {name: describe(parts.split_files(out, [name])) for name in names},
        "notices": notices,
    }
    write_text(out / "dataset.json", json.dumps(document, indent=1) + "\n")
    return document


def require_contrast(source: Source, splits: dict[str, dict[str, int]]) -> None:
    """Raise :class:`SourceError` unless every fold trains on positives and negatives, by ``dataset.json``."""
    for fold in of_splits(list(splits)):
        rows = sum(splits[name]["rows"] for name in fold.train)
        negatives = sum(splits[name]["negatives"] for name in fold.train)
        lists = " and ".join(fold.train)
        if negatives == rows:
            what = f"no relevant row: every label of {lists} is 0, so there is nothing to learn"
            raise SourceError(what, file=source.path)
        if negatives == 0:
            what = f"no negatives: no label of {lists} is 0, so there is nothing to select from"
            raise SourceError(what, file=source.path)


def _overlaps(source: Source, out: Path, names: list[str]) -> list[str]:
    """Return notices about query ids that are in training and in held-out lists.

    Raises:
        SourceError: A query id is in two partitions, which a fold may train on together.
    """
    if source.layout == "file":
        return []
    queries = {name: query_runs(parts.split_files(out, [name]))["qid"].unique() for name in names}
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
            what = f"query {shared.sort()[0]} is in {one} and in {other}; its rows belong in one partition"
            raise SourceError(what, file=source.path)
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


def _unpack(source: Source, directory: Path, advance: Advance) -> tuple[Callable[[Path], Path], Advance]:
    """Unpack a packed source; return what says where a file of it is, and what to tell of the bytes read there.

    Half of an archive's bytes count as read once it is unpacked, and half while its files are read.
    """
    if source.archive is None:
        return lambda file: file, advance
    files = [file for split in source.splits for file in split.files]
    packed = source.archive.path.stat().st_size
    half = packed // 2
    source.archive.unpack(files, directory, advance=_scaled(advance, packed, half))
    rest = _scaled(advance, source.archive.unpacked_bytes(files), packed - half)
    return lambda file: directory / file.relative_to(source.path), rest


def _scaled(advance: Advance, whole: int, share: int) -> Advance:
    """Return a function that is told of ``whole`` bytes bit by bit, and tells ``advance`` of ``share`` bytes."""
    seen = 0

    def told(amount: int) -> None:
        nonlocal seen
        before, seen = seen, min(seen + amount, whole)
        if step := seen * share // whole - before * share // whole:
            advance(step)

    return told


def _read(
    split: SplitSource, config: IngestConfig, place: Callable[[Path], Path], advance: Advance, **how: Any
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a split's files in order; ``place`` says where a file is, ``how`` is for text."""
    missing, sentinel = config.missing, config.sentinel
    for file in split.files:
        at, read = place(file), parquet.read_parquet if is_parquet(file) else letor.read_letor
        options = {} if is_parquet(file) else how
        yield from read(file, missing=missing, sentinel=sentinel, progress=advance, at=at, **options)
