"""The lock on a run's directory: one run at a time."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pipeline.core.errors import BusyError
from pipeline.core.files import remove_temporaries, storage_errors


@contextlib.contextmanager
def lock_run(directory: Path, *, command: str, clock: Callable[[], datetime] | None = None) -> Iterator[None]:
    """Hold ``directory`` for one run; the system releases it even when the process is killed.

    Raises:
        BusyError: Another process holds it; the message says which, since when and what it runs.
        StorageError: The directory cannot be made or written.
    """
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that a full disk is noticed here and not at some later close.
        stream = (directory / ".lock").open("ab", buffering=0)
    now = (clock or (lambda: datetime.now(UTC)))()
    holder = {"pid": os.getpid(), "since": f"{now:%Y-%m-%d %H:%M:%S} UTC", "command": command}
    with stream:
        with storage_errors(directory):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(f"{directory}: {_holder(directory / '.lock')}") from None
            # Space first: what an earlier run left behind may be what fills the disk.
            remove_temporaries(directory)
            stream.truncate(0)
            stream.write(json.dumps(holder).encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                stream.truncate(0)


def _holder(lock: Path) -> str:
    try:
        held = json.loads(lock.read_text(encoding="utf-8"))
        who = f"process {held['pid']} ({held['command']}) since {held['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return f"in use by {who}; wait for it to finish, or choose another directory with --out"
