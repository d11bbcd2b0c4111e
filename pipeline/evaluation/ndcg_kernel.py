"""The compiled part of NDCG: the best rows of every query, and what they and the ideal order earn.

Importing this module imports numba, so :mod:`pipeline.evaluation.ndcg` does it inside a function. Every sum runs in the
order in which NumPy's way in that module has it, so that the two give the same bits: a change here is a change
there.
"""

import numpy as np

from pipeline.core.compiled import compiled


@compiled
def add_up(
    labels: np.ndarray,
    scores: np.ndarray,
    offsets: np.ndarray,
    gains: np.ndarray,
    discounts: np.ndarray,
    cutoffs: np.ndarray,
    average: bool,
    reached: np.ndarray,
    ideal: np.ndarray,
) -> None:
    """Add to ``reached`` the DCG of every query's rows ordered by score, and to ``ideal`` that by label.

    Args:
        labels: uint8, shape ``(rows,)``.
        scores: float32 or float64, shape ``(rows,)``, without NaN.
        offsets: int64, shape ``(queries + 1,)``, from 0 to rows, not falling.
        gains: float64, shape ``(256,)``: the gain of each label, 0 for label 0.
        discounts: float64: the sum of the discounts of so many first ranks, up to the deepest that counts.
        cutoffs: int64.
        average: Whether tied rows share the discounts of their ranks; otherwise they rank as they come in.
        reached: float64, shape ``(queries, cutoffs)``.
        ideal: The same.
    """
    depth = len(discounts) - 1
    best, best_label = np.empty(depth, scores.dtype), np.empty(depth, np.uint8)
    for query in range(len(offsets) - 1):
        # Where rows count from 0, the compiler sees that no index is negative, and takes many at once.
        label, score = (
            labels[offsets[query] : offsets[query + 1]],
            scores[offsets[query] : offsets[query + 1]],
        )
        if not _ideal(label, gains, discounts, cutoffs, query, ideal):
            continue
        size = _rank(label, score, best, best_label)
        begin = 0
        while begin < size:
            total, end = gains[best_label[begin]], begin + 1
            if average and best[begin] == best[size - 1]:  # the last group may reach deeper
                total, end = 0.0, begin
                for row in range(len(score)):
                    if score[row] == best[begin]:
                        total, end = total + gains[label[row]], end + 1
            elif average:
                while best[end] == best[begin]:
                    total, end = total + gains[best_label[end]], end + 1
            _earn(total / (end - begin), begin, end, discounts, cutoffs, query, reached)
            begin = end


@compiled
def _ideal(
    labels: np.ndarray,
    gains: np.ndarray,
    discounts: np.ndarray,
    cutoffs: np.ndarray,
    query: int,
    sums: np.ndarray,
) -> bool:
    """Add what the rows of a query earn in descending order of label; return whether a label is above 0.

    A pass for each label, which takes many rows at once, is quicker than counting all labels row by row.
    """
    label = np.uint8(0)
    for row in range(len(labels)):
        label = max(label, labels[row])
    begin = 0
    while label > 0 and begin < len(discounts) - 1:
        end, lower = begin, np.uint8(0)
        for row in range(len(labels)):
            end += labels[row] == label
            lower = max(lower, labels[row] if labels[row] < label else np.uint8(0))
        _earn(gains[label], begin, end, discounts, cutoffs, query, sums)
        begin, label = end, lower
    return begin > 0


@compiled
def _rank(labels: np.ndarray, scores: np.ndarray, best: np.ndarray, best_label: np.ndarray) -> int:
    """Put the best rows of a query into ``best``, the best first and ties as they come in; return how many."""
    size = 0
    for row in range(len(scores)):
        score = scores[row]
        if size < len(best):
            at, size = size, size + 1
        elif score > best[size - 1]:
            at = size - 1
        else:
            continue
        while at > 0 and score > best[at - 1]:
            best[at], best_label[at] = best[at - 1], best_label[at - 1]
            at -= 1
        best[at], best_label[at] = score, labels[row]
    return size


@compiled
def _earn(
    gain: float,
    begin: int,
    end: int,
    discounts: np.ndarray,
    cutoffs: np.ndarray,
    query: int,
    sums: np.ndarray,
) -> None:
    """Add what a gain earns at the ranks ``begin`` to ``end - 1``, counted from 0, above each cutoff."""
    for column in range(len(cutoffs)):
        cutoff = cutoffs[column]
        if begin < cutoff:
            sums[query, column] += gain * (discounts[min(end, cutoff)] - discounts[begin])
