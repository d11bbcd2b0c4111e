"""One input of the fuzzer: the reader, however it is run, has to give what the plain reference gives."""

import gzip
import random
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.core.errors import SourceError
from pipeline.dataset.letor import read_letor
from pipeline.dataset.letor_blocks import Limits, read_blocks
from tests.fuzz import interpreted, reference
from tests.fuzz.reference import Bad, Row

WHOLE = 4 << 20  # no input is as long: one block
PACK = {"": bytes, ".gz": gzip.compress, ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}
SENTINELS = (None, 0.0, -999.0, 0.1, 1.79769313486e308, 1e-300, float("inf"))


class MismatchError(Exception):
    """The reader and the reference differ."""


class Options(NamedTuple):
    """How an input is read; none of it but ``missing`` and ``sentinel`` may change what is read.

    Attributes:
        missing: ``zero`` or ``nan``.
        sentinel: The value that stands for missing, or None.
        head: Bytes by which text is told from binary.
        block_bytes: Size of the blocks.
        chunk: Most bytes the file gives at once.
        cells: Most values in one batch.
        room: Features, and tokens left to Python, that there is room for at first.
        suffix: Packing of the file.
    """

    missing: str = "zero"
    sentinel: float | None = None
    head: int = 4096
    block_bytes: int = 1
    chunk: int = 1 << 20
    cells: int = 8 << 20
    room: int = 256
    suffix: str = ""

    @property
    def limits(self) -> Limits:
        """The same for the reader."""
        return Limits(
            block_bytes=self.block_bytes,
            head_bytes=self.head,
            chunk_bytes=self.chunk,
            batch_cells=self.cells,
            first_width=self.room,
            first_unsettled=self.room,
        )


def options_of(data: bytes) -> Options:
    """Draw the options from the bytes themselves, so that an input says all there is to a failure."""
    draw = random.Random(zlib.crc32(data))
    values = data.split(b":")[2:]
    sentinel = draw.choice((None, *SENTINELS))
    if values and draw.random() < 0.4:
        sentinel = _near(draw.choice(values).split(b" ")[0], draw)
    return Options(
        missing=draw.choice(("zero", "nan")),
        sentinel=sentinel,
        head=draw.choice((4096, 3, 16)),
        block_bytes=draw.randint(1, max(1, len(data))),
        chunk=draw.choice((1, 7, 64, 1 << 20)),
        cells=draw.choice((8 << 20, 8 << 20, 100, 1)),
        room=draw.choice((256, 1, 3)),
        suffix=draw.choice(("", "", *PACK)),
    )


def _near(token: bytes, draw: random.Random) -> float | None:
    """Return the double of a token of the input, or one beside it."""
    try:
        value = float(token)
    except ValueError:
        return None
    return float(draw.choice((value, value, np.nextafter(value, 0.0), -value)))


@contextmanager
def _stored(data: bytes, suffix: str = "") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"fuzz.txt{suffix}"
        path.write_bytes(PACK[suffix](data))
        yield path


def _read(data: bytes, options: Options, *, threads: int) -> list[pa.RecordBatch] | Bad:
    """Return the batches, or the error; any other exception than a SourceError is a finding by itself."""
    how = {"missing": options.missing, "sentinel": options.sentinel, "limits": options.limits}
    with _stored(data, options.suffix) as path:
        try:
            return list(read_letor(path, threads=threads, **how))
        except SourceError as error:
            return Bad(error.what, error.line, error.column)


