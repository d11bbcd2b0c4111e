"""NDCG: the formula, alone; NumPy in, NumPy out.

With documents in descending order of score, gain ``g(label)`` and cutoff ``k``::

    DCG@k  = sum over positions i = 1..k of g(label_i) / log2(i + 1)
    NDCG@k = DCG@k / DCG@k of the same documents in descending order of label

Tools differ in three more choices, and each is named here:

===========================  ===========  ======================  ==========================
tool                         ``gain``     ``ties``                :func:`mean`'s ``empty``
===========================  ===========  ======================  ==========================
LightGBM, XGBoost ``ndcg``   exponential  order                   1.0
XGBoost ``ndcg-``            exponential  order                   0.0
trec_eval                    linear       by document id          0.0
scikit-learn                 linear       average                 0.0
===========================  ===========  ======================  ==========================

Under ``ties="order"`` a ranker that gives many documents one score looks good where the file lists the relevant
ones first; the default ``ties="average"`` cannot be fooled that way.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ConfigError, TableError, did_you_mean

Gain = Literal["exponential", "linear"]
Ties = Literal["average", "order"]
Floats = npt.NDArray[np.float64]


def ndcg(
    labels: npt.NDArray[np.integer[Any]],
    scores: npt.NDArray[np.floating[Any]],
    offsets: npt.NDArray[np.integer[Any]],
    *,
    cutoffs: Sequence[int] = (1, 3, 5, 10),
    gain: Gain = "exponential",
    ties: Ties = "average",
) -> Floats:
    """Return the NDCG of every query at every cutoff.

    Args:
        labels: (n,) integers from 0 (not relevant) to 255; a query's rows are contiguous.
        scores: (n,) floats, higher is better; infinities are allowed, NaN is not.
        offsets: (queries + 1,) integers from 0 to n; query q has rows ``offsets[q]:offsets[q + 1]``.
        cutoffs: Ranks to stop at, each at least 1; a query may be shorter.
        gain: ``exponential`` is 2^label - 1 (Burges et al. 2005), ``linear`` is the label itself
            (Järvelin and Kekäläinen 2002).
        ties: ``average`` takes the expected DCG over random orders of documents with one score (McSherry
            and Najork 2008, "Computing information retrieval performance measures efficiently in the
            presence of tied scores"); ``order`` keeps them as they come in.

    Returns:
        (queries, cutoffs) float64 in [0, 1]; NaN for a query without a relevant document. The same input gives
        the same bits.

    Raises:
        TableError: A NaN score, a label out of range, or arrays and offsets that do not fit together.
        ConfigError: A cutoff below 1, or an unknown ``gain`` or ``ties``.
    """
    _check_options(cutoffs, gain, ties)
    _check_arrays(labels, scores, offsets)
    starts = offsets.astype(np.int64)
    query = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    levels = np.arange(256)
    gains = (np.ldexp(1.0, levels) - 1.0 if gain == "exponential" else levels.astype(np.float64))[labels]
    # Whole numbers that are unsigned or narrow cannot be negated; float32 stays, so that its ties stay ties.
    keys = scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(np.float64)
    reached = _dcg(keys, gains, query, starts, cutoffs, average=ties == "average")
    ideal = _dcg(gains, gains, query, starts, cutoffs, average=True)
    result = np.full(reached.shape, np.nan)
    np.divide(reached, ideal, out=result, where=ideal > 0.0)
    # Rounding may lift a perfect order one bit above 1.
    np.minimum(result, 1.0, out=result)
    return result


def mean(values: Floats, *, empty: float | None) -> Floats:
    """Average the NDCG of :func:`ndcg` over queries; NaN where no query is left to average.

    ``empty`` is what a query without a relevant document counts as; None leaves it out.
    """
    missing = np.isnan(values)
    total = np.where(missing, 0.0 if empty is None else empty, values).sum(axis=0)
    count = (~missing).sum(axis=0) if empty is None else np.full(total.shape, len(values))
    result = np.full(total.shape, np.nan)
    np.divide(total, count, out=result, where=count > 0)
    return result


def _dcg(
    keys: npt.NDArray[Any],
    gains: Floats,
    query: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    cutoffs: Sequence[int],
    *,
    average: bool,
) -> Floats:
    """Return (queries, cutoffs) DCG with each query's rows in descending order of ``keys``.

    With ``average``, each row earns the mean gain of those of its query and key; else ties stay in input order.
    """
    order = np.lexsort((-keys, query))  # stable
    ranked = keys[order]
    opens_group = np.ones(len(keys), dtype=bool)
    if average:
        opens_group[1:] = (ranked[1:] != ranked[:-1]) | (query[1:] != query[:-1])
    first = np.flatnonzero(opens_group)
    size = np.diff(first, append=len(keys))
    # Not reduceat, which adds up long groups in pieces.
    mean_gain = np.bincount(np.cumsum(opens_group) - 1, weights=gains[order]) / size
    begin = first - offsets[query[first]]
    deepest = min(max(cutoffs), int(np.diff(offsets).max(initial=0)))
    discounts = np.concatenate(([0.0], np.cumsum(1.0 / np.log2(np.arange(2.0, deepest + 2.0)))))
    result = np.zeros((len(offsets) - 1, len(cutoffs)))
    for column, cutoff in enumerate(cutoffs):
        counted = np.flatnonzero(begin < cutoff)
        start = begin[counted]
        stop = np.minimum(start + size[counted], cutoff)
        earned = mean_gain[counted] * (discounts[stop] - discounts[start])
        result[:, column] = np.bincount(query[first[counted]], weights=earned, minlength=len(result))
    return result


def _check_options(cutoffs: Sequence[int], gain: str, ties: str) -> None:
    if len(cutoffs) == 0 or min(cutoffs) < 1:
        raise ConfigError(f"cutoffs: {list(cutoffs)} must name at least one rank, each 1 or more")
    for option, value, known in (("gain", gain, get_args(Gain)), ("ties", ties, get_args(Ties))):
        if value not in known:
            raise ConfigError(f"{option}: there is no {value!r}.{did_you_mean(value, known)}")


def _check_arrays(labels: npt.NDArray[Any], scores: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> None:
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise TableError(f"labels {labels.shape} and scores {scores.shape}: give one of each per row")
    if labels.dtype.kind not in "iu" or (labels.size and not 0 <= labels.min() <= labels.max() <= 255):
        raise TableError(f"labels ({labels.dtype}): must be integers from 0 to 255")
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.size == 0:
        raise TableError(f"offsets {offsets.shape} {offsets.dtype}: must be queries + 1 integers")
    whole = offsets[0] == 0 and offsets[-1] == len(labels)
    if not whole or np.any(offsets[1:] < offsets[:-1]):
        raise TableError(f"offsets: must rise from 0 to the number of rows, {len(labels)}, without falling")
    missing = np.isnan(scores)
    if missing.any():
        row = int(np.argmax(missing))
        raise TableError(f"scores: row {row} is NaN and has no rank; give every document a number")
