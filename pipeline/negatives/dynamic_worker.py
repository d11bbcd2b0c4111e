"""The worker process of :mod:`pipeline.negatives.dynamic`: training in rounds, each on a choice of its own."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core import tables
from pipeline.core.config import SelectConfig
from pipeline.core.errors import TableError
from pipeline.core.files import storage_errors
from pipeline.dataset import parts
from pipeline.evaluation.ndcg import ndcg
from pipeline.negatives import arms
from pipeline.negatives.select import Selector
from pipeline.negatives.training import Training
from pipeline.ranker.boosting import Ranker, Split, Validation
from pipeline.ranker.processes import Progress, training_facts, worker_main

Floats = npt.NDArray[np.float64]
Job = Mapping[str, Any]


def boost(job: Job) -> dict[str, Any]:
    """Train the ranker of a dynamic arm: it goes on growing on each choice."""
    task = _Task(job)
    ranker, score, rounds = task.new_ranker(), None, 0
    while ranker.trees < job["trees"] and not ranker.is_over:
        score = ranker.scores()
        rows, weight = task.selector.choose(score, round=rounds)
        number = min(task.arm.reselect_every or job["trees"], job["trees"] - ranker.trees)
        ranker.grow(rows, weight=weight, number=number)
        rounds += 1
    ranker.keep_best()
    return task.finish(ranker, ranked=task.ranked(score), rounds=rounds)


def retrain(job: Job) -> dict[str, Any]:
    """Train the rankers of an arm with rounds, each from nothing on what the last one added; the last is kept."""
    task = _Task(job)
    negative = task.rows["label"].to_numpy() == 0
    added_in = np.zeros(task.rows.height, dtype=np.uint8)  # the round, from 1, that first kept a negative
    ranker, score = task.new_ranker(), None
    for number in range(task.arm.rounds):
        score = ranker.scores()
        first_kept_round = pl.Series("first_kept_round", added_in).replace(0, None)
        earlier = first_kept_round if number else None
        rows, weight = task.selector.choose(score, round=number, first_kept_round=earlier)
        added_in[rows[negative[rows] & (added_in[rows] == 0)]] = number + 1
        ranker = task.new_ranker()
        ranker.grow(rows, weight=weight, number=job["trees"])
        ranker.keep_best()
    ranked = task.ranked(score).with_columns(first_kept_round)
    return task.finish(ranker, ranked=ranked, rounds=task.arm.rounds)


class _Task:
    """What both kinds of arms read and write: the split, its SCORES, the selector and the outputs."""

    def __init__(self, job: Job) -> None:
        self._began, self._job, self._progress = time.perf_counter(), job, Progress()
        self._files = [Path(file) for file in job["files"]]
        bins = None if job["bins"] is None else Path(job["bins"])
        self._split = Split(self._files, bins=bins, parameters=job["parameters"])
        self.rows = with_scores(self._split.keys, pl.read_parquet(job["scores"]), where=job["scores"])
        self.arm, config = arms.parse(job["arm"]), SelectConfig.model_validate(job["select"])
        training = Training.of_files(self._files) if self.arm.reads(config) else None
        self.selector = Selector(self.rows, self.arm, config=config, seed=job["seed"], training=training)
        self._validation = None
        if job["vali"]:
            self._validation = Validation(
                job["vali"], self._split, metric=self._mean_ndcg, patience=job["early_stopping"]
            )

    def _mean_ndcg(self, labels: npt.NDArray[Any], scores: Floats, offsets: npt.NDArray[np.int64]) -> float:
        found = ndcg(labels, scores, offsets, cutoffs=[self._job["cutoff"]])
        return 0.0 if np.isnan(found).all() else float(np.nanmean(found))

    def new_ranker(self) -> Ranker:
        """Return a ranker without trees."""
        return Ranker(self._split, self._validation, self._progress)

    def ranked(self, score: Floats | None) -> pl.DataFrame:
        """Return what a choice went by: SCORES with a ranker's scores, or those of the start."""
        return self.rows if score is None else self.rows.with_columns(score=score, fold=pl.lit(-1, pl.Int16))

    def finish(self, ranker: Ranker, *, ranked: pl.DataFrame, rounds: int) -> dict[str, Any]:
        """Write the model and what the last choice went by; returns the training's facts."""
        out, qid = Path(self._job["ranked"]), parts.schema_of(self._files).field("qid").type
        with storage_errors(out):
            schema = tables.scores(qid=qid, first_kept_round="first_kept_round" in ranked.columns)
            parts.write_table(out, ranked, schema)
        ranker.write(Path(self._job["model"]))
        return training_facts(self._began, trees=ranker.trees, rows=ranker.rows, rounds=rounds)


def with_scores(keys: pl.DataFrame, scores: pl.DataFrame, *, where: str) -> pl.DataFrame:
    """Return the rows of the training split, in their order, as SCORES.

    Raises:
        TableError: A row has no score.
    """
    rows = keys.join(scores.select("row_id", "score", "fold"), on="row_id", how="left", maintain_order="left")
    if without := rows["score"].null_count():
        raise TableError(f"{where}: {without:,} rows of the training split have no score; score again")
    return rows


if __name__ == "__main__":
    worker_main({"boost": boost, "retrain": retrain})
