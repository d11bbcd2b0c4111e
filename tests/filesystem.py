"""Disks that fail: a small one, and one that cannot be written."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(*, megabytes: int, read_only: bool = False) -> Iterator[Path]:
    """Mount a disk in memory and give its directory; the test is skipped where mounting is not permitted."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("mounting needs the superuser")
    with tempfile.TemporaryDirectory() as directory:
        options = f"size={megabytes}m,{'ro' if read_only else 'rw'}"
        made = subprocess.run(
            [mount, "-t", "tmpfs", "-o", options, "tmpfs", directory], capture_output=True, check=False
        )
        if made.returncode != 0:
            pytest.skip("mounting is not permitted here")
        try:
            yield Path(directory)
        finally:
            subprocess.run([umount, "--lazy", directory], check=True)


def fill(path: Path) -> None:
    """Write to ``path`` until its disk is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, b"\0" * 4096)
    except OSError:
        pass
    finally:
        os.close(descriptor)
