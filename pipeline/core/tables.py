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

QID_INT: Final = pa.int64()
QID_TEXT: Final = pa.string()


def feature_names(count: int) -> list[str]:
    """Return ``["f1", ..., f"f{count}"]``."""
    return [f"f{i}" for i in range(1, count + 1)]


def features_of(names: Iterable[str]) -> list[str]:
    """Return the feature columns among ``names``, in their given order."""
    return [n for n in names if re.fullmatch("f[0-9]+", n)]


_COLUMNS: Final = {
    pa.int64(): ("row_id", "queries", "queries_empty", "rows"),
    pa.int32(): ("trees",),
    pa.int16(): ("fold", "cutoff", "rung"),
    pa.uint32(): ("neg_rank", "bags"),
    pa.uint8(): ("label", "grade", "first_kept_round"),
    pa.float32(): ("weight",),
    pa.bool_(): ("kept", "recommended"),
    pa.string(): ("arm", "split", "doc_id", "reason"),
}
_TYPES: Final = {name: kind for kind, names in _COLUMNS.items() for name in names}


def _fields(columns: str, qid: pa.DataType = QID_INT) -> list[pa.Field]:
    """Return the fields of these columns, one with ``?`` nullable; a type not named above is float64."""
    return [
        pa.field(name, qid if name == "qid" else _TYPES.get(name, pa.float64()), nullable=bool(null))
        for name, null in re.findall(r"(\w+)(\??)", columns)
    ]


def judgments(features: int, *, qid: pa.DataType, doc_id: bool) -> pa.Schema:
    """JUDGMENTS: ``row_id, qid, label[, doc_id], f1..fN``; features float32, none null."""
    keys = _fields("row_id qid label doc_id?" if doc_id else "row_id qid label", qid)
    return pa.schema([*keys, *(pa.field(f, pa.float32(), nullable=False) for f in feature_names(features))])


def with_training(judgments: pa.Schema, *, graded: bool) -> pa.Schema:
    """PREPARED: JUDGMENTS plus ``weight``, and for a graded arm ``grade``, which it trains on.

    ``label`` is as judged. ``grade`` is 0 for an easy negative, 1 for a hard one and ``label + 1`` for a
    positive.
    """
    return pa.schema([*judgments, *_fields("weight grade" if graded else "weight")])


def row_ids() -> pa.Schema:
    """Rows of the training split by their key alone."""
    return pa.schema(_fields("row_id"))


def scores(*, qid: pa.DataType, first_kept_round: bool = False) -> pa.Schema:
    """SCORES: ``fold`` is the initial ranker that scored the row and never saw its query; -1: in-sample.

    Those that the last choice of an arm with rounds went by have ``first_kept_round``: the earlier round, from 1,
    that first kept the row; null where none did.
    """
    columns = "row_id qid label score fold"
    return pa.schema(_fields(columns + " first_kept_round?" if first_kept_round else columns, qid))


def selection(*, qid: pa.DataType, bags: bool = False, graded: bool = False) -> pa.Schema:
    """SELECTION: ``neg_rank`` is 1 for the query's hardest negative, null for positives.

    ``weight`` is the training weight of a kept row and 0 for a row not kept; ``reason`` says why. ``score`` is
    what the choice went by: the initial ranker's, or for the last choice of a dynamic arm or one with rounds
    its own ranker's so far.
    A graded arm's has ``grade``, as PREPARED. A bagged arm's has ``bags``: bit b (from 0) is set when training
    set b keeps the row, and ``kept`` is true when one does.
    Both ``score`` and ``neg_rank`` are null for the arm `all`, which needs none.
    """
    columns = "row_id qid label score? neg_rank? kept weight reason"
    columns += " grade" if graded else ""
    columns += " bags" if bags else ""
    return pa.schema(_fields(columns, qid))


def metrics(*, qid: pa.DataType) -> pa.Schema:
    """METRICS: ``fold`` is 1 for a source without folds; ``ndcg`` is null without a relevant document."""
    return pa.schema(_fields("arm split fold qid cutoff ndcg?", qid))


SUMMARY: Final = pa.schema(
    _fields(
        "arm split cutoff queries queries_empty ndcg? ndcg_empty0? ndcg_empty1? low? high?"
        " delta? delta_low? delta_high? p? p_holm? delta_random? p_random?"
        " rows rows_fraction negatives_fraction train_seconds? recommended?"
    )
)
"""SUMMARY: ``ndcg`` is the mean over queries with a relevant document; ``ndcg_empty0`` and ``ndcg_empty1``
count a query without one as 0 or as 1. ``low``/``high``: 95 % bootstrap interval of ``ndcg``. ``delta``:
difference to `all` on the same queries, with its interval, p and Holm-adjusted p; ``delta_random``:
difference to `random` at the same fraction; both null where the run does not hold the other arm.
``recommended`` is null where there is nothing to decide on, or no `all` to decide against."""

SEARCH: Final = pa.schema(_fields("rung arm trees rows? ndcg_vali? kept"))
"""SEARCH: rungs count from 1, each one's candidates stand best first. ``trees``: ``ranker.trees`` of the rung;
``rows``: training rows, summed over folds; ``ndcg_vali``: mean at the deciding cutoff over the validation
queries with a relevant document. The last two are null where LightGBM failed."""


def check(names: Sequence[str], required: Iterable[str], *, table: str, where: object) -> None:
    """Raise :class:`TableError` naming the first required column that ``names`` lacks."""
    for name in required:
        if name not in names:
            raise TableError(f"{where}: {table} needs a column {name!r}.{did_you_mean(name, names)}")
