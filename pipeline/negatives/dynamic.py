"""Arms that choose again: by what their own ranker, so far, ranks high.

A dynamic arm chooses its negatives anew after a fixed number of trees: selective gradient boosting, SelGB
(Lucchese, Nardini, Perego, Orlando, Trani, "Selective Gradient Boosting for Effective Learning to Rank", SIGIR
2018). What the ranker has learned to rank low makes room for what it now ranks high, so that keeping only the
hardest does not leave it without easy negatives.

An arm with rounds trains one ranker after the other, each from nothing: what the ranker before it ranks high
is added to the negatives kept so far, and the budget bounds what a round adds. That is hard negative mining as
detectors are trained: Sung and Poggio, "Example-based learning for view-based human face detection", PAMI 1998;
Felzenszwalb, Girshick, McAllester, Ramanan, "Object Detection with Discriminatively Trained Part-Based Models",
PAMI 2010, section 4.4. Measured results are in ``tests/bench/quality.md``.

The first choice goes by SCORES, the next ones by the scores of the ranker so far. Guards keep to SCORES: a
ranker scores the rows it trains on too well to tell which of its mistakes are mistakes of the labels. Each
choice draws afresh what it draws at random. The work is done in :mod:`pipeline.negatives.dynamic_worker`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.core.config import RankerConfig, SelectConfig
from pipeline.negatives.arms import Arm
from pipeline.ranker import processes
from pipeline.ranker.fit import parameters

_WORKER: Final = "pipeline.negatives.dynamic_worker"


def run(
    files: Sequence[Path],
    scores: Path,
    model: Path,
    ranked: Path,
    *,
    arm: Arm,
    select: SelectConfig,
    config: RankerConfig,
    seed: int,
    vali: Sequence[Path],
    cutoff: int,
    bins: Path | None,
    threads: int,
    trees_done: processes.TreesDone | None = None,
) -> dict[str, Any]:
    """Train the ranker of an arm that chooses again; write the model, and the scores its last choice went by.

    Args:
        files: Parts of the training split.
        scores: SCORES of its rows.
        model: The model file to write.
        ranked: SCORES to write: by the trees before the last choice, ``fold`` -1; with ``first_kept_round`` for an arm
            with rounds.
        arm: The arm.
        select: Parameters of the strategies.
        config: The ranker's settings.
        seed: LightGBM's seed, and that of the draws.
        vali: Parts of the validation split, for early stopping where the settings ask for it.
        cutoff: Rank at which the validation NDCG is cut.
        bins: Binned features of ``files``; None: they are binned for this training.
        threads: Threads to train with; neither file depends on it.
        trees_done: Called with the number of trees so far, over all rankers.

    Returns:
        The training's facts: those of :func:`pipeline.ranker.fit.fit_all`, and ``rounds``, how often it chose.
        Trees and rows are those of the last ranker.

    Raises:
        TrainingError: LightGBM refused the data, failed or crashed.
        StorageError: A file cannot be read or written.
    """
    job = {
        "do": "boost" if arm.rounds == 1 else "retrain",
        "files": list(files),
        "scores": scores,
        "bins": bins,
        "vali": list(vali) if config.early_stopping else [],
        "model": model,
        "ranked": ranked,
        "arm": arm.name,
        "select": select.model_dump(mode="json"),
        "parameters": {**parameters(config, seed=seed), "metric": "none"},
        "seed": seed,
        "trees": config.trees,
        "early_stopping": config.early_stopping,
        "cutoff": cutoff,
    }
    what = f"training arm {arm.name!r}"
    return processes.run(_WORKER, job, threads=threads, what=what, trees_done=trees_done)
