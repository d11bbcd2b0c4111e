"""Packed sources: a ``.zip`` or ``.tar`` of LETOR data, listed and read where it lies.

A member is named as if the archive were a directory: ``sets.tar.gz/Fold1/train.txt``. Members are streams, and
nothing is unpacked here; whoever needs more than a stream, as Parquet does, copies that one member. Those of a
zip and of a plain tar are reached at once. A compressed tar can only be read from its beginning, so it is gone
through once to list it and once to read it, as long as members are asked for in the order in which they are
packed; for one that lies further back, it is begun again.
"""

import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, NamedTuple, Protocol, cast

from pipeline.core.errors import SourceError
from pipeline.dataset.letor_blocks import DAMAGED, OPENERS, DamagedArchiveError

_KINDS: Final = {
    ".zip": "zip", ".tar": "", ".tar.gz": ".gz", ".tgz": ".gz", ".tar.bz2": ".bz2", ".tbz2": ".bz2",
    ".tar.xz": ".xz", ".txz": ".xz", ".tar.zst": ".zst", ".tzst": ".zst",
}  # fmt: skip
_ZIP_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_BROKEN: Final = (*DAMAGED, tarfile.TarError, zipfile.BadZipFile)
_CHUNK_BYTES: Final = 1 << 20
_REMEDY: Final = "fetch or pack it again"

Opener = Callable[[Path], IO[bytes]]


def kind_of(path: Path) -> str | None:
    """Return ``zip``, or a tar's compression (``.gz`` ..., empty for none), by the name; None: no archive."""
    name = path.name.lower()
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)


class Member(NamedTuple):
    """A packed file.

    Attributes:
        name: As it is written in the archive.
        start: Where it begins: its header in a zip, its data in a tar when that is not compressed.
        size: Bytes of the file.
    """

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class Archive:
    """What is packed in a file.

    Attributes:
        path: The file.
        members: Every file, by its name below the archive.
    """

    path: Path
    members: Mapping[str, Member]

    @cached_property
    def _entries(self) -> dict[str, list[str]]:
        """Names in each directory; hidden ones, and what macOS adds, are left out."""
        found: dict[str, dict[str, None]] = {".": {}}
        for member in self.members:
            parts = PurePosixPath(member).parts
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

    def begins(self, path: Path) -> int:
        """Return where a file begins."""
        return self.members[self._inside(path)].start

    def _inside(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    @contextmanager
    def reading(self) -> Iterator[Opener]:
        """Give a function that opens files of the archive as streams, one at a time."""
        kind = kind_of(self.path)
        with ExitStack() as stack:
            reader: _Reader | None = None

            def opener(path: Path) -> IO[bytes]:
                nonlocal reader
                try:
                    if reader is None:
                        made: _Reader = _Zip(self.path) if kind == "zip" else _Tar(self.path, kind or "")
                        reader = stack.enter_context(made)
                    return cast(IO[bytes], reader.open(self.members[self._inside(path)]))
                except _BROKEN as error:
                    if isinstance(error, OSError) and error.errno is not None:
                        raise SourceError(f"cannot be read ({error.strerror})", file=self.path) from error
                    raise SourceError(
                        f"cannot be unpacked ({_reason(error)}); {_REMEDY}", file=path
                    ) from error

            yield opener


def listed(path: Path) -> Archive:
    """List an archive.

    Raises:
        SourceError: It is damaged, or a member is a link, a device or encrypted, has a name that leads out of
            the archive, or is there twice.
    """
    kind = kind_of(path)
    members: dict[str, Member] = {}
    try:
        with path.open("rb") as raw:
            found = _zip_members(raw, path) if kind == "zip" else _tar_members(raw, kind or "", path)
            for member in found:
                inside = _inside(member.name, path)
                if not inside or inside in members:
                    raise SourceError(f"holds {_shown(member.name)} twice; {_REMEDY}", file=path)
                members[inside] = member
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceError(f"truncated or corrupt archive ({_reason(error)}); {_REMEDY}", file=path) from error
    return Archive(path, members)


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _shown(name: str) -> str:
    return repr(name.encode("utf-8", "backslashreplace").decode())


def _inside(name: str, path: Path) -> str:
    """Return a member's name without ``./``; refuse one that leads elsewhere."""
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    if slashed.startswith("/") or re.match("[A-Za-z]:", slashed) or ".." in parts:
        raise SourceError(f"member {_shown(name)} leads out of the archive; {_REMEDY}", file=path)
    return "/".join(parts)


def _refuse(name: str, what: str, path: Path) -> None:
    raise SourceError(f"member {_shown(name)} {what}", file=path)


def _zip_members(raw: IO[bytes], path: Path) -> Iterable[Member]:
    with zipfile.ZipFile(raw) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(info.filename, "is a link or a device; pack plain files", path)
            if info.is_dir():
                _inside(info.filename, path)
                continue
            if info.flag_bits & 1:
                _refuse(info.filename, "is encrypted; pack it without a password", path)
            if info.compress_type not in _ZIP_METHODS:
                _refuse(
                    info.filename, f"is compressed by method {info.compress_type}; pack it with deflate", path
                )
            yield Member(info.filename, info.header_offset, info.file_size)


def _tar_members(raw: IO[bytes], suffix: str, path: Path) -> Iterable[Member]:
    stream = OPENERS[suffix](raw) if suffix else raw
    # A compressed stream is read once, front to back; in a plain file tarfile leaps from header to header.
    with tarfile.open(fileobj=stream, mode="r|" if suffix else "r:", bufsize=_CHUNK_BYTES) as packed:
        for info in packed:
            if info.isdir():
                _inside(info.name, path)
                continue
            if not info.isreg() or info.issparse():
                _refuse(info.name, "is a link, a device or sparse; pack plain files", path)
            yield Member(info.name, info.offset_data, info.size)


# ---- Streams ----------------------------------------------------------------------------------------------


class _Reader(Protocol):
    def __enter__(self) -> "_Reader": ...
    def __exit__(self, *error: object) -> None: ...
    def open(self, member: Member) -> "_Stream": ...


class _Stream(io.RawIOBase):
    """A file of an archive; ``tell`` counts the archive's bytes, as stored, that were read for it."""

    def __init__(self, read: Callable[[int], bytes], raw: IO[bytes], begun: int) -> None:
        self._read, self._raw, self._begun = read, raw, begun

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK_BYTES), b""))
        try:
            return self._read(size)
        except _BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DamagedArchiveError(
                f"truncated or corrupt archive ({_reason(error)}); {_REMEDY}"
            ) from error

    read1 = read

    def tell(self) -> int:
        return max(0, self._raw.tell() - self._begun)


