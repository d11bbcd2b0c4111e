"""What is in Parquet files of one schema: which table it is, its size, and the few figures that describe it.

Rows and row groups come from the files' footers; figures come from key columns. Features are never read,
but for the first few of the rows that are shown.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import tables
from pipeline.core.errors import SourceError, StorageError

Facts = dict[str, Any]
"""JSON values: what a script reads, and all that the screen shows."""

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_FIRST_ROWS: Final = 5
_FIRST_COLUMNS: Final = 20
_FIRST_FEATURES: Final = 6
_MAGIC: Final = b"PAR1"
_TYPE_NAMES: Final = {"halffloat": "float16", "float": "float32", "double": "float64"}  # Arrow's and NumPy's


def table_facts(files: Sequence[Path]) -> Facts:
    """Describe Parquet files that hold one table, or its parts in order.

    Args:
        files: At least one.

    Returns:
        ``table`` (its name in :mod:`pipeline.core.tables`, or None), ``columns`` (neighbouring features as one
        entry), ``rows``, ``row_groups``, ``bytes``, ``files`` (the same for each), ``first`` (rows) and
        ``contents``: what :data:`CONTENTS` finds for that table.

    Raises:
        SourceError: A file is not there or not Parquet, or the files differ in their columns.
        StorageError: A file is damaged.
    """
    opened = [open_parquet(file) for file in files]
    schema = opened[0].schema_arrow.remove_metadata()
    for file, part in zip(files, opened, strict=True):
        if part.schema_arrow.names != schema.names:
            raise SourceError(
                f"its columns differ from those of {files[0].name}; inspect one of them", file=file
            )
    table = recognise(schema)
    each = [file_facts(file, part) for file, part in zip(files, opened, strict=True)]
    with _readable(files):
        contents = CONTENTS[table](pl.scan_parquet(list(files)), schema) if table else {}
        first = _first_rows(opened, schema, table)
    return {
        "table": table,
        "columns": short_schema(schema),
        **{key: sum(entry[key] for entry in each) for key in ("rows", "row_groups", "bytes")},
        "files": each,
        "contents": plain(contents),
        "first": plain(first),
    }


def open_parquet(file: Path) -> pq.ParquetFile:
    """Open a Parquet file that need not be one of ours.

    Raises:
        SourceError: There is no such file, or it is of another kind.
        StorageError: It is damaged, cut short or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
        if magic != _MAGIC:
            kind = "not a Parquet file" if magic else "an empty file"
            raise SourceError(f"{kind}; inspect takes a run, a dataset directory or Parquet", file=file)
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{file}: a damaged or unreadable Parquet file ({_reason(error)})") from None


def file_facts(file: Path, part: pq.ParquetFile) -> Facts:
    """Return what a file's footer tells: ``name, rows, row_groups, bytes``."""
    status = file.stat()
    footer = part.metadata
    return {
        "name": file.name,
        "rows": footer.num_rows,
        "row_groups": footer.num_row_groups,
        "bytes": status.st_size,
    }


def recognise(schema: pa.Schema) -> str | None:
    """Return the name of the table that has these columns; None: none of ours."""
    if "qid" in schema.names:
        qid = schema.field("qid").type
        for name, contract in (
            ("METRICS", tables.metrics(qid=qid)), ("SELECTION", tables.selection(qid=qid)),
            ("SCORES", tables.scores(qid=qid)),
        ):  # fmt: skip
            if _holds(schema, contract):
                return name
        if "f1" in schema.names and "label" in schema.names:
            label = schema.field("label").type
            if pa.types.is_integer(label) or pa.types.is_floating(label):
                return "PREPARED" if _holds(schema, pa.schema([("weight", pa.float32())])) else "JUDGMENTS"
    known = {"SUMMARY": tables.SUMMARY, "SEARCH": tables.SEARCH}
    return next((name for name, contract in known.items() if _holds(schema, contract)), None)


def _holds(schema: pa.Schema, contract: pa.Schema) -> bool:
    return all(
        field.name in schema.names and schema.field(field.name).type == field.type for field in contract
    )


def short_schema(schema: pa.Schema) -> list[Facts]:
    """Return ``name, type, nullable`` per column; neighbouring features are one entry with ``count``."""
    short: list[Facts] = []
    for field in schema:
        last = short[-1] if short else {}
        kind = _TYPE_NAMES.get(str(field.type), str(field.type))
        entry = {"name": field.name, "type": kind, "nullable": field.nullable}
        is_feature = bool(tables.features_of([field.name]))
        if (
            is_feature
            and "count" in last
            and (last["type"], last["nullable"]) == (entry["type"], entry["nullable"])
        ):
            last["count"] += 1
            last["name"] = f"{last['name'].partition('..')[0]}..{field.name}"
        else:
            short.append({**entry, "count": 1} if is_feature else entry)
    return short


def _first_rows(opened: Sequence[pq.ParquetFile], schema: pa.Schema, table: str | None) -> list[Facts]:
    names = list(schema.names)
    if table in ("JUDGMENTS", "PREPARED"):
        hidden = set(tables.features_of(names)[_FIRST_FEATURES:])
        names = [name for name in names if name not in hidden]
    part = next((part for part in opened if part.metadata.num_rows), None)
    if part is None:
        return []
    batch = next(
        part.iter_batches(_FIRST_ROWS, row_groups=[_first_group(part)], columns=names[:_FIRST_COLUMNS])
    )
    rows: list[Facts] = batch.to_pylist()
    return rows


