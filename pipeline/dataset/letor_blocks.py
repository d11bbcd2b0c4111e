"""A LETOR file as blocks of whole lines: opening, decompressing, and telling text from anything else."""

import bz2
import codecs
import gzip
import lzma
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa

from pipeline.core.errors import SourceError, did_you_mean
from pipeline.dataset import letor_code

MAX_LINE_BYTES: Final = 64 << 20
"""Longest line: some 25 times a full row of 65,536 features, so only a file without line ends is longer."""

_HEAD_BYTES = 4096
_CHUNK_BYTES = 512 << 10
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
class Block:
    """Whole lines of a source.

    Attributes:
        data: The lines, each with its line feed; empty at the end of the source.
        line: 1-based number of the first line.
        lines: How many lines there are.
        has_nul: Whether there is a NUL byte among them.
        consumed: Bytes of the file, as stored, read so far.
    """

    data: memoryview
    line: int
    lines: int
    has_nul: bool
    consumed: int


class DamagedArchiveError(OSError):
    """A packed file cannot be read on; the message says why and what to do."""


class _BrokenError(Exception):
    """The source cannot be read beyond some line."""


def read_blocks(
    path: Path, *, block_bytes: int, alive: int = 1, opener: Callable[[Path], IO[bytes]] | None = None
) -> Generator[Block, None, None]:
    """Yield the lines of ``path`` in blocks of about ``block_bytes`` bytes, the last one empty.

    A block has one to two times ``block_bytes``, or is one longer line, or is what is left at the end. Its bytes
    are good until ``alive`` more blocks have been asked for.
    A UTF-8 byte order mark is dropped and a missing last line feed is added.

    Args:
        path: The file.
        block_bytes: Size of a block.
        alive: Blocks in use at a time.
        opener: Opens ``path`` where it is no file of its own; its ``tell`` counts the bytes as stored.

    Raises:
        SourceError: The file is missing, a directory, unreadable, binary, damaged in its compression, or
            has a line longer than 64 MiB. Whole lines before the damage are yielded first.
    """
    line, suffix = 1, path.suffix.lower()
    with _open(path, opener) as raw:
        # Named here, since a stream that is collected closes `raw`, which is asked for its position below.
        stream: Any = OPENERS[suffix](raw) if suffix in OPENERS else raw

        try:
            # One more than are in use: what is left of the last one goes to the next.
            for data in _whole_lines(_text(_chunks(stream, suffix), path), block_bytes, alive + 1):
                lines, has_nul = letor_code.survey(np.frombuffer(data, np.uint8))
                yield Block(data, line, lines, has_nul, raw.tell())
                line += lines
        except _BrokenError as broken:
            raise SourceError(str(broken), file=path, line=line) from broken
        yield Block(memoryview(b""), line, 0, False, raw.tell())


def _open(path: Path, opener: Callable[[Path], IO[bytes]] | None) -> IO[bytes]:
    try:
        return path.open("rb") if opener is None else opener(path)
    except FileNotFoundError:
        names = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        near = did_you_mean(path.name, names) if 0 < len(names) <= 20 else ""
        raise SourceError(f"no such file.{near}", file=path) from None
    except IsADirectoryError:
        raise SourceError("is a directory; name a LETOR text file", file=path) from None
    except OSError as error:
        raise SourceError(
            f"cannot be read ({error.strerror}); check the file's permissions", file=path
        ) from error


def _chunks(stream: Any, suffix: str) -> Iterator[bytes | memoryview]:
    """Yield decompressed bytes, each time good until the next; what comes out before a damage precedes the error."""
    try:
        if suffix in OPENERS or not hasattr(stream, "readinto1"):
            while chunk := stream.read1(_CHUNK_BYTES):
                yield chunk
        else:  # into memory that is at hand
            held = memoryview(bytearray(_CHUNK_BYTES))
            while size := stream.readinto1(held):
                yield held[:size]
    except DAMAGED as error:
        if isinstance(error, DamagedArchiveError):
            what = str(error)
        elif suffix in OPENERS and getattr(error, "errno", None) is None:
            what = f"truncated or corrupt {suffix} data ({error}); fetch or compress the file again"
        else:
            what = f"cannot be read ({error}); check the disk and the file"
        raise _BrokenError(what) from error


def _text(chunks: Iterator[bytes | memoryview], path: Path) -> Iterator[bytes | memoryview]:
    """Pass ``chunks`` on once their start looks like text, without a byte order mark."""
    head, broken = b"", None
    try:
        for chunk in chunks:
            head += chunk
            if len(head) >= _HEAD_BYTES:
                break
    except _BrokenError as error:
        broken = error
    _check_text(head[:_HEAD_BYTES], path)
    yield head.removeprefix(codecs.BOM_UTF8)
    if broken:
        raise broken
    yield from chunks


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
        raise SourceError(
            f"looks like a binary file (byte 0x{head[odd]:02x} at offset {odd}); "
            f"a LETOR file is UTF-8 text, {_MISNAMED}",
            file=path,
        )


def _whole_lines(chunks: Iterator[bytes | memoryview], block_bytes: int, alive: int) -> Iterator[memoryview]:
    """Regroup ``chunks`` into pieces that end with a line feed, in ``alive`` buffers that are used in turn.

    A new buffer for each would cost as much as reading: the system clears what it gives.
    """
    buffers = deque(bytearray(block_bytes + _CHUNK_BYTES) for _ in range(alive))
    broken: _BrokenError | None = None
    size = whole = 0  # bytes held in the first buffer, and those of them in whole lines
    try:
        for chunk in chunks:
            _append(buffers, size, chunk)
            end = buffers[0].rfind(b"\n", size, size + len(chunk)) + 1
            whole, size = end or whole, size + len(chunk)
            if size - whole > MAX_LINE_BYTES:
                broken = _BrokenError(
                    f"the line is longer than {MAX_LINE_BYTES >> 20} MiB; "
                    "a LETOR file has one judged document per line"
                )
                break
            if whole and size >= block_bytes:
                yield from _cut(buffers[0], whole, block_bytes)
                rest = buffers[0][whole:size]
                buffers.rotate()
                _append(buffers, 0, rest)
                size, whole = len(rest), 0
    except _BrokenError as error:
        broken = error
    if size > whole and not broken:
        _append(buffers, size, b"\n")
        whole = size + 1
    yield from _cut(buffers[0], whole, block_bytes)
    if broken:
        raise broken


def _append(buffers: deque[bytearray], size: int, data: bytes | bytearray | memoryview) -> None:
    """Put ``data`` behind the ``size`` bytes in the first buffer, or in a larger one in its place."""
    if size + len(data) > len(buffers[0]):
        buffers[0] = buffers[0] + bytes(size + len(data))
    memoryview(buffers[0])[size : size + len(data)] = data


def _cut(buffer: bytearray, size: int, block_bytes: int) -> Iterator[memoryview]:
    """Cut whole lines into pieces of one to two times ``block_bytes``, or of one longer line."""
    start, data = 0, memoryview(buffer)
    while size - start >= 2 * block_bytes:
        limit = start + block_bytes
        stop = buffer.rfind(b"\n", start, limit) + 1 or buffer.find(b"\n", limit) + 1
        yield data[start:stop]
        start = stop
    if start < size:
        yield data[start:size]
