"""Find the files of a SOURCE: what the user names on the command line, in any of the forms LETOR data has.

* a directory with ``train``, ``vali`` and ``test`` files (``vali`` may be missing: it is held out of train)
* a directory with ``Fold1``..``Fold5``, each such a directory
* a directory with LETOR's partitions ``S1``..``S5``
* one file, or a directory of Parquet parts with other names than these, split by query

Files are LETOR text (plain, ``.gz``, ``.bz2``, ``.xz``, ``.zst``) or Parquet with the JUDGMENTS columns; in
place of a Parquet file there may be a directory of parts.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pipeline.errors import SourceError
from pipeline.folds import PARTITIONS

_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
_TEXT: Final = (".txt", ".tsv", ".dat", ".letor", ".svm", ".svmlight", ".libsvm")
_PARQUET: Final = (".parquet", ".pq")
_FOLD: Final = re.compile(r"fold(?P<number>[0-9]+)", re.IGNORECASE)
_SPELLINGS: Final = {
    "train": ("train", "training"),
    "vali": ("vali", "valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class SplitSource:
    """The files one split is read from, and the splits to hold out of it by query."""

    name: str
    files: tuple[Path, ...]
    hold_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A SOURCE: its layout and its splits in reading order."""

    path: Path
    layout: Literal["splits", "folds", "partitions", "file"]
    splits: tuple[SplitSource, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file to read, in order."""
        return tuple(file for split in self.splits for file in split.files)


def is_parquet(path: Path) -> bool:
    """Tell Parquet from LETOR text by its name."""
    return path.suffix.lower() in _PARQUET


def _stem(path: Path) -> str | None:
    """Return the name without compression and text suffixes, lower case; None: not a data file by its name."""
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    for suffix in (*_TEXT, *_PARQUET):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name if path.is_dir() or "." not in name else None


def _parquet_parts(directory: Path) -> tuple[Path, ...]:
    return tuple(sorted(p for p in directory.iterdir() if is_parquet(p) and not p.name.startswith(".")))


def _find(directory: Path, spellings: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the file, or the Parquet parts, of one split in ``directory``; empty when it has none."""
    found = []
    for path in sorted(directory.iterdir()):
        stem = None if path.name.startswith(".") else _stem(path)
        if stem is None or not any(
            stem == s or stem.endswith((f".{s}", f"_{s}", f"-{s}")) for s in spellings
        ):
            continue
        files = _parquet_parts(path) if path.is_dir() else (path,)
        if files:
            found.append(files)
    if len(found) > 1:
        names = " and ".join(str(files[0].relative_to(directory)) for files in found[:2])
        raise SourceError(
            f"two files for {spellings[0]!r}: {names}; put one data set in a directory", file=directory
        )
    return found[0] if found else ()


def _splits(directory: Path, prefix: str = "") -> tuple[SplitSource, ...]:
    """Return train, vali and test of a directory; empty when it has no train file."""
    found = {name: _find(directory, spellings) for name, spellings in _SPELLINGS.items()}
    if not found["train"]:
        if any(found.values()):
            there = next(files[0].name for files in found.values() if files)
            raise SourceError(f"no train file such as train.txt beside {there}", file=directory)
        return ()
    missing = tuple(name for name in ("vali", "test") if not found[name])
    if missing == ("test",):
        raise SourceError("train and vali are there, but no test file such as test.txt", file=directory)
    train = SplitSource(prefix + "train", found["train"], hold_out=tuple(prefix + name for name in missing))
    rest = tuple(SplitSource(prefix + name, found[name]) for name in ("vali", "test") if found[name])
    return (train, *rest)


def locate(path: Path) -> Source:
    """Find what ``path`` holds.

    Raises:
        SourceError: Nothing is there, it cannot be read, something is missing from it, or nothing in it looks
            like LETOR data.
    """
    try:
        return _locate(path)
    except OSError as error:
        raise SourceError(
            f"cannot be read ({error.strerror or error})", file=error.filename or path
        ) from None


def _locate(path: Path) -> Source:
    if not path.exists():
        near = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        beside = f"; {path.parent} has: {', '.join(near[:8])}" if near else ""
        raise SourceError(f"no such file or directory{beside}", file=path)
    if path.is_file():
        return _one_file(path, (path,))
    if not path.is_dir():
        raise SourceError("neither a file nor a directory; save the data to a file first", file=path)
    if folds := _folds(path):
        return Source(path, "folds", folds)
    partitions = {name: _find(path, (name.lower(),)) for name in PARTITIONS}
    if all(partitions.values()):
        return Source(path, "partitions", tuple(SplitSource(n, f) for n, f in partitions.items()))
    if found := _splits(path):
        return Source(path, "splits", found)
    if any(partitions.values()):
        absent = ", ".join(name for name, files in partitions.items() if not files)
        raise SourceError(f"LETOR partitions need all of S1 to S5; missing: {absent}", file=path)
    if files := _parquet_parts(path):
        return _one_file(path, files)
    names = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    raise SourceError(f"no train/vali/test files, Fold1..Fold5 or S1..S5 here; it has: {names}", file=path)


def _one_file(path: Path, files: tuple[Path, ...]) -> Source:
    return Source(path, "file", (SplitSource("train", files, hold_out=("vali", "test")),))


def _folds(path: Path) -> tuple[SplitSource, ...]:
    """Return the splits of Fold1, Fold2, ... below ``path``; empty when it has none."""
    folds: dict[int, Path] = {}
    for fold in sorted(path.iterdir()):
        match = _FOLD.fullmatch(fold.name)
        if match is None or not fold.is_dir():
            continue
        if (number := int(match["number"])) in folds:
            raise SourceError(f"{folds[number].name} and {fold.name} are the same fold; keep one", file=path)
        folds[number] = fold
    absent = next((number for number in range(1, max(folds, default=0)) if number not in folds), None)
    if absent is not None:
        raise SourceError(
            f"has {folds[max(folds)].name} and no Fold{absent}; to run on one fold, name its directory",
            file=path,
        )
    splits: list[SplitSource] = []
    for number in sorted(folds):
        found = _splits(folds[number], prefix=f"Fold{number}/")
        if not found:
            raise SourceError("no train file such as train.txt", file=folds[number])
        splits.extend(found)
    return tuple(splits)
