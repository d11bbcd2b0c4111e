"""Which queries train, validate and test: a source's layout turned into folds, and queries assigned to groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import SourceError

PARTITIONS = ("S1", "S2", "S3", "S4", "S5")


@dataclass(frozen=True)
class Fold:
    """One train/vali/test arrangement: the splits of the dataset to train on, to choose by and to report on."""

    number: int  # from 1
    train: tuple[str, ...]
    vali: tuple[str, ...]
    test: tuple[str, ...]
    folds: int = 1  # how many there are

    @property
    def prefix(self) -> str:
        """What the paths and step names of the fold begin with; nothing for a source without folds."""
        return "" if self.folds == 1 else f"fold-{self.number}/"

    def __str__(self) -> str:
        return f"(fold {self.number})"


def rotation() -> list[Fold]:
    """Return LETOR's five folds over partitions S1..S5, rotating (Qin et al., LETOR, 2010).

    Fold i trains on three, validates on the fourth and tests on the fifth.
    """
    orders = [PARTITIONS[i:] + PARTITIONS[:i] for i in range(5)]
    return [Fold(i, order[:3], order[3:4], order[4:], folds=5) for i, order in enumerate(orders, start=1)]


def of_splits(splits: Sequence[str]) -> list[Fold]:
    """Return the folds that a dataset's split names describe."""
    if set(PARTITIONS) <= set(splits):
        return rotation()
    names = {name.partition("/")[0] for name in splits if name.startswith("Fold")}
    if not names:
        return [Fold(1, ("train",), ("vali",), ("test",))]
    numbers = sorted(int(name.removeprefix("Fold")) for name in names)
    return [
        Fold(n, (f"Fold{n}/train",), (f"Fold{n}/vali",), (f"Fold{n}/test",), folds=len(numbers))
        for n in numbers
    ]


def assign_groups(queries: int, groups: int, *, seed: int) -> npt.NDArray[np.int16]:
    """Assign queries at random to groups whose sizes differ by one at most: shape ``(queries,)``, from 0."""
    group = np.empty(queries, dtype=np.int16)
    group[np.random.default_rng(seed).permutation(queries)] = np.arange(queries) % groups
    return group


def split_queries(queries: int, shares: dict[str, float], *, seed: int, where: Any) -> npt.NDArray[np.int16]:
    """Split queries at random: each named share gets at least one, the rest is for training.

    Args:
        queries: Number of queries in the source.
        shares: Share of the queries per held-out split, in order.
        seed: Seed of the shuffle.
        where: The file, for the error message.

    Returns:
        For each query 0 for training, else the 1-based position of its split in ``shares``.

    Raises:
        SourceError: Too few queries for one in every split.
    """
    sizes = [max(1, round(share * queries)) for share in shares.values()]
    if sum(sizes) >= queries:
        what = f"{queries} queries are too few to hold out {' and '.join(shares)}; give separate files"
        raise SourceError(what, file=where)
    group = np.zeros(queries, dtype=np.int16)
    positions = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    group[np.random.default_rng(seed).permutation(queries)[: sum(sizes)]] = positions
    return group
