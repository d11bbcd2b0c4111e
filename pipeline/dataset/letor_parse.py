"""A block of LETOR lines as Arrow record batches: what the kernel leaves to Python, and its errors."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.core import tables
from pipeline.core.errors import SourceError
from pipeline.dataset import letor_code
from pipeline.dataset.letor_blocks import Block
from pipeline.dataset.letor_code import MAX_INDEX

MAX_CELLS: Final = 8 << 20
"""Most feature values in one batch (32 MiB): a block that is wide and sparse comes as several batches."""

_TOKEN = re.compile(rb"[^\s#]*")
_START_WIDTH = 256  # features to make room for at first; a wider block is parsed twice
_START_ODD = 1024


class _Arrays(NamedTuple):
    """What the kernel writes into; shapes in :func:`pipeline.dataset.letor_code.parse`."""

    values: np.ndarray
    labels: np.ndarray
    qids: np.ndarray
    qid_span: np.ndarray
    doc_span: np.ndarray
    odd: np.ndarray
    stamp: np.ndarray


class _Found(NamedTuple):
    """What the kernel returns."""

    status: int
    position: int
    rows: int
    width: int
    odds: int
    all_int: bool
    any_doc: bool


class _BadTokenError(Exception):
    """The token at ``offset`` of a block is wrong."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.offset = offset


