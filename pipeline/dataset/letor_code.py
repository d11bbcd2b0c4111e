"""What the LETOR reader has compiled, as functions of NumPy arrays: the way to :mod:`pipeline.dataset.letor_kernel`.

The kernel's module imports numba; this one does not, and needs it only where the machine code is not kept.
"""

from typing import Final

import numpy as np

from pipeline.dataset.machine_code import Kernel

MAX_INDEX: Final = 65_536
"""Largest feature index: rows are stored dense, so one stray index would otherwise take all memory."""

OK: Final = 0
NO_QID: Final = 1
EMPTY_QID: Final = 2
INDEX_NOT_INTEGER: Final = 3
INDEX_ZERO: Final = 4
INDEX_TOO_LARGE: Final = 5
INDEX_REPEATED: Final = 6

KERNEL: Final = Kernel(
    "pipeline.dataset.letor_kernel",
    {
        "parse_block": "uint8* int64 int64 float32* int64 int64 uint8* int64 int64* int32* int32* int32* int64 "
        "int32* float64 int64 int64 int64*",
        "survey_block": "uint8* int64 int64*",
        "gather_pieces": "uint8* int64 int32* int64 int32* uint8*",
    },
    sources=[__file__],
)


def parse(
    text: np.ndarray, pos: int, end: int, values: np.ndarray, labels: np.ndarray, qids: np.ndarray,
    qid_span: np.ndarray, doc_span: np.ndarray, odd: np.ndarray, stamp: np.ndarray, sentinel: float,
    key: tuple[int, int],
) -> tuple[int, int, int, int, int, bool, bool]:  # fmt: skip
    """Parse the lines of ``text[pos:end]`` until the first bad one or until ``labels`` is full.

    Args:
        text: uint8 [n]; ``text[end - 1]`` is a line feed.
        pos: Start of a line.
        end: End of the last line.
        values: float32 [width, rows], one contiguous run per feature, filled with the value of absent ones.
        labels: uint8 [rows].
        qids: int64 [rows]; meaningful when every query id is an integer.
        qid_span: int32 [rows, 2], start and stop of the query id in ``text``.
        doc_span: int32 [rows, 2], the same of the document id; empty where there is none.
        odd: int32 [n, 4], tokens left to Python: start, stop, row, feature index (0: the label).
        stamp: int32 [MAX_INDEX + 1] of zeros, to note the last row (+ 1) that held an index.
        sentinel: Value that becomes NaN; NaN for none.
        key: Decimal mantissa and power of ten of ``abs(sentinel)``, without trailing zeros.

    Returns:
        (status, position, rows, largest feature index, odd tokens, all query ids are integers, any document
        id). Indexes beyond ``width`` and odd tokens beyond ``len(odd)`` are counted and not stored: the
        caller makes room and parses again. On an error the position is that of the bad token.
    """
    found = np.empty(7, np.int64)
    KERNEL.functions()["parse_block"](
        text.ctypes.data, pos, end, values.ctypes.data, *values.shape, labels.ctypes.data, len(labels),
        qids.ctypes.data, qid_span.ctypes.data, doc_span.ctypes.data, odd.ctypes.data, len(odd),
        stamp.ctypes.data, sentinel, *key, found.ctypes.data,
    )  # fmt: skip
    status, position, rows, width, odds, all_int, any_doc = found.tolist()
    return status, position, rows, width, odds, bool(all_int), bool(any_doc)


def survey(text: np.ndarray) -> tuple[int, bool]:
    """Return how many line feeds ``text``, uint8 [n], holds, and whether there is a NUL byte."""
    found = np.empty(2, np.int64)
    KERNEL.functions()["survey_block"](text.ctypes.data, len(text), found.ctypes.data)
    return int(found[0]), bool(found[1])


def gather(text: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Copy the pieces ``text[span[r, 0]:span[r, 1]]`` together: (int32 offsets [rows + 1], uint8 bytes)."""
    offsets = np.zeros(len(span) + 1, np.int32)
    np.cumsum(span[:, 1] - span[:, 0], out=offsets[1:])
    pieces = np.empty(offsets[-1], np.uint8)
    KERNEL.functions()["gather_pieces"](
        text.ctypes.data, len(text), span.ctypes.data, len(span), offsets.ctypes.data, pieces.ctypes.data
    )
    return offsets, pieces
