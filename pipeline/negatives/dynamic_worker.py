"""The child process of :mod:`pipeline.negatives.dynamic`: training in rounds, each on a choice of its own.

A round of a dynamic arm is a LightGBM booster of its own that starts from the scores of the trees before it;
the rounds' trees are put together in the end. The alternative, one booster whose training set is exchanged, gives
the same trees and scores the new training set with every tree so far, each time. A round of an arm with rounds
starts from nothing, and its last booster is the ranker.

The whole split is binned once. At the end of a round its trees, and no others, add to the scores of the whole
split (:mod:`pipeline.ranker.trees`), and the next round's rows are chosen by counting where the strategy allows it
(:mod:`pipeline.negatives.counting`) and copied out of the bins. What else a round costs is a booster of its own:
LightGBM makes a table for its objective, 16 CPU milliseconds whatever the rows.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core import tables
from pipeline.core.config import SelectConfig
from pipeline.core.errors import TableError
from pipeline.core.files import storage_errors
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.evaluation.ndcg import ndcg
from pipeline.negatives import arms, context
from pipeline.negatives.select import Selector
from pipeline.negatives.training import Training
from pipeline.ranker import binning as binned
from pipeline.ranker import processes as child
from pipeline.ranker import trees as tree_scores
from pipeline.ranker import worker as ranker_child

Floats = npt.NDArray[np.float64]
Job = Mapping[str, Any]


def boost(job: Job) -> dict[str, Any]:
    """Train the ranker of a dynamic arm."""
    began, progress = time.perf_counter(), ranker_child.Progress()
    files, rows, full, columns = _split(job)
    choices, watch = _Choices(job, rows, files), _Watch(job, full)
    last: Any = None
    score: Floats | None = None
    chosen_by: Floats | None = None
    trees, number = 0, 0
    while trees < job["trees"] and not watch.is_over:
        first, number = trees, trees // choices.every
        train = choices.take(full, score, number)
        chosen_by = score
        end = min(trees + choices.every, job["trees"])
        booster = _booster(job, train)
        watch.join(booster)
        while trees < end and not watch.is_over:
            booster.update()
            trees += 1
            progress(1)
            watch.look(booster, trees)
        if end < job["trees"] and not watch.is_over:
            score = scored(full, score, booster, end - first, columns)
        if last is not None:
            ranker_child.put_before(booster, last)
        last = booster
    _write_ranked(Path(job["ranked"]), rows, chosen_by, files)
    kept = watch.best or trees
    return _finish(job, last, kept, rows=choices.rows, rounds=number + 1, began=began)


def retrain(job: Job) -> dict[str, Any]:
    """Train the rankers of an arm with rounds, and keep the last."""
    began, progress = time.perf_counter(), ranker_child.Progress()
    files, rows, full, columns = _split(job)
    choices, watch = _Choices(job, rows, files), _Watch(job, full)
    score: Floats | None = None
    for number in range(choices.rounds):
        is_last = number == choices.rounds - 1
        if is_last:
            _write_ranked(Path(job["ranked"]), rows, score, files, first_kept_round=choices.first_kept_round)
        booster = _booster(job, choices.add(full, score, number))
        watch.start(booster)
        trees = 0
        while trees < job["trees"] and not watch.is_over:
            booster.update()
            trees += 1
            progress(1)
            watch.look(booster, trees)
        kept = watch.best or trees
        if not is_last:
            score = scored(full, None, booster, kept, columns)
    return _finish(job, booster, kept, rows=choices.rows, rounds=choices.rounds, began=began)


def _split(job: Job) -> tuple[list[Path], pl.DataFrame, Any, tree_scores.Columns]:
    """Return the parts of the training split, its rows as SCORES, and its features, binned and as they are."""
    files = [Path(file) for file in job["files"]]
    features = features_of(parts.schema_of(files).names)
    read = parts.reader(files, columns=["label", *features], most_values=tree_scores.HELD_VALUES)
    if job["bins"] is None:
        full = binned.build(files, parameters=job["parameters"], read=read)
    else:
        full = binned.load(Path(job["bins"]), job["parameters"])
    rows = with_scores(parts.read_keys(files), pl.read_parquet(job["scores"]), where=job["scores"])
    return files, rows, full, tree_scores.Columns(features, read, rows=rows.height)


def _finish(job: Job, booster: Any, trees: int, *, rows: int, rounds: int, began: float) -> dict[str, Any]:
    """Write the model, its first ``trees`` alone, and return the training's facts."""
    ranker_child.write(Path(job["model"]), booster.model_to_string(num_iteration=trees))
    return {**asdict(ranker_child.fit(trees, rows, began)), "rounds": rounds}


def with_scores(keys: pl.DataFrame, scores: pl.DataFrame, *, where: str) -> pl.DataFrame:
    """Return the rows of the training split, in their order, as SCORES.

    Raises:
        TableError: A row has no score.
    """
    rows = keys.join(scores.select("row_id", "score", "fold"), on="row_id", how="left", maintain_order="left")
    if without := rows["score"].null_count():
        raise TableError(f"{where}: {without:,} rows of the training split have no score; score again")
    return rows


