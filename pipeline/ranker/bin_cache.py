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

from pipeline.core.files import atomic_write, sha256
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


def binned_split(files: Sequence[Path], at: Path, *, config: "RankerConfig", threads: int) -> Path:
    """Return the binary file of a split, made if it is not there."""
    at.parent.mkdir(parents=True, exist_ok=True)
    with (at.parent / ".bins.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        key = _key(files, config)
        if not _is_good(at, key):
            with atomic_write(at) as [made]:
                made.mkdir()
                bin_rows(files, made / _BINS, config=config, threads=threads)
                card = {"key": key, "sha256": sha256(made / _BINS)}
                (made / _CARD).write_text(json.dumps(card), encoding="utf-8")
    return at / _BINS


def _key(files: Sequence[Path], config: "RankerConfig") -> str:
    of = {
        "files": [sha256(file) for file in files],
        "settings": binned.settings(parameters(config, seed=0)),
        "lightgbm": version("lightgbm"),
    }
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def _is_good(at: Path, key: str) -> bool:
    try:
        card = json.loads((at / _CARD).read_text(encoding="utf-8"))
        return bool(card == {"key": key, "sha256": sha256(at / _BINS)})
    except (OSError, ValueError):
        return False
