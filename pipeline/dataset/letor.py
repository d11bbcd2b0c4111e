"""LETOR text <-> Arrow record batches.

One line is one judged query-document pair::

    label qid:ID index:value index:value ... # comment

Tokens are separated by any spaces and tabs, lines end with LF or CRLF, indexes count from 1 and stand in any
order. Blank lines and lines of comment only are skipped. ``docid = X`` in the comment names the document (any
case, with or without spaces around ``=``, X up to the next space); any other comment names it as a whole; an
empty comment or an empty X names none. This is the layout of the LETOR and MSLR sets (Qin and Liu,
"Introducing LETOR 4.0 Datasets", arXiv:1306.2597), and of SVM-light with a query id.

Behind it: :mod:`pipeline.dataset.letor_blocks` cuts a file into blocks of lines,
:mod:`pipeline.dataset.letor_parse` makes batches of them with the compiled :mod:`pipeline.dataset.letor_kernel`.
"""

import bz2
import gzip
import lzma
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from functools import partial
from math import nan
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import tables
from pipeline.core.errors import ConfigError, SourceError, StorageError, TableError
from pipeline.dataset.letor_blocks import Block, Limits, read_blocks
from pipeline.dataset.letor_parse import MAX_INDEX, BlockParser, must_compile, warm_up

Blocks = Generator[Block, None, None]

__all__ = ["must_compile", "read_letor", "warm_up", "write_letor"]


