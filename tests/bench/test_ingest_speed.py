"""LETOR text to Parquet, and parsing alone, beside other ways to read it: `make bench`."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.bench.timing import compare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

QUERIES, DOCUMENTS, FEATURES = 1_500, 120, 136

TO_PARQUET = {
    "ranksieve, one thread": """
import sys
from pathlib import Path
from pipeline import ingest
from pipeline.config import IngestConfig, SplitConfig
from pipeline.source import Source, SplitSource
source = Source(Path(sys.argv[1]), "splits", (SplitSource("train", (Path(sys.argv[1]),)),))
out = Path(sys.argv[2]) / "ours"
import shutil; shutil.rmtree(out, ignore_errors=True)
ingest.run(source, out, config=IngestConfig(), split=SplitConfig(), seed=1)
""",
    "Polars read_csv, colons replaced by spaces": """
import sys, polars as pl
text = open(sys.argv[1], "rb").read().replace(b":", b" ")
frame = pl.read_csv(text, separator=" ", has_header=False)
keep = [frame.columns[0], frame.columns[2], *frame.columns[4::2]]
frame.select(keep).write_parquet(sys.argv[2] + "/polars.parquet", compression="zstd", compression_level=1)
""",
}
PARSE = {
    "ranksieve, one thread": """
import sys
from pathlib import Path
from pipeline.letor import read_letor
for batch in read_letor(Path(sys.argv[1])): pass
""",
    "scikit-learn load_svmlight_file": """
import sys
from sklearn.datasets import load_svmlight_file
load_svmlight_file(sys.argv[1], query_id=True)
""",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense MSLR-like file, written without ranksieve; prints its size."""
    rng = np.random.default_rng(0)
    rows = QUERIES * DOCUMENTS
    columns = {
        f"f{i}": rng.integers(0, 200, rows) if i % 3 else rng.gamma(1.0, 5.0, rows).round(6)
        for i in range(1, FEATURES + 1)
    }
    frame = pl.DataFrame(
        {"label": rng.integers(0, 5, rows), "qid": np.repeat(np.arange(QUERIES), DOCUMENTS), **columns}
    )
    line = pl.format(
        "{} qid:{} " + " ".join(f"{i}:{{}}" for i in range(1, FEATURES + 1)), "label", "qid", *columns
    )
    path = tmp_path_factory.mktemp("text") / "mslr-like.txt"
    path.write_text("\n".join(frame.select(line).to_series()) + "\n", encoding="ascii")
    print(f"\n{path.stat().st_size / 1e6:.0f} MB")
    return path


def test_text_to_parquet_beside_polars(text: Path, tmp_path: Path) -> None:
    """Both write every row; what each costs is in the table, the start of the process included."""
    compare(TO_PARQUET, [str(text), str(tmp_path)], rounds=2)
    [ours] = (tmp_path / "ours").glob("train/*.parquet")
    for file in (ours, tmp_path / "polars.parquet"):
        assert pl.scan_parquet(file).select(pl.len()).collect().item() == QUERIES * DOCUMENTS


def test_parsing_beside_scikit_learn(text: Path) -> None:
    """Ours costs less CPU than scikit-learn's reader."""
    ours, other = compare(PARSE, [str(text)], rounds=1).values()
    assert ours.cpu < other.cpu
