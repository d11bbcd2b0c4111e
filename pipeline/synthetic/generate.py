"""Write made-up ranking data of any size, as LETOR text or Parquet, for benchmarks, tests and first tries.

:mod:`pipeline.synthetic.world` decides what a query's rows are; here queries are made block by block and
written, in memory that does not depend on their number. Of every five queries in a row three go to train, one
to vali and one to test, so a larger set with the same seed begins with the rows of a smaller one.
"""

import gzip
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError, did_you_mean
from pipeline.core.files import atomic_write, require_replaceable
from pipeline.core.tables import QID_INT, judgments
from pipeline.dataset import parts
from pipeline.synthetic.encode import to_batch, to_lines
from pipeline.synthetic.presets import FORMATS, Format, Preset, find_preset
from pipeline.synthetic.world import Ints, Rows, make_rows, query_lengths

METADATA_FILE: Final = "generate.json"
SPLITS: Final = ("train", "vali", "test")
BLOCK_ROWS: Final = 8192
"""Rows that a block aims at: enough to make up for the calls per column."""

_SPLIT_OF_FIVE: Final = np.array([0, 0, 0, 1, 2])
_MIN_QUERIES: Final = 5  # fewer would leave a split empty
_BINARY: Final = {f"{letter}IB": 2 ** (10 * power) for power, letter in enumerate("KMGT", start=1)}
_DECIMAL: Final = {f"{letter}B": 10 ** (3 * power) for power, letter in enumerate("KMGT", start=1)}
_UNITS: Final = {"": 1, "B": 1, **_DECIMAL, **_BINARY}


