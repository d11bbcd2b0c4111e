"""LETOR text to Parquet, and parsing alone, beside other ways to read it: `make bench`."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.bench.timing import Program, compare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

OURS = """
import shutil, sys
from pathlib import Path
from pipeline.dataset import ingest
from pipeline.core.config import IngestConfig, SplitConfig
from pipeline.dataset.sources import Source, SplitSource
source = Source(Path(sys.argv[1]), "splits", (SplitSource("train", (Path(sys.argv[1]),)),))
shutil.rmtree(sys.argv[2] + "/ours", ignore_errors=True)
ingest.run(
    source, Path(sys.argv[2]) / "ours", config=IngestConfig(), split=SplitConfig(), seed=1, threads={threads}
)
"""
NAMES = 'names = ["label", "qid", *(f"f{i}" for i in range(1, 137))]\n'
TO_PARQUET = {
    "ranksieve, one thread": Program(OURS.format(threads=1)),
    "ranksieve, two threads": Program(OURS.format(threads=2)),
    "Polars read_csv, colons replaced": Program(
        """
import sys, polars as pl
text = open(sys.argv[1], "rb").read().replace(b":", b" ")
frame = pl.read_csv(text, separator=" ", has_header=False)
keep = [frame.columns[0], frame.columns[2], *frame.columns[4::2]]
frame.select(keep).write_parquet(sys.argv[2] + "/polars.parquet", compression="zstd", compression_level=1)
"""
    ),
    "Polars scan_csv, prefixes cut, streamed": Program(
        "import sys, polars as pl\n"
        + NAMES
        + """
frame = pl.scan_csv(sys.argv[1], separator=" ", has_header=False, new_columns=names, infer_schema=False)
frame.select(
    pl.col("label").cast(pl.UInt8), pl.col("qid").str.slice(4).cast(pl.Int64),
    *(pl.col(name).str.slice(len(name)).cast(pl.Float32) for name in names[2:]),
).sink_parquet(sys.argv[2] + "/streamed.parquet", compression="zstd", compression_level=1)
"""
    ),
    "DuckDB": Program(
        "import sys, duckdb\n"
        + NAMES
        + """
columns = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
values = ", ".join(f"substr({n}, {len(n) + 1})::FLOAT AS {n}" for n in names[2:])
duckdb.sql(
    f"COPY (SELECT label::UTINYINT AS label, substr(qid, 5)::BIGINT AS qid, {values} FROM read_csv("
    f"'{sys.argv[1]}', delim=' ', header=false, auto_detect=false, columns={{{columns}}})) "
    f"TO '{sys.argv[2]}/duckdb.parquet' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
)
""",
        "duckdb",
    ),
    "pandas read_csv, colons replaced": Program(
        """
import io, sys, numpy as np, pandas as pd
text = io.BytesIO(open(sys.argv[1], "rb").read().replace(b":", b" "))
types = {0: np.uint8, 2: np.int64, **{i: np.float32 for i in range(4, 276, 2)}}
frame = pd.read_csv(text, sep=" ", header=None, usecols=list(types), dtype=types)
frame.columns = [str(name) for name in frame.columns]
frame.to_parquet(sys.argv[2] + "/pandas.parquet", compression="zstd", index=False)
""",
        "pandas",
    ),
}
READ = """
import sys
from pathlib import Path
from pipeline.dataset.letor import read_letor
for batch in read_letor(Path(sys.argv[1]), threads={threads}): pass
"""
LOADERS = {
    "ranksieve, one thread": Program(READ.format(threads=1)),
    "ranksieve, two threads": Program(READ.format(threads=2)),
    "XGBoost DMatrix": Program(
        "import sys, xgboost; xgboost.DMatrix(sys.argv[1] + '?format=libsvm')\n", "xgboost"
    ),
    "LightGBM Dataset, with binning": Program(
        "import sys, lightgbm\n"
        "lightgbm.Dataset(sys.argv[1][:-3] + 'noqid', params={'verbosity': -1}).construct()\n",
        "lightgbm",
    ),
    "CatBoost Pool": Program("import sys, catboost; catboost.Pool('libsvm://' + sys.argv[1])\n", "catboost"),
    "scikit-learn load_svmlight_file": Program(
        "import sys; from sklearn.datasets import load_svmlight_file\n"
        "load_svmlight_file(sys.argv[1], query_id=True)\n",
        "sklearn",
    ),
}


def test_text_to_parquet(text: Callable[[str], Path], tmp_path: Path) -> None:
    """Every route writes every row; what each costs is in the table, the start of the process included."""
    costs = compare("text to Parquet, mslr", TO_PARQUET, [str(text("mslr")), str(tmp_path)])
    [ours] = (tmp_path / "ours").glob("train/*.parquet")
    sizes = {
        file: pl.scan_parquet(file).select(pl.len()).collect().item() for file in tmp_path.glob("*.parquet")
    }
    assert set(sizes.values()) == {pl.scan_parquet(ours).select(pl.len()).collect().item()}
    for file in (ours, *sizes):
        print(f"{file.stem:44} {file.stat().st_size / 1e6:8.0f} MB")
    assert costs["ranksieve, one thread"].cpu < costs["Polars read_csv, colons replaced"].cpu


def test_sparse_text_to_parquet_beside_a_load(text: Callable[[str], Path], tmp_path: Path) -> None:
    """Sparse text becomes a dense file that is smaller than the text."""
    programs = {"ranksieve, to Parquet": Program(OURS.format(threads=1))}
    programs["XGBoost DMatrix, in memory"] = LOADERS["XGBoost DMatrix"]
    compare("text to Parquet, yahoo", programs, [str(text("yahoo")), str(tmp_path)])
    [ours] = (tmp_path / "ours").glob("train/*.parquet")
    print(f"{'Parquet':44} {ours.stat().st_size / 1e6:8.0f} MB")
    assert ours.stat().st_size < text("yahoo").stat().st_size


@pytest.mark.parametrize("preset", ["mslr", "yahoo", "istella"])
def test_parsing(text: Callable[[str], Path], preset: str) -> None:
    """Ours costs less CPU than any other loader of the same text."""
    costs = compare(f"text to memory, {preset}", LOADERS, [str(text(preset))])
    ours = costs.pop("ranksieve, one thread")
    costs.pop("ranksieve, two threads")
    assert all(ours.cpu < other.cpu for other in costs.values())
