"""Look at what lies at a path: a run, a dataset, a table in parts, or one Parquet file.

Everything comes back as JSON values, for :mod:`flows` to show and for scripts to read. Nothing here reads
features, so that the answer does not wait for the size of the data.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import SourceError, StorageError
from pipeline.core.paths import RunPaths, part_files
from pipeline.dataset.sources import is_parquet
from pipeline.inspect.runs import CHECK_BYTES, run_facts
from pipeline.inspect.tables import (
    Facts,
    file_facts,
    label_counts,
    open_parquet,
    plain,
    recognise,
    table_facts,
)


def inspect(path: Path, *, check_bytes: int | None = CHECK_BYTES) -> Facts:
    """Describe what is at ``path``.

    Args:
        path: A run, a dataset directory, a directory of Parquet files, or one Parquet file.
        check_bytes: Compare the outputs of a run with their fingerprints until so many bytes are read,
            small files first; None: all of them.

    Returns:
        JSON values. ``kind`` is ``run``, ``dataset``, ``parts`` (files ``part-*.parquet`` of one table),
        ``files`` (any other directory of Parquet files) or ``file``; ``path`` is ``path``; the rest is what
        :func:`~pipeline.inspect.runs.run_facts`, :func:`dataset_facts` or
        :func:`~pipeline.inspect.tables.table_facts` return.

    Raises:
        SourceError: Nothing is there, or nothing that this command knows.
        StorageError: A file is damaged, or must not be read.
    """
    try:
        if not path.exists():
            raise SourceError(f"no such file or directory{_beside(path)}", file=path)
        kind, found = _look(path, check_bytes)
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror or error}") from None
    return {"kind": kind, "path": str(path), **found}


def _look(path: Path, check_bytes: int | None) -> tuple[str, Facts]:
    if path.is_file():
        return "file", table_facts([_parquet(path)])
    run = RunPaths(path)
    if run.manifest.is_file() or run.config.is_file():
        document = run.dataset / "dataset.json"
        return "run", run_facts(
            path, dataset_facts(run.dataset) if document.is_file() else None, check_bytes=check_bytes
        )
    if (path / "dataset.json").is_file():
        return "dataset", dataset_facts(path)
    if files := part_files(path):
        return "parts", table_facts(files)
    if files := sorted(file for file in path.iterdir() if is_parquet(file) and not file.name.startswith(".")):
        return "files", {"files": [_short(file) for file in files]}
    names = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise SourceError(f"neither a run nor a dataset, and no Parquet files; it has: {names}", file=path)


def _beside(path: Path) -> str:
    near = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    return f"; {path.parent} has: {', '.join(near[:8])}" if near else ""


def _parquet(file: Path) -> Path:
    """Return ``file``, unless it is one of the other files of a run, whose directory says more."""
    if file.name in ("manifest.json", "config.toml", "dataset.json", "report.html"):
        raise SourceError(f"not a Parquet file; inspect its directory instead, {file.parent}", file=file)
    return file


def _short(file: Path) -> Facts:
    part = open_parquet(file)
    return {**file_facts(file, part), "table": recognise(part.schema_arrow)}


def dataset_facts(path: Path) -> Facts:
    """Describe a dataset directory: what ``dataset.json`` says, label counts, and whether the parts agree.

    Returns:
        ``layout, features, qid, doc_id, notices, bytes, splits`` (a list) and ``problems``: one line for
        each split whose parts are missing, damaged or of another length than ``dataset.json`` says.

    Raises:
        StorageError: ``dataset.json`` is damaged.
    """
    file = path / "dataset.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        splits = dict(document["splits"])
        about = {key: document[key] for key in ("layout", "features", "qid", "doc_id", "notices")}
        found = [_split(path, name, says) for name, says in splits.items()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{file}: not a readable dataset.json ({error!r}); ingest the source again"
        ) from None
    problems = [split.pop("problem") for split in found]
    size = sum(split["bytes"] for split in found)
    facts: Facts = plain(
        {**about, "bytes": size, "splits": found, "problems": [line for line in problems if line]}
    )
    return facts


def _split(path: Path, name: str, says: Mapping[str, Any]) -> Facts:
    files = part_files(path / name)
    facts = {
        "name": name,
        **says,
        "negatives_fraction": says["negatives"] / says["rows"] if says["rows"] else None,
        "labels": None,
        "files": len(files),
        "row_groups": 0,
        "bytes": sum(file.stat().st_size for file in files),
        "problem": None,
    }
    if not files:
        return {**facts, "problem": f"{path / name}: no parts; ingest the source again"}
    try:
        footers = [open_parquet(file).metadata for file in files]
        facts["row_groups"] = sum(footer.num_row_groups for footer in footers)
        facts["labels"] = label_counts(files)
    except (SourceError, StorageError) as error:
        return {**facts, "problem": str(error)}
    if (rows := sum(footer.num_rows for footer in footers)) != says["rows"]:
        facts["problem"] = f"{path / name}: {rows:,} rows, but dataset.json says {says['rows']:,}"
    return facts
