"""Files that appear whole or not at all, and their SHA-256."""

import contextlib
import errno
import hashlib
import json
import os
import re
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from pipeline.core.errors import ConfigError, StorageError

_TEMPORARY = re.compile(r"(?:^|(?<=/))\.(?P<name>[^/]+)\.tmp-\d+-\d+(?P<kind>-\w+)?")
"""``.NAME.tmp-PROCESS-THREAD``: a file in the making; with ``-old``, one that is making way for its successor."""


@contextlib.contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turn an ``OSError`` about ``where`` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        what = {
            errno.ENOSPC: "the disk is full; free some space and run again, finished steps are kept",
            errno.EDQUOT: "the disk quota is used up; free some space and run again, finished steps are kept",
            errno.EACCES: "permission denied; choose a directory you can write with --out",
            errno.EPERM: "operation not permitted; choose a directory you can write with --out",
            errno.EROFS: "the file system is read-only; choose another directory with --out",
            errno.ENOENT: "cannot be made here; choose another directory with --out",
            errno.ENOTDIR: "a part of this path is a file, not a directory; choose another one with --out",
        }.get(error.errno or 0, error.strerror or str(error))
        # The user knows the file by the name it would have had.
        about = _TEMPORARY.sub(r"\g<name>", str(error.filename or where))
        raise StorageError(f"{about}: {what}") from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file, or every file below a directory, to the disk."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _replace(made: Path, path: Path) -> None:
    """Put ``made`` in the place of ``path``; a directory that was there goes only once its successor is in."""
    if not path.is_dir():
        made.replace(path)
        return
    old = made.with_name(made.name + "-old")
    path.replace(old)
    try:
        made.replace(path)
    except BaseException:
        old.replace(path)
        raise
    _remove(old)


@contextlib.contextmanager
def atomic_write(*paths: Path) -> Iterator[list[Path]]:
    """Give a temporary path beside each of ``paths``; on success they take their places, else they vanish.

    The body writes a file or makes a directory at each temporary path. The last good outputs stay until
    every new one is complete and on the disk.

    Raises:
        StorageError: The disk is full or the directory cannot be written.
    """
    mark = f"{os.getpid()}-{threading.get_ident()}"
    made = [path.with_name(f".{path.name}.tmp-{mark}") for path in paths]
    with storage_errors(paths[0]):
        try:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            yield made
            for temporary in made:
                _sync(temporary)
            for temporary, path in zip(made, paths, strict=True):
                _replace(temporary, path)
        finally:
            for temporary in made:
                _remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically; one that already says so stays untouched."""
    with storage_errors(path):
        if path.is_file() and path.read_bytes() == text.encode():
            return
    with atomic_write(path) as [temporary]:
        temporary.write_text(text, encoding="utf-8")


def remove_temporaries(directory: Path) -> None:
    """Remove what an earlier, killed run left half-written below ``directory``.

    A directory that was making way for a successor which never came is put back.
    """
    for leftover in list(directory.rglob(".*.tmp-*")):
        match = _TEMPORARY.fullmatch(leftover.name)
        if match is None:
            continue
        path = leftover.with_name(match["name"])
        if match["kind"] == "-old" and leftover.exists() and not path.exists():
            leftover.replace(path)
        else:
            _remove(leftover)


def require_replaceable(out: Path, *, card: str) -> None:
    """Raise unless ``out`` may be replaced: nothing is there, or only what an earlier command made.

    Args:
        out: The directory to make.
        card: Name of the JSON file in it whose ``files`` lists what that command made.

    Raises:
        ConfigError: It is a file, or holds something else.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out}: a file; name a directory with --out")
    there = {entry.name for entry in out.iterdir()}
    try:
        ours = set(json.loads((out / card).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if foreign := sorted(there - ours):
        names = ", ".join(foreign[:3])
        raise ConfigError(f"{out}: holds other files ({names}); name a new directory with --out")


_SETTLED_NS: Final = 100_000_000
"""A file changed this recently may change again within one tick of the file system's clock."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hex digits; a file that stays as it is is read once per process."""
    status = path.stat()
    settled = time.time_ns() - status.st_mtime_ns >= _SETTLED_NS
    digest = _digest if settled else _digest.__wrapped__
    return digest(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=65_536)
def _digest(path: Path, *_status: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def forget_peak_memory() -> None:
    """Let :func:`peak_memory_mb` count from now on, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mb() -> int:
    """Return the highest resident memory of this process so far, or since it was forgotten, in MB."""
    # ru_maxrss would count the parent's memory for a child that was just started.
    with contextlib.suppress(OSError), Path("/proc/self/status").open(encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