class _Zip:
    """Files of a zip."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        self._packed = zipfile.ZipFile(self._raw)

    def __enter__(self) -> "_Zip":
        return self

    def __exit__(self, *error: object) -> None:
        self._packed.close()
        self._raw.close()

    def open(self, member: Member) -> _Stream:
        """Open a file; its checksum is compared at its end."""
        packed = cast(zipfile.ZipExtFile, self._packed.open(member.name))
        return _Stream(packed.read1, self._raw, member.start)


class _Tar:
    """Files of a tar, of which one stream is read."""

    def __init__(self, path: Path, suffix: str) -> None:
        self._path, self._suffix = path, suffix
        self._raw: IO[bytes] = path.open("rb")
        self._stream: Any = None
        self._at = 0

    def __enter__(self) -> "_Tar":
        return self

    def __exit__(self, *error: object) -> None:
        self._stream = None
        self._raw.close()

    def open(self, member: Member) -> _Stream:
        """Open a file, going on from where the last one was left, or from the beginning."""
        begun = self._reach(member.start)
        left = member.size

        def read(most: int) -> bytes:
            nonlocal left
            if not (most := min(most, left)):
                return b""
            data = self._take(most)
            left -= len(data)
            return data

        return _Stream(read, self._raw, begun)

    def _reach(self, start: int) -> int:
        """Move to a place in the tar; return the place in the file from which that was done."""
        if not self._suffix:
            self._stream = self._raw
            return self._raw.seek(start)
        if self._stream is None or start < self._at:
            # A zstd stream closes its file when it is collected, so each begins with a file of its own.
            self._stream = None
            self._raw.close()
            self._raw, self._at = self._path.open("rb"), 0
            self._stream = OPENERS[self._suffix](self._raw)
        begun = self._raw.tell()
        while self._at < start:
            self._take(min(_CHUNK_BYTES, start - self._at))
        return begun

    def _take(self, most: int) -> bytes:
        data = bytes(self._stream.read(most))
        if not data:
            raise EOFError("it ends inside this file")
        self._at += len(data)
        return data
