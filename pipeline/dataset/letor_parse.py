"""A block of LETOR lines as Arrow record batches: what the kernel leaves to Python, and its errors."""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from pipeline.core import tables
from pipeline.core.errors import SourceError
from pipeline.dataset.letor_blocks import Block, Limits

if TYPE_CHECKING:  # imports numba
    from pipeline.dataset.letor_kernel import Columns, Parsed

MAX_INDEX: Final = 65_536
"""Largest feature index: rows are stored dense, so one stray index would otherwise take all memory."""


class _BadTokenError(Exception):
    """The token at ``offset`` of a block is wrong."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.offset = offset


def warm_up() -> None:
    """Compile the kernel, or load it from numba's cache, so that a first read does not wait for it."""
    _kernel().parse(*_call_without_rows())


def must_compile() -> bool:
    """Return True if neither this process nor numba's cache has the kernel, so that it must be compiled first."""
    import numba

    parse = _kernel().parse
    types = tuple(map(numba.typeof, _call_without_rows()))
    # numba has no public way to ask without compiling; for a changed source, version or processor this is None.
    return not parse.signatures and parse._cache.load_overload(types, parse.targetctx) is None


def _kernel() -> Any:
    from pipeline.dataset import letor_kernel

    return letor_kernel


def _call_without_rows() -> tuple[Any, ...]:
    """Return arguments of the types with which the kernel is always called."""
    text = np.frombuffer(bytearray(b"\n"), np.uint8)
    return text, 0, len(text), _columns(1, 1, 1, fill=np.float32(0)), _kernel().Sentinel(nan, 0, 0)


