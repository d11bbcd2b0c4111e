"""Find the files of a SOURCE: what the user names on the command line, in any of the forms LETOR data has.

* a directory with ``train``, ``vali`` and ``test`` files (``vali`` may be missing: it is held out of train)
* a directory with ``Fold1``..``Fold5``, each such a directory
* a directory with LETOR's partitions ``S1``..``S5``
* one file, or a directory of Parquet parts with other names than these, split by query

Files are LETOR text (plain, ``.gz``, ``.bz2``, ``.xz``, ``.zst``) or Parquet with the JUDGMENTS columns; in
place of a Parquet file there may be a directory of parts. Any of these directories, or the one file, may be
packed in a ``.zip`` or ``.tar`` (``.tar.gz``, ``.tar.bz2``, ``.tar.xz``, ``.tar.zst``), there perhaps in a
directory of its own.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pipeline.core.errors import SourceError
from pipeline.dataset.archive import Archive, kind_of, list_archive
from pipeline.dataset.folds import PARTITIONS

_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
_TEXT: Final = (".txt", ".tsv", ".dat", ".letor", ".svm", ".svmlight", ".libsvm")
_PARQUET: Final = (".parquet", ".pq")
_PACKED_OTHERWISE: Final = (".rar", ".7z")
_FOLD: Final = re.compile(r"fold(?P<number>[0-9]+)", re.IGNORECASE)
_SPELLINGS: Final = {
    "train": ("train", "training"),
    "vali": ("vali", "valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}
SourceKind = Literal["splits", "folds", "partitions", "file"]


@dataclass(frozen=True)
class SplitSource:
    """The files one split is read from, and the splits to hold out of it by query."""

    name: str
    files: tuple[Path, ...]
    hold_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A SOURCE and its splits, in the order in which they are read."""

    path: Path  # what the user named
    layout: SourceKind
    splits: tuple[SplitSource, ...]
    archive: Archive | None = None  # what the files lie in, named as if it were a directory

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file on disk to read, in order."""
        return tuple(dict.fromkeys(file for split in self.splits for file in self.stored(split)))

    def stored(self, split: SplitSource) -> tuple[Path, ...]:
        """Return the files on disk that hold a split."""
        return split.files if self.archive is None else (self.archive.path,)


def is_parquet(path: Path) -> bool:
    """Tell Parquet from LETOR text by its name."""
    return path.suffix.lower() in _PARQUET


class _Disk:
    """Directories of the file system, asked as those of an :class:`Archive`."""

    def children(self, directory: Path) -> list[Path]:
        return sorted(directory.iterdir())

    def is_dir(self, path: Path) -> bool:
        return path.is_dir()


_Tree = Archive | _Disk


def _stem(tree: _Tree, path: Path) -> str | None:
    """Return the name without compression and text suffixes, lower case; None: not a data file by its name."""
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    for suffix in (*_TEXT, *_PARQUET):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name if tree.is_dir(path) or "." not in name else None


def _parquet_parts(tree: _Tree, directory: Path) -> tuple[Path, ...]:
    return tuple(p for p in tree.children(directory) if is_parquet(p) and not p.name.startswith("."))


def _find(tree: _Tree, directory: Path, spellings: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the file, or the Parquet parts, of one split in ``directory``; empty when it has none."""
    found = []
    for path in tree.children(directory):
        stem = None if path.name.startswith(".") else _stem(tree, path)
        if stem is None or re.split("[._-]", stem)[-1] not in spellings:
            continue
        if files := _parquet_parts(tree, path) if tree.is_dir(path) else (path,):
            found.append(files)
    if len(found) > 1:
        names = " and ".join(str(files[0].relative_to(directory)) for files in found[:2])
        what = f"two files for {spellings[0]!r}: {names}; put one data set in a directory"
        raise SourceError(what, file=directory)
    return found[0] if found else ()


