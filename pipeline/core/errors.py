"""One exception tree. Every message is one line: where, what is wrong, what exists, what to do.

::

    RanksieveError            anything the user can mend; the command line prints it and exits with 2
    ├── SourceError           the data handed in: file, line, column
    ├── TableError            a table lacks what its contract promises
    ├── ConfigError           a setting, an arm or a strategy that does not exist or does not fit
    ├── DeviceError           a training device that is not there
    ├── TrainingError         LightGBM refused, failed or crashed in its child process
    ├── BusyError             another run holds the directory
    └── StorageError          disk full, directory not writable, file damaged
"""

import difflib
from collections.abc import Iterable
from pathlib import Path


class RanksieveError(Exception):
    """Base of all errors a user can mend; ``str()`` is the one line to show."""


class SourceError(RanksieveError):
    """The data handed in is wrong.

    Args:
        what: The problem and what to do about it, one line.
        file: The file it is in.
        line: 1-based line, where the problem has one.
        column: 1-based byte column in that line, where the problem has one.
    """

    def __init__(
        self, what: str, *, file: Path | str, line: int | None = None, column: int | None = None
    ) -> None:
        self.what, self.file, self.line, self.column = what, Path(file), line, column
        where = "".join(f":{part}" for part in (line, column) if part is not None)
        super().__init__(f"{file}{where}: {what}")

    def __reduce__(self) -> tuple[object, ...]:
        return _source_error, (self.what, self.file, self.line, self.column)


def _source_error(what: str, file: Path, line: int | None, column: int | None) -> SourceError:
    """Rebuild a :class:`SourceError` that crossed a process boundary."""
    return SourceError(what, file=file, line=line, column=column)


class TableError(RanksieveError):
    """A table lacks a column, or a column has another type than its contract says."""


class ConfigError(RanksieveError):
    """A setting, an arm or a strategy that does not exist or does not fit the others."""


class DeviceError(RanksieveError):
    """The training device asked for is not there."""


class TrainingError(RanksieveError):
    """LightGBM refused the data, failed, or took its process down."""


class BusyError(RanksieveError):
    """Another run holds the directory."""


class StorageError(RanksieveError):
    """The disk is full, a directory cannot be written, or a stored file is damaged."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, else the names there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" There is: {', '.join(sorted(names))}."
