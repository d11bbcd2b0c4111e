"""LambdaMART: fit in a child process, predict in this one.

Training runs in ``python -m pipeline.ranker``, which reads a job from its standard input and reports on its
standard output, a JSON line per event. If LightGBM takes the process down, the run gets an error message. The
child ends when its parent does.

Models do not depend on the thread count: histograms are built column by column
(``deterministic``, ``force_col_wise``) and the number of threads reaches LightGBM through the environment, so
that it is not written into the model file.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from pipeline import parts, store
from pipeline.errors import DeviceError, StorageError, TableError, TrainingError
from pipeline.tables import features_of

if TYPE_CHECKING:  # the child does without the settings' models, which take a while to import
    from pipeline.config import Device, RankerConfig

MAX_QUERY_ROWS: Final = 10_000
"""LightGBM refuses a query with more rows."""

TreesDone = Callable[[int], None]

_UNDER_WAY: Final[set["subprocess.Popen[str]"]] = set()


@dataclass(frozen=True)
class Fit:
    """What a training reports: trees kept, rows, wall seconds of binning and boosting, peak memory in MB."""

    trees: int
    rows: int
    seconds: float
    peak_memory_mb: int


def parameters(config: "RankerConfig", *, seed: int) -> dict[str, Any]:
    """Return LightGBM's parameters for ``config``; everything else is LightGBM's default."""
    return {
        "objective": "lambdarank",
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_rows_per_leaf,
        "learning_rate": config.learning_rate,
        "lambdarank_truncation_level": config.truncation,
        "max_bin": config.max_bin,
        "device_type": config.device,
        # Double precision sums make the OpenCL device's histograms repeatable.
        **({"gpu_use_dp": True} if config.device == "gpu" else {}),
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        # Bundled features crash trainings on parts of a data set in LightGBM 4.7.
        "enable_bundle": False,
        "verbosity": -1,
    }


def fit(
    files: Sequence[Path],
    model: Path,
    *,
    config: "RankerConfig",
    seed: int,
    threads: int,
    rows: Path | None = None,
    vali: Sequence[Path] = (),
    cutoff: int = 10,
    what: str = "the ranker",
    trees_done: TreesDone | None = None,
) -> Fit:
    """Train a LambdaMART ranker in a child process and write it as LightGBM text.

    Args:
        files: Parquet parts with ``qid``, ``label``, features and, where there is one, ``weight``; each
            query's rows are contiguous.
        model: The model file to write.
        config: The ranker's settings.
        seed: LightGBM's seed.
        threads: Threads of the child.
        rows: Parquet file with a ``row_id`` column: train on these rows only.
        vali: Parts to stop early on, when ``config.early_stopping`` is above 0.
        cutoff: Rank at which the validation NDCG is cut.
        what: What is trained, for error messages.
        trees_done: Told the number of trees so far.

    Raises:
        TrainingError: LightGBM refused the data, failed or crashed.
        StorageError: The model cannot be written.
    """
    job = {
        "files": [str(file) for file in files],
        "rows": None if rows is None else str(rows),
        "vali": [str(file) for file in vali] if config.early_stopping else [],
        "model": str(model),
        "parameters": {**parameters(config, seed=seed), "eval_at": [cutoff]},
        "trees": config.trees,
        "early_stopping": config.early_stopping,
    }
    result = _in_child(job, threads=threads, what=what, trees_done=trees_done)
    return Fit(**result)


def require_device(device: "Device") -> None:
    """Train one tree on ``device``, before any work.

    Raises:
        DeviceError: The device is not there, or this LightGBM is not built for it.
    """
    if device == "cpu":
        return
    from pipeline.config import RankerConfig

    job = {"parameters": parameters(RankerConfig(device=device, min_rows_per_leaf=1), seed=1), "probe": True}
    try:
        _in_child(job, threads=1, what=f"a test on device {device!r}", trees_done=None)
    except TrainingError as error:
        need = {
            "gpu": "it needs an OpenCL device and driver (for example Debian's pocl-opencl-icd)",
            "cuda": "it needs an NVIDIA GPU and a LightGBM built with CUDA; the wheel on PyPI is not",
        }[device]
        reason = str(error).partition(": ")[2] or str(error)
        raise DeviceError(f"ranker.device = {device!r} does not work here: {need} ({reason})") from None


def _in_child(
    job: dict[str, Any], *, threads: int, what: str, trees_done: TreesDone | None
) -> dict[str, Any]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "POLARS_MAX_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline.ranker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        start_new_session=True, text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    _UNDER_WAY.add(child)
    tail: deque[str] = deque(maxlen=20)
    reader = threading.Thread(target=lambda: tail.extend(child.stderr or ()), daemon=True)
    reader.start()
    answer: dict[str, Any] = {}
    with child:
        try:
            _hand_over(child.stdin, job)
            for event in _events(child.stdout):
                if "trees_done" in event:
                    if trees_done:
                        trees_done(event["trees_done"])
                else:
                    answer = event
        except BaseException:
            child.kill()
            raise
        finally:
            _UNDER_WAY.discard(child)
            # Leaving the block closes the pipes; nobody may read from them then.
            reader.join()
    if "error" in answer:
        kind = StorageError if answer.get("storage") else TrainingError
        raise kind(f"training {what}: {answer['error']}")
    if child.returncode or not answer:
        raise TrainingError(f"training {what}: {_death(child.returncode, list(tail))}")
    return answer


def end_trainings() -> None:
    """Kill the trainings this process has under way, for a run that ends before they do."""
    for child in list(_UNDER_WAY):
        child.kill()


def _hand_over(stream: IO[str] | None, job: dict[str, Any]) -> None:
    """Give the child its job; one that is already dead is told by its exit code."""
    if stream is None:
        return
    try:
        stream.write(json.dumps(job) + "\n")
        stream.flush()
    except BrokenPipeError:
        with contextlib.suppress(BrokenPipeError):  # closing tries to write the rest
            stream.close()


def _events(stream: IO[str] | None) -> Iterator[dict[str, Any]]:
    """Yield the child's events; lines that are none (LightGBM's or a driver's own) are passed over."""
    for line in stream or ():
        if line.startswith('{"'):
            yield json.loads(line)


