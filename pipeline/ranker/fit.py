"""LambdaMART, fitted in a child process (:mod:`pipeline.ranker.worker`).

Models do not depend on the thread count: histograms are built column by column
(``deterministic``, ``force_col_wise``) and the number of threads reaches LightGBM through the environment, so
that it is not written into the model file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.core.errors import DeviceError, TrainingError
from pipeline.ranker import processes as child
from pipeline.ranker.processes import TreesDone

if TYPE_CHECKING:  # the child does without the settings' models, which take a while to import
    from pipeline.core.config import Device, RankerConfig

MAX_QUERY_ROWS: Final = 10_000
"""LightGBM refuses a query with more rows."""

__all__ = [
    "MAX_QUERY_ROWS",
    "Fit",
    "Training",
    "TreesDone",
    "fit",
    "fit_all",
    "parameters",
    "require_device",
]

CHILD: Final = "pipeline.ranker.worker"

SIDE_BY_SIDE: Final = 4
"""Rankers that a child trains at a time, at most: each holds its rows, and beyond a few memory counts for more."""


@dataclass(frozen=True)
class Fit:
    """What a training reports: trees kept, rows, wall seconds of reading, binning and boosting, peak memory in MB."""

    trees: int
    rows: int
    seconds: float
    peak_memory_mb: int


@dataclass(frozen=True)
class Training:
    """One of the rankers that a child trains.

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


def fit(
    files: Sequence[Path],
    model: Path,
    *,
    config: "RankerConfig",
    seed: int,
    threads: int,
    rows: Path | None = None,
    bins: Path | None = None,
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
        bins: Binned features of ``files``, from :func:`bin_rows` with the same settings, to save binning them.
        vali: Parts to stop early on, when ``config.early_stopping`` is above 0.
        cutoff: Rank at which the validation NDCG is cut.
        what: What is trained, for error messages.
        trees_done: Told the number of trees so far.

    Raises:
        TrainingError: LightGBM refused the data, failed or crashed.
        StorageError: The model cannot be written.
    """
    return fit_all(
        [Training(files, model, rows)], config=config, seed=seed, threads=threads, bins=bins, vali=vali,
        cutoff=cutoff, what=what, trees_done=trees_done,
    )  # fmt: skip


def fit_all(
    trainings: Sequence[Training],
    *,
    config: "RankerConfig",
    seed: int,
    threads: int,
    together: Path | None = None,
    bins: Path | None = None,
    vali: Sequence[Path] = (),
    cutoff: int = 10,
    gains: Sequence[float] = (),
    what: str = "the rankers",
    trees_done: TreesDone | None = None,
) -> Fit:
    """Train several rankers, in one child process: side by side where there are threads, a few at a time.

    Args:
        trainings: What to train on and what to write.
        config: The rankers' settings.
        seed: LightGBM's seed, the same for all.
        threads: Threads in all; the models do not depend on it.
        together: Write one model with the trees of all here, which scores with the sum of their scores, instead
            of a model for each (bootstrap aggregating: Breiman, "Bagging Predictors", 1996).
        bins: Binned features of the files, the same for all trainings.
        vali: As in :func:`fit`.
        cutoff: As in :func:`fit`.
        gains: For files with grades: the gain of each. The labels of ``vali`` become grades, too.
        what: What is trained, for error messages.
        trees_done: Told the number of trees so far, over all rankers.

    Returns:
        Trees and rows summed over the rankers, the wall seconds of all, and the peak memory.

    Raises:
        TrainingError: LightGBM refused the data, failed or crashed.
        StorageError: A model cannot be written.
    """
    # A small training does not fill two threads; the OpenCL device takes one at a time.
    side_by_side = min(threads, len(trainings), SIDE_BY_SIDE) if config.device == "cpu" else 1
    job = {
        "do": "train",
        "trainings": [
            {
                "files": [str(file) for file in one.files],
                "rows": None if one.rows is None else str(one.rows),
                "model": str(one.model),
            }
            for one in trainings
        ],
        "together": None if together is None else str(together),
        "bins": None if bins is None else str(bins),
        "vali": [str(file) for file in vali] if config.early_stopping else [],
        "parameters": {
            **parameters(config, seed=seed),
            "eval_at": [cutoff],
            **({"label_gain": list(gains)} if gains else {}),
        },
        "trees": config.trees,
        "early_stopping": config.early_stopping,
        "side_by_side": side_by_side,
    }
    result = child.run(
        CHILD, job, threads=threads // side_by_side, what=f"training {what}", trees_done=trees_done
    )
    return Fit(**result)


def bin_rows(files: Sequence[Path], out: Path, *, config: "RankerConfig", threads: int) -> dict[str, Any]:
    """Bin the features of Parquet parts in a child process and write LightGBM's binary file.

    Args:
        files: The parts, with ``label`` and features.
        out: The file to write; its bytes depend on the rows, ``config.max_bin`` and ``config.device`` alone.
        config: The ranker's settings.
        threads: Threads of the child.

    Returns:
        ``rows``, wall ``seconds``, ``peak_memory_mb``.

    Raises:
        TrainingError: LightGBM refused the data, failed or crashed.
        StorageError: The file cannot be written.
    """
    job = {
        "do": "bin",
        "files": [str(file) for file in files],
        "bins": str(out),
        "parameters": parameters(config, seed=0),
    }
    return child.run(CHILD, job, threads=threads, what="binning the training split")


def require_device(device: "Device") -> None:
    """Train one tree on ``device``, before any work.

    Raises:
        DeviceError: The device is not there, or this LightGBM is not built for it.
    """
    if device == "cpu":
        return
    from pipeline.core.config import RankerConfig

    job = {
        "do": "probe",
        "parameters": parameters(RankerConfig(device=device, min_rows_per_leaf=1), seed=1),
    }
    try:
        child.run(CHILD, job, threads=1, what=f"a test on device {device!r}")
    except TrainingError as error:
        need = {
            "gpu": "it needs an OpenCL device and driver (for example Debian's pocl-opencl-icd)",
            "cuda": "it needs an NVIDIA GPU and a LightGBM built with CUDA; the wheel on PyPI is not",
        }[device]
        reason = str(error).partition(": ")[2] or str(error)
        raise DeviceError(f"ranker.device = {device!r} does not work here: {need} ({reason})") from None
