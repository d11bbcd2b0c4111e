"""Made-up ranking data of any size, as LETOR text or Parquet: for benchmarks, tests and first tries.

What a query's rows are is in :mod:`pipeline.synthetic.world`; here queries are made block by block and written,
in memory that does not depend on how many there are. Of every five queries in a row three go to train, one to
vali and one to test, so a larger set with the same seed begins with the rows of a smaller one. One thread makes
57 to 131 MB of text per CPU second, by preset.
"""

import gzip
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self, get_args

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError, did_you_mean
from pipeline.core.files import atomic_write, require_replaceable
from pipeline.core.tables import QID_INT, feature_names, judgments
from pipeline.dataset import parts
from pipeline.synthetic.world import ABSENT, SENTINEL, Ints, Preset, Rows, find, lengths, make

Format = Literal["letor", "parquet"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
CARD: Final = "generate.json"
SPLITS: Final = ("train", "vali", "test")

_OF_FIVE: Final = np.array([0, 0, 0, 1, 2])
_LEAST_QUERIES: Final = 5  # fewer would leave a split empty
_ROWS: Final = 8192  # of a block, when a query has no more: enough to make up for the calls per column
_UNITS: Final = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


@dataclass(frozen=True)
class _Made:
    """A block of whole queries, ready to be written."""

    queries: Ints
    rows: Ints
    size: Ints
    labels: Ints
    splits: dict[str, Any]


def size(text: str) -> int:
    """Return the bytes that ``1GB``, ``500 MiB`` or ``2000`` mean.

    Raises:
        ConfigError: It is no such size.
    """
    number = text.strip().rstrip("BbIiKkMmGgTt ")
    unit = text.strip()[len(number) :].strip().upper()
    try:
        found = int(float(number) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        found = 0
    if found < 1:
        raise ConfigError(f"--bytes {text}: not a size; write one such as 500MB or 1GiB")
    return found


def run(
    preset: str,
    out: Path,
    *,
    rows: int | None = None,
    text_bytes: int | None = None,
    seed: int = 1,
    documents: int | None = None,
    kind: Format = "letor",
    compress: bool = False,
    threads: int = 1,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write train, vali and test below ``out``; all of them or none.

    Queries are whole and at least five, so there may be somewhat more than was asked for.

    Args:
        preset: One of :data:`pipeline.synthetic.world.PRESETS`.
        out: Directory to make. One that is there is replaced if it is empty or was made by this function.
        rows: Stop at the first query that makes so many rows, over all splits; or:
        text_bytes: ... so many bytes of text, before compression.
        seed: Of every draw.
        documents: Per query, on average; the preset's when None.
        kind: ``letor`` or ``parquet`` (the JUDGMENTS columns).
        compress: Write text as ``.gz``.
        threads: Threads that make blocks; the bytes written do not depend on it.
        advance: Told the rows (or bytes of text) made since the last call.

    Returns:
        What ``generate.json`` says: the arguments, and rows and queries of each split, rows of each label.

    Raises:
        ConfigError: An argument is wrong, or ``out`` holds something else.
        StorageError: ``out`` cannot be written.
    """
    shape = find(preset, documents=documents)
    _check(rows, text_bytes, seed, kind, compress)
    require_replaceable(out, card=CARD)
    target = rows if text_bytes is None else text_bytes
    facts: dict[str, Any] = {
        "preset": preset, "seed": seed, "documents": shape.documents, "features": shape.features,
        "format": kind, "rows": dict.fromkeys(SPLITS, 0), "queries": dict.fromkeys(SPLITS, 0),
        "labels": [0] * len(shape.shares), "text_bytes": 0,
    }  # fmt: skip
    suffix = ".parquet" if kind == "parquet" else ".txt.gz" if compress else ".txt"

    def work(queries: Ints) -> _Made:
        return _block(shape, queries, seed=seed, kind=kind, compress=compress)

    with atomic_write(out.resolve()) as [made]:
        made.mkdir()
        with ExitStack() as stack:
            open_one: type[_File] = _ParquetFile if kind == "parquet" else _TextFile
            files = {name: stack.enter_context(open_one(made / f"{name}{suffix}", shape)) for name in SPLITS}
            for block in _blocks(shape, work, target or 0, rows is None, seed=seed, threads=threads):
                for name, piece in block.splits.items():
                    files[name].write(piece)
                _count(facts, block)
                if advance is not None:
                    advance(int((block.rows if text_bytes is None else block.size).sum()))
        facts["files"] = sorted([*(file.name for file in made.iterdir()), CARD])
        (made / CARD).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _check(rows: int | None, text_bytes: int | None, seed: int, kind: str, compress: bool) -> None:
    if kind not in FORMATS:
        raise ConfigError(f"--format {kind}: no such format.{did_you_mean(kind, FORMATS)}")
    if (rows is None) == (text_bytes is None):
        raise ConfigError("give --rows or --bytes, one of them")
    if (rows or text_bytes or 0) < 1:
        raise ConfigError(f"{'--bytes' if rows is None else '--rows'}: must be 1 or more")
    if seed < 0:
        raise ConfigError(f"--seed {seed}: must not be negative")
    if kind == "parquet" and text_bytes is not None:
        raise ConfigError("--bytes counts bytes of text; with --format parquet give --rows")
    if kind == "parquet" and compress:
        raise ConfigError("--gzip is for text; Parquet is compressed in itself")


def _count(facts: dict[str, Any], block: _Made) -> None:
    """Add a block to the facts."""
    split = _OF_FIVE[(block.queries - 1) % 5]
    for number, name in enumerate(SPLITS):
        facts["queries"][name] += int((split == number).sum())
        facts["rows"][name] += int(block.rows[split == number].sum())
    facts["labels"] = [had + int(new) for had, new in zip(facts["labels"], block.labels, strict=True)]
    facts["text_bytes"] += int(block.size.sum())


# ---- Blocks -----------------------------------------------------------------------------------------------


def _blocks(
    preset: Preset, work: Callable[[Ints], _Made], target: int, by_size: bool, *, seed: int, threads: int
) -> Iterator[_Made]:
    """Yield blocks, in order, until there is as much as asked for; the last one is cut at a query's end."""
    queries = _by_size(preset) if by_size else _by_rows(preset, target, seed=seed)
    had = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="generate") as pool:
        pending: deque[Future[_Made]] = deque()
        try:
            for numbers in queries:
                pending.append(pool.submit(work, numbers))
                if len(pending) <= threads:
                    continue
                block = pending.popleft().result()
                filled = had + np.cumsum(block.size)
                if by_size and (enough := _enough(filled, target, block.queries)) is not None:
                    yield work(block.queries[:enough]) if enough < len(block.queries) else block
                    return
                had = int(filled[-1])
                yield block
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _enough(filled: Ints, target: int, queries: Ints) -> int | None:
    """Return how many of a block's queries reach the target, and leave no split empty; None: all and more.

    Args:
        filled: What there is after each query.
        target: What there should be.
        queries: Their numbers.
    """
    enough = max(int(np.searchsorted(filled, target)) + 1, _LEAST_QUERIES + 1 - int(queries[0]))
    return enough if enough <= len(queries) else None


def _by_size(preset: Preset) -> Iterator[Ints]:
    """Yield the queries of block after block, without end; the first ones are small, for small targets."""
    most = max(1, _ROWS // preset.documents)
    first, count = 1, min(_LEAST_QUERIES, most)
    while True:
        yield np.arange(first, first + count, dtype=np.int64)
        first, count = first + count, min(2 * count, most)


def _by_rows(preset: Preset, rows: int, *, seed: int) -> Iterator[Ints]:
    """Yield the queries of block after block, until they have ``rows`` rows."""
    had = 0
    for queries in _by_size(preset):
        filled = had + np.cumsum(lengths(preset, queries, seed=seed))
        if (enough := _enough(filled, rows, queries)) is not None:
            yield queries[:enough]
            return
        yield queries
        had = int(filled[-1])


def _block(preset: Preset, queries: Ints, *, seed: int, kind: Format, compress: bool) -> _Made:
    """Make one block, as text or tables by split."""
    from pipeline.synthetic import kernel as generate_kernel

    split = _OF_FIVE[(queries - 1) % 5]
    by_split = queries[np.argsort(split, kind="stable")]
    rows = make(preset, by_split, seed=seed)
    count = lengths(preset, by_split, seed=seed)
    ends = np.cumsum(count)
    cuts = np.append(0, ends)[np.cumsum(np.append(0, np.bincount(split, minlength=len(SPLITS))))]
    size = np.zeros(len(queries), np.int64)
    splits: dict[str, Any] = {}
    if kind == "parquet":
        table = to_batch(rows)
        for name, start, stop in zip(SPLITS, cuts[:-1], cuts[1:], strict=True):
            splits[name] = table.slice(start, stop - start)
    else:
        text, row_ends = generate_kernel.text(rows.values, rows.decimals, rows.label, rows.qid)
        size = np.diff(np.append(0, row_ends[ends - 1]))
        starts = np.append(0, row_ends)[cuts]
        for name, start, stop in zip(SPLITS, starts[:-1], starts[1:], strict=True):
            piece = text[start:stop]
            splits[name] = gzip.compress(piece.tobytes(), 6, mtime=0) if compress and len(piece) else piece
    order = np.argsort(by_split)
    labels = np.bincount(rows.label, minlength=len(preset.shares))
    return _Made(queries, count[order], size[order], labels, splits)


def to_batch(rows: Rows) -> pa.RecordBatch:
    """Return ``qid, label, f1..fN``, float32: what reading the text gives, 0 where it names no feature.

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


# ---- Files ------------------------------------------------------------------------------------------------


class _File(Protocol):
    """Takes pieces of one split."""

    def __init__(self, path: Path, preset: Preset) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...
    def write(self, piece: Any) -> None:
        """Add whole rows."""


class _TextFile:
    """A file that takes text, compressed or not."""

    def __init__(self, path: Path, preset: Preset) -> None:
        del preset
        self._stream = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stream.close()

    def write(self, piece: Any) -> None:
        """Add whole lines; gzip pieces one after another are one gzip file."""
        self._stream.write(piece)


class _ParquetFile:
    """A file that takes batches and numbers their rows."""

    def __init__(self, path: Path, preset: Preset) -> None:
        self._schema = judgments(preset.features, qid=QID_INT, doc_id=False)
        self._writer = parts.PartWriter(path, self._schema)
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, piece: pa.RecordBatch) -> None:
        """Add rows."""
        ids = pa.array(np.arange(self._rows, self._rows + piece.num_rows, dtype=np.int64))
        table = pa.Table.from_batches([piece]).append_column("row_id", ids)
        self._writer.write(parts.conform(table, self._schema))
        self._rows += piece.num_rows