class BlockParser:
    """Turns the blocks of ``path`` into batches. Threads may share one: it keeps two hints of how much room to make.

    A feature that a row does not name is ``fill``; ``sentinel`` becomes NaN, and is NaN for none.
    """

    def __init__(self, path: Path, *, fill: float, sentinel: float, limits: Limits) -> None:
        self._path, self._fill, self._max_cells = path, np.float32(fill), limits.batch_cells
        self._sentinel = sentinel, *_decimal_digits(sentinel)
        self._width, self._unsettled = limits.first_width, limits.first_unsettled

    def parse(self, block: Block) -> Iterable[pa.RecordBatch]:
        """Return the batches of ``block``: one, or several made one by one when it is wide and sparse.

        Raises:
            SourceError: At the first bad token of the block.
        """
        try:
            if not np.frombuffer(block.data, np.uint8).min():
                self._refuse_nul(block)
            return self._batches(block.data, block.lines)
        except _BadTokenError as bad:
            before = bytes(block.data[: bad.offset])
            line, column = block.line + before.count(b"\n"), bad.offset - before.rfind(b"\n")
            raise SourceError(str(bad), file=self._path, line=line, column=column) from None

    def _refuse_nul(self, block: Block) -> None:
        """Raise what is wrong with the lines before a NUL byte, else that there is one."""
        nul = bytes(block.data).index(b"\0")
        if before := bytes(block.data).rfind(b"\n", 0, nul) + 1:
            self._batches(block.data[:before], block.lines)
        raise _BadTokenError("a NUL byte: looks like a binary file; LETOR is text", nul)

    def _batches(self, data: memoryview, lines: int) -> Iterable[pa.RecordBatch]:
        rows, width, room = lines, self._width, self._unsettled
        while True:
            columns = _columns(rows, max(1, min(width, self._max_cells // rows)), room, fill=self._fill)
            parsed = self._run(data, 0, columns)
            small = parsed.width * parsed.rows <= self._max_cells
            if parsed.unsettled > room:
                room = parsed.unsettled
            elif parsed.width > len(columns.values) and small and not parsed.status:
                rows, width = parsed.rows, parsed.width
            else:
                break
        self._width, self._unsettled = max(parsed.width, self._width - self._width // 8), room
        batch = self._batch(data, columns, parsed, parsed.width if small else 0)
        if small:
            return [batch] if parsed.rows else ()
        return self._parts(data, parsed)

    def _parts(self, data: memoryview, whole: "Parsed") -> Iterator[pa.RecordBatch]:
        """Parse again, as many rows at a time as a batch may hold; the block is known to be good."""
        place, rows = 0, max(1, self._max_cells // whole.width)
        while place < len(data):
            columns = _columns(rows, whole.width, whole.unsettled, fill=self._fill)
            parsed = self._run(data, place, columns)
            place = parsed.position
            if parsed.rows:
                yield self._batch(data, columns, parsed, whole.width)

    def _run(self, data: memoryview, place: int, columns: "Columns") -> "Parsed":
        kernel, text = _kernel(), np.frombuffer(data, np.uint8)
        parsed: Parsed = kernel.parse(text, place, len(data), columns, kernel.Sentinel(*self._sentinel))
        return parsed

    def _batch(self, data: memoryview, columns: "Columns", parsed: "Parsed", features: int) -> pa.RecordBatch:
        """Build the batch of the rows parsed, or raise the first of all that is wrong with the block."""
        problems = [self._settle(data, columns, parsed.unsettled)]
        if parsed.status:
            problems.append(_kernel_error(parsed.status, data, parsed.position))
        rows, kernel = parsed.rows, _kernel()
        qid, doc = _array(columns.qids, tables.QID_INT, rows), None
        if parsed.status or not parsed.all_int:
            # A row that is bad behind its query id has one, too.
            named = rows + (parsed.status not in (kernel.OK, kernel.NO_QID, kernel.EMPTY_QID))
            qid, problem = _strings(data, columns.qid_span[:named], "query id")
            problems.append(problem)
        if parsed.any_doc:
            doc, problem = _strings(data, columns.doc_span[:rows], "document id")
            problems.append(problem)
        if bad := [p for p in problems if p is not None]:
            raise min(bad, key=lambda p: p.offset)
        arrays = [qid, _array(columns.labels, pa.uint8(), rows), *([] if doc is None else [doc])]
        values, stride = _array(columns.values, pa.float32(), columns.values.size), columns.values.shape[1]
        arrays += [values.slice(feature * stride, rows) for feature in range(features)]
        return pa.RecordBatch.from_arrays(arrays, schema=_schema(features, qid.type, doc is not None))

    def _settle(self, data: memoryview, columns: "Columns", count: int) -> _BadTokenError | None:
        """Let Python read the tokens the kernel was not sure of; return the first that is wrong."""
        with np.errstate(over="ignore"):  # beyond float32's range is infinity
            for start, stop, row, feature in columns.unsettled[:count].tolist():
                token = bytes(data[start:stop])
                value = _python_float(token)
                if feature == 0:
                    if wrong := _label_error(token, value):
                        return _BadTokenError(wrong, start)
                    columns.labels[row] = int(value or 0)
                elif value is None:
                    return _BadTokenError(_value_error(token, feature), start)
                elif feature <= len(columns.values):
                    columns.values[feature - 1, row] = nan if value == self._sentinel[0] else value
        return None


def _columns(rows: int, width: int, unsettled: int, *, fill: np.float32) -> "Columns":
    """Return arrays for the kernel to fill."""
    shape = (width, -(-rows // 16) * 16)  # so that every column starts on a multiple of 64 bytes
    columns: Columns = _kernel().Columns(
        values=np.full(shape, fill) if fill else np.zeros(shape, np.float32),
        labels=np.empty(rows, np.uint8),
        qids=np.empty(rows, np.int64),
        qid_span=np.empty((rows, 2), np.int32),
        doc_span=np.empty((rows, 2), np.int32),
        unsettled=np.empty((unsettled, 4), np.int32),
        last_row=np.zeros(MAX_INDEX + 1, np.int32),
    )
    return columns


def _decimal_digits(value: float) -> tuple[int, int]:
    """Return mantissa and power of ten of ``abs(value)`` as Python prints it, without trailing zeros."""
    if not isfinite(value):
        return 0, 0
    _, digits, power = Decimal(repr(abs(value))).normalize().as_tuple()
    return int("".join(map(str, digits))), int(power)


@lru_cache(maxsize=64)
def _schema(features: int, qid: pa.DataType, doc_id: bool) -> pa.Schema:
    """JUDGMENTS without ``row_id``, which only the consumer knows."""
    return tables.judgments(features, qid=qid, doc_id=doc_id).remove(0)


def _array(values: np.ndarray, kind: pa.DataType, rows: int, valid: np.ndarray | None = None) -> pa.Array:
    """Return the first ``rows`` values without a copy; ``pa.array`` imports pandas where there is one."""
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, rows, [bitmap, pa.py_buffer(values)])


def _strings(data: memoryview, span: np.ndarray, name: str) -> tuple[pa.Array, _BadTokenError | None]:
    """Return the pieces of ``data`` that ``span`` cuts as strings, empty ones null; or the first not UTF-8."""
    # The text as one array of pieces and what lies between them, of which every second one is taken.
    between = pa.BinaryArray.from_buffers(
        pa.binary(), max(0, span.size - 1), [None, pa.py_buffer(span), pa.py_buffer(data)]
    )
    at = _array(np.arange(0, span.size, 2), pa.int64(), len(span), valid=span[:, 1] > span[:, 0])
    pieces = between.take(at)
    try:
        return pieces.cast(pa.string()), None
    except pa.ArrowInvalid:
        start, token = next((s, bytes(data[s:e])) for s, e in span.tolist() if not _is_utf8(data[s:e]))
    what = f"{name} {_shown(token)} is not UTF-8; convert the file to UTF-8"
    return pieces, _BadTokenError(what, start)


def _is_utf8(piece: memoryview) -> bool:
    try:
        return str(piece, "utf-8") is not None
    except UnicodeDecodeError:
        return False


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
    about = f"value {_shown(token)} of feature {feature}"
    if token.upper() != b"NULL":
        return f"{about} is not a number; write a decimal number, nan or inf"
    remedy = "use the normalised file, or replace NULL by a number or nan"
    return f"{about}: LETOR's raw NULL files hold missing values; {remedy}"


def _kernel_error(status: int, data: memoryview, at: int) -> _BadTokenError:
    kernel, match = _kernel(), re.match(rb"[^\s#]*", bytes(data[at:]))
    token = match.group() if match else b""
    shown, index = _shown(token), _shown(token.partition(b":")[0])
    what = {
        kernel.NO_QID: f"expected qid:ID after the label, found {shown if token else 'the end of the line'}; "
        "a LETOR line is 'label qid:ID index:value ...'",
        kernel.EMPTY_QID: f"{shown} has no query id; write qid:ID without a space",
        kernel.INDEX_NOT_INTEGER: f"feature index {index} in {shown} is not a whole number; write index:value",
        kernel.INDEX_ZERO: f"feature index 0 in {shown}; indexes count from 1, so add 1 to all of them",
        kernel.INDEX_TOO_LARGE: f"feature index {index} is above {MAX_INDEX}; renumber the features without gaps",
        kernel.INDEX_REPEATED: f"feature index {index} is repeated as {shown}; keep one of the two",
    }[status]
    return _BadTokenError(what, at)
