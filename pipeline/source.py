"""Find the files of a SOURCE: what the user names on the command line, in any of the forms LETOR data has.

* a directory with ``train``, ``vali`` and ``test`` files (``vali`` may be missing: it is held out of train)
* a directory with ``Fold1``..``Fold5``, each such a directory
* a directory with LETOR's partitions ``S1``..``S5``
* one file, split by query

Files are LETOR text (plain, ``.gz``, ``.bz2``, ``.xz``, ``.zst``) or Parquet with the JUDGMENTS columns; in
place of a Parquet file there may be a directory of parts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pipeline.errors import SourceError
from pipeline.folds import PARTITIONS

_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
_TEXT: Final = (".txt", ".tsv", ".dat", ".letor", ".svm", ".svmlight", ".libsvm")
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
    return path.suffix.lower() in (".parquet", ".pq")


def _stem(path: Path) -> str | None:
    """Return the name without compression and text suffixes, lower case; None: not a data file by its name."""
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    for suffix in (*_TEXT, ".parquet", ".pq"):
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
        if stem is None or not any(stem == s or stem.endswith((f".{s}", f"_{s}")) for s in spellings):
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
        SourceError: Nothing is there, or nothing in it looks like LETOR data.
    """
    if not path.exists():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        beside = f"; {path.parent} has: {', '.join(sorted(near)[:8])}" if near else ""
        raise SourceError(f"no such file or directory{beside}", file=path)
    if path.is_file():
        return Source(path, "file", (SplitSource("train", (path,), hold_out=("vali", "test")),))
    folds = sorted(
        p for p in path.iterdir() if p.is_dir() and p.name.lower().startswith("fold") and p.name[4:].isdigit()
    )
    if folds:
        splits: list[SplitSource] = []
        for fold in folds:
            found = _splits(fold, prefix=f"Fold{int(fold.name[4:])}/")
            if not found:
                raise SourceError("no train file such as train.txt", file=fold)
            splits.extend(found)
        return Source(path, "folds", tuple(splits))
    partitions = {name: _find(path, (name.lower(),)) for name in PARTITIONS}
    if all(partitions.values()):
        return Source(path, "partitions", tuple(SplitSource(n, f) for n, f in partitions.items()))
    if any(partitions.values()):
        absent = ", ".join(name for name, files in partitions.items() if not files)
        raise SourceError(f"LETOR partitions need all of S1 to S5; missing: {absent}", file=path)
    found = _splits(path)
    if not found:
        names = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise SourceError(
            f"no train/vali/test files, Fold1..Fold5 or S1..S5 here; it has: {names}", file=path
        )
    return Source(path, "splits", found)
