"""The compiled part of the LETOR reader: one pass over the bytes of a block.

Importing this module imports numba; :mod:`pipeline.dataset.letor_code` does so only to have it compiled, for some ten
seconds, and calls the machine code that is kept. The block ends with a line feed, which stops every inner scan:
none of them needs a bound of its own.

A number takes one of three ways, and each gives ``numpy.float32(float(token))`` to the bit:

1. mantissa <= 2^53 and power of ten within 22: one correctly rounded double operation (Clinger, PLDI 1990);
2. else a double that is off by less than 4 eps: good when everything within 4 eps has the same float32;
3. else, and for anything that is not plain decimal, the place is noted and Python's ``float`` decides.
"""

from typing import Any, Final

import numpy as np

from pipeline.core.compiled import byte_at, carray, inlined, part, word_at, zeros_below
from pipeline.dataset.letor_code import (
    EMPTY_QID,
    INDEX_NOT_INTEGER,
    INDEX_REPEATED,
    INDEX_TOO_LARGE,
    INDEX_ZERO,
    MAX_INDEX,
    NO_QID,
    OK,
)

_POWER_LOW, _POWER_HIGH = -290, 308  # below -290 the product could be subnormal and lose the 4 eps
POWERS: Final = np.array([float(f"1e{p}") for p in range(_POWER_LOW, _POWER_HIGH + 1)])
_EPS4: Final = 4 * 2.0**-52
INT_POWERS: Final = np.array([10**p for p in range(9)], np.uint64)
SCALES: Final = np.array([sign * 10.0**p for sign in (1, -1) for p in range(16)])  # 0 / -1 is -0
_AHEAD: Final = 32  # bytes within which an index of four and a short number can be read word by word
_U: Final[Any] = np.uint64
_I: Final[Any] = np.int64
_KNOWN: Final = 999  # indexes whose text is at hand
_NEXT: Final = [f"{index + 1}:".encode() for index in range(_KNOWN)]
NEXT_LENGTH: Final = np.array([8 * len(text) for text in _NEXT], np.uint64)
NEXT: Final = np.array([int.from_bytes(text.rjust(8, b"\0"), "little") for text in _NEXT], np.uint64)
_COUNTED: Final = 224  # at most 255
_DIGITS: Final = 18  # as many decimal digits always fit an int64


@part
def _is_space(c: int) -> bool:
    """Whitespace as in ``bytes.split``, without the line feed."""
    return c == 32 or (9 <= c <= 13 and c != 10)


@part
def _skip_space(buf: int, i: int) -> int:
    while _is_space(byte_at(buf + i)):
        i += 1
    return i


@part
def _token_end(buf: int, i: int) -> int:
    """First position at or after ``i`` that is whitespace, a line feed or ``#``."""
    while not (_is_space(byte_at(buf + i)) or byte_at(buf + i) == 10 or byte_at(buf + i) == 35):
        i += 1
    return i


@part
def _is_qid(buf: int, i: int) -> bool:
    """Whether ``qid:`` stands at ``i``."""
    start = byte_at(buf + i) == 113 and byte_at(buf + i + 1) == 105
    return start and byte_at(buf + i + 2) == 100 and byte_at(buf + i + 3) == 58


@part
def _label(buf: int, i: int, stop: int) -> int:
    """Value of one or two digits with an optional ``.000``; -1 leaves the token to Python."""
    value, digits = 0, 0
    while i < stop and 48 <= byte_at(buf + i) <= 57 and digits < 2:
        value, digits, i = value * 10 + (byte_at(buf + i) - 48), digits + 1, i + 1
    if digits and i < stop and byte_at(buf + i) == 46:
        i += 1
        while i < stop and byte_at(buf + i) == 48:
            i += 1
    return value if digits and i == stop and value <= 30 else -1