def _death(code: int, tail: list[str]) -> str:
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    said = f"; its last words: {last}" if last else ""
    if code == -signal.SIGKILL:
        return (
            "the process was killed (SIGKILL), most likely for lack of memory; keep fewer rows or free some"
        )
    if code < 0:
        return f"LightGBM crashed ({signal.Signals(-code).name}){said}; nothing else is lost, run again"
    return f"the process ended with code {code}{said}"


def predict(
    models: Sequence[Path], files: Sequence[Path], folds: pl.DataFrame | None = None, *, threads: int
) -> pl.DataFrame:
    """Score every row of Parquet parts, a row group at a time.

    Args:
        models: LightGBM model files.
        files: The parts.
        folds: ``qid, fold``: which of the models scores a query; None: the first scores all.
        threads: Threads that predict; the scores do not depend on it.

    Returns:
        ``row_id, qid, label, score, fold`` (float64, int16; fold -1 without ``folds``), in the parts' order.

    Raises:
        StorageError: A model file or a part is damaged.
        TableError: ``folds`` gives a query no model.
    """
    boosters = [_open_model(model) for model in models]
    scored = []
    for table in parts.row_groups(files):
        keys = pl.DataFrame(table.select(["row_id", "qid", "label"]))
        features = pl.DataFrame(table.select(features_of(table.schema.names))).to_numpy()
        if folds is None:
            keys = keys.with_columns(fold=pl.lit(-1, pl.Int16))
        else:
            keys = keys.join(folds, on="qid", how="left", maintain_order="left")
            _require_model(keys, len(boosters))
        fold = keys["fold"].to_numpy()
        scores = np.empty(len(keys))
        for number, booster in enumerate(boosters):
            at = np.flatnonzero(fold == number) if folds is not None else np.arange(len(keys))
            if len(at):
                scores[at] = booster.predict(features[at], num_threads=threads, raw_score=True)
        scored.append(keys.with_columns(pl.Series("score", scores)))
    return pl.concat(scored)


def _require_model(keys: pl.DataFrame, models: int) -> None:
    without = keys.filter(~pl.col("fold").is_between(0, models - 1).fill_null(False))
    if without.height:
        query = without["qid"][0]
        raise TableError(f"folds: query {query!r} has none of the {models} models; deal all queries again")


