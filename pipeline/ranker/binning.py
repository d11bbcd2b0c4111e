"""Parquet -> binned features: LightGBM's own data set, made a row group at a time and kept as its binary file.

A split is binned once, and each training on a part of it loads the bins and takes its rows out.

The bins depend on the rows, ``max_bin`` and the device, and on nothing else: not on the row groups, the number
of threads or the rows a leaf must hold (``feature_pre_filter`` is off, which drops no feature that could split).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.core import rng
from pipeline.core.errors import StorageError
from pipeline.core.files import storage_errors
from pipeline.core.tables import features_of
from pipeline.dataset import parts

SAMPLE_ROWS: Final = 200_000
"""Rows that bin boundaries are found on, LightGBM's default; all rows where there are fewer."""
_SAMPLE_VALUES: Final = 12 << 20
"""Values that bin boundaries are found on, at most: 101 MB in double precision."""
_ZERO: Final = 1e-35
"""LightGBM treats smaller magnitudes as zero; it finds bins on the other values and the number of zeros."""
_SEED: Final = 1


def settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of LightGBM's ``parameters`` that decides the bins."""
    names = ("max_bin", "device_type", "enable_bundle", "force_col_wise", "verbosity")
    return {**{name: parameters[name] for name in names if name in parameters}, "feature_pre_filter": False}


def build(
    files: Sequence[Path],
    *,
    parameters: Mapping[str, Any],
    read: parts.Read | None = None,
    sample_rows: int = SAMPLE_ROWS,
) -> Any:
    """Bin every row of Parquet parts, and keep its label; memory holds the bins and one row group.

    Args:
        files: The parts, with ``label`` and features.
        parameters: LightGBM's parameters; :func:`settings` says which count.
        read: Yields the row groups; defaults to reading ``files``.
        sample_rows: Rows to find bin boundaries on, at most.

    Returns:
        A constructed ``lightgbm.Dataset`` without queries and weights.
    """
    import lightgbm

    features = features_of(parts.schema_of(files).names)
    rows = parts.count_rows(files)
    read = read or (lambda names: parts.row_groups(files, columns=names))
    dataset = lightgbm.Dataset(None, params=settings(parameters))
    dataset._init_from_sample(*_sample(read, features, rows, sample_rows), rows)
    labels = []
    for table in read(["label", *features]):
        matrix = np.empty((table.num_rows, len(features)), dtype=np.float32)
        for number, name in enumerate(features):
            matrix[:, number] = table[name].to_numpy()
        dataset._push_rows(matrix)
        labels.append(table["label"].to_numpy())
        del table  # before the next is read
    dataset.set_label(np.concatenate(labels))
    return dataset.set_feature_name(features)


def save(dataset: Any, path: Path) -> None:
    """Write LightGBM's binary file, and read it back, as LightGBM does not notice a full disk.

    Raises:
        StorageError: It cannot be written.
    """
    import lightgbm

    with storage_errors(path):
        path.touch()
        path.unlink()  # LightGBM does not overwrite
    dataset.save_binary(path)
    try:
        load(path, dataset.params)
    except lightgbm.basic.LightGBMError as error:
        raise StorageError(f"{path}: cannot be written in full ({error}); free some space") from None


def load(path: Path, parameters: Mapping[str, Any]) -> Any:
    """Return the ``lightgbm.Dataset`` that :func:`save` wrote."""
    import lightgbm

    return lightgbm.Dataset(path, params=settings(parameters)).construct()


def take(
    split: Any,
    rows: npt.NDArray[np.integer[Any]] | None,
    queries: npt.NDArray[np.int32],
    *,
    weight: npt.NDArray[np.float32] | None = None,
    start: npt.NDArray[np.float64] | None = None,
) -> Any:
    """Return rows of a binned split as a ``lightgbm.Dataset`` to train on.

    Args:
        split: What :func:`build` or :func:`load` returned.
        rows: Places of the rows, ascending; None: all.
        queries: Number of rows of each query among them, in order.
        weight: One per row taken; None: 1.
        start: Scores to boost from, one per row taken; None: 0.
    """
    data = split
    if rows is not None:
        data = split.subset(())
        data.used_indices = rows.astype(np.int32)  # subset() itself would sort them in Python
        data.construct()
    data.set_group(queries)
    if (weight := unless_one(weight)) is not None:
        data.set_weight(weight)
    if start is not None:
        data.set_init_score(start)
    return data


def unless_one(weight: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32] | None:
    """Return ``weight``, or None when all are 1: LightGBM trains faster without."""
    return None if weight is None or (weight == 1).all() else weight


def _sample(
    read: parts.Read, features: Sequence[str], rows: int, sample_rows: int
) -> tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.int32]], int]:
    """Return, per feature, the sampled values other than zero and their places in the sample; and its size.

    A row is drawn by its number alone, so that the sample does not depend on row groups.
    """
    most = min(sample_rows, _SAMPLE_VALUES // max(len(features), 1))
    chosen = np.arange(rows)
    if rows > most:
        chosen = np.flatnonzero(rng.uniform(chosen, seed=_SEED, stream="bins") < most / rows)
    # Empty arrays take no memory until they are written, and most features have many zeros.
    values = [np.empty(len(chosen)) for _ in features]
    found = np.zeros(len(features), dtype=np.int64)
    first = 0
    for table in read(features):
        at = chosen[slice(*np.searchsorted(chosen, [first, first + table.num_rows]))] - first
        for number, name in enumerate(features):
            column = table[name].to_numpy()[at]
            column = column[~(np.abs(column) <= _ZERO)]
            values[number][found[number] : found[number] + len(column)] = column
            found[number] += len(column)
        first += table.num_rows
        del table
    # LightGBM reads the places only to bundle features, which is off.
    places = np.arange(len(chosen), dtype=np.int32)
    return [v[:n] for v, n in zip(values, found, strict=True)], [places[:n] for n in found], len(chosen)