@part
def _canonical_int(buf: int, i: int, stop: int) -> tuple[bool, int]:
    """Return whether ``[i, stop)`` is an int64 as ``str(int)`` writes it, and its value."""
    negative = byte_at(buf + i) == 45
    if negative:
        i += 1
    if i == stop or (byte_at(buf + i) == 48 and (negative or i + 1 < stop)):
        return False, 0
    value = 0  # kept negative: int64 reaches one further down than up
    while i < stop:
        digit = byte_at(buf + i) - 48
        if digit < 0 or digit > 9 or value < -922337203685477580:
            return False, 0
        if value == -922337203685477580 and digit > (8 if negative else 7):
            return False, 0
        value = value * 10 - digit
        i += 1
    return True, value if negative else -value


@part
def _scaled(
    mantissa: int, power: int, exact: bool, negative: bool, sentinel: float, key: tuple[int, int]
) -> tuple[bool, float]:
    """Return ``mantissa * 10**power`` as a double that rounds to the right float32, if that is certain."""
    if mantissa == 0:
        value = 0.0
    elif exact and mantissa <= 9007199254740992 and -22 <= power <= 22:
        scale = POWERS[abs(power) - _POWER_LOW]
        value = mantissa / scale if power < 0 else mantissa * scale
    elif power < _POWER_LOW or power > _POWER_HIGH:
        return False, 0.0
    else:
        value = mantissa * POWERS[power - _POWER_LOW]
        low, high = value * (1 - _EPS4), value * (1 + _EPS4)
        if low <= abs(sentinel) <= high and (sentinel < 0) == negative:
            while mantissa % 10 == 0:
                mantissa, power = mantissa // 10, power + 1
            # The same decimal digits are the same double; near but other digits, Python has to tell.
            return (exact and mantissa == key[0] and power == key[1]), np.nan
        if np.float32(low) != np.float32(high):
            return False, 0.0
    value = -value if negative else value
    return True, np.nan if value == sentinel else value


@part
def _number(buf: int, i: int, sentinel: float, key: tuple[int, int]) -> tuple[bool, float, int]:
    """Read the number at ``i``: (whether it is settled, its value, the end of its token)."""
    start = i
    negative = byte_at(buf + i) == 45
    if negative or byte_at(buf + i) == 43:
        i += 1
    mantissa: Any = np.int64(0)  # typed: with a plain 0 the callee is compiled twice
    power: Any = np.int64(0)
    digits, significant, point, exact = 0, 0, 0, mantissa == 0
    while True:
        c = byte_at(buf + i)
        if 48 <= c <= 57:
            digits += 1
            if significant < _DIGITS:
                mantissa = mantissa * 10 + (c - 48)
                significant += mantissa > 0
                power -= point
            else:
                power += 1 - point
                exact = exact and c == 48
        elif c == 46 and point == 0:
            point = 1
        else:
            break
        i += 1
    if digits and (c | 32) == 101:  # e, E
        i += 1
        down = byte_at(buf + i) == 45
        if down or byte_at(buf + i) == 43:
            i += 1
        exponent, digits = 0, 0
        while 48 <= byte_at(buf + i) <= 57 and exponent < 10_000:
            exponent, digits, i = exponent * 10 + (byte_at(buf + i) - 48), digits + 1, i + 1
        power += -exponent if down else exponent
        c = byte_at(buf + i)
    if digits and (_is_space(c) or c == 10 or c == 35):
        known, value = _scaled(mantissa, power, exact, negative, sentinel, key)
        return known, value, i
    stop = _token_end(buf, i)
    # A plain "nan" is common enough in dense files with missing values to be spared the trip to Python.
    if stop - start == 3 and (byte_at(buf + start) | 32) == 110:
        return (byte_at(buf + start + 1) | 32) == 97 and (byte_at(buf + start + 2) | 32) == 110, np.nan, stop
    return False, 0.0, stop


