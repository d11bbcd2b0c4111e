"""Binned training splits of a run: made when a training first asks for them, good until the rows change.

They are no result. Whoever deletes them loses time: what a training needs is made again.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.core.files import Fingerprints, atomic_write
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.ranker import binning as binned
from pipeline.ranker.fit import bin_rows, parameters

if TYPE_CHECKING:
    from pipeline.core.config import RankerConfig

WORTH: Final = 16_000_000
"""Values (rows times features) from which keeping the bins of a split pays.

Four initial rankers on three quarters of 511,487 rows of 136 features took 54 CPU seconds each on rows and 43
on bins, which take 13 once, and 735 MB against 327; on 115,000 rows of 29 features, 4.7 against 4.1 and 1.9.
"""

_BINS: Final = "bins.bin"
_CARD: Final = "bins.json"


def are_worth_it(files: Sequence[Path]) -> bool:
    """Tell whether a split is so large that its bins are worth keeping."""
    return bool(parts.count_rows(files) * len(features_of(parts.schema_of(files).names)) >= WORTH)


class Bins:
    """Keeps binned splits; safe to use from several threads.

    Args:
        fingerprints: Of files, so that none is read twice.
        threads: Threads to bin with; the bytes do not depend on it.
    """

    def __init__(self, fingerprints: Fingerprints, *, threads: int) -> None:
        self._fingerprints, self._threads = fingerprints, threads
        self._lock = threading.Lock()

    def of(self, files: Sequence[Path], at: Path, *, config: "RankerConfig") -> Path:
        """Return the binary file of a split, made if it is not there, or is of other rows or settings.

        Args:
            files: Parts of the split.
            at: Directory to keep it in.
            config: The ranker's settings.

        Raises:
            TrainingError: LightGBM could not bin the rows.
            StorageError: The directory cannot be written.
        """
        with self._lock:
            key = self._key(files, config)
            if not self._is_good(at, key):
                with atomic_write(at) as [made]:
                    made.mkdir()
                    bin_rows(files, made / _BINS, config=config, threads=self._threads)
                    card = {"key": key, "sha256": self._fingerprints.file(made / _BINS)}
                    (made / _CARD).write_text(json.dumps(card), encoding="utf-8")
        return at / _BINS

    def _key(self, files: Sequence[Path], config: "RankerConfig") -> str:
        """Return what identifies the bins: the rows in their order, the settings, LightGBM's version."""
        of = {
            "files": [self._fingerprints.file(file) for file in files],
            "settings": binned.settings(parameters(config, seed=0)),
            "lightgbm": version("lightgbm"),
        }
        return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()

    def _is_good(self, at: Path, key: str) -> bool:
        # LightGBM would read a damaged file as it is, so its bytes are looked at, once per run.
        try:
            card = json.loads((at / _CARD).read_text(encoding="utf-8"))
            return bool(card == {"key": key, "sha256": self._fingerprints.file(at / _BINS)})
        except (OSError, ValueError):
            return False
