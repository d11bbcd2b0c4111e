"""What a run takes from its surroundings: its default directory and the machine's processors."""

import os
from pathlib import Path


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_root(source: Path) -> Path:
    """Return ``runs/<name of SOURCE>``: the directory's name, or the file's without its suffixes."""
    name = source.resolve().name
    return Path("runs") / (name if source.is_dir() else name.split(".")[0] or name)