@part
def _docid_value(buf: int, i: int, stop: int) -> int:
    """Position after ``docid =`` when that stands at ``i``, else -1."""
    if stop - i < 6:
        return -1
    if (
        (byte_at(buf + i) | 32) != 100
        or (byte_at(buf + i + 1) | 32) != 111
        or (byte_at(buf + i + 2) | 32) != 99
    ):
        return -1
    if (byte_at(buf + i + 3) | 32) != 105 or (byte_at(buf + i + 4) | 32) != 100:
        return -1
    i = _skip_space(buf, i + 5)
    return _skip_space(buf, i + 1) if byte_at(buf + i) == 61 else -1


@part
def _is_word(c: int) -> bool:
    return 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122 or c == 95 or c >= 128


@part
def _line_end(buf: int, i: int) -> int:
    while byte_at(buf + i) != 10:
        i += 1
    return i


@part
def _document(buf: int, i: int) -> tuple[int, int, int]:
    """Read the comment at ``i``, on its ``#`` or a line end: (start, stop of the document id, line end)."""
    if byte_at(buf + i) == 10:
        return i, i, i
    line_end = _line_end(buf, i)
    start, stop = _skip_space(buf, i + 1), line_end
    while stop > start and _is_space(byte_at(buf + stop - 1)):
        stop -= 1
    for k in range(start, stop - 5):
        if k == start or not _is_word(byte_at(buf + k - 1)):
            token = _docid_value(buf, k, stop)
            if token >= 0:
                end = token
                while end < stop and not _is_space(byte_at(buf + end)):
                    end += 1
                return token, end, line_end
    return start, stop, line_end


@inlined
def _digits_below(word: np.uint64) -> Any:
    """Return eight times the number of digits among the bytes of ``word`` before the first that is none."""
    word ^= _U(0x3030303030303030)
    # A byte above 9 sets its high bit, and may carry: into later bytes only.
    return zeros_below(((word + _U(0x7676767676767676)) | word) & _U(0x8080808080808080)) & _U(0x78)


@inlined
def _value_below(word: np.uint64, bits: np.uint64) -> Any:
    """Return the value of the ``bits / 8`` digits, one to eight, that ``word`` begins with.

    All at once, as a word of bytes, then of pairs of digits, then of fours (Lamport, CACM 1975).
    """
    word = (word ^ _U(0x3030303030303030)) << (_U(64) - bits)  # what follows is gone, zeros are in front
    word = (word * _U(2561)) >> _U(8) & _U(0x00FF00FF00FF00FF)
    word = (word * _U(6553601)) >> _U(16) & _U(0x0000FFFF0000FFFF)
    return (word * _U(42949672960001)) >> _U(32)


@inlined
def _short_number(buf: int, i: int) -> tuple[float, int]:
    """Read ``[-]digits[.digits]``, of 8 digits or 7 + 8: its value and where it ends, 0 when it begins otherwise.

    The token may go on there: the caller looks.
    """
    word = word_at(buf + i)
    negative = _U((word & _U(255)) == _U(45))
    word >>= negative << _U(3)  # sooner done than another load; a 0 comes in behind, which ends the digits
    bits = _digits_below(word)
    if bits == 0:
        return 0.0, 0
    i += _I(negative + (bits >> _U(3)))
    scale = negative << _U(4)
    if byte_at(buf + i) != 46:
        return np.float64(_I(_value_below(word, bits))) * SCALES[scale], i
    if bits == 64:
        return 0.0, 0  # with 8 decimals it could be beyond 2^53
    whole = _value_below(word, bits)
    word = word_at(buf + i + 1)
    bits = _digits_below(word)
    if bits == 0:
        return 0.0, 0
    decimals = bits >> _U(3)
    mantissa = whole * INT_POWERS[decimals] + _value_below(word, bits)
    return np.float64(_I(mantissa)) / SCALES[scale + decimals], i + 1 + _I(decimals)