def _open_model(path: Path) -> Any:
    import lightgbm

    try:
        text = path.read_text(encoding="utf-8")
        # LightGBM takes a model that is cut short, and predicts 0 with it or reads beyond its end.
        if text.startswith("tree\n") and "\nend of parameters\n" in text:
            return lightgbm.Booster(model_str=text)
        reason = "it is empty, cut short or something else"
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, lightgbm.basic.LightGBMError) as error:
        reason = str(error).splitlines()[0]
    raise StorageError(f"{path}: not a LightGBM model ({reason}); delete it and run again")


# ---- The child process ------------------------------------------------------------------------------------


def _tell(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def _load(files: Sequence[str], rows: str | None) -> pl.DataFrame:
    """Read the rows to train on, a row group at a time, so that rows left out cost no memory."""
    wanted = None if rows is None else pl.read_parquet(rows, columns=["row_id"])
    tables = []
    for table in parts.row_groups(map(Path, files)):
        frame = pl.DataFrame(table)
        if wanted is not None:
            frame = frame.join(wanted, on="row_id", how="semi", maintain_order="left")
        tables.append(frame)
    return pl.concat(tables)


def _dataset(frame: pl.DataFrame, parameters: dict[str, Any], reference: Any = None) -> Any:
    import lightgbm

    runs = frame["qid"].rle()
    group = runs.struct.field("len").to_numpy()
    if len(group) and group.max() > MAX_QUERY_ROWS:
        at = int(group.argmax())
        query = runs.struct.field("value")[at]
        raise ValueError(
            f"query {query} has {group[at]} rows and LightGBM takes {MAX_QUERY_ROWS} at most; keep fewer negatives"
        )
    weight = frame["weight"].to_numpy() if "weight" in frame.columns else None
    if weight is not None and (weight == 1).all():
        weight = None
    return lightgbm.Dataset(
        frame.select(features_of(frame.columns)).to_arrow(),
        label=frame["label"].to_numpy(), group=group, weight=weight, params=parameters, reference=reference,
        free_raw_data=True,
    )  # fmt: skip


def _train(job: dict[str, Any]) -> dict[str, Any]:
    import time

    import lightgbm

    frame = _load(job["files"], job["rows"])
    rows, began, told = frame.height, time.perf_counter(), 0.0
    train = _dataset(frame, job["parameters"])
    callbacks: list[Callable[..., Any]] = []
    valid = []
    if job["vali"]:
        valid = [_dataset(_load(job["vali"], None), job["parameters"], train)]
        callbacks.append(lightgbm.early_stopping(job["early_stopping"], verbose=False))

    def report(env: Any) -> None:
        nonlocal told
        if (now := time.perf_counter()) - told > 0.2:
            _tell(trees_done=env.iteration + 1)
            told = now

    callbacks.append(report)
    train.construct()
    del frame
    booster = lightgbm.train(
        job["parameters"], train, num_boost_round=job["trees"], valid_sets=valid, callbacks=callbacks
    )
    seconds = time.perf_counter() - began
    kept = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
    with store.storage_errors(Path(job["model"])):
        Path(job["model"]).write_text(booster.model_to_string(num_iteration=kept), encoding="utf-8")
    return asdict(
        Fit(trees=kept, rows=rows, seconds=round(seconds, 3), peak_memory_mb=store.peak_memory_mb())
    )


def _probe(job: dict[str, Any]) -> dict[str, Any]:
    """Train one tree on eight rows."""
    import lightgbm

    frame = pl.DataFrame({"qid": [1] * 8, "label": [0, 1] * 4, "f1": pl.Series(range(8), dtype=pl.Float32)})
    lightgbm.train(job["parameters"], _dataset(frame, job["parameters"]), num_boost_round=1)
    return {"works": True}


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the parent closes the pipe, or dies
    os._exit(1)


def _main() -> None:
    """Do one job."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # LightGBM imports these for wrappers that are not used here, which takes most of the start.
    sys.modules.update(dict.fromkeys(("sklearn", "pandas")))  # type: ignore[arg-type]
    try:
        answer = _probe(job) if "probe" in job else _train(job)
    except OSError as error:
        answer = {"error": f"{error.filename or job.get('model')}: {error.strerror}", "storage": True}
    except StorageError as error:
        answer = {"error": str(error), "storage": True}
    except Exception as error:  # the parent turns it into a TrainingError
        answer = {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}
    _tell(**answer)
    sys.stdout.flush()
    os._exit(0)  # no wait for the watching thread


if __name__ == "__main__":
    _main()
