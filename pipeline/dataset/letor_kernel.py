"""The compiled part of the LETOR reader: one pass over the bytes of a block.

Importing this module imports numba, so it is imported inside functions. All kernels of the reader stay in this
file: numba's cache notices a change of this file only. A block ends with a line feed, which stops every inner
scan, so none of them needs a bound of its own.

A number is read in one of three ways, and each gives ``numpy.float32(float(token))`` to the bit:

1. a plain decimal whose digits make an integer up to 2^53: one correctly rounded division (Clinger, PLDI 1990);
2. else a double that is off by less than 4 eps, if everything within 4 eps rounds to the same float32;
3. else, and for anything that is not a decimal number, Python's ``float`` decides: the place is noted.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile at first call; keep the machine code in numba's cache, or nowhere where that cannot be written."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package nor the user's cache directory can be written
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


OK, NO_QID, EMPTY_QID, INDEX_NOT_INTEGER, INDEX_ZERO, INDEX_TOO_LARGE, INDEX_REPEATED = range(7)

_DIGITS: Final = 18  # this many decimal digits always fit an int64
_EXACT: Final = 2**53  # integers up to here are doubles
TENS: Final = np.array([10.0**p for p in range(_DIGITS + 1)])
_POWER_LOW, _POWER_HIGH = -290, 308  # below -290 the product could be subnormal and lose the 4 eps
POWERS: Final = np.array([float(f"1e{p}") for p in range(_POWER_LOW, _POWER_HIGH + 1)])
_EPS4: Final = 4 * 2.0**-52
ONE: Final = np.uint64(1)
ZERO: Final[Any] = np.int64(0)  # typed: for a plain 0 numba compiles the callee a second time


class Columns(NamedTuple):
    """The arrays :func:`parse` fills."""

    values: np.ndarray  # float32 [width, rows], filled with the value of absent features
    labels: np.ndarray  # uint8 [rows]
    qids: np.ndarray  # int64 [rows]; meaningful when every query id is an integer
    qid_span: np.ndarray  # int32 [rows, 2], start and stop of the query id in the text
    doc_span: np.ndarray  # int32 [rows, 2], the same of the document id; empty where there is none
    unsettled: np.ndarray  # int32 [n, 4], tokens left to Python: start, stop, row, feature (0: the label)
    last_row: np.ndarray  # int32 [largest index allowed + 1] of zeros: the last row (+ 1) that held an index


class Sentinel(NamedTuple):
    """A value that becomes NaN; NaN for none."""

    value: float
    mantissa: int  # its decimal digits as an integer, without trailing zeros and sign
    power: int  # the power of ten that belongs to them


class Parsed(NamedTuple):
    """What :func:`parse` found."""

    status: int  # OK, or what is wrong with the token at `position`
    position: int  # where it stopped
    rows: int  # rows before that
    width: int  # largest feature index
    unsettled: int  # number of tokens left to Python
    all_int: bool  # whether all query ids are integers
    any_doc: bool  # whether any row has a document id


@compiled
def _is_space(c: int) -> bool:
    """Whitespace as in ``bytes.split``, without the line feed."""
    return c == 32 or (9 <= c <= 13 and c != 10)


@compiled
def _is_end(c: int) -> bool:
    """Whether a token ends before this byte: whitespace, a line feed or ``#``."""
    return c == 32 or 9 <= c <= 13 or c == 35


@compiled
def _skip_space(text: np.ndarray, i: int) -> int:
    while _is_space(text[i]):
        i += 1
    return i


@compiled
def _token_end(text: np.ndarray, i: int) -> int:
    while not _is_end(text[i]):
        i += 1
    return i


@compiled
def _label(text: np.ndarray, i: int, stop: int) -> int:
    """Value of one or two digits with an optional ``.000``; -1 leaves the token to Python."""
    value, digits = 0, 0
    while i < stop and 48 <= text[i] <= 57 and digits < 2:
        value, digits, i = value * 10 + (text[i] - 48), digits + 1, i + 1
    if digits and i < stop and text[i] == 46:
        i += 1
        while i < stop and text[i] == 48:
            i += 1
    return value if digits and i == stop and value <= 30 else -1


@compiled
def _canonical_int(text: np.ndarray, i: int, stop: int) -> tuple[bool, int]:
    """Return whether ``[i, stop)`` is an int64 as ``str(int)`` writes it, and its value."""
    negative = text[i] == 45
    if negative:
        i += 1
    if i == stop or (text[i] == 48 and (negative or i + 1 < stop)):
        return False, 0
    value = 0  # kept negative: int64 reaches one further down than up
    while i < stop:
        digit = text[i] - 48
        if digit < 0 or digit > 9 or value < -922337203685477580:
            return False, 0
        if value == -922337203685477580 and digit > (8 if negative else 7):
            return False, 0
        value = value * 10 - digit
        i += 1
    return True, value if negative else -value


