"""Model + split -> METRICS: NDCG of every query of the untouched validation and test lists."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.core import tables
from pipeline.dataset import parts
from pipeline.evaluation.ndcg import ndcg
from pipeline.ranker.predict import predict


def evaluate(scored: pl.DataFrame, *, cutoffs: Sequence[int]) -> pl.DataFrame:
    """Return ``qid, cutoff, ndcg`` in the given orders: exponential gain, ties averaged.

    Args:
        scored: ``qid, label, score``; each query's rows contiguous. NDCG is null if none is relevant.
        cutoffs: Ranks to cut at.
    """
    runs = scored["qid"].rle()
    offsets = np.concatenate([[0], np.cumsum(runs.struct.field("len").to_numpy().astype(np.int64))])
    values = ndcg(scored["label"].to_numpy(), scored["score"].to_numpy(), offsets, cutoffs=cutoffs)
    return pl.DataFrame(
        {
            "qid": runs.struct.field("value").gather(np.repeat(np.arange(len(runs)), len(cutoffs))),
            "cutoff": np.tile(np.asarray(cutoffs, dtype=np.int16), len(runs)),
            "ndcg": pl.Series(values.ravel()).fill_nan(None),
        }
    )


def run(
    model: Path,
    splits: Mapping[str, Sequence[Path]],
    out: Path,
    *,
    arm: str,
    fold: int,
    cutoffs: Sequence[int],
    threads: int,
) -> dict[str, Any]:
    """Write METRICS of one arm on every split; return the number of queries of each."""
    frames = {
        split: evaluate(predict([model], files, threads=threads), cutoffs=cutoffs).with_columns(
            arm=pl.lit(arm), split=pl.lit(split), fold=pl.lit(fold, pl.Int16)
        )
        for split, files in splits.items()
    }
    [qid] = {parts.schema_of(files).field("qid").type for files in splits.values()}
    parts.write_table(out, pl.concat(frames.values()), tables.metrics(qid=qid))
    return {"queries": {split: frame["qid"].n_unique() for split, frame in frames.items()}}


def concat_metrics(files: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write METRICS of several arms or folds as one table, in the given order; return its rows."""
    metrics = pl.concat([pl.read_parquet(file) for file in files])
    parts.write_table(out, metrics, tables.metrics(qid=parts.schema_of(files).field("qid").type))
    return {"rows": metrics.height}