def check(data: bytes, *, quick: bool = False, kernel: ModuleType | None = None) -> None:
    """Read ``data`` in several ways and compare each with the reference.

    Args:
        data: The file.
        kernel: The kernel that is not compiled; None for the source as it is.
        quick: Read it twice, compiled and interpreted, in one of the ways, drawn from the bytes.

    Raises:
        MismatchError: They differ.
    """
    how = options_of(data)
    expected = reference.read(data, sentinel=how.sentinel, head=how.head)
    if quick and zlib.crc32(data) % 64 >= max(1, 5000 // (_width(expected) + 1)):
        return  # hundreds of columns take as long as hundreds of inputs
    ways = [(WHOLE, 1), (how.block_bytes, 1), (how.block_bytes, 2)]
    for block_bytes, threads in [ways[zlib.crc32(data) % 3]] if quick else ways:
        _check(data, expected, how, block_bytes=block_bytes, threads=threads)
        _check(data, expected, how, block_bytes=block_bytes, threads=1, kernel=kernel or interpreted.module())


def check_every_cut(data: bytes) -> None:
    """Read compiled, in all ways that blocks cut the lines, by one thread and by two.

    A cut is at the end of a line, so no more sizes of blocks are tried than could move one.
    """
    how = options_of(data)
    expected = reference.read(data, sentinel=how.sentinel, head=how.head)
    ends = [0, *(i + 1 for i, byte in enumerate(data) if byte == 10), len(data)]
    spans = {stop - start for start, stop in combinations(ends, 2)} | {1}
    sizes = {size for span in spans for size in (span, span + 1, span // 2, span // 2 + 1)} - {0}
    for block_bytes in {_cuts(data, how, size): size for size in sizes}.values():
        for threads in (1, 2):
            _check(data, expected, how, block_bytes=block_bytes, threads=threads)


def _cuts(data: bytes, options: Options, block_bytes: int) -> tuple[int, ...]:
    """Return the sizes of the blocks."""
    sizes: list[int] = []
    with _stored(data) as path, suppress(SourceError):
        blocks = read_blocks(path, limits=options._replace(block_bytes=block_bytes).limits)
        sizes.extend(len(block.data) for block in blocks)
    return tuple(sizes)


def _check(
    data: bytes,
    expected: list[Row] | Bad,
    how: Options,
    *,
    block_bytes: int,
    threads: int,
    kernel: ModuleType | None = None,
) -> None:
    whole = block_bytes == WHOLE
    if whole:  # as a user's file is read
        how = how._replace(chunk=1 << 20, cells=8 << 20, room=256, suffix="")
    how = how._replace(block_bytes=block_bytes)
    with nullcontext() if kernel is None else interpreted.kernel(kernel):
        found = _read(data, how, threads=threads)
    if wrong := _difference(found, expected, missing=how.missing, whole=whole):
        name = "compiled" if kernel is None else "interpreted"
        raise MismatchError(f"{wrong}\n{name}, {threads} threads, {how}\n{data!r}")


def _width(expected: list[Row] | Bad) -> int:
    return 0 if isinstance(expected, Bad) else max((max(row.bits, default=0) for row in expected), default=0)


def _difference(
    found: list[pa.RecordBatch] | Bad, expected: list[Row] | Bad, *, missing: str, whole: bool
) -> str | None:
    """Return what differs, None when nothing does; ``whole`` when all was one block."""
    if isinstance(expected, Bad) or isinstance(found, Bad):
        same = (
            isinstance(expected, Bad)
            and isinstance(found, Bad)
            and (expected.what in found.what and "\n" not in found.what and expected[1:] == found[1:])
        )
        return None if same else f"expected {expected}, found {found}"
    widest, start = _width(expected), 0
    fill = np.float32("nan" if missing == "nan" else 0).view(np.uint32)
    for batch in found:
        batch.validate(full=True)
        rows = expected[start : start + batch.num_rows]
        start += len(rows)
        if len(rows) < batch.num_rows:
            return "more rows than expected"
        features = [name for name in batch.schema.names if name not in ("qid", "label", "doc_id")]
        if wrong := _batch_difference(batch, rows, len(features), fill):
            return wrong
        if whole and len(features) != widest:
            return f"{len(features)} features where there are {widest}"
    return None if start == len(expected) else f"{start} rows where there are {len(expected)}"


def _batch_difference(batch: pa.RecordBatch, rows: list[Row], width: int, fill: int) -> str | None:
    integer = all(row.integer for row in rows)
    documents = [row.doc_id for row in rows]
    wanted: tuple[tuple[str, list], ...] = (
        ("qid", [int(row.qid) if integer else row.qid for row in rows]),
        ("label", [row.label for row in rows]),
        *((("doc_id", documents),) if any(documents) else ()),
    )
    names = [name for name, _ in wanted] + [f"f{index}" for index in range(1, width + 1)]
    if batch.schema.names != names:
        return f"columns {batch.schema.names[:4]}... where there should be {names[:4]}..."
    for name, values in wanted:
        if batch[name].to_pylist() != values:
            return f"{name} {batch[name].to_pylist()} where it is {values}"
    if _width(rows) > width:
        return f"{width} features where a row has more"
    bits = np.full((width, len(rows)), fill, np.uint32)
    for column, row in enumerate(rows):
        bits[[index - 1 for index in row.bits], column] = list(row.bits.values())
    if width:
        ours = np.stack([column.to_numpy() for column in batch.columns[-width:]]).view(np.uint32)
        for index, row in np.argwhere(ours != bits).tolist():
            return (
                f"f{index + 1} of row {row} is {ours[index, row]:#x} where it should be {bits[index, row]:#x}"
            )
    return None
