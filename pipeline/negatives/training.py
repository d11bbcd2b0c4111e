"""Columns made from the training split itself: its document ids and its features.

====================  ====================================================================================
column                meaning
====================  ====================================================================================
``doc_queries``       training queries that list the row's document; 1 for a row without a document id
``positive_cosine``   highest cosine between the row and a positive of its query; null without one
``unlike_rank``       1 for the query's hardest candidate, counting on over those that are not much like a
                      harder candidate counted before; null for those that are, and for other rows
====================  ====================================================================================

Cosines are of features standardised over the rows of the query. Features are read a row group at a time, and
row groups hold whole queries, so memory holds one group of them; keys are held for all rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.core.errors import TableError
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.negatives.context import run_starts
from pipeline.negatives.similarity import highest_cosine, unit_rows, unlike_earlier


@dataclass(frozen=True)
class Training:
    """JUDGMENTS of the training split: names of its columns, and how to read some, as tables of whole queries."""

    columns: Sequence[str]
    read: Callable[[Sequence[str]], Iterable[pa.Table]]

    @classmethod
    def of_files(cls, files: Sequence[Path]) -> Self:
        """Return the split that lies in Parquet parts."""
        return cls(parts.schema_of(files).names, lambda columns: parts.row_groups(files, columns=columns))

    @classmethod
    def of_table(cls, judgments: pl.DataFrame) -> Self:
        """Return a split in memory."""
        return cls(judgments.columns, lambda columns: [judgments.select(columns).to_arrow()])


def doc_queries(rows: pl.DataFrame, training: Training) -> pl.DataFrame:
    """Add ``doc_queries`` to ``rows``; a document listed twice by a query counts once."""
    names = ["row_id", "qid", "doc_id"]
    listed = pl.concat([pl.DataFrame(table).select(names) for table in training.read(names)])
    popularity = pl.col("qid").n_unique().over("doc_id").cast(pl.UInt32)
    counted = listed.select(
        "row_id", doc_queries=pl.when(pl.col("doc_id").is_null()).then(1).otherwise(popularity)
    )
    joined = rows.join(counted, on="row_id", how="left", maintain_order="left")
    _require_all(joined.height - joined["doc_queries"].null_count(), rows.height)
    return joined


def positive_cosine(rows: pl.DataFrame, training: Training) -> pl.DataFrame:
    """Add ``positive_cosine`` to ``rows``."""
    negative = rows["negative"].to_numpy()
    values = np.full(rows.height, np.nan)
    for places, features in _queries(rows, training):
        units = unit_rows(features)
        values[places] = highest_cosine(units, units[~negative[places]])
    return rows.with_columns(pl.Series("positive_cosine", values).fill_nan(None))


def unlike_rank(rows: pl.DataFrame, training: Training, *, similarity: float) -> pl.DataFrame:
    """Add ``unlike_rank`` to ``rows``: greedy suppression, hardest first, of cosines above ``similarity``."""
    rank = rows["rank"].fill_null(0).to_numpy().astype(np.int64)
    found = np.zeros(rows.height, dtype=np.uint32)
    for places, features in _queries(rows, training):
        hardest_first = np.argsort(rank[places])[(rank[places] == 0).sum() :]
        units = unit_rows(features)[hardest_first]
        unlike = places[hardest_first[unlike_earlier(units, similarity)]]
        found[unlike] = np.arange(1, len(unlike) + 1)
    column = pl.Series("unlike_rank", found)
    return rows.with_columns(pl.when(column > 0).then(column).alias("unlike_rank"))


def _queries(
    rows: pl.DataFrame, training: Training
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield the places in ``rows`` and the features of each query's rows, a row group at a time.

    Rows are ordered by row id within a query: sums over a query must not depend on the order of a file.
    """
    names = features_of(training.columns)
    places = rows.lazy().select("row_id", "qid", at=pl.int_range(pl.len(), dtype=pl.Int64))
    seen = 0
    for table in training.read(["row_id", *names]):
        found = pl.DataFrame(table).lazy().join(places, on="row_id").sort("qid", "row_id").collect()
        features = found.select(names).to_numpy()
        starts = run_starts(found["qid"])[1:]
        at = found["at"].to_numpy()
        yield from zip(np.split(at, starts), np.split(features, starts), strict=True)
        seen += found.height
    _require_all(seen, rows.height)


def _require_all(found: int, rows: int) -> None:
    if found != rows:
        raise TableError(
            f"{rows:,} rows have scores, of which {found:,} are in the training split; score again"
        )
