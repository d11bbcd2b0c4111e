"""METRICS -> SUMMARY: what each way to prepare the training set changed, how sure that is, what to keep.

Arms are compared on the same queries, paired, with every fold's lists pooled: in rotating partitions each
query stands in one test list. Differences to `all` (train on everything) are what a user asks about;
differences to `random` at the same fraction tell whether the choice of negatives did it or their number. A
run of named arms may hold neither: then each arm stands alone with its own figures.

The recommendation is made on validation lists alone, so the test figures of the recommended arm are those
of an arm chosen before looking.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core import tables
from pipeline.core.errors import TableError, did_you_mean
from pipeline.dataset import parts
from pipeline.evaluation import ndcg, paired
from pipeline.evaluation.paired import ALPHA
from pipeline.evaluation.verdict import BASELINE, verdict

__all__ = ["recommend", "summarise", "verdict"]

SPLITS: Final = ("vali", "test")
"""The splits compared; the place of a split here is part of its random seed."""

Floats = npt.NDArray[np.float64]

_ARMS: Final = ("arm", "control", "rows", "rows_fraction", "negatives_fraction", "train_seconds")


def summarise(
    metrics: pl.DataFrame,
    arms: pl.DataFrame,
    *,
    seed: int,
    resamples: int = 10_000,
    cutoff: int = 10,
    prefer: str | None = None,
) -> pl.DataFrame:
    """Compare every arm with `all` and with its random control, where the run holds them.

    Args:
        metrics: METRICS of every arm, any row order; splits other than ``vali`` and ``test`` are ignored.
        arms: One row per arm in panel order: ``arm``, ``control`` (the random arm at the same fraction, or
            null), ``rows`` (summed over folds), ``rows_fraction``, ``negatives_fraction``, ``train_seconds``.
        seed: Seed of all resampling.
        resamples: Bootstrap samples, and sign vectors of the randomisation test.
        cutoff: The cutoff :func:`recommend` decides at.
        prefer: The arm it prefers.

    Returns:
        SUMMARY, one row per split, cutoff and arm in that order. Without `all` its ``delta`` and what belongs
        to it are null. ``p_holm`` is adjusted over the arms other than `all` at one split and cutoff.
        ``recommended`` is the same on every row of an arm, and null when there is nothing to decide on.

    Raises:
        TableError: A missing column or arm, or arms that were not measured on the same queries.
    """
    panel = _panel(arms)
    compared = [
        _compare(lists, panel, split=split, seed=seed, resamples=resamples)
        for split in SPLITS
        if (lists := _lists(metrics, panel, split=split)) is not None
    ]
    chosen = recommend(metrics, arms, prefer=prefer, cutoff=cutoff, seed=seed, resamples=resamples)
    empty = pl.DataFrame(schema=_schema())
    known = arms.select("arm", "rows", "rows_fraction", "negatives_fraction", "train_seconds").with_columns(
        recommended=pl.lit(None, dtype=pl.Boolean) if chosen is None else pl.col("arm") == chosen
    )
    if not compared:
        return empty
    return (
        pl.concat(compared)
        .join(known, on="arm", how="left", maintain_order="left")
        .select(empty.columns)
        .cast(empty.schema)
    )


def recommend(
    metrics: pl.DataFrame,
    arms: pl.DataFrame,
    *,
    prefer: str | None = None,
    cutoff: int = 10,
    seed: int,
    resamples: int = 10_000,
) -> str | None:
    """Return the arm to keep, from validation lists alone.

    The arm with the best mean sets the mark. The preferred arm is kept unless the mark is more than two
    standard errors of their paired difference above it. Else, among the arms within one standard error of the
    mark (the one-standard-error rule of Breiman et al. 1984), the one with the fewest rows is kept. Never one
    that is significantly worse than `all` (p < 0.05, not adjusted: here a false alarm only costs rows).

    ``tests/bench/quality.md`` compares this rule with others on five sets.

    Args:
        metrics: As :func:`summarise`.
        arms: As :func:`summarise`.
        prefer: The preferred arm; None, or one that is not there: none.
        cutoff: The cutoff to decide at.
        seed: Seed of the sign vectors.
        resamples: Sign vectors of the randomisation test.

    Returns:
        The arm, or None when fewer than two validation queries have a relevant document, none was measured at
        ``cutoff``, or the arms are not `all` and at least one other: that an arm is the best of those trained
        does not say that preparing the data beats training on all of it.

    Raises:
        TableError: As :func:`summarise`.
    """
    panel = _panel(arms)
    lists = _lists(metrics, panel, split="vali")
    if panel.baseline is None or len(panel.names) < 2:
        return None
    if lists is None or cutoff not in lists.cutoffs or len(lists.judged) < 2:
        return None
    values = lists.judged[:, lists.cutoffs.index(cutoff), :]
    means = values.mean(axis=0)
    gap = values[:, [int(np.argmax(means))]] - values
    errors = gap.mean(axis=0), gap.std(axis=0, ddof=1) / np.sqrt(len(gap))
    near, not_far = errors[0] <= errors[1], errors[0] <= 2 * errors[1]
    p = paired.sign_flip(
        values - values[:, [panel.baseline]], seed=_seed(seed, "vali", "flip"), resamples=resamples
    )
    worse = (p < ALPHA) & (means < means[panel.baseline])
    if prefer in panel.names and (not_far & ~worse)[panel.names.index(prefer)]:
        return prefer
    candidates = np.flatnonzero(near & ~worse)
    # Fewest rows; then the better mean; then the earlier arm of the panel.
    best = np.lexsort((candidates, -means[candidates], panel.rows[candidates]))[0]
    return panel.names[int(candidates[best])]


@dataclass(frozen=True)
class _Panel:
    """The arms in order.

    Attributes:
        names: Of the arms.
        rows: Each arm trains on.
        baseline: Index of `all`; None where it was not trained.
        control: Each arm's index of its control, its own where there is none.
    """

    names: list[str]
    rows: npt.NDArray[np.int64]
    baseline: int | None
    control: npt.NDArray[np.int64]

    @property
    def reference(self) -> npt.NDArray[np.int64]:
        """Each arm's index of `all`, its own where there is none."""
        own = np.arange(len(self.names))
        return own if self.baseline is None else np.full_like(own, self.baseline)


