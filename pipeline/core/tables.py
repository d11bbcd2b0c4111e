"""Column names and one schema per table: the contract between stages, and with the reader of the files.

=============  =====================================  ==================================================
table          file                                   one row is
=============  =====================================  ==================================================
JUDGMENTS      ``dataset/<split>/part-*.parquet``     a judged query-document pair with its features
SCORES         ``scores.parquet``                     a training row scored by an initial ranker
SELECTION      ``selection/<arm>.parquet``            a training row, kept or not, and why
PREPARED       ``prepared/<arm>/part-*.parquet``      a kept training row with features, weight and grade
METRICS        ``metrics.parquet``                    the NDCG of one query under one arm at one cutoff
SUMMARY        ``summary.parquet``                    one arm at one cutoff, beside `all` and random
SEARCH         ``search.parquet``                     one candidate arm in one rung of a search
=============  =====================================  ==================================================

Query ids are int64 when every id of the source is an integer, else strings; functions that build a schema
take that type.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from pipeline.core.errors import TableError, did_you_mean

MAX_LABEL: Final = 30
"""Largest label: LightGBM's default ``label_gain`` has 31 levels, 2^0 - 1 to 2^30 - 1."""

_FEATURE: Final = re.compile(r"f[0-9]+")

QID_INT: Final = pa.int64()
QID_TEXT: Final = pa.string()


def feature_names(count: int) -> list[str]:
    """Return ``["f1", ..., f"f{count}"]``."""
    return [f"f{i}" for i in range(1, count + 1)]


def features_of(names: Iterable[str]) -> list[str]:
    """Return the feature columns among ``names``, in their given order."""
    return [n for n in names if _FEATURE.fullmatch(n)]


def _required(*fields: tuple[str, pa.DataType]) -> list[pa.Field]:
    return [pa.field(name, kind, nullable=False) for name, kind in fields]


def judgments(features: int, *, qid: pa.DataType, doc_id: bool) -> pa.Schema:
    """JUDGMENTS: ``row_id, qid, label[, doc_id], f1..fN``; features float32, none null."""
    keys = _required(("row_id", pa.int64()), ("qid", qid), ("label", pa.uint8()))
    docs = [pa.field("doc_id", pa.string())] if doc_id else []
    return pa.schema(keys + docs + _required(*((f, pa.float32()) for f in feature_names(features))))


_TRAINING: Final = _required(("weight", pa.float32()), ("grade", pa.uint8()))


def prepared(features: int, *, qid: pa.DataType, doc_id: bool, graded: bool = False) -> pa.Schema:
    """PREPARED: JUDGMENTS plus ``weight`` float32, and for a graded arm ``grade`` uint8, which it trains on.

    ``label`` is as judged. ``grade`` is 0 for an easy negative, 1 for a hard one and ``label + 1`` for a
    positive.
    """
    return with_training(judgments(features, qid=qid, doc_id=doc_id), graded=graded)


def with_training(judgments: pa.Schema, *, graded: bool) -> pa.Schema:
    """Return a schema of JUDGMENTS with the columns that make it one of PREPARED."""
    return pa.schema([*judgments, *_TRAINING[: 2 if graded else 1]])


def row_ids() -> pa.Schema:
    """Rows of the training split by their key alone."""
    return pa.schema(_required(("row_id", pa.int64())))


def scores(*, qid: pa.DataType, first_kept_round: bool = False) -> pa.Schema:
    """SCORES: ``fold`` is the initial ranker that scored the row and never saw its query; -1: in-sample.

    Those that the last choice of an arm with rounds went by have ``first_kept_round``: the earlier round, from 1,
    that first kept the row; null where none did.
    """
    schema = pa.schema(
        _required(
            ("row_id", pa.int64()), ("qid", qid), ("label", pa.uint8()),
            ("score", pa.float64()), ("fold", pa.int16()),
        )
    )  # fmt: skip
    return schema.append(pa.field("first_kept_round", pa.uint8())) if first_kept_round else schema