@part
def _stamp(buf: int, i: int, stop: int, row: int, stamp: np.ndarray) -> None:
    """Note the indexes of the good tokens in ``[i, stop)``, once it shows that they are in no order."""
    while i < stop:
        index = 0
        while 48 <= byte_at(buf + i) <= 57:
            index = index * 10 + (byte_at(buf + i) - 48)
            i += 1
        stamp[index] = row + 1
        while not _is_space(byte_at(buf + i)):
            i += 1
        while _is_space(byte_at(buf + i)):
            i += 1


@part
def _features(
    buf: int, i: int, end: int, row: int, values: np.ndarray, stamp: np.ndarray, odd: np.ndarray, odds: int,
    sentinel: float, key: tuple[int, int],
) -> tuple[int, int, int, int]:  # fmt: skip
    """Read ``index:value`` up to a comment or the line end: (status, position, largest index, odds).

    The inner loop of the whole reader. As long as a line names one feature after the other, an index is compared
    with the text of the one after the last instead of being read, and a run of digits is taken as one word. Byte
    by byte, sparse sets took 1.3 to 1.7 times as long, and a dense one 1.0 to 1.5 times.
    """
    largest, last, ordered, dense, line = 0, 0, True, True, i
    known_indexes, safe = min(_KNOWN, values.shape[0]), end - _AHEAD
    while True:
        c = byte_at(buf + i)
        if c == 32:
            i += 1
            continue
        while dense and last < known_indexes and i <= safe:
            length = NEXT_LENGTH[_U(last)]
            dense = word_at(buf + i) << (_U(64) - length) == NEXT[_U(last)]
            if not dense:
                break
            value, stop = _short_number(buf, i + _I(length >> _U(3)))
            if stop == 0 or byte_at(buf + stop) != 32:
                break
            values[_U(last), _U(row)] = np.float32(np.nan if value == sentinel else value)
            last, i = last + 1, stop + 1
        largest = max(largest, last)
        c = byte_at(buf + i)
        token, index = i, 0
        while 48 <= c <= 57:
            index = min(index * 10 + (c - 48), MAX_INDEX + 1)
            i += 1
            c = byte_at(buf + i)
        if c != 58 or i == token:
            if i > token or not (_is_space(c) or c == 10 or c == 35):
                return INDEX_NOT_INTEGER, token, largest, odds
            if not _is_space(c):
                return OK, i, largest, odds
            i += 1
            continue
        if index == 0:
            return INDEX_ZERO, token, largest, odds
        if index > MAX_INDEX:
            return INDEX_TOO_LARGE, token, largest, odds
        if ordered and index <= last:
            _stamp(buf, line, token, row, stamp)
            ordered = False
        if not ordered:
            if stamp[index] == row + 1:
                return INDEX_REPEATED, token, largest, odds
            stamp[index] = row + 1
        last, largest = index, max(largest, index)

        token = i + 1
        value, stop = _short_number(buf, token) if token <= safe else (0.0, 0)
        c = byte_at(buf + stop)
        if stop and (c == 32 or c == 10 or c == 13):
            known, i = True, stop
            if value == sentinel:
                value = np.nan
        else:
            known, value, i = _number(buf, token, sentinel, key)
        if not known:
            if odds < odd.shape[0]:
                odd[odds, 0], odd[odds, 1], odd[odds, 2], odd[odds, 3] = token, i, row, index
            odds += 1
        elif index <= values.shape[0]:
            values[np.uint64(index) - _U(1), np.uint64(row)] = np.float32(value)


