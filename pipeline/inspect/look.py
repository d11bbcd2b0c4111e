"""Look at what lies at a path: a run, a dataset, a table in parts, or one Parquet file.

Everything comes back as JSON values. Nothing here reads features, so that the answer does not wait for the size
of the data.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import SourceError, StorageError
from pipeline.core.paths import RunPaths, part_files
from pipeline.core.records import Facts
from pipeline.dataset.sources import is_parquet
from pipeline.inspect.runs import CHECK_BYTES, run_facts
from pipeline.inspect.tables import file_facts, label_counts, open_parquet, plain, recognise, table_facts


def inspect(path: Path, *, check_bytes: int | None = CHECK_BYTES) -> Facts:
    """Describe what is at ``path``; ``check_bytes`` as in :func:`~pipeline.inspect.runs.run_facts`.

    Returns:
        ``kind`` (``run``, ``dataset``, ``parts`` of one table, ``files`` of several, or ``file``), ``path``, and
        the facts of that kind as JSON values.

    Raises:
        SourceError: Nothing is there, or nothing that this command knows.
        StorageError: A file is damaged, or must not be read.
    """
    try:
        if not path.exists():
            near = _names(path.parent) if path.parent.is_dir() else ""
            raise SourceError(
                f"no such file or directory{near and f'; {path.parent} has: {near}'}", file=path
            )
        kind, found = _look(path, check_bytes)
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror or error}") from None
    return {"kind": kind, "path": str(path), **found}


def _names(directory: Path) -> str:
    return ", ".join(sorted(entry.name for entry in directory.iterdir())[:8])


def _look(path: Path, check_bytes: int | None) -> tuple[str, Facts]:
    run = RunPaths(path)
    if path.name in ("manifest.json", "config.toml", "dataset.json", "report.html") and path.is_file():
        raise SourceError(f"not a Parquet file; inspect its directory instead, {path.parent}", file=path)
    if path.is_file():
        return "file", table_facts([path])
    if run.manifest.is_file() or run.config.is_file():
        dataset = dataset_facts(run.dataset) if run.dataset_card.is_file() else None
        return "run", run_facts(path, dataset, check_bytes=check_bytes)
    if (path / "dataset.json").is_file():
        return "dataset", dataset_facts(path)
    if files := part_files(path):
        return "parts", table_facts(files)
    if files := sorted(file for file in path.iterdir() if is_parquet(file) and not file.name.startswith(".")):
        return "files", {"files": [_short(file) for file in files]}
    names = _names(path) or "nothing"
    raise SourceError(f"neither a run nor a dataset, and no Parquet files; it has: {names}", file=path)


def _short(file: Path) -> Facts:
    part = open_parquet(file)
    return {**file_facts(file, part), "table": recognise(part.schema_arrow)}


def dataset_facts(path: Path) -> Facts:
    """Describe a dataset directory: what ``dataset.json`` says, and what its parts hold.

    Returns:
        ``layout, features, qid, doc_id, notices, bytes, splits`` (a list) and ``problems``: one line for each
        split whose parts are missing, damaged or of another length than ``dataset.json`` says.

    Raises:
        StorageError: ``dataset.json`` is damaged.
    """
    file = path / "dataset.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        facts = {key: document[key] for key in ("layout", "features", "qid", "doc_id", "notices")}
        found = [_split(path, name, says) for name, says in dict(document["splits"]).items()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{file}: not a readable dataset.json ({error!r}); ingest the source again"
        ) from None
    splits = [split for split, _ in found]
    facts |= {"bytes": sum(split["bytes"] for split in splits), "splits": splits}
    facts["problems"] = [problem for _, problem in found if problem]
    return {key: plain(value) for key, value in facts.items()}


def _split(path: Path, name: str, says: Mapping[str, Any]) -> tuple[Facts, str | None]:
    """Return the facts of a split, and what is wrong with its parts."""
    files = part_files(path / name)
    facts = {
        "name": name,
        **says,
        "negatives_fraction": says["negatives"] / says["rows"] if says["rows"] else None,
        "labels": None,
        "files": len(files),
        "row_groups": 0,
        "bytes": sum(file.stat().st_size for file in files),
    }
    if not files:
        return facts, f"{path / name}: no parts; ingest the source again"
    try:
        footers = [open_parquet(file).metadata for file in files]
        facts["row_groups"] = sum(footer.num_row_groups for footer in footers)
        facts["labels"] = label_counts(files)
    except (SourceError, StorageError) as error:
        return facts, str(error)
    rows = sum(footer.num_rows for footer in footers)
    wrong = f"{path / name}: {rows:,} rows, but dataset.json says {says['rows']:,}"
    return facts, wrong if rows != says["rows"] else None