def selection(*, qid: pa.DataType, bags: bool = False, graded: bool = False) -> pa.Schema:
    """SELECTION: ``neg_rank`` is 1 for the query's hardest negative, null for positives.

    ``weight`` is the training weight of a kept row and 0 for a row not kept; ``reason`` says why. ``score`` is
    what the choice went by: the initial ranker's, or for the last choice of a dynamic arm or one with rounds
    its own ranker's so far.
    A graded arm's has ``grade``, as PREPARED. A bagged arm's has ``bags``: bit b (from 0) is set when training
    set b keeps the row, and ``kept`` is true when one does.
    Both ``score`` and ``neg_rank`` are null for the arm `all`, which needs none.
    """
    schema = pa.schema(
        [
            *_required(("row_id", pa.int64()), ("qid", qid), ("label", pa.uint8())),
            pa.field("score", pa.float64()),
            pa.field("neg_rank", pa.uint32()),
            *_required(("kept", pa.bool_()), ("weight", pa.float32()), ("reason", pa.string())),
        ]
    )  # fmt: skip
    schema = schema.append(_TRAINING[1]) if graded else schema
    return schema.append(_required(("bags", pa.uint32()))[0]) if bags else schema


def metrics(*, qid: pa.DataType) -> pa.Schema:
    """METRICS: ``fold`` is 1 for a source without folds; ``ndcg`` is null without a relevant document."""
    return pa.schema(
        [
            *_required(
                ("arm", pa.string()), ("split", pa.string()), ("fold", pa.int16()),
                ("qid", qid), ("cutoff", pa.int16()),
            ),
            pa.field("ndcg", pa.float64()),
        ]
    )  # fmt: skip


SUMMARY: Final = pa.schema(
    [
        *_required(
            ("arm", pa.string()), ("split", pa.string()), ("cutoff", pa.int16()),
            ("queries", pa.int64()), ("queries_empty", pa.int64()),
        ),
        pa.field("ndcg", pa.float64()),
        pa.field("ndcg_empty0", pa.float64()),
        pa.field("ndcg_empty1", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("delta", pa.float64()),
        pa.field("delta_low", pa.float64()),
        pa.field("delta_high", pa.float64()),
        pa.field("p", pa.float64()),
        pa.field("p_holm", pa.float64()),
        pa.field("delta_random", pa.float64()),
        pa.field("p_random", pa.float64()),
        *_required(
            ("rows", pa.int64()), ("rows_fraction", pa.float64()), ("negatives_fraction", pa.float64()),
        ),
        pa.field("train_seconds", pa.float64()),
        pa.field("recommended", pa.bool_()),
    ]
)  # fmt: skip
"""SUMMARY: ``ndcg`` is the mean over queries with a relevant document; ``ndcg_empty0`` and ``ndcg_empty1``
count a query without one as 0 or as 1. ``low``/``high``: 95 % bootstrap interval of ``ndcg``. ``delta``:
difference to `all` on the same queries, with its interval, p and Holm-adjusted p; ``delta_random``:
difference to `random` at the same fraction; both null where the run does not hold the other arm.
``recommended`` is null where there is nothing to decide on, or no `all` to decide against."""

SEARCH: Final = pa.schema(
    [
        *_required(("rung", pa.int16()), ("arm", pa.string()), ("trees", pa.int32())),
        pa.field("rows", pa.int64()),
        pa.field("ndcg_vali", pa.float64()),
        *_required(("kept", pa.bool_())),
    ]
)
"""SEARCH: rungs count from 1, each one's candidates stand best first. ``trees``: ``ranker.trees`` of the rung;
``rows``: training rows, summed over folds; ``ndcg_vali``: mean at the deciding cutoff over the validation
queries with a relevant document. The last two are null where LightGBM failed."""


def check(names: Sequence[str], required: Iterable[str], *, table: str, where: object) -> None:
    """Raise :class:`TableError` naming the first required column that ``names`` lacks."""
    for name in required:
        if name not in names:
            raise TableError(f"{where}: {table} needs a column {name!r}.{did_you_mean(name, names)}")