class BlockParser:
    """Turns blocks into batches. Threads may share one: all it keeps are two hints of how much room to make.

    Args:
        path: The source, for error messages.
        fill: Value of a feature that a row does not name.
        sentinel: Value that becomes NaN; NaN for none.
    """

    def __init__(self, path: Path, *, fill: float, sentinel: float) -> None:
        self._path, self._fill, self._sentinel = path, np.float32(fill), sentinel
        self._key = _decimal_key(sentinel)
        self._width, self._odds = _START_WIDTH, _START_ODD

    def parse(self, block: Block) -> Iterable[pa.RecordBatch]:
        """Return the batches of ``block``: one, or several made one by one when it is wide and sparse.

        Raises:
            SourceError: At the first bad token of the block.
        """
        data, bad = block.data, None
        batches: Iterable[pa.RecordBatch] = ()
        if block.has_nul:
            nul = bytes(data).index(b"\0")
            bad = _BadTokenError("a NUL byte: looks like a binary file; LETOR is text", nul)
            data = data[: bytes(data).rfind(b"\n", 0, nul) + 1]
        try:
            batches = self._batches(data, block.lines) if data else ()
        except _BadTokenError as earlier:
            bad = earlier
        if bad is not None:
            before = bytes(block.data[: bad.offset])
            line = block.line + before.count(b"\n")
            column = bad.offset - before.rfind(b"\n")
            raise SourceError(str(bad), file=self._path, line=line, column=column)
        return batches

    def _batches(self, data: memoryview, lines: int) -> Iterable[pa.RecordBatch]:
        rows, width, odds = lines, self._width, self._odds
        while True:
            arrays = self._arrays(rows, max(1, min(width, MAX_CELLS // rows)), odds)
            found = self._run(data, 0, arrays)
            small = found.width * found.rows <= MAX_CELLS
            if found.odds > odds:
                odds = found.odds
            elif found.width > len(arrays.values) and small and not found.status:
                rows, width = found.rows, found.width
            else:
                break
        self._width, self._odds = max(found.width, self._width - self._width // 8), odds
        batch = self._batch(data, arrays, found, found.width if small else 0)
        if small:
            return [batch] if found.rows else ()
        return self._parts(data, found)

    def _parts(self, data: memoryview, whole: _Found) -> Iterator[pa.RecordBatch]:
        """Parse again, as many rows at a time as fit ``MAX_CELLS``; the block is known to be good."""
        position = 0
        while position < len(data):
            arrays = self._arrays(max(1, MAX_CELLS // whole.width), whole.width, whole.odds)
            found = self._run(data, position, arrays)
            position = found.position
            if found.rows:
                yield self._batch(data, arrays, found, whole.width)

    def _arrays(self, rows: int, width: int, odds: int) -> _Arrays:
        shape = (width, -(-rows // 16) * 16)  # so that every column starts on a multiple of 64 bytes
        values = np.full(shape, self._fill) if self._fill else np.zeros(shape, np.float32)
        return _Arrays(
            values,
            np.empty(rows, np.uint8),
            np.empty(rows, np.int64),
            np.empty((rows, 2), np.int32),
            np.empty((rows, 2), np.int32),
            np.empty((odds, 4), np.int32),
            np.zeros(MAX_INDEX + 1, np.int32),
        )

    def _run(self, data: memoryview, position: int, arrays: _Arrays) -> _Found:
        buf = np.frombuffer(data, np.uint8)
        return _Found(*letor_code.parse(buf, position, len(data), *arrays, self._sentinel, self._key))

    def _batch(self, data: memoryview, arrays: _Arrays, found: _Found, features: int) -> pa.RecordBatch:
        """Build the batch of the rows found, or raise the first of all that is wrong with the block."""
        problems = [self._settle(data, arrays, found.odds)]
        if found.status:
            problems.append(_kernel_error(found.status, data, found.position))
        rows = found.rows
        qid, doc = _array(arrays.qids, tables.QID_INT, rows), None
        if found.status or not found.all_int:
            qid, problem = _strings(data, arrays.qid_span[: _named(found)], "query id")
            problems.append(problem)
        if found.any_doc:
            doc, problem = _strings(data, arrays.doc_span[: found.rows], "document id")
            problems.append(problem)
        if bad := [p for p in problems if p is not None]:
            raise min(bad, key=lambda p: p.offset)
        columns = [qid, _array(arrays.labels, pa.uint8(), rows), *([] if doc is None else [doc])]
        whole, stride = _array(arrays.values, pa.float32(), arrays.values.size), arrays.values.shape[1]
        columns += [whole.slice(column * stride, rows) for column in range(features)]
        return pa.RecordBatch.from_arrays(columns, schema=_schema(features, qid.type, doc is not None))

    def _settle(self, data: memoryview, arrays: _Arrays, odds: int) -> _BadTokenError | None:
        """Let Python read the tokens the kernel was not sure of; return the first that is wrong."""
        with np.errstate(over="ignore"):  # beyond float32's range is infinity
            for start, stop, row, feature in arrays.odd[:odds].tolist():
                token = bytes(data[start:stop])
                value = _python_float(token)
                if feature == 0:
                    if wrong := _label_error(token, value):
                        return _BadTokenError(wrong, start)
                    arrays.labels[row] = int(value or 0)
                elif value is None:
                    return _BadTokenError(_value_error(token, feature), start)
                elif feature <= len(arrays.values):
                    arrays.values[feature - 1, row] = np.nan if value == self._sentinel else value
        return None


def _named(found: _Found) -> int:
    """How many rows have a query id: those found, and one that is bad behind it."""
    return found.rows + (found.status not in (letor_code.OK, letor_code.NO_QID, letor_code.EMPTY_QID))


def _decimal_key(value: float) -> tuple[int, int]:
    """Return mantissa and power of ten of ``abs(value)`` as Python prints it, without trailing zeros."""
    if not isfinite(value):
        return 0, 0
    _, digits, power = Decimal(repr(abs(value))).normalize().as_tuple()
    return int("".join(map(str, digits))), int(power)


@lru_cache(maxsize=64)
def _schema(features: int, qid: pa.DataType, doc_id: bool) -> pa.Schema:
    """JUDGMENTS without ``row_id``, which only the consumer knows."""
    return tables.judgments(features, qid=qid, doc_id=doc_id).remove(0)


def _array(values: np.ndarray, kind: pa.DataType, rows: int) -> pa.Array:
    """Return the first ``rows`` values without a copy; ``pa.array`` imports pandas where there is one."""
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(values)])


def _strings(data: memoryview, span: np.ndarray, name: str) -> tuple[pa.Array, _BadTokenError | None]:
    """Return the pieces of ``data`` as strings, empty ones null; or the first that is not UTF-8."""
    offsets, text = letor_code.gather(np.frombuffer(data, np.uint8), span)
    valid = np.packbits(offsets[1:] > offsets[:-1], bitorder="little")
    strings = pa.StringArray.from_buffers(len(span), *map(pa.py_buffer, (offsets, text, valid)))
    if _is_utf8(strings):
        return strings, None
    first = bisect_left(range(len(strings)), True, key=lambda row: not _is_utf8(strings[: row + 1]))
    start, stop = span[first].tolist()
    what = f"{name} {_shown(bytes(data[start:stop]))} is not UTF-8; convert the file to UTF-8"
    return strings, _BadTokenError(what, start)


def _is_utf8(strings: pa.Array) -> bool:
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _python_float(token: bytes) -> float | None:
    """Return what Python makes of ``token``, None when it is no number; ``1_000`` is code, not data."""
    try:
        return None if b"_" in token else float(token)
    except ValueError:
        return None


def _shown(token: bytes) -> str:
    """Return ``token`` quoted, shortened, with anything unprintable escaped."""
    text = token[:40].decode("utf-8", "backslashreplace")
    return repr(text + ("..." if len(token) > 40 else ""))


def _label_error(token: bytes, value: float | None) -> str | None:
    shown, scale = _shown(token), f"labels are whole numbers from 0 to {tables.MAX_LABEL}"
    if value is None or not isfinite(value):
        return f"label {shown} is not a number; {scale}"
    if value < 0:
        return f"label {shown} is negative; {scale}, so shift the grades to start at 0"
    if value != int(value):
        return f"label {shown} is a fraction; {scale}, so map the grades to whole numbers"
    if value > tables.MAX_LABEL:
        return f"label {shown} is above {tables.MAX_LABEL}; {scale}, so map the grades to fewer levels"
    return None


def _value_error(token: bytes, feature: int) -> str:
    if token.upper() == b"NULL":
        return (
            f"value {_shown(token)} of feature {feature}: LETOR's raw NULL files hold missing values; "
            "use the normalised file, or replace NULL by a number or nan"
        )
    return f"value {_shown(token)} of feature {feature} is not a number; write a decimal number, nan or inf"


def _kernel_error(status: int, data: memoryview, at: int) -> _BadTokenError:
    match = _TOKEN.match(bytes(data[at:]))
    token = match.group() if match else b""
    shown, index = _shown(token), _shown(token.partition(b":")[0])
    what = {
        letor_code.NO_QID: f"expected qid:ID after the label, found {shown if token else 'the end of the line'}; "
        "a LETOR line is 'label qid:ID index:value ...'",
        letor_code.EMPTY_QID: f"{shown} has no query id; write qid:ID without a space",
        letor_code.INDEX_NOT_INTEGER: f"feature index {index} in {shown} is not a whole number; "
        "write index:value",
        letor_code.INDEX_ZERO: f"feature index 0 in {shown}; indexes count from 1, so add 1 to all of them",
        letor_code.INDEX_TOO_LARGE: f"feature index {index} is above {MAX_INDEX}; "
        "renumber the features without gaps",
        letor_code.INDEX_REPEATED: f"feature index {index} is repeated as {shown}; keep one of the two",
    }[status]
    return _BadTokenError(what, at)
