"""A split's judgments and its ranking by a model, as trec_eval and related tools read them."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline.core.errors import TableError
from pipeline.dataset import parts

_SPACE = r"\s"


def write(scored: pl.DataFrame, files: Sequence[Path], out: Path, *, tag: str) -> list[str]:
    """Write a split's judgments to ``<out>.qrels`` and its ranking by SCORES to ``<out>.run``.

    ``files`` are the split's parts, read for the document ids. Returns a notice where these could not be used.

    Raises:
        TableError: A query id with a space in it.
        StorageError: A part is damaged.
    """
    scored = scored.with_columns(pl.col("qid").cast(pl.String)).join(
        _stored_ids(files), on="row_id", how="left", validate="1:1", maintain_order="left"
    )
    spaced = scored["qid"].filter(scored["qid"].str.contains(_SPACE))
    if len(spaced):
        raise TableError(
            f"{out.name}: query id {spaced[0]!r} has a space, which a TREC file cannot carry; rename it"
        )
    scored, notices = document_ids(scored, what=out.name)
    words = ("qid", pl.lit("Q0"), "docid", "rank", "score", pl.lit(tag).alias("tag"))
    for lines, suffix in (
        (scored.select("qid", pl.lit(0), "docid", "label"), "qrels"),
        (rank(scored).select(words), "run"),
    ):
        file = out.with_name(f"{out.name}.{suffix}")
        lines.write_csv(file, include_header=False, separator=" ", quote_style="never")
    return notices


def rank(scored: pl.DataFrame) -> pl.DataFrame:
    """Add ``rank`` from 1 by falling score, ties by ``row_id``, and sort by it; queries as they first appear."""
    placed = scored.with_row_index("_row").with_columns(_query=pl.col("_row").min().over("qid"))
    ordered = placed.sort("_query", "score", "row_id", descending=[False, True, False])
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1).over("qid")).drop("_row", "_query")


def document_ids(scored: pl.DataFrame, *, what: str) -> tuple[pl.DataFrame, list[str]]:
    """Make each ``docid`` one word that is unique in its query.

    An empty id becomes ``row-<row_id>``, and a space becomes ``_``. If an id then still stands for two rows of
    a query, every row of the split ``what`` is called ``row-<row_id>``, and a notice says so.
    """
    by_row = pl.format("row-{}", "row_id")
    given = pl.col("docid").str.replace_all(_SPACE, "_")
    named = scored.with_columns(docid=pl.when(given.str.len_bytes() > 0).then(given).otherwise(by_row))
    if named.select("qid", "docid").is_unique().all():
        return named, []
    notice = f"{what}: a document id names two rows of one query; documents are called row-<row_id> instead"
    return scored.with_columns(docid=by_row), [notice]


def _stored_ids(files: Sequence[Path]) -> pl.DataFrame:
    """Return ``row_id, docid`` of every row; null where the row has no document id."""
    names = ["row_id", *(["doc_id"] if "doc_id" in parts.schema_of(files).names else [])]
    ids = pl.concat([pl.DataFrame(table.select(names)) for table in parts.row_groups(files, columns=names)])
    docid = pl.col("doc_id") if "doc_id" in names else pl.lit(None, dtype=pl.String)
    return ids.select("row_id", docid=docid)
