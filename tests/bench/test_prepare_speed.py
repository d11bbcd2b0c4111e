"""The prepared set of an arm that keeps 40 %, from the dataset and SELECTION: `make bench`."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.core.config import IngestConfig, SplitConfig
from pipeline.core.rng import uniform
from pipeline.dataset import ingest, parts
from pipeline.dataset.sources import Source, SplitSource
from tests.bench.timing import Program, compare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

PROGRAMS = {
    "ranksieve, row group after row group": Program(
        """
import shutil, sys
from pathlib import Path
from pipeline.dataset import parts
from pipeline.negatives import prepare
out = Path(sys.argv[1]) / "ours"
shutil.rmtree(out, ignore_errors=True)
prepare.run(parts.split_files(Path(sys.argv[1]) / "set", ["train"]), Path(sys.argv[2]), out)
"""
    ),
    "Polars, streamed": Program(
        """
import sys, polars as pl
rows = pl.scan_parquet(sys.argv[1] + "/set/train/*.parquet")
kept = pl.scan_parquet(sys.argv[2]).filter("kept").select("row_id", "weight")
joined = rows.join(kept, on="row_id", how="inner", maintain_order="left")
joined.sink_parquet(sys.argv[1] + "/polars.parquet", compression="zstd", compression_level=1)
"""
    ),
    "pandas": Program(
        """
import sys, pandas as pd
rows = pd.read_parquet(sys.argv[1] + "/set/train/part-00000.parquet")
kept = pd.read_parquet(sys.argv[2], columns=["row_id", "kept", "weight"]).query("kept")
joined = rows.merge(kept[["row_id", "weight"]], on="row_id")
joined.to_parquet(sys.argv[1] + "/pandas.parquet", compression="zstd", index=False)
""",
        "pandas",
    ),
}


def test_prepare(text: Callable[[str], Path], tmp_path: Path) -> None:
    """The same rows as Polars' join; memory does not grow with the data."""
    path = text("mslr")
    source = Source(path, "splits", (SplitSource("train", (path,)),))
    ingest.run(source, tmp_path / "set", config=IngestConfig(), split=SplitConfig(), seed=1)
    files = parts.split_files(tmp_path / "set", ["train"])
    keys = parts.read_keys(files)
    draw = uniform(keys["row_id"].to_numpy(), seed=1, stream="bench")
    selection = keys.with_columns(
        kept=(pl.col("label") > 0) | pl.Series(draw < 0.4), weight=pl.lit(1.0, pl.Float32)
    )
    selection.write_parquet(tmp_path / "selection.parquet")
    costs = compare("prepared set, mslr", PROGRAMS, [str(tmp_path), str(tmp_path / "selection.parquet")])
    [ours] = (tmp_path / "ours").glob("*.parquet")
    written = [ours, tmp_path / "polars.parquet"]
    one, other = (pl.read_parquet(file, columns=["row_id", "f1"]).sum() for file in written)
    assert one.equals(other)
    assert costs["ranksieve, row group after row group"].memory < 500
