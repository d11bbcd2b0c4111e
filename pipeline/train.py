"""The prepared set -> a ranker: every arm is retrained with the same settings and seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import ranker
from pipeline.config import RankerConfig


def run(
    files: Sequence[Path],
    model: Path,
    *,
    vali: Sequence[Path],
    config: RankerConfig,
    seed: int,
    cutoff: int,
    arm: str,
    bins: Path | None = None,
    threads: int,
    trees_done: ranker.TreesDone | None = None,
) -> dict[str, Any]:
    """Train the ranker of ``arm`` on its prepared set and write the model; returns the training's facts.

    Args:
        files: Parts of the prepared set, or of the whole training split.
        model: The model file to write.
        vali: Parts of the validation split, for early stopping where the settings ask for it.
        config: The ranker's settings.
        seed: LightGBM's seed.
        cutoff: Rank at which the validation NDCG is cut.
        arm: The arm's name, for messages.
        bins: Binned features of ``files``, to save binning them.
        threads: Threads to train with; the model does not depend on it.
        trees_done: Told the number of trees so far.
    """
    fitted = ranker.fit(
        files, model, config=config, seed=seed, threads=threads, bins=bins, vali=vali, cutoff=cutoff,
        what=f"arm {arm!r}", trees_done=trees_done,
    )  # fmt: skip
    return {
        "rows": fitted.rows,
        "trees": fitted.trees,
        "train_seconds": fitted.seconds,
        "peak_memory_mb": fitted.peak_memory_mb,
    }
