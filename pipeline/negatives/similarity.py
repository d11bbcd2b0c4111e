"""Cosines between the rows of one query, their features standardised over the query.

The last bits of a sum of products depend on the machine. They decide nothing, because cosines are compared to 12
decimals.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

_DECIMALS: Final = 12
_ROWS_AT_ONCE: Final = 128
"""Rows compared at once, which bounds the memory that a long query takes."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def unit_rows(features: npt.NDArray[np.float32]) -> Floats:
    """Return the rows of a query standardised and scaled to length 1, ``(rows, features + 1)``.

    A missing value (NaN) becomes the query's mean, as does a feature that is constant in the query. A row at
    the mean of every feature has no direction: it gets a dimension of its own, the last, so that such rows
    are like each other and unlike all others.
    """
    values = features.astype(np.float64)
    known = ~np.isnan(values)
    varies = np.fmin.reduce(values, axis=0) < np.fmax.reduce(values, axis=0)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    deviations = np.where(known & varies, values - mean, 0.0)
    spread = np.sqrt((deviations**2).sum(axis=0) / count)
    standardised = deviations / np.where(varies, spread, 1.0)
    length = np.sqrt((standardised**2).sum(axis=1, keepdims=True))
    at_mean = length == 0
    return np.hstack([standardised / np.where(at_mean, 1.0, length), at_mean])


def highest_cosine(units: Floats, others: Floats) -> Floats:
    """Return each row's highest cosine with any of the other rows; NaN if there is none."""
    if not len(others):
        return np.full(len(units), np.nan)
    pieces = np.array_split(units, len(units) // _ROWS_AT_ONCE + 1)
    highest = np.concatenate([_cosines(piece, others).max(axis=1) for piece in pieces])
    return np.asarray(np.round(highest, _DECIMALS))


def unlike_earlier(units: Floats, similarity: float) -> Mask:
    """Return which rows have no cosine above ``similarity`` with an earlier one that is returned itself."""
    bound = similarity + 0.5 * 10.0**-_DECIMALS
    kept = np.zeros(len(units), dtype=np.bool_)
    for first in range(0, len(units), _ROWS_AT_ONCE):
        rows = units[first : first + _ROWS_AT_ONCE]
        undecided = ~(_cosines(rows, units[:first][kept[:first]]) > bound).any(axis=1)
        like_earlier = np.tril(_cosines(rows, rows) > bound, -1)
        while undecided.any():
            # No earlier row that is still undecided can suppress these.
            unlike = undecided & ~(like_earlier & undecided).any(axis=1)
            kept[first : first + len(rows)] |= unlike
            undecided &= ~unlike & ~(like_earlier & unlike).any(axis=1)
    return kept


def _cosines(units: Floats, others: Floats) -> Floats:
    # Not a matrix product: the threads of BLAS wait for each other longer than so small a product takes.
    return np.asarray(np.einsum("ij,kj->ik", units, others))
