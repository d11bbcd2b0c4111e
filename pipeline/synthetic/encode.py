"""Rows of made-up data as LETOR text or as a record batch of float32."""

from math import inf
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.tables import feature_names
from pipeline.synthetic.world import ABSENT, SENTINEL, Ints, Rows

_SENTINEL_TEXT: Final = "1.79769313486e+308"
_DIGITS: Final = 19  # of an int64


def to_lines(rows: Rows) -> pa.StringArray:
    """Return ``label qid:ID 1:value ...`` and a line feed for each row; absent features are left out."""
    tokens = [
        _tokens(f" {index}:", values, int(decimals))
        for index, (values, decimals) in enumerate(zip(rows.values, rows.decimals, strict=True), start=1)
    ]
    label, qid = (pa.array(column).cast(pa.string()) for column in (rows.label, rows.qid))
    return pc.binary_join_element_wise(label, " qid:", qid, *tokens, "\n", "")


def _tokens(prefix: str, values: Ints, decimals: int) -> pa.StringArray:
    """Return a column's text with a prefix, empty where the feature is absent."""
    present = values != ABSENT
    named = values[present]
    numbers = _to_decimal(named, decimals).cast(pa.string())
    if (sentinel := named == SENTINEL).any():
        numbers = pc.if_else(pa.array(sentinel), _SENTINEL_TEXT, numbers)
    tokens = pc.binary_join_element_wise(prefix, numbers, "")
    if present.all():
        return tokens
    return pc.replace_with_mask(pa.repeat("", len(values)), pa.array(present), tokens)


def _to_decimal(values: Ints, decimals: int) -> pa.Array:
    """Return ``values / 10**decimals`` as decimals; with up to 6 of these, Arrow writes all and no exponent."""
    # A decimal is 128 bits wide: the number itself, then its sign.
    wide = np.stack([values, values >> 63], axis=1)
    kind = pa.decimal128(_DIGITS, decimals)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(wide)])


def to_batch(rows: Rows) -> pa.RecordBatch:
    """Return ``qid, label, f1..fN`` as reading the text gives them: float32, 0 where a feature is absent.

    The sentinel is beyond float32 and becomes infinity, here as there.
    """
    columns = []
    for values, decimals in zip(rows.values, rows.decimals, strict=True):
        number = (values / 10.0**decimals).astype(np.float32)
        number[values == ABSENT] = 0
        number[values == SENTINEL] = inf
        columns.append(pa.array(number))
    return pa.RecordBatch.from_arrays(
        [pa.array(rows.qid), pa.array(rows.label.astype(np.uint8)), *columns],
        names=["qid", "label", *feature_names(len(columns))],
    )
