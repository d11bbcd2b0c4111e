"""Small tables that several test modules build their examples from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.core import rng, tables
from pipeline.dataset import parts
from pipeline.negatives.training import Training

NOISE_FEATURES = 3


def scores_of(*queries: tuple[Any, Sequence[int], Sequence[float]], first_row: int = 0) -> pl.DataFrame:
    """Return SCORES of ``(qid, labels, scores)`` per query, row ids counting up from ``first_row``."""
    frames = [
        pl.DataFrame(
            {
                "qid": [qid] * len(labels),
                "label": pl.Series(labels, dtype=pl.UInt8),
                "score": pl.Series(scores, dtype=pl.Float64),
            }
        )
        for qid, labels, scores in queries
    ]
    frame = pl.concat(frames)
    return frame.select(
        pl.int_range(first_row, first_row + pl.len()).alias("row_id"),
        "qid",
        "label",
        "score",
        pl.lit(0, pl.Int16).alias("fold"),
    )


def judgments(queries: int = 40, rows: int = 12, *, seed: int = 0, first_qid: int = 1) -> pl.DataFrame:
    """Return JUDGMENTS in which ``f1`` tells the label well and the other features tell nothing."""
    rng = np.random.default_rng(seed)
    n = queries * rows
    label = (rng.random(n) < 0.25).astype(np.uint8) * rng.integers(1, 4, n).astype(np.uint8)
    noise = rng.normal(size=(n, NOISE_FEATURES)).astype(np.float32)
    return pl.DataFrame(
        {
            "row_id": np.arange(n, dtype=np.int64),
            "qid": first_qid + np.repeat(np.arange(queries), rows),
            "label": label,
            "f1": (label + rng.normal(scale=0.5, size=n)).astype(np.float32),
            **{f"f{i + 2}": noise[:, i] for i in range(NOISE_FEATURES)},
        }
    )


def judgments_of(scores: pl.DataFrame) -> pl.DataFrame:
    """Return JUDGMENTS of the rows of SCORES: a row has its features and document, whatever its company.

    Features are -1, 0 or 1, so that equal and parallel rows come up; a sixth of the rows has no document id.
    """
    ids = scores["row_id"].to_numpy().astype(np.int64)
    features = {f"f{i}": np.floor(3 * rng.uniform(ids, seed=0, stream=f"f{i}")) - 1 for i in (1, 2, 3)}
    number = np.floor(6 * rng.uniform(ids, seed=0, stream="doc")).astype(int)
    return scores.select(
        "row_id", "qid", "label",
        pl.Series("doc_id", [f"d{i}" if i else None for i in number], dtype=pl.String),
        *[pl.Series(name, values.astype(np.float32)) for name, values in features.items()],
    )  # fmt: skip


def training_of(scores: pl.DataFrame) -> Training:
    """Return a training split in memory for the rows of SCORES."""
    return Training.of_table(judgments_of(scores))


def schema_for(frame: pl.DataFrame) -> pa.Schema:
    """Return the JUDGMENTS or PREPARED schema that fits the columns of ``frame``."""
    qid = pa.string() if frame["qid"].dtype == pl.String else pa.int64()
    features = len(tables.features_of(frame.columns))
    schema = tables.judgments(features, qid=qid, doc_id="doc_id" in frame.columns)
    return tables.with_training(schema, graded=False) if "weight" in frame.columns else schema


def write_part(path: Path, frame: pl.DataFrame, *, rows: int | None = None) -> Path:
    """Write ``frame`` as one part, as the stages do, in row groups of about ``rows``; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = schema_for(frame)
    with parts.PartWriter(path, schema, rows=rows) as writer:
        writer.write(parts.conform(frame.to_arrow(), schema))
    return path


def write_letor_source(directory: Path, *, queries: int = 12, documents: int = 15, seed: int = 0) -> Path:
    """Write train, vali and test as LETOR text, with document ids; returns the directory."""
    directory.mkdir(parents=True)
    for number, (split, count) in enumerate(
        {"train": queries, "vali": queries // 2, "test": queries // 2}.items()
    ):
        frame = judgments(count, documents, seed=seed + number, first_qid=1 + 1000 * number)
        features = [name for name in frame.columns if name.startswith("f")]
        line = pl.format(
            "{} qid:{} " + " ".join(f"{name[1:]}:{{}}" for name in features) + " #docid = d{}",
            "label", "qid", *[pl.col(name).round(4) for name in features], "row_id",
        )  # fmt: skip
        (directory / f"{split}.txt").write_text(
            "\n".join(frame.select(line).to_series()) + "\n", encoding="utf-8"
        )
    return directory
