"""Parquet -> ``lightgbm.Dataset``: the rows that a ranker trains on or is validated on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.ranker import binning
from pipeline.ranker.fit import MAX_QUERY_ROWS


def training_set(training: Mapping[str, Any], split: Any, parameters: Mapping[str, Any]) -> tuple[Any, int]:
    """Return the rows of a training as a ``lightgbm.Dataset``, and their number.

    Args:
        training: As :class:`pipeline.ranker.fit.Training`.
        split: Its files, binned, to take the rows out of; None: they are read and binned.
        parameters: LightGBM's parameters.
    """
    frame, places = read_rows(training["files"], training["rows"], features=split is None)
    if split is None:
        return dataset(frame, parameters).construct(), frame.height
    rows = None if training["rows"] is None else places.to_numpy()
    return binning.take(split, rows, query_sizes(frame["qid"]), weight=_weight(frame)), frame.height


def read_rows(
    files: Sequence[str], row_ids: str | None = None, *, features: bool = True
) -> tuple[pl.DataFrame, pl.Series]:
    """Return rows of Parquet parts and their places among all rows.

    They are read a row group at a time, so that rows left out take no memory.

    Args:
        files: The parts.
        row_ids: Parquet file with a ``row_id`` column, of the rows to return; None: all.
        features: Whether to read the features, or the keys and weights alone.
    """
    wanted = None if row_ids is None else pl.read_parquet(row_ids, columns=["row_id"])
    names = parts.schema_of([Path(file) for file in files]).names
    columns = names if features else [name for name in names if name not in features_of(names)]
    frames, first = [], 0
    for table in parts.row_groups(map(Path, files), columns=columns):
        frame = pl.DataFrame(table).with_columns(place=pl.int_range(first, first + table.num_rows))
        first += table.num_rows
        del table  # before the next is read
        if wanted is not None:
            frame = frame.join(wanted, on="row_id", how="semi", maintain_order="left")
        frames.append(frame)
    frame = pl.concat(frames)
    return frame.drop("place"), frame["place"]


def query_sizes(qid: pl.Series) -> npt.NDArray[np.int32]:
    """Return the number of rows of each query, in order.

    Raises:
        ValueError: A query has more rows than LightGBM takes.
    """
    runs = qid.rle()
    sizes = runs.struct.field("len").to_numpy().astype(np.int32)
    if len(sizes) and sizes.max() > MAX_QUERY_ROWS:
        longest = int(sizes.argmax())
        query = runs.struct.field("value")[longest]
        raise ValueError(
            f"query {query} has {sizes[longest]} rows and LightGBM takes {MAX_QUERY_ROWS} at most; "
            "keep fewer negatives"
        )
    return sizes


def dataset(frame: pl.DataFrame, parameters: Mapping[str, Any], reference: Any = None) -> Any:
    """Return a ``lightgbm.Dataset`` of rows in memory, binned as ``reference``; of grades where they have gains."""
    import lightgbm

    return lightgbm.Dataset(
        frame.select(features_of(frame.columns)).to_arrow(),
        label=_label(frame, graded="label_gain" in parameters),
        group=query_sizes(frame["qid"]),
        weight=binning.unless_one(_weight(frame)),
        params=dict(parameters),
        reference=reference,
        free_raw_data=True,
    )


def _weight(frame: pl.DataFrame) -> npt.NDArray[np.float32] | None:
    return frame["weight"].to_numpy() if "weight" in frame.columns else None


def _label(frame: pl.DataFrame, *, graded: bool) -> npt.NDArray[np.uint8]:
    """Return the labels, or the grades that a prepared set has or that labels stand for."""
    if not graded:
        return frame["label"].to_numpy()
    if "grade" in frame.columns:
        return frame["grade"].to_numpy()
    return frame.select(pl.col("label") + (pl.col("label") > 0)).to_series().to_numpy()
