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
    """One train/vali/test arrangement; each entry names split directories of the dataset.

    Attributes:
        number: From 1.
        train: Splits to train on.
        vali: Splits to choose by.
        test: Splits to report on.
        folds: How many folds there are.
    """

    number: int
    train: tuple[str, ...]
    vali: tuple[str, ...]
    test: tuple[str, ...]
    folds: int = 1

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
    folds = []
    for i in range(5):
        order = [PARTITIONS[(i + j) % 5] for j in range(5)]
        folds.append(Fold(i + 1, tuple(order[:3]), (order[3],), (order[4],), folds=5))
    return folds


def of_splits(splits: Sequence[str]) -> list[Fold]:
    """Return the folds that a dataset's split names describe."""
    if set(PARTITIONS) <= set(splits):
        return rotation()
    numbers = sorted(
        {int(name.split("/")[0].removeprefix("Fold")) for name in splits if name.startswith("Fold")}
    )
    if numbers:
        return [
            Fold(n, (f"Fold{n}/train",), (f"Fold{n}/vali",), (f"Fold{n}/test",), folds=len(numbers))
            for n in numbers
        ]
    return [Fold(1, ("train",), ("vali",), ("test",))]


def assign_groups(queries: int, groups: int, *, seed: int) -> npt.NDArray[np.int16]:
    """Assign queries at random to groups whose sizes differ by one at most.

    Args:
        queries: Number of queries, in an order that does not depend on the machine.
        groups: Number of groups.
        seed: Seed of the shuffle.

    Returns:
        The group of each query, int16, shape ``(queries,)``.
    """
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
        raise SourceError(
            f"{queries} queries are too few to hold out {' and '.join(shares)}; give separate files",
            file=where,
        )
    order = np.random.default_rng(seed).permutation(queries)
    group = np.zeros(queries, dtype=np.int16)
    start = 0
    for position, size in enumerate(sizes, start=1):
        group[order[start : start + size]] = position
        start += size
    return group
