"""LambdaMART, fitted in a worker process (:mod:`pipeline.ranker.worker`).

Models do not depend on the thread count: histograms are built column by column (``deterministic``,
``force_col_wise``), and the number of threads reaches LightGBM through the environment, so that it is not written
into the model file.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.core.errors import DeviceError, TrainingError
from pipeline.ranker import processes
from pipeline.ranker.processes import TreesDone

if TYPE_CHECKING:  # the worker does without the settings' models, which take a while to import
    from pipeline.core.config import Device, RankerConfig

MAX_QUERY_ROWS: Final = 10_000
"""LightGBM refuses a query with more rows."""

MAX_CONCURRENT: Final = 4
"""Rankers that one worker trains at a time, at most: each holds its rows in memory."""

_WORKER: Final = "pipeline.ranker.worker"


@dataclass(frozen=True)
class Training:
    """A ranker to train.

    Attributes:
        files: Parquet parts with ``qid``, ``label``, features and, where there is one, ``weight`` and
            ``grade``, to train on in place of ``label``; each query's rows are contiguous.
        model: The model file to write.
        rows: Parquet file with a ``row_id`` column: train on these rows only.
    """

    files: Sequence[Path]
    model: Path
    rows: Path | None = None


def parameters(config: "RankerConfig", *, seed: int) -> dict[str, Any]:
    """Return LightGBM's parameters for ``config``; everything else, and what it leaves unset, is its default."""
    unset = {"num_leaves": config.leaves, "min_data_in_leaf": config.min_rows_per_leaf}
    return {
        "objective": "lambdarank",
        **{name: value for name, value in unset.items() if value is not None},
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
        # Which features could split depends on the rows a leaf must hold; bins serve every such number.
        "feature_pre_filter": False,
        "verbosity": -1,
    }


def fit_all(
    trainings: Sequence[Training],
    *,
    config: "RankerConfig",
    seed: int,
    threads: int,
    merged_model: Path | None = None,
    bins: Path | None = None,
    vali: Sequence[Path] = (),
    cutoff: int = 10,
    gains: Sequence[float] = (),
    what: str = "the rankers",
    trees_done: TreesDone | None = None,
) -> dict[str, Any]:
    """Train LambdaMART rankers in one worker process, and write each as LightGBM's text.

    Args:
        trainings: What to train on and what to write.
        config: The rankers' settings.
        seed: LightGBM's seed, the same for all.
        threads: Threads in all; the models do not depend on it.
        merged_model: Write one model here with the trees of all, which scores with the sum of their scores,
            instead of a model for each (bootstrap aggregating: Breiman, "Bagging Predictors", 1996).
        bins: Binned features of the files, from :func:`bin_rows` with the same settings, the same for all.
        vali: Parts to stop early on, when ``config.early_stopping`` is above 0.
        cutoff: Rank at which the validation NDCG is cut.
        gains: For files with grades: the gain of each. The labels of ``vali`` become grades, too.
        what: What is trained, for error messages.
        trees_done: Called with the number of trees so far, over all rankers.

    Returns:
        The training's facts: ``trees`` kept and ``rows``, summed over the rankers, ``train_seconds`` of reading,
        binning and boosting (wall), ``peak_memory_mb``.

    Raises:
        TrainingError: LightGBM refused the data, failed or crashed.
        StorageError: A model cannot be written.
    """
    concurrent, threads = share_threads(len(trainings), threads=threads, device=config.device)
    extra = {"eval_at": [cutoff], **({"label_gain": list(gains)} if gains else {})}
    job = {
        "do": "train",
        "trainings": [asdict(training) for training in trainings],
        "merged_model": merged_model,
        "bins": bins,
        "vali": list(vali) if config.early_stopping else [],
        "parameters": {**parameters(config, seed=seed), **extra},
        "trees": config.trees,
        "early_stopping": config.early_stopping,
        "concurrent": concurrent,
    }
    return processes.run(_WORKER, job, threads=threads, what=f"training {what}", trees_done=trees_done)


def share_threads(rankers: int, *, threads: int, device: "Device") -> tuple[int, int]:
    """Return how many rankers to train at a time, and the threads of each: a small one does not fill two."""
    concurrent = min(threads, rankers, MAX_CONCURRENT) if device == "cpu" else 1
    return concurrent, threads // concurrent


def bin_rows(files: Sequence[Path], out: Path, *, config: "RankerConfig", threads: int) -> dict[str, Any]:
    """Bin the features of Parquet parts in a worker process and write LightGBM's binary file.

    Its bytes depend on the rows, ``config.max_bin`` and ``config.device`` alone. Returns its number of ``rows``.

    Raises:
        TrainingError: LightGBM refused the data, failed or crashed.
        StorageError: The file cannot be written.
    """
    job = {"do": "bin", "files": list(files), "bins": out, "parameters": parameters(config, seed=0)}
    return processes.run(_WORKER, job, threads=threads, what="binning the training split")


def require_device(device: "Device") -> None:
    """Train one tree on ``device``, before any work.

    Raises:
        DeviceError: The device is not there, or this LightGBM is not built for it.
    """
    if device == "cpu":
        return
    from pipeline.core.config import RankerConfig

    settings = parameters(RankerConfig(device=device, min_rows_per_leaf=1), seed=1)
    try:
        job = {"do": "probe", "parameters": settings}
        processes.run(_WORKER, job, threads=1, what=f"a test on device {device!r}")
    except TrainingError as error:
        need = {
            "gpu": "it needs an OpenCL device and driver (for example Debian's pocl-opencl-icd)",
            "cuda": "it needs an NVIDIA GPU and a LightGBM built with CUDA; the wheel on PyPI is not",
        }[device]
        reason = str(error).partition(": ")[2] or str(error)
        raise DeviceError(f"ranker.device = {device!r} does not work here: {need} ({reason})") from None
