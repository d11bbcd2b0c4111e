"""LightGBM boosters driven tree by tree: rankers that change the rows they train on as they grow.

The split is binned once. A ranker grows in rounds, each a booster on rows of its own that starts from the scores of
the trees before it; the boosters' trees are merged into one model. (One booster whose training set is exchanged
grows the same trees, but scores each new set with every tree so far.)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.core.files import storage_errors
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.ranker import binning, datasets, trees

HELD_VALUES: Final = 16_000_000
"""Feature values to hold in memory between rounds: 64 MB. Of larger splits, what a round needs is read again."""

Floats = npt.NDArray[np.float64]
Metric = Callable[[npt.NDArray[Any], Floats, npt.NDArray[np.int64]], float]
"""Given labels, scores and the offsets of queries, returns how good the order is; higher is better."""


class Split:
    """A binned training split, from which rankers take their rows.

    Args:
        files: Parts of the split.
        bins: Its bins, from :func:`pipeline.ranker.binning.save`; None: it is binned here.
        parameters: LightGBM's parameters.

    Attributes:
        keys: ``row_id, qid, label`` of all rows, in order.
        data: All rows as a ``lightgbm.Dataset``.
    """

    def __init__(self, files: Sequence[Path], *, bins: Path | None, parameters: Mapping[str, Any]) -> None:
        self.parameters = dict(parameters)
        self._features = features_of(parts.schema_of(files).names)
        self._read = parts.reader(files, columns=["label", *self._features], most_values=HELD_VALUES)
        if bins is None:
            self.data = binning.build(files, parameters=parameters, read=self._read)
        else:
            self.data = binning.load(bins, parameters)
        self.keys = parts.read_keys(files)
        sizes = self.keys["qid"].rle().struct.field("len").to_numpy()
        self._offsets = np.append(0, np.cumsum(sizes, dtype=np.int64))

    def take(
        self, rows: npt.NDArray[np.int64], *, weight: npt.NDArray[np.float32], start: Floats | None
    ) -> Any:
        """Return rows, by ascending place, as a ``lightgbm.Dataset`` that boosts from the scores ``start``."""
        sizes = np.diff(np.searchsorted(rows, self._offsets)).astype(np.int32)
        taken = None if start is None else start[rows]
        return binning.take(self.data, rows, sizes[sizes > 0], weight=weight, start=taken)

    def add_trees(self, score: Floats | None, booster: Any, number: int) -> Floats:
        """Return the score of each row plus what the first trees of a booster give it.

        Args:
            score: One per row of the split; None: 0.
            booster: A booster on rows of the split; it may lose its other trees.
            number: How many trees.
        """
        total = np.zeros(self.keys.height) if score is None else score.copy()
        grown = trees.parse(booster.model_to_string(num_iteration=number), features=len(self._features))
        if grown is None:
            for _ in range(booster.current_iteration() - number):
                booster.rollback_one_iter()
            self.data.set_init_score(total)
            booster.add_valid(self.data, "split")
            return scores_of(booster, self.data)
        names = {feature: self._features[feature] for feature in sorted(trees.features_of(grown))}
        first = 0
        for table in self._read(["label", *names.values()]):
            columns = {feature: table[name].to_numpy() for feature, name in names.items()}
            trees.add(total[first : first + table.num_rows], grown, columns)
            first += table.num_rows
        return total


class Validation:
    """Validation lists to stop early on: training ends ``patience`` trees after the best metric.

    Args:
        files: Their Parquet parts.
        split: The training split, whose bins they share.
        metric: What to judge the ranker by.
        patience: Trees.
    """

    def __init__(self, files: Sequence[str], split: Split, *, metric: Metric, patience: int) -> None:
        frame, _ = datasets.read_rows(files)
        self.data = datasets.dataset(frame, split.parameters, split.data).construct()
        self.patience, self._metric, self._label = patience, metric, frame["label"].to_numpy()
        self._offsets = np.append(0, np.cumsum(datasets.query_sizes(frame["qid"]), dtype=np.int64))

    def judge(self, scores: Floats) -> float:
        """Return the metric of the lists."""
        return self._metric(self._label, scores, self._offsets)


class Ranker:
    """A LambdaMART ranker that grows round by round.

    Args:
        split: The training split.
        validation: Lists to stop early on.
        progress: Called with the number of new trees.

    Attributes:
        trees: Trees so far.
        rows: Rows that the last round trained on.
        is_over: Whether early stopping ended the training.
    """

    def __init__(self, split: Split, validation: Validation | None, progress: Callable[[int], None]) -> None:
        self._split, self._validation, self._progress = split, validation, progress
        self._boosters: list[Any] = []  # the trees of the rounds before, and the last round's
        self._score: Floats | None = None
        self._unscored = 0  # trees of the last round that are not in the score
        self._vali_score: Floats | None = None
        self._highest, self._best = -np.inf, 0
        self.trees, self.rows, self.is_over = 0, 0, False

    def grow(self, rows: npt.NDArray[np.int64], *, weight: npt.NDArray[np.float32], number: int) -> None:
        """Grow some trees on rows of the split, given by ascending place; fewer if early stopping says so."""
        import lightgbm

        train_set = self._split.take(rows, weight=weight, start=self.scores())
        booster = lightgbm.Booster(dict(self._split.parameters), train_set)
        if self._validation is not None:
            if self._vali_score is not None:
                self._validation.data.set_init_score(self._vali_score)
            booster.add_valid(self._validation.data, "vali")
        self._boosters.append(booster)
        self.rows = len(rows)
        while self._unscored < number and not self.is_over:
            booster.update()
            self._unscored += 1
            self.trees += 1
            self._progress(1)
            self._watch(booster)

    def _watch(self, booster: Any) -> None:
        """Note the best number of trees, and whether to stop."""
        if self._validation is None:
            self._best = self.trees
            return
        self._vali_score = scores_of(booster, self._validation.data)
        found = self._validation.judge(self._vali_score)
        if found > self._highest:
            self._highest, self._best = found, self.trees
        self.is_over = self.trees - self._best >= self._validation.patience

    def keep_best(self) -> None:
        """Drop the trees after the best; no more may follow."""
        self._unscored -= self.trees - self._best
        self.trees = self._best

    def scores(self) -> Floats | None:
        """Return the scores of the split's rows by the trees so far; None without trees."""
        if self._unscored > 0:
            self._score = self._split.add_trees(self._score, self._boosters[-1], self._unscored)
            self._unscored = 0
            self._boosters = [merge(self._boosters)]
        return self._score

    def write(self, path: Path) -> None:
        """Write the model, as the last thing done with the ranker; raises ``StorageError`` if it cannot be."""
        write_model(path, merge(self._boosters), self.trees)


def scores_of(booster: Any, data: Any) -> Floats:
    """Return the scores that a booster keeps of one of its validation sets."""
    found: list[Floats] = []

    def take(scores: Floats, _: Any) -> list[Any]:
        found.append(scores.copy())
        return []

    booster.eval(data, "scores", take)
    return found[0]


def merge(boosters: Sequence[Any]) -> Any:
    """Return the last booster with the trees of all, in order; its scores become the sum."""
    from lightgbm.basic import _LIB, _safe_call  # type: ignore[attr-defined]

    for earlier in reversed(boosters[:-1]):
        _safe_call(_LIB.LGBM_BoosterMerge(boosters[-1]._handle, earlier._handle))  # puts them before its own
    return boosters[-1]


def write_model(path: Path, booster: Any, kept: int) -> None:
    """Write a booster's first ``kept`` trees as LightGBM's text.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage_errors(path):
        path.write_text(booster.model_to_string(num_iteration=kept), encoding="utf-8")
