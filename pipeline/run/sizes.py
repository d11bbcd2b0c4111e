"""What a dataset holds, and what follows from its size: the rankers' settings and how much work there is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.config import Config, RankerConfig
from pipeline.core.errors import StorageError
from pipeline.core.paths import RunPaths
from pipeline.dataset.folds import Fold, of_splits
from pipeline.negatives.arms import Arm


@dataclass(frozen=True)
class FoldArm:
    """One arm in one fold."""

    fold: Fold
    arm: Arm

    def __str__(self) -> str:
        return f"{self.arm.name} (fold {self.fold.number})"


@dataclass(frozen=True)
class Dataset:
    """What ``dataset.json`` says.

    Attributes:
        document: All of it.
    """

    document: Mapping[str, Any]

    @classmethod
    def of(cls, run: RunPaths) -> "Dataset":
        """Read the card of a run's dataset.

        Raises:
            StorageError: It is not there, or damaged.
        """
        try:
            document = json.loads(run.dataset_card.read_text(encoding="utf-8"))
            of_splits(list(document["splits"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise StorageError(
                f"{run.dataset}: no readable dataset.json; run `ranksieve run SOURCE` again"
            ) from None
        return cls(document)

    @property
    def folds(self) -> list[Fold]:
        """The folds that its splits make."""
        return of_splits(list(self.document["splits"]))

    @property
    def notices(self) -> list[str]:
        """What a careful user should know of it."""
        return list(self.document["notices"])

    def total(self, fold: Fold, key: str) -> int:
        """Return ``rows``, ``negatives`` or ``queries`` of a fold's training lists."""
        return sum(int(self.document["splits"][name][key]) for name in fold.train)

    def values(self, fold: Fold) -> int:
        """Return rows times features of a fold's training lists."""
        return self.total(fold, "rows") * int(self.document["features"])


def ranker_of(dataset: Dataset, fold: Fold, config: Config, arm: Arm | None = None) -> RankerConfig:
    """Return the settings of a fold's rankers, none unset; those of each ranker, where an arm has several."""
    ranker = config.ranker.for_rows(dataset.total(fold, "rows"))
    return ranker.in_a_bag(1 if arm is None else arm.bags)


def repeats(config: Config) -> int:
    """Return how often the training queries are split into folds; 0: one ranker scores all, in-sample."""
    return config.score.repeats if config.score.scoring == "out-of-fold" else 0


def initial_rankers(config: Config) -> int:
    """Return the number of initial rankers of a fold."""
    return repeats(config) * config.score.folds or 1


def initial_trees(config: Config) -> int:
    """Return the boosting rounds of an initial ranker."""
    return min(config.score.trees or config.ranker.trees, config.ranker.trees)


def initial_rows(dataset: Dataset, fold: Fold, config: Config) -> float:
    """Return about how many rows the initial rankers of a fold train on, in all."""
    rows, negatives, queries = (dataset.total(fold, key) for key in ("rows", "negatives", "queries"))
    least = config.score.negatives_at_least * queries
    seen = min(negatives, max(negatives * config.score.negatives, least))
    return (rows - negatives + seen) * (repeats(config) * (config.score.folds - 1) or 1)


def initial_cost(dataset: Dataset, fold: Fold, config: Config) -> float:
    """Return the expected work of a fold's initial rankers, in row-trees."""
    return initial_rows(dataset, fold, config) * initial_trees(config)


def arm_rows(dataset: Dataset, fold: Fold, arm: Arm) -> float:
    """Return about how many rows a ranker of an arm trains on: as many as it asks for.

    Each round of an arm with rounds asks for as many more; this is their mean.
    """
    rows, negatives, queries = (dataset.total(fold, key) for key in ("rows", "negatives", "queries"))
    kept = arm.budget.expected(negatives=negatives, positives=rows - negatives, queries=queries)
    return rows - negatives + min(kept * (arm.rounds + 1) / 2, negatives)


def arm_cost(dataset: Dataset, fold: Fold, arm: Arm, config: Config) -> float:
    """Return the expected work of an arm's trainings, in row-trees."""
    trees = arm.rounds * arm.bags * config.ranker.in_a_bag(arm.bags).trees
    return trees * arm_rows(dataset, fold, arm)
