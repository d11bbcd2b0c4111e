"""Parquet into LightGBM, the first time and from the cache, beside its own loaders: `make bench`.

Starting Python and importing LightGBM costs more than loading the cache: the table is of whole processes, the
last ratio is taken inside of one.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.config import IngestConfig, SplitConfig
from pipeline.dataset import ingest
from pipeline.dataset.sources import Source, SplitSource
from tests.bench.timing import Program, compare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

LEAN = "import sys; sys.modules.update(dict.fromkeys(('sklearn', 'pandas')))\n"  # as where trainings run
START = """
import sys
from pathlib import Path
import lightgbm
from pipeline.ranker import binning
parameters = {"verbosity": -1, "num_threads": 1, "force_col_wise": True, "enable_bundle": False}
"""
PROGRAMS = {
    "ranksieve, bins from Parquet, cached": Program(
        LEAN
        + START
        + "full = binning.build([Path(sys.argv[2]) / 'set/train/part-00000.parquet'], parameters=parameters)\n"
        + "Path(sys.argv[2], 'bins.bin').unlink(missing_ok=True)\n"
        + "full.save_binary(Path(sys.argv[2], 'bins.bin'))\n"
    ),
    "ranksieve, bins from the cache": Program(
        LEAN + START + "binning.load(Path(sys.argv[2]) / 'bins.bin', parameters)\n"
    ),
    "LightGBM from an Arrow table of the Parquet": Program(
        START
        + "import pyarrow.parquet as pq\n"
        + "table = pq.read_table(sys.argv[2] + '/set/train/part-00000.parquet')\n"
        + "label = table['label']\n"
        + "table = table.drop_columns(['row_id', 'qid', 'label'])\n"
        + "lightgbm.Dataset(table, label=label, params=parameters).construct()\n"
    ),
    "LightGBM from text": Program(
        START + "lightgbm.Dataset(sys.argv[1][:-3] + 'noqid', params=parameters).construct()\n"
    ),
}
INSIDE = (
    START
    + """
import time
def cost(make):
    began = time.process_time()
    make()
    return time.process_time() - began
load = min(cost(lambda: binning.load(Path(sys.argv[2]) / "bins.bin", parameters)) for _ in range(5))
text = cost(lambda: lightgbm.Dataset(sys.argv[1][:-3] + "noqid", params=parameters).construct())
print(load, text)
"""
)


def test_binned(text: Callable[[str], Path], tmp_path: Path) -> None:
    """Loading the cache costs a fiftieth of reading the text; binning holds the bins and a row group or so."""
    path = text("mslr")
    source = Source(path, "splits", (SplitSource("train", (path,)),))
    ingest.run(source, tmp_path / "set", config=IngestConfig(), split=SplitConfig(), seed=1)
    files = [str(path), str(tmp_path)]
    costs = compare("into LightGBM, mslr", PROGRAMS, files)
    inside = subprocess.run(
        [sys.executable, "-c", INSIDE, *files], check=True, capture_output=True, text=True
    ).stdout
    load, read = map(float, inside.split())
    size = (tmp_path / "bins.bin").stat().st_size / 1e6
    print(
        f"loading {size:.0f} MB of bins: {load:.2f} CPU s, LightGBM's text: {read:.1f}, {read / load:.0f} times"
    )
    assert read > 50 * load
    assert costs["ranksieve, bins from Parquet, cached"].memory < 1.3 * size + 300
