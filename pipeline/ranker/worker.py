"""The child process of :mod:`pipeline.ranker.fit`: binning and training, where LightGBM may crash.

Run as ``python -m pipeline.ranker.worker``; see :mod:`pipeline.ranker.processes` for how it is talked to.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core.files import peak_memory_mb, storage_errors
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.ranker import binning as binned
from pipeline.ranker import processes as child
from pipeline.ranker.fit import MAX_QUERY_ROWS, Fit

Job = Mapping[str, Any]

HELD_VALUES: Final = 16_000_000
"""Values that are held to take the rows of several rankers out: 64 MB. Larger splits have bins, or are read
again for each ranker."""


def load(files: Sequence[str], rows: str | None, *, features: bool = True) -> tuple[pl.DataFrame, pl.Series]:
    """Read the rows to train on, a row group at a time, so that rows left out cost no memory.

    Args:
        files: Parquet parts.
        rows: Parquet file with a ``row_id`` column, of the rows to read; None: all.
        features: Whether to read them, or the keys and weights alone.

    Returns:
        The rows, and their places among all rows.
    """
    wanted = None if rows is None else pl.read_parquet(rows, columns=["row_id"])
    names = parts.schema_of([Path(file) for file in files]).names
    columns = names if features else [name for name in names if name not in features_of(names)]
    frames, first = [], 0
    for table in parts.row_groups(map(Path, files), columns=columns):
        frame = pl.DataFrame(table).with_columns(place=pl.int_range(first, first + table.num_rows))
        first += table.num_rows
        del table
        if wanted is not None:
            frame = frame.join(wanted, on="row_id", how="semi", maintain_order="left")
        frames.append(frame)
    frame = pl.concat(frames)
    return frame.drop("place"), frame["place"]


def query_sizes(qid: pl.Series) -> npt.NDArray[np.int32]:
    """Return the number of rows of each query, in order.

    Raises:
        ValueError: LightGBM does not take a query of so many rows.
    """
    runs = qid.rle()
    sizes = runs.struct.field("len").to_numpy().astype(np.int32)
    if len(sizes) and sizes.max() > MAX_QUERY_ROWS:
        at = int(sizes.argmax())
        query = runs.struct.field("value")[at]
        raise ValueError(
            f"query {query} has {sizes[at]} rows and LightGBM takes {MAX_QUERY_ROWS} at most; keep fewer negatives"
        )
    return sizes


def _weight(frame: pl.DataFrame) -> npt.NDArray[np.float32] | None:
    return frame["weight"].to_numpy() if "weight" in frame.columns else None


def _label(frame: pl.DataFrame, *, graded: bool) -> npt.NDArray[np.uint8]:
    """Return the labels, or the grades that a prepared set has or that labels stand for."""
    if not graded:
        return frame["label"].to_numpy()
    if "grade" in frame.columns:
        return frame["grade"].to_numpy()
    return frame.select(pl.col("label") + (pl.col("label") > 0)).to_series().to_numpy()


def dataset(frame: pl.DataFrame, parameters: Mapping[str, Any], reference: Any = None) -> Any:
    """Return a ``lightgbm.Dataset`` of rows in memory; where grades have gains, of graded rows."""
    import lightgbm

    return lightgbm.Dataset(
        frame.select(features_of(frame.columns)).to_arrow(),
        label=_label(frame, graded="label_gain" in parameters), group=query_sizes(frame["qid"]),
        weight=binned.unless_one(_weight(frame)), params=dict(parameters), reference=reference,
        free_raw_data=True,
    )  # fmt: skip


class Source:
    """What the rankers of a job train on: binned once where bins were made before, else read for each."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._full = None if job["bins"] is None else binned.load(Path(job["bins"]), job["parameters"])
        self._frame: pl.DataFrame | None = None
        trainings = job["trainings"]
        if self._full is None and len(trainings) > 1 and _read_the_same(trainings):
            self._frame, _ = load(trainings[0]["files"], None)

    def of(self, training: Job) -> tuple[Any, int]:
        """Return the rows to train on, binned, and their number."""
        files, rows = training["files"], training["rows"]
        if self._full is None:
            if self._frame is None:
                frame, _ = load(files, rows)
            else:
                wanted = pl.read_parquet(rows, columns=["row_id"])
                frame = self._frame.join(wanted, on="row_id", how="semi", maintain_order="left")
            data = dataset(frame, self._job["parameters"])
            data.construct()
            return data, frame.height
        frame, places = load(files, rows, features=False)
        at = None if rows is None else places.to_numpy()
        return binned.take(self._full, at, query_sizes(frame["qid"]), weight=_weight(frame)), frame.height


