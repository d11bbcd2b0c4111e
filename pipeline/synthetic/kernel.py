"""The compiled part of the generator: decimal numbers held as integers become LETOR text.

Importing this module imports numba, so :mod:`pipeline.synthetic.generate` does it inside a function. All kernels
stay in this one file: numba's cache notices a change of the file itself only.
"""

from typing import Final

import numpy as np

from pipeline.core.compiled import compiled
from pipeline.synthetic.world import ABSENT, SENTINEL

_SENTINEL_TEXT: Final = np.frombuffer(b"1.79769313486e+308", np.uint8)
_QID: Final = np.frombuffer(b" qid:", np.uint8)
_WIDEST = 20  # sign, 18 digits and point: values stay below 10^18


def text(
    values: np.ndarray, decimals: np.ndarray, labels: np.ndarray, qids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``label qid:ID 1:value ...`` lines.

    Args:
        values: int64, shape ``(features, rows)``: each value times ten to its column's decimals, below 10^18
            in size; or :data:`ABSENT` or :data:`SENTINEL`.
        decimals: int64, shape ``(features,)``: digits after the point, all of them written; 0 for integers.
        labels: int64, shape ``(rows,)``, not negative.
        qids: int64, shape ``(rows,)``, not negative.

    Returns:
        The bytes, uint8, and the end of each row in them, int64, shape ``(rows,)``.
    """
    features, rows = values.shape
    index_digits = len(str(features))
    out = np.empty(rows * (48 + features * (index_digits + 2 + _WIDEST)), np.uint8)
    ends = np.empty(rows, np.int64)
    return out[: _write(values, decimals, labels, qids, out, ends)], ends


@compiled
def _copy(out: np.ndarray, at: int, characters: np.ndarray) -> int:
    for c in characters:
        out[at] = c
        at += 1
    return at


@compiled
def _number(out: np.ndarray, at: int, value: int, decimals: int) -> int:
    """Write ``value / 10**decimals`` with all its decimals; return where it ends."""
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    digits, power = 1, 10
    while value >= power and digits < 18:
        power *= 10
        digits += 1
    digits = max(digits, decimals + 1)
    end = at + digits + (1 if decimals else 0)
    i = end
    for n in range(digits):
        if n == decimals and n > 0:
            i -= 1
            out[i] = 46
        i -= 1
        tenth = value // 10
        out[i] = 48 + value - 10 * tenth
        value = tenth
    return end


@compiled
def _write(
    values: np.ndarray,
    decimals: np.ndarray,
    labels: np.ndarray,
    qids: np.ndarray,
    out: np.ndarray,
    ends: np.ndarray,
) -> int:
    at = 0
    for row in range(values.shape[1]):
        at = _number(out, at, labels[row], 0)
        at = _copy(out, at, _QID)
        at = _number(out, at, qids[row], 0)
        for column in range(values.shape[0]):
            value = values[column, row]
            if value == ABSENT:
                continue
            out[at] = 32
            at = _number(out, at + 1, column + 1, 0)
            out[at] = 58
            if value == SENTINEL:
                at = _copy(out, at + 1, _SENTINEL_TEXT)
            else:
                at = _number(out, at + 1, value, decimals[column])
        out[at] = 10
        at += 1
        ends[row] = at
    return at
