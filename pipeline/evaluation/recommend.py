"""METRICS of validation lists -> the arm to keep."""

import numpy as np

from pipeline.evaluation import paired
from pipeline.evaluation.paired import ALPHA
from pipeline.evaluation.panel import Panel, SplitNdcg


def recommend(
    panel: Panel,
    measured: SplitNdcg | None,
    *,
    prefer: str | None = None,
    cutoff: int = 10,
    seed: int,
    resamples: int = 10_000,
) -> str | None:
    """Return the arm to keep, from validation lists alone.

    The preferred arm is kept unless the arm with the best mean is more than two standard errors of their paired
    difference above it. Otherwise, of the arms within one standard error of the best mean (the
    one-standard-error rule of Breiman et al. 1984), the one with the fewest rows is kept. An arm that is
    significantly worse than `all` is never kept (p < 0.05, not adjusted: here a false alarm only costs rows).
    ``tests/bench/quality.md`` compares this rule with others on five sets.

    Args:
        panel: The arms.
        measured: Their NDCG on validation lists; None: there are none.
        prefer: The preferred arm; ignored if it is not among the arms.
        cutoff: The cutoff to decide at.
        seed: Seed of the sign vectors.
        resamples: Sign vectors of the randomisation test.

    Returns:
        The arm, or None when fewer than two validation queries have a relevant document, none was measured at
        ``cutoff``, or the arms are not `all` and at least one other.
    """
    if panel.baseline is None or len(panel.names) < 2:
        return None
    if measured is None or cutoff not in measured.cutoffs or len(measured.judged) < 2:
        return None
    values = measured.judged[:, measured.cutoffs.index(cutoff), :]
    means = values.mean(axis=0)
    gap = values[:, [int(np.argmax(means))]] - values
    mean_gap, error = gap.mean(axis=0), gap.std(axis=0, ddof=1) / np.sqrt(len(gap))
    to_all = values - values[:, [panel.baseline]]
    p = paired.sign_flip(to_all, seed=measured.seed(seed, "flip"), resamples=resamples)
    not_worse = (p >= ALPHA) | (means >= means[panel.baseline])
    if prefer in panel.names and (not_worse & (mean_gap <= 2 * error))[panel.names.index(prefer)]:
        return prefer
    candidates = np.flatnonzero(not_worse & (mean_gap <= error))
    # Fewest rows; then the better mean; then the earlier arm of the panel.
    best = np.lexsort((candidates, -means[candidates], panel.rows[candidates]))[0]
    return panel.names[int(candidates[best])]
