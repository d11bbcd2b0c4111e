"""The hardest fifth of each query's negatives, by the scores' file: `make bench`."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.core import tables
from pipeline.dataset import parts
from pipeline.negatives import blocks
from tests.bench.conftest import ROWS
from tests.bench.timing import Program, compare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

DOCUMENTS = 120
# At least four blocks: what a selection holds is a block, and does not grow with the rows.
QUERIES = max(ROWS, 4 * blocks.ROWS) // DOCUMENTS

PROGRAMS = {
    "ranksieve, top-20, SELECTION written": Program(
        """
import sys
from pathlib import Path
from pipeline.core.config import SelectConfig
from pipeline.negatives import select
from pipeline.negatives.arms import parse
select.run(Path(sys.argv[1]), Path(sys.argv[2]), arm=parse("top-20"), config=SelectConfig(), seed=1)
"""
    ),
    "Polars rank over query": Program(
        """
import sys, polars as pl
rows = pl.read_parquet(sys.argv[1])
negative = pl.col("label") == 0
rank = pl.when(negative).then(pl.col("score")).rank("ordinal", descending=True).over("qid")
kept = rows.with_columns(kept=~negative | (rank <= (negative.sum().over("qid") * 0.2).ceil()))
kept.write_parquet(sys.argv[2], compression="zstd", compression_level=1)
"""
    ),
    "pandas groupby rank": Program(
        """
import sys, numpy as np, pandas as pd
rows = pd.read_parquet(sys.argv[1])
negative = rows["label"] == 0
queries = rows["score"].where(negative).groupby(rows["qid"])
rank = queries.rank(method="first", ascending=False)
rows["kept"] = ~negative | (rank <= np.ceil(queries.transform("count") * 0.2))
rows.to_parquet(sys.argv[2], compression="zstd", index=False)
""",
        "pandas",
    ),
    "NumPy lexsort, nothing written": Program(
        """
import sys, numpy as np, pyarrow.parquet as pq
table = pq.read_table(sys.argv[1])
qid, label, score = (table[name].to_numpy() for name in ("qid", "label", "score"))
rows = np.flatnonzero(label == 0)
order = rows[np.lexsort((-score[rows], qid[rows]))]
starts = np.flatnonzero(np.diff(qid[order], prepend=-1))
sizes = np.diff(starts, append=len(order))
rank = np.arange(len(order)) - np.repeat(starts, sizes)
kept = label > 0
kept[order] = rank < np.repeat(np.ceil(sizes * 0.2), sizes)
"""
    ),
}


def test_selection(tmp_path: Path) -> None:
    """Ours costs less CPU and memory than pandas, the ranks, reasons and weights of SELECTION included."""
    rng = np.random.default_rng(0)
    rows = QUERIES * DOCUMENTS
    frame = pl.DataFrame(
        {
            "row_id": np.arange(rows),
            "qid": np.repeat(np.arange(QUERIES), DOCUMENTS),
            "label": rng.choice(5, p=[0.52, 0.32, 0.13, 0.02, 0.01], size=rows).astype(np.uint8),
            "score": rng.normal(size=rows),
            "fold": np.repeat(np.arange(QUERIES) % 4, DOCUMENTS),
        }
    )
    parts.write_table(tmp_path / "scores.parquet", frame, tables.scores(qid=tables.QID_INT))
    del frame
    files = [str(tmp_path / "scores.parquet"), str(tmp_path / "selection.parquet")]
    costs = compare(f"selection, {rows:,} rows", PROGRAMS, files)
    if "pandas groupby rank" in costs:
        ours, pandas = costs["ranksieve, top-20, SELECTION written"], costs["pandas groupby rank"]
        assert ours.cpu < pandas.cpu
        assert ours.memory < pandas.memory
