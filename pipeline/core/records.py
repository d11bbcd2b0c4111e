"""Records: what each step of a run was made from and what it made, one JSON file per step.

``<run>/.steps/<step>.json`` is written after the outputs of the step are in place, so an output counts when its
record says so. ``manifest.json`` is the union of the records, for people and scripts to read; nothing depends on it.
"""

import contextlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pipeline.core.files import sha256, write_text

FORMAT: Final = 2
FOLDER: Final = ".steps"
MANIFEST: Final = "manifest.json"
_LIBRARIES: Final = ("ranksieve", "lightgbm", "numpy", "polars", "pyarrow")

Facts = dict[str, Any]
"""What a step found out: JSON values such as rows, seconds of training, notices for the user."""

Hashes = dict[str, str]
"""SHA-256 by file name; names are relative to the run where the file lies in it."""


@dataclass(frozen=True)
class Record:
    """A finished step.

    Attributes:
        inputs: By role, the files read; None for an input that was not there.
        parameters: The settings that decide the result.
        versions: Of Python and the libraries that can change a result.
        outputs: The files made.
        facts: What the step found out.
        seconds: Wall time.
        peak_memory_mb: Highest resident memory of the process that did the work.
        host: The machine that did the work.
    """

    inputs: dict[str, Hashes | None]
    parameters: dict[str, Any]
    versions: dict[str, str]
    outputs: Hashes
    facts: Facts
    seconds: float
    peak_memory_mb: int
    host: str

    def same_inputs(self, inputs: Mapping[str, Hashes | None]) -> bool:
        """Return whether the inputs hold the same bytes, wherever they now lie."""
        ours, theirs = ({role: _bytes_of(of) for role, of in each.items()} for each in (self.inputs, inputs))
        return ours == theirs


def _bytes_of(hashes: Mapping[str, str] | None) -> list[str] | None:
    return None if hashes is None else [hashes[name] for name in sorted(hashes)]


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions that can change a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def host() -> str:
    """Return the name of this machine."""
    return platform.node()


def path_of(root: Path, step: str) -> Path:
    """Return where the record of a step lies."""
    return root / FOLDER / f"{step}.json"


def read_record(root: Path, step: str) -> Record | None:
    """Return the record of a step; None when there is none, or none that can be read: the step is done again."""
    return _read(path_of(root, step))


def read_records(root: Path) -> dict[str, Record]:
    """Return the readable records of a run by step, in the order of the names."""
    folder = root / FOLDER
    names = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in _files(folder))
    found = {name: _read(path_of(root, name)) for name in names}
    return {name: record for name, record in found.items() if record is not None}


def _files(folder: Path) -> Iterable[Path]:
    return (file for file in folder.rglob("*.json") if not file.name.startswith("."))


def _read(path: Path) -> Record | None:
    with contextlib.suppress(OSError, ValueError):
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.pop("format", None) == FORMAT and _is_record(document):
            return Record(**document)
    return None


def _is_record(document: Mapping[str, Any]) -> bool:
    mappings = ("inputs", "parameters", "versions", "outputs", "facts")
    names = {field.name for field in fields(Record)}
    return document.keys() == names and all(isinstance(document[name], dict) for name in mappings)


def write_record(root: Path, step: str, record: Record) -> None:
    """Write the record of a step, in the place of an earlier one."""
    document = {"format": FORMAT, **asdict(record)}
    write_text(path_of(root, step), json.dumps(document, indent=1, sort_keys=True) + "\n")


def write_manifest(root: Path) -> None:
    """Write ``manifest.json``: all records of the run."""
    steps = {name: asdict(record) for name, record in read_records(root).items()}
    document = {"format": FORMAT, "steps": steps}
    write_text(root / MANIFEST, json.dumps(document, indent=1, sort_keys=True) + "\n")


def hashes_of(root: Path, paths: Sequence[Path]) -> Hashes | None:
    """Return the SHA-256 of files, and of all files below directories; None when one of them is missing.

    Args:
        root: The run's directory; names of files in it are relative to it.
        paths: Files and directories.
    """
    found: Hashes = {}
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
        elif path.is_file():
            files = [path]
        else:
            return None
        found |= {_name(root, file): sha256(file) for file in files}
    return found


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
