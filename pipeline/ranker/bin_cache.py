"""Binned training splits of a run: made when a training first asks for them, good until the rows change.

They are no result. Whoever deletes them loses time: what a training needs is made again.
"""

import fcntl
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.core.files import atomic_write, sha256, storage_errors
from pipeline.ranker import binning
from pipeline.ranker.fit import bin_rows, parameters

if TYPE_CHECKING:
    from pipeline.core.config import RankerConfig

WORTH: Final = 16_000_000
"""Values (rows times features) from which keeping the bins of a split pays."""


def binned_split(files: Sequence[Path], at: Path, *, config: "RankerConfig", threads: int) -> Path:
    """Return LightGBM's binary file of a split; it is made if it is missing, damaged or of other rows or settings.

    Threads and processes that ask for the same bins at once wait for the first to make them.

    Args:
        files: Parts of the split.
        at: Directory to keep the bins in.
        config: The ranker's settings.
        threads: Threads to bin with; the bytes do not depend on it.

    Raises:
        TrainingError: LightGBM could not bin the rows.
        StorageError: The directory cannot be written.
    """
    bins, card = at / "bins.bin", at / "bins.json"
    key = _key(files, config)
    with storage_errors(at):
        at.mkdir(parents=True, exist_ok=True)
        lock = (at / ".lock").open("ab")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_good(bins, card, key):
            with atomic_write(bins, card) as [new_bins, new_card]:
                bin_rows(files, new_bins, config=config, threads=threads)
                content = {"key": key, "sha256": sha256(new_bins)}
                new_card.write_text(json.dumps(content), encoding="utf-8")
    return bins


def _key(files: Sequence[Path], config: "RankerConfig") -> str:
    """Return what identifies the bins: the rows in their order, the settings, LightGBM's version."""
    identity = {
        "files": [sha256(file) for file in files],
        "settings": binning.settings(parameters(config, seed=0)),
        "lightgbm": version("lightgbm"),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _is_good(bins: Path, card: Path, key: str) -> bool:
    # LightGBM would train on a damaged file without a word.
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
        return bool(content == {"key": key, "sha256": sha256(bins)})
    except (OSError, ValueError):
        return False
