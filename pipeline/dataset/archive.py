"""Packed sources: a ``.zip`` or ``.tar`` of LETOR data, listed where it lies and unpacked to be read.

A member is named as if the archive were a directory: ``sets.tar.gz/Fold1/train.txt``.
"""

import io
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, NamedTuple

from pipeline.core.errors import SourceError, StorageError
from pipeline.dataset.letor_blocks import DAMAGED, OPENERS

_TARS: Final = {f"{tar}{suffix[1:]}": suffix for tar in (".tar.", ".t") for suffix in OPENERS}
_KINDS: Final = {".zip": "zip", ".tar": "", **_TARS}
_ZIP_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_BROKEN: Final = (*DAMAGED, tarfile.TarError, zipfile.BadZipFile)
# From Python 3.11.4 on.
_FILTER: Final[dict[str, Any]] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
_CHUNK_BYTES: Final = 1 << 16
_REMEDY: Final = "fetch or pack it again"

Advance = Callable[[int], None]


def kind_of(path: Path) -> str | None:
    """Return ``zip``, or a tar's compression (``.gz`` ..., empty for none), by the name; None: no archive."""
    name = path.name.lower()
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)


@dataclass(frozen=True)
class Archive:
    """What is packed in a file."""

    path: Path
    sizes: Mapping[str, int]  # bytes of every file, by its name below the archive

    @cached_property
    def _entries(self) -> dict[str, list[str]]:
        """Names in each directory; hidden ones, and what macOS adds, are left out."""
        found: dict[str, dict[str, None]] = {".": {}}
        for name in self.sizes:
            parts = PurePosixPath(name).parts
            if any(part.startswith(".") or part == "__MACOSX" for part in parts):
                continue
            for depth, part in enumerate(parts):
                found.setdefault(str(PurePosixPath(*parts[:depth])), {})[part] = None
        return {directory: sorted(names) for directory, names in found.items()}

    def children(self, directory: Path) -> list[Path]:
        """Return what is in a directory of the archive, sorted."""
        return [directory / name for name in self._entries[self._inside(directory)]]

    def is_dir(self, path: Path) -> bool:
        """Tell a directory of the archive from a file."""
        return self._inside(path) in self._entries

    def unpacked_bytes(self, files: Collection[Path]) -> int:
        """Return how many bytes ``files`` have once they are unpacked."""
        return sum(self.sizes[self._inside(file)] for file in files)

    def unpack(self, files: Collection[Path], into: Path, *, advance: Advance) -> None:
        """Unpack some files, named as here, to the same places below ``into``, a directory to make.

        Args:
            files: The files, below ``path``.
            into: The directory.
            advance: Told the bytes of the archive read since the last call.

        Raises:
            SourceError: The archive is damaged.
            StorageError: The disk has less room than they take.
        """
        into.mkdir(parents=True)
        needed, free = self.unpacked_bytes(files), shutil.disk_usage(into).free
        if needed > free:
            raise StorageError(
                f"{self.path}: unpacks to {needed / 1e6:,.0f} MB and the disk of --out has {free / 1e6:,.0f} MB"
                " free; free some space, or unpack it elsewhere and name its directory"
            )
        wanted, about = {self._inside(file) for file in files}, self.path
        try:
            with _members(self.path, advance) as members:
                for member in members:
                    if member.name in wanted:
                        about = self.path / member.name
                        member.extract(into)
        except _BROKEN as error:
            raise _damaged(error, about) from error

    def _inside(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()


def list_archive(path: Path) -> Archive:
    """List an archive.

    Raises:
        SourceError: It is damaged, or a member is a link, a device or encrypted, has a name that leads out of
            the archive, or is there twice.
    """
    sizes: dict[str, int] = {}
    try:
        with _members(path) as members:
            for member in members:
                if not member.name or member.name in sizes:
                    raise SourceError(f"holds {_shown(member.stored_name)} twice; {_REMEDY}", file=path)
                sizes[member.name] = member.size
    except _BROKEN as error:
        raise _damaged(error, path) from error
    return Archive(path, sizes)


def _damaged(error: BaseException, about: Path) -> Exception:
    """Return the error of a damaged archive; the system's own errors, such as a full disk, stay as they are."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return SourceError(f"truncated or corrupt archive ({reason}); {_REMEDY}", file=about)


class _Member(NamedTuple):
    """A file in an archive."""

    stored_name: str
    name: str  # the same without ``./``
    size: int
    extract: Callable[[Path], Any]  # unpacks it below a directory


class _CountedFile(io.FileIO):
    """A file that tells the bytes read of it."""

    def __init__(self, path: Path, advance: Advance) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer: Any, /) -> int:
        """Read into ``buffer`` and tell how much."""
        size = super().readinto(buffer) or 0
        self._advance(size)
        return size


@contextmanager
def _members(path: Path, advance: Advance = lambda _: None) -> Iterator[Iterator[_Member]]:
    """Give the files of an archive in their order; each may be unpacked until the next is asked for."""
    kind = kind_of(path)
    with io.BufferedReader(_CountedFile(path, advance), _CHUNK_BYTES) as raw:
        yield _zip_members(raw, path) if kind == "zip" else _tar_members(raw, kind or "", path)


def _zip_members(raw: IO[bytes], path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as packed:
        for info in packed.infolist():
            stored, name = info.filename, _inside(info.filename, path)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(stored, "is a link or a device; pack plain files", path)
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise _refused(stored, "is encrypted; pack it without a password", path)
            if (method := info.compress_type) not in _ZIP_METHODS:
                raise _refused(stored, f"is compressed by method {method}; pack it with deflate", path)
            info.filename = name
            yield _Member(stored, name, info.file_size, partial(packed.extract, info))


def _tar_members(raw: IO[bytes], suffix: str, path: Path) -> Iterator[_Member]:
    stream = OPENERS[suffix](raw) if suffix else raw
    # A compressed stream is read once, front to back; in a plain file tarfile leaps from header to header.
    with tarfile.open(fileobj=stream, mode="r|" if suffix else "r:", bufsize=_CHUNK_BYTES) as packed:
        for info in packed:
            stored, name = info.name, _inside(info.name, path)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise _refused(stored, "is a link, a device or sparse; pack plain files", path)
            info.name, info.mode = name, 0o644
            yield _Member(stored, name, info.size, partial(packed.extract, info, **_FILTER))


def _shown(name: str) -> str:
    return repr(name.encode("utf-8", "backslashreplace").decode())


def _refused(name: str, what: str, path: Path) -> SourceError:
    return SourceError(f"member {_shown(name)} {what}", file=path)


def _inside(name: str, path: Path) -> str:
    """Return a member's name without ``./``; refuse one that leads elsewhere."""
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    if slashed.startswith("/") or re.match("[A-Za-z]:", slashed) or ".." in parts:
        raise _refused(name, f"leads out of the archive; {_REMEDY}", path)
    return "/".join(parts)