def _read_the_same(trainings: Sequence[Job]) -> bool:
    """Tell whether rankers train on parts of the same rows, few enough to be held while they do."""
    files = trainings[0]["files"]
    if any(one["files"] != files or one["rows"] is None for one in trainings):
        return False
    paths = [Path(file) for file in files]
    return bool(parts.count_rows(paths) * len(parts.schema_of(paths).names) <= HELD_VALUES)


class Progress:
    """Tells the parent the number of trees of all rankers, a few times a second; for several threads."""

    def __init__(self) -> None:
        self._told, self._trees, self._lock = 0.0, 0, threading.Lock()
        self._failed: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Let the other rankers fail, too, with the error of the first that did: they are wanted together."""
        self._failed = self._failed or error

    def __call__(self, trees: int) -> None:
        """Count more trees, and tell unless it was told just now; raises what was handed to :meth:`fail`."""
        if self._failed is not None:
            raise self._failed
        with self._lock:
            self._trees += trees
            if trees and (now := time.perf_counter()) - self._told > 0.2:
                child.tell(trees_done=self._trees)
                self._told = now


def train(job: Job) -> dict[str, Any]:
    """Train rankers, some side by side: their threads are those of LightGBM, which lets go of Python's lock."""
    import lightgbm  # noqa: F401 - before any thread would

    began = time.perf_counter()
    source, progress = Source(job), Progress()

    def one(training: Job) -> tuple[Any, int, int]:
        progress(0)
        booster, kept, rows = _boost(job, *source.of(training), progress=progress)
        if not job["together"]:
            write(Path(training["model"]), booster.model_to_string(num_iteration=kept))
            return None, kept, rows
        return _only(booster, kept), kept, rows

    def one_of_all(training: Job) -> tuple[Any, int, int]:
        try:
            return one(training)
        except Exception as error:
            progress.fail(error)
            raise

    with ThreadPoolExecutor(job["side_by_side"]) as pool:
        boosters, trees, rows = zip(*pool.map(one_of_all, job["trainings"]), strict=True)
    if job["together"]:
        for earlier in reversed(boosters[:-1]):
            put_before(boosters[-1], earlier)
        write(Path(job["together"]), boosters[-1].model_to_string())
    return asdict(fit(sum(trees), sum(rows), began))


def _boost(job: Job, data: Any, rows: int, *, progress: Progress) -> tuple[Any, int, int]:
    """Return a ranker, how many of its trees to keep, and the rows it trained on."""
    import lightgbm

    callbacks: list[Callable[..., Any]] = []
    valid = []
    if job["vali"]:
        valid = [dataset(load(job["vali"], None)[0], job["parameters"], data)]
        callbacks.append(lightgbm.early_stopping(job["early_stopping"], verbose=False))
    callbacks.append(lambda _: progress(1))
    booster = lightgbm.train(
        job["parameters"], data, num_boost_round=job["trees"], valid_sets=valid, callbacks=callbacks
    )
    return (
        booster,
        booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration(),
        rows,
    )


def _only(booster: Any, trees: int) -> Any:
    """Return the ranker with its first trees alone."""
    import lightgbm

    if trees == booster.current_iteration():
        return booster
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=trees))


def put_before(booster: Any, earlier: Any) -> None:
    """Put copies of the trees of ``earlier`` before those of ``booster``, whose scores become the sum."""
    from lightgbm.basic import _LIB, _safe_call  # type: ignore[attr-defined]

    _safe_call(_LIB.LGBM_BoosterMerge(booster._handle, earlier._handle))


def fit(trees: int, rows: int, began: float) -> Fit:
    """Return what there is to say of a training that began at a time of the performance counter."""
    return Fit(trees, rows, round(time.perf_counter() - began, 3), peak_memory_mb())


def write(path: Path, model: str) -> None:
    """Write a model.

    Raises:
        StorageError: It cannot be written.
    """
    with storage_errors(path):
        path.write_text(model, encoding="utf-8")


def bin_rows(job: Job) -> dict[str, Any]:
    """Bin the features of every row and write them as LightGBM's binary file."""
    began = time.perf_counter()
    data = binned.build([Path(file) for file in job["files"]], parameters=job["parameters"])
    binned.save(data, Path(job["bins"]))
    return {
        "rows": data.num_data(),
        "seconds": round(time.perf_counter() - began, 3),
        "peak_memory_mb": peak_memory_mb(),
    }


def probe(job: Job) -> dict[str, Any]:
    """Train one tree on eight rows."""
    import lightgbm

    frame = pl.DataFrame({"qid": [1] * 8, "label": [0, 1] * 4, "f1": pl.Series(range(8), dtype=pl.Float32)})
    lightgbm.train(job["parameters"], dataset(frame, job["parameters"]), num_boost_round=1)
    return {"works": True}


if __name__ == "__main__":
    child.serve({"train": train, "bin": bin_rows, "probe": probe})
