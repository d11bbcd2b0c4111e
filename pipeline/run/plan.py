"""What a run has to do, and how much work that is: initial rankers and arms, fold by fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.config import Config, RankerConfig
from pipeline.core.paths import fold_prefix
from pipeline.dataset.folds import Fold, of_splits
from pipeline.negatives.arms import Arm


@dataclass(frozen=True)
class Ahead:
    """Trainings to come.

    Attributes:
        what: What to call them.
        rankers: How many.
        work: Expected, in row-trees.
    """

    what: str
    rankers: int
    work: float


@dataclass(frozen=True)
class Event:
    """Something a watcher of the run may show.

    Attributes:
        step: The step's name, such as ``fold-1/model/top-20``.
        done: Work done since the step's last event, in row-trees (training) or bytes (reading).
        state: ``start``, ``advance``, ``done`` or ``kept`` (an earlier run's result is still good); ``ahead``
            where a search says what it trains next; ``wait`` and ``ready``
            where something takes time that is no step.
        ahead: What comes next, where a search says so.
    """

    step: str
    state: str
    done: float = 0.0
    ahead: Ahead | None = None


Observer = Callable[[Event], None]


@dataclass(frozen=True)
class FoldArm:
    """One arm in one fold."""

    fold: Fold
    arm: Arm

    def __str__(self) -> str:
        return f"{self.arm.name} (fold {self.fold.number})"


class Plan:
    """The trainings of a run.

    Args:
        splits: What ``dataset.json`` says of each split.
        config: Every setting.
        arms: The panel.
    """

    def __init__(
        self, splits: Mapping[str, Mapping[str, Any]], *, config: Config, arms: Sequence[Arm]
    ) -> None:
        self._splits, self._config, self.arms = splits, config, list(arms)
        self.folds = of_splits(list(splits))

    def prefix(self, fold: Fold) -> str:
        """Return what a fold's step names begin with; nothing for a source without folds."""
        return fold_prefix(fold.number, of=len(self.folds))

    def initial(self) -> list[Fold]:
        """Return the folds with initial rankers: all, or none where no arm needs scores."""
        return self.folds if any(arm.needs_scores for arm in self.arms) else []

    @property
    def repeats(self) -> int:
        """How often the training queries are split into folds; 0: one ranker scores all, in-sample."""
        return self._config.score.repeats if self._config.score.scoring == "out-of-fold" else 0

    def every_arm(self) -> list[FoldArm]:
        """Return every arm of every fold."""
        return [FoldArm(fold, arm) for fold in self.folds for arm in self.arms]

    def ranker(self, fold: Fold, arm: Arm | None = None) -> RankerConfig:
        """Return the settings of the rankers of a fold: of one, where an arm has several."""
        return self._config.ranker.for_rows(self.rows(fold)).in_a_bag(1 if arm is None else arm.bags)

    def initial_work(self) -> float:
        """Return the expected work of the initial rankers, in row-trees."""
        return self.initial_trees * sum(map(self.initial_rows, self.initial()))

    def work_of_arms(self) -> float:
        """Return the expected work of the arms' trainings, in row-trees."""
        return sum(self.arm_work(of) for of in self.every_arm())

    def arm_work(self, of: FoldArm) -> float:
        """Return the expected work of an arm's training, in row-trees."""
        return self.arm_trees(of) * self.arm_rows(of)

    def arm_trees(self, of: FoldArm) -> int:
        """Return the boosting rounds of an arm, over all its rankers."""
        ranker = self._config.ranker
        return of.arm.rounds * of.arm.bags * ranker.in_a_bag(of.arm.bags).trees

    @property
    def initial_trees(self) -> int:
        """Boosting rounds of an initial ranker."""
        return min(self._config.score.trees or self._config.ranker.trees, self._config.ranker.trees)

    def initial_rows(self, fold: Fold) -> float:
        """Return about how many rows the initial rankers of a fold train on, in all."""
        splits = [self._splits[name] for name in fold.train]
        negatives, queries = (sum(int(s[key]) for s in splits) for key in ("negatives", "queries"))
        least = self._config.score.negatives_at_least * queries
        seen = min(negatives, max(negatives * self._config.score.negatives, least))
        rows = self.rows(fold) - negatives + seen
        return rows * (self.repeats * (self._config.score.folds - 1) or 1)

    @property
    def initial_rankers(self) -> int:
        """Initial rankers of a fold."""
        return self.repeats * self._config.score.folds or 1

    def rows(self, fold: Fold) -> int:
        """Return the training rows of a fold."""
        return sum(int(self._splits[name]["rows"]) for name in fold.train)

    def arm_rows(self, of: FoldArm) -> float:
        """Return about how many rows a ranker of an arm trains on: as many as it asks for.

        Each round of an arm with rounds asks for as many more; this is their mean.
        """
        splits = [self._splits[name] for name in of.fold.train]
        rows, negatives, queries = (
            sum(int(s[key]) for s in splits) for key in ("rows", "negatives", "queries")
        )
        kept = of.arm.budget.expected(negatives=negatives, positives=rows - negatives, queries=queries)
        return rows - negatives + min(kept * (of.arm.rounds + 1) / 2, negatives)