class _Choices:
    """The rows to train on, round by round."""

    def __init__(self, job: Job, rows: pl.DataFrame, files: Sequence[Path]) -> None:
        arm, config = arms.parse(job["arm"]), SelectConfig.model_validate(job["select"])
        training = Training.of_files(files) if arm.reads(config) else None
        self._selector = Selector(rows, arm, config=config, seed=job["seed"], training=training)
        self._negative = rows["label"].to_numpy() == 0
        self._starts = np.append(context.run_starts(rows["qid"]), rows.height)
        self._since = np.zeros(rows.height, dtype=np.uint8)
        self.every, self.rounds = arm.reselect_every or job["trees"], arm.rounds
        self.rows = 0

    @property
    def first_kept_round(self) -> pl.Series:
        """The round, from 1, that first added a negative; null where none did."""
        return pl.Series("first_kept_round", self._since).replace(0, None)

    def take(self, full: Any, score: Floats | None, number: int) -> Any:
        """Return round ``number``'s rows, chosen by ``score`` and boosted from it."""
        return self._taken(full, *self._selector.choose(score, round=number), start=score)

    def add(self, full: Any, score: Floats | None, number: int) -> Any:
        """Return the rows of the rounds before ``number``, and those that ``score`` adds."""
        places, weight = self._selector.choose(
            score, round=number, first_kept_round=self.first_kept_round if number else None
        )
        new = places[self._negative[places] & (self._since[places] == 0)]
        self._since[new] = number + 1
        return self._taken(full, places, weight)

    def _taken(
        self, full: Any, places: npt.NDArray[np.int64], weight: npt.NDArray[np.float32],
        start: Floats | None = None,
    ) -> Any:  # fmt: skip
        self.rows = len(places)
        sizes = np.diff(np.searchsorted(places, self._starts)).astype(np.int32)
        start = None if start is None else start[places]
        return binned.take(full, places, sizes[sizes > 0], weight=weight, start=start)


def _booster(job: Job, train: Any) -> Any:
    """Return a booster on ``train``."""
    import lightgbm

    return lightgbm.Booster(dict(job["parameters"]), train)


def scored(full: Any, score: Floats | None, booster: Any, trees: int, columns: tree_scores.Columns) -> Floats:
    """Return the scores of the whole split: those it had, and what the first trees of a booster add.

    Args:
        full: The binned split.
        score: What its rows had before, in order; None: 0. It stays as it is.
        booster: A booster that trained on rows of ``full``; it may lose its other trees.
        trees: How many trees count.
        columns: Features of the split.
    """
    grown = tree_scores.of_booster(booster, trees)
    total = np.zeros(full.num_data()) if score is None else score.copy()
    if grown is not None and tree_scores.add(total, columns, grown):
        return total
    for _ in range(booster.current_iteration() - trees):
        booster.rollback_one_iter()
    full.set_init_score(total)
    booster.add_valid(full, "full")
    return scores_of(booster, full)


def scores_of(booster: Any, data: Any) -> Floats:
    """Return the scores that ``booster`` keeps of a validation set it has."""
    found: list[Floats] = []

    def take(scores: Floats, _: Any) -> list[Any]:
        found.append(scores.copy())
        return []

    booster.eval(data, "scores", take)
    return found[0]


class _Watch:
    """Early stopping on the validation lists; does nothing without any."""

    def __init__(self, job: Job, full: Any) -> None:
        self._patience, self._cutoff = job["early_stopping"], job["cutoff"]
        self._data: Any = None
        self._score: Floats | None = None
        self._highest = -np.inf
        self.best, self.is_over = 0, False
        if job["vali"]:
            frame, _ = ranker_child.load(job["vali"], None)
            self._data = ranker_child.dataset(frame, job["parameters"], full).construct()
            self._label = frame["label"].to_numpy()
            self._offsets = np.append(0, np.cumsum(ranker_child.query_sizes(frame["qid"]), dtype=np.int64))

    def start(self, booster: Any) -> None:
        """Follow a booster that starts from nothing."""
        self._score, self._highest, self.best, self.is_over = None, -np.inf, 0, False
        self.join(booster)

    def join(self, booster: Any) -> None:
        """Follow the next booster."""
        if self._data is not None:
            if self._score is not None:
                self._data.set_init_score(self._score)
            booster.add_valid(self._data, "vali")

    def look(self, booster: Any, trees: int) -> None:
        """Look at the validation NDCG of so many trees."""
        if self._data is None:
            return
        self._score = scores_of(booster, self._data)
        found = ndcg(self._label, self._score, self._offsets, cutoffs=[self._cutoff])
        mean = float(np.nanmean(found)) if not np.isnan(found).all() else 0.0
        if mean > self._highest:
            self._highest, self.best = mean, trees
        self.is_over = trees - self.best >= self._patience


def _write_ranked(
    out: Path,
    rows: pl.DataFrame,
    score: Floats | None,
    files: Sequence[Path],
    *,
    first_kept_round: pl.Series | None = None,
) -> None:
    """Write what the last choice went by: SCORES of the model so far, or those of the start."""
    ranked = rows if score is None else rows.with_columns(score=score, fold=pl.lit(-1, pl.Int16))
    ranked = ranked if first_kept_round is None else ranked.with_columns(first_kept_round)
    qid = parts.schema_of(files).field("qid").type
    with storage_errors(out):
        parts.write_table(out, ranked, tables.scores(qid=qid, first_kept_round=first_kept_round is not None))


if __name__ == "__main__":
    child.serve({"boost": boost, "retrain": retrain})
