"""The compiled part of comparing rows: cosines within a query.

Importing this module imports numba, so :mod:`pipeline.negatives.training` does it inside a function. Rows of
a query lie together; ``starts`` holds the first row of every query, then the number of rows. Sums run in row
order and in one thread, so that the same rows give the same bits.
"""

import numpy as np

from pipeline.core.compiled import compiled


@compiled
def unit_rows(features: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the rows standardised over their query and scaled to length 1.

    A missing value (NaN) becomes the query's mean, as does a feature that is constant in the query. A row at
    the mean of every feature has no direction: it gets a dimension of its own, the last, so that such rows
    are like each other and unlike all others.

    Args:
        features: float32, shape ``(rows, features)``.
        starts: int64, shape ``(queries + 1,)``.

    Returns:
        float64, shape ``(rows, features + 1)``.
    """
    rows, width = features.shape
    units = np.zeros((rows, width + 1))
    for query in range(len(starts) - 1):
        first, last = starts[query], starts[query + 1]
        for j in range(width):
            total, count, low, high = 0.0, 0, np.inf, -np.inf
            for i in range(first, last):
                value = float(features[i, j])
                if value == value:
                    total, count = total + value, count + 1
                    low, high = min(low, value), max(high, value)
            if not low < high:
                continue
            mean, squares = total / count, 0.0
            for i in range(first, last):
                value = float(features[i, j])
                if value == value:
                    units[i, j] = value - mean
                    squares += (value - mean) ** 2
            deviation = np.sqrt(squares / count)
            for i in range(first, last):
                units[i, j] /= deviation
        for i in range(first, last):
            squares = 0.0
            for j in range(width):
                squares += units[i, j] ** 2
            if squares == 0.0:
                units[i, width] = 1.0
            else:
                for j in range(width):
                    units[i, j] /= np.sqrt(squares)
    return units


@compiled
def _cosine(units: np.ndarray, a: int, b: int) -> float:
    total = 0.0
    for j in range(units.shape[1]):
        total += units[a, j] * units[b, j]
    return total


@compiled
def positive_cosine(units: np.ndarray, negative: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return each row's highest cosine with a positive of its query; NaN without a positive."""
    best = np.full(len(negative), np.nan)
    for query in range(len(starts) - 1):
        first, last = starts[query], starts[query + 1]
        for p in range(first, last):
            if negative[p]:
                continue
            for i in range(first, last):
                cosine = _cosine(units, p, i)
                if not cosine <= best[i]:  # true of the first one, where best is NaN
                    best[i] = cosine
    return best


@compiled
def unlike_rank(units: np.ndarray, rank: np.ndarray, starts: np.ndarray, similarity: float) -> np.ndarray:
    """Count candidates, hardest first, that are not much like one counted before.

    Args:
        units: From :func:`unit_rows`.
        rank: int64, 1 for the hardest candidate of a query, 0 for a row that is no candidate.
        starts: int64, shape ``(queries + 1,)``.
        similarity: A cosine above this is much alike.

    Returns:
        uint32: 1, 2, ... for the candidates counted, 0 for all other rows.
    """
    found = np.zeros(len(rank), dtype=np.uint32)
    for query in range(len(starts) - 1):
        first, last = starts[query], starts[query + 1]
        order = np.full(last - first, -1)
        for i in range(first, last):
            if rank[i] > 0:
                order[rank[i] - 1] = i
        chosen = np.empty(last - first, dtype=np.int64)
        count = 0
        for i in order:
            if i < 0:
                break
            alike = False
            for c in range(count):
                if _cosine(units, chosen[c], i) > similarity:
                    alike = True
                    break
            if not alike:
                chosen[count] = i
                count += 1
                found[i] = count
    return found
