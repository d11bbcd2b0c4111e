"""Arms that choose again: by what their own ranker, so far, ranks high.

A dynamic arm chooses its negatives anew every so many trees: selective gradient boosting, SelGB
(Lucchese, Nardini, Perego, Orlando, Trani, "Selective Gradient Boosting for Effective Learning to Rank", SIGIR
2018). What the ranker has learned to rank low makes room for what it now ranks high, so that keeping only the
hardest does not leave it without easy negatives. The split is binned once, and each new tree scores it once. CPU
seconds of 100 trees in one thread (the least of three; of two for `all` of the last set), with reading and binning
and without:

========================================  ================  =================================  ==============
training split                            `all`             `mixed-10-guard75-dynamic10`       static arm
========================================  ================  =================================  ==============
cranfield, 114,721 rows, 12,356 kept       4.6    3.9        2.2    1.4                         0.9    0.7
nfcorpus, 295,878 rows, 47,957 kept       15.5   14.3        5.7    4.6                         3.0    2.7
made up, 300,000 rows, 34,601 kept        38.1   29.2       15.7    6.9                         6.3    5.2
========================================  ================  =================================  ==============

An arm with rounds trains one ranker after the other, each from nothing: what the ranker before it ranks high
is added to the negatives kept so far, and the budget bounds what a round adds. That is hard negative mining as
detectors are trained: Sung and Poggio, "Example-based learning for view-based human face detection", PAMI 1998;
Felzenszwalb, Girshick, McAllester, Ramanan, "Object Detection with Discriminatively Trained Part-Based Models",
PAMI 2010, section 4.4. Measured, it helps: NDCG@10, mean over folds, of `all`, of `false-positive-20-guard75` and
of that arm with three rounds.

================  =======================  =======================  =====================
set               validation               test                     share of rows
                  all     once    rounds   all     once    rounds   once    rounds
================  =======================  =======================  =====================
webis (ClueWeb)   .2697   .2826   .2957    .2604   .2672   .2709    34 %    49 %
cranfield         .4167   .3053   .4106    .4131   .3037   .4078    10 %    32 %
nfcorpus          .4096   .3157   .4041    .4386   .3539   .4408    21 %    47 %
ohsumed           .4516   .4063   .4497    .4355   .4047   .4445    44 %    63 %
MQ2008            .6981   .5961   .7063    .6945   .6056   .7031    28 %    40 %
================  =======================  =======================  =====================

Over one round that is +17 % on test, in the mean over the sets; over `all` +1.3 %, which no single set tells from
0 (z from -0.7 to +1.7). Three rankers take longer to train than `all` once, 1.4 to 1.8 times as long here.

The first choice goes by SCORES, the next ones by the scores of the ranker so far. Guards keep to SCORES: a
ranker scores the rows it trains on too well to tell which of its mistakes are mistakes of the labels. Each
choice draws afresh what it draws at random. The work is done in :mod:`pipeline.negatives.dynamic_worker`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.config import RankerConfig, SelectConfig
from pipeline.negatives.arms import Arm
from pipeline.ranker import processes as child
from pipeline.ranker.fit import parameters


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
    trees_done: child.TreesDone | None = None,
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
        trees_done: Told the number of trees so far, over all rankers.

    Returns:
        The training's facts: those of :func:`pipeline.ranker.train.run`, and ``rounds``, how often it chose. Trees and
        rows are those of the last ranker.

    Raises:
        TrainingError: LightGBM refused the data, failed or crashed.
        StorageError: A file cannot be read or written.
    """
    job = {
        "do": "boost" if arm.rounds == 1 else "retrain",
        "files": [str(file) for file in files],
        "scores": str(scores),
        "bins": None if bins is None else str(bins),
        "vali": [str(file) for file in vali] if config.early_stopping else [],
        "model": str(model),
        "ranked": str(ranked),
        "arm": arm.name,
        "select": select.model_dump(mode="json"),
        "parameters": {**parameters(config, seed=seed), "metric": "none"},
        "seed": seed,
        "trees": config.trees,
        "early_stopping": config.early_stopping,
        "cutoff": cutoff,
    }
    done = child.run(
        "pipeline.negatives.dynamic_worker", job, threads=threads, what=f"training arm {arm.name!r}",
        trees_done=trees_done,
    )  # fmt: skip
    return {**{key: done[key] for key in ("rows", "trees", "rounds", "peak_memory_mb")},
            "train_seconds": done["seconds"]}  # fmt: skip
