"""A split's judgments and its ranking by a model, as trec_eval and related tools read them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from pipeline.core.errors import TableError
from pipeline.dataset import parts
from pipeline.ranker.predict import predict

_SPACE = r"\s"


def write(
    model: Path,
    files: Sequence[Path],
    *,
    qrels: Path,
    ranking: Path,
    tag: str,
    what: str,
    threads: int = 1,
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """Write one split's judgments and its ranking by ``model``; only keys are held in memory.

    Args:
        model: LightGBM model file.
        files: Parts of the split.
        qrels: File to write ``qid 0 docid label`` lines to.
        ranking: File to write ``qid Q0 docid rank score tag`` lines to.
        tag: The last column of the ranking.
        what: The split's name, for messages.
        threads: Threads that score.
        advance: Called with the rows written since the last call.

    Returns:
        Notices: whether document ids could not be used.

    Raises:
        TableError: A query id with a space in it.
        StorageError: The model or a part is damaged.
    """
    scored = predict([model], files, threads=threads).drop("fold")
    scored = scored.with_columns(pl.col("qid").cast(pl.String)).join(
        _stored_ids(files), on="row_id", how="left", validate="1:1", maintain_order="left"
    )
    spaced = scored["qid"].filter(scored["qid"].str.contains(_SPACE))
    if len(spaced):
        raise TableError(
            f"{what}: query id {spaced[0]!r} has a space, which a TREC file cannot carry; rename it"
        )
    scored, notices = document_ids(scored, what=what)
    _write_words(scored.select("qid", pl.lit(0), "docid", "label"), qrels)
    words = ("qid", pl.lit("Q0"), "docid", "rank", "score", pl.lit(tag).alias("tag"))
    _write_words(rank(scored).select(words), ranking)
    if advance:
        advance(scored.height)
    return notices


def rank(scored: pl.DataFrame) -> pl.DataFrame:
    """Order each query's rows by falling score and number them from 1; ties stay in the order of ``row_id``.

    Args:
        scored: ``qid, row_id, score`` and more columns.

    Returns:
        ``scored`` in that order, queries as they first appear, plus ``rank``.
    """
    placed = scored.with_row_index("_row").with_columns(_query=pl.col("_row").min().over("qid"))
    ordered = placed.sort("_query", "score", "row_id", descending=[False, True, False])
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1).over("qid")).drop("_row", "_query")


def document_ids(scored: pl.DataFrame, *, what: str) -> tuple[pl.DataFrame, list[str]]:
    """Make each ``docid`` one word that is unique in its query.

    An empty id becomes ``row-<row_id>``, and a space becomes ``_``. If an id then still stands for two rows of
    a query, every row of the split is called ``row-<row_id>``.

    Args:
        scored: ``row_id, qid, docid`` (string, null where there is none) and more columns.
        what: The split's name, for the notice.

    Returns:
        ``scored`` with these ids, and the notices.
    """
    by_row = pl.format("row-{}", "row_id")
    given = pl.col("docid").str.replace_all(_SPACE, "_")
    named = scored.with_columns(docid=pl.when(given.str.len_bytes() > 0).then(given).otherwise(by_row))
    if named.select("qid", "docid").is_unique().all():
        return named, []
    notice = f"{what}: a document id names two rows of one query; documents are called row-<row_id> instead"
    return scored.with_columns(docid=by_row), [notice]


def _write_words(lines: pl.DataFrame, file: Path) -> None:
    lines.write_csv(file, include_header=False, separator=" ", quote_style="never")


def _stored_ids(files: Sequence[Path]) -> pl.DataFrame:
    """Return ``row_id, docid`` of every row; null where the row has no document id."""
    names = ["row_id", *(["doc_id"] if "doc_id" in parts.schema_of(files).names else [])]
    ids = pl.concat([pl.DataFrame(table.select(names)) for table in parts.row_groups(files, columns=names)])
    docid = pl.col("doc_id") if "doc_id" in names else pl.lit(None, dtype=pl.String)
    return ids.select("row_id", docid=docid)
