"""A LETOR file as blocks of whole lines: opening, decompressing, and telling text from anything else."""

import bz2
import codecs
import gzip
import lzma
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa

from pipeline.core.errors import SourceError, did_you_mean

_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_MISNAMED = "if it is compressed, its name has to end in .gz, .bz2, .xz or .zst"
DAMAGED: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
OPENERS: Final[dict[str, Callable[[IO[bytes]], Any]]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw, mode="rb"),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda raw: pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is read and held at once; none of it changes what is read."""

    block_bytes: int = 4 << 20  # about how many bytes of text become one batch
    head_bytes: int = 4096  # bytes by which text is told from a binary file
    chunk_bytes: int = 512 << 10  # most bytes read from the file at once
    line_bytes: int = 64 << 20  # longest line: 25 times a full row of 65,536 features
    batch_cells: int = 8 << 20  # most feature values in one batch: a wide and sparse block becomes several
    first_width: int = 256  # features to make room for at first; a wider block is parsed twice
    first_unsettled: int = 1024  # the same of tokens that Python has to read


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a source."""

    data: memoryview  # the lines, each with its line feed
    line: int  # 1-based number of the first line
    lines: int  # how many lines there are
    consumed: int  # bytes of the file, as stored, read so far


class _BrokenError(Exception):
    """The source cannot be read beyond some line."""


def read_blocks(
    path: Path, *, limits: Limits, alive: int = 1, at: Path | None = None
) -> Generator[Block, None, None]:
    """Yield the lines of ``path`` in blocks of ``limits.block_bytes`` bytes or a little more, the last one shorter.

    The bytes of a block are good until ``alive`` more blocks have been asked for.
    A UTF-8 byte order mark is dropped and a missing last line feed is added.
    The bytes are read from ``at``, where ``path`` is only what the file is called in messages.

    Raises:
        SourceError: The file is missing, a directory, unreadable, binary, damaged in its compression, or
            has a line longer than 64 MiB. Whole lines before the damage are yielded first.
    """
    suffix, at = path.suffix.lower(), at or path
    with _open(path, at) as raw:
        _check_text(_head(raw, suffix, limits.head_bytes), path)
    line = 1
    with _open(path, at) as raw:
        # Named here, since a stream that is collected closes `raw`, which is asked for its position below.
        stream: Any = OPENERS[suffix](raw) if suffix in OPENERS else raw
        try:
            # One buffer more than are in use: what is left of the last one goes to the next.
            for data, lines in _whole_lines(stream, suffix, limits, alive + 1):
                skip = len(codecs.BOM_UTF8) if line == 1 and bytes(data[:3]) == codecs.BOM_UTF8 else 0
                yield Block(data[skip:], line, lines, raw.tell())
                line += lines
        except _BrokenError as broken:
            raise SourceError(str(broken), file=path, line=line) from broken


def _open(path: Path, at: Path) -> IO[bytes]:
    try:
        return at.open("rb")
    except FileNotFoundError:
        names = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        near = did_you_mean(path.name, names) if 0 < len(names) <= 20 else ""
        raise SourceError(f"no such file.{near}", file=path) from None
    except IsADirectoryError:
        raise SourceError("is a directory; name a LETOR text file", file=path) from None
    except OSError as error:
        what = f"cannot be read ({error.strerror}); check the file's permissions"
        raise SourceError(what, file=path) from error


def _fill(stream: Any, suffix: str, room: memoryview) -> int:
    """Read decompressed bytes into ``room``; return how many, 0 at the end."""
    try:
        if suffix not in OPENERS:
            return int(stream.readinto1(room))
        chunk = stream.read1(len(room))
    except DAMAGED as error:
        if suffix in OPENERS and getattr(error, "errno", None) is None:
            what = f"truncated or corrupt {suffix} data ({error}); fetch or compress the file again"
        else:
            what = f"cannot be read ({error}); check the disk and the file"
        raise _BrokenError(what) from error
    room[: len(chunk)] = chunk
    return len(chunk)


def _head(raw: IO[bytes], suffix: str, size: int) -> bytes:
    """Return the first decompressed bytes, those before a damage if there is one."""
    stream, head, read = OPENERS[suffix](raw) if suffix in OPENERS else raw, bytearray(size), 0
    with suppress(_BrokenError):
        while part := _fill(stream, suffix, memoryview(head)[read:]):
            read += part
    return bytes(head[:read])


def _check_text(head: bytes, path: Path) -> None:
    """Raise when the start of a file cannot be LETOR text; comments in another encoding may pass."""
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            raise SourceError(f"looks like a binary file: it holds {suffix} data; {_MISNAMED}", file=path)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        odd = head.find(b"\0")
    except UnicodeDecodeError as error:
        odd = error.start if b"\0" not in head else head.index(b"\0")
        if head[odd] and b"#" in head[head.rfind(b"\n", 0, odd) + 1 : odd]:
            return
    if odd >= 0:
        what = (
            f"looks like a binary file (byte 0x{head[odd]:02x} at offset {odd}); a LETOR file is UTF-8 text"
        )
        raise SourceError(f"{what}, {_MISNAMED}", file=path)


def _whole_lines(stream: Any, suffix: str, limits: Limits, in_use: int) -> Iterator[tuple[memoryview, int]]:
    """Yield pieces that end with a line feed and have ``block_bytes`` or more, but for the last, and their lines.

    They lie in ``in_use`` buffers that take turns: the system clears the memory of a new one, which would cost
    as much as reading.
    """
    chunk = min(limits.chunk_bytes, limits.block_bytes)
    buffers = deque(bytearray(limits.block_bytes + chunk) for _ in range(in_use))
    size = whole = lines = 0  # bytes in the first buffer, those of them in whole lines, and how many lines
    broken: _BrokenError | None = None
    try:
        while read := _fill(stream, suffix, memoryview(buffers[0])[size : size + chunk]):
            if found := np.count_nonzero(np.frombuffer(buffers[0], np.uint8, read, size) == ord("\n")):
                whole, lines = buffers[0].rfind(b"\n", size, size + read) + 1, lines + int(found)
            size += read
            _check_length(size - whole, limits.line_bytes)
            if whole >= limits.block_bytes:
                yield memoryview(buffers[0])[:whole], lines
                rest = buffers[0][whole:size]
                buffers.rotate()
                buffers[0][: len(rest)] = rest
                size, whole, lines = len(rest), 0, 0
            elif size + chunk > len(buffers[0]):  # a line that is longer than a block
                buffers[0] = buffers[0] + bytes(len(buffers[0]))
    except _BrokenError as error:
        broken = error
    if size > whole and not broken:
        buffers[0][size : size + 1] = b"\n"
        whole, lines = size + 1, lines + 1
    if whole:
        yield memoryview(buffers[0])[:whole], lines
    if broken:
        raise broken


def _check_length(line: int, most: int) -> None:
    if line > most:
        what = f"the line is longer than {most >> 20} MiB; a LETOR file has one judged document per line"
        raise _BrokenError(what)
