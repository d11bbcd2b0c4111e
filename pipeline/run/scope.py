"""What a step works on: a fold of a run, or an arm in it, under the run's settings.

Both are values that can be pickled. They answer where the files lie, what follows from the size of the data, and what
earlier steps found out; they read the dataset's card and records, and nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.config import Config, RankerConfig
from pipeline.core.errors import StorageError
from pipeline.core.paths import FoldPaths, RunPaths
from pipeline.core.records import Facts, Record, read_record
from pipeline.dataset import parts
from pipeline.dataset.folds import Fold, of_splits
from pipeline.negatives import grades
from pipeline.negatives.arms import BASELINE, Arm
from pipeline.ranker.bin_cache import WORTH
from pipeline.ranker.score import IN_SAMPLE


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

    def total(self, fold: Fold, key: str) -> int:
        """Return ``rows``, ``negatives`` or ``queries`` of a fold's training lists."""
        return sum(int(self.document["splits"][name][key]) for name in fold.train)


@dataclass(frozen=True)
class FoldScope:
    """A fold of a run.

    Attributes:
        run: The run.
        fold: The fold.
        config: Every setting.
    """

    run: RunPaths
    fold: Fold
    config: Config

    @property
    def paths(self) -> FoldPaths:
        """Where the files of the fold lie."""
        return self.run.fold(self.fold.prefix)

    @property
    def dataset(self) -> Dataset:
        """What the dataset holds."""
        return Dataset.of(self.run)

    def files(self, splits: Sequence[str]) -> list[Path]:
        """Return the Parquet parts of dataset splits."""
        return parts.split_files(self.run.dataset, splits)

    @property
    def train(self) -> list[Path]:
        """Parts of the training lists."""
        return self.files(self.fold.train)

    @property
    def cutoff(self) -> int:
        """The cutoff that decides: the last one."""
        return self.config.evaluate.cutoffs[-1]

    @property
    def early_stopping_lists(self) -> list[Path]:
        """Parts of the lists that rankers stop early on; none where they train all trees."""
        return self.files(self.fold.vali) if self.config.ranker.early_stopping else []

    @property
    def repeats(self) -> int:
        """How often the training queries are split into folds; 0: one ranker scores all, in-sample."""
        return self.config.score.repeats if self.config.score.scoring == "out-of-fold" else 0

    @property
    def initial_rankers(self) -> int:
        """The number of initial rankers."""
        return self.repeats * self.config.score.folds or 1

    @property
    def initial_models(self) -> list[Path]:
        """The initial rankers, those of the first repeat first."""
        numbers = range(self.initial_rankers) if self.repeats else [IN_SAMPLE]
        return [self.paths.initial_model(number) for number in numbers]

    @property
    def initial_settings(self) -> RankerConfig:
        """The settings of the initial rankers: few trees, all of them."""
        trees = min(self.config.score.trees or self.config.ranker.trees, self.config.ranker.trees)
        return self.ranker().model_copy(update={"early_stopping": 0, "trees": trees})

    @property
    def initial_rows(self) -> float:
        """About how many rows the initial rankers train on, in all."""
        score = self.config.score
        rows, negatives, queries = (
            self.dataset.total(self.fold, k) for k in ("rows", "negatives", "queries")
        )
        seen = min(negatives, max(negatives * score.negatives, score.negatives_at_least * queries))
        return (rows - negatives + seen) * (self.repeats * (score.folds - 1) or 1)

    def ranker(self, *, bags: int = 1) -> RankerConfig:
        """Return the settings of the fold's rankers, none unset; those of each ranker of so many bags."""
        return self.config.ranker.for_rows(self.dataset.total(self.fold, "rows")).in_a_bag(bags)

    @property
    def bins(self) -> Path | None:
        """Where the bins of the fold lie, if it is worth binning as a whole; other devices bin in their own way."""
        values = self.dataset.total(self.fold, "rows") * int(self.dataset.document["features"])
        return self.paths.bins if self.config.ranker.device == "cpu" and values >= WORTH else None

    @property
    def shared_bins(self) -> Path | None:
        """The bins that the initial rankers and `all` train on; None: they bin their own rows.

        They are shared where the initial rankers train on at least as many rows as the fold has, over all of them;
        with fewer, binning the rows of each ranker costs less. Which arms there are changes nothing.
        """
        return self.bins if self.initial_rows >= self.dataset.total(self.fold, "rows") else None


@dataclass(frozen=True)
class ArmScope:
    """An arm in a fold.

    Attributes:
        at: The fold.
        arm: The arm.
    """

    at: FoldScope
    arm: Arm

    def __str__(self) -> str:
        return f"{self.arm.name} (fold {self.at.fold.number})"

    def step(self, kind: str) -> str:
        """Return the name of a step of the arm."""
        return f"{self.at.fold.prefix}{kind}/{self.arm.name}"

    @property
    def model_record(self) -> Record | None:
        """The record of its training."""
        return read_record(self.at.run.root, self.step("model"))

    @property
    def selection(self) -> Facts | None:
        """What its selection found out; None before it was made."""
        again = self.arm.chooses_again
        record = self.model_record if again else read_record(self.at.run.root, self.step("selection"))
        if record is None:
            return None
        return record.facts.get("selection") if again else record.facts

    @property
    def keeps_everything(self) -> bool:
        """Whether it trains on the training split as it is; before its selection: whether it is `all`."""
        facts = self.selection
        return self.arm.name == BASELINE if facts is None else self.arm.keeps_everything(facts)

    @property
    def prepared(self) -> list[Path]:
        """The Parquet parts it trains on; those of the dataset for one that keeps every row."""
        if self.keeps_everything:
            return self.at.train
        return parts.split_files(self.at.paths.prepared(self.arm.name).parent, [self.arm.name])

    @property
    def bins(self) -> Path | None:
        """The bins it trains on, if it keeps every row and they are shared."""
        return self.at.shared_bins if self.keeps_everything else None

    @property
    def gains(self) -> list[float]:
        """The gain of each grade of a graded arm; empty for others."""
        return grades.gains(self.at.config.select.hard_gain) if self.arm.graded else []

    @property
    def rows(self) -> float:
        """About how many rows one of its rankers trains on: as many as it asks for.

        Each round of an arm with rounds asks for as many more; this is their mean.
        """
        total, fold = self.at.dataset.total, self.at.fold
        rows, negatives, queries = (total(fold, key) for key in ("rows", "negatives", "queries"))
        kept = self.arm.budget.expected(negatives=negatives, positives=rows - negatives, queries=queries)
        return rows - negatives + min(kept * (self.arm.rounds + 1) / 2, negatives)

    @property
    def cost(self) -> float:
        """The expected work of its trainings, in row-trees."""
        trees = self.at.config.ranker.in_a_bag(self.arm.bags).trees
        return self.arm.rounds * self.arm.bags * trees * self.rows


def in_folds(run: RunPaths, arm: Arm, config: Config) -> list[ArmScope]:
    """Return an arm in every fold of a run."""
    return [ArmScope(FoldScope(run, fold, config), arm) for fold in Dataset.of(run).folds]