@dataclass(frozen=True)
class _Lists:
    """NDCG of one split, (queries, cutoffs, arms), NaN for a query without a relevant document."""

    cutoffs: list[int]
    values: Floats

    @property
    def judged(self) -> Floats:
        """The queries with a relevant document."""
        return self.values[~np.isnan(self.values[:, 0, 0])]


def _panel(arms: pl.DataFrame) -> _Panel:
    """Read and check the arms."""
    tables.check(arms.columns, _ARMS, table="ARMS", where="compare")
    names: list[str] = arms["arm"].to_list()
    controls: list[str | None] = arms["control"].to_list()
    if len(set(names)) < len(names):
        raise TableError(f"compare: ARMS lists an arm twice: {', '.join(names)}")
    for name in (c for c in controls if c is not None):
        if name not in names:
            raise TableError(f"compare: ARMS needs the arm {name!r}.{did_you_mean(name, names)}")
    at = {name: i for i, name in enumerate(names)}
    control = np.array([at[c or name] for c, name in zip(controls, names, strict=True)], dtype=np.int64)
    return _Panel(names, arms["rows"].to_numpy().astype(np.int64), at.get(BASELINE), control)


def _lists(metrics: pl.DataFrame, panel: _Panel, *, split: str) -> _Lists | None:
    """Return a split's NDCG as an array whose queries are in key order, or None when it has no rows."""
    needed = ("arm", "split", "fold", "qid", "cutoff", "ndcg")
    tables.check(metrics.columns, needed, table="METRICS", where="compare")
    unknown = metrics.filter(~pl.col("arm").is_in(panel.names))["arm"]
    if len(unknown):
        name = str(unknown.min())
        raise TableError(f"compare: METRICS has an arm {name!r} ARMS lacks.{did_you_mean(name, panel.names)}")
    place = pl.DataFrame({"arm": panel.names, "place": range(len(panel.names))})
    rows = metrics.filter(split=split).join(place, on="arm").sort("fold", "qid", "cutoff", "place")
    if rows.is_empty():
        return None
    cutoffs: list[int] = rows["cutoff"].unique().sort().to_list()
    queries = rows.select("fold", "qid").unique().height
    shape = (queries, len(cutoffs), len(panel.names))
    if rows.height != np.prod(shape) or rows.select("fold", "qid", "cutoff", "place").is_duplicated().any():
        counts = dict(zip(panel.names, (rows["arm"].eq(name).sum() for name in panel.names), strict=True))
        raise TableError(
            f"compare: on {split} every arm needs {queries} queries x {len(cutoffs)} cutoffs, each once; "
            f"METRICS has {', '.join(f'{arm}: {count}' for arm, count in counts.items())} rows"
        )
    values = rows["ndcg"].cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(shape)
    if np.any(np.isnan(values) != np.isnan(values[:, :1, :1])):
        raise TableError(f"compare: on {split} a query has an NDCG under some arms or cutoffs and not others")
    return _Lists(cutoffs, values)


