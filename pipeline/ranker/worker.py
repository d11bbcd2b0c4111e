"""The worker process of :mod:`pipeline.ranker.fit`: binning and training, where LightGBM may crash.

Run as ``python -m pipeline.ranker.worker``; :mod:`pipeline.ranker.processes` says how it is talked to.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.ranker import binning
from pipeline.ranker.boosting import merge, write_model
from pipeline.ranker.datasets import dataset, read_rows, training_set
from pipeline.ranker.processes import Progress, training_facts, worker_main

Job = Mapping[str, Any]


def train(job: Job) -> dict[str, Any]:
    """Train rankers, some concurrently: in threads, as LightGBM lets go of Python's lock."""
    import lightgbm  # noqa: F401 - before any thread would

    began, progress = time.perf_counter(), Progress()
    split = None if job["bins"] is None else binning.load(Path(job["bins"]), job["parameters"])

    def train_one(training: Job) -> tuple[Any, int, int]:
        try:
            progress(0)  # which raises if another ranker has failed
            train_set, rows = training_set(training, split, job["parameters"])
            booster, kept = _boost(job, train_set, progress)
            if job["merged_model"]:
                return booster, kept, rows
            write_model(Path(training["model"]), booster, kept)
        except Exception as error:
            progress.fail(error)
            raise
        return None, kept, rows

    with ThreadPoolExecutor(job["concurrent"]) as pool:
        boosters, trees, rows = zip(*pool.map(train_one, job["trainings"]), strict=True)
    if job["merged_model"]:
        write_model(Path(job["merged_model"]), merge(boosters), sum(trees))
    return training_facts(began, trees=sum(trees), rows=sum(rows))


def _boost(job: Job, train_set: Any, progress: Progress) -> tuple[Any, int]:
    """Return a ranker, as it is with early stopping at its best, and the number of its trees."""
    import lightgbm

    callbacks: list[Callable[..., Any]] = []
    valid = []
    if job["vali"]:
        valid = [dataset(read_rows(job["vali"])[0], job["parameters"], train_set)]
        callbacks.append(lightgbm.early_stopping(job["early_stopping"], verbose=False))
    callbacks.append(lambda _: progress(1))
    booster = lightgbm.train(
        job["parameters"], train_set, num_boost_round=job["trees"], valid_sets=valid, callbacks=callbacks
    )
    return booster, booster.current_iteration()


def bin_rows(job: Job) -> dict[str, Any]:
    """Bin the features of every row and write them as LightGBM's binary file."""
    began = time.perf_counter()
    split = binning.build([Path(file) for file in job["files"]], parameters=job["parameters"])
    binning.save(split, Path(job["bins"]))
    return training_facts(began, rows=split.num_data())


def probe(job: Job) -> dict[str, Any]:
    """Train one tree on eight rows."""
    import lightgbm

    frame = pl.DataFrame({"qid": [1] * 8, "label": [0, 1] * 4, "f1": pl.Series(range(8), dtype=pl.Float32)})
    lightgbm.train(job["parameters"], dataset(frame, job["parameters"]), num_boost_round=1)
    return {"works": True}


if __name__ == "__main__":
    worker_main({"train": train, "bin": bin_rows, "probe": probe})