def _first_group(part: pq.ParquetFile) -> int:
    footer = part.metadata
    return next(group for group in range(footer.num_row_groups) if footer.row_group(group).num_rows)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can carry it: what it has no form for (NaN, infinity, dates) becomes text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if (
        value is None
        or isinstance(value, bool | int | str)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    return str(value)


@contextmanager
def _readable(files: Sequence[Path]) -> Iterator[None]:
    """Turn a failure to read the data of a file whose footer is good into one line."""
    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        where = files[0] if len(files) == 1 else files[0].parent
        raise StorageError(f"{where}: damaged Parquet data ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---- What each table says ---------------------------------------------------------------------------------


def label_counts(files: Sequence[Path]) -> list[Facts]:
    """Return ``label, rows`` of the labels there are; reads one column.

    Raises:
        StorageError: A file is damaged.
    """
    with _readable(files):
        counts = pl.scan_parquet(list(files)).group_by("label").agg(rows=pl.len()).sort("label")
        return counts.collect(engine="streaming").to_dicts()


def _judgments(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    counts = rows.group_by("qid", "label").agg(rows=pl.len()).collect(engine="streaming")
    queries = counts.group_by("qid").agg(pl.col("rows").sum(), pl.col("label").max())
    total = int(counts["rows"].sum())
    negatives = int(counts.filter(pl.col("label") == 0)["rows"].sum())
    return {
        "features": len(tables.features_of(schema.names)),
        "qid": str(schema.field("qid").type),
        "doc_id": "doc_id" in schema.names,
        "queries": queries.height,
        "negatives": negatives,
        "negatives_fraction": negatives / total if total else None,
        "longest": queries["rows"].max(),
        "queries_without_positive": queries.filter(pl.col("label") == 0).height,
        "labels": counts.group_by("label").agg(pl.col("rows").sum()).sort("label").to_dicts(),
    }


def _prepared(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    facts = {**_judgments(rows, schema), "weights": _weights(rows)}
    if "grade" in schema.names:
        counts = rows.group_by("grade").agg(rows=pl.len()).sort("grade").collect()
        facts["grades"] = counts.to_dicts()
    return facts


def _weights(rows: pl.LazyFrame) -> Facts:
    weight = pl.col("weight").cast(pl.Float64)
    return rows.select(sum=weight.sum(), smallest=weight.min(), largest=weight.max()).collect().to_dicts()[0]


def _scores(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    del schema
    score = pl.col("score")
    names = [f"{q:g}" for q in QUANTILES]
    quantiles = [score.quantile(q, "linear").alias(name) for q, name in zip(QUANTILES, names, strict=True)]
    by_label = rows.group_by("label").agg(pl.len().alias("rows"), score.mean().alias("mean"), *quantiles)
    by_fold = rows.group_by("fold").agg(rows=pl.len(), queries=pl.col("qid").n_unique())
    labels, folds = pl.collect_all([by_label.sort("label"), by_fold.sort("fold")])
    return {
        "labels": [
            {"label": row["label"], "rows": row["rows"], "mean": row["mean"],
             "quantiles": {q: row[q] for q in names}}
            for row in labels.to_dicts()
        ],
        "folds": folds.to_dicts(),
    }  # fmt: skip


def _selection(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    del schema
    weight = pl.col("weight").cast(pl.Float64)
    reasons = (
        rows.group_by("reason", "kept")
        .agg(rows=pl.len(), weight=weight.sum())
        .sort("kept", "rows", descending=True)
    )
    negative = pl.col("label") == 0
    totals = rows.select(
        queries=pl.col("qid").n_unique(),
        kept=pl.col("kept").sum(),
        weight=weight.sum(),
        negatives=negative.sum(),
        negatives_kept=(negative & pl.col("kept")).sum(),
    )
    reasons_, totals_ = pl.collect_all([reasons, totals])
    return {**totals_.to_dicts()[0], "reasons": reasons_.to_dicts()}


def _metrics(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    del schema
    key = ["arm", "split", "cutoff"]
    # METRICS is in panel order, and the mean keeps it.
    means = rows.group_by(key, maintain_order=True).agg(
        ndcg=pl.col("ndcg").mean(), queries=pl.len(), queries_empty=pl.col("ndcg").null_count()
    )
    folds = rows.select(pl.col("fold").unique().sort())
    means_, folds_ = pl.collect_all([means, folds])
    return {"means": means_.to_dicts(), "folds": folds_["fold"].to_list()}


def _summary(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    del schema
    return {"summary": rows.collect().to_dicts()}


def _search(rows: pl.LazyFrame, schema: pa.Schema) -> Facts:
    del schema
    # The candidates of a rung stand best first.
    rungs = rows.group_by("rung", "trees", maintain_order=True).agg(
        arms=pl.len(),
        kept=pl.col("kept").sum(),
        best=pl.col("arm").first(),
        ndcg_vali=pl.col("ndcg_vali").first(),
    )
    return {"rungs": rungs.collect().to_dicts()}


CONTENTS: Final[dict[str, Callable[[pl.LazyFrame, pa.Schema], Facts]]] = {
    "JUDGMENTS": _judgments,
    "PREPARED": _prepared,
    "SCORES": _scores,
    "SELECTION": _selection,
    "METRICS": _metrics,
    "SUMMARY": _summary,
    "SEARCH": _search,
}
"""By table: the function that finds what describes it."""
