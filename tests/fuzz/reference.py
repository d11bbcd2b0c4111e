"""What a LETOR file says, by the documented rules: line by line, in plain Python, slowly.

Nothing of the reader under test is used here but the two limits it documents.
"""

import codecs
import re
from typing import NamedTuple

import numpy as np

MAX_INDEX = 65_536
MAX_LABEL = 30
MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
BOM = b"\xef\xbb\xbf"
NAN_BITS = 0x7FC00000

_TOKEN = re.compile(rb"[^\s#]+")
_NUMBER = re.compile(rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf|infinity)", re.IGNORECASE)
_INTEGER = re.compile(rb"0|-?[1-9]\d*")
_DOCID = re.compile(rb"(?<![0-9a-z_\x80-\xff])docid\s*=\s*(\S*)", re.IGNORECASE)


class Row(NamedTuple):
    label: int
    qid: str
    integer: bool  # the query id is an int64 as str(int) writes it
    doc_id: str | None
    bits: dict[int, int]  # feature index -> the 32 bits of its value


class Bad(NamedTuple):
    """An error: words of its message, and its 1-based place, None where it concerns the whole file."""

    what: str
    line: int | None = None
    column: int | None = None


class _BadTokenError(Exception):
    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.what, self.at = what, at


def read(data: bytes, *, sentinel: float | None, head: int) -> list[Row] | Bad:
    """Return the rows of a file of these bytes, or its first mistake; ``head`` bytes tell text from binary."""
    if _is_binary(data[:head]):
        return Bad("looks like a binary file")
    rows = []
    for number, line in enumerate(data.removeprefix(BOM).split(b"\n"), start=1):
        try:
            row = _row(line, sentinel)
        except _BadTokenError as bad:
            return Bad(bad.what, number, bad.at + 1)
        if row is not None:
            rows.append(row)
    return rows or Bad("holds no rows")


def _is_binary(head: bytes) -> bool:
    """Packed data, a NUL, or a first non-UTF-8 byte outside a comment; a character may be cut at the end."""
    if head.startswith(MAGIC) or b"\0" in head:
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        return b"#" not in head[: error.start].split(b"\n")[-1]
    return False


def _row(line: bytes, sentinel: float | None) -> Row | None:
    if b"\0" in line:
        raise _BadTokenError("a NUL byte", line.index(b"\0"))
    text, _, comment = line.partition(b"#")
    tokens = [(match.start(), match.group()) for match in _TOKEN.finditer(text)]
    if not tokens:
        return None
    (at, token), *rest = tokens
    label = _label(token, at)
    at, token = rest[0] if rest else (len(text), b"")
    if not token.startswith(b"qid:"):
        raise _BadTokenError("expected qid:ID after the label", at)
    if token == b"qid:":
        raise _BadTokenError("has no query id", at)
    qid = token[4:]
    name = _utf8(qid, at + 4, "query id")
    bits: dict[int, int] = {}
    for at, token in rest[1:]:
        index = _index(token, at, bits)
        bits[index] = _bits(token.partition(b":")[2], at + token.index(b":") + 1, sentinel)
    integer = bool(_INTEGER.fullmatch(qid)) and -(2**63) <= int(qid) < 2**63
    return Row(label, name, integer, _document(comment, len(text) + 1), bits)


def _number(token: bytes) -> float | None:
    return float(token.decode("ascii")) if _NUMBER.fullmatch(token) else None


def _label(token: bytes, at: int) -> int:
    value = _number(token)
    if value is None or value != value or abs(value) == float("inf"):
        raise _BadTokenError("is not a number; labels", at)
    if value < 0:
        raise _BadTokenError("is negative", at)
    if not value.is_integer():
        raise _BadTokenError("is a fraction", at)
    if value > MAX_LABEL:
        raise _BadTokenError("is above 30", at)
    return int(value)


def _index(token: bytes, at: int, known: dict[int, int]) -> int:
    digits, colon, _ = token.partition(b":")
    if not colon or not re.fullmatch(rb"[0-9]+", digits):
        raise _BadTokenError("is not a whole number; write index:value", at)
    significant = digits.lstrip(b"0")  # int() refuses thousands of digits
    index = int(significant[:20] or b"0")
    if index == 0:
        raise _BadTokenError("indexes count from 1", at)
    if index > MAX_INDEX:
        raise _BadTokenError("is above 65536", at)
    if index in known:
        raise _BadTokenError("is repeated as", at)
    return index


def _bits(token: bytes, at: int, sentinel: float | None) -> int:
    value = _number(token)
    if value is None:
        raise _BadTokenError("NULL files" if token.upper() == b"NULL" else "is not a number; write", at)
    if value == sentinel:
        return NAN_BITS
    with np.errstate(over="ignore"):
        return int(np.float32(value).view(np.uint32))


def _document(comment: bytes, at: int) -> str | None:
    text = comment.strip()
    found = _DOCID.search(text)
    start, name = (found.start(1), found.group(1)) if found else (0, text)
    at += len(comment) - len(comment.lstrip()) + start
    return _utf8(name, at, "document id") or None


def _utf8(text: bytes, at: int, name: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise _BadTokenError(f"{name} ", at) from None