def _seed(seed: int, split: str, purpose: str) -> list[int]:
    """Return the seed of one kind of draw; it does not depend on what other splits hold."""
    return [seed, SPLITS.index(split), ("bootstrap", "flip").index(purpose)]


def _compare(lists: _Lists, panel: _Panel, *, split: str, seed: int, resamples: int) -> pl.DataFrame:
    """Return one split's rows of SUMMARY, without what ARMS knows."""
    judged = lists.judged
    n, shape = len(judged), lists.values.shape[1:]
    kinds = shape[0] * shape[1]
    rival = np.arange(shape[1]) != panel.reference
    controlled = np.arange(shape[1]) != panel.control
    to_all = judged - judged[:, :, panel.reference]
    to_random = judged - judged[:, :, panel.control]
    columns = np.concatenate([part.reshape(n, kinds) for part in (judged, to_all, to_random)], axis=1)
    low, high = paired.bootstrap(
        columns[:, : 2 * kinds], seed=_seed(seed, split, "bootstrap"), resamples=resamples
    )
    p = paired.sign_flip(columns[:, kinds:], seed=_seed(seed, split, "flip"), resamples=resamples)
    low, high, p = low.reshape(2, *shape), high.reshape(2, *shape), p.reshape(2, *shape)
    p_holm = np.full(shape, np.nan)
    p_holm[:, rival] = paired.holm(p[0][:, rival])
    statistics: dict[str, Floats] = {
        "ndcg": ndcg.mean(lists.values, empty=None),
        "ndcg_empty0": ndcg.mean(lists.values, empty=0.0),
        "ndcg_empty1": ndcg.mean(lists.values, empty=1.0),
        "low": low[0],
        "high": high[0],
        "delta": np.where(rival, ndcg.mean(to_all, empty=None), np.nan),
        "delta_low": np.where(rival, low[1], np.nan),
        "delta_high": np.where(rival, high[1], np.nan),
        "p": np.where(rival, p[0], np.nan),
        "p_holm": p_holm,
        "delta_random": np.where(controlled, ndcg.mean(to_random, empty=None), np.nan),
        "p_random": np.where(controlled, p[1], np.nan),
    }
    return pl.DataFrame(
        {
            "arm": panel.names * shape[0],
            "split": [split] * kinds,
            "cutoff": np.repeat(lists.cutoffs, shape[1]),
            "queries": [len(lists.values)] * kinds,
            "queries_empty": [len(lists.values) - n] * kinds,
            **{name: values.ravel() for name, values in statistics.items()},
        }
    ).with_columns(pl.col(*statistics).fill_nan(None))


def _schema() -> pl.Schema:
    """Return SUMMARY's schema in Polars' types."""
    frame = pl.from_arrow(tables.SUMMARY.empty_table())
    return frame.schema if isinstance(frame, pl.DataFrame) else pl.Schema()


def run(
    metrics: Path,
    arms: pl.DataFrame,
    out: Path,
    *,
    seed: int,
    resamples: int,
    cutoff: int,
    prefer: str | None = None,
) -> dict[str, Any]:
    """Read METRICS, write SUMMARY; returns the recommended arm."""
    summary = summarise(
        pl.read_parquet(metrics), arms, seed=seed, resamples=resamples, cutoff=cutoff, prefer=prefer
    )
    parts.write_table(out, summary, tables.SUMMARY)
    chosen = summary.filter(pl.col("recommended"))["arm"]
    return {"recommended": chosen[0] if len(chosen) else None}