@compiled
def _rounded(
    mantissa: int, power: int, exact: bool, negative: bool, sentinel: Sentinel
) -> tuple[bool, float]:
    """Return ``mantissa * 10**power`` as a double that rounds to the right float32, if that is certain."""
    if mantissa == 0:
        value = 0.0
    elif power < _POWER_LOW or power > _POWER_HIGH:
        return False, 0.0
    else:
        value = mantissa * POWERS[power - _POWER_LOW]
        low, high = value * (1 - _EPS4), value * (1 + _EPS4)
        if low <= abs(sentinel.value) <= high and (sentinel.value < 0) == negative:
            while mantissa % 10 == 0:
                mantissa, power = mantissa // 10, power + 1
            # The same decimal digits are the same double; near but other digits, Python has to tell.
            return exact and mantissa == sentinel.mantissa and power == sentinel.power, np.nan
        if np.float32(low) != np.float32(high):
            return False, 0.0
    value = -value if negative else value
    return True, np.nan if value == sentinel.value else value


@compiled
def _number(text: np.ndarray, i: int, sentinel: Sentinel) -> tuple[bool, float, int]:
    """Read any number at ``i``: (whether its value is certain, its value, the end of its token)."""
    start = i
    negative = text[i] == 45
    if negative or text[i] == 43:
        i += 1
    mantissa, power, digits, significant, decimal, exact = ZERO, ZERO, 0, 0, 0, ZERO == 0
    while True:
        c = text[i]
        if 48 <= c <= 57:
            digits += 1
            if significant < _DIGITS:
                mantissa = mantissa * 10 + (c - 48)
                significant += mantissa > 0
                power -= decimal
            else:
                power += 1 - decimal
                exact = exact and c == 48
        elif c == 46 and decimal == 0:
            decimal = 1
        else:
            break
        i += 1
    if digits and (c | 32) == 101:  # e, E
        i += 1
        down = text[i] == 45
        if down or text[i] == 43:
            i += 1
        exponent, digits = 0, 0
        while 48 <= text[i] <= 57 and exponent < 10_000:
            exponent, digits, i = exponent * 10 + (text[i] - 48), digits + 1, i + 1
        power += -exponent if down else exponent
    if digits and _is_end(text[i]):
        certain, value = _rounded(mantissa, power, exact, negative, sentinel)
        return certain, value, i
    stop = _token_end(text, i)
    # A plain "nan" is common enough in dense files with missing values to be spared the trip to Python.
    if stop - start == 3 and (text[start] | 32) == 110:
        return (text[start + 1] | 32) == 97 and (text[start + 2] | 32) == 110, np.nan, stop
    return False, 0.0, stop


@compiled
def _leave(unsettled: np.ndarray, count: int, start: int, stop: int, row: int, index: int) -> int:
    """Note a token for Python if there is room; return how many there are now."""
    if count < unsettled.shape[0]:
        unsettled[count, 0], unsettled[count, 1] = start, stop
        unsettled[count, 2], unsettled[count, 3] = row, index
    return count + 1


@compiled
def _features(
    text: np.ndarray, begin: int, row: int, columns: Columns, unsettled: int, sentinel: Sentinel
) -> tuple[int, int, int, int]:
    """Read ``index:value`` up to a comment or the line end: (status, position, largest index, unsettled).

    The inner loop of the reader. What it counts places with is unsigned: numba looks each time whether a signed
    index is negative. It reads plain decimals itself: a call for each would take a third of the time.
    """
    values, last_row = columns.values, columns.last_row
    largest, limit = 0, last_row.shape[0] - 1
    i = np.uint64(begin)
    at: Any
    stop = begin
    while True:
        while _is_space(text[i]):
            i += ONE
        token, index = i, 0
        while 48 <= text[i] <= 57:
            if index <= limit:
                index = index * 10 + (text[i] - 48)
            i += ONE
        at = np.int64(token)
        if i == token and (text[i] == 10 or text[i] == 35):
            return OK, at, largest, unsettled
        if i == token or text[i] != 58:
            return INDEX_NOT_INTEGER, at, largest, unsettled
        if index == 0:
            return INDEX_ZERO, at, largest, unsettled
        if index > limit:
            return INDEX_TOO_LARGE, at, largest, unsettled
        column = np.uint64(index)
        if last_row[column] == row + 1:
            return INDEX_REPEATED, at, largest, unsettled
        last_row[column] = row + 1
        largest = max(largest, index)

        i += ONE
        at = np.int64(i)
        negative = text[i] == 45
        if negative:
            i += ONE
        start, mantissa, decimals = i, 0, ZERO
        while 48 <= text[i] <= 57:
            mantissa = mantissa * 10 + (text[i] - 48)
            i += ONE
        digits = np.int64(i - start)
        if text[i] == 46:
            i += ONE
            start = i
            while 48 <= text[i] <= 57:
                mantissa = mantissa * 10 + (text[i] - 48)
                i += ONE
            decimals = np.int64(i - start)
            digits += decimals
        if 0 < digits <= _DIGITS and mantissa <= _EXACT and _is_end(text[i]):
            value = mantissa / TENS[np.uint64(decimals)]
            value = -value if negative else value
            certain, value = True, np.nan if value == sentinel.value else value
        else:
            certain, value, stop = _number(text, at, sentinel)
            i = np.uint64(stop)
        if not certain:
            unsettled = _leave(columns.unsettled, unsettled, at, stop, row, index)
        elif index <= values.shape[0]:
            values[column - ONE, np.uint64(row)] = value


