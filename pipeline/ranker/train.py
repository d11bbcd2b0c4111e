"""PREPARED -> model: every arm's ranker is trained with the same settings and seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.config import RankerConfig
from pipeline.ranker.fit import Training, fit_all
from pipeline.ranker.processes import TreesDone


def run(
    files: Sequence[Path],
    model: Path,
    *,
    vali: Sequence[Path],
    config: RankerConfig,
    seed: int,
    cutoff: int,
    arm: str,
    bags: int = 1,
    gains: Sequence[float] = (),
    bins: Path | None = None,
    threads: int,
    trees_done: TreesDone | None = None,
) -> dict[str, Any]:
    """Train the ranker of ``arm`` on its prepared set and write the model; returns the training's facts.

    Args:
        files: Parts of the prepared set, or of the whole training split; for a bagged arm one for each bag.
        model: The model file to write.
        vali: Parts of the validation split, for early stopping where the settings ask for it.
        config: The settings of each ranker.
        seed: LightGBM's seed.
        cutoff: Rank at which the validation NDCG is cut.
        arm: The arm's name, for messages.
        bags: Rankers to train, each on one of ``files``; the model is their sum.
        gains: For a graded arm, the gain of each grade.
        bins: Binned features of ``files``, to save binning them.
        threads: Threads to train with; the model does not depend on it.
        trees_done: Called with the number of trees so far, over all rankers.
    """
    sets = [list(files)] if bags == 1 else [[file] for file in files]
    return fit_all(
        [Training(each, model) for each in sets],
        config=config,
        seed=seed,
        threads=threads,
        merged_model=model if bags > 1 else None,
        bins=bins,
        vali=vali,
        cutoff=cutoff,
        gains=gains,
        what=f"arm {arm!r}",
        trees_done=trees_done,
    )