def read_letor(
    path: Path,
    *,
    missing: Literal["zero", "nan"] = "zero",
    sentinel: float | None = None,
    threads: int = 1,
    limits: Limits | None = None,
    progress: Callable[[int], None] = lambda _: None,
    at: Path | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a LETOR file in their order, as record batches.

    Every value equals ``numpy.float32(float(token))`` to the bit; beyond float32's range it is infinity.

    Args:
        path: Text, plain or compressed: ``.gz``, ``.bz2``, ``.xz``, ``.zst``.
        missing: What a row holds for a feature it does not name: 0.0 or NaN.
        sentinel: A value, compared as double, that stands for missing in the file and becomes NaN.
        threads: Blocks parsed at once; the batches are the same for any number.
        limits: How much is read and held at once.
        progress: Called with the bytes of the file, as stored, read since the last call.
        at: Where the bytes are, when ``path`` is only what the file is called in messages.

    Yields:
        Columns ``qid`` (int64 when every id of the batch is an integer as ``str(int)`` writes it, else
        string), ``label`` uint8, ``doc_id`` string (only when a row of the batch has one; null where a row
        has none), ``f1``..``fK`` float32 with K the largest index in the block; only ``doc_id`` is nullable.
        K and the type of ``qid`` vary from batch to batch: the consumer unifies them.

    Raises:
        SourceError: The file cannot be read or is not LETOR text, with the line and the 1-based byte column
            of the first bad token. Rows of the blocks before it have been yielded by then.
        ConfigError: An option is out of its range.
    """
    if missing not in ("zero", "nan"):
        raise ConfigError(f"missing: {missing!r} is not a policy. There is: nan, zero.")
    if threads < 1:
        raise ConfigError(f"threads: {threads} is too few; use 1 or more")
    limits = limits or Limits()
    if not 1 <= limits.block_bytes <= limits.line_bytes:
        raise ConfigError(f"block_bytes: {limits.block_bytes} is not within 1 to {limits.line_bytes}")
    fill, hole = nan if missing == "nan" else 0.0, nan if sentinel is None else float(sentinel)
    parser = BlockParser(path, fill=fill, sentinel=hole, limits=limits)
    return _read(path, parser, read_blocks(path, limits=limits, alive=threads, at=at), threads, progress)


def _read(
    path: Path, parser: BlockParser, blocks: Blocks, threads: int, progress: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    consumed, empty = 0, True
    with closing(blocks):
        for block, batches in _parsed(parser, blocks, threads):
            if block.consumed > consumed:
                progress(block.consumed - consumed)
                consumed = block.consumed
            for batch in batches:
                empty = False
                yield batch
    if empty:
        raise SourceError("holds no rows; a LETOR file has lines like '2 qid:10 1:0.5 2:3'", file=path)


def _parsed(
    parser: BlockParser, blocks: Iterator[Block], threads: int
) -> Iterator[tuple[Block, Iterable[pa.RecordBatch]]]:
    """Parse blocks, in order, at most ``threads + 1`` of them held; an error of the source comes last."""
    if threads == 1:
        yield from ((block, parser.parse(block)) for block in blocks)
        return
    pending: deque[tuple[Block, Future[Iterable[pa.RecordBatch]]]] = deque()
    failure: SourceError | None = None
    pool = ThreadPoolExecutor(threads, thread_name_prefix="letor")
    try:
        more = True
        while more:
            try:
                if more := (block := next(blocks, None)) is not None:
                    pending.append((block, pool.submit(parser.parse, block)))
            except SourceError as error:
                more, failure = False, error
            while len(pending) > (threads if more else 0):
                done, future = pending.popleft()
                yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure


_CELLS_PER_WRITE: Final = 1 << 20  # formatted text of one piece: tens of MiB
_WRITERS: dict[str, Callable[[IO[bytes]], Any]] = {
    # Without a name and a time in its header, the same rows give the same file.
    ".gz": lambda raw: gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0),
    ".bz2": partial(bz2.BZ2File, mode="wb"),
    ".xz": partial(lzma.LZMAFile, mode="wb"),
    ".zst": lambda raw: pa.CompressedOutputStream(pa.PythonFile(raw, mode="w"), "zstd"),
}
_SPACE = r"[\t\n\v\f\r ]"
_QID = r"^[^\t\n\v\f\r #\x00]+$"
_DOC_TEXT = r"^[^\t\n\v\f\r \x00]([^\n\x00]*[^\t\n\v\f\r \x00])?$"
_DOC_KEY = r"(?i)(^|[^0-9a-z_\x{80}-\x{10FFFF}])docid[\t\v\f\r ]*="


def write_letor(batches: Iterable[pa.RecordBatch], path: Path, *, sparse: bool = False) -> None:
    """Write ``label qid:ID 1:value 2:value ... #docid = X`` lines that :func:`read_letor` reads back.

    Args:
        batches: Columns ``qid``, ``label`` and features ``f<index>``, and ``doc_id`` where there is one;
            others are left out. A document id with spaces in it is written as a bare comment.
        path: Compressed by its suffix: ``.gz``, ``.bz2``, ``.xz``, ``.zst``. The same rows always give the
            same bytes.
        sparse: Leave zeros out; -0.0 and NaN (``nan``) are always written. Read with ``missing="zero"``.

    Raises:
        TableError: A column is missing, has nulls, or holds what the format cannot carry.
        StorageError: The file cannot be written.
    """
    try:
        with path.open("wb") as raw:
            suffix = path.suffix.lower()
            with closing(_WRITERS[suffix](raw)) if suffix in _WRITERS else nullcontext(raw) as stream:
                for batch in batches:
                    step = max(1, _CELLS_PER_WRITE // batch.num_columns)
                    for start in range(0, batch.num_rows, step):
                        stream.write(_text(batch.slice(start, step), path, sparse=sparse))
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _text(batch: pa.RecordBatch, path: Path, *, sparse: bool) -> Any:
    """Return the lines of ``batch`` as one buffer: the character data of a string column of its rows."""
    names = batch.schema.names
    tables.check(names, ("qid", "label"), table="JUDGMENTS", where=path)
    features = sorted((int(name[1:]), name) for name in tables.features_of(names))
    _check_values(batch, [name for _, name in features], path)
    pieces: list[Any] = [batch["label"].cast(pa.string()), " qid:", batch["qid"].cast(pa.string())]
    for index, name in features:
        number = batch[name].cast(pa.float32(), safe=False).cast(pa.string())
        if sparse:
            token = pc.binary_join_element_wise(f" {index}:", number, "")
            pieces.append(pc.if_else(pc.equal(number, "0"), "", token))
        else:
            pieces += [f" {index}:", number]
    if "doc_id" in names:
        pieces.append(_comments(batch["doc_id"].cast(pa.string()), path))
    lines = pc.binary_join_element_wise(*pieces, "\n", "")
    _, offsets, characters = lines.buffers()
    return characters.slice(0, int(np.frombuffer(offsets, np.int32)[len(lines)]))


def _check_values(batch: pa.RecordBatch, features: list[str], path: Path) -> None:
    for name in ("qid", "label", *features):
        if batch[name].null_count:
            remedy = "a LETOR line needs a value (nan for missing)"
            raise TableError(f"{path}: column {name!r} has nulls; {remedy}")
    for name in features:
        if not 1 <= int(name[1:]) <= MAX_INDEX:
            raise TableError(f"{path}: column {name!r} is not a feature from f1 to f{MAX_INDEX}")
    labels = pc.min_max(batch["label"]).as_py()
    if not 0 <= labels["min"] <= labels["max"] <= tables.MAX_LABEL:
        raise TableError(f"{path}: labels reach from {labels['min']} to {labels['max']}; use 0 to 30")
    _check_text(batch["qid"].cast(pa.string()), _QID, "query id", path)


def _check_text(text: pa.Array, pattern: str, name: str, path: Path) -> None:
    wrong = text.filter(pc.invert(pc.match_substring_regex(text, pattern)))
    if len(wrong):
        raise TableError(f"{path}: {name} {wrong[0].as_py()!r} cannot stand in a LETOR line; rename it")


def _comments(documents: pa.Array, path: Path) -> pa.Array:
    """Return ``" #docid = X"`` per row, ``" # text"`` where X has spaces, and ``""`` where there is none."""
    named = pc.not_equal(documents, "")
    present = documents.filter(named)
    _check_text(present, _DOC_TEXT, "document id", path)
    spaced = pc.match_substring_regex(documents, _SPACE)
    hidden = documents.filter(pc.and_(spaced, pc.match_substring_regex(documents, _DOC_KEY)))
    if len(hidden):
        raise TableError(f"{path}: document id {hidden[0].as_py()!r} would be read back in part; rename it")
    prefix = pc.if_else(spaced, " # ", " #docid = ")
    comments = pc.if_else(named, pc.binary_join_element_wise(prefix, documents, ""), "")
    return comments.fill_null("")