@part
def parse(
    text: np.ndarray, pos: int, end: int, values: np.ndarray, labels: np.ndarray, qids: np.ndarray,
    qid_span: np.ndarray, doc_span: np.ndarray, odd: np.ndarray, stamp: np.ndarray, sentinel: float,
    key: tuple[int, int],
) -> tuple[int, int, int, int, int, bool, bool]:  # fmt: skip
    """See :func:`pipeline.dataset.letor_code.parse`."""
    buf = text.ctypes.data
    rows: Any = np.int64(0)  # typed: with a plain 0 the callee is compiled twice
    width, odds, all_int, any_doc = 0, 0, True, False
    while pos < end and rows < labels.shape[0]:
        i = _skip_space(buf, pos)
        if byte_at(buf + i) == 10 or byte_at(buf + i) == 35:
            pos = _line_end(buf, i) + 1
            continue
        stop = _token_end(buf, i)
        label = _label(buf, i, stop)
        labels[rows] = label & 255
        if label < 0:
            if odds < odd.shape[0]:
                odd[odds, 0], odd[odds, 1], odd[odds, 2], odd[odds, 3] = i, stop, rows, 0
            odds += 1
        i = _skip_space(buf, stop)
        if not _is_qid(buf, i):
            return NO_QID, i, rows, width, odds, all_int, any_doc
        stop = _token_end(buf, i + 4)
        if stop == i + 4:
            return EMPTY_QID, i, rows, width, odds, all_int, any_doc
        qid_span[rows, 0], qid_span[rows, 1] = i + 4, stop
        is_int, qids[rows] = _canonical_int(buf, i + 4, stop)
        status, i, largest, odds = _features(buf, stop, end, rows, values, stamp, odd, odds, sentinel, key)
        if status != OK:
            return status, i, rows, width, odds, all_int, any_doc
        doc_span[rows, 0], doc_span[rows, 1], line_end = _document(buf, i)
        all_int, any_doc = all_int and is_int, any_doc or doc_span[rows, 0] < doc_span[rows, 1]
        width = max(width, largest)
        rows, pos = rows + 1, line_end + 1
    return OK, pos, rows, width, odds, all_int, any_doc


@part
def survey(text: np.ndarray) -> tuple[int, bool]:
    """See :func:`pipeline.dataset.letor_code.survey`."""
    lines, least = 0, np.uint8(255)
    for start in range(0, text.shape[0], _COUNTED):
        few: Any = np.uint8(0)  # counted in bytes, as many at once as there are
        for c in text[start : start + _COUNTED]:
            few = np.uint8(few + np.uint8(c == 10))
        lines += int(few)
    for c in text:
        least = min(least, c)
    return lines, least == 0


# ---- As C functions: the types are in pipeline.dataset.letor_code ---------------------------------------------------


def parse_block(
    text: Any, pos: int, end: int, values: Any, width: int, stride: int, labels: Any, rows: int, qids: Any,
    qid_span: Any, doc_span: Any, odd: Any, odds: int, stamp: Any, sentinel: float, mantissa: int, power: int,
    found: Any,
) -> None:  # fmt: skip
    """:func:`parse` with the address of each array and what is not known of its shape; int64 [7] of what it returns."""
    result = parse(
        carray(text, (end,)), pos, end, carray(values, (width, stride)), carray(labels, (rows,)),
        carray(qids, (rows,)), carray(qid_span, (rows, 2)), carray(doc_span, (rows, 2)),
        carray(odd, (odds, 4)), carray(stamp, (MAX_INDEX + 1,)), sentinel, (mantissa, power),
    )  # fmt: skip
    into = carray(found, (7,))
    into[0], into[1], into[2], into[3], into[4], into[5], into[6] = result


def survey_block(text: Any, size: int, found: Any) -> None:
    """:func:`survey` of ``size`` bytes; int64 [2] of what it returns."""
    into = carray(found, (2,))
    into[0], into[1] = survey(carray(text, (size,)))


def gather_pieces(text: Any, size: int, span: Any, rows: int, offsets: Any, pieces: Any) -> None:
    """Copy the pieces of ``text`` that ``span``, int32 [rows, 2], names to where their offsets say."""
    source, bounds = carray(text, (size,)), carray(span, (rows, 2))
    starts = carray(offsets, (rows + 1,))
    target = carray(pieces, (starts[rows],))
    for row in range(rows):
        for k in range(bounds[row, 1] - bounds[row, 0]):
            target[starts[row] + k] = source[bounds[row, 0] + k]