@compiled
def _docid_value(text: np.ndarray, i: int, stop: int) -> int:
    """Position after ``docid =`` when that stands at ``i``, else -1."""
    if stop - i < 6 or (text[i] | 32) != 100 or (text[i + 1] | 32) != 111 or (text[i + 2] | 32) != 99:
        return -1
    if (text[i + 3] | 32) != 105 or (text[i + 4] | 32) != 100:
        return -1
    i = _skip_space(text, i + 5)
    return _skip_space(text, i + 1) if text[i] == 61 else -1


@compiled
def _is_word(c: int) -> bool:
    return 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122 or c == 95 or c >= 128


@compiled
def _line_end(text: np.ndarray, i: int) -> int:
    while text[i] != 10:
        i += 1
    return i


@compiled
def _document(text: np.ndarray, i: int) -> tuple[int, int, int]:
    """Read the comment at ``i``, on its ``#`` or a line end: (start, stop of the document id, line end)."""
    if text[i] == 10:
        return i, i, i
    line_end = _line_end(text, i)
    start, stop = _skip_space(text, i + 1), line_end
    while stop > start and _is_space(text[stop - 1]):
        stop -= 1
    for k in range(start, stop - 5):
        if not _is_word(text[k - 1]):
            token = _docid_value(text, k, stop)
            if token >= 0:
                end = token
                while end < stop and not _is_space(text[end]):
                    end += 1
                return token, end, line_end
    return start, stop, line_end


@compiled
def parse(text: np.ndarray, place: int, end: int, columns: Columns, sentinel: Sentinel) -> Parsed:
    """Parse the lines of ``text[place:end]`` until the first bad one or until ``columns`` are full.

    Feature indexes beyond their width and unsettled tokens beyond their room are counted and not stored: the
    caller makes room and parses again. ``text`` is uint8, ``place`` begins a line, a line feed stands before ``end``.
    """
    labels, qids, qid_span, doc_span = columns.labels, columns.qids, columns.qid_span, columns.doc_span
    rows, width, unsettled, all_int, any_doc = ZERO, ZERO, ZERO, True, False
    while place < end and rows < labels.shape[0]:
        i = _skip_space(text, place)
        if text[i] == 10 or text[i] == 35:
            place = _line_end(text, i) + 1
            continue
        stop = _token_end(text, i)
        label = _label(text, i, stop)
        labels[rows] = label & 255
        if label < 0:
            unsettled = _leave(columns.unsettled, unsettled, i, stop, rows, ZERO)
        i = _skip_space(text, stop)
        # One byte after the other, for the block may end after any of them.
        if text[i] != 113 or text[i + 1] != 105 or text[i + 2] != 100 or text[i + 3] != 58:
            return Parsed(NO_QID, i, rows, width, unsettled, all_int, any_doc)
        stop = _token_end(text, i + 4)
        if stop == i + 4:
            return Parsed(EMPTY_QID, i, rows, width, unsettled, all_int, any_doc)
        qid_span[rows, 0], qid_span[rows, 1] = i + 4, stop
        is_int, qids[rows] = _canonical_int(text, i + 4, stop)
        status, i, largest, unsettled = _features(text, stop, rows, columns, unsettled, sentinel)
        if status != OK:
            return Parsed(status, i, rows, width, unsettled, all_int, any_doc)
        doc_span[rows, 0], doc_span[rows, 1], line_end = _document(text, i)
        all_int, any_doc = all_int and is_int, any_doc or doc_span[rows, 0] < doc_span[rows, 1]
        width = max(width, largest)
        rows, place = rows + 1, line_end + 1
    return Parsed(OK, place, rows, width, unsettled, all_int, any_doc)