def size(text: str) -> int:
    """Return the bytes that ``1GB``, ``500 MiB`` or ``2000`` stand for.

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
    block_rows: int = BLOCK_ROWS,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write train, vali and test below ``out``, all of them or none; return the content of ``generate.json``.

    Queries are whole and at least five, so there may be somewhat more than was asked for. The bytes written do
    not depend on ``threads``.

    Args:
        preset: One of :data:`pipeline.synthetic.presets.PRESETS`.
        out: Directory to make. An existing one is replaced if it is empty or was made by this function.
        rows: Stop at the query that reaches this many rows, over all splits; give this or ``text_bytes``.
        text_bytes: Stop at the query that reaches this many bytes of text, before compression.
        seed: Seed of every draw.
        documents: Per query, on average; None: the preset's number.
        kind: ``letor`` or ``parquet`` (the JUDGMENTS columns).
        compress: Write text as ``.gz``.
        threads: Blocks made at once.
        block_rows: Rows that a block aims at; rows and text do not depend on it.
        advance: Called with the rows (or bytes of text) made since the last call.

    Raises:
        ConfigError: An argument is wrong, or ``out`` holds something else.
        StorageError: ``out`` cannot be written.
    """
    shape = find_preset(preset, documents=documents)
    _check(rows, text_bytes, seed, kind, compress)
    require_replaceable(out, card=METADATA_FILE)
    schema = judgments(shape.features, qid=QID_INT, doc_id=False)
    about = {"preset": preset, "seed": seed, "documents": shape.documents, "features": shape.features}
    counts = {"rows": dict.fromkeys(SPLITS, 0), "queries": dict.fromkeys(SPLITS, 0)}
    labels = [0] * len(shape.shares)
    facts: dict[str, Any] = {**about, "format": kind, **counts, "labels": labels, "text_bytes": 0}
    target, amount = (rows, "rows") if text_bytes is None else (text_bytes, "text_bytes")
    make_block = partial(_make_block, shape, seed=seed, kind=kind, compress=compress)
    numbers = _query_numbers(max(1, block_rows // shape.documents))
    blocks = _until(target or 0, amount, make_block, numbers, threads=threads)
    with atomic_write(out.resolve()) as [made]:
        made.mkdir()
        with ExitStack() as stack:
            files = {s: stack.enter_context(_open(made / s, kind, compress, schema)) for s in SPLITS}
            for block in blocks:
                for split, piece in block.pieces.items():
                    first = facts["rows"][split]
                    files[split].write(_judgments(piece, first, schema) if kind == "parquet" else piece)
                _add_to(facts, block)
                if advance is not None:
                    advance(int(getattr(block, amount).sum()))
        facts["files"] = sorted([*(file.name for file in made.iterdir()), METADATA_FILE])
        (made / METADATA_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
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


@dataclass(frozen=True)
class _Block:
    """Whole queries, ready to be written."""

    queries: Ints  # their numbers
    rows: Ints  # of each query
    text_bytes: Ints  # of each query, before compression; 0 for Parquet
    labels: Ints  # rows of each label
    pieces: dict[str, Any]  # by split, what to write: bytes, or a record batch


def _make_block(preset: Preset, queries: Ints, *, seed: int, kind: Format, compress: bool) -> _Block:
    """Make the rows of ``queries`` and encode them by split."""
    split = _SPLIT_OF_FIVE[(queries - 1) % 5]
    order = np.argsort(split, kind="stable")
    made = make_rows(preset, queries[order], seed=seed)
    first_row = np.append(0, np.cumsum(query_lengths(preset, queries[order], seed=seed)))
    cuts = first_row[np.searchsorted(split[order], np.arange(len(SPLITS) + 1))]
    text_bytes = np.zeros(len(queries), np.int64)
    if kind == "parquet":
        batch = to_batch(made)
        pieces = [batch.slice(start, stop - start) for start, stop in pairwise(cuts)]
    else:
        text, first_byte = _text(made)
        text_bytes[order] = np.diff(first_byte[first_row])
        pieces = [text[start:stop] for start, stop in pairwise(first_byte[cuts])]
        if compress:  # pieces one after another are one gzip file
            pieces = [gzip.compress(piece, 6, mtime=0) if len(piece) else piece for piece in pieces]
    rows = np.empty(len(queries), np.int64)
    rows[order] = np.diff(first_row)
    labels = np.bincount(made.label, minlength=len(preset.shares))
    return _Block(queries, rows, text_bytes, labels, dict(zip(SPLITS, pieces, strict=True)))


def _text(rows: Rows) -> tuple[memoryview, Ints]:
    """Return the lines of rows as one piece of memory, and where each row begins and the last one ends."""
    lines = to_lines(rows)
    _, offsets, characters = lines.buffers()
    return memoryview(characters), np.frombuffer(offsets, np.int32)[: len(lines) + 1].astype(np.int64)


def _query_numbers(most: int) -> Iterator[Ints]:
    """Yield the query numbers of block after block, without end; the first blocks are small."""
    first, count = 1, min(_MIN_QUERIES, most)
    while True:
        yield np.arange(first, first + count, dtype=np.int64)
        first, count = first + count, min(2 * count, most)


def _until(
    target: int, amount: str, make_block: Callable[[Ints], _Block], numbers: Iterator[Ints], *, threads: int
) -> Iterator[_Block]:
    """Yield blocks in order until their ``rows`` or ``text_bytes`` reach the target; cut the last one there."""
    done = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="generate") as pool:
        pending: deque[Future[_Block]] = deque()
        try:
            while True:
                while len(pending) <= threads:
                    pending.append(pool.submit(make_block, next(numbers)))
                block = pending.popleft().result()
                reached = done + np.cumsum(getattr(block, amount))
                needed = int(np.searchsorted(reached, target)) + 1
                needed = max(needed, _MIN_QUERIES + 1 - int(block.queries[0]))
                if needed <= len(block.queries):
                    yield make_block(block.queries[:needed]) if needed < len(block.queries) else block
                    return
                done = int(reached[-1])
                yield block
        finally:
            for future in pending:
                future.cancel()


def _open(stem: Path, kind: Format, compress: bool, schema: pa.Schema) -> Any:
    """Open a split's file for pieces of it: a context manager with ``write``."""
    if kind == "parquet":
        return parts.PartWriter(stem.with_suffix(".parquet"), schema)
    return stem.with_suffix(".txt.gz" if compress else ".txt").open("wb")


def _judgments(piece: pa.RecordBatch, first: int, schema: pa.Schema) -> pa.Table:
    """Return the rows of a piece as JUDGMENTS, numbered from ``first``."""
    ids = pa.array(np.arange(first, first + piece.num_rows, dtype=np.int64))
    return parts.conform(pa.Table.from_batches([piece]).append_column("row_id", ids), schema)


def _add_to(facts: dict[str, Any], block: _Block) -> None:
    """Add the rows, queries, labels and bytes of a block to the facts."""
    split = _SPLIT_OF_FIVE[(block.queries - 1) % 5]
    for number, name in enumerate(SPLITS):
        facts["queries"][name] += int((split == number).sum())
        facts["rows"][name] += int(block.rows[split == number].sum())
    facts["labels"] = [had + int(new) for had, new in zip(facts["labels"], block.labels, strict=True)]
    facts["text_bytes"] += int(block.text_bytes.sum())
