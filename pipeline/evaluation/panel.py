"""METRICS and the table of arms as arrays: which arms there are, and the NDCG of each on the same queries."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core import tables
from pipeline.core.errors import TableError, did_you_mean
from pipeline.evaluation.ndcg import Floats
from pipeline.evaluation.verdict import BASELINE

SPLITS: Final = ("vali", "test")
"""The splits compared; a split's place here is part of its random seed."""

Ints = npt.NDArray[np.int64]

_ARMS: Final = ("arm", "control", "rows", "rows_fraction", "negatives_fraction", "train_seconds")
_METRICS: Final = ("arm", "split", "fold", "qid", "cutoff", "ndcg")


@dataclass(frozen=True)
class Panel:
    """The arms in order: names, training rows, and whom each is compared with."""

    names: list[str]
    rows: Ints
    baseline: int | None
    """Index of `all`; None if it was not trained."""
    control: Ints
    """Index of each arm's random control; its own where there is none."""

    @property
    def reference(self) -> Ints:
        """Index of `all` for each arm; its own where `all` was not trained."""
        own = np.arange(len(self.names))
        return own if self.baseline is None else np.full_like(own, self.baseline)


@dataclass(frozen=True)
class SplitNdcg:
    """NDCG of one split, (queries, cutoffs, arms), NaN for a query without a relevant document."""

    split: str
    cutoffs: list[int]
    values: Floats

    @property
    def judged(self) -> Floats:
        """The values of the queries with a relevant document."""
        return self.values[~np.isnan(self.values[:, 0, 0])]

    def seed(self, seed: int, purpose: Literal["bootstrap", "flip"]) -> list[int]:
        """Return the seed of the split's draws for a purpose; it does not depend on other splits."""
        return [seed, SPLITS.index(self.split), ("bootstrap", "flip").index(purpose)]


def read_panel(arms: pl.DataFrame) -> Panel:
    """Return the arms of ARMS; :class:`TableError` if a column or control is missing, or an arm there twice."""
    tables.check(arms.columns, _ARMS, table="ARMS", where="compare")
    names: list[str] = arms["arm"].to_list()
    controls: list[str | None] = arms["control"].to_list()
    if len(set(names)) < len(names):
        raise TableError(f"compare: ARMS lists an arm twice: {', '.join(names)}")
    for name in controls:
        if name is not None and name not in names:
            raise TableError(f"compare: ARMS needs the arm {name!r}.{did_you_mean(name, names)}")
    index = {name: i for i, name in enumerate(names)}
    control = np.array([index[c or name] for c, name in zip(controls, names, strict=True)], dtype=np.int64)
    return Panel(names, arms["rows"].to_numpy().astype(np.int64), index.get(BASELINE), control)


def read_split(metrics: pl.DataFrame, panel: Panel, *, split: str) -> SplitNdcg | None:
    """Return one split's NDCG, queries in order of fold and id; None when METRICS has no row of it.

    Raises:
        TableError: A column is missing, an arm is unknown, or the arms were not measured on the same queries.
    """
    tables.check(metrics.columns, _METRICS, table="METRICS", where="compare")
    names = panel.names
    unknown = metrics.filter(~pl.col("arm").is_in(names))["arm"]
    if len(unknown):
        name = str(unknown.min())
        raise TableError(f"compare: METRICS has an arm {name!r} ARMS lacks.{did_you_mean(name, names)}")
    place = pl.DataFrame({"arm": names, "place": range(len(names))})
    rows = metrics.filter(split=split).join(place, on="arm").sort("fold", "qid", "cutoff", "place")
    if rows.is_empty():
        return None
    cutoffs: list[int] = rows["cutoff"].unique().sort().to_list()
    queries = rows.select("fold", "qid").unique().height
    shape = (queries, len(cutoffs), len(names))
    if rows.height != np.prod(shape) or rows.select("fold", "qid", "cutoff", "place").is_duplicated().any():
        counts = ", ".join(f"{name}: {rows['arm'].eq(name).sum()}" for name in names)
        raise TableError(
            f"compare: on {split} every arm needs {queries} queries x {len(cutoffs)} cutoffs, each once; "
            f"METRICS has {counts} rows"
        )
    values = rows["ndcg"].cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(shape)
    if np.any(np.isnan(values) != np.isnan(values[:, :1, :1])):
        raise TableError(f"compare: on {split} a query has an NDCG under some arms or cutoffs and not others")
    return SplitNdcg(split, cutoffs, values)