def _splits(tree: _Tree, directory: Path, prefix: str = "") -> tuple[SplitSource, ...]:
    """Return train, vali and test of a directory; empty when it has no train file."""
    found = {name: _find(tree, directory, spellings) for name, spellings in _SPELLINGS.items()}
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
        if path.is_dir():
            if (found := _directory(_Disk(), path)) is None:
                raise _nothing(_Disk(), path)
            return Source(path, *found)
        if path.is_file():
            return _one_file(path) if kind_of(path) is None else _packed(path)
        if path.exists():
            raise SourceError("neither a file nor a directory; save the data to a file first", file=path)
        near = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    except OSError as error:
        reason, file = error.strerror or error, error.filename or path
        raise SourceError(f"cannot be read ({reason})", file=file) from None
    beside = f"; {path.parent} has: {', '.join(near[:8])}" if near else ""
    raise SourceError(f"no such file or directory{beside}", file=path)


def _packed(path: Path) -> Source:
    """Find the data in an archive, perhaps below directories that hold nothing else."""
    tree = list_archive(path)
    directory = path
    while True:
        if (found := _directory(tree, directory)) is not None:
            return Source(path, *found, archive=tree)
        children = tree.children(directory)
        inner = [child for child in children if tree.is_dir(child)]
        data = tuple(child for child in children if _stem(tree, child) is not None)
        if not inner and len(data) == 1:
            return Source(path, "file", (_held_out_of(data),), archive=tree)
        if len(inner) != 1:
            raise _nothing(tree, directory)
        directory = inner[0]


def _nothing(tree: _Tree, directory: Path) -> SourceError:
    names = ", ".join([p.name for p in tree.children(directory)][:8]) or "nothing"
    what = f"no train/vali/test files, Fold1..Fold5 or S1..S5 here; it has: {names}"
    return SourceError(what, file=directory)


def _directory(tree: _Tree, path: Path) -> tuple[SourceKind, tuple[SplitSource, ...]] | None:
    """Return the layout and the splits of a directory; None when it has none."""
    if folds := _folds(tree, path):
        return "folds", folds
    partitions = {name: _find(tree, path, (name.lower(),)) for name in PARTITIONS}
    if all(partitions.values()):
        return "partitions", tuple(SplitSource(n, f) for n, f in partitions.items())
    if found := _splits(tree, path):
        return "splits", found
    if any(partitions.values()):
        absent = ", ".join(name for name, files in partitions.items() if not files)
        raise SourceError(f"LETOR partitions need all of S1 to S5; missing: {absent}", file=path)
    if files := _parquet_parts(tree, path):
        return "file", (_held_out_of(files),)
    return None


def _held_out_of(files: tuple[Path, ...]) -> SplitSource:
    return SplitSource("train", files, hold_out=("vali", "test"))


def _one_file(path: Path) -> Source:
    if path.suffix.lower() in _PACKED_OTHERWISE:
        raise SourceError("cannot be read in place; unpack it, or pack it as .zip or .tar.gz", file=path)
    return Source(path, "file", (_held_out_of((path,)),))


def _folds(tree: _Tree, path: Path) -> tuple[SplitSource, ...]:
    """Return the splits of Fold1, Fold2, ... below ``path``; empty when it has none."""
    folds: dict[int, Path] = {}
    for fold in tree.children(path):
        match = _FOLD.fullmatch(fold.name)
        if match is None or not tree.is_dir(fold):
            continue
        if (number := int(match["number"])) in folds:
            raise SourceError(f"{folds[number].name} and {fold.name} are the same fold; keep one", file=path)
        folds[number] = fold
    absent = next((number for number in range(1, max(folds, default=0)) if number not in folds), None)
    if absent is not None:
        last = folds[max(folds)].name
        what = f"has {last} and no Fold{absent}; to run on one fold, name its directory"
        raise SourceError(what, file=path)
    splits: list[SplitSource] = []
    for number in sorted(folds):
        found = _splits(tree, folds[number], prefix=f"Fold{number}/")
        if not found:
            raise SourceError("no train file such as train.txt", file=folds[number])
        splits.extend(found)
    return tuple(splits)
